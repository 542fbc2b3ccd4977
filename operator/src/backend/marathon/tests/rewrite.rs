//! What servers make of an app that they are given, written down apart from everything that the backend knows.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::backend::marathon::encode::encode;
use crate::backend::marathon::wire::Version;
use crate::fake::make::service;
use crate::model::app::compare::differences;
use crate::model::app::normal::normalise;
use crate::model::app::render::render;
use crate::model::{
    Amount, AppId, CommandCheck, Constraint, EnvValue, EnvVar, InstanceSpec, MarathonSpec, Mount,
    MountSource, Port, Probe, ProbeKind, Protocol, Resources, Secret, Service,
};

fn cluster() -> MarathonSpec {
    MarathonSpec {
        urls: vec!["http://m:8080".into()],
        auth: None,
        group: "/shop".into(),
        registry_config: Some("file:///etc/docker.tar.gz".into()),
        registrator: false,
    }
}

fn fill(fields: &mut Map<String, Value>, defaults: &Value) {
    for (name, value) in defaults.as_object().unwrap() {
        fields.entry(name.clone()).or_insert_with(|| value.clone());
    }
}

/// What a server of 1.8 shows of an app that it was given: defaults, ports of its own, other numbers, other orders.
fn shown_by_new(app: &Value) -> Value {
    let mut app = app.as_object().unwrap().clone();
    let host = app["networks"][0]["mode"] == "host";
    fill(
        &mut app,
        &json!({
            "cpus": 1, "mem": 128, "disk": 0, "gpus": 0, "executor": "", "labels": {}, "requirePorts": false,
            "backoffSeconds": 1, "backoffFactor": 1.15, "maxLaunchDelaySeconds": 300,
            "killSelection": "YOUNGEST_FIRST", "role": "*",
            "unreachableStrategy": {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0},
            "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 1},
            "version": "2020-01-01T00:00:00.000Z", "tasksRunning": 0, "tasks": [], "deployments": [],
            "versionInfo": {"lastScalingAt": "2020-01-01T00:00:00.000Z", "lastConfigChangeAt": "2020-01-01T00:00:00.000Z"},
        }),
    );
    for name in ["cpus", "mem", "disk"] {
        app[name] = json!(app[name].as_f64().unwrap());
    }
    for name in ["args", "constraints", "env", "fetch", "healthChecks"] {
        if app.get(name).is_some_and(|v| v.as_array().is_some_and(Vec::is_empty) || *v == json!({}))
        {
            app.remove(name);
        }
    }
    if let Some(Value::Array(set)) = app.get_mut("constraints") {
        set.reverse();
    }
    for check in app.get_mut("healthChecks").and_then(Value::as_array_mut).into_iter().flatten() {
        let check = check.as_object_mut().unwrap();
        fill(
            check,
            &json!({"gracePeriodSeconds": 300, "intervalSeconds": 60, "timeoutSeconds": 20,
                "maxConsecutiveFailures": 3, "delaySeconds": 15, "ipProtocol": "IPv4"}),
        );
    }
    for fetch in app.get_mut("fetch").and_then(Value::as_array_mut).into_iter().flatten() {
        fill(
            fetch.as_object_mut().unwrap(),
            &json!({"extract": true, "executable": false, "cache": false}),
        );
    }
    if let Some(Value::Object(container)) = app.get_mut("container") {
        fill(container, &json!({"volumes": []}));
        if let Some(Value::Object(docker)) = container.get_mut("docker") {
            fill(docker, &json!({"forcePullImage": false, "privileged": false, "parameters": []}));
        }
        if host {
            container.remove("portMappings");
        }
        let mappings = container.get_mut("portMappings").and_then(Value::as_array_mut);
        for (at, mapping) in mappings.into_iter().flatten().enumerate() {
            let mapping = mapping.as_object_mut().unwrap();
            fill(mapping, &json!({"labels": {}, "protocol": "tcp", "servicePort": 0}));
            if mapping["servicePort"] == 0 {
                mapping["servicePort"] = json!(10_000 + at);
            }
        }
    }
    if host {
        let ports = app.entry("portDefinitions").or_insert_with(|| json!([{"name": "default"}]));
        for (at, port) in ports.as_array_mut().unwrap().iter_mut().enumerate() {
            let port = port.as_object_mut().unwrap();
            fill(port, &json!({"protocol": "tcp"}));
            if port.get("port").is_none_or(|p| *p == 0) {
                port.insert("port".into(), json!(10_100 + at));
            }
        }
    }
    app.into()
}

