//! What somebody made different in an app.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::json::{drop_empty, is_number};
use super::network::is_resident;
use super::{Definition, OWN_LABELS};
use crate::model::reason::FieldChange;

/// One field that is not as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What it was and what it is to be. Never shows a value of the environment.
    pub change: FieldChange,
    /// It says how tasks are checked, paced and ended, not what they are: not worth a restart of all of them.
    pub policy: bool,
}

/// Fields that say how tasks are checked, paced and ended.
const POLICY: [&str; 9] = [
    "backoffFactor",
    "backoffSeconds",
    "healthChecks",
    "killSelection",
    "maxLaunchDelaySeconds",
    "readinessChecks",
    "taskKillGracePeriodSeconds",
    "unreachableStrategy",
    "upgradeStrategy",
];

/// The parameter of Docker that says which signal ends a task: as much a policy as the time that it then has.
const STOP_SIGNAL: &str = "stop-signal";

/// The longest value that is shown.
const SHOWN: usize = 200;

/// What of `live` is not as `wanted`, in the order of the fields. Labels of evenkeel are no difference, a port that is
/// wanted as 0 is whatever the server made of it, and where nothing is wanted any default of any version will do.
pub fn differences(wanted: &Definition, live: &Definition) -> Vec<Difference> {
    let mut out = Vec::new();
    if wanted == live {
        return out;
    }
    let (mut wanted, mut live) = (wanted.0.clone(), live.0.clone());
    forgive(&wanted, &mut live);
    for side in [&mut wanted, &mut live] {
        if let Some(Value::Object(labels)) = side.get_mut("labels") {
            labels.retain(|name, _| !name.starts_with(OWN_LABELS));
        }
        drop_empty(side, "labels");
    }
    let parameters = (take_parameters(&mut wanted), take_parameters(&mut live));
    let names: BTreeSet<String> = wanted.keys().chain(live.keys()).cloned().collect();
    for name in names {
        let policy = POLICY.contains(&name.as_str());
        let mut found = Vec::new();
        walk(&name, wanted.get(&name), live.get(&name), &mut found);
        out.extend(found.into_iter().map(|change| Difference { change, policy }));
        if name == "container" {
            compare_parameters(&parameters.0, &parameters.1, &mut out);
        }
    }
    out
}

/// Takes out of what is live what the server may have decided where nothing is wanted.
fn forgive(wanted: &Map<String, Value>, live: &mut Map<String, Value>) {
    let unsaid = |name: &str| !wanted.contains_key(name);
    if unsaid("role") {
        live.remove("role");
    }
    if unsaid("maxLaunchDelaySeconds")
        && live
            .get("maxLaunchDelaySeconds")
            .is_some_and(|v| is_number(v, 300.0) || is_number(v, 3600.0))
    {
        live.remove("maxLaunchDelaySeconds");
    }
    let resident = is_resident(live);
    if unsaid("unreachableStrategy")
        && live.get("unreachableStrategy").is_some_and(|v| is_default_unreachable(v, resident))
    {
        live.remove("unreachableStrategy");
    }
    each(wanted.get("networks"), live.get_mut("networks"), |wanted, live, _| {
        if wanted.get("mode").is_some_and(|mode| mode == "container") {
            drop_unsaid("name", wanted, live);
        }
    });
    each(wanted.get("portDefinitions"), live.get_mut("portDefinitions"), |wanted, live, one| {
        drop_unsaid("port", wanted, live);
        same_name(wanted, live, one);
    });
    let of = |app: Option<&Value>| app.and_then(|c| c.get("portMappings")).cloned();
    let mappings = of(wanted.get("container"));
    let live = live.get_mut("container").and_then(|c| c.get_mut("portMappings"));
    each(mappings.as_ref(), live, |wanted, live, one| {
        drop_unsaid("servicePort", wanted, live);
        same_name(wanted, live, one);
    });
}

/// Calls `f` for each pair of two lists of equal length, and says whether there is only one.
fn each(
    wanted: Option<&Value>,
    live: Option<&mut Value>,
    f: impl Fn(&Map<String, Value>, &mut Map<String, Value>, bool),
) {
    let (Some(Value::Array(wanted)), Some(Value::Array(live))) = (wanted, live) else { return };
    if wanted.len() != live.len() {
        return;
    }
    let one = wanted.len() == 1;
    for (wanted, live) in wanted.iter().zip(live) {
        if let (Value::Object(wanted), Value::Object(live)) = (wanted, live) {
            f(wanted, live, one);
        }
    }
}

