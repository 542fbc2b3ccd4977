//! Failures: what dies is replaced, what is bad is kept out, what serves goes on.

use std::time::Duration;

use evenkeel::report::view::PhaseView;
use evenkeel_tests::agent::{
    BROKEN, Bed, LONG, Service, TOY_2, find, free_port, http, throughout, until, waits,
};
use tokio::time::Instant;

use super::{fewest_serving, replaced, same_in_common};

#[tokio::test]
async fn the_loss_of_one_costs_one_start_and_no_more() {
    let bed = Bed::new().await;
    let web = bed.service("web", 5);
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let before = bed.ids(&web).await;
    let events = bed.events().await;

    bed.kill(&before["3"]).await;
    until("it is replaced", LONG, async || {
        let now = bed.of(&web).await;
        (now.len() == 5 && now.iter().all(|c| c.state == "running" && c.id != before["3"]))
            .then_some(())
    })
    .await;
    agent.settled(&web, &commit).await;
    let mut after = bed.ids(&web).await;
    let new = after.insert("3".into(), before["3"].clone()).unwrap();
    assert_eq!(after, before, "others were touched");
    assert_eq!(events.count("create", &web).await, 1);
    assert_eq!(events.count("start", &web).await, 1);
    let made: Vec<_> =
        events.all().await.into_iter().filter(|e| e.id != before["3"] && e.id != new).collect();
    assert_eq!(made, [], "something else happened");
    bed.nothing_left();
}

#[tokio::test]
async fn healing_goes_on_while_the_repository_is_gone_and_after_a_restart_too() {
    let bed = Bed::new().await;
    let web = bed.service("web", 3);
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let before = bed.ids(&web).await;

    let away = bed.dir().join("away");
    std::fs::rename(&bed.repo.path, &away).unwrap();
    agent
        .until("it says that the source is gone", |s| {
            s.source.as_ref().is_some_and(|s| s.error.is_some())
        })
        .await;
    bed.kill(&before["2"]).await;
    replaced(&bed, &web, &before["2"]).await;
    agent.settled(&web, &commit).await;
    let healed = bed.ids(&web).await;
    assert_eq!((&healed["1"], &healed["3"]), (&before["1"], &before["3"]));

    agent.kill();
    bed.kill(&healed["1"]).await;
    let mut agent = bed.agent();
    let status = agent.settled(&web, &commit).await;
    let source = status.source.unwrap();
    assert!(source.from_store, "the revision comes from the store");
    let error = source.error.expect("the source's error is shown").message;
    assert!(error.contains("repository"), "{error}");
    replaced(&bed, &web, &healed["1"]).await;
    agent.settled(&web, &commit).await;
    let again = bed.ids(&web).await;
    assert_eq!((&again["2"], &again["3"]), (&healed["2"], &healed["3"]));

    std::fs::rename(&away, &bed.repo.path).unwrap();
    let four = web.replicas(4);
    let commit = bed.repo.put(&four);
    let status = agent.settled(&four, &commit).await;
    assert!(status.source.is_some_and(|s| s.error.is_none() && !s.from_store));
    same_in_common(&again, &bed.ids(&web).await);
    bed.nothing_left();
}

#[tokio::test]
async fn a_bad_image_is_rolled_back_and_kept_out_until_the_spec_changes() {
    let bed = Bed::new().await;
    let web = bed.service("web", 3).rollout("maxSurge: 1, progressDeadline: 8s");
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let before = bed.ids(&web).await;
    // Ten seconds as desired make a spec one to come back to.
    let good = Instant::now();
    until("the first spec has proved itself", LONG, async || {
        (good.elapsed() > Duration::from_secs(11)).then_some(())
    })
    .await;

    let bad = web.image(BROKEN);
    let commit = bed.repo.put(&bad);
    let begun = Instant::now();
    let quarantined = agent.until("it is rolled back", |s| waits(s).contains("quarantined"));
    let (fewest, most) = fewest_serving(&bed, &web, quarantined).await;
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(7) && took < Duration::from_secs(40), "{took:?}");
    assert!(fewest >= 3, "only {fewest} of 3 served");
    assert!(most <= 4, "{most} ran at once");
    until("the bad one is gone", LONG, async || (bed.of(&web).await.len() == 3).then_some(()))
        .await;
    assert_eq!(bed.ids(&web).await, before, "the good ones were never touched");
    let status = agent
        .until("it is stalled", |s| find(s, &web).is_some_and(|s| s.phase == PhaseView::Stalled))
        .await;
    assert!(waits(&status).contains("health check failed"), "{}", waits(&status));
    assert_eq!(find(&status, &web).unwrap().attempted_revision.as_deref(), Some(&*commit));

    // Neither a restart nor a commit about something else brings it back.
    agent.kill();
    let mut agent = bed.agent();
    agent.until("it is still kept out", |s| waits(s).contains("quarantined")).await;
    let commit = bed.repo.commit("nothing");
    agent.planned(&commit).await;
    let four = bad.replicas(4);
    let commit = bed.repo.put(&four);
    agent
        .until("it scales with the good spec", |s| {
            find(s, &web).is_some_and(|s| s.available == 4)
                && s.fleets[0].revision.as_deref() == Some(&*commit)
        })
        .await;
    let now = bed.of(&web).await;
    assert!(now.iter().all(|c| c.image != BROKEN), "{now:?}");
    same_in_common(&before, &bed.ids(&web).await);

    let fixed = four.image(TOY_2);
    let commit = bed.repo.put(&fixed);
    agent.settled(&fixed, &commit).await;
    assert!(bed.of(&web).await.iter().all(|c| c.image == TOY_2));
    bed.nothing_left();
}

