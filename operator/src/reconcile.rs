//! The loop: look, plan, act, again. It contains no decision; every decision is in `plan`.
//!
//! One task a fleet, so that a slow fleet delays no other. Steps run beside the loop: one that is
//! under way is part of the world of the next pass, so it is never planned twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backend::{Backend, Watch};
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::error::{PortError, Remedy, causes};
use crate::exchange::Exchange;
use crate::model::{
    BalancerId, BalancerView, Desired, Edges, Fleet, FleetName, HealthState, HostName, HostView,
    InFlight, Memory, Planned, Seen, Step, Time, Traffic, World,
};
use crate::plan::{Input, localise, plan, traffic};
use crate::report::PassReport;

/// A pass is made at least this often, even if nothing rings: what an event did not say is found.
const RESYNC: Duration = Duration::from_secs(30);
/// Steps that fail because the world changed under them are retried at once this often in a row.
const SURPRISES: u32 = 3;
/// The longest pause before a failed stop, removal or rename is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After this without another one a failure is not the first of a row any more.
const FORGETS: Duration = Duration::from_secs(600);
/// A change of traffic that is not observed after this is planned anew. nginx gathers changes for 15 s at most.
const LONGEST_TURN: Duration = Duration::from_secs(20);
/// Why a step is not begun, or broken off.
const NOT_OURS: &str = "another agent of this owner is to act";
/// How long steps under way may still take when the agent is asked to stop.
const LAST_STEPS: Duration = Duration::from_secs(15);

/// Whoever is told what the loop does. It must not wait.
pub trait Witness: Send + Sync {
    /// A pass was made.
    fn pass(&self, pass: PassReport);
    /// A step was begun.
    fn began(&self, fleet: &FleetName, planned: &Planned);
    /// A step ended, with the whole chain of causes when it failed.
    fn ended(
        &self,
        fleet: &FleetName,
        planned: &Planned,
        took: Duration,
        outcome: Result<(), String>,
    );
}

/// Leads clients to the instances of one fleet: its balancers and its registry together.
pub trait Edge: Send + Sync {
    /// Which registry the fleet has now. Cheap when nothing changed.
    fn watch(&self, fleet: &Arc<Fleet>);
    /// Puts what they have in force into the world.
    fn observe(&self, world: &mut World);
    /// What each balancer has in force now. Never waits.
    fn fronts(&self) -> BTreeMap<BalancerId, Arc<BalancerView>>;
    /// Says what they should do from now on. Cheap when nothing changed; never waits.
    fn publish(&self, edges: &Edges);
    /// Lets go of all of them as they are: another agent leads from now on.
    fn release(&self);
}

/// No balancers and no registry.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEdge;

impl Edge for NoEdge {
    fn watch(&self, _: &Arc<Fleet>) {}
    fn observe(&self, _: &mut World) {}
    fn fronts(&self) -> BTreeMap<BalancerId, Arc<BalancerView>> {
        BTreeMap::new()
    }
    fn publish(&self, _: &Edges) {}
    fn release(&self) {}
}

/// Whether this agent is the one that acts. Where several stand by for each other, one at a time may.
pub trait Fence: Send + Sync {
    /// Whether a step may begin now. Asked right before each: what was true a moment ago may not be any more.
    fn holds(&self) -> bool;
    /// Tells when that changes.
    fn changes(&self) -> watch::Receiver<bool>;
}

/// There is no other agent.
#[derive(Debug)]
pub struct Alone(watch::Sender<bool>);

