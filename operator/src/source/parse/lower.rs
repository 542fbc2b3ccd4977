//! From the API's types to the model: defaults, names that resolve, and the rules of single
//! documents that a schema cannot say.
//!
//! Every type of the API is taken apart without `..`: a new field does not compile until it is
//! answered for here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_crds as api;

use super::Context;
use super::credential::Pems;
use super::form;
use super::node::{Flaw, Node, meant};
use super::secret::Secrets;
use crate::model::{
    Amount, Balance, CommandCheck, Constraint, Endpoint, EnvValue, EnvVar, Exposure, Fleet,
    FleetName, HOST_LABEL, HostName, HostSpec, HostState, InstanceSpec, Keep, Limits, Mount,
    MountSource, OnFailure, OwnerId, Packing, Placement, Port, Probe, ProbeKind, Protocol,
    RegistryLabels, Resources, Rollout, RouteSpec, Secret, Service, ServiceName, SpecHash,
    Termination, Tls,
};

/// Longer than this nothing is waited for: the engine keeps such times in nanoseconds, 64 bits.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
/// Less than this the engine refuses.
const LEAST_MEMORY: u64 = 6 << 20;
/// More than any host has; the engine keeps bytes in 63 bits.
const MOST_MEMORY: u64 = 1 << 50;

/// A document on its way into the model, and what is wrong with it.
pub(super) struct Lowering<'a> {
    pub(super) document: &'a Node,
    pub(super) owner: &'a OwnerId,
    pub(super) secrets: &'a dyn Secrets,
    /// Certificates to go on with where the secret has no good one any more.
    pub(super) kept: Option<&'a BTreeMap<String, Secret>>,
    pub(super) flaws: Vec<Flaw>,
}

impl<'a> Lowering<'a> {
    pub(super) fn of(document: &'a Node, ctx: &Context<'a>) -> Self {
        Self { document, owner: ctx.owner, secrets: ctx.secrets, kept: None, flaws: Vec::new() }
    }
}

