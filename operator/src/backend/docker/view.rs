//! What is known of one host, kept right while answers overtake each other: pure, no I/O.
//!
//! Every observation takes a ticket when it is *begun*; what it says is as new as its ticket or newer.
//! For each container the newest ticket that was heeded is kept, and an answer with an older one is
//! discarded: a list begun before a step ended cannot undo what the step saw, a slow inspect cannot
//! bring a dead container back to life, and what was removed stays removed (ids are never used twice).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bollard::models::{EventMessage, EventMessageTypeEnum};

use super::instance::{Check, Ours};
use super::labels::{Me, Whose};
use super::probe::{Target, Verdict};
use super::wire::{Info, Inspect, Summary};
use crate::model::{
    HostSpec, HostView, Instance, InstanceId, Probe, Resources, Seen, ServiceName, State, Time,
    Traffic,
};

/// When an observation was begun, in the host's own order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Ticket(u64);

/// Whether an observation was heeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heed {
    Taken,
    /// Something newer is known: look again.
    Stale,
    /// The container is gone for good.
    Gone,
}

/// What an event asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Todo {
    Nothing,
    /// Inspect one of ours.
    Inspect(Arc<str>),
    /// List one foreign container.
    Foreign(Arc<str>),
    /// List our networks.
    Networks,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Foreign {
    name: Option<Arc<str>>,
    ports: Vec<u16>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    at: Ticket,
    gone: bool,
}

/// Longer ids are nobody's.
const LONGEST_ID: usize = 128;

/// All that is known of one host.
#[derive(Debug)]
pub(super) struct Live {
    me: Me,
    seen: Seen,
    capacity: Resources,
    ours: BTreeMap<Arc<str>, Ours>,
    foreign: BTreeMap<Arc<str>, Foreign>,
    networks: BTreeSet<Arc<str>>,
    networks_at: Ticket,
    probes: Arc<BTreeMap<ServiceName, Probe>>,
    last: Ticket,
    known: BTreeMap<Arc<str>, Known>,
    previous_list: Ticket,
    warned: BTreeSet<Arc<str>>,
    published: Arc<HostView>,
}

impl Live {
    pub(super) fn new(me: Me, now: Time) -> Self {
        Self {
            me,
            seen: Seen::Never { since: now },
            capacity: Resources::default(),
            ours: BTreeMap::new(),
            foreign: BTreeMap::new(),
            networks: BTreeSet::new(),
            networks_at: Ticket::default(),
            probes: Arc::default(),
            last: Ticket::default(),
            known: BTreeMap::new(),
            previous_list: Ticket::default(),
            warned: BTreeSet::new(),
            published: Arc::new(HostView::never(now)),
        }
    }

    /// A ticket for an observation that is about to be asked for.
    pub(super) fn begin(&mut self) -> Ticket {
        self.last.0 += 1;
        self.last
    }

    /// The newest published view.
    pub(super) fn published(&self) -> Arc<HostView> {
        Arc::clone(&self.published)
    }

    /// Publishes what is known, if that is not what was published last.
    pub(super) fn publish(&mut self) -> bool {
        let view = self.view();
        let changed = view != *self.published;
        if changed {
            self.published = Arc::new(view);
        }
        changed
    }

    fn view(&self) -> HostView {
        let instance = |(id, o): (&Arc<str>, &Ours)| Instance {
            id: InstanceId(Arc::clone(id)),
            name: Arc::clone(&o.name),
            service: o.identity.service.clone(),
            slot: o.identity.slot,
            hash: o.identity.hash,
            state: o.state,
            health: o.health(self.probes.contains_key(&o.identity.service)),
            created: o.created,
            resources: o.resources,
            published: o.published.clone(),
            bindings: o.tcp.clone(),
            networks: o.networks.clone(),
            at: None,
            traffic: Traffic::None,
        };
        HostView {
            seen: self.seen,
            capacity: self.capacity,
            instances: self.ours.iter().map(instance).collect(),
            foreign_names: self.foreign.values().filter_map(|f| f.name.clone()).collect(),
            foreign_ports: self.foreign.values().flat_map(|f| f.ports.iter().copied()).collect(),
            networks: self.networks.clone(),

            apps: BTreeMap::new(),
        }
    }

    pub(super) fn capacity(&mut self, info: &Info) {
        self.capacity =
            Resources { cpu_millis: info.ncpu.saturating_mul(1000), memory_bytes: info.mem_total };
    }

    /// Everything that was there has been looked at: the view can be believed.
    pub(super) fn arrived(&mut self) {
        self.seen = Seen::Now;
    }

    /// The host does not answer any more; what was known is kept.
    pub(super) fn lost(&mut self, now: Time) {
        if self.seen == Seen::Now {
            self.seen = Seen::Silent { since: now };
        }
    }

