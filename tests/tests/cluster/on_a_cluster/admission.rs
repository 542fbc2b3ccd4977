//! What a cluster's own rules say to the manifests, and to what a user makes.

use std::path::Path;

use evenkeel_tests::kube::cluster::Cluster;
use evenkeel_tests::kube::rig::Rig;
use serde_json::{Value, json};

use super::rights::moved;

/// What `kubectl apply -k` of a directory would make, in the namespace of the test.
fn manifests(server: &Cluster, of: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(of);
    let text = server.run(&["kustomize", &path.display().to_string()]);
    let all = server.items("--dry-run=client", &text).into_iter();
    // The definitions are there, and the namespace is the test's own.
    let those = all.filter(|d| {
        let kind = d["kind"].as_str().unwrap_or_default();
        kind != "CustomResourceDefinition" && kind != "Namespace"
    });
    those.map(|document| moved(document, server.namespace())).collect()
}

/// Every kind of the installation, asked of the server itself: defaults, validation and admission of built-in kinds.
#[test]
fn the_manifests_are_taken_by_the_server() {
    let server = Cluster::enter();
    for of in ["", "overlays/git", "overlays/namespaced"] {
        let documents = manifests(&server, of);
        assert!(documents.iter().any(|d| d["kind"] == "Deployment"), "{of}");
        for document in documents {
            let text = document.to_string();
            let args = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
            let said = server.fed(&args, &text);
            let why = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(said.status.success(), "{of}: {}: {why}", document["kind"]);
            // A pod that a rule of the namespace would refuse is only warned of here.
            assert!(!why.contains("would violate"), "{of}: {why}");
        }
    }
}

/// The pod itself, under the standard that the namespace of the manifests enforces.
#[test]
fn the_pod_is_admitted_where_nothing_more_is_allowed() {
    let server = Cluster::enter();
    let namespace = server.namespace();
    let what = "the pod is admitted by the restricted standard";
    let label = "pod-security.kubernetes.io/enforce=restricted";
    server.run(&["label", "namespace", namespace, label]);
    let admitted = |pod: &Value| {
        server.fed(&["create", "--dry-run=server", "-n", namespace, "-f", "-"], &pod.to_string())
    };
    let pod = |spec: &Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": spec});
    if !server.has_controllers() {
        return Cluster::not_tested(what, "nothing acts on what is written to this cluster");
    }
    let greedy = json!({"containers": [{"name": "a", "image": "a",
        "securityContext": {"privileged": true}}]});
    let refused = admitted(&pod(&greedy));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("PodSecurity"), "it admits all: {said}");
    let documents = manifests(&server, "");
    let account = documents.iter().find(|d| d["kind"] == "ServiceAccount").unwrap();
    server.feed(&["create", "-n", namespace, "-f", "-"], &account.to_string());
    let deployment = documents.iter().find(|d| d["kind"] == "Deployment").unwrap();
    let ours = admitted(&pod(&deployment["spec"]["template"]["spec"]));
    assert!(ours.status.success(), "{}", String::from_utf8_lossy(&ours.stderr));
}

/// A quota counts custom resources as it counts everything; what it refuses is the user's to read, and the rest goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_refuses_one_too_many() {
    let rig = Rig::on_cluster().await;
    let what = "a quota refuses one service too many";
    if !rig.server.has_controllers() {
        return Cluster::not_tested(what, "nothing acts on what is written to this cluster");
    }
    let namespace = rig.server.namespace();
    let hard = "--hard=count/scalingservices.evenkeel.dev=1";
    rig.server.run(&["create", "quota", "few", "-n", namespace, hard]);
    let counted = "--for=jsonpath={.status.hard}";
    rig.server.run(&["wait", "-n", namespace, counted, "resourcequota/few", "--timeout=60s"]);
    let _agent = rig.confined();
    let web = rig.runs("web", 1);
    let api = rig.bed.service("api", 1).to_string();
    let refused = rig.server.fed(&["apply", "-n", namespace, "-f", "-"], &api);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("exceeded quota"), "{said}");
    rig.scales(&web, 2).await;
    rig.on(&["delete", "--timeout=90s"], &web, &[]);
}
