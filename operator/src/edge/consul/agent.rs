//! One agent's task: look, tell it the difference, look again; and wait until there may be one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::diff::{AgentLook, Call, Want, diff};
use super::entry::Entry;
use super::http::{Answer, Base, CALL, CallError};
use super::wire::{
    Catalog, CheckAnswer, SelfAnswer, Services, agent_look, checks_filter, put, services_filter,
};
use super::{FIRST_PAUSE, LONGEST_PAUSE, Responsible, SLOW, Shared, State};
use crate::error::causes;
use crate::model::HostName;

/// Calls under way at one agent.
const AT_ONCE: usize = 8;

/// One agent.
pub(super) struct Agent {
    pub(super) base: Base,
    pub(super) responsible: Responsible,
    pub(super) shared: Arc<Shared>,
}

/// What a round came to.
enum Round {
    /// Nothing is different.
    Settled,
    /// It was told something, and must be looked at again.
    Told(Vec<Call>),
    /// It accepted this before and shows nothing of it.
    Deaf,
    /// It did not take everything.
    Refused { why: String, is_final: bool },
    /// It was not reached.
    Silent { why: String, is_final: bool },
}

/// What it should have, as far as it alone is concerned: an unchanged one is no reason to look.
#[derive(PartialEq, Eq)]
struct Part {
    entries: Vec<Arc<Entry>>,
    unknown_hosts: BTreeSet<HostName>,
}

impl Agent {
    /// Keeps the agent as it should be until the task is ended.
    pub(super) async fn run(self) {
        let mut want = self.shared.want.subscribe();
        let mut catalog = self.shared.catalog.subscribe();
        let mut told = BTreeMap::new();
        let mut calls = Vec::new();
        let mut pause = FIRST_PAUSE;
        loop {
            let wanted = want.borrow_and_update().clone();
            catalog.borrow_and_update();
            let round = self.round(wanted.as_deref(), &calls, &mut told).await;
            calls.clear();
            let (problem, longest, reached) = match round {
                Round::Told(what) => {
                    calls = what;
                    continue;
                }
                Round::Settled => (None, SLOW, true),
                Round::Deaf => {
                    let why = format!(
                        "{} accepts entries and does not show them; may the token read services?",
                        self.base
                    );
                    (Some(why), LONGEST_PAUSE, true)
                }
                Round::Refused { why, is_final } => (Some(why), longest(is_final), true),
                Round::Silent { why, is_final } => (Some(why), longest(is_final), false),
            };
            let fine = problem.is_none();
            pause = if fine { FIRST_PAUSE } else { pause.min(longest) };
            let until = Instant::now() + if fine { SLOW } else { pause };
            if !fine {
                pause *= 2;
            }
            let matters = wanted.as_deref().is_some_and(|want| self.matters(want));
            self.shared.board.agent(&self.base.to_string(), problem.filter(|_| matters));
            if !self.wait(until, reached, wanted.as_deref(), &told, &mut want, &mut catalog).await {
                return;
            }
        }
    }

    /// Waits for `until`, or before that for a reason to look; `false` when nobody will give one any more.
    async fn wait(
        &self,
        until: Instant,
        reached: bool,
        before: Option<&Want>,
        told: &BTreeMap<String, bool>,
        want: &mut watch::Receiver<Option<Arc<Want>>>,
        catalog: &mut watch::Receiver<Option<Arc<Catalog>>>,
    ) -> bool {
        let before = before.map(|want| self.part(want));
        loop {
            tokio::select! {
                () = sleep_until(until) => return true,
                // An agent that is not there is not asked more often because more is wanted of it.
                changed = want.changed(), if reached => {
                    if changed.is_err() {
                        return false;
                    }
                    let now = want.borrow_and_update().as_deref().map(|want| self.part(want));
                    if now != before {
                        return true;
                    }
                }
                changed = catalog.changed(), if reached => {
                    if changed.is_err() {
                        return false;
                    }
                    let Some(catalog) = catalog.borrow_and_update().clone() else { continue };
                    if !self.agrees(&catalog, told) {
                        return true;
                    }
                }
            }
        }
    }

    /// Whether the servers know of this agent what it has.
    fn agrees(&self, catalog: &Catalog, told: &BTreeMap<String, bool>) -> bool {
        let Some(node) = self.shared.node(&self.base) else { return told.is_empty() };
        let nothing = BTreeMap::new();
        let known = catalog.nodes.get(&node).unwrap_or(&nothing);
        known.len() == told.len()
            && known
                .iter()
                .zip(told)
                .all(|((a, entry), (b, on))| a == b && entry.maintenance == *on)
    }

    fn part(&self, want: &Want) -> Part {
        let mine = |host: &HostName| self.responsible.is_for(host);
        let hosts = want.by_host.iter().filter(|(host, _)| mine(host));
        let unknown = want.unknown_hosts.iter().filter(|host| mine(host));
        Part {
            entries: hosts.flat_map(|(_, entries)| entries).cloned().collect(),
            unknown_hosts: unknown.cloned().collect(),
        }
    }

