//! What may be asked of a Marathon cluster: judged by what the cluster and the balancers really are, whatever the agent was told.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use evenkeel::fake::Sim;
use evenkeel::fake::marathon::{SimMarathon, SimTask, TaskState};
use evenkeel::model::{
    AppAct, AppId, AppStep, HealthState, Instance, InstanceId, Plan, Seen, ServerState, Service,
    ServiceName, State, Step, Traffic, Whose, World,
};

/// Panics when the plan breaks a promise on this cluster.
pub(crate) fn judge(sim: &Sim, world: &World, plan: &Plan) {
    steps(sim, world, plan);
    for service in sim.desired.services.values() {
        floor(sim, service, world, plan);
    }
}

/// Panics when anything is asked of the cluster that must not be.
pub(crate) fn steps(sim: &Sim, world: &World, plan: &Plan) {
    if !plan.steps.is_empty() {
        let again = sim.plan();
        assert_eq!(format!("{again:?}"), format!("{plan:?}"), "promise 10: not deterministic");
    }
    let cluster = sim.cluster.as_ref().unwrap();
    let mut touched = BTreeSet::new();
    for planned in &plan.steps {
        let step = &*planned.step;
        let view = &world.hosts[step.host()];
        assert_eq!(view.seen, Seen::Now, "promise 5: {step} on a cluster that cannot be seen");
        assert!(!planned.reason.to_string().is_empty(), "promise 11: {step} without a reason");
        let service = step.service().unwrap();
        if let Some(id) = step.id() {
            assert!(view.instances.iter().any(|i| i.id == *id), "promise 7: {step} is not ours");
            let busy = world.in_flight.iter().any(|f| f.step.id() == Some(id));
            assert!(!busy, "{step} is planned while another step is under way");
        }
        if let Some(of) = sim.desired.services.get(service) {
            assert!(!of.suspend, "{service} is suspended: {step}");
        }
        let Step::App(asked) = step else { continue };
        let busy = |s: &Step| matches!(s, Step::App(other) if other.app == asked.app);
        assert!(
            !world.in_flight.iter().any(|f| busy(&f.step)),
            "{step} while another is under way"
        );
        assert!(touched.insert(&asked.app), "two changes of {} in one plan", asked.app);
        change(sim, cluster, world, asked);
    }
}

fn change(sim: &Sim, cluster: &SimMarathon, world: &World, asked: &AppStep) {
    let AppStep { app: id, service, act, host } = asked;
    let of = sim.desired.services.get(service);
    if of.is_none() {
        assert!(matches!(act, AppAct::Delete | AppAct::Scale { .. }), "{asked} for nobody");
        assert!(sim.desired.problems.is_empty(), "promise 6: {asked} while the source is in doubt");
    }
    let Some(app) = cluster.apps.get(id) else {
        let gone = !matches!(act, AppAct::Put { create: true, .. });
        // Somebody may have removed it this very moment.
        assert!(!gone || world.hosts[host].apps.contains_key(id), "{asked}, which is not there");
        return;
    };
    let claimed = of.is_some_and(|s| s.app.id.as_ref() == Some(id));
    match &app.whose {
        Whose::Ours { service: whose, .. } => {
            assert!(whose == service || claimed, "promise 7: {asked} is of {whose}");
        }
        Whose::Nobodys => {
            assert!(claimed, "promise 7: {asked} is of nobody and not claimed");
            assert!(!matches!(act, AppAct::Delete), "{asked} was never ours");
        }
        Whose::Others => panic!("promise 7: {asked} is not ours"),
    }
    let known = world.hosts[host].apps.get(id);
    let locks: Vec<usize> =
        known.iter().flat_map(|a| a.deployments.values()).map(|d| d.touches).collect();
    let force = act.is_forced();
    assert!(!force || locks.iter().all(|touches| *touches == 1), "{asked} breaks a lock of others");
    assert!(force || locks.is_empty(), "{asked} in vain: the app is locked");
    let counted: Vec<&SimTask> = app.alive().collect();
    match act {
        AppAct::Put { create, instances, definition, hash, force: _ } => {
            assert!(!create, "{asked}, which is there");
            assert!(*instances >= app.instances, "{asked} ends tasks by Marathon's choice");
            let label = matches!(&app.whose, Whose::Ours { hash: Some(h), .. } if h == hash);
            assert!(definition != &app.definition || !label, "{asked} changes nothing");
        }
        // All of them: there is nothing to choose.
        AppAct::Delete | AppAct::Scale { instances: 0, force: true } => {
            for task in app.tasks.keys() {
                if let Some(of) = of {
                    out_of_traffic(sim, cluster, world, of, id, task);
                }
            }
        }
        AppAct::Scale { instances, force: _ } => {
            let ended = (*instances as usize) < counted.len() && *instances < app.instances;
            let well = counted.iter().any(|t| matches!(t.health, HealthState::Healthy { .. }));
            assert!(!ended || !well, "{asked} ends tasks by Marathon's choice: {counted:?}");
        }
        AppAct::Kill { tasks } => {
            for task in tasks {
                assert!(app.tasks.contains_key(task), "{asked}: {task} is not of it");
                if let Some(of) = of {
                    out_of_traffic(sim, cluster, world, of, id, task);
                }
            }
        }
        AppAct::Restart { force } => {
            let replaces = app.alive().any(|t| app.is_current(t));
            assert!(!force || !replaces, "{asked} breaks off what goes on");
            assert!(app.tasks.values().any(|t| !app.is_current(t)), "{asked} for nothing");
        }
    }
}

