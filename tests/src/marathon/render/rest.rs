//! Groups, deployments, what waits, and the server itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::agents::Reason;
use super::super::deployment::{Deployment, readiness as ready, step};
use super::super::instance::{Goal, Phase};
use super::super::path::AppId;
use super::super::stamp::Stamp;
use super::super::state::State;
use super::super::tree::Tree;
use super::{Embed, app, info};

/// Which members of a group are shown: groups, apps, and what is embedded into those.
pub(in super::super) fn groups_embed<'q>(
    asked: impl Iterator<Item = &'q str> + Clone,
) -> (bool, bool, Embed) {
    let embed = Embed::of(asked.clone().filter(|name| name.starts_with("group.apps.")));
    let mut all = asked.peekable();
    if all.peek().is_none() {
        return (true, true, embed);
    }
    let (mut groups, mut apps) = (false, false);
    for name in all {
        groups |= name == "group.groups";
        apps |= name == "group.apps";
    }
    (groups, apps, embed)
}

/// A group with all that is below it.
pub(in super::super) fn group(
    state: &State,
    tree: &Tree,
    id: &AppId,
    shown: (bool, bool, Embed),
    now: Stamp,
) -> Value {
    let (groups, apps, embed) = shown;
    let known = tree.groups.get(id);
    let dependencies = known.map_or(&tree.dependencies, |group| &group.dependencies);
    let version = known.map_or(tree.version, |group| group.version);
    let mut result = json!({
        "id": id.as_str(),
        "dependencies": dependencies.iter().map(AppId::as_str).collect::<Vec<_>>(),
        "version": version.json(),
    });
    if let Some(enforce) = known.and_then(|group| group.enforce_role) {
        result["enforceRole"] = enforce.into();
    } else if state.settings.release.has(9) && id.parent().is_root() && !id.is_root() {
        result["enforceRole"] = false.into();
    }
    if apps {
        result["apps"] = tree.apps_of(id).map(|app| info(state, app, embed, now)).collect();
        result["pods"] = json!([]);
    }
    if groups {
        let below = tree.groups_of(id).map(|id| group(state, tree, id, shown, now));
        result["groups"] = below.collect();
    }
    result
}

/// The results of readiness checks of an app's instances.
pub(super) fn readiness(state: &State, id: &AppId) -> Vec<Value> {
    let release = state.settings.release;
    let each = ready(state, id).filter_map(|instance| {
        let (check, result) = (instance.app.readiness()?, instance.ready.as_ref()?);
        let mut shown = json!({
            "name": check.name, "taskId": instance.task(release), "ready": result.ready,
        });
        if let Some((status, kind, body)) = &result.response {
            shown["lastResponse"] = json!({"status": status, "contentType": kind, "body": body});
        }
        Some(shown)
    });
    each.collect()
}

/// The running deployments.
pub(in super::super) fn deployments(state: &State) -> Value {
    state.deployments.iter().map(|deployment| running(state, deployment)).collect()
}

fn running(state: &State, deployment: &Deployment) -> Value {
    let actions = deployment.current().iter().map(|action| {
        json!({
            "action": action.name(), "app": action.app().as_str(),
            "readinessCheckResults": readiness(state, action.app()),
        })
    });
    json!({
        "id": deployment.id,
        "version": deployment.version.json(),
        "affectedApps": deployment.affected.iter().map(AppId::as_str).collect::<Vec<_>>(),
        "affectedPods": [],
        "steps": deployment.steps.iter().map(step).collect::<Vec<_>>(),
        "currentActions": actions.collect::<Vec<_>>(),
        "currentStep": deployment.at,
        "totalSteps": deployment.steps.len(),
    })
}

/// What waits for an agent, and why.
pub(in super::super) fn queue(state: &State, offers: bool, now: Stamp) -> Value {
    let release = state.settings.release;
    let mut queue = Vec::new();
    for (id, definition) in &state.tree.apps {
        let waits = |i: &&super::super::instance::Instance| {
            i.phase == Phase::Scheduled && i.goal == Goal::Running
        };
        let waiting: Vec<_> = state.instances_of(id).iter().filter(waits).collect();
        let (Some(first), Some(launch)) = (waiting.first(), state.launches.get(id)) else {
            continue;
        };
        let until = state.delayed(&first.app, now);
        let left = until.map_or(0, |until| until.since(now).as_secs());
        let mut last: BTreeMap<Reason, usize> = BTreeMap::new();
        for (_, reasons) in launch.last.values() {
            if let Some(first) = reasons.first() {
                *last.entry(*first).or_default() += 1;
            }
        }
        let mut summary = json!({
            "processedOffersCount": launch.processed, "unusedOffersCount": launch.unused,
            "rejectSummaryLastOffers": funnel(launch.last.len(), &last),
            "rejectSummaryLaunchAttempt": funnel(launch.processed, &launch.attempt),
        });
        for (name, at) in
            [("lastUnusedOfferAt", launch.last_unused), ("lastUsedOfferAt", launch.last_used)]
        {
            if let Some(at) = at {
                summary[name] = at.json();
            }
        }
        let mut item = json!({
            "app": app(definition, release), "count": waiting.len(),
            "delay": {"timeLeftSeconds": left, "overdue": until.is_none()},
            "since": launch.since.json(), "processedOffersSummary": summary,
        });
        if release.has(9) {
            item["role"] = definition.get("role").clone();
        }
        if offers {
            item["lastUnusedOffers"] = unused(state, &launch.last);
        }
        queue.push(item);
    }
    json!({"queue": queue})
}

