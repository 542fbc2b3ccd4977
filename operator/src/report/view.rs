//! What is shown, as the agent's API gives it: types of its own, so that the words inside may change
//! and the JSON may not.
//!
//! Field names are camelCase and only ever added. Moments are RFC 3339 in UTC with milliseconds;
//! durations say their unit in their name. A reader must ignore fields and words it does not know.
//! No value of an environment variable is in here, secret or not.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{Phase, Time};

/// A moment, on the agent's clock unless the field says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp(pub Time);

impl From<Time> for Stamp {
    fn from(t: Time) -> Self {
        Self(t)
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = i64::try_from(self.0.0).unwrap_or(i64::MAX);
        let at = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{at:.3}")
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let at: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(Time(u64::try_from(at.as_millisecond()).unwrap_or(0))))
    }
}

/// Everything an agent has to say: `GET /api/v1/status`. For one service
/// (`GET /api/v1/services/{name}`) the same with the other services and their events left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusView {
    /// The agent itself.
    pub agent: AgentView,
    /// Where the documents come from, once it was asked.
    pub source: Option<SourceView>,
    /// Fleets by name, each with its hosts.
    pub fleets: Vec<FleetView>,
    /// Services by name.
    pub services: Vec<ServiceView>,
    /// The last events, oldest first.
    pub events: Vec<EventView>,
}

/// The agent itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentView {
    /// Its version.
    pub version: String,
    /// The installation it works for.
    pub owner: String,
    /// Whether this agent leaves acting to another of its owner.
    pub standby: bool,
    /// Why it does not act though nobody knows of another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_back: Option<String>,
    /// When it began.
    pub started: Stamp,
    /// When this was written.
    pub now: Stamp,
    /// Grows with every change; `GET /api/v1/watch?since=` waits for the next.
    pub generation: u64,
}

/// Where the documents come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceView {
    /// `git`, `dir` or `kubernetes`.
    pub kind: String,
    /// Where, without credentials, as `https://host/repo branch main`.
    pub describe: String,
    /// The whole id of the revision that is in force.
    pub revision: Option<String>,
    /// First line of its commit message.
    pub subject: Option<String>,
    /// Who wrote it.
    pub author: Option<String>,
    /// When it was last read with success.
    pub fetched: Option<Stamp>,
    /// Why it cannot be read now.
    pub error: Option<SourceErrorView>,
    /// Whether the revision comes from the agent's own store, because the source does not answer.
    pub from_store: bool,
    /// What is wrong with the documents.
    pub problems: Vec<ProblemView>,
}

/// Why a source cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceErrorView {
    /// What went wrong, with its causes.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Since when.
    pub since: Stamp,
    /// When it is tried again.
    pub next_try: Option<Stamp>,
}

/// One thing wrong with a document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProblemView {
    /// The file, relative to the source's root.
    pub path: String,
    /// Line from 1; 0 when the whole file is meant.
    pub line: usize,
    /// Column from 1; 0 when the whole file is meant.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The object it is about, as `ScalingService/web`.
    pub object: Option<String>,
}

/// A fleet and its hosts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetView {
    /// Its name.
    pub name: String,
    /// When the last pass over it ended.
    pub last_pass: Option<Stamp>,
    /// How long that took, in microseconds.
    pub last_pass_micros: u64,
    /// The revision that it was planned for.
    pub revision: Option<String>,
    /// Its hosts by name.
    pub hosts: Vec<HostView>,
    /// Waits of the fleet as a whole and of its hosts.
    pub waiting: Vec<WaitingView>,
    /// Steps under way that belong to no service.
    pub in_flight: Vec<StepView>,
}

/// One host of a fleet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// How its engine is reached.
    pub endpoint: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `active`, `cordoned` or `draining`, as written.
    pub scheduling: String,
    /// `up`, `silent`, or `unknown` when it has not answered since the agent began.
    pub state: String,
    /// Since when it is silent or unknown.
    pub since: Option<Stamp>,
    /// For how many seconds.
    pub silent_seconds: Option<u64>,
    /// What is wrong with it, as the connection says it.
    pub problem: Option<String>,
    /// How many of our instances it holds, as last seen.
    pub instances: u32,
    /// What it has.
    pub capacity: AmountView,
    /// What our instances reserve.
    pub reserved: AmountView,
}

/// An amount of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AmountView {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// A service: what is asked for, what there is, what is waited for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Its fleet.
    pub fleet: String,
    /// The image it asks for; `None` when no document asks for it any more.
    pub image: Option<String>,
    /// How many are asked for.
    pub desired: u32,
    /// How many there are, terminating ones too.
    pub replicas: u32,
    /// Of the spec in force.
    pub updated: u32,
    /// Healthy.
    pub ready: u32,
    /// Healthy for long enough, and up in every balancer.
    pub available: u32,
    /// The spec in force.
    pub hash: String,
    /// In one word.
    pub phase: PhaseView,
    /// Since when it is in this phase, as far back as this agent saw.
    pub since: Stamp,
    /// The revision that is being made true.
    pub attempted_revision: Option<String>,
    /// The last revision at which it was as desired, as far back as this agent saw.
    pub applied_revision: Option<String>,
    /// kstatus: `Ready` always, `Reconciling` and `Stalled` only while true.
    pub conditions: Vec<ConditionView>,
    /// Why not more is done.
    pub waiting: Vec<WaitingView>,
    /// Steps under way.
    pub in_flight: Vec<StepView>,
    /// Of a balancer: how many routes all of its instances that take traffic have in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<u32>,
    /// Its instances by slot, then host.
    pub instances: Vec<InstanceView>,
}

