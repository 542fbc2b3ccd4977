//! What people see: shared state that the loop writes and everybody reads. It contains no decision.
//!
//! The loop says what it did ([`Report::pass`], [`Report::step_began`] …); the API, the metrics and
//! `evenkeel status` read views of it ([`view`]). Reading never blocks a pass: a reader takes a copy
//! of a few pointers and builds its view from that.

pub mod events;
pub mod redact;
pub mod table;
pub mod text;
pub mod view;

mod build;
mod changes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::metrics::{ApiWrite, Metrics};
use crate::model::{
    Desired, Fleet, FleetName, HostName, OwnerId, Phase, Plan, Planned, Problem, Revision,
    ServiceName, Time, World,
};
use events::{Event, EventKind, Ring};
use redact::Redactor;
use view::{EventsView, PlansView, ProblemView, SourceErrorView, SourceView, Stamp, StatusView};

pub use build::plan_view;

/// Events that come with a status; the rest is had from the events of the API.
const EVENTS_IN_STATUS: usize = 100;

/// What a source has to say after it was asked.
#[derive(Debug, Clone, Default)]
pub struct SourceReport {
    /// `git`, `dir` or `kubernetes`.
    pub kind: &'static str,
    /// Where, without credentials, as `https://host/repo branch main`.
    pub describe: String,
    /// The revision that is in force.
    pub revision: Option<Revision>,
    /// First line of its commit message.
    pub subject: Option<String>,
    /// Who wrote it.
    pub author: Option<String>,
    /// When it was last read with success.
    pub fetched: Option<Time>,
    /// Why it cannot be read now.
    pub error: Option<SourceError>,
    /// Whether the revision comes from the agent's own store.
    pub from_store: bool,
    /// What is wrong with the documents.
    pub problems: Vec<Problem>,
}

/// Why a source cannot be read.
#[derive(Debug, Clone, Default)]
pub struct SourceError {
    /// What went wrong, with its causes.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Since when.
    pub since: Time,
    /// When it is tried again.
    pub next_try: Option<Time>,
}

/// Whether this agent acts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    #[default]
    Acts,
    /// Another of this owner does.
    By,
    /// It must not, as nobody can be asked whether another does.
    Unsure(String),
}

/// One pass over one fleet.
#[derive(Debug, Clone)]
pub struct PassReport {
    /// The fleet.
    pub fleet: Arc<Fleet>,
    /// What was desired.
    pub desired: Arc<Desired>,
    /// What was observed.
    pub world: World,
    /// What was planned.
    pub plan: Arc<Plan>,
    /// When it ended.
    pub at: Time,
    /// How long it took.
    pub took: Duration,
}

/// Shared state that the loop writes and everybody reads. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Report(Arc<Inner>);

struct Inner {
    clock: Clock,
    owner: OwnerId,
    started: Time,
    beat: AtomicU64,
    state: Mutex<State>,
    generation: watch::Sender<u64>,
    metrics: Metrics,
}

/// A copy is a few pointers.
#[derive(Clone, Default)]
struct State {
    standing: Standing,
    source: Option<Arc<SourceView>>,
    expected: Option<BTreeSet<FleetName>>,
    fleets: BTreeMap<FleetName, Arc<FleetState>>,
    ring: Arc<Ring>,
    redactor: Arc<Redactor>,
}

#[derive(Clone, Default)]
struct FleetState {
    pass: Option<PassReport>,
    problems: BTreeMap<HostName, String>,
    /// By the step's own sentence, which names what and where.
    running: BTreeMap<String, Running>,
    services: BTreeMap<ServiceName, Track>,
}

#[derive(Clone)]
struct Running {
    planned: Planned,
    since: Time,
    event: u64,
}

/// What this agent saw of a service from pass to pass.
#[derive(Debug, Clone)]
struct Track {
    phase: Phase,
    since: Time,
    applied: Option<Revision>,
}

impl Report {
    /// The report of an agent that has done nothing yet.
    pub fn new(clock: Clock, owner: OwnerId) -> Self {
        let started = clock.now();
        Self(Arc::new(Inner {
            clock,
            owner,
            started,
            beat: AtomicU64::new(started.0),
            state: Mutex::default(),
            generation: watch::Sender::new(1),
            metrics: Metrics::new(),
        }))
    }

    /// The loop lives. Every pass says so too; an idle loop must say so by itself.
    pub fn beat(&self) {
        self.0.beat.store(self.0.clock.now().0, Ordering::Relaxed);
    }

    /// What the source said last.
    pub fn source(&self, s: SourceReport) {
        let now = self.0.clock.now();
        self.change(|state| {
            let new = source_view(&state.redactor, s);
            for e in changes::of_source(state.source.as_deref(), &new) {
                state.event(now, e, None);
            }
            state.source = Some(Arc::new(new));
        });
    }

    /// Which fleets there are now: readiness waits for the first pass over each, and what is known
    /// of any other is dropped.
    pub fn fleets(&self, names: impl IntoIterator<Item = FleetName>) {
        let names: BTreeSet<FleetName> = names.into_iter().collect();
        self.change(|state| {
            state.fleets.retain(|name, _| names.contains(name));
            state.expected = Some(names);
        });
    }

