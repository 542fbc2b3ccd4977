//! Steps on apps. Each looks first whether the app is ours and whether there is anything to do, and looks again at what it did.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::cluster::{CHANGES, Cluster};
use super::encode::encode;
use super::error::CallError;
use super::http::Call;
use super::view::is_current;
use super::wire::{Accepted, App, TaskState, Version};
use crate::error::{PortError, Remedy, causes};
use crate::model::app::compare::differences;
use crate::model::{AppAct, AppStep, Definition, InstanceId, OWN_LABELS, SpecHash, Step, Whose};

/// How long a change waits for other deployments to end.
const ROOM: Duration = Duration::from_secs(30);
/// How often it looks.
const AGAIN: Duration = Duration::from_millis(250);

/// Does one step.
pub(super) async fn apply(cluster: &Arc<Cluster>, step: &Step) -> Result<(), PortError> {
    let doing = step.to_string();
    let Step::App(step) = step else {
        return Err(PortError::new(doing, Remedy::Hold, "Marathon knows apps only"));
    };
    let Some(version) = cluster.version() else {
        let why = cluster.problem().unwrap_or_else(|| "it has not answered yet".into());
        let why = format!("Marathon is silent: {why}");
        return Err(PortError::new(doing, Remedy::Retry, why));
    };
    let Ok(_permit) = cluster.changes.acquire().await else {
        return Err(PortError::new(doing, Remedy::Retry, "the agent ends"));
    };
    let on = On { cluster, step, version };
    let result = on.act().await.map_err(|failed| match failed {
        Failed::Call(e) => e.while_doing(&doing),
        Failed::Other(remedy, why) => PortError::new(&*doing, remedy, why),
    });
    cluster.kick.notify_one();
    if let Err(e) = &result {
        tracing::debug!(host = %cluster.name, "{}", causes(e));
    }
    result
}

enum Failed {
    Call(CallError),
    Other(Remedy, String),
}

impl From<CallError> for Failed {
    fn from(e: CallError) -> Self {
        Self::Call(e)
    }
}

struct On<'a> {
    cluster: &'a Arc<Cluster>,
    step: &'a AppStep,
    version: Version,
}