/// What a server of 1.4 shows of an app that it was given in its own words.
fn shown_by_old(app: &Value) -> Value {
    let mut app = app.as_object().unwrap().clone();
    let network =
        app.get("container").and_then(|c| c["docker"]["network"].as_str()).map(str::to_owned);
    fill(
        &mut app,
        &json!({
            "cmd": null, "args": null, "user": null, "env": {}, "cpus": 1, "mem": 128, "disk": 0, "gpus": 0,
            "executor": "", "constraints": [], "fetch": [], "storeUrls": [], "labels": {}, "requirePorts": false,
            "backoffSeconds": 1, "backoffFactor": 1.15, "maxLaunchDelaySeconds": 3600, "healthChecks": [],
            "readinessChecks": [], "dependencies": [], "acceptedResourceRoles": null, "ipAddress": null,
            "residency": null, "secrets": {}, "taskKillGracePeriodSeconds": null,
            "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 1},
            "unreachableStrategy": {"inactiveAfterSeconds": 300, "expungeAfterSeconds": 600},
            "killSelection": "YOUNGEST_FIRST", "version": "2017-01-01T00:00:00.000Z",
        }),
    );
    let uris: Vec<Value> =
        app["fetch"].as_array().unwrap().iter().map(|f| f["uri"].clone()).collect();
    app.insert("uris".into(), uris.into());
    for constraint in app["constraints"].as_array_mut().unwrap() {
        let parts = constraint.as_array_mut().unwrap();
        if parts.len() == 2 && parts[1] == "UNIQUE" {
            parts.push(json!(""));
        }
    }
    for check in app["healthChecks"].as_array_mut().unwrap() {
        fill(
            check.as_object_mut().unwrap(),
            &json!({"command": null, "ignoreHttp1xx": false, "port": null}),
        );
    }
    if let Some(Value::Object(container)) = app.get_mut("container") {
        fill(container, &json!({"volumes": []}));
        if let Some(Value::Object(docker)) = container.get_mut("docker") {
            fill(
                docker,
                &json!({"forcePullImage": false, "privileged": false, "parameters": [], "portMappings": []}),
            );
            for (at, mapping) in
                docker["portMappings"].as_array_mut().unwrap().iter_mut().enumerate()
            {
                let mapping = mapping.as_object_mut().unwrap();
                fill(mapping, &json!({"labels": {}, "protocol": "tcp"}));
                mapping.insert("servicePort".into(), json!(10_000 + at));
            }
        }
    }
    if network.as_deref() == Some("HOST") {
        fill(
            &mut app,
            &json!({"portDefinitions": [{"port": 10_100, "protocol": "tcp", "labels": {}}]}),
        );
    } else {
        app.insert(
            "portDefinitions".into(),
            json!([{"port": 10_000, "protocol": "tcp", "labels": {}}]),
        );
    }
    let ports: Vec<Value> =
        app["portDefinitions"].as_array().unwrap().iter().map(|p| p["port"].clone()).collect();
    app.insert("ports".into(), ports.into());
    app.into()
}

prop_compose! {
    fn specs()(
        command in prop::option::of(prop::collection::vec("[a-z ']{1,5}", 1..3)),
        args in prop::option::of(prop::collection::vec("[a-z]{1,3}", 0..3)),
        env in prop::collection::btree_map("[A-Z]{1,3}", "[a-z]{0,3}", 0..3),
        secret in any::<bool>(),
        ports in prop::collection::btree_map("[a-z]{1,4}", (1_u16..9999, any::<bool>()), 0..4),
        cpu in 0_u64..3000, memory in 4_u64..2000,
        network in prop_oneof![Just(None), Just(Some("bridge")), Just(Some("host")), Just(Some("dcos"))],
        mounts in prop::collection::vec((any::<bool>(), any::<bool>()), 0..3),
        healthcheck in prop::option::of(prop::collection::vec("[a-z $']{1,4}", 1..3)),
    ) -> InstanceSpec {
        let mut env: Vec<EnvVar> =
            env.into_iter().map(|(name, v)| EnvVar { name, value: EnvValue::Plain(v) }).collect();
        if secret {
            let value = EnvValue::Secret { name: "s".into(), key: "k".into(), value: Secret::new("hunter2") };
            env.push(EnvVar { name: "SECRET".into(), value });
        }
        let protocol = |tcp| if tcp { Protocol::Tcp } else { Protocol::Udp };
        InstanceSpec {
            image: "toy:1".into(), command, args, env,
            ports: ports.into_iter().map(|(name, (container, tcp))| Port {
                name, container, protocol: protocol(tcp), publish: Some(8080) }).collect(),
            resources: Resources { cpu_millis: cpu, memory_bytes: memory << 20 },
            networks: network.into_iter().map(str::to_owned).collect(),
            mounts: mounts.into_iter().map(|(host, read_only)| Mount {
                source: if host { MountSource::Host("/srv".into()) } else { MountSource::Volume("v".into()) },
                path: "/data".into(), read_only }).collect(),
            healthcheck: healthcheck.map(|command| CommandCheck {
                command, interval: Duration::from_secs(2), timeout: Duration::from_millis(500),
                failure_threshold: 3, start_period: Duration::from_secs(5) }),
            capabilities: vec!["NET_ADMIN".into()],
            ..InstanceSpec::default()
        }
    }
}

