//! Traffic: which requests go to which instances, through which balancers and which registry.
//!
//! What is fixed by documents is a [`Routing`]; what changes with every instance is the rest of a [`Table`].
//! A balancer is judged by its [`BalancerView`], what it has in force, and never by what was last sent to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::credential::Credential;
use super::desired::{Probe, Secret, Service};
use super::elsewhere::Outward;
use super::external::External;
use super::hash::SpecHash;
use super::name::{FleetName, HostName, InstanceId, ServiceName, Slot};
use super::time::Time;
use super::world::Seen;

/// The program that balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BalancerKind {
    /// HAProxy, 2.6 or newer: servers change through its runtime socket, without a reload.
    Haproxy,
    /// nginx: every change is a reload.
    Nginx,
}

/// The instances of one service behind one port, with how requests are shared out: a backend of HAProxy,
/// an upstream of nginx. Letters, digits, `-`, `.` and `_` only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolName(Arc<str>);

impl PoolName {
    /// `<service>.<port>`, and what tells it from another pool of the same port.
    pub fn new(service: &ServiceName, port: u16, variant: Option<&str>) -> Self {
        Self(match variant {
            None => format!("{service}.{port}").into(),
            Some(variant) => format!("{service}.{port}.{variant}").into(),
        })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a pool is, whoever is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The service whose instances are in it.
    pub service: ServiceName,
    /// The container port that requests go to.
    pub port: u16,
    /// Requests or bytes: that of the listeners that lead here.
    pub protocol: ListenerProtocol,
    /// How an instance is chosen.
    pub balance: Balance,
    /// The cookie that keeps a client on its instance. Of HTTP pools only. Valid as a cookie's name.
    pub cookie: Option<String>,
    /// How the balancer itself asks an instance, so that traffic stays right while the agent is down. Its
    /// `port` is the container port asked; where it is another than the pool's, the balancer connects only.
    pub check: Option<Probe>,
    /// The most instances there will be, surge included: room is made for them once.
    pub most: u32,
}

/// How a balancer chooses an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Balance {
    /// In turn.
    #[default]
    Roundrobin,
    /// The one with the fewest connections.
    Leastconn,
    /// Always the same for one client address.
    Source,
}

/// What a listener understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ListenerProtocol {
    /// Requests, routed by host and path.
    #[default]
    Http,
    /// Connections; one pool takes them all.
    Tcp,
}

/// A port where a balancer takes traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What routes call it.
    pub name: String,
    /// The port inside the container.
    pub port: u16,
    /// What it understands.
    pub protocol: ListenerProtocol,
    /// Certificates with their keys, one PEM text each, checked to load; TLS is spoken where there are any.
    pub certificates: Vec<Certificate>,
}

/// A certificate chain with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// `<secret>.<key>`: a file name that is safe.
    pub name: String,
    /// The chain and the key, as PEM.
    pub pem: Secret,
}

/// A rule: which requests of a listener go to a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The listener's name.
    pub listener: String,
    /// The host name in lower case; `*.example.com` for every name below it; `None` for every host that no other route
    /// of the listener names.
    pub host: Option<String>,
    /// The beginning of the path, with a leading slash; of several that fit the longest decides. A prefix of whole
    /// segments: `/a` fits `/a` and `/a/b`, not `/ab`.
    pub path: String,
    /// Where the requests go.
    pub pool: PoolName,
}

/// Text that a person adds to the rendered configuration, for what evenkeel does not say. Each is left out, with a
/// reason, when the balancer refuses it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragments {
    /// Into HAProxy's `global`, nginx's main context.
    pub global: Option<String>,
    /// Into HAProxy's `defaults`, nginx's `http`.
    pub defaults: Option<String>,
    /// Into each HTTP frontend, each nginx `server`.
    pub frontend: Option<String>,
    /// Into each HTTP backend, each nginx `location`.
    pub backend: Option<String>,
}

