//! The API over real sockets, with the clients that one hopes not to have.

use super::*;
use crate::clock::Clock;
use crate::model::{OwnerId, Time};
use crate::report::SourceReport;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

struct Server {
    addr: SocketAddr,
    report: Report,
    bell: Doorbell,
    clock: Clock,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

fn tight() -> Limits {
    Limits {
        header_time: Duration::from_millis(200),
        farewell: Duration::from_millis(300),
        ..Limits::default()
    }
}

async fn server(secret: bool, limits: Limits) -> Server {
    let clock = Clock::manual(Time(1_000_000));
    let report = Report::new(clock.clone(), OwnerId::new("o").unwrap());
    let bell = Doorbell::new();
    let verify: Arc<Verifier> = Arc::new(|headers, body| {
        let good = headers.get("x-token").is_some_and(|t| t == "good") && body == b"push";
        if good { Ok(()) } else { Err("the sum is 12345".into()) }
    });
    let api = Api {
        report: report.clone(),
        bell: bell.clone(),
        webhook: secret.then_some(verify),
        alive_within: Duration::from_secs(60),
    };
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, router(api), limits, async {
        let _ = stopped.await;
    }));
    Server { addr, report, bell, clock, stop: Some(stop), tasks }
}

impl Server {
    /// Sends bytes and reads until the other side closes.
    async fn raw(&self, request: &[u8]) -> String {
        let mut s = TcpStream::connect(self.addr).await.unwrap();
        // The other side may refuse before everything is sent.
        let _ = s.write_all(request).await;
        let mut out = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), s.read_to_end(&mut out));
        let _ = read.await.expect("no end within 10 s");
        String::from_utf8_lossy(&out).into_owned()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        answer(&self.raw(head.as_bytes()).await)
    }

    async fn post(&self, headers: &str, body: &[u8]) -> (u16, String) {
        let head = format!(
            "POST /webhook HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        answer(&self.raw(&[head.as_bytes(), body].concat()).await)
    }

    async fn rang(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(50), self.bell.rung()).await.is_ok()
    }
}

fn answer(raw: &str) -> (u16, String) {
    let code = raw.get(9..12).and_then(|c| c.parse().ok()).unwrap_or(0);
    let body = raw.split_once("\r\n\r\n").map_or("", |(_, b)| b);
    (code, body.to_owned())
}

fn error_of(body: &str) -> ErrorView {
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body:?}"))
}

#[tokio::test]
async fn every_path_answers_as_promised() {
    let s = server(true, tight()).await;
    for path in ["/api/v1/status", "/api/v1/plan", "/api/v1/events?since=0&limit=5"] {
        let (code, body) = s.get(path).await;
        assert_eq!(code, 200, "{path}: {body}");
        let _: serde_json::Value = serde_json::from_str(&body).unwrap();
    }
    let (code, body) = s.get("/metrics").await;
    assert!(code == 200 && body.ends_with("# EOF\n"), "{body}");
    for (path, expected, says) in [
        ("/nowhere", 404, "there is nothing here"),
        ("/api/v1/services/web", 404, "there is no service \"web\""),
        ("/api/v1/services/W%0Ab", 400, "service name"),
        ("/api/v1/events?since=soon", 400, "since"),
        ("/api/v1/watch?service=A_B", 400, "service name"),
        ("/webhook", 405, "method"),
    ] {
        let (code, body) = s.get(path).await;
        assert_eq!(code, expected, "{path}: {body}");
        assert!(error_of(&body).error.contains(says), "{path}: {body}");
    }
}

#[tokio::test]
async fn alive_and_ready_are_two_things() {
    let s = server(false, tight()).await;
    assert_eq!(s.get("/livez").await.0, 200);
    let (code, body) = s.get("/readyz").await;
    assert_eq!((code, error_of(&body).error.as_str()), (503, "the source has not been read yet"));
    s.report.source(SourceReport { fetched: Some(Time(1)), ..SourceReport::default() });
    s.report.fleets([]);
    assert_eq!(s.get("/readyz").await.0, 200);
    s.clock.advance(Duration::from_secs(61));
    assert_eq!(s.get("/livez").await.0, 503);
    s.report.beat();
    assert_eq!(s.get("/livez").await.0, 200);
}

