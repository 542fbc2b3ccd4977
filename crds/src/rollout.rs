//! How the instances of a service are replaced, stopped, and made up for when a host is lost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, rule};
use crate::{HumanDuration, IntOrPercent};

/// How a change replaces running instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = rule(
    "duration(self.progressDeadline).getMilliseconds() > self.minReadySeconds * 1000",
    "progressDeadline must be longer than minReadySeconds, or every rollout fails",
))]
pub struct Rollout {
    /// How many instances there may be beyond `replicas`, as a number or a percentage, rounded up.
    /// Default: `25%`.
    pub max_surge: IntOrPercent,
    /// How many of the replicas may be unavailable, as a number or a percentage, rounded down.
    /// Where this and `maxSurge` are both 0, it is 1. Default: 0.
    pub max_unavailable: IntOrPercent,
    /// How many seconds an instance must be healthy before it counts as available, 0 to 86400.
    /// Default: 0.
    #[schemars(range(min = 0, max = 86_400))]
    pub min_ready_seconds: u32,
    /// A rollout that makes no progress for so long has failed. Default: `10m`.
    #[schemars(transform = schema::positive)]
    pub progress_deadline: HumanDuration,
    /// What to do with a rollout that has failed. Default: `rollback`.
    pub on_failure: OnFailure,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            max_surge: IntOrPercent::Percent(25),
            max_unavailable: IntOrPercent::Int(0),
            min_ready_seconds: 0,
            progress_deadline: HumanDuration::from_secs(600),
            on_failure: OnFailure::Rollback,
        }
    }
}

/// What happens to a rollout that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Return to the last good spec, and try the failed one again only when it changes.
    #[default]
    Rollback,
    /// Stop where it is and wait for a person.
    Pause,
}

/// How an instance is taken out of service and stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Termination {
    /// How long connections may go on after traffic was taken away; it stops earlier when there
    /// are none. Default: `10s`.
    pub drain: HumanDuration,
    /// How long the program may take to end after `signal` before it is killed. Default: `10s`.
    pub grace: HumanDuration,
    /// The signal that asks the program to end. Default: `SIGTERM`.
    pub signal: Signal,
}

impl Default for Termination {
    fn default() -> Self {
        Self {
            drain: HumanDuration::from_secs(10),
            grace: HumanDuration::from_secs(10),
            signal: Signal::Term,
        }
    }
}

/// A signal that asks a program to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Signal {
    /// `SIGTERM`
    #[default]
    #[serde(rename = "SIGTERM")]
    Term,
    /// `SIGINT`
    #[serde(rename = "SIGINT")]
    Int,
    /// `SIGQUIT`, which nginx and uWSGI take as "finish what you are doing"
    #[serde(rename = "SIGQUIT")]
    Quit,
    /// `SIGHUP`
    #[serde(rename = "SIGHUP")]
    Hup,
    /// `SIGUSR1`, HAProxy's soft stop
    #[serde(rename = "SIGUSR1")]
    Usr1,
    /// `SIGUSR2`
    #[serde(rename = "SIGUSR2")]
    Usr2,
    /// `SIGWINCH`, Apache's graceful stop
    #[serde(rename = "SIGWINCH")]
    Winch,
    /// `SIGRTMIN+3`, how systemd in a container is told to halt
    #[serde(rename = "SIGRTMIN+3")]
    Rtmin3,
    /// `SIGKILL`: at once
    #[serde(rename = "SIGKILL")]
    Kill,
}

impl Signal {
    /// As users and the Docker Engine write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Term => "SIGTERM",
            Self::Int => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Hup => "SIGHUP",
            Self::Usr1 => "SIGUSR1",
            Self::Usr2 => "SIGUSR2",
            Self::Winch => "SIGWINCH",
            Self::Rtmin3 => "SIGRTMIN+3",
            Self::Kill => "SIGKILL",
        }
    }
}

/// What happens to the instances of a host that falls silent, and when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OnHostLost {
    /// How long a host must be silent before its instances are replaced elsewhere. Default: `20s`.
    pub replace_after: HumanDuration,
    /// Which of two instances stays when the host returns. Default: `healthiest`.
    pub keep: KeepOnReturn,
}

impl Default for OnHostLost {
    fn default() -> Self {
        Self { replace_after: HumanDuration::from_secs(20), keep: KeepOnReturn::Healthiest }
    }
}

/// Which instances stay when a lost host returns after they were replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeepOnReturn {
    /// Those on the host that returned.
    Original,
    /// Those that were started in their place.
    Replacement,
    /// Those that serve, then those that have been healthy for longer.
    #[default]
    Healthiest,
}
