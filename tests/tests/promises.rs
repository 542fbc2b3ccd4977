//! The eleven promises as properties over the misbehaving world.
//!
//! Every plan of every pass is judged against the world it was made for by rules that share no code
//! with the planner; at the end the world is left in peace and must settle as desired.
//! `cargo xtask promises` runs many more cases.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test panics where it fails"
)]

#[path = "promises/fleets.rs"]
mod fleets;
mod judge;
#[path = "promises/marathon.rs"]
mod marathon;

use std::time::Duration;

use evenkeel::fake::scenario::Scenario;
use evenkeel::fake::{GRAIN, Sim, make, register};
use evenkeel::model::{Amount, Keep, Limits, Resources, Service, ServiceName, State, Step};
use evenkeel::plan::{Input, plan};
use judge::judge;
use proptest::prelude::*;

/// What may happen, in small numbers that shrink well.
#[derive(Debug, Clone)]
enum Event {
    Replicas { service: u8, n: u32 },
    Image { service: u8, image: u8 },
    Crash { service: u8, nth: u8 },
    Sicken { service: u8, nth: u8 },
    Cure,
    RemoveByHand { service: u8, nth: u8 },
    Silence(u8),
    Answer(u8),
    RestartEngine(u8),
    Refuse(u8, bool),
    HostState(u8, u8),
    KillAgent { dice: u64, keep: bool },
    Break { service: Option<u8> },
    Mend,
    Delete(u8),
    Edges(bool),
    Suspend(u8, bool),
    Disruption(u32),
    Mute { nth: u8, mute: bool },
    Leaderless(bool),
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let s = 0..3u8;
    let h = 0..3u8;
    prop_oneof![
        4 => (s.clone(), 0..6u32).prop_map(|(service, n)| Event::Replicas { service, n }),
        5 => (s.clone(), 0..6u8).prop_map(|(service, image)| Event::Image { service, image }),
        3 => (s.clone(), 0..6u8).prop_map(|(service, nth)| Event::Crash { service, nth }),
        3 => (s.clone(), 0..6u8).prop_map(|(service, nth)| Event::Sicken { service, nth }),
        1 => Just(Event::Cure),
        2 => (s.clone(), 0..6u8).prop_map(|(service, nth)| Event::RemoveByHand { service, nth }),
        3 => h.clone().prop_map(Event::Silence),
        3 => h.clone().prop_map(Event::Answer),
        1 => h.clone().prop_map(Event::RestartEngine),
        1 => (h.clone(), any::<bool>()).prop_map(|(h, b)| Event::Refuse(h, b)),
        2 => (h, 0..3u8).prop_map(|(h, st)| Event::HostState(h, st)),
        3 => (any::<u64>(), any::<bool>()).prop_map(|(dice, keep)| Event::KillAgent { dice, keep }),
        2 => proptest::option::of(s.clone()).prop_map(|service| Event::Break { service }),
        2 => Just(Event::Mend),
        1 => s.clone().prop_map(Event::Delete),
        2 => any::<bool>().prop_map(Event::Edges),
        1 => (s, any::<bool>()).prop_map(|(s, b)| Event::Suspend(s, b)),
        1 => (0..4u32).prop_map(Event::Disruption),
        2 => (0..3u8, any::<bool>()).prop_map(|(nth, mute)| Event::Mute { nth, mute }),
        2 => any::<bool>().prop_map(Event::Leaderless),
        10 => (1..60u8).prop_map(Event::Wait),
    ]
}

#[derive(Debug, Clone)]
struct Shape {
    replicas: u32,
    surge: u32,
    unavailable: u32,
    min_ready: u8,
    routed: bool,
    keep: u8,
    published: bool,
    memory: u8,
}

fn shape() -> impl Strategy<Value = Shape> {
    (0..5u32, 0..3u32, 0..3u32, 0..3u8, any::<bool>(), 0..3u8, any::<bool>(), 0..3u8).prop_map(
        |(replicas, surge, unavailable, min_ready, routed, keep, published, memory)| Shape {
            replicas,
            surge,
            unavailable,
            min_ready,
            routed,
            keep,
            published: published && memory == 0,
            memory,
        },
    )
}

const NAMES: [&str; 3] = ["api", "job", "web"];
const IMAGES: [&str; 6] = ["a", "b", "c", "bad", "crash", "slow"];

