//! What runs instances. A backend observes and does; it decides nothing.

pub mod docker;
pub mod marathon;
pub mod platform;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::PortError;
use crate::model::{AppId, Desired, Fleet, HostName, HostView, Probe, Service, ServiceName, Step};

/// What a backend must know to observe a fleet: its hosts, and how to ask each service for its health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The fleet; hosts that are new are connected, hosts that are gone are let go.
    pub fleet: Arc<Fleet>,
    /// Health checks that the agent makes from outside.
    pub probes: BTreeMap<ServiceName, Probe>,
    /// The apps of the fleet's services, where it is a Marathon cluster.
    pub apps: BTreeMap<AppId, ServiceName>,
}

impl Watch {
    /// What is to be observed of a fleet for what is desired of it.
    pub fn of(fleet: &Arc<Fleet>, desired: &Desired) -> Self {
        let here = |s: &&Arc<Service>| s.share(&fleet.name).is_some();
        let probes = desired.services.values().filter(here);
        let probes = probes.filter_map(|s| Some((s.name.clone(), s.probe.clone()?))).collect();
        let apps = fleet.marathon.iter().flat_map(|cluster| {
            // A claimed app has no label of ours: while its service leaves, nothing else says whose it is.
            let its = |s: &&Arc<Service>| here(s) || s.app.id.is_some();
            let services = desired.services.values().filter(its);
            services.map(|s| (s.app_id(&cluster.group), s.name.clone()))
        });
        let apps = apps.collect();
        Self { fleet: Arc::clone(fleet), probes, apps }
    }
}

/// Runs instances on the hosts of one fleet.
///
/// Contract: `apply` twice is `apply` once; stopping or removing what is gone succeeds; what does not
/// carry our owner label is never touched; after a step returned `Ok`, the next `views` show it.
/// There may for a moment be two instances with the same slot.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Says what to observe from now on. Cheap when nothing changed.
    fn watch(&self, watch: Watch);

    /// The newest view of every watched host, from memory: never waits, never fails.
    fn views(&self) -> BTreeMap<HostName, Arc<HostView>>;

    /// Does one step.
    async fn apply(&self, step: &Step) -> Result<(), PortError>;
}
