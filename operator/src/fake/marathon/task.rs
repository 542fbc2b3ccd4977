//! One task: it begins, gets healthy or not, is lost sight of and found again, and ends.

use std::net::IpAddr;
use std::time::Duration;

use crate::model::{
    HealthState, Instance, InstanceId, Resources, ServiceName, Slot, SpecHash, State, Time, Traffic,
};

/// How long a task takes to begin.
const BEGINS: Duration = Duration::from_millis(300);
/// How long it takes to end.
const ENDS: Duration = Duration::from_millis(400);
/// How long Marathon looks on while a task is sick.
const PATIENCE: Duration = Duration::from_secs(4);

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// It begins.
    Staging,
    /// It runs.
    Running,
    /// Marathon has lost sight of it; it runs all the same.
    Unreachable {
        /// Since when.
        since: Time,
    },
    /// It was told to end.
    Killing {
        /// When it will have.
        until: Time,
    },
}

/// A simulated task.
#[derive(Debug, Clone)]
pub struct SimTask {
    /// What it is called.
    pub id: InstanceId,
    /// Where it is in its life.
    pub state: TaskState,
    /// What its health check says.
    pub health: HealthState,
    /// Somebody made it ill.
    pub ill: bool,
    /// It ended with its machine, and Marathon was not told.
    pub(super) orphan: bool,
    /// When it was asked for.
    pub staged: Time,
    /// The port on its agent.
    pub port: u16,
    pub(super) generation: u32,
    pub(super) agent: usize,
    slot: Slot,
    image: String,
    seen_from: Time,
}

impl SimTask {
    pub(super) fn new(
        number: u32,
        image: &str,
        generation: u32,
        (agent, port, slot): (usize, u16, u32),
        now: Time,
    ) -> Self {
        Self {
            id: InstanceId(format!("task-{number:06}").into()),
            state: TaskState::Staging,
            health: HealthState::Starting,
            ill: false,
            orphan: false,
            staged: now,
            port,
            generation,
            agent,
            slot: Slot(slot),
            image: image.to_owned(),
            seen_from: now,
        }
    }

    /// Whether it was told to end.
    pub fn is_killing(&self) -> bool {
        matches!(self.state, TaskState::Killing { .. })
    }

    pub(super) fn kill(&mut self, now: Time) {
        if !self.is_killing() {
            self.state = TaskState::Killing { until: now.plus(ENDS) };
        }
    }

    pub(super) fn forget(&mut self, now: Time) {
        self.seen_from = now;
        if let HealthState::Healthy { .. } = self.health {
            self.health = HealthState::Unknown;
        }
    }

    /// One moment of its life; `Err` when it is over, with the reason where it failed.
    pub(super) fn live(
        &mut self,
        lost: bool,
        expunge: Duration,
        now: Time,
    ) -> Result<(), Option<&'static str>> {
        let age = now.since(self.staged);
        let lost = lost || self.orphan;
        self.state = match self.state {
            TaskState::Killing { until } if until <= now => return Err(None),
            TaskState::Killing { until } => TaskState::Killing { until },
            TaskState::Unreachable { since } if lost && now.since(since) >= expunge => {
                return Err(None);
            }
            TaskState::Staging | TaskState::Running if lost => {
                TaskState::Unreachable { since: now }
            }
            TaskState::Unreachable { since } if lost => TaskState::Unreachable { since },
            TaskState::Staging if age < BEGINS => TaskState::Staging,
            TaskState::Staging | TaskState::Running | TaskState::Unreachable { .. } => {
                TaskState::Running
            }
        };
        if self.state != TaskState::Running {
            return Ok(());
        }
        let up = age.saturating_sub(BEGINS);
        if self.image.contains("crash") && up >= Duration::from_secs(1) {
            return Err(Some("exit code 1"));
        }
        let bad = self.image.contains("bad");
        let after = match (self.image.contains("slow"), self.image.contains("instant")) {
            (true, _) => Duration::from_secs(10),
            (false, true) => Duration::ZERO,
            (false, false) => Duration::from_millis(500),
        };
        let healthy = up >= after && !self.ill && !bad;
        let known = now.since(self.seen_from) >= Duration::from_millis(200);
        self.health = match self.health {
            HealthState::Healthy { since } if healthy => HealthState::Healthy { since },
            HealthState::Unhealthy { since } if !healthy => HealthState::Unhealthy { since },
            _ if healthy && known => HealthState::Healthy { since: now },
            HealthState::Healthy { .. } => HealthState::Unhealthy { since: now },
            HealthState::Starting | HealthState::Unknown
                if up >= Duration::from_secs(3) && (bad || self.ill) =>
            {
                HealthState::Unhealthy { since: now }
            }
            other @ (HealthState::Starting
            | HealthState::Unknown
            | HealthState::Unhealthy { .. }) => other,
        };
        match self.health {
            HealthState::Unhealthy { since } if now.since(since) >= PATIENCE => {
                Err(Some("its health check failed"))
            }
            HealthState::Unknown
            | HealthState::Starting
            | HealthState::Healthy { .. }
            | HealthState::Unhealthy { .. } => Ok(()),
        }
    }

    pub(super) fn instance(
        &self,
        service: &ServiceName,
        hash: SpecHash,
        address: IpAddr,
    ) -> Instance {
        let state = match self.state {
            TaskState::Staging | TaskState::Running => State::Running,
            TaskState::Unreachable { .. } | TaskState::Killing { .. } => State::Ending,
        };
        Instance {
            id: self.id.clone(),
            name: format!("{service}.{}", self.id).into(),
            service: service.clone(),
            slot: self.slot,
            hash,
            state,
            health: self.health,
            created: self.staged,
            resources: Resources::default(),
            published: Vec::new(),
            bindings: vec![(80, self.port)],
            networks: Vec::new(),
            at: Some(address),
            traffic: Traffic::None,
        }
    }

    pub(super) fn is_restless(&self, now: Time) -> bool {
        let waits = matches!(self.health, HealthState::Starting | HealthState::Unknown);
        self.state != TaskState::Running
            || waits
            || matches!(self.health, HealthState::Unhealthy { .. })
            || (self.image.contains("crash") && now.since(self.staged).as_secs() < 3)
    }
}
