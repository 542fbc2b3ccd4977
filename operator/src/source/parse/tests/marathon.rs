//! Marathon clusters and services over several fleets, in documents.

use std::collections::BTreeMap;

use super::parse_files;
use crate::model::{
    AppId, BalancerKind, CLUSTER, Credential, Desired, Endpoint, FleetName, HostName, MarathonAuth,
    ServiceName,
};

const CLUSTERS: &str = "
apiVersion: evenkeel.dev/v1alpha1
kind: Fleet
metadata: {name: mesos}
spec:
  backend: {marathon: {urls: [http://mm1:8080, http://mm2:8080], auth: {username: ops, passwordFile: /etc/p}, group: /shop,
    registryConfig: \"file:///etc/docker.tar.gz\"}}
  discovery: {consul: {address: \"http://10.0.0.1:8500\"}}
---
apiVersion: evenkeel.dev/v1alpha1
kind: Fleet
metadata: {name: docker}
spec: {backend: {docker: {hosts: [{name: h1, endpoint: \"tcp://10.0.0.2:2375\"}]}}}
---
apiVersion: evenkeel.dev/v1alpha1
kind: LoadBalancer
metadata: {name: edge}
spec: {fleet: docker, provider: {haproxy: {}}, listeners: [{name: http, port: 80, publish: 8080}]}
";

fn service(rest: &str) -> String {
    format!(
        "{CLUSTERS}---
apiVersion: evenkeel.dev/v1alpha1
kind: ScalingService
metadata: {{name: web}}
spec:
  image: toy:1
  resources: {{memory: 32Mi}}
  ports: [{{name: http, containerPort: 80, publish: 9000}}]
  routes: [{{loadBalancer: edge, listener: http, port: http}}]
{rest}"
    )
}

fn parsed(rest: &str) -> Desired {
    parse_files(&[("a.yaml", &service(rest))]).0
}

fn said(rest: &str) -> Vec<String> {
    parsed(rest).problems.into_iter().map(|p| p.message).collect()
}

fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

fn fleet(name: &str) -> FleetName {
    FleetName::new(name).unwrap()
}

#[test]
fn a_marathon_cluster_is_one_host() {
    let desired = parsed("  fleet: mesos\n");
    assert_eq!(desired.problems, []);
    let mesos = &desired.fleets[&fleet("mesos")];
    let cluster = mesos.marathon.as_ref().unwrap();
    assert_eq!(cluster.urls, ["http://mm1:8080", "http://mm2:8080"]);
    let password = Credential::File("/etc/p".into());
    let auth = MarathonAuth::Basic { username: "ops".into(), password };
    assert_eq!((cluster.auth.as_ref(), cluster.group.as_str()), (Some(&auth), "/shop"));
    assert_eq!(mesos.hosts[&HostName::new(CLUSTER).unwrap()].endpoint, Endpoint::Marathon);
    let web = &desired.services[&web()];
    assert_eq!(web.app_id(&cluster.group), AppId::new("/shop/web").unwrap());
    // Its balancer runs on another fleet, and its registry is the cluster's.
    assert_eq!(web.exposure.pools.len(), 1);
    assert_eq!(web.exposure.registered, BTreeMap::from([(fleet("mesos"), 80)]));
    assert_eq!(desired.routings.values().next().unwrap().kind, BalancerKind::Haproxy);
}

#[test]
fn a_service_runs_on_several_fleets() {
    let desired = parsed(
        "  replicas: 10\n  placements: [{fleet: mesos, weight: 1}, {fleet: docker, replicas: 3}]\n",
    );
    assert_eq!(desired.problems, []);
    let web = &desired.services[&web()];
    let parts = BTreeMap::from([(fleet("docker"), 3), (fleet("mesos"), 7)]);
    assert_eq!((&web.fleet, &web.placements), (&fleet("mesos"), &parts));
    assert_eq!(web.share(&fleet("docker")), Some(3));
    assert_eq!(web.share(&fleet("default")), None);
}

#[test]
fn parts_that_do_not_add_up_are_refused() {
    let parts = |parts: &str| said(&format!("  replicas: 4\n  placements: [{parts}]\n"));
    let one = parts("{fleet: mesos, replicas: 1}, {fleet: docker, replicas: 2}");
    assert!(one[0].contains("come to 3, and replicas is 4"), "{one:?}");
    assert!(
        parts("{fleet: mesos, replicas: 5}, {fleet: docker, weight: 1}")[0].contains("come to 5")
    );
    assert!(parts("{fleet: mesos, weight: 0}")[0].contains("come to 0"));
    assert!(
        parts("{fleet: mesos, weight: 1}, {fleet: mesos, weight: 1}")[0]
            .contains("taken by an earlier")
    );
    assert!(parts("{fleet: mesos, weight: 1, replicas: 2}")[0].contains("one of"));
    assert!(
        parts("{fleet: nowhere, weight: 1}")[0].contains("no document defines the fleet nowhere")
    );
    let other = said("  fleet: docker\n  placements: [{fleet: mesos, weight: 1}]\n");
    assert!(other[0].contains("fleet is not among placements"), "{other:?}");
}

#[test]
fn what_marathon_cannot_do_is_refused() {
    let refused = |rest: &str| said(&format!("  fleet: mesos\n{rest}"));
    for (rest, message) in [
        ("  networks: [a, b]\n", "joins one network"),
        ("  placement: {packing: binpack}\n", "Mesos chooses the host"),
        ("  marathon: {app: web}\n", "expected the absolute path"),
        ("  marathon: {fields: {instances: 3}}\n", "evenkeel answers for it"),
        ("  marathon: {field: {}}\n", "field"),
        ("  marathon: {instances: nobody}\n", "nobody"),
    ] {
        let said = refused(rest);
        assert!(said.iter().any(|m| m.contains(message)), "{rest}: {said:?}");
    }
    let unlimited = service("  fleet: mesos\n").replace("  resources: {memory: 32Mi}\n", "");
    let (desired, _) = parse_files(&[("a.yaml", &unlimited)]);
    assert!(desired.problems[0].message.contains("limits every instance"));
    let balancer =
        service("  fleet: mesos\n").replace("{fleet: docker, provider", "{fleet: mesos, provider");
    let (desired, _) = parse_files(&[("a.yaml", &balancer)]);
    assert!(
        desired.problems[0].message.contains("this runs on Docker hosts"),
        "{:?}",
        desired.problems
    );
    let consul =
        service("  fleet: mesos\n").replace("address: \"http://10.0.0.1:8500\"", "servers: 3");
    let (desired, _) = parse_files(&[("a.yaml", &consul)]);
    assert!(desired.problems[0].message.contains("not Docker hosts"), "{:?}", desired.problems);
}

#[test]
fn a_route_to_another_fleet_needs_a_port_that_is_reached_there() {
    let hidden = |fleet: &str| {
        let text = service(&format!("  fleet: {fleet}\n")).replace(", publish: 9000", "");
        let (desired, _) = parse_files(&[("a.yaml", &text)]);
        desired.problems.into_iter().map(|p| p.message).collect::<Vec<_>>()
    };
    assert_eq!(
        hidden("mesos"),
        Vec::<String>::new(),
        "Marathon gives every declared port one of the host"
    );
    let other = "apiVersion: evenkeel.dev/v1alpha1
kind: Fleet
metadata: {name: other}
spec: {backend: {docker: {hosts: [{name: h1, endpoint: \"tcp://10.0.0.3:2375\"}]}}}
---";
    let text = format!("{other}{}", service("  fleet: other\n")).replace(", publish: 9000", "");
    let (desired, _) = parse_files(&[("a.yaml", &text)]);
    assert!(
        desired.problems[0].message.contains("runs on another fleet"),
        "{:?}",
        desired.problems
    );
    let undeclared = service("  fleet: mesos\n").replace("port: http}]", "port: 81}]");
    let (desired, _) = parse_files(&[("a.yaml", &undeclared)]);
    assert!(desired.problems[0].message.contains("not among ports"), "{:?}", desired.problems);
}
