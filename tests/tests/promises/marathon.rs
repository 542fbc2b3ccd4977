//! The promises over a misbehaving Marathon: silence, locks, hung deployments, lost machines, hands of others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use evenkeel::fake::marathon::SimMarathon;
use evenkeel::fake::{GRAIN, Sim, make};
use evenkeel::model::{
    Amount, AppAct, AppId, AppStep, InstanceId, Plan, Resources, Service, ServiceName, SpecHash,
    Step, Whose, World,
};
use proptest::prelude::*;

use crate::judge::marathon::{assert_as_desired, judge};

/// Between two passes where there is little to see: each costs more than the time does.
const SECOND: Duration = Duration::from_secs(1);
const NAMES: [&str; 2] = ["api", "job"];
const IMAGES: [&str; 6] = ["a", "b", "c", "bad", "crash", "slow"];

/// What may happen, in small numbers that shrink well.
#[derive(Debug, Clone)]
enum Event {
    Replicas(u8, u32),
    Image(u8, u8),
    Crash(u8, u8),
    Sicken(u8, u8),
    Lose(u8),
    Return(u8),
    Reboot(u8),
    Silence,
    Answer,
    KillAgent { dice: u64, keep: bool },
    Lock(u8, u8),
    Drift(u8),
    ScaleByHand(u8, u32),
    KillByHand(u8, u8),
    Remove(u8),
    Delete(u8),
    Break(Option<u8>),
    Mend,
    Suspend(u8, bool),
    Mute(u8, bool),
    Room(u8),
    Disruption(u32),
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let s = 0..2u8;
    prop_oneof![
        4 => (s.clone(), 0..6u32).prop_map(|(s, n)| Event::Replicas(s, n)),
        4 => (s.clone(), 0..6u8).prop_map(|(s, i)| Event::Image(s, i)),
        2 => (s.clone(), 0..6u8).prop_map(|(s, n)| Event::Crash(s, n)),
        2 => (s.clone(), 0..6u8).prop_map(|(s, n)| Event::Sicken(s, n)),
        2 => (0..3u8).prop_map(Event::Lose),
        2 => (0..3u8).prop_map(Event::Return),
        2 => (0..3u8).prop_map(Event::Reboot),
        2 => Just(Event::Silence),
        2 => Just(Event::Answer),
        2 => (any::<u64>(), any::<bool>()).prop_map(|(dice, keep)| Event::KillAgent { dice, keep }),
        2 => (s.clone(), 1..90u8).prop_map(|(s, n)| Event::Lock(s, n)),
        2 => s.clone().prop_map(Event::Drift),
        2 => (s.clone(), 0..6u32).prop_map(|(s, n)| Event::ScaleByHand(s, n)),
        2 => (s.clone(), 0..6u8).prop_map(|(s, n)| Event::KillByHand(s, n)),
        1 => s.clone().prop_map(Event::Remove),
        1 => s.clone().prop_map(Event::Delete),
        1 => proptest::option::of(s.clone()).prop_map(Event::Break),
        1 => Just(Event::Mend),
        1 => (s, any::<bool>()).prop_map(|(s, b)| Event::Suspend(s, b)),
        2 => (0..2u8, any::<bool>()).prop_map(|(n, b)| Event::Mute(n, b)),
        1 => (0..8u8).prop_map(Event::Room),
        1 => (0..4u32).prop_map(Event::Disruption),
        10 => (1..60u8).prop_map(Event::Wait),
    ]
}

#[derive(Debug, Clone)]
struct Shape {
    replicas: u32,
    surge: u32,
    unavailable: u32,
    percent: bool,
    min_ready: u8,
}

fn shape() -> impl Strategy<Value = Shape> {
    (0..5u32, 0..3u32, 0..3u32, any::<bool>(), 0..3u8).prop_map(
        |(replicas, surge, unavailable, percent, min_ready)| Shape {
            replicas,
            surge,
            unavailable,
            percent,
            min_ready,
        },
    )
}

fn name(n: u8) -> ServiceName {
    ServiceName::new(NAMES[usize::from(n) % NAMES.len()]).unwrap()
}

fn app(n: u8) -> AppId {
    AppId::of("/shop", &name(n))
}

fn build(n: u8, shape: &Shape, balancer: &ServiceName) -> Service {
    let mut s = make::service(name(n).as_str(), shape.replicas, "a").unwrap();
    s.fleet = evenkeel::model::FleetName::new("shop").unwrap();
    let amount = |n: u32| if shape.percent { Amount::Percent(25 * n) } else { Amount::Count(n) };
    s.rollout.max_surge = amount(shape.surge);
    s.rollout.max_unavailable = amount(shape.unavailable);
    s.rollout.min_ready = Duration::from_secs(shape.min_ready.into());
    s.rollout.progress_deadline = Duration::from_secs(30);
    s.termination.drain = Duration::from_secs(2);
    make::route(&mut s, 8000, balancer);
    s
}

