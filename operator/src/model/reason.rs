//! Why a step is taken: what changed, and what triggered it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::hash::SpecHash;
use super::name::{HostName, Revision};
use super::time::Human;

/// A field of a spec that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// Its path in the document, such as `image` or `env.GREETING`.
    pub field: String,
    /// What it was, `None` when it was absent.
    pub old: Option<String>,
    /// What it is, `None` when it is gone.
    pub new: Option<String>,
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |v: &Option<String>| v.clone().unwrap_or_else(|| "unset".into());
        write!(f, "{} {} → {}", self.field, show(&self.old), show(&self.new))
    }
}

/// Why a step is taken: what changed, and what triggered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Fewer or more instances than replicas.
    Scale {
        /// How many there are.
        have: u32,
        /// How many are asked for.
        want: u32,
        /// The commit that asks.
        revision: Revision,
    },
    /// The spec is another one.
    Update {
        /// What changed, as far as the old spec is known.
        changes: Vec<FieldChange>,
        /// The commit that changed it.
        revision: Revision,
    },
    /// Back to the last good spec.
    Rollback {
        /// The quarantined spec.
        from: SpecHash,
        /// The good one.
        to: SpecHash,
    },
    /// It ended by itself.
    Died {
        /// Its exit code.
        code: i64,
        /// Whether for want of memory.
        out_of_memory: bool,
    },
    /// It vanished without a trace.
    Missing,
    /// The slot failed before and its pause is over.
    Retry {
        /// Failures in a row.
        failures: u32,
        /// What the last one said.
        message: String,
    },
    /// Its health check fails.
    Unhealthy,
    /// It was made but never started: an agent or an engine stopped in between.
    NeverStarted,
    /// Its host has been silent for longer than `replaceAfter`.
    HostLost {
        /// The host.
        host: HostName,
        /// How long it has been silent.
        silent: Duration,
    },
    /// Its host is being drained.
    HostDraining {
        /// The host.
        host: HostName,
    },
    /// Another instance fills its slot.
    Surplus {
        /// The name of the one that stays.
        stays: Arc<str>,
    },
    /// The service is no longer in the source.
    Pruned {
        /// The commit without it.
        revision: Revision,
    },
    /// The object of its service is being deleted.
    Deleted,
    /// It is replaced by an available one.
    Replaced {
        /// The name of the one that took over.
        by: Arc<str>,
    },
    /// Its end was begun and not seen through: an agent stopped in between.
    Interrupted,
    /// The name of its slot is free.
    NameFree,
    /// It is healthy and clients do not reach it yet.
    Ready,
    /// No service asks for it.
    Unused,
    /// Somebody changed the app by hand.
    Drift {
        /// What differs: `old` is what was found.
        changes: Vec<FieldChange>,
    },
    /// Tasks of an older definition are left and nothing replaces them.
    Stragglers {
        /// How many.
        count: usize,
    },
    /// Its platform ends it, or has lost sight of it.
    PlatformEnds,
    /// As many are available on other fleets.
    Moved,
}

impl Reason {
    /// A closed word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Scale { .. } => "scale",
            Self::Update { .. } => "update",
            Self::Rollback { .. } => "rollback",
            Self::Died { .. } => "died",
            Self::Missing => "missing",
            Self::Retry { .. } => "retry",
            Self::Unhealthy => "unhealthy",
            Self::NeverStarted => "never-started",
            Self::HostLost { .. } => "host-lost",
            Self::HostDraining { .. } => "host-draining",
            Self::Surplus { .. } => "surplus",
            Self::Pruned { .. } => "pruned",
            Self::Deleted => "deleted",
            Self::Replaced { .. } => "replaced",
            Self::Interrupted => "interrupted",
            Self::NameFree => "name-free",
            Self::Ready => "ready",
            Self::Unused => "unused",
            Self::Drift { .. } => "drift",
            Self::Stragglers { .. } => "stragglers",
            Self::PlatformEnds => "platform-ends",
            Self::Moved => "moved",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scale { have, want, revision } => {
                write!(f, "replicas {have} → {want} ({})", revision.phrase())
            }
            Self::Update { changes, revision } if changes.is_empty() => {
                write!(f, "the spec changed ({})", revision.phrase())
            }
            Self::Update { changes, revision } => {
                list(f, changes)?;
                write!(f, " ({})", revision.phrase())
            }
            Self::Rollback { from, to } => write!(f, "rollback of {from} to {to}"),
            Self::Died { out_of_memory: true, .. } => write!(f, "it ran out of memory"),
            Self::Died { code, .. } => write!(f, "it died with exit code {code}"),
            Self::Missing => write!(f, "it is missing"),
            Self::Retry { failures, message } => {
                write!(f, "try {} after: {message}", failures.saturating_add(1))
            }
            Self::Unhealthy => write!(f, "its health check fails"),
            Self::NeverStarted => write!(f, "it was made but never started"),
            Self::HostLost { host, silent } => {
                write!(f, "host {host} has been silent for {}", Human(*silent))
            }
            Self::HostDraining { host } => write!(f, "host {host} is draining"),
            Self::Surplus { stays } => write!(f, "{stays} fills its slot"),
            Self::Pruned { revision } => write!(f, "its service is gone ({})", revision.phrase()),
            Self::Deleted => write!(f, "its service is being deleted"),
            Self::Replaced { by } => write!(f, "{by} took over"),
            Self::Interrupted => write!(f, "its end was begun before"),
            Self::NameFree => write!(f, "the name of its slot is free"),
            Self::Ready => write!(f, "it is healthy"),
            Self::Unused => write!(f, "no service uses it"),
            Self::Drift { changes } => {
                write!(f, "changed by somebody else: ")?;
                list(f, changes)
            }
            Self::Stragglers { count } => {
                write!(
                    f,
                    "{count} tasks of an older definition are left, and nothing replaces them"
                )
            }
            Self::PlatformEnds => write!(f, "its platform ends it or has lost sight of it"),
            Self::Moved => write!(f, "as many are available on other fleets"),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, changes: &[FieldChange]) -> fmt::Result {
    for (i, change) in changes.iter().enumerate() {
        if i > 0 {
            write!(f, ", ")?;
        }
        write!(f, "{change}")?;
    }
    Ok(())
}
