//! One line, one mistake in a field: what a person is told, and where.

use super::bad::{all, raw};
use super::*;

#[test]
fn fields() {
    all(&[
        (
            service("{image: a, replica: 2}"),
            r#"a.yaml:4:18: ScalingService web: the field spec.replica is unknown
               hint: did you mean "replicas"?"#,
        ),
        (
            service("{image: a, Replicas: 2}"),
            r#"a.yaml:4:18: ScalingService web: the field spec.Replicas is unknown
               hint: did you mean "replicas"?"#,
        ),
        (
            service("{image: a, deployment: 2}"),
            "a.yaml:4:18: ScalingService web: the field spec.deployment is unknown
               hint: known fields: args, command, discovery, env, fleet, health, image, marathon, networks, onHostLost, placement, placements, ports, replicas, resources, rollout, routes, suspend, termination, volumes",
        ),
        (service("{}"), "a.yaml:4:7: ScalingService web: spec.image is missing"),
        (
            service(""),
            "a.yaml:4:1: ScalingService web: spec: expected a mapping, found nothing
               hint: give it a value, or leave the field out",
        ),
        (
            service("[a]"),
            "a.yaml:4:7: ScalingService web: spec: expected a mapping, found a list",
        ),
        (
            service("{image: a, ports: {name: http}}"),
            "a.yaml:4:25: ScalingService web: spec.ports: expected a list, found a mapping
               hint: begin each entry with '- '",
        ),
        (
            service("{image: a, command: sh}"),
            r#"a.yaml:4:27: ScalingService web: spec.command: expected a list, found the text "sh"
               hint: a list of one is written ["sh"]"#,
        ),
        (
            service("{image: a, env: [{name: A}]}"),
            "a.yaml:4:24: ScalingService web: spec.env[0]: set exactly one of value, secret: none is set",
        ),
        (
            service("{image: a, env: [{name: A, value: b, secret: {name: app, key: token}}]}"),
            "a.yaml:4:24: ScalingService web: spec.env[0]: set exactly one of value, secret: value and secret are set",
        ),
        (
            service(
                "{image: a, env: [{name: A=B, value: c}, {name: C, value: c}, {name: C, value: d}]}",
            ),
            r#"a.yaml:4:31: ScalingService web: spec.env[0].name: expected the name of an environment variable such as "LOG_LEVEL", found "A=B""#,
        ),
        (
            service("{image: a, onHostLost: {keep: healthyest}}"),
            r#"a.yaml:4:37: ScalingService web: spec.onHostLost.keep: expected one of original, replacement, healthiest, found the text "healthyest"
               hint: did you mean "healthiest"?"#,
        ),
        (
            service("{image: a, networks: [a, a]}"),
            r#"a.yaml:4:32: ScalingService web: spec.networks: has the text "a" twice"#,
        ),
        (
            service(
                "{image: a, health: {http: {port: web}}, ports: [{name: http, containerPort: 80}]}",
            ),
            "a.yaml:4:40: ScalingService web: spec.health.http.port: no port is named web: ports has http",
        ),
        (
            service(
                "{image: a, health: {tcp: {port: dns}}, ports: [{name: dns, containerPort: 53, protocol: udp}]}",
            ),
            "a.yaml:4:39: ScalingService web: spec.health.tcp.port: the port dns is udp, which no check can ask
               hint: check a tcp port, or use health.command",
        ),
        (
            service(
                "{image: a, replicaz: 1, env: [{name: A, value: b}, {name: A, value: b}], rollout: {maxSurge: 101%}}",
            ),
            r#"a.yaml:4:18: ScalingService web: the field spec.replicaz is unknown
               hint: did you mean "replicas"?
               a.yaml:4:65: ScalingService web: spec.env[1].name: name A is taken by an earlier entry of spec.env
               a.yaml:4:100: ScalingService web: spec.rollout.maxSurge: expected a number of instances (0 to 10000) or a percentage such as "25%" (0% to 100%), found "101%""#,
        ),
    ]);
}

