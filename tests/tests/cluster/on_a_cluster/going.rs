//! Deletions that a cluster carries out: of a namespace with all that is in it, and of what belongs to something that is gone.

use evenkeel_tests::agent::{LONG, until};
use evenkeel_tests::kube::cluster::Cluster;
use evenkeel_tests::kube::rig::Rig;
use serde_json::{Value, json};

const NOBODY: &str = "nothing acts on what is written to this cluster";

/// A namespace with an agent, where somebody collects what is to go.
async fn rig(what: &str) -> Option<Rig<Cluster>> {
    let rig = Rig::on_cluster().await;
    if rig.server.has_controllers() {
        return Some(rig);
    }
    Cluster::not_tested(what, NOBODY);
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_takes_what_runs_with_it() {
    let Some(rig) = rig("a namespace that is deleted takes what runs with it").await else {
        return;
    };
    // The lease is in the namespace too, and goes before the services do.
    let mut agent =
        rig.agent_named("state", &["--namespaces", rig.server.namespace(), "--lease", "off"]);
    let (web, api) = (rig.runs("web", 2), rig.runs("api", 1));
    rig.server.run(&["delete", "namespace", rig.server.namespace(), "--timeout=180s"]);
    for service in [&web, &api] {
        assert!(rig.bed.of(service).await.is_empty(), "it went before what it ran");
    }
    assert!(agent.runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_something_goes_with_it() {
    let what = "a service that belongs to another object goes with it, containers first";
    let Some(rig) = rig(what).await else { return };
    let _agent = rig.confined();
    let namespace = rig.server.namespace().to_owned();
    rig.server.run(&["create", "configmap", "app", "-n", &namespace]);
    let uid = ["get", "configmap", "app", "-n", &namespace, "-o", "jsonpath={.metadata.uid}"];
    let uid = rig.server.run(&uid);
    let web = rig.runs("web", 2);
    let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "app", "uid": uid}]);
    let patch = json!({"metadata": {"ownerReferences": owners}}).to_string();
    rig.on(&["patch", "--type=merge", "-p", &patch], &web, &[]);
    rig.server.run(&["delete", "configmap", "app", "-n", &namespace]);
    until("the service is gone", 2 * LONG, async || rig.get(&web).is_null().then_some(())).await;
    assert!(rig.bed.of(&web).await.is_empty(), "it went before what it ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_in_the_foreground_waits_as_any_other() {
    let what = "a deletion in the foreground waits for the containers as any other";
    let Some(rig) = rig(what).await else { return };
    let _agent = rig.confined();
    let web = rig.runs("web", 1);
    rig.on(&["delete", "--cascade=foreground", "--timeout=90s"], &web, &[]);
    assert!(rig.bed.of(&web).await.is_empty(), "it went before what it ran");
    assert_eq!(rig.get(&web), Value::Null);
}
