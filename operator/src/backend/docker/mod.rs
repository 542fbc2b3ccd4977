//! Docker Engines as a backend: one live view a host, kept by one task a host, and steps done through its API.
//!
//! It must never touch a container or a network that does not carry our owner and fleet labels. A host that
//! is broken in whatever way (refused, wrong certificate, not a Docker Engine, stalled) is that host's
//! problem only: its view turns silent, `problems` says why, and it is tried again.

mod apply;
mod connect;
mod container;
mod demux;
mod dial;
mod errors;
mod host;
mod images;
mod instance;
mod labels;
mod probe;
mod registry;
mod session;
mod spec;
mod tar;
mod view;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::task::{AbortHandle, JoinSet};

use self::host::Host;
use self::labels::Me;
use super::{Backend, Watch};
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::error::{PortError, Remedy};
use crate::model::{HostName, HostView, OwnerId, Step};

pub use self::connect::Engine;
pub use self::container::{DockerContainer, Reach};
pub use self::labels::{FLEET, HASH, OWNER, SERVICE, SLOT};
pub use self::tar::archive;

/// What can be set about Docker hosts in general.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerConfig {
    /// The docker `config.json` with the registries' credentials; `$DOCKER_CONFIG/config.json` or
    /// `~/.docker/config.json` where not given.
    pub registry_auth: Option<PathBuf>,
    /// The program that is run as `ssh`, found on the path where not given.
    pub ssh: Option<PathBuf>,
}

/// What every host of the backend shares.
#[derive(Debug)]
struct Shared {
    bell: Doorbell,
    clock: Clock,
    config: DockerConfig,
}

/// Runs the instances of one fleet on Docker hosts.
#[derive(Debug)]
pub struct DockerBackend {
    owner: OwnerId,
    shared: Arc<Shared>,
    hosts: Mutex<Hosts>,
}

#[derive(Debug, Default)]
struct Hosts {
    watch: Option<Watch>,
    by_name: BTreeMap<HostName, (Arc<Host>, AbortHandle)>,
    tasks: JoinSet<()>,
}

/// A lock whose holders cannot leave anything half done by panicking: they only assign.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DockerBackend {
    /// A backend that watches nothing yet. `owner` is the installation's id; `bell` rings at every change of
    /// any view.
    pub fn new(owner: OwnerId, bell: Doorbell, clock: Clock, config: DockerConfig) -> Self {
        let shared = Arc::new(Shared { bell, clock, config });
        Self { owner, shared, hosts: Mutex::default() }
    }

    /// For each host with something wrong, what it is: why it is silent, or what cannot be probed.
    pub fn problems(&self) -> BTreeMap<HostName, String> {
        let hosts = lock(&self.hosts);
        let all = hosts.by_name.iter();
        all.filter_map(|(name, (host, _))| Some((name.clone(), host.problem()?))).collect()
    }

    /// The connection to a host's engine, while it has one. Whoever uses it sets its own time limits and
    /// keeps away from what is not ours.
    pub fn engine(&self, name: &HostName) -> Option<Engine> {
        self.host(name)?.engine()
    }

    fn host(&self, name: &HostName) -> Option<Arc<Host>> {
        lock(&self.hosts).by_name.get(name).map(|(host, _)| Arc::clone(host))
    }
}

#[async_trait]
impl Backend for DockerBackend {
    /// Must be called within a tokio runtime, which then runs the hosts' tasks.
    fn watch(&self, watch: Watch) {
        let mut hosts = lock(&self.hosts);
        if hosts.watch.as_ref() == Some(&watch) {
            return;
        }
        let Hosts { watch: before, by_name, tasks } = &mut *hosts;
        while tasks.try_join_next().is_some() {}
        let same_fleet = before.as_ref().is_some_and(|b| b.fleet.name == watch.fleet.name);
        let wanted = &watch.fleet.hosts;
        let mut changed = false;
        by_name.retain(|name, (host, task)| {
            // Nothing that was seen of another engine holds here. Of the same one it does, whatever certificate we show.
            let stays = same_fleet
                && wanted
                    .get(name)
                    .is_some_and(|new| new.endpoint.is_same_engine(&host.spec().endpoint));
            if !stays {
                task.abort();
                changed = true;
            }
            stays
        });
        let probes = Arc::new(watch.probes.clone());
        for (name, spec) in wanted {
            if let Some((host, _)) = by_name.get(name) {
                host.respec(Arc::clone(spec), Arc::clone(&probes));
                continue;
            }
            let me = Me { owner: self.owner.clone(), fleet: watch.fleet.name.clone() };
            let host = Arc::new(Host::new(me, Arc::clone(spec), Arc::clone(&self.shared)));
            host.respec(Arc::clone(spec), Arc::clone(&probes));
            let task = tasks.spawn(session::run(Arc::clone(&host)));
            by_name.insert(name.clone(), (host, task));
            changed = true;
        }
        *before = Some(watch);
        drop(hosts);
        if changed {
            self.shared.bell.ring();
        }
    }

    fn views(&self) -> BTreeMap<HostName, Arc<HostView>> {
        let hosts = lock(&self.hosts);
        hosts.by_name.iter().map(|(name, (host, _))| (name.clone(), host.view())).collect()
    }

    async fn apply(&self, step: &Step) -> Result<(), PortError> {
        let Some(host) = self.host(step.host()) else {
            let why = format!("host {} is not one of the fleet's Docker hosts", step.host());
            return Err(PortError::new(step.to_string(), Remedy::Reobserve, why));
        };
        apply::apply(&host, step).await
    }
}

/// What the create call would carry, for `evenkeel render`. Values of secrets are replaced.
pub fn rendered(
    owner: &OwnerId,
    fleet: &crate::model::FleetName,
    start: &crate::model::Start,
) -> serde_json::Value {
    let me = labels::Me { owner: owner.clone(), fleet: fleet.clone() };
    let mut spec = (*start.spec).clone();
    for var in &mut spec.env {
        if let crate::model::EnvValue::Secret { name, key, value } = &mut var.value {
            *value = crate::model::Secret::new(&format!("(secret {name}/{key})"));
        }
    }
    let start = crate::model::Start { spec: Arc::new(spec), ..start.clone() };
    serde_json::to_value(spec::body(&me, &start)).unwrap_or_default()
}
