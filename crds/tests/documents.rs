//! What documents become: nothing is lost, what is left out has the promised default, and what is
//! wrong is refused with a message for a person.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, which clippy does not count as tests"
)]

mod support;

use std::time::Duration;

use evenkeel_crds::{
    Balance, Constraint, Cpu, Fleet, HostState, HumanDuration, IntOrPercent, KeepOnReturn,
    ListenerProtocol, LoadBalancer, Memory, OnFailure, Packing, PortRef, Protocol, ScalingService,
    ScalingServiceSpec, Signal,
};
use serde_json::{Value, json};

/// `part` with everything in it occurs in `whole`.
fn assert_within(part: &Value, whole: &Value, path: &str) {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            for (name, value) in part {
                let path = format!("{path}.{name}");
                assert_within(value, whole.get(name).unwrap_or(&Value::Null), &path);
            }
        }
        (Value::Array(part), Value::Array(whole)) => {
            assert_eq!(part.len(), whole.len(), "{path}");
            for (index, (part, whole)) in part.iter().zip(whole).enumerate() {
                assert_within(part, whole, &format!("{path}[{index}]"));
            }
        }
        _ => assert_eq!(part, whole, "{path}"),
    }
}

fn service(spec: Value) -> Result<ScalingServiceSpec, String> {
    serde_json::from_value(spec).map_err(|error| error.to_string())
}

#[test]
fn nothing_of_an_example_is_lost() {
    for (name, _) in support::EXAMPLES {
        let document = support::example(name);
        let once = support::through_serde(&document).unwrap();
        assert_within(&document, &once, name);
        assert_eq!(support::through_serde(&once).unwrap(), once, "{name}: settles at once");
    }
}

#[test]
fn a_service_of_one_line_has_the_defaults() {
    let ScalingService { spec, .. } = serde_json::from_value(support::example("minimal")).unwrap();
    assert_eq!((spec.fleet.as_str(), spec.replicas, spec.suspend), ("default", 1, false));
    assert_eq!(spec.placement.packing, Packing::Spread);
    assert_eq!(spec.rollout.max_surge, IntOrPercent::Percent(25));
    assert_eq!(spec.rollout.max_unavailable, IntOrPercent::Int(0));
    assert_eq!(spec.rollout.min_ready_seconds, 0);
    assert_eq!(spec.rollout.progress_deadline.get(), Duration::from_secs(600));
    assert_eq!(spec.rollout.on_failure, OnFailure::Rollback);
    assert_eq!(spec.termination.drain.get(), Duration::from_secs(10));
    assert_eq!(spec.termination.grace.get(), Duration::from_secs(10));
    assert_eq!(spec.termination.signal, Signal::Term);
    assert_eq!(spec.on_host_lost.replace_after.get(), Duration::from_secs(20));
    assert_eq!(spec.on_host_lost.keep, KeepOnReturn::Healthiest);
    assert!(spec.health.is_none() && spec.ports.is_empty() && spec.routes.is_empty());
}

#[test]
fn the_parts_of_a_service_have_defaults() {
    let spec = service(json!({
        "image": "a",
        "ports": [{"name": "http", "containerPort": 80}],
        "volumes": [{"name": "data", "mountPath": "/data", "volume": "data"}],
        "health": {"http": {"port": 80}},
        "routes": [{"loadBalancer": "edge", "listener": "http", "port": "http"}],
        "rollout": {"maxSurge": 0},
    }))
    .unwrap();
    assert_eq!((spec.ports[0].protocol, spec.ports[0].publish), (Protocol::Tcp, None));
    assert!(!spec.volumes[0].read_only);
    let health = spec.health.unwrap();
    let http = health.http.unwrap();
    assert_eq!((http.path.as_str(), http.port), ("/", PortRef::Number(80)));
    assert_eq!(health.interval.get(), Duration::from_secs(10));
    assert_eq!(health.timeout.get(), Duration::from_secs(2));
    assert_eq!(health.start_period.get(), Duration::ZERO);
    assert_eq!(health.failure_threshold, 3);
    assert_eq!(spec.routes[0].path_prefix, "/");
    assert_eq!((spec.routes[0].balance, &spec.routes[0].host), (Balance::Roundrobin, &None));
    assert_eq!(spec.rollout.max_surge, IntOrPercent::Int(0));
    assert_eq!(spec.rollout.on_failure, OnFailure::Rollback);
}

