//! Planning what was imported against the server that it came from.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::backend::marathon::tests::recorded::{apps, documents, recorded};
use crate::backend::marathon::view_of;
use crate::model::{AppId, CLUSTER, HostName, Memory, Time, World};
use crate::plan::{Input, plan};

/// The steps that a server is to be asked to take, which answers this.
fn steps(desired: &Desired, apps: &[Value]) -> Vec<String> {
    let fleet = desired.fleets.values().find(|f| f.marathon.is_some()).unwrap();
    let named = desired.services.values().map(|s| (s.app_id("/"), s.name.clone())).collect();
    let answer = json!({"apps": apps}).to_string();
    let view = view_of(&owner(), &fleet.name, named, answer.as_bytes()).unwrap();
    for service in desired.services.values() {
        assert!(view.apps.contains_key(&service.app_id("/")), "{} is not seen", service.name);
    }
    let hosts = [(HostName::new(CLUSTER).unwrap(), Arc::clone(&view))].into();
    let world = World { hosts, ..World::default() };
    let memory = Memory::default();
    let plan =
        plan(&Input { fleet, desired, world: &world, memory: &memory, now: Time(1_000_000) });
    plan.steps.iter().map(|planned| format!("{}: {:?}", planned.step, planned.reason)).collect()
}

/// With as many tasks as instances, all of the newest definition.
fn running(app: &Value) -> Value {
    let mut app = app.clone();
    let version = "2020-01-01T00:00:00.000Z";
    app["version"] = json!(version);
    app["versionInfo"] = json!({"lastConfigChangeAt": version, "lastScalingAt": version});
    let count = app["instances"].as_u64().unwrap_or(1);
    let task = |n: u64| {
        json!({"id": format!("t{n}.{}", app["id"]), "host": "10.0.0.1", "state": "TASK_RUNNING", "startedAt": version,
            "stagedAt": version, "version": version,
            "healthCheckResults": [{"alive": true, "firstSuccess": version}]})
    };
    app["tasks"] = (0..count).map(task).collect();
    app
}

#[test]
fn planning_a_real_dump_against_its_own_server_plans_nothing() {
    let Some(dir) = recorded() else { return };
    let dump = &documents(&dir)["marathon-real-dumps/155_100.json"];
    let mut live = Vec::new();
    apps(dump, &mut live);
    // Of the dump nothing runs; here some do.
    for (at, app) in live.iter_mut().enumerate() {
        app["instances"] = json!(at % 4);
    }
    let live: Vec<Value> = live.iter().map(running).collect();
    let desired = desired(&imported(&json!({"apps": live}), "/"));
    assert_eq!(desired.services.len(), 100);
    assert_eq!(steps(&desired, &live), [""; 0]);
    let mut other = live;
    other[1]["mem"] = json!(4711);
    let steps = steps(&desired, &other);
    assert!(steps.len() == 1 && steps[0].starts_with("update app "), "{steps:?}");
    let id = AppId::new(other[1]["id"].as_str().unwrap()).unwrap();
    assert!(steps[0].contains(id.as_str()), "{steps:?}");
}
