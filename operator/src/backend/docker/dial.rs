//! Ways to reach an engine as one byte stream: a socket, TCP, TLS, or `docker system dial-stdio` over ssh.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio_rustls::TlsConnector;

use crate::credential;
use crate::model::{Credential, Endpoint, Tls};

/// Time to make a connection; ssh has its own handshakes to do.
const CONNECT: Duration = Duration::from_secs(5);
const CONNECT_SSH: Duration = Duration::from_secs(15);
/// The most an engine may say without a line end. A list of 5 000 containers is about 10 MB in one line.
const LONGEST_LINE: usize = 64 << 20;

/// Opens connections to one engine.
#[derive(Clone)]
pub(super) struct Dial(Arc<Target>);

enum Target {
    Unix(String),
    Tcp { authority: String, tls: Option<(TlsConnector, ServerName<'static>)> },
    Ssh { program: PathBuf, arguments: Vec<String> },
}

impl Dial {
    /// Reads what the endpoint needs; certificate files are read anew at each reconnect, so that renewed
    /// ones are taken without a restart.
    pub(super) async fn prepare(endpoint: &Endpoint, ssh: &Path) -> io::Result<Self> {
        let target = match endpoint {
            Endpoint::Unix { path } => Target::Unix(path.clone()),
            Endpoint::Tcp { authority, tls: None } => {
                Target::Tcp { authority: authority.clone(), tls: None }
            }
            Endpoint::Tcp { authority, tls: Some(tls) } => {
                let name = ServerName::try_from(host_of(authority).to_owned())
                    .map_err(|_| io::Error::other(format!("{authority} is not a host name")))?;
                let tls = Some((connector(tls).await?, name));
                Target::Tcp { authority: authority.clone(), tls }
            }
            Endpoint::Ssh { authority } => {
                Target::Ssh { program: ssh.into(), arguments: ssh_arguments(authority)? }
            }
            Endpoint::Marathon => return Err(io::Error::other("Marathon is no Docker Engine")),
        };
        Ok(Self(Arc::new(target)))
    }

    async fn open(self) -> io::Result<Pipe> {
        match &*self.0 {
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|e| io::Error::new(e.kind(), format!("socket {path}: {e}")))?;
                Ok(Pipe::new(stream))
            }
            Target::Tcp { authority, tls } => {
                let stream = within(CONNECT, TcpStream::connect(authority)).await.map_err(|e| {
                    io::Error::new(e.kind(), format!("connect to {authority}: {e}"))
                })?;
                stream.set_nodelay(true)?;
                keep_alive(&stream)?;
                let Some((connector, name)) = tls else { return Ok(Pipe::new(stream)) };
                let stream = within(CONNECT, connector.connect(name.clone(), stream))
                    .await
                    .map_err(|e| io::Error::new(e.kind(), format!("TLS with {authority}: {e}")))?;
                Ok(Pipe::new(stream))
            }
            Target::Ssh { program, arguments } => {
                Ok(Pipe::new(SshStream::start(program, arguments)?))
            }
        }
    }
}

async fn within<T>(limit: Duration, f: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, f).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")))
    })
}

/// A peer that vanished without a word is noticed within half a minute, also on the event stream, which
/// never sends: a middlebox that forgot the connection would otherwise leave it silent for ever.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let how = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5));
    socket2::SockRef::from(stream).set_tcp_keepalive(&how)
}

/// The host of `host:port`, an IPv6 address without its brackets.
pub(super) fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, h)| h);
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(h, _)| h);
    }
    match host.rsplit_once(':') {
        Some((h, _)) if !h.contains(':') => h,
        _ => host,
    }
}

/// `user@host:port` as arguments of ssh. `BatchMode`: an agent has nobody to answer a question.
fn ssh_arguments(authority: &str) -> io::Result<Vec<String>> {
    let bad = || io::Error::other(format!("ssh://{authority} is not user@host:port"));
    let (user, rest) = match authority.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, authority),
    };
    let host = host_of(rest);
    let after = rest.rsplit_once(']').map_or(rest, |(_, a)| a);
    let port = after.rsplit_once(':').map(|(_, p)| p.parse::<u16>()).transpose();
    let port = port.map_err(|_| bad())?;
    let odd = |s: &str| s.is_empty() || s.starts_with('-') || s.contains(char::is_whitespace);
    if odd(host) || user.is_some_and(odd) {
        return Err(bad());
    }
    let mut out: Vec<String> =
        ["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"]
            .map(String::from)
            .to_vec();
    if let Some(user) = user {
        out.extend(["-l".into(), user.into()]);
    }
    if let Some(port) = port {
        out.extend(["-p".into(), port.to_string()]);
    }
    out.extend(["--", host, "docker", "system", "dial-stdio"].map(String::from));
    Ok(out)
}

