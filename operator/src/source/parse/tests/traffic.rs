//! Balancers and routes: what a person is told of each mistake, where, and what goes on all the same.

use super::*;
use std::time::Duration;

use crate::model::edge::ACCESS_LOG;
use crate::model::{ListenerProtocol, Pool, PoolName, Routing, ServiceName};

/// Lines 5 to 9 of a file that begins with a service.
fn edge(spec: &str) -> String {
    format!(
        "---\napiVersion: evenkeel.dev/v1alpha1\nkind: LoadBalancer\nmetadata: {{name: edge}}\nspec: {spec}\n"
    )
}

const HTTP_AND_DB: &str = "{provider: {haproxy: {}}, listeners: [{name: http, port: 80, publish: 8181}, {name: db, port: 5432, protocol: tcp}]}";
const NGINX: &str = "{provider: {nginx: {}}, listeners: [{name: http, port: 80, publish: 8181}]}";

/// A service with these routes on line 4, and a balancer behind it.
fn routed(routes: &str, balancer: &str) -> String {
    let spec =
        format!("{{image: a, ports: [{{name: web, containerPort: 80}}], routes: [{routes}]}}");
    service(&spec) + &edge(balancer)
}

/// A fleet of two hosts that have addresses.
fn two_hosts() -> String {
    fleet(
        "shop",
        "[{name: h1, endpoint: \"tcp://10.0.0.1:2375\"}, {name: h2, endpoint: \"ssh://h2\", address: 10.0.0.2}]",
    )
}

fn routing<'a>(desired: &'a Desired, name: &str) -> &'a Routing {
    &desired.routings[&ServiceName::new(name).unwrap()]
}

/// Which service gets which requests: `edge http app/ web`.
pub(super) fn rules(desired: &Desired) -> Vec<String> {
    let mut out = Vec::new();
    for (name, routing) in &desired.routings {
        for route in &routing.routes {
            let host = route.host.as_deref().unwrap_or_default();
            let service = &routing.pools[&route.pool].service;
            out.push(format!("{name} {} {host}{} {service}", route.listener, route.path));
        }
    }
    out
}

/// What `evenkeel check` says of `a.yaml`, with the text at the place instead of its numbers.
#[track_caller]
fn check(yaml: &str, expect: &str) {
    let told = told(yaml);
    let at = |line: &str| {
        let Some((place, message)) = line.strip_prefix("a.yaml:").and_then(|l| l.split_once(": "))
        else {
            return line.trim().to_owned();
        };
        let (row, column) = place.split_once(':').unwrap();
        let text = yaml.lines().nth(row.parse::<usize>().unwrap() - 1).unwrap();
        let text = text.chars().skip(column.parse::<usize>().unwrap() - 1).collect::<String>();
        let word = text.split([',', '}', ':', ' ']).next().unwrap();
        format!("@{word}: {message}")
    };
    let told: Vec<String> = told.lines().map(at).collect();
    let expect: Vec<&str> = expect.lines().map(str::trim).collect();
    assert_eq!(told, expect, "\n{yaml}\n");
}

/// What is told of a document, and that its service goes on without the route.
#[track_caller]
fn left_out(yaml: &str, expect: &str) {
    check(yaml, expect);
    let (desired, _) = parse_files(&[("a.yaml", yaml)]);
    let web = &desired.services[&ServiceName::new("web").unwrap()];
    assert!(desired.held.is_empty(), "a route that is left out holds nobody");
    assert_eq!(web.exposure.left_out.len(), 1, "{:?}", web.exposure.left_out);
    assert!(expect.contains(&web.exposure.left_out[0]), "{:?}", web.exposure.left_out);
}

