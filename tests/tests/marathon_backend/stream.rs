//! The stream of events: a doorbell that may ring late, not at all, or for ever.

use std::time::Duration;

use evenkeel::backend::marathon::MarathonConfig;
use evenkeel::model::Seen;
use evenkeel_tests::marathon::{Fault, Mood, Options, Release, Server};

use super::rig::{LONG, Rig, service, spec};

/// A stream that is dead after half a second.
fn hasty() -> MarathonConfig {
    MarathonConfig { silence: Duration::from_millis(500), ..MarathonConfig::default() }
}

async fn server() -> Server {
    let heartbeat = Duration::from_millis(100);
    Server::start(Options { heartbeat, ..Options::default() }).await
}

async fn rig(server: &Server) -> Rig {
    let rig = Rig::with(spec(server.urls()), hasty());
    rig.until("Marathon is seen", |v| v.seen == Seen::Now).await;
    rig.put(&service("web", "toy:1"), 1, true).await.unwrap();
    rig.settled("/shop/web", 1).await;
    rig
}

/// Somebody else changes the app; it is seen.
async fn notices(server: &Server, rig: &Rig, instances: u32) {
    let url = format!("{}/v2/apps/shop/web", server.url());
    let body = serde_json::json!({"instances": instances});
    let client = reqwest::Client::new();
    let status = client.put(url).json(&body).send().await.unwrap().status();
    assert!(status.is_success(), "{status}");
    server.settled(LONG).await;
    rig.settled("/shop/web", instances as usize).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_followed_by_a_look_at_its_app_alone() {
    for release in [Release::V1_4, Release::V1_7, Release::V1_11] {
        let server = Server::start(Options::of(release)).await;
        let rig = Rig::with(spec(server.urls()), MarathonConfig::default());
        rig.until("Marathon is seen", |v| v.seen == Seen::Now).await;
        rig.put(&service("web", "toy:1"), 1, true).await.unwrap();
        rig.put(&service("other", "toy:1"), 1, true).await.unwrap();
        rig.settled("/shop/web", 1).await;
        rig.settled("/shop/other", 1).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.forget();
        let task = server.tasks("/shop/web")[0]["id"].as_str().unwrap().to_owned();
        server.fail(&task, "gone");
        rig.until("another one takes its place", |v| {
            v.instances.iter().all(|i| *i.id.0 != *task) && v.instances.len() == 2
        })
        .await;
        rig.settled("/shop/web", 1).await;
        let paths: Vec<String> = server.requests().into_iter().map(|r| r.path).collect();
        let known = ["/v2/apps/shop/web", "/v2/deployments", "/v2/queue"];
        assert!(paths.iter().all(|p| known.contains(&&**p)), "{release:?}: {paths:?}");
        assert!(paths.len() < 20, "{release:?}: a burst is looked at together: {paths:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_closed_is_opened_again_and_everything_is_looked_at() {
    let server = server().await;
    let rig = rig(&server).await;
    server.drop_streams();
    notices(&server, &rig, 2).await;
    rig.until("still seen", |v| v.seen == Seen::Now).await;
    let opened = async {
        while server.streams() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, opened).await.unwrap();
    notices(&server, &rig, 3).await;
    assert_eq!(rig.problem(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_says_nothing_or_never_ends_a_line_is_given_up() {
    for mood in [Mood::Silent, Mood::Babbling] {
        let server = server().await;
        let rig = rig(&server).await;
        server.streams_are(mood);
        notices(&server, &rig, 2).await;
        let told = async {
            while !rig.problem().contains("nothing came from it") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let why = format!("{mood:?} is not noticed");
        tokio::time::timeout(LONG, told).await.expect(&why);
        assert_eq!(rig.view().seen, Seen::Now, "Marathon itself answers");
        server.streams_are(Mood::Fine);
        let fine = async {
            while !rig.problem().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG, fine).await.expect("it is opened again");
        notices(&server, &rig, 3).await;
        assert_eq!(server.streams(), 1, "one that was given up is still open");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_objects_in_one_event_are_all_heeded() {
    let server = server().await;
    let rig = rig(&server).await;
    server.streams_are(Mood::Bundled);
    notices(&server, &rig, 3).await;
    server.say("event: status_update_event\r\ndata: {\"appId\":\r\n\r\n");
    server.say("\u{0}\u{1}garbage\r\n\r\nevent\r\ndata\r\n\r\n");
    notices(&server, &rig, 2).await;
    assert_eq!(rig.problem(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_stream_everything_is_looked_at_often() {
    let server = server().await;
    server.fault(usize::MAX, Fault::Html(503), |r| r.path == "/v2/events");
    let rig = rig(&server).await;
    notices(&server, &rig, 2).await;
    assert_eq!(rig.view().seen, Seen::Now);
    assert!(rig.problem().contains("stream of events"), "{}", rig.problem());
}
