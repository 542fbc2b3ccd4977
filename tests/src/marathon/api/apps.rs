//! `/v2/apps`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::app::App;
use super::super::change::{Accepted, Ask, Draft};
use super::super::event::Event;
use super::super::normal;
use super::super::path::AppId;
use super::super::read::{self, APP, Fields, Read};
use super::super::refusal::Refusal;
use super::super::render::{self, Embed};
use super::super::stamp::Stamp;
use super::super::state::State;
use super::{Answer, Call, Content, foreign, no_method, select, tasks};

pub(super) fn route(
    state: &mut State,
    call: &Call,
    read: &mut Read,
    rest: &str,
    now: Stamp,
) -> Result<Answer, Refusal> {
    let method = call.method.as_str();
    if ["POST", "PUT", "PATCH"].contains(&method) && call.is_foreign() {
        return Err(foreign());
    }
    if rest.is_empty() {
        return match method {
            "GET" => list(state, call, now),
            "POST" => create(state, call, read, now),
            "PUT" => many(state, call, read, true, now),
            "PATCH" => many(state, call, read, false, now),
            _ => Err(no_method()),
        };
    }
    if let Some((id, task)) = split(rest, "tasks") {
        return tasks::of_app(state, call, id, task, now);
    }
    if let Some((id, version)) = split(rest, "versions")
        && method == "GET"
    {
        return versions(state, &AppId::absolute(id), version);
    }
    if let Some(id) = rest.strip_suffix("/restart")
        && method == "POST"
    {
        return restart(state, call, &AppId::absolute(id), now);
    }
    let id = AppId::absolute(rest);
    match method {
        "GET" => show(state, call, rest, now),
        "PUT" => one(state, call, read, &id, true, now),
        "PATCH" => one(state, call, read, &id, false, now),
        "DELETE" => delete(state, call, &id, now),
        _ => Err(no_method()),
    }
}

/// An id, a word, and perhaps one more name.
fn split<'p>(path: &'p str, word: &str) -> Option<(&'p str, Option<&'p str>)> {
    let (before, last) = path.rsplit_once('/')?;
    if last == word {
        return Some((before, None));
    }
    let (id, middle) = before.rsplit_once('/')?;
    (middle == word).then_some((id, Some(last)))
}

fn embeds(call: &Call) -> Embed {
    Embed::of(call.all("embed"))
}

fn list(state: &State, call: &Call, now: Stamp) -> Result<Answer, Refusal> {
    let embed = Embed { counts: true, deployments: true, ..embeds(call) };
    let within = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
    let label = call.asked("label").map(select::Selector::parse).transpose()?;
    let chosen = |app: &&Arc<App>| {
        call.asked("id").is_none_or(|part| within(app.id.as_str(), part))
            && call
                .asked("cmd")
                .is_none_or(|part| app.get("cmd").as_str().is_some_and(|cmd| within(cmd, part)))
            && label.as_ref().is_none_or(|label| label.matches(&app.labels()))
    };
    let apps = state.tree.apps.values().filter(chosen);
    let apps: Vec<Value> = apps.map(|app| render::info(state, app, embed, now)).collect();
    Ok(Answer::json(json!({"apps": apps})))
}

fn show(state: &State, call: &Call, rest: &str, now: Stamp) -> Result<Answer, Refusal> {
    let embed =
        Embed { tasks: true, counts: true, deployments: true, failure: true, ..embeds(call) };
    if let Some(group) =
        rest.strip_suffix('*').filter(|group| group.is_empty() || group.ends_with('/'))
    {
        let group = AppId::absolute(group);
        if !state.tree.has_group(&group) {
            return Err(Refusal::no_group(&group));
        }
        let apps = state.tree.apps_within(&group).map(|app| render::info(state, app, embed, now));
        return Ok(Answer::json(json!({"*": apps.collect::<Vec<_>>()})));
    }
    let id = AppId::absolute(rest);
    let app = state.tree.apps.get(&id).ok_or_else(|| Refusal::no_app(&id))?;
    Ok(Answer::json(json!({"app": render::info(state, app, embed, now)})))
}

fn versions(state: &State, id: &AppId, version: Option<&str>) -> Result<Answer, Refusal> {
    let known = state.versions.get(id).ok_or_else(|| Refusal::no_app(id))?;
    let Some(version) = version else {
        let all: Vec<Value> = known.keys().rev().map(|version| version.json()).collect();
        return Ok(Answer::json(json!({"versions": all})));
    };
    let Some(at) = Stamp::parse(version) else {
        return Err(Refusal::illegal(format!("Invalid format: \"{version}\"")));
    };
    let app = known.get(&at).ok_or_else(|| Refusal::no_app_in(id, at))?;
    Ok(Answer::json(render::app(app, state.settings.release)))
}

fn ask(call: &Call, default: bool) -> Ask {
    Ask { force: call.flag("force", default), ..Ask::default() }
}

fn create(state: &mut State, call: &Call, read: &mut Read, now: Stamp) -> Result<Answer, Refusal> {
    let body = read::json(&call.body)?;
    let fields = read.object(&body, APP, true);
    read.done()?;
    let root = AppId::root();
    let id = AppId::absolute(fields["id"].as_str().unwrap_or_default());
    let (id, fields) = normal::whole(fields, &root, &state.customs(&id))?;
    let said = fields.clone();
    let accepted = state.change(&id.parent(), ask(call, false), now, |_, draft| {
        if draft.tree.apps.contains_key(&id) {
            return Err(Refusal::exists(format!("An app with id [{id}] already exists.")));
        }
        draft.tree.put(&id, fields, draft.version);
        Ok(())
    })?;
    post_event(state, call, &accepted, &id, now);
    // Marathon answers with what it was told, before it gave it ports and versions.
    let version = accepted.version;
    let app = App { id: id.clone(), fields: said, version, scaled: version, configured: version };
    let mut body = render::app(&app, state.settings.release);
    if let Some(fields) = body.as_object_mut() {
        fields.remove("versionInfo");
    }
    for count in ["tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy"] {
        body[count] = 0.into();
    }
    body["deployments"] = json!([{"id": accepted.id}]);
    let answer = Answer { content: Content::Json(body), ..Answer::accepted(&accepted) };
    Ok(answer.created(id.as_str()))
}

