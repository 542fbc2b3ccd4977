//! What the controller does when the API server refuses, and that it is quiet when all is well.

use std::time::Duration;

use evenkeel_tests::agent::{LONG, throughout, until};
use evenkeel_tests::kube::access::Access;
use evenkeel_tests::kube::proxy::Fault;
use serde_json::json;

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_its_lease_is_written_while_nothing_happens() {
    let mut rig = Rig::new().await;
    let proxy = rig.proxy().await;
    let _agent = rig.agent();
    rig.runs("web", 1);
    let writes = || {
        let of = |a: &&Access| {
            !["get", "list", "watch"].contains(&a.verb.as_str()) && a.resource != "leases"
        };
        proxy.seen().iter().filter(of).count()
    };
    let mut last = writes();
    until("it comes to rest", LONG, async || {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = writes();
        (std::mem::replace(&mut last, now) == now).then_some(())
    })
    .await;
    // Long enough for every watch to end and begin again.
    throughout(Duration::from_secs(75), async || {
        assert_eq!(writes(), last, "{:?}", proxy.seen().last());
        tokio::time::sleep(Duration::from_secs(1)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_a_while_is_done_later() {
    let mut rig = Rig::new().await;
    let proxy = rig.proxy().await;
    let mut agent = rig.agent();
    let web = rig.bed.service("web", 1);
    let not_lease = |a: &Access| a.resource != "leases";
    rig.apply(&web);
    rig.ready(&web);
    let ids = rig.bed.ids(&web).await;
    // Nothing at all is answered for a while.
    proxy.fault(not_lease, Fault::Answer(429));
    rig.on(&["scale", "--replicas=2"], &web, &[]);
    throughout(Duration::from_secs(5), async || {}).await;
    proxy.calm();
    rig.until(&web, "/status/availableReplicas", json!(2)).await;
    // No watch is granted any more: lists tell what is new.
    proxy.fault(|a| a.verb == "watch", Fault::Answer(410));
    rig.on(&["scale", "--replicas=3"], &web, &[]);
    until("three run", LONG, async || (rig.bed.of(&web).await.len() == 3).then_some(())).await;
    // Statuses are refused, and then written after all.
    proxy.fault(|a| a.resource.ends_with("/status"), Fault::Answer(409));
    rig.on(&["scale", "--replicas=1"], &web, &[]);
    until("one is left", LONG, async || (rig.bed.of(&web).await.len() == 1).then_some(())).await;
    proxy.fault(|a| a.resource.ends_with("/status"), Fault::Answer(500));
    throughout(Duration::from_secs(3), async || {}).await;
    proxy.calm();
    rig.until(&web, "/status/observedGeneration", json!(4)).await;
    rig.until(&web, "/status/availableReplicas", json!(1)).await;
    assert!(rig.bed.ids(&web).await.values().all(|id| ids.values().any(|i| i == id)));
    assert!(agent.runs());
}
