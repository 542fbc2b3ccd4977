//! What one nginx has in force, from what it says and what was seen before: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::facts::Facts;
use super::render::pool_digest;
use super::shell::State;
use crate::model::{
    BalancerView, PoolName, Seen, Server, ServerState, ServerView, Table, Target, Time,
};

/// What the boot configuration is called.
pub(super) const NOTHING: &str = "nothing";

/// What was seen of one nginx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sight {
    /// Whether it answers.
    pub(super) seen: Seen,
    /// What is in force; `None` while that is not known.
    pub(super) in_force: Option<Facts>,
    /// Its workers.
    pub(super) state: State,
    /// Why it does not follow.
    pub(super) problem: Option<String>,
    /// How often it was told to reload.
    pub(super) reloads: u64,
    servers: BTreeMap<(PoolName, SocketAddr), Sighting>,
}

/// What was seen of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sighting {
    target: Target,
    since: Time,
    /// Workers that may still have requests of it.
    busy: BTreeSet<u32>,
}

impl Sight {
    pub(super) fn never(since: Time) -> Self {
        Self {
            seen: Seen::Never { since },
            in_force: None,
            state: State::default(),
            problem: None,
            reloads: 0,
            servers: BTreeMap::new(),
        }
    }

    /// Whether what is on disk must be read to know what is in force.
    pub(super) fn wonders(&self, state: &State) -> bool {
        self.in_force.as_ref().map(|facts| &facts.digest) != state.digest.as_ref()
    }

    /// It answered. `on_disk` is what the configuration there says; it counts if that is the one in force.
    pub(super) fn answered(&mut self, state: State, on_disk: Option<Facts>, now: Time) {
        self.seen = Seen::Now;
        if self.wonders(&state) {
            let nothing = || Facts { digest: NOTHING.to_owned(), ..Facts::default() };
            self.in_force = match &state.digest {
                Some(digest) if digest == NOTHING => Some(nothing()),
                Some(digest) => on_disk.filter(|facts| facts.digest == *digest),
                None => None,
            };
        }
        self.state = state;
        self.note(now);
    }

    /// `facts` are in force now.
    pub(super) fn took(&mut self, facts: Facts, state: State, now: Time) {
        self.reloads += 1;
        self.problem = None;
        self.in_force = Some(facts);
        self.state = state;
        self.note(now);
    }

    pub(super) fn silent(&mut self, why: String, now: Time) {
        self.seen = match self.seen {
            Seen::Now => Seen::Silent { since: now },
            Seen::Silent { .. } | Seen::Never { .. } => self.seen,
        };
        self.problem = Some(why);
    }

    fn note(&mut self, now: Time) {
        let Some(facts) = &self.in_force else { return };
        self.servers.retain(|server, _| facts.servers.contains_key(server));
        for (server, Server { target, .. }) in &facts.servers {
            let same = self.servers.get(server).is_some_and(|before| before.target == *target);
            if !same {
                let busy = match target {
                    Target::Ready => BTreeSet::new(),
                    Target::Drain => self.state.old.clone(),
                };
                let sighting = Sighting { target: *target, since: now, busy };
                self.servers.insert(server.clone(), sighting);
            }
        }
        for sighting in self.servers.values_mut() {
            sighting.busy.retain(|pid| self.state.old.contains(pid));
        }
    }

    /// Whether somebody may be waiting for workers to end.
    pub(super) fn restless(&self) -> bool {
        !self.state.old.is_empty()
    }

    /// Whether it takes traffic: a table of ours is in force.
    pub(super) fn listening(&self) -> bool {
        self.in_force.as_ref().is_some_and(|f| !f.digest.is_empty() && f.digest != NOTHING)
    }

    /// As it is told, for a balancer that is to do what `table` says.
    pub(super) fn view(&self, table: &Table) -> BalancerView {
        let nothing = Facts::default();
        let facts = self.in_force.as_ref().unwrap_or(&nothing);
        let as_ordered = facts.pools.iter().filter(|(pool, digest)| {
            table.routing.pools.contains_key(pool) && pool_digest(table, pool) == **digest
        });
        // Who has drained is listed until the next reload. Once nobody asks for him any more he is gone, and somebody else
        // may have his address.
        let there = |(key, it): &(&(PoolName, SocketAddr), &Sighting)| {
            let listed = |all: &Vec<Server>| all.iter().any(|server| server.address == key.1);
            it.target == Target::Ready
                || !table.complete
                || table.servers.get(&key.0).is_some_and(listed)
        };
        BalancerView {
            seen: self.seen,
            listening: self.listening(),
            pools: as_ordered.map(|(pool, _)| pool.clone()).collect(),
            servers: self
                .servers
                .iter()
                .filter(there)
                .map(|(k, it)| (k.clone(), it.view()))
                .collect(),
            coming: BTreeSet::new(),
            refused: facts.refused.clone(),
            problem: self.problem.clone().or_else(|| facts.problem.clone()),
            requests: self.state.requests,
            reloads: self.reloads,
            old_workers: u32::try_from(self.state.old.len()).unwrap_or(u32::MAX),
        }
    }
}

impl Sighting {
    fn view(&self) -> ServerView {
        ServerView {
            state: match self.target {
                Target::Ready => ServerState::Up,
                Target::Drain => ServerState::Draining,
            },
            since: self.since,
            sessions: u32::try_from(self.busy.len()).unwrap_or(u32::MAX),
            requests: 0,
        }
    }
}
