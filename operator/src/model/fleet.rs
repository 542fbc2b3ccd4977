//! Where things run: fleets, their hosts, and the limits that hold on them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::app::MarathonSpec;
use super::credential::Credential;
use super::edge::RegistrySpec;
use super::name::{FleetName, HostName};

/// Where things run, a set of Docker hosts or a Marathon cluster, and the limits that hold on all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// The fleet's name.
    pub name: FleetName,
    /// Its hosts by name. A Marathon cluster is one, [`super::CLUSTER`].
    pub hosts: BTreeMap<HostName, Arc<HostSpec>>,
    /// The Marathon cluster that it is, if it is one.
    pub marathon: Option<Arc<MarathonSpec>>,
    /// Its limits.
    pub limits: Limits,
    /// The registry that its services are entered in.
    pub registry: Option<RegistrySpec>,
    /// The prune that a person has approved: the code that the waiting message names.
    pub approved_prune: Option<String>,
}

/// One Docker host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// The host's name.
    pub name: HostName,
    /// How its engine is reached.
    pub endpoint: Endpoint,
    /// Where its published ports are reached; the endpoint's own host where not given.
    pub address: Option<String>,
    /// Labels for constraints and spreading.
    pub labels: BTreeMap<String, String>,
    /// Whether instances may be put here.
    pub state: HostState,
    /// A docker `config.json` with the credentials of registries; the agent's own where not given.
    pub registry_auth: Option<Credential>,
}

impl HostSpec {
    /// Where its published ports are reached: its address, or the one that its engine has. `None` where that is a name, or
    /// where the engine is on this machine and no address was given.
    pub fn ip(&self) -> Option<IpAddr> {
        let given = self.address.as_deref();
        let of = |authority: &str| {
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            host.parse().ok().or_else(|| host.parse::<SocketAddr>().ok().map(|a| a.ip()))
        };
        match (&self.endpoint, given) {
            (_, Some(address)) => address.parse().ok(),
            (Endpoint::Unix { .. } | Endpoint::Marathon, None) => None,
            (Endpoint::Tcp { authority, .. } | Endpoint::Ssh { authority }, None) => of(authority),
        }
    }
}

/// How a Docker Engine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket on this machine.
    Unix {
        /// The path of the socket.
        path: String,
    },
    /// A TCP address, with TLS where certificates are given.
    Tcp {
        /// `host:port`.
        authority: String,
        /// Client certificates.
        tls: Option<Tls>,
    },
    /// `docker system dial-stdio` on the other side of ssh.
    Ssh {
        /// `user@host:port` as ssh takes it in a URL.
        authority: String,
    },
    /// No engine: Marathon is asked, as the fleet's [`MarathonSpec`] says.
    Marathon,
}

impl Endpoint {
    /// Whether it is the same engine, though it may be shown another certificate.
    pub fn is_same_engine(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { authority: a, tls: x }, Self::Tcp { authority: b, tls: y }) => {
                a == b && x.is_some() == y.is_some()
            }
            _ => self == other,
        }
    }
}

/// PEM texts for a TLS endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The authority that signed the engine's certificate.
    pub ca: Credential,
    /// The client's certificate.
    pub cert: Credential,
    /// The client's key.
    pub key: Credential,
}

/// Whether instances may be put on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    /// Yes.
    Active,
    /// Nothing new; what runs stays.
    Cordoned,
    /// Nothing new; what runs moves away, within each service's budgets.
    Draining,
}

/// What a fleet may do at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest share of a fleet's instances that one revision may remove by leaving services out.
    pub prune_max_percent: u32,
    /// Healthy instances stopped by our own hand in any hour, over the fleet.
    pub disruptions_per_hour: Option<u32>,
    /// Starts under way on one host at a time.
    pub parallel_starts_per_host: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { prune_max_percent: 50, disruptions_per_hour: None, parallel_starts_per_host: 8 }
    }
}
