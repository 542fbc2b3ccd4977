//! The HTTP side: one task a connection, all on one thread.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, server::conn::http1};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::behaviour::{Behaviour, orders};
use crate::settings::Settings;

/// Long enough for the answer to an order to leave exit to reach its sender.
const LAST_WORDS: Duration = Duration::from_millis(50);

struct Toy {
    settings: Settings,
    behaviour: Mutex<Behaviour>,
    leave: mpsc::Sender<u8>,
}

/// Serves until told to stop; `Ok` is the code to leave with.
pub(crate) async fn run(settings: Settings) -> io::Result<u8> {
    // Before anything else: as process 1 of a container, a signal without a handler is ignored.
    let mut stop = Stop::new(settings.ignore_term)?;
    tokio::select! {
        () = sleep(settings.start_delay) => {}
        () = stop.asked() => return Ok(0),
    }
    let listener =
        TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, settings.port))).await?;
    say(&settings, &format!("listening on port {}", settings.port));
    let linger = settings.linger;
    let told = async move {
        stop.asked().await;
        sleep(linger).await;
    };
    serve(listener, settings, told).await
}

/// Serves `listener` until `stop` completes, then finishes what is in flight.
async fn serve(
    listener: TcpListener,
    settings: Settings,
    stop: impl Future<Output = ()>,
) -> io::Result<u8> {
    let (leave, mut leaving) = mpsc::channel(1);
    let behaviour = Behaviour { slow: settings.slow, healthy: !settings.unhealthy };
    let toy = Arc::new(Toy { settings, behaviour: Mutex::new(behaviour), leave });
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    let mut crash = std::pin::pin!(after(toy.settings.crash_after));
    let mut sicken = std::pin::pin!(after(toy.settings.unhealthy_after));
    let mut sickened = false;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A client that is gone already, or no descriptor left: neither is a reason to die.
                let Ok((stream, _)) = accepted else { continue };
                // Without it, the second small answer on a connection waits for a delayed ACK.
                let _ = stream.set_nodelay(true);
                let toy = Arc::clone(&toy);
                let service = service_fn(move |request| answer(Arc::clone(&toy), request));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.spawn(graceful.watch(connection));
            }
            // A connection that broke is its client's business.
            Some(_) = connections.join_next() => {}
            () = &mut sicken, if !sickened => {
                sickened = true;
                toy.behaviour().healthy = false;
            }
            () = &mut crash => {
                say(&toy.settings, "crashing as told");
                return Ok(1);
            }
            Some(code) = leaving.recv() => {
                sleep(LAST_WORDS).await;
                say(&toy.settings, &format!("leaving with {code} as told"));
                return Ok(code);
            }
            () = &mut stop => break,
        }
    }
    drop(listener);
    graceful.shutdown().await;
    say(&toy.settings, "stopped");
    Ok(0)
}

impl Toy {
    fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(
    toy: Arc<Toy>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let uri = request.uri();
    if uri.path() == "/control" {
        return Ok(control(&toy, request.method(), uri.query().unwrap_or("")));
    }
    let slow = toy.behaviour().slow;
    sleep(slow).await;
    if uri.path() == "/healthz" {
        let healthy = toy.behaviour().healthy;
        let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        return Ok(reply(status, &json!({ "healthy": healthy })));
    }
    let Settings { service, instance, version, environment, .. } = &toy.settings;
    // Who it came from, as the balancer says.
    let mut forwarded: BTreeMap<&str, Vec<Cow<'_, str>>> = BTreeMap::new();
    for (name, value) in request.headers() {
        if let Some(name) = name.as_str().strip_prefix("x-forwarded-") {
            forwarded.entry(name).or_default().push(String::from_utf8_lossy(value.as_bytes()));
        }
    }
    // Several lines of a header are one list.
    let forwarded: BTreeMap<&str, String> =
        forwarded.into_iter().map(|(name, values)| (name, values.join(", "))).collect();
    Ok(reply(
        StatusCode::OK,
        &json!({
            "service": service,
            "instance": instance,
            "version": version,
            "environment": environment,
            "path": uri.path(),
            "forwarded": forwarded,
        }),
    ))
}

fn control(toy: &Toy, method: &Method, query: &str) -> Response<Full<Bytes>> {
    if method == Method::POST {
        let orders = match orders(query) {
            Ok(orders) => orders,
            Err(problem) => return reply(StatusCode::BAD_REQUEST, &json!({ "error": problem })),
        };
        for order in orders {
            let code = toy.behaviour().follow(order);
            if let Some(code) = code {
                // Full means that it is leaving already.
                let _ = toy.leave.try_send(code);
            }
        }
    } else if method != Method::GET {
        let mut refusal =
            reply(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "POST an order" }));
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
        return refusal;
    }
    let Behaviour { slow, healthy } = *toy.behaviour();
    reply(StatusCode::OK, &json!({ "slowMs": slow.as_millis(), "healthy": healthy }))
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn after(delay: Option<Duration>) {
    match delay {
        Some(delay) => sleep(delay).await,
        None => pending().await,
    }
}

/// On standard error, which is not buffered: `docker logs` shows it at once.
fn say(settings: &Settings, what: &str) {
    let Settings { service, instance, version, .. } = settings;
    eprintln!("{service} {instance} version {version}: {what}");
}

struct Stop {
    signals: [Signal; 3],
    ignore: bool,
}

impl Stop {
    fn new(ignore: bool) -> io::Result<Self> {
        let signals = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::quit())?,
        ];
        Ok(Self { signals, ignore })
    }

    async fn asked(&mut self) {
        let [terminate, interrupt, quit] = &mut self.signals;
        tokio::select! {
            _ = terminate.recv(), if !self.ignore => {}
            _ = interrupt.recv(), if !self.ignore => {}
            _ = quit.recv(), if !self.ignore => {}
            () = pending(), if self.ignore => {}
        }
    }
}

#[cfg(test)]
mod tests;