#[test]
fn numbers_and_amounts() {
    all(&[
        (
            service("{image: a, replicas: -1}"),
            "a.yaml:4:28: ScalingService web: spec.replicas: expected a number from 0 to 10000, found -1",
        ),
        (
            service("{image: a, replicas: 10001}"),
            "a.yaml:4:28: ScalingService web: spec.replicas: expected a number from 0 to 10000, found 10001",
        ),
        (
            service("{image: a, replicas: 99999999999999999999999}"),
            "a.yaml:4:28: ScalingService web: spec.replicas: expected a whole number, found the number 99999999999999999999999",
        ),
        (
            service("{image: a, replicas: 1.5}"),
            "a.yaml:4:28: ScalingService web: spec.replicas: expected a whole number, found the number 1.5",
        ),
        (
            service("{image: a, replicas: \"3\"}"),
            r#"a.yaml:4:28: ScalingService web: spec.replicas: expected a whole number, found the text "3"
               hint: write 3, without quotes"#,
        ),
        (
            service("{image: a, replicas: .inf}"),
            r#"a.yaml:4:28: ScalingService web: spec.replicas: expected a whole number, found the text ".inf""#,
        ),
        (
            service("{image: a, ports: [{name: http, containerPort: 0}]}"),
            "a.yaml:4:54: ScalingService web: spec.ports[0].containerPort: expected a number from 1 to 65535, found 0",
        ),
        (
            service("{image: a, ports: [{name: http, containerPort: 65536}]}"),
            "a.yaml:4:54: ScalingService web: spec.ports[0].containerPort: expected a number from 1 to 65535, found 65536",
        ),
        (
            service("{image: a, rollout: {maxSurge: 101%}}"),
            r#"a.yaml:4:38: ScalingService web: spec.rollout.maxSurge: expected a number of instances (0 to 10000) or a percentage such as "25%" (0% to 100%), found "101%""#,
        ),
        (
            service("{image: a, rollout: {maxUnavailable: -1}}"),
            r#"a.yaml:4:44: ScalingService web: spec.rollout.maxUnavailable: expected a number of instances (0 to 10000) or a percentage such as "25%" (0% to 100%), found -1"#,
        ),
        (
            service("{image: a, termination: {drain: 10}}"),
            r#"a.yaml:4:39: ScalingService web: spec.termination.drain: expected a duration such as "10s", "500ms", "5m" or "1h30m", found the number 10"#,
        ),
        (
            service("{image: a, termination: {drain: 10 s}}"),
            r#"a.yaml:4:39: ScalingService web: spec.termination.drain: expected a duration such as "10s", "500ms", "5m" or "1h30m", found "10 s""#,
        ),
        (
            service("{image: a, termination: {grace: 9999999h}}"),
            "a.yaml:4:39: ScalingService web: spec.termination.grace: 9999999h is longer than 366 days",
        ),
        (
            service("{image: a, health: {tcp: {port: 80}, interval: 0s, timeout: 0s}}"),
            "a.yaml:4:54: ScalingService web: spec.health.interval: must be longer than 0s
               a.yaml:4:67: ScalingService web: spec.health.timeout: must be longer than 0s",
        ),
        (
            service("{image: a, rollout: {minReadySeconds: 60, progressDeadline: 1m}}"),
            "a.yaml:4:67: ScalingService web: spec.rollout.progressDeadline: 1m must be longer than minReadySeconds, or every rollout fails",
        ),
        (
            service("{image: a, resources: {cpu: 0, memory: 64}}"),
            r#"a.yaml:4:35: ScalingService web: spec.resources.cpu: expected processors such as "100m" (a tenth), "1.5" or 2, with at most three decimals, found 0
               a.yaml:4:46: ScalingService web: spec.resources.memory: expected an amount with a unit such as "64Mi" or "2Gi" (Ki, Mi, Gi, Ti, k, M, G, T), found the number 64"#,
        ),
        (
            service("{image: a, resources: {memory: 1Mi}}"),
            "a.yaml:4:38: ScalingService web: spec.resources.memory: 1Mi is too little: the engine takes 6Mi or more",
        ),
        (
            service("{image: a, resources: {memory: 9999999Ti}}"),
            "a.yaml:4:38: ScalingService web: spec.resources.memory: 9999999Ti is more than any host has",
        ),
        (
            service("{image: a, placement: {maxPerHost: 0}}"),
            "a.yaml:4:42: ScalingService web: spec.placement.maxPerHost: expected a number from 1 to 10000, found 0",
        ),
    ]);
}

