//! The life of an app: made, scaled, changed, given up, removed; and nothing more than that is asked of the server.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_tests::agent::{BROKEN, Bed, TOY_2, throughout, waits};
use evenkeel_tests::marathon::{Release, Server};
use serde_json::Value;

use crate::{CALM, SOON, cluster, fleet, service};

fn lines(server: &Server) -> Vec<String> {
    server.writes().iter().map(evenkeel_tests::marathon::Recorded::line).collect()
}

fn ids(server: &Server, app: &str) -> BTreeSet<String> {
    server.tasks(app).iter().filter_map(|t| t["id"].as_str().map(str::to_owned)).collect()
}

/// Made, left alone, scaled up and down, changed, deleted: one request each.
async fn lives(release: Release) {
    let bed = Bed::new().await;
    let server = cluster(release).await;
    bed.repo.write("fleet.yaml", fleet(&server));
    let web = service(&bed, "web", 3).rollout("maxSurge: 100%, progressDeadline: 60s");
    let app = format!("/shop/{}", web.name);
    let mut agent = bed.agent();

    let commit = bed.repo.put(&web);
    agent.within(SOON, "it is made", |s| evenkeel_tests::agent::settled(s, &web, &commit)).await;
    assert_eq!(lines(&server), [format!("PUT /v2/apps{app}?partialUpdate=false&force=false")]);
    let put = &server.writes()[0];
    assert!(put.ignored.is_empty(), "the server knows all that it was sent: {:?}", put.ignored);
    assert!(put.header("content-length").is_some() && put.header("transfer-encoding").is_none());
    assert_eq!(put.json()["labels"]["evenkeel.dev/service"], web.name.as_str());
    let first = ids(&server, &app);
    assert_eq!(first.len(), 3);
    bed.nothing_left();

    // Left alone: no write, and with other documents around it neither.
    server.forget();
    bed.repo.write("README.md", "nothing");
    let commit = bed.repo.commit("unrelated");
    agent.planned(&commit).await;
    throughout(CALM, async || assert_eq!(lines(&server), Vec::<String>::new())).await;

    // More of the same restarts nobody.
    let more = web.replicas(5);
    let commit = bed.repo.put(&more);
    agent.settled(&more, &commit).await;
    let grown = ids(&server, &app);
    assert!(first.is_subset(&grown) && grown.len() == 5, "{first:?} {grown:?}");
    // Fewer: those that stay are of those that were there.
    let fewer = web.replicas(2);
    let commit = bed.repo.put(&fewer);
    agent.settled(&fewer, &commit).await;
    let left = ids(&server, &app);
    assert!(left.is_subset(&grown) && left.len() == 2, "{grown:?} {left:?}");
    let said = lines(&server);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("PATCH") || said[0].starts_with("PUT"), "{said:?}");
    assert!(said[1].starts_with("POST /v2/tasks/delete?scale=true"), "{said:?}");

    // What an instance is has changed: all are replaced, by one request.
    server.forget();
    let other = fewer.image(TOY_2);
    let commit = bed.repo.put(&other);
    agent.settled(&other, &commit).await;
    assert!(ids(&server, &app).is_disjoint(&left));
    assert_eq!(lines(&server), [format!("PUT /v2/apps{app}?partialUpdate=false&force=false")]);

    // A service that nobody asks for any more goes, once somebody says that it may.
    server.forget();
    let job = service(&bed, "job", 1);
    let commit = bed.repo.put(&job);
    agent.settled(&job, &commit).await;
    bed.repo.write("fleet.yaml", fleet(&server) + "  limits: {prune: {maxPercent: 100}}\n");
    bed.repo.git(&["rm", "--quiet", &format!("{}.yaml", web.name)]);
    bed.repo.commit("without web");
    agent.within(SOON, "it is gone", |s| s.services.iter().all(|s| s.name != web.name)).await;
    assert_eq!(server.app(&app), None);
    assert_eq!(*lines(&server).last().unwrap(), format!("DELETE /v2/apps{app}?force=false"));
}

#[tokio::test]
async fn an_app_lives_on_the_newest_marathon() {
    lives(Release::V1_11).await;
}

#[tokio::test]
async fn an_app_lives_on_the_oldest_marathon() {
    lives(Release::V1_4).await;
}

/// A release that never becomes healthy is given up at its deadline, with what Marathon says of it.
#[tokio::test]
async fn a_bad_release_is_rolled_back() {
    let bed = Bed::new().await;
    let server = cluster(Release::V1_9).await;
    bed.repo.write("fleet.yaml", fleet(&server));
    let web = service(&bed, "web", 3).rollout("maxSurge: 1, progressDeadline: 6s");
    let app = format!("/shop/{}", web.name);
    let mut agent = bed.agent();
    let commit = bed.repo.put(&web);
    agent.settled(&web, &commit).await;
    // A spec must have been seen to work for a while before it is one to come back to.
    tokio::time::sleep(Duration::from_secs(11)).await;
    server.forget();
    // Whatever is tried, three go on.
    let three = || {
        let tasks = server.tasks(&app);
        let well = tasks.iter().filter(|t| t["healthCheckResults"][0]["alive"] == true).count();
        assert!(well >= 3, "{well} of three work: {tasks:?}");
    };
    let bad = web.image(BROKEN);
    bed.repo.put(&bad);
    let status = agent
        .within(Duration::from_secs(60), "it is given up", |s| {
            three();
            waits(s).contains("rolled back")
        })
        .await;
    assert!(waits(&status).contains("stays out until the spec changes"), "{}", waits(&status));
    agent
        .within(SOON, "all are the good ones", |s| {
            three();
            s.services.iter().all(|s| s.available == 3 && s.updated == 3)
        })
        .await;
    server.settled(SOON).await;
    let said = lines(&server);
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[1], format!("PUT /v2/apps{app}?partialUpdate=false&force=true"));
    let image = |v: &Value| v["container"]["docker"]["image"].clone();
    assert_eq!(image(&server.app(&app).unwrap()), web.image.as_str());
    server.forget();
    throughout(CALM, async || assert_eq!(lines(&server), Vec::<String>::new())).await;
    // Another commit is tried at once.
    let mended = web.image(TOY_2);
    let commit = bed.repo.put(&mended);
    agent.settled(&mended, &commit).await;
}