/// Services of a cluster of three machines, behind balancers that run already.
fn world(shapes: &[Shape], fronts: usize) -> Sim {
    let machines: Vec<IpAddr> = (1..=3).map(|n| IpAddr::from([10, 1, 0, n])).collect();
    let mut sim = Sim::of(make::cluster("shop").unwrap(), Resources::default(), &machines);
    let mut balancer = make::service("web", 0, "a").unwrap();
    balancer.fleet = sim.name.clone();
    let services: Vec<Service> =
        (0..).zip(shapes).map(|(n, shape)| build(n, shape, &balancer.name)).collect();
    sim.balance(&balancer, &services, fronts);
    sim.put(balancer);
    for service in services {
        sim.put(service);
    }
    let theirs = AppId::new("/theirs/db").unwrap();
    let cluster = sim.cluster.as_mut().unwrap();
    cluster.add(theirs, Whose::Nobodys, evenkeel::model::Definition::default(), 2);
    let other = AppId::new("/shop/foreign").unwrap();
    cluster.add(other, Whose::Others, evenkeel::model::Definition::default(), 1);
    sim
}

fn cluster(sim: &mut Sim) -> &mut SimMarathon {
    sim.cluster.as_mut().unwrap()
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

fn apply(sim: &mut Sim, event: &Event) {
    happen(sim, event);
    sim.run(GRAIN, judge);
}

fn happen(sim: &mut Sim, event: &Event) {
    match event {
        Event::Replicas(s, n) => change(sim, *s, |s| s.replicas = *n),
        Event::Image(s, image) => change(sim, *s, |s| {
            make::respec(s, |i| i.image = IMAGES[usize::from(*image)].into());
        }),
        Event::Crash(s, nth) => cluster(sim).crash(&app(*s), usize::from(*nth)),
        Event::Sicken(s, nth) => {
            if let Some(task) = cluster(sim).nth_task(&app(*s), usize::from(*nth)) {
                task.ill = true;
            }
        }
        Event::Lose(n) => cluster(sim).lose_agent(usize::from(*n)),
        Event::Return(n) => cluster(sim).return_agent(usize::from(*n)),
        Event::Reboot(n) => cluster(sim).reboot_agent(usize::from(*n)),
        Event::Silence => cluster(sim).silence(),
        Event::Answer => cluster(sim).answer(),
        Event::KillAgent { dice, keep } => sim.kill_agent(*dice, *keep),
        Event::Lock(s, tenths) => {
            let ids = [app(*s), AppId::new("/theirs/db").unwrap()];
            cluster(sim).lock(ids, GRAIN * u32::from(*tenths));
        }
        Event::Drift(s) => {
            cluster(sim).edit(&app(*s), |d| {
                d.0.insert("cpus".into(), 7.into());
            });
        }
        Event::ScaleByHand(s, n) => {
            cluster(sim).scale(&app(*s), *n);
        }
        Event::KillByHand(s, nth) => cluster(sim).kill_by_hand(&app(*s), usize::from(*nth)),
        Event::Remove(s) => {
            cluster(sim).remove(&app(*s));
        }
        Event::Delete(s) => sim.delete(&name(*s)),
        Event::Break(s) => sim.break_source(s.map(name).as_ref()),
        Event::Mend => sim.mend_source(),
        Event::Suspend(s, suspend) => change(sim, *s, |s| s.suspend = *suspend),
        Event::Mute(nth, mute) => {
            if let Some(balancer) = sim.balancers.all.values_mut().nth(usize::from(*nth)) {
                balancer.mute = *mute;
            }
        }
        Event::Room(n) => cluster(sim).room = usize::from(*n),
        Event::Disruption(n) => {
            sim.change_fleet(|f| f.limits.disruptions_per_hour = (*n > 0).then_some(*n));
        }
        Event::Wait(tenths) => sim.run(GRAIN * u32::from(*tenths), judge),
    }
}

/// Everything is well again.
fn make_peace(sim: &mut Sim) {
    let cluster = cluster(sim);
    cluster.answer();
    cluster.room = 1000;
    (0..3).for_each(|n| cluster.return_agent(n));
    for task in cluster.apps.values_mut().flat_map(|a| a.tasks.values_mut()) {
        task.ill = false;
    }
    for balancer in sim.balancers.all.values_mut() {
        balancer.mute = false;
    }
    sim.mend_source();
    sim.change_fleet(|f| f.limits.disruptions_per_hour = None);
    for service in 0..2 {
        change(sim, service, |s| {
            s.suspend = false;
            if ["bad", "crash"].contains(&s.spec.image.as_str()) {
                make::respec(s, |i| i.image = "a".into());
            }
        });
    }
}

fn settles(sim: &mut Sim) {
    let settled = sim.settle(Duration::from_secs(300), judge);
    let left = sim.plan();
    assert!(settled, "it does not settle: {:?} {:?} {:#?}", left.steps, left.waiting, sim.cluster);
    assert!(left.steps.is_empty(), "planning again changes something: {:?}", left.steps);
}

fn acts(plan: &Plan) -> impl Iterator<Item = &AppStep> {
    plan.steps.iter().filter_map(|p| match &*p.step {
        Step::App(step) => Some(step),
        _ => None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: Some(Box::new(
        proptest::test_runner::FileFailurePersistence::WithSource("regressions"))),
        // Each case is a cluster for minutes: `PROPTEST_CASES` asks for more than these.
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(48),
        ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_marathon_every_promise_holds_and_peace_settles(
        shapes in proptest::collection::vec(shape(), 1..=2),
        fronts in 1..3usize,
        old: bool,
        events in proptest::collection::vec(event(), 0..30),
    ) {
        let mut sim = world(&shapes, fronts);
        cluster(&mut sim).old = old;
        for event in &events {
            apply(&mut sim, event);
        }
        make_peace(&mut sim);
        settles(&mut sim);
        assert_as_desired(&sim);
        for id in ["/theirs/db", "/shop/foreign"] {
            let theirs = &sim.cluster.as_ref().unwrap().apps[&AppId::new(id).unwrap()];
            prop_assert!(!matches!(theirs.whose, Whose::Ours { .. }), "{} was taken", id);
        }
        let before = sim.cluster.as_ref().unwrap().deployments.len();
        sim.run(Duration::from_secs(120), |_, _, plan| {
            assert!(plan.steps.is_empty() && plan.notes.is_empty(), "{:?}", plan.steps);
        });
        prop_assert_eq!(before, 0);
    }

    /// Promise 9: scaling restarts nobody and puts nothing, whatever the memory of the agent.
    #[test]
    fn scaling_an_app_restarts_nobody(
        shape in shape(),
        to in proptest::collection::vec((0..6u32, any::<bool>()), 1..4),
    ) {
        let mut sim = world(&[shape], 1);
        settles(&mut sim);
        for (to, forget) in to {
            let before = ids(&sim);
            if forget {
                sim.kill_agent(0, false);
            }
            change(&mut sim, 0, |s| s.replicas = to);
            let settled = sim.settle(Duration::from_secs(300), |s, w, p| {
                judge(s, w, p);
                for step in acts(p) {
                    // Of no tasks nobody is restarted.
                    let app = s.cluster.as_ref().unwrap().apps.get(&step.app);
                    let create = app.is_none_or(|a| a.tasks.is_empty());
                    let plain = matches!(step.act, AppAct::Scale { .. } | AppAct::Kill { .. });
                    assert!(create || plain, "{step}");
                }
            });
            prop_assert!(settled, "{:?}", sim.plan().waiting);
            let after = ids(&sim);
            let kept = before.iter().filter(|id| after.contains(id)).count();
            prop_assert_eq!(kept, before.len().min(to as usize));
        }
    }

    /// Promise 5: a cluster that is silent keeps what it has, and its tasks keep their traffic.
    #[test]
    fn a_silent_cluster_keeps_everything(
        shape in shape(),
        image in 0..6u8,
        n in 0..6u32,
        seconds in 3..90u64,
        restart: bool,
    ) {
        let mut sim = world(&[shape], 2);
        settles(&mut sim);
        let (before, led) = (ids(&sim), servers(&sim));
        cluster(&mut sim).silence();
        sim.elapse(Duration::from_secs(3));
        if restart {
            sim.kill_agent(9, true);
        }
        apply(&mut sim, &Event::Image(0, image));
        apply(&mut sim, &Event::Replicas(0, n));
        sim.run(Duration::from_secs(seconds), |s, w, p| {
            judge(s, w, p);
            assert!(p.steps.is_empty(), "{:?}", p.steps);
        });
        prop_assert_eq!(ids(&sim), before);
        prop_assert_eq!(servers(&sim), led);
    }

    /// Promise 8: a bad revision is rolled back, by force against its own hanging deployment only, and stays out.
    #[test]
    fn a_bad_revision_of_an_app_is_rolled_back(shape in shape(), crash: bool, forget: bool) {
        prop_assume!(shape.replicas > 0);
        let mut sim = world(&[shape], 1);
        settles(&mut sim);
        sim.run_each(SECOND, Duration::from_secs(20), judge);
        apply(&mut sim, &Event::Image(0, if crash { 4 } else { 3 }));
        sim.run(Duration::from_secs(45), judge);
        settles(&mut sim);
        prop_assert_eq!(cluster(&mut sim).apps[&app(0)].image(), "a");
        if forget {
            sim.kill_agent(7, true);
        }
        let calm = |s: &Sim, w: &World, p: &Plan| {
            judge(s, w, p);
            assert_eq!(acts(p).count(), 0, "a rollback was tried again or rolled back: {:?}", p.steps);
        };
        sim.run(Duration::from_secs(10), calm);
        sim.run_each(SECOND, Duration::from_secs(90), calm);
    }
}

fn ids(sim: &Sim) -> Vec<InstanceId> {
    sim.cluster
        .as_ref()
        .unwrap()
        .apps
        .get(&app(0))
        .iter()
        .flat_map(|a| a.tasks.keys())
        .cloned()
        .collect()
}

fn servers(sim: &Sim) -> Vec<String> {
    let all = sim.balancers.all.values().flat_map(|b| &b.servers);
    all.map(|(key, s)| format!("{key:?} {:?}", s.target)).collect()
}

/// Runs for a while and tells what was asked of Marathon.
fn asked(sim: &mut Sim, seconds: u64) -> Vec<String> {
    let mut said = Vec::new();
    sim.run(Duration::from_secs(seconds), |s, w, p| {
        judge(s, w, p);
        said.extend(acts(p).map(ToString::to_string));
    });
    said
}

fn plain(replicas: u32) -> Shape {
    Shape { replicas, surge: 1, unavailable: 0, percent: true, min_ready: 0 }
}

#[test]
fn what_somebody_changed_by_hand_is_changed_back_and_a_scaler_of_its_own_is_left() {
    let mut sim = world(&[plain(2), plain(3)], 1);
    change(&mut sim, 1, |s| s.app.scaled_elsewhere = true);
    settles(&mut sim);
    happen(&mut sim, &Event::Drift(0));
    assert_eq!(asked(&mut sim, 30), ["update app /shop/api"]);
    happen(&mut sim, &Event::ScaleByHand(0, 4));
    settles(&mut sim);
    assert_eq!(sim.running(&name(0)), 2);
    happen(&mut sim, &Event::ScaleByHand(1, 5));
    assert_eq!(asked(&mut sim, 30), [""; 0]);
    assert_eq!(sim.running(&name(1)), 5);
    // Another spec keeps the number that the other has chosen.
    happen(&mut sim, &Event::Image(1, 1));
    assert_eq!(asked(&mut sim, 30), ["update app /shop/job"]);
    assert_eq!(sim.running(&name(1)), 5);
}

#[test]
fn a_lock_of_others_is_waited_for() {
    let mut sim = world(&[plain(2)], 1);
    settles(&mut sim);
    happen(&mut sim, &Event::Lock(0, 200));
    happen(&mut sim, &Event::Image(0, 1));
    happen(&mut sim, &Event::Replicas(0, 4));
    assert_eq!(asked(&mut sim, 15), [""; 0]);
    settles(&mut sim);
    assert_as_desired(&sim);
}

#[test]
fn an_app_of_others_is_not_taken_and_a_claimed_one_that_is_equal_is_left() {
    let mut sim = world(&[plain(2)], 1);
    settles(&mut sim);
    let live = cluster(&mut sim).apps[&app(0)].clone();
    let by_hand = AppId::new("/old/api").unwrap();
    for whose in [Whose::Others, Whose::Nobodys] {
        let mut sim = world(&[plain(2)], 1);
        cluster(&mut sim).add(app(0), whose, (*live.definition).clone(), 2);
        assert_eq!(asked(&mut sim, 60), [""; 0]);
        let kinds: Vec<&str> = sim.plan().waiting.iter().map(|w| w.why.kind()).collect();
        assert!(kinds.contains(&"app-taken"), "{kinds:?}");
    }
    let mut sim = world(&[plain(2)], 1);
    cluster(&mut sim).add(by_hand.clone(), Whose::Nobodys, (*live.definition).clone(), 2);
    change(&mut sim, 0, |s| s.app.id = Some(by_hand.clone()));
    // It looks before it asks.
    assert_eq!(asked(&mut sim, 60), [""; 0]);
    settles(&mut sim);
    assert_as_desired(&sim);
    let tasks: Vec<_> = cluster(&mut sim).apps[&by_hand].tasks.keys().cloned().collect();
    change(&mut sim, 0, |s| s.replicas = 3);
    assert_eq!(asked(&mut sim, 60), ["scale app /old/api to 3"]);
    let app = &cluster(&mut sim).apps[&by_hand];
    assert!(tasks.iter().all(|id| app.tasks.contains_key(id)), "scaling restarted somebody");
    change(&mut sim, 0, |s| make::respec(s, |i| i.image = "b".into()));
    assert_eq!(asked(&mut sim, 60), ["update app /old/api"]);
    let whose = &cluster(&mut sim).apps[&by_hand].whose;
    assert!(matches!(whose, Whose::Ours { hash: Some(SpecHash(_)), .. }), "{whose:?}");
}

#[test]
fn a_lost_task_whose_address_another_has_costs_it_no_traffic() {
    let mut sim = world(&[plain(3)], 2);
    settles(&mut sim);
    let lost: BTreeSet<InstanceId> = ids(&sim).into_iter().collect();
    (0..3).for_each(|n| happen(&mut sim, &Event::Reboot(n)));
    // Marathon has sight of none of them, starts three in their place, and shows all six.
    let mut told: BTreeMap<InstanceId, u32> = BTreeMap::new();
    let mut shared = 0;
    for _ in 0..600 {
        sim.run(GRAIN, |s, w, p| {
            judge(s, w, p);
            for step in &p.steps {
                if let Step::Withdraw { id, .. } = &*step.step {
                    *told.entry(id.clone()).or_default() += 1;
                }
            }
        });
        let new = sim.cluster.as_ref().unwrap().apps[&app(0)].tasks.len() - lost.len();
        if ids(&sim).iter().filter(|id| lost.contains(id)).count() == 3 && new == 3 {
            shared += 1;
        }
    }
    assert!(shared > 50, "they did not share addresses: {shared}");
    assert!(told.iter().all(|(id, times)| lost.contains(id) && *times == 1), "{told:?}");
    settles(&mut sim);
    assert_as_desired(&sim);
}

#[test]
fn a_deployment_that_hangs_does_not_outlast_its_correction() {
    // There is room for three of five; then three are asked for.
    let mut sim = world(&[plain(2)], 1);
    settles(&mut sim);
    cluster(&mut sim).room = 3 + 3;
    happen(&mut sim, &Event::Replicas(0, 5));
    sim.run(Duration::from_secs(10), judge);
    happen(&mut sim, &Event::Replicas(0, 3));
    settles(&mut sim);
    assert_as_desired(&sim);
    // Nothing of it ever gets healthy; then it is to go.
    let mut sim = world(&[plain(2), plain(1)], 1);
    happen(&mut sim, &Event::Image(0, 3));
    sim.run(Duration::from_secs(10), judge);
    happen(&mut sim, &Event::Delete(0));
    settles(&mut sim);
    assert_as_desired(&sim);
}

#[test]
fn an_app_that_goes_while_marathon_changes_it_goes_as_a_whole() {
    let shape = Shape { replicas: 0, surge: 0, unavailable: 0, percent: false, min_ready: 0 };
    // Its tasks get healthy and are in no balancer yet, or are in all of them.
    for tenths in [6, 40] {
        let mut sim = world(&[shape.clone(), plain(1)], 1);
        let events =
            [Event::Replicas(0, 2), Event::Wait(tenths), Event::Image(0, 1), Event::Delete(0)];
        for event in &events {
            apply(&mut sim, event);
        }
        settles(&mut sim);
        assert_as_desired(&sim);
    }
}

#[test]
fn a_replacement_that_stands_still_is_begun_anew() {
    let shape = Shape { replicas: 1, surge: 0, unavailable: 0, percent: false, min_ready: 0 };
    let mut sim = world(&[shape], 1);
    // Its task only begins when it is to be replaced: it is not well, so that Marathon ends none, and there is no room.
    let events = [Event::Answer, Event::Replicas(0, 1), Event::Lock(1, 1), Event::Image(0, 1)];
    for event in &events {
        apply(&mut sim, event);
    }
    let anew = "restart app /shop/api, giving up the deployment that is under way";
    assert_eq!(asked(&mut sim, 8), [""; 0]);
    assert_eq!(asked(&mut sim, 20), [anew]);
    settles(&mut sim);
    assert_as_desired(&sim);
    assert_eq!(cluster(&mut sim).apps[&app(0)].image(), "b");
}