impl On<'_> {
    async fn act(&self) -> Result<(), Failed> {
        let app = self.cluster.look(&self.step.app).await?;
        // It would give up whatever changes the app, and the plan was made before somebody began.
        if self.step.act.is_forced() && self.cluster.is_shared(&self.step.app).await? {
            let why = "it is being changed together with other apps";
            return Err(Failed::Other(Remedy::Reobserve, why.into()));
        }
        match &self.step.act {
            AppAct::Put { definition, instances, hash, create, force } => {
                self.put(app, definition, *instances, *hash, *create, *force).await
            }
            AppAct::Scale { instances, force } => {
                self.scale(self.ours(app)?, *instances, *force).await
            }
            AppAct::Kill { tasks } => self.kill(self.ours(app)?, tasks).await,
            AppAct::Restart { force } => self.restart(self.ours(app)?, *force).await,
            AppAct::Delete => self.delete(app).await,
        }
    }

    /// The app, where it is there and ours to change.
    fn ours(&self, app: Option<App>) -> Result<App, Failed> {
        let Some(app) = app else {
            return Err(Failed::Other(Remedy::Reobserve, "it is gone".into()));
        };
        if self.may_change(&app) { Ok(app) } else { Err(foreign()) }
    }

    /// Ours, or nobody's and named by a document.
    fn may_change(&self, app: &App) -> bool {
        match self.cluster.me.whose(&app.definition) {
            Whose::Ours { .. } => true,
            Whose::Nobodys => self.cluster.read(|live| live.is_named(&app.id)),
            Whose::Others => false,
        }
    }

    async fn put(
        &self,
        before: Option<App>,
        definition: &Definition,
        instances: u32,
        hash: SpecHash,
        create: bool,
        force: bool,
    ) -> Result<(), Failed> {
        let wanted = self.cluster.me.sign(definition, &self.step.service, hash);
        let is_done = |app: &App| {
            app.instances == instances
                && own_labels(&app.definition) == own_labels(&wanted)
                && differences(&wanted, &app.definition).is_empty()
        };
        match &before {
            Some(app) if !self.may_change(app) => return Err(foreign()),
            Some(app) if is_done(app) => return Ok(()),
            // Somebody made it in between: whether it may be taken over is to be decided anew.
            Some(_) if create => {
                return Err(Failed::Other(Remedy::Reobserve, "it is there already".into()));
            }
            None if !create => {
                return Err(Failed::Other(Remedy::Reobserve, "it is gone".into()));
            }
            Some(_) | None => {}
        }
        let body = encode(&wanted, &self.step.app, instances, self.version);
        let path = format!("/v2/apps{}", self.step.app);
        let query = [("partialUpdate", "false"), ("force", flag(force))];
        let call = Call::change(Method::PUT, &path, &query, &body);
        self.change(call, |after| after.is_some_and(is_done)).await
    }

    async fn scale(&self, app: App, instances: u32, force: bool) -> Result<(), Failed> {
        if app.instances == instances {
            return Ok(());
        }
        // A change of part of an app loses these unless it says them again, and losing limits restarts every task.
        let mut body: Map<String, Value> = app.limits;
        body.insert("instances".to_owned(), instances.into());
        let method = if self.version >= Version(1, 4) { Method::PATCH } else { Method::PUT };
        let path = format!("/v2/apps{}", self.step.app);
        let query = [("force", flag(force))];
        let body = Value::Object(body);
        let call = Call::change(method, &path, &query, &body);
        self.change(call, |after| after.is_some_and(|app| app.instances == instances)).await
    }

    async fn kill(&self, app: App, tasks: &BTreeSet<InstanceId>) -> Result<(), Failed> {
        let left = |app: &App| -> Vec<Arc<str>> {
            // One that is being killed has been counted already.
            let all = app.tasks.iter().flatten();
            let wanted = all.filter(|task| tasks.iter().any(|id| id.0 == task.id));
            let counts = |state| !matches!(state, TaskState::Killing | TaskState::Ended);
            let left = wanted.filter(|task| counts(task.state));
            left.map(|task| Arc::clone(&task.id)).collect()
        };
        let ids = left(&app);
        if ids.is_empty() {
            return Ok(());
        }
        let body = json!({"ids": ids.iter().map(|id| &**id).collect::<Vec<_>>()});
        let query = [("scale", "true"), ("force", "false")];
        let call = Call::change(Method::POST, "/v2/tasks/delete", &query, &body);
        let fewer = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let at_most = app.instances.saturating_sub(fewer);
        let done = |after: Option<&App>| after.is_none_or(|app| app.instances <= at_most);
        self.change(call, done).await?;
        self.cluster.change(|live, _| live.told_to_end(ids.into_iter()));
        Ok(())
    }

    async fn restart(&self, app: App, force: bool) -> Result<(), Failed> {
        let stale = |app: &App| {
            let there = app.tasks.iter().flatten().filter(|t| t.state != TaskState::Ended);
            there.filter(|task| !is_current(app, task)).count()
        };
        if stale(&app) == 0 {
            return Ok(());
        }
        // Before 1.11 a restart is no change of the definition; a new version it is everywhere.
        let before = Arc::clone(&app.version);
        let path = format!("/v2/apps{}/restart", self.step.app);
        let query = [("force", flag(force))];
        let call = Call::change(Method::POST, &path, &query, &Value::Null);
        self.change(call, |after| after.is_none_or(|app| app.version != before)).await
    }

    async fn delete(&self, app: Option<App>) -> Result<(), Failed> {
        let Some(app) = app else { return Ok(()) };
        if !matches!(self.cluster.me.whose(&app.definition), Whose::Ours { .. }) {
            return Err(foreign());
        }
        let path = format!("/v2/apps{}", self.step.app);
        // Its default is to give up whatever deployment is under way.
        let query = [("force", "false")];
        let call = Call::change(Method::DELETE, &path, &query, &Value::Null);
        self.change(call, |after| after.is_none()).await
    }

    /// Makes a change and looks at the app again. `is_made` tells from the app whether it was made, where no answer does.
    async fn change(
        &self,
        call: Call<'_>,
        is_made: impl Fn(Option<&App>) -> bool,
    ) -> Result<(), Failed> {
        let until = Instant::now() + ROOM;
        let answer = loop {
            self.wait_for_room(until).await;
            match self.cluster.http.json::<Accepted>(call.clone()).await {
                Err(CallError::Full { limit, said }) => {
                    self.cluster.allows(limit.unwrap_or(CHANGES));
                    if Instant::now() >= until {
                        return Err(CallError::Full { limit, said }.into());
                    }
                    tokio::time::sleep(AGAIN * 4).await;
                }
                other => break other,
            }
        };
        let doubt = match answer {
            Ok(Accepted { deployment_id }) => {
                if let Some(id) = deployment_id {
                    self.cluster.change(|live, _| live.deploys(&id, &self.step.app));
                }
                None
            }
            // It may have been made all the same: only the app can tell.
            Err(e @ CallError::Uncertain { .. }) => Some(e),
            Err(e) => return Err(e.into()),
        };
        let after = self.cluster.look(&self.step.app).await;
        match (doubt, after) {
            (None, Ok(_)) => Ok(()),
            (Some(_), Ok(app)) if is_made(app.as_ref()) => Ok(()),
            (Some(e), _) | (None, Err(e)) => Err(e.into()),
        }
    }

    /// Waits until one more deployment would be taken, as far as is known.
    async fn wait_for_room(&self, until: Instant) {
        while Instant::now() < until {
            let under_way = self.cluster.read(super::view::Live::under_way);
            let asked = CHANGES.saturating_sub(self.cluster.changes.available_permits());
            if under_way + asked <= self.cluster.most_deployments() || under_way == 0 {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn own_labels(app: &Definition) -> Vec<(&String, &Value)> {
    let labels = app.0.get("labels").and_then(Value::as_object);
    let mut own: Vec<_> =
        labels.into_iter().flatten().filter(|(name, _)| name.starts_with(OWN_LABELS)).collect();
    own.sort_by_key(|(name, _)| *name);
    own
}

fn flag(yes: bool) -> &'static str {
    if yes { "true" } else { "false" }
}

fn foreign() -> Failed {
    Failed::Other(Remedy::Reobserve, "the app is not ours".into())
}
