//! Whether a service can run on the fleets that it names.

use std::collections::BTreeSet;
use std::sync::Arc;

use evenkeel_crds::DEFAULT_FLEET;

use super::{Force, fleet_id};
use crate::model::{Endpoint, Fleet, FleetName, HOST_LABEL, HostSpec, Port, Service};
use crate::source::parse::document::Id;
use crate::source::parse::node::meant;
use crate::source::parse::platform;

impl Force<'_> {
    /// Whether a new service fits the fleets that it names; tells why not.
    pub(super) fn fits(
        &mut self,
        id: &Id,
        service: &Service,
        default: Option<&Arc<Fleet>>,
    ) -> bool {
        service.fleets().all(|name| self.fits_on(name, id, service, default))
    }

    fn fits_on(
        &mut self,
        name: &FleetName,
        id: &Id,
        service: &Service,
        default: Option<&Arc<Fleet>>,
    ) -> bool {
        let defined = self.entries.get(&fleet_id(name)).map(|_| self.fleet(name));
        let fleet = match (defined, default) {
            (Some(Some(fleet)), _) => fleet,
            // The fleet's own problem says enough.
            (Some(None), _) => return false,
            // Without this all its instances would be started anew beside the agent.
            (None, _) if name.as_str() == DEFAULT_FLEET && self.was_defined(&fleet_id(name)) => {
                let message = "spec.fleet: the document of the fleet default is gone, and the \
                               service would move to the local engine";
                let hint =
                    "bring it back, or write a fleet `default` with the local engine as its host";
                self.tell(id, "spec.fleet", message.into(), Some(hint.into()));
                return false;
            }
            (None, Some(fleet)) if name.as_str() == DEFAULT_FLEET => Arc::clone(fleet),
            // Told by `default_fleet`.
            (None, None) if name.as_str() == DEFAULT_FLEET => return false,
            (None, _) => {
                let known: Vec<String> = self
                    .entries
                    .iter()
                    .filter(|(id, e)| id.kind == "Fleet" && e.ready.is_some())
                    .map(|(id, _)| id.name.clone())
                    .collect();
                let hint = meant(name.as_str(), "fleets", known.iter().map(String::as_str));
                let message = format!("spec.fleet: no document defines the fleet {name}");
                self.tell(id, "spec.fleet", message, Some(hint));
                return false;
            }
        };
        if fleet.marathon.is_some() {
            let misfit = platform::misfit(service, &fleet);
            if let Some((path, message, hint)) = &misfit {
                self.tell(id, path, format!("{path}: {message}"), Some((*hint).into()));
            }
            return misfit.is_none();
        }
        let constraints = &service.placement.constraints;
        let alone = constraints.iter().position(|c| !fleet.hosts.values().any(|h| c.holds(h)));
        let together = fleet.hosts.values().any(|h| constraints.iter().all(|c| c.holds(h)));
        if together {
            return self.can_be_asked(id, service, &fleet);
        }
        let mut path = "spec.placement.constraints".to_owned();
        let mut all = "all of that".to_owned();
        if let Some(index) = alone {
            path = format!("{path}[{index}]");
            all = constraints[index].to_string();
        }
        let message = format!("{path}: no host of the fleet {name} is {all}");
        let hint = alone.map(|index| {
            let label = constraints[index].label.as_str();
            label_hint(label, &fleet)
        });
        self.tell(id, &path, message, hint);
        false
    }

    /// Whether the agent reaches what it is to probe wherever the service may run: from afar only
    /// published ports are reached. An instance that nobody can ask would be replaced for ever.
    fn can_be_asked(&mut self, id: &Id, service: &Service, fleet: &Fleet) -> bool {
        let Some(probe) = &service.probe else { return true };
        let published = |p: &Port| p.container == probe.port && p.publish.is_some();
        if service.spec.ports.iter().any(published) {
            return true;
        }
        let allowed = |h: &&Arc<HostSpec>| service.placement.constraints.iter().all(|c| c.holds(h));
        let remote = |h: &&Arc<HostSpec>| !matches!(h.endpoint, Endpoint::Unix { .. });
        let Some(host) = fleet.hosts.values().filter(allowed).find(remote) else { return true };
        let message = format!(
            "spec.health: port {} is asked by the agent, which reaches it on the remote host {} only \
             where it is published",
            probe.port, host.name
        );
        let hint = "add publish to the port, or use health.command, which the engine runs itself";
        self.tell(id, "spec.health", message, Some(hint.into()));
        false
    }
}

/// What the hosts have instead.
fn label_hint(label: &str, fleet: &Fleet) -> String {
    let hosts = fleet.hosts.values();
    let values: BTreeSet<&str> = if label == HOST_LABEL {
        hosts.map(|h| h.name.as_str()).collect()
    } else {
        hosts.filter_map(|h| h.labels.get(label)).map(String::as_str).collect()
    };
    if values.is_empty() {
        let labels: BTreeSet<&str> =
            fleet.hosts.values().flat_map(|h| h.labels.keys()).map(String::as_str).collect();
        return meant(label, "labels", labels.iter().copied());
    }
    let shown: Vec<&str> = values.iter().take(20).copied().collect();
    format!("{label} is one of {}", shown.join(", "))
}