/// Who was refused for what, each by the first reason there was.
fn funnel(processed: usize, refused: &BTreeMap<Reason, usize>) -> Vec<Value> {
    let mut left = processed;
    let each = Reason::ALL.iter().map(|reason| {
        let declined = refused.get(reason).copied().unwrap_or(0);
        let shown = json!({
            "reason": format!("{reason:?}"), "declined": declined, "processed": left,
        });
        left = left.saturating_sub(declined);
        shown
    });
    each.collect()
}

fn unused(state: &State, last: &BTreeMap<String, (Stamp, Vec<Reason>)>) -> Value {
    let each = last.iter().filter_map(|(host, (at, reasons))| {
        let agent = state.agents.get(host)?;
        let scalar = |name: &str, value: f64| json!({"name": name, "scalar": value, "role": "*"});
        let resources = [
            scalar("cpus", agent.has.cpus - agent.used.cpus),
            scalar("mem", agent.has.mem - agent.used.mem),
            scalar("disk", agent.has.disk - agent.used.disk),
        ];
        let attributes: Vec<Value> = agent
            .attributes
            .iter()
            .map(|(name, text)| json!({"name": name, "text": text}))
            .collect();
        let reasons: Vec<String> = reasons.iter().map(|reason| format!("{reason:?}")).collect();
        Some(json!({
            "offer": {
                "id": format!("{}-O{}", agent.id(), at.0), "agentId": agent.id(),
                "hostname": agent.host, "resources": resources, "attributes": attributes,
            },
            "timestamp": at.json(), "reason": reasons,
        }))
    });
    each.collect()
}

/// `/v2/info`, for a server at this port.
pub(in super::super) fn server(state: &State, port: u16, leader: &str) -> Value {
    let settings = &state.settings;
    let (first, last) = settings.local_ports;
    let mut config = json!({
        "access_control_allow_origin": null, "checkpoint": true, "decline_offer_duration": 120_000,
        "env_vars_prefix": null, "executor": "//cmd", "failover_timeout": 604_800,
        "features": settings.features, "framework_name": "marathon", "ha": true,
        "hostname": "localhost", "launch_token": 100, "launch_token_refresh_interval": 30_000,
        "leader_proxy_connection_timeout_ms": 5000, "leader_proxy_read_timeout_ms": 10_000,
        "local_port_max": last, "local_port_min": first, "master": "zk://localhost:2181/mesos",
        "max_instances_per_offer": 5, "mesos_bridge_name": "mesos-bridge",
        "mesos_heartbeat_failure_threshold": 5, "mesos_heartbeat_interval": 15_000,
        "mesos_leader_ui_url": "http://localhost:5050/", "mesos_role": settings.role,
        "mesos_user": "root", "min_revive_offers_interval": 5000, "offer_matching_timeout": 3000,
        "on_elected_prepare_timeout": 180_000, "reconciliation_initial_delay": 15_000,
        "reconciliation_interval": 600_000, "scale_apps_initial_delay": 15_000,
        "scale_apps_interval": 300_000, "store_cache": true, "task_launch_confirm_timeout": 300_000,
        "task_launch_timeout": 300_000, "task_lost_expunge_initial_delay": 300_000,
        "task_lost_expunge_interval": 30_000, "task_reservation_timeout": 20_000, "webui_url": null,
    });
    if let Some(network) = &settings.network {
        config["default_network_name"] = network.as_str().into();
    }
    json!({
        "name": "marathon",
        "version": settings.release.to_string(),
        "buildref": "unknown",
        "elected": true,
        "leader": leader,
        "frameworkId": "96d7da70-b731-4cfb-96a7-0ee877af615d-0000",
        "marathon_config": config,
        "zookeeper_config": {
            "zk": "zk://localhost:2181/marathon", "zk_compression": true,
            "zk_compression_threshold": 65_536, "zk_connection_timeout": 10_000,
            "zk_max_node_size": 1_024_000, "zk_max_versions": 50, "zk_session_timeout": 10_000,
            "zk_timeout": 10_000,
        },
        "http_config": {"http_port": port, "https_port": 8443},
    })
}
