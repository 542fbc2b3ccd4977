//! The running balancers of one fleet: one driver each, begun and let go as orders name it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::{At, Container, Link, LoadBalancer, Machine, ViewCell, haproxy, machine, nginx};
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::model::{
    BalancerId, BalancerKind, BalancerView, FleetName, HostName, InstanceId, Order, OwnerId, Table,
    Whereabouts,
};

/// Finds a balancer's container.
pub type Find = Arc<dyn Fn(&HostName, &InstanceId) -> Arc<dyn Container> + Send + Sync>;

/// Drives the balancers of one fleet.
pub struct Balancers {
    owner: OwnerId,
    fleet: FleetName,
    find: Find,
    bell: Doorbell,
    clock: Clock,
    drivers: Mutex<Drivers>,
}

#[derive(Default)]
struct Drivers {
    by_id: BTreeMap<BalancerId, Driver>,
    tasks: JoinSet<()>,
}

struct Driver {
    at: Whereabouts,
    orders: watch::Sender<Arc<Table>>,
    view: ViewCell,
    task: AbortHandle,
}

impl Balancers {
    /// Drives nothing yet; `bell` rings at every change of a view.
    pub fn new(owner: OwnerId, fleet: FleetName, find: Find, bell: Doorbell, clock: Clock) -> Self {
        Self { owner, fleet, find, bell, clock, drivers: Mutex::default() }
    }

    fn begin(&self, order: &Order, tasks: &mut JoinSet<()>) -> Driver {
        let (orders, newest) = watch::channel(order.table.clone());
        let view = ViewCell::new(BalancerView::never(self.clock.now()), self.bell.clone());
        let link = Link {
            at: self.at(&order.at),
            orders: newest,
            view: view.clone(),
            clock: self.clock.clone(),
        };
        let task = match order.table.routing.kind {
            BalancerKind::Haproxy => tasks.spawn(haproxy::drive(link)),
            BalancerKind::Nginx => tasks.spawn(nginx::drive(link)),
        };
        Driver { at: order.at.clone(), orders, view, task }
    }

    fn at(&self, at: &Whereabouts) -> At {
        match at {
            Whereabouts::Container { host, id } => At::Container((self.find)(host, id)),
            Whereabouts::External { balancer, external } => {
                let header = machine::header(&self.owner, &self.fleet, balancer);
                At::Machine(Arc::new(Machine::new(external.clone(), header)))
            }
        }
    }
}

impl LoadBalancer for Balancers {
    /// Must be called within a tokio runtime, which then runs the drivers.
    fn publish(&self, orders: BTreeMap<BalancerId, Order>) {
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        let Drivers { by_id, tasks } = &mut *drivers;
        while tasks.try_join_next().is_some() {}
        by_id.retain(|id, driver| {
            let stays = orders.get(id).is_some_and(|order| order.at == driver.at);
            if !stays {
                driver.task.abort();
            }
            stays
        });
        for (id, order) in &orders {
            if let Some(driver) = by_id.get(id) {
                driver.orders.send_if_modified(|table| {
                    let changed = *table != order.table;
                    if changed {
                        *table = order.table.clone();
                    }
                    changed
                });
            } else {
                by_id.insert(id.clone(), self.begin(order, tasks));
            }
        }
    }

    fn views(&self) -> BTreeMap<BalancerId, Arc<BalancerView>> {
        let drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.by_id.iter().map(|(id, driver)| (id.clone(), driver.view.get())).collect()
    }
}
