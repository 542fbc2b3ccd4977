//! What fleets must know of each other: who of one stands behind balancers of another, and how many of a service that runs on
//! both work.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::edge::{BalancerView, PoolName, Server};
use super::name::{FleetName, Revision, ServiceName};
use super::time::Time;

/// What the other fleets say, each by its newest pass. One that is missing has said nothing yet.
#[derive(Debug, Clone, Default)]
pub struct Elsewhere(pub BTreeMap<FleetName, Arc<Outward>>);

/// What one fleet says to the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outward {
    /// The documents that it was said by. What was said by others says nothing of what is done now.
    pub revision: Option<Revision>,
    /// Since when a host has not answered at all, and may hold anything.
    pub unseen: Option<Time>,
    /// Its instances in the pools of balancers that run on other fleets, by balancer and pool.
    pub servers: BTreeMap<(ServiceName, PoolName), Vec<Server>>,
    /// False while somebody may be missing in `servers`: a host that has not answered, an instance of which nobody can tell
    /// whether clients reach it.
    pub complete: bool,
    /// Its running balancers that count, and what each has in force; `None`: it cannot be asked now.
    pub witnesses: Vec<(ServiceName, Option<Arc<BalancerView>>)>,
    /// Its parts of services that run on other fleets too, or are leaving this one.
    pub parts: BTreeMap<ServiceName, Part>,
}

/// One fleet's part of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// How many places are taken, by ending instances and by steps of this very plan too. Two instances of which one
    /// replaces the other take one.
    pub total: u32,
    /// How many are available.
    pub available: u32,
}
