//! Where an instance goes: filter, then spread, then the least loaded, then the first by name.
//!
//! One placer serves one service in one pass. Candidates stand in a heap for each value of
//! `spreadBy`, so that thousands of hosts cost a logarithm for each instance and not a scan.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::board::{Board, Host, Member};
use crate::model::{Constraint, HostState, InstanceSpec, Packing, Published, Seen, Service, Time};

/// A candidate: shunned last, then instances of the service, load, instances, and place by name.
type Key = (bool, u32, u64, u32, usize);

pub(super) struct Placer<'p> {
    service: &'p Service,
    spec: &'p InstanceSpec,
    now: Time,
    zones: Vec<Zone>,
    /// Of the service on each host: all that take room, and those that stay.
    on_host: BTreeMap<usize, (u32, u32)>,
    /// The zone and host of the last pick, out of its heap until its new load is known.
    picked: Option<(usize, usize)>,
}

struct Zone {
    count: u32,
    heap: BinaryHeap<Reverse<Key>>,
}

impl<'p> Placer<'p> {
    /// `stays` tells which members count for the spread: those that will not leave.
    pub(super) fn new<'m>(
        service: &'p Service,
        spec: &'p InstanceSpec,
        board: &Board<'_>,
        now: Time,
        members: impl Iterator<Item = (&'m Member<'m>, bool)>,
    ) -> Self {
        let mut on_host: BTreeMap<usize, (u32, u32)> = BTreeMap::new();
        for (member, stays) in members {
            let counts = on_host.entry(member.host).or_default();
            counts.0 += 1;
            counts.1 += u32::from(stays);
        }
        let mut zones: BTreeMap<&str, (u32, Vec<Reverse<Key>>)> = BTreeMap::new();
        let spread_by = service.placement.spread_by.as_deref();
        for (index, host) in board.hosts.iter().enumerate() {
            let value = spread_by.and_then(|l| label(host, l)).unwrap_or_default();
            let stays = if on_host.is_empty() { 0 } else { on_host.get(&index).map_or(0, |c| c.1) };
            let usable = takes_new(host, now)
                && service.placement.constraints.iter().all(|c| holds(c, host));
            if !usable && stays == 0 {
                continue;
            }
            let zone = zones.entry(value).or_default();
            zone.0 += stays;
            if usable {
                zone.1.push(Reverse(key(service.placement.packing, host, stays, index)));
            }
        }
        let zones = zones
            .into_values()
            .map(|(count, candidates)| Zone { count, heap: BinaryHeap::from(candidates) })
            .collect();
        Self { service, spec, now, zones, on_host, picked: None }
    }

    /// The host for one more instance and the ports it publishes there; `None` when no host is left.
    pub(super) fn pick(&mut self, board: &Board<'_>) -> Option<(usize, Vec<Published>)> {
        if let Some((zone, index)) = self.picked.take() {
            let fresh = self.key(board, index);
            self.zones[zone].heap.push(Reverse(fresh));
        }
        let spread = self.service.placement.spread_by.is_some();
        loop {
            let (at, zone) =
                self.zones.iter_mut().enumerate().filter(|(_, z)| !z.heap.is_empty()).min_by_key(
                    |(_, z)| {
                        let top = z.heap.peek().map_or(Key::default(), |Reverse(k)| *k);
                        (top.0, if spread { z.count } else { 0 }, top)
                    },
                )?;
            let Some(Reverse((.., index))) = zone.heap.pop() else { continue };
            let host = &board.hosts[index];
            let (all, stays) = self.on_host.get(&index).copied().unwrap_or_default();
            // What does not fit once will not fit later in this pass: the host leaves the heap.
            if refusal(self.service, self.spec, host, all, self.now).is_some() {
                continue;
            }
            let Some(published) = ports(self.service, self.spec, host) else { continue };
            zone.count += 1;
            self.on_host.insert(index, (all + 1, stays + 1));
            self.picked = Some((at, index));
            return Some((index, published));
        }
    }

    fn key(&self, board: &Board<'_>, index: usize) -> Key {
        let stays = self.on_host.get(&index).map_or(0, |c| c.1);
        key(self.service.placement.packing, &board.hosts[index], stays, index)
    }

    /// Which filter refused which hosts, for people.
    pub(super) fn refusals(&self, board: &Board<'_>) -> String {
        let mut by_reason: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (index, host) in board.hosts.iter().enumerate() {
            let all = self.on_host.get(&index).map_or(0, |c| c.0);
            let why = refusal(self.service, self.spec, host, all, self.now)
                .or_else(|| {
                    ports(self.service, self.spec, host).is_none().then(|| taken(self.spec))
                })
                .unwrap_or_else(|| "no reason".into());
            by_reason.entry(why).or_default().push(host.spec.name.as_str());
        }
        if by_reason.is_empty() {
            return "the fleet has no hosts".into();
        }
        let parts: Vec<String> = by_reason
            .into_iter()
            .map(|(why, hosts)| match hosts.as_slice() {
                [a, b, c, _, ..] => format!("{why}: {a}, {b}, {c} and {} more", hosts.len() - 3),
                few => format!("{why}: {}", few.join(", ")),
            })
            .collect();
        parts.join("; ")
    }
}