async fn connector(files: &Tls) -> io::Result<TlsConnector> {
    let Tls { ca, cert, key } = files;
    let read = async |what: &Credential| {
        let read = credential::read(what).await;
        read.map_err(|e| io::Error::new(e.kind(), format!("cannot read {what}: {e}")))
    };
    let certificates =
        |what: &Credential, pem: &[u8]| -> io::Result<Vec<CertificateDer<'static>>> {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            all.ok()
                .filter(|certs| !certs.is_empty())
                .ok_or_else(|| io::Error::other(format!("{what} holds no PEM certificate")))
        };
    let mut roots = rustls::RootCertStore::empty();
    for one in certificates(ca, &read(ca).await?)? {
        roots.add(one).map_err(|e| io::Error::other(format!("{ca}: {e}")))?;
    }
    let chain = certificates(cert, &read(cert).await?)?;
    let private = PrivateKeyDer::from_pem_slice(&read(key).await?)
        .map_err(|_| io::Error::other(format!("{key} holds no PEM key")))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_root_certificates(roots).with_client_auth_cert(chain, private))
        .map_err(|e| io::Error::other(format!("{cert} and {key}: {e}")))?;
    Ok(TlsConnector::from(Arc::new(config)))
}

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<Pipe>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Pipe>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move {
            let limit =
                if matches!(*dial.0, Target::Ssh { .. }) { CONNECT_SSH } else { CONNECT * 2 };
            within(limit, dial.open()).await.map(TokioIo::new)
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that ends rather than let the other side fill our memory.
pub(super) struct Pipe {
    inner: Box<dyn Stream>,
    since_line_end: usize,
}

impl Pipe {
    fn new(inner: impl Stream + 'static) -> Self {
        Self { inner: Box::new(inner), since_line_end: 0 }
    }
}

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        self.since_line_end = match new.iter().rposition(|b| *b == b'\n') {
            Some(at) => new.len() - at,
            None => self.since_line_end + new.len(),
        };
        if self.since_line_end > LONGEST_LINE {
            return Poll::Ready(Err(io::Error::other("the answer is longer than 64 MiB")));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// An ssh process as a stream; it ends with the stream. What it says on stderr becomes the error when
/// it ends before the engine said anything.
struct SshStream {
    _child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    said: Vec<u8>,
    heard: bool,
}

impl SshStream {
    fn start(program: &Path, arguments: &[String]) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| {
                io::Error::new(e.kind(), format!("cannot run {}: {e}", program.display()))
            })?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let stderr = child.stderr.take();
        Ok(Self { _child: child, stdin, stdout, stderr, said: Vec::new(), heard: false })
    }

    /// Takes what is on stderr; ready at its end.
    fn poll_said(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(stderr) = &mut self.stderr {
            let mut space = [0; 512];
            let mut buf = ReadBuf::new(&mut space);
            match ready!(Pin::new(stderr).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {
                    let room = 1024_usize.saturating_sub(self.said.len());
                    self.said.extend(buf.filled().iter().take(room));
                }
                Ok(()) | Err(_) => self.stderr = None,
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for SshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stdout).poll_read(cx, buf);
        let said = self.poll_said(cx);
        ready!(read)?;
        if buf.filled().len() > before {
            self.heard = true;
        } else if !self.heard {
            ready!(said);
            let said = String::from_utf8_lossy(&self.said);
            let said = if said.trim().is_empty() { "ended without a word" } else { said.trim() };
            return Poll::Ready(Err(io::Error::other(format!("ssh: {said}"))));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            // An ssh that gave up closes its input; its reason is on stderr, which the reader returns.
            Some(stdin) => match ready!(Pin::new(stdin).poll_write(cx, buf)) {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe && !self.heard => {
                    Poll::Ready(Ok(buf.len()))
                }
                other => Poll::Ready(other),
            },
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_asked_for_no_password_and_takes_no_options_from_a_host_name() {
        let args = ssh_arguments("root@h1:2222").unwrap().join(" ");
        assert!(args.contains("BatchMode=yes"));
        assert!(args.ends_with("-l root -p 2222 -- h1 docker system dial-stdio"), "{args}");
        assert!(ssh_arguments("h1").unwrap().join(" ").ends_with("-- h1 docker system dial-stdio"));
        assert!(ssh_arguments("u@[::1]:22").unwrap().join(" ").contains("-p 22 -- ::1 "));
        for bad in ["-oProxyCommand=x", "u@-x", "a b", "", "u@h:x", "@h"] {
            assert!(ssh_arguments(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn the_host_of_an_authority() {
        for (authority, host) in
            [("h:1", "h"), ("h", "h"), ("[::1]:2", "::1"), ("::1", "::1"), ("u@h:1", "h")]
        {
            assert_eq!(host_of(authority), host);
        }
    }

    #[tokio::test]
    async fn an_endless_line_ends_the_connection() {
        use tokio::io::AsyncReadExt;
        let mut pipe = Pipe::new(tokio::io::join(tokio::io::repeat(b'x'), tokio::io::sink()));
        let mut buf = vec![0; 1 << 20];
        let end = async {
            loop {
                if let Err(e) = pipe.read(&mut buf).await {
                    return e.to_string();
                }
            }
        };
        assert!(end.await.contains("64 MiB"));
    }
}
