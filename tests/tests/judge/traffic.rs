//! What balancers and registry really have in force when an instance is stopped, whatever the agent was told of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use evenkeel::fake::Sim;
use evenkeel::fake::host::Container;
use evenkeel::fake::register::SimEntry;
use evenkeel::model::{
    BalancerId, HealthState, InstanceId, Plan, PoolName, Seen, ServerState, Service, ServiceName,
    State, Step, Target, Traffic, World,
};

/// Panics when a healthy instance is stopped that a balancer still sends requests to (promise 4), or when one that
/// nobody can ask about is dropped (promise 5).
pub(crate) fn judge(sim: &Sim, world: &World, plan: &Plan) {
    nobody_is_entered_to_leave(world, plan);
    for planned in &plan.steps {
        if let Step::Withdraw { service, .. } = &*planned.step {
            silent(sim, world, service);
        }
        let Step::Stop { host, id, service, .. } = &*planned.step else { continue };
        let Some(of) = sim.desired.services.get(service).filter(|s| !s.exposure.pools.is_empty())
        else {
            continue;
        };
        let container = &sim.hosts[host].containers[id];
        let known = world.hosts[host].instances.iter().find(|i| i.id == *id).unwrap();
        if !matches!(known.health, HealthState::Healthy { .. }) {
            continue;
        }
        registry(sim, of, id, &known.name);
        let port = container.instance.bindings[0].1;
        let ip = sim.fleet().hosts[host].ip().unwrap();
        for (front, balancer) in &sim.balancers.all {
            if !counts(world, front) {
                continue;
            }
            let its = |pool: &PoolName, at: &SocketAddr| {
                *at == (ip, port).into() && of.exposure.pools.iter().any(|(_, p)| p == pool)
            };
            assert!(
                !balancer.coming().iter().any(|(pool, at)| its(pool, at)),
                "promise 4: {} stopped while a balancer loads a table that admits it",
                known.name
            );
            if !balancer.listening {
                continue;
            }
            for ((pool, address), server) in &balancer.servers {
                if !its(pool, address) {
                    continue;
                }
                let state = server.state(sim.now);
                assert!(
                    state == ServerState::Draining,
                    "promise 4: {} stopped while a balancer has it {state:?}",
                    known.name
                );
                let drained = sim.now.since(server.since) >= of.termination.drain;
                assert!(
                    server.sessions(sim.now) == 0 || drained,
                    "promise 4: {} stopped with connections",
                    known.name
                );
            }
        }
    }
}

/// Whether requests may come through a balancer, as far as the agent can know.
pub(crate) fn counts(world: &World, front: &BalancerId) -> bool {
    // Of one that runs already nobody ever knows that it does not.
    let BalancerId::Container(front) = front else { return true };
    let at = world
        .hosts
        .values()
        .find_map(|v| v.instances.iter().find(|i| i.id == *front).map(|i| (v.seen, i)));
    // One that is lost for good, or sick and silent, is counted out knowingly.
    let Some((Seen::Now, instance)) = at else { return false };
    let ending = |step: &Step| matches!(step, Step::Stop { id, .. } if id == front);
    // It may have died this very moment.
    instance.state == State::Running
        && !world.in_flight.iter().any(|f| ending(&f.step))
        && !matches!(instance.health, HealthState::Unhealthy { .. })
}

/// Panics when an instance that is in no balancer is put into one only to be taken out again.
fn nobody_is_entered_to_leave(world: &World, plan: &Plan) {
    let nowhere = |id: &InstanceId| {
        let mut all = world.hosts.values().flat_map(|view| &view.instances);
        all.any(|i| i.id == *id && matches!(i.traffic, Traffic::None | Traffic::Nobody))
    };
    let servers = plan.edges.orders.values().flat_map(|o| o.table.servers.values().flatten());
    let servers = servers.map(|s| (&s.instance, s.target));
    let entries = plan.edges.registrations.entries.values().map(|r| (&r.instance, r.target));
    for (id, target) in servers.chain(entries) {
        assert!(target == Target::Ready || !nowhere(id), "{id:?} is entered to leave");
    }
}

/// Panics when somebody is taken from the balancers while the registry goes on leading clients to him.
fn silent(sim: &Sim, world: &World, service: &ServiceName) {
    let Some(of) = sim.desired.services.get(service) else { return };
    let silent = world.registry.as_ref().is_some_and(|r| r.seen != Seen::Now);
    assert!(
        of.exposure.registered.is_empty() || !silent,
        "promise 5: one of {service} leaves unseen by the registry"
    );
}

/// Panics when the registry still leads clients to an instance that is stopped, or has not stopped to for long enough.
fn registry(sim: &Sim, of: &Service, id: &InstanceId, name: &str) {
    let Some(entry) = sim.registry.entries.get(id).filter(|_| !of.exposure.registered.is_empty())
    else {
        return;
    };
    assert!(entry.target == Target::Drain, "promise 4: {name} stopped while the registry has it");
}

/// Whether the registry has every instance of every registered service, and nothing else.
pub(crate) fn is_registered(sim: &Sim) -> bool {
    let registered =
        |c: &&Container| !sim.desired.services[&c.instance.service].exposure.registered.is_empty();
    let all = sim.hosts.values().flat_map(|h| h.containers.values()).filter(registered);
    let want: BTreeSet<&InstanceId> = all.map(|c| &c.instance.id).collect();
    let ready = |e: &SimEntry| e.target == Target::Ready;
    sim.registry.entries.keys().collect::<BTreeSet<_>>() == want
        && sim.registry.entries.values().all(ready)
}

/// Whether every balancer sends requests to every instance of every routed service, and to nothing else.
pub(crate) fn is_in_force(sim: &Sim) -> bool {
    let fleet = sim.fleet();
    sim.balancers.all.values().all(|balancer| {
        let mut want = Vec::new();
        for (host, h) in &sim.hosts {
            for c in h.containers.values() {
                let service = &sim.desired.services[&c.instance.service];
                for (_, pool) in &service.exposure.pools {
                    let at = (fleet.hosts[host].ip().unwrap(), c.instance.bindings[0].1).into();
                    want.push((pool.clone(), at));
                }
            }
        }
        want.sort();
        let have: Vec<_> = balancer
            .servers
            .iter()
            .filter(|(_, s)| s.state(sim.now) == ServerState::Up)
            .map(|(key, _)| key.clone())
            .collect();
        have == want && balancer.servers.len() == want.len()
    })
}