#[test]
fn a_route_that_leads_nowhere_is_left_out() {
    left_out(
        &routed("{loadBalancer: egde, listener: http, port: web}", HTTP_AND_DB),
        r#"@egde: ScalingService web: spec.routes[0].loadBalancer: no load balancer egde is in force; the route is left out
           hint: did you mean "edge"?"#,
    );
    left_out(
        &service("{image: a, routes: [{loadBalancer: edge, listener: http, port: 80}]}"),
        "@edge: ScalingService web: spec.routes[0].loadBalancer: no load balancer edge is in force; the route is left out
           hint: there are no load balancers here",
    );
    left_out(
        &routed("{loadBalancer: edge, listener: https, port: web}", HTTP_AND_DB),
        r#"@https: ScalingService web: spec.routes[0].listener: the load balancer edge has no listener https; the route is left out
           hint: did you mean "http"?"#,
    );
    left_out(
        &routed("{loadBalancer: edge, listener: admin, port: web}", HTTP_AND_DB),
        "@admin: ScalingService web: spec.routes[0].listener: the load balancer edge has no listener admin; the route is left out
           hint: known listeners: http, db",
    );
    let elsewhere = HTTP_AND_DB.replacen('{', "{fleet: shop, ", 1);
    left_out(
        &(routed("{loadBalancer: edge, listener: http, port: web}", &elsewhere)
            + "---\n"
            + &two_hosts()),
        "@web: ScalingService web: spec.routes[0].port: port 80 is not published, and the load balancer edge runs on another fleet; the route is left out
           hint: add publish to the port",
    );
}

#[test]
fn a_route_to_what_cannot_be_reached_is_left_out() {
    let on = |spec: &str, fleet: String| {
        let spec = spec.replacen('{', "{fleet: shop, ", 1);
        let balancer = HTTP_AND_DB.replacen('{', "{fleet: shop, ", 1);
        service(&spec) + &edge(&balancer) + "---\n" + &fleet
    };
    let plain = "{image: a, ports: [{name: web, containerPort: 80}], routes: [{loadBalancer: edge, listener: http, port: web}]}";
    left_out(
        &on(plain, two_hosts()),
        "@web: ScalingService web: spec.routes[0].port: port 80 is not published: on a fleet of several hosts it is reached no other way; the route is left out
           hint: add publish to the port",
    );
    let published = plain.replace("containerPort: 80", "containerPort: 80, publish: 7000");
    assert_eq!(told(&on(&published, two_hosts())), "");
    let far = fleet(
        "shop",
        "[{name: h1, endpoint: \"tcp://10.0.0.1:2375\"}, {name: h2, endpoint: \"ssh://h2\"}]",
    );
    left_out(
        &on(&published, far.clone()),
        "@web: ScalingService web: spec.routes[0].port: the host h2 has no IP address that its published ports are reached at; the route is left out
           hint: give the host an address, such as address: 10.0.0.11, in the fleet shop",
    );
    // Where it never runs it need not be reached.
    let pinned =
        published.replacen("{image", "{placement: {constraints: [\"host == h1\"]}, image", 1);
    assert_eq!(told(&on(&pinned, far)), "");
    let apart = plain.replacen("{image", "{networks: [back], image", 1);
    left_out(
        &(service(&apart) + &edge(&HTTP_AND_DB.replacen('{', "{networks: [front], ", 1))),
        "@web: ScalingService web: spec.routes[0].port: port 80 is not published, and the load balancer edge is on none of the service's networks; the route is left out
           hint: give both a network in common, or add publish to the port",
    );
}

#[test]
fn a_tcp_listener_knows_nothing_of_requests() {
    for (field, at, told) in [
        ("host: app", "app", "spec.routes[0].host: a tcp listener knows no host"),
        ("pathPrefix: /a", "/a", "spec.routes[0].pathPrefix: a tcp listener knows no path"),
        ("cookie: SRV", "SRV", "spec.routes[0].cookie: a tcp listener knows no cookie"),
    ] {
        let route = format!("{{loadBalancer: edge, listener: db, port: web, {field}}}");
        let expect = format!(
            "@{at}: ScalingService web: {told}: it passes bytes on; the route is left out
             hint: leave it out"
        );
        left_out(&routed(&route, HTTP_AND_DB), &expect);
    }
    let one = "{loadBalancer: edge, listener: db, port: web}";
    left_out(
        &routed(&format!("{one}, {one}"), HTTP_AND_DB),
        "@{loadBalancer: ScalingService web: spec.routes[1]: the tcp listener db is taken by route 0 of the service itself; the route is left out
           hint: one route takes all connections of a tcp listener: add a listener",
    );
}