    pub(super) fn set_probes(&mut self, probes: Arc<BTreeMap<ServiceName, Probe>>) {
        for o in self.ours.values_mut() {
            let service = &o.identity.service;
            // Until now it counted as healthy because nobody asked; from now on it is asked.
            if probes.contains_key(service) && !self.probes.contains_key(service) {
                o.verdict = Verdict::unasked();
            }
        }
        self.probes = probes;
    }

    /// Whether it is one of ours, as far as has been seen.
    pub(super) fn ours(&self, id: &str) -> Option<&Ours> {
        self.ours.get(id)
    }

    pub(super) fn has_network(&self, name: &str) -> bool {
        self.networks.contains(name)
    }

    pub(super) fn is_gone(&self, id: &str) -> bool {
        self.known.get(id).is_some_and(|k| k.gone)
    }

    /// It was removed, whoever says so.
    pub(super) fn gone(&mut self, id: &str) {
        self.leave_out(id, true);
        self.warned.remove(id);
    }

    /// The engine said that there is no such container. Under load it has said so of one that it had just made: whoever
    /// is asked for again and found is there.
    pub(super) fn absent(&mut self, id: &str) {
        self.leave_out(id, false);
    }

    fn leave_out(&mut self, id: &str, gone: bool) {
        let at = self.begin();
        self.known.insert(id.into(), Known { at, gone });
        self.ours.remove(id);
        self.foreign.remove(id);
    }

    fn stale(&self, id: &str, begun: Ticket) -> Option<Heed> {
        let known = self.known.get(id)?;
        if known.gone {
            return Some(Heed::Gone);
        }
        (known.at > begun).then_some(Heed::Stale)
    }

    /// An inspect has answered; `None`: there is no such container.
    pub(super) fn inspected(
        &mut self,
        begun: Ticket,
        id: &Arc<str>,
        answer: Option<&Inspect>,
        now: Time,
    ) -> Heed {
        if let Some(why) = self.stale(id, begun) {
            return why;
        }
        let Some(found) = answer else {
            self.absent(id);
            return Heed::Gone;
        };
        self.known.insert(Arc::clone(id), Known { at: begun, gone: false });
        let labels = found.config.labels.as_ref();
        let whose = self.me.whose(|k| labels.and_then(|l| l.get(k)).map(String::as_str));
        match whose {
            Whose::Ours(identity) => {
                self.foreign.remove(id);
                let before = self.ours.remove(id);
                // Until everything was looked at, whatever runs may have run for days.
                let witnessed = self.seen == Seen::Now;
                let read = Ours::read(identity, found, before, witnessed, now);
                self.ours.insert(Arc::clone(id), read);
            }
            Whose::Garbled(why) => {
                self.warn(id, &found.name, &why);
                self.ours.remove(id);
                let name = found.name.strip_prefix('/').unwrap_or(&found.name).into();
                let ports = Ours::host_ports(found);
                self.foreign.insert(Arc::clone(id), Foreign { name: Some(name), ports });
            }
            Whose::Foreign => {
                self.ours.remove(id);
            }
        }
        Heed::Taken
    }

    fn warn(&mut self, id: &Arc<str>, name: &str, why: &str) {
        if self.warned.insert(Arc::clone(id)) {
            tracing::warn!(
                container = name,
                "container carries our owner label but is not one of ours, and is left alone: {why}"
            );
        }
    }

    /// A list has answered. `only`: it was a list of these. Returns which of ours must be inspected.
    pub(super) fn listed(
        &mut self,
        begun: Ticket,
        all: &[Summary],
        only: Option<&BTreeSet<Arc<str>>>,
    ) -> BTreeSet<Arc<str>> {
        let mut present: BTreeSet<&str> = BTreeSet::new();
        let mut inspect = BTreeSet::new();
        for s in all.iter().filter(|s| !s.id.is_empty() && s.id.len() <= LONGEST_ID) {
            present.insert(&s.id);
            if self.is_gone(&s.id) {
                continue;
            }
            let labels = s.labels.as_ref();
            let whose = self.me.whose(|k| labels.and_then(|l| l.get(k)).map(String::as_str));
            let id: Arc<str> = s.id.as_str().into();
            if let Whose::Ours(_) = whose {
                if !self.ours.get(&id).is_some_and(|o| agrees(o, s)) {
                    inspect.insert(id);
                }
                continue;
            }
            if self.stale(&id, begun).is_some() {
                continue;
            }
            if let Whose::Garbled(why) = &whose {
                self.warn(&id, s.name().unwrap_or_default(), why);
            }
            let ports = s.ports.iter().flatten().filter_map(|p| p.public_port);
            let mut ports: Vec<u16> = ports.filter(|p| *p != 0).collect();
            ports.sort_unstable();
            ports.dedup();
            let it = Foreign { name: s.name().map(Into::into), ports };
            self.known.insert(Arc::clone(&id), Known { at: begun, gone: false });
            self.foreign.insert(id, it);
        }
        let known = &self.known;
        let stays = |id: &Arc<str>| {
            present.contains(&**id)
                || only.is_some_and(|ids| !ids.contains(id))
                || known.get(id).is_some_and(|k| k.at > begun)
        };
        self.ours.retain(|id, _| stays(id));
        self.foreign.retain(|id, _| stays(id));
        if only.is_none() {
            // What two lists in a row were begun after can no longer be contradicted by anything in flight.
            let (horizon, ours, foreign) = (self.previous_list, &self.ours, &self.foreign);
            self.known.retain(|id, k| {
                k.at > horizon || ours.contains_key(id) || foreign.contains_key(id)
            });
            self.warned.retain(|id| foreign.contains_key(id));
            self.previous_list = begun;
        }
        inspect
    }