#[tokio::test]
async fn an_image_that_does_not_exist_is_named_and_the_old_one_serves_on() {
    let bed = Bed::new().await;
    let web = bed.service("web", 2);
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let before = bed.ids(&web).await;

    let missing = "127.0.0.1:1/no-such/image:9";
    let commit = bed.repo.put(&web.image(missing));
    let status = agent.until("it says so", |s| waits(s).contains(missing)).await;
    println!("{}", waits(&status));
    assert_eq!(status.fleets[0].revision.as_deref(), Some(&*commit));
    assert_eq!(bed.ids(&web).await, before);
    let new = web.image(TOY_2);
    let commit = bed.repo.put(&new);
    agent.settled(&new, &commit).await;
    bed.nothing_left();
}

#[tokio::test]
async fn a_crash_loop_is_slowed_down_and_never_called_a_success() {
    let bed = Bed::new().await;
    let web =
        bed.service("web", 1).rollout("maxSurge: 1, minReadySeconds: 5, progressDeadline: 60s");
    let crashing = web.env("TOY_CRASH_AFTER", "1s");
    bed.repo.put(&crashing);
    let mut agent = bed.agent();
    let events = bed.events().await;
    let status = agent.until("it backs off", |s| waits(s).contains("backoff")).await;
    assert!(waits(&status).contains("exit code 1"), "{}", waits(&status));
    assert!(find(&status, &web).is_some_and(|s| s.phase != PhaseView::Ready));
    let begun = Instant::now();
    throughout(Duration::from_secs(6), async || {
        let status = agent.status().await.unwrap();
        let it = find(&status, &web).unwrap();
        assert!(it.phase != PhaseView::Ready && it.available == 0, "{it:?}");
    })
    .await;
    let starts = events.count("start", &web).await;
    assert!((1..=6).contains(&starts), "{starts} starts in {:?}", begun.elapsed());
    assert!(bed.all().await.len() <= 2, "the dead pile up");
    let commit = bed.repo.put(&web);
    agent.settled(&web, &commit).await;
    bed.nothing_left();
}

#[tokio::test]
async fn one_that_gets_sick_is_replaced() {
    let bed = Bed::new().await;
    let web = bed.service("web", 3);
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let before = bed.of(&web).await;
    let sick = &before[1];
    let at = &sick.address;
    let told = http(at, "POST", "/control?unhealthy", &[], "").await;
    assert!(told.as_ref().is_some_and(|(code, _)| *code < 300), "{told:?}");
    replaced(&bed, &web, &sick.id).await;
    agent.settled(&web, &commit).await;
    let after = bed.ids(&web).await;
    assert_eq!((&after["1"], &after["3"]), (&before[0].id, &before[2].id));
    bed.nothing_left();
}

#[tokio::test]
async fn an_engine_that_stalls_is_waited_for_and_then_healed_once() {
    use evenkeel_tests::proxy::{Mode, Proxy};
    let bed = Bed::new().await;
    let proxy = Proxy::listen(None).await;
    bed.repo.write(
        "fleet.yaml",
        format!(
            "apiVersion: evenkeel.dev/v1alpha1
kind: Fleet
metadata: {{name: far}}
spec: {{backend: {{docker: {{hosts: [{{name: h1, endpoint: \"tcp://{}\"}}]}}}}}}
",
            proxy.authority()
        ),
    );
    // A remote engine's instances are probed at the ports that they publish.
    let publish = format!("containerPort: 8080, publish: {}}}", free_port());
    let put = |web: &Service| {
        let text = web.to_string().replace("containerPort: 8080}", &publish);
        bed.repo.write("web.yaml", text);
        bed.repo.commit("put")
    };
    // A port that is taken cannot be published twice, so the old one goes first.
    let web = bed
        .service("web", 3)
        .rollout("maxSurge: 0, maxUnavailable: 1")
        .more("fleet: far")
        .more("onHostLost: {replaceAfter: 60s}");
    let commit = put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let before = bed.ids(&web).await;
    let events = bed.events().await;

    proxy.set(Mode::Stall);
    bed.kill(&before["2"]).await;
    agent.until("the host is called silent", |s| s.fleets[0].hosts[0].state == "silent").await;
    let starts = events.count("create", &web).await;
    assert_eq!(starts, 0);
    assert_eq!(agent.get("/livez").await.unwrap().0, 200, "the loop goes on");
    proxy.set(Mode::Pass);
    replaced(&bed, &web, &before["2"]).await;
    agent.settled(&web, &commit).await;
    let after = bed.ids(&web).await;
    assert_eq!((&after["1"], &after["3"]), (&before["1"], &before["3"]));
    assert_eq!(events.count("create", &web).await, 1, "nothing is started twice");

    // In the middle of a rollout.
    let new = web.image(TOY_2);
    let commit = put(&new);
    until("it begins", LONG, async || (events.count("create", &web).await > 1).then_some(())).await;
    proxy.set(Mode::Cut);
    let deadline = Instant::now() + Duration::from_secs(2);
    until("a while passes", LONG, async || (Instant::now() > deadline).then_some(())).await;
    proxy.set(Mode::Pass);
    agent.settled(&new, &commit).await;
    let now = bed.of(&web).await;
    assert_eq!(now.len(), 3, "{now:?}");
    assert!(now.iter().all(|c| c.image == TOY_2 && c.state == "running"));
    bed.ids(&web).await;
    agent.kill();
    bed.nothing_left();
}
