//! Apps and files by chance: whatever is carried over is what it was, and nothing that is read makes it panic.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::import::compose;

/// One of these.
fn of(values: Vec<Value>) -> BoxedStrategy<Value> {
    prop::sample::select(values).boxed()
}

/// Some of these, in any order.
fn some(values: Vec<Value>, most: usize) -> BoxedStrategy<Value> {
    prop::collection::vec(prop::sample::select(values), 0..=most).prop_map(Value::from).boxed()
}

fn port() -> BoxedStrategy<Value> {
    let number = of(vec![json!(0), json!(80), json!(8080), json!(31_000), json!(65_535)]);
    let protocol = of(vec![json!(null), json!("tcp"), json!("udp"), json!("udp,tcp")]);
    let name =
        of(vec![json!(null), json!("http"), json!("default"), json!("Odd_One"), json!("http-udp")]);
    let service = of(vec![json!(null), json!(0), json!(10_101), json!(80)]);
    let labels = of(vec![json!(null), json!({}), json!({"VIP_0": "/x:80"})]);
    (number.clone(), number, protocol, name, service, labels)
        .prop_map(|(container, host, protocol, name, service, labels)| {
            json!({"containerPort": container, "hostPort": host, "protocol": protocol, "name": name, "servicePort": service,
                "labels": labels, "port": host})
        })
        .boxed()
}

fn check() -> BoxedStrategy<Value> {
    let protocol =
        of(["HTTP", "MESOS_HTTP", "TCP", "MESOS_TCP", "HTTPS", "MESOS_HTTPS", "COMMAND"]
            .map(Value::from)
            .into());
    let number = of(vec![json!(null), json!(0), json!(1), json!(7), json!(300)]);
    let path = of(vec![json!(null), json!("/"), json!("/up?x=1"), json!("odd path")]);
    (protocol, number.clone(), number.clone(), number.clone(), number, path, any::<bool>())
        .prop_map(|(protocol, interval, failures, index, grace, path, by_port)| {
            json!({"protocol": protocol, "intervalSeconds": interval, "maxConsecutiveFailures": failures,
                (if by_port { "port" } else { "portIndex" }): index, "gracePeriodSeconds": grace, "path": path,
                "command": {"value": "curl -f 'http://x' | grep \"y\""}})
        })
        .boxed()
}

fn container() -> BoxedStrategy<Value> {
    let kind = of(vec![json!(null), json!("DOCKER"), json!("MESOS")]);
    let parameters = some(
        [
            ("env", "A=1"),
            ("env", "B"),
            ("volume", "data:/d"),
            ("entrypoint", "/run"),
            ("stop-signal", "SIGINT"),
            ("cap-drop", "ALL"),
        ]
        .map(|(key, value)| json!({"key": key, "value": value}))
        .into(),
        4,
    );
    let volumes = some(
        vec![
            json!({"containerPath": "/a", "hostPath": "/srv/a", "mode": "RO"}),
            json!({"containerPath": "/b", "hostPath": "/srv/b", "mode": "RW"}),
            json!({"containerPath": "rel", "hostPath": "rel", "mode": "RW"}),
            json!({"containerPath": "data", "mode": "RW", "persistent": {"size": 10, "type": "root"}}),
            json!({"containerPath": "/e", "mode": "RW", "external": {"name": "v", "provider": "dvdi"}}),
        ],
        4,
    );
    let ports = prop::option::of(prop::collection::vec(port(), 0..4));
    let flags = (
        any::<bool>(),
        any::<bool>(),
        of(vec![json!(null), json!("BRIDGE"), json!("HOST"), json!("USER")]),
    );
    (kind, parameters, volumes, ports, flags)
        .prop_map(|(kind, parameters, volumes, ports, (force, privileged, old))| {
            let mut docker = json!({"image": "registry.example:5000/a:1", "parameters": parameters, "forcePullImage": force,
                "privileged": privileged});
            if !old.is_null() {
                docker["network"] = old;
            }
            let mut container = json!({"type": kind, "docker": docker, "volumes": volumes});
            if let Some(ports) = ports {
                container["portMappings"] = ports.into();
            }
            container
        })
        .boxed()
}

