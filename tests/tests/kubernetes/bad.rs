//! API servers that misbehave: the fleets stay as they are, and all is well again by itself.

use std::fs;
use std::time::Duration;

use evenkeel_tests::agent::{LONG, until};
use evenkeel_tests::kube::rig::Rig;
use serde_json::json;

/// Whether the agent's source says that something is wrong.
async fn ill(agent: &evenkeel_tests::agent::Agent, want: bool) {
    until(&format!("the source is ill: {want}"), Duration::from_secs(180), async || {
        let status = agent.status().await?;
        (status.source?.error.is_some() == want).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_and_comes_back() {
    let mut rig = Rig::new().await;
    let mut agent = rig.agent_named("state", &["--lease", "off"]);
    let web = rig.runs("web", 2);
    rig.server.kill();
    ill(&agent, true).await;
    // What runs is kept up meanwhile.
    let (slot, id) = rig.bed.ids(&web).await.pop_first().unwrap();
    rig.bed.kill(&id).await;
    until("it is replaced", LONG, async || {
        let all = rig.bed.of(&web).await;
        let new = all.iter().find(|c| c.slot == slot && c.state == "running" && c.id != id);
        (all.len() == 2 && new.is_some()).then_some(())
    })
    .await;
    rig.server.restart();
    ill(&agent, false).await;
    rig.scales(&web, 3).await;
    assert!(agent.runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing() {
    let rig = Rig::new().await;
    let agent = rig.agent();
    let web = rig.runs("web", 1);
    let ids = rig.bed.ids(&web).await;
    rig.server.freeze();
    ill(&agent, true).await;
    assert_eq!(rig.bed.ids(&web).await, ids);
    rig.server.thaw();
    ill(&agent, false).await;
    rig.scales(&web, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_are_missing_end_the_start_with_the_command() {
    let rig = Rig::new().await;
    rig.server.run(&["delete", "crd", "fleets.evenkeel.dev"]);
    let mut agent = rig.agent();
    assert_eq!(agent.ended(LONG).await, Some(1));
    let log = agent.log();
    assert!(log.contains("kubectl apply -f crds/"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_and_finalizers_that_others_wrote_are_put_right() {
    let rig = Rig::new().await;
    let _agent = rig.agent();
    let web = rig.runs("web", 1);
    let name = format!("scalingservice/{}", web.name);
    let stalled = json!({"type": "Stalled", "status": "True", "reason": "Ha", "message": "ha",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let wrong = json!({"status": {"replicas": 77, "conditions": [stalled]}}).to_string();
    let args = ["patch", "-n", "shop", &name, "--subresource=status", "--type=merge", "-p", &wrong];
    rig.server.run(&args);
    rig.until(&web, "/status/replicas", json!(1)).await;
    until("the foreign condition is gone", LONG, async || {
        rig.condition(&web, "Stalled").is_none().then_some(())
    })
    .await;
    let old = json!({"metadata": {"finalizers": ["evenkeel.dev/finalizer", "example.org/other"]}});
    rig.on(&["patch", "--type=merge", "-p", &old.to_string()], &web, &[]);
    let should = json!(["example.org/other", "evenkeel.dev/drain"]);
    rig.until(&web, "/metadata/finalizers", should).await;
    assert_eq!(rig.bed.ids(&web).await.len(), 1);
    rig.quiet(&web, Duration::from_secs(3)).await;
    // Another's finalizer holds the object; ours does not.
    rig.on(&["delete", "--wait=false"], &web, &[]);
    rig.until(&web, "/metadata/finalizers", json!(["example.org/other"])).await;
    rig.emptied(&web).await;
    let none = json!({"metadata": {"finalizers": null}}).to_string();
    rig.on(&["patch", "--type=merge", "-p", &none], &web, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_expire() {
    let rig = Rig::new().await;
    let agent = rig.agent();
    let web = rig.runs("web", 1);
    let tokens = rig.server.tokens();
    let before = fs::read_to_string(&tokens).unwrap();
    fs::write(&tokens, "other-token,other,2\n").unwrap();
    ill(&agent, true).await;
    let said = agent.status().await.unwrap().source.unwrap().error.unwrap();
    assert!(said.message.contains("401") && said.hint.unwrap().contains("expired"));
    fs::write(&tokens, before).unwrap();
    ill(&agent, false).await;
    rig.scales(&web, 2).await;
}

/// As in a pod: the token is a file that somebody writes anew before the old one ends, or a little late.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ended_is_replaced_by_the_next_in_its_file() {
    let mut rig = Rig::new().await;
    let (first, second) =
        ("pod-token-one,pod,7,\"system:masters\"\n", "pod-token-two,pod,7,\"system:masters\"\n");
    let tokens = rig.server.tokens();
    let admin = fs::read_to_string(&tokens).unwrap();
    fs::write(&tokens, format!("{admin}{first}")).unwrap();
    let file = rig.bed.dir().join("token");
    fs::write(&file, "pod-token-one").unwrap();
    let config = rig.server.config_with(&file);
    rig.bed.env.insert("KUBECONFIG".into(), config);
    let mut agent = rig.agent();
    let web = rig.runs("web", 1);
    let ids = rig.bed.ids(&web).await;
    fs::write(&tokens, format!("{admin}{second}")).unwrap();
    ill(&agent, true).await;
    fs::write(&file, "pod-token-two").unwrap();
    ill(&agent, false).await;
    assert_eq!(rig.bed.ids(&web).await, ids, "the fleet stayed as it was");
    rig.scales(&web, 2).await;
    assert!(agent.runs());
}
