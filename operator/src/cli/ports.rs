//! What a fleet's loop works with outside: who runs its instances, and who leads clients to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::Backend;
use crate::backend::docker::{DockerBackend, DockerContainer};
use crate::backend::platform::Platform;
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::edge::balancers::Find;
use crate::edge::fleet::FleetEdge;
use crate::model::{FleetName, HostName, OwnerId};
use crate::reconcile::Edge;

/// What is wrong with each host that has a problem, for people.
pub type Problems = dyn Fn() -> BTreeMap<HostName, String> + Send + Sync;
/// Gives a fleet its ports; called once a fleet.
pub type Make = dyn Fn(&Ask<'_>) -> Ports + Send + Sync;

/// The fleet that ports are asked for.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Whose containers are touched.
    pub owner: &'a OwnerId,
    /// The fleet.
    pub fleet: &'a FleetName,
    /// To be rung when something outside changed.
    pub bell: &'a Doorbell,
    /// The time.
    pub clock: &'a Clock,
}

/// The ports of one fleet.
pub struct Ports {
    /// Runs the instances.
    pub backend: Arc<dyn Backend>,
    /// Leads clients to them.
    pub edges: Arc<dyn Edge>,
    /// What is wrong with its hosts.
    pub problems: Box<Problems>,
}

/// Docker hosts or a Marathon cluster, with their balancers and registry.
pub fn real(ask: &Ask<'_>) -> Ports {
    let Ask { owner, fleet, bell, clock } = *ask;
    let backend = Arc::new(Platform::new(owner.clone(), bell.clone(), clock.clone()));
    let find = find(backend.docker());
    let edges = FleetEdge::new(owner.clone(), fleet.clone(), find, bell.clone(), clock.clone());
    let asked = backend.clone();
    Ports { backend, edges: Arc::new(edges), problems: Box::new(move || asked.problems()) }
}

/// Balancers are reached through the engines of their hosts.
fn find(backend: &Arc<DockerBackend>) -> Find {
    let backend = backend.clone();
    Arc::new(move |host, id| {
        let (backend, host) = (backend.clone(), host.clone());
        let reach = Arc::new(move || backend.engine(&host));
        Arc::new(DockerContainer::new(reach, id.clone()))
    })
}
