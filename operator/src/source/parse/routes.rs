//! Which routes can be, and what each balancer is to do with traffic.
//!
//! A route that cannot be is left out with a reason on its service; everything else goes on. Of two routes that claim the
//! same requests the one that was in force before stays: a new document never takes traffic from another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::node::meant;
use crate::edge;
use crate::model::external::on_this_machine;
use crate::model::{
    Balance, Balancer, Fleet, FleetName, Listener, ListenerProtocol, ManagedReach, Pool, PoolName,
    Protocol, RegistrySpec, Route, RouteSpec, Routing, Service, ServiceName, Way,
};

/// The least time that connections of an old configuration may go on.
const LEAST_DRAIN: Duration = Duration::from_secs(10);

/// A route that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) service: ServiceName,
    /// Its index in `spec.routes`.
    pub(super) index: usize,
    /// The field of the route that is at fault; empty for the route as a whole.
    pub(super) field: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// What the routes are judged by.
pub(super) struct Ground<'a> {
    pub(super) services: &'a BTreeMap<ServiceName, Arc<Service>>,
    pub(super) balancers: &'a BTreeMap<ServiceName, Arc<Balancer>>,
    pub(super) fleets: &'a BTreeMap<FleetName, Arc<Fleet>>,
    /// Balancers that run and of whose documents nothing can be read any more.
    pub(super) dark: &'a BTreeSet<ServiceName>,
    /// Who had which requests before this revision.
    pub(super) before: &'a BTreeMap<String, String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) routings: BTreeMap<ServiceName, Arc<Routing>>,
    /// The services with what leads clients to them.
    pub(super) services: BTreeMap<ServiceName, Arc<Service>>,
    pub(super) left_out: Vec<LeftOut>,
    /// Who has which requests: `before` of the next revision.
    pub(super) routes: BTreeMap<String, String>,
}

/// The requests that a route claims: balancer, listener, host, path.
type Claim<'a> = (&'a ServiceName, &'a str, Option<&'a str>, String);

