//! How an app is reached: its networks, its ports and its container, in the form of Marathon 1.5 and newer.

use serde_json::{Map, Value, json};

use super::json::{clean, clean_fields, drop_default, drop_empty, is_empty, keep_only};
use super::normal::tidy_labels;

/// The network of Mesos that is a bridge, which versions before 1.5 only know by its name.
pub const MESOS_BRIDGE: &str = "mesos-bridge";

/// What kind of network an app has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Its agent's own.
    Host,
    /// The bridge of its agent.
    Bridge,
    /// A named one.
    Container,
}

/// Adds `networks`, `portDefinitions`, `requirePorts` and `container`, whichever way they are written.
pub(super) fn shape(app: &Map<String, Value>, out: &mut Map<String, Value>) {
    let container = app.get("container").and_then(Value::as_object);
    let networks = networks(app, container);
    let mode = mode(&networks);
    let mut put = |name: &str, value: Value| {
        out.insert(name.to_owned(), value);
    };
    if mode == Mode::Host {
        put("portDefinitions", Value::Array(port_definitions(app)));
        if app.get("requirePorts") == Some(&Value::Bool(true)) {
            put("requirePorts", true.into());
        }
    } else {
        put("networks", Value::Array(networks));
    }
    let mut shaped = match (container, mode) {
        (Some(container), _) => shape_container(container),
        (None, Mode::Host) => Map::new(),
        // The server makes an empty one, in which the ports are.
        (None, Mode::Bridge | Mode::Container) => {
            Map::from_iter([("type".to_owned(), "MESOS".into())])
        }
    };
    if mode != Mode::Host {
        let mappings = port_mappings(app, container);
        let mappings = mappings.into_iter().map(|mapping| port_mapping(mapping, mode));
        shaped.insert("portMappings".to_owned(), mappings.collect());
    }
    if !shaped.is_empty() {
        put("container", Value::Object(shaped));
    }
}

/// Whether an app in the form that is compared keeps data from task to task.
pub(super) fn keeps(app: &Map<String, Value>) -> bool {
    has_volume(app, "persistent") || has_volume(app, "external")
}

/// Whether it has volumes of Mesos, and so tasks that stay where they are.
pub(super) fn is_resident(app: &Map<String, Value>) -> bool {
    has_volume(app, "persistent")
}

fn has_volume(app: &Map<String, Value>, kind: &str) -> bool {
    let volumes = app.get("container").and_then(|c| c.get("volumes")).and_then(Value::as_array);
    volumes.is_some_and(|all| all.iter().any(|v| v.get(kind).is_some()))
}

fn mode(networks: &[Value]) -> Mode {
    let has = |mode: &str| networks.iter().any(|n| n.get("mode").is_some_and(|m| m == mode));
    if networks.is_empty() || has("host") {
        Mode::Host
    } else if has("container/bridge") {
        Mode::Bridge
    } else {
        Mode::Container
    }
}

/// `networks`, or what its predecessors say.
fn networks(app: &Map<String, Value>, container: Option<&Map<String, Value>>) -> Vec<Value> {
    if let Some(Value::Array(given)) = app.get("networks").and_then(clean)
        && !given.is_empty()
    {
        return given.into_iter().map(network).collect();
    }
    let address = app.get("ipAddress").and_then(Value::as_object);
    let word = container.and_then(|c| c.get("docker")?.get("network")?.as_str());
    let named = address.and_then(|a| a.get("networkName")?.as_str());
    let mode = match (word.map(str::to_uppercase).as_deref(), address) {
        (Some("BRIDGE"), _) => "container/bridge",
        (None, Some(_)) if named == Some(MESOS_BRIDGE) => "container/bridge",
        (Some("USER"), _) | (None, Some(_)) => "container",
        (Some(_), _) | (None, None) => "host",
    };
    let mut fields = Map::from_iter([("mode".to_owned(), Value::from(mode))]);
    if mode != "host" {
        let of = |name: &str| address.and_then(|a| clean(a.get(name)?));
        if mode == "container"
            && let Some(name) = of("networkName")
        {
            fields.insert("name".to_owned(), name);
        }
        if let Some(labels) = of("labels") {
            fields.insert("labels".to_owned(), labels);
        }
    }
    vec![network(Value::Object(fields))]
}

fn network(value: Value) -> Value {
    let Value::Object(mut fields) = value else { return value };
    keep_only(&mut fields, &["mode", "name", "labels"]);
    fields.entry("mode").or_insert_with(|| "container".into());
    if fields.get("mode").is_some_and(|mode| mode == "host") {
        keep_only(&mut fields, &["mode"]);
    }
    tidy_labels(&mut fields);
    Value::Object(fields)
}