#[test]
fn the_same_requests_twice() {
    let route = |path: &str| {
        format!("{{loadBalancer: edge, listener: http, host: app, pathPrefix: {path}, port: web}}")
    };
    left_out(
        &routed(&format!("{}, {}", route("/a"), route("/a/")), HTTP_AND_DB),
        "@{loadBalancer: ScalingService web: spec.routes[1]: app/a on the listener http is taken by route 0 of the service itself; the route is left out
           hint: choose another host or pathPrefix, or remove the other route",
    );
    assert_eq!(told(&routed(&format!("{}, {}", route("/a"), route("/ab")), HTTP_AND_DB)), "");
}

#[test]
fn what_a_program_cannot_be_told_is_left_out() {
    let route = |path: &str| {
        format!(
            "{{loadBalancer: edge, listener: http, pathPrefix: {path}, port: web, cookie: SRV}}"
        )
    };
    left_out(
        &routed(&route("/a%20b"), NGINX),
        r#"@/a%20b: ScalingService web: spec.routes[0].pathPrefix: path "/a%20b" is encoded, and nginx compares paths decoded; the route is left out"#,
    );
    assert_eq!(told(&routed(&route("/a%20b"), HTTP_AND_DB)), "");
    left_out(
        &routed(&route("/a$b"), HTTP_AND_DB),
        r#"@/a$b: ScalingService web: spec.routes[0].pathPrefix: path "/a$b" cannot be written for HAProxy; the route is left out"#,
    );
    assert_eq!(told(&routed(&route("/a"), NGINX)), "", "nginx has cookies too");
}

#[test]
fn nothing_of_a_route_gets_out_of_its_place_in_a_configuration() {
    let refused = |field: &str, value: &str| {
        let route =
            format!("{{loadBalancer: edge, listener: http, port: web, {field}: \"{value}\"}}");
        let told = told(&routed(&route, HTTP_AND_DB));
        let one = told.contains(&format!("spec.routes[0].{field}: expected "))
            && told.lines().count() == 1;
        assert!(one, "{field} {value}: {told}");
    };
    for host in
        ["a b", "a\\nacl x", "A.example", "a;b", "{a", "*", "*.*.a", "a/b", "a:80", "-a", ".a", ""]
    {
        refused("host", host);
    }
    for path in [
        "a",
        "/a b",
        "/a\\nuse_backend x",
        "/a;",
        "/{",
        "/a\\\"",
        "/a'b",
        "/a#b",
        "/a?b",
        "/a\\\\",
        "",
    ] {
        refused("pathPrefix", path);
    }
    for cookie in ["a b", "a\\r\\nSet-Cookie: x", "a;b", "a=b", "a,b", ""] {
        refused("cookie", cookie);
    }
}

#[test]
fn ports_that_cannot_be_routed_to() {
    check(
        &routed("{loadBalancer: edge, listener: http, port: wbe}", HTTP_AND_DB),
        "@wbe: ScalingService web: spec.routes[0].port: no port is named wbe: ports has web",
    );
    check(
        &(service(
            "{image: a, ports: [{name: dns, containerPort: 53, protocol: udp}], routes: [{loadBalancer: edge, listener: http, port: dns}]}",
        ) + &edge(HTTP_AND_DB)),
        "@dns: ScalingService web: spec.routes[0].port: the port dns is udp, and only tcp is balanced",
    );
}

#[test]
fn one_name_for_a_balancer_and_a_service() {
    let both = service("{image: a}").replace("name: web", "name: edge") + &edge(HTTP_AND_DB);
    check(
        &both,
        "@edge: ScalingService edge: metadata.name: edge is also the name of a LoadBalancer
           hint: rename one of them: containers are named after both
           @edge: LoadBalancer edge: metadata.name: edge is also the name of a ScalingService
           hint: rename one of them: containers are named after both",
    );
    let (desired, _) = parse_files(&[("a.yaml", &both)]);
    assert!(desired.services.is_empty() && desired.held.len() == 1);
}

