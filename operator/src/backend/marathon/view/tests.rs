use serde_json::{Value, json};

use super::*;
use crate::backend::marathon::wire::{OneApp, deployments};
use crate::model::{FleetName, HealthState, OwnerId, Slot, State};

fn live() -> Live {
    let me = Me { owner: OwnerId::new("o").unwrap(), fleet: FleetName::new("f").unwrap() };
    Live::new(me, Time(0))
}

fn id(path: &str) -> AppId {
    AppId::new(path).unwrap()
}

const UUID: &str = "0a1b2c3d-6ca8-11e7-beb2-0e2beceebfcc";
const OLD: &str = "2020-01-01T00:00:00.000Z";
const NEW: &str = "2020-01-02T00:00:00.000Z";

fn task(state: &str) -> Value {
    json!({
        "id": format!("web.instance-{UUID}._app.1"), "appId": "/web", "host": "10.0.0.7",
        "ports": [31_000, 31_001], "state": state, "version": NEW, "stagedAt": NEW,
        "ipAddresses": [{"ipAddress": "172.17.0.2", "protocol": "IPv4"}],
    })
}

fn ours(tasks: &[Value]) -> Value {
    json!({
        "id": "/web", "instances": 2, "version": NEW, "cpus": 0.25, "mem": 64,
        "versionInfo": {"lastConfigChangeAt": NEW, "lastScalingAt": NEW},
        "labels": {"evenkeel.dev/owner": "o", "evenkeel.dev/fleet": "f",
            "evenkeel.dev/service": "web", "evenkeel.dev/hash": "00000000000000ab"},
        "container": {"docker": {"image": "a"}, "portMappings": [
            {"containerPort": 80, "hostPort": 0}, {"containerPort": 53, "protocol": "udp"}]},
        "networks": [{"mode": "container/bridge"}], "tasks": tasks, "deployments": [],
    })
}

fn app(value: &Value) -> App {
    App::read(value).unwrap()
}

fn see(live: &mut Live, value: &Value, now: u64) {
    let begun = live.begin();
    live.looked(begun, &id("/web"), Some(app(value)), Time(now));
}

fn list(live: &mut Live, all: &[&Value], now: u64) {
    let begun = live.begin();
    let apps = all.iter().map(|value| app(value)).collect();
    live.listed(begun, All { apps, ..All::default() }, Time(now));
}

fn only(live: &Live) -> Instance {
    let [one] = &live.view().instances[..] else { panic!("{:?}", live.view()) };
    one.clone()
}

#[test]
fn a_task_is_an_instance() {
    let mut live = live();
    list(&mut live, &[&ours(&[task("TASK_RUNNING")])], 5);
    assert_eq!(live.view().seen, Seen::Never { since: Time(0) });
    live.arrived();
    let one = only(&live);
    assert_eq!(&*one.id.0, format!("web.instance-{UUID}._app.1"));
    assert_eq!((&*one.name, one.slot), ("web_0a1b2c3d", Slot(0x0a1b_2c3d)));
    assert_eq!((one.service.as_str(), one.hash), ("web", SpecHash(0xab)));
    assert_eq!((one.state, one.health), (State::Running, HealthState::Healthy { since: Time(5) }));
    assert_eq!(one.at, "10.0.0.7".parse().ok());
    assert_eq!(one.bindings, [(80, 31_000)], "udp is no binding");
    assert_eq!((one.resources.cpu_millis, one.resources.memory_bytes), (250, 64 << 20));
    assert_eq!(one.created, Time(1_577_923_200_000));
    let view = live.view().apps[&id("/web")].clone();
    assert_eq!((view.current.len(), view.outdated.len(), view.instances), (1, 0, 2));
}

