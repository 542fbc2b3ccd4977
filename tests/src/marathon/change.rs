//! The acceptance of a change: versions, service ports, locks, and the deployment that makes it true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::app::App;
use super::deployment::Deployment;
use super::event::Event;
use super::path::AppId;
use super::plan::{self, Step};
use super::read::{Fields, tidy};
use super::refusal::Refusal;
use super::stamp::Stamp;
use super::state::{MOST_VERSIONS, State};
use super::tree::Tree;

/// A tree that is being changed.
pub(super) struct Draft {
    pub(super) tree: Tree,
    /// Apps that are restarted even if nothing about them is new.
    pub(super) restart: BTreeSet<AppId>,
    /// When the change happens.
    pub(super) version: Stamp,
}

/// How a change is asked for.
#[derive(Default)]
pub(super) struct Ask {
    /// Whether it cancels deployments that are in its way.
    pub(super) force: bool,
    /// Instances to end first.
    pub(super) kill: BTreeMap<AppId, BTreeSet<String>>,
}

/// A change that was accepted.
pub(super) struct Accepted {
    pub(super) id: String,
    pub(super) version: Stamp,
    pub(super) after: Arc<Tree>,
}

impl State {
    /// Changes the tree, or refuses and changes nothing.
    pub(super) fn change(
        &mut self,
        group: &AppId,
        ask: Ask,
        now: Stamp,
        edit: impl FnOnce(&Self, &mut Draft) -> Result<(), Refusal>,
    ) -> Result<Accepted, Refusal> {
        let version = self.stamp(now);
        let result = self.try_change(ask, version, now, edit);
        let (kind, body) = match &result {
            Ok(_) => (
                "group_change_success",
                json!({"groupId": group.as_str(), "version": version.json()}),
            ),
            Err(refusal) => (
                "group_change_failed",
                json!({
                    "groupId": group.as_str(), "version": version.json(),
                    "reason": refusal.body["message"],
                }),
            ),
        };
        self.event(Event::new(kind, now, body));
        result
    }

    fn try_change(
        &mut self,
        ask: Ask,
        version: Stamp,
        now: Stamp,
        edit: impl FnOnce(&Self, &mut Draft) -> Result<(), Refusal>,
    ) -> Result<Accepted, Refusal> {
        let most = self.settings.most_deployments;
        if self.settings.release.has(6) && self.deployments.len() >= most {
            return Err(Refusal::busy(most));
        }
        let before = Arc::clone(&self.tree);
        let (after, steps) = self.draft(&before, version, edit)?;
        let affected: BTreeSet<AppId> =
            steps.iter().flatten().map(|action| action.app().clone()).collect();
        let in_the_way: Vec<String> = self
            .deployments
            .iter()
            .filter(|deployment| !deployment.affected.is_disjoint(&affected))
            .map(|deployment| deployment.id.clone())
            .collect();
        if !in_the_way.is_empty() && !ask.force {
            return Err(Refusal::locked(in_the_way.iter().map(String::as_str)));
        }
        for id in &in_the_way {
            self.cancel(id, now);
        }
        let after = Arc::new(after);
        self.remember(&before, &after);
        self.tree = Arc::clone(&after);
        let id = self.uuid();
        let starts = now.plus(self.settings.deployment_delay);
        let deployment = Deployment::new(
            id.clone(),
            version,
            steps,
            (Arc::clone(&before), Arc::clone(&after)),
            ask.kill,
            starts,
        );
        self.begin_deployment(deployment, now);
        Ok(Accepted { id, version, after })
    }

    /// What the tree would become, and how.
    pub(super) fn draft(
        &self,
        before: &Tree,
        version: Stamp,
        edit: impl FnOnce(&Self, &mut Draft) -> Result<(), Refusal>,
    ) -> Result<(Tree, Vec<Step>), Refusal> {
        let mut draft = Draft { tree: before.clone(), restart: BTreeSet::new(), version };
        edit(self, &mut draft)?;
        let Draft { mut tree, restart, .. } = draft;
        tree.version = version;
        self.assign_ports(before, &mut tree)?;
        self.set_versions(before, &mut tree, &restart, version);
        tree.judge()?;
        judge_residents(before, &tree)?;
        let steps = plan::steps(before, &tree);
        Ok((tree, steps))
    }