    /// Our networks have been listed.
    pub(super) fn networks_listed(&mut self, begun: Ticket, names: BTreeSet<Arc<str>>) {
        if begun >= self.networks_at {
            self.networks_at = begun;
            self.networks = names;
        }
    }

    /// We made a network, or removed one.
    pub(super) fn network(&mut self, name: &str, there: bool) {
        self.networks_at = self.begin();
        if there {
            self.networks.insert(name.into());
        } else {
            self.networks.remove(name);
        }
    }

    /// Something happened on the host.
    pub(super) fn event(&mut self, event: &EventMessage) -> Todo {
        if event.typ == Some(EventMessageTypeEnum::NETWORK) {
            return Todo::Networks;
        }
        let Some(actor) = event.actor.as_ref() else { return Todo::Nothing };
        let id = actor.id.as_deref().unwrap_or_default();
        if event.typ != Some(EventMessageTypeEnum::CONTAINER)
            || id.is_empty()
            || id.len() > LONGEST_ID
            || self.is_gone(id)
        {
            return Todo::Nothing;
        }
        let action = event.action.as_deref().unwrap_or_default();
        if action == "destroy" {
            self.gone(id);
            return Todo::Nothing;
        }
        let none = HashMap::new();
        let said = actor.attributes.as_ref().unwrap_or(&none);
        let ours = self.ours.contains_key(id)
            || matches!(self.me.whose(|k| said.get(k).map(String::as_str)), Whose::Ours(_));
        if !ours {
            return Todo::Foreign(id.into());
        }
        if action == "die" || action == "oom" {
            let at = self.begin();
            if let Some(o) = self.ours.get_mut(id) {
                let when = event.time_nano.or(event.time.map(|s| s.saturating_mul(1_000_000_000)));
                // An event that was overtaken by an inspect of the next start is about the one before.
                if when.is_none_or(|t| t >= o.started) {
                    if action == "oom" {
                        o.out_of_memory = true;
                    } else {
                        let code = said.get("exitCode").and_then(|c| c.parse().ok()).unwrap_or(-1);
                        o.state = State::Exited { code, out_of_memory: o.out_of_memory };
                        self.known.insert(id.into(), Known { at, gone: false });
                    }
                }
            }
        }
        Todo::Inspect(id.into())
    }

    /// What is to be probed, and where it is reached.
    pub(super) fn targets(&self, host: &HostSpec) -> Vec<Target> {
        let running = |o: &Ours| matches!(o.state, State::Running | State::Paused);
        self.ours
            .iter()
            .filter(|(_, o)| running(o))
            .filter_map(|(id, o)| {
                let probe = self.probes.get(&o.identity.service)?;
                let at = o.reached(host, probe.port);
                Some(Target { id: Arc::clone(id), started: o.started, probe: probe.clone(), at })
            })
            .collect()
    }

    /// A probe has answered.
    pub(super) fn probed(&mut self, target: &Target, ok: bool, now: Time) {
        if let Some(o) = self.ours.get_mut(&target.id)
            && o.started == target.started
        {
            o.verdict.answer(ok, &target.probe, o.running_since, now);
        }
    }
}

/// Whether a list's short form says what is known.
fn agrees(o: &Ours, s: &Summary) -> bool {
    let check = match &s.status {
        t if t.contains("(healthy)") => Check::Healthy,
        t if t.contains("(unhealthy)") => Check::Unhealthy,
        t if t.contains("(health: starting)") => Check::Starting,
        _ => Check::None,
    };
    let running = o.state == State::Running;
    s.name() == Some(&o.name) && o.same_word(&s.state) && (!running || check == o.check)
}

#[cfg(test)]
mod tests;
