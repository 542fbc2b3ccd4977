//! The agent's API: what the report says, as JSON, and a doorbell for webhooks. It changes nothing.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /livez` | 200 while the loop lives, else 503 |
//! | `GET /readyz` | 200 once the source was read and every fleet has passed once, and on standby |
//! | `GET /metrics` | text for Prometheus |
//! | `GET /api/v1/status` | [`StatusView`] |
//! | `GET /api/v1/services/{name}` | the same for one service; 404 with the nearest name |
//! | `GET /api/v1/plan` | [`PlansView`](crate::report::view::PlansView): the newest plan of every fleet |
//! | `GET /api/v1/events?since=N&service=S&limit=M` | [`EventsView`](crate::report::view::EventsView) |
//! | `GET /api/v1/watch?since=G&service=S&wait=SECONDS` | the status as soon as its generation is another than G, or when the wait (at most 30, default 25) is over |
//! | `POST /webhook` | 202 and the source is read now; 401 unless signed; 503 without a secret |
//!
//! Errors are `{error, hint}`. There is no login: the default is this machine only, and what is
//! served holds no secret.

mod server;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::bell::Doorbell;
use crate::metrics;
use crate::model::ServiceName;
use crate::report::Report;
use crate::report::events;
use crate::report::view::{ErrorView, StatusView};

pub use server::{HttpError, Limits, bind, serve};

/// Largest body of a webhook, bytes.
const BODY: usize = 1 << 20;
/// A body must have arrived within this time.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Longest wait of a watch.
const LONGEST_WAIT: u64 = 30;
/// Watches at a time; one more is told to come back.
const WATCHES: usize = 32;
/// Changes come in bursts; a watcher is told of a burst once.
const SETTLE: Duration = Duration::from_millis(50);

/// Says whether whoever sent these headers and this body may ring. The error is for the log only.
pub type Verifier = dyn Fn(&HeaderMap, &[u8]) -> Result<(), String> + Send + Sync;

/// What the API needs beside the report.
#[derive(Clone)]
pub struct Api {
    /// What is shown.
    pub report: Report,
    /// Rung by a good webhook.
    pub bell: Doorbell,
    /// `None` while no secret is configured.
    pub webhook: Option<Arc<Verifier>>,
    /// A loop that gave no sign for longer than this is dead.
    pub alive_within: Duration,
}

struct Shared {
    api: Api,
    watches: Semaphore,
}

/// The routes, for [`serve`].
pub fn router(api: Api) -> Router {
    let shared = Arc::new(Shared { api, watches: Semaphore::new(WATCHES) });
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/api/v1/status", get(status))
        .route("/api/v1/services/{name}", get(service))
        .route("/api/v1/plan", get(plan))
        .route("/api/v1/events", get(list_events))
        .route("/api/v1/watch", get(watch))
        .route("/webhook", post(webhook))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(shared)
}

fn json(code: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut r = (code, body).into_response();
            let h = r.headers_mut();
            h.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            h.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            h.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            r
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn error(code: StatusCode, error: impl Into<String>, hint: Option<String>) -> Response {
    json(code, &ErrorView { error: error.into(), hint })
}

#[derive(Serialize)]
struct Fine {
    status: &'static str,
}

async fn livez(State(s): State<Arc<Shared>>) -> Response {
    let silent = s.api.report.silent_for();
    if silent <= s.api.alive_within {
        return json(StatusCode::OK, &Fine { status: "alive" });
    }
    error(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("the loop has given no sign for {} s", silent.as_secs()),
        Some("restart the agent; what runs goes on running".into()),
    )
}

async fn readyz(State(s): State<Arc<Shared>>) -> Response {
    match s.api.report.unready() {
        None => json(StatusCode::OK, &Fine { status: "ready" }),
        Some(why) => error(StatusCode::SERVICE_UNAVAILABLE, why, None),
    }
}

async fn metrics_text(State(s): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], s.api.report.metrics()).into_response()
}

async fn status(State(s): State<Arc<Shared>>) -> Response {
    json(StatusCode::OK, &s.api.report.status(None))
}

async fn service(State(s): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    match one(&s.api.report, &name) {
        Ok(view) => json(StatusCode::OK, &view),
        Err(r) => *r,
    }
}