#[test]
fn images_paths_and_networks() {
    all(&[
        (
            service("{image: \"a b\"}"),
            r#"a.yaml:4:15: ScalingService web: spec.image: expected an image such as "nginx:1.28" or "registry.example:5000/app@sha256:…", found "a b""#,
        ),
        (
            service("{image: Nginx:1.28}"),
            "a.yaml:4:15: ScalingService web: spec.image: the image's repository must be in lower case
               hint: write nginx:1.28",
        ),
        (
            service("{image: \"a:\"}"),
            "a.yaml:4:15: ScalingService web: spec.image: the image's tag is malformed
               hint: a tag is letters, digits, '_', '.' and '-', at most 128, not beginning with '.' or '-'",
        ),
        (
            service("{image: \"a@sha256:12\"}"),
            "a.yaml:4:15: ScalingService web: spec.image: the image's digest is malformed
               hint: a digest is sha256: and 64 hexadecimal digits in lower case",
        ),
        (
            service("{image: a, volumes: [{name: d, mountPath: data, volume: d}]}"),
            r#"a.yaml:4:49: ScalingService web: spec.volumes[0].mountPath: expected an absolute path without ':' such as "/srv/data", found "data""#,
        ),
        (
            service("{image: a, volumes: [{name: d, mountPath: /a/../b, hostPath: /../etc}]}"),
            r#"a.yaml:4:49: ScalingService web: spec.volumes[0].mountPath: may not hold ".."
               hint: write the path that is meant
               a.yaml:4:68: ScalingService web: spec.volumes[0].hostPath: may not hold ".."
               hint: write the path that is meant"#,
        ),
        (
            service("{image: a, volumes: [{name: d, mountPath: /, volume: d}]}"),
            "a.yaml:4:49: ScalingService web: spec.volumes[0].mountPath: nothing can be mounted over the root directory",
        ),
        (
            service(
                "{image: a, volumes: [{name: d, mountPath: /a, volume: d}, {name: e, mountPath: /a/, volume: e}]}",
            ),
            "a.yaml:4:86: ScalingService web: spec.volumes[1].mountPath: /a is taken by an earlier entry of volumes",
        ),
        (
            service("{image: a, networks: [host]}"),
            "a.yaml:4:29: ScalingService web: spec.networks[0]: the network host cannot be used: instances on one host would share its ports
               hint: publish ports instead",
        ),
        (
            service("{image: a, networks: [none]}"),
            "a.yaml:4:29: ScalingService web: spec.networks[0]: the network none cannot be used: nothing could reach the instances",
        ),
        (service("{image: a, networks: [bridge]}"), ""),
        (
            service("{image: a, networks: [bridge, shop]}"),
            "a.yaml:4:29: ScalingService web: spec.networks[0]: the network bridge cannot be joined together with others
               hint: leave it out, or leave the others out",
        ),
        (
            service("{image: a, networks: [../a]}"),
            r#"a.yaml:4:29: ScalingService web: spec.networks[0]: expected a Docker volume or network name: letters, digits, '_', '.' and '-', found "../a""#,
        ),
    ]);
}

#[test]
fn not_implemented_yet() {
    all(&[
        (service("{image: a, discovery: {tags: [a]}}"), ""),
        (
            raw(
                "apiVersion: evenkeel.dev/v1alpha1\nkind: LoadBalancer\nmetadata: {name: edge}\nspec: {provider: {nginx: {}}, listeners: [{name: http, port: 80}], virtualIp: {address: 10.0.0.1/24, interface: eth0, routerId: 1}}",
            ),
            "",
        ),
        (
            raw(
                "apiVersion: evenkeel.dev/v1alpha1\nkind: Fleet\nmetadata: {name: mesos}\nspec: {backend: {marathon: {urls: [\"http://mm1:8080\"]}}, discovery: {consul: {servers: 3}}}",
            ),
            "a.yaml:4:88: Fleet mesos: spec.discovery.consul.servers: the fleet is a Marathon cluster, not Docker hosts
               hint: give the address of a Consul agent",
        ),
        (
            fleet("shop", "[{name: h1, endpoint: \"tcp://h1:2376\", tls: {caFile: /ca.pem}}]"),
            "a.yaml:4:78: Fleet shop: spec.backend.docker.hosts[0].tls: TLS to an engine needs an authority, a certificate and a key yet
               hint: give caFile, certFile and keyFile, or caSecret, certSecret and keySecret",
        ),
    ]);
}

#[test]
fn a_consul_over_hosts_that_cannot_have_it() {
    let over = |hosts: &str, consul: &str| {
        raw(&format!(
            "apiVersion: evenkeel.dev/v1alpha1\nkind: Fleet\nmetadata: {{name: shop}}\nspec: {{discovery: {{consul: {consul}}}, backend: {{docker: {{hosts: {hosts}}}}}}}"
        ))
    };
    let far = |n: u8| format!("{{name: h{n}, endpoint: \"tcp://10.0.0.{n}:2375\"}}");
    let local = "{name: local, endpoint: \"unix:///run/docker.sock\"}";
    let three = format!("[{}, {}, {}]", far(1), far(2), far(3));
    all(&[
        (over(&format!("[{local}]"), "{servers: 3, network: a, publish: {ui: 8501}}"), ""),
        (over(&three, "{servers: 3, publish: {ui: 8501}}"), ""),
        (over(&format!("[{}]", far(1)), "{servers: 1}"), ""),
        (
            over(&three, "{servers: 5, network: a}"),
            "a.yaml:4:38: Fleet shop: spec.discovery.consul.servers: 5 servers take 5 hosts, one each, and the fleet has 3
               a.yaml:4:50: Fleet shop: spec.discovery.consul.network: over several hosts the cluster is on the hosts' own network
               hint: leave it out",
        ),
        (
            over(&format!("[{}, {local}]", far(1)), "{servers: 1}"),
            "a.yaml:4:38: Fleet shop: spec.discovery.consul.servers: the host local has no IP address that other hosts reach
               hint: give the host local an address, such as 10.0.0.11",
        ),
    ]);
}