impl Default for Alone {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Fence for Alone {
    fn holds(&self) -> bool {
        true
    }
    fn changes(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}

/// Keeps a fleet's memory over restarts. Losing it may delay, never break a promise.
pub trait Keeper: Send + Sync {
    /// What was kept, or nothing.
    fn load(&self, fleet: &FleetName) -> Memory;
    /// Keeps it; called off the loop, failures are its own to report.
    fn keep(&self, fleet: &FleetName, memory: &Memory);
}

/// Everything the loop of one fleet works with.
pub struct Reconciler {
    /// The fleet.
    pub fleet: FleetName,
    /// What should run; the newest is taken at every pass.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// Runs the instances.
    pub backend: Arc<dyn Backend>,
    /// Leads clients to them.
    pub edges: Arc<dyn Edge>,
    /// Rung by whatever notices a change.
    pub bell: Doorbell,
    /// The time.
    pub clock: Clock,
    /// Keeps the memory.
    pub keeper: Arc<dyn Keeper>,
    /// Is told.
    pub witness: Arc<dyn Witness>,
    /// What the other fleets say, and are told.
    pub exchange: Exchange,
    /// Whether it may act. While it may not it looks and plans all the same, so that it is ready at once.
    pub fence: Arc<dyn Fence>,
}

/// A step that has ended.
struct Ended {
    id: u64,
    planned: Planned,
    took: Duration,
    outcome: Result<(), PortError>,
}

/// Steps under way, and those that failed and wait for their next try.
#[derive(Default)]
struct Flights {
    next: u64,
    flying: BTreeMap<u64, (Planned, Time)>,
    cooling: Vec<(InFlight, Time)>,
    /// How often in a row a step has failed, and when last.
    failures: BTreeMap<String, (u32, Time)>,
    tasks: JoinSet<Ended>,
    /// Changes of traffic that were published and are not yet observed.
    turning: Vec<(Planned, Time)>,
}

impl Flights {
    fn all(&self) -> Vec<InFlight> {
        let begun = self.flying.values().chain(&self.turning);
        let begun = begun.map(|(p, since)| InFlight { step: p.step.clone(), since: *since });
        begun.chain(self.cooling.iter().map(|(f, _)| f.clone())).collect()
    }

    /// Ends the changes of traffic that are observed, and those that take too long.
    fn turned(&mut self, world: &World, now: Time) -> Vec<(Planned, Duration, Result<(), String>)> {
        let mut ended = Vec::new();
        self.turning.retain(|(planned, since)| {
            let took = now.since(*since);
            let outcome = match turn(&planned.step, world) {
                Turn::Done => Ok(()),
                Turn::Gone => Err("it ended before".to_owned()),
                Turn::Sick => Err("it is not healthy any more".to_owned()),
                Turn::Waits if took >= LONGEST_TURN => {
                    Err("not every balancer and the registry followed in time".to_owned())
                }
                Turn::Waits => return true,
            };
            ended.push((planned.clone(), took, outcome));
            false
        });
        ended
    }

    fn begin(
        &mut self,
        backend: &Arc<dyn Backend>,
        fence: &Arc<dyn Fence>,
        planned: Planned,
        now: Time,
    ) {
        let (id, backend, fence) = (self.next, backend.clone(), fence.clone());
        self.next += 1;
        self.flying.insert(id, (planned.clone(), now));
        self.tasks.spawn(async move {
            let begun = Instant::now();
            let outcome = if fence.holds() {
                backend.apply(&planned.step).await
            } else {
                Err(PortError::new(planned.step.to_string(), Remedy::Reobserve, NOT_OURS))
            };
            Ended { id, planned, took: begun.elapsed(), outcome }
        });
    }

    /// The number of failures in a row of this very step.
    fn failed(&mut self, step: &Step, now: Time) -> u32 {
        // Many a step is never planned again, such as one on an instance that is gone.
        self.failures.retain(|_, (_, last)| now.since(*last) < FORGETS);
        let (count, last) = self.failures.entry(step.to_string()).or_insert((0, now));
        *count += 1;
        *last = now;
        *count
    }
}

impl Reconciler {
    /// Runs until `stop` turns true, then lets the steps under way end.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let (keeper, name) = (self.keeper.clone(), self.fleet.clone());
        // Reading a spec again may mean asking for its secrets.
        let loaded = tokio::task::spawn_blocking(move || keeper.load(&name)).await;
        let mut memory = loaded.unwrap_or_default();
        memory.resume(self.clock.now());
        let mut flights = Flights::default();
        let mut savers = JoinSet::new();
        let mut fleet: Option<Arc<Fleet>> = None;
        let mut left = BTreeMap::new();
        let mut unsaved = false;
        let mut turns = self.fence.changes();
        let mut acted = false;
        while !*stop.borrow() {
            let desired = self.desired.borrow_and_update().clone();
            // A fleet whose document is gone keeps its last shape: its services are not pruned.
            let newest = desired.fleets.get(&self.fleet).cloned().or_else(|| fleet.clone());
            let Some(current) = newest else {
                tokio::select! {
                    changed = self.desired.changed() => if changed.is_err() { return },
                    _ = stop.changed() => {}
                }
                continue;
            };
            if let Some(before) = fleet.replace(current.clone()) {
                note_left(&before, &current, &self.backend.views(), &mut left);
            }
            let acts = *turns.borrow_and_update() && self.fence.holds();
            if acted && !acts {
                self.let_go(&mut flights);
            } else if acts && !acted {
                memory.resume(self.clock.now());
            }
            acted = acts;
            let rest = self.pass(&current, &desired, &left, &mut memory, &mut flights);
            unsaved |= rest.dirty;
            if unsaved && savers.is_empty() {
                unsaved = false;
                let (keeper, name, copy) =
                    (self.keeper.clone(), self.fleet.clone(), memory.clone());
                savers.spawn_blocking(move || keeper.keep(&name, &copy));
            }
            tokio::select! {
                () = self.bell.rung() => {}
                changed = self.desired.changed() => if changed.is_err() { break },
                Some(ended) = flights.tasks.join_next() => {
                    self.land(ended.ok(), &mut flights, &mut memory);
                    while let Some(ended) = flights.tasks.try_join_next() {
                        self.land(ended.ok(), &mut flights, &mut memory);
                    }
                }
                Some(_) = savers.join_next() => {}
                () = tokio::time::sleep(rest.pause) => {}
                Ok(()) = turns.changed() => {}
                _ = stop.changed() => {}
            }
        }
        self.finish(flights, &mut memory).await;
        while savers.join_next().await.is_some() {}
        self.keeper.keep(&self.fleet, &memory);
    }