#[test]
fn a_container_network_without_host_ports_is_reached_at_the_task_itself() {
    let mut value = ours(&[task("TASK_RUNNING")]);
    value["networks"] = json!([{"mode": "container", "name": "dcos"}]);
    value["container"]["portMappings"] = json!([{"containerPort": 80}, {"containerPort": 81}]);
    let mut live = live();
    list(&mut live, &[&value], 5);
    assert_eq!(only(&live).at, "172.17.0.2".parse().ok());
    assert_eq!(only(&live).bindings, [(80, 80), (81, 81)]);
    // One that has a host port is reached at its agent, by that.
    value["container"]["portMappings"] =
        json!([{"containerPort": 81}, {"containerPort": 80, "hostPort": 0}]);
    list(&mut live, &[&value], 5);
    assert_eq!(only(&live).at, "10.0.0.7".parse().ok());
    assert_eq!(only(&live).bindings, [(80, 31_000)]);
}

#[test]
fn an_agent_with_a_name_is_reached_once_its_address_is_known() {
    let mut named = task("TASK_RUNNING");
    named["host"] = json!("agent-7.example");
    let mut live = live();
    list(&mut live, &[&ours(&[named])], 5);
    assert_eq!(only(&live).at, None);
    assert_eq!(live.unresolved().len(), 1);
    let asked = live.unresolved();
    live.resolved(asked.clone(), BTreeMap::new());
    assert!(live.unresolved().is_empty(), "it was looked up in vain");
    let found = BTreeMap::from([("agent-7.example".into(), "10.9.9.9".parse().unwrap())]);
    live.resolved(asked.clone(), found);
    assert_eq!(only(&live).at, "10.9.9.9".parse().ok());
    live.resolved(asked, BTreeMap::new());
    assert_eq!(only(&live).at, "10.9.9.9".parse().ok(), "it keeps the address that it had");
}

#[test]
fn each_state_of_mesos_is_one_of_ours() {
    for (word, state) in [
        ("TASK_STAGING", Some(State::Running)),
        ("TASK_STARTING", Some(State::Running)),
        ("TASK_RUNNING", Some(State::Running)),
        ("TASK_KILLING", Some(State::Ending)),
        ("TASK_UNREACHABLE", Some(State::Ending)),
        ("TASK_TO_COME", Some(State::Ending)),
        ("TASK_KILLED", None),
        ("TASK_FAILED", None),
        ("TASK_GONE", None),
    ] {
        let mut live = live();
        list(&mut live, &[&ours(&[task(word)])], 5);
        let found = live.view().instances.first().map(|i| i.state);
        assert_eq!(found, state, "{word}");
    }
    let mut live = live();
    list(&mut live, &[&ours(&[task("TASK_STAGING")])], 5);
    assert_eq!(only(&live).health, HealthState::Starting);
}

#[test]
fn one_out_of_sight_that_returns_is_what_it_was() {
    let mut live = live();
    for (state, now) in [("TASK_RUNNING", 5), ("TASK_UNREACHABLE", 6), ("TASK_RUNNING", 7)] {
        see(&mut live, &ours(&[task(state)]), now);
    }
    assert_eq!(only(&live).state, State::Running);
    assert_eq!(only(&live).health, HealthState::Healthy { since: Time(5) });
}

/// An app with a check that may fail three times and has ten seconds to begin with.
fn checked(state: &str, results: &Value) -> Value {
    let mut one = task(state);
    one["healthCheckResults"] = results.clone();
    let mut app = ours(&[one]);
    app["healthChecks"] = json!([{"protocol": "MESOS_HTTP", "gracePeriodSeconds": 10}]);
    app
}

fn result(alive: bool, succeeded: bool, failures: u32) -> Value {
    let first = succeeded.then_some(NEW);
    json!([{"alive": alive, "firstSuccess": first, "consecutiveFailures": failures}])
}

