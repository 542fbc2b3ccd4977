//! The rules that a definition must keep beyond its types, each with the path that breaks it.

mod container;
mod schedule;

use serde_json::Value;

use super::normal::{Customs, resident};
use super::path::AppId;
use super::read::Fields;
use super::refusal::Refusal;

/// What is wrong so far.
#[derive(Default)]
pub(super) struct Faults(Vec<(String, String)>);

impl Faults {
    fn add(&mut self, path: impl Into<String>, error: impl Into<String>) {
        self.0.push((path.into(), error.into()));
    }

    fn unless(&mut self, holds: bool, path: &str, error: &str) {
        if !holds {
            self.add(path, error);
        }
    }

    /// Refuses if anything is wrong.
    pub(super) fn done(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(Refusal::invalid(self.0)) }
    }
}

/// A list's entries, or none.
fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'v>(fields: &'v Fields, name: &str) -> Option<&'v str> {
    fields.get(name).and_then(Value::as_str)
}

fn is_unique<T: PartialEq>(all: &[T]) -> bool {
    all.iter().enumerate().all(|(at, one)| !all[..at].contains(one))
}

/// What old words may say, and old and new together.
pub(super) fn old(app: &Fields) -> Faults {
    let mut faults = Faults::default();
    let null = Value::Null;
    let container = app.get("container").unwrap_or(&null);
    let docker = &container["docker"];
    let (networks, address) = (list(app.get("networks")), app.get("ipAddress"));
    faults.unless(
        docker.get("credential").is_none(),
        "/container/docker/credential",
        "must be empty",
    );
    if container["type"] == "MESOS" {
        for name in ["network", "portMappings"] {
            let path = format!("/container/docker/{name}");
            faults.unless(docker.get(name).is_none(), &path, "must be empty");
        }
        let none = list(docker.get("parameters")).is_empty();
        faults.unless(none, "/container/docker/parameters", "must be empty");
    }
    let discovers = address.is_some_and(|address| address.get("discovery").is_some());
    faults.unless(
        !(discovers && container["type"] == "DOCKER"),
        "/ipAddress",
        "Docker knows no discovery by address",
    );
    let both = docker.get("network").is_some() && !networks.is_empty();
    faults.unless(!both, "/", "the network is said in an old and a new way");
    let both = address.is_some() && !networks.is_empty();
    faults.unless(!both, "/", "the network is said by address, too");
    let ports: Vec<&Value> = list(app.get("ports")).iter().filter(|port| **port != 0).collect();
    faults.unless(is_unique(&ports), "/", "a port is there twice");
    let (ports, definitions) = (app.get("ports"), app.get("portDefinitions"));
    let any = !list(ports).is_empty() || !list(definitions).is_empty();
    faults.unless(!(address.is_some() && any), "/", "who has an address has no ports of the host");
    if let (Some(_), Some(_)) = (ports, definitions) {
        let defined: Vec<&Value> = list(definitions).iter().map(|d| &d["port"]).collect();
        let same = defined == list(ports).iter().collect::<Vec<_>>();
        faults.unless(same, "/", "ports and portDefinitions say different things");
    }
    faults
}

/// What the whole must be, in new words.
pub(super) fn new(app: &Fields, customs: &Customs) -> Faults {
    let mut faults = Faults::default();
    let id = AppId::absolute(text(app, "id").unwrap_or_default());
    if id.is_root() {
        faults.add("/id", "must not be root");
    } else if let Some(fault) = id.fault(customs.release.has(8)) {
        faults.add("/id", fault);
    }
    for (at, dependency) in list(app.get("dependencies")).iter().enumerate() {
        let dependency = AppId::absolute(dependency.as_str().unwrap_or_default());
        if let Some(fault) = dependency.fault(false) {
            faults.add(format!("/dependencies({at})"), fault);
        }
    }
    faults.unless(
        text(app, "cmd").is_none_or(|cmd| cmd.len() > 1),
        "/",
        "must not be an empty string",
    );
    command(app, &mut faults);
    container::judge(app, customs, &mut faults);
    schedule::judge(app, customs, &mut faults);
    secrets(app, customs, &mut faults);
    limits(app, &mut faults);
    roles(app, customs, &mut faults);
    faults
}

fn command(app: &Fields, faults: &mut Faults) {
    let (cmd, args) = (app.contains_key("cmd"), !list(app.get("args")).is_empty());
    let contained = app
        .get("container")
        .is_some_and(|container| container["type"] == "MESOS" || container.get("docker").is_some());
    let error = "it needs either cmd or args, unless a container says what runs";
    faults.unless((cmd ^ args) || (!(cmd && args) && contained), "/", error);
}

fn secrets(app: &Fields, customs: &Customs, faults: &mut Faults) {
    let enabled = customs.features.iter().any(|feature| feature == "secrets");
    let defined = app.get("secrets").and_then(Value::as_object);
    let error = "the feature secrets is not enabled";
    faults.unless(enabled || defined.is_none_or(serde_json::Map::is_empty), "/secrets", error);
    for (name, value) in app.get("env").and_then(Value::as_object).into_iter().flatten() {
        let path = format!("/env/{name}");
        faults.unless(!name.is_empty(), "/env", "must not have a variable without a name");
        if let Some(secret) = value["secret"].as_str() {
            faults.unless(enabled, &path, error);
            let known = defined.is_some_and(|defined| defined.contains_key(secret));
            faults.unless(known, &path, "there is no such secret");
        }
    }
}

fn limits(app: &Fields, faults: &mut Faults) {
    for name in ["cpus", "mem"] {
        let limit = app.get("resourceLimits").and_then(|limits| limits[name].as_f64());
        let asked = app.get(name).and_then(Value::as_f64).unwrap_or_default();
        if limit.is_some_and(|limit| limit < asked) {
            let error = format!("a limit below what is asked for ({asked})");
            faults.add(format!("/resourceLimits/{name}"), error);
        }
    }
}

fn roles(app: &Fields, customs: &Customs, faults: &mut Faults) {
    let accepted: Option<Vec<&str>> = app
        .get("acceptedResourceRoles")
        .map(|roles| list(Some(roles)).iter().filter_map(Value::as_str).collect());
    if let Some(accepted) = &accepted {
        faults.unless(!accepted.is_empty(), "/acceptedResourceRoles", "must not be empty");
        let alone = accepted.as_slice() == ["*"];
        let error = "resident apps cannot have only the role of nobody";
        faults.unless(
            !(resident(app) && alone && customs.role == "*"),
            "/acceptedResourceRoles",
            error,
        );
    }
    let Some(role) = text(app, "role") else { return };
    if !customs.roles.iter().any(|known| known == role) {
        faults.add("/role", format!("{role} is none of: {}", customs.roles.join(", ")));
    }
    if customs.release.has(10)
        && let Some(accepted) = accepted
        && accepted.iter().any(|&accepted| accepted != "*" && accepted != role)
    {
        let error = format!("only * and {role} are accepted");
        faults.add("/acceptedResourceRoles", error);
    }
}
