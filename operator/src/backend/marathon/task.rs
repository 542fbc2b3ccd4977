//! One task as an instance: what it is called, where it is reached, and whether it works; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::wire::{Task, TaskState};
use crate::model::{Definition, HealthState, Resources, ServiceName, Slot, State, Time};

/// How tasks of an app are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    ports: Vec<Mapping>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mapping {
    /// 0: the same as on the host.
    inside: u16,
    on_host: bool,
    tcp: bool,
}

impl Reach {
    /// Reads a definition in the form that is compared.
    pub(super) fn of(app: &Definition) -> Self {
        let number = |value: &Value, name: &str| {
            let port = value.get(name).and_then(Value::as_u64).unwrap_or(0);
            u16::try_from(port).unwrap_or(0)
        };
        let tcp = |value: &Value| {
            let protocol = value.get("protocol").and_then(Value::as_str);
            protocol.is_none_or(|p| p.contains("tcp"))
        };
        let list =
            |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        let networks = list(app.0.get("networks"));
        let ports = if networks.is_empty() {
            let one = |port: &Value| Mapping {
                inside: number(port, "port"),
                on_host: true,
                tcp: tcp(port),
            };
            list(app.0.get("portDefinitions")).iter().map(one).collect()
        } else {
            let bridge = networks.iter().any(|n| n.get("mode").is_some_and(|m| m != "container"));
            let one = |mapping: &Value| Mapping {
                inside: number(mapping, "containerPort"),
                on_host: bridge || mapping.get("hostPort").is_some(),
                tcp: tcp(mapping),
            };
            let mappings = app.0.get("container").and_then(|c| c.get("portMappings"));
            list(mappings).iter().map(one).collect()
        };
        Self { ports }
    }

    /// The container and host ports of a task, and whether they are reached at its own address.
    fn bindings(&self, task: &Task) -> (Vec<(u16, u16)>, bool) {
        let on_host = self.ports.iter().filter(|p| p.on_host);
        let bound: Vec<(u16, u16)> = on_host
            .zip(&task.ports)
            .filter(|(mapping, _)| mapping.tcp)
            .map(|(mapping, port)| {
                (if mapping.inside == 0 { *port } else { mapping.inside }, *port)
            })
            .collect();
        if self.ports.iter().any(|p| p.on_host) {
            return (bound, false);
        }
        let own = self.ports.iter().filter(|p| p.tcp && p.inside != 0);
        (own.map(|p| (p.inside, p.inside)).collect(), true)
    }

    /// Where a task is reached, and by which container and host ports.
    pub(super) fn place(
        &self,
        task: &Task,
        agents: &BTreeMap<String, IpAddr>,
    ) -> (Option<IpAddr>, Vec<(u16, u16)>) {
        let (bindings, own) = self.bindings(task);
        let at = if own {
            task.addresses.first().copied()
        } else {
            task.host.parse().ok().or_else(|| agents.get(&task.host).copied())
        };
        (at, bindings)
    }
}

/// How often and how long an app's checks may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checks {
    grace_ms: u64,
    failures: u32,
}

impl Checks {
    /// Reads a definition in the form that is compared; `None` where nothing is checked.
    pub(super) fn of(app: &Definition) -> Option<Self> {
        let checks = app.0.get("healthChecks")?.as_array()?;
        let most = |name: &str, default: u64| {
            let of = |check: &Value| check.get(name).and_then(Value::as_u64).unwrap_or(default);
            checks.iter().map(of).max().unwrap_or(default)
        };
        Some(Self {
            grace_ms: most("gracePeriodSeconds", 300).saturating_mul(1000),
            // 0 is "never end it for this", or "at the first"; one failure is what it takes to be sick.
            failures: u32::try_from(most("maxConsecutiveFailures", 3)).unwrap_or(u32::MAX).max(1),
        })
    }
}

/// What is remembered of a task from look to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    /// Whether its start happened before our eyes.
    witnessed: bool,
    running_since: Option<Time>,
    health: HealthState,
}

impl Sight {
    /// Of a task that is seen for the first time. `watched`: its app was followed before.
    pub(super) fn first(task: &Task, watched: bool) -> Self {
        let witnessed = watched || task.state == TaskState::Starting;
        let health = if witnessed { HealthState::Starting } else { HealthState::Unknown };
        Self { witnessed, running_since: None, health }
    }

