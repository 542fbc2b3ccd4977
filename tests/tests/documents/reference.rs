//! The reference: what it says of every field is what the schemas say, and what it says of a change is so.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use evenkeel::model::ServiceName;
use serde_json::Value;

use super::{desired, root, text};

/// Fields whose change replaces the running instances, by the beginning of their path, each with
/// a value that a change is tried with.
const RESTARTS: [(&str, &str); 12] = [
    ("image", "toy:2"),
    ("command", "[/bin/other]"),
    ("args", "[--other]"),
    ("env", "[{name: A, value: '2'}]"),
    ("ports[].name", "[{name: web, containerPort: 80}]"),
    ("ports[].containerPort", "[{name: http, containerPort: 81}]"),
    ("ports[].protocol", "[{name: http, containerPort: 80, protocol: udp}]"),
    ("ports[].publish", "[{name: http, containerPort: 80, publish: 8080}]"),
    ("resources", "{cpu: 100m}"),
    ("volumes", "[{name: data, mountPath: /data, volume: data}]"),
    ("networks", "[backend]"),
    ("health.command", "{command: {command: [/bin/true]}}"),
];

/// Fields whose change restarts nobody, with a value that a change is tried with.
const HARMLESS: [(&str, &str); 9] = [
    ("replicas", "5"),
    ("placement", "{spreadBy: zone}"),
    ("health", "{http: {port: 80}}"),
    ("rollout", "{maxSurge: 1}"),
    ("termination", "{drain: 1s}"),
    ("onHostLost", "{replaceAfter: 1m}"),
    ("suspend", "true"),
    ("discovery", "{tags: [v1]}"),
    ("routes", "[{loadBalancer: edge, listener: http, port: http}]"),
];

/// The same of balancers.
const BALANCER_RESTARTS: [(&str, &str); 6] = [
    ("provider.haproxy.image", "provider: {haproxy: {image: 'haproxy:3.0'}}"),
    ("listeners[].name", "listeners: [{name: web, port: 80}]"),
    ("listeners[].port", "listeners: [{name: http, port: 81, publish: 80}]"),
    ("listeners[].publish", "listeners: [{name: http, port: 80, publish: 8181}]"),
    ("accessLog", "accessLog: {volume: logs}"),
    ("networks", "networks: [backend]"),
];

/// The same of balancers.
const BALANCER_HARMLESS: [(&str, &str); 4] = [
    ("replicas", "replicas: 3"),
    ("placement", "placement: {spreadBy: zone}"),
    (
        "provider.haproxy.fragments",
        "provider: {haproxy: {fragments: {defaults: 'timeout server 5m'}}}",
    ),
    ("listeners[].protocol", "listeners: [{name: http, port: 80, protocol: tcp}]"),
];

/// A balancer with another value of one field.
fn balancer(change: &str) -> String {
    let mut yaml = String::from(
        "apiVersion: evenkeel.dev/v1alpha1\nkind: LoadBalancer\nmetadata: {name: edge}\nspec:\n",
    );
    let top = change.split(':').next().unwrap_or_default();
    for line in ["provider: {haproxy: {}}", "listeners: [{name: http, port: 80}]"] {
        if line.split(':').next() != Some(top) {
            let _ = writeln!(yaml, "  {line}");
        }
    }
    let _ = writeln!(yaml, "  {change}");
    yaml
}

#[test]
fn what_the_reference_says_of_a_change_is_so() {
    let hash = |field: &str, value: &str| {
        let mut spec =
            BTreeMap::from([("image", "toy:1"), ("ports", "[{name: http, containerPort: 80}]")]);
        let top = field.split(['.', '[']).next().unwrap();
        spec.insert(if top.is_empty() { "image" } else { top }, value);
        let mut yaml = String::from(
            "apiVersion: evenkeel.dev/v1alpha1\nkind: ScalingService\nmetadata: {name: web}\nspec:\n",
        );
        for (name, value) in spec {
            let _ = writeln!(yaml, "  {name}: {value}");
        }
        let desired = desired(&[("web.yaml", &yaml), ("edge.yaml", &balancer(""))]);
        assert!(desired.problems.is_empty(), "{yaml}{:?}", desired.problems);
        desired.services[&ServiceName::new("web").unwrap()].hash
    };
    let base = hash("", "toy:1");
    for (field, value) in RESTARTS {
        assert_ne!(hash(field, value), base, "{field} restarts nobody");
    }
    for (field, value) in HARMLESS {
        assert_eq!(hash(field, value), base, "{field} restarts");
    }
    let hash = |change: &str| {
        let desired = desired(&[("edge.yaml", &balancer(change))]);
        assert!(desired.problems.is_empty(), "{change}: {:?}", desired.problems);
        desired.services[&ServiceName::new("edge").unwrap()].hash
    };
    let base = hash("");
    for (field, change) in BALANCER_RESTARTS {
        assert_ne!(hash(change), base, "{field} restarts nobody");
    }
    for (field, change) in BALANCER_HARMLESS {
        assert_eq!(hash(change), base, "{field} restarts");
    }
}

