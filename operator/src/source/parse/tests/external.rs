//! Balancers that run already, in documents.

use super::*;
use crate::model::{External, OwnFile, PoolName, ServiceName, Socket, Way};

fn haproxy(name: &str, socket: &str, file: &str) -> String {
    format!(
        "---
apiVersion: evenkeel.dev/v1alpha1
kind: LoadBalancer
metadata: {{name: {name}}}
spec:
  provider:
    haproxy:
      external:
        - {{runtimeSocket: {socket}, configFile: {file}, check: [hap, \"{{candidate}}\"], reload: [go]}}
  listeners: [{{name: http, port: 9099}}]
"
    )
}

const WEB: &str = "
---
apiVersion: evenkeel.dev/v1alpha1
kind: ScalingService
metadata: {name: web}
spec:
  image: a
  ports: [{name: http, containerPort: 80}]
  routes: [{loadBalancer: edge, listener: http, port: http}]
";

#[test]
fn a_balancer_that_runs_already_starts_nothing() {
    let text = haproxy("edge", "/run/admin.sock", "/etc/edge.cfg") + WEB;
    let (desired, _) = parse_files(&[("a.yaml", &text)]);
    assert_eq!(desired.problems, []);
    let edge = ServiceName::new("edge").unwrap();
    let service = &desired.services[&edge];
    assert_eq!((service.replicas, &*service.spec.image), (0, "external"));
    let routing = &desired.routings[&edge];
    let file = OwnFile {
        path: "/etc/edge.cfg".into(),
        check: vec!["hap".into(), "{candidate}".into()],
        reload: vec!["go".into()],
    };
    let wanted = External { file: Some(file), asked: Socket::Unix("/run/admin.sock".into()) };
    assert_eq!(*routing.external[0], wanted);
    let web = ServiceName::new("web").unwrap();
    assert!(routing.pools.contains_key(&PoolName::new(&web, 80, None)));
    let fleet = &desired.fleets[&service.fleet];
    let way = Way::of(&routing.external, service, &desired.services[&web].spec, fleet);
    assert_eq!(way, Way::Machine);
}

#[test]
fn one_file_or_socket_belongs_to_one_document() {
    let one = haproxy("edge", "/run/admin.sock", "/etc/edge.cfg");
    for (other, at, what) in [
        (haproxy("more", "/run/other.sock", "/etc/edge.cfg"), "configFile", "/etc/edge.cfg"),
        (haproxy("more", "/run/admin.sock", "/etc/more.cfg"), "runtimeSocket", "/run/admin.sock"),
    ] {
        let (desired, _) = parse_files(&[("a.yaml", &(one.clone() + &other))]);
        let told: Vec<String> = desired.problems.iter().map(|p| p.message.clone()).collect();
        let said = |name: &str, other: &str| {
            format!(
                "LoadBalancer {name}: spec.provider.haproxy.external[0].{at}: {what} is also that of {other}"
            )
        };
        assert_eq!(told, [said("edge", "more"), said("more", "edge")]);
        assert!(desired.routings.is_empty(), "neither counts");
    }
}

#[test]
fn whoever_is_elsewhere_must_publish() {
    let fleet = "---
apiVersion: evenkeel.dev/v1alpha1
kind: Fleet
metadata: {name: default}
spec: {backend: {docker: {hosts: [{name: near, endpoint: \"unix:///s\"}, {name: far, endpoint: \"tcp://10.0.0.7:1\"}]}}}
";
    let text = haproxy("edge", "/run/admin.sock", "/etc/edge.cfg") + fleet + WEB;
    let (desired, _) = parse_files(&[("a.yaml", &text)]);
    let said = &desired.problems[0].message;
    assert!(said.contains("reaches only the agent's own engine without"), "{said}");
    for mended in [
        text.replace("containerPort: 80", "containerPort: 80, publish: 8000"),
        text.replace("  image: a", "  image: a\n  placement: {constraints: [\"host == near\"]}"),
    ] {
        let (desired, _) = parse_files(&[("a.yaml", &mended)]);
        assert_eq!(desired.problems, [], "{mended}");
    }
    let host = mended_networks(&text);
    let (desired, _) = parse_files(&[("a.yaml", &host)]);
    assert_eq!(desired.problems.len(), 1, "one without an address of its own");
}

fn mended_networks(text: &str) -> String {
    text.replace(
        "  image: a",
        "  image: a\n  networks: [host]\n  placement: {constraints: [\"host == near\"]}",
    )
}
