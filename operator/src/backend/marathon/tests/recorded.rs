//! Answers that servers of every age gave, and requests that they took. They are not part of the project.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::backend::marathon::encode::encode;
use crate::backend::marathon::wire::{
    App, Apps, Info, OneApp, Queue, TaskState, Version, deployments,
};
use crate::model::AppId;
use crate::model::app::compare::differences;
use crate::model::app::normal::{is_known, normalise};

/// Where they are, if they are there.
pub(crate) fn recorded() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference/marathon-data");
    if !dir.is_dir() {
        eprintln!("NOT TESTED: no recorded answers of Marathon at {}", dir.display());
        return None;
    }
    Some(dir)
}

/// Every JSON document of them, by where it is from.
pub(crate) fn documents(dir: &Path) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            match path.extension().and_then(|e| e.to_str()) {
                Some("json") => {
                    let value = serde_json::from_str(&text);
                    all.insert(name, value.unwrap_or_else(|e| panic!("{}: {e}", path.display())));
                }
                Some("yml") => exchanges(&name, &text, &mut all),
                _ => {}
            }
        }
    }
    all
}

/// Recorded pairs of request and answer.
fn exchanges(name: &str, text: &str, all: &mut BTreeMap<String, Value>) {
    let list: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
    for (at, one) in list.as_sequence().unwrap().iter().enumerate() {
        let of = |field: &str| one.get(field).and_then(serde_yaml::Value::as_str);
        if let Some(content) = of("content")
            && let Ok(value) = serde_json::from_str(content)
        {
            let (uri, method) = (of("uri").unwrap_or_default(), of("method").unwrap_or_default());
            all.insert(format!("{name}#{at} {method} {uri}"), value);
        }
    }
}

/// Every app in a document: what looks like one.
pub(crate) fn apps(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(fields) => {
            let is = |names: &[&str]| names.iter().any(|n| fields.contains_key(*n));
            let runs = is(&["cmd", "args", "container", "instances"]);
            if fields.contains_key("id") && runs && !is(&["containers", "scaling"]) {
                found.push(value.clone());
            }
            for value in fields.values() {
                apps(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| apps(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Fields of apps that are read-only, without effect, or of single old versions.
const PASSED_OVER: [&str; 20] = [
    "id",
    "instances",
    "version",
    "versionInfo",
    "tasks",
    "tasksRunning",
    "tasksStaged",
    "tasksHealthy",
    "tasksUnhealthy",
    "taskStats",
    "deployments",
    "lastTaskFailure",
    "readinessCheckResults",
    "residency",
    "storeUrls",
    "groups",
    "apps",
    "pods",
    "executorResources",
    "enforceRole",
];

#[test]
fn apps_of_every_age_have_one_form_and_survive_being_said_again() {
    let Some(dir) = recorded() else { return };
    let mut all = Vec::new();
    for (name, document) in documents(&dir) {
        // Pods are another kind of thing.
        if name.contains("pod") {
            continue;
        }
        let mut found = Vec::new();
        apps(&document, &mut found);
        all.extend(found.into_iter().map(|app| (name.clone(), app)));
    }
    assert!(all.len() > 300, "only {} apps were found", all.len());
    let id = AppId::new("/x").unwrap();
    let mut strange = BTreeSet::new();
    for (name, app) in &all {
        for field in app.as_object().unwrap().keys() {
            if !is_known(field) && !PASSED_OVER.contains(&field.as_str()) {
                strange.insert(format!("{field} in {name}"));
            }
        }
        let normal = normalise(app);
        let again = normalise(&Value::Object(normal.0.clone()));
        assert_eq!(again.0, normal.0, "{name}");
        for version in [Version(1, 4), Version(1, 11)] {
            // Old versions have no labels for a bridge.
            let network = normal.0.get("networks").and_then(|n| n.get(0));
            let bridge = network.is_some_and(|n| n["mode"] == "container/bridge");
            if bridge
                && network.is_some_and(|n| n.get("labels").is_some())
                && !version.has_networks()
            {
                continue;
            }
            let said = encode(&normal, &id, 1, version);
            let found = differences(&normal, &normalise(&said));
            assert_eq!(found, [], "{name} {version:?}: {said}");
        }
    }
    assert_eq!(strange, BTreeSet::new(), "fields that nobody has thought of");
}

#[test]
fn answers_of_every_age_are_read() {
    let Some(dir) = recorded() else { return };
    let (mut lists, mut singles, mut tasks, mut under_way, mut queues) = (0, 0, 0, 0, 0);
    for (name, document) in documents(&dir) {
        if document.get("apps").is_some_and(Value::is_array) && document.get("id").is_none() {
            let apps: Apps = serde_json::from_value(document.clone()).unwrap();
            tasks += apps.into_apps().flat_map(|app| app.tasks.unwrap_or_default()).count();
            lists += 1;
        }
        if document.get("app").is_some_and(Value::is_object) {
            let one: OneApp = serde_json::from_value(document.clone()).unwrap();
            tasks += one.app.0.iter().flat_map(|app| app.tasks.iter().flatten()).count();
            singles += 1;
        }
        if document.get("queue").is_some() {
            let queue: Queue = serde_json::from_value(document.clone()).unwrap();
            assert!(queue.reasons().values().all(|why| !why.is_empty()), "{name}");
            queues += queue.reasons().len();
        }
        if document.get("marathon_config").is_some() {
            let info: Info = serde_json::from_value(document.clone()).unwrap();
            assert!(info.version().is_some(), "{name}");
        }
        let list = document.as_array().or_else(|| document.get("body")?.as_array());
        for item in list.into_iter().flatten() {
            let body = item.get("body").and_then(Value::as_array);
            let items = body.map_or(std::slice::from_ref(item), Vec::as_slice);
            if items.iter().any(|d| d.get("affectedApps").is_some()) {
                let read = deployments(items);
                assert!(read.values().all(|d| d.touches >= 1 && !d.apps.is_empty()), "{name}");
                under_way += read.len();
            }
        }
    }
    let counts = (lists, singles, tasks, under_way, queues);
    assert!(
        lists >= 3 && singles >= 4 && tasks >= 10 && under_way >= 4 && queues >= 3,
        "{counts:?}"
    );
}

#[test]
fn a_real_answer_is_read_to_the_last_field() {
    let Some(dir) = recorded() else { return };
    let all = documents(&dir);
    let list: Apps =
        serde_json::from_value(all["marathon-lb/tests/marathon15_apps.json"].clone()).unwrap();
    let [app] = &list.into_apps().collect::<Vec<App>>()[..] else { panic!("there is one app") };
    assert_eq!(
        Value::Object(app.definition.0.clone()),
        json!({
            "cmd": "echo \"host $HOST and port $PORT\" > index.html && python -m http.server 80",
            "container": {"docker": {"image": "python:3"}, "portMappings": [
                {"containerPort": 80, "name": "test", "servicePort": 10_101}]},
            "cpus": 0.1,
            "labels": {"HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": "myvhost.com"},
            "maxLaunchDelaySeconds": 3600,
            "networks": [{"mode": "container/bridge"}],
            "unreachableStrategy": {"inactiveAfterSeconds": 300, "expungeAfterSeconds": 600},
            "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 1},
        })
    );
    let [task] = &app.tasks.clone().unwrap()[..] else { panic!("it has one task") };
    assert_eq!(
        (task.state, &*task.host, &task.ports[..]),
        (TaskState::Running, "10.0.2.148", &[1565][..])
    );
    assert_eq!(task.version.as_deref(), Some("2017-07-19T17:34:41.967Z"));
}
