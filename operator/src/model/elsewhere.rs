//! What fleets must know of each other: who of one stands behind balancers of another, and how many of a service that runs on
//! both work.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::edge::{BalancerId, BalancerView, Order, PoolName, Server, ServerState, Table, Target};
use super::name::{FleetName, InstanceId, Revision, ServiceName};
use super::time::Time;
use super::world::Seen;

/// What is known of the other fleets.
#[derive(Debug, Clone, Default)]
pub struct Elsewhere {
    /// What they say, each by its newest pass. One that is missing has said nothing yet.
    pub said: BTreeMap<FleetName, Arc<Outward>>,
    /// What this fleet has said and one of them had not heard when it said that: it may still act upon it.
    pub unheard: Vec<Arc<Outward>>,
}

/// What one fleet says to the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outward {
    /// The documents that it was said by. What was said by others says nothing of what is done now.
    pub revision: Option<Revision>,
    /// Since when a host has not answered at all, and may hold anything.
    pub unseen: Option<Time>,
    /// Its instances in the pools of balancers that run on other fleets, by balancer and pool.
    pub servers: BTreeMap<(ServiceName, PoolName), Vec<Server>>,
    /// False while somebody may be missing in `servers`: a host that has not answered, an instance of which nobody can tell
    /// whether clients reach it.
    pub complete: bool,
    /// Its running balancers that count.
    pub fronts: Vec<Front>,
    /// Its parts of services that run on other fleets too, or are leaving this one.
    pub parts: BTreeMap<ServiceName, Part>,
}

impl Outward {
    /// What is told once the orders of the same plan are published: what balancers have in force since then, and whom their
    /// tables admit as coming. Whoever is in neither cannot get a request by anything that was ordered until now.
    pub fn once_published(
        mut self: Arc<Self>,
        orders: &BTreeMap<BalancerId, Order>,
        views: &BTreeMap<BalancerId, Arc<BalancerView>>,
    ) -> Arc<Self> {
        let since = |front: &Front| {
            let mut view = front.view.as_ref().and_then(|then| since(then, views.get(&front.id)));
            if let (Some(view), Some(order)) = (&mut view, orders.get(&front.id)) {
                announce(view, &order.table);
            }
            Front { view, ..front.clone() }
        };
        let fronts: Vec<Front> = self.fronts.iter().map(since).collect();
        // Mostly nothing has changed in that moment, and whoever is in the pools may be many.
        if fronts != self.fronts {
            Arc::make_mut(&mut self).fronts = fronts;
        }
        self
    }

    /// Whether it says the same to whoever has heard the other; how many requests there were is no news.
    pub fn is_no_news_after(&self, other: &Self) -> bool {
        let Self { revision, unseen, servers, complete, fronts, parts } = self;
        let same = |(a, b): (&Front, &Front)| {
            let alike = match (&a.view, &b.view) {
                (None, None) => true,
                (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a.same_but_for_counters(b),
                (None, Some(_)) | (Some(_), None) => false,
            };
            (&a.service, &a.id) == (&b.service, &b.id) && alike
        };
        other.revision == *revision
            && other.unseen == *unseen
            && other.servers == *servers
            && other.complete == *complete
            && other.parts == *parts
            && other.fronts.len() == fronts.len()
            && other.fronts.iter().zip(fronts).all(same)
    }

    /// Whether a balancer is to send requests to an instance.
    pub fn admits(&self, balancer: &ServiceName, pool: &PoolName, id: &InstanceId) -> bool {
        let its = self.servers.get(&(balancer.clone(), pool.clone()));
        its.is_some_and(|all| all.iter().any(|s| s.target == Target::Ready && s.instance == *id))
    }
}

/// What one that could be asked has in force since then; `None`: it cannot be asked any more.
fn since(then: &Arc<BalancerView>, newer: Option<&Arc<BalancerView>>) -> Option<Arc<BalancerView>> {
    let mut view = match newer {
        Some(newer) if newer.seen == Seen::Now => return Some(Arc::clone(newer)),
        // It takes no requests yet.
        Some(_) | None if !then.listening => Arc::clone(then),
        Some(_) | None => return None,
    };
    if let Some(newer) = newer.filter(|newer| !newer.coming.is_subset(&view.coming)) {
        Arc::make_mut(&mut view).coming.extend(newer.coming.iter().cloned());
    }
    Some(view)
}

/// Adds whom a balancer is told to send requests, and does not yet, to those who are coming.
fn announce(view: &mut Arc<BalancerView>, table: &Table) {
    let serves = |at: &_| view.servers.get(at).is_some_and(|s| s.state != ServerState::Draining);
    let told = table.servers.iter().flat_map(|(pool, its)| its.iter().map(move |s| (pool, s)));
    let ready = told.filter(|(_, server)| server.target == Target::Ready);
    let coming: Vec<_> = ready
        .map(|(pool, server)| (pool.clone(), server.address))
        .filter(|at| !serves(at) && !view.coming.contains(at))
        .collect();
    if !coming.is_empty() {
        Arc::make_mut(view).coming.extend(coming);
    }
}

/// A running balancer of a fleet that counts: it may be taking requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    /// The service that it is of.
    pub service: ServiceName,
    /// Which one it is.
    pub id: BalancerId,
    /// What it has in force; `None`: it cannot be asked now.
    pub view: Option<Arc<BalancerView>>,
}

