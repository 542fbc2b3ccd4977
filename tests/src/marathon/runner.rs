//! Who really runs tasks: told what to do, and telling what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc::UnboundedSender;

use super::agents::Agent;
use super::app::App;

/// A task that an agent is to run.
#[derive(Clone, Debug)]
pub struct Task {
    /// What Marathon calls it.
    pub id: String,
    /// The instance that it is an attempt of.
    pub instance: String,
    /// The definition.
    pub app: Arc<App>,
    /// Where it runs.
    pub agent: Agent,
    /// For each port of the app the one on the agent.
    pub host_ports: Vec<Option<u16>>,
    /// The how manieth of its instance it is.
    pub attempt: u32,
}

/// What a runner is told.
#[derive(Clone, Debug)]
pub enum Order {
    /// Start it.
    Launch(Box<Task>),
    /// End it, with so many seconds from SIGTERM to SIGKILL where anybody said so.
    Kill {
        /// Which.
        task: String,
        /// Where it runs.
        host: String,
        /// Seconds.
        grace: Option<u64>,
    },
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, content.
    Finished,
    /// By itself, or not started at all.
    Failed,
    /// As it was told.
    Killed,
    /// It made no sense.
    Error,
    /// Its agent is gone for good.
    Gone,
    /// It never got to its agent.
    Dropped,
}

impl End {
    pub(super) fn state(self) -> &'static str {
        match self {
            Self::Finished => "TASK_FINISHED",
            Self::Failed => "TASK_FAILED",
            Self::Killed => "TASK_KILLED",
            Self::Error => "TASK_ERROR",
            Self::Gone => "TASK_GONE",
            Self::Dropped => "TASK_DROPPED",
        }
    }

    pub(super) fn condition(self) -> &'static str {
        match self {
            Self::Finished => "Finished",
            Self::Failed => "Failed",
            Self::Killed => "Killed",
            Self::Error => "Error",
            Self::Gone => "Gone",
            Self::Dropped => "Dropped",
        }
    }
}

/// What a runner tells of one task.
#[derive(Clone, Debug)]
pub enum Report {
    /// It runs, with these addresses of its own.
    Running(Vec<String>),
    /// One of its health checks was made: fine, or why not.
    Health(usize, Result<(), String>),
    /// Its readiness check was made: yes or no, with code, content type and body.
    Ready(bool, Option<(u16, String, String)>),
    /// It ended.
    Ended(End, String),
}

/// Where reports go: the id of a task and what is told of it.
pub type Reports = UnboundedSender<(String, Report)>;

/// Runs tasks.
#[async_trait]
pub trait Runner: Send + 'static {
    /// Where to report to; called once, before all else. A definition's second is as long as `second`.
    fn start(&mut self, reports: Reports, second: std::time::Duration);

    /// Does what it is told, without waiting for it.
    async fn order(&mut self, order: Order);

    /// The ids of the tasks that have not ended.
    async fn living(&mut self) -> BTreeSet<String>;

    /// Ends everything.
    async fn stop(&mut self);
}

impl Order {
    /// The agent that it is about.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Launch(task) => &task.agent.host,
            Self::Kill { host, .. } => host,
        }
    }
}

impl Task {
    /// The environment that Marathon adds to the app's own.
    pub fn env(&self) -> BTreeMap<String, String> {
        let mut env = self.app.env();
        let mut set = |name: &str, value: String| {
            env.insert(name.into(), value);
        };
        let (ports, mut all) = (self.app.ports(), Vec::new());
        for (at, (port, host)) in ports.iter().zip(&self.host_ports).enumerate() {
            let inside = port.container.filter(|&port| port != 0);
            let Some(effective) = host.or(inside) else { continue };
            set(&format!("PORT{at}"), effective.to_string());
            let asked = inside.or(Some(port.service).filter(|_| port.container.is_none()));
            let asked = asked.filter(|&asked| asked != 0).unwrap_or(effective);
            set(&format!("PORT_{asked}"), effective.to_string());
            if let Some(name) = &port.name {
                set(&format!("PORT_{}", name.to_uppercase()), effective.to_string());
            }
            all.push(effective.to_string());
        }
        if let Some(first) = all.first() {
            set("PORT", first.clone());
            set("PORTS", all.join(","));
        }
        set("HOST", self.agent.host.clone());
        set("MESOS_TASK_ID", self.id.clone());
        set("MARATHON_APP_ID", self.app.id.to_string());
        set("MARATHON_APP_VERSION", self.app.version.to_string());
        if let Some(image) = self.app.image() {
            set("MARATHON_APP_DOCKER_IMAGE", image.to_owned());
        }
        let need = self.app.need();
        for (name, value) in
            [("CPUS", need.cpus), ("MEM", need.mem), ("DISK", need.disk), ("GPUS", need.gpus)]
        {
            set(&format!("MARATHON_APP_RESOURCE_{name}"), format!("{value:?}"));
        }
        let word = |name: &str| {
            let mut word = String::new();
            for c in name.chars() {
                match c {
                    c if c.is_ascii_alphanumeric() || c == '_' => word.push(c.to_ascii_uppercase()),
                    _ if word.ends_with('_') => {}
                    _ => word.push('_'),
                }
            }
            word
        };
        let labels = self.app.labels();
        let names: Vec<String> = labels.keys().map(|name| word(name)).collect();
        for (name, value) in names.iter().zip(labels.values()) {
            set(&format!("MARATHON_APP_LABEL_{name}"), value.clone());
        }
        set("MARATHON_APP_LABELS", names.join(" "));
        env
    }
}
