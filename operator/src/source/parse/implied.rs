//! Services that no document is written for: the Consul of a fleet, and what moves a balancer's address.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Balancer, Fleet, FleetName, HostSpec, RegistrySpec, Service, ServiceName};

/// What the keepalived of a balancer is called.
pub(super) fn mover_name(balancer: &ServiceName) -> Option<ServiceName> {
    ServiceName::new(&format!("{balancer}-vip")).ok()
}

/// What the servers and the agents of a fleet's own Consul are called.
pub(super) fn consul_names(fleet: impl std::fmt::Display) -> Vec<ServiceName> {
    let named = |what: &str| ServiceName::new(&format!("{fleet}-{what}")).ok();
    ["consul", "consul-agent"].into_iter().filter_map(named).collect()
}

/// The Consul that a fleet brings along.
pub(super) fn consul(fleet: &Fleet) -> Vec<Arc<Service>> {
    match &fleet.registry {
        Some(RegistrySpec::Managed(m)) => vec![Arc::clone(&m.servers), Arc::clone(&m.agent)],
        Some(RegistrySpec::Existing(_)) | None => Vec::new(),
    }
}

/// Every implied service, with what it is.
pub(super) fn all(
    fleets: &BTreeMap<FleetName, Arc<Fleet>>,
    balancers: &BTreeMap<ServiceName, Arc<Balancer>>,
) -> Vec<(String, Arc<Service>)> {
    let movers = balancers.values().filter_map(|b| {
        let mover = b.virtual_ip.as_deref()?;
        let replicas = hosts_of(fleets.get(&mover.fleet)?, mover);
        let what = format!("the keepalived of the load balancer {}", b.service.name);
        Some((what, Arc::new(Service { replicas, ..mover.clone() })))
    });
    let consuls = fleets.values().flat_map(|fleet| {
        let what = format!("the Consul of the fleet {}", fleet.name);
        consul(fleet).into_iter().map(move |service| (what.clone(), service))
    });
    movers.chain(consuls).collect()
}

/// On how many hosts a service may run.
fn hosts_of(fleet: &Fleet, service: &Service) -> u32 {
    let may = |h: &&Arc<HostSpec>| service.placement.constraints.iter().all(|c| c.holds(h));
    u32::try_from(fleet.hosts.values().filter(may).count()).unwrap_or(u32::MAX)
}
