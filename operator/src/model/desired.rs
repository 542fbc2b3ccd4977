//! What should run: the validated documents of one revision, and what became of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::app::{AppClaim, AppId};
use super::edge::{Exposure, Routing};
use super::fleet::{Fleet, HostSpec};
use super::hash::SpecHash;
use super::name::{FleetName, Revision, ServiceName};
use super::placed::PlacedArg;

/// All that one revision asks for.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The revision the documents came from.
    pub revision: Revision,
    /// Fleets by name; `default` is always there when a service asks for it.
    pub fleets: BTreeMap<FleetName, Arc<Fleet>>,
    /// Services by name. A service whose newest document is broken appears with its last good one.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// What each balancer is to do with traffic. Its containers are the service of the same name.
    pub routings: BTreeMap<ServiceName, Arc<Routing>>,
    /// Names whose newest document is broken: never pruned; updated to the last good document, if any.
    pub held: BTreeSet<ServiceName>,
    /// Everything wrong with the revision. While this is not empty nothing is pruned.
    pub problems: Vec<Problem>,
    /// What may go of that which no document asks for.
    pub removal: Removal,
}

/// What may go of that which no document asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removal {
    /// Whose document is being deleted by name and says nothing that could be followed: goes whatever else is in doubt.
    pub deleted: BTreeSet<ServiceName>,
    /// Where this is set, only these go because their document is not there any more; everything else is left alone.
    pub only: Option<BTreeSet<ServiceName>>,
}

/// One thing wrong with a document, said so that a person can mend it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, relative to the source's root.
    pub path: String,
    /// Line from 1; 0 when the whole file is meant.
    pub line: usize,
    /// Column from 1; 0 when the whole file is meant.
    pub column: usize,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The object it is about, as `ScalingService/web`, where that could be told.
    pub object: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.path, self.message)
        } else {
            write!(f, "{}:{}:{}: {}", self.path, self.line, self.column, self.message)
        }
    }
}

/// A service: N instances of one spec, and how to change them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The service's name.
    pub name: ServiceName,
    /// The fleet it runs on.
    pub fleet: FleetName,
    /// How many instances should run, over all fleets.
    pub replicas: u32,
    /// How many of them on which fleet, where it runs on several; all on `fleet` where this is empty.
    pub placements: BTreeMap<FleetName, u32>,
    /// What its document says of its app, where a fleet of it is a Marathon cluster.
    pub app: AppClaim,
    /// What an instance is.
    pub spec: Arc<InstanceSpec>,
    /// The hash of `spec`: instances with another hash are out of date.
    pub hash: SpecHash,
    /// A health check that the agent makes from outside. `None`: running is healthy, unless the
    /// engine itself reports health.
    pub probe: Option<Probe>,
    /// Where instances may go.
    pub placement: Placement,
    /// How a new spec replaces an old one.
    pub rollout: Rollout,
    /// How an instance ends.
    pub termination: Termination,
    /// How long a silent host's instances are waited for.
    pub replace_after: Duration,
    /// Which of two instances of one slot stays when a lost host returns.
    pub keep: Keep,
    /// Nothing is done for the service while true.
    pub suspend: bool,
    /// Set in a fleet's own view only, while instances move between fleets.
    pub shifting: Option<Shifting>,
    /// Whether balancers or a registry must be observed before traffic is trusted to it.
    pub routed: bool,
    /// What leads clients to its instances.
    pub exposure: Exposure,
    /// The document it was parsed from, as canonical JSON: what a restart needs to know it again.
    pub document: Arc<str>,
}

/// A fleet's part of a service on its way to what documents say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shifting {
    /// How many there are to be in the end.
    pub want: u32,
    /// How many there may be now.
    pub most: u32,
    /// Nobody leaves where fewer than so many would be available.
    pub least: u32,
    /// There are more here than there are to be: nobody is started here, and nobody made to be another.
    pub leaves: bool,
    /// How many are available on the other fleets.
    pub elsewhere: u32,
}

/// How long an instance that nobody can ask must have run before it counts.
const BLIND: Duration = Duration::from_secs(2);

impl Service {
    /// How many of its instances should run on a fleet; `None`: it has no part there.
    pub fn share(&self, fleet: &FleetName) -> Option<u32> {
        if self.placements.is_empty() {
            (self.fleet == *fleet).then_some(self.replicas)
        } else {
            self.placements.get(fleet).copied()
        }
    }

    /// The fleets that it has a part on.
    pub fn fleets(&self) -> impl Iterator<Item = &FleetName> {
        let own = self.placements.is_empty().then_some(&self.fleet);
        own.into_iter().chain(self.placements.keys())
    }