fn one_line(text: &str) -> String {
    let joined = text.replace("\n\n- ", "; ").replace("\n- ", "; ");
    joined.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// One row for every field below `schema`.
fn rows(kind: &str, path: &str, schema: &Value, out: &mut String) {
    let empty = serde_json::Map::new();
    let fields = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    for (name, field) in fields {
        let own = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let in_spec = own.strip_prefix("spec.").unwrap_or_default();
        let begins = |prefix: &str| {
            in_spec == prefix
                || in_spec.starts_with(&format!("{prefix}."))
                || in_spec.starts_with(&format!("{prefix}["))
        };
        let change = if kind == "ScalingService"
            && (in_spec.starts_with("placement.") || in_spec == "marathon.fields")
        {
            "restarts on Marathon"
        } else if kind == "Fleet"
            && ["image", "network", "publish", "publish.ui"]
                .iter()
                .any(|f| in_spec.strip_prefix("discovery.consul.") == Some(f))
        {
            "restarts its Consul one by one"
        } else if kind == "LoadBalancer" && in_spec == "virtualIp.image" {
            "restarts its keepalived"
        } else if kind == "LoadBalancer"
            && (BALANCER_RESTARTS.iter().any(|(f, _)| begins(f))
                || in_spec == "provider.nginx.image")
        {
            "restarts one by one"
        } else if kind == "LoadBalancer"
            && ["provider", "provider.haproxy", "provider.nginx", "listeners"].contains(&in_spec)
        {
            "see below it"
        } else if kind == "LoadBalancer" && !in_spec.is_empty() && in_spec != "fleet" {
            "no restart"
        } else if kind != "ScalingService" || in_spec.is_empty() {
            ""
        } else if in_spec == "volumes[].name" {
            "no restart"
        } else if RESTARTS.iter().any(|(f, _)| begins(f)) {
            "restarts"
        } else if ["ports", "health"].contains(&in_spec) {
            "see below it"
        } else if [
            "health.interval",
            "health.timeout",
            "health.failureThreshold",
            "health.startPeriod",
        ]
        .contains(&in_spec)
        {
            "restarts with `health.command`"
        } else {
            "no restart"
        };
        let default = match field.get("default") {
            Some(v) if !v.is_object() => format!("`{}`", v.to_string().trim_matches('"')),
            _ if required.contains(&name.as_str()) => "required".into(),
            _ => String::new(),
        };
        let meaning =
            one_line(field.get("description").and_then(Value::as_str).unwrap_or_default());
        let _ = writeln!(out, "| `{own}` | {default} | {change} | {meaning} |");
        rows(kind, &own, field, out);
        if let Some(items) = field.get("items") {
            rows(kind, &format!("{own}[]"), items, out);
        }
    }
}

#[test]
fn the_reference_is_what_the_schemas_say() {
    let mut tables = String::new();
    for kind in ["ScalingService", "Fleet", "LoadBalancer"] {
        let file = format!("crds/schema/{}.schema.json", kind.to_lowercase());
        let schema: Value = serde_json::from_str(&text(&file)).unwrap();
        let about = one_line(schema["description"].as_str().unwrap());
        let _ = write!(
            tables,
            "\n## {kind}\n\n{about}\n\n| Field | Default | A change | Meaning |\n|---|---|---|---|\n"
        );
        rows(kind, "", &schema, &mut tables);
    }
    let mark = "<!-- From here on written by tests/tests/documents.rs -->\n";
    let document = text("docs/reference.md");
    let (head, old) = document.split_once(mark).expect("the mark in docs/reference.md");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(root().join("docs/reference.md"), format!("{head}{mark}{tables}")).unwrap();
        return;
    }
    assert!(
        old == tables,
        "docs/reference.md is out of date: UPDATE_EXPECT=1 cargo test -p evenkeel-tests --test documents"
    );
}
