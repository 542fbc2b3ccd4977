//! Deployments as Marathon makes them: one change of one app, with a lock on it, for as long as it takes.

use std::collections::BTreeSet;

use super::{SimApp, SimMarathon, TaskState};
use crate::model::{AppId, HealthState, InstanceId, Time};

/// A change that is under way.
#[derive(Debug, Clone)]
pub struct SimDeployment {
    /// The apps that it locks.
    pub apps: BTreeSet<AppId>,
    pub(super) kind: Kind,
    pub(super) begun: Time,
}

impl SimDeployment {
    /// Whether somebody else made it.
    pub fn is_foreign(&self) -> bool {
        matches!(self.kind, Kind::Foreign { .. })
    }
}

/// What is changed.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// The number of instances.
    Scale,
    /// All tasks are replaced.
    Replace {
        /// The first look was taken, and whoever is too many killed.
        begun: bool,
        /// New tasks for which an old one was killed.
        answered: BTreeSet<InstanceId>,
    },
    /// The app goes.
    Delete,
    /// Whatever somebody else does with several apps.
    Foreign {
        /// When it ends.
        until: Time,
    },
}

impl Kind {
    pub(super) fn replace() -> Self {
        Self::Replace { begun: false, answered: BTreeSet::new() }
    }
}

impl SimMarathon {
    /// Takes every deployment as far as it goes now.
    pub(super) fn deploy(&mut self) {
        let ids: Vec<_> = self.deployments.keys().cloned().collect();
        for name in ids {
            let Some(mut deployment) = self.deployments.remove(&name) else { continue };
            if !self.is_done(&mut deployment) {
                self.deployments.insert(name, deployment);
            }
        }
    }

    fn is_done(&mut self, deployment: &mut SimDeployment) -> bool {
        let begun = deployment.begun;
        let Some(id) = deployment.apps.first().cloned() else { return true };
        match &mut deployment.kind {
            Kind::Foreign { until } => *until <= self.now,
            Kind::Scale => {
                let there = self.bring(&id);
                let Some(app) = self.apps.get(&id) else { return true };
                // It waits for whoever it started, as long as that takes.
                let well = |t: &super::SimTask| t.staged < begun || is_healthy(t);
                there && app.tasks.values().all(|t| !t.is_killing() && well(t))
            }
            Kind::Replace { begun, answered } => self.replace(&id, begun, answered),
            Kind::Delete => {
                let now = self.now;
                let Some(app) = self.apps.get_mut(&id) else { return true };
                app.instances = 0;
                let all = app.by_rank();
                app.kill(all, now);
                if app.tasks.is_empty() {
                    self.apps.remove(&id);
                    return true;
                }
                false
            }
        }
    }

    fn replace(
        &mut self,
        id: &AppId,
        begun: &mut bool,
        answered: &mut BTreeSet<InstanceId>,
    ) -> bool {
        let now = self.now;
        let Some(app) = self.apps.get_mut(id) else { return true };
        let n = app.instances as usize;
        let Capacity { least, most } = Capacity::of(app);
        let mut old: Vec<InstanceId> = old_ones(app);
        if !*begun {
            *begun = true;
            let surplus = old.len().saturating_sub(n);
            let healthy = |id: &&InstanceId| app.tasks.get(*id).is_some_and(is_healthy);
            let at_once = old.iter().filter(healthy).count().saturating_sub(least);
            let killed: Vec<InstanceId> =
                old.drain(..surplus.max(at_once).min(old.len())).collect();
            app.kill(killed, now);
        }
        let ready: Vec<InstanceId> = app
            .tasks
            .values()
            .filter(|t| app.is_newest(t) && is_healthy(t) && !answered.contains(&t.id))
            .map(|t| t.id.clone())
            .collect();
        let killed: Vec<InstanceId> = old.drain(..ready.len().min(old.len())).collect();
        app.kill(killed, now);
        answered.extend(ready);
        // Those that are being killed take room until they are gone.
        let new = |t: &&super::SimTask| app.is_newest(t) && !t.is_killing();
        let fresh = app.tasks.values().filter(new).count();
        let gone = app.tasks.len() - fresh;
        let well = app.tasks.values().filter(new).filter(|t| is_healthy(t)).count();
        if fresh < n && app.tasks.len() < most {
            self.launch(id, (n - fresh).min(most - fresh - gone));
        }
        fresh == n && well == n && gone == 0
    }
}

struct Capacity {
    least: usize,
    most: usize,
}

impl Capacity {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "small whole numbers, none negative"
    )]
    fn of(app: &SimApp) -> Self {
        let n = f64::from(app.instances);
        let least = (n * app.number(["upgradeStrategy", "minimumHealthCapacity"], 1.0)).ceil();
        let over = app.number(["upgradeStrategy", "maximumOverCapacity"], 1.0);
        let most = (n * (1.0 + over)).floor();
        // One more, or nothing could ever change.
        let most = if least >= most { most + 1.0 } else { most };
        Self { least: least as usize, most: most as usize }
    }
}

fn is_healthy(task: &super::SimTask) -> bool {
    task.state == TaskState::Running && matches!(task.health, HealthState::Healthy { .. })
}

/// Whoever is to be replaced, the sick first, the youngest before the older.
fn old_ones(app: &SimApp) -> Vec<InstanceId> {
    let mut old: Vec<InstanceId> = app.by_rank();
    old.retain(|id| app.tasks.get(id).is_some_and(|t| !app.is_newest(t)));
    old.sort_by_key(|id| app.tasks.get(id).is_some_and(is_healthy));
    old
}
