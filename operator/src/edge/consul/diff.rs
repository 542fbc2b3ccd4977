//! The difference between what should be registered and what is: pure, and the only place that decides on a change.
//!
//! It must never name an entry that does not say that it is ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::{Entry, Ours};
use super::wire::Catalog;
use crate::model::{HostName, InstanceId, Registrations};

/// What should be registered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Want {
    /// By id.
    pub(super) entries: BTreeMap<String, Arc<Entry>>,
    /// The same, in the order of their ids: with a thousand hosts, nobody looks through all of them for one's own.
    pub(super) by_host: BTreeMap<HostName, Vec<Arc<Entry>>>,
    pub(super) unknown_hosts: BTreeSet<HostName>,
}

impl Want {
    pub(super) fn new(ours: &Ours, registrations: &Registrations) -> Self {
        let entries = registrations.entries.values().map(|r| {
            let entry = ours.entry(r);
            (entry.id.clone(), Arc::new(entry))
        });
        let entries: BTreeMap<_, _> = entries.collect();
        let mut by_host: BTreeMap<HostName, Vec<Arc<Entry>>> = BTreeMap::new();
        for entry in entries.values() {
            by_host.entry(entry.host.clone()).or_default().push(Arc::clone(entry));
        }
        Self { entries, by_host, unknown_hosts: registrations.unknown_hosts.clone() }
    }

    pub(super) fn instances(&self) -> BTreeSet<InstanceId> {
        self.entries.values().map(|entry| entry.instance.clone()).collect()
    }
}

/// What one agent has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct AgentLook {
    /// Everything with an id of ours.
    pub(super) services: BTreeMap<String, Observed>,
    /// The node that its checks name.
    pub(super) node: Option<String>,
}

impl AgentLook {
    /// What the servers know of it once they have heard: ids, and whether each is in maintenance.
    pub(super) fn told(&self) -> BTreeMap<String, bool> {
        self.services.iter().map(|(id, observed)| (id.clone(), observed.maintenance)).collect()
    }
}

/// One service of an agent, with an id of ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Observed {
    /// Whether its meta says so too.
    pub(super) own: bool,
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) meta: BTreeMap<String, String>,
    /// Whether its own check is there.
    pub(super) checked: bool,
    pub(super) maintenance: bool,
}

impl Observed {
    fn is(&self, entry: &Entry) -> bool {
        let form = &entry.form;
        self.checked
            && self.name == form.name
            && self.tags == form.tags
            && self.address == form.address
            && self.port == form.port
            && self.meta == form.meta
    }
}

/// Whose agent knows a host's instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// This one.
    Mine,
    /// Another one, on another node for certain.
    Another,
    /// Not known for certain: its agent has not said which node it is.
    Unsure,
}

/// A change at one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Register(Arc<Entry>),
    Maintain { id: String, on: bool },
    Deregister { id: String },
}

impl Call {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Register(entry) => &entry.id,
            Self::Maintain { id, .. } | Self::Deregister { id } => id,
        }
    }
}

/// What to change at an agent, and the ids that should be registered but are taken by somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Diff {
    /// In their order: what is new first, what goes last.
    pub(super) calls: Vec<Call>,
    pub(super) taken: Vec<String>,
}

/// What brings an agent to where it should be.
pub(super) fn diff(
    ours: &Ours,
    want: &Want,
    look: &AgentLook,
    whose: impl Fn(&HostName) -> Whose,
) -> Diff {
    let mut diff = Diff::default();
    let (mut maintain, mut leave) = (Vec::new(), Vec::new());
    let kept = |host: &HostName| want.unknown_hosts.contains(host);
    let hosts = want.by_host.iter().filter(|(host, _)| !kept(host) && whose(host) == Whose::Mine);
    for entry in hosts.flat_map(|(_, entries)| entries) {
        let id = &entry.id;
        let observed = look.services.get(id);
        if observed.is_some_and(|observed| !observed.own) {
            diff.taken.push(id.clone());
            continue;
        }
        if !observed.is_some_and(|observed| observed.is(entry)) {
            diff.calls.push(Call::Register(Arc::clone(entry)));
        }
        if observed.is_some_and(|observed| observed.maintenance) != entry.drain {
            maintain.push(Call::Maintain { id: id.clone(), on: entry.drain });
        }
    }
    for (id, _) in look.services.iter().filter(|(_, observed)| observed.own) {
        let Some(identity) = ours.read(id) else { continue };
        let wanted = want.entries.contains_key(id);
        // One that another agent should have is a leftover here, unless the other agent is this one by another name.
        if !kept(&identity.host) && (!wanted || whose(&identity.host) == Whose::Another) {
            leave.push(Call::Deregister { id: id.clone() });
        }
    }
    diff.calls.append(&mut maintain);
    diff.calls.append(&mut leave);
    diff
}

/// What is known of the agents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Agents {
    /// The node of each host's agent, where it answers.
    pub(super) of_host: BTreeMap<HostName, String>,
    /// The nodes whose agents answer.
    pub(super) answering: BTreeSet<String>,
}

/// Entries that the servers know and that no agent can take back, by node: those of dead hosts.
pub(super) fn leftovers(
    ours: &Ours,
    want: &Want,
    catalog: &Catalog,
    agents: &Agents,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut left: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (node, entries) in &catalog.nodes {
        // Its agent is asked, and what it is told to leave out goes here by itself.
        if agents.answering.contains(node) {
            continue;
        }
        for id in entries.keys() {
            let Some(identity) = ours.read(id) else { continue };
            if want.unknown_hosts.contains(&identity.host) {
                continue;
            }
            // A wanted one on another node than its host's agent is what an earlier agent left behind.
            let elsewhere = agents.of_host.get(&identity.host).is_some_and(|own| own != node);
            if !want.entries.contains_key(id) || elsewhere {
                left.entry(node.clone()).or_default().insert(id.clone());
            }
        }
    }
    left
}
