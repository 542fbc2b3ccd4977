//! What traffic an instance has, over every balancer and the registry: pure, from what these have in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::edges::reached;
use crate::model::{
    BalancerId, BalancerView, Desired, Fleet, FleetName, Front, HealthState, HostName, HostSpec,
    HostView, InFlight, Instance, InstanceId, Outward, PoolName, RegistryView, Seen, ServerState,
    ServiceName, State, Step, Time, Traffic, Way, World, instance_host_name,
};

/// A running balancer that counts.
struct Witness<'w> {
    service: &'w ServiceName,
    /// `None`: it cannot be asked now.
    view: Option<&'w Arc<BalancerView>>,
}

impl<'w> Witness<'w> {
    const fn of(front: &'w Front) -> Self {
        Self { service: &front.service, view: front.view.as_ref() }
    }
}

/// Fills in the traffic of every routed instance of the world.
pub fn observe(fleet: &Fleet, desired: &Desired, world: &mut World, now: Time) {
    if fleet.registry.is_none() && !desired.services.values().any(|s| s.routed) {
        return;
    }
    let here = running(fleet, desired, world, now);
    let mut witnesses: Vec<Witness<'_>> = here.iter().map(Witness::of).collect();
    witnesses.extend(witnesses_elsewhere(fleet, desired, world, now));
    let registry = world.registry.clone();
    let voters = world.voters.clone();
    let taken = taken(world);
    let unheard = world.elsewhere.unheard.clone();
    let scene = Scene {
        fleet,
        desired,
        witnesses: &witnesses,
        unheard: &unheard,
        taken: &taken,
        registry: registry.as_deref(),
        voters: voters.as_deref(),
    };
    let mut changed: Vec<(HostName, Arc<HostView>)> = Vec::new();
    for (name, view) in &world.hosts {
        let Some(host) = fleet.hosts.get(name) else { continue };
        let told: Vec<(usize, Traffic)> = view
            .instances
            .iter()
            .enumerate()
            .filter_map(|(at, i)| Some((at, scene.traffic(host, i)?)))
            .filter(|(at, traffic)| view.instances[*at].traffic != *traffic)
            .collect();
        if told.is_empty() {
            continue;
        }
        let mut view = view.as_ref().clone();
        for (at, traffic) in told {
            view.instances[at].traffic = traffic;
        }
        changed.push((name.clone(), Arc::new(view)));
    }
    drop(witnesses);
    world.hosts.extend(changed);
}

/// Where tasks of a platform run. One that it has lost sight of may have gone with its machine, and another have its address.
fn taken(world: &World) -> BTreeSet<SocketAddr> {
    let all = world.hosts.values().flat_map(|view| &view.instances);
    all.filter(|i| i.state != State::Ending)
        .filter_map(|i| Some((i.at?, &i.bindings)))
        .flat_map(|(at, ports)| ports.iter().map(move |(_, port)| SocketAddr::new(at, *port)))
        .collect()
}

/// The balancers whose word counts: those that may be taking requests.
fn running(fleet: &Fleet, desired: &Desired, world: &World, now: Time) -> Vec<Front> {
    let ending = |id: &InstanceId| {
        let ends =
            |f: &InFlight| matches!(&*f.step, Step::Stop { id: stopped, .. } if stopped == id);
        world.in_flight.iter().any(ends)
    };
    let mut out = Vec::new();
    for (name, view) in &world.hosts {
        for instance in view.instances.iter().filter(|i| i.state == State::Running) {
            let Some((service, _)) = desired.routings.get_key_value(&instance.service) else {
                continue;
            };
            let Some(balancer) = desired.services.get(service).filter(|s| s.fleet == fleet.name)
            else {
                continue;
            };
            // One that is ending has closed its doors; its last requests are its own.
            if ending(&instance.id) {
                continue;
            }
            let lost = match view.seen {
                Seen::Now => false,
                Seen::Silent { since } | Seen::Never { since } => {
                    now.since(since) >= balancer.replace_after
                }
            };
            if lost || !fleet.hosts.contains_key(name) {
                continue;
            }
            let id = BalancerId::Container(instance.id.clone());
            let its = world.balancers.get(&id);
            let fresh = instance.health == HealthState::Starting;
            let sick = matches!(instance.health, HealthState::Unhealthy { .. });
            let view = match its.map(|v| (v.seen, v.listening)) {
                // One that takes no requests yet has nobody, but may be about to have.
                Some((Seen::Now, _)) => its.cloned(),
                // It had one before it fell silent: whatever it is otherwise, requests may go through it.
                Some((Seen::Silent { .. }, true)) if !sick => None,
                Some((Seen::Never { .. } | Seen::Silent { .. }, _)) | None if fresh || sick => {
                    Some(Arc::new(loading(its)))
                }
                Some((Seen::Never { .. } | Seen::Silent { .. }, _)) | None => None,
            };
            out.push(Front { service: service.clone(), id, view });
        }
    }
    out.extend(external(fleet, desired, world));
    out
}

