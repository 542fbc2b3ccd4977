//! What to do now, and why not more: `plan(Input) -> Plan`.
//!
//! Pure: no I/O, no clock, no randomness, no logging, and it cannot fail. The same input gives the
//! same plan, byte for byte. Each promise of ARCHITECTURE.md is kept in one place here and checked
//! by one property in `tests/`.

mod apps;
mod board;
mod classify;
mod edges;
mod exit;
pub mod explain;
mod leave;
mod place;
mod places;
mod prune;
mod rollout;
mod service;
mod share;
mod shelf;
mod start;
pub mod traffic;

pub use share::localise;

use std::sync::Arc;

use crate::model::{
    Desired, Fleet, Memory, Note, Phase, Plan, Planned, Reason, Seen, ServiceName, Step, Subject,
    Time, Waiting, Why, World,
};

/// Everything a plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The fleet to plan for.
    pub fleet: &'a Fleet,
    /// What should run, over all fleets.
    pub desired: &'a Desired,
    /// What is.
    pub world: &'a World,
    /// What is remembered.
    pub memory: &'a Memory,
    /// The time.
    pub now: Time,
}

/// What is safe to do now for one fleet, each step with its reason, and why not more.
///
/// Steps are in the order of the services' names; all of them may be taken at once.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut out = Plan::default();
    let mut board = board::Board::new(input);
    let mut budget = rollout::Disruptions::new(input);
    for (index, service) in board.services.clone().into_iter().enumerate() {
        let members = std::mem::take(&mut board.members[index]);
        match &input.fleet.marathon {
            None => service::plan(input, service, members, &mut board, &mut budget, &mut out),
            Some(cluster) => {
                apps::plan(input, cluster, service, members, &mut board, &mut budget, &mut out);
            }
        }
    }
    prune::plan(input, &mut board, &mut budget, &mut out);
    prune::networks(input, &board, &mut out);
    budget.finish(&mut out);
    board.waits(&mut out);
    if let Some(registry) = input.world.registry.as_ref().filter(|_| input.registry_silent()) {
        let why = registry.problem.clone().unwrap_or_else(|| "it has not answered yet".into());
        out.wait(Subject::Fleet, Why::RegistrySilent { why }, None);
    }
    forget(input, &mut out);
    out.edges = edges::edges(input, &out);
    let ends = out.waiting.iter().filter_map(|w| w.until).filter(|t| *t > input.now);
    out.wake_at = ends.chain(out.wake_at).min();
    out
}

/// Services that are neither desired nor held nor running any more are forgotten.
fn forget(input: &Input<'_>, out: &mut Plan) {
    let running = |name: &ServiceName| {
        out.steps.iter().any(|p| p.step.service() == Some(name))
            || input.world.hosts.values().any(|h| h.instances.iter().any(|i| &i.service == name))
    };
    // Both are in the order of names: one walk over the two instead of a search for each.
    let mut planned = out.services.keys().peekable();
    let mut gone = Vec::new();
    for name in input.memory.services.keys() {
        while planned.next_if(|p| *p < name).is_some() {}
        let wanted = planned.peek() == Some(&name) || input.desired.held.contains(name);
        if !wanted && !running(name) {
            gone.push(Note::Forget(name.clone()));
        }
    }
    out.notes.extend(gone);
}

impl Input<'_> {
    /// Whether the fleet has a registry that does not answer now.
    fn registry_silent(&self) -> bool {
        self.world.registry.as_ref().is_some_and(|r| r.seen != Seen::Now)
    }
}

impl Plan {
    /// Whether nothing is to be done, now or later, unless something happens.
    pub fn is_settled(&self) -> bool {
        self.steps.is_empty()
            && self.wake_at.is_none()
            && self.services.values().all(|s| s.phase != Phase::Reconciling)
    }

    fn take(&mut self, step: Option<Step>, reason: Reason) {
        self.steps.extend(step.map(|step| Planned { step: Arc::new(step), reason }));
    }

    fn wait(&mut self, subject: Subject, why: Why, until: Option<Time>) {
        self.waiting.push(Waiting { subject, why, until });
    }
}
