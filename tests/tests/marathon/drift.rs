//! What others do to apps, and what is not ours.

use evenkeel_tests::agent::{Bed, throughout, waits};
use evenkeel_tests::marathon::{Release, Server};
use serde_json::{Value, json};

use crate::{CALM, SOON, cluster, fleet, service};

/// Somebody asks the server for something by hand.
pub(crate) async fn by_hand(
    server: &Server,
    method: &str,
    path: &str,
    body: &Value,
) -> (u16, Value) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let url = format!("{}{path}", server.url());
    let answer = reqwest::Client::new().request(method, url).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

fn writes(server: &Server) -> usize {
    server.writes().iter().filter(|w| w.query.contains("partialUpdate=false")).count()
}

#[tokio::test]
async fn what_somebody_changed_is_shown_and_corrected() {
    let bed = Bed::new().await;
    let server = cluster(Release::V1_8).await;
    bed.repo.write("fleet.yaml", fleet(&server));
    let web = service(&bed, "web", 2);
    let app = format!("/shop/{}", web.name);
    let mut agent = bed.agent();
    let commit = bed.repo.put(&web);
    agent.settled(&web, &commit).await;
    server.settled(SOON).await;
    let path = format!("/v2/apps{app}");
    let (code, said) =
        by_hand(&server, "PATCH", &path, &json!({"cpus": 0.5, "instances": 4})).await;
    assert_eq!(code, 200, "{said}");
    agent
        .within(SOON, "it is as it was", |_| {
            let live = server.app(&app).unwrap();
            live["cpus"] == 0.1 && live["instances"] == 2 && server.deployments().is_empty()
        })
        .await;
    assert!(agent.log().contains("changed by somebody else: cpus 0.5 → 0.1"), "{}", agent.log());
    agent.settled(&web, &commit).await;
    bed.nothing_left();
}

#[tokio::test]
async fn instances_are_left_to_whoever_scales() {
    let bed = Bed::new().await;
    let server = cluster(Release::V1_11).await;
    bed.repo.write("fleet.yaml", fleet(&server));
    let web = service(&bed, "web", 2).more("marathon: {instances: platform}");
    let app = format!("/shop/{}", web.name);
    let mut agent = bed.agent();
    bed.repo.put(&web);
    agent.within(SOON, "there are two", |s| s.services.iter().any(|s| s.available == 2)).await;
    server.settled(SOON).await;
    server.forget();
    let path = format!("/v2/apps{app}");
    let (code, _) = by_hand(&server, "PATCH", &path, &json!({"instances": 4})).await;
    assert_eq!(code, 200);
    agent.within(SOON, "there are four", |s| s.services.iter().any(|s| s.replicas == 4)).await;
    throughout(CALM, async || assert_eq!(server.writes().len(), 1, "only the one by hand")).await;
    // A change of what they are keeps their number.
    bed.repo.put(&web.image(evenkeel_tests::agent::TOY_2));
    agent.within(SOON, "it is another", |_| writes(&server) == 1).await;
    server.settled(SOON).await;
    assert_eq!(server.app(&app).unwrap()["instances"], 4);
}

/// An app of that name that somebody else made is left alone; one that a document claims is taken over as it is.
#[tokio::test]
async fn an_app_of_somebody_else_is_left_alone_until_it_is_claimed() {
    let bed = Bed::new().await;
    let server = cluster(Release::V1_11).await;
    bed.repo.write("fleet.yaml", fleet(&server));
    let web = service(&bed, "web", 2);
    let app = format!("/shop/{}", web.name);
    let theirs = json!({
        "id": app, "instances": 2, "cpus": 0.1, "mem": 32, "backoffSeconds": 7,
        "container": {"type": "DOCKER", "docker": {"image": web.image}, "portMappings": []},
        "networks": [{"mode": "container/bridge"}],
    });
    let (code, said) = by_hand(&server, "POST", "/v2/apps", &theirs).await;
    assert_eq!(code, 201, "{said}");
    server.settled(SOON).await;
    let before = server.tasks(&app);
    server.forget();
    let mut agent = bed.agent();
    bed.repo.put(&web);
    let status = agent.within(SOON, "it is told", |s| waits(s).contains("is not ours")).await;
    assert!(waits(&status).contains(&format!("marathon.app: {app}")), "{}", waits(&status));
    throughout(CALM, async || assert_eq!(server.writes().len(), 0)).await;
    // Claimed, and said to be what it is: nothing is done to it.
    let same = format!(
        "apiVersion: evenkeel.dev/v1alpha1\nkind: ScalingService\nmetadata: {{name: {}}}\nspec:\n  fleet: mesos\n  \
         replicas: 2\n  image: {}\n  resources: {{cpu: 100m, memory: 32Mi}}\n  marathon:\n    app: {app}\n    \
         fields: {{backoffSeconds: 7, container: {{docker: {{parameters: null}}}}, upgradeStrategy: null, \
         unreachableStrategy: null, taskKillGracePeriodSeconds: null}}\n",
        web.name, web.image
    );
    bed.repo.write(&format!("{}.yaml", web.name), same);
    let commit = bed.repo.commit("claim");
    agent.settled(&web, &commit).await;
    throughout(CALM, async || assert_eq!(server.writes().len(), 0)).await;
    assert_eq!(server.tasks(&app).len(), before.len());
    bed.nothing_left();
    // From then on it is as the document says: the next change carries our labels.
    let three = format!("{}.yaml", web.name);
    let text = std::fs::read_to_string(bed.repo.path.join(&three)).unwrap();
    bed.repo.write(&three, text.replace("replicas: 2", "replicas: 3"));
    let commit = bed.repo.commit("three");
    agent.settled(&web.replicas(3), &commit).await;
    assert_eq!(server.writes().len(), 1);
}

/// A Marathon that is away keeps what it has, and what was asked for meanwhile follows.
#[tokio::test]
async fn a_marathon_that_is_away_is_silent_and_not_empty() {
    let bed = Bed::new().await;
    let mut server = cluster(Release::V1_10).await;
    bed.repo.write("fleet.yaml", fleet(&server));
    let web = service(&bed, "web", 2);
    let mut agent = bed.agent();
    let commit = bed.repo.put(&web);
    agent.settled(&web, &commit).await;
    server.kill(0).await;
    let status = agent
        .within(SOON, "it is silent", |s| {
            s.fleets.iter().flat_map(|f| &f.hosts).any(|h| h.state == "silent")
        })
        .await;
    assert_eq!(status.services[0].instances.len(), 2, "the last known is kept");
    bed.repo.put(&web.replicas(4));
    throughout(CALM, async || assert!(agent.runs())).await;
    server.revive(0).await;
    server.lead(Some(0));
    agent.within(SOON, "it follows", |s| s.services.iter().any(|s| s.available == 4)).await;
}
