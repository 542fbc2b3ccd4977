//! Event streams, members that come and go, credentials, and misbehaviour.

use std::time::Duration;

use evenkeel_tests::marathon::{Auth, Fault, Mood, Options, Release, Server};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{LONG, ask, done, send, until};

fn app(id: &str) -> Value {
    json!({"id": id, "cmd": "sleep 100", "cpus": 0.1, "mem": 32})
}

/// A stream as it comes down the wire.
struct Wire(TcpStream, Vec<u8>);

impl Wire {
    async fn open(url: &str, query: &str) -> Self {
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        let head = format!(
            "GET /v2/events{query} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut wire = Self(stream, Vec::new());
        wire.until("\r\n\r\n").await;
        wire
    }

    /// All that came before and with this.
    async fn until(&mut self, mark: &str) -> String {
        let read = async {
            loop {
                let text = String::from_utf8_lossy(&self.1).into_owned();
                if let Some(at) = text.find(mark) {
                    self.1.drain(..at + mark.len());
                    return text[..at + mark.len()].to_owned();
                }
                let mut chunk = vec![0; 64 << 10];
                let n = self.0.read(&mut chunk).await.unwrap();
                assert!(n > 0, "it ends before {mark:?}, after {text}");
                self.1.extend(&chunk[..n]);
            }
        };
        timeout(LONG, read).await.unwrap_or_else(|_| panic!("{mark:?} never comes"))
    }

    /// Whether it ends, whatever comes before.
    async fn ends(&mut self) -> bool {
        let mut rest = Vec::new();
        let read = self.0.read_to_end(&mut rest);
        let ended = timeout(Duration::from_secs(5), read).await.is_ok();
        self.1.extend(rest);
        ended
    }
}

#[tokio::test]
async fn a_stream_begins_with_itself_and_tells_what_was_asked_for() {
    let server = Server::start(Options::default()).await;
    let mut stream =
        TcpStream::connect(server.url().strip_prefix("http://").unwrap()).await.unwrap();
    stream
        .write_all(b"GET /v2/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
        .await
        .unwrap();
    let mut all = Wire(stream, Vec::new());
    let head = all.until("\r\n\r\n").await.to_lowercase();
    assert!(
        head.contains("content-type: text/event-stream") && head.contains("connection: close"),
        "{head}"
    );
    assert!(!head.contains("transfer-encoding"), "{head}");
    let first = all.until("\r\n\r\n").await;
    assert!(first.starts_with("event: event_stream_attached\r\ndata: {"), "{first}");
    assert!(first.contains("\"remoteAddress\":\"127.0.0.1\""), "{first}");
    let mut some =
        Wire::open(&server.url(), "?event_type=deployment_success&event_type=app_terminated_event")
            .await;

    done(&server, "POST", "/v2/apps", &app("/a")).await;
    let told = all.until("event: deployment_success\r\n").await;
    for kind in [
        "api_post_event",
        "group_change_success",
        "deployment_info",
        "status_update_event",
        "instance_changed_event",
        "deployment_step_success",
    ] {
        assert!(told.contains(&format!("event: {kind}\r\n")), "{kind} in {told}");
    }
    assert!(told.contains("TASK_STAGING") && told.contains("TASK_RUNNING"));
    let plan = all.until("\r\n\r\n").await;
    let plan: Value = serde_json::from_str(plan.trim().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(plan["plan"].get("original"), None, "plans are light from 1.7 on");
    let only = some.until("\r\n\r\n").await;
    assert!(only.contains("event: deployment_success"), "{only}");

    for accept in ["text/event-stream, */*", "*/*", "application/json"] {
        let no = send(&server.url(), "GET", "/v2/events", &[("accept", accept)], "").await;
        assert_eq!((no.code, no.text.starts_with("<html>")), (405, true), "{accept}");
    }
    assert_eq!(server.streams(), 2);
    drop(some);
    done(&server, "DELETE", "/v2/apps/a", &Value::Null).await;
    let told = all.until("event: app_terminated_event").await;
    assert!(told.contains("TASK_KILLED"), "{told}");
}

#[tokio::test]
async fn a_heartbeat_is_an_empty_line() {
    let server =
        Server::start(Options { heartbeat: Duration::from_millis(50), ..Options::default() }).await;
    let mut wire = Wire::open(&server.url(), "?event_type=nothing").await;
    for _ in 0..3 {
        assert_eq!(wire.until("\n").await, "\r\n");
    }
}

#[tokio::test]
async fn old_plans_are_heavy_unless_less_is_asked_for() {
    for (release, query, heavy) in [
        (Release::V1_5, "", true),
        (Release::new(1, 6, 590), "", true),
        (Release::new(1, 6, 590), "?plan-format=light", false),
    ] {
        let server = Server::start(Options::of(release)).await;
        let mut wire = Wire::open(&server.url(), query).await;
        done(&server, "POST", "/v2/apps", &app("/a")).await;
        wire.until("event: deployment_success\r\n").await;
        let told = wire.until("\r\n\r\n").await;
        assert_eq!(told.contains("\"original\""), heavy, "{release} {query}");
    }
}

#[tokio::test]
async fn streams_misbehave_when_they_are_told_to() {
    let options = Options {
        heartbeat: Duration::from_millis(20),
        outstanding: Some(40),
        ..Options::default()
    };
    let server = Server::start(options).await;
    server.streams_are(Mood::Bundled);
    let mut wire = Wire::open(&server.url(), "?event_type=status_update_event").await;
    done(&server, "POST", "/v2/apps", &app("/a")).await;
    let both = wire.until("}\r\n\r\n").await;
    assert_eq!(both.matches("data: {").count(), 2, "{both}");

    server.streams_are(Mood::Silent);
    tokio::time::sleep(Duration::from_millis(50)).await;
    wire.1.clear();
    let mut byte = [0; 4096];
    while timeout(Duration::from_millis(100), wire.0.read(&mut byte)).await.is_ok() {}
    done(&server, "DELETE", "/v2/apps/a", &Value::Null).await;
    let silent = timeout(Duration::from_millis(200), wire.0.read(&mut byte)).await.is_err();
    assert!(silent, "not even a heartbeat");

    server.streams_are(Mood::Babbling);
    let mut line = 0;
    while line < 1 << 20 {
        let n = wire.0.read(&mut byte).await.unwrap();
        assert!(n > 0 && !byte[..n].contains(&b'\n'));
        line += n;
    }
    server.streams_are(Mood::Fine);
    server.drop_streams();
    assert!(wire.ends().await);
    until("nobody listens", || (server.streams() == 0).then_some(())).await;

    // Who does not read is cut off.
    let mut slow = Wire::open(&server.url(), "").await;
    server.say(&format!(": {}\r\n", "x".repeat(8 << 20)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let many: Vec<Value> = (0..50).map(|n| app(&format!("/many/{n}"))).collect();
    done(&server, "PUT", "/v2/apps", &many.into()).await;
    assert_eq!(server.streams(), 0);
    assert!(slow.ends().await);
}

#[tokio::test]
async fn a_standby_hands_on_and_redirects() {
    let mut server = Server::start(Options {
        members: 2,
        election: Duration::from_millis(200),
        ..Options::default()
    })
    .await;
    let (leader, standby) = (server.url(), server.url_of(1));
    let by_standby = ask(&standby, "POST", "/v2/apps", &app("/a")).await;
    assert_eq!(by_standby.code, 201);
    assert_eq!(by_standby.header("x-marathon-leader"), leader);
    assert_eq!(by_standby.header("x-marathon-via"), format!("1.1 {}", &standby[7..]));
    let who = ask(&standby, "GET", "/v2/leader", &Value::Null).await;
    assert_eq!(who.json, json!({"leader": &leader[7..]}));
    let events =
        send(&standby, "GET", "/v2/events?event_type=x", &[("accept", "text/event-stream")], "")
            .await;
    assert_eq!(
        (events.code, events.header("location")),
        (302, &*format!("{leader}/v2/events?event_type=x"))
    );

    // A body that does not say how long it is arrives at the leader as nothing.
    for (url, code) in [(&leader, "HTTP/1.1 200"), (&standby, "HTTP/1.1 400")] {
        let mut stream = TcpStream::connect(&url[7..]).await.unwrap();
        let body = r#"{"instances":1}"#;
        let request = format!(
            "PUT /v2/apps/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(code), "{answer}");
    }

    let mut wire = Wire::open(&leader, "").await;
    server.lead(Some(1));
    assert!(wire.ends().await, "all streams close when another one leads");
    assert_eq!(
        ask(&leader, "GET", "/ping", &Value::Null).await.header("x-marathon-leader"),
        standby
    );
    server.lead(None);
    let none = ask(&leader, "GET", "/v2/apps", &Value::Null).await;
    assert_eq!((none.code, none.json.is_null()), (502, true));
    server.lead(Some(1));
    server.kill(1).await;
    assert_eq!(
        ask(&leader, "GET", "/v2/apps", &Value::Null).await.code,
        502,
        "whom it hands on to is gone"
    );
    server.lead(Some(0));
    assert_eq!(ask(&leader, "GET", "/v2/apps/a", &Value::Null).await.code, 200);
    server.revive(1).await;
    assert_eq!(ask(&standby, "GET", "/ping", &Value::Null).await.text, "pong");
    assert_eq!(ask(&standby, "DELETE", "/v2/leader", &Value::Null).await.code, 200);
    assert_eq!(server.leader(), Some(1));

    let old = Server::start(Options { members: 2, ..Options::of(Release::new(1, 6, 590)) }).await;
    let mut wire = Wire::open(&old.url_of(1), "").await;
    assert!(
        wire.until("\r\n\r\n").await.contains("event_stream_attached"),
        "before 1.7 it hands streams on"
    );
}

#[tokio::test]
async fn a_new_leader_does_not_know_who_is_well_until_it_has_looked() {
    let server = Server::start(Options {
        members: 2,
        second: Duration::from_millis(100),
        ..Options::default()
    })
    .await;
    let mut checked = app("/a");
    checked["healthChecks"] = json!([{"protocol": "HTTP", "intervalSeconds": 3}]);
    done(&server, "POST", "/v2/apps", &checked).await;
    let healthy = || server.app("/a").unwrap()["tasksHealthy"].clone();
    assert_eq!(healthy(), 1);
    server.lead(Some(1));
    let shown = server.app("/a").unwrap();
    assert_eq!((&shown["tasksHealthy"], &shown["tasksUnhealthy"]), (&json!(0), &json!(0)));
    until("it has looked", || (healthy() == 1).then_some(())).await;
}

#[tokio::test]
async fn only_who_is_known_is_let_in() {
    let server = Server::start(Options {
        auth: Auth::Basic("keel".into(), "even keel".into()),
        ..Options::default()
    })
    .await;
    let no = ask(&server.url(), "GET", "/v2/apps", &Value::Null).await;
    assert_eq!((no.code, no.header("www-authenticate")), (401, "Basic realm=\"Mesosphere\""));
    let known = [("authorization", "Basic a2VlbDpldmVuIGtlZWw=")];
    assert_eq!(send(&server.url(), "GET", "/v2/apps", &known, "").await.code, 200);

    let server = Server::start(Options {
        auth: Auth::Allowed("good".into(), "other".into()),
        ..Options::default()
    })
    .await;
    for (given, code) in
        [("token=good", 200), ("token=other", 403), ("token=bad", 401), ("Bearer good", 401)]
    {
        let answer = send(&server.url(), "GET", "/v2/apps", &[("authorization", given)], "").await;
        assert_eq!(answer.code, code, "{given}");
        assert_eq!(answer.json["message"].is_string(), code != 200);
    }
}

#[tokio::test]
async fn faults_happen_to_who_they_are_meant_for_and_everything_is_written_down() {
    let server = Server::start(Options::default()).await;
    let url = server.url();
    server.fault(1, Fault::After(500), |r| r.method == "POST");
    let lied = ask(&url, "POST", "/v2/apps", &app("/a")).await;
    assert_eq!((lied.code, server.apps().len()), (500, 1), "it was done all the same");
    server.settled(LONG).await;
    server.fault(2, Fault::Html(503), |r| r.path == "/v2/deployments");
    for code in [503, 503, 200] {
        assert_eq!(ask(&url, "GET", "/v2/deployments", &Value::Null).await.code, code);
    }
    server.fault(1, Fault::Truncate, |r| r.path == "/v2/apps");
    let client = reqwest::Client::new();
    let cut = client.get(format!("{url}/v2/apps")).send().await.unwrap();
    assert!(cut.text().await.is_err());
    for (fault, done) in [(Fault::Drop, 1), (Fault::DropAfter, 2)] {
        server.fault(
            1,
            fault,
            Clone::clone(&|r: &evenkeel_tests::marathon::Recorded| r.method == "PATCH"),
        );
        let patch = client.patch(format!("{url}/v2/apps/a")).json(&json!({"instances": 2}));
        assert!(patch.send().await.is_err());
        assert_eq!(server.app("/a").unwrap()["instances"], done);
    }
    server.fault(1, Fault::Hang, |_| true);
    let hangs = timeout(Duration::from_millis(200), client.get(format!("{url}/ping")).send()).await;
    assert!(hangs.is_err());
    server.fault(9, Fault::Json(409, json!({"message": "no"})), |_| true);
    server.calm();
    assert_eq!(ask(&url, "GET", "/ping", &Value::Null).await.code, 200);

    let lines: Vec<String> =
        server.writes().iter().map(evenkeel_tests::marathon::Recorded::line).collect();
    assert_eq!(lines, ["POST /v2/apps", "PATCH /v2/apps/a", "PATCH /v2/apps/a"]);
    let first = server.writes()[0].clone();
    assert_eq!((first.json()["id"].clone(), first.status), (json!("/a"), Some(500)));
    assert!(first.header("content-length").is_some());
    server.forget();
    ask(&url, "PUT", "/v2/apps/a?force=false", &json!({"nonsense": 1, "instances": 2})).await;
    let seen = server.requests();
    assert_eq!((seen.len(), seen[0].line().as_str()), (1, "PUT /v2/apps/a?force=false"));
    assert_eq!(seen[0].ignored, ["/nonsense"]);
}

#[tokio::test]
async fn too_many_requests_at_once_are_refused() {
    let server = Server::start(Options { most_requests: Some(2), ..Options::default() }).await;
    server.fault(2, Fault::Late(Duration::from_millis(300)), |_| true);
    let url = server.url();
    let late = async || ask(&url, "GET", "/ping", &Value::Null).await.code;
    let then = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        late().await
    };
    assert_eq!(tokio::join!(late(), late(), then), (200, 200, 503));
}
