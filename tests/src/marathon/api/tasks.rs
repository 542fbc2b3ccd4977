//! `/v2/tasks`, and the tasks of one app.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::app::App;
use super::super::change::Ask;
use super::super::instance::{Goal, Instance, Phase, app_of_task};
use super::super::path::AppId;
use super::super::read::{self, DELETE_TASKS, Read};
use super::super::refusal::Refusal;
use super::super::render;
use super::super::stamp::Stamp;
use super::super::state::State;
use super::{Answer, Call, foreign, no_method};

/// Which instances of which apps.
type Chosen = BTreeMap<AppId, BTreeSet<String>>;

pub(super) fn route(
    state: &mut State,
    call: &Call,
    read: &mut Read,
    rest: &str,
    now: Stamp,
) -> Result<Answer, Refusal> {
    match (call.method.as_str(), rest) {
        ("GET", "") => Ok(all(state, call)),
        ("POST", "delete") if call.is_foreign() => Err(foreign()),
        ("POST", "delete") => delete(state, call, read, now),
        (_, "" | "delete") => Err(no_method()),
        _ => Err(Refusal::lost(state.settings.release, &call.path)),
    }
}

fn all(state: &State, call: &Call) -> Answer {
    let asked: Vec<String> =
        call.all("status").chain(call.all("status[]")).map(str::to_lowercase).collect();
    let known: Vec<&str> = asked
        .iter()
        .filter_map(|status| match status.as_str() {
            "running" => Some("TASK_RUNNING"),
            "staging" => Some("TASK_STAGING"),
            _ => None,
        })
        .collect();
    let mut tasks = render::tasks(state, state.instances.keys(), true);
    tasks.retain(|task| known.is_empty() || known.iter().any(|known| task["state"] == **known));
    Answer::json(json!({"tasks": tasks}))
}

fn delete(state: &mut State, call: &Call, read: &mut Read, now: Stamp) -> Result<Answer, Refusal> {
    let body = read::json(&call.body)?;
    let fields = read.object(&body, DELETE_TASKS, true);
    read.done()?;
    let release = state.settings.release;
    let mut chosen = Chosen::new();
    for id in fields["ids"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let Some(app) = app_of_task(id) else {
            return Err(Refusal::bad(format!("Invalid task id '{id}'.")));
        };
        let found = state.instances_of(&app).iter().find(|i| is_of(i, id, release));
        if let Some(found) = found {
            chosen.entry(app).or_default().insert(found.uuid.clone());
        }
    }
    let killed = end(state, call, chosen, now)?;
    Ok(match killed {
        Killed::Scaled(answer) => answer,
        Killed::Tasks(tasks) => Answer::json(json!({"tasks": tasks})),
    })
}

/// Whether a client means this instance: the attempt does not matter.
fn is_of(instance: &Instance, task: &str, release: super::Release) -> bool {
    let id = instance.id(release);
    instance.phase != Phase::Scheduled
        && (task == instance.task(release) || task == id || task.starts_with(&format!("{id}.")))
}

pub(super) fn of_app(
    state: &mut State,
    call: &Call,
    id: &str,
    task: Option<&str>,
    now: Stamp,
) -> Result<Answer, Refusal> {
    match (call.method.as_str(), task) {
        ("GET", None) => list(state, id),
        ("DELETE", None) => many(state, call, &AppId::absolute(id), now),
        ("DELETE", Some(task)) => one(state, call, &AppId::absolute(id), task, now),
        _ => Err(no_method()),
    }
}

fn list(state: &State, id: &str) -> Result<Answer, Refusal> {
    if let Some(group) =
        id.strip_suffix('*').filter(|group| group.is_empty() || group.ends_with('/'))
    {
        let group = AppId::absolute(group);
        if !state.tree.has_group(&group) {
            return Err(Refusal::no_group(&group));
        }
        let apps: Vec<AppId> = state.tree.apps_within(&group).map(|app| app.id.clone()).collect();
        return Ok(Answer::json(json!({"tasks": render::tasks(state, apps.iter(), false)})));
    }
    let id = AppId::absolute(id);
    if !state.tree.apps.contains_key(&id) {
        return Err(Refusal::no_app(&id));
    }
    Ok(Answer::json(json!({"tasks": render::tasks(state, std::iter::once(&id), false)})))
}