/// One port without a number: what an app has that says nothing of ports.
fn one_port() -> Vec<Value> {
    vec![json!({"name": "default"})]
}

fn port_definitions(app: &Map<String, Value>) -> Vec<Value> {
    let given = match (app.get("portDefinitions"), app.get("ports")) {
        (Some(Value::Array(given)), _) => given.iter().filter_map(clean).collect(),
        (_, Some(Value::Array(ports))) => {
            ports.iter().filter_map(clean).map(|port| json!({"port": port})).collect()
        }
        _ => one_port(),
    };
    let one = |value: Value| {
        let Value::Object(mut fields) = value else { return value };
        keep_only(&mut fields, &["port", "name", "protocol", "labels"]);
        drop_default(&mut fields, "port", &json!(0));
        tidy_port(&mut fields);
        Value::Object(fields)
    };
    given.into_iter().map(one).collect()
}

fn tidy_port(fields: &mut Map<String, Value>) {
    if fields.get("protocol").is_some_and(|p| p == "tcp,udp") {
        fields.insert("protocol".to_owned(), "udp,tcp".into());
    }
    drop_default(fields, "protocol", &json!("tcp"));
    drop_empty(fields, "name");
    tidy_labels(fields);
}

/// The mappings as they are written, wherever that is.
fn port_mappings(app: &Map<String, Value>, container: Option<&Map<String, Value>>) -> Vec<Value> {
    if let Some(Value::Array(given)) = container.and_then(|c| c.get("portMappings")) {
        return given.iter().filter_map(clean).collect();
    }
    let old = container.and_then(|c| c.get("docker")?.get("portMappings"));
    let discovery = app.get("ipAddress").and_then(|a| a.get("discovery")?.get("ports"));
    match (old, discovery) {
        (Some(Value::Array(given)), _) if !given.is_empty() => {
            given.iter().filter_map(clean).collect()
        }
        (_, Some(Value::Array(ports))) if !ports.is_empty() => {
            ports.iter().map(from_discovery).collect()
        }
        // Old servers have no port where they say nothing of any; new ones have one.
        (Some(_), _) => Vec::new(),
        (None, _) => one_port(),
    }
}

fn from_discovery(port: &Value) -> Value {
    let Some(Value::Object(mut fields)) = clean(port) else { return Value::Object(Map::new()) };
    if let Some(number) = fields.remove("number") {
        fields.insert("containerPort".to_owned(), number);
    }
    Value::Object(fields)
}

fn port_mapping(value: Value, mode: Mode) -> Value {
    let Value::Object(mut fields) = value else { return value };
    keep_only(
        &mut fields,
        &["containerPort", "hostPort", "servicePort", "protocol", "name", "labels", "networkNames"],
    );
    drop_default(&mut fields, "containerPort", &json!(0));
    drop_default(&mut fields, "servicePort", &json!(0));
    drop_empty(&mut fields, "networkNames");
    // Only a bridge has a host port where none is said.
    if mode == Mode::Bridge {
        drop_default(&mut fields, "hostPort", &json!(0));
    }
    tidy_port(&mut fields);
    Value::Object(fields)
}

fn shape_container(container: &Map<String, Value>) -> Map<String, Value> {
    let mut fields = clean_fields(container);
    keep_only(&mut fields, &["type", "docker", "volumes", "linuxInfo"]);
    drop_default(&mut fields, "type", &json!("DOCKER"));
    if let Some(Value::Object(docker)) = fields.get_mut("docker") {
        keep_only(
            docker,
            &["image", "forcePullImage", "privileged", "parameters", "pullConfig", "credential"],
        );
        drop_default(docker, "forcePullImage", &json!(false));
        drop_default(docker, "privileged", &json!(false));
        drop_empty(docker, "parameters");
    }
    if let Some(Value::Array(volumes)) = fields.get_mut("volumes") {
        for volume in volumes.iter_mut() {
            shape_volume(volume);
        }
    }
    for name in ["docker", "volumes", "linuxInfo"] {
        if fields.get(name).is_some_and(is_empty) {
            fields.remove(name);
        }
    }
    fields
}

fn shape_volume(volume: &mut Value) {
    let Value::Object(fields) = volume else { return };
    keep_only(fields, &["containerPath", "hostPath", "mode", "persistent", "external", "secret"]);
    if let Some(Value::Object(persistent)) = fields.get_mut("persistent") {
        drop_default(persistent, "type", &json!("root"));
        drop_empty(persistent, "constraints");
    }
    drop_empty(fields, "hostPath");
}