    /// Its app within a group.
    pub fn app_id(&self, group: &str) -> AppId {
        self.app.id.clone().unwrap_or_else(|| AppId::of(group, &self.name))
    }

    /// How long an instance is healthy before it counts: `minReadySeconds`, and never less than two
    /// seconds for a service without any health check, of which "it runs" is all that is known: a
    /// container that exits right after its start must not pass for a success.
    pub fn min_ready(&self) -> Duration {
        if self.probe.is_none() && self.spec.healthcheck.is_none() {
            self.rollout.min_ready.max(BLIND)
        } else {
            self.rollout.min_ready
        }
    }

    /// How many host ports in a row each published port may take on one host: one for each instance. Where routes lead
    /// to it nobody else knows the ports, and those that come while it changes take more; elsewhere a surge takes no
    /// port that clients do not know.
    pub fn ports_on_a_host(&self) -> u32 {
        let surge = match (self.replicas, self.exposure.asked.as_slice()) {
            (0, _) | (_, []) => 0,
            (replicas, _) => self.rollout.allowance(replicas).0,
        };
        let most = self.placement.max_per_host.unwrap_or(u32::MAX);
        self.replicas.saturating_add(surge).min(most)
    }
}

/// What an instance *is*: whatever is in here takes part in the hash, and nothing else does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceSpec {
    /// The image reference as written.
    pub image: String,
    /// Replaces the image's entrypoint.
    pub command: Option<Vec<String>>,
    /// Replaces the image's default arguments.
    pub args: Option<Vec<String>>,
    /// Arguments after those that are completed by the place. No document of a service has any.
    pub placed_args: Vec<PlacedArg>,
    /// Environment, in the order written.
    pub env: Vec<EnvVar>,
    /// Ports by name.
    pub ports: Vec<Port>,
    /// What one instance may use, and what is reserved for it.
    pub resources: Resources,
    /// Files and directories from outside.
    pub mounts: Vec<Mount>,
    /// Networks to join; the engine's default bridge when empty.
    pub networks: Vec<String>,
    /// A health check that the engine makes inside the container.
    pub healthcheck: Option<CommandCheck>,
    /// Files that are in the container before it starts. No document of a service has any: balancers and
    /// registry servers begin with them.
    pub files: Vec<File>,
    /// Kernel capabilities beyond the engine's own, such as `NET_ADMIN`. No document of a service has any.
    pub capabilities: Vec<String>,
}

/// A file to put into a container.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// The absolute path.
    pub path: String,
    /// What is in it.
    pub content: Vec<u8>,
    /// Permissions, such as `0o644`; the owner is root.
    pub mode: u32,
}

impl fmt::Debug for File {
    /// Without the content, which may hold a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({}, {} bytes, {:o})", self.path, self.content.len(), self.mode)
    }
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: EnvValue,
}

/// Where a variable's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// Written in the document.
    Plain(String),
    /// Taken from a secret.
    Secret {
        /// The secret's name.
        name: String,
        /// The key in it.
        key: String,
        /// The value itself.
        value: Secret,
    },
}

/// A value that no log, plan, label or message may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a value.
    pub fn new(value: &str) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that hands it on.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A port of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// The port inside the container.
    pub container: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The first host port: the n-th instance on a host publishes `publish + n - 1`.
    pub publish: Option<u16>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// An amount of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// A file or directory from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it comes from.
    pub source: MountSource,
    /// The path inside the container.
    pub path: String,
    /// Whether it may only be read.
    pub read_only: bool,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A path on the host.
    Host(String),
    /// A named Docker volume.
    Volume(String),
    /// A Docker volume for each slot, `<name>-<slot>`: what a registry server keeps over its replacement.
    SlotVolume(String),
}

/// A health check that the engine runs inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandCheck {
    /// The command and its arguments; exit code 0 is healthy.
    pub command: Vec<String>,
    /// Time between checks.
    pub interval: Duration,
    /// Time one check may take.
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy.
    pub failure_threshold: u32,
    /// Time after the start in which failures do not count.
    pub start_period: Duration,
}

/// A health check that the agent makes from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub kind: ProbeKind,
    /// The container port that is asked.
    pub port: u16,
    /// Time between checks.
    pub interval: Duration,
    /// Time one check may take.
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy.
    pub failure_threshold: u32,
    /// Time after the start in which failures do not count.
    pub start_period: Duration,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeKind {
    /// `GET path`: 200 to 399 is healthy.
    Http {
        /// The path, with a leading slash.
        path: String,
    },
    /// A connection that is accepted.
    Tcp,
}

/// Where instances may go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// Each must hold.
    pub constraints: Vec<Constraint>,
    /// The host label whose values get equal shares.
    pub spread_by: Option<String>,
    /// Most instances of the service on one host.
    pub max_per_host: Option<u32>,
    /// Which of the hosts that are left is taken.
    pub packing: Packing,
}

