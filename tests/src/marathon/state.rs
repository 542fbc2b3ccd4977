//! All that a Marathon knows, and what changes it: requests, reports of tasks, and time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::advance::Forgotten;
use super::agents::Agent;
use super::app::App;
use super::deployment::Deployment;
use super::event::Event;
use super::instance::{Failure, Instance};
use super::launch::Launch;
use super::normal::Customs;
use super::path::AppId;
use super::release::Release;
use super::runner::Order;
use super::stamp::Stamp;
use super::tree::Tree;

/// How many versions of anything are kept.
pub(super) const MOST_VERSIONS: usize = 50;

/// What a server is set to.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) release: Release,
    pub(super) features: Vec<String>,
    pub(super) network: Option<String>,
    pub(super) role: String,
    pub(super) most_deployments: usize,
    pub(super) local_ports: (u16, u16),
    /// From the acceptance of a deployment to its first step.
    pub(super) deployment_delay: Duration,
    /// From a wanted instance to the offer that takes it.
    pub(super) offer_delay: Duration,
    /// How long what definitions call a second is.
    pub(super) second: Duration,
    /// Seconds until counts are looked at again where nothing happened.
    pub(super) heal_seconds: f64,
}

impl Settings {
    /// So many seconds of definitions.
    pub(super) fn seconds(&self, count: f64) -> Duration {
        super::app::seconds(count, self.second)
    }

    pub(super) fn task_killing(&self) -> bool {
        self.features.iter().any(|feature| feature == "task_killing")
    }
}

/// The whole of it.
pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) tree: Arc<Tree>,
    /// What the tree was, the newest last.
    pub(super) trees: VecDeque<Arc<Tree>>,
    pub(super) versions: BTreeMap<AppId, BTreeMap<Stamp, Arc<App>>>,
    pub(super) instances: BTreeMap<AppId, Vec<Instance>>,
    pub(super) agents: BTreeMap<String, Agent>,
    /// The running ones, the oldest first.
    pub(super) deployments: Vec<Deployment>,
    pub(super) launches: BTreeMap<AppId, Launch>,
    pub(super) failures: BTreeMap<AppId, Failure>,
    /// Apps that time has something to do with.
    pub(super) busy: BTreeSet<AppId>,
    /// When to count again the instances of an app.
    pub(super) heal: BTreeMap<AppId, Stamp>,
    /// What happened since somebody took it.
    pub(super) events: Vec<Event>,
    /// What is to be done with tasks, since somebody took it.
    pub(super) orders: Vec<Order>,
    /// Apps whose deployments do nothing.
    pub(super) held: BTreeSet<AppId>,
    pub(super) forgotten: Vec<Forgotten>,
    last: Stamp,
    ids: u64,
}

impl State {
    pub(super) fn new(settings: Settings, agents: Vec<Agent>, seed: u64) -> Self {
        let number =
            |(number, agent): (usize, Agent)| (agent.host.clone(), Agent { number, ..agent });
        Self {
            settings,
            tree: Arc::default(),
            trees: VecDeque::new(),
            versions: BTreeMap::new(),
            instances: BTreeMap::new(),
            agents: agents.into_iter().enumerate().map(number).collect(),
            deployments: Vec::new(),
            launches: BTreeMap::new(),
            failures: BTreeMap::new(),
            busy: BTreeSet::new(),
            heal: BTreeMap::new(),
            events: Vec::new(),
            orders: Vec::new(),
            held: BTreeSet::new(),
            forgotten: Vec::new(),
            last: Stamp::default(),
            ids: seed,
        }
    }

    /// What definitions are judged by, for an app or group of this id.
    pub(super) fn customs(&self, id: &AppId) -> Customs {
        let Settings { release, features, network, role, .. } = &self.settings;
        let top = AppId::absolute(id.first());
        let enforced = self.tree.groups.get(&top).is_some_and(|g| g.enforce_role == Some(true));
        let own = || top.last().to_owned();
        let old = self.tree.apps.get(id).and_then(|app| app.get("role").as_str());
        let mut roles: Vec<String> = old.map(str::to_owned).into_iter().collect();
        roles.push(if enforced { own() } else { role.clone() });
        if !enforced && !id.parent().is_root() {
            roles.push(own());
        }
        roles.dedup();
        Customs {
            release: *release,
            network: network.clone(),
            features: features.clone(),
            role: if enforced { own() } else { role.clone() },
            roles,
        }
    }

    /// A moment that no change had before.
    pub(super) fn stamp(&mut self, now: Stamp) -> Stamp {
        self.last = now.max(Stamp(self.last.0 + 1));
        self.last
    }

    /// An id that nothing else has.
    pub(super) fn uuid(&mut self) -> String {
        let mut word = || {
            self.ids = self.ids.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut x = self.ids;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        let (high, low) = (word(), word());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | (low >> 48) & 0x3fff,
            low & 0xffff_ffff_ffff,
        )
    }

    pub(super) fn instances_of(&self, app: &AppId) -> &[Instance] {
        self.instances.get(app).map_or(&[], Vec::as_slice)
    }

    pub(super) fn instance_mut(&mut self, app: &AppId, uuid: &str) -> Option<&mut Instance> {
        self.instances.get_mut(app)?.iter_mut().find(|instance| instance.uuid == uuid)
    }

    /// The deployments that have something to do with an app.
    pub(super) fn deployments_of(&self, app: &AppId) -> impl Iterator<Item = &Deployment> {
        self.deployments.iter().filter(move |deployment| deployment.affected.contains(app))
    }

    pub(super) fn is_locked(&self, app: &AppId) -> bool {
        self.deployments_of(app).next().is_some()
    }

    pub(super) fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}