fn label<'h>(host: &'h Host<'_>, name: &str) -> Option<&'h str> {
    if name == "host" {
        return Some(host.spec.name.as_str());
    }
    host.spec.labels.get(name).map(String::as_str)
}

fn holds(c: &Constraint, host: &Host<'_>) -> bool {
    (label(host, &c.label) == Some(c.value.as_str())) == c.equal
}

fn takes_new(host: &Host<'_>, now: Time) -> bool {
    host.spec.state == HostState::Active && host.seen(now) == Seen::Now
}

fn key(packing: Packing, host: &Host<'_>, of_service: u32, index: usize) -> Key {
    let capacity = host.view.map(|v| v.capacity).unwrap_or_default();
    let share = |used: u64, of: u64| used.saturating_mul(1_000_000).checked_div(of).unwrap_or(0);
    let load = share(host.used.cpu_millis, capacity.cpu_millis)
        .max(share(host.used.memory_bytes, capacity.memory_bytes));
    match packing {
        Packing::Spread => (host.shunned, of_service, load, host.instances, index),
        Packing::Binpack => (host.shunned, 0, u64::MAX - load, u32::MAX - host.instances, index),
    }
}

/// The first filter that a host fails, for people.
fn refusal(
    service: &Service,
    spec: &InstanceSpec,
    host: &Host<'_>,
    on_host: u32,
    now: Time,
) -> Option<String> {
    match host.spec.state {
        HostState::Active => {}
        HostState::Cordoned => return Some("cordoned".into()),
        HostState::Draining => return Some("draining".into()),
    }
    match host.seen(now) {
        Seen::Now => {}
        Seen::Silent { .. } => return Some("silent".into()),
        Seen::Never { .. } => return Some("not seen yet".into()),
    }
    if let Some(c) = service.placement.constraints.iter().find(|c| !holds(c, host)) {
        return Some(format!("not {c}"));
    }
    if service.placement.max_per_host.is_some_and(|most| on_host >= most) {
        return Some(format!("maxPerHost {on_host} reached"));
    }
    let capacity = host.view.map(|v| v.capacity).unwrap_or_default();
    let want = spec.resources;
    if want.cpu_millis > 0 && host.used.cpu_millis + want.cpu_millis > capacity.cpu_millis {
        return Some(format!("no room for {}m cpu", want.cpu_millis));
    }
    if want.memory_bytes > 0 && host.used.memory_bytes + want.memory_bytes > capacity.memory_bytes {
        return Some(format!("no room for {} MiB memory", want.memory_bytes.div_ceil(1 << 20)));
    }
    None
}

fn taken(spec: &InstanceSpec) -> String {
    let ports: Vec<String> =
        spec.ports.iter().filter_map(|p| p.publish).map(|p| p.to_string()).collect();
    format!("every host port from {} is taken", ports.join(", "))
}

/// The host ports for the n-th instance on a host, n the first that is free: `publish + n - 1`.
///
/// n never exceeds the replicas, so that a surge does not leave a service on a port that its
/// clients do not know.
fn ports(service: &Service, spec: &InstanceSpec, host: &Host<'_>) -> Option<Vec<Published>> {
    let wanted = || spec.ports.iter().filter_map(|p| p.publish.map(|first| (p, first)));
    if wanted().next().is_none() {
        return Some(Vec::new());
    }
    (0..service.replicas).find_map(|n| {
        wanted()
            .map(|(port, first)| {
                let n = u16::try_from(n).ok()?;
                let host_port = first.checked_add(n)?;
                (!host.ports.contains(&host_port)).then_some(Published {
                    container: port.container,
                    host: host_port,
                    protocol: port.protocol,
                })
            })
            .collect()
    })
}
