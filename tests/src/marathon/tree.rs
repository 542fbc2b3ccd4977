//! Groups and their apps, and what becomes of them by a request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::app::App;
use super::normal::{self, Customs};
use super::path::AppId;
use super::read::Fields;
use super::refusal::Refusal;
use super::stamp::Stamp;

/// What is known of one group, besides what is in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Group {
    pub(super) dependencies: BTreeSet<AppId>,
    pub(super) enforce_role: Option<bool>,
    pub(super) version: Stamp,
}

/// All groups and apps at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tree {
    /// Without the root, which is always there.
    pub(super) groups: BTreeMap<AppId, Group>,
    pub(super) apps: BTreeMap<AppId, Arc<App>>,
    pub(super) version: Stamp,
    pub(super) dependencies: BTreeSet<AppId>,
}

impl Tree {
    pub(super) fn has_group(&self, id: &AppId) -> bool {
        id.is_root() || self.groups.contains_key(id)
    }

    /// The apps anywhere below a group.
    pub(super) fn apps_within(&self, group: &AppId) -> impl Iterator<Item = &Arc<App>> {
        self.apps.iter().filter(move |(id, _)| id.is_within(group)).map(|(_, app)| app)
    }

    /// The apps of a group itself.
    pub(super) fn apps_of(&self, group: &AppId) -> impl Iterator<Item = &Arc<App>> {
        self.apps.iter().filter(move |(id, _)| id.parent() == *group).map(|(_, app)| app)
    }

    /// The groups right below a group.
    pub(super) fn groups_of(&self, group: &AppId) -> impl Iterator<Item = &AppId> {
        self.groups.keys().filter(move |id| id.parent() == *group)
    }

    /// Makes a group, and those above it.
    pub(super) fn make_group(&mut self, id: &AppId, version: Stamp) -> Option<&mut Group> {
        for id in id.above() {
            self.groups.entry(id).or_default().version = version;
        }
        if id.is_root() {
            return None;
        }
        let group = self.groups.entry(id.clone()).or_default();
        group.version = version;
        Some(group)
    }

    /// Puts a definition in the place of what was there; when it changed is found out later.
    pub(super) fn put(&mut self, id: &AppId, fields: Fields, version: Stamp) {
        let old = self.apps.get(id);
        let (scaled, configured) =
            old.map_or((version, version), |old| (old.scaled, old.configured));
        let at = old.map_or(version, |old| old.version);
        let app = App { id: id.clone(), fields, version: at, scaled, configured };
        self.make_group(&id.parent(), version);
        self.apps.insert(id.clone(), Arc::new(app));
    }

    /// Removes a group with all that is in it.
    pub(super) fn remove_group(&mut self, id: &AppId) {
        self.apps.retain(|app, _| !app.is_within(id));
        self.groups.retain(|group, _| group != id && !group.is_within(id));
    }

    /// What is wrong with the tree as a whole.
    pub(super) fn judge(&self) -> Result<(), Refusal> {
        if let Some(id) = self.apps.keys().find(|id| self.groups.contains_key(id)) {
            let error = "it is a group already, or an app";
            return Err(Refusal::invalid(vec![(id.to_string(), error.into())]));
        }
        if super::plan::depths(self).is_some() {
            Ok(())
        } else {
            let error = "dependencies lead in a circle";
            Err(Refusal::invalid(vec![("/".into(), error.into())]))
        }
    }
}

/// What a request makes of a group.
#[derive(Debug)]
pub(super) struct GroupUpdate {
    id: AppId,
    apps: Option<Vec<(AppId, Fields)>>,
    groups: Option<Vec<GroupUpdate>>,
    dependencies: Option<BTreeSet<AppId>>,
    enforce_role: Option<bool>,
}

/// What a request about a group is.
#[derive(Debug)]
pub(super) enum GroupChange {
    /// Back to what it was.
    Version(Stamp),
    /// More or less of everything.
    Scale(f64),
    /// Other members.
    Update(GroupUpdate),
}

impl GroupChange {
    /// Of a body that has the schema's types.
    pub(super) fn of(body: &Fields, id: &AppId, customs: &Customs) -> Result<Self, Refusal> {
        let alone = |name: &str| {
            let error = "it stands alone";
            match body.len() {
                1 => Ok(()),
                _ => Err(Refusal::invalid(vec![(format!("/{name}"), error.into())])),
            }
        };
        if let Some(version) = body.get("version").and_then(Value::as_str) {
            alone("version")?;
            return Ok(Self::Version(Stamp::parse(version).unwrap_or_default()));
        }
        if let Some(factor) = body.get("scaleBy").and_then(Value::as_f64) {
            alone("scaleBy")?;
            return Ok(Self::Scale(factor));
        }
        GroupUpdate::of(body, id, "", customs).map(Self::Update)
    }
}