#[test]
fn where_routes_lead_a_surge_takes_ports_too() {
    let spec = "{image: a, replicas: 2, ports: [{name: web, containerPort: 80, publish: 8179}], routes: []}";
    check(&(service(spec) + &edge(HTTP_AND_DB)), "");
    let spec =
        spec.replace("routes: []", "routes: [{loadBalancer: edge, listener: http, port: web}]");
    let (desired, _) = parse_files(&[("a.yaml", &service(&spec))]);
    let web = &desired.services[&ServiceName::new("web").unwrap()];
    assert_eq!(web.ports_on_a_host(), 3);
    let told = told(&(service(&spec) + &edge(HTTP_AND_DB)));
    let clash = "8179 to 8181 on the host local is also published by LoadBalancer edge (8181 at";
    assert!(told.contains(clash), "{told}");
}

#[test]
fn ports_of_listeners() {
    check(
        &(service("{image: a, ports: [{name: web, containerPort: 80, publish: 8182}]}")
            + &edge(&HTTP_AND_DB.replacen('{', "{replicas: 3, ", 1))),
        "@8182: ScalingService web: spec.ports[0].publish: 8182 on the host local is also published by LoadBalancer edge (8181 to 8183 at a.yaml:9:90)
           hint: instances on one host count up from publish: leave room for all of them, set placement.maxPerHost, or keep the services on different hosts
           @8181: LoadBalancer edge: spec.listeners[0].publish: 8181 to 8183 on the host local is also published by ScalingService web (8182 at a.yaml:4:66)
           hint: instances on one host count up from publish: leave room for all of them, set placement.maxPerHost, or keep the services on different hosts",
    );
    let alone = |spec: &str| edge(spec).replacen("---\n", "", 1);
    for (spec, expect) in [
        (
            "{provider: {haproxy: {}}, replicas: 3, listeners: [{name: http, port: 80, publish: 65534}]}",
            "@65534: LoadBalancer edge: spec.listeners[0].publish: 3 instances on one host would publish up to 65536, and 65535 is the last port",
        ),
        (
            "{provider: {haproxy: {}}, replicas: 2, listeners: [{name: http, port: 80, publish: 8181}, {name: tls, port: 443, publish: 8182}]}",
            "@8181: LoadBalancer edge: spec.listeners[0].publish: 8181 to 8182 meets spec.listeners[1].publish (8182 to 8183): on one host each instance takes the next port
             hint: instances on one host count up from publish: leave room for all of them, set placement.maxPerHost, or keep the services on different hosts
             @8182: LoadBalancer edge: spec.listeners[1].publish: 8182 to 8183 meets spec.listeners[0].publish (8181 to 8182): on one host each instance takes the next port
             hint: instances on one host count up from publish: leave room for all of them, set placement.maxPerHost, or keep the services on different hosts",
        ),
        (
            "{provider: {haproxy: {}}, listeners: [{name: http, port: 80}, {name: http, port: 80, publish: 80}]}",
            "@http: LoadBalancer edge: spec.listeners[1].name: name http is taken by an earlier entry of spec.listeners
             @80: LoadBalancer edge: spec.listeners[1].port: port 80 is taken by an earlier entry of spec.listeners",
        ),
        (
            "{provider: {haproxy: {}}, listeners: [{name: x, port: 9099}]}",
            "@9099: LoadBalancer edge: spec.listeners[0].port: 9099 is the port inside the container where the balancer is spoken to
             hint: choose another port; publish may be any",
        ),
        (
            "{provider: {nginx: {}}, listeners: [{name: x, port: 10901}]}",
            "@10901: LoadBalancer edge: spec.listeners[0].port: 10901 is the port inside the container where the balancer is spoken to
             hint: choose another port; publish may be any",
        ),
        (
            "{provider: {haproxy: {}, nginx: {}}, listeners: [{name: x, port: 80}]}",
            "@{haproxy: LoadBalancer edge: spec.provider: set exactly one of haproxy, nginx: haproxy and nginx are set",
        ),
        (
            "{provider: {haproxy: {}}, listeners: []}",
            "@[]: LoadBalancer edge: spec.listeners: has 0 entries, and 1 is the least",
        ),
        (
            "{provider: {haproxy: {image: HAProxy}}, fleet: shpo, listeners: [{name: x, port: 80}]}",
            "@HAProxy: LoadBalancer edge: spec.provider.haproxy.image: the image's repository must be in lower case
             hint: write haproxy",
        ),
        (
            "{provider: {haproxy: {}}, fleet: shpo, listeners: [{name: x, port: 80}]}",
            "@shpo: LoadBalancer edge: spec.fleet: no document defines the fleet shpo
             hint: there are no fleets here",
        ),
    ] {
        check(&alone(spec), expect);
    }
}

