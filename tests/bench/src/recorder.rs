//! A socket before the engine's that hands everything on and notes which request came when.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::SOCKET;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::now;

/// A request, by when its first byte was here: nanoseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) at: i64,
    pub(crate) method: String,
    pub(crate) path: String,
}

pub(crate) struct Recorder {
    pub(crate) socket: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

impl Recorder {
    pub(crate) fn listen(socket: PathBuf) -> Self {
        let listener = UnixListener::bind(&socket).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = seen.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                connections.spawn(carry(client, notes.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { socket, seen, _tasks: tasks }
    }

    /// Requests that change something, since a moment.
    pub(crate) fn changing(&self, since: i64) -> Vec<Seen> {
        let all = self.seen.lock().unwrap();
        let reading = |s: &Seen| s.method == "GET" || s.method == "HEAD";
        all.iter().filter(|s| s.at >= since && !reading(s)).cloned().collect()
    }

    /// When the first container was asked for since a moment.
    pub(crate) fn first_create(&self, since: i64) -> Option<i64> {
        let creates = |s: &&Seen| s.method == "POST" && s.path.contains("/containers/create");
        self.seen.lock().unwrap().iter().filter(creates).map(|s| s.at).find(|at| *at >= since)
    }
}

async fn carry(client: UnixStream, notes: Arc<Mutex<Vec<Seen>>>) {
    let Ok(engine) = UnixStream::connect(SOCKET).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_engine, mut to_engine) = engine.into_split();
    let up = async move {
        let mut heads = Heads::default();
        let mut bytes = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_client.read(&mut bytes).await {
            let at = now();
            if to_engine.write_all(&bytes[..n]).await.is_err() {
                break;
            }
            for (method, path) in heads.feed(&bytes[..n]) {
                notes.lock().unwrap().push(Seen { at, method, path });
            }
        }
        let _ = to_engine.shutdown().await;
    };
    let down = async move {
        let _ = tokio::io::copy(&mut from_engine, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(up, down);
}

/// The request heads in what a client sends on one connection.
#[derive(Default)]
struct Heads {
    head: Vec<u8>,
    /// What is left of a body.
    body: usize,
    /// No more requests can be told apart: what follows is a stream.
    lost: bool,
}

impl Heads {
    fn feed(&mut self, mut bytes: &[u8]) -> Vec<(String, String)> {
        let mut found = Vec::new();
        while !self.lost && !bytes.is_empty() {
            let skip = self.body.min(bytes.len());
            (self.body, bytes) = (self.body - skip, &bytes[skip..]);
            let Some(end) = self.head_end(bytes) else { break };
            bytes = &bytes[end..];
            let head = String::from_utf8_lossy(&std::mem::take(&mut self.head)).into_owned();
            let mut lines = head.lines();
            let mut words = lines.next().unwrap_or_default().split(' ');
            if let (Some(method), Some(path)) = (words.next(), words.next()) {
                found.push((method.to_owned(), path.to_owned()));
            }
            for line in lines {
                let (name, value) = line.split_once(':').unwrap_or_default();
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => self.body = value.trim().parse().unwrap_or(0),
                    "transfer-encoding" | "upgrade" => self.lost = true,
                    _ => {}
                }
            }
        }
        found
    }

    /// Takes bytes up to the end of a head; where that is in `bytes`, if it is.
    fn head_end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (n, byte) in bytes.iter().enumerate() {
            self.head.push(*byte);
            if self.head.ends_with(b"\r\n\r\n") {
                return Some(n + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_however_they_are_cut() {
        let stream =
            b"GET /a HTTP/1.1\r\nhost: x\r\n\r\nPOST /b?c=d HTTP/1.1\r\nContent-Length: 12\r\n\r\n\
                       GET /no HTTPDELETE /e HTTP/1.1\r\n\r\n";
        let want = [("GET", "/a"), ("POST", "/b?c=d"), ("DELETE", "/e")];
        let want = want.map(|(m, p)| (m.to_owned(), p.to_owned()));
        for size in [1, 2, 7, 30, 500] {
            let mut heads = Heads::default();
            let found: Vec<_> = stream.chunks(size).flat_map(|c| heads.feed(c)).collect();
            assert_eq!(found, want, "{size}");
        }
    }

    #[test]
    fn nothing_is_read_out_of_a_stream() {
        let mut heads = Heads::default();
        let found = heads.feed(b"POST /x HTTP/1.1\r\nUpgrade: tcp\r\n\r\nGET /y HTTP/1.1\r\n\r\n");
        assert_eq!(found, [("POST".to_owned(), "/x".to_owned())]);
    }
}
