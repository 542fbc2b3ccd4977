//! A fleet's registry: one that exists, or a Consul cluster that runs on the fleet like any service.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_crds as api;

use super::form;
use super::lower::Lowering;
use crate::model::{
    Amount, CONSUL_PORT, ConsulSpec, ConsulTls, Exposure, FleetName, InstanceSpec, Keep,
    ManagedConsul, Mount, MountSource, OnFailure, Placement, Port, Probe, ProbeKind, Protocol,
    RegistrySpec, Resources, Rollout, Service, ServiceName, SpecHash, Termination,
};

/// What servers and agents run where the document names nothing.
const IMAGE: &str = "hashicorp/consul:1.20";
/// Where a server keeps what it must not lose.
const DATA: &str = "/consul/data";
/// One at a time, and none beyond what was asked for: two servers never share a volume.
const ROLLOUT: Rollout = Rollout {
    max_surge: Amount::Count(0),
    max_unavailable: Amount::Count(1),
    min_ready: Duration::from_secs(3),
    progress_deadline: Duration::from_secs(300),
    on_failure: OnFailure::Rollback,
};

impl Lowering<'_> {
    /// The registry that a fleet's document names.
    pub(super) fn registry(
        &mut self,
        fleet: &FleetName,
        consul: api::Consul,
    ) -> Option<RegistrySpec> {
        let api::Consul { servers, image, network, publish, address, agent_port, token_file, tls } =
            consul;
        if let Some(count) = servers {
            return self.managed(fleet, count, image, network, publish).map(RegistrySpec::Managed);
        }
        let at = "spec.discovery.consul";
        if let Some(file) = &token_file {
            self.judge(&format!("{at}.tokenFile"), form::path(file));
        }
        let tls = tls.map(|api::ClientTls { ca_file, cert_file, key_file }| {
            for (field, file) in
                [("caFile", &ca_file), ("certFile", &cert_file), ("keyFile", &key_file)]
            {
                if let Some(file) = file {
                    self.judge(&format!("{at}.tls.{field}"), form::path(file));
                }
            }
            if cert_file.is_some() != key_file.is_some() {
                let why = "certFile and keyFile are given together or not at all";
                self.flaw(&format!("{at}.tls"), why);
            }
            ConsulTls { ca_file, identity: cert_file.zip(key_file) }
        });
        Some(RegistrySpec::Existing(ConsulSpec { address: address?, agent_port, token_file, tls }))
    }

    fn managed(
        &mut self,
        fleet: &FleetName,
        count: u8,
        image: Option<String>,
        network: Option<String>,
        publish: Option<api::ConsulPublish>,
    ) -> Option<ManagedConsul> {
        let at = "spec.discovery.consul";
        let image = image.unwrap_or_else(|| IMAGE.to_owned());
        self.judge(&format!("{at}.image"), form::image(&image));
        let named = |what: &str| ServiceName::new(&format!("{fleet}-{what}"));
        let (Ok(servers), Ok(agent)) = (named("consul"), named("consul-agent")) else {
            let why = "the fleet's name is too long: its Consul is called after it";
            self.flaw("metadata.name", why);
            return None;
        };
        // Three find each other whatever their number is to be: more join them, and changing it restarts nobody.
        let expect = if count < 3 { 1 } else { 3 };
        let server: Vec<String> = [
            "-server".to_owned(),
            "-ui".to_owned(),
            format!("-bootstrap-expect={expect}"),
            // A new leader within a second or two, not ten.
            "-hcl=performance { raft_multiplier = 1 }".to_owned(),
        ]
        .into();
        let ui = publish.and_then(|api::ConsulPublish { ui }| ui);
        let last = ui.map_or(0, |first| u32::from(first) + u32::from(count) - 1);
        if last > u32::from(u16::MAX) {
            let why =
                format!("{count} servers would publish up to {last}, and 65535 is the last port");
            self.flaw(&format!("{at}.publish.ui"), why);
        }
        let network = network.unwrap_or_else(|| servers.to_string());
        self.judge(&format!("{at}.network"), form::network(&network));
        if network == "bridge" {
            self.flaw(
                &format!("{at}.network"),
                "on the network bridge nobody finds anybody by name",
            );
        }
        let host = Part { fleet, join: &servers, image: &image, network: &network };
        Some(ManagedConsul {
            servers: Arc::new(self.part(&host, servers.clone(), count.into(), server, ui)),
            agent: Arc::new(self.part(&host, agent, 1, Vec::new(), None)),
            network: network.clone(),
        })
    }

    fn part(
        &self,
        of: &Part<'_>,
        name: ServiceName,
        replicas: u32,
        own: Vec<String>,
        publish: Option<u16>,
    ) -> Service {
        let mut args: Vec<String> = vec!["agent".into()];
        let quorum = !own.is_empty();
        args.extend(own);
        args.extend([
            format!("-data-dir={DATA}"),
            "-client=0.0.0.0".into(),
            format!("-retry-join={}", of.join),
            "-retry-interval=1s".into(),
        ]);
        let spec = InstanceSpec {
            image: of.image.to_owned(),
            command: Some(vec!["consul".into()]),
            args: Some(args),
            ports: vec![Port {
                name: "http".into(),
                container: CONSUL_PORT,
                protocol: Protocol::Tcp,
                publish,
            }],
            resources: Resources::default(),
            mounts: vec![Mount {
                source: MountSource::SlotVolume(format!("evenkeel-{name}")),
                path: DATA.into(),
                read_only: false,
            }],
            // One, so that there is one address to advertise.
            networks: vec![of.network.to_owned()],
            ..InstanceSpec::default()
        };
        Service {
            fleet: of.fleet.clone(),
            replicas,
            hash: SpecHash::of(self.owner, &spec),
            spec: Arc::new(spec),
            probe: Some(Probe {
                kind: ProbeKind::Tcp,
                port: CONSUL_PORT,
                interval: Duration::from_secs(2),
                timeout: Duration::from_secs(1),
                failure_threshold: 5,
                start_period: Duration::from_secs(15),
            }),
            placement: Placement::default(),
            rollout: ROLLOUT,
            termination: Termination { drain: Duration::ZERO, ..Termination::default() },
            replace_after: Duration::from_secs(60),
            keep: Keep::Original,
            suspend: false,
            routed: quorum,
            exposure: Exposure { quorum, ..Exposure::default() },
            document: "".into(),
            name,
        }
    }
}

/// What servers and agents have in common.
struct Part<'p> {
    fleet: &'p FleetName,
    /// The servers' name, which is what everybody joins.
    join: &'p ServiceName,
    network: &'p str,
    image: &'p str,
}
