//! A connection to one engine: bollard over our own transport, and the few calls that must not go through it.
//!
//! bollard writes request bodies and answers to the debug log. What is made from a spec, and what inspect
//! says of it, holds secrets in the environment: `create` and `inspect` therefore go past it.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use bollard::{BollardRequest, ClientVersion, Docker};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;

use super::dial::Dial;
use super::errors::{CallError, text};
use super::wire::{Info, Version};
use crate::model::Endpoint;

/// Longest wait for an answer that the engine only has to read.
pub(super) const READ: Duration = Duration::from_secs(10);
/// Longest wait for an answer that the engine has to work for. A loaded disk makes a create slow.
pub(super) const WRITE: Duration = Duration::from_secs(60);
/// Longest wait for the first word of a stream: an image pull speaks once its registry has.
const FIRST_WORD: u64 = 125;
/// The newest API whose answers we have read.
const NEWEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 47 };

type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// One engine, and the API version spoken with it. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    /// Everything else goes through here; every call needs a time limit of its own.
    pub docker: Docker,
    http: Client<Dial, Body>,
    base: String,
    version: String,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Engine {
    /// Connects and agrees on an API version.
    pub(super) async fn connect(endpoint: &Endpoint, ssh: &Path) -> Result<Self, CallError> {
        let dial =
            Dial::prepare(endpoint, ssh).await.map_err(|e| CallError::Transport(text(&e)))?;
        // Connections are kept for a while: over TLS and ssh a new one costs several round trips.
        let http: Client<Dial, Body> = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(2)
            .build(dial);
        let host = match endpoint {
            Endpoint::Tcp { authority, .. } => authority.as_str(),
            Endpoint::Unix { .. } | Endpoint::Ssh { .. } | Endpoint::Marathon => "docker",
        };
        let base = format!("http://{host}");
        let through = http.clone();
        let transport = move |request: BollardRequest| {
            let client = through.clone();
            async move {
                let request = request.map(BodyExt::boxed_unsync);
                client.request(request).await.map_err(bollard::errors::Error::from)
            }
        };
        let version = negotiate(&http, &base).await?;
        let docker = Docker::connect_with_custom_transport(
            transport,
            Some(base.as_str()),
            FIRST_WORD,
            &version,
        )?;
        Ok(Self { docker, http, base, version: format!("v{version}") })
    }

    /// What the host has, and what time it is there.
    pub(super) async fn info(&self) -> Result<Info, CallError> {
        self.get("/info").await
    }

    /// Reads an answer that fits `T`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        let uri = format!("{}/{}{path}", self.base, self.version);
        let bytes = call(&self.http, Method::GET, &uri, Bytes::new(), READ).await?;
        decode(&bytes)
    }

    /// Sends `body` as it is and takes whatever is said in return; nothing of either is logged.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let uri = format!("{}/{}{path}", self.base, self.version);
        send(&self.http, method, &uri, content_type, body, limit).await
    }

    /// Sends `body` as JSON and makes of the connection what it was before HTTP: bytes both ways.
    pub(super) async fn upgrade(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<Upgraded, CallError> {
        let body = serde_json::to_vec(body).map_err(|e| CallError::Garbled(e.to_string()))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/{}{path}", self.base, self.version))
            .header("content-type", "application/json")
            .header("connection", "Upgrade")
            .header("upgrade", "tcp")
            .body(boxed(body.into()))
            .map_err(|e| CallError::Transport(text(&e)))?;
        let answer = async {
            let response =
                self.http.request(request).await.map_err(|e| CallError::Transport(text(&e)))?;
            let status = response.status();
            if status == StatusCode::SWITCHING_PROTOCOLS {
                let upgraded = hyper::upgrade::on(response).await;
                return upgraded.map_err(|e| CallError::Transport(text(&e)));
            }
            if status.is_success() {
                let why = "the engine did not hand over the connection";
                return Err(CallError::Garbled(why.into()));
            }
            Err(refusal(status, &collect(response.into_body()).await?))
        };
        limited(READ, answer).await
    }

    /// Sends `body` as JSON and reads an answer that fits `T`.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, CallError> {
        let uri = format!("{}/{}{path}", self.base, self.version);
        let body = serde_json::to_vec(body).map_err(|e| CallError::Garbled(e.to_string()))?;
        let bytes = call(&self.http, Method::POST, &uri, body.into(), WRITE).await?;
        decode(&bytes)
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(bytes)
        .map_err(|e| CallError::Garbled(format!("the engine's answer cannot be read: {e}")))
}

/// An engine's refusal.
#[derive(serde::Deserialize)]
struct Said {
    message: String,
}

async fn call(
    http: &Client<Dial, Body>,
    method: Method,
    uri: &str,
    body: Bytes,
    limit: Duration,
) -> Result<Bytes, CallError> {
    send(http, method, uri, "application/json", body, limit).await
}

fn boxed(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

async fn collect(body: Incoming) -> Result<Bytes, CallError> {
    Ok(body.collect().await.map_err(|e| CallError::Transport(text(&e)))?.to_bytes())
}

fn refusal(status: StatusCode, bytes: &[u8]) -> CallError {
    let message = serde_json::from_slice::<Said>(bytes)
        .map_or_else(|_| String::from_utf8_lossy(bytes).into_owned(), |s| s.message);
    CallError::refused(status.as_u16(), &message)
}

async fn send(
    http: &Client<Dial, Body>,
    method: Method,
    uri: &str,
    content_type: &str,
    body: Bytes,
    limit: Duration,
) -> Result<Bytes, CallError> {
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header("content-type", content_type)
        .body(boxed(body))
        .map_err(|e| CallError::Transport(text(&e)))?;
    let answer = async {
        let response = http.request(request).await.map_err(|e| CallError::Transport(text(&e)))?;
        let status = response.status();
        let bytes = collect(response.into_body()).await?;
        if status.is_success() { Ok(bytes) } else { Err(refusal(status, &bytes)) }
    };
    limited(limit, answer).await
}

/// Any call, with a limit to its time.
pub(super) async fn limited<T, E: Into<CallError>>(
    limit: Duration,
    f: impl Future<Output = Result<T, E>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, f).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(CallError::Timeout(limit)),
    }
}

/// The newest version that both sides speak.
async fn negotiate(http: &Client<Dial, Body>, base: &str) -> Result<ClientVersion, CallError> {
    let uri = format!("{base}/version");
    let bytes = match call(http, Method::GET, &uri, Bytes::new(), READ).await {
        Err(CallError::Refused { status, message }) => {
            return Err(CallError::Garbled(format!(
                "answers as HTTP but not as a Docker Engine (status {status}: {message})"
            )));
        }
        other => other?,
    };
    let not = || CallError::Garbled("answers as HTTP but not as a Docker Engine".into());
    let Version { api_version, min_api_version } =
        serde_json::from_slice(&bytes).map_err(|_| not())?;
    let newest = api_version.as_deref().and_then(version_of).ok_or_else(not)?;
    if newest >= NEWEST {
        let oldest = min_api_version.as_deref().and_then(version_of).unwrap_or(NEWEST);
        return Ok(if oldest > NEWEST { oldest } else { NEWEST });
    }
    if newest < (ClientVersion { major_version: 1, minor_version: 41 }) {
        return Err(CallError::Garbled(format!(
            "speaks API {newest}; the oldest that is supported is 1.41 (Docker Engine 20.10)"
        )));
    }
    Ok(newest)
}

fn version_of(text: &str) -> Option<ClientVersion> {
    let (major, minor) = text.split_once('.')?;
    Some(ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? })
}
