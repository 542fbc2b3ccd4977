//! What leaves where documents are objects of an API: who deletes one says so, and absence says nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::applied::Applied;
use super::document::{Id, Meaning, Ready};
use super::implied;
use crate::model::{Balancer, Service, ServiceName};
use crate::source::Objects;

/// The same, and nothing of it is wanted any more: its instances leave as it says.
pub(super) fn emptied(ready: Ready) -> Ready {
    // Of several fleets none has a part any more.
    let none = |s: &Service| {
        let placements = s.placements.keys().map(|fleet| (fleet.clone(), 0)).collect();
        Arc::new(Service { replicas: 0, placements, suspend: false, ..s.clone() })
    };
    let meaning = match ready.meaning {
        Meaning::Service(service) => Meaning::Service(none(&service)),
        Meaning::Balancer(balancer) => Meaning::Balancer(Arc::new(Balancer {
            service: none(&balancer.service),
            virtual_ip: None,
            ..(*balancer).clone()
        })),
        Meaning::Fleet(fleet) => Meaning::Fleet(fleet),
    };
    Ready { meaning, ..ready }
}

/// Services whose document is gone from where that means something: there was a file before, and now there is none.
pub(super) fn gone(previous: &Applied, api: &Objects, now: &BTreeSet<&Id>) -> BTreeSet<String> {
    let files = previous.objects.iter().filter(|(_, d)| !api.has(&d.path));
    let ids = files.filter_map(|(key, _)| Id::read(key)).filter(|id| id.kind != "Fleet");
    let now: BTreeSet<&str> =
        now.iter().filter(|id| id.kind != "Fleet").map(|id| id.name.as_str()).collect();
    let all = previous.gone.iter().cloned().chain(ids.map(|id| id.name));
    all.filter(|name| !now.contains(name.as_str())).collect()
}

/// What goes for want of a document there: what a file asked for, and what is implied by a document that is there.
pub(super) fn by_absence(gone: &BTreeSet<String>, now: &BTreeSet<&Id>) -> BTreeSet<ServiceName> {
    let mut names: BTreeSet<ServiceName> =
        gone.iter().filter_map(|name| ServiceName::new(name).ok()).collect();
    for id in now {
        let Ok(name) = ServiceName::new(&id.name) else { continue };
        match id.kind {
            "Fleet" => names.extend(implied::consul_names(&name)),
            "LoadBalancer" => names.extend(implied::mover_name(&name)),
            _ => {}
        }
    }
    names
}
