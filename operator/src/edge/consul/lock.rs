//! A key that a session of Consul holds, as the ledger of an election: agents on several machines stand by for each other.
//!
//! Consul ends a session that nobody renewed for its time to live or longer, never sooner; so who renewed a moment ago may
//! believe for less than that that the key is its own. One that is ended by hand frees the key too, but then nobody can
//! take it for the lock-delay, which is longer than anybody believes. No health check ends it: an agent of Consul that
//! restarts is no reason to hand over.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::http::{Base, CALL, CallError, Http};
use crate::elect::candidate::{Record, Times};
use crate::elect::{Ledger, Refusal, Why};
use crate::error::{PortError, causes};
use crate::model::ConsulSpec;

/// The times that go with it: ten seconds is the least that Consul takes for a session.
pub const TIMES: Times = Times {
    lasts: Duration::from_secs(10),
    renew: Duration::from_secs(7),
    retry: Duration::from_secs(2),
};
/// After a session was ended by force nobody takes its key for so long: who held it has stopped believing so by then, and
/// what it had begun has been broken off.
const LOCK_DELAY: Duration = Duration::from_secs(10);

/// A key and our session.
pub struct SessionLedger {
    http: Http,
    base: Base,
    key: String,
    me: String,
    session: Mutex<Session>,
}

#[derive(Default)]
struct Session {
    id: Option<String>,
    /// Whether the key was ours when we looked last.
    held: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wanted<'a> {
    name: &'a str,
    #[serde(rename = "TTL")]
    ttl: String,
    lock_delay: String,
    behavior: &'static str,
    node_checks: [&'static str; 0],
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    lock_index: u64,
    #[serde(default)]
    modify_index: u64,
}

impl Entry {
    /// Who wrote it when it was taken.
    fn by(&self) -> Option<String> {
        let bytes = STANDARD.decode(self.value.as_deref()?).ok()?;
        let text: String = serde_json::from_slice(&bytes).ok()?;
        let fit = !text.is_empty() && text.len() <= 200 && !text.contains(char::is_control);
        fit.then_some(text)
    }
}

impl SessionLedger {
    /// The key at the agent of a spec. `me` must be of this process alone.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(spec: ConsulSpec, key: &str, me: &str) -> Result<Self, PortError> {
        let base = Base::parse(&spec.address).map_err(|e| e.while_doing("the lock in consul"))?;
        let (key, me) = (key.to_owned(), me.to_owned());
        Ok(Self { http: Http::new(spec), base, key, me, session: Mutex::default() })
    }

    fn path(&self) -> String {
        format!("/v1/kv/{}", self.key)
    }

    async fn entry(&self) -> Result<Option<Entry>, Refusal> {
        // Not from a server that only takes itself for the leader.
        let (path, query) = (self.path(), [("consistent", "")]);
        match self.http.get::<Vec<Entry>>(&self.base, &path, &query, CALL).await {
            Ok(answer) => Ok(answer.body.into_iter().next()),
            Err(CallError::Refused { status: 404, .. }) => Ok(None),
            Err(e) => Err(self.refusal(&e)),
        }
    }

    /// Gives ours another life, or makes one; whether it is the same as before.
    async fn renew(&self, session: &mut Session) -> Result<(String, bool), Refusal> {
        if let Some(id) = session.id.clone() {
            let path = format!("/v1/session/renew/{id}");
            match self.http.put(&self.base, &path, &[], None::<&()>).await {
                Ok(()) => return Ok((id, true)),
                Err(CallError::Refused { status: 404, .. }) => session.id = None,
                Err(e) => return Err(self.refusal(&e)),
            }
        }
        let seconds = |d: Duration| format!("{}s", d.as_secs());
        let wanted = Wanted {
            name: &self.me,
            ttl: seconds(TIMES.lasts),
            lock_delay: seconds(LOCK_DELAY),
            behavior: "release",
            node_checks: [],
        };
        let made: Made = self
            .http
            .put_for(&self.base, "/v1/session/create", &[], Some(&wanted))
            .await
            .map_err(|e| self.refusal(&e))?;
        session.id = Some(made.id.clone());
        Ok((made.id, false))
    }

    fn refusal(&self, e: &CallError) -> Refusal {
        let refused = matches!(e, CallError::Refused { status: 401 | 403, .. });
        let hint = format!(
            "the token needs key_prefix \"{}\" write and session_prefix \"\" write",
            self.key
        );
        Refusal::failed(causes(e), refused.then_some(hint))
    }
}

#[async_trait]
impl Ledger for SessionLedger {
    async fn look(&self) -> Result<Option<Record>, Refusal> {
        let session = self.session.lock().await;
        let Some(entry) = self.entry().await? else { return Ok(None) };
        let by = entry.session.clone().filter(|id| !id.is_empty());
        let holder = match &by {
            None => String::new(),
            Some(id) if session.id.as_ref() == Some(id) => self.me.clone(),
            Some(id) => entry.by().filter(|name| *name != self.me).unwrap_or_else(|| id.clone()),
        };
        // Consul itself frees the key of one that gives no sign of life.
        let seconds = if holder.is_empty() { 0 } else { u32::MAX };
        let transitions = u32::try_from(entry.lock_index).unwrap_or(u32::MAX);
        Ok(Some(Record { holder, seconds, transitions, version: entry.modify_index.to_string() }))
    }

    async fn write(&self, record: &Record) -> Result<String, Refusal> {
        let mut session = self.session.lock().await;
        if record.holder.is_empty() {
            let Some(id) = &session.id else { return Ok(String::new()) };
            let query = [("release", id.as_str())];
            let given: bool = self
                .http
                .put_for(&self.base, &self.path(), &query, None::<&()>)
                .await
                .map_err(|e| self.refusal(&e))?;
            tracing::debug!(given, key = %self.key, "the lock is given back");
            session.held = false;
            return Ok(String::new());
        }
        let (id, same) = self.renew(&mut session).await?;
        if session.held {
            // Renewed and not taken again: that would be written to every server's disk every two seconds.
            let entry = if same { self.entry().await? } else { None };
            if let Some(entry) = entry.filter(|entry| entry.session.as_ref() == Some(&id)) {
                return Ok(entry.modify_index.to_string());
            }
            session.held = false;
            let text = "its session was ended, or the key was taken away".to_owned();
            return Err(Refusal { text, hint: None, why: Why::Lost });
        }
        let query = [("acquire", id.as_str())];
        let taken: bool = self
            .http
            .put_for(&self.base, &self.path(), &query, Some(&self.me))
            .await
            .map_err(|e| self.refusal(&e))?;
        if !taken {
            let text = "another holds it, or was made to let go of it a moment ago".to_owned();
            return Err(Refusal { text, hint: None, why: Why::Quicker });
        }
        session.held = true;
        Ok(String::new())
    }

    async fn close(&self) {
        let mut session = self.session.lock().await;
        if let Some(id) = session.id.take() {
            let path = format!("/v1/session/destroy/{id}");
            let _ = self.http.put(&self.base, &path, &[], None::<&()>).await;
        }
    }

    fn name(&self) -> String {
        format!("lock {} at {}", self.key, self.base)
    }
}
