//! Apps as releases before 1.5 write them: null for what is not there, networks in three places.

use serde_json::{Value, json};

use super::super::app::App;

/// Without versions.
pub(super) fn app(app: &App) -> Value {
    let mut shown = json!({"id": app.id.as_str()});
    let plain = [
        "cmd",
        "user",
        "instances",
        "cpus",
        "mem",
        "disk",
        "gpus",
        "executor",
        "backoffSeconds",
        "backoffFactor",
        "maxLaunchDelaySeconds",
        "upgradeStrategy",
        "labels",
        "residency",
        "taskKillGracePeriodSeconds",
        "unreachableStrategy",
        "killSelection",
    ];
    for name in plain {
        shown[name] = app.get(name).clone();
    }
    for (name, empty) in [
        ("env", json!({})),
        ("secrets", json!({})),
        ("constraints", json!([])),
        ("fetch", json!([])),
        ("healthChecks", json!([])),
        ("readinessChecks", json!([])),
        ("dependencies", json!([])),
    ] {
        let value = app.get(name);
        shown[name] = if value.is_null() { empty } else { value.clone() };
    }
    shown["args"] = app.get("args").clone();
    shown["uris"] =
        app.get("fetch").as_array().into_iter().flatten().map(|f| f["uri"].clone()).collect();
    shown["storeUrls"] = json!([]);
    if !app.get("acceptedResourceRoles").is_null() {
        shown["acceptedResourceRoles"] = app.get("acceptedResourceRoles").clone();
    }
    shown["container"] = container(app);
    shown["ipAddress"] = address(app);
    if shown["ipAddress"].is_null() {
        let ports = app.service_ports();
        shown["portDefinitions"] = definitions(app, &ports);
        shown["ports"] = ports.into();
        shown["requirePorts"] = app.get("requirePorts").clone();
    }
    shown
}

fn definitions(app: &App, ports: &[u16]) -> Value {
    let known = app.get("portDefinitions").as_array().cloned().unwrap_or_default();
    let each = ports.iter().enumerate().map(|(at, port)| {
        let mut one = known.get(at).cloned().unwrap_or_else(|| json!({"protocol": "tcp"}));
        one["port"] = (*port).into();
        // Nobody had thought of a name for it yet.
        if one["name"] == "default"
            && let Some(fields) = one.as_object_mut()
        {
            fields.remove("name");
        }
        if one["labels"].is_null() {
            one["labels"] = json!({});
        }
        one
    });
    each.collect()
}

fn container(app: &App) -> Value {
    let new = app.get("container");
    if new.is_null() {
        return Value::Null;
    }
    let mut shown = json!({"type": new["type"], "volumes": new["volumes"]});
    let docker = &new["docker"];
    if docker.is_null() {
        return shown;
    }
    shown["docker"] = json!({"image": docker["image"], "forcePullImage": docker["forcePullImage"]});
    if new["type"] == "DOCKER" {
        let mappings = new.get("portMappings").cloned().unwrap_or_else(|| json!([]));
        let network = match app.network() {
            "container/bridge" => "BRIDGE",
            "container" => "USER",
            _ => "HOST",
        };
        shown["docker"]["network"] = network.into();
        shown["docker"]["portMappings"] = mappings;
        shown["docker"]["privileged"] = docker["privileged"].clone();
        shown["docker"]["parameters"] = docker["parameters"].clone();
    }
    shown
}

fn address(app: &App) -> Value {
    if app.network() != "container" {
        return Value::Null;
    }
    let mut shown = json!({"groups": [], "labels": {}, "discovery": {"ports": []}});
    if let Some(name) = app.network_name() {
        shown["networkName"] = name.into();
    }
    if let Some(labels) = app.get("networks")[0].get("labels") {
        shown["labels"] = labels.clone();
    }
    shown
}
