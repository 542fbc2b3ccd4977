//! What a person reads in the terminal: `kubectl explain`, and the columns of `kubectl get`.
//!
//! `UPDATE_EXPECT=1` writes the golden anew.

use std::fmt::Write as _;
use std::fs;

use evenkeel_tests::kube::ApiServer;
use serde_json::json;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crd/explain.txt");
const FIELDS: [&str; 7] = [
    "fleet.spec",
    "fleet.spec.backend.docker.hosts",
    "loadbalancer.spec",
    "scalingservice.spec",
    "scalingservice.spec.health",
    "scalingservice.spec.rollout",
    "scalingservice.status",
];

#[test]
fn explain_reads_well() {
    let server = ApiServer::start();
    server.install();
    let mut told = String::new();
    for field in FIELDS {
        let said = server.run(&["explain", field]);
        let lines = said.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        write!(told, "$ kubectl explain {field}\n{}\n\n", lines.trim_end()).unwrap();
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(GOLDEN, &told).unwrap();
    }
    let golden = fs::read_to_string(GOLDEN).unwrap();
    assert!(told == golden, "{told}\nhint: UPDATE_EXPECT=1 writes {GOLDEN} anew");
}

#[test]
fn every_kind_has_its_names_and_columns() {
    let server = ApiServer::start();
    server.install();
    let service = "apiVersion: evenkeel.dev/v1alpha1\nkind: ScalingService\nmetadata: {name: web}\n\
                   spec: {image: 'web:1', replicas: 3, fleet: shop}\n";
    server.feed(&["apply", "-f", "-"], service);
    let ready = json!({"status": {
        "replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1,
        "fleets": "shop", "selector": "evenkeel.dev/service=web",
        "conditions": [{
            "type": "Ready", "status": "False", "reason": "Progressing",
            "message": "1 of 3 available", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }});
    let patch = ready.to_string();
    server.run(&["patch", "ssvc", "web", "--subresource=status", "--type=merge", "-p", &patch]);
    let table = server.run(&["get", "scalingservices", "-o", "wide"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    let head = "NAME FLEET DESIRED READY AVAILABLE IMAGE STATUS MESSAGE AGE";
    assert_eq!(lines[0].join(" "), head);
    assert_eq!(lines[1][..11].join(" "), "web shop 3 2 1 web:1 False 1 of 3 available");
    // What a HorizontalPodAutoscaler asks.
    let scale = server.run(&["get", "--raw", &path("scalingservices/web/scale")]);
    let scale: serde_json::Value = serde_json::from_str(&scale).unwrap();
    assert_eq!(scale["spec"]["replicas"], 3);
    assert_eq!(scale["status"]["replicas"], 3);
    assert_eq!(scale["status"]["selector"], "evenkeel.dev/service=web");
    for (short, head) in [
        ("fl", "NAME HOSTS READY SERVICES INSTANCES STATUS AGE"),
        ("lb", "NAME FLEET DESIRED READY AVAILABLE ROUTES STATUS AGE"),
        ("ssvc", "NAME FLEET DESIRED READY AVAILABLE IMAGE STATUS AGE"),
    ] {
        server.run(&["get", short]);
        let table = columns(&server, short);
        assert_eq!(table, head, "{short}");
    }
    let all = server.run(&["get", "evenkeel", "-o", "name"]);
    assert_eq!(all, "scalingservice.evenkeel.dev/web\n");
}

fn path(of: &str) -> String {
    format!("/apis/evenkeel.dev/v1alpha1/namespaces/default/{of}")
}

/// The columns that are shown without `-o wide`, in capitals as kubectl writes them.
fn columns(server: &ApiServer, short: &str) -> String {
    let plural = match short {
        "fl" => "fleets",
        "lb" => "loadbalancers",
        _ => "scalingservices",
    };
    let crd = server.run(&["get", "crd", &format!("{plural}.evenkeel.dev"), "-o", "json"]);
    let crd: serde_json::Value = serde_json::from_str(&crd).unwrap();
    assert_eq!(crd["spec"]["names"]["shortNames"], json!([short]));
    let all = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().clone();
    let shown = all.into_iter().filter(|c| c["priority"].as_i64().unwrap_or_default() == 0);
    let names = shown.map(|c| c["name"].as_str().unwrap().to_uppercase());
    std::iter::once("NAME".to_owned()).chain(names).collect::<Vec<_>>().join(" ")
}