#[test]
fn fleets_and_balancers_have_defaults() {
    let fleet: Fleet = serde_json::from_value(support::example("marathon")).unwrap();
    assert_eq!(fleet.spec.limits.prune.max_percent, 50);
    assert_eq!(fleet.spec.limits.disruption.max_instances_per_hour, None);
    assert_eq!(fleet.spec.limits.parallel_starts_per_host, 8);
    let fleet: Fleet = serde_json::from_value(support::example("fleet")).unwrap();
    assert_eq!(fleet.spec.backend.docker.unwrap().hosts[0].state, HostState::Active);
    let mut document = support::example("loadbalancer");
    document["spec"] = json!({
        "provider": {"nginx": {}},
        "listeners": [{"name": "http", "port": 80}],
    });
    let LoadBalancer { spec, .. } = serde_json::from_value(document).unwrap();
    assert_eq!((spec.fleet.as_str(), spec.replicas), ("default", 1));
    assert_eq!(spec.provider.nginx.unwrap().image, "nginx:1.28");
    assert_eq!(spec.listeners[0].protocol, ListenerProtocol::Http);
    assert_eq!(spec.listeners[0].first_host_port(), 80);
}

#[test]
fn an_unknown_field_is_refused_at_every_depth() {
    let unknown = |spec| service(spec).unwrap_err();
    assert!(unknown(json!({"image": "a", "replica": 1})).contains("unknown field `replica`"));
    assert!(
        unknown(json!({"image": "a", "health": {"tcp": {"port": 1}, "intervall": "2s"}}))
            .contains("unknown field `intervall`")
    );
}

#[test]
fn durations_print_canonically() {
    for (text, millis, canonical) in [
        ("0s", 0, "0s"),
        ("10s", 10_000, "10s"),
        ("90s", 90_000, "1m30s"),
        ("1h30m", 5_400_000, "1h30m"),
        ("500ms", 500, "500ms"),
        ("2m3ms", 120_003, "2m3ms"),
    ] {
        let duration: HumanDuration = text.parse().unwrap();
        assert_eq!(duration.get(), Duration::from_millis(millis), "{text}");
        assert_eq!(duration.to_string(), canonical);
    }
    for text in ["", "10", "s", "1.5s", "-1s", "10 s", "1d", "12345678s", "1s1s1s1s1s"] {
        text.parse::<HumanDuration>().expect_err(text);
    }
}

#[test]
fn quantities_are_exact() {
    for (text, millis, canonical) in
        [("100m", 100, "100m"), ("1.5", 1_500, "1500m"), ("2000m", 2_000, "2"), ("0.05", 50, "50m")]
    {
        let cpu: Cpu = text.parse().unwrap();
        assert_eq!((cpu.millis(), cpu.to_string().as_str()), (millis, canonical), "{text}");
    }
    assert_eq!(serde_json::from_value::<Cpu>(json!(2)).unwrap().millis(), 2_000);
    for text in ["0", "0m", "0.000", "01", "1.2345", "10000", "1.5m", "m", ".5", "1."] {
        text.parse::<Cpu>().expect_err(text);
    }
    for (text, bytes, canonical) in
        [("64Mi", 64 << 20, "64Mi"), ("1024Mi", 1 << 30, "1Gi"), ("500M", 500_000_000, "500M")]
    {
        let memory: Memory = text.parse().unwrap();
        assert_eq!((memory.bytes(), memory.to_string().as_str()), (bytes, canonical), "{text}");
    }
    for text in ["64", "0Mi", "64mi", "64MB", "1.5Gi", "Mi", "12345678Ki"] {
        text.parse::<Memory>().expect_err(text);
    }
}

