//! What a service is as an app of Marathon: pure.
//!
//! Each part of the spec becomes what comes nearest in Marathon's own words; the document's `marathon` fields are then merged
//! over that. Values of secrets become plain values of the environment: Marathon shows them to whoever may read apps.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::network::is_resident;
use super::normal::normalise;
use super::{Definition, MarathonSpec};
use crate::model::desired::{
    Amount, CommandCheck, EnvValue, HOST_LABEL, InstanceSpec, Keep, Mount, MountSource, Placement,
    Port, Probe, ProbeKind, Protocol, Resources, Rollout, Service, Termination,
};

/// What a service gets that does not say what it needs of a core.
const CPUS: f64 = 0.1;

/// The app of a service whose instances are to be `spec`, without the labels that make it ours.
pub fn render(service: &Service, spec: &InstanceSpec, cluster: &MarathonSpec) -> Definition {
    let mut app = Map::new();
    process(&mut app, service, spec);
    let Resources { cpu_millis, memory_bytes } = spec.resources;
    let cpus = if cpu_millis == 0 { json!(CPUS) } else { thousandths(cpu_millis) };
    app.insert("cpus".to_owned(), cpus);
    if memory_bytes > 0 {
        app.insert("mem".to_owned(), memory_bytes.div_ceil(1 << 20).into());
    }
    reach(&mut app, &spec.ports, &spec.networks);
    let constraints = constraints(&service.placement);
    app.insert("constraints".to_owned(), constraints.into());
    if let Some(check) = check(service.probe.as_ref(), spec) {
        app.insert("healthChecks".to_owned(), json!([check]));
    }
    policies(&mut app, service);
    if let Some(uri) = &cluster.registry_config {
        app.insert("fetch".to_owned(), json!([{"uri": uri}]));
    }
    overlay(&mut app, &service.app.fields);
    normalise(&Value::Object(app))
}

/// What runs, and with what.
fn process(app: &mut Map<String, Value>, service: &Service, spec: &InstanceSpec) {
    // Taken apart without `..`: a new field does not compile until there is an answer for it.
    let InstanceSpec {
        image,
        command,
        args,
        // No document of a service has these two.
        placed_args: _,
        files: _,
        env,
        ports: _,
        resources: _,
        mounts,
        networks: _,
        healthcheck: _,
        capabilities,
    } = spec;
    let mut parameters = Vec::new();
    let mut parameter = |key: &str, value: &str| {
        parameters.push(json!({"key": key, "value": value}));
    };
    let mut words = Vec::new();
    if let Some((first, rest)) = command.as_deref().and_then(<[String]>::split_first) {
        parameter("entrypoint", first);
        words.extend(rest.iter().cloned());
    }
    words.extend(args.iter().flatten().cloned());
    for capability in capabilities {
        parameter("cap-add", capability);
    }
    let mut volumes = Vec::new();
    for Mount { source, path, read_only } in mounts {
        match source {
            MountSource::Host(from) => {
                let mode = if *read_only { "RO" } else { "RW" };
                volumes.push(json!({"containerPath": path, "hostPath": from, "mode": mode}));
            }
            // No document of a service has one for each slot.
            MountSource::Volume(name) | MountSource::SlotVolume(name) => {
                let mode = if *read_only { ":ro" } else { "" };
                parameter("volume", &format!("{name}:{path}{mode}"));
            }
        }
    }
    let Termination { drain: _, grace: _, signal } = &service.termination;
    parameter("stop-signal", signal);
    let env: Map<String, Value> = env
        .iter()
        .map(|var| {
            let value = match &var.value {
                EnvValue::Plain(text) => text.as_str(),
                EnvValue::Secret { name: _, key: _, value } => value.reveal(),
            };
            (var.name.clone(), value.into())
        })
        .collect();
    app.insert("args".to_owned(), words.into());
    app.insert("env".to_owned(), env.into());
    app.insert(
        "container".to_owned(),
        json!({
            "type": "DOCKER",
            "docker": {"image": image, "parameters": parameters},
            "volumes": volumes,
        }),
    );
}

