//! The loop over the simulated backend, on a paused clock: what it must never lose or do twice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test panics where it fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel::backend::{Backend as _, Watch};
use evenkeel::bell::Doorbell;
use evenkeel::clock::Clock;
use evenkeel::exchange::Exchange;
use evenkeel::fake::backend::FakeBackend;
use evenkeel::fake::make;
use evenkeel::model::{
    Desired, Fleet, FleetName, HostName, InstanceId, InstanceSpec, Limits, Memory, OwnerId, Phase,
    Planned, Revision, Service, State,
};
use evenkeel::reconcile::{Alone, Keeper, NoEdge, Reconciler, Witness};
use evenkeel::report::PassReport;
use evenkeel_tests::conformance::{Oracle, conformance};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Default)]
struct Told {
    last: Mutex<Option<PassReport>>,
    passes: Mutex<u32>,
    failures: Mutex<Vec<String>>,
    kept: Mutex<Memory>,
}

impl Witness for Told {
    fn pass(&self, pass: PassReport) {
        *self.passes.lock().unwrap() += 1;
        *self.last.lock().unwrap() = Some(pass);
    }
    fn began(&self, _: &FleetName, _: &Planned) {}
    fn ended(&self, _: &FleetName, _: &Planned, _: Duration, outcome: Result<(), String>) {
        self.failures.lock().unwrap().extend(outcome.err());
    }
}

impl Keeper for Told {
    fn load(&self, _: &FleetName) -> Memory {
        self.kept.lock().unwrap().clone()
    }
    fn keep(&self, _: &FleetName, memory: &Memory) {
        *self.kept.lock().unwrap() = memory.clone();
    }
}

struct Rig {
    backend: Arc<FakeBackend>,
    told: Arc<Told>,
    bell: Doorbell,
    clock: Clock,
    desired: watch::Sender<Arc<Desired>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

fn desired(services: Vec<Service>) -> Arc<Desired> {
    let fleet = Fleet {
        name: FleetName::of_default(),
        hosts: ["h1", "h2"]
            .map(|h| make::host(h, &[]).unwrap())
            .map(|h| (h.name.clone(), Arc::new(h)))
            .into(),
        marathon: None,
        limits: Limits::default(),
        registry: None,
        approved_prune: None,
    };
    Arc::new(Desired {
        revision: Revision("abc".into()),
        fleets: BTreeMap::from([(fleet.name.clone(), Arc::new(fleet))]),
        services: services.into_iter().map(|s| (s.name.clone(), Arc::new(s))).collect(),
        routings: BTreeMap::new(),
        held: BTreeSet::new(),
        problems: Vec::new(),
        removal: evenkeel::model::Removal::default(),
    })
}

impl Rig {
    fn new(first: Arc<Desired>) -> Self {
        let (bell, clock) = (Doorbell::new(), Clock::real());
        let backend = Arc::new(FakeBackend::new(bell.clone(), clock.clone()));
        let mut rig = Rig {
            backend,
            told: Arc::default(),
            bell,
            clock,
            desired: watch::channel(first).0,
            stop: watch::channel(false).0,
            tasks: JoinSet::new(),
        };
        let life = rig.backend.clone();
        rig.tasks.spawn(async move { life.live().await });
        rig.agent();
        rig
    }

    fn agent(&mut self) {
        let agent = Reconciler {
            fleet: FleetName::of_default(),
            desired: self.desired.subscribe(),
            backend: self.backend.clone(),
            edges: Arc::new(NoEdge),
            bell: self.bell.clone(),
            clock: self.clock.clone(),
            keeper: self.told.clone(),
            witness: self.told.clone(),
            exchange: Exchange::default(),
            fence: Arc::new(Alone::default()),
        };
        let stop = self.stop.subscribe();
        self.tasks.spawn(agent.run(stop));
    }

    async fn until_ready(&self, what: &str) {
        let ready = || {
            let last = self.told.last.lock().unwrap();
            last.as_ref().is_some_and(|p| {
                p.plan.steps.is_empty()
                    && p.world.in_flight.is_empty()
                    && Arc::ptr_eq(&p.desired, &self.desired.borrow())
                    && p.plan.services.values().all(|s| s.phase == Phase::Ready)
            })
        };
        for _ in 0..3000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if ready() {
                return;
            }
        }
        let last = self.told.last.lock().unwrap();
        panic!("{what}: not ready: {:?}", last.as_ref().map(|p| &p.plan));
    }

    fn running(&self) -> BTreeSet<InstanceId> {
        ["h1", "h2"]
            .iter()
            .filter_map(|h| {
                let host = HostName::new(h).unwrap();
                self.backend.with(&host, |h| {
                    let running = |s| s == State::Running;
                    let all = h.containers.iter().filter(|(_, c)| running(c.instance.state));
                    all.map(|(id, _)| id.clone()).collect::<Vec<_>>()
                })
            })
            .flatten()
            .collect()
    }

