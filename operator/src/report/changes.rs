//! What happened between two passes, told by comparing them: the loop need not say it.

use std::collections::{BTreeMap, BTreeSet};

use super::events::{Event, EventKind};
use super::view::{ProblemView, SourceView};
use super::{FleetState, PassReport, Track};
use crate::model::{
    BalancerView, HostName, Phase, Revision, Seen, ServiceName, Subject, Waiting, Why,
};

/// A revision with a thousand problems is one piece of news, not a thousand.
const PROBLEMS: usize = 20;

/// Whether those who watch would see a difference.
pub(super) fn visible(before: &PassReport, now: &PassReport) -> bool {
    before.desired.revision != now.desired.revision
        || before.fleet != now.fleet
        || before.plan.steps != now.plan.steps
        || before.plan.waiting != now.plan.waiting
        || before.plan.services != now.plan.services
        || before.world.hosts != now.world.hosts
        || before.world.in_flight.len() != now.world.in_flight.len()
        || !same_routes(before, now)
}

/// Whether the same routes are in force. The rest of what a balancer says changes with every request.
fn same_routes(before: &PassReport, now: &PassReport) -> bool {
    let (a, b) = (&before.world.balancers, &now.world.balancers);
    let same = |x: &BalancerView, y: &BalancerView| {
        (x.seen == Seen::Now) == (y.seen == Seen::Now)
            && x.listening == y.listening
            && x.pools == y.pools
            && x.refused.keys().eq(y.refused.keys())
    };
    a.len() == b.len() && a.iter().zip(b).all(|((i, x), (j, y))| i == j && same(x, y))
}

/// How each service stands after this pass, and since when.
pub(super) fn tracks(
    before: &BTreeMap<ServiceName, Track>,
    now: &PassReport,
) -> BTreeMap<ServiceName, Track> {
    let one = |(name, status): (&ServiceName, &crate::model::ServiceStatus)| {
        let old = before.get(name);
        let since = old.filter(|t| t.phase == status.phase).map_or(now.at, |t| t.since);
        // A held service is as its last good document says, not as this revision does.
        let applied = status.phase == Phase::Ready && !now.desired.held.contains(name);
        let applied = if applied {
            Some(now.desired.revision.clone())
        } else {
            old.and_then(|t| t.applied.clone())
        };
        (name.clone(), Track { phase: status.phase, since, applied })
    };
    now.plan.services.iter().map(one).collect()
}

/// What a pass shows to have happened since the one before.
pub(super) fn between(before: &FleetState, now: &PassReport) -> Vec<Event> {
    let mut out = Vec::new();
    let fleet = &now.fleet.name;
    let Some(old) = &before.pass else {
        // The first pass after a start is no news, except for what a person has to know.
        attention(&[], &now.plan.waiting, &mut out);
        return out.into_iter().map(|e| e.in_fleet(fleet)).collect();
    };
    for (name, host) in &now.world.hosts {
        let was = old.world.hosts.get(name).map(|h| h.seen);
        out.extend(host_event(name, was, host.seen, before.problems.get(name)));
    }
    for (name, status) in &now.plan.services {
        let was = old.plan.services.get(name).map(|s| s.phase);
        let (is, n) = (status.phase, status.desired);
        let quiet = was == Some(is) || (was.is_none() && is == Phase::Ready && n == 0);
        if !quiet {
            let text = match is {
                Phase::Ready => format!("{name} is ready: {} of {n} available", status.available),
                Phase::Reconciling => format!("{name} is reconciling"),
                Phase::Stalled => format!("{name} is stalled"),
                Phase::Suspended => format!("{name} is suspended"),
            };
            let mut event = Event::new(EventKind::Phase, text).of_service(Some(name));
            event.warning = is == Phase::Stalled;
            out.push(event);
        }
    }
    for name in old.plan.services.keys().filter(|n| !now.plan.services.contains_key(*n)) {
        out.push(Event::new(EventKind::Gone, format!("{name} is gone")).of_service(Some(name)));
    }
    attention(&old.plan.waiting, &now.plan.waiting, &mut out);
    out.into_iter().map(|e| e.in_fleet(fleet)).collect()
}

