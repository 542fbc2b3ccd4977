//! Soft facts that cannot be observed. Losing them may delay, never break a promise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::desired::InstanceSpec;
use super::hash::SpecHash;
use super::name::{HostName, InstanceId, Revision, ServiceName, Slot};
use super::step::Start;
use super::time::Time;

/// How long a disruption counts against the hourly budget.
pub const HOUR: Duration = Duration::from_secs(3600);

/// What one fleet remembers from pass to pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// By service.
    pub services: BTreeMap<ServiceName, Arc<ServiceMemory>>,
    /// When healthy instances were stopped by our own hand, oldest first, the last hour.
    pub disruptions: Vec<Time>,
    /// When starts failed, by host, oldest first, the last five minutes.
    pub failed_starts: BTreeMap<HostName, Vec<Time>>,
}

/// What is remembered of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceMemory {
    /// The last spec whose rollout completed.
    pub last_good: Option<Good>,
    /// The newest specs that were in force, newest last, to say what changed between them.
    pub known: Vec<(SpecHash, Arc<InstanceSpec>)>,
    /// How many replicas there were when all was last as desired.
    pub settled: u32,
    /// The rollout under way.
    pub rollout: Option<RolloutMemory>,
    /// The spec that was given up.
    pub quarantined: Option<Quarantine>,
    /// Failures in a row, by slot.
    pub slots: BTreeMap<Slot, SlotFailures>,
    /// Since when a platform's deployment has replaced nobody, though there is somebody to replace.
    pub idle: Option<Time>,
}

/// A spec that was seen to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good {
    /// Its hash.
    pub hash: SpecHash,
    /// The spec itself.
    pub spec: Arc<InstanceSpec>,
    /// The document it came from, as canonical JSON, without any secret's value.
    pub document: Arc<str>,
    /// The revision it came with.
    pub revision: Revision,
}

/// A rollout under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutMemory {
    /// To which spec.
    pub hash: SpecHash,
    /// When it last made progress.
    pub progressed: Time,
    /// The most new instances that were available at once.
    pub best: u32,
    /// Whether the deadline passed without progress.
    pub failed: bool,
}

/// A spec that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Its hash.
    pub hash: SpecHash,
    /// Why, for people.
    pub why: String,
}

/// Failures in a row of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotFailures {
    /// How many.
    pub count: u32,
    /// When the last one was noticed.
    pub last: Time,
    /// What it said.
    pub message: String,
    /// Dead instances already counted that are still visible.
    pub counted: BTreeSet<InstanceId>,
    /// Of which spec.
    pub hash: Option<SpecHash>,
}

/// Something to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A service's memory is now this.
    Service(ServiceName, Arc<ServiceMemory>),
    /// A service can be forgotten.
    Forget(ServiceName),
    /// A healthy instance was stopped by our own hand.
    Disruption(Time),
}

/// How long a failed start counts against its host.
const HOST_WINDOW: Duration = Duration::from_secs(300);
/// A slot that has not failed for this long begins to count anew.
const CALM: Duration = Duration::from_secs(600);
/// The longest pause between two tries of one slot.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

impl SlotFailures {
    /// When the slot may be tried again: at once after the first failure, then after 1, 2, 4 … 300 s.
    pub fn next_try(&self) -> Time {
        if self.count <= 1 {
            return self.last;
        }
        let pause = Duration::from_secs(1 << (self.count - 2).min(16)).min(LONGEST_PAUSE);
        self.last.plus(pause)
    }

    /// One more failure of `hash`, noticed `now`.
    pub fn fail(&mut self, hash: SpecHash, message: String, now: Time) {
        if self.hash != Some(hash) || now.since(self.last) > CALM {
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.hash = Some(hash);
        self.last = now;
        self.message = message;
    }
}

impl Memory {
    /// A start failed: it counts against its slot, and against its host unless the document is to blame.
    pub fn failed_start(&mut self, start: &Start, message: String, blame_host: bool, now: Time) {
        let service = self.services.entry(start.service.clone()).or_default();
        let slot = Arc::make_mut(service).slots.entry(start.slot).or_default();
        slot.fail(start.hash, message, now);
        if blame_host {
            self.failed_starts.entry(start.host.clone()).or_default().push(now);
        }
    }

    /// Lets go of what no longer counts.
    pub fn forget_old(&mut self, now: Time) {
        self.disruptions.retain(|t| now.since(*t) < HOUR);
        self.failed_starts.retain(|_, times| {
            times.retain(|t| now.since(*t) < HOST_WINDOW);
            !times.is_empty()
        });
    }

    /// After a restart: the time the agent was away is not held against any rollout.
    pub fn resume(&mut self, now: Time) {
        for service in self.services.values_mut() {
            if service.rollout.is_some()
                && let Some(rollout) = &mut Arc::make_mut(service).rollout
            {
                rollout.progressed = now;
            }
        }
    }

    /// Takes in what a plan says to remember.
    pub fn take(&mut self, notes: &[Note]) {
        for note in notes {
            match note {
                Note::Service(name, memory) => {
                    self.services.insert(name.clone(), memory.clone());
                }
                Note::Forget(name) => {
                    self.services.remove(name);
                }
                Note::Disruption(at) => self.disruptions.push(*at),
            }
        }
    }
}
