//! A fleet's registry: one that exists, or a Consul cluster that runs on the fleet like any service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_crds as api;

use super::credential::Pems;
use super::form;
use super::lower::Lowering;
use crate::model::{
    Amount, AppClaim, CONSUL_AGENT_PORT, CONSUL_PORT, ConsulSpec, ConsulTls, Endpoint, Exposure,
    FleetName, HostName, HostSpec, InstanceSpec, Keep, ManagedConsul, ManagedReach, Mount,
    MountSource, OnFailure, PlacedArg, Placement, Port, Probe, ProbeKind, Protocol, RegistrySpec,
    Resources, Rollout, Service, ServiceName, SpecHash, Termination,
};

/// What servers and agents run where the document names nothing.
const IMAGE: &str = "hashicorp/consul:1.20";
/// Where a server keeps what it must not lose.
const DATA: &str = "/consul/data";
/// What servers listen on where they are on their hosts' own network: Consul's own choice.
const RPC: u16 = 8300;
const GOSSIP: u16 = 8301;
const WAN: u16 = 8302;
/// What client agents listen on there, beside the port of their API, so that they never meet a server of their host.
const AGENT_GOSSIP: u16 = 8311;
/// One at a time, and none beyond what was asked for: two servers never share a volume.
const ROLLOUT: Rollout = Rollout {
    max_surge: Amount::Count(0),
    max_unavailable: Amount::Count(1),
    min_ready: Duration::from_secs(3),
    progress_deadline: Duration::from_secs(300),
    on_failure: OnFailure::Rollback,
};

/// The hosts of a fleet.
type Hosts = BTreeMap<HostName, Arc<HostSpec>>;

/// What a document says of a cluster that is run here.
struct Asked {
    servers: u8,
    image: Option<String>,
    network: Option<String>,
    publish: Option<api::ConsulPublish>,
}

