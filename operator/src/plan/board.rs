//! The world as the planner works on it: hosts in the order of their names with what is taken on
//! each, and the members of every service. Steps under way are on it already, and every step that
//! is planned is put on it, so that no room is given away twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Input;
use super::shelf::{Class, Shelves};
use crate::model::{
    Fleet, HostName, HostSpec, HostView, Instance, InstanceId, Placement, Plan, Resources, Seen,
    Service, ServiceName, Slot, SpecHash, Start, State, Step, Subject, Time, Whose, Why,
};

/// Starts that failed within the window and make a host the last choice.
const SHUNNED_AFTER: usize = 5;

/// A host with what is taken on it.
pub(super) struct Host<'a> {
    pub(super) spec: &'a HostSpec,
    /// `None`: the backend has no view of it yet.
    pub(super) view: Option<&'a HostView>,
    pub(super) used: Resources,
    pub(super) instances: u32,
    pub(super) ports: BTreeSet<u16>,
    pub(super) starts: u32,
    pub(super) shunned: bool,
}

impl Host<'_> {
    pub(super) fn seen(&self, now: Time) -> Seen {
        self.view.map_or(Seen::Never { since: now }, |v| v.seen)
    }

    fn take(&mut self, resources: Resources) {
        self.instances += 1;
        self.used.cpu_millis += resources.cpu_millis;
        self.used.memory_bytes += resources.memory_bytes;
    }
}

/// One instance of a service, or a start under way.
#[derive(Debug, Clone)]
pub(super) struct Member<'a> {
    /// Its place in `Board::hosts`.
    pub(super) host: usize,
    pub(super) host_name: &'a HostName,
    pub(super) slot: Slot,
    pub(super) hash: SpecHash,
    pub(super) name: &'a Arc<str>,
    /// `None`: its start is under way and the engine does not show it yet.
    pub(super) instance: Option<&'a Instance>,
    /// The step under way on it.
    pub(super) step: Option<&'a Step>,
}