impl GroupUpdate {
    fn of(body: &Fields, id: &AppId, path: &str, customs: &Customs) -> Result<Self, Refusal> {
        let said = |name: &str| body.get(name).and_then(Value::as_array);
        if let Some(fault) = id.fault(false) {
            return Err(Refusal::invalid(vec![(format!("{path}/id"), fault)]));
        }
        let enforce_role = body.get("enforceRole").and_then(Value::as_bool);
        let top = id.parent().is_root() && !id.is_root();
        if enforce_role.is_some() && !top {
            let error = "only a group at the top says that";
            return Err(Refusal::invalid(vec![(format!("{path}/enforceRole"), error.into())]));
        }
        // The role of a top-level group that enforces it is that of all that is in it.
        let enforced;
        let customs = if enforce_role == Some(true) {
            let role = id.first().to_owned();
            enforced = Customs { roles: vec![role.clone()], role, ..customs.clone() };
            &enforced
        } else {
            customs
        };
        let child = |entry: &Value, at: &str| {
            let text = entry["id"].as_str().unwrap_or_default();
            let child = AppId::of(text, id);
            if child.is_within(id) {
                return Ok(child);
            }
            let error =
                format!("identifier {child} is not child of {id}. Hint: use relative paths.");
            Err(Refusal::invalid(vec![(format!("{at}/id"), error)]))
        };
        let mut apps = Vec::new();
        for (at, app) in said("apps").into_iter().flatten().enumerate() {
            let at = format!("{path}/apps({at})");
            let app_id = child(app, &at)?;
            if app_id.parent() != *id {
                let error = "it belongs to another group";
                return Err(Refusal::invalid(vec![(at, error.into())]));
            }
            let fields = app.as_object().cloned().unwrap_or_default();
            apps.push(normal::whole(fields, id, customs).map_err(|refusal| below(refusal, &at))?);
        }
        let mut groups = Vec::new();
        for (at, group) in said("groups").into_iter().flatten().enumerate() {
            let at = format!("{path}/groups({at})");
            let group_id = child(group, &at)?;
            let fields = group.as_object().cloned().unwrap_or_default();
            groups.push(Self::of(&fields, &group_id, &at, customs)?);
        }
        let dependencies = said("dependencies").map(|all| {
            all.iter().filter_map(Value::as_str).map(|text| AppId::of(text, id)).collect()
        });
        Ok(Self {
            id: id.clone(),
            apps: said("apps").map(|_| apps),
            groups: said("groups").map(|_| groups),
            dependencies,
            enforce_role,
        })
    }

    /// Makes it true: what a list leaves out is gone.
    pub(super) fn apply(&self, tree: &mut Tree, version: Stamp) {
        if let Some(group) = tree.make_group(&self.id, version) {
            if let Some(dependencies) = &self.dependencies {
                group.dependencies.clone_from(dependencies);
            }
            group.enforce_role = self.enforce_role.or(group.enforce_role);
        } else if let Some(dependencies) = &self.dependencies {
            tree.dependencies.clone_from(dependencies);
        }
        if let Some(apps) = &self.apps {
            let kept: BTreeSet<&AppId> = apps.iter().map(|(id, _)| id).collect();
            tree.apps.retain(|id, _| id.parent() != self.id || kept.contains(id));
            for (id, fields) in apps {
                tree.put(id, fields.clone(), version);
            }
        }
        if let Some(groups) = &self.groups {
            let kept: BTreeSet<&AppId> = groups.iter().map(|group| &group.id).collect();
            let gone: Vec<AppId> =
                tree.groups_of(&self.id).filter(|id| !kept.contains(id)).cloned().collect();
            // A group below a group that was named at once is kept with the one between.
            let within = |gone: &AppId| kept.iter().any(|kept| kept.is_within(gone));
            gone.iter().filter(|gone| !within(gone)).for_each(|gone| tree.remove_group(gone));
            for group in groups {
                group.apply(tree, version);
            }
        }
    }
}

/// The same refusal, of something that is part of another.
fn below(mut refusal: Refusal, path: &str) -> Refusal {
    for detail in refusal.body["details"].as_array_mut().into_iter().flatten() {
        let inner = detail["path"].as_str().unwrap_or_default().to_owned();
        detail["path"] = format!("{path}{}", if inner == "/" { "" } else { &inner }).into();
    }
    refusal
}
