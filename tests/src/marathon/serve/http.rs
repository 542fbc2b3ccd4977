//! From a connection to an answer: what a web server, a standby and a leader do with a request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use base64::Engine as _;
use futures::stream;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::api::{self, Answer, Call, Content};
use super::Shared;
use super::fault::Fault;
use super::options::Auth;
use super::record::Recorded;
use super::streams::Wish;

/// The most of a request that is read.
const MOST: usize = 64 << 20;

/// Serves one member until the set is dropped, with every connection that it has.
pub(super) fn listen(shared: &Arc<Shared>, member: usize, listener: TcpListener) -> JoinSet<()> {
    let shared = Arc::clone(shared);
    let busy = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, from)) = listener.accept().await else { continue };
            // Who has ended needs not be kept.
            while connections.try_join_next().is_some() {}
            let _ = stream.set_nodelay(true);
            let (shared, busy) = (Arc::clone(&shared), Arc::clone(&busy));
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let (shared, busy) = (Arc::clone(&shared), Arc::clone(&busy));
                    async move {
                        busy.fetch_add(1, Ordering::SeqCst);
                        let answer = take(&shared, member, from, request, &busy).await;
                        busy.fetch_sub(1, Ordering::SeqCst);
                        answer
                    }
                });
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    tasks
}

/// A request with all of its body.
struct Whole {
    recorded: Recorded,
    /// Whether it said how long it is.
    sized: bool,
    accept: Option<String>,
    from: SocketAddr,
}

async fn take(
    shared: &Arc<Shared>,
    member: usize,
    from: SocketAddr,
    request: Request<Incoming>,
    busy: &AtomicUsize,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let sized = head.headers.contains_key(header::CONTENT_LENGTH);
    let Ok(body) = axum::body::to_bytes(Body::new(body), MOST).await else {
        return Ok(page(413, "Request Entity Too Large"));
    };
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let recorded = Recorded {
        member,
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: body.to_vec(),
        status: None,
        ignored: Vec::new(),
    };
    let accept = head.headers.get(header::ACCEPT).map(text);
    let at = {
        let mut seen = shared.seen.lock().unwrap();
        seen.push(recorded.clone());
        seen.len() - 1
    };
    let fault = shared.faults.lock().unwrap().meet(&recorded);
    let whole = Whole { recorded, sized, accept, from };
    let most = shared.options.most_requests;
    let full = most.is_some_and(|most| busy.load(Ordering::SeqCst) > most);
    match &fault {
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Drop) => return Err(io::Error::other("the test says so")),
        Some(Fault::Late(by)) => tokio::time::sleep(*by).await,
        Some(Fault::Json(status, body)) => {
            note(shared, at, *status, Vec::new());
            let content = Content::Json(body.clone());
            return Ok(respond(Answer { status: *status, headers: Vec::new(), content }));
        }
        Some(Fault::Html(status)) => {
            note(shared, at, *status, Vec::new());
            return Ok(page(*status, "the test says so"));
        }
        Some(Fault::After(_) | Fault::DropAfter | Fault::Truncate) | None => {}
    }
    let (mut response, ignored) = if full {
        (page(503, "Too many concurrent requests"), Vec::new())
    } else {
        filter(shared, member, &whole).await
    };
    match fault {
        Some(Fault::After(status)) => response = page(status, "the test says so"),
        Some(Fault::DropAfter) => return Err(io::Error::other("the test says so")),
        Some(Fault::Truncate) => response = halved(response).await,
        _ => {}
    }
    note(shared, at, response.status().as_u16(), ignored);
    if head.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    Ok(response)
}

fn note(shared: &Shared, at: usize, status: u16, ignored: Vec<String>) {
    if let Some(recorded) = shared.seen.lock().unwrap().get_mut(at) {
        recorded.status = Some(status);
        recorded.ignored = ignored;
    }
}

