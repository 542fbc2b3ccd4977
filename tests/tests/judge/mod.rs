//! The judge: each promise as a rule over one world and the plan that was made for it, written
//! without any of the planner's code.

pub(crate) mod fleets;
pub(crate) mod marathon;
pub(crate) mod traffic;

use evenkeel::fake::Sim;
use evenkeel::model::{
    HealthState, HostView, Instance, InstanceId, Plan, Seen, Service, State, Step, Time, Traffic,
    World,
};

/// Panics when the plan breaks a promise in this world.
pub(crate) fn judge(sim: &Sim, world: &World, plan: &Plan) {
    for planned in &plan.steps {
        let step = &*planned.step;
        let view = world.hosts.get(step.host()).expect("a step on a host that does not exist");
        assert_eq!(view.seen, Seen::Now, "promise 5: {step} on a host that cannot be seen");
        if let Some(id) = step.id() {
            let ours = view.instances.iter().any(|i| &i.id == id);
            assert!(ours, "promise 7: {step} touches what is not ours");
            let busy = world.in_flight.iter().any(|f| f.step.id() == Some(id));
            assert!(!busy, "{step} is planned while another step is under way");
        }
        assert!(!planned.reason.to_string().is_empty(), "promise 11: {step} without a reason");
    }
    let again = sim.plan();
    assert_eq!(format!("{again:?}"), format!("{plan:?}"), "promise 10: not deterministic");
    if !sim.desired.problems.is_empty() {
        for p in &plan.steps {
            let known = p.step.service().is_none_or(|s| sim.desired.services.contains_key(s));
            assert!(known, "promise 6: {} while the source is in doubt", p.step);
        }
    }
    traffic::judge(sim, world, plan);
    for service in sim.desired.services.values() {
        judge_service(service, world, plan, sim.now);
    }
}

