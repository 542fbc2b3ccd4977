//! The API as a function: a request and the state in, an answer out. Nothing here knows of connections.

mod apps;
mod groups;
mod select;
mod system;
mod tasks;

use serde_json::{Value, json};

use super::change::Accepted;
use super::read::Read;
use super::refusal::Refusal;
use super::release::Release;
use super::stamp::Stamp;
use super::state::State;

/// A request that has arrived as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    pub(super) method: String,
    /// Decoded.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) accept: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) body: Vec<u8>,
    pub(super) client: String,
    /// The port that it came to.
    pub(super) port: u16,
    /// Host and port of whoever leads.
    pub(super) leader: String,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Nothing,
    Json(Value),
    Text(String),
    Html(String),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) content: Content,
}

impl Answer {
    fn json(body: Value) -> Self {
        Self { status: 200, headers: Vec::new(), content: Content::Json(body) }
    }

    fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), content: Content::Nothing }
    }

    /// As the web server itself says no, before Marathon is asked.
    pub(super) fn html(status: u16, reason: &str) -> Self {
        let page = format!(
            "<html>\n<head>\n<meta http-equiv=\"Content-Type\" content=\"text/html;charset=utf-8\"/>\n\
             <title>Error {status} {reason}</title>\n</head>\n<body><h2>HTTP ERROR {status}</h2>\n\
             <p>Reason:\n<pre>    {reason}</pre></p>\n</body>\n</html>\n"
        );
        Self { status, headers: Vec::new(), content: Content::Html(page) }
    }

    /// A change that was accepted.
    fn accepted(accepted: &Accepted) -> Self {
        let body = json!({"version": accepted.version.json(), "deploymentId": accepted.id});
        let headers = vec![("Marathon-Deployment-Id", accepted.id.clone())];
        Self { status: 200, headers, content: Content::Json(body) }
    }

    fn created(mut self, location: &str) -> Self {
        self.status = 201;
        self.headers.push(("Location", location.to_owned()));
        self
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self { status: refusal.status, ..Self::json(refusal.body) }
    }
}

impl Call {
    fn asked(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn all<'c>(&'c self, name: &'c str) -> impl Iterator<Item = &'c str> + Clone {
        self.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `true` and nothing else says yes.
    fn flag(&self, name: &str, default: bool) -> bool {
        self.asked(name).map_or(default, |value| value.eq_ignore_ascii_case("true"))
    }

    /// Whether a body that is read as JSON says that it is something else.
    fn is_foreign(&self) -> bool {
        let kind =
            self.content_type.as_deref().map(|kind| kind.split(';').next().unwrap_or(kind).trim());
        kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("application/json") && kind != "*/*")
    }
}

/// What became of a call, and which fields of its body meant nothing.
pub(super) struct Done {
    pub(super) answer: Answer,
    pub(super) ignored: Vec<String>,
}

/// Answers a call.
pub(super) fn answer(state: &mut State, call: &Call, now: Stamp) -> Done {
    let mut read = Read::new(state.settings.release);
    let answer = route(state, call, &mut read, now).unwrap_or_else(Answer::from);
    Done { answer, ignored: read.ignored }
}

fn route(state: &mut State, call: &Call, read: &mut Read, now: Stamp) -> Result<Answer, Refusal> {
    let path = call.path.trim_end_matches('/');
    let release = state.settings.release;
    let rest = |root: &str| {
        let rest = path.strip_prefix(root)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
    };
    if let Some(rest) = rest("/v2/apps") {
        return apps::route(state, call, read, rest, now);
    }
    if let Some(rest) = rest("/v2/groups") {
        return groups::route(state, call, read, rest, now);
    }
    if let Some(rest) = rest("/v2/tasks") {
        return tasks::route(state, call, read, rest, now);
    }
    system::route(state, call, path, now).unwrap_or_else(|| Err(Refusal::lost(release, &call.path)))
}

/// A path that is there, with a method that is not.
fn no_method() -> Refusal {
    Refusal { status: 405, body: json!({"message": "Method Not Allowed"}) }
}

fn foreign() -> Refusal {
    Refusal { status: 415, body: json!({"message": "Unsupported Media Type"}) }
}

/// What a request may not say of this release.
fn gate(release: Release, minor: u32) -> Result<(), Refusal> {
    if release.has(minor) { Ok(()) } else { Err(no_method()) }
}