/// Everything about a balancer's traffic that documents fix. It changes by a commit, never with an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// The program.
    pub kind: BalancerKind,
    /// Where traffic is taken.
    pub listeners: Vec<Listener>,
    /// Which requests go where, in their order; no two have the same listener, host and path.
    pub routes: Vec<Route>,
    /// Every pool that a route leads to.
    pub pools: BTreeMap<PoolName, Pool>,
    /// What people add.
    pub fragments: Fragments,
    /// Whether requests are logged to [`ACCESS_LOG`].
    pub access_log: bool,
    /// How long the worker before a reload may go on with its connections: the longest drain of any service.
    pub drain: Duration,
    /// The balancers that run already and are told this; where there are none, containers are.
    pub external: Vec<Arc<External>>,
}

/// A balancer as its document says it: a workload like any other, and where it takes traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancer {
    /// Its containers; none where it runs already.
    pub service: Arc<Service>,
    /// The program.
    pub kind: BalancerKind,
    /// Where traffic is taken.
    pub listeners: Vec<Listener>,
    /// What people add.
    pub fragments: Fragments,
    /// Whether requests are logged.
    pub access_log: bool,
    /// keepalived, which moves an address between the hosts: one container on each that may run the balancer.
    pub virtual_ip: Option<Arc<Service>>,
    /// Those that run already.
    pub external: Vec<Arc<External>>,
}

/// A route as a service's document says it, before anybody knows whether its balancer has such a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSpec {
    /// The balancer.
    pub balancer: ServiceName,
    /// Its listener.
    pub listener: String,
    /// See [`Route::host`].
    pub host: Option<String>,
    /// See [`Route::path`].
    pub path: String,
    /// The container port that requests go to.
    pub port: u16,
    /// How an instance is chosen.
    pub balance: Balance,
    /// The cookie that keeps a client on its instance.
    pub cookie: Option<String>,
}

/// What leads clients to a service's instances.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exposure {
    /// The routes that the document asks for.
    pub asked: Vec<RouteSpec>,
    /// Tags and meta of its entries in the registry, as the document has them.
    pub labels: RegistryLabels,
    /// The pools that its routes lead to, with their balancers, in order and without duplicates.
    pub pools: Vec<(ServiceName, PoolName)>,
    /// The container port that its entries in the registry name, by fleet; it is registered on no other.
    pub registered: BTreeMap<FleetName, u16>,
    /// Routes that were left out, each with the reason.
    pub left_out: Vec<String>,
    /// The instances are voters of a cluster: one counts as available while the cluster has it as a healthy voter, and
    /// only one at a time ever leaves.
    pub quorum: bool,
}

/// What a document adds to a service's entries in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegistryLabels {
    /// Tags.
    pub tags: Vec<String>,
    /// Key and value.
    pub meta: BTreeMap<String, String>,
}

/// The directory inside a balancer's container that its access log is written to, one file an instance.
pub const ACCESS_LOG: &str = "/var/log/evenkeel";

/// What every instance of a balancer should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What documents fix.
    pub routing: Arc<Routing>,
    /// Who is in each pool, in the order of the slots. A pool without an entry has nobody: its requests get 503.
    pub servers: BTreeMap<PoolName, Vec<Server>>,
    /// False while a host has not answered since the agent began: servers in force that are not in here may be its
    /// instances, and stay as they are.
    pub complete: bool,
    /// While the removal of a service is in doubt its routes stay too: a balancer that has a structure in force keeps
    /// that, with whoever is in pools that are not in here. Servers of the pools in here go on changing.
    pub held: bool,
}

impl Table {
    /// Whom it sends requests.
    pub fn ready(&self) -> BTreeSet<(PoolName, SocketAddr)> {
        let all = self.servers.iter().flat_map(|(pool, all)| all.iter().map(move |s| (pool, s)));
        let ready = all.filter(|(_, server)| server.target == Target::Ready);
        ready.map(|(pool, server)| (pool.clone(), server.address)).collect()
    }

