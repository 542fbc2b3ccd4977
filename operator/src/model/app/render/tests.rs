use std::sync::Arc;

use super::Amount::{Count, Percent};
use super::*;
use crate::fake::make::service;
use crate::model::{Constraint, EnvVar, Secret};

fn cluster() -> MarathonSpec {
    MarathonSpec {
        urls: Vec::new(),
        auth: None,
        group: "/".into(),
        registry_config: None,
        registrator: false,
    }
}

fn rendered(service: &Service) -> Value {
    Value::Object(render(service, &service.spec, &cluster()).0)
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn every_field() -> Service {
    let mut full = service("web", 10, "registry.example:5000/web:1.4.2").unwrap();
    let plain =
        |name: &str, text: &str| EnvVar { name: name.into(), value: EnvValue::Plain(text.into()) };
    let secret =
        EnvValue::Secret { name: "app".into(), key: "token".into(), value: Secret::new("hush") };
    full.spec = Arc::new(InstanceSpec {
        image: "registry.example:5000/web:1.4.2".into(),
        command: Some(words("/bin/web --port 8080")),
        args: Some(words("-v")),
        env: vec![plain("GREETING", "hi"), EnvVar { name: "TOKEN".into(), value: secret }],
        ports: [("http", 8080, Protocol::Tcp), ("dns", 53, Protocol::Udp)]
            .map(|(name, container, protocol)| Port {
                name: name.into(),
                container,
                protocol,
                publish: Some(80),
            })
            .into(),
        resources: Resources { cpu_millis: 250, memory_bytes: (64 << 20) - 1 },
        mounts: [
            (MountSource::Host("/srv".into()), "/data", true),
            (MountSource::Volume("logs".into()), "/logs", true),
            (MountSource::Volume("keep".into()), "/keep", false),
        ]
        .map(|(source, path, read_only)| Mount { source, path: path.into(), read_only })
        .into(),
        capabilities: words("NET_ADMIN"),
        ..InstanceSpec::default()
    });
    full.probe = Some(Probe {
        kind: ProbeKind::Http { path: "/up".into() },
        port: 8080,
        interval: Duration::from_secs(2),
        timeout: Duration::from_millis(300),
        failure_threshold: 4,
        start_period: Duration::from_secs(5),
    });
    let constraint = |label: &str, equal, value: &str| Constraint {
        label: label.into(),
        equal,
        value: value.into(),
    };
    full.placement = Placement {
        constraints: vec![
            constraint("environment", true, "test"),
            constraint(HOST_LABEL, false, "h1.example"),
        ],
        spread_by: Some("zone".into()),
        max_per_host: Some(4),
        ..Placement::default()
    };
    full.termination.signal = "SIGQUIT".into();
    full
}

#[test]
fn every_field_arrives() {
    let mut cluster = cluster();
    cluster.registry_config = Some("file:///etc/docker.tar.gz".into());
    let full = every_field();
    assert_eq!(
        Value::Object(render(&full, &full.spec, &cluster).0),
        json!({
            "args": ["--port", "8080", "-v"],
            "env": {"GREETING": "hi", "TOKEN": "hush"},
            "cpus": 0.25, "mem": 64,
            "container": {
                "docker": {"image": "registry.example:5000/web:1.4.2", "parameters": [
                    {"key": "entrypoint", "value": "/bin/web"},
                    {"key": "cap-add", "value": "NET_ADMIN"},
                    {"key": "volume", "value": "logs:/logs:ro"},
                    {"key": "volume", "value": "keep:/keep"},
                    {"key": "stop-signal", "value": "SIGQUIT"},
                ]},
                "volumes": [{"containerPath": "/data", "hostPath": "/srv", "mode": "RO"}],
                "portMappings": [
                    {"containerPort": 8080, "name": "http"},
                    {"containerPort": 53, "name": "dns", "protocol": "udp"},
                ],
            },
            "networks": [{"mode": "container/bridge"}],
            "constraints": [
                ["environment", "CLUSTER", "test"], ["hostname", "MAX_PER", "4"],
                ["hostname", "UNLIKE", "h1\\.example"], ["zone", "GROUP_BY"],
            ],
            "healthChecks": [{
                "protocol": "MESOS_HTTP", "path": "/up", "intervalSeconds": 2, "timeoutSeconds": 1,
                "maxConsecutiveFailures": 4, "gracePeriodSeconds": 5, "delaySeconds": 0,
            }],
            "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 0.25},
            "unreachableStrategy": {"inactiveAfterSeconds": 20, "expungeAfterSeconds": 40},
            "taskKillGracePeriodSeconds": 10,
            "fetch": [{"uri": "file:///etc/docker.tar.gz"}],
        })
    );
}

#[test]
fn a_command_is_checked_with_the_words_that_it_has() {
    let mut one = service("web", 1, "a").unwrap();
    let check = CommandCheck {
        command: vec!["test".into(), "-f".into(), "it's $HOME".into(), String::new()],
        interval: Duration::from_secs(7),
        timeout: Duration::from_secs(2),
        failure_threshold: 1,
        start_period: Duration::ZERO,
    };
    Arc::make_mut(&mut one.spec).healthcheck = Some(check);
    let app = rendered(&one);
    assert_eq!(app["healthChecks"][0]["command"]["value"], "test -f 'it'\\''s $HOME' ''");
}

#[test]
fn networks_are_the_bridge_a_named_one_or_the_agents_own() {
    let with = |name: Option<&str>| {
        let mut service = every_field();
        Arc::make_mut(&mut service.spec).networks = name.map(str::to_owned).into_iter().collect();
        rendered(&service)
    };
    assert_eq!(with(Some("bridge")), with(None));
    let named = with(Some("dcos"));
    assert_eq!(named["networks"], json!([{"mode": "container", "name": "dcos"}]));
    assert_eq!(named["container"]["portMappings"][0]["hostPort"], 0);
    let host = with(Some("host"));
    assert_eq!((&host["networks"], &host["requirePorts"]), (&json!(null), &json!(true)));
    assert_eq!(host["portDefinitions"][0], json!({"port": 8080, "name": "http"}));
    assert!(host["container"].get("portMappings").is_none());
}

#[test]
fn counts_are_shares_of_the_replicas_and_percentages_are_of_none() {
    let strategy = |replicas, max_surge, max_unavailable| {
        let mut one = service("web", replicas, "a").unwrap();
        (one.rollout.max_surge, one.rollout.max_unavailable) = (max_surge, max_unavailable);
        rendered(&one)["upgradeStrategy"].clone()
    };
    assert_eq!(strategy(3, Percent(50), Percent(10)), strategy(300, Percent(50), Percent(10)));
    for (n, surge, unavailable, healthy, over) in [
        (10, Percent(25), Percent(10), 0.9, 0.25),
        (10, Count(1), Count(0), 1.0, 0.15),
        (10, Count(0), Count(3), 0.65, 0.0),
        (2, Count(9), Count(9), 0.0, 1.0),
        (0, Count(1), Count(1), 0.0, 1.0),
        // Nothing could ever change: one may be missing.
        (4, Count(0), Percent(0), 0.625, 0.0),
    ] {
        let found = strategy(n, surge, unavailable);
        let of = |name: &str| found[name].as_f64().unwrap();
        let found = (of("minimumHealthCapacity"), of("maximumOverCapacity"));
        assert!((found.0 - healthy).abs() + (found.1 - over).abs() < 1e-5, "{n}: {found:?}");
    }
}

#[test]
fn the_documents_own_fields_take_the_place_of_what_they_contradict() {
    let with = |fields: Value| {
        let mut service = every_field();
        let Value::Object(fields) = fields else { panic!("an object") };
        service.app.fields = fields;
        rendered(&service)
    };
    let app = with(
        json!({"cmd": "run", "gpus": 1, "healthChecks": null, "taskKillGracePeriodSeconds": 3}),
    );
    assert_eq!((&app["cmd"], &app["args"], &app["gpus"]), (&json!("run"), &json!(null), &json!(1)));
    assert_eq!(
        (&app["healthChecks"], &app["taskKillGracePeriodSeconds"]),
        (&json!(null), &json!(3))
    );
    let app = with(json!({"uris": ["http://x/a.txt"], "env": {"N": 1}}));
    assert_eq!(app["fetch"], json!([{"uri": "http://x/a.txt", "extract": false}]));
    assert_eq!(app["env"], json!({"GREETING": "hi", "TOKEN": "hush", "N": "1"}));
    let app = with(json!({"container": {"docker": {"network": "HOST"}}, "ports": [80]}));
    assert_eq!((&app["networks"], &app["portDefinitions"]), (&json!(null), &json!([{"port": 80}])));
    let old = json!({"network": "BRIDGE", "portMappings": [{"containerPort": 7}]});
    let app = with(json!({"container": {"docker": old}}));
    assert_eq!(app["networks"], json!([{"mode": "container/bridge"}]));
    assert_eq!(app["container"]["portMappings"], json!([{"containerPort": 7}]));
    let app = with(json!({"container": {"type": "MESOS"}}));
    let image = "registry.example:5000/web:1.4.2";
    assert_eq!(app["container"]["docker"], json!({"image": image}));
}

#[test]
fn tasks_that_keep_data_stay_where_they_are() {
    let volume = json!({"containerPath": "data", "mode": "RW", "persistent": {"size": 10}});
    let container = json!({"type": "MESOS", "volumes": [volume]});
    let mut one = service("web", 1, "a").unwrap();
    one.app.fields = Map::from_iter([("container".to_owned(), container)]);
    let app = rendered(&one);
    assert_eq!(app["unreachableStrategy"], "disabled");
    assert_eq!(
        app["upgradeStrategy"],
        json!({"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0})
    );
}