fn host_event(
    name: &HostName,
    was: Option<Seen>,
    is: Seen,
    problem: Option<&String>,
) -> Option<Event> {
    let event = match (was, is) {
        (Some(Seen::Now), Seen::Silent { .. } | Seen::Never { .. }) => {
            let why = problem.map(|p| format!(": {p}")).unwrap_or_default();
            Event::new(EventKind::HostLost, format!("host {name} fell silent{why}"))
        }
        (Some(Seen::Silent { .. }), Seen::Now) => {
            Event::new(EventKind::HostReturned, format!("host {name} answers again"))
        }
        (None | Some(Seen::Never { .. }), Seen::Now) => {
            Event::new(EventKind::HostReturned, format!("host {name} answers"))
        }
        (None | Some(Seen::Silent { .. } | Seen::Never { .. }), Seen::Silent { .. })
        | (None | Some(Seen::Silent { .. } | Seen::Never { .. }), Seen::Never { .. })
        | (Some(Seen::Now), Seen::Now) => return None,
    };
    Some(event.on_host(name))
}

/// Waits that only a person can end, where there was none of the same kind about the same thing.
fn attention(before: &[Waiting], now: &[Waiting], out: &mut Vec<Event>) {
    let key = |w: &Waiting| (w.subject.clone(), w.why.kind());
    let known: BTreeSet<_> = before.iter().map(key).collect();
    for w in now.iter().filter(|w| w.why.needs_a_person() && !known.contains(&key(w))) {
        let kind = if matches!(w.why, Why::Quarantined { .. }) {
            EventKind::Rollback
        } else {
            EventKind::Attention
        };
        let event = Event::new(kind, w.to_string());
        out.push(match &w.subject {
            Subject::Service(s) => event.of_service(Some(s)),
            Subject::Host(h) => event.on_host(h),
            Subject::Fleet => event,
        });
    }
}

/// What a source's answer shows to have happened since the one before.
pub(super) fn of_source(before: Option<&SourceView>, now: &SourceView) -> Vec<Event> {
    let mut out = Vec::new();
    let old = before.and_then(|b| b.revision.as_ref());
    if let Some(revision) = now.revision.as_ref().filter(|r| Some(*r) != old) {
        let subject = now.subject.as_ref().map(|s| format!(": {s}")).unwrap_or_default();
        let author = now.author.as_ref().map(|a| format!(" ({a})")).unwrap_or_default();
        let short = Revision(revision.as_str().into());
        let stored = if now.from_store { " from the store" } else { "" };
        out.push(Event::new(
            EventKind::Revision,
            format!("revision {short}{stored}{subject}{author}"),
        ));
    }
    let failing = before.and_then(|b| b.error.as_ref()).map(|e| &e.message);
    match (&failing, &now.error) {
        (_, Some(e)) if failing != Some(&e.message) => {
            out.push(Event::new(
                EventKind::SourceFailed,
                format!("the source cannot be read: {}", e.message),
            ));
        }
        (Some(_), None) => {
            out.push(Event::new(EventKind::SourceRecovered, "the source can be read again"));
        }
        (_, Some(_)) | (None, None) => {}
    }
    let empty = Vec::new();
    let old = before.map_or(&empty, |b| &b.problems);
    problems(EventKind::ProblemAppeared, old, &now.problems, &mut out);
    problems(EventKind::ProblemGone, &now.problems, old, &mut out);
    out
}

/// Problems that are in `these` and not in `known`. Where they stand in the file does not count:
/// a line added above is no news.
fn problems(kind: EventKind, known: &[ProblemView], these: &[ProblemView], out: &mut Vec<Event>) {
    let known: BTreeSet<_> = known.iter().map(|p| (&p.path, &p.message, &p.object)).collect();
    let new: Vec<_> =
        these.iter().filter(|p| !known.contains(&(&p.path, &p.message, &p.object))).collect();
    for p in new.iter().take(PROBLEMS) {
        let text = if kind == EventKind::ProblemGone {
            format!("{}: mended: {}", p.path, p.message)
        } else {
            super::text::place(p)
        };
        let name = p.object.as_deref().and_then(|o| o.strip_prefix("ScalingService/"));
        let service = name.and_then(|n| ServiceName::new(n).ok());
        out.push(Event::new(kind, text).of_service(service.as_ref()));
    }
    if new.len() > PROBLEMS {
        out.push(Event::new(kind, format!("and {} more", new.len() - PROBLEMS)));
    }
}
