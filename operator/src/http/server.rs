//! Takes connections and lets none of them hurt: every one has a limit in number, size and time.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[error("listen on {addr}")]
pub struct HttpError {
    /// Where.
    pub addr: SocketAddr,
    /// What the kernel says.
    #[source]
    pub source: io::Error,
}

impl HttpError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let known = [
            (
                io::ErrorKind::AddrInUse,
                "another agent may be running here; give this one its own address with --listen",
            ),
            (
                io::ErrorKind::PermissionDenied,
                "ports below 1024 need a privilege; choose another with --listen",
            ),
            (
                io::ErrorKind::AddrNotAvailable,
                "no interface has this address; 0.0.0.0 stands for all of them",
            ),
        ];
        let hint = known.iter().find(|(kind, _)| *kind == self.source.kind());
        hint.map(|(_, hint)| (*hint).to_owned())
    }
}

/// What one connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time. More are closed at once: an answer now says more than one too late.
    pub connections: usize,
    /// All headers of a request, bytes.
    pub header_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Time for the headers to arrive, and the longest pause between two requests.
    pub header_time: Duration,
    /// After this time a connection takes no further request; clients reconnect without noticing.
    pub life: Duration,
    /// Time for the last answer after that: who reads too slowly is cut off.
    pub last_answer: Duration,
    /// Time to finish what is under way when the agent stops.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            header_bytes: 16 << 10,
            headers: 64,
            header_time: Duration::from_secs(10),
            life: Duration::from_secs(60),
            // The longest watch and a margin.
            last_answer: Duration::from_secs(40),
            farewell: Duration::from_secs(3),
        }
    }
}

/// Takes the address.
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(addr).await.map_err(|source| HttpError { addr, source })
}

/// Serves until `stop` ends, then lets what is under way finish within [`Limits::farewell`].
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let (stopping, stopped) = watch::channel(false);
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Ok(permit) = room.clone().try_acquire_owned() {
                        let (router, stopped) = (router.clone(), stopped.clone());
                        connections.spawn(async move {
                            connection(stream, router, limits, stopped).await;
                            drop(permit);
                        });
                    }
                }
                Err(e) => {
                    // Out of file descriptors, most likely: a tight loop would make it worse.
                    tracing::warn!(error = %e, "accept failed");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            },
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let rest = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(limits.farewell, rest).await;
    // Dropping the set ends whoever has not left by now.
}

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.header_bytes)
        .max_headers(limits.headers)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = pin!(served);
    tokio::select! {
        _ = &mut served => return,
        _ = stopped.wait_for(|s| *s) => {}
        () = tokio::time::sleep(limits.life) => {}
    }
    // What is being answered is finished; nothing new is read. Dropping the connection after that
    // closes it, whatever it was doing.
    served.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(limits.last_answer, served).await;
}