impl Lowering<'_> {
    pub(super) fn flaw(&mut self, path: &str, message: impl std::fmt::Display) {
        self.flaws.push(Flaw::new(self.document.locate(path), format!("{path}: {message}")));
    }

    pub(super) fn judge(&mut self, path: &str, judged: Result<(), form::Wrong>) {
        if let Err((message, hint)) = judged {
            self.flaw(path, message);
            if let (Some(flaw), Some(hint)) = (self.flaws.last_mut(), hint) {
                flaw.hint = Some(hint);
            }
        }
    }

    pub(super) fn hint(&mut self, hint: String) {
        if let Some(flaw) = self.flaws.last_mut() {
            flaw.hint = Some(hint);
        }
    }

    fn duration(&mut self, path: &str, given: api::HumanDuration, zero_too: bool) -> Duration {
        let duration = given.get();
        if duration > LONGEST {
            self.flaw(path, format!("{given} is longer than 366 days"));
        } else if duration.is_zero() && !zero_too {
            self.flaw(path, "must be longer than 0s");
        }
        duration
    }

    /// A service; meaningless where flaws were found.
    pub(super) fn service(
        &mut self,
        name: ServiceName,
        spec: api::ScalingServiceSpec,
        document: Arc<str>,
    ) -> Option<Service> {
        let api::ScalingServiceSpec {
            fleet,
            replicas,
            placements,
            image,
            command,
            args,
            env,
            ports,
            resources,
            volumes,
            networks,
            placement,
            health,
            discovery,
            routes,
            rollout,
            termination,
            on_host_lost,
            marathon,
            suspend,
        } = spec;
        let (fleet, placements) = self.parts(&fleet, replicas, placements)?;
        let app = self.app(marathon);
        self.judge("spec.image", form::image(&image));
        let most_on_a_host = placement.max_per_host.unwrap_or(replicas).min(replicas);
        let ports = self.ports(ports, most_on_a_host);
        let (probe, healthcheck) = self.health(health, &ports);
        let exposure = self.exposure(routes, discovery, &ports);
        let spec = InstanceSpec {
            image,
            command: some(command),
            args: some(args),
            placed_args: Vec::new(),
            env: self.env(env),
            ports,
            resources: self.resources(resources),
            mounts: self.mounts(volumes),
            networks: self.networks(networks),
            healthcheck,
            files: Vec::new(),
            capabilities: Vec::new(),
        };
        let api::OnHostLost { replace_after, keep } = on_host_lost;
        Some(Service {
            name,
            fleet,
            replicas,
            placements,
            app,
            hash: SpecHash::of(self.owner, &spec),
            spec: Arc::new(spec),
            probe,
            placement: lower_placement(placement),
            rollout: self.rollout(&rollout),
            termination: self.termination(termination),
            replace_after: self.duration("spec.onHostLost.replaceAfter", replace_after, true),
            keep: match keep {
                api::KeepOnReturn::Original => Keep::Original,
                api::KeepOnReturn::Replacement => Keep::Replacement,
                api::KeepOnReturn::Healthiest => Keep::Healthiest,
            },
            suspend,
            shifting: None,
            routed: false, // told once it is known which of its routes can be
            exposure,
            document,
        })
    }

    fn env(&mut self, env: Vec<api::EnvVar>) -> Vec<EnvVar> {
        let mut out = Vec::with_capacity(env.len());
        for (index, api::EnvVar { name, value, secret }) in env.into_iter().enumerate() {
            let value = match (value, secret) {
                (_, Some(api::SecretKeyRef { name, key })) => {
                    // The schema's pattern lets no slash through; these two would leave the directory.
                    if key == "." || key == ".." {
                        self.flaw(&format!("spec.env[{index}].secret.key"), "not a key");
                        continue;
                    }
                    match self.secrets.get(&name, &key) {
                        Ok(value) => EnvValue::Secret { name, key, value },
                        Err(why) => {
                            let path = format!("spec.env[{index}].secret");
                            self.flaw(&path, format!("no secret {name}/{key}: {why}"));
                            continue;
                        }
                    }
                }
                (Some(value), None) => EnvValue::Plain(value),
                (None, None) => continue, // the schema wants one of the two
            };
            out.push(EnvVar { name, value });
        }
        out
    }

    fn ports(&mut self, ports: Vec<api::ContainerPort>, instances: u32) -> Vec<Port> {
        let mut out = Vec::with_capacity(ports.len());
        for (index, port) in ports.into_iter().enumerate() {
            let api::ContainerPort { name, container_port, protocol, publish } = port;
            let last = publish.map(|first| u32::from(first) + instances.saturating_sub(1));
            if let Some(last) = last.filter(|last| *last > u32::from(u16::MAX)) {
                let first = publish.unwrap_or_default();
                let path = format!("spec.ports[{index}].publish");
                self.flaw(
                    &path,
                    format!("{instances} instances on one host would publish {first} to {last}, and 65535 is the last port"),
                );
            }
            let protocol = match protocol {
                api::Protocol::Tcp => Protocol::Tcp,
                api::Protocol::Udp => Protocol::Udp,
            };
            out.push(Port { name, container: container_port, protocol, publish });
        }
        out
    }

    fn resources(&mut self, resources: api::Resources) -> Resources {
        let api::Resources { cpu, memory } = resources;
        let memory_bytes = memory.map_or(0, api::Memory::bytes);
        if let Some(memory) = memory {
            if memory_bytes < LEAST_MEMORY {
                self.flaw(
                    "spec.resources.memory",
                    format!("{memory} is too little: the engine takes 6Mi or more"),
                );
            } else if memory_bytes > MOST_MEMORY {
                self.flaw("spec.resources.memory", format!("{memory} is more than any host has"));
            }
        }
        Resources { cpu_millis: cpu.map_or(0, |c| u64::from(c.millis())), memory_bytes }
    }

    fn mounts(&mut self, volumes: Vec<api::VolumeMount>) -> Vec<Mount> {
        let mut out: Vec<Mount> = Vec::with_capacity(volumes.len());
        for (index, volume) in volumes.into_iter().enumerate() {
            let api::VolumeMount { name: _, mount_path, host_path, volume, read_only } = volume;
            let at = format!("spec.volumes[{index}]");
            let path_at = format!("{at}.mountPath");
            self.judge(&path_at, form::path(&mount_path));
            let path = form::tidy_path(&mount_path);
            if path == "/" {
                self.flaw(&path_at, "nothing can be mounted over the root directory");
            } else if out.iter().any(|m| m.path == path) {
                self.flaw(&path_at, format!("{path} is taken by an earlier entry of volumes"));
            }
            let source = match (host_path, volume) {
                (Some(host), _) => {
                    self.judge(&format!("{at}.hostPath"), form::path(&host));
                    MountSource::Host(form::tidy_path(&host))
                }
                (None, Some(volume)) => MountSource::Volume(volume),
                (None, None) => continue, // the schema wants one of the two
            };
            out.push(Mount { source, path, read_only });
        }
        out
    }

    /// `bridge` alone says what leaving networks out says. With others it is refused: the engine's
    /// own bridge takes no aliases and resolves no names, so that half of an instance's names
    /// would work.
    pub(super) fn networks(&mut self, networks: Vec<String>) -> Vec<String> {
        for (index, network) in networks.iter().enumerate() {
            self.judge(&format!("spec.networks[{index}]"), form::network(network));
        }
        if networks == ["bridge"] {
            return Vec::new();
        }
        if let Some(index) = networks.iter().position(|n| n == "bridge") {
            self.flaw(
                &format!("spec.networks[{index}]"),
                "the network bridge cannot be joined together with others",
            );
            self.hint("leave it out, or leave the others out".into());
        }
        networks
    }

    fn health(
        &mut self,
        health: Option<api::Health>,
        ports: &[Port],
    ) -> (Option<Probe>, Option<CommandCheck>) {
        let Some(health) = health else { return (None, None) };
        let api::Health { http, tcp, command, interval, timeout, failure_threshold, start_period } =
            health;
        let interval = self.duration("spec.health.interval", interval, false);
        let timeout = self.duration("spec.health.timeout", timeout, false);
        let start_period = self.duration("spec.health.startPeriod", start_period, true);
        let healthcheck = command.map(|api::CommandCheck { command }| CommandCheck {
            command,
            interval,
            timeout,
            failure_threshold,
            start_period,
        });
        let asked = match (http, tcp) {
            (Some(api::HttpCheck { path, port }), _) => {
                Some(("spec.health.http.port", ProbeKind::Http { path }, port))
            }
            (None, Some(api::TcpCheck { port })) => {
                Some(("spec.health.tcp.port", ProbeKind::Tcp, port))
            }
            (None, None) => None,
        };
        let probe = asked.and_then(|(path, kind, port)| {
            let port = self.tcp_port(path, &port, ports)?;
            Some(Probe { kind, port, interval, timeout, failure_threshold, start_period })
        });
        (probe, healthcheck)
    }

    fn tcp_port(&mut self, path: &str, port: &api::PortRef, ports: &[Port]) -> Option<u16> {
        let declared = match port {
            api::PortRef::Number(number) => {
                let same = |p: &&Port| p.container == *number;
                // A number needs no entry; one that has only a udp entry is a slip.
                match ports.iter().filter(same).find(|p| p.protocol == Protocol::Tcp) {
                    Some(port) => port,
                    None => match ports.iter().find(same) {
                        Some(port) => port,
                        None => return Some(*number),
                    },
                }
            }
            // `conflicts()` tells of a name that is not declared.
            api::PortRef::Name(name) => ports.iter().find(|p| p.name == *name)?,
        };
        if declared.protocol == Protocol::Udp && path.starts_with("spec.health") {
            self.flaw(path, format!("the port {} is udp, which no check can ask", declared.name));
            self.hint("check a tcp port, or use health.command".into());
        } else if declared.protocol == Protocol::Udp {
            self.flaw(path, format!("the port {} is udp, and only tcp is balanced", declared.name));
        }
        Some(declared.container)
    }

    /// What the document asks for; which of it can be is for `routes` to say, which knows the balancers.
    fn exposure(
        &mut self,
        routes: Vec<api::Route>,
        discovery: api::ServiceDiscovery,
        ports: &[Port],
    ) -> Exposure {
        let mut asked = Vec::with_capacity(routes.len());
        for (index, route) in routes.into_iter().enumerate() {
            let api::Route { load_balancer, listener, host, path_prefix, port, balance, cookie } =
                route;
            let at = format!("spec.routes[{index}]");
            let balancer = match ServiceName::new(&load_balancer) {
                Ok(name) => name,
                Err(e) => {
                    self.flaw(&format!("{at}.loadBalancer"), e);
                    continue;
                }
            };
            let Some(port) = self.tcp_port(&format!("{at}.port"), &port, ports) else { continue };
            asked.push(RouteSpec {
                balancer,
                listener,
                host,
                path: path_prefix,
                port,
                balance: match balance {
                    api::Balance::Roundrobin => Balance::Roundrobin,
                    api::Balance::Leastconn => Balance::Leastconn,
                    api::Balance::Source => Balance::Source,
                },
                cookie,
            });
        }
        let api::ServiceDiscovery { tags, meta } = discovery;
        Exposure { asked, labels: RegistryLabels { tags, meta }, ..Exposure::default() }
    }

    fn rollout(&mut self, rollout: &api::Rollout) -> Rollout {
        let api::Rollout {
            max_surge,
            max_unavailable,
            min_ready_seconds,
            progress_deadline,
            on_failure,
        } = rollout;
        let amount = |a: &api::IntOrPercent| match a {
            api::IntOrPercent::Int(n) => Amount::Count(*n),
            api::IntOrPercent::Percent(p) => Amount::Percent(u32::from(*p)),
        };
        let min_ready = Duration::from_secs(u64::from(*min_ready_seconds));
        let at = "spec.rollout.progressDeadline";
        let before = self.flaws.len();
        let deadline = self.duration(at, *progress_deadline, false);
        if self.flaws.len() == before && deadline <= min_ready {
            self.flaw(at, format!("{progress_deadline} must be longer than minReadySeconds, or every rollout fails"));
        }
        Rollout {
            max_surge: amount(max_surge),
            max_unavailable: amount(max_unavailable),
            min_ready,
            progress_deadline: deadline,
            on_failure: match on_failure {
                api::OnFailure::Rollback => OnFailure::Rollback,
                api::OnFailure::Pause => OnFailure::Pause,
            },
        }
    }

    fn termination(&mut self, termination: api::Termination) -> Termination {
        let api::Termination { drain, grace, signal } = termination;
        Termination {
            drain: self.duration("spec.termination.drain", drain, true),
            grace: self.duration("spec.termination.grace", grace, true),
            signal: signal.as_str().to_owned(),
        }
    }

    /// A fleet; meaningless where flaws were found.
    pub(super) fn fleet(
        &mut self,
        name: FleetName,
        spec: api::FleetSpec,
        approved_prune: Option<String>,
    ) -> Fleet {
        let api::FleetSpec { backend, discovery, limits } = spec;
        let api::Backend { docker, marathon } = backend;
        let api::FleetLimits { prune, disruption, parallel_starts_per_host } = limits;
        let api::PruneLimits { max_percent } = prune;
        let api::DisruptionLimits { max_instances_per_hour } = disruption;
        let mut hosts = BTreeMap::new();
        let mut engines: BTreeMap<String, HostName> = BTreeMap::new();
        let (given, registry_auth) = docker.map_or_else(Default::default, |docker| {
            let api::DockerBackend { hosts, registry_auth_file, registry_auth_secret } = docker;
            let at = "spec.backend.docker.registryAuth";
            (hosts, self.credential(at, registry_auth_file, registry_auth_secret))
        });
        for (index, host) in given.into_iter().enumerate() {
            let at = format!("spec.backend.docker.hosts[{index}]");
            let Some(mut host) = self.host(host, &at) else { continue };
            host.registry_auth.clone_from(&registry_auth);
            if let Some(other) = engines.get(&form::engine(&host.endpoint)) {
                let message = format!("the same engine as the host {other} has");
                self.flaw(&format!("{at}.endpoint"), message);
            }
            engines.insert(form::engine(&host.endpoint), host.name.clone());
            hosts.insert(host.name.clone(), Arc::new(host));
        }
        let marathon = marathon.and_then(|marathon| self.marathon(marathon));
        let marathon = marathon.map(|(cluster, host)| {
            hosts.insert(host.name.clone(), Arc::new(host));
            cluster
        });
        let limits = Limits {
            prune_max_percent: u32::from(max_percent),
            disruptions_per_hour: max_instances_per_hour,
            parallel_starts_per_host,
        };
        let registry =
            discovery.and_then(|api::Discovery { consul }| self.registry(&name, &hosts, consul));
        Fleet { name, hosts, marathon, limits, registry, approved_prune }
    }

    fn host(&mut self, host: api::DockerHost, at: &str) -> Option<HostSpec> {
        let api::DockerHost { name, endpoint, tls, address, labels, state } = host;
        let name = HostName::new(&name).map_err(|e| self.flaw(&format!("{at}.name"), e)).ok()?;
        if labels.contains_key(HOST_LABEL) {
            let path = format!("{at}.labels.{HOST_LABEL}");
            self.flaw(&path, "the label host stands for the host's own name");
            self.hint("leave it out: \"host == NAME\" works without".into());
        }
        let mut endpoint = match form::endpoint(&endpoint) {
            Ok(endpoint) => endpoint,
            Err(why) => {
                self.judge(&format!("{at}.endpoint"), Err(why));
                return None;
            }
        };
        if let (Endpoint::Tcp { tls: files, .. }, Some(tls)) = (&mut endpoint, tls) {
            let at = format!("{at}.tls");
            let told = self.flaws.len();
            match self.pems(&at, tls) {
                Pems { ca: Some(ca), cert: Some(cert), key: Some(key) } => {
                    *files = Some(Tls { ca, cert, key });
                }
                Pems { .. } if self.flaws.len() > told => {}
                Pems { .. } => {
                    self.flaw(
                        &at,
                        "TLS to an engine needs an authority, a certificate and a key yet",
                    );
                    self.hint(
                        "give caFile, certFile and keyFile, or caSecret, certSecret and keySecret"
                            .into(),
                    );
                }
            }
        }
        let state = match state {
            api::HostState::Active => HostState::Active,
            api::HostState::Cordoned => HostState::Cordoned,
            api::HostState::Draining => HostState::Draining,
        };
        Some(HostSpec { name, endpoint, address, labels, state, registry_auth: None })
    }
}