#[test]
fn health_is_what_the_checks_say() {
    let healthy = |at| HealthState::Healthy { since: Time(at) };
    let sick = |at| HealthState::Unhealthy { since: Time(at) };
    let none = json!([]);
    let mut seen = live();
    // It ran before anybody looked: without results nobody can tell.
    see(&mut seen, &checked("TASK_RUNNING", &none), 1000);
    assert_eq!(only(&seen).health, HealthState::Unknown);
    see(&mut seen, &checked("TASK_RUNNING", &result(true, true, 0)), 2000);
    assert_eq!(only(&seen).health, healthy(2000));
    // A new leader knows nothing for a while; and one failure is not what the check calls sick.
    see(&mut seen, &checked("TASK_RUNNING", &none), 3000);
    assert_eq!(only(&seen).health, healthy(2000));
    see(&mut seen, &checked("TASK_RUNNING", &result(false, true, 2)), 20_000);
    assert_eq!(only(&seen).health, healthy(2000));
    see(&mut seen, &checked("TASK_RUNNING", &result(false, true, 3)), 21_000);
    assert_eq!(only(&seen).health, sick(21_000));
    see(&mut seen, &checked("TASK_RUNNING", &result(false, true, 4)), 22_000);
    assert_eq!(only(&seen).health, sick(21_000));
    see(&mut seen, &checked("TASK_RUNNING", &result(true, true, 0)), 23_000);
    assert_eq!(only(&seen).health, healthy(23_000));

    let mut born = live();
    see(&mut born, &checked("TASK_STAGING", &none), 1000);
    see(&mut born, &checked("TASK_RUNNING", &none), 2000);
    assert_eq!(only(&born).health, HealthState::Starting, "its start was seen");
    see(&mut born, &checked("TASK_RUNNING", &result(false, false, 7)), 11_000);
    assert_eq!(only(&born).health, HealthState::Starting, "it has ten seconds");
    see(&mut born, &checked("TASK_RUNNING", &result(false, false, 8)), 13_000);
    assert_eq!(only(&born).health, sick(13_000));
}

#[test]
fn a_task_of_an_older_definition_is_outdated_and_one_from_before_a_scaling_is_not() {
    let mut old = task("TASK_RUNNING");
    old["version"] = json!(OLD);
    let mut live = live();
    list(&mut live, &[&ours(&[old.clone()])], 5);
    assert_eq!(only(&live).hash, SpecHash(0));
    assert_eq!(live.view().apps[&id("/web")].outdated.len(), 1);
    let mut scaled = ours(&[old]);
    scaled["versionInfo"]["lastConfigChangeAt"] = json!(OLD);
    list(&mut live, &[&scaled], 6);
    assert_eq!(only(&live).hash, SpecHash(0xab));
    assert_eq!(live.view().apps[&id("/web")].current.len(), 1);
}

#[test]
fn only_what_is_ours_or_named_is_in_the_view() {
    let mut foreign = ours(&[task("TASK_RUNNING")]);
    foreign["labels"]["evenkeel.dev/owner"] = json!("p");
    let mut bare = ours(&[task("TASK_RUNNING")]);
    bare["labels"] = json!({});
    let web = ServiceName::new("web").unwrap();
    for (value, whose, instances) in [(&foreign, Whose::Others, 0), (&bare, Whose::Nobodys, 1)] {
        let mut live = live();
        list(&mut live, &[value], 5);
        assert!(live.view().apps.is_empty() && live.view().instances.is_empty());
        live.name(Arc::new(BTreeMap::from([(id("/web"), web.clone())])));
        assert_eq!(live.unread(), BTreeSet::from([id("/web")]), "it is to be looked at");
        list(&mut live, &[value], 5);
        assert_eq!(live.view().apps[&id("/web")].whose, whose);
        assert_eq!(live.view().instances.len(), instances);
        assert!(live.view().instances.iter().all(|i| i.hash == SpecHash(0)));
        live.name(Arc::default());
        assert!(live.view().apps.is_empty(), "it is named no more");
    }
}

#[test]
fn an_answer_that_was_overtaken_changes_nothing() {
    let mut live = live();
    let early = live.begin();
    see(&mut live, &ours(&[task("TASK_RUNNING")]), 5);
    live.listed(early, All::default(), Time(6));
    assert_eq!(live.view().apps.len(), 1, "a list from before cannot say that it is gone");
    let begun = live.begin();
    let gone = live.begin();
    live.looked(gone, &id("/web"), None, Time(7));
    live.looked(begun, &id("/web"), Some(app(&ours(&[]))), Time(8));
    assert!(live.view().apps.is_empty(), "what was asked before it went cannot bring it back");
    list(&mut live, &[], 9);
    see(&mut live, &ours(&[]), 10);
    assert_eq!(live.view().apps.len(), 1, "somebody made it anew");
}