/// One that takes no requests, as far as anybody knows: what it is loading counts all the same.
fn loading(its: Option<&Arc<BalancerView>>) -> BalancerView {
    let coming = its.map(|view| view.coming.clone()).unwrap_or_default();
    BalancerView { coming, ..BalancerView::never(Time(0)) }
}

/// Those of other fleets, which may be some of a balancer that moves. One that has said nothing yet may have any.
fn witnesses_elsewhere<'w>(
    fleet: &'w Fleet,
    desired: &'w Desired,
    world: &'w World,
    now: Time,
) -> Vec<Witness<'w>> {
    let mut out = Vec::new();
    for outward in world.elsewhere.said.values() {
        let routed = |front: &&Front| desired.routings.contains_key(&front.service);
        out.extend(outward.fronts.iter().filter(routed).map(Witness::of));
    }
    for service in desired.routings.keys() {
        let Some(balancer) = desired.services.get(service).filter(|s| s.fleet != fleet.name) else {
            continue;
        };
        let told = world.elsewhere.said.get(&balancer.fleet).map(|o| o.unseen);
        let blind = |since| now.since(since) < balancer.replace_after;
        if told.is_none_or(|unseen| unseen.is_some_and(blind)) {
            out.push(Witness { service, view: None });
        }
    }
    out
}

/// Whether any of these balancers may run where nobody has looked yet.
pub(super) fn unseen<'n>(
    input: &super::Input<'_>,
    balancers: impl Iterator<Item = &'n ServiceName>,
) -> bool {
    let super::Input { fleet, desired, world, now, .. } = *input;
    let balancers = balancers.filter_map(|name| desired.services.get(name));
    let Some(longest) = balancers.map(|b| b.replace_after).max() else { return false };
    let here = fleet.hosts.keys().map(|host| match world.hosts.get(host).map(|v| v.seen) {
        None => Some(now),
        Some(Seen::Never { since }) => Some(since),
        Some(Seen::Now | Seen::Silent { .. }) => None,
    });
    // No balancer runs on a Marathon cluster.
    let here = here.filter(|_| fleet.marathon.is_none());
    let docker = |name: &FleetName| desired.fleets.get(name).is_none_or(|f| f.marathon.is_none());
    let others = desired.fleets.keys().filter(|name| **name != fleet.name && docker(name));
    let told = others.map(|name| world.elsewhere.said.get(name).map_or(Some(now), |o| o.unseen));
    here.chain(told).flatten().any(|since| now.since(since) < longest)
}

/// What the other fleets are told of the balancers that run here.
pub(super) fn fronts(input: &super::Input<'_>) -> Vec<Front> {
    running(input.fleet, input.desired, input.world, input.now)
}

/// Those that run already. Nobody knows whether one that does not answer is gone or only cannot be asked: while it is in
/// the documents nobody leaves it unseen.
fn external(fleet: &Fleet, desired: &Desired, world: &World) -> impl Iterator<Item = Front> {
    let here =
        |name: &ServiceName| desired.services.get(name).is_some_and(|s| s.fleet == fleet.name);
    let routings = desired.routings.iter().filter(move |(name, _)| here(name));
    let each = routings.flat_map(|(name, r)| (0..r.external.len()).map(move |index| (name, index)));
    each.map(|(service, index)| {
        let id = BalancerId::External { balancer: service.clone(), index };
        let view = world.balancers.get(&id).filter(|v| v.seen == Seen::Now).cloned();
        Front { service: service.clone(), id, view }
    })
}

struct Scene<'s> {
    fleet: &'s Fleet,
    desired: &'s Desired,
    witnesses: &'s [Witness<'s>],
    /// What this fleet has said and others may still act upon.
    unheard: &'s [Arc<Outward>],
    taken: &'s BTreeSet<SocketAddr>,
    registry: Option<&'s RegistryView>,
    voters: Option<&'s BTreeMap<String, bool>>,
}