    /// Whether anything is wanted of it: a dead host's agent is no problem of anybody.
    fn matters(&self, want: &Want) -> bool {
        let mine = |host: &HostName| self.responsible.is_for(host);
        let known = |host: &HostName| !want.unknown_hosts.contains(host);
        want.by_host.keys().any(|host| mine(host) && known(host))
    }

    async fn round(
        &self,
        want: Option<&Want>,
        before: &[Call],
        told: &mut BTreeMap<String, bool>,
    ) -> Round {
        let look = match self.look().await {
            Ok(look) => look,
            Err(e) => {
                self.shared.state(&self.base, State::Silent);
                return Round::Silent { is_final: e.is_final(), why: causes(&e) };
            }
        };
        let node = look.node.clone();
        self.shared.state(&self.base, State::Answers { node });
        *told = look.told();
        // Nothing is taken away before somebody has said what should be there.
        let Some(want) = want else { return Round::Settled };
        let diff = diff(&self.shared.ours, want, &look, |host| {
            self.shared.whose(&self.base, &self.responsible, host)
        });
        if diff.calls.is_empty() {
            return match diff.taken.first() {
                None => Round::Settled,
                Some(id) => Round::Refused {
                    why: format!(
                        "{} has a service {id} that does not say that it is ours",
                        self.base
                    ),
                    is_final: true,
                },
            };
        }
        if diff.calls == before {
            return Round::Deaf;
        }
        match self.tell(&diff.calls).await {
            Ok(()) => Round::Told(diff.calls),
            Err(round) => round,
        }
    }

    /// Everything of ours that it has. Services first: one that comes in between has its checks then.
    async fn look(&self) -> Result<AgentLook, CallError> {
        let Shared { http, ours, .. } = &*self.shared;
        let filter = services_filter(ours);
        let query = [("filter", filter.as_str())];
        let services: Answer<Services> =
            http.get(&self.base, "/v1/agent/services", &query, CALL).await?;
        let filter = checks_filter(ours);
        let query = [("filter", filter.as_str())];
        let checks: Answer<BTreeMap<String, CheckAnswer>> =
            http.get(&self.base, "/v1/agent/checks", &query, CALL).await?;
        let mut look = agent_look(ours, services.body, &checks.body);
        if look.node.is_none() {
            look.node = match http.get::<SelfAnswer>(&self.base, "/v1/agent/self", &[], CALL).await
            {
                Ok(answer) => answer.body.node(),
                // A token need not reach so far; the node is known once there is an entry.
                Err(CallError::Refused { .. }) => None,
                Err(e) => return Err(e),
            };
        }
        Ok(look)
    }

    /// Makes the calls, in their order as far as it matters: those of one kind at a time.
    async fn tell(&self, calls: &[Call]) -> Result<(), Round> {
        let mut refused: BTreeMap<String, CallError> = BTreeMap::new();
        let kind = |call: &Call| match call {
            Call::Register(_) => 0_u8,
            Call::Maintain { .. } => 1,
            Call::Deregister { .. } => 2,
        };
        let one = |call: Call| async move {
            let result = self.call(&call).await;
            (call, result)
        };
        for now in 0..=2 {
            let due = calls.iter().filter(|call| kind(call) == now);
            let due: Vec<Call> =
                due.filter(|call| !refused.contains_key(call.id())).cloned().collect();
            let mut results =
                futures::stream::iter(due.into_iter().map(one)).buffer_unordered(AT_ONCE);
            while let Some((call, result)) = results.next().await {
                match result {
                    Ok(()) => {}
                    Err(e) if e.is_of_all() => {
                        return Err(Round::Silent { is_final: e.is_final(), why: causes(&e) });
                    }
                    Err(e) => {
                        refused.insert(call.id().to_owned(), e);
                    }
                }
            }
        }
        let Some((id, e)) = refused.first_key_value() else { return Ok(()) };
        let more = match refused.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        let is_final = refused.values().all(CallError::is_final);
        Err(Round::Refused { why: format!("{id}{more}: {}", causes(e)), is_final })
    }

    async fn call(&self, call: &Call) -> Result<(), CallError> {
        let told = put(call);
        let result = self.shared.http.put(&self.base, &told.path, &told.query, told.body).await;
        match (call, result) {
            (_, Ok(())) => {
                tracing::info!(agent = %self.base, id = call.id(), "{}", verb(call));
                Ok(())
            }
            // Newer agents say so when it is gone already.
            (Call::Deregister { .. }, Err(CallError::Refused { status: 404, .. })) => Ok(()),
            (_, Err(e)) => Err(e),
        }
    }
}

fn verb(call: &Call) -> &'static str {
    match call {
        Call::Register(_) => "registered",
        Call::Maintain { on: true, .. } => "put into maintenance",
        Call::Maintain { on: false, .. } => "took out of maintenance",
        Call::Deregister { .. } => "deregistered",
    }
}

/// What cannot work by trying again is tried less often.
fn longest(is_final: bool) -> Duration {
    if is_final { SLOW } else { LONGEST_PAUSE }
}
