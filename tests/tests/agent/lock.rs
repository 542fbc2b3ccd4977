//! Agents without Kubernetes stand by for each other through a lock of a real Consul, each with a state of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_tests::agent::{Agent, Bed, LONG, TOY_2, throughout, until};
use evenkeel_tests::consul::{Consuls, call, docker, free_port, get, led};
use serde_json::json;

use super::same_in_common;

/// What a holder of the lock is called in its key.
const KEY: &str = "/v1/kv/evenkeel";

struct Rig {
    bed: Bed,
    consuls: Consuls,
    port: u16,
}

impl Rig {
    async fn new(args: &[&str]) -> Self {
        let (bed, consuls, port) = (Bed::new().await, Consuls::new(), free_port());
        consuls.single(port, args);
        led(port).await;
        Self { bed, consuls, port }
    }

    /// An agent on a machine of its own, as far as it can tell.
    fn agent(&self, machine: &str, more: &[&str]) -> Agent {
        let path = |p: &std::path::Path| p.display().to_string();
        let (repo, state) = (path(&self.bed.repo.path), path(&self.bed.dir().join(machine)));
        let lock = format!("consul://127.0.0.1:{}", self.port);
        let mut all = vec!["--git", &repo, "--state-dir", &state, "--owner", &self.bed.owner];
        all.extend(["--interval", "1s", "--lock", &lock]);
        all.extend(more);
        self.bed.agent_of(&all)
    }

    fn key(&self) -> String {
        format!("{KEY}/{}/lock", self.bed.owner)
    }

    /// The session that holds the lock.
    async fn session(&self) -> Option<String> {
        let found = get(self.port, &self.key()).await?;
        found[0]["Session"].as_str().map(str::to_owned)
    }

    /// The one that acts, and the one that stands by.
    async fn parted(&self) -> (Agent, Agent) {
        let (a, b) = (self.agent("a", &[]), self.agent("b", &[]));
        until("one acts and one stands by", LONG, async || {
            (stands_by(&a).await? != stands_by(&b).await?).then_some(())
        })
        .await;
        if stands_by(&a).await.unwrap() { (b, a) } else { (a, b) }
    }
}

async fn stands_by(agent: &Agent) -> Option<bool> {
    Some(agent.status().await?.agent.standby)
}

#[tokio::test]
async fn the_lock_is_handed_over_in_seconds_on_a_clean_stop() {
    let rig = Rig::new(&[]).await;
    let web = rig.bed.service("web", 2);
    let commit = rig.bed.repo.put(&web);
    let (mut first, mut second) = rig.parted().await;
    first.settled(&web, &commit).await;
    assert_eq!(second.get("/readyz").await.unwrap().0, 200, "standing by is being ready");
    let before = rig.bed.ids(&web).await;
    first.signal("TERM");
    assert_eq!(first.ended(LONG).await, Some(0));
    let begun = tokio::time::Instant::now();
    second.until("it takes over", |s| !s.agent.standby).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    let three = web.replicas(3);
    let commit = rig.bed.repo.put(&three);
    second.settled(&three, &commit).await;
    same_in_common(&before, &rig.bed.ids(&three).await);
    // The next one waits again, and the last one leaves nothing that anybody would have to wait for.
    let mut third = rig.agent("c", &[]);
    third.until("the third stands by", |s| s.agent.standby).await;
    third.signal("TERM");
    assert_eq!(third.ended(Duration::from_secs(8)).await, Some(0));
    second.signal("TERM");
    assert_eq!(second.ended(LONG).await, Some(0));
    assert_eq!(rig.session().await, None);
    let sessions = get(rig.port, "/v1/session/list").await.unwrap();
    assert_eq!(sessions, json!([]), "sessions are left");
}

#[tokio::test]
async fn killed_in_mid_rollout_and_the_one_that_waits_finishes_it_once() {
    let rig = Rig::new(&[]).await;
    let web = rig.bed.service("web", 4);
    let commit = rig.bed.repo.put(&web);
    let (mut first, mut second) = rig.parted().await;
    first.settled(&web, &commit).await;
    let events = rig.bed.events().await;
    let new = web.image(TOY_2);
    let commit = rig.bed.repo.put(&new);
    until("the rollout is under way", LONG, async || {
        rig.bed.of(&web).await.iter().any(|c| c.image == TOY_2).then_some(())
    })
    .await;
    first.kill();
    second.until("it takes over", |s| !s.agent.standby).await;
    second.settled(&new, &commit).await;
    let all = rig.bed.of(&new).await;
    assert!(all.len() == 4 && all.iter().all(|c| c.image == TOY_2), "{all:?}");
    // No step twice: four new ones were started, and each old one ended once.
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for event in events.all().await {
        *counts.entry(event.action).or_default() += 1;
    }
    let count = |what: &str| counts.get(what).copied().unwrap_or(0);
    assert_eq!((count("start"), count("die")), (4, 4), "{counts:?}");
    assert_eq!(count("destroy"), count("create"), "{counts:?}");
}

