//! Simulated balancers: each follows its orders a moment late, and tells what it has in force, or nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::host::SimHost;
use crate::model::{
    BalancerId, BalancerView, Edges, HostName, PoolName, Seen, ServerState, ServerView, State,
    Table, Target, Time, Whereabouts,
};

/// How long a balancer takes to follow an order.
const FOLLOWS: Duration = Duration::from_millis(100);
/// How long a new server waits for its first check.
const CHECKED: Duration = Duration::from_millis(300);
/// Connections that a server has when it begins to drain; one ends each second.
const SESSIONS: u32 = 3;

/// Every simulated balancer.
#[derive(Debug, Clone, Default)]
pub struct Balancers {
    /// As they are, whether the agent can ask them or not.
    pub all: BTreeMap<BalancerId, SimBalancer>,
}

/// One simulated balancer.
#[derive(Debug, Clone)]
pub struct SimBalancer {
    /// What it has in force.
    pub servers: BTreeMap<(PoolName, SocketAddr), SimServer>,
    /// Whether it takes requests.
    pub listening: bool,
    /// It does not answer the agent, and does not hear it.
    pub mute: bool,
    /// `None`: it runs whatever happens to hosts.
    host: Option<HostName>,
    order: Option<(Arc<Table>, Time)>,
    view: BalancerView,
}

/// A server in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimServer {
    /// What it was told.
    pub target: Target,
    /// Since when.
    pub since: Time,
    /// Connections that it had then.
    had: u32,
}

impl SimServer {
    /// What it does at a moment.
    pub fn state(&self, now: Time) -> ServerState {
        match self.target {
            Target::Drain => ServerState::Draining,
            Target::Ready if self.since.plus(CHECKED) <= now => ServerState::Up,
            Target::Ready => ServerState::Down,
        }
    }

    /// Connections that are left on it.
    pub fn sessions(&self, now: Time) -> u32 {
        let ended = u32::try_from(now.since(self.since).as_secs()).unwrap_or(u32::MAX);
        match self.target {
            Target::Drain => self.had.saturating_sub(ended),
            Target::Ready => SESSIONS,
        }
    }

    fn view(&self, now: Time) -> ServerView {
        let state = self.state(now);
        let since = if state == ServerState::Up { self.since.plus(CHECKED) } else { self.since };
        ServerView { state, since, sessions: self.sessions(now), requests: 0 }
    }
}

impl Balancers {
    pub(super) fn views(&self) -> BTreeMap<BalancerId, Arc<BalancerView>> {
        self.all.iter().map(|(id, b)| (id.clone(), Arc::new(b.view.clone()))).collect()
    }

    pub(super) fn publish(&mut self, edges: &Edges, now: Time) {
        for (id, order) in &edges.orders {
            let balancer = self.all.entry(id.clone()).or_insert_with(|| SimBalancer {
                servers: BTreeMap::new(),
                listening: false,
                mute: false,
                host: match &order.at {
                    Whereabouts::Container { host, .. } => Some(host.clone()),
                    Whereabouts::External { .. } => None,
                },
                order: None,
                view: BalancerView::never(now),
            });
            if balancer.order.as_ref().is_none_or(|(table, _)| *table != order.table) {
                balancer.order = Some((order.table.clone(), now.plus(FOLLOWS)));
            }
        }
    }

    /// A new agent has asked nobody yet, and has ordered nothing.
    pub(super) fn forget(&mut self, now: Time) {
        for balancer in self.all.values_mut() {
            balancer.view = BalancerView::never(now);
            balancer.order = None;
        }
    }

    pub(super) fn live(&mut self, hosts: &BTreeMap<HostName, SimHost>, now: Time) {
        self.all.retain(|id, b| {
            let (Some(host), BalancerId::Container(id)) = (&b.host, id) else { return true };
            hosts.get(host).is_some_and(|h| {
                h.containers.get(id).is_some_and(|c| c.instance.state == State::Running)
            })
        });
        for balancer in self.all.values_mut() {
            let answers = |host| hosts.get(host).is_some_and(|h| !h.silent);
            let reached = !balancer.mute && balancer.host.as_ref().is_none_or(answers);
            if reached {
                balancer.follow(now);
                balancer.tell(now);
            } else if balancer.view.seen == Seen::Now {
                balancer.view.seen = Seen::Silent { since: now };
            }
        }
    }

    /// Whether something will still happen by itself.
    pub(super) fn is_restless(&self, now: Time) -> bool {
        let waits = |s: &SimServer| match s.target {
            Target::Ready => s.state(now) != ServerState::Up,
            Target::Drain => s.sessions(now) > 0,
        };
        self.all.values().any(|b| {
            b.view.seen != Seen::Now
                || b.order.as_ref().is_some_and(|(_, due)| *due > now)
                || b.servers.values().any(waits)
        })
    }
}

impl SimBalancer {
    fn follow(&mut self, now: Time) {
        let Some((table, due)) = &self.order else { return };
        if *due > now {
            return;
        }
        let mut wanted = BTreeMap::new();
        for (pool, servers) in &table.servers {
            for server in servers {
                wanted.insert((pool.clone(), server.address), server.target);
            }
        }
        let complete = table.complete;
        self.servers.retain(|key, _| !complete || wanted.contains_key(key));
        for (key, target) in wanted {
            match self.servers.get_mut(&key) {
                Some(known) if known.target == target => {}
                Some(known) => *known = SimServer { target, since: now, had: SESSIONS },
                None => {
                    // Nobody is connected to one that never took requests here.
                    self.servers.insert(key, SimServer { target, since: now, had: 0 });
                }
            }
        }
        self.listening = true;
    }

    fn tell(&mut self, now: Time) {
        self.view = BalancerView {
            seen: Seen::Now,
            listening: self.listening,
            servers: self.servers.iter().map(|(key, s)| (key.clone(), s.view(now))).collect(),
            ..BalancerView::never(now)
        };
    }
}
