//! One service of a compose file as the spec of a document.

use evenkeel_crds::{CommandCheck, EnvVar, Health, HumanDuration, ScalingServiceSpec};
use serde_yaml::Value;

use super::amount::{duration, text};
use super::{Project, deploy, interpolate, ports, rest, volumes, words};
use crate::import::Notes;
use crate::import::document::blank;
use crate::import::name::{is_docker_name, is_env_name};
use crate::import::text::{MOST_VARIABLES, MOST_WORDS, fits, shown, signal};

/// Why a service is left out.
pub(super) type Unfit = (&'static str, &'static str);

/// The spec of a service's document.
pub(super) fn spec(
    service: &Value,
    project: &Project<'_>,
    notes: &mut Notes,
) -> Result<ScalingServiceSpec, Unfit> {
    let image = service.get("image").and_then(text).filter(|image| !image.is_empty());
    let Some(image) = image else {
        return Err(match (service.get("build"), service.get("extends")) {
            (Some(_), _) => (
                "it is built here and has no image",
                "build and push it, and write image with its name",
            ),
            (None, Some(_)) => (
                "extends is not followed, and it has no image",
                "write all of it in one file: docker compose config does",
            ),
            (None, None) => ("it has no image", "write image"),
        });
    };
    let mut spec = blank(&image);
    for (field, said, hint) in [
        ("build", "not carried over: hosts pull the image", "push it to where the hosts pull from"),
        ("extends", "is not followed", "write all of it in one file: docker compose config does"),
        (
            "profiles",
            "not carried over: it runs as everything else does",
            "replicas: 0 keeps it from running",
        ),
    ] {
        if service.get(field).is_some() {
            notes.lost_but(field, said, hint);
        }
    }
    spec.replicas = deploy::replicas(service, notes);
    spec.command = line(service.get("entrypoint"), "entrypoint", notes);
    spec.args = line(service.get("command"), "command", notes);
    spec.env = env(service, project, notes);
    spec.volumes = volumes::volumes(service.get("volumes"), project, notes);
    spec.networks = networks(service, project, notes);
    spec.health = health(service.get("healthcheck"), notes);
    deploy::deploy(service, &mut spec, notes);
    let together = spec.placement.max_per_host.unwrap_or(spec.replicas).min(spec.replicas);
    spec.ports = ports::ports(service.get("ports"), service.get("expose"), together, notes);
    if together > 1 && spec.ports.iter().any(|port| port.publish.is_some()) {
        notes.kept("ports", "the n-th instance on one host publishes publish + n - 1");
    }
    if let Some(grace) = service.get("stop_grace_period") {
        match duration(grace) {
            Some(grace) => spec.termination.grace = grace,
            None => notes.lost("stop_grace_period", "not carried over: it is no time"),
        }
    }
    if let Some(name) = service.get("stop_signal").and_then(text) {
        match signal(&name) {
            Some(signal) => spec.termination.signal = signal,
            None => notes.lost("stop_signal", format!("{} is not carried over", shown(&name))),
        }
    }
    labels(service.get("labels"), notes);
    for name in service.as_mapping().into_iter().flat_map(|fields| fields.keys()) {
        let name = name.as_str().unwrap_or("?");
        if !rest::TAKEN.contains(&name) && name != "volumes" && !name.starts_with("x-") {
            let (said, hint, lost) = rest::said(name);
            notes.add(&shown(name), said, hint, lost);
        }
    }
    Ok(spec)
}

/// A command as words: a list as it is, a text taken apart.
fn line(value: Option<&Value>, field: &str, notes: &mut Notes) -> Vec<String> {
    let all = match value {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Sequence(items)) => items.iter().map(text).collect::<Option<Vec<String>>>(),
        Some(other) => text(other).and_then(|text| words::words(&text)),
    };
    let Some(words) =
        all.filter(|all| all.len() <= MOST_WORDS && all.iter().all(|word| fits(word)))
    else {
        let said = "not carried over: it cannot be taken apart into words";
        notes.lost_but(field, said, "write command and args as lists");
        return Vec::new();
    };
    if words.is_empty() {
        let said = "nothing is not carried over: the image's own is run";
        notes.lost_but(field, said, "write what is to run");
    }
    words
}

