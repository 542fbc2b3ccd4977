//! Objects that are not as this version would have them: stored before a rule, or too large.

use std::fs;
use std::path::Path;

use evenkeel_tests::agent::{LONG, until};
use serde_json::{Value, json};

use crate::rig::Rig;

/// The definition of services without its rules and limits, as an earlier version might have had it.
fn lax() -> String {
    fn loosen(value: &mut Value) {
        match value {
            Value::Object(map) => {
                let rules =
                    ["x-kubernetes-validations", "pattern", "maximum", "maxLength", "maxItems"];
                map.retain(|key, value| !rules.contains(&key.as_str()) || value.is_object());
                map.values_mut().for_each(loosen);
            }
            Value::Array(items) => items.iter_mut().for_each(loosen),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/scalingservices.yaml");
    let mut definition: Value = serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    loosen(&mut definition);
    definition.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_were_stored_before_a_rule_existed() {
    let rig = Rig::new().await;
    rig.server.feed(&["apply", "-f", "-"], &lax());
    let good = rig.bed.service("good", 1);
    let old = rig.bed.service("old", 1).rollout("minReadySeconds: 900, progressDeadline: 60s");
    until("the older definition is in force", LONG, async || {
        let made = rig.server.fed(&["apply", "-n", "shop", "-f", "-"], &old.to_string());
        made.status.success().then_some(())
    })
    .await;
    rig.server.install();
    until("the rule is in force", LONG, async || {
        let other =
            rig.bed.service("other", 1).rollout("minReadySeconds: 900, progressDeadline: 60s");
        let made = rig.server.fed(&["apply", "-n", "shop", "-f", "-"], &other.to_string());
        if made.status.success() {
            rig.server.run(&["delete", "-n", "shop", "scalingservice", &other.name]);
        }
        (!made.status.success()).then_some(())
    })
    .await;
    let mut agent = rig.agent();
    rig.apply(&good);
    rig.ready(&good);
    // What the rule says is said, and nothing is done for it; the server's own answer to a write is survived.
    until("it is told", LONG, async || {
        let problems = agent.status().await?.source?.problems;
        problems.iter().any(|p| p.path.ends_with(&old.name)).then_some(())
    })
    .await;
    assert!(rig.bed.of(&old).await.is_empty());
    assert!(agent.runs());
    // Mended, it runs; unmended, it could be deleted.
    let mend = json!({"spec": {"rollout": {"minReadySeconds": 0}}}).to_string();
    rig.on(&["patch", "--type=merge", "-p", &mend], &old, &[]);
    rig.ready(&old);
    for service in [&old, &good] {
        rig.on(&["delete", "--timeout=90s"], service, &[]);
        rig.emptied(service).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_too_large_keeps_nobody_else_out() {
    let rig = Rig::new().await;
    rig.server.feed(&["apply", "-f", "-"], &lax());
    let _agent = rig.agent();
    let web = rig.runs("web", 1);
    let ids = rig.bed.ids(&web).await;
    // More than the agent takes of one object, less than the server does.
    let env: Vec<Value> =
        (0..9).map(|n| json!({"name": format!("V{n}"), "value": "x".repeat(120_000)})).collect();
    let huge = json!({"apiVersion": "evenkeel.dev/v1alpha1", "kind": "ScalingService",
        "metadata": {"name": rig.bed.name("huge")},
        "spec": {"image": "evenkeel/toy:1", "env": env}});
    until("the server takes it", LONG, async || {
        // Not by apply: that keeps a second copy in an annotation.
        let made = rig.server.fed(&["create", "-n", "shop", "-f", "-"], &huge.to_string());
        made.status.success().then_some(())
    })
    .await;
    let huge = rig.bed.service("huge", 1);
    let text = rig.says(&huge, "Stalled", "not read").await;
    assert!(text.contains("bytes, more than"), "{text}");
    rig.on(&["scale", "--replicas=2"], &web, &[]);
    rig.until(&web, "/status/availableReplicas", json!(2)).await;
    assert!(rig.bed.ids(&web).await.values().any(|id| ids.values().any(|old| old == id)));
    rig.on(&["delete", "--timeout=90s"], &huge, &[]);
}
