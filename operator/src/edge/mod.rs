//! What leads clients to instances: load balancers and the registry. An edge observes and follows what it was
//! last told; it decides nothing.
//!
//! Both ports are declarative: a pass publishes whole tables, and whoever drives a balancer or a registry makes the
//! smallest change that brings it there. What is reported is what is in force there, never what was last sent.

pub mod balancers;
pub mod certificate;
pub mod consul;
pub mod container;
pub mod fleet;
pub mod haproxy;
pub mod keepalived;
pub mod machine;
pub mod nginx;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

pub use self::container::{Boot, Container, Conversation, Output};
pub use self::machine::Machine;
use crate::bell::Doorbell;
use crate::clock::Clock;
pub use crate::model::File;
use crate::model::{
    BalancerId, BalancerKind, BalancerView, Order, Registrations, RegistryView, Routing, Table,
};

/// Drives the running balancers of one fleet.
///
/// Contract: publishing the same twice changes nothing. A table that a balancer refuses leaves the one before in
/// force, less the routes that are at fault. What cannot be reached keeps what it has. The bell rings at every change
/// of a view.
pub trait LoadBalancer: Send + Sync {
    /// Says what each running balancer should do from now on; one that is left out is let go.
    /// Cheap when nothing changed. Never waits.
    fn publish(&self, orders: BTreeMap<BalancerId, Order>);

    /// What each has in force, from memory: never waits, never fails.
    fn views(&self) -> BTreeMap<BalancerId, Arc<BalancerView>>;
}

/// Drives the registry of one fleet.
///
/// Contract: only entries that carry our owner and fleet are ever changed or removed. Publishing the same twice
/// changes nothing. While the registry cannot be reached, has no leader or has just been emptied, the view says so
/// and keeps what was last known. The bell rings at every change of the view.
pub trait Discovery: Send + Sync {
    /// Says what should be registered from now on. Cheap when nothing changed. Never waits.
    fn publish(&self, registrations: Arc<Registrations>);

    /// What is registered of ours, from memory: never waits, never fails.
    fn view(&self) -> Arc<RegistryView>;
}

/// How a balancer's container begins.
pub fn boot(kind: BalancerKind) -> Boot {
    match kind {
        BalancerKind::Haproxy => haproxy::boot(),
        BalancerKind::Nginx => nginx::boot(),
    }
}

/// A balancer's configuration as it would be while nobody is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// What the file is called.
    pub file: &'static str,
    /// The file. It names certificates and has none in it.
    pub text: String,
    /// What would be left out, and why.
    pub problem: Option<String>,
}

/// Renders what documents fix, for a person to look at. What a program of another version or build says of it is not
/// known here.
pub fn preview(routing: &Arc<Routing>) -> Preview {
    match routing.kind {
        BalancerKind::Haproxy => haproxy::preview(routing),
        BalancerKind::Nginx => nginx::preview(routing),
    }
}

/// A port inside the container that the program keeps for itself.
pub fn own_port(kind: BalancerKind) -> u16 {
    match kind {
        BalancerKind::Haproxy => haproxy::PORT,
        BalancerKind::Nginx => nginx::ASK_PORT,
    }
}

/// Why the program cannot be told of such requests, whatever else it is told.
pub fn unfit(kind: BalancerKind, host: Option<&str>, path: &str) -> Option<String> {
    match kind {
        BalancerKind::Haproxy => haproxy::unfit(host, path),
        BalancerKind::Nginx => nginx::unfit(host, path),
    }
}

/// Where a balancer runs.
#[derive(Clone)]
pub enum At {
    /// In a container of ours, all of which is ours.
    Container(Arc<dyn Container>),
    /// On this machine, run by somebody else.
    Machine(Arc<Machine>),
}

/// What a driver of one balancer works with.
pub struct Link {
    /// Where the balancer runs.
    pub at: At,
    /// What it should do; the driver ends when the sender is gone.
    pub orders: watch::Receiver<Arc<Table>>,
    /// Where the driver tells what is in force.
    pub view: ViewCell,
    /// The time.
    pub clock: Clock,
}

impl Link {
    /// Says who gets requests once `table` is loaded, before it is: whoever was told to leave meanwhile must not end until
    /// it is seen that he gets none. False where there are other orders by now, and nothing may be loaded.
    fn announce(&self, table: &Table) -> bool {
        let view = (*self.view.get()).clone();
        self.view.set(BalancerView { coming: table.ready(), ..view });
        !self.orders.has_changed().unwrap_or(false)
    }
}

/// The newest view of one balancer.
#[derive(Debug, Clone)]
pub struct ViewCell {
    view: Arc<Mutex<Arc<BalancerView>>>,
    bell: Doorbell,
}

impl ViewCell {
    /// Holds `view` until something is told; rings the bell then.
    pub fn new(view: BalancerView, bell: Doorbell) -> Self {
        Self { view: Arc::new(Mutex::new(Arc::new(view))), bell }
    }

    /// The newest view.
    pub fn get(&self) -> Arc<BalancerView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the view. The bell rings where more than counters changed.
    pub fn set(&self, view: BalancerView) {
        let mut cell = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = cell.same_but_for_counters(&view);
        *cell = Arc::new(view);
        drop(cell);
        if !quiet {
            self.bell.ring();
        }
    }
}
