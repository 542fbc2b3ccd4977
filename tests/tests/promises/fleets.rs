//! The promises over several fleets: services that move from one to another, and are split over them, while hosts, loops,
//! balancers and Marathon misbehave.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Duration;

use evenkeel::fake::fleets::Fleets;
use evenkeel::fake::{GRAIN, Sim, make};
use evenkeel::model::{
    Amount, AppId, FleetName, Plan, Resources, Service, ServiceName, State, Step,
};
use proptest::prelude::*;

use crate::judge::fleets::{Judge, assert_as_desired};

const FLEETS: [&str; 3] = ["d", "e", "m"];
const NAMES: [&str; 2] = ["api", "job"];

/// What may happen, in small numbers that shrink well.
#[derive(Debug, Clone)]
enum Event {
    Move(u8, u8),
    Split(u8, [u32; 3]),
    Image(u8, u8),
    Crash(u8, u8),
    Silence(u8),
    Answer(u8),
    KillAgent { dice: u64, keep: bool },
    Mute(u8, bool),
    Delay(u16),
    Rest(u8),
    Lock(u8),
    MoveBalancer(u8),
    Wait(u8),
}

fn event(rolls: bool) -> impl Strategy<Value = Event> {
    let s = 0..2u8;
    prop_oneof![
        6 => (s.clone(), 0..3u8).prop_map(|(s, f)| Event::Move(s, f)),
        4 => (s.clone(), [0..4u32, 0..4u32, 0..4u32]).prop_map(|(s, n)| Event::Split(s, n)),
        3 => (s.clone(), 0..3u8).prop_map(move |(s, i)| {
            if rolls { Event::Image(s, i) } else { Event::Wait(10 * i + 1) }
        }),
        2 => (s.clone(), 0..8u8).prop_map(|(s, n)| Event::Crash(s, n)),
        3 => (0..5u8).prop_map(Event::Silence),
        3 => (0..5u8).prop_map(Event::Answer),
        2 => (any::<u64>(), any::<bool>()).prop_map(|(dice, keep)| Event::KillAgent { dice, keep }),
        2 => (0..3u8, any::<bool>()).prop_map(|(n, b)| Event::Mute(n, b)),
        2 => (0..20u16).prop_map(Event::Delay),
        1 => (20..=1200u16).prop_map(Event::Delay),
        1 => (6..60u8).prop_map(Event::Rest),
        1 => s.prop_map(Event::Lock),
        1 => (0..2u8).prop_map(Event::MoveBalancer),
        12 => (1..60u8).prop_map(Event::Wait),
    ]
}

#[derive(Debug, Clone)]
struct Shape {
    replicas: u32,
    surge: u32,
    unavailable: u32,
    fleet: u8,
}

fn shape() -> impl Strategy<Value = Shape> {
    (1..6u32, 0..3u32, 0..2u32, 0..3u8).prop_map(|(replicas, surge, unavailable, fleet)| Shape {
        replicas,
        surge,
        unavailable,
        fleet,
    })
}

fn fleet_name(n: u8) -> FleetName {
    FleetName::new(FLEETS[usize::from(n) % 3]).unwrap()
}

fn name(n: u8) -> ServiceName {
    ServiceName::new(NAMES[usize::from(n) % 2]).unwrap()
}

fn docker(name: &str, net: u8) -> Sim {
    let hosts = (1..=2).map(|n| {
        let mut host = make::host(&format!("{name}{n}"), &[]).unwrap();
        host.address = Some(format!("10.{net}.0.{n}"));
        host
    });
    let capacity = Resources { cpu_millis: 8000, memory_bytes: 24 << 30 };
    Sim::of(make::fleet(name, hosts.collect()).unwrap(), capacity, &[])
}

/// Two fleets of two hosts each and a Marathon; balancers on the first.
fn world(shapes: &[Shape], fronts: u32) -> Fleets {
    let machines: Vec<IpAddr> = (1..=3).map(|n| IpAddr::from([10, 9, 0, n])).collect();
    let cluster = Sim::of(make::cluster("m").unwrap(), Resources::default(), &machines);
    let mut all = Fleets::new(vec![docker("d", 1), docker("e", 2), cluster], GRAIN);
    let mut balancer = make::service("web", fronts, "a").unwrap();
    balancer.fleet = fleet_name(0);
    let services: Vec<Service> = (0u8..)
        .zip(shapes)
        .map(|(n, shape)| {
            let mut s = make::service(name(n).as_str(), shape.replicas, "a").unwrap();
            s.fleet = fleet_name(shape.fleet);
            s.rollout.max_surge = Amount::Count(shape.surge);
            s.rollout.max_unavailable = Amount::Count(shape.unavailable);
            s.rollout.progress_deadline = Duration::from_secs(60);
            s.termination.drain = Duration::from_secs(2);
            make::route(&mut s, 8000 + 100 * u16::from(n), &balancer.name);
            s
        })
        .collect();
    all.commit(|sim| {
        // Beside its own containers one that runs already: it does not die, and can be silent.
        sim.balance(&balancer, &services, usize::from(fronts % 2 == 1));
        sim.put(balancer.clone());
        for service in &services {
            sim.put(service.clone());
        }
    });
    all
}

