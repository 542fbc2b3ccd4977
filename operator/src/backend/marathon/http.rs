//! One call to a Marathon cluster: its members in turn, bounded in time and size, with the credentials read anew.
//!
//! A change is sent to the next member only where it cannot have arrived at the one before. Redirects are followed by hand, with
//! the credentials, and only to a member or to the leader.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Client, Method, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{CallError, is_html};
use super::member::{Member, shown};
use super::wire::Leader;
use crate::credential;
use crate::model::{Credential, MarathonAuth, MarathonSpec};

/// The longest answer that is read.
const LONGEST_ANSWER: usize = 64 << 20;
/// Redirects in a row.
const HOPS: usize = 3;
const CONNECT: Duration = Duration::from_secs(3);
/// How long a call may take: a standby waits 3 s for a leader, and 10 s for its answer.
pub(super) const CALL: Duration = Duration::from_secs(15);
/// How long the list of everything may take.
pub(super) const LIST: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    method: Method,
    path: &'a str,
    query: &'a [(&'a str, &'a str)],
    body: Vec<u8>,
    within: Duration,
}

impl<'a> Call<'a> {
    pub(super) fn get(path: &'a str, query: &'a [(&'a str, &'a str)]) -> Self {
        Self { method: Method::GET, path, query, body: Vec::new(), within: CALL }
    }

    /// A change, with a body unless it is null.
    pub(super) fn change(
        method: Method,
        path: &'a str,
        query: &'a [(&'a str, &'a str)],
        body: &Value,
    ) -> Self {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        Self { method, path, query, body, within: CALL }
    }

    pub(super) fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    fn is_change(&self) -> bool {
        self.method != Method::GET
    }
}

/// Speaks to one cluster.
pub(super) struct Http {
    members: Vec<Member>,
    auth: Option<MarathonAuth>,
    client: Result<Client, String>,
    /// Who answered last.
    first: AtomicUsize,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Http({:?})", self.members)
    }
}

/// A call that was answered.
struct Answer {
    at: String,
    status: u16,
    location: Option<String>,
    body: Vec<u8>,
}

/// Why one member gave no answer.
enum Failed {
    /// It did not answer. `sent`: the request may have arrived.
    Silent { why: String, sent: bool },
    /// It is no use, and another one may be.
    Useless(CallError),
    /// No other one would do better.
    Final(CallError),
}