    /// Service ports that nobody chose: the app's old ones first, then any that are free.
    fn assign_ports(&self, before: &Tree, tree: &mut Tree) -> Result<(), Refusal> {
        let (first, last) = self.settings.local_ports;
        let new = |id: &AppId, app: &Arc<App>| {
            before.apps.get(id).is_none_or(|old| !Arc::ptr_eq(old, app))
        };
        let dynamic: Vec<Arc<App>> = tree
            .apps
            .iter()
            .filter(|(id, app)| new(id, app) && app.service_ports().contains(&0))
            .map(|(_, app)| Arc::clone(app))
            .collect();
        if dynamic.is_empty() {
            return Ok(());
        }
        // Those before count too: they are kept for whom they belonged to.
        let all = before.apps.values().chain(tree.apps.values());
        let used: BTreeSet<u16> = all.flat_map(|app| app.service_ports()).collect();
        let mut free = (first..=last).filter(|port| !used.contains(port));
        for app in dynamic {
            let asked = app.service_ports();
            let old = before.apps.get(&app.id).map(|old| old.service_ports()).unwrap_or_default();
            let mut own = old
                .into_iter()
                .filter(|port| (first..=last).contains(port) && !asked.contains(port));
            let mut ports = Vec::new();
            for &port in &asked {
                let port = if port == 0 { own.next().or_else(|| free.next()) } else { Some(port) };
                let Some(port) = port else {
                    let body = json!({"message": format!("no service port between {first} and {last} is free")});
                    return Err(Refusal { status: 500, body });
                };
                ports.push(port);
            }
            let mut app = App::clone(&app);
            app.set_service_ports(&ports);
            tree.apps.insert(app.id.clone(), Arc::new(app));
        }
        Ok(())
    }

    /// Gives everything that changed its new versions; what did not change stays what it was.
    fn set_versions(
        &self,
        before: &Tree,
        tree: &mut Tree,
        restart: &BTreeSet<AppId>,
        version: Stamp,
    ) {
        // Only the last line moves the time of the configuration when it merely restarts.
        let last = self.settings.release.has(11);
        for (id, app) in &mut tree.apps {
            let old = before.apps.get(id);
            if old.is_some_and(|old| Arc::ptr_eq(old, app)) && !restart.contains(id) {
                continue;
            }
            let mut new = App::clone(app);
            match old {
                None => (new.version, new.scaled, new.configured) = (version, version, version),
                Some(old) if old.is_upgrade(&new) => {
                    (new.version, new.scaled, new.configured) = (version, version, version);
                }
                Some(old) => {
                    (new.version, new.scaled, new.configured) =
                        (old.version, old.scaled, old.configured);
                    if old.instances() != new.instances() {
                        (new.version, new.scaled) = (version, version);
                    } else if restart.contains(id) {
                        new.version = version;
                        let moved = if last { &mut new.configured } else { &mut new.scaled };
                        *moved = version;
                    } else if old.fields == new.fields {
                        *app = Arc::clone(old);
                        continue;
                    }
                }
            }
            *app = Arc::new(new);
        }
    }

    fn remember(&mut self, before: &Tree, after: &Arc<Tree>) {
        for id in before.apps.keys().filter(|id| !after.apps.contains_key(id)) {
            self.versions.remove(id);
            self.failures.remove(id);
            self.launches.remove(id);
        }
        for (id, app) in &after.apps {
            if before.apps.get(id).is_some_and(|old| Arc::ptr_eq(old, app)) {
                continue;
            }
            let versions = self.versions.entry(id.clone()).or_default();
            versions.insert(app.version, Arc::clone(app));
            while versions.len() > MOST_VERSIONS {
                versions.pop_first();
            }
        }
        self.trees.push_back(Arc::clone(after));
        if self.trees.len() > MOST_VERSIONS {
            self.trees.pop_front();
        }
    }
}

/// What keeps data on an agent stays as large as it is, and where it is.
fn judge_residents(before: &Tree, after: &Tree) -> Result<(), Refusal> {
    for (id, new) in &after.apps {
        let Some(old) = before.apps.get(id) else { continue };
        if Arc::ptr_eq(old, new) || !(old.is_resident() || new.is_resident()) {
            continue;
        }
        let kept = |app: &App| -> Fields {
            let names = ["cpus", "mem", "disk", "gpus"];
            let mut kept: Fields =
                names.map(|name| (name.to_owned(), app.get(name).clone())).into_iter().collect();
            let volumes = app.get("container")["volumes"].as_array().cloned().unwrap_or_default();
            let volumes: Vec<Value> =
                volumes.into_iter().filter(|v| v.get("persistent").is_some()).collect();
            kept.insert("volumes".into(), volumes.into());
            let ports: Vec<Value> = app.ports().iter().map(|port| json!(port.host)).collect();
            kept.insert("ports".into(), ports.into());
            kept
        };
        let (old, new) = (kept(old), kept(new));
        let changed: Vec<(String, String)> = old
            .iter()
            .filter(|(name, value)| new.get(*name) != Some(*value))
            .map(|(name, _)| {
                (format!("{id}/{name}"), "who keeps data on an agent cannot change it".to_owned())
            })
            .collect();
        if !changed.is_empty() {
            return Err(Refusal::invalid(changed));
        }
    }
    Ok(())
}

/// So many times the instances, rounded up.
pub(super) fn scaled(count: usize, factor: f64) -> usize {
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let product = (count as f64 * factor).ceil();
    tidy(product).as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}
