//! One service as an app of Marathon: what the app is to be, how many, and which tasks go.
//!
//! The platform places, starts and replaces; what is left to decide here is what to ask of it, and when. The order of thought:
//! whose the app is; which spec is in force; what differs; then one change at a time, as Marathon locks an app while it
//! changes. Tasks that are to go leave the traffic first and are then ended by name, so that scaling down loses no request.

mod count;
mod remove;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Input;
use super::board::{Board, Member};
use super::rollout::{self, Disruptions, Progress};
use super::service::{Seated, Work, seat};
use crate::model::app::compare::{Difference, differences};
use crate::model::app::render::render;
use crate::model::{
    AppAct, AppId, AppStep, AppView, Definition, FieldChange, HealthState, HostName, HostView,
    Instance, InstanceId, MarathonSpec, Note, Phase, Plan, Reason, Seen, Service, ServiceMemory,
    Slot, SlotFailures, SpecHash, State, Step, Termination, Time, Traffic, Whose, Why,
};

pub(super) use remove::remove;

/// Under which slot the failures of an app's tasks are remembered: Marathon knows no slots.
const ANY: Slot = Slot(1);
/// How long a deployment may do nothing at all before it is begun anew.
const IDLE: Duration = Duration::from_secs(10);
/// How long after its time a task that was told to end may still be shown as running.
const SHOWN_AFTER: Duration = Duration::from_secs(10);

/// An app at hand while its service is planned.
pub(super) struct App<'a> {
    id: AppId,
    host: &'a HostName,
    cluster: &'a MarathonSpec,
    /// `None`: there is none yet.
    live: Option<&'a AppView>,
    /// A step on it is under way.
    busy: bool,
    wanted: Arc<Definition>,
    /// What makes it another thing than it is to be.
    changes: Vec<FieldChange>,
    /// What says only how it is checked, paced and ended.
    policy: Vec<FieldChange>,
}

impl App<'_> {
    /// It is there and is what it is to be.
    fn is_current(&self) -> bool {
        self.live.is_some() && self.changes.is_empty()
    }

    fn step(&self, service: &Service, act: AppAct) -> Step {
        let (host, app, service) = (self.host.clone(), self.id.clone(), service.name.clone());
        Step::App(AppStep { host, app, service, act })
    }

    /// The document has another check for it than it has.
    fn is_checked_otherwise(&self) -> bool {
        self.policy.iter().any(|c| c.field.starts_with("healthChecks"))
    }

    /// The hash that its newest definition was given, if it is ours.
    fn hash(&self) -> Option<SpecHash> {
        match &self.live?.whose {
            Whose::Ours { hash, .. } => *hash,
            Whose::Others | Whose::Nobodys => None,
        }
    }

    /// Takes in what is wanted of it now.
    fn want(&mut self, service: &Service, effective: &rollout::Effective) {
        let spec = &effective.spec;
        self.wanted = Arc::new(render(service, spec, self.cluster));
        let found = self.live.map(|live| differences(&self.wanted, &live.definition));
        let (policy, changes): (Vec<Difference>, Vec<_>) =
            found.into_iter().flatten().partition(|d| d.policy);
        self.changes = changes.into_iter().map(|d| d.change).collect();
        self.policy = policy.into_iter().map(|d| d.change).collect();
    }
}

/// Whether a service may do with an app as it likes.
fn may_have(service: &Service, live: &AppView) -> bool {
    let claimed = service.app.id.is_some();
    match &live.whose {
        Whose::Ours { service: whose, .. } => claimed || *whose == service.name,
        Whose::Nobodys => claimed,
        Whose::Others => false,
    }
}

