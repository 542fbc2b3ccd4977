//! How many places of a service a fleet takes: what it has, and what it has begun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Input;
use crate::model::{
    AppAct, AppStep, AppView, Desired, Fleet, InFlight, Part, Plan, Seen, Service, ServiceName,
    Slot, Start, State, Step, Time, Whose, World,
};

/// What this fleet has of services that other fleets must know of, with what this plan adds to it.
pub(super) fn parts(input: &Input<'_>, plan: &Plan) -> BTreeMap<ServiceName, Part> {
    let Input { fleet, desired, world, now, .. } = *input;
    let here = places(fleet, desired, world, now);
    let asked = |name| world.elsewhere.said.values().any(|o| o.parts.contains_key(name));
    let mut out = BTreeMap::new();
    for (name, status) in &plan.services {
        let Some(service) = desired.services.get(name) else { continue };
        if !asked(name) && service.shifting.is_none() && service.placements.is_empty() {
            continue;
        }
        let planned = || plan.steps.iter().map(|p| p.step.as_ref());
        let starts = |s: &&Step| matches!(s, Step::Start(start) if start.service == *name);
        let started = u32::try_from(planned().filter(starts).count()).unwrap_or(u32::MAX);
        let put = planned().filter_map(|step| instances(step, name)).max().unwrap_or(0);
        let have = here.get(name).copied().unwrap_or(0);
        let total = have.saturating_add(started).max(put);
        out.insert(name.clone(), Part { total, available: status.available });
    }
    out
}

/// How many places each service takes on this fleet: slots on Docker hosts, instances of an app.
pub(super) fn places<'d>(
    fleet: &Fleet,
    desired: &'d Desired,
    world: &World,
    now: Time,
) -> BTreeMap<&'d ServiceName, u32> {
    if fleet.marathon.is_some() { apps(desired, world) } else { slots(fleet, desired, world, now) }
}

fn slots<'d>(
    fleet: &Fleet,
    desired: &'d Desired,
    world: &World,
    now: Time,
) -> BTreeMap<&'d ServiceName, u32> {
    let mut taken: BTreeMap<&ServiceName, BTreeSet<Slot>> = BTreeMap::new();
    for (_, view) in world.hosts.iter().filter(|(host, _)| fleet.hosts.contains_key(*host)) {
        for instance in &view.instances {
            let Some((name, service)) = desired.services.get_key_value(&instance.service) else {
                continue;
            };
            // On a host that is lost nobody waits for them.
            let lost = match view.seen {
                Seen::Now => false,
                Seen::Silent { since } | Seen::Never { since } => {
                    now.since(since) >= service.replace_after
                }
            };
            // What was only made is nothing but debris, or a start under way, which is counted below.
            let dead = matches!(instance.state, State::Exited { .. } | State::Created);
            if !dead && !lost {
                taken.entry(name).or_default().insert(instance.slot);
            }
        }
    }
    for flight in &world.in_flight {
        if let Step::Start(Start { service, slot, .. }) = &*flight.step
            && let Some((name, _)) = desired.services.get_key_value(service)
        {
            taken.entry(name).or_default().insert(*slot);
        }
    }
    let count = |slots: BTreeSet<Slot>| u32::try_from(slots.len()).unwrap_or(u32::MAX);
    taken.into_iter().map(|(name, slots)| (name, count(slots))).collect()
}

fn apps<'d>(desired: &'d Desired, world: &World) -> BTreeMap<&'d ServiceName, u32> {
    let mut out: BTreeMap<&ServiceName, u32> = BTreeMap::new();
    for (id, app) in world.hosts.values().flat_map(|view| &view.apps) {
        let claims = |s: &&Arc<Service>| s.app.id.as_ref() == Some(id);
        let service = match &app.whose {
            Whose::Ours { service, .. } => desired.services.get(service),
            Whose::Nobodys => desired.services.values().find(claims),
            Whose::Others => None,
        };
        // Of an app without any nothing is left but a shell.
        if let Some(service) = service
            && app_places(app) > 0
        {
            *out.entry(&service.name).or_default() += app_places(app);
        }
    }
    for flight in &world.in_flight {
        let InFlight { step, .. } = flight;
        if let Some((name, _)) = step.service().and_then(|s| desired.services.get_key_value(s))
            && let Some(asked) = instances(step, name).filter(|n| *n > 0)
        {
            let known = out.entry(name).or_default();
            *known = asked.max(*known);
        }
    }
    out
}

/// How many instances a step asks Marathon for.
fn instances(step: &Step, name: &ServiceName) -> Option<u32> {
    match step {
        Step::App(AppStep {
            service,
            act: AppAct::Put { instances, .. } | AppAct::Scale { instances, .. },
            ..
        }) if service == name => Some(*instances),
        Step::Start(_)
        | Step::Stop { .. }
        | Step::Remove { .. }
        | Step::Rename { .. }
        | Step::Admit { .. }
        | Step::Withdraw { .. }
        | Step::RemoveNetwork { .. }
        | Step::App(_) => None,
    }
}

/// Tasks that end take their place until they are gone. Those that are replaced, and those that replace them, take one.
fn app_places(app: &AppView) -> u32 {
    if !app.outdated.is_empty() && !app.current.is_empty() {
        return app.instances;
    }
    let tasks = app.current.len() + app.outdated.len();
    app.instances.max(u32::try_from(tasks).unwrap_or(u32::MAX))
}
