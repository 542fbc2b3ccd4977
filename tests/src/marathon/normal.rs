//! From what a client wrote to the one form that the server keeps: old words become new ones, defaults appear.
//!
//! The order is Marathon's own: old fields are judged and translated, then the whole is judged, then filled in.

use serde_json::{Value, json};

use super::path::AppId;
use super::read::{Fields, sort};
use super::refusal::Refusal;
use super::release::Release;
use super::valid;

/// What a server is set to as far as definitions go.
#[derive(Clone, Debug)]
pub(super) struct Customs {
    pub(super) release: Release,
    /// The name of a container's network that has none.
    pub(super) network: Option<String>,
    /// What was enabled, such as `secrets`.
    pub(super) features: Vec<String>,
    /// The role of apps that say none.
    pub(super) role: String,
    /// Roles that an app may have.
    pub(super) roles: Vec<String>,
}

/// A whole definition, judged, with its id.
pub(super) fn whole(
    mut app: Fields,
    base: &AppId,
    customs: &Customs,
) -> Result<(AppId, Fields), Refusal> {
    absolute(&mut app, base);
    let id = AppId::of(app.get("id").and_then(Value::as_str).unwrap_or_default(), base);
    valid::old(&app).done()?;
    let said_ports = app.contains_key("portDefinitions");
    translate(&mut app, customs)?;
    port_defaults(&mut app, said_ports);
    if resident(&app) && !app.contains_key("residency") {
        app.insert("residency".into(), json!({}));
    }
    if customs.release.has(9) {
        app.entry("role").or_insert_with(|| customs.role.clone().into());
    }
    valid::new(&app, customs).done()?;
    fill(&mut app, customs);
    Ok((id, app))
}

/// What of a definition is to be changed, in new words.
pub(super) fn part(mut app: Fields, base: &AppId, customs: &Customs) -> Result<Fields, Refusal> {
    absolute(&mut app, base);
    let rollback = app.contains_key("version");
    if rollback && app.keys().any(|name| name != "version" && name != "id") {
        let error = "a version stands alone, or with an id";
        return Err(Refusal::invalid(vec![("/".into(), error.into())]));
    }
    translate(&mut app, customs)?;
    Ok(app)
}

/// A definition that was changed in part, before it is judged.
pub(super) fn merged(old: &Fields, part: Fields) -> Fields {
    let mut new = old.clone();
    // Marathon takes these two from the change alone, and so loses them in any other.
    new.remove("resourceLimits");
    new.remove("executorResources");
    new.extend(part);
    new
}

fn absolute(app: &mut Fields, base: &AppId) {
    let to = |value: &Value| AppId::of(value.as_str().unwrap_or_default(), base).json();
    if let Some(id) = app.get_mut("id") {
        *id = to(id);
    }
    if let Some(Value::Array(all)) = app.get_mut("dependencies") {
        for id in all.iter_mut() {
            *id = to(id);
        }
        sort(all);
    }
}

/// Old words to new ones.
fn translate(app: &mut Fields, customs: &Customs) -> Result<(), Refusal> {
    fetch(app)?;
    networks(app)?;
    if app.contains_key("ipAddress") && !app.contains_key("container") {
        app.insert("container".into(), json!({"type": "MESOS", "volumes": []}));
    }
    let address = app.remove("ipAddress");
    if let Some(container) = app.get_mut("container") {
        mappings(container)?;
        discovered(container, address.as_ref())?;
        if let Some(docker) = container.get_mut("docker").and_then(Value::as_object_mut) {
            docker.remove("network");
        }
    }
    if let Some(Value::Array(ports)) = app.remove("ports") {
        let of = |port: &Value| json!({"port": port, "protocol": "tcp"});
        app.entry("portDefinitions").or_insert_with(|| ports.iter().map(of).collect());
    }
    if let Some(Value::Array(all)) = app.get_mut("networks") {
        for network in all {
            if network["mode"] == "container" && network.get("name").is_none() {
                match &customs.network {
                    Some(name) => network["name"] = name.as_str().into(),
                    // Docker's own default was good enough once.
                    None if !customs.release.has(5) => {}
                    None => {
                        let error = "this network needs a name";
                        return Err(Refusal::invalid(vec![("/networks".into(), error.into())]));
                    }
                }
            }
        }
    }
    for check in app.get_mut("readinessChecks").and_then(Value::as_array_mut).into_iter().flatten()
    {
        if check.get("httpStatusCodesForReady").is_none() {
            check["httpStatusCodesForReady"] = json!([200]);
        }
    }
    Ok(())
}