/// Plans one service of a Marathon cluster.
pub(super) fn plan<'a>(
    input: &Input<'a>,
    cluster: &'a MarathonSpec,
    service: &'a Service,
    members: Vec<Member<'a>>,
    board: &mut Board<'a>,
    budget: &mut Disruptions,
    out: &mut Plan,
) {
    let Some(host) = board.hosts.first() else { return };
    let (name, view, seen) = (&host.spec.name, host.view, host.seen(input.now));
    let id = service.app_id(&cluster.group);
    let live = view.and_then(|v| v.apps.get(&id)).map(Arc::as_ref);
    let known = input.memory.services.get(&service.name);
    let mut memory = known.map(|m| m.as_ref().clone()).unwrap_or_default();
    let effective = rollout::effective(service, &mut memory);
    let mut app = App {
        host: name,
        cluster,
        live,
        busy: busy(input, &id),
        wanted: Arc::default(),
        changes: Vec::new(),
        policy: Vec::new(),
        id,
    };
    app.want(service, &effective);
    let mut work = Work {
        input,
        service,
        seated: seat(input, service, members, board),
        memory,
        effective,
        keepers: Vec::new(),
        held: Vec::new(),
        surplus: Vec::new(),
        outdated: Vec::new(),
    };
    work.recount(&app);
    let first_step = out.steps.len();
    let first_wait = out.waiting.len();
    let mut progress = work.app_progress(&app);
    if service.suspend {
        work.memory.rollout = None;
        out.wait(work.subject(), Why::Suspended, None);
    } else if seen != Seen::Now {
        if let Seen::Never { .. } = seen {
            out.wait(work.subject(), Why::NeverSeen { host: name.clone() }, None);
        }
        work.waits(board, &progress, out);
    } else if live.is_some_and(|live| !may_have(service, live)) {
        out.wait(work.subject(), Why::AppTaken { app: app.id.clone() }, None);
    } else {
        work.note_failure(&app, &progress);
        if rollout::judge(service, &work.effective, &progress, &mut work.memory, input.now) {
            work.effective = rollout::effective(service, &mut work.memory);
            app.want(service, &work.effective);
            work.recount(&app);
            progress = work.app_progress(&app);
        }
        work.note_idle(&app, out);
        work.change(&app, view, budget, out);
        remove::others(&work, &app, view, board, budget, out);
        work.app_waits(&app, out);
        work.waits(board, &progress, out);
        work.remember(&progress, out);
    }
    let stuck = out.waiting[first_wait..].iter().any(|w| w.why.needs_a_person());
    let telling = |why: &Why| matches!(why, Why::Deferred { .. });
    let waits = out.waiting[first_wait..].iter().any(|w| !telling(&w.why));
    let quiet = out.steps.len() == first_step && !waits;
    let phase = match (service.suspend, progress.complete && quiet, stuck) {
        (true, _, _) => Phase::Suspended,
        (_, true, _) => Phase::Ready,
        (_, false, true) => Phase::Stalled,
        (_, false, false) => Phase::Reconciling,
    };
    work.status(progress.updated_available, out, phase);
    if known.map_or(work.memory != ServiceMemory::default(), |k| **k != work.memory) {
        out.notes.push(Note::Service(service.name.clone(), Arc::new(work.memory)));
    }
}

/// Whether a step on the app is under way or waits for its next try.
fn busy(input: &Input<'_>, id: &AppId) -> bool {
    steps_on(input, id).next().is_some()
}

fn steps_on<'a>(input: &Input<'a>, id: &AppId) -> impl Iterator<Item = &'a AppStep> {
    input.world.in_flight.iter().filter_map(move |flight| match &*flight.step {
        Step::App(step) if step.app == *id => Some(step),
        Step::Start(_)
        | Step::Stop { .. }
        | Step::Remove { .. }
        | Step::Rename { .. }
        | Step::Admit { .. }
        | Step::Withdraw { .. }
        | Step::RemoveNetwork { .. }
        | Step::App(_) => None,
    })
}

impl Work<'_, '_> {
    /// The one change that is due, and the traffic of everybody.
    fn change(
        &self,
        app: &App<'_>,
        view: Option<&HostView>,
        budget: &mut Disruptions,
        out: &mut Plan,
    ) {
        let leaving = match app.live {
            _ if app.busy => Vec::new(),
            None => {
                self.create(app, out);
                Vec::new()
            }
            Some(live) if self.stands_still() && app.is_current() => {
                let reason = Reason::Stragglers { count: live.outdated.len() };
                let act = AppAct::Restart { force: true };
                out.take(Some(app.step(self.service, act)), reason);
                Vec::new()
            }
            // Those that leave are not made to be another.
            Some(live) if self.service.shifting.is_some_and(|s| s.leaves) => {
                self.resize(app, live, budget, out)
            }
            Some(live) if !app.is_current() => {
                self.update(app, live, out);
                Vec::new()
            }
            // Nobody runs well by the old policy: a check that can never pass must not outlast its correction.
            Some(live) if app.is_checked_otherwise() && self.nobody_works() => {
                self.update(app, live, out);
                Vec::new()
            }
            Some(live) => self.resize(app, live, budget, out),
        };
        let leaving: Vec<usize> = leaving.into_iter().chain(self.taken_over(app, view)).collect();
        self.lead(app, &leaving, out);
    }