#[test]
fn constraints_compare_labels() {
    let constraint: Constraint = "zone==a".parse().unwrap();
    assert_eq!((constraint.key(), constraint.value()), ("zone", "a"));
    assert_eq!(constraint.to_string(), "zone == a");
    assert!(constraint.allows(Some("a")) && !constraint.allows(Some("b")));
    assert!(!constraint.allows(None), "a host without the label does not satisfy ==");
    let constraint: Constraint = "zone != a".parse().unwrap();
    assert!(!constraint.allows(Some("a")) && constraint.allows(Some("b")));
    assert!(constraint.allows(None), "a host without the label satisfies !=");
    for text in ["zone", "zone = a", "== a", "zone ==", "a == b == c", "a b == c", "a == b != c"] {
        text.parse::<Constraint>().expect_err(text);
    }
}

#[test]
fn a_malformed_value_says_what_it_should_be() {
    let error = service(json!({"image": "a", "termination": {"drain": "10"}})).unwrap_err();
    assert!(error.contains("\"10\", expected a duration such as"), "{error}");
    let error = service(json!({"image": "a", "resources": {"memory": 64}})).unwrap_err();
    assert!(error.contains("expected an amount with a unit such as \"64Mi\""), "{error}");
    let error = service(json!({"image": "a", "rollout": {"maxSurge": "2"}})).unwrap_err();
    assert!(error.contains("or a percentage such as \"25%\""), "{error}");
}

#[test]
fn contradictions_between_fields_are_found() {
    let spec = service(json!({
        "image": "a",
        "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
        "ports": [
            {"name": "http", "containerPort": 80, "publish": 8080},
            {"name": "http", "containerPort": 81, "publish": 8080},
            {"name": "dns", "containerPort": 81, "publish": 8080, "protocol": "udp"},
        ],
        "health": {"tcp": {"port": "htp"}},
        "routes": [
            {"loadBalancer": "edge", "listener": "http", "port": 80},
            {"loadBalancer": "edge", "listener": "http", "port": "admin"},
        ],
    }))
    .unwrap();
    let conflicts: Vec<_> =
        spec.conflicts().into_iter().map(|c| format!("{}: {}", c.path, c.message)).collect();
    assert_eq!(
        conflicts,
        [
            "spec.env[1].name: name A is taken by an earlier entry of spec.env",
            "spec.ports[1].name: name http is taken by an earlier entry of spec.ports",
            "spec.ports[1].publish: publish 8080 is taken by an earlier entry of spec.ports",
            "spec.health.tcp.port: no port is named htp: ports has http, http, dns",
            "spec.routes[1].port: no port is named admin: ports has http, http, dns",
        ]
    );
    for (name, _) in support::EXAMPLES {
        let document = support::example(name);
        let conflicts = match document["kind"].as_str().unwrap() {
            "Fleet" => serde_json::from_value::<Fleet>(document).unwrap().spec.conflicts(),
            "LoadBalancer" => {
                serde_json::from_value::<LoadBalancer>(document).unwrap().spec.conflicts()
            }
            _ => serde_json::from_value::<ScalingService>(document).unwrap().spec.conflicts(),
        };
        assert_eq!(conflicts, [], "{name}");
    }
}