fn name(n: u8) -> ServiceName {
    ServiceName::new(NAMES[n as usize % 3]).unwrap()
}

fn build(n: usize, shape: &Shape) -> Service {
    let mut s = make::service(NAMES[n], shape.replicas, "a").unwrap();
    s.rollout.max_surge = Amount::Count(shape.surge);
    s.rollout.max_unavailable = Amount::Count(shape.unavailable);
    s.rollout.min_ready = Duration::from_secs(shape.min_ready.into());
    s.rollout.progress_deadline = Duration::from_secs(30);
    s.termination.drain = Duration::from_secs(2);
    s.routed = shape.routed;
    s.keep = [Keep::Original, Keep::Replacement, Keep::Healthiest][shape.keep as usize];
    if shape.published {
        make::publish(&mut s, 8000 + 100 * u16::try_from(n).unwrap());
        s.rollout.max_unavailable = Amount::Count(1);
    }
    make::respec(&mut s, |i| i.resources.memory_bytes = u64::from(shape.memory) << 30);
    s
}

fn hosts() -> Vec<evenkeel::model::HostSpec> {
    [("h1", "a"), ("h2", "b"), ("h3", "b")]
        .map(|(h, z)| make::host(h, &[("zone", z)]).unwrap())
        .into()
}

fn world(shapes: &[Shape]) -> Sim {
    let capacity = Resources { cpu_millis: 8000, memory_bytes: 24 << 30 };
    let limits = Limits { prune_max_percent: 100, ..Limits::default() };
    let mut sim = Sim::new(hosts(), limits, capacity);
    for (n, shape) in shapes.iter().enumerate() {
        sim.put(build(n, shape));
    }
    sim
}

/// `api` and `job` behind balancers `web`, and in a registry if that is wanted. The balancers are
/// themselves rolled, scaled and broken like any service.
fn balanced(shapes: &[Shape], fronts: u32, registered: bool) -> Sim {
    let mut sim = world(&[]);
    sim.change_fleet(|f| {
        for (n, host) in f.hosts.values_mut().enumerate() {
            std::sync::Arc::make_mut(host).address = Some(format!("10.0.0.{}", n + 1));
        }
        f.registry = registered.then(register::spec);
    });
    let balancer = make::service("web", fronts, "a").unwrap();
    let behind: Vec<Service> = shapes
        .iter()
        .enumerate()
        .map(|(n, shape)| {
            let mut s = build(n, &Shape { published: false, memory: 0, ..shape.clone() });
            make::route(&mut s, 8000 + 100 * u16::try_from(n).unwrap(), &balancer.name);
            s.rollout.max_unavailable = Amount::Count(1);
            s.exposure.registered = registered.then(|| (s.fleet.clone(), 80)).into_iter().collect();
            s
        })
        .collect();
    // Beside its own containers one that runs already: it does not die, and can be silent.
    sim.balance(&balancer, &behind, usize::from(fronts % 2 == 1));
    sim.put(balancer);
    for service in behind {
        sim.put(service);
    }
    sim
}

fn change(sim: &mut Sim, service: u8, edit: impl FnOnce(&mut Service)) {
    if let Some(known) = sim.desired.services.get(&name(service)) {
        let mut s = (**known).clone();
        edit(&mut s);
        let held = sim.desired.held.clone();
        sim.put(s);
        sim.desired.held = held;
    }
}

fn harm(sim: &mut Sim, service: u8, nth: u8, act: impl Fn(&mut evenkeel::fake::host::Container)) {
    let name = name(service);
    let mut left = nth;
    for host in sim.hosts.values_mut() {
        let running: Vec<_> = host
            .containers
            .iter()
            .filter(|(_, c)| c.instance.service == name && c.instance.state == State::Running)
            .map(|(id, _)| id.clone())
            .collect();
        for id in running {
            if left == 0 {
                host.with(&id, act);
                return;
            }
            left -= 1;
        }
    }
}