    fn create(&self, app: &App<'_>, out: &mut Plan) {
        let instances = self.service.replicas;
        if instances == 0 {
            return;
        }
        let definition = app.wanted.clone();
        let hash = self.effective.hash;
        let act = AppAct::Put { definition, instances, hash, create: true, force: false };
        out.take(Some(app.step(self.service, act)), self.scale());
    }

    /// Makes the app what it is to be. It keeps as many instances as it has where fewer are wanted: those that are too many
    /// leave the traffic first, afterwards.
    fn update(&self, app: &App<'_>, live: &AppView, out: &mut Plan) {
        let (locked, alone) = (count::is_locked(live), count::is_alone(live));
        // What is under way is our own, and is not what is wanted any more.
        let own = app.hash().is_some_and(|hash| hash != self.effective.hash)
            || (app.is_current() && self.nobody_works())
            || (!app.is_current() && (self.hangs(live) || self.stands_still()));
        if locked && !(alone && own) {
            return;
        }
        let instances = if self.service.app.scaled_elsewhere || self.service.shifting.is_some() {
            live.instances
        } else {
            live.instances.max(self.service.replicas)
        };
        let act = AppAct::Put {
            definition: app.wanted.clone(),
            instances,
            hash: self.effective.hash,
            create: false,
            force: locked,
        };
        let reason = if app.hash() == Some(self.effective.hash) {
            let changes = if app.changes.is_empty() { &app.policy } else { &app.changes };
            Reason::Drift { changes: changes.clone() }
        } else if self.effective.instead_of.is_none() && app.hash().is_none() {
            let revision = self.input.desired.revision.clone();
            Reason::Update { changes: app.changes.clone(), revision }
        } else {
            self.updated()
        };
        out.take(Some(app.step(self.service, act)), reason);
    }

    /// A deployment that found fewer old tasks well than have to be, and no room beside them, ends none and starts none for
    /// as long as it lasts, however well they are later: Marathon counts them only once.
    fn note_idle(&mut self, app: &App<'_>, out: &mut Plan) {
        // Counted anew all of them are well, so that it goes on.
        let well = |id: &InstanceId| {
            let found = self.seated.iter().filter_map(|s| s.member.instance).find(|i| i.id == *id);
            let healthy = |i: &Instance| matches!(i.health, HealthState::Healthy { .. });
            found.is_some_and(|i| i.state == State::Running && healthy(i))
        };
        let idle = |live: &&AppView| {
            let waits = live.current.is_empty() && live.queued.is_empty();
            let old = !live.outdated.is_empty() && live.outdated.iter().all(well);
            count::is_locked(live) && count::is_alone(live) && waits && old
        };
        let since = self.memory.idle.unwrap_or(self.now());
        let found = app.live.filter(idle).filter(|_| !app.busy);
        self.memory.idle = found.map(|_| since);
        if found.is_some() && !self.stands_still() {
            let at = since.plus(IDLE);
            out.wake_at = Some(out.wake_at.map_or(at, |before| before.min(at)));
        }
    }

    fn stands_still(&self) -> bool {
        self.memory.idle.is_some_and(|since| self.now().since(since) >= IDLE)
    }

    /// Whether what somebody made of it by hand does not work: it would be waited for without end.
    fn hangs(&self, live: &AppView) -> bool {
        let of_it = self.seated.iter().filter_map(|s| s.member.instance);
        let healths = || of_it.clone().filter(|i| live.current.contains(&i.id)).map(|i| i.health);
        let works = |h| matches!(h, HealthState::Healthy { .. } | HealthState::Unknown);
        let sick = |h| matches!(h, HealthState::Unhealthy { .. });
        let failed = live.last_failure.is_some() || !live.queued.is_empty();
        !healths().any(works) && (failed || healths().any(sick))
    }

