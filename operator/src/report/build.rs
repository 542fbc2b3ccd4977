//! Builds the views from what the loop said. Only takes apart and counts; it decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::redact::Redactor;
use super::view::{
    AgentView, AmountView, ConditionView, CountsView, FleetView, HostView, InstanceView, PhaseView,
    PlanView, PlansView, ServiceView, Stamp, StatusView, StepView, WaitingView,
};
use super::{EVENTS_IN_STATUS, FleetState, PassReport, Running, State};
use crate::metrics::{Gauges, HostGauges, ServiceGauges};
use crate::model::{
    BalancerId, BalancerView, Desired, Endpoint, Fleet, HealthState, HostName, HostSpec, HostState,
    Instance, Plan, Planned, Resources, Route, Routing, Seen, ServiceName, ServiceStatus,
    State as Life, Step, Subject, Time, Traffic, Waiting,
};

pub(super) fn status(state: &State, agent: AgentView, only: Option<&ServiceName>) -> StatusView {
    let now = agent.now.0;
    let redactor = &*state.redactor;
    let services = state
        .fleets
        .values()
        .flat_map(|f| services(f, redactor, only))
        .collect::<Vec<ServiceView>>();
    let fleets = state
        .fleets
        .iter()
        .map(|(name, f)| fleet(name.as_str(), f, redactor, now))
        .collect::<Vec<FleetView>>();
    let mut services = services;
    services.sort_by(|a, b| (&a.name, &a.fleet).cmp(&(&b.name, &b.fleet)));
    StatusView {
        agent,
        source: state.source.as_deref().cloned(),
        fleets,
        services,
        events: state.ring.after(0, only, EVENTS_IN_STATUS),
    }
}

pub(super) fn names(state: &State) -> BTreeSet<ServiceName> {
    state.fleets.values().filter_map(|f| f.pass.as_ref()).flat_map(known).collect()
}

/// Services that are asked for, planned for or still have instances.
fn known(p: &PassReport) -> BTreeSet<ServiceName> {
    let asked = p.desired.services.values().filter(|s| s.fleet == p.fleet.name).map(|s| &s.name);
    let found = p.world.hosts.values().flat_map(|h| h.instances.iter().map(|i| &i.service));
    asked.chain(p.plan.services.keys()).chain(found).cloned().collect()
}

/// What of a fleet is about each service, found by looking once: with thousands of services, looking through everything
/// for each of them would take seconds.
#[derive(Default)]
struct Gathered<'f> {
    instances: BTreeMap<&'f ServiceName, Vec<(&'f HostName, bool, &'f Instance)>>,
    waiting: BTreeMap<&'f ServiceName, Vec<&'f Waiting>>,
    running: BTreeMap<&'f ServiceName, Vec<&'f Running>>,
}

impl<'f> Gathered<'f> {
    fn of(f: &'f FleetState, p: &'f PassReport) -> Self {
        let mut all = Self::default();
        for (host, view) in &p.world.hosts {
            for i in &view.instances {
                let up = view.seen == Seen::Now;
                all.instances.entry(&i.service).or_default().push((host, up, i));
            }
        }
        for w in &p.plan.waiting {
            if let Subject::Service(name) = &w.subject {
                all.waiting.entry(name).or_default().push(w);
            }
        }
        for r in f.running.values() {
            if let Some(name) = r.planned.step.service() {
                all.running.entry(name).or_default().push(r);
            }
        }
        all
    }
}

fn services(f: &FleetState, redactor: &Redactor, only: Option<&ServiceName>) -> Vec<ServiceView> {
    let Some(p) = &f.pass else { return Vec::new() };
    let gathered = Gathered::of(f, p);
    known(p)
        .iter()
        .filter(|name| only.is_none_or(|o| o == *name))
        .map(|name| service(f, p, name, &gathered, redactor))
        .collect()
}

