//! One instance of an app, from the moment that it is wanted until it is forgotten.

use std::sync::Arc;

use super::app::App;
use super::path::AppId;
use super::release::Release;
use super::stamp::Stamp;

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Waits for an agent.
    Scheduled,
    /// An agent has it and prepares it.
    Staging,
    /// It runs.
    Running,
    /// It runs and was told to end.
    Killing,
    /// Its agent is silent.
    Unreachable,
    /// Its agent is silent for so long that another one takes its place.
    Inactive,
}

/// What becomes of it when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Another attempt.
    Running,
    /// Nothing.
    Gone,
}

/// What one health check says of an instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Health {
    pub(super) first_success: Option<Stamp>,
    pub(super) last_success: Option<Stamp>,
    pub(super) last_failure: Option<Stamp>,
    pub(super) cause: Option<String>,
    pub(super) failures: u64,
}

impl Health {
    pub(super) fn alive(&self) -> bool {
        match (self.last_success, self.last_failure) {
            (Some(success), Some(failure)) => success > failure,
            (success, _) => success.is_some(),
        }
    }
}

/// What the readiness check says of an instance.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ready {
    pub(super) ready: bool,
    /// Code, content type and body.
    pub(super) response: Option<(u16, String, String)>,
}

/// One instance.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    /// The definition that it runs.
    pub(super) app: Arc<App>,
    pub(super) uuid: String,
    pub(super) attempt: u32,
    pub(super) goal: Goal,
    pub(super) phase: Phase,
    /// Since when it is in that phase.
    pub(super) since: Stamp,
    pub(super) staged: Stamp,
    pub(super) started: Option<Stamp>,
    /// The agent that has it.
    pub(super) agent: Option<String>,
    /// For each port of the app the one on the agent.
    pub(super) host_ports: Vec<Option<u16>>,
    pub(super) addresses: Vec<String>,
    pub(super) health: Vec<Option<Health>>,
    pub(super) ready: Option<Ready>,
    /// Whether whoever ends it does so because it is unhealthy.
    pub(super) sick: bool,
}

impl Instance {
    pub(super) fn new(app: &Arc<App>, uuid: String, now: Stamp) -> Self {
        Self {
            app: Arc::clone(app),
            uuid,
            attempt: 1,
            goal: Goal::Running,
            phase: Phase::Scheduled,
            since: now,
            staged: now,
            started: None,
            agent: None,
            host_ports: Vec::new(),
            addresses: Vec::new(),
            health: vec![None; app.health_checks().len()],
            ready: None,
            sick: false,
        }
    }

    /// Back to where it began, to try once more with this definition.
    pub(super) fn again(&mut self, app: &Arc<App>, now: Stamp) {
        let attempt = self.attempt + 1;
        *self = Self { attempt, ..Self::new(app, std::mem::take(&mut self.uuid), now) };
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Stamp) {
        if self.phase != phase {
            self.phase = phase;
            self.since = now;
        }
    }

    /// What Marathon calls it.
    pub(super) fn id(&self, release: Release) -> String {
        let word = if release.has(8) { "instance" } else { "marathon" };
        format!("{}.{word}-{}", self.app.id.safe(), self.uuid)
    }

    /// What its task is called now.
    pub(super) fn task(&self, release: Release) -> String {
        if release.has(8) {
            format!("{}._app.{}", self.id(release), self.attempt)
        } else {
            format!("{}.{}", self.app.id.safe(), self.uuid)
        }
    }

    /// Whether an agent has it and answers.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Staging | Phase::Running | Phase::Killing)
    }

    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self.phase, Phase::Unreachable | Phase::Inactive)
    }

    /// Whether it counts as one of those that are wanted.
    pub(super) fn counts(&self) -> bool {
        self.goal == Goal::Running && self.phase != Phase::Inactive
    }

    /// True or false once every check has said something, none before.
    pub(super) fn healthy(&self) -> Option<bool> {
        let mut all = true;
        for health in &self.health {
            all &= health.as_ref()?.alive();
        }
        Some(all)
    }

    /// Whether it runs and everything that is checked is fine.
    pub(super) fn is_healthy(&self) -> bool {
        self.phase == Phase::Running && self.healthy() == Some(true)
    }

    /// The same, and ready if that is asked for.
    pub(super) fn is_up(&self) -> bool {
        let ready = self.app.readiness().is_none() || self.ready.as_ref().is_some_and(|r| r.ready);
        self.is_healthy() && ready
    }

    /// The state of its task as Mesos has it.
    pub(super) fn state(&self, task_killing: bool) -> &'static str {
        match self.phase {
            Phase::Scheduled | Phase::Staging => "TASK_STAGING",
            Phase::Killing if task_killing => "TASK_KILLING",
            Phase::Running | Phase::Killing => "TASK_RUNNING",
            Phase::Unreachable | Phase::Inactive => "TASK_UNREACHABLE",
        }
    }

    /// The same in the words of instances.
    pub(super) fn condition(&self, task_killing: bool) -> &'static str {
        match self.phase {
            Phase::Scheduled => "Scheduled",
            Phase::Staging => "Staging",
            Phase::Killing if task_killing => "Killing",
            Phase::Running | Phase::Killing => "Running",
            Phase::Unreachable => "Unreachable",
            Phase::Inactive => "UnreachableInactive",
        }
    }

    /// Who goes first when some must: the lower the sooner.
    pub(super) fn weight(&self) -> u8 {
        match self.phase {
            // What nobody has yet is missed by nobody.
            Phase::Scheduled => 0,
            Phase::Unreachable | Phase::Inactive => 1,
            Phase::Staging => 2,
            Phase::Running => 4,
            Phase::Killing => 5,
        }
    }
}

/// Whose task this was, by an id of any release.
pub(super) fn app_of_task(task: &str) -> Option<AppId> {
    // A name may have dots itself: the rest begins with a word for instances, or is the last part.
    let marked = [".instance-", ".marathon-"].iter().find_map(|marker| task.find(marker));
    let (app, rest) = task.split_at(marked.or_else(|| task.rfind('.'))?);
    let whole = !app.is_empty() && rest.len() > 1;
    whole.then(|| AppId::absolute(&app.replace('_', "/")))
}

/// What happened to the last task of an app that failed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) host: String,
    pub(super) agent: String,
    pub(super) message: String,
    pub(super) state: &'static str,
    pub(super) task: String,
    pub(super) at: Stamp,
    pub(super) version: Stamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_known_by_the_id_of_its_task() {
        for (task, app) in [
            ("grp_app.instance-0a-1b._app.3", "/grp/app"),
            ("pywebserver.8cad6a69-6ca8-11e7-beb2-0e2beceebfcc", "/pywebserver"),
            ("a_b.c.instance-0a._app.1", "/a/b.c"),
            ("a_b.c.0a-1b", "/a/b.c"),
        ] {
            assert_eq!(app_of_task(task), Some(AppId::absolute(app)), "{task}");
        }
        for wrong in ["nonsense", "", ".x", "x."] {
            assert_eq!(app_of_task(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn health_is_what_was_seen_last() {
        let mut health = Health { last_success: Some(Stamp(2)), ..Health::default() };
        assert!(health.alive());
        health.last_failure = Some(Stamp(3));
        assert!(!health.alive());
        health.last_failure = Some(Stamp(1));
        assert!(health.alive() && !Health::default().alive());
    }
}