/// One fleet's part of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// How many places are taken, by ending instances and by steps of this very plan too. Two instances of which one
    /// replaces the other take one.
    pub total: u32,
    /// How many are available.
    pub available: u32,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use super::*;
    use crate::model::{
        BalancerKind, External, Fragments, Routing, ServerView, Slot, Socket, Whereabouts,
    };

    /// Who comes to a balancer that has one server up and was told to have another, too. `then`: it could be asked when the
    /// plan was made, and took requests or not; `now`: it can be asked.
    fn coming(then: Option<bool>, now: bool) -> Option<BTreeSet<u8>> {
        let edge = ServiceName::new("edge").unwrap();
        let pool = PoolName::new(&ServiceName::new("web").unwrap(), 80, None);
        let at = |n: u8| SocketAddr::from(([10, 0, 0, n], 80));
        let server = |n: u8| Server {
            instance: InstanceId(format!("{n}").into()),
            name: format!("web_{n}").into(),
            slot: Slot(n.into()),
            address: at(n),
            target: if n == 3 { Target::Drain } else { Target::Ready },
            sick: false,
        };
        let external = Arc::new(External { file: None, asked: Socket::Tcp("h:1".into()) });
        let routing = Routing {
            kind: BalancerKind::Haproxy,
            listeners: vec![],
            routes: vec![],
            pools: BTreeMap::new(),
            fragments: Fragments::default(),
            access_log: false,
            drain: Duration::ZERO,
            external: vec![external.clone()],
        };
        let servers = [(pool.clone(), vec![server(1), server(2), server(3)])].into();
        let table = Table { routing: Arc::new(routing), servers, complete: true, held: false };
        let id = BalancerId::External { balancer: edge.clone(), index: 0 };
        let at_machine = Whereabouts::External { balancer: edge.clone(), external };
        let order = Order { at: at_machine, table: Arc::new(table) };
        let (state, since) = (ServerState::Up, Time(1));
        let up = ServerView { state, since, sessions: 0, requests: 0 };
        let seen = if now { Seen::Now } else { Seen::Silent { since } };
        let servers = [((pool, at(1)), up)].into();
        let newer = Arc::new(BalancerView { seen, servers, ..BalancerView::never(since) });
        let before = |listening| BalancerView { listening, ..BalancerView::never(since) };
        let before = then.map(|listening| Arc::new(before(listening)));
        let front = Front { service: edge, id: id.clone(), view: before };
        let outward = Arc::new(Outward { fronts: vec![front], ..Outward::default() });
        let said = outward.once_published(&[(id.clone(), order)].into(), &[(id, newer)].into());
        let view = said.fronts[0].view.clone()?;
        assert_eq!(view.servers.len(), usize::from(now), "what it has since they were published");
        let last = |at: &SocketAddr| match at.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => 0,
        };
        Some(view.coming.iter().map(|(_, at)| last(at)).collect())
    }

    #[test]
    fn whom_a_balancer_was_just_told_to_send_requests_is_coming() {
        assert_eq!(coming(Some(true), true), Some([2].into()));
        assert_eq!(coming(Some(true), false), None, "it fell silent meanwhile");
        assert_eq!(coming(Some(false), false), Some([1, 2].into()), "it has not begun yet");
        assert_eq!(coming(None, true), None, "the plan was made without knowing it");
    }
}