/// A repository with two balancers and three services means exactly this.
#[test]
fn the_routing_of_a_good_repository() {
    let text = include_str!("traffic.yaml");
    let (desired, _) = parse_files(&[("shop.yaml", text)]);
    assert_eq!(desired.problems, []);
    assert_eq!(
        rules(&desired),
        [
            "edge db / db",
            "edge http / web",
            "edge http shop.example/api api",
            "edge http shop.example/cart web",
            "inner http *.web.internal/ web",
        ]
    );
    let Routing { kind: _, listeners, routes: _, pools, fragments, access_log, drain, external } =
        routing(&desired, "edge");
    assert!(external.is_empty());
    let pool = |(name, pool): (&PoolName, &Pool)| {
        let Pool { service, port, protocol, balance, cookie, check, most } = pool;
        let check = check.as_ref().map(|c| format!("{:?} of {}", c.kind, c.port));
        format!("{name}: {service} {port} {protocol:?} {balance:?} {cookie:?} {check:?} {most}")
    };
    assert_eq!(
        pools.iter().map(pool).collect::<Vec<_>>(),
        [
            "api.3000: api 3000 Http Roundrobin None None 2",
            "db.5432.tcp-source: db 5432 Tcp Source None None 2",
            r#"web.8080: web 8080 Http Roundrobin None Some("Http { path: \"/healthz\" } of 8080") 13"#,
            r#"web.8080.cookie-CART: web 8080 Http Roundrobin Some("CART") Some("Http { path: \"/healthz\" } of 8080") 13"#,
        ]
    );
    let listeners: Vec<_> = listeners.iter().map(|l| (&*l.name, l.port, l.protocol)).collect();
    assert_eq!(
        listeners,
        [("db", 5432, ListenerProtocol::Tcp), ("http", 80, ListenerProtocol::Http)]
    );
    assert!(*access_log && *drain == Duration::from_secs(30));
    assert_eq!(fragments.defaults.as_deref(), Some("timeout server 5m"));
    let service = |name: &str| desired.services[&ServiceName::new(name).unwrap()].clone();
    let edge = service("edge");
    let published: Vec<_> = edge.spec.ports.iter().map(|p| (p.container, p.publish)).collect();
    assert_eq!(published, [(5432, Some(5432)), (80, Some(8181))]);
    assert_eq!(
        (&edge.spec.mounts[0].path[..], &edge.spec.networks[..]),
        (ACCESS_LOG, &["shop".to_owned()][..])
    );
    // A tcp listener may be closed while nobody is behind it.
    assert_eq!(edge.probe.as_ref().map(|p| p.port), Some(80));
    let web = service("web");
    let pools: Vec<_> =
        web.exposure.pools.iter().map(|(lb, pool)| format!("{lb} {pool}")).collect();
    assert_eq!(pools, ["edge web.8080", "edge web.8080.cookie-CART", "inner web.8080.leastconn"]);
    let ports: Vec<u16> = web.exposure.registered.values().copied().collect();
    assert_eq!((web.routed, ports), (true, vec![8080]));
}
