//! Apps that nobody asks for any more.

use std::sync::Arc;

use super::count::{is_alone, is_locked};
use super::{App, busy};
use crate::model::{
    AppAct, AppId, AppStep, AppView, HostName, HostView, InstanceId, Plan, Reason, Seen,
    ServiceName, State, Step, Subject, Termination, Whose, Why,
};
use crate::plan::Input;
use crate::plan::board::{Board, Member};
use crate::plan::exit::{Leaver, Turn};
use crate::plan::rollout::Disruptions;
use crate::plan::service::{Seated, Work};

/// Leads the tasks of a service that is gone out of the traffic, then removes its apps.
pub(in crate::plan) fn remove(
    input: &Input<'_>,
    board: &Board<'_>,
    name: &ServiceName,
    members: &[Member<'_>],
    budget: &mut Disruptions,
    out: &mut Plan,
    reason: &Reason,
) {
    let Some(host) = board.hosts.first() else { return };
    let Some(view) = host.view.filter(|v| v.seen == Seen::Now) else { return };
    let ending = Termination::default();
    let silent = input.registry_silent();
    for (id, live) in apps_of(view, name) {
        if busy(input, id) {
            continue;
        }
        let its = members.iter().filter(|m| m.instance.is_some_and(|i| has(live, &i.id)));
        let leavers: Vec<Leaver<'_>> = its
            .map(|member| Leaver {
                member,
                service: name,
                termination: &ending,
                locked: silent && input.world.registry.is_some(),
                now: input.now,
            })
            .collect();
        if all_out(&leavers, reason, budget, out) {
            out.take(end(&host.spec.name, id, live, name), reason.clone());
        }
    }
}

impl Work<'_, '_> {
    /// The tasks of apps that the service had before, once the one it has now works in their place.
    pub(super) fn taken_over(&self, app: &App<'_>, view: Option<&HostView>) -> Vec<usize> {
        let old: Vec<&Arc<AppView>> = view
            .into_iter()
            .flat_map(|view| apps_of(view, &self.service.name))
            .filter(|(id, _)| **id != app.id)
            .map(|(_, live)| live)
            .collect();
        let (_, least) = self.allowance();
        if old.is_empty() || self.progress().updated_available < least {
            return Vec::new();
        }
        let its = |s: &Seated<'_>| {
            s.member.instance.is_some_and(|i| old.iter().any(|live| has(live, &i.id)))
        };
        (0..self.seated.len()).filter(|&i| its(&self.seated[i])).collect()
    }
}

/// Removes apps of the service that are not the one it has now, once that one has taken over.
pub(super) fn others(
    work: &Work<'_, '_>,
    app: &App<'_>,
    view: Option<&HostView>,
    board: &Board<'_>,
    budget: &mut Disruptions,
    out: &mut Plan,
) {
    let (Some(view), Some(host)) = (view, board.hosts.first()) else { return };
    let name = &work.service.name;
    let (_, least) = work.allowance();
    if work.progress().updated_available < least {
        return;
    }
    for (id, live) in apps_of(view, name).filter(|(id, _)| **id != app.id) {
        if busy(work.input, id) {
            continue;
        }
        let its = |s: &&Seated<'_>| s.member.instance.is_some_and(|i| has(live, &i.id));
        let leavers: Vec<Leaver<'_>> = work
            .seated
            .iter()
            .filter(its)
            .map(|s| Leaver {
                member: &s.member,
                service: name,
                termination: &work.service.termination,
                locked: work.is_locked_in(),
                now: work.input.now,
            })
            .collect();
        let reason = Reason::Replaced { by: app.id.as_str().into() };
        if all_out(&leavers, &reason, budget, out) {
            out.take(end(&host.spec.name, id, live, name), reason);
        }
    }
}

/// Whether a task is one of an app's.
fn has(live: &AppView, task: &InstanceId) -> bool {
    live.current.contains(task) || live.outdated.contains(task)
}

fn apps_of<'v>(
    view: &'v HostView,
    name: &ServiceName,
) -> impl Iterator<Item = (&'v AppId, &'v Arc<AppView>)> {
    let ours =
        move |app: &AppView| matches!(&app.whose, Whose::Ours { service, .. } if service == name);
    view.apps.iter().filter(move |(_, app)| ours(app))
}

/// The end of an app that nobody uses. What Marathon is doing with it may never be done: that is given up first, unless it is
/// doing something with others, too.
fn end(host: &HostName, id: &AppId, live: &AppView, name: &ServiceName) -> Option<Step> {
    let act = match (is_locked(live), is_alone(live) && live.instances > 0) {
        (false, _) => AppAct::Delete,
        (true, true) => AppAct::Scale { instances: 0, force: true },
        (true, false) => return None,
    };
    let (host, app, service) = (host.clone(), id.clone(), name.clone());
    Some(Step::App(AppStep { host, app, service, act }))
}

/// Leads everybody out of the traffic; `true` once all are.
fn all_out(
    leavers: &[Leaver<'_>],
    reason: &Reason,
    budget: &mut Disruptions,
    out: &mut Plan,
) -> bool {
    let mut all = true;
    // Charged when they end, and not while the others are waited for.
    let mut charged = 0;
    for leaver in leavers {
        let Some(instance) = leaver.member.instance.filter(|i| i.state != State::Ending) else {
            continue;
        };
        if leaver.member.step.is_some() {
            all = false;
            continue;
        }
        let subject = || Subject::Service(leaver.service.clone());
        match leaver.turn(instance) {
            Turn::End { charged: own } => charged += u32::from(own),
            Turn::Untold => {
                out.untold(subject());
                all = false;
            }
            Turn::Withdraw => {
                if budget.spend(out) {
                    out.take(leaver.member.withdraw(leaver.service), reason.clone());
                }
                all = false;
            }
            Turn::Drains { sessions, until } => {
                out.wait(subject(), Why::Draining { count: 1, sessions }, Some(until));
                all = false;
            }
        }
    }
    all && (0..charged).all(|_| budget.spend(out))
}
