//! Deployments, what waits, and the server itself.

use serde_json::json;

use super::super::change::{Ask, Draft};
use super::super::instance::{Goal, Phase};
use super::super::path::AppId;
use super::super::refusal::Refusal;
use super::super::render;
use super::super::stamp::Stamp;
use super::super::state::State;
use super::super::tree::Tree;
use super::{Answer, Call, Content, no_method};

/// None for a path that is not known.
pub(super) fn route(
    state: &mut State,
    call: &Call,
    path: &str,
    now: Stamp,
) -> Option<Result<Answer, Refusal>> {
    let get = call.method == "GET";
    let read = |answer: Answer| Some(if get { Ok(answer) } else { Err(no_method()) });
    if let Some(id) = path.strip_prefix("/v2/deployments/") {
        let delete = call.method == "DELETE";
        return Some(if delete { cancel(state, call, id, now) } else { Err(no_method()) });
    }
    if let Some(app) = path.strip_prefix("/v2/queue/").and_then(|rest| rest.strip_suffix("/delay"))
    {
        let delete = call.method == "DELETE";
        return Some(if delete { undelay(state, &AppId::absolute(app)) } else { Err(no_method()) });
    }
    match path {
        "/ping" => read(ping(call)),
        "/v2/info" => read(Answer::json(render::server(state, call.port, &call.leader))),
        "/v2/leader" => read(Answer::json(json!({"leader": call.leader}))),
        "/v2/deployments" => read(Answer::json(render::deployments(state))),
        "/v2/queue" => {
            let offers = call.all("embed").any(|name| name == "lastUnusedOffers");
            read(Answer::json(render::queue(state, offers, now)))
        }
        _ => None,
    }
}

/// Text if that is taken, JSON if only that is, nothing if neither.
fn ping(call: &Call) -> Answer {
    let accept = call.accept.as_deref().unwrap_or("*/*");
    let takes = |kind: &str| {
        accept.split(',').any(|one| one.split(';').next().unwrap_or(one).trim() == kind)
    };
    if ["*/*", "text/*", "text/plain", "text/html"].iter().any(|kind| takes(kind)) {
        Answer { content: Content::Text("pong".into()), ..Answer::status(200) }
    } else if takes("application/json") || takes("application/*") {
        Answer::json("pong".into())
    } else {
        Answer::status(204)
    }
}

fn cancel(state: &mut State, call: &Call, id: &str, now: Stamp) -> Result<Answer, Refusal> {
    let Some(deployment) = state.deployments.iter().find(|deployment| deployment.id == id) else {
        return Err(Refusal::missing(format!("DeploymentPlan {id} does not exist")));
    };
    if call.flag("force", false) {
        state.cancel(id, now);
        return Ok(Answer::status(202));
    }
    let (before, after) = (deployment.before.clone(), deployment.after.clone());
    let ask = Ask { force: true, ..Ask::default() };
    let accepted = state.change(&AppId::root(), ask, now, |_, draft| {
        revert(draft, &before, &after);
        Ok(())
    })?;
    Ok(Answer::accepted(&accepted))
}

/// Takes back what one deployment changed, and leaves what others did meanwhile.
fn revert(draft: &mut Draft, before: &Tree, after: &Tree) {
    for (id, new) in &after.apps {
        match before.apps.get(id) {
            None => {
                draft.tree.apps.remove(id);
            }
            Some(old) if !std::sync::Arc::ptr_eq(old, new) => {
                draft.tree.put(id, old.fields.clone(), draft.version);
            }
            Some(_) => {}
        }
    }
    for (id, old) in &before.apps {
        if !after.apps.contains_key(id) {
            draft.tree.put(id, old.fields.clone(), draft.version);
        }
    }
    // A group that it made goes again, unless somebody put something into it.
    let made = after.groups.keys().filter(|id| !before.groups.contains_key(id));
    let mut made: Vec<&AppId> = made.collect();
    made.reverse();
    for id in made {
        let empty =
            draft.tree.apps_of(id).next().is_none() && draft.tree.groups_of(id).next().is_none();
        if empty {
            draft.tree.remove_group(id);
        }
    }
}

fn undelay(state: &mut State, app: &AppId) -> Result<Answer, Refusal> {
    let waits = state
        .instances_of(app)
        .iter()
        .any(|i| i.phase == Phase::Scheduled && i.goal == Goal::Running);
    if !waits {
        return Err(Refusal::missing(format!("nothing of {app} waits")));
    }
    state.reset_delay(app);
    Ok(Answer::status(204))
}