fn service(
    f: &FleetState,
    p: &PassReport,
    name: &ServiceName,
    gathered: &Gathered<'_>,
    redactor: &Redactor,
) -> ServiceView {
    let asked = p.desired.services.get(name).filter(|s| s.fleet == p.fleet.name);
    let hash = p.plan.services.get(name).map(|s| s.hash).or(asked.map(|s| s.hash));
    // After a rollback that is not the spec that was asked for.
    let in_force = p.plan.services.get(name).map(|s| &s.spec);
    let found = gathered.instances.get(name).map(|all| &all[..]).unwrap_or_default();
    let mut instances: Vec<InstanceView> = found
        .iter()
        .map(|(host, up, i)| instance(i, host.as_str(), *up, Some(i.hash) == hash))
        .collect();
    instances.sort_by(|a, b| (a.slot, &a.host, &a.name).cmp(&(b.slot, &b.host, &b.name)));

    let counts = p.plan.services.get(name).map_or_else(
        || CountsView {
            desired: asked.map_or(0, |s| s.replicas),
            replicas: count(instances.len()),
            phase: PhaseView::Reconciling,
            ..CountsView::default()
        },
        counts,
    );
    let waits = gathered.waiting.get(name).into_iter().flatten();
    let waiting: Vec<WaitingView> = waits.map(|w| waiting(w, redactor)).collect();
    let running = gathered.running.get(name).into_iter().flatten();
    let track = f.services.get(name);
    let since = Stamp(track.map_or(p.at, |t| t.since));
    ServiceView {
        name: name.to_string(),
        fleet: p.fleet.name.to_string(),
        image: in_force.or(asked.map(|s| &s.spec)).map(|spec| spec.image.clone()),
        desired: counts.desired,
        replicas: counts.replicas,
        updated: counts.updated,
        ready: counts.ready,
        available: counts.available,
        hash: hash.map(|h| h.to_string()).unwrap_or_default(),
        phase: counts.phase,
        since,
        attempted_revision: asked.map(|_| p.desired.revision.0.to_string()),
        applied_revision: track.and_then(|t| t.applied.as_ref()).map(|r| r.0.to_string()),
        conditions: conditions(&counts, &waiting, since),
        waiting,
        in_flight: running.map(|r| step(&r.planned, redactor, Some(r.since))).collect(),
        routes: p.desired.routings.get(name).map(|routing| in_force_routes(p, routing, found)),
        instances,
    }
}

/// The routes of a balancer that all of its instances have in force that take traffic.
fn in_force_routes(
    p: &PassReport,
    routing: &Routing,
    instances: &[(&HostName, bool, &Instance)],
) -> u32 {
    let ids = instances.iter().map(|(_, _, i)| BalancerId::Container(i.id.clone()));
    let views: Vec<&Arc<BalancerView>> = ids
        .filter_map(|id| p.world.balancers.get(&id))
        .filter(|view| view.seen == Seen::Now && view.listening)
        .collect();
    let everywhere = |route: &&Route| {
        let service = routing.pools.get(&route.pool).map(|pool| &pool.service);
        views.iter().all(|view| {
            view.pools.contains(&route.pool)
                && service.is_none_or(|s| !view.refused.contains_key(s))
        })
    };
    if views.is_empty() { 0 } else { count(routing.routes.iter().filter(everywhere).count()) }
}

/// kstatus: `Ready` always, `Reconciling` and `Stalled` only while true.
fn conditions(c: &CountsView, waiting: &[WaitingView], since: Stamp) -> Vec<ConditionView> {
    let stand = format!("{} of {} available, {} updated", c.available, c.desired, c.updated);
    let first = |of_person: bool| waiting.iter().find(|w| w.needs_a_person == of_person);
    let said = |w: Option<&WaitingView>, other: &str| {
        w.map_or_else(|| (other.to_owned(), stand.clone()), |w| (camel(&w.kind), w.message.clone()))
    };
    let make = |kind: &str, status: bool, (reason, message): (String, String)| ConditionView {
        kind: kind.into(),
        status: if status { "True" } else { "False" }.into(),
        reason,
        message,
        last_transition_time: since,
    };
    match c.phase {
        PhaseView::Ready => vec![make("Ready", true, ("Available".into(), stand))],
        PhaseView::Suspended => {
            let whole = c.available >= c.desired && c.updated >= c.desired;
            let text = format!("suspended; {stand}");
            vec![make("Ready", whole, ("Suspended".into(), text))]
        }
        PhaseView::Reconciling | PhaseView::Unknown => vec![
            make("Ready", false, ("Progressing".into(), stand.clone())),
            make("Reconciling", true, said(first(false), "Progressing")),
        ],
        PhaseView::Stalled => vec![
            make("Ready", false, ("Stalled".into(), stand.clone())),
            make("Stalled", true, said(first(true).or(first(false)), "Stalled")),
        ],
    }
}

/// `not-available` as `NotAvailable`.
fn camel(word: &str) -> String {
    word.split('-')
        .map(|part| {
            let (head, tail) = part.split_at(part.chars().next().map_or(0, char::len_utf8));
            head.to_uppercase() + tail
        })
        .collect()
}