fn apply(sim: &mut Sim, event: &Event) {
    let now = sim.now;
    let host = |sim: &Sim, h: u8| sim.hosts.keys().nth(h as usize % 3).cloned().unwrap();
    match event {
        Event::Replicas { service, n } => change(sim, *service, |s| s.replicas = *n),
        Event::Image { service, image } => change(sim, *service, |s| {
            make::respec(s, |i| i.image = IMAGES[*image as usize].into());
        }),
        Event::Crash { service, nth } => harm(sim, *service, *nth, |c| {
            c.instance.state = State::Exited { code: 1, out_of_memory: false };
        }),
        Event::Sicken { service, nth } => harm(sim, *service, *nth, |c| c.ill = true),
        Event::Cure => {
            for host in sim.hosts.values_mut() {
                for c in host.containers.values_mut() {
                    c.ill = false;
                }
            }
        }
        Event::RemoveByHand { service, nth } => {
            let name = name(*service);
            for host in sim.hosts.values_mut() {
                let mut ours = host.containers.iter().filter(|(_, c)| c.instance.service == name);
                let found = ours.nth(*nth as usize).map(|(id, _)| id.clone());
                if let Some(id) = found {
                    host.remove(&id);
                    break;
                }
            }
        }
        Event::Silence(h) => {
            let h = host(sim, *h);
            sim.hosts.get_mut(&h).unwrap().silence(now);
        }
        Event::Answer(h) => {
            let h = host(sim, *h);
            sim.hosts.get_mut(&h).unwrap().answer();
        }
        Event::RestartEngine(h) => {
            let h = host(sim, *h);
            sim.hosts.get_mut(&h).unwrap().restart_engine();
        }
        Event::Refuse(h, refuse) => {
            let h = host(sim, *h);
            sim.hosts.get_mut(&h).unwrap().refuses = *refuse;
        }
        Event::HostState(h, state) => {
            use evenkeel::model::HostState::{Active, Cordoned, Draining};
            let h = host(sim, *h);
            sim.change_fleet(|f| {
                let spec = std::sync::Arc::make_mut(f.hosts.get_mut(&h).unwrap());
                spec.state = [Active, Cordoned, Draining][*state as usize];
            });
        }
        Event::KillAgent { dice, keep } => sim.kill_agent(*dice, *keep),
        Event::Break { service } => sim.break_source(service.map(name).as_ref()),
        Event::Mend => sim.mend_source(),
        // Without its balancer a service is reached by nobody, and that by will.
        Event::Delete(service) if sim.desired.routings.contains_key(&name(*service)) => {}
        Event::Delete(service) => sim.delete(&name(*service)),
        Event::Edges(silent) => sim.edges_silent = *silent,
        Event::Suspend(service, suspend) => change(sim, *service, |s| s.suspend = *suspend),
        Event::Disruption(n) => {
            sim.change_fleet(|f| f.limits.disruptions_per_hour = (*n > 0).then_some(*n));
        }
        Event::Mute { nth, mute } => {
            if let Some(balancer) = sim.balancers.all.values_mut().nth(usize::from(*nth)) {
                balancer.mute = *mute;
            }
        }
        Event::Leaderless(mute) => sim.registry.mute = *mute,
        Event::Wait(tenths) => {
            sim.run(GRAIN * u32::from(*tenths), judge);
        }
    }
    // An agent makes a pass after whatever happened.
    sim.run(GRAIN, judge);
}

/// Everything is well again: no broken part, no bad image, no suspension.
fn make_peace(sim: &mut Sim) {
    use evenkeel::model::HostState::Active;
    for host in sim.hosts.values_mut() {
        host.answer();
        host.refuses = false;
        for c in host.containers.values_mut() {
            c.ill = false;
        }
    }
    sim.edges_silent = false;
    for balancer in sim.balancers.all.values_mut() {
        balancer.mute = false;
    }
    sim.registry.mute = false;
    sim.mend_source();
    sim.change_fleet(|f| {
        f.limits.disruptions_per_hour = None;
        for host in f.hosts.values_mut() {
            std::sync::Arc::make_mut(host).state = Active;
        }
    });
    for service in 0..3 {
        change(sim, service, |s| {
            s.suspend = false;
            if ["bad", "crash"].contains(&s.spec.image.as_str()) {
                make::respec(s, |i| i.image = "a".into());
            }
        });
    }
}