    /// Tells the other fleets of this pass. What was ordered before it may have been begun while it was thought about.
    fn tell(&self, edges: &Edges) {
        let outward = edges.outward.clone();
        self.exchange
            .tell(&self.fleet, &outward.once_published(&edges.orders, &self.edges.fronts()));
    }

    fn pass(
        &self,
        fleet: &Arc<Fleet>,
        desired: &Arc<Desired>,
        left: &BTreeMap<HostName, Arc<HostView>>,
        memory: &mut Memory,
        flights: &mut Flights,
    ) -> Rest {
        self.backend.watch(Watch::of(fleet, desired));
        let now = self.clock.now();
        flights.cooling.retain(|(_, until)| *until > now);
        let mut hosts = self.backend.views();
        for (name, view) in left {
            hosts.entry(name.clone()).or_insert_with(|| view.clone());
        }
        let mut world = World { hosts, in_flight: flights.all(), ..World::default() };
        self.edges.watch(fleet);
        self.edges.observe(&mut world);
        world.elsewhere = self.exchange.hear(&self.fleet);
        let local = localise(fleet, desired, &world, now);
        let desired = local.as_ref().unwrap_or(desired);
        traffic::observe(fleet, desired, &mut world, now);
        for (planned, took, outcome) in flights.turned(&world, now) {
            self.witness.ended(&self.fleet, &planned, took, outcome);
        }
        world.in_flight = flights.all();
        memory.forget_old(now);
        let begun = Instant::now();
        let plan = Arc::new(plan(&Input { fleet, desired, world: &world, memory, now }));
        let took = begun.elapsed();
        let acts = self.fence.holds();
        if acts {
            memory.take(&plan.notes);
            // First of all: who has died must get no more requests, and who is to be stopped none while it ends.
            self.edges.publish(&plan.edges);
        }
        self.tell(&plan.edges);
        for planned in plan.steps.iter().filter(|_| acts) {
            self.witness.began(&self.fleet, planned);
            match planned.step.as_ref() {
                Step::Admit { .. } | Step::Withdraw { .. } => {
                    flights.turning.push((planned.clone(), now));
                }
                Step::Start(_)
                | Step::Stop { .. }
                | Step::Remove { .. }
                | Step::Rename { .. }
                | Step::RemoveNetwork { .. }
                | Step::App(_) => {
                    flights.begin(&self.backend, &self.fence, planned.clone(), now);
                }
            }
        }
        let cooled = flights.cooling.iter().map(|(_, until)| *until).min();
        let turned = flights.turning.iter().map(|(_, since)| since.plus(LONGEST_TURN)).min();
        let wake = plan.wake_at.into_iter().chain(cooled).chain(turned).min();
        let dirty = acts && !plan.notes.is_empty();
        self.witness.pass(PassReport {
            fleet: fleet.clone(),
            desired: desired.clone(),
            world,
            plan,
            at: now,
            took,
        });
        let pause = wake.map_or(RESYNC, |at| at.since(self.clock.now()).min(RESYNC));
        // A millisecond more, so that the moment has passed when it is looked at.
        Rest { pause: pause + Duration::from_millis(1), dirty }
    }

