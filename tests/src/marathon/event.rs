//! What a Marathon tells those who listen.

use std::sync::Arc;

use serde_json::{Value, json};

use super::instance::Phase;
use super::path::AppId;
use super::stamp::Stamp;
use super::state::State;
use super::tree::Tree;

/// One thing that happened.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) kind: &'static str,
    /// All but the trees before and after.
    pub(super) body: Value,
    /// The trees of a deployment, which older releases tell too.
    pub(super) trees: Option<(Arc<Tree>, Arc<Tree>)>,
}

impl Event {
    /// With its kind and the time among its fields.
    pub(super) fn new(kind: &'static str, at: Stamp, mut body: Value) -> Self {
        body["eventType"] = kind.into();
        body["timestamp"] = at.json();
        Self { kind, body, trees: None }
    }
}

impl State {
    /// An instance is now in another phase: tells so in both languages.
    pub(super) fn changed(&mut self, app: &AppId, uuid: &str, now: Stamp) {
        let killing = self.settings.task_killing();
        let Some(instance) = self.instances_of(app).iter().find(|i| i.uuid == uuid) else { return };
        // Who has no agent yet has no task either.
        if instance.phase == Phase::Scheduled {
            return;
        }
        let (state, condition) = (instance.state(killing), instance.condition(killing));
        self.told(app, uuid, state, condition, "", now);
    }

    /// The same of an end that it does not come back from.
    pub(super) fn told(
        &mut self,
        app: &AppId,
        uuid: &str,
        state: &str,
        condition: &str,
        message: &str,
        now: Stamp,
    ) {
        let release = self.settings.release;
        let Some(instance) = self.instances_of(app).iter().find(|i| i.uuid == uuid) else { return };
        let Some(agent) = instance.agent.as_ref().and_then(|host| self.agents.get(host)) else {
            return;
        };
        let addresses: Vec<Value> = instance.addresses.iter().map(|a| address(a)).collect();
        let ports: Vec<u16> = instance.host_ports.iter().flatten().copied().collect();
        let update = json!({
            "slaveId": agent.id(), "taskId": instance.task(release), "taskStatus": state,
            "message": message, "appId": app.as_str(), "host": agent.host, "ipAddresses": addresses,
            "ports": ports, "version": instance.app.version.json(),
        });
        let change = json!({
            "instanceId": instance.id(release), "condition": condition, "runSpecId": app.as_str(),
            "agentId": agent.id(), "host": agent.host, "runSpecVersion": instance.app.version.json(),
        });
        self.event(Event::new("status_update_event", now, update));
        self.event(Event::new("instance_changed_event", now, change));
    }

    /// An instance is well now, or is not.
    pub(super) fn health_changed(&mut self, app: &AppId, uuid: &str, now: Stamp) {
        let release = self.settings.release;
        let Some(instance) = self.instances_of(app).iter().find(|i| i.uuid == uuid) else { return };
        let mut body = json!({
            "instanceId": instance.id(release), "runSpecId": app.as_str(),
            "runSpecVersion": instance.app.version.json(),
        });
        let alive = instance.healthy();
        if let Some(alive) = alive {
            body["healthy"] = alive.into();
        }
        let old = json!({
            "appId": app.as_str(), "instanceId": instance.id(release),
            "version": instance.app.version.json(), "alive": alive.unwrap_or(false),
        });
        self.event(Event::new("instance_health_changed_event", now, body));
        self.event(Event::new("health_status_changed_event", now, old));
    }
}

/// An address as Marathon tells it.
pub(super) fn address(address: &str) -> Value {
    let protocol = if address.contains(':') { "IPv6" } else { "IPv4" };
    json!({"ipAddress": address, "protocol": protocol})
}