#[test]
fn fleets() {
    all(&[
        (
            fleet("shop", "[]"),
            "a.yaml:4:34: Fleet shop: spec.backend.docker.hosts: has 0 entries, and 1 is the least",
        ),
        (
            fleet("shop", "[{name: h1, endpoint: \"http://u:hunter2@h1\"}]"),
            r#"a.yaml:4:56: Fleet shop: spec.backend.docker.hosts[0].endpoint: expected unix:///path, tcp://host:port or ssh://[user@]host[:port], found "http://…@h1""#,
        ),
        (
            fleet("shop", "[{name: h1, endpoint: \"ssh://-oProxyCommand=x\"}]"),
            "a.yaml:4:56: Fleet shop: spec.backend.docker.hosts[0].endpoint: the endpoint is not ssh://[user@]host[:port]",
        ),
        (
            fleet("shop", "[{name: h1, endpoint: \"ssh://u:hunter2@h1\"}]"),
            "a.yaml:4:56: Fleet shop: spec.backend.docker.hosts[0].endpoint: the endpoint holds a password
               hint: let ssh log in with a key",
        ),
        (
            fleet("shop", "[{name: h1, endpoint: \"tcp://h1\"}]"),
            "a.yaml:4:56: Fleet shop: spec.backend.docker.hosts[0].endpoint: the endpoint has no port
               hint: write tcp://host:2376, or 2375 without TLS",
        ),
        (
            fleet(
                "shop",
                "[{name: h1, endpoint: \"unix:///a\", tls: {caFile: /a, certFile: /b, keyFile: /c}}]",
            ),
            r#"a.yaml:4:56: Fleet shop: spec.backend.docker.hosts[0].endpoint: tls is only for an endpoint that begins with tcp://, found "unix:///a""#,
        ),
        (
            fleet(
                "shop",
                "[{name: h1, endpoint: \"unix:///a\"}, {name: h1, endpoint: \"unix:///b\"}]",
            ),
            "a.yaml:4:77: Fleet shop: spec.backend.docker.hosts[1].name: name h1 is taken by an earlier entry of spec.backend.docker.hosts",
        ),
        (
            fleet(
                "shop",
                "[{name: h1, endpoint: \"unix:///a\"}, {name: h2, endpoint: \"unix:///./a\"}]",
            ),
            "a.yaml:4:91: Fleet shop: spec.backend.docker.hosts[1].endpoint: the same engine as the host h1 has",
        ),
        (
            fleet("shop", "[{name: h1, endpoint: \"unix:///a\", labels: {host: x, zone: 1}}]"),
            r#"a.yaml:4:84: Fleet shop: spec.backend.docker.hosts[0].labels.host: the label host stands for the host's own name
               hint: leave it out: "host == NAME" works without
               a.yaml:4:93: Fleet shop: spec.backend.docker.hosts[0].labels.zone: expected letters, digits, '.', '_', '/' and '-', beginning and ending with a letter or digit, found the number 1
               hint: quote it: "1""#,
        ),
        (
            fleet("shop", "[{name: h1, endpoint: \"unix:///a\", state: drained}]"),
            r#"a.yaml:4:76: Fleet shop: spec.backend.docker.hosts[0].state: expected one of active, cordoned, draining, found the text "drained""#,
        ),
        (
            raw(
                "apiVersion: evenkeel.dev/v1alpha1\nkind: Fleet\nmetadata: {name: shop, annotations: {evenkeel.dev/aprove-prune: x}}\nspec: {backend: {}}",
            ),
            r#"a.yaml:3:38: Fleet shop: the annotation evenkeel.dev/aprove-prune is unknown
               hint: did you mean "evenkeel.dev/approve-prune"?
               a.yaml:4:17: Fleet shop: spec.backend: set exactly one of docker, marathon: none is set"#,
        ),
        (
            raw(
                "apiVersion: evenkeel.dev/v1alpha1\nkind: Fleet\nmetadata: {name: shop, annotations: {evenkeel.dev/approve-prune: 12345678}}\nspec: {backend: {docker: {hosts: [{name: h1, endpoint: \"unix:///a\"}]}}}",
            ),
            r#"a.yaml:3:66: Fleet shop: metadata.annotations.evenkeel.dev/approve-prune: expected text, found the number 12345678
               hint: quote it: "12345678""#,
        ),
    ]);
}
