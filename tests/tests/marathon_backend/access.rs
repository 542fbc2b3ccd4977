//! Who the agent says it is, where it is sent, and what it tells nobody.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use evenkeel::backend::marathon::MarathonConfig;
use evenkeel::error::Remedy;
use evenkeel::model::{Credential, MarathonAuth, MarathonSpec, Seen};
use evenkeel_tests::marathon::{Auth, Options, Release, Server};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::rig::{Rig, basic, said, service, spec};

fn file(dir: &TempDir, content: &str) -> PathBuf {
    let path = dir.path().join("secret");
    fs::write(&path, content).unwrap();
    path
}

fn with(server: &Server, auth: MarathonAuth) -> MarathonSpec {
    MarathonSpec { auth: Some(auth), ..spec(server.urls()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_read_anew_and_shown_to_nobody() {
    let auth = Auth::Basic("agent".into(), "hunter2".into());
    let server = Server::start(Options { auth, ..Options::default() }).await;
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "wrong-word\n");
    let rig = Rig::with(with(&server, basic("agent", &path)), MarathonConfig::default());
    let problem = async {
        while !rig.problem().contains("401") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::rig::LONG, problem).await.unwrap();
    assert!(!rig.problem().contains("wrong-word"), "{}", rig.problem());
    file(&dir, "hunter2\n");
    rig.until("the new password is taken", |v| v.seen == Seen::Now).await;
    rig.put(&service("web", "toy:1"), 1, true).await.unwrap();
    rig.settled("/shop/web", 1).await;
    assert_eq!(server.streams(), 1);
    // It is changed on both sides, and then only here.
    file(&dir, "");
    let error = rig.act("/shop/web", "web", evenkeel::model::AppAct::Delete).await;
    assert_eq!(error.as_ref().unwrap_err().remedy, Remedy::Hold);
    assert!(said(error).contains("secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_sent_in_the_words_of_dcos() {
    let auth = Auth::Allowed("good.token".into(), "poor.token".into());
    let server = Server::start(Options { auth, ..Options::default() }).await;
    let dir = TempDir::new().unwrap();
    let token = Credential::File(file(&dir, "good.token\n").display().to_string());
    let auth = MarathonAuth::Token { token };
    let rig = Rig::with(with(&server, auth), MarathonConfig::default());
    rig.until("the token is taken", |v| v.seen == Seen::Now).await;
    rig.put(&service("web", "toy:1"), 1, true).await.unwrap();
    // Known, and may do nothing: that is for a person.
    file(&dir, "poor.token");
    let error = rig.put(&service("web", "toy:2"), 1, false).await;
    assert_eq!(error.as_ref().unwrap_err().remedy, Remedy::Hold);
    assert!(!said(error).contains("poor.token"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_sends_to_the_leader_who_gets_the_credentials() {
    for release in [Release::V1_5, Release::V1_8, Release::V1_11] {
        let auth = Auth::Basic("agent".into(), "hunter2".into());
        let options = Options { auth, members: 2, ..Options::of(release) };
        let server = Server::start(options).await;
        let dir = TempDir::new().unwrap();
        let path = file(&dir, "hunter2");
        // Only the standby is known.
        let spec =
            MarathonSpec { auth: Some(basic("agent", &path)), ..spec(vec![server.url_of(1)]) };
        let rig = Rig::with(spec, MarathonConfig::default());
        rig.until("Marathon is seen", |v| v.seen == Seen::Now).await;
        rig.put(&service("web", "toy:1"), 1, true).await.unwrap();
        rig.settled("/shop/web", 1).await;
        assert_eq!((server.streams(), rig.problem()), (1, String::new()), "{release:?}");
        let bodies = server.writes().iter().all(|w| !w.body.is_empty() && w.status == Some(201));
        assert!(bodies, "{release:?}: a standby handed on nothing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_cannot_be_reached_where_it_says_is_found_among_the_urls() {
    // What the leader calls itself leads nowhere.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let advertised = Some(closed.to_string());
    let server = Server::start(Options { members: 2, advertised, ..Options::default() }).await;
    let urls = vec![server.url_of(1), server.url_of(0)];
    let rig = Rig::with(spec(urls), MarathonConfig::default());
    rig.until("Marathon is seen", |v| v.seen == Seen::Now).await;
    rig.put(&service("web", "toy:1"), 1, true).await.unwrap();
    rig.settled("/shop/web", 1).await;
    assert_eq!((server.streams(), rig.problem()), (1, String::new()));
}

/// Somebody who sends everybody elsewhere, and names a leader who is neither there nor here.
async fn misleading(to: SocketAddr) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let n = stream.read(&mut head).await.unwrap_or(0);
            let asked = String::from_utf8_lossy(&head[..n]).into_owned();
            let answer = if asked.starts_with("GET /v2/leader ") {
                let body = "{\"leader\":\"10.0.0.9:8080\"}";
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            } else {
                let path = asked.split(' ').nth(1).unwrap_or("/");
                format!(
                    "HTTP/1.1 302 Found\r\nLocation: http://{to}{path}\r\nContent-Length: 0\r\n\r\n"
                )
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, tasks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_is_sent_the_credentials() {
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, _tasks) = misleading(stranger.local_addr().unwrap()).await;
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "hunter2");
    let spec = MarathonSpec { auth: Some(basic("agent", &path)), ..spec(vec![url]) };
    let rig = Rig::with(spec, MarathonConfig::default());
    let told = async {
        while !rig.problem().contains("neither one of the urls nor the leader") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::rig::LONG, told).await.unwrap();
    let asked = tokio::time::timeout(Duration::from_millis(500), stranger.accept()).await;
    assert!(asked.is_err(), "the stranger was asked");
}
