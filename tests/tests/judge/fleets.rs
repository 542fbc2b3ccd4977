//! The promises over several fleets: what all of them have together, judged by what there really is in all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel::fake::fleets::Fleets;
use evenkeel::fake::{GRAIN, Sim};
use evenkeel::model::{
    AppAct, AppStep, FleetName, HealthState, Instance, InstanceId, Plan, PoolName, Seen,
    ServerState, Service, ServiceName, State, Step, Time, World,
};

use super::marathon::{ends, is_available};
use super::traffic::counts;

/// What was there lately: a loop cannot know better than what it was told.
#[derive(Default)]
pub(crate) struct Judge {
    /// Who was available on a fleet, and when last.
    available: BTreeMap<(FleetName, ServiceName), BTreeMap<InstanceId, Time>>,
    /// Whom our hand has told to leave.
    ended: BTreeSet<(FleetName, InstanceId)>,
    /// How many places a fleet had, lately.
    places: BTreeMap<(FleetName, ServiceName), Vec<(Time, usize)>>,
    looked: Option<Time>,
    /// Whether specs change: then each fleet rolls its own part by its own allowance.
    rolls: bool,
    /// The longest delay there was.
    pub(crate) delay: Duration,
}

impl Judge {
    /// A judge of fleets that hear each other after a grain.
    pub(crate) fn new(rolls: bool) -> Self {
        Self { rolls, delay: GRAIN, ..Self::default() }
    }

    /// Panics when one fleet's plan breaks a promise in the world of all.
    pub(crate) fn judge(&mut self, all: &Fleets, fleet: &FleetName, world: &World, plan: &Plan) {
        let sim = &all.sims[fleet];
        if sim.cluster.is_some() {
            super::marathon::steps(sim, world, plan);
        } else {
            docker(sim, world, plan);
        }
        self.look(all);
        for service in sim.desired.services.values() {
            self.floor(all, sim, service, world, plan);
            self.ceiling(all, sim, service, plan);
        }
        for planned in &plan.steps {
            for (service, id) in ended_by(&planned.step, world) {
                out_of_traffic(all, sim, world, &service, &id);
            }
        }
        let everybody = world.hosts.values().flat_map(|v| &v.instances);
        let ended = everybody.filter(|i| ends(plan, &i.id));
        self.ended.extend(ended.map(|i| (fleet.clone(), i.id.clone())));
    }

    fn window(&self) -> Duration {
        // It is told by one pass, under way for the delay, and heard by another pass.
        self.delay + GRAIN * 3
    }

    fn look(&mut self, all: &Fleets) {
        let (now, window) = (all.now(), self.window());
        if self.looked.replace(now) == Some(now) {
            return;
        }
        for (fleet, sim) in &all.sims {
            let world = sim.world();
            for service in sim.desired.services.values() {
                let key = (fleet.clone(), service.name.clone());
                let known = self.available.entry(key.clone()).or_default();
                let its = world.hosts.values().filter(|v| v.seen == Seen::Now);
                let its = its.flat_map(|v| &v.instances).filter(|i| i.service == service.name);
                for i in its.filter(|i| is_available(sim, &world, service, i)) {
                    known.insert(i.id.clone(), now);
                    self.ended.remove(&(fleet.clone(), i.id.clone()));
                }
                known.retain(|_, at| now.since(*at) <= window);
                let places = self.places.entry(key).or_default();
                places.push((now, count(sim, &world, service)));
                places.retain(|(at, _)| now.since(*at) <= window);
            }
        }
    }