fn drop_unsaid(name: &str, wanted: &Map<String, Value>, live: &mut Map<String, Value>) {
    if !wanted.contains_key(name) {
        live.remove(name);
    }
}

/// A single port that nobody named is called `default` by some versions and nothing by others.
fn same_name(wanted: &Map<String, Value>, live: &mut Map<String, Value>, one: bool) {
    let unnamed = |fields: &Map<String, Value>| fields.get("name").is_none_or(|n| n == "default");
    if one && unnamed(wanted) && unnamed(live) {
        live.remove("name");
        if let Some(name) = wanted.get("name") {
            live.insert("name".to_owned(), name.clone());
        }
    }
}

fn is_default_unreachable(value: &Value, resident: bool) -> bool {
    let seconds = |name: &str| value.get(name).and_then(Value::as_u64);
    match (seconds("inactiveAfterSeconds"), seconds("expungeAfterSeconds")) {
        (Some(0), Some(0)) | (Some(300), Some(600)) => true,
        _ => resident && value == "disabled",
    }
}

/// The parameters of Docker as `key=value`, taken out of the container.
fn take_parameters(app: &mut Map<String, Value>) -> Vec<(String, String)> {
    let docker = app.get_mut("container").and_then(|c| c.get_mut("docker"));
    let taken = docker.and_then(Value::as_object_mut).and_then(|d| d.remove("parameters"));
    let Some(Value::Array(all)) = taken else { return Vec::new() };
    let text = |v: Option<&Value>| v.map(plain).unwrap_or_default();
    all.iter().map(|p| (text(p.get("key")), text(p.get("value")))).collect()
}

fn compare_parameters(
    wanted: &[(String, String)],
    live: &[(String, String)],
    out: &mut Vec<Difference>,
) {
    let split = |all: &[(String, String)], signal: bool| -> Vec<(String, String)> {
        all.iter().filter(|(key, _)| (key == STOP_SIGNAL) == signal).cloned().collect()
    };
    for (policy, signal) in [(false, false), (true, true)] {
        let (wanted, live) = (split(wanted, signal), split(live, signal));
        if wanted != live {
            let field = "container.docker.parameters".to_owned();
            let change =
                FieldChange { field, old: show_parameters(&live), new: show_parameters(&wanted) };
            out.push(Difference { change, policy });
        }
    }
}

fn show_parameters(all: &[(String, String)]) -> Option<String> {
    let one = |(key, value): &(String, String)| match key.as_str() {
        // Its environment in another way.
        "env" | "e" => format!("{key}={}", value.split('=').next().unwrap_or_default()),
        _ => format!("{key}={value}"),
    };
    let texts: Vec<String> = all.iter().map(one).collect();
    (!texts.is_empty()).then(|| clip(&texts.join(" ")))
}

fn walk(path: &str, wanted: Option<&Value>, live: Option<&Value>, out: &mut Vec<FieldChange>) {
    if wanted == live {
        return;
    }
    let nothing = Map::new();
    let fields = |side: Option<&Value>| match side {
        None => Some(nothing.clone()),
        Some(Value::Object(fields)) => Some(fields.clone()),
        Some(_) => None,
    };
    let is_list = |v: &Value| v.is_array();
    if !wanted.is_some_and(is_list)
        && !live.is_some_and(is_list)
        && let (Some(w), Some(l)) = (fields(wanted), fields(live))
        && !(path.starts_with("env.") || (w.is_empty() && l.is_empty()))
    {
        let names: BTreeSet<&String> = w.keys().chain(l.keys()).collect();
        for name in names {
            walk(&format!("{path}.{name}"), w.get(name), l.get(name), out);
        }
        return;
    }
    if let (Some(Value::Array(w)), Some(Value::Array(l))) = (wanted, live)
        && w.len() == l.len()
        && w.iter().chain(l).all(Value::is_object)
    {
        for (i, (w, l)) in w.iter().zip(l).enumerate() {
            walk(&format!("{path}[{i}]"), Some(w), Some(l), out);
        }
        return;
    }
    let show = |side: Option<&Value>| side.map(|value| shown(path, value));
    out.push(FieldChange { field: path.to_owned(), old: show(live), new: show(wanted) });
}