/// Judges every route of every service.
pub(super) fn resolve(ground: &Ground<'_>) -> Resolved {
    let mut out = Resolved::default();
    let mut claims: BTreeMap<Claim<'_>, Vec<(&ServiceName, usize)>> = BTreeMap::new();
    for service in ground.services.values() {
        for (index, route) in service.exposure.asked.iter().enumerate() {
            match ground.fault(service, route) {
                None => claims.entry(claim(route)).or_default().push((&service.name, index)),
                Some((field, message, hint)) => out.left_out.push(LeftOut {
                    service: service.name.clone(),
                    index,
                    field,
                    message,
                    hint,
                }),
            }
        }
    }
    let mut won: BTreeMap<&ServiceName, BTreeSet<usize>> = BTreeMap::new();
    for (claim, claimants) in claims {
        let Some(winner) = ground.winner(&claim, &claimants) else { continue };
        won.entry(winner.0).or_default().insert(winner.1);
        out.routes.insert(key(&claim), winner.0.as_str().to_owned());
        for (service, index) in claimants.into_iter().filter(|c| *c != winner) {
            let (_, listener, host, path) = &claim;
            let whose = if service == winner.0 {
                format!("route {} of the service itself", winner.1)
            } else {
                format!("the service {}", winner.0)
            };
            out.left_out.push(LeftOut {
                service: service.clone(),
                index,
                field: "",
                message: if ground.is_tcp(&claim) {
                    format!("the tcp listener {listener} is taken by {whose}")
                } else {
                    let host = host.unwrap_or("every host ");
                    format!("{host}{path} on the listener {listener} is taken by {whose}")
                },
                hint: Some(if ground.is_tcp(&claim) {
                    "one route takes all connections of a tcp listener: add a listener".into()
                } else {
                    "choose another host or pathPrefix, or remove the other route".into()
                }),
            });
        }
    }
    out.left_out.sort_by(|a, b| (&a.service, a.index).cmp(&(&b.service, b.index)));
    let mut routings: BTreeMap<ServiceName, Routing> =
        ground.balancers.values().map(|b| (b.service.name.clone(), bare(b))).collect();
    for service in ground.services.values() {
        let mut exposed = (**service).clone();
        for &index in won.get(&service.name).into_iter().flatten() {
            let Some(route) = service.exposure.asked.get(index) else { continue };
            let Some(routing) = routings.get_mut(&route.balancer) else { continue };
            let name = add(routing, service, route);
            exposed.exposure.pools.push((route.balancer.clone(), name));
        }
        // Its instances may be in there, and nobody can ask: they must not leave unseen.
        let unseen = service.exposure.asked.iter().filter(|r| ground.dark.contains(&r.balancer));
        let unseen =
            unseen.map(|r| (r.balancer.clone(), pool_name(service, r, ListenerProtocol::Http)));
        exposed.exposure.pools.extend(unseen);
        exposed.exposure.pools.sort();
        exposed.exposure.pools.dedup();
        exposed.exposure.registered = ground.registered(service);
        exposed.routed = exposed.exposure.quorum
            || !exposed.exposure.pools.is_empty()
            || !exposed.exposure.registered.is_empty();
        let left_out = out.left_out.iter().filter(|l| l.service == service.name);
        exposed.exposure.left_out = left_out.map(|l| l.message.clone()).collect();
        out.services.insert(service.name.clone(), Arc::new(exposed));
    }
    // A route that cannot be for now keeps its right, unless another service has taken the requests.
    for (claimed, name) in ground.before {
        let still = |service: &&Arc<Service>| {
            service.name.as_str() == name
                && service.exposure.asked.iter().any(|r| key(&claim(r)) == *claimed)
        };
        if !out.routes.contains_key(claimed) && ground.services.values().any(|s| still(&s)) {
            out.routes.insert(claimed.clone(), name.clone());
        }
    }
    for (name, mut routing) in routings {
        routing.routes.sort();
        out.routings.insert(name, Arc::new(routing));
    }
    out
}

fn claim(route: &RouteSpec) -> Claim<'_> {
    (&route.balancer, &route.listener, route.host.as_deref(), tidy(&route.path))
}

/// A claim as text that outlives the process. None of its parts has a space.
fn key((balancer, listener, host, path): &Claim<'_>) -> String {
    format!("{balancer} {listener} {} {path}", host.unwrap_or("-"))
}

/// A prefix of whole segments: the slash at its end says nothing.
fn tidy(path: &str) -> String {
    let path = path.trim_end_matches('/');
    if path.is_empty() { "/".into() } else { path.into() }
}

fn bare(balancer: &Balancer) -> Routing {
    Routing {
        kind: balancer.kind,
        listeners: balancer.listeners.clone(),
        routes: Vec::new(),
        pools: BTreeMap::new(),
        fragments: balancer.fragments.clone(),
        access_log: balancer.access_log,
        drain: LEAST_DRAIN,
        external: balancer.external.clone(),
    }
}

/// Named by what it is, not by the order of the routes: a route more renames no pool.
fn pool_name(service: &Service, route: &RouteSpec, protocol: ListenerProtocol) -> PoolName {
    let mut variant: Vec<String> = Vec::new();
    if protocol == ListenerProtocol::Tcp {
        variant.push("tcp".into());
    }
    match route.balance {
        Balance::Roundrobin => {}
        Balance::Leastconn => variant.push("leastconn".into()),
        Balance::Source => variant.push("source".into()),
    }
    variant.extend(route.cookie.as_ref().map(|name| format!("cookie-{name}")));
    let variant = variant.join("-");
    PoolName::new(&service.name, route.port, (!variant.is_empty()).then_some(variant.as_str()))
}

