//! `/v2/groups`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::app::App;
use super::super::change::{Accepted, Ask, Draft, scaled};
use super::super::deployment::step;
use super::super::normal::Customs;
use super::super::path::AppId;
use super::super::read::{self, GROUP, GROUP_SETTINGS, Read};
use super::super::refusal::Refusal;
use super::super::render;
use super::super::stamp::Stamp;
use super::super::state::State;
use super::super::tree::{GroupChange, Tree};
use super::{Answer, Call, gate, no_method};

pub(super) fn route(
    state: &mut State,
    call: &Call,
    read: &mut Read,
    rest: &str,
    now: Stamp,
) -> Result<Answer, Refusal> {
    let id = AppId::absolute(rest);
    match call.method.as_str() {
        "GET" => get(state, call, rest, now),
        "POST" => post(state, call, read, &id, now),
        "PUT" => put(state, call, read, &id, now),
        "PATCH" => patch(state, call, read, &id),
        "DELETE" => delete(state, call, &id, now),
        _ => Err(no_method()),
    }
}

fn get(state: &State, call: &Call, rest: &str, now: Stamp) -> Result<Answer, Refusal> {
    let shown = render::groups_embed(call.all("embed"));
    let missing = |id: &AppId| Refusal::no_group(id);
    let names: Vec<&str> = rest.split('/').collect();
    let before = |names: &[&str]| AppId::absolute(&names.join("/"));
    match names.as_slice() {
        [group @ .., "apps"] => {
            let group = before(group);
            let apps = state.tree.apps_within(&group);
            let apps: Vec<Value> = apps.map(|app| render::info(state, app, shown.2, now)).collect();
            Ok(Answer::json(apps.into()))
        }
        [group @ .., "versions"] => {
            let group = before(group);
            if !state.tree.has_group(&group) {
                return Err(missing(&group));
            }
            let versions: BTreeSet<Stamp> =
                state.trees.iter().filter_map(|tree| version(tree, &group)).collect();
            Ok(Answer::json(versions.iter().rev().map(|version| version.json()).collect()))
        }
        [group @ .., "versions", at] => {
            let group = before(group);
            let at = Stamp::parse(at)
                .ok_or_else(|| Refusal::illegal(format!("Invalid format: \"{at}\"")))?;
            let tree = state.trees.iter().rev().find(|tree| version(tree, &group) == Some(at));
            let tree = tree.ok_or_else(|| missing(&group))?;
            Ok(Answer::json(render::group(state, tree, &group, shown, now)))
        }
        _ => {
            let group = AppId::absolute(rest);
            if !state.tree.has_group(&group) {
                return Err(missing(&group));
            }
            Ok(Answer::json(render::group(state, &state.tree, &group, shown, now)))
        }
    }
}

fn version(tree: &Tree, group: &AppId) -> Option<Stamp> {
    if group.is_root() { Some(tree.version) } else { tree.groups.get(group).map(|g| g.version) }
}

/// The change that a body asks for, and the group that it is about.
fn asked(
    state: &State,
    call: &Call,
    read: &mut Read,
    id: &AppId,
) -> Result<(AppId, GroupChange), Refusal> {
    let body = read::json(&call.body)?;
    let fields = read.object(&body, GROUP, false);
    read.done()?;
    let id = fields
        .get("id")
        .and_then(Value::as_str)
        .map_or_else(|| id.clone(), |text| AppId::of(text, id));
    let mut customs = state.customs(&id);
    // An app keeps a role that it has.
    let own = state.tree.apps_within(&id).filter_map(|app| app.get("role").as_str());
    let own: Vec<String> = own.map(str::to_owned).collect();
    customs.roles.extend(own);
    customs.roles.push(id.first().to_owned());
    let customs = Customs { ..customs };
    let change = GroupChange::of(&without_id(fields), &id, &customs)?;
    Ok((id, change))
}

fn without_id(mut fields: read::Fields) -> read::Fields {
    // A version or a scale stands alone, but for the id.
    fields.remove("id");
    fields.remove("pods");
    fields
}

