//! Good documents give exactly the model that they describe.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::{
    Amount, AppClaim, CommandCheck, Constraint, Credential, Endpoint, EnvValue, EnvVar, Fleet,
    FleetName, HostName, HostSpec, HostState, InstanceSpec, Keep, Limits as FleetLimits, Mount,
    MountSource, OnFailure, Packing, Placement, Port, Probe, ProbeKind, Protocol, Resources,
    Rollout, ServiceName, SpecHash, Termination, Tls,
};

/// The example of DESIGN.md, section 3, without what is not implemented yet.
const EXAMPLE: &str = r#"
apiVersion: evenkeel.dev/v1alpha1
kind: Fleet                       # where things run
metadata: {name: shop, annotations: {evenkeel.dev/approve-prune: "0badcafe", other: x}}
spec:
  backend:
    docker:
      hosts:
        - {name: h1, endpoint: "unix:///var/run/docker.sock", labels: {environment: test, zone: a}}
        - {name: h2, endpoint: "tcp://10.77.0.12:2376", tls: {caFile: /ca, certFile: /cert, keyFile: /key},
           address: 10.77.0.12, labels: {environment: production, zone: b}, state: draining}
  limits: {prune: {maxPercent: 40}, disruption: {maxInstancesPerHour: 200}, parallelStartsPerHost: 4}
---
apiVersion: evenkeel.dev/v1alpha1
kind: ScalingService
metadata: {name: simple-server}
spec:
  fleet: shop
  replicas: 10
  image: registry.example:5000/simple-server:1.4.2
  command: [/bin/server]
  env: [{name: GREETING, value: hi}, {name: TOKEN, secret: {name: app, key: token}}]
  ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: udp, publish: 5353}]
  resources: {cpu: 100m, memory: 64Mi}
  volumes:
    - {name: data, mountPath: /data/, hostPath: /srv/data, readOnly: true}
    - {name: cache, mountPath: /cache, volume: cache}
  networks: [backend]
  placement: {constraints: ["environment == test"], spreadBy: zone, maxPerHost: 4}
  health: {http: {path: /ready, port: http}, interval: 2s, timeout: 1s, failureThreshold: 5, startPeriod: 5s}
  rollout: {maxSurge: 50%, maxUnavailable: 1, minReadySeconds: 2, progressDeadline: 15m, onFailure: pause}
  termination: {drain: 500ms, grace: 30s, signal: SIGQUIT}
  onHostLost: {replaceAfter: 45s, keep: original}
  suspend: true
"#;