/// A value as people may see it.
fn shown(path: &str, value: &Value) -> String {
    if path == "env" || path.starts_with("env.") {
        return "(hidden)".to_owned();
    }
    clip(&plain(value))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// One line that is not too long, without the credentials of a URL.
fn clip(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(['/', '"', ' ', '?', '#']).unwrap_or(after.len());
        rest = match after.get(..end).and_then(|authority| authority.rfind('@')) {
            Some(at) => after.get(at + 1..).unwrap_or_default(),
            None => after,
        };
    }
    out.push_str(rest);
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let short: String = out.chars().map(clean).take(SHOWN).collect();
    if short.len() < out.len() { format!("{short}…") } else { short }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::normal::normalise;
    use super::*;

    /// The differences as text, `policy` marked with a star.
    fn diff(wanted: &Value, live: &Value) -> Vec<String> {
        let all = differences(&normalise(wanted), &normalise(live));
        all.iter().map(|d| format!("{}{}", if d.policy { "*" } else { "" }, d.change)).collect()
    }

    #[test]
    fn what_the_server_decides_is_no_difference() {
        let wanted = json!({
            "container": {"docker": {"image": "a"}, "portMappings": [{"containerPort": 80, "name": "http"}]},
            "networks": [{"mode": "container"}],
        });
        let live = json!({
            "id": "/a", "version": "2020-01-01T00:00:00.000Z", "instances": 3, "role": "*",
            "container": {"type": "DOCKER", "volumes": [], "docker": {"image": "a", "parameters": []},
                "portMappings": [{"containerPort": 80, "servicePort": 10_001, "name": "http", "labels": {}}]},
            "networks": [{"mode": "container", "name": "dcos"}],
            "labels": {"evenkeel.dev/owner": "o"}, "maxLaunchDelaySeconds": 300, "cpus": 1.0,
            "unreachableStrategy": {"inactiveAfterSeconds": 300, "expungeAfterSeconds": 600},
        });
        assert_eq!(diff(&wanted, &live), [""; 0]);
        let host = json!({"cmd": "x", "networks": [{"mode": "host"}],
            "portDefinitions": [{"port": 10_003, "name": "default", "protocol": "tcp"}]});
        assert_eq!(diff(&json!({"cmd": "x"}), &host), [""; 0]);
        assert_eq!(diff(&json!({"cmd": "x", "ports": [0]}), &host), [""; 0]);
    }

    #[test]
    fn each_leaf_is_named_and_the_environment_is_not_shown() {
        let wanted = json!({
            "cpus": 0.5, "env": {"TOKEN": "hunter2", "NEW": "secret1"}, "labels": {"a": "b"},
            "container": {"docker": {"image": "web:2", "parameters": [{"key": "env", "value": "P=hunter4"}]}},
            "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 0.2},
        });
        let live = json!({
            "env": {"TOKEN": "hunter3", "OLD": "x"}, "container": {"docker": {"image": "web:1"}},
            "fetch": [{"uri": "https://u:hunter5@h/x.tgz"}],
        });
        let all = diff(&wanted, &live);
        assert!(!all.join("\n").contains("hunter"), "{all:?}");
        assert_eq!(
            all,
            [
                "container.docker.image web:1 → web:2",
                "container.docker.parameters unset → env=P",
                "cpus unset → 0.5",
                "env.NEW unset → (hidden)",
                "env.OLD (hidden) → unset",
                "env.TOKEN (hidden) → (hidden)",
                "fetch [{\"uri\":\"https://h/x.tgz\"}] → unset",
                "labels.a unset → b",
                "*upgradeStrategy.maximumOverCapacity 1 → 0.2",
            ]
        );
    }

    #[test]
    fn how_tasks_are_checked_paced_and_ended_is_policy() {
        let wanted = json!({
            "healthChecks": [{"protocol": "MESOS_HTTP", "path": "/up"}], "backoffSeconds": 2,
            "taskKillGracePeriodSeconds": 30,
            "container": {"docker": {"image": "a", "parameters": [{"key": "stop-signal", "value": "SIGQUIT"}]}},
        });
        let live = json!({
            "healthChecks": [{"protocol": "MESOS_HTTP", "path": "/"}], "maxLaunchDelaySeconds": 7,
            "container": {"docker": {"image": "a", "parameters": [{"key": "stop-signal", "value": "SIGTERM"}]}},
        });
        assert_eq!(
            diff(&wanted, &live),
            [
                "*backoffSeconds unset → 2",
                "*container.docker.parameters stop-signal=SIGTERM → stop-signal=SIGQUIT",
                "*healthChecks[0].path unset → /up",
                "*maxLaunchDelaySeconds 7 → unset",
                "*taskKillGracePeriodSeconds unset → 30",
            ]
        );
    }
}