/// What is taken where, and who is where.
pub(super) struct Board<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) hosts: Vec<Host<'a>>,
    /// The fleet's services in the order of their names.
    pub(super) services: Vec<&'a Service>,
    index: Index,
    /// The members of each, in the same order.
    pub(super) members: Vec<Vec<Member<'a>>>,
    /// Members of services that the fleet does not ask for.
    pub(super) orphans: BTreeMap<&'a ServiceName, Vec<Member<'a>>>,
    /// Hosts that may hold anything, with the moment their silence began.
    pub(super) never_seen: Vec<(&'a HostName, Time)>,
    /// Hosts in the order in which they are taken, by class of service.
    pub(super) shelves: Shelves,
    abandoned: Vec<(&'a HostName, u32)>,
    starts_held: bool,
    now: Time,
}

impl<'a> Board<'a> {
    pub(super) fn new(input: &Input<'a>) -> Self {
        let services: Vec<&Service> = input
            .desired
            .services
            .values()
            .map(Arc::as_ref)
            .filter(|s| s.fleet == input.fleet.name)
            .collect();
        let mut board = Board {
            fleet: input.fleet,
            hosts: Vec::with_capacity(input.fleet.hosts.len()),
            members: services.iter().map(|s| Vec::with_capacity(s.replicas as usize + 1)).collect(),
            index: Index::new(&services),
            services,
            orphans: BTreeMap::new(),
            never_seen: Vec::new(),
            shelves: Shelves::default(),
            abandoned: Vec::new(),
            starts_held: false,
            now: input.now,
        };
        let mut by_id: BTreeMap<&InstanceId, &Step> = BTreeMap::new();
        let mut starts: BTreeMap<(&HostName, &str), &Step> = BTreeMap::new();
        for flight in &input.world.in_flight {
            match flight.step.as_ref() {
                step @ Step::Start(Start { host, name, .. }) => {
                    starts.insert((host, name), step);
                }
                step @ (Step::Stop { id, .. }
                | Step::Remove { id, .. }
                | Step::Rename { id, .. }
                | Step::Admit { id, .. }
                | Step::Withdraw { id, .. }) => {
                    by_id.insert(id, step);
                }
                Step::RemoveNetwork { .. } | Step::App(_) => {}
            }
        }
        for (name, spec) in &input.fleet.hosts {
            let view = input.world.hosts.get(name).map(Arc::as_ref);
            let failed = input.memory.failed_starts.get(name).map_or(0, Vec::len);
            let index = board.hosts.len();
            board.hosts.push(Host {
                spec,
                view,
                used: Resources::default(),
                instances: 0,
                ports: view.map(|v| v.foreign_ports.clone()).unwrap_or_default(),
                starts: 0,
                shunned: failed >= SHUNNED_AFTER,
            });
            if let Seen::Never { since } = board.hosts[index].seen(input.now) {
                board.never_seen.push((name, since));
            }
            for instance in view.into_iter().flat_map(|v| &v.instances) {
                let step = by_id.get(&instance.id).copied().or_else(|| {
                    if starts.is_empty() {
                        return None;
                    }
                    let found = starts.remove(&(name, instance.name.as_ref()))?;
                    board.hosts[index].starts += 1;
                    Some(found)
                });
                let member = Member {
                    host: index,
                    host_name: name,
                    slot: instance.slot,
                    hash: instance.hash,
                    name: &instance.name,
                    instance: Some(instance),
                    step,
                };
                board.seat(&instance.service, member, instance.resources, &instance.published);
            }
        }
        // What is left are starts that no engine shows yet.
        for ((host, _), step) in starts {
            let Step::Start(start) = step else { continue };
            let Ok(index) = board.hosts.binary_search_by(|h| h.spec.name.cmp(host)) else {
                continue;
            };
            board.hosts[index].starts += 1;
            let member = Member {
                host: index,
                host_name: &start.host,
                slot: start.slot,
                hash: start.hash,
                name: &start.name,
                instance: None,
                step: Some(step),
            };
            let published: Vec<u16> = start.published.iter().map(|p| p.host).collect();
            board.seat(&start.service, member, start.spec.resources, &published);
        }
        // An app may have no task at all.
        for app in board.hosts.iter().filter_map(|h| h.view).flat_map(|v| v.apps.values()) {
            if let Whose::Ours { service, .. } = &app.whose
                && board.index.find(service, &board.services).is_none()
            {
                board.orphans.entry(service).or_default();
            }
        }
        for (name, view) in &input.world.hosts {
            if !input.fleet.hosts.contains_key(name) && !view.instances.is_empty() {
                let count = u32::try_from(view.instances.len()).unwrap_or(u32::MAX);
                board.abandoned.push((name, count));
            }
        }
        board
    }

    fn seat(
        &mut self,
        service: &'a ServiceName,
        member: Member<'a>,
        resources: Resources,
        ports: &[u16],
    ) {
        if !member.is_dead() {
            let host = &mut self.hosts[member.host];
            host.take(resources);
            host.ports.extend(ports);
        }
        match self.index.find(service, &self.services) {
            Some(index) => self.members[index].push(member),
            None => self.orphans.entry(service).or_default().push(member),
        }
    }

    /// Puts a planned start on the board; `false` when its host starts as many as it may already.
    /// Its room is taken either way, so that the others spread as they will in the end.
    pub(super) fn begin(&mut self, host: usize, resources: Resources, ports: &[u16]) -> bool {
        let most = self.fleet.limits.parallel_starts_per_host;
        let h = &mut self.hosts[host];
        h.take(resources);
        h.ports.extend(ports);
        self.shelves.moved(host, h);
        if h.starts >= most {
            self.starts_held = true;
            return false;
        }
        h.starts += 1;
        true
    }

    /// The shelf for services of this placement.
    pub(super) fn shelve(&mut self, placement: &Placement) -> Class {
        self.shelves.ensure(placement, &self.hosts, self.now)
    }

    /// Until when a service with `replace_after` starts nothing, because a host may hold anything.
    pub(super) fn unseen(&self, replace_after: Duration) -> Option<(&'a HostName, Time)> {
        self.never_seen
            .iter()
            .map(|(host, since)| (*host, since.plus(replace_after)))
            .filter(|(_, until)| *until > self.now)
            .max_by_key(|(_, until)| *until)
    }

    pub(super) fn waits(&self, out: &mut Plan) {
        if self.starts_held {
            let most = self.fleet.limits.parallel_starts_per_host;
            out.wait(Subject::Fleet, Why::ParallelStarts { most }, None);
        }
        for (host, count) in &self.abandoned {
            out.wait(Subject::Host((*host).clone()), Why::Abandoned { count: *count }, None);
        }
    }
}

/// Finds a service by its name. Names are compared by a fixed digest first: a hundred thousand
/// instances are looked up in every pass, and comparing texts all over memory is most of its time.
struct Index(Vec<(u64, usize)>);

impl Index {
    fn new(services: &[&Service]) -> Self {
        let digests = services.iter().enumerate().map(|(at, s)| (digest(&s.name), at));
        let mut all: Vec<(u64, usize)> = digests.collect();
        all.sort_unstable();
        Self(all)
    }

    fn find(&self, name: &ServiceName, services: &[&Service]) -> Option<usize> {
        let digest = digest(name);
        let from = self.0.partition_point(|(d, _)| *d < digest);
        let alike = self.0[from..].iter().take_while(|(d, _)| *d == digest);
        alike.map(|(_, at)| *at).find(|at| services[*at].name == *name)
    }
}

/// FNV-1a.
fn digest(name: &ServiceName) -> u64 {
    let bytes = name.as_str().bytes();
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

impl Member<'_> {
    /// Ended or never started, and nobody is at it: it takes no room.
    pub(super) fn is_dead(&self) -> bool {
        match self.instance.map(|i| i.state) {
            Some(State::Created) => !matches!(self.step, Some(Step::Start(_))),
            Some(State::Exited { .. }) => true,
            Some(State::Running | State::Paused | State::Removing | State::Ending) | None => false,
        }
    }

    /// Its end was begun, and nobody is at it.
    pub(super) fn is_interrupted(&self) -> bool {
        self.step.is_none() && self.instance.is_some_and(|i| i.state == State::Ending)
    }

    /// Ends it gracefully; `None` while the engine does not show it.
    pub(super) fn stop(
        &self,
        service: &ServiceName,
        signal: &str,
        grace: Duration,
    ) -> Option<Step> {
        Some(Step::Stop {
            host: self.host_name.clone(),
            id: self.instance?.id.clone(),
            name: self.name.clone(),
            service: service.clone(),
            slot: self.slot,
            signal: signal.to_owned(),
            grace,
        })
    }

    /// Removes what has ended.
    pub(super) fn remove(&self, service: &ServiceName) -> Option<Step> {
        Some(Step::Remove {
            host: self.host_name.clone(),
            id: self.instance?.id.clone(),
            name: self.name.clone(),
            service: service.clone(),
            slot: self.slot,
        })
    }

    /// Lets clients reach it.
    pub(super) fn admit(&self, service: &ServiceName) -> Option<Step> {
        Some(Step::Admit {
            host: self.host_name.clone(),
            id: self.instance?.id.clone(),
            name: self.name.clone(),
            service: service.clone(),
            slot: self.slot,
        })
    }

    /// Takes it out of the registry and every balancer.
    pub(super) fn withdraw(&self, service: &ServiceName) -> Option<Step> {
        Some(Step::Withdraw {
            host: self.host_name.clone(),
            id: self.instance?.id.clone(),
            name: self.name.clone(),
            service: service.clone(),
            slot: self.slot,
        })
    }
}