#[test]
fn the_example_of_the_design_gives_exactly_this_model() {
    let (desired, applied) = parse_files(&[("example.yaml", EXAMPLE)]);
    assert_eq!(desired.problems, []);
    assert_eq!(desired.held, BTreeSet::new());
    assert_eq!(desired.revision.0.as_ref(), "r1");
    let labels = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let h1 = HostSpec {
        name: HostName::new("h1").unwrap(),
        endpoint: Endpoint::Unix { path: "/var/run/docker.sock".into() },
        address: None,
        labels: labels(&[("environment", "test"), ("zone", "a")]),
        state: HostState::Active,
        registry_auth: None,
    };
    let h2 = HostSpec {
        name: HostName::new("h2").unwrap(),
        endpoint: Endpoint::Tcp {
            authority: "10.77.0.12:2376".into(),
            tls: Some(Tls {
                ca: Credential::File("/ca".into()),
                cert: Credential::File("/cert".into()),
                key: Credential::File("/key".into()),
            }),
        },
        address: Some("10.77.0.12".into()),
        labels: labels(&[("environment", "production"), ("zone", "b")]),
        state: HostState::Draining,
        registry_auth: None,
    };
    let shop = Fleet {
        name: FleetName::new("shop").unwrap(),
        hosts: [h1, h2].map(|h| (h.name.clone(), Arc::new(h))).into(),
        marathon: None,
        limits: FleetLimits {
            prune_max_percent: 40,
            disruptions_per_hour: Some(200),
            parallel_starts_per_host: 4,
        },
        registry: None,
        approved_prune: Some("0badcafe".into()),
    };
    assert_eq!(desired.fleets, BTreeMap::from([(shop.name.clone(), Arc::new(shop))]));

    let spec = InstanceSpec {
        image: "registry.example:5000/simple-server:1.4.2".into(),
        command: Some(vec!["/bin/server".into()]),
        args: None,
        placed_args: Vec::new(),
        env: vec![
            EnvVar { name: "GREETING".into(), value: EnvValue::Plain("hi".into()) },
            EnvVar {
                name: "TOKEN".into(),
                value: EnvValue::Secret {
                    name: "app".into(),
                    key: "token".into(),
                    value: Secret::new("hunter2"),
                },
            },
        ],
        ports: vec![
            Port { name: "http".into(), container: 8080, protocol: Protocol::Tcp, publish: None },
            Port {
                name: "dns".into(),
                container: 53,
                protocol: Protocol::Udp,
                publish: Some(5353),
            },
        ],
        resources: Resources { cpu_millis: 100, memory_bytes: 64 << 20 },
        mounts: vec![
            Mount {
                source: MountSource::Host("/srv/data".into()),
                path: "/data".into(),
                read_only: true,
            },
            Mount {
                source: MountSource::Volume("cache".into()),
                path: "/cache".into(),
                read_only: false,
            },
        ],
        networks: vec!["backend".into()],
        healthcheck: None,
        files: Vec::new(),
        capabilities: Vec::new(),
    };
    let document = concat!(
        r#"{"apiVersion":"evenkeel.dev/v1alpha1","kind":"ScalingService","metadata":{"name":"simple-server"},"#,
        r#""spec":{"command":["/bin/server"],"env":[{"name":"GREETING","value":"hi"},"#,
        r#"{"name":"TOKEN","secret":{"key":"token","name":"app"}}],"fleet":"shop","#,
        r#""health":{"failureThreshold":5,"http":{"path":"/ready","port":"http"},"interval":"2s","startPeriod":"5s","timeout":"1s"},"#,
        r#""image":"registry.example:5000/simple-server:1.4.2","networks":["backend"],"#,
        r#""onHostLost":{"keep":"original","replaceAfter":"45s"},"#,
        r#""placement":{"constraints":["environment == test"],"maxPerHost":4,"packing":"spread","spreadBy":"zone"},"#,
        r#""ports":[{"containerPort":8080,"name":"http","protocol":"tcp"},{"containerPort":53,"name":"dns","protocol":"udp","publish":5353}],"#,
        r#""replicas":10,"resources":{"cpu":"100m","memory":"64Mi"},"#,
        r#""rollout":{"maxSurge":"50%","maxUnavailable":1,"minReadySeconds":2,"onFailure":"pause","progressDeadline":"15m"},"#,
        r#""suspend":true,"termination":{"drain":"500ms","grace":"30s","signal":"SIGQUIT"},"#,
        r#""volumes":[{"hostPath":"/srv/data","mountPath":"/data/","name":"data","readOnly":true},"#,
        r#"{"mountPath":"/cache","name":"cache","readOnly":false,"volume":"cache"}]}}"#,
    );
    let service = Service {
        name: ServiceName::new("simple-server").unwrap(),
        fleet: FleetName::new("shop").unwrap(),
        replicas: 10,
        hash: SpecHash::of(&owner(), &spec),
        spec: Arc::new(spec),
        probe: Some(Probe {
            kind: ProbeKind::Http { path: "/ready".into() },
            port: 8080,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            failure_threshold: 5,
            start_period: Duration::from_secs(5),
        }),
        placement: Placement {
            constraints: vec![Constraint {
                label: "environment".into(),
                equal: true,
                value: "test".into(),
            }],
            spread_by: Some("zone".into()),
            max_per_host: Some(4),
            packing: Packing::Spread,
        },
        rollout: Rollout {
            max_surge: Amount::Percent(50),
            max_unavailable: Amount::Count(1),
            min_ready: Duration::from_secs(2),
            progress_deadline: Duration::from_secs(900),
            on_failure: OnFailure::Pause,
        },
        termination: Termination {
            drain: Duration::from_millis(500),
            grace: Duration::from_secs(30),
            signal: "SIGQUIT".into(),
        },
        replace_after: Duration::from_secs(45),
        keep: Keep::Original,
        placements: BTreeMap::new(),
        app: AppClaim::default(),
        shifting: None,
        suspend: true,
        routed: false,
        exposure: crate::model::Exposure::default(),
        document: document.into(),
    };
    let given: Vec<&Service> = desired.services.values().map(AsRef::as_ref).collect();
    assert_eq!(given, [&service]);

    // The stored document is the service again, and so is what the record keeps.
    let owner = owner();
    let ctx = Context {
        owner: &owner,
        secrets: &OneSecret,
        previous: &applied,
        limits: Limits::default(),
        default_endpoint: DEFAULT_ENDPOINT,
    };
    assert_eq!(service_from_document(document, "", &ctx).as_ref(), Ok(&service));
    let objects: Vec<_> = applied.objects().collect();
    assert_eq!(
        objects,
        [("Fleet/shop", "example.yaml"), ("ScalingService/simple-server", "example.yaml")]
    );
    let without = Context { secrets: &NoSecrets, ..ctx };
    assert_eq!(
        service_from_document(document, "", &without).unwrap_err().to_string(),
        "the stored document is not good any more: spec.env[1].secret: no secret app/token: no place for secrets was given"
    );
}

#[test]
fn ten_lines_are_enough_and_defaults_are_those_of_the_model() {
    let (desired, _) = parse_files(&[("web.yaml", &service("{image: nginx:1.28}"))]);
    assert_eq!(desired.problems, []);
    let (name, fleet) = desired.fleets.iter().next().unwrap();
    assert_eq!(name, &FleetName::of_default());
    let host = fleet.hosts.values().next().unwrap();
    assert_eq!(host.name.as_str(), "local");
    assert_eq!(host.endpoint, Endpoint::Unix { path: "/var/run/docker.sock".into() });
    let made = crate::fake::make::service("web", 1, "nginx:1.28").unwrap();
    let web = desired.services.values().next().unwrap();
    let same = Service { document: Arc::clone(&web.document), ..made };
    assert_eq!(web.as_ref(), &Service { hash: web.hash, ..same });
}

