//! A balancer's document: a workload like any other, and where it takes traffic.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_crds as api;

use super::form;
use super::lower::{Lowering, lower_placement};
use crate::edge::{self, Boot, keepalived};
use crate::model::{
    ACCESS_LOG, Amount, AppClaim, Balancer, BalancerKind, Certificate, Exposure, External, File,
    FleetName, Fragments, InstanceSpec, Keep, Listener, ListenerProtocol, Mount, MountSource,
    OnFailure, OwnFile, Placement, Port, Probe, ProbeKind, Protocol, Resources, Rollout, Secret,
    Service, ServiceName, Socket, SpecHash, Termination,
};

/// How a balancer's containers change: one at a time, and never two on the same published port.
const ROLLOUT: Rollout = Rollout {
    max_surge: Amount::Count(0),
    max_unavailable: Amount::Count(1),
    min_ready: Duration::from_secs(1),
    progress_deadline: Duration::from_secs(300),
    on_failure: OnFailure::Rollback,
};
/// How long a balancer may finish what it has accepted.
const GRACE: Duration = Duration::from_secs(30);
/// Where keepalived reads what it is to do.
const KEEPALIVED: &str = "/etc/evenkeel/keepalived.conf";
/// How long a silent host's balancers are waited for.
const REPLACE_AFTER: Duration = Duration::from_secs(20);

/// The listener that tells whether it takes connections. Balancers leave out a listener that has no certificate that
/// loads, and nginx one that passes bytes to nobody: only where there is no other is one of those asked.
fn asked(listeners: &[api::Listener]) -> u16 {
    let worth =
        |l: &&api::Listener| (l.protocol == api::ListenerProtocol::Tcp, !l.certificates.is_empty());
    listeners.iter().min_by_key(worth).map_or(0, |l| l.port)
}

fn haproxy_external(external: api::ExternalHaproxy) -> Arc<External> {
    let api::ExternalHaproxy { runtime_socket, config_file, check, reload } = external;
    let file = config_file.map(|path| OwnFile { path, check, reload });
    Arc::new(External { file, asked: Socket::new(&runtime_socket) })
}

fn nginx_external(external: api::ExternalNginx) -> Arc<External> {
    let api::ExternalNginx { config_file, check, reload, status } = external;
    let file = Some(OwnFile { path: config_file, check, reload });
    Arc::new(External { file, asked: Socket::new(&status) })
}