    /// A pass over a fleet ended. One that changed nothing is no news to those who watch.
    pub fn pass(&self, p: PassReport) {
        self.beat();
        self.0.metrics.pass(p.took);
        let mut state = self.lock();
        let before = state.fleets.get(&p.fleet.name).cloned().unwrap_or_default();
        let redactor = Arc::make_mut(&mut state.redactor);
        if before.pass.as_ref().is_none_or(|b| !Arc::ptr_eq(&b.desired, &p.desired)) {
            redactor.learn(&p.desired);
        }
        redactor.learn_plan(&p.plan);
        let news = before.pass.as_ref().is_none_or(|b| changes::visible(b, &p));
        for e in changes::between(&before, &p) {
            state.event(p.at, e, None);
        }
        let services = changes::tracks(&before.services, &p);
        let entry = Arc::make_mut(state.fleets.entry(p.fleet.name.clone()).or_default());
        entry.services = services;
        entry.pass = Some(p);
        drop(state);
        if news {
            self.bump();
        }
    }

    /// A step was begun.
    pub fn step_began(&self, fleet: &FleetName, planned: &Planned) {
        let now = self.0.clock.now();
        self.change(|state| {
            Arc::make_mut(&mut state.redactor).learn_step(&planned.step);
            let text = format!("{}: {}", planned.step, state.redactor.reason(&planned.reason));
            let event = about(EventKind::StepBegan, fleet, planned, text);
            let event = state.event(now, event, None);
            let entry = Arc::make_mut(state.fleets.entry(fleet.clone()).or_default());
            entry.running.insert(
                planned.step.to_string(),
                Running { planned: planned.clone(), since: now, event },
            );
        });
    }

    /// A step ended. `outcome` holds the whole chain of causes, see [`crate::error::causes`].
    pub fn step_ended(
        &self,
        fleet: &FleetName,
        planned: &Planned,
        took: Duration,
        outcome: Result<(), String>,
    ) {
        self.0.metrics.step(planned, took, outcome.is_ok());
        let now = self.0.clock.now();
        self.change(|state| {
            let entry = Arc::make_mut(state.fleets.entry(fleet.clone()).or_default());
            let began = entry.running.remove(&planned.step.to_string());
            if let Some(began) = began {
                Arc::make_mut(&mut state.ring).remove(began.event);
            }
            let reason = state.redactor.reason(&planned.reason);
            let (kind, text) = match outcome {
                Ok(()) => (EventKind::StepDone, format!("{}: {reason}", planned.step)),
                Err(why) => {
                    // The chain usually begins with the step's own words; said once is enough.
                    let step = planned.step.to_string();
                    let why = why.strip_prefix(&step).map_or(&*why, |w| w.trim_start_matches(": "));
                    (EventKind::StepFailed, format!("{step} failed: {why}"))
                }
            };
            state.event(now, about(kind, fleet, planned, text), Some(took));
        });
    }

    /// What is wrong with a fleet's hosts; a host that is not named has no problem.
    pub fn hosts(&self, fleet: &FleetName, problems: BTreeMap<HostName, String>) {
        let mut state = self.lock();
        let problems: BTreeMap<_, _> =
            problems.into_iter().map(|(h, p)| (h, state.redactor.hide(&p))).collect();
        let entry = state.fleets.entry(fleet.clone()).or_default();
        if entry.problems != problems {
            Arc::make_mut(entry).problems = problems;
            drop(state);
            self.bump();
        }
    }

    /// Whether another agent of this owner holds the lock.
    pub fn standby(&self, standby: bool) {
        self.stands(if standby { Standing::By } else { Standing::Acts });
    }

    /// Whether this agent acts, and why not.
    pub fn stands(&self, standing: Standing) {
        let now = self.0.clock.now();
        let mut state = self.lock();
        if state.standing != standing {
            // Told again only where it is another thing: what is wrong with the ledger may change its words all the time.
            let told = std::mem::discriminant(&state.standing) != std::mem::discriminant(&standing);
            let text = match &standing {
                Standing::By => "standing by: another agent of this owner is active".to_owned(),
                Standing::Acts => "active: this agent holds the lock".to_owned(),
                Standing::Unsure(why) => format!("not active: {why}"),
            };
            state.standing = standing;
            if told {
                state.event(now, Event::new(EventKind::Standby, text), None);
            }
            drop(state);
            self.bump();
        }
    }

    /// The generation; it grows with each change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// Everything, or what concerns one service: then `services` is empty if there is none of that name.
    pub fn status(&self, service: Option<&ServiceName>) -> StatusView {
        // The generation first: whoever waits for the next one then misses nothing.
        let generation = *self.0.generation.borrow();
        let state = self.lock().clone();
        let agent = view::AgentView {
            version: env!("CARGO_PKG_VERSION").into(),
            owner: self.0.owner.to_string(),
            standby: state.standing != Standing::Acts,
            held_back: match &state.standing {
                Standing::Acts | Standing::By => None,
                Standing::Unsure(why) => Some(state.redactor.hide(why)),
            },
            started: Stamp(self.0.started),
            now: Stamp(self.0.clock.now()),
            generation,
        };
        build::status(&state, agent, service)
    }