impl Http {
    pub(super) fn new(spec: &MarathonSpec) -> Self {
        let client = Client::builder()
            // Nobody else may see what is sent, or send us elsewhere with a password.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .user_agent(concat!("evenkeel/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            members: spec.urls.iter().filter_map(|url| Member::parse(url)).collect(),
            auth: spec.auth.clone(),
            client: client.map_err(last_cause),
            first: AtomicUsize::new(0),
        }
    }

    /// Asks, and reads the answer as JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, CallError> {
        let answer = self.ask(&call).await?;
        serde_json::from_slice(&answer.body).map_err(|e| {
            let why = if is_html(&answer.body) {
                "an HTML page".to_owned()
            } else {
                // The place only: what does not fit may be anything.
                format!("no JSON of the right shape (line {}, column {})", e.line(), e.column())
            };
            // The change was accepted: only what came of it is not known.
            if call.is_change() {
                CallError::Uncertain { at: answer.at, why }
            } else {
                CallError::Strange { at: answer.at, why }
            }
        })
    }

    async fn ask(&self, call: &Call<'_>) -> Result<Answer, CallError> {
        let mut last = None;
        for (index, member) in self.in_turn() {
            let failed = match self.follow(member, call).await {
                Ok(answer) if (200..300).contains(&answer.status) => {
                    self.first.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(answer) => {
                    // Below 500 nobody else knows better.
                    let settled = answer.status < 500 || is_no_route(&answer.body);
                    let error = CallError::refused(answer.at.clone(), answer.status, &answer.body);
                    if settled {
                        self.first.store(index, Ordering::Relaxed);
                        return Err(error);
                    }
                    if call.is_change() {
                        let why = error.to_string();
                        return Err(CallError::Uncertain { at: answer.at, why });
                    }
                    error
                }
                Err(Failed::Silent { why, sent: true }) if call.is_change() => {
                    return Err(CallError::Uncertain { at: member.to_string(), why });
                }
                Err(Failed::Final(error)) => return Err(error),
                Err(failed) => failed.of(member),
            };
            last.get_or_insert(failed);
        }
        Err(last.unwrap_or_else(nobody))
    }

    /// The members, beginning with the one that answered last.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &Member)> {
        let first = self.first.load(Ordering::Relaxed);
        let all = self.members.iter().enumerate();
        all.clone().skip(first).chain(all.take(first))
    }

    /// Asks one member, and whom it sends us to.
    async fn follow(&self, member: &Member, call: &Call<'_>) -> Result<Answer, Failed> {
        let mut url = member.join(call.path, call.query);
        for _ in 0..=HOPS {
            let answer = self.once(&url, call).await?;
            let kept = matches!(answer.status, 307 | 308);
            let moved = kept || (!call.is_change() && matches!(answer.status, 301..=303));
            let Some(to) = answer.location.as_deref().filter(|_| moved) else {
                return Ok(answer);
            };
            url = self.target(member, &url, to).await?;
        }
        Err(Failed::Silent { why: CIRCLES.to_owned(), sent: false })
    }

    /// Where a redirect leads, if we may go there.
    async fn target(&self, member: &Member, from: &Url, to: &str) -> Result<Url, Failed> {
        let astray = |to: String| Failed::Useless(CallError::Astray { at: shown(from), to });
        let url = from.join(to).map_err(|_| astray("what is no url".to_owned()))?;
        if self.members.iter().any(|m| m.is_of(&url)) {
            return Ok(url);
        }
        let call = Call::get("/v2/leader", &[]);
        let asked = self.once(&member.join(call.path, call.query), &call).await?;
        match serde_json::from_slice(&asked.body) {
            Ok(Leader { leader }) if member.may_follow(&url, &leader) => Ok(url),
            _ => Err(astray(shown(&url))),
        }
    }

    /// One request, and its answer in full. When credentials are refused that have been renewed since, they are tried.
    async fn once(&self, url: &Url, call: &Call<'_>) -> Result<Answer, Failed> {
        let mut credentials = self.credentials().await?;
        loop {
            let work = async {
                let sent = self.send(url, call, "application/json", credentials.clone()).await?;
                read(sent).await
            };
            let late = || Failed::Silent { why: "not in time".to_owned(), sent: true };
            let answer = tokio::time::timeout(call.within, work).await.map_err(|_| late())??;
            if answer.status != 401 {
                return Ok(answer);
            }
            let renewed = self.credentials().await?;
            if renewed == credentials {
                return Ok(answer);
            }
            credentials = renewed;
        }
    }

    /// Opens a stream of events at any member that gives one.
    pub(super) async fn stream(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Response, CallError> {
        let mut last = None;
        let call = Call::get(path, query);
        for (index, member) in self.in_turn() {
            let late = || Failed::Silent { why: "not in time".to_owned(), sent: true };
            let opened = tokio::time::timeout(CALL, self.open(member, &call)).await;
            match opened.unwrap_or_else(|_| Err(late())) {
                Ok(stream) => {
                    self.first.store(index, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(failed) => last.get_or_insert(failed.of(member)),
            };
        }
        Err(last.unwrap_or_else(nobody))
    }

    async fn open(&self, member: &Member, call: &Call<'_>) -> Result<Response, Failed> {
        let mut url = member.join(call.path, call.query);
        for _ in 0..=HOPS {
            let credentials = self.credentials().await?;
            // Anything more than this is answered with 405.
            let answer = self.send(&url, call, "text/event-stream", credentials).await?;
            let status = answer.status();
            if status.is_redirection()
                && let Some(to) = location(&answer)
            {
                url = self.target(member, &url, &to).await?;
                continue;
            }
            if !status.is_success() {
                let read = read(answer).await?;
                return Err(Failed::Useless(CallError::refused(read.at, read.status, &read.body)));
            }
            let kind = answer.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
            if kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
                return Ok(answer);
            }
            let why = "no stream of events".to_owned();
            return Err(Failed::Useless(CallError::Strange { at: shown(&url), why }));
        }
        Err(Failed::Silent { why: CIRCLES.to_owned(), sent: false })
    }

    async fn send(
        &self,
        url: &Url,
        call: &Call<'_>,
        accept: &'static str,
        credentials: Option<HeaderValue>,
    ) -> Result<Response, Failed> {
        let client = self.client.as_ref();
        let client = client.map_err(|why| Failed::Final(CallError::Client(why.clone())))?;
        let mut request = client.request(call.method.clone(), url.clone()).header(ACCEPT, accept);
        if let Some(credentials) = credentials {
            request = request.header(AUTHORIZATION, credentials);
        }
        if call.is_change() {
            // A standby hands on a body of unknown length as none, so an empty one has its length too.
            request = request
                .header(CONTENT_TYPE, "application/json")
                .header(CONTENT_LENGTH, call.body.len())
                .body(call.body.clone());
        }
        request.send().await.map_err(|e| {
            let sent = !e.is_connect();
            Failed::Silent { why: last_cause(e), sent }
        })
    }

    /// Read at every call: it is a short file, and may be renewed at any time.
    async fn credentials(&self) -> Result<Option<HeaderValue>, Failed> {
        let (from, text) = match &self.auth {
            None => return Ok(None),
            Some(MarathonAuth::Basic { username, password: credential }) => {
                let password = secret(credential).await?;
                let both = format!("{username}:{password}");
                let both = base64::engine::general_purpose::STANDARD.encode(both);
                (credential, format!("Basic {both}"))
            }
            Some(MarathonAuth::Token { token }) => {
                (token, format!("token={}", secret(token).await?))
            }
        };
        let value = HeaderValue::from_str(&text);
        let mut value =
            value.map_err(|_| Failed::Final(CallError::Credentials(from.to_string())))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl Failed {
    fn of(self, member: &Member) -> CallError {
        match self {
            Self::Silent { why, sent: _ } => CallError::Silent { at: member.to_string(), why },
            Self::Useless(error) | Self::Final(error) => error,
        }
    }
}

/// Why a member is given up that sends us from one place to the next.
const CIRCLES: &str = "it sends us in circles";

fn nobody() -> CallError {
    CallError::Client("there is no url of Marathon".to_owned())
}

/// An unknown path is a 500 on Marathon.
fn is_no_route(body: &[u8]) -> bool {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    json.is_some_and(|j| j.get("message").is_some_and(|m| m == "URI not found"))
}

fn location(answer: &Response) -> Option<String> {
    answer.headers().get(LOCATION)?.to_str().ok().map(str::to_owned)
}

/// Reads an answer to its end.
async fn read(mut answer: Response) -> Result<Answer, Failed> {
    let (at, status, location) = (shown(answer.url()), answer.status().as_u16(), location(&answer));
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(None) => return Ok(Answer { at, status, location, body }),
            Ok(Some(chunk)) if body.len() + chunk.len() > LONGEST_ANSWER => {
                let why = format!("an answer of more than {} MiB", LONGEST_ANSWER >> 20);
                return Err(Failed::Silent { why, sent: true });
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(e) => return Err(Failed::Silent { why: last_cause(e), sent: true }),
        }
    }
}

async fn secret(credential: &Credential) -> Result<String, Failed> {
    let path = || credential.to_string();
    let failed = |source| Failed::Final(CallError::File { path: path(), source });
    let useless = || Failed::Final(CallError::Credentials(path()));
    let bytes = credential::read(credential).await.map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|_| useless())?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() { Err(useless()) } else { Ok(text.to_owned()) }
}

/// The last cause says it; those before it only say that there is one.
fn last_cause(error: reqwest::Error) -> String {
    let timeout = error.is_timeout();
    let error = error.without_url();
    let mut cause: &dyn Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if timeout { "not in time".to_owned() } else { cause.to_string() }
}
