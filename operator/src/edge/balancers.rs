//! The running balancers of one fleet: one driver a container, begun and let go as orders name it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::{Container, Link, LoadBalancer, ViewCell, haproxy, nginx};
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::model::{BalancerKind, BalancerView, HostName, InstanceId, Order, Table};

/// Finds a balancer's container.
pub type Find = Arc<dyn Fn(&HostName, &InstanceId) -> Arc<dyn Container> + Send + Sync>;

/// Drives the balancers that run as containers.
pub struct Balancers {
    find: Find,
    bell: Doorbell,
    clock: Clock,
    drivers: Mutex<Drivers>,
}

#[derive(Default)]
struct Drivers {
    by_container: BTreeMap<InstanceId, Driver>,
    tasks: JoinSet<()>,
}

struct Driver {
    orders: watch::Sender<Arc<Table>>,
    view: ViewCell,
    task: AbortHandle,
}

impl Balancers {
    /// Drives nothing yet; `bell` rings at every change of a view.
    pub fn new(find: Find, bell: Doorbell, clock: Clock) -> Self {
        Self { find, bell, clock, drivers: Mutex::default() }
    }

    fn begin(&self, id: &InstanceId, order: &Order, tasks: &mut JoinSet<()>) -> Driver {
        let (orders, newest) = watch::channel(order.table.clone());
        let view = ViewCell::new(BalancerView::never(self.clock.now()), self.bell.clone());
        let link = Link {
            container: (self.find)(&order.host, id),
            orders: newest,
            view: view.clone(),
            clock: self.clock.clone(),
        };
        let task = match order.table.routing.kind {
            BalancerKind::Haproxy => tasks.spawn(haproxy::drive(link)),
            BalancerKind::Nginx => tasks.spawn(nginx::drive(link)),
        };
        Driver { orders, view, task }
    }
}

impl LoadBalancer for Balancers {
    /// Must be called within a tokio runtime, which then runs the drivers.
    fn publish(&self, orders: BTreeMap<InstanceId, Order>) {
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        let Drivers { by_container, tasks } = &mut *drivers;
        while tasks.try_join_next().is_some() {}
        by_container.retain(|id, driver| {
            let stays = orders.contains_key(id);
            if !stays {
                driver.task.abort();
            }
            stays
        });
        for (id, order) in &orders {
            if let Some(driver) = by_container.get(id) {
                driver.orders.send_if_modified(|table| {
                    let changed = *table != order.table;
                    if changed {
                        *table = order.table.clone();
                    }
                    changed
                });
            } else {
                by_container.insert(id.clone(), self.begin(id, order, tasks));
            }
        }
    }

    fn views(&self) -> BTreeMap<InstanceId, Arc<BalancerView>> {
        let drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.by_container.iter().map(|(id, driver)| (id.clone(), driver.view.get())).collect()
    }
}
