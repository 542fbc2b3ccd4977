//! A service over several fleets has one status: the sum of what they say.

use evenkeel_tests::agent::{LONG, until};
use evenkeel_tests::kube::rig::Rig;
use serde_json::{Value, json};

use crate::credentials::without_probe;

fn fleet(name: &str, endpoint: &str) -> Value {
    json!({"apiVersion": "evenkeel.dev/v1alpha1", "kind": "Fleet", "metadata": {"name": name},
        "spec": {"backend": {"docker": {"hosts": [{"name": "h1", "endpoint": endpoint}]}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_service_is_of_all_its_fleets() {
    let rig = Rig::new().await;
    let _agent = rig.agent();
    rig.apply(&fleet("near", "unix:///var/run/docker.sock"));
    rig.apply(&fleet("far", "tcp://127.0.0.1:9"));
    let web = rig.bed.service("web", 2).more("fleet: near");
    rig.apply(&without_probe(&web));
    rig.ready(&web);
    let ids = rig.bed.ids(&web).await;
    let parts = "placements: [{fleet: near, replicas: 2}, {fleet: far, replicas: 1}]";
    let spread = rig.bed.service("web", 3).more("fleet: near").more(parts);
    rig.apply(&without_probe(&spread));
    // One of them has all of its part and the other nothing: it is not ready, and each is told.
    let text = rig.says(&web, "Ready", "far: 0 of 1 available").await;
    assert!(text.contains("near: 2 of 2 available"), "{text}");
    rig.until(&web, "/status/observedGeneration", json!(2)).await;
    let object = rig.get(&web);
    let status = &object["status"];
    assert_eq!((&status["replicas"], &status["readyReplicas"]), (&json!(2), &json!(2)));
    assert_eq!(status["conditions"][0]["status"], "False", "{status}");
    let waits = status["waiting"].as_array().unwrap();
    assert!(
        waits.iter().any(|w| w["message"].as_str().unwrap().starts_with("fleet far: ")),
        "{status}"
    );
    // Both are in use, and neither goes while it is.
    for name in ["near", "far"] {
        rig.server.run(&["delete", "-n", "shop", "fleet", name, "--wait=false"]);
    }
    until("both are held", LONG, async || {
        let got = rig.server.run(&["get", "-n", "shop", "fleets", "-o", "json"]);
        let all: Value = serde_json::from_str(&got).unwrap();
        let held = |f: &&Value| {
            let ready = f["status"]["conditions"].as_array().into_iter().flatten();
            ready.clone().any(|c| c["reason"] == "Deleting")
        };
        (all["items"].as_array()?.iter().filter(held).count() == 2).then_some(())
    })
    .await;
    // Nobody knows what the silent one holds of it.
    rig.on(&["delete", "--wait=false"], &web, &[]);
    rig.says(&web, "Ready", "the host h1 does not answer").await;
    rig.emptied(&web).await;
    assert!(!ids.is_empty() && !rig.get(&web).is_null());
    rig.on(&["annotate"], &web, &["evenkeel.dev/deletion=orphan"]);
    until("it is let go", LONG, async || rig.get(&web).is_null().then_some(())).await;
}