impl Lowering<'_> {
    /// The registry that a fleet's document names.
    pub(super) fn registry(
        &mut self,
        fleet: &FleetName,
        hosts: &Hosts,
        consul: api::Consul,
    ) -> Option<RegistrySpec> {
        let api::Consul {
            servers,
            image,
            network,
            publish,
            address,
            agent_port,
            token_file,
            token_secret,
            tls,
        } = consul;
        let at = "spec.discovery.consul";
        if hosts.values().any(|h| h.endpoint == Endpoint::Marathon) {
            for (given, field) in
                [(servers.is_some(), "servers"), (agent_port.is_some(), "agentPort")]
            {
                if given {
                    self.flaw(
                        &format!("{at}.{field}"),
                        "the fleet is a Marathon cluster, not Docker hosts",
                    );
                    self.hint("give the address of a Consul agent".into());
                }
            }
            if servers.is_some() {
                return None;
            }
        }
        if let Some(count) = servers {
            let asked = Asked { servers: count, image, network, publish };
            return self.managed(fleet, hosts, asked).map(RegistrySpec::Managed);
        }
        let token = self.credential(&format!("{at}.token"), token_file, token_secret);
        let tls = tls.map(|tls| {
            let Pems { ca, cert, key } = self.pems(&format!("{at}.tls"), tls);
            Box::new(ConsulTls { ca, identity: cert.zip(key) })
        });
        Some(RegistrySpec::Existing(ConsulSpec { address: address?, agent_port, token, tls }))
    }

    fn managed(&mut self, fleet: &FleetName, hosts: &Hosts, asked: Asked) -> Option<ManagedConsul> {
        let Asked { servers: count, image, network, publish } = asked;
        let at = "spec.discovery.consul";
        let image = image.unwrap_or_else(|| IMAGE.to_owned());
        self.judge(&format!("{at}.image"), form::image(&image));
        let named = |what: &str| ServiceName::new(&format!("{fleet}-{what}"));
        let (Ok(servers), Ok(agent)) = (named("consul"), named("consul-agent")) else {
            let why = "the fleet's name is too long: its Consul is called after it";
            self.flaw("metadata.name", why);
            return None;
        };
        let ui = publish.and_then(|api::ConsulPublish { ui }| ui);
        let alone =
            hosts.len() == 1 && hosts.values().all(|h| matches!(h.endpoint, Endpoint::Unix { .. }));
        let reach = if alone {
            let last = ui.map_or(0, |first| u32::from(first) + u32::from(count) - 1);
            if last > u32::from(u16::MAX) {
                let why = format!(
                    "{count} servers would publish up to {last}, and 65535 is the last port"
                );
                self.flaw(&format!("{at}.publish.ui"), why);
            }
            let network = network.unwrap_or_else(|| servers.to_string());
            self.judge(&format!("{at}.network"), form::network(&network));
            if network == "bridge" {
                let why = "on the network bridge nobody finds anybody by name";
                self.flaw(&format!("{at}.network"), why);
            }
            ManagedReach::Network(network)
        } else {
            self.fit_for_consul(hosts, count, network.is_some());
            ManagedReach::Hosts
        };
        let (server, client) = match &reach {
            ManagedReach::Network(network) => (
                on_network(&servers, network, true, ui),
                on_network(&servers, network, false, None),
            ),
            ManagedReach::Hosts => (server_on_host(ui), agent_on_host()),
        };
        // Three find each other whatever their number is to be: more join them, and changing it restarts nobody.
        let expect = if count < 3 { 1 } else { 3 };
        let own: Vec<String> = [
            "-server".to_owned(),
            "-ui".to_owned(),
            format!("-bootstrap-expect={expect}"),
            // A new leader within a second or two, not ten.
            "-hcl=performance { raft_multiplier = 1 }".to_owned(),
        ]
        .into();
        let agents = match &reach {
            ManagedReach::Network(_) => 1,
            ManagedReach::Hosts => u32::try_from(hosts.len()).unwrap_or(u32::MAX),
        };
        let part = |name, replicas, own, ways| self.part(fleet, &image, name, replicas, own, ways);
        Some(ManagedConsul {
            servers: Arc::new(part(servers.clone(), count.into(), own, server)),
            agent: Arc::new(part(agent, agents, Vec::new(), client)),
            reach,
        })
    }

    /// Tells why a cluster cannot be run over these hosts.
    fn fit_for_consul(&mut self, hosts: &Hosts, count: u8, network: bool) {
        let at = "spec.discovery.consul";
        if usize::from(count) > hosts.len() {
            let why = format!(
                "{count} servers take {count} hosts, one each, and the fleet has {}",
                hosts.len()
            );
            self.flaw(&format!("{at}.servers"), why);
        }
        if let Some(host) = hosts.values().find(|host| host.ip().is_none()) {
            let why = format!("the host {} has no IP address that other hosts reach", host.name);
            self.flaw(&format!("{at}.servers"), why);
            self.hint(format!("give the host {} an address, such as 10.0.0.11", host.name));
        }
        if network {
            let why = "over several hosts the cluster is on the hosts' own network";
            self.flaw(&format!("{at}.network"), why);
            self.hint("leave it out".into());
        }
    }

    fn part(
        &self,
        fleet: &FleetName,
        image: &str,
        name: ServiceName,
        replicas: u32,
        own: Vec<String>,
        ways: Ways,
    ) -> Service {
        let Ways { args: more, placed_args, ports, network, volume, most_on_a_host } = ways;
        let mut args: Vec<String> = vec!["agent".into()];
        let quorum = !own.is_empty();
        args.extend(own);
        args.extend([format!("-data-dir={DATA}"), "-client=0.0.0.0".into()]);
        args.extend(more);
        let api = ports.first().map_or(CONSUL_PORT, |port| port.container);
        let spec = InstanceSpec {
            image: image.to_owned(),
            command: Some(vec!["consul".into()]),
            args: Some(args),
            placed_args,
            ports,
            resources: Resources::default(),
            mounts: vec![Mount {
                source: volume(format!("evenkeel-{name}")),
                path: DATA.into(),
                read_only: false,
            }],
            // One, so that there is one address to advertise.
            networks: vec![network],
            ..InstanceSpec::default()
        };
        Service {
            fleet: fleet.clone(),
            replicas,
            hash: SpecHash::of(self.owner, &spec),
            spec: Arc::new(spec),
            probe: Some(Probe {
                kind: ProbeKind::Tcp,
                port: api,
                interval: Duration::from_secs(2),
                timeout: Duration::from_secs(1),
                failure_threshold: 5,
                start_period: Duration::from_secs(15),
            }),
            placement: Placement { max_per_host: most_on_a_host, ..Placement::default() },
            rollout: ROLLOUT,
            termination: Termination { drain: Duration::ZERO, ..Termination::default() },
            replace_after: Duration::from_secs(60),
            keep: Keep::Original,
            placements: BTreeMap::new(),
            app: AppClaim::default(),
            shifting: None,
            suspend: false,
            routed: quorum,
            exposure: Exposure { quorum, ..Exposure::default() },
            document: "".into(),
            name,
        }
    }
}