pub(super) fn lower_placement(placement: api::Placement) -> Placement {
    let api::Placement { constraints, spread_by, packing, max_per_host } = placement;
    let constraints = constraints
        .into_iter()
        .map(|c| Constraint {
            label: c.key().to_owned(),
            equal: match c.operator() {
                api::Operator::Equal => true,
                api::Operator::NotEqual => false,
            },
            value: c.value().to_owned(),
        })
        .collect();
    let packing = match packing {
        api::Packing::Spread => Packing::Spread,
        api::Packing::Binpack => Packing::Binpack,
    };
    Placement { constraints, spread_by, max_per_host, packing }
}

fn some(words: Vec<String>) -> Option<Vec<String>> {
    if words.is_empty() { None } else { Some(words) }
}

/// The fleet that a service without one runs on, where no document defines it.
pub(super) fn default_fleet(endpoint: &Endpoint) -> Option<Fleet> {
    let name = HostName::new("local").ok()?;
    let host = HostSpec {
        name: name.clone(),
        endpoint: endpoint.clone(),
        address: None,
        labels: BTreeMap::new(),
        state: HostState::Active,
        registry_auth: None,
    };
    Some(Fleet {
        name: FleetName::of_default(),
        hosts: BTreeMap::from([(name, Arc::new(host))]),
        marathon: None,
        limits: Limits::default(),
        registry: None,
        approved_prune: None,
    })
}

