//! A deployment on its way, step by step. It never gives up by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::app::App;
use super::event::Event;
use super::instance::{Goal, Instance, Phase};
use super::path::AppId;
use super::plan::{Action, Step};
use super::replace::Replace;
use super::stamp::Stamp;
use super::state::State;
use super::tree::Tree;

/// A change that is being made true.
#[derive(Clone, Debug)]
pub(super) struct Deployment {
    pub(super) id: String,
    pub(super) version: Stamp,
    pub(super) steps: Vec<Step>,
    /// How many steps were begun.
    pub(super) at: usize,
    pub(super) affected: BTreeSet<AppId>,
    pub(super) before: Arc<Tree>,
    pub(super) after: Arc<Tree>,
    kill: BTreeMap<AppId, BTreeSet<String>>,
    starts: Stamp,
    doing: Vec<Doing>,
}

/// How far an action is.
#[derive(Clone, Debug)]
enum Doing {
    Done,
    Stop(AppId),
    Scale { app: AppId, old: BTreeSet<String>, more: usize },
    Replace(Replace),
}

impl Deployment {
    pub(super) fn new(
        id: String,
        version: Stamp,
        steps: Vec<Step>,
        (before, after): (Arc<Tree>, Arc<Tree>),
        kill: BTreeMap<AppId, BTreeSet<String>>,
        starts: Stamp,
    ) -> Self {
        let affected = steps.iter().flatten().map(|action| action.app().clone()).collect();
        Self { id, version, steps, at: 0, affected, before, after, kill, starts, doing: Vec::new() }
    }

    /// What it is doing now.
    pub(super) fn current(&self) -> &[Action] {
        self.at.checked_sub(1).and_then(|at| self.steps.get(at)).map_or(&[], Vec::as_slice)
    }

    /// The definition that it brings, or that it ends.
    fn definition(&self, id: &AppId) -> Option<&Arc<App>> {
        self.after.apps.get(id).or_else(|| self.before.apps.get(id))
    }

    /// Its plan, as events tell it.
    pub(super) fn plan(&self) -> Value {
        let steps: Vec<Value> = self.steps.iter().map(step).collect();
        json!({"id": self.id, "version": self.version.json(), "steps": steps})
    }
}

/// A step as Marathon tells it.
pub(super) fn step(step: &Step) -> Value {
    let action = |action: &Action| json!({"action": action.name(), "app": action.app().as_str()});
    json!({"actions": step.iter().map(action).collect::<Vec<_>>()})
}

impl State {
    fn deployment_event(
        &mut self,
        kind: &'static str,
        deployment: &Deployment,
        mut body: Value,
        now: Stamp,
    ) {
        body["plan"] = deployment.plan();
        let trees = Some((Arc::clone(&deployment.before), Arc::clone(&deployment.after)));
        self.event(Event { trees, ..Event::new(kind, now, body) });
    }

    pub(super) fn begin_deployment(&mut self, deployment: Deployment, now: Stamp) {
        if deployment.steps.is_empty() {
            let body = json!({"id": deployment.id});
            self.deployment_event("deployment_success", &deployment, body, now);
            return;
        }
        self.busy.extend(deployment.affected.iter().cloned());
        self.deployments.push(deployment);
    }

    /// Stops it where it is; what it did stays done.
    pub(super) fn cancel(&mut self, id: &str, now: Stamp) -> Option<Deployment> {
        let at = self.deployments.iter().position(|deployment| deployment.id == id)?;
        let deployment = self.deployments.remove(at);
        let reason = "The upgrade has been cancelled";
        if deployment.at > 0 {
            let body = json!({"currentStep": step(&deployment.current().to_vec())});
            self.deployment_event("deployment_step_failure", &deployment, body, now);
        }
        let body = json!({"id": deployment.id, "reason": reason});
        self.deployment_event("deployment_failed", &deployment, body, now);
        let heal = now.plus(self.settings.seconds(self.settings.heal_seconds));
        for app in &deployment.affected {
            self.heal.insert(app.clone(), heal);
            self.busy.insert(app.clone());
        }
        Some(deployment)
    }

    /// Whether a running deployment replaces instances of this definition.
    pub(super) fn is_replaced(&self, app: &AppId, definition: &App) -> bool {
        let replaces = |doing: &Doing| matches!(doing, Doing::Replace(r) if r.app.id == *app && r.app.version != definition.version);
        self.deployments_of(app).any(|deployment| deployment.doing.iter().any(replaces))
    }

    /// Moves all deployments on as far as they get.
    pub(super) fn deploy(&mut self, now: Stamp) {
        let mut at = 0;
        while at < self.deployments.len() {
            let held = |d: &Deployment| d.affected.iter().any(|app| self.held.contains(app));
            if self.deployments[at].starts > now || held(&self.deployments[at]) {
                at += 1;
                continue;
            }
            let mut deployment = self.deployments.remove(at);
            let done = self.move_on(&mut deployment, now);
            if !done {
                self.deployments.insert(at, deployment);
                at += 1;
                continue;
            }
            let body = json!({"id": deployment.id});
            self.deployment_event("deployment_success", &deployment, body, now);
            for app in &deployment.affected {
                // What failed meanwhile is somebody's business again.
                self.heal.insert(app.clone(), now);
                self.busy.insert(app.clone());
            }
        }
    }