/// Networks and ports. What a document says of `publish` is for hosts whose ports we choose.
fn reach(app: &mut Map<String, Value>, ports: &[Port], networks: &[String]) {
    let protocol = |port: &Port| match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    if networks.iter().any(|name| name == "host") {
        // What it listens on is its agent's own port.
        let definitions = ports
            .iter()
            .map(|p| json!({"port": p.container, "protocol": protocol(p), "name": p.name}));
        app.insert("portDefinitions".to_owned(), definitions.collect());
        app.insert("requirePorts".to_owned(), (!ports.is_empty()).into());
        return;
    }
    let named: Vec<&String> = networks.iter().filter(|name| !is_bridge(name)).collect();
    let bridge = named.is_empty();
    let networks: Vec<Value> = if bridge {
        vec![json!({"mode": "container/bridge"})]
    } else {
        named.iter().map(|name| json!({"mode": "container", "name": name})).collect()
    };
    let mapping = |p: &Port| {
        json!({
            "containerPort": p.container, "hostPort": 0, "servicePort": 0,
            "protocol": protocol(p), "name": p.name,
        })
    };
    let mappings: Vec<Value> = ports.iter().map(mapping).collect();
    app.insert("networks".to_owned(), networks.into());
    if let Some(Value::Object(container)) = app.get_mut("container") {
        container.insert("portMappings".to_owned(), mappings.into());
    }
}

/// Names of the engine's own bridge.
fn is_bridge(network: &str) -> bool {
    matches!(network, "bridge" | "default")
}

fn constraints(placement: &Placement) -> Vec<Value> {
    // Taken apart without `..`. Marathon takes the first agent that fits: it does not pack.
    let Placement { constraints, spread_by, max_per_host, packing: _ } = placement;
    let field = |label: &str| if label == HOST_LABEL { "hostname" } else { label }.to_owned();
    let mut out: Vec<Value> = constraints
        .iter()
        .map(|c| {
            if c.equal {
                json!([field(&c.label), "CLUSTER", c.value])
            } else {
                // All other operators refuse agents that lack the attribute.
                json!([field(&c.label), "UNLIKE", literally(&c.value)])
            }
        })
        .collect();
    if let Some(label) = spread_by {
        out.push(json!([field(label), "GROUP_BY"]));
    }
    match max_per_host {
        Some(1) => out.push(json!(["hostname", "UNIQUE"])),
        Some(most) => out.push(json!(["hostname", "MAX_PER", most.to_string()])),
        None => {}
    }
    out
}