fn many(state: &mut State, call: &Call, id: &AppId, now: Stamp) -> Result<Answer, Refusal> {
    if !state.tree.apps.contains_key(id) {
        return Err(Refusal::no_app(id));
    }
    let host = call.asked("host").filter(|host| *host != "*");
    let here = |i: &&Instance| {
        i.phase != Phase::Scheduled && host.is_none_or(|host| i.agent.as_deref() == Some(host))
    };
    let chosen = state.instances_of(id).iter().filter(here).map(|i| i.uuid.clone()).collect();
    Ok(match end(state, call, [(id.clone(), chosen)].into(), now)? {
        Killed::Scaled(answer) => answer,
        Killed::Tasks(tasks) => Answer::json(json!({"tasks": tasks})),
    })
}

fn one(
    state: &mut State,
    call: &Call,
    id: &AppId,
    task: &str,
    now: Stamp,
) -> Result<Answer, Refusal> {
    if !state.tree.apps.contains_key(id) {
        return Err(Refusal::no_app(id));
    }
    let release = state.settings.release;
    let found = state.instances_of(id).iter().filter(|i| is_of(i, task, release));
    let found: BTreeSet<String> = found.map(|i| i.uuid.clone()).collect();
    let unknown = found.is_empty();
    match end(state, call, [(id.clone(), found)].into(), now)? {
        Killed::Scaled(answer) => Ok(answer),
        Killed::Tasks(_) if unknown => {
            Err(Refusal::missing(format!("Task '{task}' does not exist")))
        }
        Killed::Tasks(tasks) => Ok(Answer::json(json!({"task": tasks.first()}))),
    }
}

enum Killed {
    /// A deployment does it.
    Scaled(Answer),
    /// These were told to end.
    Tasks(Vec<Value>),
}

fn end(state: &mut State, call: &Call, chosen: Chosen, now: Stamp) -> Result<Killed, Refusal> {
    let (scale, wipe) = (call.flag("scale", false), call.flag("wipe", false));
    if scale && wipe {
        return Err(Refusal::bad("scale and wipe do not go together"));
    }
    if scale {
        return shrink(state, call, chosen, now).map(Killed::Scaled);
    }
    let mut shown = Vec::new();
    for (app, uuids) in &chosen {
        for uuid in uuids {
            let found = state.instances_of(app).iter().find(|i| i.uuid == *uuid);
            shown.extend(found.and_then(|i| render::task(state, i, false)));
            let goal = if wipe { Goal::Gone } else { Goal::Running };
            state.kill(app, uuid, goal, now);
            state.heal.insert(app.clone(), now);
        }
    }
    Ok(Killed::Tasks(shown))
}

/// Ends them, and wants fewer.
fn shrink(state: &mut State, call: &Call, chosen: Chosen, now: Stamp) -> Result<Answer, Refusal> {
    let mut fewer = BTreeMap::new();
    for (app, uuids) in &chosen {
        if state.instances_of(app).is_empty() {
            return Err(Refusal::missing(format!("Path '{app}' does not exist")));
        }
        let counts =
            |i: &&Instance| uuids.contains(&i.uuid) && i.is_active() && i.phase != Phase::Killing;
        fewer.insert(app.clone(), state.instances_of(app).iter().filter(counts).count());
    }
    let ask = Ask { force: call.flag("force", false), kill: chosen };
    let accepted = state.change(&AppId::root(), ask, now, |_, draft| {
        for (id, fewer) in &fewer {
            let Some(app) = draft.tree.apps.get(id) else { continue };
            let mut app = App::clone(app);
            app.set_instances(app.instances().saturating_sub(*fewer));
            draft.tree.put(id, app.fields, draft.version);
        }
        Ok(())
    })?;
    Ok(Answer::accepted(&accepted))
}
