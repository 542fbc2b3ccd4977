//! As much of HTTP as asking an agent or a service on this machine takes: one request, one answer, closed.
//!
//! HTTP/1.0, so that the answer comes whole and ends with the connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// For connecting, and for every read and write.
const PATIENCE: Duration = Duration::from_secs(5);
/// A status of hundreds of instances is far smaller.
const MOST: u64 = 16 << 20;

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

pub(crate) fn get(to: SocketAddr, path: &str) -> Result<Answer> {
    get_of(to, &to.to_string(), path)
}

/// Asks for another host name than where it is.
pub(crate) fn get_of(to: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    ask(to, &format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n"))
}

/// Posts nothing, with a header.
pub(crate) fn post(to: SocketAddr, path: &str, header: &str) -> Result<Answer> {
    ask(to, &format!("POST {path} HTTP/1.0\r\nHost: {to}\r\n{header}\r\nContent-Length: 0\r\n\r\n"))
}

fn ask(to: SocketAddr, request: &str) -> Result<Answer> {
    let doing = || format!("cannot ask {to}");
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(doing)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes()).with_context(doing)?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).with_context(doing)?;
    read(&String::from_utf8_lossy(&answer)).with_context(doing)
}

fn read(text: &str) -> Result<Answer> {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        bail!("the answer ends within its head");
    };
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    Ok(Answer { status: status.context("the answer is not HTTP")?, body: body.to_owned() })
}

/// A port that nobody had a moment ago.
pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").context("no port is free")?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let answer = read("HTTP/1.0 202 Accepted\r\ncontent-length: 2\r\n\r\nok").unwrap();
        assert_eq!(answer, Answer { status: 202, body: "ok".into() });
        assert_eq!(read("HTTP/1.1 404 Not Found\r\n\r\n").unwrap().status, 404);
        for text in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_request_gets_its_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut head = [0; 512];
            let n = client.read(&mut head).unwrap();
            client.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
            String::from_utf8_lossy(&head[..n]).into_owned()
        });
        assert_eq!(get(to, "/x").unwrap(), Answer { status: 200, body: "hello".into() });
        assert!(server.join().unwrap().starts_with("GET /x HTTP/1.0\r\nHost: 127.0.0.1:"));
    }

    #[test]
    fn nobody_there_is_said() {
        let nobody = free_port().unwrap();
        let error = get(nobody, "/").unwrap_err().to_string();
        assert_eq!(error, format!("cannot ask {nobody}"));
    }
}
