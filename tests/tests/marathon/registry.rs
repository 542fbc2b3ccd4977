//! Tasks in a real Consul, as containers are.

use evenkeel_tests::agent::Bed;
use evenkeel_tests::consul::{Consuls, free_port, get, led, registered, until};
use evenkeel_tests::marathon::{Release, Server};
use serde_json::Value;

use crate::{cluster, fleet, service};

fn with_consul(server: &Server, port: u16, registrator: bool) -> String {
    let fleet =
        fleet(server).replace("group: /shop", &format!("group: /shop, registrator: {registrator}"));
    format!("{fleet}  discovery: {{consul: {{address: \"http://127.0.0.1:{port}\"}}}}\n")
}

/// `host:port` of every task, as it is reached.
fn places(server: &Server, app: &str) -> std::collections::BTreeSet<String> {
    let tasks = server.tasks(app);
    let place = |t: &Value| format!("{}:{}", t["host"].as_str().unwrap(), t["ports"][0]);
    tasks.iter().map(place).collect()
}

async fn entries(port: u16, name: &str) -> Option<std::collections::BTreeSet<String>> {
    let all = get(port, &format!("/v1/catalog/service/{name}")).await?;
    let place = |e: &Value| Some(format!("{}:{}", e["ServiceAddress"].as_str()?, e["ServicePort"]));
    all.as_array()?.iter().map(place).collect()
}

#[tokio::test]
async fn tasks_are_entered_where_they_are_reached_and_leave_before_they_end() {
    let bed = Bed::new().await;
    let (consuls, port) = (Consuls::new(), free_port());
    consuls.single(port, &[]);
    led(port).await;
    let server = cluster(Release::V1_11).await;
    bed.repo.write("fleet.yaml", with_consul(&server, port, false));
    let web = service(&bed, "web", 3).more("discovery: {tags: [v1]}");
    let app = format!("/shop/{}", web.name);
    let mut agent = bed.agent();
    let commit = bed.repo.put(&web);
    agent.settled(&web, &commit).await;
    assert_eq!(entries(port, &web.name).await.unwrap(), places(&server, &app));
    let before = registered(port, &web.name).await.unwrap();
    assert_eq!(before.len(), 3);
    // Two go: they are in maintenance and out of the catalogue before Marathon is asked to end them.
    let two = web.replicas(1);
    let commit = bed.repo.put(&two);
    agent.settled(&two, &commit).await;
    until("two are out of the catalogue", async || {
        (entries(port, &web.name).await? == places(&server, &app)).then_some(())
    })
    .await;
    let after = registered(port, &web.name).await.unwrap();
    assert!(after.is_subset(&before), "the one that stays is entered as it was");
    // Where the cluster does it itself, evenkeel takes its own entries out and makes no new ones.
    bed.repo.write("fleet.yaml", with_consul(&server, port, true));
    bed.repo.commit("registrator");
    until("none of ours is left", async || {
        entries(port, &web.name).await.is_some_and(|all| all.is_empty()).then_some(())
    })
    .await;
    assert_eq!(server.tasks(&app).len(), 1, "and nothing else happens");
}
