//! Services that would fight for a host's port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Entry, Force, place, service_id};
use crate::model::{Fleet, FleetName, Service, ServiceName};
use crate::source::parse::document::Id;
use crate::source::parse::implied;
use crate::source::parse::node::shown_path;
use crate::source::parse::ports::{self, Claim};

/// Rounds in which a service that falls back to its last good document takes ports from another.
const ROUNDS: usize = 10;

impl Force<'_> {
    /// Holds services that would fight for a port, until none does. Of a clash both are told;
    /// one that already is held stays as it is.
    pub(super) fn part_ports(&mut self, fleets: &BTreeMap<FleetName, Arc<Fleet>>) {
        for round in 0..=ROUNDS {
            let mut services: BTreeMap<ServiceName, Arc<Service>> =
                self.services().into_iter().map(|(_, s, _)| (s.name.clone(), s)).collect();
            for implied in fleets.values().flat_map(|fleet| implied::consul(fleet)) {
                services.entry(implied.name.clone()).or_insert(implied);
            }
            let mut told: BTreeSet<(ServiceName, usize)> = BTreeSet::new();
            for clash in ports::clashes(&services, fleets) {
                for (claim, other) in [(&clash.one, &clash.other), (&clash.other, &clash.one)] {
                    let id = self.workload(&claim.service);
                    let new = self.entries.get(&id).is_some_and(|e| !e.held);
                    let port = (claim.service.clone(), claim.port);
                    if new && told.insert(port) {
                        self.tell_clash(&id, claim, other, &clash.host);
                    }
                }
            }
            if told.is_empty() {
                return;
            }
            for (service, _) in told {
                self.hold(&self.workload(&service));
            }
            if round == ROUNDS {
                self.hold_publishers();
            }
        }
    }

    /// The end of a chain of fall-backs that each took another's ports.
    fn hold_publishers(&mut self) {
        for (id, service, held) in self.services() {
            if !held && service.spec.ports.iter().any(|p| p.publish.is_some()) {
                let ports = ports_of(&id);
                let message =
                    format!("{ports}: held until the other clashes of ports are resolved");
                self.tell(&id, ports, message, None);
                self.hold(&id);
            }
        }
    }

    /// The document that a service in force comes from: its own, or a balancer's.
    pub(super) fn workload(&self, name: &ServiceName) -> Id {
        let balancer = Id { kind: "LoadBalancer", name: name.as_str().to_owned() };
        if self.entries.contains_key(&balancer) { balancer } else { service_id(name) }
    }

    fn tell_clash(&mut self, id: &Id, claim: &Claim, other: &Claim, host: &str) {
        let range = |c: &Claim| match c.last {
            last if last == c.first => format!("{last}"),
            last => format!("{} to {last}", c.first),
        };
        let path = format!("{}[{}].publish", ports_of(id), claim.port);
        let message = if claim.service == other.service {
            format!(
                "{path}: {} meets {}[{}].publish ({}): on one host each instance takes the next port",
                range(claim),
                ports_of(id),
                other.port,
                range(other)
            )
        } else {
            let other_id = self.workload(&other.service);
            let entry = self.entries.get(&other_id);
            let source = match entry {
                Some(Entry { held: true, .. }) => {
                    let stored = self.ctx.previous.objects.get(&other_id.key());
                    let path = stored.map_or("", |d| d.path.as_str());
                    format!(", by its last good document in {}", shown_path(path))
                }
                Some(Entry { object: Some(object), .. }) => {
                    let field = format!("{}[{}].publish", ports_of(&other_id), other.port);
                    format!(" at {}", place(&object.path, self.places.locate(object, &field)))
                }
                Some(Entry { object: None, .. }) | None => String::new(),
            };
            format!(
                "{path}: {} on the host {host} is also published by {} {} ({}{source})",
                range(claim),
                other_id.kind,
                other.service,
                range(other),
            )
        };
        let hint = if claim.first == claim.last && other.first == other.last {
            "choose another port, or keep the services on different hosts by placement.constraints"
        } else {
            "instances on one host count up from publish: leave room for all of them, set \
             placement.maxPerHost, or keep the services on different hosts"
        };
        self.tell(id, &path, message, Some(hint.into()));
    }
}

/// Where a document says what it publishes.
fn ports_of(id: &Id) -> &'static str {
    if id.kind == "LoadBalancer" { "spec.listeners" } else { "spec.ports" }
}
