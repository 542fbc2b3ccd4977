//! The backend of a fleet whose document may change from Docker hosts to a Marathon cluster and back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::docker::{DockerBackend, DockerConfig};
use super::marathon::{MarathonBackend, MarathonConfig};
use super::{Backend, Watch};
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::error::PortError;
use crate::model::{HostName, HostView, OwnerId, Step};

/// Docker hosts or a Marathon cluster: whichever the newest document names.
#[derive(Debug)]
pub struct Platform {
    docker: Arc<DockerBackend>,
    marathon: MarathonBackend,
    is_marathon: AtomicBool,
}

impl Platform {
    /// A backend that watches nothing yet. `bell` rings at every change of any view.
    pub fn new(owner: OwnerId, bell: Doorbell, clock: Clock) -> Self {
        let config = DockerConfig::default();
        let docker = DockerBackend::new(owner.clone(), bell.clone(), clock.clone(), config);
        let marathon = MarathonBackend::new(owner, bell, clock, MarathonConfig::default());
        Self { docker: Arc::new(docker), marathon, is_marathon: AtomicBool::new(false) }
    }

    /// The Docker hosts; none while the fleet is a Marathon cluster.
    pub fn docker(&self) -> &Arc<DockerBackend> {
        &self.docker
    }

    /// For each host with something wrong, what it is.
    pub fn problems(&self) -> BTreeMap<HostName, String> {
        if self.is_marathon() { self.marathon.problems() } else { self.docker.problems() }
    }

    fn is_marathon(&self) -> bool {
        self.is_marathon.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Backend for Platform {
    /// Must be called within a tokio runtime.
    fn watch(&self, watch: Watch) {
        let is_marathon = watch.fleet.marathon.is_some();
        // What the fleet was before is let go.
        if self.is_marathon.swap(is_marathon, Ordering::Relaxed) != is_marathon {
            let mut nothing = watch.fleet.as_ref().clone();
            nothing.hosts.clear();
            nothing.marathon = None;
            let none =
                Watch { fleet: Arc::new(nothing), probes: BTreeMap::new(), apps: BTreeMap::new() };
            if is_marathon {
                self.docker.watch(none);
            } else {
                self.marathon.watch(none);
            }
        }
        if is_marathon {
            self.marathon.watch(watch);
        } else {
            self.docker.watch(watch);
        }
    }

    fn views(&self) -> BTreeMap<HostName, Arc<HostView>> {
        if self.is_marathon() { self.marathon.views() } else { self.docker.views() }
    }

    async fn apply(&self, step: &Step) -> Result<(), PortError> {
        match step {
            Step::App(_) => self.marathon.apply(step).await,
            Step::Start(_)
            | Step::Stop { .. }
            | Step::Remove { .. }
            | Step::Rename { .. }
            | Step::Admit { .. }
            | Step::Withdraw { .. }
            | Step::RemoveNetwork { .. } => self.docker.apply(step).await,
        }
    }
}