/// A service in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseView {
    /// As desired.
    Ready,
    /// On the way there.
    Reconciling,
    /// Only a person can help.
    Stalled,
    /// Told to be left alone.
    Suspended,
    /// A word of a newer agent.
    #[default]
    #[serde(other)]
    Unknown,
}

impl From<Phase> for PhaseView {
    fn from(p: Phase) -> Self {
        match p {
            Phase::Ready => Self::Ready,
            Phase::Reconciling => Self::Reconciling,
            Phase::Stalled => Self::Stalled,
            Phase::Suspended => Self::Suspended,
        }
    }
}

impl PhaseView {
    /// The word itself.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Reconciling => "reconciling",
            Self::Stalled => "stalled",
            Self::Suspended => "suspended",
            Self::Unknown => "unknown",
        }
    }
}

/// A condition as Kubernetes tools know it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConditionView {
    /// `Ready`, `Reconciling` or `Stalled`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// One CamelCase word for machines.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When `status` last changed, as far back as this agent saw.
    pub last_transition_time: Stamp,
}

/// Why not more is done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WaitingView {
    /// What it is about, as `service web`, `host h1` or `fleet`.
    pub subject: String,
    /// A closed word, as `not-available`.
    pub kind: String,
    /// For people.
    pub message: String,
    /// When it ends by itself at the latest, if it does.
    pub until: Option<Stamp>,
    /// Whether only a person can end it.
    pub needs_a_person: bool,
}

/// One thing to do or under way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StepView {
    /// A closed word, as `start`.
    pub kind: String,
    /// The service it is for.
    pub service: Option<String>,
    /// The slot it is for.
    pub slot: Option<u32>,
    /// Where it happens.
    pub host: String,
    /// The container or network it acts on; the new name of a rename.
    pub name: String,
    /// A closed word for why, as `scale`.
    pub reason: String,
    /// Why, for people.
    pub because: String,
    /// The whole sentence.
    pub text: String,
    /// When it was begun, if it was.
    pub since: Option<Stamp>,
}

/// One container of ours.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceView {
    /// Its container name.
    pub name: String,
    /// The engine's id.
    pub id: String,
    /// Where it is.
    pub host: String,
    /// Whether its host answers, so that the rest can be believed.
    pub host_up: bool,
    /// The slot it fills.
    pub slot: u32,
    /// `created`, `running`, `paused`, `exited` or `removing`.
    pub state: String,
    /// Its exit code once it ended.
    pub exit_code: Option<i64>,
    /// Whether it ended for want of memory.
    pub out_of_memory: bool,
    /// `starting`, `healthy` or `unhealthy`.
    pub health: String,
    /// Since when, on the agent's clock.
    pub health_since: Option<Stamp>,
    /// `none`, `voter`, `no-voter`, `nobody` (no balancer of its routes is up), `serving`, `not-up`, `withdrawn` or `unknown`.
    pub traffic: String,
    /// Connections left on a withdrawn one.
    pub sessions: Option<u32>,
    /// When it was made, on the engine's clock.
    pub created: Stamp,
    /// What it is.
    pub hash: String,
    /// Whether that is the spec in force.
    pub updated: bool,
    /// Host ports it publishes.
    pub published: Vec<u16>,
}

/// Something that happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventView {
    /// Grows with every event and every repetition; `GET /api/v1/events?since=` gives what is newer.
    pub seq: u64,
    /// A closed word, as `step-done`.
    pub kind: String,
    /// Whether it is bad news.
    pub warning: bool,
    /// When it happened last.
    pub at: Stamp,
    /// When it happened first.
    pub first: Stamp,
    /// How often within a while.
    pub count: u32,
    /// The fleet it is about.
    pub fleet: Option<String>,
    /// The service it is about.
    pub service: Option<String>,
    /// The host it is about.
    pub host: Option<String>,
    /// How long it took, in milliseconds, where that means something.
    pub took_millis: Option<u64>,
    /// For people.
    pub message: String,
}

/// The events after a number: `GET /api/v1/events`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventsView {
    /// Oldest first.
    pub events: Vec<EventView>,
    /// What to give as `since` next time.
    pub next: u64,
}

/// What would be done to one fleet: an item of `GET /api/v1/plan`, and what `evenkeel plan` prints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanView {
    /// The fleet.
    pub fleet: String,
    /// The revision it is planned for.
    pub revision: String,
    /// When it was planned.
    pub at: Stamp,
    /// What is safe to do now.
    pub steps: Vec<StepView>,
    /// Why not more.
    pub waiting: Vec<WaitingView>,
    /// How each service stands.
    pub services: BTreeMap<String, CountsView>,
}

/// How a service stands, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CountsView {
    /// How many are asked for.
    pub desired: u32,
    /// How many there are, terminating ones too.
    pub replicas: u32,
    /// Of the spec in force.
    pub updated: u32,
    /// Healthy.
    pub ready: u32,
    /// Healthy for long enough, and up in every balancer.
    pub available: u32,
    /// In one word.
    pub phase: PhaseView,
}

/// The newest plan of every fleet: `GET /api/v1/plan`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlansView {
    /// By fleet.
    pub plans: Vec<PlanView>,
}

/// What every error of the API looks like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorView {
    /// What is wrong.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}