fn judge_service(service: &Service, world: &World, plan: &Plan, now: Time) {
    let steps: Vec<&Step> = plan
        .steps
        .iter()
        .map(|p| &*p.step)
        .filter(|s| s.service() == Some(&service.name))
        .collect();
    if service.suspend {
        assert!(steps.is_empty(), "{} is suspended", service.name);
        return;
    }
    let (surge, unavailable) = service.rollout.allowance(service.replicas);
    let members: Vec<(Seen, &Instance)> = world
        .hosts
        .values()
        .flat_map(|h| h.instances.iter().map(|i| (h.seen, i)))
        .filter(|(_, i)| i.service == service.name)
        .collect();
    // A name is one container's only on one host: elsewhere its replacement may have it too.
    let beginning: Vec<&InstanceId> = world
        .in_flight
        .iter()
        .filter_map(|f| match &*f.step {
            Step::Start(s) => {
                let host = world.hosts.get(&s.host)?;
                host.instances.iter().find(|i| i.name == s.name).map(|i| &i.id)
            }
            _ => None,
        })
        .collect();
    let starting = |i: &Instance| beginning.contains(&&i.id);
    let in_flight = |i: &Instance| {
        world.in_flight.iter().find(|f| f.step.id() == Some(&i.id)).map(|f| &*f.step)
    };

    // Promise 2: by our own hand, available instances never drop below the floor.
    let available = |seen: Seen, i: &Instance| {
        let healthy = match i.health {
            HealthState::Healthy { since } => since.plus(service.min_ready()) <= now,
            _ => false,
        };
        seen == Seen::Now
            && i.state == State::Running
            && healthy
            && (!service.routed
                || matches!(i.traffic, Traffic::Serving { up: true } | Traffic::Nobody))
            && !matches!(in_flight(i), Some(Step::Stop { .. } | Step::Withdraw { .. }))
            && !starting(i)
    };
    let before = members.iter().filter(|(s, i)| available(*s, i)).count();
    let ending = |i: &Instance| {
        steps
            .iter()
            .any(|s| matches!(s, Step::Stop { id, .. } | Step::Withdraw { id, .. } if *id == i.id))
    };
    let ended = members.iter().filter(|(s, i)| available(*s, i) && ending(i)).count();
    let floor = service.replicas.saturating_sub(unavailable) as usize;
    if ended > 0 {
        assert!(
            before - ended >= floor,
            "promise 2: {ended} of {before} available stopped, floor {floor}: {steps:?}"
        );
    }

    // Promise 3: never more than replicas and surge, terminating instances counted.
    let waited_for = |seen: Seen| match seen {
        Seen::Now => true,
        Seen::Silent { since } | Seen::Never { since } => now.since(since) < service.replace_after,
    };
    let alive = |i: &Instance| match i.state {
        State::Created => starting(i),
        State::Exited { .. } => matches!(in_flight(i), Some(Step::Stop { .. })),
        State::Running | State::Paused | State::Removing | State::Ending => true,
    };
    let visible = members.iter().filter(|(s, i)| waited_for(*s) && alive(i)).count();
    let unseen_starts = world
        .in_flight
        .iter()
        .filter(|f| match &*f.step {
            Step::Start(s) => {
                let there = |h: &HostView| h.instances.iter().any(|i| i.name == s.name);
                s.service == service.name && !world.hosts.get(&s.host).is_some_and(|h| there(h))
            }
            _ => false,
        })
        .count();
    let starts = steps.iter().filter(|s| matches!(s, Step::Start(_))).count();
    let most = (service.replicas + surge) as usize;
    if starts > 0 {
        let total = visible + unseen_starts + starts;
        assert!(total <= most, "promise 3: {total} of at most {most} of {}", service.name);
    }

    // Promise 5: what may be on a host that has not answered is not started a second time.
    let window = |since: Time| now.since(since) < service.replace_after;
    if starts > 0 {
        for (name, host) in &world.hosts {
            if let Seen::Never { since } = host.seen {
                assert!(!window(since), "promise 5: {name} may hold {}", service.name);
            }
        }
    }
    for step in &steps {
        let Step::Start(start) = step else { continue };
        let waiting = members.iter().any(|(seen, i)| {
            i.slot == start.slot
                && matches!(seen, Seen::Silent { since } | Seen::Never { since } if window(*since))
        });
        assert!(!waiting, "promise 5: {} is on a silent host", start.name);
    }

    // Promise 4: a healthy instance is stopped only without traffic and sessions.
    for (_, i) in &members {
        let stopped = steps.iter().any(|s| matches!(s, Step::Stop { id, .. } if *id == i.id));
        if !stopped || !matches!(i.health, HealthState::Healthy { .. }) {
            continue;
        }
        match i.traffic {
            Traffic::None | Traffic::Nobody | Traffic::Voter { .. } => {}
            Traffic::Withdrawn { since, sessions } => assert!(
                sessions == Some(0) || now.since(since) >= service.termination.drain,
                "promise 4: {} stopped with {sessions:?} sessions",
                i.name
            ),
            Traffic::Serving { .. } | Traffic::Unknown => {
                panic!("promise 4: {} stopped while clients reach it", i.name)
            }
        }
    }

    // Promise 8: sick and dead ones go first, at once.
    for (seen, i) in &members {
        let sick = i.state == State::Running && matches!(i.health, HealthState::Unhealthy { .. });
        let dead = matches!(i.state, State::Exited { .. });
        if *seen == Seen::Now && (sick || dead) && in_flight(i).is_none() && !starting(i) {
            let gone = steps.iter().any(|s| s.id() == Some(&i.id));
            assert!(
                gone,
                "promise 8: {} is {} and stays",
                i.name,
                if sick { "sick" } else { "dead" }
            );
        }
    }

    // Two instances of one name on one host cannot be.
    let mut names: Vec<_> = steps
        .iter()
        .filter_map(|s| match s {
            Step::Start(s) => Some((&s.host, &s.name)),
            Step::Rename { host, to, .. } => Some((host, to)),
            _ => None,
        })
        .collect();
    let planned = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), planned, "one name twice");
}