fn edit(state: &State, draft: &mut Draft, id: &AppId, change: GroupChange) -> Result<(), Refusal> {
    match change {
        GroupChange::Update(update) => {
            update.apply(&mut draft.tree, draft.version);
            Ok(())
        }
        GroupChange::Scale(factor) => {
            let apps: Vec<App> = draft.tree.apps_within(id).map(|app| App::clone(app)).collect();
            for mut app in apps {
                app.set_instances(scaled(app.instances(), factor));
                draft.tree.put(&app.id, app.fields, draft.version);
            }
            Ok(())
        }
        GroupChange::Version(at) => {
            let tree = state.trees.iter().rev().find(|tree| version(tree, id) == Some(at));
            let Some(tree) = tree else {
                let error = format!("{id} has no version {at}");
                return Err(Refusal::illegal(error));
            };
            draft.tree.remove_group(id);
            if id.is_root() {
                draft.tree.apps.clear();
                draft.tree.groups.clear();
            }
            draft.tree.make_group(id, draft.version);
            for (group, known) in
                tree.groups.iter().filter(|(group, _)| *group == id || group.is_within(id))
            {
                draft.tree.groups.insert(group.clone(), known.clone());
            }
            for app in tree.apps_within(id) {
                draft.tree.put(&app.id, app.fields.clone(), draft.version);
                // What it was before counts, not what was just removed.
                if let Some(old) = state.tree.apps.get(&app.id) {
                    let mut back = App::clone(old);
                    back.fields.clone_from(&app.fields);
                    draft.tree.apps.insert(app.id.clone(), back.into());
                }
            }
            Ok(())
        }
    }
}

fn ask(call: &Call) -> Ask {
    Ask { force: call.flag("force", false), ..Ask::default() }
}

fn post(
    state: &mut State,
    call: &Call,
    read: &mut Read,
    id: &AppId,
    now: Stamp,
) -> Result<Answer, Refusal> {
    let (id, change) = asked(state, call, read, id)?;
    if state.tree.has_group(&id) {
        let error = format!("Group {id} is already created. Use PUT to change this group.");
        return Err(Refusal::exists(error));
    }
    if state.tree.apps.contains_key(&id) {
        return Err(Refusal::exists(format!("An app with the path {id} already exists.")));
    }
    let accepted = apply(state, call, &id, change, now)?;
    Ok(Answer::accepted(&accepted).created(id.as_str()))
}

fn apply(
    state: &mut State,
    call: &Call,
    id: &AppId,
    change: GroupChange,
    now: Stamp,
) -> Result<Accepted, Refusal> {
    state.change(&id.parent(), ask(call), now, |state, draft| edit(state, draft, id, change))
}

fn put(
    state: &mut State,
    call: &Call,
    read: &mut Read,
    id: &AppId,
    now: Stamp,
) -> Result<Answer, Refusal> {
    let (id, change) = asked(state, call, read, id)?;
    if call.flag("dryRun", false) {
        let before = state.tree.clone();
        let (_, steps) =
            state.draft(&before, now, |state, draft| edit(state, draft, &id, change))?;
        let steps: Vec<Value> = steps.iter().map(step).collect();
        return Ok(Answer::json(json!({"steps": steps})));
    }
    apply(state, call, &id, change, now).map(|accepted| Answer::accepted(&accepted))
}

fn patch(state: &mut State, call: &Call, read: &mut Read, id: &AppId) -> Result<Answer, Refusal> {
    gate(state.settings.release, 9)?;
    let body = read::json(&call.body)?;
    let fields = read.object(&body, GROUP_SETTINGS, false);
    read.done()?;
    if id.is_root() || !id.parent().is_root() {
        let error = "it is not at the top";
        return Err(Refusal::invalid(vec![("/".into(), error.into())]));
    }
    let mut tree = Tree::clone(&state.tree);
    let group = tree.groups.get_mut(id).ok_or_else(|| Refusal::no_group(id))?;
    group.enforce_role = fields.get("enforceRole").and_then(Value::as_bool).or(Some(false));
    state.tree = tree.into();
    Ok(Answer::status(200))
}

fn delete(state: &mut State, call: &Call, id: &AppId, now: Stamp) -> Result<Answer, Refusal> {
    let accepted = state.change(&id.parent(), ask(call), now, |_, draft| {
        if !draft.tree.has_group(id) {
            return Err(Refusal::no_group(id));
        }
        if id.is_root() {
            draft.tree.apps.clear();
            draft.tree.groups.clear();
        }
        draft.tree.remove_group(id);
        Ok(())
    })?;
    Ok(Answer::accepted(&accepted))
}