#[test]
fn silence_keeps_what_was_known() {
    let mut live = live();
    live.lost(Time(1));
    assert_eq!(live.view().seen, Seen::Never { since: Time(0) });
    list(&mut live, &[&ours(&[task("TASK_RUNNING")])], 5);
    live.arrived();
    live.lost(Time(6));
    live.lost(Time(7));
    assert_eq!(live.view().seen, Seen::Silent { since: Time(6) });
    assert_eq!(live.view().instances.len(), 1);
}

#[test]
fn what_marathon_is_doing_is_told() {
    let mut value = ours(&[]);
    value["deployments"] = json!([{"id": "d-1"}, {"id": "d-2"}]);
    value["lastTaskFailure"] = json!({"appId": "/web", "host": "10.0.0.7", "state": "TASK_FAILED",
        "message": "Docker image\nnot found", "version": NEW, "timestamp": NEW});
    let mut live = live();
    let begun = live.begin();
    let under_way = deployments(&[
        json!({"id": "d-1", "affectedApps": ["/web"], "affectedPods": ["/pod"]}),
        json!({"id": "d-3", "affectedApps": ["/web", "/other"]}),
        json!({"id": "d-4", "affectedApps": ["/other"]}),
    ]);
    let queued = BTreeMap::from([(id("/web"), vec!["agents do not have the cpus".to_owned()])]);
    let all = All { apps: vec![app(&value)], deployments: under_way, queued };
    live.listed(begun, all, Time(5));
    let view = live.view().apps[&id("/web")].clone();
    let touches: Vec<(&str, usize)> =
        view.deployments.iter().map(|(id, d)| (&**id, d.touches)).collect();
    assert_eq!(touches, [("d-1", 2), ("d-2", usize::MAX), ("d-3", 2)]);
    assert_eq!(view.queued, ["agents do not have the cpus"]);
    let said = "a task failed on 10.0.0.7: Docker image not found";
    assert_eq!(view.last_failure.as_deref(), Some(said));
    assert!(live.is_moving());
    assert_eq!(live.ended("d-1"), BTreeSet::from([id("/web")]));
    assert_eq!(live.under_way(), 2);
    // A failure of what is not wanted any more explains nothing.
    value["lastTaskFailure"]["version"] = json!(OLD);
    see(&mut live, &value, 6);
    assert_eq!(live.view().apps[&id("/web")].last_failure, None);
}

#[test]
fn the_slots_of_tasks_are_their_own_whatever_their_ids_are() {
    let service = ServiceName::new("web").unwrap();
    let mut tasks = Vec::new();
    for id in ["web.0a1b2c3d-6ca8-11e7-beb2-0e2beceebfcc", "web.x", "web.y", &"z".repeat(900)] {
        let mut one = task("TASK_RUNNING");
        one["id"] = json!(id);
        tasks.push(one);
    }
    let mut twin = task("TASK_RUNNING");
    twin["id"] = json!("web.instance-0a1b2c3d-6ca8-11e7-beb2-ffffffffffff._app.1");
    tasks.push(twin);
    let all = app(&ours(&tasks)).tasks.unwrap();
    let refs: Vec<&Task> = all.iter().collect();
    let named = names(&service, &refs);
    let slots: BTreeSet<Slot> = named.values().map(|(_, slot)| *slot).collect();
    assert_eq!(slots.len(), 5);
    let names_of: BTreeSet<&str> = named.values().map(|(name, _)| &**name).collect();
    assert!(names_of.contains("web_0a1b2c3d") && names_of.contains("web_0a1b2c3e"));
}

#[test]
fn an_answer_without_tasks_is_not_one_of_none() {
    let mut value = ours(&[]);
    value.as_object_mut().unwrap().remove("tasks");
    let one: OneApp = serde_json::from_value(json!({"app": value})).unwrap();
    assert!(one.app.0.unwrap().tasks.is_none());
}
