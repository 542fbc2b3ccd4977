//! A simulated Marathon cluster: apps, tasks, deployments and agents that do what Marathon does, late, halfway or not at all.
//!
//! Tasks behave as their image's name says, see [`super::host`]. A deployment takes time, locks its app, never gives up by
//! itself, and kills by its own rules: what the agent wants to be careful with it must do before.

mod app;
mod deploy;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use app::SimApp;
use deploy::Kind;
pub use deploy::SimDeployment;
pub use task::{SimTask, TaskState};

use super::host::{Fate, Refused};
use crate::model::{
    AppAct, AppId, AppStep, AppView, Definition, Deployment, HostView, InstanceId, Resources, Seen,
    ServiceName, SpecHash, Time, Whose,
};

/// The port before the first that a machine gives.
const FIRST_PORT: u16 = 31_000;

/// A simulated cluster.
#[derive(Debug, Clone)]
pub struct SimMarathon {
    /// Everybody's apps.
    pub apps: BTreeMap<AppId, SimApp>,
    /// The machines that tasks run on.
    pub agents: Vec<SimAgent>,
    /// Marathon does not answer; its tasks go on.
    pub silent: bool,
    /// How many tasks the agents have room for.
    pub room: usize,
    /// Changes that are under way.
    pub deployments: BTreeMap<Arc<str>, SimDeployment>,
    /// It is of a release before 1.11, in which a restart is no change of what an app is.
    pub old: bool,
    claims: BTreeMap<AppId, ServiceName>,
    silent_from: Time,
    /// It answers again, and what was last seen of it is from before.
    stale: bool,
    seen: Seen,
    last: Arc<HostView>,
    now: Time,
    next: u32,
}

/// One machine.
#[derive(Debug, Clone)]
pub struct SimAgent {
    /// Where its ports are reached.
    pub address: IpAddr,
    /// Marathon does not hear of it; its tasks go on, and clients reach them.
    pub lost: bool,
    lost_from: Time,
    next_port: u16,
}

impl SimMarathon {
    /// A cluster of machines at these addresses, without an app.
    pub fn new(agents: &[IpAddr], now: Time) -> Self {
        let agent = |address: &IpAddr| SimAgent {
            address: *address,
            lost: false,
            lost_from: now,
            next_port: FIRST_PORT,
        };
        Self {
            apps: BTreeMap::new(),
            agents: agents.iter().map(agent).collect(),
            silent: false,
            room: 1000,
            deployments: BTreeMap::new(),
            old: false,
            claims: BTreeMap::new(),
            silent_from: now,
            stale: false,
            seen: Seen::Never { since: now },
            last: Arc::new(HostView::never(now)),
            now,
            next: 0,
        }
    }

    /// Whether the agent can believe what it knows of the cluster.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Somebody makes an app by hand.
    pub fn add(&mut self, id: AppId, whose: Whose, definition: Definition, instances: u32) {
        self.apps.insert(id, SimApp::new(whose, Arc::new(definition), instances));
    }

    /// Somebody changes an app by hand, as a deployment; `false` when it is locked or not there.
    pub fn edit(&mut self, id: &AppId, change: impl FnOnce(&mut Definition)) -> bool {
        let Some(app) = self.apps.get_mut(id) else { return false };
        if self.deployments.values().any(|d| d.apps.contains(id)) {
            return false;
        }
        change(Arc::make_mut(&mut app.definition));
        app.configure();
        self.begin(id, Kind::replace());
        self.publish();
        true
    }

    /// Somebody scales an app by hand; `false` when it is locked or not there.
    pub fn scale(&mut self, id: &AppId, instances: u32) -> bool {
        let Some(app) = self.apps.get_mut(id) else { return false };
        if self.deployments.values().any(|d| d.apps.contains(id)) {
            return false;
        }
        app.instances = instances;
        self.begin(id, Kind::Scale);
        self.publish();
        true
    }

    /// Somebody else's deployment locks apps for a while.
    pub fn lock(&mut self, ids: impl IntoIterator<Item = AppId>, for_: Duration) {
        let kind = Kind::Foreign { until: self.now.plus(for_) };
        let (apps, begun) = (ids.into_iter().collect(), self.now);
        let id = self.fresh("foreign");
        self.deployments.insert(id, SimDeployment { apps, kind, begun });
        self.publish();
    }

    /// Marathon falls silent.
    pub fn silence(&mut self) {
        if !self.silent {
            (self.silent, self.silent_from) = (true, self.now);
        }
    }

