//! What runs instances. A backend observes and does; it decides nothing.

pub mod docker;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::PortError;
use crate::model::{Fleet, HostName, HostView, Probe, ServiceName, Step};

/// What a backend must know to observe a fleet: its hosts, and how to ask each service for its health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The fleet; hosts that are new are connected, hosts that are gone are let go.
    pub fleet: Arc<Fleet>,
    /// Health checks that the agent makes from outside.
    pub probes: BTreeMap<ServiceName, Probe>,
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
