//! An app as a request says it, for the two families of versions.

use serde_json::{Map, Value, json};

use super::wire::Version;
use crate::model::app::MESOS_BRIDGE;
use crate::model::{AppId, Definition};

/// The whole app: what is left out becomes the server's default.
pub(super) fn encode(
    definition: &Definition,
    id: &AppId,
    instances: u32,
    version: Version,
) -> Value {
    let mut app = definition.0.clone();
    app.insert("id".to_owned(), id.as_str().into());
    app.insert("instances".to_owned(), instances.into());
    let bridge = is_bridge(&app);
    if let Some(Value::Object(container)) = app.get_mut("container") {
        container.entry("type").or_insert_with(|| "DOCKER".into());
        if let Some(Value::Array(mappings)) = container.get_mut("portMappings") {
            for mapping in mappings.iter_mut().filter_map(Value::as_object_mut) {
                mapping.entry("containerPort").or_insert_with(|| 0.into());
                if bridge {
                    mapping.entry("hostPort").or_insert_with(|| 0.into());
                }
            }
        }
    }
    if let Some(Value::Array(definitions)) = app.get_mut("portDefinitions") {
        for port in definitions.iter_mut().filter_map(Value::as_object_mut) {
            port.entry("port").or_insert_with(|| 0.into());
        }
    }
    if let Some(Value::Array(checks)) = app.get_mut("healthChecks") {
        for check in checks.iter_mut().filter_map(Value::as_object_mut) {
            check.entry("protocol").or_insert_with(|| "HTTP".into());
            let by_command = check.get("protocol").is_some_and(|p| p == "COMMAND");
            if !by_command && !check.contains_key("port") {
                check.entry("portIndex").or_insert_with(|| 0.into());
            }
        }
    }
    if version.has_networks() {
        app.entry("networks").or_insert_with(|| json!([{"mode": "host"}]));
    } else {
        backdate(&mut app);
    }
    Value::Object(app)
}

fn first_network(app: &Map<String, Value>) -> Option<&Value> {
    app.get("networks")?.as_array()?.first()
}

fn is_bridge(app: &Map<String, Value>) -> bool {
    first_network(app).is_some_and(|n| n.get("mode").is_some_and(|m| m == "container/bridge"))
}

/// Networks and port mappings as versions before 1.5 know them.
fn backdate(app: &mut Map<String, Value>) {
    let network = first_network(app).cloned();
    app.remove("networks");
    let mode = network.as_ref().and_then(|n| n.get("mode")?.as_str()).unwrap_or("host");
    let word = match mode {
        "host" => "HOST",
        "container/bridge" => "BRIDGE",
        _ => "USER",
    };
    let container = app.get_mut("container").and_then(Value::as_object_mut);
    let mut discovery = None;
    if let Some(container) = container {
        let mappings = container.remove("portMappings");
        let docker = container.get("type").is_some_and(|t| t == "DOCKER");
        match container.get_mut("docker").and_then(Value::as_object_mut) {
            Some(fields) if docker => {
                fields.insert("network".to_owned(), word.into());
                if let Some(mappings) = mappings {
                    fields.insert("portMappings".to_owned(), mappings);
                }
            }
            _ => discovery = mappings.map(|all| discovered(&all)),
        }
    }
    if word == "USER" || discovery.is_some() {
        let mut address = Map::new();
        if word == "BRIDGE" {
            address.insert("networkName".to_owned(), MESOS_BRIDGE.into());
        }
        for (from, to) in [("name", "networkName"), ("labels", "labels")] {
            if let Some(value) = network.as_ref().and_then(|n| n.get(from)) {
                address.insert(to.to_owned(), value.clone());
            }
        }
        if let Some(ports) = discovery {
            address.insert("discovery".to_owned(), json!({"ports": ports}));
        }
        app.insert("ipAddress".to_owned(), address.into());
    }
}

/// Ports of a container of Mesos, which old versions only announce.
fn discovered(mappings: &Value) -> Value {
    let one = |mapping: &Value| {
        let mut port = json!({
            "number": mapping.get("containerPort").cloned().unwrap_or_default(),
            "protocol": mapping.get("protocol").cloned().unwrap_or_else(|| "tcp".into()),
            "name": mapping.get("name").cloned().unwrap_or_else(|| "default".into()),
        });
        if let Some(labels) = mapping.get("labels") {
            port["labels"] = labels.clone();
        }
        port
    };
    mappings.as_array().into_iter().flatten().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::app::normal::normalise;

    const OLD: Version = Version(1, 4);
    const NEW: Version = Version(1, 11);

    fn id() -> AppId {
        AppId::new("/shop/web").unwrap()
    }

    #[test]
    fn both_families_say_the_same() {
        for app in [
            json!({"cmd": "sleep 1"}),
            json!({"cmd": "sleep 1", "portDefinitions": []}),
            json!({"container": {"docker": {"image": "a", "network": "HOST"}}, "ports": [80, 0]}),
            json!({"container": {"docker": {"image": "a"}, "portMappings": [{"containerPort": 80}]},
                "networks": [{"mode": "container/bridge", "labels": {}}]}),
            json!({"container": {"docker": {"image": "a"}, "portMappings": []},
                "networks": [{"mode": "container/bridge"}]}),
            json!({"container": {"docker": {"image": "a"}, "portMappings": [{"containerPort": 80}]},
                "networks": [{"mode": "container", "name": "dcos", "labels": {"a": "b"}}]}),
            json!({"cmd": "x", "container": {"type": "MESOS", "portMappings": [
                {"containerPort": 80, "name": "http"}]},
                "networks": [{"mode": "container", "name": "dcos"}]}),
        ] {
            let wanted = normalise(&app);
            let (old, new) = (encode(&wanted, &id(), 3, OLD), encode(&wanted, &id(), 3, NEW));
            assert_eq!(normalise(&old), wanted, "{old}");
            assert_eq!(normalise(&new), wanted, "{new}");
            assert!(old.get("networks").is_none(), "{old}");
            let docker = new.pointer("/container/docker/network");
            assert!(docker.is_none() && new.get("ipAddress").is_none(), "{new}");
            assert_eq!((&new["id"], &new["instances"]), (&json!("/shop/web"), &json!(3)));
        }
    }

    #[test]
    fn old_versions_get_the_old_words() {
        let wanted = normalise(&json!({
            "container": {"docker": {"image": "a"}, "portMappings": [{"containerPort": 80, "name": "http"}]},
            "networks": [{"mode": "container/bridge"}], "healthChecks": [{"protocol": "MESOS_TCP"}],
        }));
        assert_eq!(
            encode(&wanted, &id(), 1, OLD),
            json!({
                "id": "/shop/web", "instances": 1,
                "container": {"type": "DOCKER", "docker": {"image": "a", "network": "BRIDGE",
                    "portMappings": [{"containerPort": 80, "hostPort": 0, "name": "http"}]}},
                "healthChecks": [{"protocol": "MESOS_TCP", "portIndex": 0}],
                "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 1},
            })
        );
    }
}