fn add(routing: &mut Routing, service: &Service, route: &RouteSpec) -> PoolName {
    let listener = |l: &&Listener| l.name == route.listener;
    let protocol = routing.listeners.iter().find(listener).map(|l| l.protocol).unwrap_or_default();
    let name = pool_name(service, route, protocol);
    let (surge, _) = service.rollout.allowance(service.replicas);
    routing.pools.entry(name.clone()).or_insert_with(|| Pool {
        service: service.name.clone(),
        port: route.port,
        protocol,
        balance: route.balance,
        cookie: route.cookie.clone(),
        check: service.probe.clone(),
        most: service.replicas.saturating_add(surge),
    });
    routing.drain = routing.drain.max(service.termination.drain);
    routing.routes.push(Route {
        listener: route.listener.clone(),
        host: route.host.clone(),
        path: tidy(&route.path),
        pool: name.clone(),
    });
    name
}

type Fault = (&'static str, String, Option<String>);

impl Ground<'_> {
    /// Why a route cannot be, whatever the others are.
    fn fault(&self, service: &Service, route: &RouteSpec) -> Option<Fault> {
        if self.dark.contains(&route.balancer) {
            let message = format!(
                "the load balancer {} goes on with what it has: its own document has a problem",
                route.balancer
            );
            return Some(("loadBalancer", message, None));
        }
        let Some(balancer) = self.balancers.get(&route.balancer) else {
            let known = self.balancers.keys().map(ServiceName::as_str);
            let message = format!("no load balancer {} is in force", route.balancer);
            let hint = meant(route.balancer.as_str(), "load balancers", known);
            return Some(("loadBalancer", message, Some(hint)));
        };
        let name = &route.balancer;
        let Some(listener) = balancer.listeners.iter().find(|l| l.name == route.listener) else {
            let known = balancer.listeners.iter().map(|l| l.name.as_str());
            let message = format!("the load balancer {name} has no listener {}", route.listener);
            let hint = meant(&route.listener, "listeners", known);
            return Some(("listener", message, Some(hint)));
        };
        if listener.protocol == ListenerProtocol::Tcp {
            let field = if route.host.is_some() {
                Some(("host", "host"))
            } else if tidy(&route.path) != "/" {
                Some(("pathPrefix", "path"))
            } else {
                route.cookie.as_ref().map(|_| ("cookie", "cookie"))
            };
            if let Some((field, what)) = field {
                let message = format!("a tcp listener knows no {what}: it passes bytes on");
                return Some((field, message, Some("leave it out".into())));
            }
        } else if let Some(why) = edge::unfit(balancer.kind, route.host.as_deref(), &route.path) {
            return Some(("pathPrefix", why, None));
        }
        let mut fleets = service.fleets();
        fleets.find_map(|fleet| self.unreachable(balancer, service, fleet, route.port))
    }

    /// Why the balancer cannot reach the port wherever the service may run on a fleet.
    fn unreachable(
        &self,
        balancer: &Balancer,
        service: &Service,
        fleet: &FleetName,
        port: u16,
    ) -> Option<Fault> {
        let fleet = self.fleets.get(fleet)?;
        if fleet.marathon.is_some() {
            let declared = service
                .spec
                .ports
                .iter()
                .any(|p| p.container == port && p.protocol == Protocol::Tcp);
            let message = format!(
                "port {port} is not among ports, and Marathon gives no other a port of the host"
            );
            return (!declared).then(|| ("port", message, Some("add it to ports".into())));
        }
        let way = Way::of(&balancer.external, &balancer.service, &service.spec, fleet);
        let allowed = |h: &&Arc<crate::model::HostSpec>| {
            service.placement.constraints.iter().all(|c| c.holds(h))
        };
        let mut hosts = fleet.hosts.values().filter(allowed);
        let near = match way {
            Way::Meet(_) => fleet.hosts.len() == 1,
            Way::Machine => hosts.all(|h| on_this_machine(h, &service.spec)),
            Way::Published => false,
        };
        if near {
            return None;
        }
        let published = service
            .spec
            .ports
            .iter()
            .any(|p| p.container == port && p.protocol == Protocol::Tcp && p.publish.is_some());
        if !published {
            let (message, hint) = if way == Way::Machine {
                (
                    format!(
                        "port {port} is not published, and the load balancer {} reaches only the agent's own engine without",
                        balancer.service.name
                    ),
                    "add publish to the port, or keep the service on the agent's machine by placement.constraints",
                )
            } else if balancer.service.fleet != fleet.name {
                (
                    format!(
                        "port {port} is not published, and the load balancer {} runs on another fleet",
                        balancer.service.name
                    ),
                    "add publish to the port",
                )
            } else if fleet.hosts.len() == 1 {
                (
                    format!(
                        "port {port} is not published, and the load balancer {} is on none of the service's networks",
                        balancer.service.name
                    ),
                    "give both a network in common, or add publish to the port",
                )
            } else {
                (
                    format!(
                        "port {port} is not published: on a fleet of several hosts it is reached no other way"
                    ),
                    "add publish to the port",
                )
            };
            return Some(("port", message, Some(hint.into())));
        }
        let far = |h: &&Arc<crate::model::HostSpec>| {
            way != Way::Machine || !on_this_machine(h, &service.spec)
        };
        let mut hosts = fleet.hosts.values().filter(allowed).filter(far);
        let host = hosts.find(|h| h.ip().is_none())?;
        let message = format!(
            "the host {} has no IP address that its published ports are reached at",
            host.name
        );
        let hint = format!(
            "give the host an address, such as address: 10.0.0.11, in the fleet {}",
            fleet.name
        );
        Some(("port", message, Some(hint)))
    }

    /// The port of the service that is registered, for each fleet that has a registry and where others can reach it: for
    /// those too that it has no part on, as instances may be leaving them.
    fn registered(&self, service: &Service) -> BTreeMap<FleetName, u16> {
        let with = self.fleets.iter().filter(|(_, fleet)| fleet.registry.is_some());
        with.filter_map(|(name, fleet)| Some((name.clone(), self.registered_on(service, fleet)?)))
            .collect()
    }

    fn registered_on(&self, service: &Service, fleet: &Fleet) -> Option<u16> {
        // Neither the registry itself nor a balancer is what it leads to.
        if self.balancers.contains_key(&service.name) {
            return None;
        }
        match fleet.registry.as_ref()? {
            RegistrySpec::Managed(m) => {
                let own = [&m.servers.name, &m.agent.name].contains(&&service.name);
                let checked = match &m.reach {
                    ManagedReach::Network(network) => service.spec.networks.contains(network),
                    ManagedReach::Hosts => true,
                };
                if own || !checked {
                    return None;
                }
            }
            RegistrySpec::Existing(_) => {}
        }
        let port = service.spec.ports.iter().find(|p| p.protocol == Protocol::Tcp)?;
        if let Some(cluster) = &fleet.marathon {
            return (!cluster.registrator).then_some(port.container);
        }
        let reachable = fleet.hosts.len() == 1 || port.publish.is_some();
        reachable.then_some(port.container)
    }

    fn is_tcp(&self, (balancer, listener, ..): &Claim<'_>) -> bool {
        let listeners = self.balancers.get(*balancer).map(|b| &b.listeners);
        let mut named = listeners.into_iter().flatten().filter(|l| l.name == *listener);
        named.any(|l| l.protocol == ListenerProtocol::Tcp)
    }

    fn winner<'c>(
        &self,
        claim: &Claim<'_>,
        claimants: &[(&'c ServiceName, usize)],
    ) -> Option<(&'c ServiceName, usize)> {
        let (first, others) = claimants.split_first()?;
        if others.is_empty() {
            return Some(*first);
        }
        let had = self.before.get(&key(claim));
        let had = |c: &&(&ServiceName, usize)| had.is_some_and(|name| name == c.0.as_str());
        claimants.iter().find(had).or(Some(first)).copied()
    }
}