fn fleet(name: &str, f: &FleetState, redactor: &Redactor, now: Time) -> FleetView {
    let Some(p) = &f.pass else {
        return FleetView { name: name.into(), ..FleetView::default() };
    };
    let hosts = p.fleet.hosts.values().map(|spec| host(spec, f, p, now)).collect();
    let waiting = p.plan.waiting.iter().filter(|w| !matches!(w.subject, Subject::Service(_)));
    FleetView {
        name: name.into(),
        last_pass: Some(Stamp(p.at)),
        last_pass_micros: u64::try_from(p.took.as_micros()).unwrap_or(u64::MAX),
        revision: Some(p.desired.revision.0.to_string()),
        hosts,
        waiting: waiting.map(|w| self::waiting(w, redactor)).collect(),
        in_flight: f
            .running
            .values()
            .filter(|r| r.planned.step.service().is_none())
            .map(|r| step(&r.planned, redactor, Some(r.since)))
            .collect(),
    }
}

fn host(spec: &HostSpec, f: &FleetState, p: &PassReport, now: Time) -> HostView {
    let view = p.world.hosts.get(&spec.name);
    let (state, since) = match view.map(|v| v.seen) {
        Some(Seen::Now) => ("up", None),
        Some(Seen::Silent { since }) => ("silent", Some(since)),
        Some(Seen::Never { since }) => ("unknown", Some(since)),
        None => ("unknown", None),
    };
    HostView {
        name: spec.name.to_string(),
        endpoint: endpoint(&spec.endpoint),
        labels: spec.labels.clone(),
        scheduling: match spec.state {
            HostState::Active => "active",
            HostState::Cordoned => "cordoned",
            HostState::Draining => "draining",
        }
        .into(),
        state: state.into(),
        since: since.map(Stamp),
        silent_seconds: since.map(|s| now.since(s).as_secs()),
        problem: f.problems.get(&spec.name).cloned(),
        instances: view.map_or(0, |v| count(v.instances.len())),
        capacity: view.map_or_else(AmountView::default, |v| amount(v.capacity)),
        reserved: view.map_or_else(AmountView::default, |v| reserved(&v.instances)),
    }
}

/// Where an engine is, without whatever stands in front of an `@` after a user name.
fn endpoint(e: &Endpoint) -> String {
    match e {
        Endpoint::Unix { path } => format!("unix://{path}"),
        Endpoint::Tcp { authority, .. } => format!("tcp://{}", no_password(authority)),
        Endpoint::Ssh { authority } => format!("ssh://{}", no_password(authority)),
        Endpoint::Marathon => "marathon".to_owned(),
    }
}

fn no_password(authority: &str) -> String {
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or(user, |(u, _)| u);
            format!("{user}@{host}")
        }
        None => authority.to_owned(),
    }
}

fn amount(r: Resources) -> AmountView {
    let Resources { cpu_millis, memory_bytes } = r;
    AmountView { cpu_millis, memory_bytes }
}

fn reserved(instances: &[Instance]) -> AmountView {
    instances.iter().fold(AmountView::default(), |sum, i| AmountView {
        cpu_millis: sum.cpu_millis.saturating_add(i.resources.cpu_millis),
        memory_bytes: sum.memory_bytes.saturating_add(i.resources.memory_bytes),
    })
}

fn instance(i: &Instance, host: &str, up: bool, updated: bool) -> InstanceView {
    let (state, exit_code, out_of_memory) = match i.state {
        Life::Created => ("created", None, false),
        Life::Running => ("running", None, false),
        Life::Paused => ("paused", None, false),
        Life::Exited { code, out_of_memory } => ("exited", Some(code), out_of_memory),
        Life::Removing => ("removing", None, false),
        Life::Ending => ("ending", None, false),
    };
    let (health, health_since) = match i.health {
        HealthState::Unknown => ("unknown", None),
        HealthState::Starting => ("starting", None),
        HealthState::Healthy { since } => ("healthy", Some(since)),
        HealthState::Unhealthy { since } => ("unhealthy", Some(since)),
    };
    let (traffic, sessions) = match i.traffic {
        Traffic::None => ("none", None),
        Traffic::Nobody => ("nobody", None),
        Traffic::Voter { up: true } => ("voter", None),
        Traffic::Voter { up: false } => ("no-voter", None),
        Traffic::Serving { up: true } => ("serving", None),
        Traffic::Serving { up: false } => ("not-up", None),
        Traffic::Withdrawn { since: _, sessions } => ("withdrawn", sessions),
        Traffic::Unknown => ("unknown", None),
    };
    InstanceView {
        name: i.name.to_string(),
        id: i.id.0.to_string(),
        host: host.into(),
        host_up: up,
        slot: i.slot.0,
        state: state.into(),
        exit_code,
        out_of_memory,
        health: health.into(),
        health_since: health_since.map(Stamp),
        traffic: traffic.into(),
        sessions,
        created: Stamp(i.created),
        hash: i.hash.to_string(),
        updated,
        published: i.published.clone(),
    }
}

