//! A simulated registry: it has what it was told, a moment late, and leads clients by it whether it answers or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    ConsulSpec, EntryView, HostName, InstanceId, Registrations, RegistrySpec, RegistryView, Seen,
    Target, Time,
};

/// How long it takes to follow.
const FOLLOWS: Duration = Duration::from_millis(100);

/// The registry of the one fleet.
#[derive(Debug, Clone)]
pub struct SimRegistry {
    /// What clients are led by.
    pub entries: BTreeMap<InstanceId, SimEntry>,
    /// It has no leader: it takes no change and does not answer, and clients keep what they were told.
    pub mute: bool,
    order: Option<(Arc<Registrations>, Time)>,
    view: RegistryView,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimEntry {
    /// Whether it is in maintenance.
    pub target: Target,
    /// Since when it is as it is.
    pub since: Time,
    host: HostName,
}

/// What a document says of a registry that exists.
pub fn spec() -> RegistrySpec {
    RegistrySpec::Existing(ConsulSpec {
        address: "http://127.0.0.1:8500".into(),
        agent_port: None,
        token: None,
        tls: None,
    })
}

impl SimRegistry {
    /// Empty, and not asked yet.
    pub fn new(now: Time) -> Self {
        Self { entries: BTreeMap::new(), mute: false, order: None, view: never(now) }
    }

    pub(super) fn view(&self) -> Arc<RegistryView> {
        Arc::new(self.view.clone())
    }

    pub(super) fn publish(&mut self, wanted: &Arc<Registrations>, now: Time) {
        if self.order.as_ref().is_none_or(|(known, _)| known != wanted) {
            self.order = Some((wanted.clone(), now.plus(FOLLOWS)));
        }
    }

    /// A new agent has asked nothing yet, and has ordered nothing.
    pub(super) fn forget(&mut self, now: Time) {
        self.view = never(now);
        self.order = None;
    }

    pub(super) fn live(&mut self, now: Time) {
        if self.mute {
            if self.view.seen == Seen::Now {
                self.view.seen = Seen::Silent { since: now };
            }
            return;
        }
        self.follow(now);
        let told =
            |e: &SimEntry| EntryView { maintenance: e.target == Target::Drain, since: e.since };
        let entries = self.entries.iter().map(|(id, e)| (id.clone(), told(e))).collect();
        self.view = RegistryView { seen: Seen::Now, entries, problem: None };
    }

    fn follow(&mut self, now: Time) {
        let Some((wanted, due)) = &self.order else { return };
        if *due > now {
            return;
        }
        let unknown: &BTreeSet<HostName> = &wanted.unknown_hosts;
        self.entries.retain(|id, e| wanted.entries.contains_key(id) || unknown.contains(&e.host));
        for (id, entry) in &wanted.entries {
            if self.entries.get(id).is_none_or(|known| known.target != entry.target) {
                let new = SimEntry { target: entry.target, since: now, host: entry.host.clone() };
                self.entries.insert(id.clone(), new);
            }
        }
    }

    pub(super) fn is_restless(&self, now: Time) -> bool {
        self.view.seen != Seen::Now || self.order.as_ref().is_some_and(|(_, due)| *due > now)
    }
}

fn never(since: Time) -> RegistryView {
    RegistryView { seen: Seen::Never { since }, entries: BTreeMap::new(), problem: None }
}
