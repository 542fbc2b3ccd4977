//! The real agent on the real engine: commits go in, containers come out.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel::report::view::PhaseView;
use evenkeel_tests::agent::{
    BROKEN, Bed, LONG, Seen, Service, TOY_2, containers, find, serving, settled, throughout, until,
    waits,
};
use tokio::time::Instant;

/// Those of `before` that are still there are the same ones.
fn same_in_common(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    for (slot, id) in after {
        if let Some(old) = before.get(slot) {
            assert_eq!(old, id, "slot {slot} was restarted");
        }
    }
}

#[tokio::test]
async fn replicas_go_up_and_down_and_nobody_else_is_touched() {
    let bed = Bed::new().await;
    let web = bed.service("web", 4);
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let four = bed.ids(&web).await;
    assert_eq!(four.len(), 4);

    let ten = web.replicas(10);
    let commit = bed.repo.put(&ten);
    agent.settled(&ten, &commit).await;
    let all = bed.ids(&web).await;
    assert_eq!(all.len(), 10);
    same_in_common(&four, &all);

    let three = web.replicas(3);
    let commit = bed.repo.put(&three);
    agent.settled(&three, &commit).await;
    let left = bed.ids(&web).await;
    assert_eq!(left.keys().map(String::as_str).collect::<Vec<_>>(), ["1", "2", "3"]);
    same_in_common(&four, &left);
    bed.nothing_left();
}

/// Looks at the service from outside for as long as `until_done` takes.
async fn fewest_serving(bed: &Bed, web: &Service, until_done: impl Future) -> (usize, usize) {
    let (mut fewest, mut most) = (usize::MAX, 0);
    let mut done = std::pin::pin!(until_done);
    loop {
        tokio::select! {
            _ = &mut done => return (fewest, most),
            () = tokio::time::sleep(Duration::from_millis(30)) => {}
        }
        if let Some(n) = serving(&bed.docker, &bed.owner, web).await {
            fewest = fewest.min(n);
        }
        most = most.max(bed.of(web).await.iter().filter(|c| c.state == "running").count());
    }
}

#[tokio::test]
async fn a_new_image_rolls_and_never_fewer_than_asked_for_serve() {
    let bed = Bed::new().await;
    let web = bed.service("web", 4).rollout("maxSurge: 2, minReadySeconds: 1");
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let before = bed.ids(&web).await;

    let new = web.image(TOY_2);
    let commit = bed.repo.put(&new);
    let (fewest, most) = fewest_serving(&bed, &web, agent.settled(&new, &commit)).await;
    assert!((4..100).contains(&fewest), "only {fewest} of 4 served");
    assert!(most <= 6, "{most} ran at once");
    let after = bed.of(&web).await;
    assert!(after.iter().all(|c| c.image == TOY_2 && !before.values().any(|id| *id == c.id)));
    let names: BTreeSet<String> = after.iter().map(|c| c.name.clone()).collect();
    let wanted: BTreeSet<String> = (1..=4).map(|n| format!("{}_{n}", web.name)).collect();
    agent
        .until("the names are those of the slots", |s| {
            let names = find(s, &web).map(|s| s.instances.iter().map(|i| i.name.clone()));
            names.is_some_and(|n| n.collect::<BTreeSet<_>>() == wanted)
        })
        .await;
    assert_eq!(names.len(), 4);
    bed.nothing_left();
}

#[tokio::test]
async fn an_agent_that_starts_into_a_change_takes_nobody_that_serves_for_one_that_starts() {
    let bed = Bed::new().await;
    // A first check was asked for in the commit that also changed the image.
    let web = bed.service("web", 4).rollout("maxSurge: 1, maxUnavailable: 1");
    let checked = web.to_string();
    let line = checked.lines().find(|l| l.contains("health:")).unwrap().to_owned() + "\n";
    bed.repo.write("web.yaml", checked.replace(&line, ""));
    let commit = bed.repo.commit("without a check");
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let put = |web: &Service| {
        bed.repo.write("web.yaml", web.to_string());
        bed.repo.commit("put")
    };
    let new = web.image(TOY_2);
    let commit = put(&new);
    let (fewest, _) = fewest_serving(&bed, &web, agent.settled(&new, &commit)).await;
    assert!(fewest >= 3, "only {fewest} served while a check was added");
    // Down while the commit came; the instances it finds have run for longer than it knows.
    agent.kill();
    let new = web.image(evenkeel_tests::agent::TOY);
    let commit = put(&new);
    let mut agent = bed.agent();
    let (fewest, _) = fewest_serving(&bed, &web, agent.settled(&new, &commit)).await;
    assert!(fewest >= 3, "only {fewest} served after the restart");
    // In the middle of a rollout.
    let new = web.image(TOY_2);
    let commit = put(&new);
    until("it begins", LONG, async || {
        bed.of(&web).await.iter().any(|c| c.image == TOY_2).then_some(())
    })
    .await;
    agent.kill();
    let mut agent = bed.agent();
    let (fewest, _) = fewest_serving(&bed, &web, agent.settled(&new, &commit)).await;
    assert!(fewest >= 3, "only {fewest} served after a restart in the middle");
    bed.nothing_left();
}