#[tokio::test]
async fn while_consul_is_away_nobody_acts_and_nobody_says_that_another_does() {
    let rig = Rig::new(&[]).await;
    let web = rig.bed.service("web", 2);
    let commit = rig.bed.repo.put(&web);
    let mut agent = rig.agent("a", &[]);
    agent.settled(&web, &commit).await;
    docker(&["pause", &rig.consuls.name("n1")]);
    let status = agent.until("it stands back", |s| s.agent.standby).await;
    let why = status.agent.held_back.expect("it says why");
    assert!(why.contains("the lock evenkeel/") && why.contains("does not answer"), "{why}");
    assert!(!agent.log().contains("another agent of this owner"), "{}", agent.log());
    let (_, id) = rig.bed.ids(&web).await.pop_first().unwrap();
    rig.bed.kill(&id).await;
    throughout(Duration::from_secs(5), async || {
        let running = rig.bed.of(&web).await.into_iter().filter(|c| c.state == "running").count();
        assert_eq!(running, 1, "it acts without the lock");
    })
    .await;
    docker(&["unpause", &rig.consuls.name("n1")]);
    agent.settled(&web, &commit).await;
    assert_eq!(rig.bed.ids(&web).await.len(), 2);
}

#[tokio::test]
async fn who_loses_its_session_stops_at_once_and_nobody_takes_over_before_that_is_sure() {
    let rig = Rig::new(&[]).await;
    let web = rig.bed.service("web", 1);
    let commit = rig.bed.repo.put(&web);
    let (mut first, second) = rig.parted().await;
    first.settled(&web, &commit).await;
    let session = rig.session().await.unwrap();
    // Paused as a machine that sleeps is, it cannot notice.
    first.signal("STOP");
    let path = format!("/v1/session/destroy/{session}");
    assert_eq!(call(rig.port, "PUT", &path, "", None).await, Some(json!(true)));
    let begun = tokio::time::Instant::now();
    until("the other takes over", LONG, async || (!stands_by(&second).await?).then_some(())).await;
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(9), "sooner than the first could know of it: {took:?}");
    first.signal("CONT");
    first.until("the first has noticed", |s| s.agent.standby).await;
    assert!(!stands_by(&second).await.unwrap());
    assert_ne!(rig.session().await.unwrap(), session);
}

#[tokio::test]
async fn a_token_that_may_not_is_told_with_what_it_needs() {
    let root = "11111111-2222-3333-4444-555555555555";
    let acl = json!({"acl": {"enabled": true, "default_policy": "deny",
        "tokens": {"master": root, "agent": root}}})
    .to_string();
    let rig = Rig::new(&["-hcl", &acl]).await;
    let policy = format!(
        "key_prefix \"evenkeel/{}/lock\" {{ policy = \"write\" }} session_prefix \"\" {{ policy = \"write\" }}",
        rig.bed.owner
    );
    let make = async |path: &str, body: serde_json::Value| {
        until("consul makes it", LONG, async || {
            call(rig.port, "PUT", path, root, Some(body.clone())).await
        })
        .await
    };
    let web = rig.bed.service("web", 1);
    let commit = rig.bed.repo.put(&web);
    let file = rig.bed.dir().join("token");
    std::fs::write(&file, "nobody-knows-me").unwrap();
    let mut agent = rig.agent("a", &["--lock-token-file", file.to_str().unwrap()]);
    until("it says what is missing", LONG, async || {
        agent.log().contains("session_prefix").then_some(())
    })
    .await;
    assert!(rig.bed.of(&web).await.is_empty(), "it acts without the lock");
    assert!(!agent.log().contains("nobody-knows-me"), "the token is in the log");
    make("/v1/acl/policy", json!({"Name": "lock", "Rules": policy})).await;
    let token = make("/v1/acl/token", json!({"Policies": [{"Name": "lock"}]})).await;
    // The file is read anew: no restart.
    std::fs::write(&file, token["SecretID"].as_str().unwrap()).unwrap();
    agent.settled(&web, &commit).await;
    agent.signal("TERM");
    assert_eq!(agent.ended(LONG).await, Some(0));
}
