//! A Marathon cluster as a backend: one live view of its apps and tasks, kept by one task, and steps done through its API.
//!
//! It must never change an app that carries neither our owner's and our fleet's labels nor is named by a document while it
//! carries none. A cluster that does not answer is silent, never empty.

mod apply;
mod cluster;
mod dump;
mod encode;
mod error;
mod events;
mod http;
mod labels;
mod member;
mod session;
mod sse;
mod task;
#[cfg(test)]
pub(crate) mod tests;
mod view;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::task::{AbortHandle, JoinSet};

pub use self::dump::dump;

use self::cluster::Cluster;
use self::labels::Me;
use super::{Backend, Watch};
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::error::{PortError, Remedy};
use crate::model::{
    AppId, Definition, FleetName, HostName, HostView, OwnerId, ServiceName, SpecHash, Step, Time,
};

/// What can be set about Marathon clusters in general.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarathonConfig {
    /// Everything is looked at so often, in case an event never came.
    pub relist: Duration,
    /// A stream of events that says nothing for so long is dead. Marathon sends a sign of life every 10 s.
    pub silence: Duration,
}

impl Default for MarathonConfig {
    fn default() -> Self {
        Self { relist: Duration::from_secs(60), silence: Duration::from_secs(30) }
    }
}

/// What the cluster's task and the steps share with the backend.
#[derive(Debug)]
struct Shared {
    bell: Doorbell,
    clock: Clock,
    config: MarathonConfig,
}

/// Runs the apps of one fleet on a Marathon cluster.
#[derive(Debug)]
pub struct MarathonBackend {
    owner: OwnerId,
    shared: Arc<Shared>,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    watch: Option<Watch>,
    clusters: BTreeMap<HostName, (Arc<Cluster>, AbortHandle)>,
    tasks: JoinSet<()>,
}

/// A lock whose holders cannot leave anything half done by panicking: they only assign.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MarathonBackend {
    /// A backend that watches nothing yet. `owner` is the installation's id; `bell` rings at every change of the view.
    pub fn new(owner: OwnerId, bell: Doorbell, clock: Clock, config: MarathonConfig) -> Self {
        let shared = Arc::new(Shared { bell, clock, config });
        Self { owner, shared, running: Mutex::default() }
    }

    /// What is wrong with the cluster: why it is silent, or why its events do not come.
    pub fn problems(&self) -> BTreeMap<HostName, String> {
        let running = lock(&self.running);
        let all = running.clusters.iter();
        all.filter_map(|(name, (cluster, _))| Some((name.clone(), cluster.problem()?))).collect()
    }

    fn cluster(&self, name: &HostName) -> Option<Arc<Cluster>> {
        lock(&self.running).clusters.get(name).map(|(cluster, _)| Arc::clone(cluster))
    }
}

#[async_trait]
impl Backend for MarathonBackend {
    /// Must be called within a tokio runtime, which then runs the cluster's task.
    fn watch(&self, watch: Watch) {
        let mut running = lock(&self.running);
        if running.watch.as_ref() == Some(&watch) {
            return;
        }
        let Running { watch: before, clusters, tasks } = &mut *running;
        while tasks.try_join_next().is_some() {}
        let same_fleet = before.as_ref().is_some_and(|b| b.fleet.name == watch.fleet.name);
        let spec = watch.fleet.marathon.clone();
        let mut changed = false;
        clusters.retain(|name, (cluster, task)| {
            // Other urls are another cluster: nothing that was seen there holds here.
            let same = spec.as_ref().is_some_and(|spec| {
                spec.urls == cluster.spec.urls && spec.auth == cluster.spec.auth
            });
            let stays = same_fleet && same && watch.fleet.hosts.contains_key(name);
            if !stays {
                task.abort();
                changed = true;
            }
            stays
        });
        let named = Arc::new(watch.apps.clone());
        for name in watch.fleet.hosts.keys() {
            let Some(spec) = &spec else { continue };
            if !clusters.contains_key(name) {
                let me = Me { owner: self.owner.clone(), fleet: watch.fleet.name.clone() };
                let shared = Arc::clone(&self.shared);
                let new = Cluster::new(name.clone(), me, Arc::clone(spec), shared);
                let new = Arc::new(new);
                new.name_apps(Arc::clone(&named));
                let task = tasks.spawn(session::run(Arc::clone(&new)));
                clusters.insert(name.clone(), (new, task));
                changed = true;
            } else if before.as_ref().is_none_or(|b| b.apps != watch.apps)
                && let Some((cluster, _)) = clusters.get(name)
            {
                cluster.name_apps(Arc::clone(&named));
            }
        }
        *before = Some(watch);
        drop(running);
        if changed {
            self.shared.bell.ring();
        }
    }

    fn views(&self) -> BTreeMap<HostName, Arc<HostView>> {
        let running = lock(&self.running);
        let all = running.clusters.iter();
        all.map(|(name, (cluster, _))| (name.clone(), cluster.view())).collect()
    }

    async fn apply(&self, step: &Step) -> Result<(), PortError> {
        let Some(cluster) = self.cluster(step.host()) else {
            let why = format!("host {} is not the fleet's Marathon cluster", step.host());
            return Err(PortError::new(step.to_string(), Remedy::Reobserve, why));
        };
        apply::apply(&cluster, step).await
    }
}

/// What would be asked of a server from 1.5 on, for `evenkeel render`.
pub fn rendered(
    owner: &OwnerId,
    fleet: &FleetName,
    service: &ServiceName,
    hash: SpecHash,
    app: (&AppId, &Definition, u32),
) -> Value {
    let me = Me { owner: owner.clone(), fleet: fleet.clone() };
    let (id, definition, instances) = app;
    encode::encode(&me.sign(definition, service, hash), id, instances, wire::Version(1, 5))
}

/// What would be seen of a cluster that answers this to `GET /v2/apps` with tasks, for whoever has such an answer in hand.
pub fn view_of(
    owner: &OwnerId,
    fleet: &FleetName,
    named: BTreeMap<AppId, ServiceName>,
    answer: &[u8],
) -> Result<Arc<HostView>, serde_json::Error> {
    let apps: wire::Apps = serde_json::from_slice(answer)?;
    let me = Me { owner: owner.clone(), fleet: fleet.clone() };
    let mut live = view::Live::new(me, Time(0));
    live.name(Arc::new(named));
    let begun = live.begin();
    let apps = apps.into_apps().filter(|app| live.is_ours_or_named(app)).collect();
    live.listed(begun, view::All { apps, ..view::All::default() }, Time(0));
    live.arrived();
    live.publish();
    Ok(live.published())
}