    /// Marathon answers again.
    pub fn answer(&mut self) {
        self.stale |= std::mem::take(&mut self.silent);
    }

    /// Marathon loses sight of a machine.
    pub fn lose_agent(&mut self, nth: usize) {
        let now = self.now;
        if let Some(agent) = self.agents.get_mut(nth).filter(|a| !a.lost) {
            (agent.lost, agent.lost_from) = (true, now);
        }
    }

    /// It hears of the machine again, and of what still runs there.
    pub fn return_agent(&mut self, nth: usize) {
        if let Some(agent) = self.agents.get_mut(nth) {
            agent.lost = false;
        }
    }

    /// A machine begins anew: what ran there has ended, Marathon has lost sight of it, and new tasks get its ports.
    pub fn reboot_agent(&mut self, nth: usize) {
        let Some(agent) = self.agents.get_mut(nth) else { return };
        (agent.lost, agent.next_port) = (false, FIRST_PORT);
        for task in self.apps.values_mut().flat_map(|app| app.tasks.values_mut()) {
            task.orphan |= task.agent == nth;
        }
    }

    /// One of the tasks of an app, those that run first, by a number that need not fit.
    pub fn nth_task(&mut self, id: &AppId, nth: usize) -> Option<&mut SimTask> {
        let app = self.apps.get_mut(id)?;
        app.tasks.values_mut().filter(|t| t.state == TaskState::Running).nth(nth)
    }

    /// A task dies by itself.
    pub fn crash(&mut self, id: &AppId, nth: usize) {
        let found = self.nth_task(id, nth).map(|t| t.id.clone());
        if let (Some(task), Some(app)) = (found, self.apps.get_mut(id)) {
            app.tasks.remove(&task);
        }
    }

    /// Somebody ends a task by hand; another takes its place.
    pub fn kill_by_hand(&mut self, id: &AppId, nth: usize) {
        let now = self.now;
        if let Some(task) = self.nth_task(id, nth) {
            task.kill(now);
        }
    }

    /// Somebody removes an app by hand, with all its tasks.
    pub fn remove(&mut self, id: &AppId) {
        self.deployments.retain(|_, d| !d.apps.contains(id));
        self.apps.remove(id);
    }

    /// Where a task is reached.
    pub fn address(&self, task: &SimTask) -> SocketAddr {
        SocketAddr::new(self.agents[task.agent].address, task.port)
    }

    pub(super) fn watch(&mut self, claims: BTreeMap<AppId, ServiceName>) {
        self.claims = claims;
    }

    /// How long a step takes here.
    pub(super) fn takes(&self) -> Duration {
        if self.silent { super::HANG } else { Duration::from_millis(200) }
    }

    /// Does a step, as far as fate lets it: a request that is cut off halfway has been taken.
    pub(super) fn apply(&mut self, step: &AppStep, fate: Fate) -> Result<(), Refused> {
        if self.silent {
            return Err(Refused::retry("Marathon does not answer"));
        }
        if fate == Fate::Lost {
            return Ok(());
        }
        let outcome = self.ask(step);
        self.publish();
        outcome
    }

