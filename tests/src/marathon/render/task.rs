//! Tasks.

use serde_json::{Value, json};

use super::super::event::address;
use super::super::instance::{Failure, Instance, Phase};
use super::super::path::AppId;
use super::super::stamp::Stamp;
use super::super::state::State;

/// One task, if the instance has one: who waits for an agent has none.
pub(in super::super) fn task(state: &State, instance: &Instance, services: bool) -> Option<Value> {
    let release = state.settings.release;
    let agent = state.agents.get(instance.agent.as_ref()?)?;
    let mut shown = json!({
        "id": instance.task(release),
        "appId": instance.app.id.as_str(),
        "host": agent.host,
        "slaveId": agent.id(),
        "state": instance.state(state.settings.task_killing()),
    });
    if instance.is_active() {
        shown["stagedAt"] = instance.staged.json();
        if let Some(started) = instance.started {
            shown["startedAt"] = started.json();
        } else if !release.has(9) {
            shown["startedAt"] = Value::Null;
        }
        shown["version"] = instance.app.version.json();
        let ports: Vec<u16> = instance.host_ports.iter().flatten().copied().collect();
        shown["ports"] = ports.into();
    }
    if !instance.addresses.is_empty() {
        shown["ipAddresses"] = instance.addresses.iter().map(|a| address(a)).collect();
    }
    if release.has(9) {
        shown["role"] = instance.app.get("role").clone();
    }
    for (name, value) in [("region", &agent.region), ("zone", &agent.zone)] {
        if let Some(value) = value
            && release.has(6)
        {
            shown[name] = value.as_str().into();
        }
    }
    let health: Vec<Value> = super::super::tasks::known(instance)
        .map(|health| {
            let moment = |at: Option<Stamp>| at.map(Stamp::json);
            let mut shown = json!({
                "alive": health.alive(), "consecutiveFailures": health.failures,
                "instanceId": instance.id(release),
            });
            for (name, value) in [
                ("firstSuccess", moment(health.first_success)),
                ("lastSuccess", moment(health.last_success)),
                ("lastFailure", moment(health.last_failure)),
                ("lastFailureCause", health.cause.clone().map(Value::String)),
            ] {
                match value {
                    Some(value) => shown[name] = value,
                    None if !release.has(9) => shown[name] = Value::Null,
                    None => {}
                }
            }
            shown
        })
        .collect();
    if !health.is_empty() || release.has(9) {
        shown["healthCheckResults"] = health.into();
    }
    let ports = if services { instance.app.service_ports() } else { Vec::new() };
    if !ports.is_empty() || release.has(9) {
        shown["servicePorts"] = ports.into();
    }
    if release.has(9) {
        shown["localVolumes"] = json!([]);
    }
    Some(shown)
}

/// All tasks of some apps.
pub(in super::super) fn tasks<'i>(
    state: &State,
    apps: impl Iterator<Item = &'i AppId>,
    services: bool,
) -> Vec<Value> {
    let all = apps.flat_map(|app| state.instances_of(app));
    all.filter(|i| i.phase != Phase::Scheduled).filter_map(|i| task(state, i, services)).collect()
}

/// The last failure.
pub(in super::super) fn failure(app: &AppId, failure: &Failure) -> Value {
    json!({
        "appId": app.as_str(), "host": failure.host, "message": failure.message,
        "state": failure.state, "taskId": failure.task, "timestamp": failure.at.json(),
        "version": failure.version.json(), "slaveId": failure.agent,
    })
}
