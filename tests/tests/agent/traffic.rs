//! Clients that keep asking through real balancers while the agent changes everything behind and before them.

use std::net::SocketAddr;

use evenkeel_tests::agent::{Bed, LONG, http_as, until, waits};
use evenkeel_tests::load::{Kind, get};
use evenkeel_tests::traffic::{Front, HOST, Provider, Show, Stage};

/// Requests a second, and of each stage at least.
const RATE: u32 = 200;
const LEAST: usize = 1000;
/// Milliseconds: whoever is stopped before he has been left has requests under way.
const SLOW: u32 = 150;

/// Not one request is lost; `detours`: some had to go to another balancer.
fn well(stage: &Stage, detours: bool) {
    eprintln!("{stage}");
    let Stage { what, report, .. } = stage;
    assert!(
        report.failures.is_empty(),
        "{stage}\n{:#?}",
        &report.failures[..3.min(report.failures.len())]
    );
    assert!(report.requests() + stage.excused >= LEAST, "{stage}");
    assert!(detours || report.elsewhere == 0, "{what}: nobody may be refused\n{stage}");
    // Long enough for a machine that is busy with others: nobody is held up as such.
    assert!(report.latency(0.5) < 1000.0, "{stage}");
    // Whoever answers, answers his share: nobody that is in is left out.
    let spread = report.spread();
    assert!(spread.len() >= 3 && spread.values().all(|n| *n > 0), "{what}: {spread:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_loses_no_request_whatever_happens() {
    let mut show = Show::begin(Provider::Haproxy, 2, RATE, SLOW, LEAST).await;
    well(&show.scale(&[10, 3]).await, false);
    // More places were made for more servers; from here on there is room for everybody.
    let before = show.workers().await;
    well(&show.roll().await, false);
    well(&show.rollback().await, false);
    well(&show.restart().await, false);
    assert_eq!(show.workers().await, before, "endpoints changed, and HAProxy was reloaded");
    well(&show.kill().await, true);
    well(&show.roll_balancers().await, true);
    show.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_loses_no_request_whatever_happens() {
    let mut show = Show::begin(Provider::Nginx, 2, RATE, SLOW, LEAST).await;
    well(&show.scale(&[10, 3]).await, false);
    well(&show.roll().await, false);
    well(&show.restart().await, false);
    let mut rolled = show.roll_balancers().await;
    // nginx closes its door with whoever stands before it: a connection that it has not accepted yet is reset by the kernel.
    // That is a matter of the very moment, and is counted apart.
    rolled.excused = rolled.report.excuse(|f| f.kind == Kind::Reset && !f.kept);
    assert!(rolled.excused <= 2, "{rolled}");
    well(&rolled, true);
    show.end().await;
}

/// A reload for every change would leave a process behind for each, and lose what they were serving (marathon-lb 267 and
/// 519, haproxy 3204).
async fn a_hundred_changes(provider: Provider) {
    let mut show = Show::begin(provider, 2, RATE, SLOW, LEAST).await;
    let (stage, reloads, old) = show.burst(100).await;
    eprintln!("{provider}: {reloads} reloads, {old} old workers at a time");
    well(&stage, false);
    // On a machine that is busy with others the changes come over minutes: then they are no burst.
    let late = usize::try_from(stage.took.as_secs() / 20).unwrap();
    // With nginx every change of endpoints is a reload: who came in the burst and is too many in the end comes into force,
    // leaves, and is gone, one after the other. Without gathering there were about thirty.
    let most = if provider == Provider::Haproxy { 2 } else { 8 };
    assert!(
        reloads <= most + late && old <= 2 + 2 * late,
        "{reloads} reloads, {old} old workers at a time"
    );
    show.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_takes_a_hundred_changes_in_ten_seconds_with_few_reloads() {
    a_hundred_changes(Provider::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_takes_a_hundred_changes_in_ten_seconds_with_few_reloads() {
    a_hundred_changes(Provider::Nginx).await;
}

/// The service whose instance answers, or the status.
async fn who(at: SocketAddr, host: &str, path: &str) -> String {
    match get(at, host, path).await {
        Ok(answer) if answer.status == 200 => {
            let said: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            said["service"].as_str().unwrap().to_owned()
        }
        Ok(answer) => answer.status.to_string(),
        Err(kind) => kind.to_string(),
    }
}

async fn by_host_and_path(provider: Provider) {
    let bed = Bed::new().await;
    let front = Front::new(&bed, provider, 1);
    let named = |short: &str| bed.service(short, 1).env("SERVICE", short);
    let web = front.routed(&named("web"), HOST, "/");
    let api = front.routed(&named("api"), HOST, "/api");
    bed.repo.write("edge.yaml", front.to_string());
    bed.repo.put(&web);
    let commit = bed.repo.put(&api);
    let mut agent = bed.agent();
    agent.settled(&front.service(&bed), &commit).await;
    for service in [&web, &api] {
        agent.settled(service, &commit).await;
    }
    let at = front.addresses(&bed).await["1"];
    let before = (bed.ids(&web).await, bed.ids(&api).await, bed.ids(&front.service(&bed)).await);
    let as_said = async || {
        for (host, path, want) in [
            (HOST, "/", "web"),
            (HOST, "/apis", "web"),
            (HOST, "/api", "api"),
            (HOST, "/api/v1?q=1", "api"),
            ("WEB-test:80", "/", "web"),
            ("elsewhere", "/", "404"),
            ("127.0.0.1", "/api", "404"),
        ] {
            assert_eq!(who(at, host, path).await, want, "{provider}: {host}{path}");
        }
    };
    as_said().await;

    // What a client says of itself is not believed; whom it came by is added to.
    let forged = [
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "elsewhere"),
        ("X-Forwarded-Port", "443"),
    ];
    let (code, body) = http_as(&at.to_string(), HOST, "GET", "/", &forged, "").await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let said = |name: &str| body["forwarded"][name].as_str().unwrap_or_default().to_owned();
    assert_eq!((code, said("proto"), said("host")), (200, "http".into(), HOST.into()), "{body}");
    assert_eq!(said("port"), "80", "{provider}: {body}");
    let by: Vec<String> = said("for").split(", ").map(str::to_owned).collect();
    assert!(by.len() == 2 && by[0] == "192.0.2.7", "{provider}: {body}");
    assert!(by[1].parse::<std::net::IpAddr>().is_ok(), "{provider}: {body}");

    // Whoever comes later and wants the same is left out and told so, though his name comes first.
    let thief = front.routed(&named("a-thief"), HOST, "/api");
    let commit = bed.repo.put(&thief);
    agent.planned(&commit).await;
    let status = agent.until("it is left out", |s| waits(s).contains("is taken by")).await;
    let said = waits(&status);
    let line = said.lines().find(|l| l.contains("is taken by")).unwrap();
    assert!(line.contains(&thief.name) && line.contains(&api.name), "{line}");
    assert!(line.contains("/api") && line.contains("http"), "{line}");
    until("it runs all the same", LONG, async || (bed.of(&thief).await.len() == 1).then_some(()))
        .await;
    as_said().await;
    assert!(waits(&status).lines().all(|l| !l.starts_with(&format!("service {}:", api.name))));

    // When the first gives it up, the other has it.
    let api = front.routed(&named("api"), "api-test", "/");
    let commit = bed.repo.put(&api);
    for service in [&api, &thief] {
        agent.settled(service, &commit).await;
    }
    assert_eq!(who(at, HOST, "/api").await, "a-thief");
    assert_eq!(who(at, "api-test", "/api").await, "api");
    let after = (bed.ids(&web).await, bed.ids(&api).await, bed.ids(&front.service(&bed)).await);
    assert_eq!(after, before, "a route restarts nobody");
    bed.nothing_left();
}

#[tokio::test]
async fn haproxy_leads_by_host_and_path_and_leaves_a_conflict_out() {
    by_host_and_path(Provider::Haproxy).await;
}

#[tokio::test]
async fn nginx_leads_by_host_and_path_and_leaves_a_conflict_out() {
    by_host_and_path(Provider::Nginx).await;
}