    /// What it is now.
    pub(super) fn look(&mut self, task: &Task, checks: Option<Checks>, now: Time) {
        match task.state {
            TaskState::Starting => self.health = HealthState::Starting,
            TaskState::Running => {
                let since = *self.running_since.get_or_insert(now);
                self.health = match checks {
                    None => HealthState::Healthy { since },
                    Some(checks) => self.judge(task, checks, since, now),
                };
            }
            // What was known of it holds until it runs again.
            TaskState::Killing | TaskState::Unseen | TaskState::Ended => {}
        }
    }

    fn judge(&self, task: &Task, checks: Checks, since: Time, now: Time) -> HealthState {
        let sick: Vec<_> = task.health.iter().filter(|result| !result.alive).collect();
        let (well_since, sick_since) = match self.health {
            HealthState::Healthy { since } => (Some(since), None),
            HealthState::Unhealthy { since } => (None, Some(since)),
            HealthState::Starting | HealthState::Unknown => (None, None),
        };
        let Some(failures) = sick.iter().map(|result| result.failures).max() else {
            if !task.health.is_empty() {
                return HealthState::Healthy { since: well_since.unwrap_or(now) };
            }
            // A new leader has no results for a while: what was known before still holds.
            return match (well_since, sick_since, self.witnessed) {
                (None, None, true) => HealthState::Starting,
                (None, None, false) => HealthState::Unknown,
                _ => self.health,
            };
        };
        match well_since {
            // Marathon speaks of the first failure; the check says how many it takes.
            Some(since) if failures < checks.failures => HealthState::Healthy { since },
            _ if sick.iter().any(|result| !result.has_succeeded)
                && now.since(since).as_millis() < u128::from(checks.grace_ms) =>
            {
                HealthState::Starting
            }
            _ => HealthState::Unhealthy { since: sick_since.unwrap_or(now) },
        }
    }

    pub(super) fn health(&self) -> HealthState {
        self.health
    }
}

/// The life of a task in the words of instances. One that has ended is none.
pub(super) fn state(task: &Task) -> Option<State> {
    match task.state {
        // Its health says that it starts.
        TaskState::Starting | TaskState::Running => Some(State::Running),
        TaskState::Killing | TaskState::Unseen => Some(State::Ending),
        TaskState::Ended => None,
    }
}

/// What one task of an app reserves.
pub(super) fn resources(app: &Definition) -> Resources {
    let number = |name: &str, default: f64| {
        app.0.get(name).and_then(Value::as_f64).unwrap_or(default).clamp(0.0, 1e9)
    };
    let whole = |f: f64| format!("{f:.0}").parse().unwrap_or(0);
    let mib: u64 = whole(number("mem", 128.0));
    Resources {
        cpu_millis: whole(number("cpus", 1.0) * 1000.0),
        memory_bytes: mib.saturating_mul(1 << 20),
    }
}

/// Eight hex digits that tell a task from the others of its app: the first of the uuid in its id.
fn digits(id: &str) -> u32 {
    let is_uuid = |s: &str| {
        let dash = |i: usize| matches!(i, 8 | 13 | 18 | 23);
        s.bytes().enumerate().all(|(i, b)| if dash(i) { b == b'-' } else { b.is_ascii_hexdigit() })
    };
    let uuid = (0..id.len().saturating_sub(35))
        .rev()
        .filter_map(|at| id.get(at..at + 36))
        .find(|s| is_uuid(s));
    let read = uuid.and_then(|s| u32::from_str_radix(s.get(..8)?, 16).ok());
    read.unwrap_or_else(|| {
        let digest = Sha256::digest(id.as_bytes());
        u32::from_be_bytes(std::array::from_fn(|i| digest[i]))
    })
}

/// The name and the slot of each task of an app. Both stay the same for as long as the task is there.
pub(super) fn names(
    service: &ServiceName,
    tasks: &[&Task],
) -> BTreeMap<Arc<str>, (Arc<str>, Slot)> {
    let mut taken = BTreeSet::new();
    let mut ids: Vec<&Arc<str>> = tasks.iter().map(|task| &task.id).collect();
    ids.sort();
    let one = |id: &Arc<str>| {
        let mut number = digits(id).max(1);
        while !taken.insert(number) {
            number = number.checked_add(1).unwrap_or(1);
        }
        (Arc::clone(id), (format!("{service}_{number:08x}").into(), Slot(number)))
    };
    ids.into_iter().map(one).collect()
}