fn assert_as_desired(sim: &Sim) {
    let fleet = sim.fleet();
    for service in sim.desired.services.values() {
        let mut slots: Vec<u32> = Vec::new();
        for (host, h) in &sim.hosts {
            assert!(fleet.hosts.contains_key(host));
            for c in h.containers.values().filter(|c| c.instance.service == service.name) {
                assert_eq!(c.instance.hash, service.hash, "{} is out of date", c.instance.name);
                assert_eq!(c.instance.state, State::Running, "{} is debris", c.instance.name);
                slots.push(c.instance.slot.0);
            }
        }
        slots.sort_unstable();
        let want: Vec<u32> = (1..=service.replicas).collect();
        assert_eq!(slots, want, "slots of {}", service.name);
    }
    let all: usize = sim.hosts.values().map(|h| h.containers.len()).sum();
    let want: u32 = sim.desired.services.values().map(|s| s.replicas).sum();
    if !sim.desired.services.is_empty() {
        assert_eq!(all, want as usize, "orphans are left");
    }
}

fn behind_balancers(mut sim: Sim, events: &[Event]) {
    for event in events {
        apply(&mut sim, event);
    }
    make_peace(&mut sim);
    let settled = sim.settle(Duration::from_secs(900), judge);
    let left = sim.plan();
    assert!(settled, "it does not settle: {:?} {:?}", left.steps, left.waiting);
    assert!(left.steps.is_empty(), "planning again changes something: {:?}", left.steps);
    assert_as_desired(&sim);
    assert!(judge::traffic::is_in_force(&sim), "{:?}", sim.balancers);
    assert!(judge::traffic::is_registered(&sim), "{:?}", sim.registry);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: Some(Box::new(
        proptest::test_runner::FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_promise_holds_and_peace_settles(
        shapes in proptest::collection::vec(shape(), 1..=3),
        events in proptest::collection::vec(event(), 0..30),
    ) {
        let mut sim = world(&shapes);
        for event in &events {
            apply(&mut sim, event);
        }
        make_peace(&mut sim);
        let settled = sim.settle(Duration::from_secs(900), judge);
        let left = sim.plan();
        prop_assert!(settled, "it does not settle: {:?} {:?}", left.steps, left.waiting);
        prop_assert!(left.steps.is_empty(), "planning again changes something: {:?}", left.steps);
        assert_as_desired(&sim);
    }

    /// Promises 4 and 5 with balancers that are workloads themselves, and a registry: they are killed, cut off, mute and
    /// late.
    #[test]
    fn whatever_happens_to_balancers_no_request_is_lost_by_our_hand(
        shapes in proptest::collection::vec(shape(), 2),
        fronts in 1..3u32,
        registered: bool,
        events in proptest::collection::vec(event(), 0..30),
    ) {
        behind_balancers(balanced(&shapes, fronts, registered), &events);
    }

    /// The same while a balancer that loads one table takes no other, and does not say what it will be told next.
    #[test]
    fn whatever_happens_to_slow_balancers_no_request_is_lost_by_our_hand(
        shapes in proptest::collection::vec(shape(), 2),
        fronts in 1..3u32,
        registered: bool,
        slow in 1..60u32,
        events in proptest::collection::vec(event(), 0..30),
    ) {
        let mut sim = balanced(&shapes, fronts, registered);
        sim.balancers.loads = GRAIN * slow;
        behind_balancers(sim, &events);
    }

    /// Promise 9, first half: losing one of N costs exactly one start, and touches nobody else.
    #[test]
    fn losing_one_costs_exactly_one_start(shape in shape(), nth in 0..6u8, how in 0..3u8) {
        prop_assume!(shape.replicas > 0);
        let mut sim = world(&[shape]);
        prop_assert!(sim.settle(Duration::from_secs(120), judge));
        let nth = nth % u8::try_from(sim.running(&name(0))).unwrap();
        match how {
            0 => apply(&mut sim, &Event::RemoveByHand { service: 0, nth }),
            1 => harm(&mut sim, 0, nth, |c| {
                c.instance.state = State::Exited { code: 137, out_of_memory: true };
            }),
            _ => {
                harm(&mut sim, 0, nth, |c| c.ill = true);
                sim.elapse(GRAIN);
            }
        }
        let (mut starts, mut stops) = (u32::from(how == 0), 0);
        let settled = sim.settle(Duration::from_secs(120), |s, w, p| {
            judge(s, w, p);
            starts += count(p, |s| matches!(s, Step::Start(_)));
            stops += count(p, |s| matches!(s, Step::Stop { .. } | Step::Withdraw { .. }));
        });
        prop_assert!(settled);
        prop_assert_eq!(starts, 1);
        prop_assert!(stops <= u32::from(how == 2), "a bystander was stopped");
    }

    /// Promise 9, second half: what does not change an instance restarts none.
    #[test]
    fn what_an_instance_is_not_restarts_nobody(shape in shape(), to in 0..6u32) {
        let mut sim = world(std::slice::from_ref(&shape));
        prop_assert!(sim.settle(Duration::from_secs(120), judge));
        let before = ids(&sim);
        change(&mut sim, 0, |s| {
            s.replicas = to;
            s.rollout.max_surge = Amount::Percent(100);
            s.rollout.progress_deadline = Duration::from_secs(77);
            s.termination.grace = Duration::from_secs(3);
            s.placement.spread_by = Some("zone".into());
            s.document = "{}".into();
        });
        prop_assert!(sim.settle(Duration::from_secs(120), judge));
        let after = ids(&sim);
        let kept = before.iter().filter(|id| after.contains(id)).count();
        prop_assert_eq!(kept, (shape.replicas.min(to)) as usize);
    }

    /// Promise 8: a bad revision never costs availability beyond the floor and is rolled back.
    #[test]
    fn a_bad_revision_is_rolled_back_and_stays_out(shape in shape(), crash in any::<bool>()) {
        prop_assume!(shape.replicas > 0);
        let mut sim = world(&[shape]);
        prop_assert!(sim.settle(Duration::from_secs(120), judge));
        let good = sim.desired.services[&name(0)].hash;
        apply(&mut sim, &Event::Image { service: 0, image: if crash { 4 } else { 3 } });
        sim.run(Duration::from_secs(40), judge);
        prop_assert!(sim.settle(Duration::from_secs(120), judge));
        let mut starts = 0;
        apply(&mut sim, &Event::KillAgent { dice: 7, keep: true });
        sim.run(Duration::from_secs(60), |_, _, p| {
            starts += count(p, |s| matches!(s, Step::Start(_)));
        });
        prop_assert_eq!(starts, 0, "a rollback was tried again or rolled back");
        for h in sim.hosts.values() {
            for c in h.containers.values() {
                prop_assert_eq!(c.instance.hash, good);
            }
        }
    }

    /// Promise 10: the same input in another order gives the same plan, byte for byte.
    #[test]
    fn the_order_of_what_is_observed_does_not_matter(
        shapes in proptest::collection::vec(shape(), 1..=3),
        events in proptest::collection::vec(event(), 0..12),
    ) {
        let mut sim = world(&shapes);
        for event in &events {
            apply(&mut sim, event);
        }
        let (fleet, world) = (sim.fleet(), sim.world());
        let mut shuffled = world.clone();
        shuffled.in_flight.reverse();
        for view in shuffled.hosts.values_mut() {
            std::sync::Arc::make_mut(view).instances.reverse();
        }
        let input = |world| plan(&Input {
            fleet: &fleet, desired: &sim.desired, world, memory: &sim.memory, now: sim.now,
        });
        let (a, b) = (input(&world), input(&shuffled));
        prop_assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }

    /// The scenario language reads bytes from people: it may refuse, never panic.
    #[test]
    fn the_scenario_language_never_panics(lines in proptest::collection::vec("\\PC{0,40}", 0..8)) {
        let mut scenario = Scenario::default();
        for line in lines {
            let _ = scenario.line(&line);
        }
    }
}

fn count(plan: &evenkeel::model::Plan, pick: impl Fn(&Step) -> bool) -> u32 {
    u32::try_from(plan.steps.iter().filter(|p| pick(&p.step)).count()).unwrap()
}

fn ids(sim: &Sim) -> Vec<evenkeel::model::InstanceId> {
    sim.hosts.values().flat_map(|h| h.containers.keys().cloned()).collect()
}

/// An idle system makes no mutating call, ever: a thousand passes over an hour of nothing.
#[test]
fn idle_means_idle() {
    let shape = Shape {
        replicas: 4,
        surge: 1,
        unavailable: 0,
        min_ready: 1,
        routed: true,
        keep: 2,
        published: false,
        memory: 1,
    };
    let mut sim = world(&[shape.clone(), shape]);
    assert!(sim.settle(Duration::from_secs(120), judge));
    for _ in 0..1000 {
        let plan = sim.pass();
        assert!(
            plan.steps.is_empty() && plan.notes.is_empty(),
            "{:?} {:?}",
            plan.steps,
            plan.notes
        );
        sim.elapse(Duration::from_secs(4));
    }
}
