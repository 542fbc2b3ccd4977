//! What outlives a restart, what is told of a lease that cannot be had, and a plan from outside.

use std::time::Duration;

use evenkeel_tests::agent::{BROKEN, LONG, TOY, TOY_2, throughout, until};
use evenkeel_tests::kube::access::Access;
use evenkeel_tests::kube::proxy::{Fault, Proxy};
use evenkeel_tests::kube::rig::Rig;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_spec_comes_back_after_a_restart_with_its_secret() {
    let rig = Rig::new().await;
    let mut agent = rig.agent();
    let args = ["create", "secret", "generic", "app", "-n", "shop", "--from-literal=token=one"];
    rig.server.run(&args);
    let web = rig.bed.service("web", 2).rollout("maxSurge: 1, progressDeadline: 20s");
    let secret = "env: [{name: TOKEN, secret: {name: app, key: token}}]";
    rig.apply(&web.to_string().replace("env: []", secret));
    rig.ready(&web);
    // As desired for as long as makes a spec one to come back to.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let ids = rig.bed.ids(&web).await;
    let patch = json!({"spec": {"image": BROKEN}}).to_string();
    rig.on(&["patch", "--type=merge", "-p", &patch], &web, &[]);
    until("the bad one is tried", LONG, async || {
        rig.bed.of(&web).await.iter().any(|c| c.image == BROKEN).then_some(())
    })
    .await;
    agent.kill();
    let agent = rig.agent();
    rig.says(&web, "Stalled", "").await;
    until("it is rolled back", LONG, async || {
        let all = rig.bed.of(&web).await;
        (all.len() == 2 && all.iter().all(|c| c.image == TOY)).then_some(())
    })
    .await;
    assert_eq!(rig.bed.ids(&web).await, ids, "those that were good stayed");
    assert!(!agent.log().contains("last good spec is lost"), "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_namespace_is_not_there_is_told_with_the_command() {
    let rig = Rig::new().await;
    let agent = rig.agent_named("state", &["--lease", "nowhere/evenkeel"]);
    let web = rig.bed.service("web", 1);
    rig.apply(&web);
    until("it says what is missing", LONG, async || {
        agent.log().contains("kubectl create namespace nowhere").then_some(())
    })
    .await;
    let agent_view = agent.status().await.unwrap().agent;
    assert!(agent_view.standby && agent_view.held_back.unwrap().contains("nowhere"));
    assert!(rig.bed.of(&web).await.is_empty());
    // Not a line every few seconds.
    throughout(Duration::from_secs(10), async || {}).await;
    let lines = agent.log().lines().filter(|l| l.contains("cannot be asked for")).count();
    assert!(lines <= 4, "{lines} times");
    rig.server.run(&["create", "namespace", "nowhere"]);
    rig.ready(&web);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_replica_that_cannot_renew_does_not_speak_of_another() {
    let mut rig = Rig::new().await;
    let proxy = rig.proxy().await;
    let agent = rig.agent();
    let web = rig.runs("web", 1);
    proxy.fault(|a: &Access| a.resource == "leases", Fault::Answer(500));
    until("it stands back", LONG, async || agent.status().await?.agent.held_back).await;
    assert!(!agent.log().contains("another agent of this owner"), "{}", agent.log());
    let (_, metrics) = agent.get("/metrics").await.unwrap();
    let failed = "evenkeel_kubernetes_writes_total{what=\"lease\",outcome=\"failed\"}";
    assert!(metrics.contains(failed), "{metrics}");
    proxy.calm();
    rig.scales(&web, 2).await;
    let (_, metrics) = agent.get("/metrics").await.unwrap();
    for what in ["finalizers", "status", "event", "lease"] {
        let line = format!("evenkeel_kubernetes_writes_total{{what=\"{what}\",outcome=\"ok\"}}");
        assert!(metrics.contains(&line), "{line} is missing in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_from_outside_reads_and_writes_nothing() {
    let rig = Rig::new().await;
    let proxy = Proxy::start(&rig.server).await;
    let mut agent = rig.agent();
    let web = rig.runs("web", 2);
    agent.kill();
    rig.on(&["scale", "--replicas=3"], &web, &[]);
    let new = rig.bed.service("new", 1).image(TOY_2);
    rig.apply(&new);
    let plan = || {
        let mut bed_env = std::process::Command::new(evenkeel_tests::agent::binary());
        bed_env.args(["plan", "--kubernetes", "--owner", &rig.bed.owner, "-o", "json"]);
        bed_env.env("KUBECONFIG", proxy.kubeconfig()).output().unwrap()
    };
    let out = tokio::task::block_in_place(plan);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(2), "{said}{}", String::from_utf8_lossy(&out.stderr));
    let plans: serde_json::Value = serde_json::from_str(&said).unwrap();
    let steps: Vec<String> = plans["plans"][0]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| format!("{} {}", s["kind"].as_str().unwrap(), s["name"].as_str().unwrap()))
        .collect();
    assert_eq!(steps, [format!("start {}_1", new.name), format!("start {}_3", web.name)]);
    let writes: Vec<Access> = proxy.seen();
    let reads = ["get", "list"];
    assert!(writes.iter().all(|a| reads.contains(&a.verb.as_str())), "{writes:?}");
    assert_eq!(rig.bed.ids(&web).await.len(), 2);
}
