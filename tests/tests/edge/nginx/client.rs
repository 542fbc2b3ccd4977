//! A client that counts: plain HTTP/1.1, on connections of its own, so that nothing is retried behind its back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn said(&self, key: &str) -> String {
        let json: Option<serde_json::Value> = serde_json::from_str(&self.body).ok();
        let text = json.and_then(|json| Some(json.get(key)?.as_str()?.to_owned()));
        text.unwrap_or_default()
    }

    /// Which toy's service answered; empty if none did.
    pub(crate) fn service(&self) -> String {
        self.said("service")
    }

    pub(crate) fn instance(&self) -> String {
        self.said("instance")
    }
}

/// One request on a connection of its own.
pub(crate) async fn get(at: SocketAddr, host: &str, path: &str) -> Result<Answer, String> {
    with(at, host, path, &[]).await
}

pub(crate) async fn with(
    at: SocketAddr,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer, String> {
    let mut connection = TcpStream::connect(at).await.map_err(|e| e.to_string())?;
    request(&mut connection, host, path, headers).await
}

async fn request(
    connection: &mut TcpStream,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer, String> {
    let headers = headers.iter().fold(String::new(), |all, (k, v)| all + k + ": " + v + "\r\n");
    let text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    connection.write_all(text.as_bytes()).await.map_err(|e| format!("send: {e}"))?;
    let answer = tokio::time::timeout(LIMIT, read(connection)).await;
    answer.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

async fn read(connection: &mut TcpStream) -> Result<Answer, String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("no status")?;
            let answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
            let length: usize = answer.header("content-length").unwrap_or("0").parse().unwrap();
            if answer.body.len() >= length {
                return Ok(answer);
            }
        }
        if connection.read_buf(&mut bytes).await.map_err(|e| format!("read: {e}"))? == 0 {
            return Err(if bytes.is_empty() { "closed" } else { "cut" }.to_owned());
        }
    }
}

/// What a load has seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// How many answers each instance gave.
    pub(crate) instances: BTreeMap<String, u64>,
    pub(crate) failed: Vec<String>,
}

impl Seen {
    fn note(&mut self, result: Result<Answer, String>) {
        match result {
            Ok(a) if a.status == 200 => *self.instances.entry(a.instance()).or_default() += 1,
            Ok(a) => self.failed.push(format!("{} {}", a.status, a.body)),
            Err(e) => self.failed.push(e),
        }
    }
}

/// Clients that ask without a pause, some on connections that they keep and some on a new one each time.
pub(crate) struct Load {
    seen: Arc<Mutex<Seen>>,
    clients: JoinSet<()>,
}

impl Load {
    pub(crate) fn start(at: SocketAddr, host: &'static str, keeping: usize, new: usize) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut clients = JoinSet::new();
        for client in 0..keeping + new {
            let seen = seen.clone();
            clients.spawn(async move {
                let mut kept = None;
                loop {
                    let result = ask(&mut kept, at, host).await;
                    if client >= keeping {
                        kept = None;
                    }
                    seen.lock().unwrap().note(result);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        }
        Self { seen, clients }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for more answers.
    pub(crate) async fn more(&self, count: u64) {
        let all = || {
            let seen = self.seen();
            seen.instances.values().sum::<u64>() + seen.failed.len() as u64
        };
        let wanted = all() + count;
        let wait = async {
            while all() < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT * 3, wait).await.expect("the load goes on");
    }

    pub(crate) async fn end(mut self) -> Seen {
        self.clients.shutdown().await;
        self.seen()
    }
}

/// A kept connection that is closed before a byte of the answer was idle to the server: every client asks anew then,
/// as HTTP tells it to. On a new connection there is no excuse.
async fn ask(kept: &mut Option<TcpStream>, at: SocketAddr, host: &str) -> Result<Answer, String> {
    if let Some(mut connection) = kept.take() {
        match request(&mut connection, host, "/", &[]).await {
            Ok(answer) => {
                keep(kept, connection, &answer);
                return Ok(answer);
            }
            Err(why) if why == "closed" || why.contains("eset") || why.contains("roken pipe") => {}
            Err(why) => return Err(format!("on a kept connection: {why}")),
        }
    }
    let mut connection = TcpStream::connect(at).await.map_err(|e| format!("connect: {e}"))?;
    let answer = request(&mut connection, host, "/", &[]).await?;
    keep(kept, connection, &answer);
    Ok(answer)
}

fn keep(kept: &mut Option<TcpStream>, connection: TcpStream, answer: &Answer) {
    *kept = (answer.header("connection") != Some("close")).then_some(connection);
}