    fn land(&self, ended: Option<Ended>, flights: &mut Flights, memory: &mut Memory) {
        // A task that panicked takes no id along; its flight ends with the others below.
        let Some(Ended { id, planned, took, outcome }) = ended else {
            if flights.tasks.is_empty() {
                flights.flying.clear();
            }
            return;
        };
        let flight = flights.flying.remove(&id);
        let flight = flight.map(|(p, since)| InFlight { step: p.step, since });
        let now = self.clock.now();
        if let Err(error) = &outcome {
            let failures = flights.failed(&planned.step, now);
            let surprised = error.remedy == Remedy::Reobserve && failures <= SURPRISES;
            match (&*planned.step, surprised) {
                (_, true) => {}
                (Step::Start(start), false) => {
                    let blame_host = error.remedy == Remedy::Retry;
                    memory.failed_start(start, causes(error), blame_host, now);
                }
                (_, false) => {
                    let pause = Duration::from_secs(1 << failures.min(6)).min(LONGEST_PAUSE);
                    flights.cooling.extend(flight.map(|f| (f, now.plus(pause))));
                }
            }
        } else {
            flights.failures.remove(&planned.step.to_string());
        }
        let outcome = outcome.map_err(|e| causes(&e));
        self.witness.ended(&self.fleet, &planned, took, outcome);
    }

    /// Another agent acts from now on: what is under way is broken off, and nothing is driven any more.
    fn let_go(&self, flights: &mut Flights) {
        flights.tasks.abort_all();
        let now = self.clock.now();
        let flying = std::mem::take(&mut flights.flying).into_values();
        let turning = std::mem::take(&mut flights.turning);
        for (planned, since) in flying.chain(turning) {
            let outcome = Err(NOT_OURS.to_owned());
            self.witness.ended(&self.fleet, &planned, now.since(since), outcome);
        }
        flights.cooling.clear();
        self.edges.release();
    }

    /// Lets the steps under way end, so that as few as possible are cut in the middle.
    async fn finish(&self, mut flights: Flights, memory: &mut Memory) {
        let deadline = Instant::now() + LAST_STEPS;
        while let Ok(Some(ended)) =
            tokio::time::timeout_at(deadline, flights.tasks.join_next()).await
        {
            self.land(ended.ok(), &mut flights, memory);
        }
    }
}

/// How far a change of traffic has come.
enum Turn {
    Waits,
    Done,
    Gone,
    /// It is to be stopped, which must not wait.
    Sick,
}

fn turn(step: &Step, world: &World) -> Turn {
    let found = step.id().and_then(|id| {
        let view = world.hosts.get(step.host())?;
        view.instances.iter().find(|i| i.id == *id)
    });
    let Some(instance) = found else { return Turn::Gone };
    let admits = matches!(step, Step::Admit { .. });
    if admits && matches!(instance.health, HealthState::Unhealthy { .. }) {
        return Turn::Sick;
    }
    match instance.traffic {
        Traffic::Serving { up: true } | Traffic::Nobody if admits => Turn::Done,
        Traffic::Withdrawn { .. } | Traffic::None | Traffic::Nobody if !admits => Turn::Done,
        Traffic::Serving { .. }
        | Traffic::Withdrawn { .. }
        | Traffic::None
        | Traffic::Nobody
        | Traffic::Voter { .. }
        | Traffic::Unknown => Turn::Waits,
    }
}

struct Rest {
    pause: Duration,
    dirty: bool,
}

/// Hosts that leave a fleet while they run instances of ours are kept in mind, to say so.
fn note_left(
    before: &Fleet,
    now: &Fleet,
    views: &BTreeMap<HostName, Arc<HostView>>,
    left: &mut BTreeMap<HostName, Arc<HostView>>,
) {
    for name in before.hosts.keys().filter(|n| !now.hosts.contains_key(*n)) {
        if let Some(view) = views.get(name).filter(|v| !v.instances.is_empty()) {
            let mut view = (**view).clone();
            view.seen = Seen::Silent { since: Time(0) };
            left.insert(name.clone(), Arc::new(view));
        }
    }
    left.retain(|name, _| !now.hosts.contains_key(name));
}