    /// Promise 2, over all fleets.
    fn floor(&self, all: &Fleets, sim: &Sim, service: &Service, world: &World, plan: &Plan) {
        if plan.steps.is_empty() {
            return;
        }
        let of = |sim: &Sim, world: &World| -> Vec<Instance> {
            let seen = world.hosts.values().filter(|v| v.seen == Seen::Now);
            let its = seen.flat_map(|v| &v.instances).filter(|i| i.service == service.name);
            its.filter(|i| is_available(sim, world, service, i)).cloned().collect()
        };
        let ended = of(sim, world).iter().filter(|i| ends(plan, &i.id)).count();
        if ended == 0 {
            return;
        }
        let mut available = of(sim, world).len();
        // A new spec is rolled by each fleet within its own part.
        let part = service.share(&sim.name).unwrap_or(0);
        let (_, unavailable) = service.rollout.allowance(part);
        if self.rolls && part > 0 && available - ended >= (part - unavailable) as usize {
            return;
        }
        for other in all.sims.values().filter(|s| s.name != sim.name) {
            let lately = &self.available[&(other.name.clone(), service.name.clone())];
            let told = |id: &&InstanceId| self.ended.contains(&(other.name.clone(), (*id).clone()));
            available += lately.keys().filter(|id| !told(id)).count();
        }
        let (_, unavailable) = service.rollout.allowance(service.replicas);
        let least = service.replicas.saturating_sub(unavailable);
        assert!(
            available - ended >= least as usize,
            "promise 2: {ended} of {available} available of {} end on {}, the floor is {least}: {:?}",
            service.name,
            sim.name,
            plan.steps
        );
    }

    /// Promise 3, over all fleets.
    fn ceiling(&self, all: &Fleets, sim: &Sim, service: &Service, plan: &Plan) {
        let own = |p: &evenkeel::model::Planned| p.step.service() == Some(&service.name);
        if !plan.steps.iter().any(own) {
            return;
        }
        let world = sim.world();
        let before = count(sim, &world, service);
        let added = added(sim, service, plan);
        if added == 0 {
            return;
        }
        let others = all.sims.values().filter(|s| s.name != sim.name).map(|other| {
            let lately = &self.places[&(other.name.clone(), service.name.clone())];
            lately.iter().map(|(_, n)| *n).min().unwrap_or(0)
        });
        let others: usize = others.sum();
        let (surge, _) = service.rollout.allowance(service.replicas);
        let mut most = service.replicas + surge;
        if self.rolls {
            let parts = service.placements.values().copied();
            let own = service.placements.is_empty().then_some(service.replicas);
            most += parts.chain(own).map(|n| service.rollout.allowance(n).0).sum::<u32>();
        }
        assert!(
            before + added + others <= most as usize,
            "promise 3: {added} more than {before} of {} on {} and {others} elsewhere, of at most {most}: {:?}",
            service.name,
            sim.name,
            plan.steps
        );
    }
}

/// How many places a service takes on a fleet, those under way counted, those on hosts that are given up not.
fn count(sim: &Sim, world: &World, service: &Service) -> usize {
    if let Some(cluster) = &sim.cluster {
        // Who was never seen since the agent began is waited for so long and no longer, like a host.
        let waited_out = |seen: Seen| match seen {
            Seen::Never { since } => sim.now.since(since) >= service.replace_after,
            Seen::Now | Seen::Silent { .. } => false,
        };
        if world.hosts.values().any(|view| waited_out(view.seen)) {
            return 0;
        }
        let its = cluster.apps.iter().filter(|(id, _)| **id == service.app_id(&group(sim)));
        let tasks = its.map(|(_, app)| {
            // Those that replace each other are Marathon's own affair.
            let rolls = app.tasks.values().any(|t| !app.is_current(t));
            let tasks = if rolls { 0 } else { app.alive().count() };
            tasks.max(app.instances as usize)
        });
        let asked = world.in_flight.iter().filter_map(|f| asked(&f.step, service)).max();
        return tasks.sum::<usize>().max(asked.unwrap_or(0));
    }
    let waited = |seen: Seen| match seen {
        Seen::Now => true,
        Seen::Silent { since } | Seen::Never { since } => {
            sim.now.since(since) < service.replace_after
        }
    };
    let mut slots = BTreeSet::new();
    for (host, h) in sim.hosts.iter().filter(|(_, h)| waited(h.seen())) {
        let its = h.containers.values().filter(|c| c.instance.service == service.name);
        for c in its.filter(|c| c.instance.state == State::Running) {
            slots.insert((c.instance.slot.0, c.instance.hash.0));
        }
        for f in &world.in_flight {
            if let Step::Start(s) = &*f.step
                && (&s.host, &s.service) == (host, &service.name)
            {
                slots.insert((s.slot.0, s.hash.0));
            }
        }
    }
    slots.len()
}

