//! One connection of plain HTTP/1.1, and the ways in which a request on it can go wrong.

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Whoever does not take a connection within this is not there; the kernel sends the first packet again after 1 s.
const CONNECT: Duration = Duration::from_millis(1500);
/// The longest answer that is read.
const LONGEST: usize = 1 << 20;

/// How a request was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Answered, with another status than 200.
    Status(u16),
    /// The connection broke in the middle of the answer, or was reset before it.
    Reset,
    /// A new connection was closed without a byte of an answer.
    Eof,
    /// Not answered in time.
    Timeout,
    /// What came was no answer of HTTP, or not that of an instance.
    Garbled,
    /// No balancer took a connection.
    Unreached,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code) => write!(f, "status {code}"),
            Self::Reset => f.write_str("reset"),
            Self::Eof => f.write_str("closed before an answer"),
            Self::Timeout => f.write_str("timeout"),
            Self::Garbled => f.write_str("garbled"),
            Self::Unreached => f.write_str("unreached"),
        }
    }
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its code.
    pub status: u16,
    /// Its text.
    pub body: String,
    /// Whether it is the last one on its connection.
    pub closes: bool,
}

/// A request that got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) kind: Kind,
    /// The connection ended before a byte of the answer came.
    pub(super) unheard: bool,
}

/// An open connection.
pub(super) struct Connection {
    pub(super) at: SocketAddr,
    /// Requests on it so far.
    pub(super) asked: u32,
    stream: TcpStream,
}

impl Connection {
    /// `None`: nobody takes it.
    pub(super) async fn open(at: SocketAddr) -> Option<Self> {
        let stream = timeout(CONNECT, TcpStream::connect(at)).await.ok()?.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self { at, asked: 0, stream })
    }

    /// One request without a body. `keeps`: there may be another on this connection.
    pub(super) async fn ask(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        keeps: bool,
    ) -> Result<Answer, Broken> {
        self.asked += 1;
        let close = if keeps { "" } else { "Connection: close\r\n" };
        let length = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}{close}\r\n");
        // A connection that was closed meanwhile may refuse the request and still hold an answer, such as a 408.
        let sent = self.stream.write_all(head.as_bytes()).await;
        let mut bytes = Vec::new();
        loop {
            if let Some(answer) = parse(&bytes) {
                return answer.map_err(|kind| Broken { kind, unheard: false });
            }
            let unheard = bytes.is_empty();
            match self.stream.read_buf(&mut bytes).await {
                Ok(0) if unheard && sent.is_ok() => {
                    return Err(Broken { kind: Kind::Eof, unheard });
                }
                Ok(0) => return Err(Broken { kind: Kind::Reset, unheard }),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::TimedOut => {
                    return Err(Broken { kind: Kind::Timeout, unheard: false });
                }
                Err(_) => return Err(Broken { kind: Kind::Reset, unheard }),
            }
        }
    }
}

/// An answer, once it is complete. Only what has a length is understood, which is all that is sent here.
fn parse(bytes: &[u8]) -> Option<Result<Answer, Kind>> {
    let begins = bytes.iter().zip(b"HTTP/1.").all(|(a, b)| a == b);
    if !begins || bytes.len() > LONGEST {
        return Some(Err(Kind::Garbled));
    }
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let Ok(head) = std::str::from_utf8(&bytes[..end]) else { return Some(Err(Kind::Garbled)) };
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok());
    let fields: Vec<(String, &str)> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
    let length = field("content-length").and_then(|v| v.parse::<usize>().ok());
    let (Some(status), Some(length)) = (status, length) else { return Some(Err(Kind::Garbled)) };
    let body = &bytes[end + 4..];
    if body.len() > length {
        return Some(Err(Kind::Garbled));
    }
    (body.len() == length).then(|| {
        let body = String::from_utf8(body.to_vec()).map_err(|_| Kind::Garbled)?;
        let closes = field("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        Ok(Answer { status, body, closes })
    })
}

/// One request on a connection of its own.
pub async fn get(at: SocketAddr, host: &str, path: &str) -> Result<Answer, Kind> {
    let exchange = async {
        let mut connection = Connection::open(at).await.ok_or(Kind::Unreached)?;
        connection.ask("GET", host, path, false).await.map_err(|broken| broken.kind)
    };
    timeout(Duration::from_secs(10), exchange).await.unwrap_or(Err(Kind::Timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_not_there_yet_however_it_is_cut() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Close\r\n\r\nhello";
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]), None, "{cut}");
        }
        let answer = Answer { status: 200, body: "hello".into(), closes: true };
        assert_eq!(parse(text), Some(Ok(answer)));
    }

    #[test]
    fn what_is_no_answer_is_garbled() {
        for text in [
            "HTTQ",
            "\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 many\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(Err(Kind::Garbled)), "{text}");
        }
    }
}
