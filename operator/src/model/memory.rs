//! Soft facts that cannot be observed. Losing them may delay, never break a promise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::desired::InstanceSpec;
use super::hash::SpecHash;
use super::name::{HostName, InstanceId, Revision, ServiceName, Slot};
use super::time::Time;

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
    /// The rollout under way.
    pub rollout: Option<RolloutMemory>,
    /// The spec that was given up.
    pub quarantined: Option<Quarantine>,
    /// Failures in a row, by slot.
    pub slots: BTreeMap<Slot, SlotFailures>,
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

impl Memory {
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