#[tokio::test]
async fn a_webhook_rings_only_when_it_proves_itself() {
    let s = server(true, tight()).await;
    let (code, body) = s.post("x-token: bad\r\n", b"push").await;
    assert_eq!(code, 401);
    assert!(!body.contains("12345"), "the answer helps a guess: {body}");
    assert_eq!(s.post("x-token: good\r\n", b"other").await.0, 401);
    assert!(!s.rang().await);
    assert_eq!(s.post("x-token: good\r\n", b"push").await.0, 202);
    assert!(s.rang().await);
    let big = vec![b'x'; BODY + 1];
    assert_eq!(s.post("x-token: good\r\n", &big).await.0, 413);
    assert!(!s.rang().await);

    let open = server(false, tight()).await;
    let (code, body) = open.post("x-token: good\r\n", b"push").await;
    assert_eq!(code, 503);
    assert!(error_of(&body).hint.unwrap().contains("--webhook-secret-file"));
    assert!(!open.rang().await);
}

#[tokio::test]
async fn huge_headers_and_slow_clients_hurt_nobody() {
    let s = server(true, tight()).await;
    let huge = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    assert_eq!(answer(&s.raw(huge.as_bytes()).await).0, 431);
    let many = format!("GET /livez HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(100));
    assert_eq!(answer(&s.raw(many.as_bytes()).await).0, 431);
    // Half a request, then nothing: closed after the time for headers, not kept.
    let slow = s.raw(b"GET /livez HTTP/1.1\r\nhost: ").await;
    assert!(slow.is_empty() || slow.contains(" 408 "), "{slow}");
    assert_eq!(s.get("/livez").await.0, 200);
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_others_live_on() {
    let s = server(true, Limits { connections: 2, ..Limits::default() }).await;
    let mut a = TcpStream::connect(s.addr).await.unwrap();
    let _b = TcpStream::connect(s.addr).await.unwrap();
    a.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    a.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    assert_eq!(s.get("/livez").await.0, 0, "the third was let in");
}

#[tokio::test]
async fn a_connection_has_an_end() {
    let short = Limits {
        life: Duration::from_millis(100),
        last_answer: Duration::from_millis(100),
        ..Limits::default()
    };
    let s = server(true, short).await;
    let begun = tokio::time::Instant::now();
    // Keeps the connection open and waits for far longer than it may live.
    let out = s.raw(b"GET /api/v1/watch?since=1&wait=30 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(out.is_empty(), "{out}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_watch_answers_at_the_next_change() {
    let s = server(true, tight()).await;
    let (_, body) = s.get("/api/v1/status").await;
    let now: StatusView = serde_json::from_str(&body).unwrap();
    let generation = now.agent.generation;
    let path = format!("/api/v1/watch?since={generation}&wait=20");
    let (watched, ()) = tokio::join!(s.get(&path), async {
        // On this one thread the answer to another request shows that the first one arrived.
        assert_eq!(s.get("/livez").await.0, 200);
        s.report.standby(true);
    });
    let seen: StatusView = serde_json::from_str(&watched.1).unwrap();
    assert!(seen.agent.standby && seen.agent.generation > generation);
    // A number from before a restart is answered at once.
    assert_eq!(s.get("/api/v1/watch?since=999999&wait=20").await.0, 200);
    let path = format!("/api/v1/watch?since={}&wait=0", seen.agent.generation);
    assert_eq!(s.get(&path).await.0, 200, "and without a change when the wait is over");
}

#[tokio::test]
async fn watches_are_counted() {
    let s = server(true, tight()).await;
    let mut open = Vec::new();
    for _ in 0..WATCHES {
        let mut c = TcpStream::connect(s.addr).await.unwrap();
        c.write_all(b"GET /api/v1/watch?since=1&wait=20 HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        open.push(c);
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while s.get("/api/v1/watch?since=1&wait=0").await.0 != 429 {
        assert!(tokio::time::Instant::now() < deadline, "never refused");
    }
    assert_eq!(s.get("/api/v1/status").await.0, 200);
    drop(open);
    while s.get("/api/v1/watch?since=1&wait=0").await.0 != 200 {
        assert!(tokio::time::Instant::now() < deadline, "places are not given back");
    }
}

#[tokio::test]
async fn stopping_lets_go_of_everybody_soon() {
    let mut s = server(true, tight()).await;
    let mut watching = TcpStream::connect(s.addr).await.unwrap();
    watching
        .write_all(b"GET /api/v1/watch?since=1&wait=30 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(s.get("/livez").await.0, 200);
    s.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), s.tasks.join_next()).await.expect("it hangs");
    assert!(TcpStream::connect(s.addr).await.is_err());
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_with_a_way_out() {
    let s = server(true, tight()).await;
    let e = bind(s.addr).await.unwrap_err();
    assert!(e.to_string().contains("127.0.0.1:") && e.hint().unwrap().contains("--listen"));
}
