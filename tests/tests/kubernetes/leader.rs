//! Two replicas: one acts, and the other takes over however the first ends.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_tests::agent::{Agent, LONG, TOY_2, until};
use evenkeel_tests::kube::rig::Rig;
use serde_json::json;

/// Whether this replica stands by; `None` while it does not say.
async fn stands_by(agent: &Agent) -> Option<bool> {
    Some(agent.status().await?.agent.standby)
}

/// The one that acts, and the one that stands by.
async fn parted(a: Agent, b: Agent) -> (Agent, Agent) {
    until("one acts and one stands by", LONG, async || {
        let (a, b) = (stands_by(&a).await?, stands_by(&b).await?);
        (a != b).then_some(())
    })
    .await;
    if stands_by(&a).await.unwrap() { (b, a) } else { (a, b) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_ready_and_takes_over_in_seconds_from_one_that_ends() {
    let rig = Rig::new().await;
    let (mut first, second) = parted(rig.agent_named("a", &[]), rig.agent_named("b", &[])).await;
    let web = rig.runs("web", 2);
    let ids = rig.bed.ids(&web).await;
    assert_eq!(second.get("/readyz").await.unwrap().0, 200);
    first.signal("TERM");
    assert_eq!(first.ended(LONG).await, Some(0));
    let begun = tokio::time::Instant::now();
    until("the other acts", LONG, async || (!stands_by(&second).await?).then_some(())).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    rig.scales(&web, 3).await;
    let now = rig.bed.ids(&web).await;
    assert!(ids.iter().all(|(slot, id)| now.get(slot) == Some(id)), "nobody is restarted by it");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_mid_rollout_and_the_standby_finishes_it_once() {
    let rig = Rig::new().await;
    let (mut first, second) = parted(rig.agent_named("a", &[]), rig.agent_named("b", &[])).await;
    let web = rig.runs("web", 4);
    let events = rig.bed.events().await;
    rig.apply(&web.image(TOY_2));
    until("the rollout is under way", LONG, async || {
        let all = rig.bed.of(&web).await;
        all.iter().any(|c| c.image == TOY_2).then_some(())
    })
    .await;
    first.kill();
    rig.until(&web, "/status/appliedRevision", json!("2")).await;
    rig.ready(&web);
    let all = rig.bed.of(&web).await;
    assert!(all.len() == 4 && all.iter().all(|c| c.image == TOY_2), "{all:?}");
    assert!(!stands_by(&second).await.unwrap());
    // No step twice: four new ones were started, and each old one ended once.
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for event in events.all().await {
        *counts.entry(event.action).or_default() += 1;
    }
    let count = |what: &str| counts.get(what).copied().unwrap_or(0);
    assert_eq!((count("start"), count("die")), (4, 4), "{counts:?}");
    // One that was made and not yet started when the first was killed is made anew.
    assert_eq!(count("destroy"), count("create"), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_renew_acts_no_more() {
    let rig = Rig::new().await;
    let agent = rig.agent();
    let web = rig.runs("web", 2);
    rig.server.freeze();
    until("it stands back", LONG, async || stands_by(&agent).await?.then_some(())).await;
    let (_, id) = rig.bed.ids(&web).await.pop_first().unwrap();
    rig.bed.kill(&id).await;
    evenkeel_tests::agent::throughout(Duration::from_secs(5), async || {
        let running = rig.bed.of(&web).await.into_iter().filter(|c| c.state == "running").count();
        assert_eq!(running, 1, "it acts without the lease");
    })
    .await;
    rig.server.thaw();
    until("it acts again", LONG, async || {
        let all = rig.bed.of(&web).await;
        (all.len() == 2 && all.iter().all(|c| c.state == "running")).then_some(())
    })
    .await;
}