    /// Whether it is done.
    fn move_on(&mut self, deployment: &mut Deployment, now: Stamp) -> bool {
        loop {
            if deployment.at > 0 {
                let mut doing = std::mem::take(&mut deployment.doing);
                for doing in &mut doing {
                    self.go_on(doing, now);
                }
                let done = doing.iter().all(|doing| matches!(doing, Doing::Done));
                deployment.doing = doing;
                if !done {
                    return false;
                }
                let body = json!({"currentStep": step(&deployment.current().to_vec())});
                self.deployment_event("deployment_step_success", deployment, body, now);
            }
            let Some(next) = deployment.steps.get(deployment.at).cloned() else { return true };
            deployment.at += 1;
            let body = json!({"currentStep": step(&next)});
            self.deployment_event("deployment_info", deployment, body, now);
            deployment.doing =
                next.iter().map(|action| self.begin_action(deployment, action, now)).collect();
        }
    }

    fn begin_action(&mut self, deployment: &Deployment, action: &Action, now: Stamp) -> Doing {
        let Some(app) = deployment.definition(action.app()).cloned() else { return Doing::Done };
        match action {
            Action::Start(_) => {
                for check in app.get("healthChecks").as_array().into_iter().flatten() {
                    let body = json!({
                        "appId": app.id.as_str(), "version": app.version.json(), "healthCheck": check,
                    });
                    self.event(Event::new("add_health_check_event", now, body));
                }
                Doing::Done
            }
            Action::Stop(id) => {
                let all: Vec<String> =
                    self.instances_of(id).iter().map(|i| i.uuid.clone()).collect();
                for uuid in &all {
                    self.kill(id, uuid, Goal::Gone, now);
                }
                Doing::Stop(id.clone())
            }
            Action::Scale(id) => {
                let named = deployment.kill.get(id).cloned().unwrap_or_default();
                self.begin_scale(&app, &named, now)
            }
            Action::Restart(id) => {
                self.reset_delay(id);
                // What of the old ones only waits needs not be waited for.
                let waits =
                    |i: &&Instance| i.phase == Phase::Scheduled && i.app.version != app.version;
                let waiting: Vec<String> =
                    self.instances_of(id).iter().filter(waits).map(|i| i.uuid.clone()).collect();
                for uuid in &waiting {
                    self.kill(id, uuid, Goal::Gone, now);
                }
                let replace = Replace::begin(&app, self.instances_of(id));
                Doing::Replace(replace)
            }
        }
    }

    fn begin_scale(&mut self, app: &Arc<App>, named: &BTreeSet<String>, now: Stamp) -> Doing {
        let there = self.instances_of(&app.id).iter().filter(|i| i.counts());
        let there: BTreeSet<String> = there.map(|i| i.uuid.clone()).collect();
        let wanted = app.instances();
        let sentenced = there.intersection(named).count();
        let down = there.len().saturating_sub(wanted).max(sentenced);
        let victims = self.victims(app, down, named);
        let more = (wanted + victims.len()).saturating_sub(there.len());
        for uuid in &victims {
            self.kill(&app.id, uuid, Goal::Gone, now);
        }
        self.schedule(app, more, now);
        let old = there.into_iter().filter(|uuid| !victims.contains(uuid)).collect();
        Doing::Scale { app: app.id.clone(), old, more }
    }

    fn go_on(&mut self, doing: &mut Doing, now: Stamp) {
        match doing {
            Doing::Done => {}
            Doing::Stop(app) => {
                if self.instances_of(app).is_empty() {
                    let body = json!({"appId": app.as_str()});
                    self.event(Event::new("app_terminated_event", now, body));
                    *doing = Doing::Done;
                }
            }
            Doing::Scale { app, old, more } => {
                let all = self.instances_of(app);
                let up = all.iter().filter(|i| !old.contains(&i.uuid) && i.is_up()).count();
                let going = all.iter().any(|i| i.goal == Goal::Gone && i.phase != Phase::Inactive);
                if up >= *more && !going {
                    *doing = Doing::Done;
                }
            }
            Doing::Replace(replace) => {
                let moves = replace.go_on(self.instances_of(&replace.app.id));
                let (app, done) = (Arc::clone(&replace.app), moves.done);
                for uuid in moves.kill {
                    self.kill(&app.id, &uuid, Goal::Gone, now);
                }
                self.schedule(&app, moves.start, now);
                if done {
                    *doing = Doing::Done;
                }
            }
        }
    }
}

/// The readiness of instances that deployments tell about.
pub(super) fn readiness<'i>(
    state: &'i State,
    app: &AppId,
) -> impl Iterator<Item = &'i Instance> + use<'i> {
    state.instances_of(app).iter().filter(|instance| instance.ready.is_some())
}
