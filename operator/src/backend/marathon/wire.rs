//! What Marathon answers, as far as it is read: unknown fields are passed over, `null` is nothing, and a field of another
//! shape than in the newest version is read in the older ones too. Nothing in here fails for one app's sake.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::model::app::normal::normalise;
use crate::model::{AppId, Definition, Time};

/// The longest text of a failure that is kept.
const LONGEST_TEXT: usize = 300;

/// A version of Marathon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

impl Version {
    /// Reads `1.5.0-SNAPSHOT` and the like.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(['.', '-', '+']);
        Some(Self(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    /// From 1.5 on networks are said in their own words.
    pub(super) fn has_networks(self) -> bool {
        self >= Self(1, 5)
    }
}

/// `GET /v2/info`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    version: Option<String>,
}

impl Info {
    pub(super) fn version(&self) -> Option<Version> {
        Version::parse(self.version.as_deref()?)
    }
}

/// `GET /v2/leader`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Leader {
    pub(super) leader: String,
}

/// `GET /v2/apps`.
#[derive(Debug, Deserialize)]
pub(super) struct Apps {
    apps: Vec<Listed>,
}

/// `GET /v2/apps/{id}`.
#[derive(Debug, Deserialize)]
pub(super) struct OneApp {
    pub(super) app: Listed,
}

/// An app, or nothing where it has no id that could be ours. Each is read as it comes, so that the JSON of all of them is never
/// in memory at once.
#[derive(Debug)]
pub(super) struct Listed(pub(super) Option<App>);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self(App::read(&value)))
    }
}

impl Apps {
    pub(super) fn into_apps(self) -> impl Iterator<Item = App> {
        self.apps.into_iter().filter_map(|listed| listed.0)
    }
}

/// One app as the server reports it.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) id: AppId,
    pub(super) definition: Arc<Definition>,
    pub(super) instances: u32,
    /// The timestamp of the newest change.
    pub(super) version: Arc<str>,
    /// The timestamp of the newest change of more than the number of instances.
    pub(super) changed: Arc<str>,
    /// `None`: the answer says nothing of tasks, which is not the same as that there are none.
    pub(super) tasks: Option<Vec<Task>>,
    pub(super) deployments: BTreeSet<Arc<str>>,
    /// What became of the last task of the newest definition that failed.
    pub(super) failure: Option<String>,
    /// What a change of part of the app loses unless it says it again: `resourceLimits`, `executorResources`.
    pub(super) limits: Map<String, Value>,
}

/// One task.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Task {
    pub(super) id: Arc<str>,
    pub(super) state: TaskState,
    /// Its agent: a name or an address.
    pub(super) host: String,
    pub(super) addresses: Vec<IpAddr>,
    /// Host ports, in the order of the mappings that have one.
    pub(super) ports: Vec<u16>,
    pub(super) staged: Time,
    /// The version of the app that it was started from; `None` where it has none yet.
    pub(super) version: Option<Arc<str>>,
    pub(super) health: Vec<Health>,
}

/// The life of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskState {
    Starting,
    Running,
    /// Being killed: it may run still.
    Killing,
    /// Out of sight: it may run.
    Unseen,
    Ended,
}

/// What one health check says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) alive: bool,
    pub(super) has_succeeded: bool,
    pub(super) failures: u32,
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn count(value: &Value, name: &str) -> Option<u32> {
    let number = value.get(name)?;
    let whole = number.as_u64().or_else(|| format!("{:.0}", number.as_f64()?).parse().ok())?;
    Some(u32::try_from(whole).unwrap_or(u32::MAX))
}

/// Milliseconds of a timestamp; 0 for what cannot be read.
fn time(text: Option<&str>) -> Time {
    let stamp = text.and_then(|t| t.parse::<jiff::Timestamp>().ok());
    Time(stamp.and_then(|t| u64::try_from(t.as_millisecond()).ok()).unwrap_or(0))
}

/// One line for people that is not too long.
pub(super) fn line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let clean = words.join(" ");
    clean.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect()
}

impl App {
    pub(super) fn read(value: &Value) -> Option<Self> {
        let id = AppId::new(text(value, "id")?)?;
        let version: Arc<str> = text(value, "version").unwrap_or_default().into();
        let of_info = |name: &str| text(value.get("versionInfo")?, name);
        let changed = of_info("lastConfigChangeAt").map_or_else(|| version.clone(), Into::into);
        let tasks = value.get("tasks").and_then(Value::as_array);
        let limits = ["resourceLimits", "executorResources"].into_iter();
        let limits = limits.filter_map(|name| {
            let it = value.get(name).filter(|v| !v.is_null())?;
            Some((name.to_owned(), it.clone()))
        });
        Some(Self {
            definition: Arc::new(normalise(value)),
            instances: count(value, "instances").unwrap_or(1),
            tasks: tasks.map(|all| all.iter().filter_map(Task::read).collect()),
            deployments: list(value, "deployments")
                .filter_map(|d| Some(text(d, "id")?.into()))
                .collect(),
            failure: value.get("lastTaskFailure").and_then(|f| failure(f, &changed)),
            limits: limits.collect(),
            id,
            version,
            changed,
        })
    }
}

