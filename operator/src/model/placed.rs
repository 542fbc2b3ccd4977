//! What an instance is told of where it runs: arguments that are complete only once its host is chosen.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::desired::InstanceSpec;
use super::fleet::{Fleet, HostSpec};
use super::name::{ServiceName, Slot, instance_host_name};

/// An argument whose end depends on the place. Only its beginning is part of what an instance is: hosts that come
/// to a fleet restart nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacedArg {
    /// The address of the instance's host follows.
    Address(String),
    /// The name of its host follows.
    HostName(String),
    /// The instance's own host name follows, which keeps to its slot.
    InstanceName(String),
    /// As often as the fleet has hosts; the address of each follows, with a port.
    EachHost {
        /// What it begins with.
        begin: String,
        /// The port.
        port: u16,
        /// Whether the instance's own host is one of them.
        own: bool,
    },
}

impl PlacedArg {
    /// What is known of it without a place.
    pub fn form(&self) -> String {
        match self {
            Self::Address(begin) => format!("{begin}ADDRESS"),
            Self::HostName(begin) => format!("{begin}HOST"),
            Self::InstanceName(begin) => format!("{begin}INSTANCE"),
            Self::EachHost { begin, port, own } => {
                format!("{begin}{}:{port}", if *own { "EACH" } else { "OTHER" })
            }
        }
    }

    fn write(&self, at: &Place<'_>, into: &mut Vec<String>) {
        match self {
            Self::Address(begin) => into.extend(at.host.ip().map(|ip| format!("{begin}{ip}"))),
            Self::HostName(begin) => into.push(format!("{begin}{}", at.host.name)),
            Self::InstanceName(begin) => {
                into.push(format!("{begin}{}", instance_host_name(at.service, at.slot)));
            }
            Self::EachHost { begin, port, own } => {
                let hosts = at.fleet.hosts.values();
                let meant = hosts.filter(|host| *own || host.name != at.host.name);
                let ips = meant.filter_map(|host| host.ip());
                into.extend(ips.map(|ip: IpAddr| format!("{begin}{}", SocketAddr::new(ip, *port))));
            }
        }
    }
}

/// Where an instance is to run, and which one it is.
#[derive(Debug, Clone, Copy)]
pub struct Place<'p> {
    /// The fleet.
    pub fleet: &'p Fleet,
    /// The host.
    pub host: &'p HostSpec,
    /// The service.
    pub service: &'p ServiceName,
    /// The slot.
    pub slot: Slot,
}

impl InstanceSpec {
    /// The same with arguments that are complete.
    #[must_use]
    pub fn placed(self: &Arc<Self>, at: &Place<'_>) -> Arc<Self> {
        if self.placed_args.is_empty() {
            return Arc::clone(self);
        }
        let mut spec = Self::clone(self);
        let mut args = spec.args.take().unwrap_or_default();
        for arg in std::mem::take(&mut spec.placed_args) {
            arg.write(at, &mut args);
        }
        spec.args = Some(args);
        Arc::new(spec)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Endpoint, FleetName, HostName, HostState, Limits};

    fn fleet() -> Fleet {
        let host = |(name, ip): (&str, &str)| {
            let name = HostName::new(name).unwrap();
            let endpoint = Endpoint::Tcp { authority: format!("{ip}:2375"), tls: None };
            let host = HostSpec {
                name: name.clone(),
                endpoint,
                address: None,
                labels: BTreeMap::new(),
                state: HostState::Active,
                registry_auth: None,
            };
            (name, Arc::new(host))
        };
        Fleet {
            name: FleetName::new("shop").unwrap(),
            hosts: [("h1", "10.0.0.1"), ("h2", "[fd00::2]")].map(host).into(),
            marathon: None,
            limits: Limits::default(),
            registry: None,
            approved_prune: None,
        }
    }

    #[test]
    fn arguments_are_completed_by_the_place() {
        let fleet = fleet();
        let service = ServiceName::new("consul").unwrap();
        let join = |own| PlacedArg::EachHost { begin: "-join=".into(), port: 8301, own };
        let placed_args = vec![
            PlacedArg::Address("-advertise=".into()),
            PlacedArg::HostName("-at=".into()),
            PlacedArg::InstanceName("-node=".into()),
            join(false),
            join(true),
        ];
        let args = Some(vec!["agent".to_owned()]);
        let spec = Arc::new(InstanceSpec { args, placed_args, ..InstanceSpec::default() });
        let on = |name: &str| {
            let host = &fleet.hosts[&HostName::new(name).unwrap()];
            let at = Place { fleet: &fleet, host, service: &service, slot: Slot(2) };
            let placed = spec.placed(&at);
            assert!(placed.placed_args.is_empty(), "nothing is left to be said");
            placed.args.clone().unwrap().join(" ")
        };
        assert_eq!(
            on("h1"),
            "agent -advertise=10.0.0.1 -at=h1 -node=consul-2 -join=[fd00::2]:8301 \
             -join=10.0.0.1:8301 -join=[fd00::2]:8301"
        );
        assert_eq!(
            on("h2"),
            "agent -advertise=fd00::2 -at=h2 -node=consul-2 -join=10.0.0.1:8301 \
             -join=10.0.0.1:8301 -join=[fd00::2]:8301"
        );
    }

    #[test]
    fn where_nothing_depends_on_the_place_nothing_is_copied() {
        let fleet = fleet();
        let (name, host) = fleet.hosts.first_key_value().unwrap();
        let service = ServiceName::new(name.as_str()).unwrap();
        let spec = Arc::new(InstanceSpec::default());
        let at = Place { fleet: &fleet, host, service: &service, slot: Slot(1) };
        assert!(Arc::ptr_eq(&spec, &spec.placed(&at)));
    }
}
