//! What has to be done to get from one tree to another, in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::app::App;
use super::path::AppId;
use super::tree::Tree;

/// One thing to do with one app.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    /// It begins to exist, without instances.
    Start(AppId),
    /// It ends to exist.
    Stop(AppId),
    /// It gets as many instances as wanted.
    Scale(AppId),
    /// All of its instances are replaced.
    Restart(AppId),
}

impl Action {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Start(_) => "StartApplication",
            Self::Stop(_) => "StopApplication",
            Self::Scale(_) => "ScaleApplication",
            Self::Restart(_) => "RestartApplication",
        }
    }

    pub(super) fn app(&self) -> &AppId {
        let (Self::Start(id) | Self::Stop(id) | Self::Scale(id) | Self::Restart(id)) = self;
        id
    }
}

/// What is done at the same time.
pub(super) type Step = Vec<Action>;

/// The steps from one tree to another, one after the other.
pub(super) fn steps(from: &Tree, to: &Tree) -> Vec<Step> {
    let gone = from.apps.keys().filter(|id| !to.apps.contains_key(id));
    let new = to.apps.keys().filter(|id| !from.apps.contains_key(id));
    let mut steps: Vec<Step> =
        vec![gone.cloned().map(Action::Stop).collect(), new.cloned().map(Action::Start).collect()];
    let depths = depths(to).unwrap_or_default();
    let mut layers: BTreeMap<usize, Step> = BTreeMap::new();
    for (id, app) in &to.apps {
        if let Some(action) = action(from.apps.get(id), app) {
            layers.entry(depths.get(id).copied().unwrap_or(0)).or_default().push(action);
        }
    }
    steps.extend(layers.into_values());
    steps.retain(|step| !step.is_empty());
    steps
}

fn action(old: Option<&Arc<App>>, new: &Arc<App>) -> Option<Action> {
    let id = || new.id.clone();
    let Some(old) = old else { return Some(Action::Scale(id())) };
    if Arc::ptr_eq(old, new) {
        return None;
    }
    let upgrade = old.is_upgrade(new);
    let scale = old.instances() != new.instances();
    let only_scale = scale && !upgrade;
    let ends = new.instances() == 0 && upgrade;
    if only_scale || ends {
        Some(Action::Scale(id()))
    } else if upgrade || (old.version, old.configured) != (new.version, new.configured) {
        Some(Action::Restart(id()))
    } else {
        None
    }
}

/// How long the longest way is from each app along what it depends on; none if one leads in a circle.
pub(super) fn depths(tree: &Tree) -> Option<BTreeMap<AppId, usize>> {
    let mut edges: BTreeMap<&AppId, BTreeSet<&AppId>> = BTreeMap::new();
    for (id, app) in &tree.apps {
        let mut needed = app.dependencies();
        let above = id.above();
        needed
            .extend(above.filter_map(|g| tree.groups.get(&g)).flat_map(|g| g.dependencies.clone()));
        if needed.is_empty() {
            continue;
        }
        let targets = needed
            .iter()
            .flat_map(|on| tree.apps.keys().filter(move |app| *app == on || app.is_within(on)));
        edges.insert(id, targets.filter(|target| *target != id).collect());
    }
    let mut known = BTreeMap::new();
    for id in tree.apps.keys() {
        depth(id, &edges, &mut known, &mut BTreeSet::new())?;
    }
    Some(known.into_iter().map(|(id, depth)| (id.clone(), depth)).collect())
}

fn depth<'t>(
    id: &'t AppId,
    edges: &BTreeMap<&'t AppId, BTreeSet<&'t AppId>>,
    known: &mut BTreeMap<&'t AppId, usize>,
    way: &mut BTreeSet<&'t AppId>,
) -> Option<usize> {
    if let Some(depth) = known.get(id) {
        return Some(*depth);
    }
    if !way.insert(id) {
        return None;
    }
    let mut longest = 0;
    for next in edges.get(id).into_iter().flatten() {
        longest = longest.max(depth(next, edges, known, way)?);
    }
    way.remove(id);
    known.insert(id, longest + 1);
    Some(longest + 1)
}