fn change(all: &mut Fleets, service: &ServiceName, edit: impl Fn(&mut Service)) {
    all.commit(|sim| {
        if let Some(known) = sim.desired.services.get(service) {
            let mut s = (**known).clone();
            edit(&mut s);
            sim.put(s);
        }
    });
}

fn crash(all: &mut Fleets, service: &ServiceName, nth: usize) {
    let mut left = nth;
    for sim in all.sims.values_mut() {
        let id = AppId::of(&format!("/{}", sim.name), service);
        if let Some(cluster) = &mut sim.cluster {
            cluster.crash(&id, left);
            continue;
        }
        for host in sim.hosts.values_mut() {
            let runs = |c: &evenkeel::fake::host::Container| {
                c.instance.service == *service && c.instance.state == State::Running
            };
            let ids: Vec<_> =
                host.containers.iter().filter(|(_, c)| runs(c)).map(|(id, _)| id.clone()).collect();
            for id in ids {
                if left == 0 {
                    host.with(&id, |c| {
                        c.instance.state = State::Exited { code: 1, out_of_memory: false };
                    });
                    return;
                }
                left -= 1;
            }
        }
    }
}

/// Host 0 to 3 of the two fleets of hosts, or the cluster.
fn silence(all: &mut Fleets, which: u8, silent: bool) {
    let (fleet, nth) = (fleet_name(which / 2), usize::from(which % 2));
    let Some(sim) = all.sims.get_mut(&fleet) else { return };
    let now = sim.now;
    if let Some(cluster) = &mut sim.cluster {
        if silent { cluster.silence() } else { cluster.answer() }
    } else if let Some(host) = sim.hosts.values_mut().nth(nth) {
        if silent { host.silence(now) } else { host.answer() }
    }
}

/// How long balancers take to follow from now on.
fn loads(all: &mut Fleets, takes: Duration) {
    all.sims.values_mut().for_each(|sim| sim.balancers.loads = takes);
}

fn apply(all: &mut Fleets, judge: &RefCell<Judge>, event: &Event) {
    match event {
        Event::Move(s, f) => change(all, &name(*s), |s| {
            s.fleet = fleet_name(*f);
            s.placements.clear();
        }),
        Event::Split(_, [0, 0, 0]) => {}
        Event::Split(s, parts) => change(all, &name(*s), |s| {
            s.replicas = parts.iter().sum();
            s.placements = (0..).map(fleet_name).zip(*parts).collect();
            s.placements.retain(|_, n| *n > 0);
            s.fleet = s.placements.keys().next().unwrap().clone();
        }),
        Event::Image(s, image) => change(all, &name(*s), |s| {
            make::respec(s, |i| i.image = ["a", "b", "slow"][usize::from(*image)].into());
        }),
        Event::Crash(s, nth) => crash(all, &name(*s), usize::from(*nth)),
        Event::Silence(which) => silence(all, *which, true),
        Event::Answer(which) => silence(all, *which, false),
        Event::KillAgent { dice, keep } => all.kill_agent(*dice, *keep),
        Event::Mute(nth, mute) => {
            let mut fronts = all.sims.values_mut().flat_map(|s| s.balancers.all.values_mut());
            if let Some(balancer) = fronts.nth(usize::from(*nth)) {
                balancer.mute = *mute;
            }
        }
        Event::Delay(grains) => {
            all.delay = GRAIN * u32::from(*grains);
            let mut judge = judge.borrow_mut();
            judge.delay = judge.delay.max(all.delay);
        }
        Event::Lock(s) => {
            let ids = [AppId::of("/m", &name(*s)), AppId::new("/theirs").unwrap()];
            let sim = all.sims.get_mut(&fleet_name(2)).unwrap();
            sim.cluster.as_mut().unwrap().lock(ids, Duration::from_secs(4));
        }
        Event::MoveBalancer(f) => {
            let web = ServiceName::new("web").unwrap();
            let desired = all.desired().unwrap();
            // One that runs already runs nowhere else.
            if !desired.routings[&web].external.is_empty() {
                return;
            }
            change(all, &web, |s| s.fleet = fleet_name(*f));
        }
        Event::Wait(tenths) => run(all, judge, GRAIN * u32::from(*tenths)),
        Event::Rest(seconds) => run(all, judge, Duration::from_secs((*seconds).into())),
    }
    run(all, judge, GRAIN);
}