/// Says that there is more than it sends.
async fn halved(response: Response<Body>) -> Response<Body> {
    let (head, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, MOST).await.unwrap_or_default();
    let half = bytes.slice(..bytes.len() / 2);
    let frames = stream::unfold(Some(half), |half| async move {
        if let Some(half) = half {
            return Some((Ok(half), None));
        }
        // What breaks at once is not sent at all.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Err(io::Error::other("the test says so")), None))
    });
    let mut response = Response::from_parts(head, Body::from_stream(frames));
    response.headers_mut().insert(header::CONTENT_LENGTH, bytes.len().into());
    response
}

/// Credentials, then who leads.
async fn filter(
    shared: &Arc<Shared>,
    member: usize,
    whole: &Whole,
) -> (Response<Body>, Vec<String>) {
    if let Some(refusal) = refused(&shared.options.auth, whole.recorded.header("authorization")) {
        return (refusal, Vec::new());
    }
    let mut leader = shared.leader.subscribe();
    let led = timeout(shared.options.election, leader.wait_for(Option::is_some)).await;
    let Some(leads) = led.ok().and_then(Result::ok).and_then(|led| *led) else {
        return (page(502, "Could not determine the current leader"), Vec::new());
    };
    if leads == member {
        return answer(shared, leads, whole, false);
    }
    let events = whole.recorded.path.starts_with("/v2/events");
    let query = &whole.recorded.query;
    let mark = if query.is_empty() { "" } else { "?" };
    if events && shared.options.release.has(7) {
        let to = format!("http://{}{}{mark}{query}", shared.advertised(leads), whole.recorded.path);
        let mut response = page(302, "Found");
        put(response.headers_mut(), "Location", &to);
        return (response, Vec::new());
    }
    if !shared.up.lock().unwrap().contains(&leads) {
        return (page(502, "Connection refused"), Vec::new());
    }
    let (mut response, ignored) = answer(shared, leads, whole, true);
    let via = format!("1.1 {}", shared.addresses[member]);
    put(response.headers_mut(), "X-Marathon-Via", &via);
    (response, ignored)
}

impl Shared {
    fn advertised(&self, member: usize) -> String {
        self.options.advertised.clone().unwrap_or_else(|| self.addresses[member].to_string())
    }
}

fn refused(auth: &Auth, given: Option<&str>) -> Option<Response<Body>> {
    let json = |status: u16, message: &str| {
        let content = Content::Json(serde_json::json!({"message": message}));
        respond(Answer { status, headers: Vec::new(), content })
    };
    match auth {
        Auth::Open => None,
        Auth::Basic(user, password) => {
            let known = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
            let fits = given.and_then(|given| given.strip_prefix("Basic ")) == Some(known.as_str());
            (!fits).then(|| {
                let mut response = page(401, "Unauthorized");
                put(response.headers_mut(), "WWW-Authenticate", "Basic realm=\"Mesosphere\"");
                response
            })
        }
        Auth::Token(token) | Auth::Allowed(token, _) => {
            let given = given.and_then(|given| given.strip_prefix("token="));
            let known = matches!(auth, Auth::Allowed(_, other) if given == Some(other));
            match given {
                Some(given) if given == token => None,
                _ if known => Some(json(403, "Not Authorized to perform this action!")),
                _ => Some(json(401, "Invalid username or password.")),
            }
        }
    }
}

