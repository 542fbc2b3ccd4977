//! Services that nobody asks for any more, and the doubts that keep them running (promise 6).

use std::collections::BTreeSet;
use std::fmt::Write;

use super::board::{Board, Member};
use super::classify::{Bucket, Facts};
use super::rollout::Disruptions;
use super::{Input, apps, exit};
use crate::model::{
    Instance, OnFailure, Plan, Reason, Rollout, Seen, ServiceName, Step, Subject, Termination, Why,
};

/// Removes the instances of services that are gone, unless anything is in doubt.
pub(super) fn plan(
    input: &Input<'_>,
    board: &mut Board<'_>,
    budget: &mut Disruptions,
    out: &mut Plan,
) {
    let mut orphans = std::mem::take(&mut board.orphans);
    for name in &input.desired.held {
        if orphans.remove(name).is_some() {
            out.wait(Subject::Service(name.clone()), Why::Held, None);
        }
    }
    // Its instances have moved to another fleet: what is left is debris, or on a host that is lost.
    orphans.retain(|name, members| {
        let left = |m: &Member<'_>| m.is_dead() || board.hosts[m.host].seen(input.now) != Seen::Now;
        let moved = input.desired.services.contains_key(*name) && members.iter().all(left);
        if moved {
            remove(input, board, name, members, budget, out, &Reason::Moved);
        }
        !moved
    });
    let removal = &input.desired.removal;
    orphans.retain(|name, members| {
        let deleted = removal.deleted.contains(*name);
        if deleted {
            remove(input, board, name, members, budget, out, &Reason::Deleted);
        }
        !deleted
    });
    if let Some(only) = &removal.only {
        let left: Vec<ServiceName> =
            orphans.keys().filter(|n| !only.contains(**n)).map(|n| (*n).clone()).collect();
        if !left.is_empty() {
            orphans.retain(|name, _| only.contains(*name));
            out.wait(Subject::Fleet, Why::Unclaimed { services: left }, None);
        }
    }
    if orphans.is_empty() {
        return;
    }
    for members in orphans.values_mut() {
        members.sort_by_key(|m| (m.slot, m.host, m.instance.map(|i| &i.id)));
    }
    let alive = |m: &&Member<'_>| !m.is_dead();
    let going: usize = orphans.values().map(|m| m.iter().filter(alive).count()).sum();
    let all: u32 = board.hosts.iter().map(|h| h.instances).sum();
    let going = u32::try_from(going).unwrap_or(u32::MAX);
    let services = || orphans.keys().map(|n| (*n).clone()).collect::<Vec<ServiceName>>();
    let max_percent = input.fleet.limits.prune_max_percent;
    let code = approval_code(board);
    let approved = input.fleet.approved_prune.as_deref() == Some(code.as_str());
    let over = u64::from(going) * 100 > u64::from(all) * u64::from(max_percent);
    let problems = input.desired.problems.len();
    let doubt = if problems > 0 {
        Some(Why::PruneInDoubt { services: services(), problems })
    } else if board.services.is_empty() && !approved {
        Some(Why::PruneEmpty { services: services(), code })
    } else if over && !approved {
        Some(Why::PruneBudget {
            services: services(),
            instances: going,
            of: all,
            max_percent,
            code,
        })
    } else {
        None
    };
    if let Some(why) = doubt {
        out.wait(Subject::Fleet, why, None);
        return;
    }
    let reason = Reason::Pruned { revision: input.desired.revision.clone() };
    for (name, members) in &orphans {
        remove(input, board, name, members, budget, out, &reason);
    }
}

/// Names what would remain, so that it stays the same while the prune goes on.
fn approval_code(board: &Board<'_>) -> String {
    let names = board.services.iter().map(|s| s.name.as_str());
    let mut hash: u32 = 0x811c_9dc5; // FNV-1a: a code to copy, not a secret
    for byte in names.flat_map(|n| n.bytes().chain([0])) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let mut code = String::new();
    let _ = write!(code, "{hash:08x}");
    code
}