#[tokio::test]
async fn a_commit_that_does_not_change_what_runs_restarts_nobody() {
    let bed = Bed::new().await;
    let web = bed.service("web", 3);
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let (ids, starts) = (bed.ids(&web).await, bed.starts(&web).await);
    let events = bed.events().await;

    let mut comment = web.clone();
    comment.comment = "# a comment, and nothing else\n".into();
    let mut termination = web.clone();
    termination.termination = "drain: 1s, grace: 9s".into();
    let rollout = web.rollout("maxSurge: 100%, minReadySeconds: 0, progressDeadline: 33s");
    let moved = bed.repo.git(&["rev-parse", "HEAD"]);
    for same in [&comment, &termination, &rollout] {
        let commit = bed.repo.put(same);
        agent.settled(same, &commit).await;
    }
    // The same document under another name, and a commit that holds nothing at all.
    let file = format!("{}.yaml", web.name);
    std::fs::create_dir(bed.repo.path.join("deep")).unwrap();
    bed.repo.git(&["mv", &file, "deep/er.yaml"]);
    let commit = bed.repo.commit("move it");
    agent.settled(&rollout, &commit).await;
    let commit = bed.repo.commit("nothing");
    agent.settled(&rollout, &commit).await;
    assert_ne!(moved, commit);

    assert_eq!(bed.ids(&web).await, ids);
    assert_eq!(bed.starts(&web).await, starts);
    assert_eq!(events.all().await, [], "nothing may happen to any container");
    bed.nothing_left();
}

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

