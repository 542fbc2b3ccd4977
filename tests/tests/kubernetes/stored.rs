//! Objects that are not as this version would have them: stored before a rule, or too large.

use std::fs;
use std::path::Path;

use evenkeel_tests::agent::{LONG, TOY, until};
use evenkeel_tests::kube::rig::Rig;
use serde_json::{Value, json};

fn definition() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/scalingservices.yaml");
    serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

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
    let mut definition = definition();
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
    rig.scales(&web, 2).await;
    assert!(rig.bed.ids(&web).await.values().any(|id| ids.values().any(|old| old == id)));
    rig.on(&["delete", "--timeout=90s"], &huge, &[]);
}

/// A newer installation has been here: its version is what is stored, and ours is one way to look at it.
#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_version_that_this_one_does_not_know() {
    let rig = Rig::new().await;
    let mut definition = definition();
    let versions = definition["spec"]["versions"].as_array_mut().unwrap();
    versions[0]["storage"] = false.into();
    let subresources = versions[0]["subresources"].clone();
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    versions.push(json!({"name": "v9", "served": true, "storage": true,
        "subresources": subresources, "schema": {"openAPIV3Schema": open}}));
    rig.server.feed(&["apply", "-f", "-"], &definition.to_string());
    let mut agent = rig.agent();
    let web = rig.runs("web", 1);
    let ids = rig.bed.ids(&web).await;
    let (newer, odd) = (rig.bed.service("newer", 1), rig.bed.service("odd", 1));
    let document = |name: &str, spec: Value| {
        json!({"apiVersion": "evenkeel.dev/v9", "kind": "ScalingService",
            "metadata": {"name": name}, "spec": spec})
    };
    rig.apply(&document(&newer.name, json!({"image": TOY, "replicas": 1, "colour": "red"})));
    rig.apply(&document(&odd.name, json!({"image": {"of": TOY}})));
    // What is known of it is done, and neither stops the others.
    rig.ready(&newer);
    // The server lets nobody write to the odd one, its status neither: the log is where it can be told.
    until("the odd one is told", LONG, async || {
        let log = agent.log();
        let told = |line: &str| line.contains(&odd.name) && line.contains("cannot be written");
        log.lines().any(told).then_some(())
    })
    .await;
    assert!(rig.bed.of(&odd).await.is_empty());
    rig.scales(&web, 2).await;
    assert!(rig.bed.ids(&web).await.values().any(|id| ids.values().any(|old| old == id)));
    assert!(agent.runs());
}