/// What files say, then what the service says itself; where two say the same the last holds.
fn env(service: &Value, project: &Project<'_>, notes: &mut Notes) -> Vec<EnvVar> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut set =
        |name: String, value: String| match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => all.push((name, value)),
        };
    let files = match service.get("env_file") {
        Some(Value::Sequence(items)) => items.clone(),
        Some(Value::Null) | None => Vec::new(),
        Some(other) => vec![other.clone()],
    };
    for file in &files {
        let path = file.get("path").and_then(text).or_else(|| text(file)).unwrap_or_default();
        let required = file.get("required").and_then(Value::as_bool).unwrap_or(true);
        match (project.read)(&path) {
            Ok(content) => {
                let mut unset = Vec::new();
                for (name, value) in super::env_file::read(&content, project.lookup, &mut unset) {
                    set(name, value);
                }
                super::tell_unset("env_file", &unset, notes);
                notes.kept(
                    "env_file",
                    format!("what {} said when it was read is in env", shown(&path)),
                );
            }
            Err(why) if required => {
                notes.lost_but(
                    "env_file",
                    format!("{} cannot be read: {why}", shown(&path)),
                    "write what it says in env",
                );
            }
            Err(_) => {}
        }
    }
    let mut unset = Vec::new();
    let mut own = |name: &str, value: Option<String>| match value.or_else(|| (project.lookup)(name))
    {
        Some(value) => set(name.to_owned(), value),
        None => unset.push(name.to_owned()),
    };
    match service.get("environment") {
        Some(Value::Mapping(fields)) => {
            for (name, value) in fields {
                own(&text(name).unwrap_or_default(), text(value));
            }
        }
        Some(Value::Sequence(items)) => {
            for item in items.iter().filter_map(text) {
                match item.split_once('=') {
                    Some((name, value)) => own(name, Some(value.to_owned())),
                    None => own(&item, None),
                }
            }
        }
        _ => {}
    }
    for name in unset {
        let said = format!("{} has no value here, and is not carried over", shown(&name));
        notes.lost_but("environment", said, "set it, give --env-file, or write it in env");
    }
    let mut out = Vec::new();
    for (name, value) in all {
        if is_env_name(&name) && fits(&value) && out.len() < MOST_VARIABLES {
            out.push(EnvVar { name, value: Some(value), secret: None });
        } else {
            notes.lost(
                "environment",
                format!("{} is not carried over: no document can say it", shown(&name)),
            );
        }
    }
    out
}

/// The networks by the names that the engine has them by.
fn networks(service: &Value, project: &Project<'_>, notes: &mut Notes) -> Vec<String> {
    if let Some(mode) = service.get("network_mode").and_then(text) {
        if mode != "bridge" {
            let said =
                format!("{} is not carried over: it is on the engine's own bridge", shown(&mode));
            notes.lost_but(
                "network_mode",
                said,
                "publish the ports that are to be reached, and name the networks to join",
            );
        }
        return Vec::new();
    }
    let names: Vec<String> = match service.get("networks") {
        Some(Value::Sequence(items)) => items.iter().filter_map(text).collect(),
        Some(Value::Mapping(fields)) => {
            for (name, options) in fields {
                for option in options.as_mapping().into_iter().flat_map(|m| m.keys()) {
                    let said = format!(
                        "not carried over: {} of {}",
                        shown(&text(option).unwrap_or_default()),
                        shown(&text(name).unwrap_or_default())
                    );
                    notes.lost_but("networks", said, "an instance answers to its service's name");
                }
            }
            fields.keys().filter_map(text).collect()
        }
        _ => vec!["default".to_owned()],
    };
    let mut out: Vec<String> = Vec::new();
    for name in names {
        let declared = project.networks.and_then(|all| all.get(&name)).cloned().unwrap_or_default();
        let real = project.real_name(&name, &declared);
        let reserved = ["host", "none", "default", "ingress", "bridge"];
        if !is_docker_name(&real) || reserved.contains(&real.as_str()) || out.len() >= 20 {
            notes.lost("networks", format!("{} is not carried over", shown(&name)));
        } else if !out.contains(&real) {
            out.push(real);
        }
    }
    out
}

