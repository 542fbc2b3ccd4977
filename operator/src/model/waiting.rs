//! Why not more is done: as prominent as what is.

use std::fmt;
use std::sync::Arc;

use super::app::AppId;
use super::hash::SpecHash;
use super::name::{HostName, ServiceName, Slot};
use super::time::Time;

/// What a wait is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The whole fleet.
    Fleet,
    /// One service.
    Service(ServiceName),
    /// One host.
    Host(HostName),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet => write!(f, "fleet"),
            Self::Service(s) => write!(f, "service {s}"),
            Self::Host(h) => write!(f, "host {h}"),
        }
    }
}

/// Why no more is done for something now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What it is about.
    pub subject: Subject,
    /// Why.
    pub why: Why,
    /// When it ends by itself at the latest, if it does.
    pub until: Option<Time>,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.why)
    }
}

/// Why no more is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// A step is under way.
    InFlight {
        /// How many.
        steps: u32,
    },
    /// New instances are not available yet.
    NotAvailable {
        /// How many are not.
        count: u32,
    },
    /// `minReadySeconds` has not passed.
    MinReady {
        /// For how many instances.
        count: u32,
    },
    /// `replicas + maxSurge` is reached.
    Ceiling {
        /// The most there may be.
        most: u32,
    },
    /// Stopping another would fall below `replicas - maxUnavailable`.
    Floor {
        /// The fewest that must be available.
        least: u32,
        /// How many are.
        available: u32,
    },
    /// A slot failed; the next try comes later.
    Backoff {
        /// The slot.
        slot: Slot,
        /// Failures in a row.
        failures: u32,
        /// What the last one said.
        message: String,
    },
    /// No host takes the instance.
    NoHost {
        /// How many instances have no place.
        count: u32,
        /// Which filter refused which hosts.
        refused: String,
    },
    /// A host is silent, and its instances are waited for.
    Silent {
        /// The host.
        host: HostName,
        /// How many instances.
        count: u32,
    },
    /// A host has not answered since the agent began: it may hold anything.
    NeverSeen {
        /// The host.
        host: HostName,
    },
    /// Connections drain.
    Draining {
        /// Of how many instances.
        count: u32,
        /// Sessions left; `None`: nobody counts them, and the drain time is waited for.
        sessions: Option<u32>,
    },
    /// The registry or a balancer is silent.
    TrafficUnknown {
        /// Of how many instances.
        count: u32,
    },
    /// A route of the service is left out; everything else of it is as it should be.
    RouteLeftOut {
        /// Why.
        why: String,
    },
    /// A balancer does not follow, or follows less a part.
    Behind {
        /// Its container's name.
        name: Arc<str>,
        /// Why.
        why: String,
    },
    /// The registry does not answer: what it has stays, and nobody can leave it.
    RegistrySilent {
        /// Why.
        why: String,
    },
    /// As many starts as a host may have at once are under way.
    ParallelStarts {
        /// The most.
        most: u32,
    },
    /// The snapshot has problems.
    PruneInDoubt {
        /// Services that would be removed.
        services: Vec<ServiceName>,
        /// How many problems.
        problems: usize,
    },
    /// Nothing at all is desired any more.
    PruneEmpty {
        /// Services that would be removed.
        services: Vec<ServiceName>,
        /// What releases it.
        code: String,
    },
    /// More would be removed than the budget allows.
    PruneBudget {
        /// Services that would be removed.
        services: Vec<ServiceName>,
        /// Instances that would be removed.
        instances: u32,
        /// Of how many.
        of: u32,
        /// The most, in percent.
        max_percent: u32,
        /// What releases it.
        code: String,
    },
    /// No object asks for them, and none was deleted: they are left alone.
    Unclaimed {
        /// The services.
        services: Vec<ServiceName>,
    },
    /// As many healthy instances as an hour may see were stopped.
    DisruptionBudget {
        /// The most an hour.
        per_hour: u32,
    },
    /// The service is suspended.
    Suspended,
    /// The newest document is broken; the last good one is in force.
    Held,
    /// The rollout failed and the last good spec is in force.
    Quarantined {
        /// The bad spec.
        hash: SpecHash,
        /// Why it was given up.
        why: String,
    },
    /// The rollout made no progress and nothing will change until a person acts.
    Stalled {
        /// Why.
        why: String,
    },
    /// A host was taken out of the fleet while it ran instances of ours.
    Abandoned {
        /// How many.
        count: u32,
    },
    /// The app is somebody else's.
    AppTaken {
        /// The app.
        app: AppId,
    },
    /// A deployment of Marathon is under way.
    Deploying {
        /// How many.
        deployments: usize,
        /// Why no more instances are started, as Marathon's queue says.
        queued: Vec<String>,
    },
    /// What says how tasks are checked and replaced differs, and would restart all tasks: it waits for the next change.
    Deferred {
        /// The fields.
        fields: Vec<String>,
    },
    /// Instances are moving between fleets.
    Moving {
        /// How many run here beyond this fleet's part.
        here: u32,
        /// How many are available on the other fleets.
        elsewhere: u32,
    },
}