/// How a part of the cluster is reached and reaches the others.
struct Ways {
    args: Vec<String>,
    placed_args: Vec<PlacedArg>,
    /// That of the API first.
    ports: Vec<Port>,
    network: String,
    /// Where its data is, by a name.
    volume: fn(String) -> MountSource,
    most_on_a_host: Option<u32>,
}

fn port(name: &str, container: u16, publish: Option<u16>) -> Port {
    Port { name: name.into(), container, protocol: Protocol::Tcp, publish }
}

/// On a Docker network of their own everybody joins the servers by their name, which keeps to no address.
fn on_network(servers: &ServiceName, network: &str, server: bool, ui: Option<u16>) -> Ways {
    let publish = ui.filter(|_| server);
    Ways {
        args: [format!("-retry-join={servers}"), "-retry-interval=1s".into()].into(),
        placed_args: Vec::new(),
        ports: vec![port("http", CONSUL_PORT, publish)],
        network: network.to_owned(),
        volume: MountSource::SlotVolume,
        most_on_a_host: None,
    }
}

/// On the hosts' own network each port is there once: one server a host. That they are taken is said by publishing them.
fn server_on_host(ui: Option<u16>) -> Ways {
    let api = ui.unwrap_or(CONSUL_PORT);
    let taken = |name, number| port(name, number, Some(number));
    Ways {
        args: [format!("-http-port={api}"), "-retry-interval=1s".into()].into(),
        placed_args: vec![
            // Its slot's, as its data and its vote are: on another host it is still the same server.
            PlacedArg::InstanceName("-node=".into()),
            PlacedArg::Address("-advertise=".into()),
            // Not itself: it would take that for having joined.
            PlacedArg::EachHost { begin: "-retry-join=".into(), port: GOSSIP, own: false },
        ],
        ports: vec![
            taken("http", api),
            taken("rpc", RPC),
            taken("gossip", GOSSIP),
            taken("wan", WAN),
        ],
        network: "host".into(),
        volume: MountSource::SlotVolume,
        most_on_a_host: Some(1),
    }
}

/// The agent that a host's instances are registered with: one a host, which is the node that it is called after.
fn agent_on_host() -> Ways {
    let taken = |name, number| port(name, number, Some(number));
    Ways {
        args: [
            format!("-http-port={CONSUL_AGENT_PORT}"),
            format!("-serf-lan-port={AGENT_GOSSIP}"),
            "-dns-port=-1".into(),
            "-retry-interval=1s".into(),
            // What is registered with it outlives its restart.
            "-hcl=leave_on_terminate = false".into(),
        ]
        .into(),
        placed_args: vec![
            PlacedArg::HostName("-node=".into()),
            PlacedArg::Address("-advertise=".into()),
            PlacedArg::EachHost { begin: "-retry-join=".into(), port: GOSSIP, own: true },
        ],
        ports: vec![taken("http", CONSUL_AGENT_PORT), taken("gossip", AGENT_GOSSIP)],
        network: "host".into(),
        volume: MountSource::Volume,
        most_on_a_host: Some(1),
    }
}