#[test]
fn nothing_that_is_said_otherwise_changes_what_is_meant() {
    let of = |text: &str| {
        let (desired, applied) = parse_files(&[("a.yaml", text)]);
        assert_eq!(desired.problems, [], "{text}");
        (desired.services, applied.objects)
    };
    let plain = of(&service("{image: a, termination: {drain: 60s}, resources: {cpu: 500m}}"));
    for same in [
        service("{resources: {cpu: \"0.5\"}, termination: {drain: 1m}, image: \"a\", replicas: 1}"),
        service("{image: a, termination: {drain: 60s}, resources: {cpu: 500m}}").replace('\n', "\r\n"),
        format!("\u{feff}# a comment\n{}", service("{image: a, termination: {drain: 60s}, resources: {cpu: 500m}}")),
        r#"{"apiVersion": "evenkeel.dev/v1alpha1", "kind": "ScalingService", "metadata": {"name": "web", "labels": {"team": "x"}, "namespace": "n"},
            "spec": {"image": "a", "termination": {"drain": "60s"}, "resources": {"cpu": "500m"}, "networks": ["bridge"], "command": []}}"#.replace(", \"networks\": [\"bridge\"]", ""),
    ] {
        assert_eq!(of(&same), plain, "{same}");
    }
}

#[test]
fn a_command_check_is_the_engines_to_make() {
    let (desired, _) = parse_files(&[(
        "web.yaml",
        &service(
            "{image: a, health: {command: {command: [/ok]}, interval: 1s}, placement: {packing: binpack}}",
        ),
    )]);
    let web = desired.services.values().next().unwrap();
    assert_eq!(web.probe, None);
    assert_eq!(
        web.spec.healthcheck,
        Some(CommandCheck {
            command: vec!["/ok".into()],
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            failure_threshold: 3,
            start_period: Duration::ZERO,
        })
    );
    assert_eq!(web.placement.packing, Packing::Binpack);
}

#[test]
fn problems_are_lines_in_the_order_of_the_files() {
    let (desired, _) = parse_files(&[
        ("b.yaml", "["),
        ("a\u{1b}[2J.yaml", &service("{image: a, replicaz: 1, suspend: 1}")),
    ]);
    assert_eq!(
        render_problems(&desired.problems, "deploy/"),
        "deploy/a\\u{1b}[2J.yaml:4:18: ScalingService web: the field spec.replicaz is unknown\n  \
         hint: did you mean \"replicas\"?\n\
         deploy/a\\u{1b}[2J.yaml:4:40: ScalingService web: spec.suspend: expected true or false, found the number 1\n\
         deploy/b.yaml:1:1: not valid YAML: while parsing a node, did not find expected node content\n\
         3 problems in 2 files\n"
    );
    assert_eq!(render_problems(&[], "x"), "no problems\n");
}

#[test]
fn the_local_engine_is_where_the_caller_says() {
    let owner = owner();
    let with = |default_endpoint| {
        let previous = Applied::default();
        let ctx = Context {
            owner: &owner,
            secrets: &NoSecrets,
            previous: &previous,
            limits: Limits::default(),
            default_endpoint,
        };
        parse("r", &shared(&files(&[("web.yaml", &service("{image: a}"))])), &[], &ctx).0
    };
    for endpoint in ["unix:///run/user/1000/docker.sock", "/run/user/1000/docker.sock"] {
        let desired = with(endpoint);
        let host = desired.fleets[&FleetName::of_default()].hosts.values().next().unwrap();
        assert_eq!(host.endpoint, Endpoint::Unix { path: "/run/user/1000/docker.sock".into() });
    }
    let desired = with("http://x");
    assert_eq!((desired.services.len(), desired.held.len()), (0, 1));
    assert_eq!(
        desired.problems.iter().map(|p| p.message.as_str()).collect::<Vec<_>>(),
        [
            "ScalingService web: spec.fleet: the local engine's address: expected unix:///path, tcp://host:port or ssh://[user@]host[:port]"
        ]
    );
}

#[test]
fn a_udp_port_is_no_tcp_port_and_two_fleets_may_share_a_host() {
    let publishes = |name: &str, on: &str, protocol: &str, replicas: u32| {
        let port = format!("{{name: x, containerPort: 1, publish: 53, protocol: {protocol}}}");
        service(&format!("{{image: a, fleet: {on}, replicas: {replicas}, ports: [{port}]}}"))
            .replace("web", name)
    };
    let (desired, _) = parse_files(&[
        ("a.yaml", &fleet("one", "[{name: h1, endpoint: \"unix:///s\"}]")),
        ("b.yaml", &fleet("two", "[{name: other, endpoint: \"unix:///s\"}]")),
        ("c.yaml", &publishes("a", "one", "tcp", 9)),
        ("d.yaml", &publishes("b", "one", "udp", 1)),
        ("e.yaml", &publishes("c", "two", "udp", 1)),
    ]);
    let told: Vec<_> = desired.problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(told, ["d.yaml", "e.yaml"]);
}
