//! Others on the same engine: people, and other agents.

use std::time::Duration;

use evenkeel_tests::agent::{Bed, LONG, Seen, TOY, TOY_2, containers, until};
use evenkeel_tests::docker::TEST;

use super::{replaced, same_in_common};

async fn foreign(bed: &Bed, name: &str, labels: &[(&str, &str)]) -> String {
    let mut all: std::collections::HashMap<String, String> =
        labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    all.insert(TEST.into(), bed.owner.clone());
    let body = bollard::models::ContainerCreateBody {
        image: Some(TOY.into()),
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
    assert_eq!(containers(&bed.docker, &theirs).await[0].image, TOY);
    bed.nothing_left();
}