fn one(report: &Report, name: &str) -> Result<StatusView, Box<Response>> {
    let parsed =
        ServiceName::new(name).map_err(|e| error(StatusCode::BAD_REQUEST, e.to_string(), None))?;
    let view = report.status(Some(&parsed));
    if view.services.is_empty() {
        let known = report.service_names();
        let near = known
            .iter()
            .map(|k| (strsim::jaro_winkler(k, name), k))
            .filter(|(likeness, _)| *likeness > 0.75)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = near.map(|(_, k)| format!("did you mean \"{k}\"?"));
        let text = format!("there is no service \"{name}\"");
        return Err(Box::new(error(StatusCode::NOT_FOUND, text, hint)));
    }
    Ok(view)
}

async fn plan(State(s): State<Arc<Shared>>) -> Response {
    json(StatusCode::OK, &s.api.report.plans())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    since: u64,
    service: Option<String>,
    limit: Option<usize>,
    wait: Option<u64>,
}

/// Reads the query; what it cannot be is said, not ignored.
fn asked(
    query: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Result<(Asked, Option<ServiceName>), Box<Response>> {
    let bad = |text: String, hint| Box::new(error(StatusCode::BAD_REQUEST, text, hint));
    let Query(asked) = query.map_err(|e| {
        let hint = "since, limit and wait are whole numbers, service is a name";
        bad(e.body_text(), Some(hint.into()))
    })?;
    let service = asked.service.as_deref().map(ServiceName::new).transpose();
    let service = service.map_err(|e| bad(e.to_string(), None))?;
    Ok((asked, service))
}

async fn list_events(
    State(s): State<Arc<Shared>>,
    query: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Response {
    match asked(query) {
        Ok((a, service)) => {
            let most = a.limit.unwrap_or(events::MOST).clamp(1, events::MOST);
            json(StatusCode::OK, &s.api.report.events(a.since, service.as_ref(), most))
        }
        Err(r) => *r,
    }
}

async fn watch(
    State(s): State<Arc<Shared>>,
    query: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let (a, service) = match asked(query) {
        Ok(a) => a,
        Err(r) => return *r,
    };
    let Ok(_one) = s.watches.try_acquire() else {
        return error(
            StatusCode::TOO_MANY_REQUESTS,
            format!("{WATCHES} are watching already"),
            Some("ask /api/v1/status now and then instead".into()),
        );
    };
    let wait = Duration::from_secs(a.wait.unwrap_or(25).min(LONGEST_WAIT));
    let mut generation = s.api.report.subscribe();
    // Another generation, not a later one: after a restart the agent counts from the beginning.
    let changed = async {
        if generation.wait_for(|g| *g != a.since).await.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
    };
    let _ = tokio::time::timeout(wait, changed).await;
    json(StatusCode::OK, &s.api.report.status(service.as_ref()))
}

async fn webhook(State(s): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    let Some(verify) = &s.api.webhook else {
        return error(
            StatusCode::SERVICE_UNAVAILABLE,
            "no webhook secret is configured",
            Some("start the agent with --webhook-secret-file".into()),
        );
    };
    let read = Limited::new(body, BODY).collect();
    let body = match tokio::time::timeout(BODY_TIME, read).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
            return error(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB", None);
        }
        Ok(Err(_)) => return error(StatusCode::BAD_REQUEST, "the body broke off", None),
        Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the body took too long", None),
    };
    match verify(&headers, &body) {
        Ok(()) => {
            s.api.bell.ring();
            json(StatusCode::ACCEPTED, &Fine { status: "the source is read now" })
        }
        Err(why) => {
            tracing::debug!(why, "webhook refused");
            error(StatusCode::UNAUTHORIZED, "the signature does not match", None)
        }
    }
}

async fn not_found() -> Response {
    error(
        StatusCode::NOT_FOUND,
        "there is nothing here",
        Some("/livez, /readyz, /metrics, /api/v1/status, /api/v1/services/{name}, /api/v1/plan, /api/v1/events, /api/v1/watch, POST /webhook".into()),
    )
}

async fn wrong_method() -> Response {
    error(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not take this method",
        Some("everything is GET, only /webhook is POST".into()),
    )
}

#[cfg(test)]
mod tests;