/// A condition on a host's labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Constraint {
    /// The label; `host` stands for the host's name.
    pub label: String,
    /// `true` for `==`, `false` for `!=`.
    pub equal: bool,
    /// The value to compare with.
    pub value: String,
}

impl Constraint {
    /// Whether a host fulfils it.
    pub fn holds(&self, host: &HostSpec) -> bool {
        let found = if self.label == HOST_LABEL {
            Some(host.name.as_str())
        } else {
            host.labels.get(&self.label).map(String::as_str)
        };
        (found == Some(self.value.as_str())) == self.equal
    }
}

/// The label of every host that is its name.
pub const HOST_LABEL: &str = "host";

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.label, if self.equal { "==" } else { "!=" }, self.value)
    }
}

/// Which of several hosts is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Packing {
    /// The least loaded.
    #[default]
    Spread,
    /// The most loaded that has room.
    Binpack,
}

/// A count or a share of the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many of a hundred, 0 to 100.
    Percent(u32),
}

impl Amount {
    /// The count for `replicas`, a share rounded up.
    pub fn ceil(self, replicas: u32) -> u32 {
        match self {
            Self::Count(n) => n,
            Self::Percent(p) => share(p, replicas).div_ceil(100).try_into().unwrap_or(u32::MAX),
        }
    }

    /// The count for `replicas`, a share rounded down.
    pub fn floor(self, replicas: u32) -> u32 {
        match self {
            Self::Count(n) => n,
            Self::Percent(p) => (share(p, replicas) / 100).try_into().unwrap_or(u32::MAX),
        }
    }
}

fn share(percent: u32, replicas: u32) -> u64 {
    u64::from(percent) * u64::from(replicas)
}

/// How a new spec replaces an old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// How many more than `replicas` there may be.
    pub max_surge: Amount,
    /// How many fewer than `replicas` may be available.
    pub max_unavailable: Amount,
    /// How long an instance is healthy before it counts.
    pub min_ready: Duration,
    /// How long a rollout may go without progress.
    pub progress_deadline: Duration,
    /// What follows when it does.
    pub on_failure: OnFailure,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            max_surge: Amount::Percent(25),
            max_unavailable: Amount::Count(0),
            min_ready: Duration::ZERO,
            progress_deadline: Duration::from_secs(600),
            on_failure: OnFailure::Rollback,
        }
    }
}

impl Rollout {
    /// `(surge, unavailable)` for a number of replicas: surge rounds up, unavailable down, and when
    /// both come to 0 one may be unavailable, or nothing could ever change.
    pub fn allowance(&self, replicas: u32) -> (u32, u32) {
        let surge = self.max_surge.ceil(replicas);
        let unavailable = self.max_unavailable.floor(replicas).min(replicas);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }
}

/// What follows a rollout that makes no progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Back to the last good spec; the bad one is quarantined.
    Rollback,
    /// It stays where it is until a person acts.
    Pause,
}

/// How an instance ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Termination {
    /// Longest wait for connections to end after traffic was withdrawn.
    pub drain: Duration,
    /// Time between the signal and SIGKILL.
    pub grace: Duration,
    /// The signal, such as `SIGTERM`.
    pub signal: String,
}

impl Default for Termination {
    fn default() -> Self {
        Self {
            drain: Duration::from_secs(10),
            grace: Duration::from_secs(10),
            signal: "SIGTERM".into(),
        }
    }
}

/// Which of two instances of one slot stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The one that was there first.
    Original,
    /// The one that replaced it.
    Replacement,
    /// The one that has been available longest.
    Healthiest,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked examples of the Kubernetes documentation.
    #[test]
    fn surge_rounds_up_and_unavailable_down() {
        let quarter = Rollout {
            max_surge: Amount::Percent(25),
            max_unavailable: Amount::Percent(25),
            ..Rollout::default()
        };
        let table = [1, 3, 4, 5, 10, 15, 100].map(|r| quarter.allowance(r));
        assert_eq!(table, [(1, 0), (1, 0), (1, 1), (2, 1), (3, 2), (4, 3), (25, 25)]);
        let tiny = Rollout {
            max_surge: Amount::Percent(0),
            max_unavailable: Amount::Percent(1),
            ..Rollout::default()
        };
        assert_eq!(tiny.allowance(2), (0, 1), "both zero: one may be unavailable");
    }

    #[test]
    fn a_secret_never_shows_itself() {
        let v = EnvValue::Secret {
            name: "app".into(),
            key: "token".into(),
            value: Secret::new("hunter2"),
        };
        assert!(!format!("{v:?}").contains("hunter2"));
    }
}
