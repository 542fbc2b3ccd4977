//! What is: everything observed, and the steps still under way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::app::{AppId, AppView};
use super::desired::Resources;
use super::edge::{BalancerId, BalancerView, RegistryView};
use super::elsewhere::Elsewhere;
use super::hash::SpecHash;
use super::name::{HostName, InstanceId, ServiceName, Slot};
use super::step::Step;
use super::time::Time;

/// Everything observed of one fleet.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// One view a host of the fleet. A host that is missing here counts as never seen.
    pub hosts: BTreeMap<HostName, Arc<HostView>>,
    /// Steps that were begun and have not ended.
    pub in_flight: Vec<InFlight>,
    /// What running balancers have in force.
    pub balancers: BTreeMap<BalancerId, Arc<BalancerView>>,
    /// What the registry has of ours; `None` where the fleet has no registry.
    pub registry: Option<Arc<RegistryView>>,
    /// Whether each voter of the fleet's own registry is healthy, by its host name; `None`: nobody can tell.
    pub voters: Option<Arc<BTreeMap<String, bool>>>,
    /// What the other fleets say.
    pub elsewhere: Elsewhere,
}

/// A step that was begun and has not ended.
#[derive(Debug, Clone)]
pub struct InFlight {
    /// The step.
    pub step: Arc<Step>,
    /// When it was begun.
    pub since: Time,
}

/// What is known of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// Whether the rest can be believed.
    pub seen: Seen,
    /// What the host has in all.
    pub capacity: Resources,
    /// Our instances, in the order of their ids. Foreign containers are not in here.
    pub instances: Vec<Instance>,
    /// Names of foreign containers: ours must avoid them.
    pub foreign_names: BTreeSet<Arc<str>>,
    /// Host ports that foreign containers publish: ours must avoid them.
    pub foreign_ports: BTreeSet<u16>,
    /// Networks that we made on the host and that are still there.
    pub networks: BTreeSet<Arc<str>>,
    /// The apps of a Marathon cluster: ours, those that a document claims, and others that have an id of ours.
    pub apps: BTreeMap<AppId, Arc<AppView>>,
}

impl HostView {
    /// A host that has not answered since the agent began at `since`.
    pub fn never(since: Time) -> Self {
        Self {
            seen: Seen::Never { since },
            capacity: Resources::default(),
            instances: Vec::new(),
            foreign_names: BTreeSet::new(),
            foreign_ports: BTreeSet::new(),
            networks: BTreeSet::new(),
            apps: BTreeMap::new(),
        }
    }
}

/// Whether a host's view can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The host answers; its view is live.
    Now,
    /// It answered once and has been silent since: its instances are neither gone nor serving.
    Silent {
        /// When it fell silent.
        since: Time,
    },
    /// It has not answered since the agent began: it may hold anything.
    Never {
        /// When the agent began to ask.
        since: Time,
    },
}

/// One container of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The engine's id.
    pub id: InstanceId,
    /// The container's name.
    pub name: Arc<str>,
    /// The service it belongs to.
    pub service: ServiceName,
    /// The slot it fills.
    pub slot: Slot,
    /// What it is.
    pub hash: SpecHash,
    /// Whether it runs.
    pub state: State,
    /// Whether it works, as far as is known.
    pub health: HealthState,
    /// When it was made, on the engine's clock: only ever compared with others of one slot.
    pub created: Time,
    /// What it reserves.
    pub resources: Resources,
    /// Host ports it publishes.
    pub published: Vec<u16>,
    /// Container and host port of what is published by TCP.
    pub bindings: Vec<(u16, u16)>,
    /// Its addresses, by network.
    pub networks: Vec<(Arc<str>, IpAddr)>,
    /// Where its published ports are reached, when that is not its host's address: a task's Mesos agent.
    pub at: Option<IpAddr>,
    /// Whether clients reach it.
    pub traffic: Traffic,
}

/// The life of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Frozen by somebody.
    Paused,
    /// Ended.
    Exited {
        /// Its exit code.
        code: i64,
        /// Whether the kernel ended it for want of memory.
        out_of_memory: bool,
    },
    /// Being removed by the engine.
    Removing,
    /// It may run still, and its end has begun, or its platform has lost sight of it: nobody new may be led to it.
    Ending,
}

/// What the health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    /// It ran before the agent could ask: neither healthy nor free to be stopped.
    Unknown,
    /// It was seen to start and has not passed its first check.
    Starting,
    /// Well since then, on the agent's clock.
    Healthy {
        /// Since when.
        since: Time,
    },
    /// The check has failed as often as the threshold says.
    Unhealthy {
        /// Since when.
        since: Time,
    },
}

/// Whether clients reach an instance, over the registry and every balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Nothing routes to it.
    None,
    /// There is nobody who could lead clients to it: no balancer of its routes is up.
    Nobody,
    /// It is a voter of a cluster, or is to be one.
    Voter {
        /// Whether the cluster counts on it.
        up: bool,
    },
    /// Something routes to it.
    Serving {
        /// Whether every healthy balancer that routes to it reports it up.
        up: bool,
    },
    /// Observed out of the registry and every balancer.
    Withdrawn {
        /// Since when.
        since: Time,
        /// Current sessions, summed over every balancer. `None`: nobody counts them, as clients that ask the
        /// registry come directly.
        sessions: Option<u32>,
    },
    /// Cannot be told now: a balancer is silent, or the registry is while it is to be left.
    Unknown,
}
