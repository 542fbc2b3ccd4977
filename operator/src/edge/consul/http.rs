//! One call to an agent: bounded in time and size, with the token read anew, and never a secret in an error.

use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::credential;
use crate::error::{PortError, Remedy};
use crate::model::{ConsulSpec, Credential};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest answer that is read.
const LONGEST_ANSWER: usize = 32 << 20;
/// As much of a refusal is shown.
const SHOWN: usize = 200;
const CONNECT: Duration = Duration::from_secs(2);
/// How long a call may take that waits for nothing.
pub(super) const CALL: Duration = Duration::from_secs(5);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("consul's address {0:?} is no http or https URL")]
    Address(String),
    #[error("cannot read {what}")]
    File {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the token in {0} is no token")]
    Token(String),
    #[error("the certificates for consul cannot be used: {0}")]
    Tls(String),
    #[error("{at} does not answer: {why}")]
    Silent { at: String, why: String },
    #[error("{at} refuses: {status}{said}")]
    Refused { at: String, status: u16, said: Said },
    #[error("{at} has no leader")]
    Leaderless { at: String },
    #[error("{at} answers what consul does not: {why}")]
    Strange { at: String, why: String },
}

/// What came with a refusal, made fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

impl CallError {
    /// Whether trying again soon makes no sense: what was sent, or a file, must change first.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Address(_) | Self::Token(_) | Self::Tls(_) | Self::File { .. } => true,
            Self::Refused { status, .. } => *status < 500 && *status != 429 && *status != 408,
            Self::Silent { .. } | Self::Leaderless { .. } | Self::Strange { .. } => false,
        }
    }

    /// Whether the agent itself was not reached, so that nothing else needs to be tried there.
    pub(super) fn is_of_all(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }

    pub(super) fn while_doing(self, doing: &str) -> PortError {
        let remedy = if self.is_final() { Remedy::Hold } else { Remedy::Retry };
        PortError::new(doing, remedy, self)
    }
}

/// Where an agent is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Base {
    url: Url,
}

impl Base {
    /// The address of a spec; a path in front of the API is kept.
    pub(super) fn parse(address: &str) -> Result<Self, CallError> {
        // Credentials in an address must not be shown.
        let shown = || address.rsplit('@').next().unwrap_or_default().chars().take(100).collect();
        let url = Url::parse(address.trim()).map_err(|_| CallError::Address(shown()))?;
        let good = matches!(url.scheme(), "http" | "https") && url.has_host();
        if good { Ok(Self { url }) } else { Err(CallError::Address(shown())) }
    }

    /// A host's own agent, spoken to in the same way.
    pub(super) fn of_host(&self, host: &str, port: u16) -> Result<Self, CallError> {
        let bracketed = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        Self::parse(&format!("{}://{bracketed}:{port}", self.url.scheme()))
    }

    fn join(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.url.clone();
        let front = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{front}{path}"));
        url.set_query(None);
        url.set_fragment(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }
}

impl fmt::Debug for Base {
    /// The address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Base {
    /// Without what may be secret in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        write!(f, "{}://{host}", self.url.scheme())?;
        if let Some(port) = self.url.port_or_known_default() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.url.path().trim_end_matches('/'))
    }
}

/// An answer that is JSON, and where the data is in time.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub(super) body: T,
    /// `X-Consul-Index`; 0 where there is none.
    pub(super) index: u64,
}

/// Speaks to the agents of one registry.
pub(super) struct Http {
    spec: ConsulSpec,
    client: Mutex<Option<Client>>,
}

/// A call that was made.
struct Asked {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    /// Cut from what is shown.
    token: Option<String>,
}

impl Http {
    pub(super) fn new(spec: ConsulSpec) -> Self {
        Self { spec, client: Mutex::new(None) }
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        base: &Base,
        path: &str,
        query: &[(&str, &str)],
        within: Duration,
    ) -> Result<Answer<T>, CallError> {
        let asked = self.ask(Method::GET, base, path, query, None, within).await?;
        if !asked.status.is_success() {
            return Err(refused(base, &asked));
        }
        read(base, &asked)
    }