/// What the leader says; `handed` if a standby asks.
fn answer(
    shared: &Arc<Shared>,
    leads: usize,
    whole: &Whole,
    handed: bool,
) -> (Response<Body>, Vec<String>) {
    let Recorded { method, path, query, body, .. } = &whole.recorded;
    let now = shared.now();
    let query = pairs(query);
    let leader = format!("http://{}", shared.advertised(leads));
    let lead = |mut response: Response<Body>| {
        let headers = response.headers_mut();
        put(headers, "X-Marathon-Leader", &leader);
        put(headers, "X-Frame-Options", "DENY");
        put(headers, "X-XSS-Protection", "1; mode=block");
        response
    };
    if path.trim_end_matches('/') == "/v2/events" {
        // A list that has it among others is not it.
        if method != "GET" || whole.accept.as_deref() != Some("text/event-stream") {
            let reason = "HTTP method GET is not supported by this URL";
            return (lead(page(405, reason)), Vec::new());
        }
        let mut state = shared.state.lock().unwrap();
        shared.publish(&mut state);
        let all = |name: &str| {
            let all = query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone());
            all.collect::<Vec<_>>()
        };
        let wish = Wish {
            member: leads,
            client: whole.from.ip().to_string(),
            kinds: all("event_type"),
            light: all("plan-format").iter().any(|format| format == "light"),
        };
        let mut response = Response::new(shared.hub.attach(&state, wish, now));
        // So that it ends where the connection does, without chunks.
        *response.version_mut() = Version::HTTP_10;
        let headers = response.headers_mut();
        put(headers, "Content-Type", "text/event-stream;charset=utf-8");
        put(headers, "Connection", "close");
        put(headers, "Cache-Control", "no-cache");
        return (lead(response), Vec::new());
    }
    if method == "DELETE" && path.trim_end_matches('/') == "/v2/leader" {
        abdicate(shared, leads);
        let content = Content::Json(serde_json::json!({"message": "Leadership abdicated"}));
        return (lead(respond(Answer { status: 200, headers: Vec::new(), content })), Vec::new());
    }
    let call = Call {
        method: if method == "HEAD" { "GET".into() } else { method.clone() },
        path: decoded(path),
        query,
        accept: whole.accept.clone(),
        content_type: whole.recorded.header("content-type").map(str::to_owned),
        // What does not say how long it is arrives at a leader as nothing.
        body: if handed && !whole.sized { Vec::new() } else { body.clone() },
        client: whole.from.ip().to_string(),
        port: shared.addresses[leads].port(),
        leader: shared.advertised(leads),
    };
    let mut state = shared.state.lock().unwrap();
    let done = api::answer(&mut state, &call, now);
    shared.publish(&mut state);
    drop(state);
    shared.wake.notify_one();
    (lead(respond(done.answer)), done.ignored)
}

/// The next one leads.
fn abdicate(shared: &Arc<Shared>, leads: usize) {
    let up = shared.up.lock().unwrap().clone();
    let next = up.range(leads + 1..).next().or_else(|| up.first()).copied();
    shared.lead(None);
    shared.lead(next);
}

fn respond(answer: Answer) -> Response<Body> {
    let Answer { status, headers, content } = answer;
    let (kind, body) = match content {
        Content::Nothing => (None, Bytes::new()),
        Content::Json(body) => (Some("application/json"), body.to_string().into()),
        Content::Text(text) => (Some("text/plain;charset=utf-8"), text.into()),
        Content::Html(page) => (Some("text/html;charset=utf-8"), page.into()),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kept = response.headers_mut();
    if let Some(kind) = kind {
        put(kept, "Content-Type", kind);
    }
    for (name, value) in headers {
        put(kept, name, &value);
    }
    response
}

fn page(status: u16, reason: &str) -> Response<Body> {
    respond(Answer::html(status, reason))
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let (Ok(name), Ok(value)) =
        (header::HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
    {
        headers.insert(name, value);
    }
}

/// The pairs of a query, decoded.
fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(&name.replace('+', " ")), decoded(&value.replace('+', " ")))
    };
    query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect()
}

/// Without `%xx`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_paths_are_decoded() {
        let of = |query: &str| {
            pairs(query).into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()
        };
        assert_eq!(
            of("label=a%3D%3Db&embed=x&embed=y&force"),
            ["label=a==b", "embed=x", "embed=y", "force="]
        );
        assert_eq!(of("label=a+in+(b%2Cc)"), ["label=a in (b,c)"]);
        assert_eq!(decoded("/v2/apps/%2Fa%2fb"), "/v2/apps//a/b");
        assert_eq!(decoded("100%"), "100%");
    }
}