    fn ask(&mut self, step: &AppStep) -> Result<(), Refused> {
        let AppStep { app: id, service, act, host: _ } = step;
        let claimed = self.claims.contains_key(id);
        if let Some(app) = self.apps.get(id) {
            let may = match &app.whose {
                Whose::Ours { .. } => true,
                Whose::Nobodys => claimed,
                Whose::Others => false,
            };
            if !may {
                return Err(Refused::reobserve("the app is not ours"));
            }
        }
        self.unlock(id, act.is_forced())?;
        match act {
            AppAct::Put { definition, instances, hash, create, force: _ } => {
                let whose = Whose::Ours { service: service.clone(), hash: Some(*hash) };
                match (self.apps.get_mut(id), create) {
                    (Some(_), true) => return Err(Refused::reobserve("there is such an app")),
                    (None, _) => {
                        let app = SimApp::new(whose, definition.clone(), *instances);
                        self.apps.insert(id.clone(), app);
                        self.begin(id, Kind::Scale);
                    }
                    (Some(app), false) => {
                        let same = app.definition == *definition && app.whose == whose;
                        let scaled = app.instances != *instances;
                        app.instances = *instances;
                        if !same {
                            (app.definition, app.whose) = (definition.clone(), whose);
                            app.configure();
                            (app.last_failure, app.failures) = (None, 0);
                            app.next_launch = Time(0);
                            self.begin(id, Kind::replace());
                        } else if scaled {
                            self.begin(id, Kind::Scale);
                        }
                    }
                }
            }
            AppAct::Scale { instances, force: _ } => {
                let app =
                    self.apps.get_mut(id).ok_or(Refused::reobserve("there is no such app"))?;
                if app.instances != *instances {
                    app.instances = *instances;
                    self.begin(id, Kind::Scale);
                }
            }
            AppAct::Kill { tasks } => {
                let app =
                    self.apps.get_mut(id).ok_or(Refused::reobserve("there is no such app"))?;
                let found: Vec<InstanceId> = tasks
                    .iter()
                    .filter(|id| app.tasks.get(id).is_some_and(|t| !t.is_killing()))
                    .cloned()
                    .collect();
                let count = u32::try_from(found.len()).unwrap_or(u32::MAX);
                app.instances = app.instances.saturating_sub(count);
                app.kill(found, self.now);
                if count > 0 {
                    self.begin(id, Kind::Scale);
                }
            }
            AppAct::Restart { force: _ } => {
                let old = self.old;
                let app =
                    self.apps.get_mut(id).ok_or(Refused::reobserve("there is no such app"))?;
                app.generation += 1;
                if !old {
                    app.configured = app.generation;
                }
                self.begin(id, Kind::replace());
            }
            AppAct::Delete => {
                if self.apps.contains_key(id) {
                    self.begin(id, Kind::Delete);
                }
            }
        }
        Ok(())
    }

    /// Refused while another change of the app is under way, unless that is to be given up.
    fn unlock(&mut self, id: &AppId, force: bool) -> Result<(), Refused> {
        let locked = |d: &SimDeployment| d.apps.contains(id);
        if !self.deployments.values().any(locked) {
            return Ok(());
        }
        if !force {
            return Err(Refused::retry("the app is locked by a deployment"));
        }
        if self.deployments.values().any(|d| locked(d) && d.apps.len() > 1) {
            return Err(Refused::reobserve("it is being changed together with other apps"));
        }
        self.deployments.retain(|_, d| !d.apps.contains(id));
        Ok(())
    }

    fn begin(&mut self, id: &AppId, kind: Kind) {
        let (apps, begun) = (BTreeSet::from([id.clone()]), self.now);
        let name = self.fresh("deployment");
        self.deployments.insert(name, SimDeployment { apps, kind, begun });
    }

    fn fresh(&mut self, what: &str) -> Arc<str> {
        self.next += 1;
        format!("{what}-{:08}", self.next).into()
    }

    pub(super) fn view(&self) -> Arc<HostView> {
        if self.seen == Seen::Now {
            return self.last.clone();
        }
        Arc::new(HostView { seen: self.seen, ..(*self.last).clone() })
    }

    /// A new agent has not asked yet.
    pub(super) fn forget(&mut self) {
        self.seen = Seen::Never { since: self.now };
        self.last = Arc::new(HostView::never(self.now));
        for task in self.apps.values_mut().flat_map(|app| app.tasks.values_mut()) {
            task.forget(self.now);
        }
    }

    /// What happens by itself until `now`.
    pub(super) fn live(&mut self, now: Time, notice: Duration) {
        self.now = now;
        let lost = |at: usize, agents: &[SimAgent]| {
            agents.get(at).is_some_and(|a| a.lost && now.since(a.lost_from) >= notice)
        };
        for app in self.apps.values_mut() {
            let expunge = app.seconds("expungeAfterSeconds");
            let mut failed = None;
            let current = app.generation;
            app.tasks.retain(|_, task| {
                let is_current = task.generation == current;
                let stays = task.live(lost(task.agent, &self.agents), expunge, now);
                if let Err(why) = stays
                    && is_current
                {
                    failed = why.or(failed.take());
                }
                stays.is_ok()
            });
            if let Some(why) = failed {
                app.last_failure = Some(why.to_owned());
                app.failures = (app.failures + 1).min(5);
                app.next_launch = now.plus(Duration::from_secs(1 << app.failures));
            }
        }
        self.deploy();
        self.heal();
        if self.silent {
            if self.seen == Seen::Now && now.since(self.silent_from) >= notice {
                self.seen = Seen::Silent { since: now };
            }
        } else {
            self.seen = Seen::Now;
            self.publish();
        }
    }