async fn replaced(bed: &Bed, web: &Service, id: &str) {
    until("it is replaced", LONG, async || {
        let now = bed.of(web).await;
        let all = now.len() == web.replicas as usize;
        (all && now.iter().all(|c| c.state == "running" && c.id != id)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_history_that_was_rewritten_is_followed() {
    let bed = Bed::new().await;
    let web = bed.service("web", 2);
    bed.repo.put(&web);
    let commit = bed.repo.put(&web.replicas(3));
    let mut agent = bed.agent();
    agent.settled(&web.replicas(3), &commit).await;
    let before = bed.ids(&web).await;
    // Another root altogether, and the old objects are gone.
    bed.repo.git(&["checkout", "--quiet", "--orphan", "new"]);
    let commit = bed.repo.put(&web.replicas(1).env("NEW", "root"));
    bed.repo.git(&["branch", "-M", "new", "main"]);
    bed.repo.git(&["reflog", "expire", "--expire=now", "--all"]);
    bed.repo.git(&["gc", "--quiet", "--prune=now"]);
    agent.settled(&web.replicas(1), &commit).await;
    let after = bed.ids(&web).await;
    assert_eq!(after.len(), 1);
    assert_ne!(after["1"], before["1"]);
    bed.nothing_left();
}

#[tokio::test]
async fn a_broken_document_holds_its_own_service_and_no_other() {
    let bed = Bed::new().await;
    let (web, api) = (bed.service("web", 2), bed.service("api", 1));
    bed.repo.put(&web);
    let commit = bed.repo.put(&api);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    agent.settled(&api, &commit).await;
    let before = bed.ids(&web).await;

    bed.repo.write(&format!("{}.yaml", web.name), web.to_string().replace("replicas", "replcas"));
    let api = api.replicas(2);
    let commit = bed.repo.put(&api);
    let status = agent.settled(&api, &commit).await;
    assert_eq!(bed.ids(&web).await, before, "the broken one is left as it was");
    let problems = status.source.clone().unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("replcas"), "{problems:?}");
    assert!(problems[0].hint.as_deref().is_some_and(|h| h.contains("replicas")), "{problems:?}");
    assert!((problems[0].line, problems[0].column) != (0, 0), "{problems:?}");
    assert_eq!(problems[0].object, Some(format!("ScalingService/{}", web.name)));
    assert!(waits(&status).contains("last good one is in force"), "{}", waits(&status));

    // What is held is healed, also by an agent that never saw it whole.
    bed.kill(&before["1"]).await;
    replaced(&bed, &web, &before["1"]).await;
    agent.kill();
    let mut agent = bed.agent();
    agent.planned(&commit).await;
    let held = bed.ids(&web).await;
    bed.kill(&held["2"]).await;
    replaced(&bed, &web, &held["2"]).await;

    // Not even YAML, and then mended: no restart for it.
    bed.repo.write(&format!("{}.yaml", web.name), "a: [1, 2\nb: }");
    let commit = bed.repo.commit("not even YAML");
    let status = agent.planned(&commit).await;
    assert!(!status.source.unwrap().problems.is_empty());
    let held = bed.ids(&web).await;
    let commit = bed.repo.put(&web);
    agent.settled(&web, &commit).await;
    agent.settled(&api, &commit).await;
    assert_eq!(bed.ids(&web).await, held);
    bed.nothing_left();
}

#[tokio::test]
async fn an_emptied_repository_removes_nothing_until_it_is_approved() {
    let bed = Bed::new().await;
    let (web, api) = (bed.service("web", 2), bed.service("api", 1));
    bed.repo.put(&web);
    let commit = bed.repo.put(&api);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    agent.settled(&api, &commit).await;
    let before = bed.all().await;

    bed.repo.clear();
    let commit = bed.repo.commit("oops");
    let status = agent.until("it waits", |s| waits(s).contains("prune-empty")).await;
    assert_eq!(status.fleets[0].revision.as_deref(), Some(&*commit));
    let said = waits(&status);
    let code = said.split("approve-prune: \"").nth(1).unwrap().split('"').next().unwrap();
    throughout(Duration::from_secs(2), async || assert_eq!(bed.all().await, before)).await;
    // A restart does not make it bolder.
    agent.kill();
    let mut agent = bed.agent();
    agent
        .until("it has read the empty revision", |s| {
            s.source.as_ref().is_some_and(|s| s.revision.as_deref() == Some(&*commit))
        })
        .await;
    throughout(Duration::from_secs(2), async || assert_eq!(bed.all().await, before)).await;

    let fleet = |code: &str| {
        format!(
            "apiVersion: evenkeel.dev/v1alpha1
kind: Fleet
metadata: {{name: default, annotations: {{evenkeel.dev/approve-prune: \"{code}\"}}}}
spec: {{backend: {{docker: {{hosts: [{{name: local, endpoint: \"unix:///var/run/docker.sock\"}}]}}}}}}
"
        )
    };
    bed.repo.write("fleet.yaml", fleet("00000000"));
    let commit = bed.repo.commit("a wrong code");
    agent.planned(&commit).await;
    assert_eq!(bed.all().await, before);
    bed.repo.write("fleet.yaml", fleet(code));
    bed.repo.commit("yes, really");
    until("all is removed", LONG, async || bed.all().await.is_empty().then_some(())).await;
    bed.nothing_left();
}

#[tokio::test]
async fn one_service_of_many_is_removed_at_once_and_more_than_half_are_not() {
    let bed = Bed::new().await;
    let services: Vec<Service> = ["a", "b", "c"].map(|n| bed.service(n, 1)).into();
    let mut commit = String::new();
    for s in &services {
        commit = bed.repo.put(s);
    }
    let mut agent = bed.agent();
    for s in &services {
        agent.settled(s, &commit).await;
    }
    let file = |s: &Service| bed.repo.path.join(format!("{}.yaml", s.name));
    for s in &services[1..] {
        std::fs::remove_file(file(s)).unwrap();
    }
    bed.repo.commit("remove two of three");
    agent.until("it waits", |s| waits(s).contains("prune-budget")).await;
    assert_eq!(bed.all().await.len(), 3);
    // One of them back: the other goes, without a word from anybody.
    bed.repo.put(&services[1]);
    until("one is removed", LONG, async || bed.of(&services[2]).await.is_empty().then_some(()))
        .await;
    assert_eq!(bed.all().await.len(), 2);
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
    let told = evenkeel_tests::agent::http(at, "POST", "/control?unhealthy", &[], "").await;
    assert!(told.as_ref().is_some_and(|(code, _)| *code < 300), "{told:?}");
    replaced(&bed, &web, &sick.id).await;
    agent.settled(&web, &commit).await;
    let after = bed.ids(&web).await;
    assert_eq!((&after["1"], &after["3"]), (&before[0].id, &before[2].id));
    bed.nothing_left();
}

async fn foreign(bed: &Bed, name: &str, labels: &[(&str, &str)]) -> String {
    let mut all: std::collections::HashMap<String, String> =
        labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    all.insert(evenkeel_tests::docker::TEST.into(), bed.owner.clone());
    let body = bollard::models::ContainerCreateBody {
        image: Some(evenkeel_tests::agent::TOY.into()),
        labels: Some(all),
        ..Default::default()
    };
    let options =
        bollard::query_parameters::CreateContainerOptionsBuilder::default().name(name).build();
    let made = bed.docker.create_container(Some(options), body).await.unwrap();
    bed.docker.start_container(&made.id, None).await.unwrap();
    made.id
}

async fn alive(bed: &Bed, id: &str) -> (String, Option<String>, Option<i64>) {
    let found = bed.docker.inspect_container(id, None).await.unwrap();
    let state = found.state.unwrap();
    (found.name.unwrap(), state.started_at, state.pid)
}

#[tokio::test]
async fn what_is_not_ours_is_never_touched() {
    let bed = Bed::new().await;
    let web = bed.service("web", 2);
    let other = format!("{}-b", bed.owner);
    let owner = ("evenkeel.dev/owner", bed.owner.as_str());
    let fleet = ("evenkeel.dev/fleet", "default");
    let service = ("evenkeel.dev/service", web.name.as_str());
    let (slot, hash) = (("evenkeel.dev/slot", "1"), ("evenkeel.dev/hash", "00000000000000ab"));
    let cases: [(&str, Vec<(&str, &str)>); 7] = [
        ("web_1", vec![]),
        ("web_2.2", vec![("evenkeel.dev/service", &web.name)]),
        ("theirs", vec![("evenkeel.dev/owner", &other), fleet, service, slot, hash]),
        ("elsewhere", vec![owner, ("evenkeel.dev/fleet", "another"), service, slot, hash]),
        ("no-hash", vec![owner, fleet, service, slot]),
        ("odd-slot", vec![owner, fleet, service, ("evenkeel.dev/slot", "-1"), hash]),
        ("odd-hash", vec![owner, fleet, service, slot, ("evenkeel.dev/hash", "zz")]),
    ];
    let mut ids = Vec::new();
    for (name, labels) in &cases {
        ids.push(foreign(&bed, &bed.name(name), labels).await);
    }
    let mut before = Vec::new();
    for id in &ids {
        before.push(alive(&bed, id).await);
    }
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let ours = |all: Vec<Seen>| -> Vec<Seen> {
        all.into_iter().filter(|c| !ids.contains(&c.id)).collect()
    };
    assert_eq!(ours(bed.all().await).len(), 2);
    let commit = bed.repo.put(&web.image(TOY_2));
    agent.settled(&web.image(TOY_2), &commit).await;
    bed.kill(&ours(bed.all().await)[0].id).await;
    until("it is healed", LONG, async || {
        let ours = ours(bed.all().await);
        (ours.len() == 2 && ours.iter().all(|c| c.state == "running")).then_some(())
    })
    .await;
    // All of ours removed: a service that stays is enough for the prune to be no emptying.
    let keep = bed.service("keep", 2);
    bed.repo.clear();
    let commit = bed.repo.put(&keep);
    agent.settled(&keep, &commit).await;
    until("ours are removed", LONG, async || {
        ours(bed.all().await).iter().all(|c| c.service == keep.name).then_some(())
    })
    .await;
    for (id, was) in ids.iter().zip(&before) {
        assert_eq!(&alive(&bed, id).await, was);
    }
}

#[tokio::test]
async fn two_agents_of_one_owner_stand_by_for_each_other() {
    let bed = Bed::new().await;
    let web = bed.service("web", 2);
    let commit = bed.repo.put(&web);
    let mut first = bed.agent();
    first.settled(&web, &commit).await;
    let mut second = bed.agent();
    let status = second.until("the second stands by", |s| s.agent.standby).await;
    assert!(status.services.is_empty());
    assert_eq!(second.get("/readyz").await.unwrap().0, 200, "standing by is being ready");
    assert_eq!(second.get("/livez").await.unwrap().0, 200);
    let before = bed.ids(&web).await;
    let three = web.replicas(3);
    let commit = bed.repo.put(&three);
    first.settled(&three, &commit).await;
    first.kill();
    let dead = bed.ids(&web).await;
    bed.kill(&dead["2"]).await;
    second.until("the second takes over", |s| !s.agent.standby).await;
    replaced(&bed, &three, &dead["2"]).await;
    second.settled(&three, &commit).await;
    same_in_common(&before, &{
        let mut now = bed.ids(&web).await;
        now.insert("2".into(), before["2"].clone());
        now
    });
    // One that stands by ends when it is told to.
    let mut third = bed.agent();
    third.until("the third stands by", |s| s.agent.standby).await;
    third.signal("TERM");
    assert_eq!(third.ended(Duration::from_secs(5)).await, Some(0));
    bed.nothing_left();
}

#[tokio::test]
async fn two_agents_of_different_owners_never_meet() {
    let bed = Bed::new().await;
    let web = bed.service("web", 3);
    let commit = bed.repo.put(&web);
    let mut ours = bed.agent();
    ours.settled(&web, &commit).await;
    let before = bed.ids(&web).await;
    // The same documents, the same names, the same engine, another owner.
    let theirs = format!("{}-b", bed.owner);
    let mut args = bed.which();
    args[3] = bed.dir().join("state-b").to_str().unwrap().into();
    args[5].clone_from(&theirs);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--interval", "1s"]).collect();
    let mut other = bed.agent_of(&args);
    other.settled(&web, &commit).await;
    assert_eq!(bed.ids(&web).await, before);
    let of_theirs = containers(&bed.docker, &theirs).await;
    assert_eq!(of_theirs.len(), 3);
    assert!(of_theirs.iter().all(|c| c.state == "running"));

    let one = web.replicas(1);
    let commit = bed.repo.put(&one);
    ours.settled(&one, &commit).await;
    other.settled(&one, &commit).await;
    assert_eq!(bed.ids(&web).await.len(), 1);
    assert_eq!(containers(&bed.docker, &theirs).await.len(), 1);
    other.signal("TERM");
    other.ended(Duration::from_secs(20)).await;
    let commit = bed.repo.put(&web.image(TOY_2));
    ours.settled(&web.image(TOY_2), &commit).await;
    assert_eq!(containers(&bed.docker, &theirs).await[0].image, evenkeel_tests::agent::TOY);
    bed.nothing_left();
}

#[tokio::test]
async fn plan_says_what_would_be_done_and_does_nothing() {
    let bed = Bed::new().await;
    let web = bed.service("web", 2);
    bed.repo.put(&web);
    let (code, plans, said) = bed.plan();
    assert_eq!((code, plans[0].steps.len()), (2, 2), "{said}");
    assert!(plans[0].steps.iter().all(|s| s.kind == "start"), "{said}");
    assert!(bed.all().await.is_empty(), "a plan changes nothing");
    assert!(!bed.state.exists(), "a plan leaves nothing behind");

    let which = bed.which();
    let mut args: Vec<&str> = vec!["run", "--once", "--listen", "off"];
    args.extend(which.iter().map(String::as_str));
    let out = bed.evenkeel(&args);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{said}");
    let ids = bed.ids(&web).await;
    assert_eq!(ids.len(), 2);
    let (code, _, said) = bed.plan();
    assert_eq!(code, 0, "{said}");

    bed.repo.put(&web.replicas(3).image(TOY_2));
    let (code, plans, said) = bed.plan();
    assert_eq!(code, 2, "{said}");
    assert!(plans[0].steps.iter().all(|s| s.kind == "start"), "it would stop who serves: {said}");
    assert!(plans[0].steps.iter().any(|s| s.reason == "update"), "{said}");
    assert_eq!(bed.ids(&web).await, ids);

    bed.repo.write("broken.yaml", "kind: ScalingService\n");
    bed.repo.commit("broken");
    let (code, _, said) = bed.plan();
    assert_eq!(code, 1, "{said}");
    let out = bed.evenkeel(&args);
    assert_eq!(out.status.code(), Some(1), "once with a problem is no success");
    assert_eq!(bed.ids(&web).await.len(), 3, "the others proceed");
    std::fs::remove_dir_all(&bed.repo.path).unwrap();
    let (code, _, said) = bed.plan();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no git repository"), "{said}");
}

#[tokio::test]
async fn published_ports_count_up_and_step_over_what_is_taken() {
    let bed = Bed::new().await;
    // Nobody promises that three ports in a row are free, so one of them is held on purpose.
    let base = evenkeel_tests::agent::free_port();
    let mut web = bed.service("web", 2);
    web.more = String::new();
    let text = web
        .to_string()
        .replace("containerPort: 8080}", &format!("containerPort: 8080, publish: {base}}}"));
    bed.repo.write("web.yaml", text);
    let commit = bed.repo.commit("publish");
    let mut agent = bed.agent();
    let status = agent.settled(&web, &commit).await;
    let it = find(&status, &web).unwrap();
    let ports: Vec<u16> = it.instances.iter().flat_map(|i| i.published.clone()).collect();
    assert_eq!(ports.len(), 2, "{ports:?}");
    for port in ports {
        let at = format!("127.0.0.1:{port}");
        let said = evenkeel_tests::agent::http(&at, "GET", "/healthz", &[], "").await;
        assert!(said.is_some_and(|(code, _)| code == 200), "{at}");
    }
    bed.nothing_left();
    agent.kill();
    drop(agent);

    // A port that something outside of Docker holds: the engine says so, and so does the status.
    let held = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let one = bed.service("one", 1);
    let text = one
        .to_string()
        .replace("containerPort: 8080}", &format!("containerPort: 8080, publish: {port}}}"));
    bed.repo.write("one.yaml", text);
    let commit = bed.repo.commit("a port that is taken");
    let mut agent = bed.agent();
    let status = agent.until("it says which port", |s| waits(s).contains(&port.to_string())).await;
    println!("{}", waits(&status));
    assert!(settled(&status, &web, &commit), "the other goes on");
    assert!(bed.of(&one).await.iter().all(|c| c.state != "running"));
    drop(held);
    agent.settled(&one, &commit).await;
    assert!(bed.of(&one).await.len() == 1, "debris is left");
    bed.nothing_left();
}

#[tokio::test]
async fn a_changed_secret_rolls_and_its_value_is_shown_nowhere() {
    let bed = Bed::new().await;
    let secrets = bed.dir().join("secrets");
    let file = secrets.join("app/token");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let (first, second) = ("first-Xq7-value", "second-Zw9-value");
    std::fs::write(&file, format!("{first}\n")).unwrap();
    let web = bed.service("web", 2);
    let text =
        web.to_string().replace("env: []", "env: [{name: TOKEN, secret: {name: app, key: token}}]");
    bed.repo.write("web.yaml", text);
    let commit = bed.repo.commit("secret");
    let args = ["--interval", "1s", "--secrets", secrets.to_str().unwrap()];
    let mut agent = bed.agent_with(&args);
    agent.settled(&web, &commit).await;
    let before = bed.of(&web).await;
    let env = |value: &str| format!("TOKEN={value}");
    let has = async |id: &str, value: &str| {
        let found = bed.docker.inspect_container(id, None).await.unwrap();
        let labels = format!("{:?}", found.config.as_ref().unwrap().labels);
        assert!(!labels.contains(value), "a secret is in a label");
        found.config.unwrap().env.unwrap().contains(&env(value))
    };
    assert!(has(&before[0].id, first).await);

    // A restart changes nothing.
    agent.kill();
    let mut agent = bed.agent_with(&args);
    agent.settled(&web, &commit).await;
    assert_eq!(bed.of(&web).await, before);

    std::fs::write(&file, second).unwrap();
    until("the new value runs", LONG, async || {
        let now = bed.of(&web).await;
        let mut all = now.len() == 2 && now.iter().all(|c| c.hash != before[0].hash);
        for c in &now {
            all = all && c.state == "running" && has(&c.id, second).await;
        }
        all.then_some(())
    })
    .await;
    agent.settled(&web, &commit).await;
    for path in ["/api/v1/status", "/api/v1/plan", "/api/v1/events", "/metrics"] {
        let (_, body) = agent.get(path).await.unwrap();
        assert!(!body.contains(first) && !body.contains(second), "a secret is in {path}");
    }
    assert!(!agent.log().contains(first) && !agent.log().contains(second), "in the log");
    for entry in std::fs::read_dir(&bed.state).unwrap().flatten() {
        if let Ok(bytes) = std::fs::read(entry.path()) {
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(first) && !text.contains(second), "{:?}", entry.path());
        }
    }
    let events = agent.get("/api/v1/events").await.unwrap().1;
    assert!(events.contains("secret") || events.contains("TOKEN"), "the reason is said: {events}");

    // A secret that is gone holds the service; it is no reason to stop anything.
    let now = bed.of(&web).await;
    std::fs::remove_file(&file).unwrap();
    let status = agent
        .until("it says which secret", |s| {
            s.source.as_ref().is_some_and(|s| s.problems.iter().any(|p| p.message.contains("app")))
        })
        .await;
    assert!(!format!("{status:?}").contains(second));
    assert_eq!(bed.of(&web).await, now);
}

#[tokio::test]
async fn a_webhook_makes_a_commit_known_at_once() {
    use hmac::{KeyInit as _, Mac as _};
    let bed = Bed::new().await;
    let secret = bed.dir().join("hook");
    std::fs::write(&secret, "It's a Secret\n").unwrap();
    let web = bed.service("web", 1);
    let commit = bed.repo.put(&web);
    let file = secret.to_str().unwrap();
    let mut agent = bed.agent_with(&["--interval", "1h", "--webhook-secret-file", file]);
    agent.settled(&web, &commit).await;

    let two = web.replicas(2);
    let commit = bed.repo.put(&two);
    let body = "{\"ref\": \"refs/heads/main\"}";
    let sign = |key: &str| {
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
    };
    for headers in [vec![], vec![("X-Hub-Signature-256", sign("another secret"))]] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let (code, said) = agent.post("/webhook", &headers, body).await;
        assert_eq!(code, 401, "{said}");
    }
    throughout(Duration::from_secs(2), async || assert_eq!(bed.all().await.len(), 1)).await;
    let good = sign("It's a Secret");
    let rung = Instant::now();
    let (code, said) = agent.post("/webhook", &[("X-Hub-Signature-256", &good)], body).await;
    assert_eq!(code, 202, "{said}");
    until("it is acted upon", LONG, async || (bed.all().await.len() > 1).then_some(())).await;
    let took = rung.elapsed();
    println!("webhook to the new container: {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    agent.settled(&two, &commit).await;
    bed.nothing_left();
}

#[tokio::test]
async fn the_probes_of_the_agent_and_its_metrics_say_what_is() {
    let bed = Bed::new().await;
    let web = bed.service("web", 2);
    // Nothing there yet: alive, not ready.
    let away = bed.dir().join("away");
    std::fs::rename(&bed.repo.path, &away).unwrap();
    let mut agent = bed.agent();
    until("it answers", LONG, async || agent.get("/livez").await.filter(|(code, _)| *code == 200))
        .await;
    let (code, said) = agent.get("/readyz").await.unwrap();
    assert_eq!(code, 503, "{said}");
    std::fs::rename(&away, &bed.repo.path).unwrap();
    let commit = bed.repo.put(&web);
    agent.settled(&web, &commit).await;
    let (code, said) = agent.get("/readyz").await.unwrap();
    assert_eq!(code, 200, "{said}");
    let (code, metrics) = agent.get("/metrics").await.unwrap();
    assert_eq!(code, 200);
    for part in ["evenkeel_passes_total", "evenkeel_host_up", "# EOF", &web.name] {
        assert!(metrics.contains(part), "{part} is missing:\n{metrics}");
    }
    assert!(
        metrics.lines().any(|l| l.contains("kind=\"start\"") && l.ends_with(" 2")),
        "{metrics}"
    );
    // A pass that finds nothing to do makes no step.
    let steps = |text: &str| -> Vec<String> {
        text.lines().filter(|l| l.starts_with("evenkeel_steps")).map(str::to_owned).collect()
    };
    let events = bed.events().await;
    let before = steps(&metrics);
    throughout(Duration::from_secs(4), async || {
        let (_, now) = agent.get("/metrics").await.unwrap();
        assert_eq!(steps(&now), before);
    })
    .await;
    assert_eq!(events.all().await, []);
    let cli = bed.evenkeel(&["status", "--agent", &format!("http://127.0.0.1:{}", agent.port)]);
    let said = String::from_utf8_lossy(&cli.stdout);
    assert!(cli.status.success() && said.contains(&web.name), "{said}");
    // A second one at the same address says what to do.
    let mut twin = bed.which();
    twin[3] = bed.dir().join("twin").to_str().unwrap().into();
    let listen = format!("127.0.0.1:{}", agent.port);
    let mut args: Vec<&str> = vec!["run", "--listen", &listen];
    args.extend(twin.iter().map(String::as_str));
    let out = bed.evenkeel(&args);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1));
    assert!(said.contains("--listen"), "{said}");
}

#[tokio::test]
async fn networks_come_and_go_and_volumes_stay() {
    let bed = Bed::new().await;
    let (front, back, theirs) = (bed.name("front"), bed.name("back"), bed.name("theirs"));
    let volume = bed.name("data");
    let request = bollard::models::NetworkCreateRequest {
        name: theirs.clone(),
        labels: Some([(evenkeel_tests::docker::TEST.to_owned(), bed.owner.clone())].into()),
        ..Default::default()
    };
    bed.docker.create_network(request).await.unwrap();
    let web = bed
        .service("web", 2)
        .more(&format!("networks: [{front}, {back}, {theirs}]"))
        .more(&format!("volumes: [{{name: data, mountPath: /data, volume: {volume}}}]"));
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let labels = async |name: &str| {
        let found = bed
            .docker
            .inspect_network(name, None::<bollard::query_parameters::InspectNetworkOptions>);
        found.await.ok().map(|n| n.labels.unwrap_or_default())
    };
    for name in [&front, &back] {
        let labels = labels(name).await.unwrap();
        assert_eq!(labels["evenkeel.dev/owner"], bed.owner);
    }
    let id = &bed.of(&web).await[0].id;
    let found = bed.docker.inspect_container(id, None).await.unwrap();
    assert_eq!(found.network_settings.unwrap().networks.unwrap().len(), 3);
    assert!(found.mounts.unwrap().iter().any(|m| m.name.as_deref() == Some(&*volume)));

    let mut plain = bed.service("web", 2).more(&format!("networks: [{front}]"));
    plain.rollout = "maxSurge: 2".into();
    let commit = bed.repo.put(&plain);
    agent.settled(&plain, &commit).await;
    until("the unused network is removed", LONG, async || {
        labels(&back).await.is_none().then_some(())
    })
    .await;
    assert!(labels(&front).await.is_some() && labels(&theirs).await.is_some());
    assert!(bed.docker.inspect_volume(&volume).await.is_ok(), "volumes are never removed");
    bed.nothing_left();
}

#[tokio::test]
async fn the_stop_signal_is_sent_and_the_grace_is_given() {
    let bed = Bed::new().await;
    let mut web = bed.service("web", 1);
    web.termination = "drain: 0s, grace: 2s, signal: SIGUSR1".into();
    let mut deaf = bed.service("deaf", 1).env("TOY_IGNORE_TERM", "1");
    deaf.termination = "drain: 0s, grace: 2s".into();
    let mut kind = bed.service("kind", 1);
    kind.termination = "drain: 0s, grace: 30s".into();
    let mut commit = String::new();
    for s in [&web, &deaf, &kind] {
        commit = bed.repo.put(s);
    }
    let mut agent = bed.agent();
    for s in [&web, &deaf, &kind] {
        agent.settled(s, &commit).await;
    }
    let config = bed.docker.inspect_container(&bed.ids(&web).await["1"], None).await.unwrap();
    assert_eq!(config.config.unwrap().stop_signal.as_deref(), Some("SIGUSR1"));
    let events = bed.events().await;
    for s in [&deaf, &kind] {
        let none = s.replicas(0);
        let begun = Instant::now();
        let commit = bed.repo.put(&none);
        agent.settled(&none, &commit).await;
        until("it is gone", LONG, async || bed.of(s).await.is_empty().then_some(())).await;
        let took = begun.elapsed();
        let kills = events.count("kill", s).await;
        if s.name == deaf.name {
            assert!(took > Duration::from_secs(2), "{took:?}: the grace was not given");
            assert_eq!(kills, 2, "SIGTERM, then SIGKILL");
        } else {
            assert!(took < Duration::from_secs(20), "{took:?}: it went on its own");
            assert_eq!(kills, 1, "SIGTERM is enough");
        }
    }
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
    let publish = format!("containerPort: 8080, publish: {}}}", evenkeel_tests::agent::free_port());
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

#[tokio::test]
async fn a_newer_commit_supersedes_a_rollout_that_is_stuck() {
    let bed = Bed::new().await;
    let web = bed.service("web", 2).rollout("maxSurge: 1, progressDeadline: 10m");
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let before = bed.ids(&web).await;
    bed.repo.put(&web.image(BROKEN));
    until("it is stuck", LONG, async || {
        bed.of(&web).await.iter().any(|c| c.image == BROKEN).then_some(())
    })
    .await;
    let commit = bed.repo.put(&web);
    agent.settled(&web, &commit).await;
    assert_eq!(bed.ids(&web).await, before, "back to what ran: nobody was restarted");
    bed.nothing_left();
}

#[tokio::test]
async fn a_suspended_service_is_left_alone() {
    let bed = Bed::new().await;
    let web = bed.service("web", 2);
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let before = bed.ids(&web).await;
    let suspended = web.image(TOY_2).replicas(5).more("suspend: true");
    let commit = bed.repo.put(&suspended);
    agent
        .until("it is suspended", |s| {
            find(s, &web).is_some_and(|s| s.phase == PhaseView::Suspended)
                && s.fleets[0].revision.as_deref() == Some(&*commit)
        })
        .await;
    bed.kill(&before["1"]).await;
    throughout(Duration::from_secs(2), async || {
        let now = bed.of(&web).await;
        assert_eq!(now.len(), 2);
        assert!(now.iter().all(|c| before.values().any(|id| *id == c.id)));
    })
    .await;
    let commit = bed.repo.put(&web);
    agent.settled(&web, &commit).await;
    let after = bed.ids(&web).await;
    assert_eq!(after["2"], before["2"]);
    bed.nothing_left();
}