    /// The same, where 429 comes with a body that counts.
    pub(super) async fn get_even_sick<T: DeserializeOwned>(
        &self,
        base: &Base,
        path: &str,
    ) -> Result<T, CallError> {
        let asked = self.ask(Method::GET, base, path, &[], None, CALL).await?;
        let sick = asked.status == StatusCode::TOO_MANY_REQUESTS;
        if !asked.status.is_success() && !sick {
            return Err(refused(base, &asked));
        }
        match read(base, &asked) {
            Ok(answer) => Ok(answer.body),
            Err(_) if sick => Err(refused(base, &asked)),
            Err(e) => Err(e),
        }
    }

    pub(super) async fn put(
        &self,
        base: &Base,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<(), CallError> {
        self.put_asked(base, path, query, body).await.map(|_| ())
    }

    /// The same where the answer counts.
    pub(super) async fn put_for<T: DeserializeOwned>(
        &self,
        base: &Base,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, CallError> {
        let asked = self.put_asked(base, path, query, body).await?;
        Ok(read(base, &asked)?.body)
    }

    async fn put_asked(
        &self,
        base: &Base,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<Asked, CallError> {
        let body = body.map(serde_json::to_vec).transpose();
        let body =
            body.map_err(|e| CallError::Strange { at: base.to_string(), why: e.to_string() });
        let asked = self.ask(Method::PUT, base, path, query, body?, CALL).await?;
        if asked.status.is_success() { Ok(asked) } else { Err(refused(base, &asked)) }
    }

    async fn ask(
        &self,
        method: Method,
        base: &Base,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Vec<u8>>,
        within: Duration,
    ) -> Result<Asked, CallError> {
        let token = self.token().await?;
        let client = self.client().await?;
        let mut request = client.request(method, base.join(path, query)).timeout(within);
        if let Some(token) = &token {
            let named = || self.spec.token.as_ref().map(ToString::to_string).unwrap_or_default();
            let mut value = HeaderValue::from_str(token).map_err(|_| CallError::Token(named()))?;
            value.set_sensitive(true);
            request = request.header("X-Consul-Token", value);
        }
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        let silent = |e: reqwest::Error| {
            // Certificates may have been replaced: they are read again at the next call.
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
            CallError::Silent { at: base.to_string(), why: last_cause(e) }
        };
        let mut answer = request.send().await.map_err(silent)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(silent)? {
            if body.len() + chunk.len() > LONGEST_ANSWER {
                let why = format!("more than {} MiB", LONGEST_ANSWER >> 20);
                return Err(CallError::Strange { at: base.to_string(), why });
            }
            body.extend_from_slice(&chunk);
        }
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok(Asked { status, headers, body, token })
    }

    /// Read at every call: it is a short file, and may be renewed at any time.
    async fn token(&self) -> Result<Option<String>, CallError> {
        let Some(token) = &self.spec.token else { return Ok(None) };
        let no_token = || CallError::Token(token.to_string());
        let text = String::from_utf8(read_all(token).await?).map_err(|_| no_token())?;
        let text = text.trim();
        if text.is_empty() { Err(no_token()) } else { Ok(Some(text.into())) }
    }

    async fn client(&self) -> Result<Client, CallError> {
        let held = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(client) = held {
            return Ok(client);
        }
        let client = build(&self.spec).await?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }
}

async fn build(spec: &ConsulSpec) -> Result<Client, CallError> {
    let tls = |e: reqwest::Error| CallError::Tls(last_cause(e));
    let mut builder = Client::builder()
        // The machines of a fleet are not asked through a proxy, and nobody else may send us elsewhere with a token.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .user_agent(concat!("evenkeel/", env!("CARGO_PKG_VERSION")));
    if let Some(files) = &spec.tls {
        if let Some(ca) = &files.ca {
            let certificates = reqwest::Certificate::from_pem_bundle(&read_all(ca).await?);
            let certificates = certificates.map_err(tls)?;
            if certificates.is_empty() {
                return Err(CallError::Tls(format!("{ca} holds none")));
            }
            builder = builder.tls_certs_only(certificates);
        }
        if let Some((certificate, key)) = &files.identity {
            let mut pem = read_all(certificate).await?;
            pem.push(b'\n');
            pem.extend(read_all(key).await?);
            builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(tls)?);
        }
    }
    builder.build().map_err(tls)
}

async fn read_all(credential: &Credential) -> Result<Vec<u8>, CallError> {
    let failed = |source| CallError::File { what: credential.to_string(), source };
    credential::read(credential).await.map_err(failed)
}

fn read<T: DeserializeOwned>(base: &Base, asked: &Asked) -> Result<Answer<T>, CallError> {
    let header = |name: &str| asked.headers.get(name).and_then(|value| value.to_str().ok());
    if header("X-Consul-KnownLeader").is_some_and(|known| known == "false") {
        return Err(CallError::Leaderless { at: base.to_string() });
    }
    let body = serde_json::from_slice(&asked.body).map_err(|e| CallError::Strange {
        at: base.to_string(),
        // The column only: what does not fit may be anything.
        why: format!("no JSON of the right shape (line {}, column {})", e.line(), e.column()),
    })?;
    Ok(Answer { body, index: header("X-Consul-Index").and_then(|i| i.parse().ok()).unwrap_or(0) })
}

fn refused(base: &Base, asked: &Asked) -> CallError {
    let text = String::from_utf8_lossy(&asked.body[..asked.body.len().min(4 * SHOWN)]).into_owned();
    if text.contains("No cluster leader") {
        return CallError::Leaderless { at: base.to_string() };
    }
    let text = match &asked.token {
        Some(token) => text.replace(token.as_str(), "(token)"),
        None => text,
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let said = words.join(" ").chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    CallError::Refused { at: base.to_string(), status: asked.status.as_u16(), said: Said(said) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_front_is_kept() {
        let base = Base::parse("https://user:word@proxy.example/consul/").unwrap();
        assert_eq!(
            base.join("/v1/agent/services", &[("filter", "ID matches \"^a/b/\"")]).as_str(),
            "https://user:word@proxy.example/consul/v1/agent/services?filter=ID+matches+%22%5Ea%2Fb%2F%22"
        );
        assert_eq!(base.to_string(), "https://proxy.example:443/consul");
        assert_eq!(format!("{base:?}"), base.to_string());
    }

    #[test]
    fn ids_stay_whole_in_a_path() {
        let base = Base::parse("http://127.0.0.1:8500").unwrap();
        let url = base.join("/v1/agent/service/deregister/me/shop/web/h1/1/000100000000", &[]);
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:8500/v1/agent/service/deregister/me/shop/web/h1/1/000100000000"
        );
    }

    #[test]
    fn the_agents_of_hosts_are_spoken_to_alike() {
        let base = Base::parse("https://u:p@consul.example:8501/x").unwrap();
        let agent = |host: &str| base.of_host(host, 8501).unwrap().join("/v1/x", &[]).to_string();
        assert_eq!(agent("10.0.0.1"), "https://10.0.0.1:8501/v1/x");
        assert_eq!(agent("fd00::1"), "https://[fd00::1]:8501/v1/x");
    }

    #[test]
    fn what_is_no_address_is_said_without_its_secrets() {
        for bad in
            ["", "127.0.0.1:8500", "unix:///x", "ftp://u:word@h/", "http://", "http//u:word@h"]
        {
            let error = Base::parse(bad).unwrap_err();
            assert!(error.is_final());
            assert!(!error.to_string().contains("word"), "{error}");
        }
    }
}
