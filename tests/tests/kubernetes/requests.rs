//! What the controller does when the API server refuses, and that it is quiet when all is well.

use std::time::Duration;

use evenkeel_tests::agent::{LONG, throughout, until};
use evenkeel_tests::kube::access::Access;
use evenkeel_tests::kube::proxy::Fault;
use evenkeel_tests::kube::rig::Rig;
use serde_json::json;

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
    let lists = || proxy.seen().iter().filter(|a| a.verb == "list").count();
    let before = lists();
    // Long enough for every watch to end and begin again, and to be told that its version is too old.
    proxy.fault(|a| a.verb == "watch", Fault::Answer(410));
    throughout(Duration::from_secs(70), async || {
        assert_eq!(writes(), last, "{:?}", proxy.seen().last());
        tokio::time::sleep(Duration::from_secs(1)).await;
    })
    .await;
    assert!(lists() >= before + 3, "nothing was listed again");
    proxy.calm();
    // All connections break at once.
    rig.server.restart();
    throughout(Duration::from_secs(10), async || {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_hangs_is_given_up_and_everything_listed() {
    let mut rig = Rig::new().await;
    let proxy = rig.proxy().await;
    let mut agent = rig.agent();
    let web = rig.runs("web", 1);
    // Taken, and never answered: no watch that begins from now on does.
    proxy.fault(|a| a.verb == "watch", Fault::Hang);
    rig.server.restart();
    rig.on(&["scale", "--replicas=2"], &web, &[]);
    until("it is followed by lists", 2 * LONG, async || {
        (rig.bed.of(&web).await.len() == 2).then_some(())
    })
    .await;
    rig.on(&["scale", "--replicas=3"], &web, &[]);
    until("and again", 2 * LONG, async || (rig.bed.of(&web).await.len() == 3).then_some(())).await;
    let error = agent.status().await.unwrap().source.unwrap().error.unwrap();
    assert!(error.message.contains("says nothing"), "{}", error.message);
    proxy.calm();
    until("all is well again", 2 * LONG, async || {
        agent.status().await?.source?.error.is_none().then_some(())
    })
    .await;
    assert!(agent.runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_goes_takes_what_runs_with_it_though_nothing_more_can_be_made_there() {
    let mut rig = Rig::new().await;
    let proxy = rig.proxy().await;
    let mut agent = rig.agent();
    let (web, api) = (rig.runs("web", 2), rig.runs("api", 1));
    // As the API server answers in a namespace that is being deleted; what is there is deleted by a controller.
    proxy.fault(
        |a| a.verb == "create" && a.namespace.as_deref() == Some("shop"),
        Fault::Answer(403),
    );
    let all = ["delete", "-n", "shop", "--wait=false", "--all", "scalingservices"];
    rig.server.run(&all);
    rig.emptied(&web).await;
    rig.emptied(&api).await;
    until("the objects are gone", LONG, async || rig.get(&web).is_null().then_some(())).await;
    assert!(agent.runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn others_may_own_the_fields_that_they_apply() {
    let rig = Rig::new().await;
    let _agent = rig.agent();
    let web = rig.bed.service("web", 1);
    let apply = |manager: &str, text: &str, more: &[&str]| {
        let manager = format!("--field-manager={manager}");
        let args = ["apply", "--server-side", &manager, "-n", "shop", "-f", "-"];
        rig.server.fed(&[&args[..], more].concat(), text)
    };
    assert!(apply("one", &web.to_string(), &[]).status.success());
    rig.ready(&web);
    // Two people who apply the same object disagree with each other, never with the controller.
    let two = apply("two", &web.replicas(2).to_string(), &[]);
    let said = String::from_utf8_lossy(&two.stderr).into_owned();
    assert!(!two.status.success() && said.contains("conflict with \"one\""), "{said}");
    assert!(!said.contains("\"evenkeel\""), "{said}");
    assert!(apply("two", &web.replicas(2).to_string(), &["--force-conflicts"]).status.success());
    rig.until(&web, "/status/availableReplicas", json!(2)).await;
    // Who applies a status as their own is put right, and does not keep the controller from its own.
    let status = format!(
        "apiVersion: evenkeel.dev/v1alpha1\nkind: ScalingService\nmetadata: {{name: {}}}\nstatus: {{replicas: 9}}\n",
        web.name
    );
    let theirs = apply("two", &status, &["--subresource=status", "--force-conflicts"]);
    assert!(theirs.status.success(), "{}", String::from_utf8_lossy(&theirs.stderr));
    rig.until(&web, "/status/replicas", json!(2)).await;
    rig.quiet(&web, Duration::from_secs(3)).await;
}