/// What a request makes of an app.
enum Update {
    Whole(Fields),
    Part(Fields),
    Version(Stamp),
}

fn update(
    state: &State,
    read: &mut Read,
    body: &Value,
    id: &AppId,
    part: bool,
) -> Result<Update, Refusal> {
    let customs = state.customs(id);
    let root = AppId::root();
    let mut body = body.clone();
    if !part {
        if body.is_object() {
            body["id"] = id.json();
        }
        let fields = read.object(&body, APP, true);
        read.done()?;
        return normal::whole(fields, &root, &customs).map(|(_, fields)| Update::Whole(fields));
    }
    let fields = read.object(&body, APP, false);
    read.done()?;
    let mut fields = normal::part(fields, &root, &customs)?;
    if let Some(version) = fields.get("version").and_then(Value::as_str) {
        return Ok(Update::Version(Stamp::parse(version).unwrap_or_default()));
    }
    fields.remove("id");
    Ok(Update::Part(fields))
}

/// Applies it to what there is.
fn apply(state: &State, draft: &mut Draft, id: &AppId, update: Update) -> Result<(), Refusal> {
    let fields = match update {
        Update::Whole(fields) => fields,
        Update::Version(version) => {
            let known = state.versions.get(id).and_then(|all| all.get(&version));
            known.ok_or_else(|| Refusal::no_app(id))?.fields.clone()
        }
        Update::Part(part) => {
            let old = draft.tree.apps.get(id).ok_or_else(|| Refusal::no_app(id))?;
            let mut merged = normal::merged(&old.fields, part);
            merged.insert("id".into(), id.json());
            normal::whole(merged, &AppId::root(), &state.customs(id))?.1
        }
    };
    draft.tree.put(id, fields, draft.version);
    Ok(())
}

fn one(
    state: &mut State,
    call: &Call,
    read: &mut Read,
    id: &AppId,
    creates: bool,
    now: Stamp,
) -> Result<Answer, Refusal> {
    let exists = state.tree.apps.contains_key(id);
    if !exists && !creates {
        return Err(Refusal::no_app(id));
    }
    let part = exists && (!creates || call.flag("partialUpdate", true));
    let body = read::json(&call.body)?;
    let update = update(state, read, &body, id, part)?;
    let accepted = state.change(&id.parent(), ask(call, false), now, |state, draft| {
        apply(state, draft, id, update)
    })?;
    post_event(state, call, &accepted, id, now);
    let answer = Answer::accepted(&accepted);
    Ok(if exists { answer } else { answer.created(id.as_str()) })
}

fn many(
    state: &mut State,
    call: &Call,
    read: &mut Read,
    creates: bool,
    now: Stamp,
) -> Result<Answer, Refusal> {
    let body = read::json(&call.body)?;
    let part = !creates || call.flag("partialUpdate", true);
    // The types of all of them are judged before anything else is.
    let all = read.objects(&body, APP, !part);
    read.done()?;
    let mut updates = Vec::new();
    for (fields, body) in all.iter().zip(body.as_array().into_iter().flatten()) {
        let Some(text) = fields.get("id").and_then(Value::as_str) else {
            return Err(Refusal::illegal("an update needs an id"));
        };
        let id = AppId::absolute(text);
        let exists = state.tree.apps.contains_key(&id);
        if !exists && !creates {
            return Err(Refusal::no_app(&id));
        }
        let mut quiet = Read::new(state.settings.release);
        updates.push((id.clone(), update(state, &mut quiet, body, &id, part && exists)?));
    }
    let accepted = state.change(&AppId::root(), ask(call, false), now, |state, draft| {
        updates.into_iter().try_for_each(|(id, update)| apply(state, draft, &id, update))
    })?;
    Ok(Answer::accepted(&accepted))
}

fn delete(state: &mut State, call: &Call, id: &AppId, now: Stamp) -> Result<Answer, Refusal> {
    // It says yes to force unless told otherwise, whatever its documentation says.
    let accepted = state.change(&id.parent(), ask(call, true), now, |_, draft| {
        draft.tree.apps.remove(id).map(|_| ()).ok_or_else(|| Refusal::no_app(id))
    })?;
    Ok(Answer::accepted(&accepted))
}

fn restart(state: &mut State, call: &Call, id: &AppId, now: Stamp) -> Result<Answer, Refusal> {
    let accepted = state.change(&id.parent(), ask(call, false), now, |_, draft| {
        if !draft.tree.apps.contains_key(id) {
            return Err(Refusal::no_app(id));
        }
        draft.restart.insert(id.clone());
        Ok(())
    })?;
    Ok(Answer::accepted(&accepted))
}

fn post_event(state: &mut State, call: &Call, accepted: &Accepted, id: &AppId, now: Stamp) {
    let Some(app) = accepted.after.apps.get(id) else { return };
    let definition = render::app(app, state.settings.release);
    let body = json!({"clientIp": call.client, "uri": call.path, "appDefinition": definition});
    state.event(Event::new("api_post_event", now, body));
}