prop_compose! {
    fn services()(
        spec in specs(), replicas in 0_u32..20, probed in any::<bool>(), http in any::<bool>(),
        surge in amounts(), unavailable in amounts(),
        constraints in prop::collection::vec(("(host|zone)", any::<bool>(), "[a-z.*]{1,4}"), 0..3),
        spread in prop::option::of("(host|zone)"), most in prop::option::of(1_u32..4),
    ) -> Service {
        let mut service = service("web", replicas, "toy:1").unwrap();
        let port = spec.ports.first().map_or(99, |p| p.container);
        let kind = if http { ProbeKind::Http { path: "/up".into() } } else { ProbeKind::Tcp };
        service.probe = probed.then(|| Probe {
            kind, port, interval: Duration::from_secs(2), timeout: Duration::from_secs(1),
            failure_threshold: 3, start_period: Duration::from_secs(5) });
        service.placement.constraints = constraints.into_iter()
            .map(|(label, equal, value)| Constraint { label, equal, value }).collect();
        (service.placement.spread_by, service.placement.max_per_host) = (spread, most);
        (service.rollout.max_surge, service.rollout.max_unavailable) = (surge, unavailable);
        service.spec = Arc::new(spec);
        service
    }
}

fn amounts() -> impl Strategy<Value = Amount> {
    prop_oneof![(0_u32..5).prop_map(Amount::Count), (0_u32..101).prop_map(Amount::Percent)]
}

proptest! {
    #[test]
    fn an_app_is_what_it_was_asked_to_be_whatever_a_server_makes_of_it(service in services()) {
        let wanted = render(&service, &service.spec, &cluster());
        let again = normalise(&Value::Object(wanted.0.clone()));
        prop_assert_eq!(&again, &wanted, "it has one form");
        let id = AppId::of("/shop", &service.name);
        for (version, shown) in [
            (Version(1, 8), shown_by_new as fn(&Value) -> Value),
            (Version(1, 4), shown_by_old),
        ] {
            let said = encode(&wanted, &id, service.replicas, version);
            let shown = shown(&said);
            let found = differences(&wanted, &normalise(&shown));
            prop_assert!(found.is_empty(), "{:?}: {:?}\nof {}\nshown as {}", version, found, said, shown);
        }
    }

    #[test]
    fn any_change_of_what_an_instance_is_is_a_difference(a in services(), b in services()) {
        let (x, y) = (render(&a, &a.spec, &cluster()), render(&b, &b.spec, &cluster()));
        let found = differences(&x, &y);
        prop_assert_eq!(found.is_empty(), x == y);
        let shown = format!("{found:?}{x:?}");
        prop_assert!(!shown.contains("hunter2"), "{}", shown);
        for env in [&a, &b].into_iter().flat_map(|s| &s.spec.env) {
            let field = format!("env.{}", env.name);
            let of = found.iter().filter(|d| d.change.field == field);
            for d in of {
                let hidden = |v: &Option<String>| v.as_ref().is_none_or(|v| v == "(hidden)");
                prop_assert!(hidden(&d.change.old) && hidden(&d.change.new), "{:?}", d);
            }
        }
    }

    #[test]
    fn a_rollout_keeps_its_counts_in_marathons_own_arithmetic(
        replicas in 1_u32..300, surge in amounts(), unavailable in amounts(),
    ) {
        let mut service = service("web", replicas, "toy:1").unwrap();
        (service.rollout.max_surge, service.rollout.max_unavailable) = (surge, unavailable);
        let app = render(&service, &service.spec, &cluster());
        let part = |name: &str| app.0["upgradeStrategy"][name].as_f64().unwrap();
        let n = f64::from(replicas);
        let floor = (n * part("minimumHealthCapacity")).ceil();
        let ceiling = (n * (1.0 + part("maximumOverCapacity"))).floor();
        let (more, fewer) = service.rollout.allowance(replicas);
        // Marathon rounds a share of more instances down, and lets one more start where nothing else could move.
        prop_assert!(ceiling <= n + f64::from(more.min(replicas)), "{} of {}", ceiling, more);
        prop_assert!(floor >= n - f64::from(fewer), "{} of {}", floor, fewer);
        if let Amount::Count(c) = surge {
            prop_assert!((ceiling - n - f64::from(c.min(replicas))).abs() < 0.5, "{}", ceiling);
        }
    }
}
