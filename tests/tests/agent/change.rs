//! Commits: what changes, changes without harm; what does not, stays.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel::report::view::PhaseView;
use evenkeel_tests::agent::{
    BROKEN, Bed, LONG, Service, TOY, TOY_2, find, throughout, until, waits,
};

use super::{fewest_serving, replaced, same_in_common};

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
    let new = web.image(TOY);
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
    agent.until("it still waits", |s| waits(s).contains("prune-empty")).await;
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