fn remove(
    input: &Input<'_>,
    board: &Board<'_>,
    name: &ServiceName,
    members: &[Member<'_>],
    budget: &mut Disruptions,
    out: &mut Plan,
    reason: &Reason,
) {
    if input.fleet.marathon.is_some() {
        return apps::remove(input, board, name, members, budget, out, reason);
    }
    // Its own settings are gone with its document; these are the defaults.
    let ending = Termination::default();
    let rules = Rollout { on_failure: OnFailure::Pause, ..Rollout::default() };
    let because = || reason.clone();
    for member in members {
        let seen = board.hosts[member.host].seen(input.now);
        if seen != Seen::Now || member.step.is_some() {
            continue;
        }
        let facts = Facts {
            member,
            seen,
            now: input.now,
            replace_after: std::time::Duration::MAX,
            min_ready: rules.min_ready,
            routed: false,
        };
        match facts.bucket() {
            Bucket::Dead => out.take(member.remove(name), because()),
            Bucket::Sick => {
                out.take(member.stop(name, &ending.signal, ending.grace), because());
            }
            Bucket::Starting
            | Bucket::Unproven
            | Bucket::Unserved
            | Bucket::Settling
            | Bucket::Available => {
                let leaver = exit::Leaver {
                    member,
                    service: name,
                    termination: &ending,
                    locked: input.registry_silent() && registered(input, member),
                    now: input.now,
                };
                exit::take(&leaver, because, budget, out);
            }
            Bucket::Leaving if member.is_interrupted() => {
                out.take(member.stop(name, &ending.signal, ending.grace), Reason::Interrupted);
            }
            Bucket::Lost | Bucket::Unknown | Bucket::Leaving => {}
        }
    }
}

/// Whether the registry leads clients to it, as far as is known.
fn registered(input: &Input<'_>, member: &Member<'_>) -> bool {
    let entry = |i: &Instance| input.world.registry.as_ref()?.entries.get(&i.id);
    member.instance.and_then(entry).is_some()
}

/// Removes networks of ours that nothing asks for and nothing of ours could still use.
pub(super) fn networks(input: &Input<'_>, board: &Board<'_>, out: &mut Plan) {
    if !input.desired.problems.is_empty() || !input.desired.held.is_empty() {
        return;
    }
    if board.hosts.iter().all(|h| h.view.is_none_or(|v| v.networks.is_empty())) {
        return;
    }
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for service in &board.services {
        used.extend(service.spec.networks.iter().map(String::as_str));
        let good = input.memory.services.get(&service.name).and_then(|m| m.last_good.as_ref());
        used.extend(good.iter().flat_map(|g| g.spec.networks.iter().map(String::as_str)));
    }
    let in_flight = |host, network: &std::sync::Arc<str>| {
        input.world.in_flight.iter().any(|f| {
            matches!(f.step.as_ref(), Step::RemoveNetwork { host: h, network: n }
                if h == host && n == network)
        })
    };
    for host in &board.hosts {
        let Some(view) = host.view.filter(|v| v.seen == Seen::Now) else { continue };
        // An instance of another spec may use what its spec of then named.
        let settled = view.instances.iter().all(|i| {
            let service = board.services.binary_search_by(|s| s.name.cmp(&i.service));
            service.is_ok_and(|at| board.services[at].hash == i.hash)
        });
        for network in view.networks.iter().filter(|n| settled && !used.contains(n.as_ref())) {
            let name = &host.spec.name;
            if !in_flight(name, network) {
                let step = Step::RemoveNetwork { host: name.clone(), network: network.clone() };
                out.take(Some(step), Reason::Unused);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fake::{Sim, make};
    use crate::model::{
        Desired, HostView, Limits, Memory, Problem, Removal, Resources, Time, World,
    };
    use crate::plan::plan as whole;

    /// What is stopped, and why not more, where `a` and `b` run and nothing is asked for but in `removal`.
    fn told(removal: Removal, problems: Vec<Problem>) -> (Vec<String>, Vec<&'static str>) {
        let now = Time(1_000_000);
        let host = make::host("h1", &[]).unwrap();
        let instances = ["a", "b"].map(|name| make::instance(&ServiceName::new(name).unwrap(), 1));
        let seen = HostView { seen: Seen::Now, ..HostView::never(now) };
        let view = HostView { instances: instances.into(), ..seen };
        let world =
            World { hosts: [(host.name.clone(), Arc::new(view))].into(), ..World::default() };
        let sim = Sim::new(vec![host], Limits::default(), Resources::default());
        let desired = Desired { problems, removal, ..sim.desired.clone() };
        let (fleet, memory) = (sim.fleet(), Memory::default());
        let input = Input { fleet: &fleet, desired: &desired, world: &world, memory: &memory, now };
        let plan = whole(&input);
        let steps = plan.steps.iter().map(|p| format!("{}: {}", p.step.kind(), p.reason));
        (steps.collect(), plan.waiting.iter().map(|w| w.why.kind()).collect())
    }

    fn names(given: &[&str]) -> BTreeSet<ServiceName> {
        given.iter().map(|n| ServiceName::new(n).unwrap()).collect()
    }

    #[test]
    fn what_was_deleted_by_name_goes_whatever_else_is_in_doubt() {
        let removal = Removal { deleted: names(&["a"]), only: Some(names(&[])) };
        let problem = Problem {
            path: "x".into(),
            line: 0,
            column: 0,
            message: "wrong".into(),
            hint: None,
            object: None,
        };
        let (steps, waits) = told(removal, vec![problem]);
        assert_eq!(steps, ["stop: its service is being deleted"]);
        assert_eq!(waits, ["unclaimed"], "b is left alone");
    }

    #[test]
    fn where_absence_says_nothing_everything_is_left_alone() {
        let nothing = Removal { deleted: names(&[]), only: Some(names(&[])) };
        assert_eq!(told(nothing, Vec::new()), (vec![], vec!["unclaimed"]));
        // What may go by absence is still held by every doubt.
        let both = Removal { deleted: names(&[]), only: Some(names(&["a", "b"])) };
        assert_eq!(told(both, Vec::new()), (vec![], vec!["prune-empty"]));
        assert_eq!(told(Removal::default(), Vec::new()), (vec![], vec!["prune-empty"]));
    }
}
