//! What the controller asks of the API server, and what it does when that refuses.

use std::time::Duration;

use evenkeel_tests::agent::{LONG, until};
use evenkeel_tests::kube::recorder::Fate;
use serde_json::json;

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_for_what_a_role_can_grant_and_is_quiet_when_all_is_well() {
    let mut rig = Rig::new().await;
    let recorder = rig.record().await;
    let _agent = rig.agent();
    let web = rig.bed.service("web", 1);
    let secret = "env: [{name: TOKEN, secret: {name: app, key: token}}]";
    let args = ["create", "secret", "generic", "app", "-n", "shop", "--from-literal=token=one"];
    rig.server.run(&args);
    rig.apply(&web.to_string().replace("env: []", secret));
    rig.ready(&web);
    until("it is told of", LONG, async || {
        recorder.kinds().contains("create events.events.k8s.io").then_some(())
    })
    .await;
    // Nothing but its own lease is written while nothing happens.
    let others = || {
        let reads = ["get", "list", "watch"];
        let asked = recorder.asked();
        let written = asked.iter().filter(|a| !reads.contains(&a.verb.as_str()));
        written.filter(|a| a.resource != "leases").count()
    };
    let mut last = others();
    until("it comes to rest", LONG, async || {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = others();
        (std::mem::replace(&mut last, now) == now).then_some(())
    })
    .await;
    evenkeel_tests::agent::throughout(Duration::from_secs(15), async || {
        assert_eq!(others(), last, "{:?}", recorder.asked().last());
    })
    .await;
    rig.on(&["delete", "--timeout=90s"], &web, &[]);
    let allowed = [
        "list fleets.evenkeel.dev",
        "list loadbalancers.evenkeel.dev",
        "list scalingservices.evenkeel.dev",
        "watch fleets.evenkeel.dev",
        "watch loadbalancers.evenkeel.dev",
        "watch scalingservices.evenkeel.dev",
        "patch scalingservices.evenkeel.dev",
        "patch scalingservices/status.evenkeel.dev",
        "get leases.coordination.k8s.io",
        "create leases.coordination.k8s.io",
        "update leases.coordination.k8s.io",
        "create events.events.k8s.io",
        "patch events.events.k8s.io",
        "get secrets",
    ];
    for kind in recorder.kinds() {
        assert!(allowed.contains(&kind.as_str()), "nobody granted: {kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_a_while_is_done_later() {
    let mut rig = Rig::new().await;
    let recorder = rig.record().await;
    let mut agent = rig.agent();
    let web = rig.bed.service("web", 1);
    // Too many requests at first, whatever is asked.
    let begun = std::time::Instant::now();
    recorder.judge(move |asked| {
        let busy = begun.elapsed() < Duration::from_secs(8) && asked.resource != "leases";
        if busy { Fate::Answer(429, 1) } else { Fate::Pass }
    });
    rig.apply(&web);
    rig.ready(&web);
    let ids = rig.bed.ids(&web).await;
    // No watch is allowed any more: lists tell what is new.
    recorder.judge(|asked| if asked.verb == "watch" { Fate::Answer(410, 1) } else { Fate::Pass });
    rig.on(&["scale", "--replicas=2"], &web, &[]);
    rig.until(&web, "/status/availableReplicas", json!(2)).await;
    // Statuses are refused, and then written after all.
    recorder.judge(|asked| {
        if asked.resource.ends_with("/status") { Fate::Answer(409, 1) } else { Fate::Pass }
    });
    rig.on(&["scale", "--replicas=1"], &web, &[]);
    until("one is left", LONG, async || (rig.bed.of(&web).await.len() == 1).then_some(())).await;
    recorder.judge(|_| Fate::Pass);
    rig.until(&web, "/status/observedGeneration", json!(3)).await;
    rig.until(&web, "/status/availableReplicas", json!(1)).await;
    assert!(rig.bed.ids(&web).await.values().all(|id| ids.values().any(|i| i == id)));
    assert!(agent.runs());
}
