//! Each way to lose a request, by servers that do just that.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What a server does with one request.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    Answer,
    AnswerAndClose,
    Busy,
    Half,
    Close,
    Reset,
    Nonsense,
}

/// Listens and acts in turn on the requests of each connection.
async fn server(acts: &'static [Act]) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut all = JoinSet::new();
    all.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(serve(stream, acts));
        }
    });
    (at, all)
}

async fn serve(mut stream: TcpStream, acts: &[Act]) {
    for act in acts {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = "{\"instance\": \"one\"}";
        let length = body.len();
        let head = format!("Content-Length: {length}\r\n\r\n");
        let text = match act {
            Act::Answer => format!("HTTP/1.1 200 OK\r\n{head}{body}"),
            Act::AnswerAndClose => format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{head}{body}"),
            Act::Busy => format!("HTTP/1.1 503 Busy\r\n{head}{body}"),
            Act::Half => format!("HTTP/1.1 200 OK\r\n{head}{{"),
            Act::Nonsense => "nonsense\r\n\r\n".into(),
            Act::Close | Act::Reset => String::new(),
        };
        let _ = stream.write_all(text.as_bytes()).await;
        match act {
            Act::Answer | Act::Busy => {}
            Act::Reset => {
                stream.set_zero_linger().unwrap();
                return;
            }
            Act::AnswerAndClose | Act::Half | Act::Close | Act::Nonsense => return,
        }
    }
}

fn plan(at: Vec<SocketAddr>, workers: u32) -> Plan {
    Plan { at, host: "h".into(), path: "/".into(), rate: 400, workers }
}

async fn run(at: Vec<SocketAddr>, workers: u32, requests: usize) -> Report {
    let load = Load::start(plan(at, workers));
    load.until(requests).await;
    load.end().await
}

#[tokio::test]
async fn what_goes_well_is_counted_at_its_rate_and_by_who_answered() {
    let (at, _server) = server(&[Act::Answer; 1000]).await;
    let begun = Instant::now();
    let report = run(vec![at], 4, 100).await;
    let took = begun.elapsed().as_millis();
    assert!((200..5000).contains(&took), "100 requests at 400 a second took {took} ms");
    assert!(report.failures.is_empty() && report.requests() >= 100, "{report}");
    assert_eq!((report.elsewhere, report.again), (0, 0));
    assert_eq!(report.spread(), BTreeMap::from([("one".into(), report.requests())]));
    let (first, last) = report.between("one").unwrap();
    assert!(first >= begun && last > first);
    assert!(report.latency(0.5) <= report.latency(1.0) && report.latency(1.0) < 1000.0);
}

#[tokio::test]
async fn each_loss_is_of_its_kind() {
    for (acts, kind) in [
        (&[Act::Busy, Act::Busy][..], Kind::Status(503)),
        (&[Act::Half], Kind::Reset),
        (&[Act::Reset], Kind::Reset),
        (&[Act::Close], Kind::Eof),
        (&[Act::Nonsense], Kind::Garbled),
    ] {
        let (at, _server) = server(acts).await;
        let report = run(vec![at], 2, 10).await;
        assert_eq!(report.kinds().into_keys().collect::<Vec<_>>(), [kind], "{report}");
        assert_eq!((report.hits.len(), report.elsewhere, report.again), (0, 0, 0), "{report}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_is_closed_is_not_a_loss_but_counted() {
    for close in [&[Act::Answer, Act::Close][..], &[Act::Answer, Act::Reset]] {
        let (at, _server) = server(close).await;
        let report = run(vec![at], 2, 40).await;
        assert!(report.failures.is_empty() && report.again > 5, "{report}");
    }
    // One that was announced is nothing at all.
    let (at, _server) = server(&[Act::AnswerAndClose]).await;
    let report = run(vec![at], 2, 40).await;
    assert_eq!((report.failures.len(), report.again), (0, 0), "{report}");
    // In the middle of an answer it is a loss, on a kept connection too.
    let (at, _server) = server(&[Act::Answer, Act::Half]).await;
    let report = run(vec![at], 1, 20).await;
    assert!(report.failures.iter().all(|f| f.kept && f.kind == Kind::Reset), "{report}");
    assert!(report.failures.len() >= 5, "{report}");
}

#[tokio::test]
async fn who_is_refused_asks_the_next() {
    let (at, _server) = server(&[Act::Answer; 1000]).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    let report = run(vec![nobody, at], 2, 40).await;
    assert!(report.failures.is_empty() && report.elsewhere > 5, "{report}");
    let mut report = run(vec![nobody], 2, 10).await;
    assert_eq!(report.kinds().into_keys().collect::<Vec<_>>(), [Kind::Unreached], "{report}");
    assert_eq!(report.elsewhere, 0, "what failed everywhere is no success");
    let failed = report.failures.len();
    assert_eq!(report.excuse(|f| f.at == nobody), failed);
    assert!(report.failures.is_empty());
}