    fn kill_one(&self) {
        let h1 = HostName::new("h1").unwrap();
        self.backend.with(&h1, |h| {
            let id = h.containers.keys().next().unwrap().clone();
            h.with(&id, |c| c.instance.state = State::Exited { code: 9, out_of_memory: false });
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_scales_and_a_death_costs_one_start() {
    let rig = Rig::new(desired(vec![make::service("web", 4, "a").unwrap()]));
    rig.until_ready("first").await;
    let before = rig.running();
    assert_eq!(before.len(), 4);
    rig.desired.send_replace(desired(vec![make::service("web", 10, "a").unwrap()]));
    rig.until_ready("scaled").await;
    let after = rig.running();
    assert_eq!(after.len(), 10);
    assert!(before.is_subset(&after), "a scale restarted somebody");
    let calls = rig.backend.calls().len();
    rig.kill_one();
    tokio::time::sleep(Duration::from_millis(50)).await;
    rig.until_ready("healed").await;
    let new = &rig.backend.calls()[calls..];
    assert_eq!(new.iter().filter(|c| c.starts_with("start")).count(), 1, "{new:?}");
    assert_eq!(rig.running().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_idle_loop_calls_nothing_and_seldom_plans() {
    let rig = Rig::new(desired(vec![make::service("web", 4, "a").unwrap()]));
    rig.until_ready("first").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (calls, passes) = (rig.backend.calls().len(), *rig.told.passes.lock().unwrap());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(rig.backend.calls().len(), calls, "an idle system made a call");
    let passes = *rig.told.passes.lock().unwrap() - passes;
    assert!((100..=130).contains(&passes), "{passes} passes in an idle hour");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_agent_lets_its_steps_end_and_the_next_one_does_nothing_twice() {
    let mut rig = Rig::new(desired(vec![make::service("web", 3, "a").unwrap()]));
    rig.until_ready("first").await;
    // Long enough to be proven, so that there is something to remember.
    tokio::time::sleep(Duration::from_secs(15)).await;
    rig.desired.send_replace(desired(vec![make::service("web", 3, "b").unwrap()]));
    tokio::time::sleep(Duration::from_millis(150)).await;
    rig.stop.send_replace(true);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let kept = rig.told.kept.lock().unwrap().clone();
    let good = kept.services.values().next().unwrap().last_good.clone();
    assert_eq!(good.map(|g| g.spec.image.clone()), Some("a".into()), "the memory was not kept");
    let calls = rig.backend.calls();
    rig.stop.send_replace(false);
    rig.agent();
    rig.until_ready("resumed").await;
    assert_eq!(rig.running().len(), 3);
    let starts: Vec<_> =
        rig.backend.calls()[..].iter().filter(|c| c.starts_with("start")).cloned().collect();
    assert_eq!(starts.len(), 6, "3 of each, none twice: {calls:?} {starts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failing_step_is_tried_again_with_pauses_and_recovers_without_a_commit() {
    let rig = Rig::new(desired(vec![make::service("web", 2, "a").unwrap()]));
    rig.until_ready("first").await;
    for h in ["h1", "h2"] {
        rig.backend.with(&HostName::new(h).unwrap(), |h| h.refuses = true);
    }
    rig.kill_one();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let failures = rig.told.failures.lock().unwrap().clone();
    assert!((4..=9).contains(&failures.len()), "{} tries in a minute", failures.len());
    assert!(failures[0].ends_with("no space left on device"), "{failures:?}");
    for h in ["h1", "h2"] {
        rig.backend.with(&HostName::new(h).unwrap(), |h| h.refuses = false);
    }
    rig.until_ready("recovered").await;
    assert_eq!(rig.running().len(), 2);
}

/// The simulated engine from outside.
struct Outside(Arc<FakeBackend>);

#[async_trait::async_trait]
impl Oracle for Outside {
    fn host(&self) -> HostName {
        HostName::new("h1").unwrap()
    }
    fn owner(&self) -> OwnerId {
        OwnerId::new("sim").unwrap()
    }
    fn spec(&self) -> InstanceSpec {
        InstanceSpec { image: "instant".into(), ..InstanceSpec::default() }
    }
    async fn kill(&self, id: &str) {
        let id = InstanceId(id.into());
        self.0.with(&self.host(), |h| {
            h.with(&id, |c| c.instance.state = State::Exited { code: 137, out_of_memory: false });
        });
    }
    async fn state(&self, id: &str) -> Option<bool> {
        let id = InstanceId(id.into());
        let state = |h: &mut evenkeel::fake::host::SimHost| {
            let ours = h.containers.get(&id).map(|c| c.instance.state == State::Running);
            ours.or_else(|| h.has_stranger(&id).then_some(true))
        };
        self.0.with(&self.host(), state).flatten()
    }
    async fn count(&self) -> usize {
        self.0.with(&self.host(), |h| h.containers.len()).unwrap_or(0)
    }
    async fn foreign(&self, name: &str, _: BTreeMap<String, String>) -> (String, String) {
        let id = self.0.with(&self.host(), |h| h.add_stranger(name)).unwrap();
        (id.0.to_string(), name.to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn the_simulated_backend_keeps_the_contract_of_real_ones() {
    let backend = Arc::new(FakeBackend::new(Doorbell::new(), Clock::real()));
    let fleet = desired(Vec::new()).fleets.values().next().unwrap().clone();
    backend.watch(Watch { fleet, probes: BTreeMap::new(), apps: BTreeMap::new() });
    let mut life = JoinSet::new();
    let living = backend.clone();
    life.spawn(async move { living.live().await });
    conformance(&*backend, &Outside(backend.clone()), "sim").await;
}