fn waiting(w: &Waiting, redactor: &Redactor) -> WaitingView {
    WaitingView {
        subject: w.subject.to_string(),
        kind: w.why.kind().into(),
        message: redactor.hide(&w.why.to_string()),
        until: w.until.map(Stamp),
        needs_a_person: w.why.needs_a_person(),
    }
}

fn step(planned: &Planned, redactor: &Redactor, since: Option<Time>) -> StepView {
    let s = &*planned.step;
    let name: &str = match s {
        Step::Start(start) => &start.name,
        Step::Rename { to, .. } => to,
        Step::Stop { name, .. }
        | Step::Remove { name, .. }
        | Step::Admit { name, .. }
        | Step::Withdraw { name, .. } => name,
        Step::RemoveNetwork { network, .. } => network,
        Step::App(step) => step.app.as_str(),
    };
    let because = redactor.reason(&planned.reason);
    StepView {
        kind: s.kind().into(),
        service: s.service().map(ToString::to_string),
        slot: s.slot().map(|s| s.0),
        host: s.host().to_string(),
        name: name.to_string(),
        reason: planned.reason.kind().into(),
        text: format!("{s}: {because}"),
        because,
        since: since.map(Stamp),
    }
}

fn counts(s: &ServiceStatus) -> CountsView {
    let ServiceStatus { desired, total, updated, ready, available, phase, hash: _, spec: _ } = s;
    CountsView {
        desired: *desired,
        replicas: *total,
        updated: *updated,
        ready: *ready,
        available: *available,
        phase: (*phase).into(),
    }
}

pub(super) fn plans(state: &State) -> PlansView {
    let passes = state.fleets.values().filter_map(|f| f.pass.as_ref());
    let one = |p: &PassReport| shown(&p.fleet, &p.desired, &p.plan, p.at, &state.redactor);
    PlansView { plans: passes.map(one).collect() }
}

/// What a plan would do to a fleet, for whoever planned without an agent: `evenkeel plan`.
pub fn plan_view(fleet: &Fleet, desired: &Desired, plan: &Plan, at: Time) -> PlanView {
    let mut redactor = Redactor::of(desired);
    redactor.learn_plan(plan);
    shown(fleet, desired, plan, at, &redactor)
}

fn shown(fleet: &Fleet, desired: &Desired, plan: &Plan, at: Time, redactor: &Redactor) -> PlanView {
    // `notes`, `edges` and `wake_at` are between the planner and the loop.
    let Plan { steps, waiting, notes: _, edges: _, services, wake_at: _ } = plan;
    PlanView {
        fleet: fleet.name.to_string(),
        revision: desired.revision.0.to_string(),
        at: Stamp(at),
        steps: steps.iter().map(|p| step(p, redactor, None)).collect(),
        waiting: waiting.iter().map(|w| self::waiting(w, redactor)).collect(),
        services: services.iter().map(|(n, s)| (n.to_string(), counts(s))).collect(),
    }
}

/// What the metrics show of the present moment.
pub(super) fn gauges(state: &State, now: Time) -> Gauges {
    let mut out = Gauges {
        source_age: state
            .source
            .as_ref()
            .and_then(|s| s.fetched)
            .map(|at| now.since(at.0).as_secs_f64()),
        source_problems: state.source.as_ref().map_or(0, |s| count(s.problems.len())),
        ..Gauges::default()
    };
    for (fleet, f) in &state.fleets {
        out.in_flight += count(f.running.len());
        let Some(p) = &f.pass else { continue };
        for w in &p.plan.waiting {
            *out.waiting.entry(w.why.kind()).or_default() += 1;
        }
        for (name, s) in &p.plan.services {
            out.services.push(ServiceGauges {
                fleet: fleet.to_string(),
                service: name.to_string(),
                desired: s.desired,
                ready: s.ready,
                available: s.available,
                updated: s.updated,
            });
        }
        for name in p.fleet.hosts.keys() {
            let view = p.world.hosts.get(name);
            out.hosts.push(HostGauges {
                fleet: fleet.to_string(),
                host: name.to_string(),
                up: view.is_some_and(|v| v.seen == Seen::Now),
                instances: view.map_or(0, |v| count(v.instances.len())),
            });
        }
    }
    out
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