/// Fields of an app and what may be in them.
fn fields() -> Vec<(&'static str, BoxedStrategy<Value>)> {
    let number = || {
        of(vec![
            json!(0),
            json!(1),
            json!(0.1),
            json!(2.0),
            json!(128),
            json!(32.5),
            json!(3600),
            json!(300),
        ])
    };
    let share = || of(vec![json!(0), json!(0.2), json!(0.333), json!(0.5), json!(1)]);
    let texts = || {
        of(vec![
            json!({}),
            json!({"A": "1", "B": "x: y\n# z"}),
            json!({"HAPROXY_0_VHOST": "a", "evenkeel.dev/owner": "o"}),
            json!({"on": "0600", "odd name": "1", "N": 7, "S": {"secret": "s"}}),
        ])
    };
    let modes = vec![
        json!({"mode": "host"}),
        json!({"mode": "container/bridge"}),
        json!({"mode": "container", "name": "dcos"}),
        json!({"mode": "container"}),
        json!({"mode": "container", "name": "a", "labels": {"x": "y"}}),
    ];
    let constraints = [
        json!(["zone", "CLUSTER", "a"]),
        json!(["hostname", "UNIQUE"]),
        json!(["hostname", "MAX_PER", "2"]),
        json!(["@zone", "GROUP_BY"]),
        json!(["rack", "UNLIKE", "b"]),
        json!(["rack", "LIKE", "c.*"]),
        json!(["rack", "unlike", "d\\.e"]),
        json!(["hostname", "UNIQUE", ""]),
    ];
    vec![
        ("cmd", of(vec![json!("exec web $PORT0"), json!("a\nb\n"), json!("")])),
        ("args", some(["-v", "x y", "", "on"].map(Value::from).into(), 3)),
        ("cpus", number()),
        ("mem", number()),
        ("disk", number()),
        ("instances", of(vec![json!(0), json!(1), json!(3)])),
        ("env", texts()),
        ("labels", texts()),
        ("networks", some(modes, 2)),
        ("portDefinitions", prop::collection::vec(port(), 0..3).prop_map(Value::from).boxed()),
        ("ports", some(vec![json!(0), json!(10_001), json!(80)], 2)),
        ("ipAddress", of(vec![json!({}), json!({"networkName": "dcos", "labels": {"a": "b"}})])),
        ("requirePorts", of(vec![json!(true), json!(false)])),
        ("constraints", some(constraints.into(), 4)),
        ("healthChecks", prop::collection::vec(check(), 0..3).prop_map(Value::from).boxed()),
        ("readinessChecks", some(vec![json!({"portName": "http"})], 1)),
        (
            "upgradeStrategy",
            (share(), share())
                .prop_map(|(h, o)| json!({"minimumHealthCapacity": h, "maximumOverCapacity": o}))
                .boxed(),
        ),
        (
            "unreachableStrategy",
            of(vec![
                json!("disabled"),
                json!({"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0}),
                json!({"inactiveAfterSeconds": 60, "expungeAfterSeconds": 60}),
                json!({"inactiveAfterSeconds": 60, "expungeAfterSeconds": 120}),
                json!({"inactiveAfterSeconds": 60, "expungeAfterSeconds": 70}),
            ]),
        ),
        ("taskKillGracePeriodSeconds", number()),
        ("backoffSeconds", number()),
        ("maxLaunchDelaySeconds", number()),
        ("killSelection", of(vec![json!("YOUNGEST_FIRST"), json!("OLDEST_FIRST")])),
        (
            "fetch",
            some(
                vec![
                    json!({"uri": "file:///etc/docker.tar.gz"}),
                    json!({"uri": "http://x/y", "extract": false}),
                ],
                2,
            ),
        ),
        ("uris", some(vec![json!("http://x/y.tgz"), json!("http://x/z")], 2)),
        ("dependencies", some(vec![json!("../x"), json!("/y")], 2)),
        ("role", of(vec![json!("*"), json!("slave_public")])),
        ("secrets", of(vec![json!({}), json!({"s": {"source": "x"}})])),
        ("user", of(vec![json!(""), json!("nobody")])),
        ("tty", of(vec![json!(true), json!(false)])),
        ("residency", of(vec![json!({"taskLostBehavior": "WAIT_FOREVER"})])),
        ("resourceLimits", of(vec![json!({"cpus": "unlimited", "mem": 256})])),
        ("container", container()),
    ]
}

/// An app with some of its fields, and always an image.
fn app() -> impl Strategy<Value = Value> {
    let each: Vec<_> = fields()
        .into_iter()
        .map(|(name, value)| {
            let always = name == "container";
            (any::<u8>(), value)
                .prop_map(move |(dice, value)| (always || dice < 90).then_some((name, value)))
        })
        .collect();
    each.prop_map(|fields| {
        let fields = fields.into_iter().flatten().map(|(name, value)| (name.to_owned(), value));
        let mut app: Map<String, Value> = fields.collect();
        app.insert("id".into(), "/shop/web".into());
        app.into()
    })
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = [
        "id",
        "apps",
        "groups",
        "app",
        "pods",
        "container",
        "docker",
        "image",
        "portMappings",
        "env",
        "networks",
        "mode",
        "healthChecks",
        "services",
        "ports",
        "volumes",
        "deploy",
        "healthcheck",
        "environment",
        "command",
        "constraints",
        "instances",
        "labels",
        "*",
    ];
    let text = prop_oneof![
        prop::sample::select(names.to_vec()).prop_map(str::to_owned),
        Just("/a/b".to_owned()),
        Just("80:80".to_owned()),
        Just("${X:-y}".to_owned()),
        "\\PC{0,10}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 80, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn of_compose(text: &str) -> Option<Import> {
    let owner = owner();
    let options = compose::Options {
        fleet: "default",
        project: "shop",
        dir: "/srv/shop",
        lookup: &|_| None,
        read: &|_| Err("it is not there".into()),
        owner: &owner,
    };
    compose::import(text, &options).ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_app_is_carried_over_as_it_is(app in app()) {
        let import = imported(&app, "/shop");
        prop_assert!(import.left_out.is_empty(), "{:?}", import.left_out);
        let desired = desired(&import);
        prop_assert_eq!(desired.services.keys().map(ToString::to_string).collect::<Vec<_>>(), ["web"]);
        let changes = changes(&desired, "/shop/web", &app);
        prop_assert!(changes.is_empty(), "{:?}\n{}", changes, import.documents[1].text);
        for line in lines(&import) {
            prop_assert!(!line.text.contains("x: y") && !line.text.ends_with('.'), "{}", line.text);
        }
    }

    #[test]
    fn nothing_that_is_read_makes_it_panic(value in any_json()) {
        let owner = owner();
        let options = Options { fleet: "marathon", group: "/", cluster: None, owner: &owner };
        if let Ok(import) = import(&value, &options) {
            lines(&import);
        }
        if let Some(import) = of_compose(&value.to_string()) {
            lines(&import);
        }
        if let Some(import) = of_compose(&json!({"services": value}).to_string()) {
            lines(&import);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "(services|  web|image|ports|: |\\n|- |[|]|\\{|\\}|&a|\\*a|<<|\\$|\"|'|!x|a){0,40}") {
        of_compose(&text);
    }

    #[test]
    fn any_fields_of_an_app_are_carried_over_or_said(extra in any_json()) {
        let mut app = json!({"id": "/a", "container": {"docker": {"image": "a"}}});
        if let Value::Object(fields) = extra {
            let fields = fields.into_iter().filter(|(name, _)| !["apps", "groups", "*", "app", "id"].contains(&name.as_str()));
            app.as_object_mut().unwrap().extend(fields);
        }
        let import = imported(&app, "/");
        if import.left_out.is_empty() {
            let desired = desired(&import);
            prop_assert_eq!(changes(&desired, "/a", &app), Vec::<String>::new());
        }
    }
}
