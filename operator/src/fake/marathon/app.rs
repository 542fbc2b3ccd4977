//! One app: what it is asked to be, and its tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{SimTask, TaskState};
use crate::model::{Definition, InstanceId, Time, Whose};

/// One app.
#[derive(Debug, Clone)]
pub struct SimApp {
    /// Whose it is.
    pub whose: Whose,
    /// What it is asked to be.
    pub definition: Arc<Definition>,
    /// How many are asked for.
    pub instances: u32,
    /// Its tasks, whatever their state.
    pub tasks: BTreeMap<InstanceId, SimTask>,
    /// Counts changes of what it is, and restarts.
    pub(super) generation: u32,
    /// The first generation of what it is now.
    pub(super) configured: u32,
    pub(super) last_failure: Option<String>,
    pub(super) failures: u32,
    pub(super) next_launch: Time,
    pub(super) next_slot: u32,
}

impl SimApp {
    pub(super) fn new(whose: Whose, definition: Arc<Definition>, instances: u32) -> Self {
        Self {
            whose,
            definition,
            instances,
            tasks: BTreeMap::new(),
            generation: 0,
            configured: 0,
            last_failure: None,
            failures: 0,
            next_launch: Time(0),
            next_slot: 0,
        }
    }

    /// The image of its newest definition.
    pub fn image(&self) -> &str {
        let container = self.definition.0.get("container");
        container.and_then(|c| c.get("docker")?.get("image")?.as_str()).unwrap_or_default()
    }

    /// The tasks that run or begin to.
    pub fn alive(&self) -> impl Iterator<Item = &SimTask> {
        self.tasks.values().filter(|t| matches!(t.state, TaskState::Staging | TaskState::Running))
    }

    /// Whether a task was started from the newest definition.
    pub fn is_current(&self, task: &SimTask) -> bool {
        task.generation >= self.configured
    }

    /// Whether a task was started since the last change or restart.
    pub(super) fn is_newest(&self, task: &SimTask) -> bool {
        task.generation == self.generation
    }

    pub(super) fn configure(&mut self) {
        self.generation += 1;
        self.configured = self.generation;
    }

    pub(super) fn number(&self, at: [&str; 2], otherwise: f64) -> f64 {
        let found = self.definition.0.get(at[0]).and_then(|v| v.get(at[1]));
        found.and_then(Value::as_f64).unwrap_or(otherwise)
    }

    pub(super) fn seconds(&self, field: &str) -> Duration {
        Duration::from_secs_f64(self.number(["unreachableStrategy", field], 0.0))
    }

    /// The tasks that stand for an instance: all but those that end and those that are given up for lost.
    pub(super) fn counted(&self, now: Time) -> usize {
        let inactive = self.seconds("inactiveAfterSeconds");
        let counts = |t: &&SimTask| match t.state {
            TaskState::Staging | TaskState::Running => true,
            TaskState::Unreachable { since } => now.since(since) < inactive,
            TaskState::Killing { .. } => false,
        };
        self.tasks.values().filter(counts).count()
    }

    pub(super) fn kill(&mut self, ids: impl IntoIterator<Item = InstanceId>, now: Time) {
        for id in ids {
            if let Some(task) = self.tasks.get_mut(&id) {
                task.kill(now);
            }
        }
    }

    /// Who goes first where Marathon chooses: the unreachable, the staging, the youngest.
    pub(super) fn by_rank(&self) -> Vec<InstanceId> {
        let mut all: Vec<(u8, std::cmp::Reverse<Time>, &InstanceId)> = self
            .tasks
            .iter()
            .filter_map(|(id, t)| {
                let rank = match t.state {
                    TaskState::Unreachable { .. } => 0,
                    TaskState::Staging => 1,
                    TaskState::Running => 2,
                    TaskState::Killing { .. } => return None,
                };
                Some((rank, std::cmp::Reverse(t.staged), id))
            })
            .collect();
        all.sort();
        all.into_iter().map(|(_, _, id)| id.clone()).collect()
    }
}
