//! Constraints, checks, upgrades and what is done about silent agents.

use serde_json::Value;

use super::super::normal::{Customs, resident};
use super::super::pattern::Pattern;
use super::super::read::Fields;
use super::{Faults, list};

pub(super) fn judge(app: &Fields, customs: &Customs, faults: &mut Faults) {
    for (at, constraint) in list(app.get("constraints")).iter().enumerate() {
        if let Some(fault) = constraint_fault(constraint, customs) {
            faults.add(format!("/constraints({at})"), fault);
        }
    }
    judge_upgrade(app, faults);
    judge_unreachable(app, faults);
    judge_health(app, faults);
    judge_readiness(app, faults);
    for (at, artifact) in list(app.get("fetch")).iter().enumerate() {
        let uri = artifact["uri"].as_str().unwrap_or_default();
        // Anything that Java's URI takes: it may have no scheme, but no spaces.
        let fits = !uri.contains(|c: char| c.is_whitespace() || "\"<>\\^`{|}".contains(c));
        faults.unless(fits, &format!("/fetch({at})/uri"), "it is no URI");
    }
}

fn constraint_fault(constraint: &Value, customs: &Customs) -> Option<&'static str> {
    let words: Vec<&str> = list(Some(constraint)).iter().filter_map(Value::as_str).collect();
    if !(2..=3).contains(&words.len()) {
        return Some("a constraint has two or three parts");
    }
    if words[0].is_empty() {
        return Some("a constraint needs a field");
    }
    let value = words.get(2).copied();
    let whole = |value: &str| value.parse::<i32>().is_ok();
    // The old ones took what later ones refuse, and gave it back.
    let lax = !customs.release.has(5);
    match words[1].to_uppercase().as_str() {
        "UNIQUE" if value.is_some() && !lax => Some("UNIQUE takes no value"),
        "GROUP_BY" if value.is_some_and(|value| !whole(value)) && !lax => {
            Some("GROUP_BY takes a whole number or nothing")
        }
        "MAX_PER" if !value.is_some_and(whole) => Some("MAX_PER takes a whole number"),
        "LIKE" | "UNLIKE" => match value {
            None => Some("LIKE and UNLIKE take an expression"),
            Some(value) if Pattern::new(value).is_none() => Some("this is no expression"),
            Some(_) => None,
        },
        "IS" if customs.release.has(6) => {
            let fits = |c: char| c.is_ascii_alphanumeric() || "_/.-".contains(c);
            let plain = value.unwrap_or_default().chars().all(fits);
            (!plain).then_some("IS takes a word or a number")
        }
        "UNIQUE" | "CLUSTER" | "GROUP_BY" | "MAX_PER" => None,
        _ => Some("there is no such operator"),
    }
}

fn judge_upgrade(app: &Fields, faults: &mut Faults) {
    let single = app.get("labels").is_some_and(|l| l["MARATHON_SINGLE_INSTANCE_APP"] == "true");
    let count = app.get("instances").and_then(Value::as_u64).unwrap_or(1);
    faults.unless(!single || count <= 1, "/", "it says that it has one instance at most");
    let Some(strategy) = app.get("upgradeStrategy") else { return };
    for (name, strict) in
        [("minimumHealthCapacity", single), ("maximumOverCapacity", single || resident(app))]
    {
        let zero = strategy[name].as_f64() == Some(0.0);
        faults.unless(!strict || zero, &format!("/upgradeStrategy/{name}"), "must be 0.0");
    }
}

fn judge_unreachable(app: &Fields, faults: &mut Faults) {
    let Some(strategy) = app.get("unreachableStrategy") else { return };
    let error = "who keeps data on an agent waits for it for ever";
    faults.unless(!resident(app) || strategy.is_string(), "/", error);
    let of = |name: &str| strategy[name].as_u64().unwrap_or_default();
    let error = "inactiveAfterSeconds is more than expungeAfterSeconds";
    let ordered = of("inactiveAfterSeconds") <= of("expungeAfterSeconds");
    faults.unless(ordered, "/unreachableStrategy", error);
}

fn ports(app: &Fields) -> &[Value] {
    let mapped = list(app.get("container").and_then(|container| container.get("portMappings")));
    if mapped.is_empty() { list(app.get("portDefinitions")) } else { mapped }
}

fn judge_health(app: &Fields, faults: &mut Faults) {
    let checks = list(app.get("healthChecks"));
    let ports = ports(app).len();
    let docker = app.get("container").is_some_and(|container| container["type"] == "DOCKER");
    let of_mesos = |check: &Value| {
        check["protocol"].as_str().is_some_and(|p| p.starts_with("MESOS_") || p == "COMMAND")
    };
    for (at, check) in checks.iter().enumerate() {
        let path = format!("/healthChecks({at})");
        let index = check["portIndex"].as_u64().and_then(|index| usize::try_from(index).ok());
        let fits = match index {
            Some(index) => index < ports,
            None => check.get("port").is_some() || ports == 1,
        };
        let error = "there is no such port";
        faults.unless(fits || of_mesos(check) || check.get("command").is_some(), &path, error);
        let error = "only what the agent asks of a Docker container may use IPv6";
        let asks = of_mesos(check) && check["protocol"] != "COMMAND";
        faults.unless(check["ipProtocol"] != "IPv6" || (docker && asks), &path, error);
        let error = "a command is needed with COMMAND, and only there";
        let fits = (check["protocol"] == "COMMAND") == check.get("command").is_some();
        faults.unless(fits, &path, error);
    }
    let network = |check: &&Value| of_mesos(check) && check.get("command").is_none();
    let error = "the agent makes one health check at most";
    faults.unless(checks.iter().filter(network).count() <= 1, "/", error);
}

fn judge_readiness(app: &Fields, faults: &mut Faults) {
    let checks = list(app.get("readinessChecks"));
    faults.unless(checks.len() <= 1, "/readinessChecks", "there is more than one");
    for (at, check) in checks.iter().enumerate() {
        let path = format!("/readinessChecks({at})");
        let name = check["portName"].as_str().unwrap_or_default();
        let known = ports(app).iter().any(|port| port["name"] == name);
        let error = format!("no port has the name {name}");
        faults.unless(known, &format!("{path}/portName"), &error);
        let of = |name: &str| check[name].as_u64().unwrap_or_default();
        let error = format!("must be less than {}", of("intervalSeconds"));
        let shorter = of("timeoutSeconds") < of("intervalSeconds");
        faults.unless(shorter, &format!("{path}/timeoutSeconds"), &error);
    }
}
