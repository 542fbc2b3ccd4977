//! What a person does with kubectl, from the first apply to the last delete.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_tests::agent::{TOY_2, until};
use evenkeel_tests::kube::rig::Rig;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn apply_scale_roll_and_delete() {
    let rig = Rig::new().await;
    let mut agent = rig.agent();
    let web = rig.runs("web", 2);
    assert_eq!(rig.bed.ids(&web).await.len(), 2);

    let columns = rig.on(&["get"], &web, &[]);
    let line: Vec<&str> = columns.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line[..7], [web.name.as_str(), "default", "2", "2", "2", "evenkeel/toy:1", "True"]);
    let told = rig.on(&["describe"], &web, &[]);
    assert!(told.contains("2 of 2 available"), "{told}");

    // By the scale subresource, and nobody is restarted by it.
    let before: BTreeSet<String> = rig.bed.ids(&web).await.into_values().collect();
    rig.scales(&web, 3).await;
    let after: BTreeSet<String> = rig.bed.ids(&web).await.into_values().collect();
    assert!(before.is_subset(&after) && after.len() == 3);

    // A patch rolls, and Ready is about this generation.
    let patch = json!({"spec": {"image": TOY_2}}).to_string();
    rig.on(&["patch", "--type=merge", "-p", &patch], &web, &[]);
    rig.until(&web, "/status/appliedRevision", json!("3")).await;
    rig.ready(&web);
    let all = rig.bed.of(&web).await;
    assert!(all.len() == 3 && all.iter().all(|c| c.image == TOY_2), "{all:?}");

    // The server refuses what is malformed, and what runs stays.
    let wrong = json!({"spec": {"replicas": "many"}}).to_string();
    let name = format!("scalingservice/{}", web.name);
    let refused = rig.server.kubectl(&["patch", "-n", "shop", &name, "--type=merge", "-p", &wrong]);
    assert!(!refused.status.success());

    rig.quiet(&web, Duration::from_secs(5)).await;
    rig.on(&["delete", "--timeout=90s"], &web, &[]);
    assert!(rig.bed.of(&web).await.is_empty(), "it went before what it ran");
    assert!(agent.runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_is_said_and_the_others_go_on() {
    let rig = Rig::new().await;
    let _agent = rig.agent();
    let (web, api) = (rig.bed.service("web", 1), rig.bed.service("api", 1));
    rig.apply(&web);
    rig.ready(&web);
    let ids = rig.bed.ids(&web).await;
    rig.apply(&web.more("fleet: nowhere"));
    let text = rig.says(&web, "Stalled", "no document defines the fleet nowhere").await;
    assert!(text.contains("hint:"), "{text}");
    rig.apply(&api);
    rig.ready(&api);
    assert_eq!(rig.bed.ids(&web).await, ids, "the last good document stays in force");
    rig.apply(&web.replicas(2));
    rig.until(&web, "/status/availableReplicas", json!(2)).await;
    assert_eq!(rig.condition(&web, "Stalled"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_in_two_namespaces_is_a_problem_on_both() {
    let rig = Rig::new().await;
    let _agent = rig.agent();
    let web = rig.runs("web", 2);
    let ids = rig.bed.ids(&web).await;
    rig.server.run(&["create", "namespace", "other"]);
    rig.server.feed(&["apply", "-n", "other", "-f", "-"], &web.replicas(1).to_string());
    rig.says(&web, "Stalled", "other/ScalingService").await;
    assert_eq!(rig.bed.ids(&web).await, ids);
    // The one that is deleted leaves what runs to the other.
    let name = format!("scalingservice/{}", web.name);
    rig.server.run(&["delete", "-n", "other", &name, "--timeout=90s"]);
    rig.until(&web, "/status/conditions/0/status", json!("True")).await;
    assert_eq!(rig.bed.ids(&web).await, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_suspend_answer_and_orphan() {
    let rig = Rig::new().await;
    let _agent = rig.agent();
    let web = rig.runs("web", 1);

    rig.on(&["annotate"], &web, &["evenkeel.dev/reconcile=now-1"]);
    rig.until(&web, "/status/lastHandledReconcileAt", json!("now-1")).await;

    rig.on(&["annotate"], &web, &["evenkeel.dev/suspend=true"]);
    rig.says(&web, "Ready", "suspended").await;
    rig.on(&["scale", "--replicas=2"], &web, &[]);
    rig.until(&web, "/status/observedGeneration", json!(2)).await;
    assert_eq!(rig.bed.of(&web).await.len(), 1);
    rig.on(&["annotate"], &web, &["evenkeel.dev/suspend-"]);
    rig.until(&web, "/status/availableReplicas", json!(2)).await;

    let ids = rig.bed.ids(&web).await;
    rig.on(&["annotate"], &web, &["evenkeel.dev/deletion=orphan"]);
    rig.on(&["delete", "--timeout=90s"], &web, &[]);
    rig.runs("api", 1);
    assert_eq!(rig.bed.ids(&web).await, ids, "what an orphan left is left alone");
    // The same name takes it over again.
    rig.apply(&web.replicas(2));
    rig.ready(&web);
    assert_eq!(rig.bed.ids(&web).await, ids);
    rig.on(&["delete", "--timeout=90s"], &web, &[]);
    rig.emptied(&web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_stays_while_it_is_used_and_a_silent_host_holds_what_it_may_have() {
    let rig = Rig::new().await;
    let _agent = rig.agent();
    let fleet = |hosts: &str| {
        format!(
            "apiVersion: evenkeel.dev/v1alpha1\nkind: Fleet\nmetadata: {{name: depot}}\n\
             spec: {{backend: {{docker: {{hosts: [{{name: h1, endpoint: \
             \"unix:///var/run/docker.sock\"}}{hosts}]}}}}}}\n"
        )
    };
    rig.apply(&fleet(", {name: h2, endpoint: \"tcp://127.0.0.1:9\"}"));
    let web = rig
        .bed
        .service("web", 1)
        .more("fleet: depot")
        .more("placement: {constraints: [host == h1]}");
    rig.apply(&web);
    until("the service runs", evenkeel_tests::agent::LONG, async || {
        (rig.bed.of(&web).await.len() == 1).then_some(())
    })
    .await;
    rig.server.run(&["delete", "-n", "shop", "fleet/depot", "--wait=false"]);
    rig.on(&["delete", "--wait=false"], &web, &[]);
    rig.says(&web, "Ready", "the host h2 does not answer").await;
    let fleets = rig.server.run(&["get", "-n", "shop", "fleets", "-o", "name"]);
    assert!(fleets.contains("depot"), "{fleets}");
    rig.apply(&fleet(""));
    rig.server.run(&["wait", "-n", "shop", "--for=delete", "fleet/depot", "--timeout=90s"]);
    assert!(rig.get(&web).is_null());
    rig.emptied(&web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_the_namespace_and_nobody_elses() {
    let rig = Rig::new().await;
    let _agent = rig.agent_named("state", &["--secrets", rig.bed.dir().to_str().unwrap()]);
    // What the agent has in files is not for those who may write objects.
    std::fs::write(rig.bed.dir().join("app.token"), "of-the-agent").unwrap();
    let web = rig.bed.service("web", 1);
    let secret = "env: [{name: TOKEN, secret: {name: app, key: token}}]";
    rig.apply(&web.to_string().replace("env: []", secret));
    let text = rig.says(&web, "Stalled", "no secret app/token").await;
    assert!(text.contains("not found (404)"), "{text}");
    let token = async || {
        let all = rig.bed.of(&web).await;
        let found = rig.bed.docker.inspect_container(&all.first()?.id, None).await.ok()?;
        let env = found.config?.env?;
        env.iter().find_map(|e| e.strip_prefix("TOKEN=").map(str::to_owned))
    };
    let args = ["create", "secret", "generic", "app", "-n", "shop", "--from-literal=token=one"];
    rig.server.run(&args);
    rig.ready(&web);
    assert_eq!(token().await.as_deref(), Some("one"));
    // A changed secret rolls, and is shown nowhere.
    let patch = json!({"stringData": {"token": "a-second-value"}}).to_string();
    rig.server.run(&["patch", "secret", "app", "-n", "shop", "-p", &patch]);
    until("the new value is in use", evenkeel_tests::agent::LONG, async || {
        (token().await.as_deref() == Some("a-second-value")).then_some(())
    })
    .await;
    let shown = rig.get(&web).to_string();
    assert!(!shown.contains("a-second-value"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_tells_what_happened() {
    let rig = Rig::new().await;
    let _agent = rig.agent();
    let web = rig.runs("web", 2);
    rig.on(&["scale", "--replicas=3"], &web, &[]);
    let told = until("describe tells of it", evenkeel_tests::agent::LONG, async || {
        let told = rig.on(&["describe"], &web, &[]);
        told.contains("replicas 2 → 3").then_some(told)
    })
    .await;
    assert!(told.contains("Started") && told.contains("Events:"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn git_and_the_cluster_together() {
    let rig = Rig::new().await;
    let (web, api) = (rig.bed.service("web", 1), rig.bed.service("api", 1));
    rig.bed.repo.replace(&[("web.yaml", &web.to_string())]);
    let repo = rig.bed.repo.path.display().to_string();
    let agent = rig.agent_named("state", &["--git", &repo, "--interval", "1s"]);
    rig.apply(&api);
    rig.ready(&api);
    until("both run", evenkeel_tests::agent::LONG, async || {
        (rig.bed.of(&web).await.len() == 1).then_some(())
    })
    .await;
    // The same name from both is a problem on both, and what runs stays.
    let ids = rig.bed.ids(&web).await;
    rig.apply(&web.replicas(2));
    rig.says(&web, "Stalled", "git/web.yaml").await;
    let problems = agent.status().await.unwrap().source.unwrap().problems;
    assert!(problems.iter().any(|p| p.path == "git/web.yaml"), "{problems:?}");
    assert_eq!(rig.bed.ids(&web).await, ids);
    // The one in the cluster yields, and what is left out of git is pruned.
    rig.on(&["delete", "--timeout=90s"], &web, &[]);
    assert_eq!(rig.bed.ids(&web).await, ids);
    rig.bed.repo.replace(&[("README.md", "nothing")]);
    rig.emptied(&web).await;
    assert_eq!(rig.bed.of(&api).await.len(), 1);
}