/// What was said of one instance so far.
#[derive(Default)]
struct Said {
    up: u32,
    not_up: u32,
    missing: u32,
    leaving: u32,
    unknown: bool,
    coming: bool,
    since: Option<Time>,
    sessions: Option<u32>,
}

impl Said {
    fn leaves(&mut self, since: Time) {
        self.leaving += 1;
        self.since = self.since.max(Some(since));
    }

    fn traffic(&self) -> Traffic {
        if self.unknown {
            return Traffic::Unknown;
        }
        match (self.up + self.not_up, self.leaving, self.missing) {
            // A balancer loads what sends it requests, whatever it has been told since.
            (0, _, _) if self.coming => Traffic::Unknown,
            (0, 0, 0) => Traffic::Nobody,
            (0, 0, _) => Traffic::None,
            (0, _, _) => {
                Traffic::Withdrawn { since: self.since.unwrap_or(Time(0)), sessions: self.sessions }
            }
            (_, leaving, missing) => {
                Traffic::Serving { up: self.not_up == 0 && leaving == 0 && missing == 0 }
            }
        }
    }
}

impl Scene<'_> {
    /// `None` for an instance that nothing leads clients to.
    fn traffic(&self, host: &HostSpec, instance: &Instance) -> Option<Traffic> {
        let service = self.desired.services.get(&instance.service)?;
        if !service.routed || service.fleet != self.fleet.name {
            return None;
        }
        if service.exposure.quorum {
            return Some(match self.voters {
                None => Traffic::Unknown,
                Some(voters) => {
                    let host_name = instance_host_name(&service.name, instance.slot);
                    Traffic::Voter { up: voters.get(&host_name) == Some(&true) }
                }
            });
        }
        let registered = service.exposure.registered.contains_key(&self.fleet.name);
        if service.exposure.pools.is_empty() && !registered {
            return None;
        }
        let mut said = Said::default();
        for (balancer, pool) in &service.exposure.pools {
            self.ask_balancers(balancer, pool, host, instance, &mut said);
        }
        if registered {
            self.ask_registry(instance, &mut said);
        }
        Some(said.traffic())
    }

    fn ask_balancers(
        &self,
        balancer: &ServiceName,
        pool: &PoolName,
        host: &HostSpec,
        instance: &Instance,
        said: &mut Said,
    ) {
        // It runs, and nothing is known of it: whoever is in there must not leave unseen.
        if !self.desired.routings.contains_key(balancer) {
            said.unknown = true;
            return;
        }
        let Some(address) = self.address(balancer, pool, host, instance) else { return };
        // Whatever is led there is led to the other.
        if instance.state == State::Ending && self.taken.contains(&address) {
            return;
        }
        said.coming |= self.unheard.iter().any(|word| word.admits(balancer, pool, &instance.id));
        for witness in self.witnesses.iter().filter(|w| w.service == balancer) {
            let Some(view) = witness.view else {
                said.unknown = true;
                continue;
            };
            // Its route was left out there, which its service says.
            if view.refused.contains_key(&instance.service) {
                continue;
            }
            said.coming |= view.coming.contains(&(pool.clone(), address));
            if !view.listening {
                continue;
            }
            match view.servers.get(&(pool.clone(), address)) {
                None => said.missing += 1,
                Some(s) => match s.state {
                    ServerState::Up => said.up += 1,
                    ServerState::Down => said.not_up += 1,
                    ServerState::Draining => {
                        said.leaves(s.since);
                        // A worker from before a reload may still have requests on it, and nobody counts them.
                        let left = s.sessions.saturating_add(view.old_workers);
                        said.sessions = Some(said.sessions.unwrap_or(0).saturating_add(left));
                    }
                },
            }
        }
    }

    fn address(
        &self,
        balancer: &ServiceName,
        pool: &PoolName,
        host: &HostSpec,
        instance: &Instance,
    ) -> Option<SocketAddr> {
        let routing = self.desired.routings.get(balancer)?;
        let port = routing.pools.get(pool)?.port;
        let (front, behind) =
            (self.desired.services.get(balancer)?, self.desired.services.get(&instance.service)?);
        let way = Way::of(&routing.external, front, &behind.spec, self.fleet);
        reached(self.fleet, host, instance, port, way)
    }

    /// A registry that is silent keeps what it has: whoever it leads to goes on serving, and nobody can leave it.
    fn ask_registry(&self, instance: &Instance, said: &mut Said) {
        let Some(registry) = self.registry else { return };
        let entry = registry.entries.get(&instance.id);
        match (registry.seen, entry) {
            (Seen::Now, None) => said.missing += 1,
            (Seen::Now, Some(e)) if e.maintenance => said.leaves(e.since),
            (_, Some(e)) if !e.maintenance => said.up += 1,
            (Seen::Silent { .. } | Seen::Never { .. } | Seen::Now, Some(_) | None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_ends_who_is_about_to_get_requests() {
        let since = Time(5);
        let leaving =
            || Said { leaving: 2, since: Some(since), sessions: Some(0), ..Said::default() };
        assert_eq!(leaving().traffic(), Traffic::Withdrawn { since, sessions: Some(0) });
        // Another balancer begins, by a table of before he was told to leave.
        assert_eq!(Said { coming: true, ..leaving() }.traffic(), Traffic::Unknown);
        assert_eq!(
            Said { missing: 1, coming: true, ..Said::default() }.traffic(),
            Traffic::Unknown
        );
        assert_eq!(Said { missing: 1, ..Said::default() }.traffic(), Traffic::None);
        // Whoever serves elsewhere does so meanwhile.
        let serves = Said { up: 2, coming: true, ..Said::default() };
        assert_eq!(serves.traffic(), Traffic::Serving { up: true });
    }

    #[test]
    fn a_balancer_without_a_table_has_nobody_and_says_who_comes() {
        use crate::fake::make;
        use crate::model::{BalancerKind, Fragments, InstanceId, Routing};

        let front = ServiceName::new("edge").unwrap();
        let mut web = make::service("web", 1, "toy:1").unwrap();
        make::route(&mut web, 8000, &front);
        let mut host = make::host("h1", &[]).unwrap();
        host.address = Some("10.0.0.1".into());
        let other = make::host("h2", &[]).unwrap();
        let mut fleet = make::fleet("default", vec![host, other]).unwrap();
        fleet.name = web.fleet.clone();
        let mut instance = make::instance(&web.name, 1);
        instance.bindings = vec![(80, 8000)];
        let mut balancer = make::instance(&front, 1);
        balancer.health = HealthState::Starting;
        let id = BalancerId::Container(InstanceId::clone(&balancer.id));
        let routing = Routing {
            kind: BalancerKind::Haproxy,
            listeners: vec![],
            routes: vec![],
            pools: make::pools(&web).into_iter().collect(),
            fragments: Fragments::default(),
            access_log: false,
            drain: std::time::Duration::ZERO,
            external: vec![],
        };
        let edge = make::service("edge", 1, "haproxy:1").unwrap();
        let desired = Desired {
            services: [edge, web].into_iter().map(|s| (s.name.clone(), Arc::new(s))).collect(),
            routings: [(front, Arc::new(routing))].into(),
            revision: crate::model::Revision("r1".into()),
            fleets: BTreeMap::new(),
            held: std::collections::BTreeSet::new(),
            problems: vec![],
            removal: crate::model::Removal::default(),
        };
        let view = HostView {
            seen: Seen::Now,
            instances: vec![instance.clone(), balancer],
            ..HostView::never(Time(0))
        };
        let (_, host) = fleet.hosts.iter().next().unwrap();
        let address = SocketAddr::new(host.ip().unwrap(), 8000);
        let pool = desired.routings.values().next().unwrap().pools.keys().next().unwrap().clone();
        let seen = |coming: bool, seen: Seen| {
            let coming = coming.then(|| (pool.clone(), address)).into_iter().collect();
            let loads = BalancerView { seen, coming, ..BalancerView::never(Time(0)) };
            let mut world = World {
                hosts: [(host.name.clone(), Arc::new(view.clone()))].into(),
                balancers: [(id.clone(), Arc::new(loads))].into(),
                ..World::default()
            };
            observe(&fleet, &desired, &mut world, Time(9));
            let all = &world.hosts[&host.name].instances;
            all.iter().find(|i| i.id == instance.id).unwrap().traffic
        };
        for answers in [Seen::Now, Seen::Never { since: Time(0) }] {
            assert_eq!(seen(false, answers), Traffic::Nobody, "{answers:?}");
            assert_eq!(seen(true, answers), Traffic::Unknown, "{answers:?}");
        }
    }
}