/// Panics when a healthy task ends by our hand while a balancer has it, or has requests on it (promise 4).
pub(crate) fn out_of_traffic(
    sim: &Sim,
    cluster: &SimMarathon,
    world: &World,
    of: &Service,
    app: &AppId,
    task: &InstanceId,
) {
    let known = world.hosts.values().flat_map(|v| &v.instances).find(|i| i.id == *task);
    let Some(known) = known.filter(|i| matches!(i.health, HealthState::Healthy { .. })) else {
        return;
    };
    let task = &cluster.apps[app].tasks[task];
    if known.state == State::Ending || task.is_killing() {
        return;
    }
    let address = SocketAddr::new(known.at.unwrap(), task.port);
    for balancer in sim.balancers.all.values().filter(|b| b.listening) {
        for ((pool, at), server) in &balancer.servers {
            if *at != address || !of.exposure.pools.iter().any(|(_, p)| p == pool) {
                continue;
            }
            let state = server.state(sim.now);
            assert!(
                state == ServerState::Draining,
                "promise 4: {} ends while a balancer has it {state:?}",
                known.name
            );
            let drained = sim.now.since(server.since) >= of.termination.drain;
            assert!(
                server.sessions(sim.now) == 0 || drained,
                "promise 4: {} ends with connections",
                known.name
            );
        }
    }
}

/// Whether an instance is available, as far as the agent can know.
pub(crate) fn is_available(sim: &Sim, world: &World, service: &Service, i: &Instance) -> bool {
    let healthy = match i.health {
        HealthState::Healthy { since } => since.plus(service.min_ready()) <= sim.now,
        _ => false,
    };
    let leaving = world.in_flight.iter().any(|f| match &*f.step {
        Step::Withdraw { id, .. } | Step::Stop { id, .. } => *id == i.id,
        Step::App(AppStep { act: AppAct::Kill { tasks }, .. }) => tasks.contains(&i.id),
        _ => false,
    });
    i.state == State::Running
        && healthy
        && !leaving
        && (!service.routed || matches!(i.traffic, Traffic::Serving { up: true } | Traffic::Nobody))
}

/// Who of these is told to leave by this plan.
pub(crate) fn ends(plan: &Plan, of: &InstanceId) -> bool {
    plan.steps.iter().any(|p| match &*p.step {
        Step::Withdraw { id, .. } | Step::Stop { id, .. } => id == of,
        Step::App(AppStep { act: AppAct::Kill { tasks }, .. }) => tasks.contains(of),
        _ => false,
    })
}

/// Promise 2: by our own hand, available instances never drop below the floor.
fn floor(sim: &Sim, service: &Service, world: &World, plan: &Plan) {
    if plan.steps.is_empty() {
        return;
    }
    let all = world.hosts.values().filter(|v| v.seen == Seen::Now).flat_map(|v| &v.instances);
    let its = all.filter(|i| i.service == service.name);
    let available: Vec<&Instance> = its.filter(|i| is_available(sim, world, service, i)).collect();
    let ended = available.iter().filter(|i| ends(plan, &i.id)).count();
    let (_, unavailable) = service.rollout.allowance(service.replicas);
    let least = service.replicas.saturating_sub(unavailable) as usize;
    assert!(
        ended == 0 || available.len() - ended >= least,
        "promise 2: {ended} of {} available end, the floor is {least}: {:?}",
        available.len(),
        plan.steps
    );
}

/// Panics unless the cluster is what documents say, and balancers lead to exactly what runs.
pub(crate) fn assert_as_desired(sim: &Sim) {
    let cluster = sim.cluster.as_ref().unwrap();
    let mut ours: BTreeSet<&ServiceName> = BTreeSet::new();
    for (id, app) in &cluster.apps {
        let Whose::Ours { service, .. } = &app.whose else { continue };
        ours.insert(service);
        let want = sim.desired.services.get(service);
        let Some(want) = want else { panic!("{id} is left") };
        assert_eq!(app.instances, want.replicas, "instances of {id}");
        assert_eq!(app.image(), want.spec.image, "image of {id}");
        assert_eq!(app.tasks.len(), want.replicas as usize, "tasks of {id}");
        for task in app.tasks.values() {
            assert_eq!(task.state, TaskState::Running);
            assert!(app.is_current(task), "{} of {id} is out of date", task.id);
        }
    }
    for service in sim.desired.services.values().filter(|s| s.replicas > 0) {
        let claimed = service.app.id.is_some();
        assert!(claimed || ours.contains(&service.name), "{} is missing", service.name);
    }
    for balancer in sim.balancers.all.values() {
        let mut want = BTreeSet::new();
        for (id, app) in &cluster.apps {
            let its = sim.desired.services.values().find(|s| s.app_id("/shop") == *id);
            for (_, pool) in its.iter().flat_map(|s| &s.exposure.pools) {
                for task in app.tasks.values() {
                    want.insert((pool.clone(), cluster.address(task)));
                }
            }
        }
        let up = |(key, s): (&_, &evenkeel::fake::balance::SimServer)| {
            assert_eq!(s.state(sim.now), ServerState::Up, "{key:?}");
            let (pool, at): &(_, SocketAddr) = key;
            (Clone::clone(pool), *at)
        };
        let have: BTreeSet<_> = balancer.servers.iter().map(up).collect();
        assert_eq!(have, want, "a balancer leads elsewhere");
    }
}
