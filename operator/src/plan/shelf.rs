//! Hosts in the order in which they are taken, kept sorted while the plan grows.
//!
//! Services that agree on constraints, spreading and packing share one shelf, so that placing an
//! instance costs a logarithm of the hosts and not a scan of them.

use std::collections::{BTreeMap, BTreeSet};

use super::board::Host;
use crate::model::{Constraint, HostState, Packing, Placement, Seen, Time};

/// Shelves kept at a time; beyond that the oldest are made anew when they are needed again.
const KEPT: usize = 16;

/// Where a host stands: shunned last, then by load, then by instances, then by name.
pub(super) type Place = (bool, u64, u32, usize);

/// The usable hosts of one class of services, by the value of `spreadBy`.
#[derive(Debug)]
pub(super) struct Shelf {
    packing: Packing,
    /// For each host of the board: its zone, and its place when it is usable.
    hosts: Vec<(usize, Option<Place>)>,
    /// For each zone: the usable hosts in order.
    pub(super) zones: Vec<BTreeSet<Place>>,
}

/// What services of one class agree on.
pub(super) type Class = (Vec<Constraint>, Option<String>, bool);

/// The shelves of one pass.
#[derive(Debug, Default)]
pub(super) struct Shelves {
    shelves: BTreeMap<Class, Shelf>,
    order: Vec<Class>,
}

impl Shelves {
    /// Makes sure that there is a shelf for this placement, and names it.
    pub(super) fn ensure(&mut self, placement: &Placement, hosts: &[Host<'_>], now: Time) -> Class {
        let binpack = placement.packing == Packing::Binpack;
        let class = (placement.constraints.clone(), placement.spread_by.clone(), binpack);
        if !self.shelves.contains_key(&class) {
            if self.order.len() >= KEPT {
                let oldest = self.order.remove(0);
                self.shelves.remove(&oldest);
            }
            self.shelves.insert(class.clone(), Shelf::new(placement, hosts, now));
            self.order.push(class.clone());
        }
        class
    }

    pub(super) fn get(&self, class: &Class) -> Option<&Shelf> {
        self.shelves.get(class)
    }

    /// A host's load has changed.
    pub(super) fn moved(&mut self, index: usize, host: &Host<'_>) {
        for shelf in self.shelves.values_mut() {
            shelf.moved(index, host);
        }
    }
}

impl Shelf {
    fn new(placement: &Placement, hosts: &[Host<'_>], now: Time) -> Self {
        let value = |h: &Host<'_>| {
            let label = placement.spread_by.as_deref();
            label.and_then(|l| label_of(h, l)).unwrap_or_default().to_owned()
        };
        let mut names: BTreeMap<String, usize> = hosts.iter().map(|h| (value(h), 0)).collect();
        for (n, zone) in names.values_mut().enumerate() {
            *zone = n;
        }
        let mut shelf = Shelf {
            packing: placement.packing,
            hosts: Vec::with_capacity(hosts.len()),
            zones: vec![BTreeSet::new(); names.len()],
        };
        for (index, host) in hosts.iter().enumerate() {
            let zone = names.get(&value(host)).copied().unwrap_or_default();
            let usable = host.spec.state == HostState::Active
                && host.seen(now) == Seen::Now
                && placement.constraints.iter().all(|c| c.holds(host.spec));
            let place = usable.then(|| place(shelf.packing, host, index));
            shelf.zones[zone].extend(place);
            shelf.hosts.push((zone, place));
        }
        shelf
    }

    fn moved(&mut self, index: usize, host: &Host<'_>) {
        let fresh = place(self.packing, host, index);
        if let Some((zone, Some(old))) = self.hosts.get_mut(index)
            && *old != fresh
        {
            self.zones[*zone].remove(old);
            self.zones[*zone].insert(fresh);
            *old = fresh;
        }
    }

    /// The zone of a host.
    pub(super) fn zone(&self, host: usize) -> usize {
        self.hosts[host].0
    }
}

fn place(packing: Packing, host: &Host<'_>, index: usize) -> Place {
    let capacity = host.view.map(|v| v.capacity).unwrap_or_default();
    let share = |used: u64, of: u64| used.saturating_mul(1_000_000).checked_div(of).unwrap_or(0);
    let load = share(host.used.cpu_millis, capacity.cpu_millis)
        .max(share(host.used.memory_bytes, capacity.memory_bytes));
    match packing {
        Packing::Spread => (host.shunned, load, host.instances, index),
        Packing::Binpack => (host.shunned, u64::MAX - load, u32::MAX - host.instances, index),
    }
}

fn label_of<'h>(host: &'h Host<'_>, name: &str) -> Option<&'h str> {
    if name == "host" {
        return Some(host.spec.name.as_str());
    }
    host.spec.labels.get(name).map(String::as_str)
}