impl Lowering<'_> {
    /// A balancer; meaningless where flaws were found.
    pub(super) fn balancer(
        &mut self,
        name: ServiceName,
        spec: api::LoadBalancerSpec,
        document: Arc<str>,
    ) -> Option<Balancer> {
        let api::LoadBalancerSpec {
            fleet,
            provider,
            replicas,
            listeners,
            access_log,
            virtual_ip,
            networks,
            placement,
        } = spec;
        let fleet = FleetName::new(&fleet).map_err(|e| self.flaw("spec.fleet", e)).ok()?;
        let api::BalancerProvider { haproxy, nginx } = provider;
        let (kind, image, fragments, external, at) = match (haproxy, nginx) {
            (Some(api::HaproxyProvider { image, fragments, external }), _) => {
                let external: Vec<_> = external.into_iter().map(haproxy_external).collect();
                (BalancerKind::Haproxy, image, fragments, external, "spec.provider.haproxy.image")
            }
            (None, Some(api::NginxProvider { image, fragments, external })) => {
                let external = external.into_iter().map(nginx_external).collect();
                (BalancerKind::Nginx, image, fragments, external, "spec.provider.nginx.image")
            }
            (None, None) => return None, // the schema wants one of the two
        };
        self.judge(at, form::image(&image));
        let api::Fragments { global, defaults, frontend, backend } = fragments;
        let fragments = Fragments { global, defaults, frontend, backend };
        // Nothing is started for those that run already, and whatever was started before ends.
        let (replicas, image) =
            if external.is_empty() { (replicas, image) } else { (0, "external".to_owned()) };
        let most_on_a_host = placement.max_per_host.unwrap_or(replicas).min(replicas);
        let published = listeners.iter().map(|l| api::ContainerPort {
            name: l.name.clone(),
            container_port: l.port,
            protocol: api::Protocol::Tcp,
            publish: external.is_empty().then(|| l.first_host_port()),
        });
        let ports = self.listener_ports(published.collect(), most_on_a_host);
        let mounts: Vec<Mount> = access_log
            .iter()
            .map(|api::AccessLog { volume }| Mount {
                source: MountSource::Volume(volume.clone()),
                path: ACCESS_LOG.to_owned(),
                read_only: false,
            })
            .collect();
        let Boot { command, args, files, stop_signal } = edge::boot(kind);
        let asked = asked(&listeners);
        let published_first = listeners.first().map_or(0, api::Listener::first_host_port);
        let own_port = external.is_empty().then(|| edge::own_port(kind));
        let listeners = self.listeners(listeners, own_port);
        let networks = self.networks(networks);
        let access_log = !mounts.is_empty();
        let spec = InstanceSpec {
            image,
            command: Some(command),
            args: Some(args),
            placed_args: Vec::new(),
            env: Vec::new(),
            ports,
            resources: Resources::default(),
            mounts,
            networks,
            healthcheck: None,
            files,
            capabilities: Vec::new(),
        };
        let service = Service {
            name,
            fleet,
            replicas,
            hash: SpecHash::of(self.owner, &spec),
            spec: Arc::new(spec),
            // It takes connections once its first table is in force, and not before.
            probe: external.is_empty().then_some(Probe {
                kind: ProbeKind::Tcp,
                port: asked,
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                failure_threshold: 3,
                start_period: Duration::from_secs(10),
            }),
            placement: lower_placement(placement),
            rollout: ROLLOUT,
            termination: Termination {
                drain: Duration::ZERO,
                grace: GRACE,
                signal: stop_signal.to_owned(),
            },
            replace_after: REPLACE_AFTER,
            keep: Keep::Healthiest,
            placements: BTreeMap::new(),
            app: AppClaim::default(),
            shifting: None,
            suspend: false,
            routed: false,
            exposure: Exposure::default(),
            document,
        };
        let virtual_ip = virtual_ip
            .and_then(|vip| self.virtual_ip(&service, vip, published_first))
            .map(Arc::new);
        let service = Arc::new(service);
        Some(Balancer { service, kind, listeners, fragments, access_log, virtual_ip, external })
    }

    /// keepalived beside a balancer. How many there are is known with the fleet.
    fn virtual_ip(
        &mut self,
        balancer: &Service,
        vip: api::VirtualIp,
        port: u16,
    ) -> Option<Service> {
        let api::VirtualIp { address, interface, router_id, image } = vip;
        let at = "spec.virtualIp";
        let image = image.unwrap_or_else(|| balancer.spec.image.clone());
        self.judge(&format!("{at}.image"), form::image(&image));
        let name = ServiceName::new(&format!("{}-vip", balancer.name))
            .map_err(|e| self.flaw("metadata.name", e))
            .ok()?;
        let parsed = address.split_once('/').and_then(|(ip, length)| {
            let (ip, length) = (ip.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?);
            (length <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, length))
        });
        let Some((ip, length)) = parsed else {
            self.flaw(
                &format!("{at}.address"),
                format!("{address} is no address with the length of its network"),
            );
            return None;
        };
        let facts = keepalived::VirtualAddress {
            address: ip,
            length,
            interface,
            router_id,
            // The same everywhere: who has it keeps it, and of several that begin the highest address wins.
            priority: 100,
            port,
            peers: None,
            interval: Duration::from_secs(1),
        };
        let config = keepalived::render(&facts).map_err(|e| self.flaw(at, e)).ok()?;
        let spec = InstanceSpec {
            image,
            command: Some(vec!["keepalived".into()]),
            args: Some(["-n", "-l", "-f", KEEPALIVED].map(str::to_owned).into()),
            networks: vec!["host".into()],
            files: vec![File {
                path: KEEPALIVED.into(),
                content: config.into_bytes(),
                mode: 0o644,
            }],
            capabilities: ["NET_ADMIN", "NET_BROADCAST", "NET_RAW"].map(str::to_owned).into(),
            ..InstanceSpec::default()
        };
        Some(Service {
            name,
            replicas: 0,
            hash: SpecHash::of(self.owner, &spec),
            spec: Arc::new(spec),
            probe: None,
            placement: Placement { max_per_host: Some(1), ..balancer.placement.clone() },
            termination: Termination { drain: Duration::ZERO, ..Termination::default() },
            ..balancer.clone()
        })
    }

    fn listeners(&mut self, listeners: Vec<api::Listener>, own_port: Option<u16>) -> Vec<Listener> {
        let mut out = Vec::with_capacity(listeners.len());
        for (index, listener) in listeners.into_iter().enumerate() {
            let api::Listener { name, port, publish: _, protocol, certificates } = listener;
            let protocol = match protocol {
                api::ListenerProtocol::Http => ListenerProtocol::Http,
                api::ListenerProtocol::Tcp => ListenerProtocol::Tcp,
            };
            if Some(port) == own_port {
                self.flaw(
                    &format!("spec.listeners[{index}].port"),
                    format!(
                        "{port} is the port inside the container where the balancer is spoken to"
                    ),
                );
                self.hint("choose another port; publish may be any".into());
            }
            let mut found: BTreeMap<String, Certificate> = BTreeMap::new();
            let mut order = Vec::new();
            for (at, api::SecretKeyRef { name, key }) in certificates.into_iter().enumerate() {
                let path = format!("spec.listeners[{index}].certificates[{at}]");
                if key == "." || key == ".." {
                    self.flaw(&format!("{path}.key"), "not a key");
                    continue;
                }
                let file = format!("{name}.{key}");
                if let Some(pem) = self.certificate(&path, &name, &key, &file) {
                    order.push(file.clone());
                    found.insert(file.clone(), Certificate { name: file, pem });
                }
            }
            order.dedup();
            let certificates = order.iter().filter_map(|name| found.remove(name)).collect();
            out.push(Listener { name, port, protocol, certificates });
        }
        out
    }

    /// A certificate that a balancer takes, as far as can be told here.
    fn certificate(&mut self, path: &str, name: &str, key: &str, file: &str) -> Option<Secret> {
        let (message, hint) = match self.secrets.get(name, key) {
            Ok(pem) if self.secrets.are_stand_ins() => return Some(pem),
            Ok(pem) => match edge::certificate::fault(pem.reveal()) {
                None => return Some(pem),
                Some((why, hint)) => (format!("the secret {name}/{key} {why}"), hint),
            },
            Err(why) => (format!("no secret {name}/{key}: {why}"), None),
        };
        if let Some(pem) = self.kept.and_then(|kept| kept.get(file)) {
            return Some(pem.clone());
        }
        self.judge(path, Err((message, hint)));
        None
    }

    /// The ports of the listeners, told of where they are written.
    fn listener_ports(&mut self, ports: Vec<api::ContainerPort>, most: u32) -> Vec<Port> {
        let mut out = Vec::with_capacity(ports.len());
        for (index, api::ContainerPort { name, container_port, protocol: _, publish }) in
            ports.into_iter().enumerate()
        {
            let last = publish.map_or(0, |first| u32::from(first) + most.saturating_sub(1));
            if last > u32::from(u16::MAX) {
                let message = format!(
                    "{most} instances on one host would publish up to {last}, and 65535 is the last port"
                );
                self.flaw(&format!("spec.listeners[{index}].publish"), message);
            }
            out.push(Port { name, container: container_port, protocol: Protocol::Tcp, publish });
        }
        out
    }
}