fn run(all: &mut Fleets, judge: &RefCell<Judge>, for_: Duration) {
    all.run(for_, |all, fleet, world, plan| {
        judge.borrow_mut().judge(all, fleet, world, plan);
    });
}

fn make_peace(all: &mut Fleets) {
    all.delay = GRAIN;
    loads(all, Duration::ZERO);
    (0..5).for_each(|which| silence(all, which, false));
    for sim in all.sims.values_mut() {
        for balancer in sim.balancers.all.values_mut() {
            balancer.mute = false;
        }
    }
    for service in 0..2 {
        change(all, &name(service), |s| make::respec(s, |i| i.image = "a".into()));
    }
}

fn settles(all: &mut Fleets, judge: &RefCell<Judge>) {
    let settled = all.settle(Duration::from_secs(300), |all, fleet, world, plan| {
        judge.borrow_mut().judge(all, fleet, world, plan);
    });
    let left: Vec<Plan> = all.sims.values().map(Sim::plan).collect();
    let told: Vec<_> = left.iter().map(|p| (&p.steps, &p.waiting)).collect();
    assert!(settled, "it does not settle: {told:#?}");
    assert!(left.iter().all(|p| p.steps.is_empty()), "planning again changes something: {told:?}");
}

fn whatever(shapes: &[Shape], fronts: u32, rolls: bool, slow: Duration, events: &[Event]) {
    let mut all = world(shapes, fronts);
    loads(&mut all, slow);
    let judge = RefCell::new(Judge::new(rolls));
    for event in events {
        apply(&mut all, &judge, event);
    }
    make_peace(&mut all);
    settles(&mut all, &judge);
    assert_as_desired(&all);
    all.run(Duration::from_secs(60), |_, _, _, plan| {
        assert!(plan.steps.is_empty() && plan.notes.is_empty(), "not idle: {:?}", plan.steps);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: Some(Box::new(
        proptest::test_runner::FileFailurePersistence::WithSource("regressions"))),
        // Each case is several fleets for minutes: `PROPTEST_CASES` asks for more than these.
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(12),
        ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_while_services_move_no_request_is_lost_by_our_hand(
        shapes in proptest::collection::vec(shape(), 1..=2),
        fronts in 1..3u32,
        events in proptest::collection::vec(event(false), 0..20),
    ) {
        whatever(&shapes, fronts, false, Duration::ZERO, &events);
    }

    #[test]
    fn whatever_happens_while_services_move_and_change_no_request_is_lost_by_our_hand(
        shapes in proptest::collection::vec(shape(), 1..=2),
        fronts in 1..3u32,
        events in proptest::collection::vec(event(true), 0..20),
    ) {
        whatever(&shapes, fronts, true, Duration::ZERO, &events);
    }

    /// A balancer that loads one table takes no other, and says nothing of what it will be told next.
    #[test]
    fn whatever_happens_while_balancers_are_slow_no_request_is_lost_by_our_hand(
        shapes in proptest::collection::vec(shape(), 1..=2),
        fronts in 1..3u32,
        slow in 1..60u32,
        events in proptest::collection::vec(event(true), 0..20),
    ) {
        whatever(&shapes, fronts, true, GRAIN * slow, &events);
    }
}

/// One service goes from everywhere to everywhere, in peace: floor and ceiling over all, and as many starts as replicas.
#[test]
fn a_move_costs_one_start_for_each_instance() {
    for (from, to) in [(2, 0), (0, 1), (0, 2), (1, 2), (2, 1)] {
        let shape = Shape { replicas: 5, surge: 2, unavailable: 0, fleet: from };
        let mut all = world(&[shape], 1);
        let judge = RefCell::new(Judge::new(false));
        settles(&mut all, &judge);
        change(&mut all, &name(0), |s| s.fleet = fleet_name(to));
        let mut starts = 0;
        let settled = all.settle(Duration::from_secs(300), |all, fleet, world, plan| {
            judge.borrow_mut().judge(all, fleet, world, plan);
            starts += plan.steps.iter().filter(|p| matches!(&*p.step, Step::Start(_))).count();
        });
        assert!(settled, "from {from} to {to}");
        assert_as_desired(&all);
        assert_eq!(starts, if to == 2 { 0 } else { 5 }, "from {from} to {to}");
    }
}
