//! Where an instance goes: filter, then spread, then the least loaded, then the first by name.
//!
//! One placer serves one service in one pass, over a shelf that it shares with its like.

use std::collections::BTreeMap;

use super::board::{Board, Host, Member};
use super::shelf::Shelf;
use crate::model::{HostState, InstanceSpec, Packing, Published, Seen, Service, Time};

/// A candidate: shunned last, then instances of the service, load, instances, and place by name.
type Key = (bool, u32, u64, u32, usize);

pub(super) struct Placer<'p> {
    service: &'p Service,
    spec: &'p InstanceSpec,
    now: Time,
    class: super::shelf::Class,
    zones: Vec<Zone>,
    /// Of the service on each host: all that take room, and those that stay.
    on_host: BTreeMap<usize, (u32, u32)>,
}

/// The hosts that share a value of `spreadBy`.
#[derive(Clone, Copy, Default)]
struct Zone {
    /// Instances of the service that stay there.
    stays: u32,
    /// Whether `best` is up to date.
    looked: bool,
    best: Option<Key>,
}

impl<'p> Placer<'p> {
    /// `stays` tells which members count for the spread: those that will not leave.
    pub(super) fn new<'m>(
        service: &'p Service,
        spec: &'p InstanceSpec,
        board: &mut Board<'_>,
        now: Time,
        members: impl Iterator<Item = (&'m Member<'m>, bool)>,
    ) -> Self {
        let class = board.shelve(&service.placement);
        let zones = board.shelves.get(&class).map_or(0, |s| s.zones.len());
        let mut placer = Self {
            service,
            spec,
            now,
            class,
            zones: vec![Zone::default(); zones],
            on_host: BTreeMap::new(),
        };
        for (member, stays) in members {
            let counts = placer.on_host.entry(member.host).or_default();
            counts.0 += 1;
            counts.1 += u32::from(stays);
            if let Some(row) = board.shelves.get(&placer.class) {
                placer.zones[row.zone(member.host)].stays += u32::from(stays);
            }
        }
        placer
    }

    /// The host for one more instance and the ports it publishes there; `None` when no host is left.
    pub(super) fn pick(&mut self, board: &Board<'_>) -> Option<(usize, Vec<Published>)> {
        let row = board.shelves.get(&self.class)?;
        let spread = self.service.placement.spread_by.is_some();
        for at in 0..self.zones.len() {
            if !self.zones[at].looked {
                let best = self.best(board, row, at);
                self.zones[at] = Zone { looked: true, best, ..self.zones[at] };
            }
        }
        let rank =
            |zone: &Zone| zone.best.map(|key| (key.0, if spread { zone.stays } else { 0 }, key));
        let ranked = self.zones.iter().enumerate();
        let (_, at) = ranked.filter_map(|(at, zone)| Some((rank(zone)?, at))).min()?;
        let (.., index) = self.zones[at].best?;
        let published = ports(self.service, self.spec, &board.hosts[index])?;
        // The host's load is about to change, and with it who is best in its zone.
        self.zones[at].stays += 1;
        self.zones[at].looked = false;
        let counts = self.on_host.entry(index).or_default();
        *counts = (counts.0 + 1, counts.1 + 1);
        Some((index, published))
    }

    /// The best host of a zone that takes the instance. The shelf is in order, so the first one
    /// without an instance of the service wins at once.
    fn best(&self, board: &Board<'_>, row: &Shelf, zone: usize) -> Option<Key> {
        let mut best: Option<Key> = None;
        for &(shunned, load, instances, index) in &row.zones[zone] {
            if best.is_some_and(|b| b.0 != shunned) {
                break;
            }
            let (all, stays) = self.on_host.get(&index).copied().unwrap_or_default();
            let host = &board.hosts[index];
            if refusal(self.service, self.spec, host, all, self.now).is_some()
                || ports(self.service, self.spec, host).is_none()
            {
                continue;
            }
            let of_service = match self.service.placement.packing {
                Packing::Spread => stays,
                Packing::Binpack => 0,
            };
            let key = (shunned, of_service, load, instances, index);
            if best.is_none_or(|b| key < b) {
                best = Some(key);
            }
            if of_service == 0 {
                break;
            }
        }
        best
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
    if let Some(c) = service.placement.constraints.iter().find(|c| !c.holds(host.spec)) {
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
    let ports = ports.join(", ");
    format!("every host port from {ports} is taken (rollout.maxSurge: 0 lets the old one go first)")
}

/// The host ports for the n-th instance on a host, n the first that is free: `publish + n - 1`.
///
/// What n never exceeds is said by [`Service::ports_on_a_host`].
fn ports(service: &Service, spec: &InstanceSpec, host: &Host<'_>) -> Option<Vec<Published>> {
    let wanted = || spec.ports.iter().filter_map(|p| p.publish.map(|first| (p, first)));
    if wanted().next().is_none() {
        return Some(Vec::new());
    }
    (0..service.ports_on_a_host()).find_map(|n| {
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
