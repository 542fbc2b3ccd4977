//! Balancers that run already, on the agent's own machine: how each is told, and what leads it to instances.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::desired::{InstanceSpec, Service};
use super::fleet::{Endpoint, Fleet, HostSpec};

/// A balancer that somebody else runs, as its document says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// The file of it that is ours. `None`: its structure is another's, and only servers are changed.
    pub file: Option<OwnFile>,
    /// Where it is asked what it does: HAProxy's runtime socket, the address that nginx answers at.
    pub asked: Socket,
}

/// The configuration file that is ours as a whole, and what brings it into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFile {
    /// Where it is.
    pub path: String,
    /// Ends with 0 if the balancer would take its configuration; each argument [`CANDIDATE`] stands for the file to try.
    pub check: Vec<String>,
    /// Has the balancer read its configuration again.
    pub reload: Vec<String>,
}

/// Stands for the file to try, in the arguments of a check.
pub const CANDIDATE: &str = "{candidate}";

/// Where a program on this machine is spoken with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Socket {
    /// A path.
    Unix(String),
    /// `host:port`.
    Tcp(String),
}

impl Socket {
    /// A path where there is a slash at its begin, `host:port` otherwise.
    pub fn new(text: &str) -> Self {
        let at = text.to_owned();
        if text.starts_with('/') { Self::Unix(at) } else { Self::Tcp(at) }
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(at) | Self::Tcp(at) => f.write_str(at),
        }
    }
}

/// What leads a balancer to the instances of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    /// A network that both are on, as far as both are on one host; else published ports.
    Meet(&'a str),
    /// From the agent's own machine: the addresses of containers on its own engine; else published ports.
    Machine,
    /// Published ports only.
    Published,
}

impl<'a> Way<'a> {
    /// The way of a balancer, of its containers or of those that run already, to the instances of a service on a fleet.
    pub fn of(
        external: &[Arc<External>],
        balancer: &Service,
        service: &'a InstanceSpec,
        fleet: &Fleet,
    ) -> Self {
        if fleet.marathon.is_some() {
            return Self::Published;
        }
        if !external.is_empty() {
            return Self::Machine;
        }
        if balancer.fleet != fleet.name {
            return Self::Published;
        }
        meeting_network(&balancer.spec, service).map_or(Self::Published, Self::Meet)
    }
}

/// The network on which a balancer meets the instances of a service, both on one host; `bridge` where neither names any.
fn meeting_network<'a>(balancer: &InstanceSpec, service: &'a InstanceSpec) -> Option<&'a str> {
    if balancer.networks.is_empty() && service.networks.is_empty() {
        return Some("bridge");
    }
    let both = |n: &&String| balancer.networks.contains(n) && is_network(n);
    service.networks.iter().find(both).map(String::as_str)
}

/// Whether containers have an address of their own there.
fn is_network(name: &str) -> bool {
    !matches!(name, "host" | "none")
}

/// Whether instances on this host have addresses that the agent's machine reaches: those of its own engine, unless they
/// have none of their own.
pub fn on_this_machine(host: &HostSpec, service: &InstanceSpec) -> bool {
    matches!(host.endpoint, Endpoint::Unix { .. })
        && (service.networks.is_empty() || service.networks.iter().any(|n| is_network(n)))
}

/// The address of an instance on the agent's own engine.
pub fn local_address(host: &HostSpec, networks: &[(Arc<str>, IpAddr)]) -> Option<IpAddr> {
    if !matches!(host.endpoint, Endpoint::Unix { .. }) {
        return None;
    }
    networks.iter().find(|(name, _)| is_network(name)).map(|(_, ip)| *ip)
}