/// The last failure as text, unless it is one of an older definition.
fn failure(value: &Value, changed: &str) -> Option<String> {
    if text(value, "version")? < changed {
        return None;
    }
    let state = text(value, "state").unwrap_or("failed").trim_start_matches("TASK_").to_lowercase();
    let host = text(value, "host").map(|h| format!(" on {h}")).unwrap_or_default();
    let said = text(value, "message").map(line).filter(|m| !m.is_empty());
    let said = said.map(|m| format!(": {m}")).unwrap_or_default();
    Some(line(&format!("a task {state}{host}{said}")))
}

impl Task {
    fn read(value: &Value) -> Option<Self> {
        let id = text(value, "id").filter(|id| !id.is_empty() && id.len() <= 1024)?;
        let started = text(value, "startedAt").is_some();
        let state = match text(value, "state") {
            Some(word) => TaskState::read(word),
            // Servers before 1.1 have no states.
            None if started => TaskState::Running,
            None => TaskState::Starting,
        };
        let port = |v: &Value| u16::try_from(v.as_u64()?).ok();
        Some(Self {
            id: id.into(),
            state,
            host: text(value, "host").unwrap_or_default().to_owned(),
            addresses: list(value, "ipAddresses")
                .filter_map(|a| text(a, "ipAddress")?.parse().ok())
                .collect(),
            ports: list(value, "ports").filter_map(port).collect(),
            staged: time(text(value, "stagedAt")),
            version: text(value, "version").map(Into::into),
            health: list(value, "healthCheckResults").filter_map(Health::read).collect(),
        })
    }
}

impl TaskState {
    fn read(word: &str) -> Self {
        match word {
            "TASK_STAGING" | "TASK_STARTING" => Self::Starting,
            "TASK_RUNNING" => Self::Running,
            "TASK_KILLED"
            | "TASK_FINISHED"
            | "TASK_FAILED"
            | "TASK_ERROR"
            | "TASK_LOST"
            | "TASK_GONE"
            | "TASK_GONE_BY_OPERATOR"
            | "TASK_DROPPED" => Self::Ended,
            "TASK_KILLING" => Self::Killing,
            // TASK_UNREACHABLE, TASK_UNKNOWN and words to come: whatever it is, nobody new is led to it.
            _ => Self::Unseen,
        }
    }
}

impl Health {
    fn read(value: &Value) -> Option<Self> {
        Some(Self {
            alive: value.get("alive")?.as_bool()?,
            has_succeeded: text(value, "firstSuccess").is_some(),
            failures: count(value, "consecutiveFailures").unwrap_or(0),
        })
    }
}

/// A deployment that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct UnderWay {
    /// The apps that it touches.
    pub(super) apps: BTreeSet<AppId>,
    /// How many apps and pods it touches.
    pub(super) touches: usize,
}

/// Reads `GET /v2/deployments`.
pub(super) fn deployments(answer: &[Value]) -> BTreeMap<Arc<str>, UnderWay> {
    let read = |value: &Value| {
        let apps = list(value, "affectedApps");
        let touches = apps.count() + list(value, "affectedPods").count();
        let apps = list(value, "affectedApps").filter_map(|v| AppId::new(v.as_str()?)).collect();
        Some((text(value, "id")?.into(), UnderWay { apps, touches }))
    };
    answer.iter().filter_map(read).collect()
}

/// `GET /v2/queue`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Queue {
    queue: Vec<Value>,
}

impl Queue {
    /// Why instances of each app are not started, without numbers that change with every offer.
    pub(super) fn reasons(&self) -> BTreeMap<AppId, Vec<String>> {
        let read = |item: &Value| {
            let id = AppId::new(text(item.get("app")?, "id")?)?;
            Some((id, reasons(item)))
        };
        self.queue.iter().filter_map(read).collect()
    }
}

fn reasons(item: &Value) -> Vec<String> {
    let delay = item.get("delay");
    let overdue = delay.and_then(|d| d.get("overdue")?.as_bool());
    if overdue == Some(false) && delay.and_then(|d| count(d, "timeLeftSeconds")) != Some(0) {
        return vec!["Marathon pauses after failures".to_owned()];
    }
    let Some(summary) = item.get("processedOffersSummary") else {
        return vec!["no offer has fit".to_owned()];
    };
    let refused = list(summary, "rejectSummaryLastOffers")
        .filter(|step| count(step, "declined").is_some_and(|n| n > 0))
        .filter_map(|step| text(step, "reason"));
    let mut said: Vec<String> = refused.map(said_of).collect();
    if said.is_empty() {
        let none = count(summary, "processedOffersCount").is_none_or(|n| n == 0);
        said.push(if none { "no agent has offered anything" } else { "no offer has fit" }.into());
    }
    said
}

fn said_of(reason: &str) -> String {
    let said = match reason {
        "UnfulfilledRole" => "agents offer no resources of its role",
        "UnfulfilledConstraint" => "agents do not fulfil its constraints",
        "NoCorrespondingReservationFound" => "agents do not have its reservation",
        "AgentMaintenance" => "agents are in maintenance",
        "InsufficientCpus" => "agents do not have the cpus",
        "InsufficientMemory" => "agents do not have the memory",
        "InsufficientDisk" => "agents do not have the disk",
        "InsufficientGpus" => "agents do not have the gpus",
        "InsufficientPorts" => "agents do not have the ports",
        "DeclinedScarceResources" => "agents keep their gpus for others",
        other => return line(other),
    };
    said.to_owned()
}

/// What a change answers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Accepted {
    pub(super) deployment_id: Option<String>,
}