fn fetch(app: &mut Fields) -> Result<(), Refusal> {
    let Some(Value::Array(uris)) = app.remove("uris") else { return Ok(()) };
    let fetched = app.get("fetch").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    if uris.is_empty() {
        return Ok(());
    }
    // An answer of an old server has both, and says the same twice.
    let same = |all: &Value| {
        let of =
            all.as_array().map(|all| all.iter().map(|entry| &entry["uri"]).collect::<Vec<_>>());
        of == Some(uris.iter().collect())
    };
    if fetched && app.get("fetch").is_some_and(same) {
        return Ok(());
    }
    if fetched {
        return Err(Refusal::illegal("uris and fetch say different things"));
    }
    let archive = |uri: &Value| {
        let known =
            [".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".gz", ".tgz", ".tbz2", ".txz", ".zip"];
        known.iter().any(|end| uri.as_str().is_some_and(|uri| uri.ends_with(end)))
    };
    let of = |uri: &Value| json!({"uri": uri, "extract": archive(uri), "executable": false, "cache": false});
    app.insert("fetch".into(), uris.iter().map(of).collect());
    Ok(())
}

fn networks(app: &mut Fields) -> Result<(), Refusal> {
    let old = app.get("container").and_then(|c| c["docker"]["network"].as_str()).map(str::to_owned);
    let address = app.get("ipAddress");
    if old.is_none() && address.is_none() {
        return Ok(());
    }
    let said = app.get("networks").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    if said {
        return Err(Refusal::illegal("the network is said in an old and a new way"));
    }
    let named = |mode: &str| {
        let mut network = json!({"mode": mode});
        for (from, to) in [("networkName", "name"), ("labels", "labels")] {
            if let Some(value) = address.and_then(|address| address.get(from)) {
                network[to] = value.clone();
            }
        }
        network
    };
    let network = match (old.as_deref(), address) {
        (Some("HOST"), _) => json!({"mode": "host"}),
        (Some("BRIDGE"), _) => json!({"mode": "container/bridge"}),
        (Some("USER") | None, _) => named("container"),
        (Some(other), _) => {
            return Err(Refusal::illegal(format!("there is no network {other}")));
        }
    };
    app.insert("networks".into(), json!([network]));
    Ok(())
}

/// The mappings of the old place go to the new one.
fn mappings(container: &mut Value) -> Result<(), Refusal> {
    let docker = container.get_mut("docker").and_then(Value::as_object_mut);
    let Some(old) = docker.and_then(|docker| docker.remove("portMappings")) else { return Ok(()) };
    let count = |value: &Value| value.as_array().map_or(0, Vec::len);
    match container.get("portMappings").map(count) {
        Some(1..) if count(&old) > 0 => Err(Refusal::illegal("portMappings are there twice")),
        Some(_) if count(&old) == 0 => Ok(()),
        Some(_) | None => {
            container["portMappings"] = old;
            Ok(())
        }
    }
}

fn discovered(container: &mut Value, address: Option<&Value>) -> Result<(), Refusal> {
    let ports = address.and_then(|address| address["discovery"]["ports"].as_array());
    let Some(ports) = ports.filter(|ports| !ports.is_empty()) else { return Ok(()) };
    if container["type"] != "MESOS" {
        let error = "Docker knows no discovery by address";
        return Err(Refusal::illegal(error));
    }
    let of = |port: &Value| {
        json!({
            "containerPort": port["number"], "name": port["name"], "protocol": port["protocol"],
            "labels": port["labels"], "servicePort": 0,
        })
    };
    container["portMappings"] = ports.iter().map(of).collect();
    Ok(())
}

fn is_host(app: &Fields) -> bool {
    let all = app.get("networks").and_then(Value::as_array);
    all.is_none_or(|all| all.iter().all(|network| network["mode"] == "host"))
}

fn port_defaults(app: &mut Fields, said_ports: bool) {
    let host = is_host(app);
    let definitions = app.get("portDefinitions").and_then(Value::as_array).map_or(0, Vec::len);
    if host {
        app.entry("portDefinitions")
            .or_insert_with(|| json!([{"port": 0, "protocol": "tcp", "name": "default"}]));
    } else {
        app.remove("portDefinitions");
    }
    if let Some(container) = app.get_mut("container").and_then(Value::as_object_mut) {
        if host {
            container.remove("portMappings");
        } else {
            let empty =
                json!({"containerPort": 0, "servicePort": 0, "protocol": "tcp", "labels": {}});
            let mappings = container.entry("portMappings").or_insert_with(|| {
                let mut first = empty.clone();
                first["name"] = "default".into();
                json!([first])
            });
            // Ports that were said the old way count, where there are more of them.
            while mappings.as_array().is_some_and(|all| all.len() < definitions) {
                if let Some(all) = mappings.as_array_mut() {
                    all.push(empty.clone());
                }
            }
        }
    }
    let mapped = app.get("container").and_then(|c| c["portMappings"].as_array());
    if (said_ports && definitions > 0) || mapped.is_some_and(|all| !all.is_empty()) {
        check_ports(app);
    }
}

fn check_ports(app: &mut Fields) {
    for check in app.get_mut("healthChecks").and_then(Value::as_array_mut).into_iter().flatten() {
        let silent = check.get("port").is_none() && check.get("portIndex").is_none();
        if silent && check["protocol"] != "COMMAND" {
            check["portIndex"] = 0.into();
        }
    }
}

pub(super) fn resident(app: &Fields) -> bool {
    has_volume(app, "persistent")
}

fn has_volume(app: &Fields, kind: &str) -> bool {
    let volumes = app.get("container").and_then(|c| c["volumes"].as_array());
    volumes.is_some_and(|all| all.iter().any(|volume| volume.get(kind).is_some()))
}

/// The rest of the defaults, and what is lost on the way into the server.
fn fill(app: &mut Fields, customs: &Customs) {
    let release = customs.release;
    let empty = |value: Option<&Value>| value.and_then(Value::as_array).is_none_or(Vec::is_empty);
    if empty(app.get("networks")) {
        app.insert("networks".into(), json!([{"mode": "host"}]));
    }
    let host = is_host(app);
    let bridge = app["networks"][0]["mode"] == "container/bridge";
    if !host && !app.contains_key("container") {
        let mapping = json!({
            "containerPort": 0, "servicePort": 0, "protocol": "tcp", "labels": {}, "name": "default",
        });
        let container = json!({"type": "MESOS", "volumes": [], "portMappings": [mapping]});
        app.insert("container".into(), container);
    }
    if let Some(container) = app.get_mut("container") {
        let mesos = container["type"] == "MESOS";
        let mappings = container.get_mut("portMappings").and_then(Value::as_array_mut);
        for mapping in mappings.into_iter().flatten() {
            if bridge && mapping.get("hostPort").is_none() {
                mapping["hostPort"] = 0.into();
            }
            drop_empty(mapping, "networkNames");
        }
        if let Some(docker) = container.get_mut("docker").and_then(Value::as_object_mut)
            && mesos
        {
            docker.remove("parameters");
            docker.remove("privileged");
        }
    }
    for network in app.get_mut("networks").and_then(Value::as_array_mut).into_iter().flatten() {
        drop_empty(network, "labels");
    }
    for port in app.get_mut("portDefinitions").and_then(Value::as_array_mut).into_iter().flatten() {
        drop_empty(port, "labels");
    }
    if !host {
        app.insert("requirePorts".into(), false.into());
    }
    let keeps = resident(app);
    let share = if keeps || has_volume(app, "external") { (0.5, 0) } else { (1.0, 1) };
    app.entry("upgradeStrategy").or_insert_with(|| {
        let least = super::read::tidy(share.0);
        json!({"minimumHealthCapacity": least, "maximumOverCapacity": share.1})
    });
    let seconds = if release.is_patient() { (300, 600) } else { (0, 0) };
    app.entry("unreachableStrategy").or_insert_with(|| {
        if keeps {
            "disabled".into()
        } else {
            json!({"inactiveAfterSeconds": seconds.0, "expungeAfterSeconds": seconds.1})
        }
    });
    let longest = if release.has(8) { 300 } else { 3600 };
    app.entry("maxLaunchDelaySeconds").or_insert_with(|| longest.into());
    if keeps {
        app.insert(
            "residency".into(),
            json!({"relaunchEscalationTimeoutSeconds": 3600, "taskLostBehavior": "WAIT_FOREVER"}),
        )
    } else {
        app.remove("residency")
    };
    checks(app, release);
    let empties = [
        "args",
        "constraints",
        "dependencies",
        "env",
        "fetch",
        "healthChecks",
        "readinessChecks",
        "secrets",
        "acceptedResourceRoles",
        "resourceLimits",
    ];
    for name in empties {
        let empty = match app.get(name) {
            Some(Value::Array(all)) => all.is_empty(),
            Some(Value::Object(all)) => all.is_empty(),
            _ => false,
        };
        if empty {
            app.remove(name);
        }
    }
    for name in ["id", "version", "deployments", "lastTaskFailure", "storeUrls", "versionInfo"] {
        app.remove(name);
    }
}

fn drop_empty(value: &mut Value, name: &str) {
    if let Some(fields) = value.as_object_mut()
        && fields.get(name).is_some_and(|v| v == &json!({}) || v == &json!([]))
    {
        fields.remove(name);
    }
}

/// Health checks lose on the way in what Marathon does not do.
fn checks(app: &mut Fields, release: Release) {
    let Some(Value::Array(all)) = app.get_mut("healthChecks") else { return };
    for check in all.iter_mut() {
        let protocol = check["protocol"].as_str().unwrap_or_default().to_owned();
        let Some(fields) = check.as_object_mut() else { continue };
        fields.remove("ignoreHttp1xx");
        match protocol.as_str() {
            "HTTP" | "HTTPS" | "TCP" => {
                fields.insert("delaySeconds".into(), 15.into());
                if release.has(6) {
                    fields.insert("ipProtocol".into(), "IPv4".into());
                }
                if protocol != "TCP" {
                    fields.insert("ignoreHttp1xx".into(), false.into());
                }
            }
            "COMMAND" => {
                fields.remove("portIndex");
                fields.remove("port");
            }
            _ => {}
        }
        if protocol != "COMMAND" {
            fields.remove("command");
        }
    }
    sort(all);
}