    /// Whether no task of the newest definition works, as far as anybody can tell: those that were not asked yet may.
    fn nobody_works(&self) -> bool {
        let may = |s: &Seated<'_>| {
            let health = s.member.instance.map_or(HealthState::Starting, |i| i.health);
            matches!(health, HealthState::Healthy { .. } | HealthState::Unknown)
        };
        self.memory.rollout.is_some() && !self.seated.iter().any(|s| s.current && may(s))
    }

    /// Lets clients reach whoever serves, and nobody whom the platform is ending.
    fn lead(&self, app: &App<'_>, leaving: &[usize], out: &mut Plan) {
        if !self.service.routed {
            return;
        }
        let ended = self.told_to_end(&app.id);
        let changing = app.live.is_some_and(|live| !live.deployments.is_empty());
        // Who was led out of the traffic to be ended may be shown as running for a moment after Marathon was told. Who was
        // for another reason comes back, however long a deployment hangs.
        let Termination { drain, grace, signal: _ } = &self.service.termination;
        let gone = drain.saturating_add(*grace).saturating_add(SHOWN_AFTER);
        let ending = |since: Time| changing && self.now().since(since) < gone;
        for (index, s) in self.seated.iter().enumerate() {
            let Some(instance) = s.member.instance.filter(|_| s.member.step.is_none()) else {
                continue;
            };
            let served = matches!(instance.traffic, Traffic::Serving { .. });
            let unreached = match instance.traffic {
                Traffic::None => true,
                Traffic::Withdrawn { since, .. } => !ending(since),
                Traffic::Nobody
                | Traffic::Voter { .. }
                | Traffic::Serving { .. }
                | Traffic::Unknown => false,
            };
            let name = &self.service.name;
            if instance.state == State::Ending {
                if served {
                    out.take(s.member.withdraw(name), Reason::PlatformEnds);
                }
            } else if matches!(instance.health, HealthState::Unhealthy { .. }) {
                if served {
                    out.take(s.member.withdraw(name), Reason::Unhealthy);
                }
            } else if matches!(instance.health, HealthState::Healthy { .. })
                && unreached
                && !leaving.contains(&index)
                && !ended.contains(&instance.id)
            {
                out.take(s.member.admit(name), Reason::Ready);
            }
        }
    }

    /// The tasks that a step under way ends.
    fn told_to_end(&self, id: &AppId) -> BTreeSet<&InstanceId> {
        let acts = steps_on(self.input, id).map(|step| &step.act);
        acts.flat_map(|act| match act {
            AppAct::Kill { tasks } => tasks.iter().collect(),
            AppAct::Put { .. } | AppAct::Scale { .. } | AppAct::Restart { .. } | AppAct::Delete => {
                Vec::new()
            }
        })
        .collect()
    }

    /// What the platform said of the last task that failed.
    fn note_failure(&mut self, app: &App<'_>, progress: &Progress) {
        let hash = self.effective.hash;
        self.memory.slots.retain(|_, f| f.hash == Some(hash));
        let said =
            app.live.and_then(|live| live.last_failure.as_ref()).filter(|_| !progress.complete);
        let Some(message) = said else { return };
        let known = self.memory.slots.entry(ANY).or_default();
        if known.message != *message {
            let count = known.count.saturating_add(1);
            let (message, last) = (message.clone(), self.input.now);
            *known = SlotFailures { count, last, message, hash: Some(hash), ..known.clone() };
        }
    }

    /// Why Marathon does no more.
    fn app_waits(&self, app: &App<'_>, out: &mut Plan) {
        if let Some(s) = self.service.shifting.filter(|s| s.want > self.service.replicas) {
            let count = s.want - self.service.replicas;
            out.wait(self.subject(), Why::NotAvailable { count }, None);
        }
        let Some(live) = app.live else { return };
        if !live.deployments.is_empty() {
            let (deployments, queued) = (live.deployments.len(), live.queued.clone());
            out.wait(self.subject(), Why::Deploying { deployments, queued }, None);
        }
        let deferred = app.is_current() && self.memory.rollout.is_none();
        if deferred && !app.policy.is_empty() {
            // How tasks are replaced is sent with every change, and means nothing between two.
            let paced = |c: &&FieldChange| c.field.starts_with("upgradeStrategy");
            let told = app.policy.iter().filter(|c| !paced(c));
            let fields: Vec<String> = told.map(|c| c.field.clone()).collect();
            if fields.is_empty() {
                return;
            }
            out.wait(self.subject(), Why::Deferred { fields }, None);
        }
    }
}