    /// The table, and where it is not complete also whoever is in force and not in it: unlisted is not gone.
    pub fn keeping(
        self: &Arc<Self>,
        in_force: impl Iterator<Item = (PoolName, Server)>,
    ) -> Arc<Self> {
        if self.complete {
            return Arc::clone(self);
        }
        let mut table = (**self).clone();
        let listed = table.servers.iter().map(|(pool, all)| {
            (pool.clone(), all.iter().map(|s| s.address).collect::<BTreeSet<_>>())
        });
        let mut listed: BTreeMap<PoolName, _> = listed.collect();
        let mut unlisted: BTreeMap<PoolName, Vec<Server>> = BTreeMap::new();
        for (pool, server) in in_force {
            if listed.entry(pool.clone()).or_default().insert(server.address) {
                unlisted.entry(pool).or_default().push(server);
            }
        }
        for (pool, its) in unlisted {
            let servers = table.servers.entry(pool).or_default();
            servers.extend(its);
            // Where they were, so that a file that lists them in their order stays as it is.
            servers.sort_by_key(|server| server.slot);
        }
        Arc::new(table)
    }
}

/// What a fleet's edges should do, as a plan has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edges {
    /// For each running balancer.
    pub orders: BTreeMap<BalancerId, Order>,
    /// For the registry.
    pub registrations: Arc<Registrations>,
    /// For the other fleets.
    pub outward: Arc<Outward>,
}

/// One instance in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The instance.
    pub instance: InstanceId,
    /// Its container's name, such as `web_3`.
    pub name: Arc<str>,
    /// Its slot: the balancer's own place of that number is preferred, so that logs read well.
    pub slot: Slot,
    /// Where it is reached. No two servers of a pool have the same.
    pub address: SocketAddr,
    /// What should become of its traffic.
    pub target: Target,
    /// It is not healthy: whoever sends it requests does not wait with taking it out.
    pub sick: bool,
}

impl Server {
    /// One that is in force, and of which no more is known.
    pub fn unlisted(slot: Slot, address: SocketAddr, target: Target) -> Self {
        let (instance, name) = (InstanceId("unlisted".into()), "unlisted".into());
        Self { instance, name, slot, address, target, sick: false }
    }
}

/// What should become of a server's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// It takes requests.
    Ready,
    /// It takes none, and finishes those it has.
    Drain,
}

/// One running balancer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BalancerId {
    /// A container that is run here.
    Container(InstanceId),
    /// One that runs already.
    External {
        /// The balancer of its document.
        balancer: ServiceName,
        /// Which of its document's, from 0.
        index: usize,
    },
}

/// Where a running balancer is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// In its container.
    Container {
        /// The host.
        host: HostName,
        /// The container.
        id: InstanceId,
    },
    /// On the agent's own machine.
    External {
        /// The balancer of its document.
        balancer: ServiceName,
        /// How it is told.
        external: Arc<External>,
    },
}

/// What one running balancer is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Where it is.
    pub at: Whereabouts,
    /// What it should do.
    pub table: Arc<Table>,
}

/// What one running balancer has in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalancerView {
    /// Whether the rest can be believed.
    pub seen: Seen,
    /// Whether it takes traffic: false until its first table is in force.
    pub listening: bool,
    /// The pools that are in force as they were last ordered.
    pub pools: BTreeSet<PoolName>,
    /// Its servers.
    pub servers: BTreeMap<(PoolName, SocketAddr), ServerView>,
    /// Servers that get requests once the configuration that is being loaded is in force: they may at any moment.
    pub coming: BTreeSet<(PoolName, SocketAddr)>,
    /// Services with a route that was left out, and why. Everything else is in force.
    pub refused: BTreeMap<ServiceName, String>,
    /// Why it does not follow, or which fragment was left out.
    pub problem: Option<String>,
    /// Requests since its start, where the program tells.
    pub requests: u64,
    /// Reloads that this agent has made.
    pub reloads: u64,
    /// Workers of earlier configurations that are still alive.
    pub old_workers: u32,
}

impl BalancerView {
    /// A balancer that has not answered since the agent began to ask at `since`.
    pub fn never(since: Time) -> Self {
        Self {
            seen: Seen::Never { since },
            listening: false,
            pools: BTreeSet::new(),
            servers: BTreeMap::new(),
            coming: BTreeSet::new(),
            refused: BTreeMap::new(),
            problem: None,
            requests: 0,
            reloads: 0,
            old_workers: 0,
        }
    }
}