/// The only annotations that mean something, by kind.
pub(super) const APPROVE_PRUNE: &str = "evenkeel.dev/approve-prune";

/// What the annotations of a fleet approve. An annotation of ours that is not known is refused:
/// the person who wrote it expects something of it.
pub(super) fn annotations(kind: &str, document: &Node, flaws: &mut Vec<Flaw>) -> Option<String> {
    let metadata = document.get("metadata")?;
    let annotations = metadata.get("annotations")?;
    let known: &[&str] = if kind == "Fleet" { &[APPROVE_PRUNE] } else { &[] };
    for field in annotations.fields().iter().filter(|f| f.key.starts_with("evenkeel.dev/")) {
        if !known.contains(&field.key.as_str()) {
            let message = format!("the annotation {} is unknown", super::node::shown(&field.key));
            let hint = meant(&field.key, "annotations", known.iter().copied());
            flaws.push(Flaw::new(field.pos, message).hint(hint));
        }
    }
    if kind != "Fleet" {
        return None;
    }
    let code = annotations.get(APPROVE_PRUNE)?;
    let text = code.text()?;
    if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let message = format!("the annotation {APPROVE_PRUNE} is not a code");
        let hint = "copy the code that the waiting message names";
        flaws.push(Flaw::new(code.pos, message).hint(hint));
    }
    Some(text.to_owned())
}