impl Why {
    /// A closed word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InFlight { .. } => "in-flight",
            Self::NotAvailable { .. } => "not-available",
            Self::MinReady { .. } => "min-ready",
            Self::Ceiling { .. } => "ceiling",
            Self::Floor { .. } => "floor",
            Self::Backoff { .. } => "backoff",
            Self::NoHost { .. } => "no-host",
            Self::Silent { .. } => "silent",
            Self::NeverSeen { .. } => "never-seen",
            Self::Draining { .. } => "draining",
            Self::TrafficUnknown { .. } => "traffic-unknown",
            Self::RouteLeftOut { .. } => "route-left-out",
            Self::Behind { .. } => "balancer-behind",
            Self::RegistrySilent { .. } => "registry-silent",
            Self::ParallelStarts { .. } => "parallel-starts",
            Self::PruneInDoubt { .. } => "prune-in-doubt",
            Self::PruneEmpty { .. } => "prune-empty",
            Self::PruneBudget { .. } => "prune-budget",
            Self::Unclaimed { .. } => "unclaimed",
            Self::DisruptionBudget { .. } => "disruption-budget",
            Self::Suspended => "suspended",
            Self::Held => "held",
            Self::Quarantined { .. } => "quarantined",
            Self::Stalled { .. } => "stalled",
            Self::Abandoned { .. } => "abandoned",
            Self::AppTaken { .. } => "app-taken",
            Self::Deploying { .. } => "deploying",
            Self::Deferred { .. } => "deferred",
            Self::Moving { .. } => "moving",
        }
    }

    /// Whether only a person can help.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Self::PruneInDoubt { .. }
            | Self::PruneEmpty { .. }
            | Self::PruneBudget { .. }
            | Self::NoHost { .. }
            | Self::RouteLeftOut { .. }
            | Self::Held
            | Self::Quarantined { .. }
            | Self::Stalled { .. }
            | Self::AppTaken { .. }
            | Self::Abandoned { .. } => true,
            Self::InFlight { .. }
            | Self::NotAvailable { .. }
            | Self::MinReady { .. }
            | Self::Ceiling { .. }
            | Self::Floor { .. }
            | Self::Backoff { .. }
            | Self::Silent { .. }
            | Self::NeverSeen { .. }
            | Self::Draining { .. }
            | Self::TrafficUnknown { .. }
            | Self::Behind { .. }
            | Self::RegistrySilent { .. }
            | Self::ParallelStarts { .. }
            | Self::Unclaimed { .. }
            | Self::DisruptionBudget { .. }
            | Self::Deploying { .. }
            | Self::Deferred { .. }
            | Self::Moving { .. }
            | Self::Suspended => false,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[ServiceName]| {
            let shown: Vec<&str> = names.iter().take(5).map(ServiceName::as_str).collect();
            let more = names.len().saturating_sub(5);
            let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{tail}", shown.join(", "))
        };
        let approve = |code: &str| {
            format!(
                "to release it, set the annotation evenkeel.dev/approve-prune: \"{code}\" on the fleet"
            )
        };
        match self {
            Self::InFlight { steps: 1 } => write!(f, "a step is under way"),
            Self::InFlight { steps } => write!(f, "{steps} steps are under way"),
            Self::NotAvailable { count } => write!(f, "{count} new not available yet"),
            Self::MinReady { count } => write!(f, "{count} healthy for less than minReadySeconds"),
            Self::Ceiling { most } => write!(f, "{most} instances are the most (maxSurge)"),
            Self::Floor { least, available } => {
                write!(f, "{available} available, {least} must stay so (maxUnavailable)")
            }
            Self::Backoff { slot, failures, message } => {
                write!(f, "slot {slot} failed {failures} times in a row: {message}")
            }
            Self::NoHost { count, refused } => write!(f, "no host for {count}: {refused}"),
            Self::Silent { host, count } => {
                write!(f, "host {host} is silent, {count} instances there are waited for")
            }
            Self::NeverSeen { host } => {
                write!(f, "host {host} has not answered yet and may hold instances")
            }
            Self::Draining { count, sessions: Some(sessions) } => {
                write!(f, "{count} draining, {sessions} sessions left")
            }
            Self::Draining { count, sessions: None } => {
                write!(f, "{count} draining until clients have asked the registry again")
            }
            Self::TrafficUnknown { count } => {
                write!(f, "registry or balancers silent about {count} instances")
            }
            Self::RouteLeftOut { why } => write!(f, "a route is left out: {why}"),
            Self::Behind { name, why } => write!(f, "{name} does not follow in full: {why}"),
            Self::RegistrySilent { why } => {
                write!(f, "the registry does not answer and keeps what it has: {why}")
            }
            Self::ParallelStarts { most } => write!(f, "{most} starts at a time on one host"),
            Self::PruneInDoubt { services, problems } => write!(
                f,
                "not removing {}: the revision has {problems} problems; mend them to release it",
                list(services)
            ),
            Self::PruneEmpty { services, code } => {
                write!(f, "not removing {}: the source is empty; {}", list(services), approve(code))
            }
            Self::PruneBudget { services, instances, of, max_percent, code } => write!(
                f,
                "not removing {}: {instances} of {of} instances are more than {max_percent} % \
                 (limits.prune.maxPercent); {}",
                list(services),
                approve(code)
            ),
            Self::Unclaimed { services } => write!(
                f,
                "leaving {} alone: no object asks for it and none was deleted; apply one of that name \
                 and delete it to remove what runs",
                list(services)
            ),
            Self::DisruptionBudget { per_hour } => write!(
                f,
                "{per_hour} healthy instances were stopped within an hour \
                 (limits.disruption.maxInstancesPerHour)"
            ),
            Self::Suspended => write!(f, "suspended"),
            Self::Held => write!(f, "its newest document is broken; the last good one is in force"),
            Self::Quarantined { hash, why } => write!(
                f,
                "spec {hash} was rolled back ({why}) and stays out until the spec changes"
            ),
            Self::Stalled { why } => write!(f, "stalled: {why}"),
            Self::Abandoned { count } => write!(
                f,
                "it left the fleet with {count} instances of ours, which are left alone; put it \
                 back with state: draining to move them"
            ),
            Self::AppTaken { app } => write!(
                f,
                "the app {app} is not ours and is left alone; to take it over, say marathon.app: {app} \
                 in the service's document, or rename the service"
            ),
            Self::Deploying { deployments, queued } if queued.is_empty() => {
                write!(f, "Marathon has {deployments} deployments of it under way")
            }
            Self::Deploying { queued, .. } => {
                write!(f, "Marathon finds no place for its instances: {}", queued.join(", "))
            }
            Self::Deferred { fields } => write!(
                f,
                "{} will follow with the next change of what an instance is: by itself it would restart \
                 every task",
                fields.join(", ")
            ),
            Self::Moving { here, elsewhere } => {
                write!(
                    f,
                    "{here} stay here until more than {elsewhere} are available on other fleets"
                )
            }
        }
    }
}
