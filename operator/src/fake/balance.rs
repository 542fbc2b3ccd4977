//! Simulated balancers: each follows its orders a moment late, and tells what it has in force, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::host::SimHost;
use crate::model::{
    BalancerId, BalancerView, Edges, HostName, PoolName, Seen, ServerState, ServerView, State,
    Table, Target, Time, Whereabouts,
};

/// How long a new server waits for its first check.
const CHECKED: Duration = Duration::from_millis(300);
/// Connections that a server has when it begins to drain; one ends each second.
const SESSIONS: u32 = 3;

/// Every simulated balancer.
#[derive(Debug, Clone, Default)]
pub struct Balancers {
    /// As they are, whether the agent can ask them or not.
    pub all: BTreeMap<BalancerId, SimBalancer>,
    /// How long they take to load what they were ordered. Meanwhile they say who is coming, and take no other order.
    pub loads: Duration,
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
    order: Option<Arc<Table>>,
    /// What it will have in force, and when.
    loading: Option<(Arc<Table>, Time)>,
    /// What it was told last of what is in force.
    loaded: Option<Arc<Table>>,
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
                loading: None,
                loaded: None,
                view: BalancerView::never(now),
            });
            balancer.order = Some(order.table.clone());
        }
    }

    /// A new agent has asked nobody yet, and has ordered nothing. What was being loaded is in force by then.
    pub(super) fn forget(&mut self, now: Time) {
        for balancer in self.all.values_mut() {
            balancer.load(Time(u64::MAX), now);
            balancer.view = BalancerView::never(now);
            (balancer.order, balancer.loaded) = (None, None);
        }
    }

    pub(super) fn live(&mut self, hosts: &BTreeMap<HostName, SimHost>, now: Time) {
        self.all.retain(|id, b| {
            let (Some(host), BalancerId::Container(id)) = (&b.host, id) else { return true };
            hosts.get(host).is_some_and(|h| {
                h.containers.get(id).is_some_and(|c| c.instance.state == State::Running)
            })
        });
        let loads = self.loads;
        for balancer in self.all.values_mut() {
            balancer.load(now, now);
            let answers = |host| hosts.get(host).is_some_and(|h| !h.silent);
            let reached = !balancer.mute && balancer.host.as_ref().is_none_or(answers);
            if reached {
                balancer.begin(now, loads);
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
                || b.loading.is_some()
                || b.order != b.loaded
                || b.servers.values().any(waits)
        })
    }
}

impl SimBalancer {
    /// Whom it will send requests by what it is loading.
    pub fn coming(&self) -> BTreeSet<(PoolName, SocketAddr)> {
        self.loading.as_ref().map(|(table, _)| table.ready()).unwrap_or_default()
    }

    /// Whom it was told to send requests, if there is no newer order by the time that it takes this one.
    pub fn told(&self) -> BTreeSet<(PoolName, SocketAddr)> {
        let waits = self.order.as_ref().filter(|_| self.order != self.loaded);
        waits.map(|table| table.ready()).unwrap_or_default()
    }

    /// Takes the newest order, unless it is still loading another one.
    fn begin(&mut self, now: Time, takes: Duration) {
        if self.loading.is_none() && self.order != self.loaded {
            self.loading = self.order.clone().map(|table| (table, now.plus(takes)));
            self.load(now, now);
        }
    }

    /// Has in force what was to be in force by `due`.
    fn load(&mut self, due: Time, now: Time) {
        let Some((table, _)) = self.loading.take_if(|(_, at)| *at <= due) else { return };
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
        self.loaded = Some(table);
    }

    fn tell(&mut self, now: Time) {
        self.view = BalancerView {
            seen: Seen::Now,
            listening: self.listening,
            servers: self.servers.iter().map(|(key, s)| (key.clone(), s.view(now))).collect(),
            coming: self.coming(),
            ..BalancerView::never(now)
        };
    }
}
