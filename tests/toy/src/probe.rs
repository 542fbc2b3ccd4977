//! `toy probe URL`: a health check that needs no shell and no curl in the image.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks once; fine is any 2xx.
pub(crate) fn probe(url: &str) -> Result<(), String> {
    let (address, path) = parse(url)?;
    let problem = |error: std::io::Error| format!("GET {url}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(problem)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(problem)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(problem)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .map_err(problem)?;
    let mut head = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut head).map_err(problem)?;
    match status(&head) {
        Some(200..=299) => Ok(()),
        Some(status) => Err(format!("GET {url}: status {status}")),
        None => Err(format!("GET {url}: not an HTTP answer")),
    }
}

/// Addresses only, and `localhost`: a statically linked glibc cannot resolve names.
fn parse(url: &str) -> Result<(SocketAddr, &str), String> {
    let wrong = || format!("cannot probe {url}\nhint: http://127.0.0.1:8080/healthz");
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    if let Ok(address) = authority.parse() {
        return Ok((address, path));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (authority, 80),
    };
    let ip = match host {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => host.parse().map_err(|_| wrong())?,
    };
    Ok((SocketAddr::new(ip, port), path))
}

fn status(head: &[u8]) -> Option<u16> {
    let head = std::str::from_utf8(head).ok()?;
    head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let parsed = |url| parse(url).map(|(address, path)| format!("{address} {path}"));
        assert_eq!(parsed("http://127.0.0.1:8080/healthz").unwrap(), "127.0.0.1:8080 /healthz");
        assert_eq!(parsed("http://localhost:1/a/b?c").unwrap(), "127.0.0.1:1 /a/b?c");
        assert_eq!(parsed("http://[::1]:8080").unwrap(), "[::1]:8080 /");
        assert_eq!(parsed("http://127.0.0.1").unwrap(), "127.0.0.1:80 /");
        for wrong in
            ["127.0.0.1:8080", "https://127.0.0.1/", "http://web:80/", "http://localhost:x/"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn status_lines() {
        assert_eq!(status(b"HTTP/1.1 200"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        assert_eq!(status(b"SSH-2.0-Open"), None);
    }
}
