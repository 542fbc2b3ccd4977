//! Which services would fight for a port of one host.
//!
//! An instance publishes `publish + n - 1`, n counted on its host, so that a service claims as many
//! ports as it may have instances on one host, see [`Service::ports_on_a_host`]. A service scaled to 0 claims none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::form;
use crate::model::{Constraint, Fleet, FleetName, Protocol, Service, ServiceName};

/// A port that a service publishes: the service and the index in its `ports`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) service: ServiceName,
    pub(super) port: usize,
    pub(super) first: u16,
    pub(super) last: u16,
}

/// Two claims that meet on a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Clash {
    pub(super) one: Claim,
    pub(super) other: Claim,
    pub(super) host: String,
}

/// What decides on which hosts a service may run.
type Class<'a> = (&'a FleetName, &'a [Constraint]);

/// Every clash, each claim that begins inside another with the one that reaches furthest.
pub(super) fn clashes(
    services: &BTreeMap<ServiceName, Arc<Service>>,
    fleets: &BTreeMap<FleetName, Arc<Fleet>>,
) -> BTreeSet<Clash> {
    // Services of one class may run on the same hosts.
    let mut classes: BTreeMap<Class<'_>, Vec<(Protocol, Claim)>> = BTreeMap::new();
    for service in services.values() {
        let claims = claims(service);
        if !claims.is_empty() {
            for fleet in service.fleets() {
                let class = (fleet, service.placement.constraints.as_slice());
                classes.entry(class).or_default().extend(claims.iter().cloned());
            }
        }
    }
    // Engines that the same classes may use need looking at only once.
    let mut engines: BTreeMap<String, (Vec<usize>, &str)> = BTreeMap::new();
    for (class, (fleet, constraints)) in classes.keys().enumerate() {
        // Marathon gives every task ports of its own.
        let docker = fleets.get(*fleet).filter(|f| f.marathon.is_none());
        let hosts = docker.into_iter().flat_map(|f| f.hosts.values());
        for host in hosts.filter(|h| constraints.iter().all(|c| c.holds(h))) {
            let engine = engines.entry(form::engine(&host.endpoint));
            engine.or_insert((Vec::new(), host.name.as_str())).0.push(class);
        }
    }
    let mut signatures: BTreeMap<Vec<usize>, &str> = BTreeMap::new();
    for (mut classes, host) in engines.into_values() {
        classes.dedup();
        signatures.entry(classes).or_insert(host);
    }
    let by_class: Vec<&Vec<(Protocol, Claim)>> = classes.values().collect();
    let mut out = BTreeSet::new();
    for (signature, host) in signatures {
        let mut claims: Vec<&(Protocol, Claim)> =
            signature.iter().flat_map(|class| by_class[*class]).collect();
        claims.sort_by_key(|(protocol, claim)| (*protocol, claim.first, claim));
        let mut furthest: Option<&(Protocol, Claim)> = None;
        for claim in claims {
            let Some(reach) = furthest else {
                furthest = Some(claim);
                continue;
            };
            if reach.0 == claim.0 && reach.1.last >= claim.1.first {
                let (one, other) = (reach.1.clone(), claim.1.clone());
                out.insert(Clash { one, other, host: host.to_owned() });
            }
            if reach.0 != claim.0 || claim.1.last > reach.1.last {
                furthest = Some(claim);
            }
        }
    }
    out
}

fn claims(service: &Service) -> Vec<(Protocol, Claim)> {
    let Some(more) = service.ports_on_a_host().checked_sub(1) else { return Vec::new() };
    let more = u16::try_from(more).unwrap_or(u16::MAX);
    let ports = service.spec.ports.iter().enumerate();
    ports
        .filter_map(|(port, p)| {
            let first = p.publish?;
            let last = first.saturating_add(more);
            Some((p.protocol, Claim { service: service.name.clone(), port, first, last }))
        })
        .collect()
}