/// The regular expression that only this text matches.
fn literally(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() && c.is_ascii() && !matches!(c, '_' | '-' | ' ') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The one check that Mesos makes on the agent.
fn check(probe: Option<&Probe>, spec: &InstanceSpec) -> Option<Value> {
    if let Some(Probe { kind, port, interval, timeout, failure_threshold, start_period }) = probe {
        let mut check = match kind {
            ProbeKind::Http { path } => json!({"protocol": "MESOS_HTTP", "path": path}),
            ProbeKind::Tcp => json!({"protocol": "MESOS_TCP"}),
        };
        pace(&mut check, *interval, *timeout, *failure_threshold, *start_period);
        match spec.ports.iter().position(|p| p.container == *port) {
            Some(index) => check["portIndex"] = index.into(),
            None => check["port"] = (*port).into(),
        }
        return Some(check);
    }
    let CommandCheck { command, interval, timeout, failure_threshold, start_period } =
        spec.healthcheck.as_ref()?;
    let line: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    let mut check = json!({"protocol": "COMMAND", "command": {"value": line.join(" ")}});
    pace(&mut check, *interval, *timeout, *failure_threshold, *start_period);
    Some(check)
}

fn pace(check: &mut Value, interval: Duration, timeout: Duration, failures: u32, grace: Duration) {
    check["intervalSeconds"] = seconds(interval).max(1).into();
    check["timeoutSeconds"] = seconds(timeout).max(1).into();
    check["maxConsecutiveFailures"] = failures.into();
    check["gracePeriodSeconds"] = seconds(grace).into();
    // Its default is 15 s in which a task that works is not known to.
    check["delaySeconds"] = 0.into();
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// How tasks are paced and ended.
fn policies(app: &mut Map<String, Value>, service: &Service) {
    let after = seconds(service.replace_after);
    // Whoever is expunged is ended when it returns; before that the younger one is.
    let expunge = match service.keep {
        Keep::Replacement => after,
        Keep::Original | Keep::Healthiest => after.saturating_mul(2),
    };
    let Termination { drain: _, grace, signal: _ } = &service.termination;
    app.insert("upgradeStrategy".to_owned(), upgrade(&service.rollout, service.replicas));
    app.insert(
        "unreachableStrategy".to_owned(),
        json!({"inactiveAfterSeconds": after, "expungeAfterSeconds": expunge}),
    );
    app.insert("taskKillGracePeriodSeconds".to_owned(), seconds(*grace).into());
}

/// Shares of the instances. A percentage is the same for every number of replicas, so that scaling changes nothing else.
fn upgrade(rollout: &Rollout, replicas: u32) -> Value {
    // Taken apart without `..`: the others are kept by the planner.
    let Rollout { max_surge, max_unavailable, min_ready: _, progress_deadline: _, on_failure: _ } =
        rollout;
    let none = |amount: Amount| matches!(amount, Amount::Count(0) | Amount::Percent(0));
    let stuck = none(*max_surge) && none(*max_unavailable);
    let unavailable = if stuck { Amount::Count(1) } else { *max_unavailable };
    let share = |amount: Amount| match amount {
        Amount::Percent(p) => u64::from(p) * 10_000,
        Amount::Count(0) => 0,
        // Marathon multiplies and rounds: half an instance more and it arrives at the count whatever its arithmetic does.
        Amount::Count(n) => (2 * u64::from(n) + 1) * 500_000 / u64::from(replicas).max(1),
    };
    let millionths = |n: u64| {
        let n = u32::try_from(n.min(1_000_000)).unwrap_or(1_000_000);
        json!(f64::from(n) / 1e6)
    };
    json!({
        "minimumHealthCapacity": millionths(1_000_000 - share(unavailable).min(1_000_000)),
        "maximumOverCapacity": millionths(share(*max_surge)),
    })
}

/// The document's own fields are merged over what is rendered, and take the place of what would contradict them.
fn overlay(app: &mut Map<String, Value>, fields: &Map<String, Value>) {
    let contradicted = |name: &str| match name {
        "uris" => &["fetch"][..],
        "ports" | "portDefinitions" => &["portDefinitions", "networks"],
        "ipAddress" => &["networks", "portDefinitions"],
        "cmd" => &["args"],
        _ => &[],
    };
    for name in fields.keys() {
        for other in contradicted(name) {
            app.remove(*other);
        }
    }
    let of_docker = |name: &str| fields.get("container").and_then(|c| c.get("docker")?.get(name));
    if of_docker("network").is_some() {
        app.remove("networks");
    }
    if let Some(Value::Object(container)) = app.get_mut("container") {
        if of_docker("portMappings").is_some() {
            container.remove("portMappings");
        }
        // Parameters of Docker, which Mesos' own containers refuse.
        let mesos = fields.get("container").is_some_and(|c| c.get("type") == Some(&json!("MESOS")));
        if mesos && let Some(Value::Object(docker)) = container.get_mut("docker") {
            docker.remove("parameters");
        }
    }
    merge(app, fields);
    // Tasks that keep their data stay where they are: the server takes nothing else.
    if is_resident(app) {
        if !fields.contains_key("unreachableStrategy") {
            app.insert("unreachableStrategy".to_owned(), "disabled".into());
        }
        if !fields.contains_key("upgradeStrategy") {
            app.remove("upgradeStrategy");
        }
    }
}

/// A JSON merge patch (RFC 7386): objects are merged, `null` removes, everything else takes the place of what is there.
fn merge(into: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                into.remove(name);
            }
            Value::Object(fields) => {
                let inner = into.entry(name.clone()).or_insert_with(|| Map::new().into());
                if let Value::Object(inner) = inner {
                    merge(inner, fields);
                } else {
                    let mut new = Map::new();
                    merge(&mut new, fields);
                    *inner = new.into();
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(d: Duration) -> u64 {
    d.as_secs() + u64::from(d.subsec_nanos() > 0)
}

fn thousandths(millis: u64) -> Value {
    u32::try_from(millis).map_or(json!(millis / 1000), |n| json!(f64::from(n) / 1e3))
}

#[cfg(test)]
mod tests;