impl BalancerView {
    /// Whether nothing differs that a plan could depend on: how many requests there were is no news, how many are under
    /// way is only where somebody waits for their end.
    pub fn same_but_for_counters(&self, other: &Self) -> bool {
        let Self {
            seen,
            listening,
            pools,
            servers,
            coming,
            refused,
            problem,
            requests: _,
            reloads,
            old_workers,
        } = self;
        let alike = |a: &ServerView, b: &ServerView| {
            (a.state, a.since) == (b.state, b.since)
                && (a.state != ServerState::Draining || a.sessions == b.sessions)
        };
        (seen, listening, pools, coming, refused, problem, reloads, old_workers)
            == (
                &other.seen,
                &other.listening,
                &other.pools,
                &other.coming,
                &other.refused,
                &other.problem,
                &other.reloads,
                &other.old_workers,
            )
            && servers.len() == other.servers.len()
            && servers.iter().zip(&other.servers).all(|(a, b)| a.0 == b.0 && alike(a.1, b.1))
    }
}

/// What a balancer makes of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerView {
    /// Whether it gets requests.
    pub state: ServerState,
    /// Since when, as observed, on the agent's clock.
    pub since: Time,
    /// Requests or connections that it is serving now.
    pub sessions: u32,
    /// Requests since the balancer's worker began, where the program tells.
    pub requests: u64,
}

/// Whether a server gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerState {
    /// It does.
    Up,
    /// The balancer's own check has failed.
    Down,
    /// It gets none, and finishes those it has.
    Draining,
}

/// One service instance in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The instance.
    pub instance: InstanceId,
    /// The service's name in the registry.
    pub service: ServiceName,
    /// The host that it runs on: its agent is the one that must know it.
    pub host: HostName,
    /// Its slot.
    pub slot: Slot,
    /// What it is.
    pub hash: SpecHash,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Tags.
    pub tags: Vec<String>,
    /// What the document adds to the entry.
    pub meta: BTreeMap<String, String>,
    /// How the registry itself asks it.
    pub check: Option<Probe>,
    /// `Drain`: in maintenance.
    pub target: Target,
}

/// What the registry should have of one fleet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registrations {
    /// Every instance that should be known, by its id.
    pub entries: BTreeMap<InstanceId, Registration>,
    /// Hosts that cannot be asked what they run: entries of ours on them stay as they are.
    pub unknown_hosts: BTreeSet<HostName>,
}

/// What the registry has of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryView {
    /// Whether the rest can be believed.
    pub seen: Seen,
    /// Our entries, by instance.
    pub entries: BTreeMap<InstanceId, EntryView>,
    /// Why it does not follow.
    pub problem: Option<String>,
}

/// One entry in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryView {
    /// Whether it is in maintenance.
    pub maintenance: bool,
    /// Since when, as observed, on the agent's clock.
    pub since: Time,
}

/// A fleet's registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrySpec {
    /// A Consul that exists.
    Existing(ConsulSpec),
    /// One that is run here.
    Managed(ManagedConsul),
}

/// A Consul cluster that is run on the fleet: services like any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedConsul {
    /// The servers.
    pub servers: Arc<Service>,
    /// The client agent of each host.
    pub agent: Arc<Service>,
    /// How its parts find each other, and evenkeel them.
    pub reach: ManagedReach,
}

/// Where the parts of a cluster that is run here listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagedReach {
    /// All on one Docker network of this name, which those join that are registered.
    Network(String),
    /// On the hosts' own network, at the hosts' addresses.
    Hosts,
}

/// The port of Consul's API inside its containers.
pub const CONSUL_PORT: u16 = 8500;

/// The port of a client agent's API on its host: a server of the same cluster may be on that host, too.
pub const CONSUL_AGENT_PORT: u16 = 8510;

/// How a fleet's registry is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulSpec {
    /// The base URL of an agent, such as `http://127.0.0.1:8500`.
    pub address: String,
    /// The port of every host's own agent, on the host's address. `None`: the agent at `address` knows them all.
    pub agent_port: Option<u16>,
    /// The ACL token.
    pub token: Option<Credential>,
    /// PEM texts for an `https` address.
    pub tls: Option<Box<ConsulTls>>,
}

/// PEM texts for Consul over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulTls {
    /// The authority that signed the agent's certificate; the system's own where not given.
    pub ca: Option<Credential>,
    /// The client's certificate and its key.
    pub identity: Option<(Credential, Credential)>,
}