fn group(sim: &Sim) -> String {
    format!("/{}", sim.name)
}

fn asked(step: &Step, of: &Service) -> Option<usize> {
    match step {
        Step::App(AppStep {
            service,
            act: AppAct::Put { instances, .. } | AppAct::Scale { instances, .. },
            ..
        }) if *service == of.name => Some(*instances as usize),
        _ => None,
    }
}

fn added(sim: &Sim, service: &Service, plan: &Plan) -> usize {
    let starts = |s: &Step| matches!(s, Step::Start(start) if start.service == service.name);
    let starts = plan.steps.iter().filter(|p| starts(&p.step)).count();
    let before = count(sim, &sim.world(), service);
    let asked = plan.steps.iter().filter_map(|p| asked(&p.step, service)).max().unwrap_or(0);
    starts + asked.saturating_sub(before)
}

fn docker(sim: &Sim, world: &World, plan: &Plan) {
    if !plan.steps.is_empty() {
        let again = sim.plan();
        assert_eq!(format!("{again:?}"), format!("{plan:?}"), "promise 10: not deterministic");
    }
    for planned in &plan.steps {
        let step = &*planned.step;
        let view = &world.hosts[step.host()];
        assert_eq!(view.seen, Seen::Now, "promise 5: {step} on a host that cannot be seen");
        if let Some(id) = step.id() {
            assert!(view.instances.iter().any(|i| i.id == *id), "promise 7: {step} is not ours");
            let busy = world.in_flight.iter().any(|f| f.step.id() == Some(id));
            assert!(!busy, "{step} is planned while another step is under way");
        }
    }
}

/// Whom a step ends.
fn ended_by(step: &Step, world: &World) -> Vec<(ServiceName, InstanceId)> {
    match step {
        Step::Stop { service, id, .. } => vec![(service.clone(), id.clone())],
        Step::App(AppStep { service, act: AppAct::Kill { tasks }, .. }) => {
            tasks.iter().map(|id| (service.clone(), id.clone())).collect()
        }
        Step::App(AppStep { service, app, act: AppAct::Delete, host }) => {
            let view = &world.hosts[host].apps[app];
            let all = view.current.iter().chain(&view.outdated);
            all.map(|id| (service.clone(), id.clone())).collect()
        }
        _ => Vec::new(),
    }
}

/// Promise 4: nobody who is healthy ends while a balancer of any fleet sends him requests.
fn out_of_traffic(all: &Fleets, sim: &Sim, world: &World, service: &ServiceName, id: &InstanceId) {
    let Some(of) = sim.desired.services.get(service) else { return };
    let mut found = world.hosts.iter().flat_map(|(h, v)| v.instances.iter().map(move |i| (h, i)));
    let Some((host, known)) = found.find(|(_, i)| i.id == *id) else { return };
    if !matches!(known.health, HealthState::Healthy { .. }) || known.state == State::Ending {
        return;
    }
    let Some(address) = address(sim, host, known) else { return };
    for fronts in all.sims.values() {
        let world = fronts.world();
        for (front, balancer) in &fronts.balancers.all {
            if !(counts(&world, front) || is_unseen(fronts, &world, front)) {
                continue;
            }
            let its = |pool: &PoolName, at: &SocketAddr| {
                *at == address && of.exposure.pools.iter().any(|(_, p)| p == pool)
            };
            // Its own fleet orders something else before it ends him.
            let told = if fronts.name == sim.name { BTreeSet::new() } else { balancer.told() };
            assert!(
                !balancer.coming().union(&told).any(|(pool, at)| its(pool, at)),
                "promise 4: {} on {} ends while a balancer on {} was told to send it requests",
                known.name,
                sim.name,
                fronts.name
            );
            if !balancer.listening {
                continue;
            }
            for ((pool, at), server) in &balancer.servers {
                if !its(pool, at) {
                    continue;
                }
                let (now, name) = (sim.now, &known.name);
                let state = server.state(now);
                assert!(
                    state == ServerState::Draining,
                    "promise 4: {name} on {} ends while a balancer on {} has it {state:?}",
                    sim.name,
                    fronts.name
                );
                let drained = now.since(server.since) >= of.termination.drain;
                assert!(
                    server.sessions(now) == 0 || drained,
                    "promise 4: {name} on {} ends with connections on {}",
                    sim.name,
                    fronts.name
                );
            }
        }
    }
}