    /// Starts as many tasks as an app lacks, as far as there is room.
    fn launch(&mut self, id: &AppId, count: usize) {
        let there: usize = self.apps.values().map(|app| app.tasks.len()).sum();
        for used in there..there + count {
            self.next += 1;
            let number = self.next;
            let up: Vec<usize> = (0..self.agents.len()).filter(|&a| !self.agents[a].lost).collect();
            let Some(app) = self.apps.get_mut(id) else { return };
            if used >= self.room || up.is_empty() || app.next_launch > self.now {
                return;
            }
            let agent = up[number as usize % up.len()];
            self.agents[agent].next_port += 1;
            app.next_slot += 1;
            let place = (agent, self.agents[agent].next_port, app.next_slot);
            let task = SimTask::new(number, app.image(), app.generation, place, self.now);
            app.tasks.insert(task.id.clone(), task);
        }
    }

    /// What Marathon does for apps that nothing else is done to.
    fn heal(&mut self) {
        let ids: Vec<AppId> = self.apps.keys().cloned().collect();
        for id in ids {
            let changing =
                |d: &SimDeployment| d.apps.contains(&id) && !matches!(d.kind, Kind::Foreign { .. });
            if !self.deployments.values().any(changing) {
                self.bring(&id);
            }
        }
    }

    /// Brings an app to its number of instances; returns whether it is there.
    fn bring(&mut self, id: &AppId) -> bool {
        let now = self.now;
        let Some(app) = self.apps.get_mut(id) else { return true };
        let (have, want) = (app.counted(now), app.instances as usize);
        if have > want {
            let order = app.by_rank();
            app.kill(order.into_iter().take(have - want), now);
        } else if have < want {
            self.launch(id, want - have);
        }
        have == want
    }

    fn publish(&mut self) {
        if self.silent || self.seen != Seen::Now {
            return;
        }
        self.stale = false;
        let mut view = HostView { seen: Seen::Now, ..HostView::never(self.now) };
        view.capacity = Resources::default();
        for (id, app) in &self.apps {
            let service = match &app.whose {
                Whose::Ours { service, .. } => Some(self.claims.get(id).unwrap_or(service)),
                Whose::Nobodys => self.claims.get(id),
                Whose::Others => None,
            };
            if service.is_none() && !self.claims.contains_key(id) {
                continue;
            }
            let hash = match &app.whose {
                Whose::Ours { hash, .. } => hash.unwrap_or(SpecHash(0)),
                Whose::Nobodys | Whose::Others => SpecHash(0),
            };
            if let Some(service) = service {
                let tasks = app.tasks.values().map(|task| {
                    let hash = if app.is_current(task) { hash } else { SpecHash(0) };
                    task.instance(service, hash, self.agents[task.agent].address)
                });
                view.instances.extend(tasks);
            }
            view.apps.insert(id.clone(), Arc::new(self.app_view(id, app)));
        }
        view.instances.sort_by(|a, b| a.id.cmp(&b.id));
        self.last = Arc::new(view);
    }

    fn app_view(&self, id: &AppId, app: &SimApp) -> AppView {
        let of = |current: bool| {
            let its = app.tasks.values().filter(|t| app.is_current(t) == current);
            its.map(|t| t.id.clone()).collect::<BTreeSet<_>>()
        };
        let deployments = self.deployments.iter().filter(|(_, d)| d.apps.contains(id));
        let missing = app.counted(self.now) < app.instances as usize;
        AppView {
            whose: app.whose.clone(),
            definition: app.definition.clone(),
            instances: app.instances,
            version: app.generation.to_string().into(),
            current: of(true),
            outdated: of(false),
            deployments: deployments
                .map(|(id, d)| (id.clone(), Deployment { touches: d.apps.len() }))
                .collect(),
            queued: if missing { vec!["no offers".into()] } else { Vec::new() },
            last_failure: app.last_failure.clone(),
        }
    }

    /// Whether something will still happen by itself.
    pub(super) fn is_restless(&self) -> bool {
        if self.silent {
            return self.seen == Seen::Now;
        }
        let moves = |app: &SimApp| {
            app.counted(self.now) != app.instances as usize
                || app.tasks.values().any(|t| t.is_restless(self.now))
        };
        self.stale
            || self.seen != Seen::Now
            || !self.deployments.is_empty()
            || self.apps.values().any(moves)
    }

    /// How many tasks of a service run, seen or not.
    pub fn running(&self, service: &ServiceName) -> usize {
        let its =
            |app: &&SimApp| matches!(&app.whose, Whose::Ours { service: s, .. } if s == service);
        self.apps.values().filter(its).map(|app| app.alive().count()).sum()
    }
}
