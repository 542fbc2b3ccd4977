//! Everything that leads clients to the instances of one fleet: its balancers and its registry, for the loop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::balancers::{Balancers, Find};
use super::consul::Consul;
use super::{Discovery, LoadBalancer};
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::model::{ConsulSpec, Edges, Fleet, FleetName, HostName, HostSpec, OwnerId, World};
use crate::reconcile::Edge;

/// The edges of one fleet.
pub struct FleetEdge {
    owner: OwnerId,
    fleet: FleetName,
    bell: Doorbell,
    clock: Clock,
    balancers: Balancers,
    registry: Mutex<Option<Registry>>,
}

/// The registry that the fleet's newest document names.
struct Registry {
    spec: ConsulSpec,
    addresses: BTreeMap<HostName, String>,
    consul: Arc<Consul>,
}

impl FleetEdge {
    /// Nothing is driven yet; `bell` rings at every change of a view.
    pub fn new(owner: OwnerId, fleet: FleetName, find: Find, bell: Doorbell, clock: Clock) -> Self {
        let balancers = Balancers::new(find, bell.clone(), clock.clone());
        Self { owner, fleet, bell, clock, balancers, registry: Mutex::default() }
    }

    fn consul(&self) -> Option<Arc<Consul>> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.as_ref().map(|r| r.consul.clone())
    }
}

impl Edge for FleetEdge {
    /// Must be called within a tokio runtime.
    fn watch(&self, fleet: &Arc<Fleet>) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(spec) = &fleet.consul else {
            *registry = None;
            return;
        };
        let addressed = |(name, host): (&HostName, &Arc<HostSpec>)| {
            Some((name.clone(), host.ip()?.to_string()))
        };
        let addresses: BTreeMap<HostName, String> =
            fleet.hosts.iter().filter_map(addressed).collect();
        match &mut *registry {
            Some(known) if known.spec == *spec => {
                if known.addresses != addresses {
                    known.consul.set_hosts(addresses.clone());
                    known.addresses = addresses;
                }
            }
            other => {
                let consul = Arc::new(Consul::new(
                    self.owner.clone(),
                    self.fleet.clone(),
                    spec.clone(),
                    addresses.clone(),
                    self.bell.clone(),
                    self.clock.clone(),
                ));
                *other = Some(Registry { spec: spec.clone(), addresses, consul });
            }
        }
    }

    fn observe(&self, world: &mut World) {
        world.balancers = self.balancers.views();
        world.registry = self.consul().map(|consul| consul.view());
    }

    fn publish(&self, edges: &Edges) {
        self.balancers.publish(edges.orders.clone());
        if let Some(consul) = self.consul() {
            consul.publish(edges.registrations.clone());
        }
    }
}
