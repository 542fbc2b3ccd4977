//! Steps, and the plan they make: values that print.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::app::AppStep;
use super::desired::{InstanceSpec, Protocol};
use super::edge::Edges;
use super::hash::SpecHash;
use super::memory::Note;
use super::name::{HostName, InstanceId, ServiceName, Slot};
use super::reason::Reason;
use super::time::Time;
use super::waiting::Waiting;

/// One idempotent thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make and start an instance.
    Start(Start),
    /// End a running instance gracefully, then remove it.
    Stop {
        /// Where it runs.
        host: HostName,
        /// Which one.
        id: InstanceId,
        /// Its container name.
        name: Arc<str>,
        /// Its service.
        service: ServiceName,
        /// Its slot.
        slot: Slot,
        /// The signal that asks it to end.
        signal: String,
        /// Time between the signal and SIGKILL.
        grace: Duration,
    },
    /// Remove what has ended or never started.
    Remove {
        /// Where it lies.
        host: HostName,
        /// Which one.
        id: InstanceId,
        /// Its container name.
        name: Arc<str>,
        /// Its service.
        service: ServiceName,
        /// Its slot.
        slot: Slot,
    },
    /// Give an instance the name of its slot, once that is free.
    Rename {
        /// Where it runs.
        host: HostName,
        /// Which one.
        id: InstanceId,
        /// Its service.
        service: ServiceName,
        /// Its slot.
        slot: Slot,
        /// The name it has.
        from: Arc<str>,
        /// The name it gets.
        to: Arc<str>,
    },
    /// Let clients reach an instance.
    Admit {
        /// Where it runs.
        host: HostName,
        /// Which one.
        id: InstanceId,
        /// Its container name.
        name: Arc<str>,
        /// Its service.
        service: ServiceName,
        /// Its slot.
        slot: Slot,
    },
    /// Take an instance out of the registry and every balancer; its connections drain.
    Withdraw {
        /// Where it runs.
        host: HostName,
        /// Which one.
        id: InstanceId,
        /// Its container name.
        name: Arc<str>,
        /// Its service.
        service: ServiceName,
        /// Its slot.
        slot: Slot,
    },
    /// Remove a network that we made and that nothing uses any more.
    RemoveNetwork {
        /// Where it is.
        host: HostName,
        /// Its name.
        network: Arc<str>,
    },
    /// Something with an app of Marathon.
    App(AppStep),
}

/// An instance to make and start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Where.
    pub host: HostName,
    /// The container's name: `<service>_<slot>`, or with `.2` and so on behind it while that is taken.
    pub name: Arc<str>,
    /// For which service.
    pub service: ServiceName,
    /// In which slot.
    pub slot: Slot,
    /// What it is called to be.
    pub hash: SpecHash,
    /// What it is.
    pub spec: Arc<InstanceSpec>,
    /// Ports to publish on the host.
    pub published: Vec<Published>,
    /// The signal that asks it to end, for those who stop it by hand.
    pub stop_signal: String,
}

/// A port published on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Inside the container.
    pub container: u16,
    /// On the host.
    pub host: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl Step {
    /// A closed word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::Stop { .. } => "stop",
            Self::Remove { .. } => "remove",
            Self::Rename { .. } => "rename",
            Self::Admit { .. } => "admit",
            Self::Withdraw { .. } => "withdraw",
            Self::RemoveNetwork { .. } => "remove-network",
            Self::App(step) => step.act.kind(),
        }
    }

    /// The host it happens on.
    pub fn host(&self) -> &HostName {
        match self {
            Self::Start(Start { host, .. })
            | Self::Stop { host, .. }
            | Self::Remove { host, .. }
            | Self::Rename { host, .. }
            | Self::Admit { host, .. }
            | Self::Withdraw { host, .. }
            | Self::RemoveNetwork { host, .. }
            | Self::App(AppStep { host, .. }) => host,
        }
    }

    /// The service it is for.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Start(Start { service, .. })
            | Self::Stop { service, .. }
            | Self::Remove { service, .. }
            | Self::Rename { service, .. }
            | Self::Admit { service, .. }
            | Self::Withdraw { service, .. }
            | Self::App(AppStep { service, .. }) => Some(service),
            Self::RemoveNetwork { .. } => None,
        }
    }

    /// The slot it is for.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Self::Start(Start { slot, .. })
            | Self::Stop { slot, .. }
            | Self::Remove { slot, .. }
            | Self::Rename { slot, .. }
            | Self::Admit { slot, .. }
            | Self::Withdraw { slot, .. } => Some(*slot),
            Self::RemoveNetwork { .. } | Self::App(_) => None,
        }
    }

    /// The existing instance it acts on.
    pub fn id(&self) -> Option<&InstanceId> {
        match self {
            Self::Stop { id, .. }
            | Self::Remove { id, .. }
            | Self::Rename { id, .. }
            | Self::Admit { id, .. }
            | Self::Withdraw { id, .. } => Some(id),
            Self::Start(_) | Self::RemoveNetwork { .. } | Self::App(_) => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(s) => write!(f, "start {} on {}", s.name, s.host),
            Self::Stop { name, host, .. } => write!(f, "stop {name} on {host}"),
            Self::Remove { name, host, .. } => write!(f, "remove {name} on {host}"),
            Self::Rename { from, to, host, .. } => write!(f, "rename {from} to {to} on {host}"),
            Self::Admit { name, host, .. } => write!(f, "admit {name} on {host}"),
            Self::Withdraw { name, host, .. } => write!(f, "withdraw {name} on {host}"),
            Self::RemoveNetwork { network, host } => {
                write!(f, "remove network {network} on {host}")
            }
            Self::App(step) => step.fmt(f),
        }
    }
}

/// A step and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What to do.
    pub step: Arc<Step>,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.reason)
    }
}

/// What to do now, why, and why not more.
#[derive(Debug, Clone, Default)]
#[must_use = "a plan that nobody reads keeps nothing on an even keel"]
pub struct Plan {
    /// Safe to do now, all of them, in any order.
    pub steps: Vec<Planned>,
    /// Why not more.
    pub waiting: Vec<Waiting>,
    /// What to remember for the next pass.
    pub notes: Vec<Note>,
    /// What balancers and the registry should do.
    pub edges: Edges,
    /// How each service stands.
    pub services: BTreeMap<ServiceName, ServiceStatus>,
    /// When to plan again even if nothing rings.
    pub wake_at: Option<Time>,
}

/// How a service stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStatus {
    /// How many are asked for.
    pub desired: u32,
    /// How many there are, terminating ones too.
    pub total: u32,
    /// Of the spec in force.
    pub updated: u32,
    /// Healthy.
    pub ready: u32,
    /// Healthy for long enough, and up in every balancer.
    pub available: u32,
    /// In one word.
    pub phase: Phase,
    /// The hash of the spec in force.
    pub hash: SpecHash,
    /// The spec in force: the one asked for, or the last good one after a rollback.
    pub spec: Arc<InstanceSpec>,
}

/// A service in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// As desired.
    Ready,
    /// On the way there.
    Reconciling,
    /// Only a person can help.
    Stalled,
    /// Told to be left alone.
    Suspended,
}