/// Whether a balancer runs where the agent has not looked since it began: it may be there.
fn is_unseen(fronts: &Sim, world: &World, front: &evenkeel::model::BalancerId) -> bool {
    let evenkeel::model::BalancerId::Container(id) = front else { return false };
    let at = fronts.hosts.iter().find(|(_, h)| h.containers.contains_key(id));
    let Some((host, h)) = at else { return false };
    let service = &h.containers[id].instance.service;
    let patience = fronts.desired.services.get(service).map(|s| s.replace_after);
    match (world.hosts[host].seen, patience) {
        (Seen::Never { since }, Some(patience)) => fronts.now.since(since) < patience,
        _ => false,
    }
}

fn address(sim: &Sim, host: &evenkeel::model::HostName, i: &Instance) -> Option<SocketAddr> {
    let (_, port) = i.bindings.first()?;
    Some(SocketAddr::new(i.at.or_else(|| sim.fleet().hosts[host].ip())?, *port))
}

/// Panics unless every fleet has its part, of the spec that is asked for, and every balancer leads to exactly all of them.
pub(crate) fn assert_as_desired(all: &Fleets) {
    let mut want: BTreeSet<(String, SocketAddr)> = BTreeSet::new();
    for sim in all.sims.values() {
        for service in sim.desired.services.values() {
            let part = service.share(&sim.name).unwrap_or(0) as usize;
            assert_eq!(sim.running(&service.name), part, "{} on {}", service.name, sim.name);
        }
        for (host, h) in &sim.hosts {
            for c in h.containers.values() {
                let service = &sim.desired.services[&c.instance.service];
                assert_eq!(c.instance.hash, service.hash, "{} is out of date", c.instance.name);
                assert_eq!(c.instance.state, State::Running, "{} is debris", c.instance.name);
                for (_, pool) in &service.exposure.pools {
                    want.insert((pool.to_string(), address(sim, host, &c.instance).unwrap()));
                }
            }
        }
        for (id, app) in sim.cluster.iter().flat_map(|c| &c.apps) {
            let its = sim.desired.services.values().find(|s| s.app_id(&group(sim)) == *id);
            let service = its.unwrap();
            assert!(!app.tasks.is_empty(), "{id} is a shell");
            for task in app.tasks.values() {
                assert!(app.is_current(task) && app.image() == service.spec.image, "{id}");
                for (_, pool) in &service.exposure.pools {
                    let at = sim.cluster.as_ref().unwrap().address(task);
                    want.insert((pool.to_string(), at));
                }
            }
        }
    }
    for sim in all.sims.values() {
        for balancer in sim.balancers.all.values() {
            let up = |((pool, at), s): (&(evenkeel::model::PoolName, SocketAddr), &_)| {
                let s: &evenkeel::fake::balance::SimServer = s;
                assert_eq!(s.state(sim.now), ServerState::Up, "{pool} {at}");
                (pool.to_string(), *at)
            };
            let have: BTreeSet<_> = balancer.servers.iter().map(up).collect();
            assert_eq!(have, want, "a balancer on {} leads elsewhere", sim.name);
        }
    }
}
