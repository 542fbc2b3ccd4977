//! The server on a loopback socket, spoken to in bytes: a client library would hide a wrong keep-alive.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);

struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    done: JoinHandle<io::Result<u8>>,
}

impl Running {
    async fn start(env: &[(&str, &str)]) -> Self {
        let settings = Settings::read(|name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
        .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        let done = tokio::spawn(serve(listener, settings, async {
            let _ = stopped.await;
        }));
        Self { address, stop: Some(stop), done }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    async fn left_with(self) -> u8 {
        timeout(SOON, self.done).await.expect("still serving").unwrap().unwrap()
    }
}

async fn send(stream: &mut TcpStream, method: &str, path: &str) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: toy\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// One answer, read by its Content-Length, so that the connection can be used again.
async fn receive(stream: &mut TcpStream) -> (u16, String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, stream.read_u8()).await.expect("no answer").unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    timeout(SOON, stream.read_exact(&mut body)).await.expect("no body").unwrap();
    (status, head, String::from_utf8(body).unwrap())
}

async fn ask(stream: &mut TcpStream, method: &str, path: &str) -> (u16, String) {
    send(stream, method, path).await;
    let (status, _, body) = receive(stream).await;
    (status, body)
}

async fn closed(stream: &mut TcpStream) {
    let read = timeout(SOON, stream.read(&mut [0; 64])).await.expect("still open");
    assert!(matches!(read, Ok(0)) || read.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn says_who_it_is_on_one_connection_as_often_as_asked() {
    let toy = Running::start(&[
        ("SERVICE", "web"),
        ("HOSTNAME", "c1"),
        ("TOY_VERSION", "2"),
        ("ENVIRONMENT", "test"),
    ])
    .await;
    let mut stream = toy.connect().await;
    for _ in 0..3 {
        let (status, body) = ask(&mut stream, "GET", "/shop/a?b").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        let expect = json!({
            "service": "web", "instance": "c1", "version": "2", "environment": "test", "path": "/shop/a",
            "forwarded": {},
        });
        assert_eq!((status, body), (200, expect));
    }
}

#[tokio::test]
async fn health_follows_the_environment_and_orders() {
    let toy = Running::start(&[("TOY_UNHEALTHY", "1")]).await;
    let mut stream = toy.connect().await;
    assert_eq!(ask(&mut stream, "GET", "/healthz").await.0, 503);
    assert_eq!(ask(&mut stream, "POST", "/control?healthy").await.0, 200);
    assert_eq!(ask(&mut stream, "GET", "/healthz").await.0, 200);
    assert_eq!(ask(&mut stream, "POST", "/control?unhealthy").await.0, 200);
    assert_eq!(ask(&mut stream, "GET", "/healthz").await.0, 503);
}

#[tokio::test]
async fn falls_sick_after_a_while() {
    let toy = Running::start(&[("TOY_UNHEALTHY_AFTER", "20ms")]).await;
    let mut stream = toy.connect().await;
    timeout(SOON, async { while ask(&mut stream, "GET", "/healthz").await.0 != 503 {} })
        .await
        .expect("never fell sick");
}

#[tokio::test]
async fn orders_are_refused_whole_and_only_posted() {
    let toy = Running::start(&[]).await;
    let mut stream = toy.connect().await;
    assert_eq!(ask(&mut stream, "POST", "/control?unhealthy&nap").await.0, 400);
    assert_eq!(ask(&mut stream, "PUT", "/control?unhealthy").await.0, 405);
    let (status, body) = ask(&mut stream, "GET", "/control?unhealthy").await;
    assert_eq!((status, body.as_str()), (200, "{\"healthy\":true,\"slowMs\":0}\n"));
}

#[tokio::test]
async fn leaves_with_the_code_it_is_told() {
    for (order, code) in [("crash", 1), ("exit=0", 0), ("exit=42", 42)] {
        let toy = Running::start(&[]).await;
        let mut stream = toy.connect().await;
        assert_eq!(ask(&mut stream, "POST", &format!("/control?{order}")).await.0, 200);
        assert_eq!(toy.left_with().await, code, "{order}");
    }
    assert_eq!(Running::start(&[("TOY_CRASH_AFTER", "1ms")]).await.left_with().await, 1);
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight_and_closes_the_rest() {
    let mut toy = Running::start(&[("TOY_SLOW", "300ms")]).await;
    let mut busy = toy.connect().await;
    let mut idle = toy.connect().await;
    let mut silent = toy.connect().await;
    ask(&mut idle, "GET", "/").await;
    // The answer to an order shows that the server has read what came before it on other connections.
    send(&mut busy, "GET", "/").await;
    ask(&mut idle, "GET", "/control").await;
    toy.stop();
    closed(&mut idle).await;
    closed(&mut silent).await;
    let (status, head, _) = receive(&mut busy).await;
    assert_eq!(status, 200);
    assert!(head.contains("connection: close"), "{head}");
    closed(&mut busy).await;
    let address = toy.address;
    assert_eq!(toy.left_with().await, 0);
    assert!(TcpStream::connect(address).await.is_err(), "still accepting");
}

#[tokio::test]
async fn the_probe_tells_health() {
    let toy = Running::start(&[]).await;
    let probe = |path: &str| {
        let url = format!("http://{}{path}", toy.address);
        tokio::task::spawn_blocking(move || crate::probe::probe(&url))
    };
    probe("/healthz").await.unwrap().unwrap();
    ask(&mut toy.connect().await, "POST", "/control?unhealthy").await;
    assert!(probe("/healthz").await.unwrap().unwrap_err().ends_with("status 503"));
}
