//! The arithmetic of change: how many may start and stop now, and which spec is in force.

use std::sync::Arc;
use std::time::Duration;

use super::Input;
use crate::model::memory::HOUR;
use crate::model::{
    InstanceSpec, Note, OnFailure, Plan, Quarantine, RolloutMemory, Service, ServiceMemory,
    SpecHash, Subject, Time, Why,
};

/// How long all instances of a new spec must have been available before it is one to come back to:
/// what crashes after its first seconds is no good spec.
pub(super) const PROVEN: Duration = Duration::from_secs(10);

/// The fleet's hourly budget of healthy instances that our own hand may stop.
pub(super) struct Disruptions {
    most: Option<u32>,
    spent: u32,
    refused: bool,
    frees_at: Option<Time>,
    now: Time,
}

impl Disruptions {
    pub(super) fn new(input: &Input<'_>) -> Self {
        let recent = || input.memory.disruptions.iter().filter(|t| input.now.since(**t) < HOUR);
        Self {
            most: input.fleet.limits.disruptions_per_hour,
            spent: u32::try_from(recent().count()).unwrap_or(u32::MAX),
            refused: false,
            frees_at: recent().min().map(|t| t.plus(HOUR)),
            now: input.now,
        }
    }

    /// Takes one from the budget, if there is one.
    pub(super) fn spend(&mut self, out: &mut Plan) -> bool {
        if self.most.is_some_and(|most| self.spent >= most) {
            self.refused = true;
            return false;
        }
        if self.most.is_some() {
            self.spent += 1;
            out.notes.push(Note::Disruption(self.now));
        }
        true
    }

    pub(super) fn finish(&self, out: &mut Plan) {
        if let (true, Some(per_hour)) = (self.refused, self.most) {
            out.wait(Subject::Fleet, Why::DisruptionBudget { per_hour }, self.frees_at);
        }
    }
}

/// The spec that is in force for a service.
pub(super) struct Effective {
    pub(super) hash: SpecHash,
    pub(super) spec: Arc<InstanceSpec>,
    /// The quarantined spec, when this is a rollback.
    pub(super) instead_of: Option<SpecHash>,
}

/// How many are available and whether all is done, for the judgement on a rollout.
pub(super) struct Progress {
    pub(super) updated_available: u32,
    pub(super) complete: bool,
}

/// Which spec is in force: the one asked for, unless it is quarantined and a good one is known.
pub(super) fn effective(service: &Service, memory: &mut ServiceMemory) -> Effective {
    if memory.quarantined.as_ref().is_some_and(|q| q.hash != service.hash) {
        memory.quarantined = None;
    }
    match (&memory.quarantined, &memory.last_good) {
        (Some(bad), Some(good)) if good.hash != bad.hash => {
            Effective { hash: good.hash, spec: good.spec.clone(), instead_of: Some(bad.hash) }
        }
        _ => Effective { hash: service.hash, spec: service.spec.clone(), instead_of: None },
    }
}

/// Whether the spec in force is one that has not been seen to work yet.
fn is_rolling(effective: &Effective, memory: &ServiceMemory) -> bool {
    memory.last_good.as_ref().is_none_or(|good| good.hash != effective.hash)
}

/// Judges a rollout that is under way; `true` when its deadline passed and it is given up.
///
/// A rollback is never judged: its spec is the last good one, so no rollout is under way.
pub(super) fn judge(
    service: &Service,
    effective: &Effective,
    progress: &Progress,
    memory: &mut ServiceMemory,
    now: Time,
) -> bool {
    // Those that leave are not made to be another.
    let leaves = service.shifting.is_some_and(|s| s.leaves);
    if leaves || !is_rolling(effective, memory) {
        memory.rollout = None;
        return false;
    }
    let rollout = match &mut memory.rollout {
        Some(rollout) if rollout.hash == effective.hash => rollout,
        other => other.insert(RolloutMemory {
            hash: effective.hash,
            progressed: now,
            best: 0,
            failed: false,
        }),
    };
    if progress.updated_available > rollout.best {
        rollout.best = progress.updated_available;
        rollout.progressed = now;
        rollout.failed = false;
    }
    if rollout.failed
        || progress.complete
        || now < rollout.progressed.plus(service.rollout.progress_deadline)
    {
        return false;
    }
    rollout.failed = true;
    let why = memory
        .slots
        .values()
        .filter(|f| f.hash == Some(effective.hash))
        .max_by_key(|f| f.last)
        .map_or_else(
            || "no progress within the deadline".to_owned(),
            |f| format!("no progress within the deadline; last: {}", f.message),
        );
    let good = memory.last_good.as_ref().is_some_and(|good| good.hash != effective.hash);
    match service.rollout.on_failure {
        OnFailure::Rollback if good => {
            memory.quarantined = Some(Quarantine { hash: effective.hash, why });
            memory.rollout = None;
            memory.slots.clear();
            true
        }
        OnFailure::Rollback | OnFailure::Pause => false,
    }
}

/// When a rollout under way is given up unless it progresses.
pub(super) fn deadline(service: &Service, memory: &ServiceMemory) -> Option<Time> {
    memory
        .rollout
        .as_ref()
        .filter(|r| !r.failed)
        .map(|r| r.progressed.plus(service.rollout.progress_deadline))
}