fn health(check: Option<&Value>, notes: &mut Notes) -> Option<Health> {
    const FIELD: &str = "healthcheck";
    let check = check?;
    if check.get("disable").and_then(Value::as_bool) == Some(true) {
        notes.lost(FIELD, "disable is not carried over: a check that the image has is made");
        return None;
    }
    let shell = |line: &str| ["/bin/sh", "-c", line].map(str::to_owned).into();
    let command: Option<Vec<String>> = match check.get("test") {
        Some(Value::Sequence(items)) => {
            let items: Vec<String> = items.iter().filter_map(text).collect();
            match &items[..] {
                [none] if none == "NONE" => {
                    notes.lost(
                        FIELD,
                        "NONE is not carried over: a check that the image has is made",
                    );
                    return None;
                }
                [kind, line] if kind == "CMD-SHELL" => Some(shell(line)),
                [kind, rest @ ..] if kind == "CMD" && !rest.is_empty() => Some(rest.to_vec()),
                _ => None,
            }
        }
        other => other.and_then(text).filter(|line| !line.is_empty()).map(|line| shell(&line)),
    };
    let Some(command) = command.filter(|c| c.len() <= MOST_WORDS) else {
        notes.lost_but(FIELD, "not carried over: it does not say what to run", "write health");
        return None;
    };
    let time = |name: &str, default: u64| {
        let given = check.get(name).and_then(duration).filter(|d| !d.get().is_zero());
        given.unwrap_or_else(|| HumanDuration::from_secs(default))
    };
    if check.get("start_interval").is_some() {
        notes.kept(
            FIELD,
            "start_interval is not carried over: checks begin at once and keep one pace",
        );
    }
    let retries = check.get("retries").and_then(text).and_then(|n| n.parse().ok());
    Some(Health {
        http: None,
        tcp: None,
        command: Some(CommandCheck { command }),
        interval: time("interval", 30),
        timeout: time("timeout", 30),
        failure_threshold: retries.unwrap_or(3_u32).clamp(1, 100),
        start_period: time("start_period", 0),
    })
}

fn labels(labels: Option<&Value>, notes: &mut Notes) {
    let names: Vec<String> = match labels {
        Some(Value::Mapping(fields)) => fields.keys().filter_map(text).collect(),
        Some(Value::Sequence(items)) => {
            let name = |item: &Value| Some(text(item)?.split('=').next()?.to_owned());
            items.iter().filter_map(name).collect()
        }
        _ => return,
    };
    let of_balancers =
        |name: &&String| ["traefik.", "haproxy.", "caddy"].iter().any(|p| name.starts_with(p));
    let (routes, others): (Vec<&String>, Vec<&String>) = names.iter().partition(of_balancers);
    for (names, hint) in [
        (routes, "write a LoadBalancer, and routes to it"),
        (others, "discovery.meta shows such things in the catalogue"),
    ] {
        if !names.is_empty() {
            let names: Vec<String> = names.into_iter().map(|name| shown(name)).collect();
            notes.lost_but("labels", format!("not carried over: {}", names.join(", ")), hint);
        }
    }
}

/// Texts that variables were put into, for the interpolation of one service.
pub(super) fn interpolated(service: &Value, project: &Project<'_>, notes: &mut Notes) -> Value {
    let mut service = service.clone();
    let Some(fields) = service.as_mapping_mut() else { return service };
    for (name, value) in fields.iter_mut() {
        let mut unset = Vec::new();
        interpolate::all(value, project.lookup, &mut unset);
        super::tell_unset(name.as_str().unwrap_or("?"), &unset, notes);
    }
    service
}