#[test]
fn the_contradictions_of_fleets_and_balancers_are_found() {
    let mut document = support::example("fleet");
    document["spec"]["backend"]["docker"]["hosts"][1]["name"] = json!("h1");
    let fleet: Fleet = serde_json::from_value(document).unwrap();
    assert_eq!(fleet.spec.conflicts()[0].path, "spec.backend.docker.hosts[1].name");
    let mut document = support::example("fleet");
    let secret = json!({"name": "a", "key": "b"});
    let docker = &mut document["spec"]["backend"]["docker"];
    docker["hosts"][1]["tls"] = json!({"caFile": "/a", "caSecret": secret, "certSecret": secret});
    docker["registryAuthFile"] = "/a".into();
    docker["registryAuthSecret"] = secret.clone();
    document["spec"]["discovery"]["consul"] =
        json!({"address": "http://a", "tokenFile": "/a", "tokenSecret": secret});
    let fleet: Fleet = serde_json::from_value(document).unwrap();
    let paths: Vec<_> = fleet.spec.conflicts().into_iter().map(|c| c.path).collect();
    assert_eq!(
        paths,
        [
            "spec.backend.docker.hosts[1].tls.caSecret",
            "spec.backend.docker.hosts[1].tls",
            "spec.backend.docker.registryAuthSecret",
            "spec.discovery.consul.tokenSecret",
        ]
    );
    let mut document = support::example("marathon");
    document["spec"]["backend"]["marathon"]["auth"] = json!({"username": "u"});
    let fleet: Fleet = serde_json::from_value(document).unwrap();
    assert_eq!(fleet.spec.conflicts()[0].path, "spec.backend.marathon.auth.username");
    let mut document = support::example("loadbalancer");
    document["spec"]["listeners"][1] = json!({"name": "http", "port": 80, "publish": 8181});
    let balancer: LoadBalancer = serde_json::from_value(document).unwrap();
    let paths: Vec<_> = balancer.spec.conflicts().into_iter().map(|c| c.path).collect();
    assert_eq!(
        paths,
        ["spec.listeners[1].name", "spec.listeners[1].port", "spec.listeners[1].publish"]
    );
}

#[test]
fn what_makes_no_sense_for_balancers_that_run_already_is_refused() {
    let paths = |spec: serde_json::Value| {
        let document = json!({"apiVersion": "evenkeel.dev/v1alpha1", "kind": "LoadBalancer", "metadata": {"name": "edge"}, "spec": spec});
        let balancer: LoadBalancer = serde_json::from_value(document).unwrap();
        balancer.spec.conflicts().into_iter().map(|c| c.path).collect::<Vec<_>>()
    };
    let external = json!([
        {"runtimeSocket": "/s", "configFile": "/a.cfg", "check": ["haproxy", "-c", "-f", "{candidate}"], "reload": ["true"]},
        {"runtimeSocket": "127.0.0.1:9999"},
    ]);
    let listeners = json!([{"name": "http", "port": 80}]);
    let good = json!({"provider": {"haproxy": {"external": external}}, "listeners": listeners});
    assert_eq!(paths(good.clone()), [""; 0]);
    let mut all = good.clone();
    all["replicas"] = json!(3);
    all["provider"]["haproxy"]["image"] = json!("haproxy:2.8");
    all["provider"]["haproxy"]["fragments"] = json!({"global": "maxconn 5"});
    all["listeners"][0]["publish"] = json!(8080);
    all["accessLog"] = json!({"volume": "v"});
    all["virtualIp"] = json!({"address": "10.0.0.1/24", "interface": "eth0", "routerId": 1});
    all["networks"] = json!(["n"]);
    all["placement"] = json!({"maxPerHost": 1});
    assert_eq!(
        paths(all),
        [
            "spec.replicas",
            "spec.provider.haproxy.image",
            "spec.provider.haproxy.fragments.global",
            "spec.listeners[0].publish",
            "spec.accessLog",
            "spec.virtualIp",
            "spec.networks",
            "spec.placement",
        ]
    );
    let mut twice = good;
    twice["provider"]["haproxy"]["external"][1] = external[0].clone();
    twice["provider"]["haproxy"]["external"][1]["check"] = json!(["haproxy", "-c", "-f", "/a.cfg"]);
    let at = "spec.provider.haproxy.external[1]";
    assert_eq!(
        paths(twice),
        [format!("{at}.check"), format!("{at}.runtimeSocket"), format!("{at}.configFile")]
    );
    let tcp = json!([{"name": "db", "port": 5432, "protocol": "tcp"}]);
    let nginx =
        json!({"provider": {"nginx": {"external": [{"configFile": "/a.conf"}]}}, "listeners": tcp});
    assert_eq!(paths(nginx), ["spec.listeners[0].protocol"]);
}