    /// The newest plan of every fleet.
    pub fn plans(&self) -> PlansView {
        let state = self.lock().clone();
        build::plans(&state)
    }

    /// Events with a number above `since`, oldest first.
    pub fn events(&self, since: u64, service: Option<&ServiceName>, most: usize) -> EventsView {
        let ring = self.lock().ring.clone();
        // A number from before a restart of the agent means nothing here: everything is new then.
        let since = if since > ring.newest() { 0 } else { since };
        let mut events = ring.after(since, service, events::MOST);
        let rest = events.len() > most;
        events.truncate(most);
        let last = events.last().map(|e| e.seq).filter(|_| rest);
        EventsView { events, next: last.unwrap_or(ring.newest()) }
    }

    /// Names of all services, for those who mistyped one.
    pub fn service_names(&self) -> Vec<String> {
        let state = self.lock().clone();
        let names: BTreeSet<String> =
            build::names(&state).into_iter().map(|n| n.to_string()).collect();
        names.into_iter().collect()
    }

    /// How long ago the loop last showed that it lives.
    pub fn silent_for(&self) -> Duration {
        self.0.clock.now().since(Time(self.0.beat.load(Ordering::Relaxed)))
    }

    /// What is still to happen before the agent is ready; `None` when it is.
    pub fn unready(&self) -> Option<String> {
        let state = self.lock().clone();
        if state.standing == Standing::By {
            return None;
        }
        let read = state.source.as_ref().is_some_and(|s| s.fetched.is_some() || s.from_store);
        if !read {
            return Some("the source has not been read yet".into());
        }
        let passed = |name: &FleetName| state.fleets.get(name).is_some_and(|f| f.pass.is_some());
        let missing = match &state.expected {
            Some(expected) => expected.iter().find(|name| !passed(name)).map(ToString::to_string),
            None if state.fleets.values().any(|f| f.pass.is_some()) => None,
            None => Some("any".into()),
        };
        missing.map(|name| format!("no pass over fleet {name} has ended yet"))
    }

    /// Something was written to a Kubernetes API server, or not.
    pub fn api_write(&self, what: ApiWrite, well: bool) {
        self.0.metrics.api_write(what, well);
    }

    /// Everything as Prometheus text.
    pub fn metrics(&self) -> String {
        let state = self.lock().clone();
        self.0.metrics.render(&build::gauges(&state, self.0.clock.now()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not take the status down with it: it is what tells people of it.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, f: impl FnOnce(&mut State)) {
        f(&mut self.lock());
        self.bump();
    }

    fn bump(&self) {
        self.0.generation.send_modify(|g| *g += 1);
    }
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Report({})", self.0.owner)
    }
}

impl State {
    /// The one way in: nothing reaches the ring that was not searched for secrets.
    fn event(&mut self, at: Time, mut event: Event, took: Option<Duration>) -> u64 {
        event.message = self.redactor.hide(&event.message);
        Arc::make_mut(&mut self.ring).push(at, event, took)
    }
}

fn about(kind: EventKind, fleet: &FleetName, planned: &Planned, text: String) -> Event {
    Event::new(kind, text)
        .in_fleet(fleet)
        .of_service(planned.step.service())
        .on_host(planned.step.host())
}

fn source_view(redactor: &Redactor, s: SourceReport) -> SourceView {
    let SourceReport {
        kind,
        describe,
        revision,
        subject,
        author,
        fetched,
        error,
        from_store,
        problems,
    } = s;
    SourceView {
        kind: kind.into(),
        describe: redactor.hide(&describe),
        revision: revision.map(|r| r.0.to_string()),
        subject: subject.map(|s| redactor.hide(&s)),
        author: author.map(|s| redactor.hide(&s)),
        fetched: fetched.map(Stamp),
        error: error.map(|e| SourceErrorView {
            message: redactor.hide(&e.message),
            hint: e.hint.map(|h| redactor.hide(&h)),
            since: Stamp(e.since),
            next_try: e.next_try.map(Stamp),
        }),
        from_store,
        problems: problems.iter().map(|p| problem_view(redactor, p)).collect(),
    }
}

fn problem_view(redactor: &Redactor, p: &Problem) -> ProblemView {
    let Problem { path, line, column, message, hint, object } = p;
    ProblemView {
        path: path.clone(),
        line: *line,
        column: *column,
        message: redactor.hide(message),
        hint: hint.as_ref().map(|h| redactor.hide(h)),
        object: object.clone(),
    }
}

impl From<&Problem> for ProblemView {
    fn from(p: &Problem) -> Self {
        problem_view(&Redactor::default(), p)
    }
}

#[cfg(test)]
mod tests;
