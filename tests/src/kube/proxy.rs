//! What stands between a client and the API server: it writes down every request, and misbehaves when told to.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::access::Access;
use super::{ApiServer, TOKENS};

/// The most of a request that is handed on.
const MOST: usize = 16 << 20;

/// What is done with requests that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this code, and for 429 and 503 with a `Retry-After` of a second.
    Answer(u16),
    /// Taken, and never answered.
    Hang,
}

/// When a request went through.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// It was handed on.
    pub began: Instant,
    /// The server began to answer.
    pub answered: Instant,
}

type Rule = (Box<dyn Fn(&Access) -> bool + Send + Sync>, Fault);

struct Shared {
    to: String,
    token: HeaderValue,
    client: reqwest::Client,
    seen: Mutex<Vec<Access>>,
    passed: Mutex<Vec<(Access, Passed)>>,
    rule: Mutex<Option<Rule>>,
}

/// A plain HTTP port in front of an API server.
pub struct Proxy {
    kubeconfig: PathBuf,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens in front of a server, for a client whose own namespace is that of the manifests.
    pub async fn start(server: &ApiServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = TOKENS.split(',').next().unwrap_or_default();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             contexts: [{{name: test, context: {{cluster: test, user: test, namespace: evenkeel}}}}]\n\
             clusters: [{{name: test, cluster: {{server: 'http://{address}'}}}}]\n\
             users: [{{name: test, user: {{token: {token}}}}}]\n",
        );
        let kubeconfig = server.kubeconfig().with_file_name(format!("proxy-{}", address.port()));
        fs::write(&kubeconfig, text).unwrap();
        let client = reqwest::Client::builder()
            // It is ours, on loopback, and has a certificate that nobody signed.
            .danger_accept_invalid_certs(true)
            .build()
            .unwrap();
        let shared = Arc::new(Shared {
            to: format!("https://{}", server.address()),
            token: HeaderValue::from_str(&format!("Bearer {token}")).unwrap(),
            client,
            seen: Mutex::default(),
            passed: Mutex::default(),
            rule: Mutex::default(),
        });
        let app = Router::new().fallback(carry).with_state(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { kubeconfig, shared, _tasks: tasks }
    }

    /// A kubeconfig that leads here.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// Every request about resources up to now, in their order.
    pub fn seen(&self) -> Vec<Access> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The first request since a moment that matches and was answered.
    pub fn passed(&self, matches: impl Fn(&Access) -> bool, since: Instant) -> Option<Passed> {
        let all = self.shared.passed.lock().unwrap();
        let fits = |(access, passed): &&(Access, Passed)| passed.began >= since && matches(access);
        all.iter().find(fits).map(|(_, passed)| *passed)
    }

    /// From now on, what matches meets a fault; it replaces the rule before.
    pub fn fault(&self, matches: impl Fn(&Access) -> bool + Send + Sync + 'static, fault: Fault) {
        *self.shared.rule.lock().unwrap() = Some((Box::new(matches), fault));
    }

    /// From now on everything is handed on.
    pub fn calm(&self) {
        *self.shared.rule.lock().unwrap() = None;
    }
}

async fn carry(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let access = Access::of(head.method.as_str(), path, query);
    if let Some(access) = access.clone() {
        let fault = {
            let rule = shared.rule.lock().unwrap();
            rule.as_ref().filter(|(matches, _)| matches(&access)).map(|(_, fault)| *fault)
        };
        shared.seen.lock().unwrap().push(access);
        match fault {
            Some(Fault::Answer(code)) => return refusal(code),
            Some(Fault::Hang) => std::future::pending().await,
            None => {}
        }
    }
    let Ok(body) = axum::body::to_bytes(body, MOST).await else { return refusal(413) };
    let mut headers = head.headers;
    headers.remove(header::HOST);
    // kubectl tells no secret over plain HTTP.
    headers.entry(header::AUTHORIZATION).or_insert_with(|| shared.token.clone());
    let to = format!("{}{}", shared.to, head.uri);
    let began = Instant::now();
    let sent = shared.client.request(head.method, to).headers(headers).body(body).send().await;
    let Ok(answer) = sent else { return refusal(502) };
    if let Some(access) = access {
        let passed = Passed { began, answered: Instant::now() };
        shared.passed.lock().unwrap().push((access, passed));
    }
    let mut response = Response::builder().status(answer.status());
    if let Some(kept) = response.headers_mut() {
        *kept = without_hops(answer.headers().clone());
    }
    // A watch has no end: what comes is handed on as it comes.
    let chunks = stream::unfold(answer, |mut answer| async move {
        match answer.chunk().await {
            Ok(Some(chunk)) => Some((Ok::<_, reqwest::Error>(chunk), answer)),
            Ok(None) => None,
            Err(error) => Some((Err(error), answer)),
        }
    });
    response.body(Body::from_stream(chunks)).unwrap()
}

fn without_hops(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    headers
}

/// As the API server says no.
fn refusal(code: u16) -> Response {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let status = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": "the test says so",
    });
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (code, text, status.to_string()).into_response();
    if matches!(code, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
