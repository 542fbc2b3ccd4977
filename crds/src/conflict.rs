//! What no single field is wrong about: contradictions between fields of one document.
//!
//! The API server finds the same by CEL rules and list-map keys, which JSON Schema does not have.

use std::collections::BTreeSet;

use crate::balancer::{haproxy_image, nginx_image};
use crate::credential::twice;
use crate::{
    DEFAULT_FLEET, DockerHost, EnvVar, FleetSpec, HaproxyProvider, ListenerProtocol,
    LoadBalancerSpec, Placement, PortRef, ScalingServiceSpec, VolumeMount,
};

/// Two fields of a document that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The field to look at, such as `spec.routes[0].port`.
    pub path: String,
    /// What is wrong: lower case, no full stop.
    pub message: String,
}

impl FleetSpec {
    /// Every contradiction between fields, in the order of the document.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let docker = self.backend.docker.as_ref();
        let hosts = || docker.into_iter().flat_map(|docker| &docker.hosts);
        let list = "spec.backend.docker.hosts";
        let mut conflicts = duplicates(list, "name", hosts().map(|DockerHost { name, .. }| name));
        for (index, host) in hosts().enumerate() {
            let tls = host.tls.iter();
            conflicts.extend(tls.flat_map(|tls| tls.conflicts(&format!("{list}[{index}].tls"))));
        }
        if let Some(docker) = docker {
            let (file, secret) = (&docker.registry_auth_file, &docker.registry_auth_secret);
            let path = "spec.backend.docker";
            conflicts.extend(twice(path, "registryAuth", file.as_ref(), secret.as_ref()));
        }
        if let Some(auth) = self.backend.marathon.as_ref().and_then(|m| m.auth.as_ref()) {
            conflicts.extend(auth.conflicts("spec.backend.marathon.auth"));
        }
        if let Some(consul) = self.discovery.as_ref().map(|discovery| &discovery.consul) {
            let path = "spec.discovery.consul";
            let (file, secret) = (&consul.token_file, &consul.token_secret);
            conflicts.extend(twice(path, "token", file.as_ref(), secret.as_ref()));
            let tls = consul.tls.iter();
            conflicts.extend(tls.flat_map(|tls| tls.conflicts(&format!("{path}.tls"))));
        }
        conflicts
    }
}

impl LoadBalancerSpec {
    /// Every contradiction between fields, in the order of the document.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let at = "spec.listeners";
        let mut conflicts = duplicates(at, "name", self.listeners.iter().map(|l| &l.name));
        conflicts.extend(duplicates(at, "port", self.listeners.iter().map(|l| l.port)));
        for (index, listener) in self.listeners.iter().enumerate() {
            if listener.protocol == ListenerProtocol::Tcp && !listener.certificates.is_empty() {
                let message = "a tcp listener passes bytes on as they are: it has no certificates";
                conflicts.push(Conflict {
                    path: format!("{at}[{index}].certificates"),
                    message: message.to_owned(),
                });
            }
        }
        let published = self.listeners.iter().enumerate();
        let published = published.filter_map(|(index, l)| Some((index, l.publish?)));
        conflicts.extend(duplicates_at(at, "publish", published));
        if self.provider.external() > 0 {
            self.run_already(&mut conflicts);
        }
        conflicts
    }

    /// What makes no sense where nothing is started.
    fn run_already(&self, conflicts: &mut Vec<Conflict>) {
        let Self {
            provider, replicas, listeners, access_log, virtual_ip, networks, placement, ..
        } = self;
        let mut refuse = |path: &str, message: &str| conflicts.push(at(path, message.to_owned()));
        let haproxy = provider.haproxy.as_ref();
        let nginx = provider.nginx.as_ref();
        if *replicas != 1 {
            refuse(
                "spec.replicas",
                "nothing is started for external balancers: leave replicas out",
            );
        }
        if haproxy.is_some_and(|p| p.image != haproxy_image()) {
            refuse(
                "spec.provider.haproxy.image",
                "external balancers run already: leave image out",
            );
        }
        if nginx.is_some_and(|p| p.image != nginx_image()) {
            refuse("spec.provider.nginx.image", "external balancers run already: leave image out");
        }
        let fragments = haproxy.map(|p| &p.fragments).or_else(|| nginx.map(|p| &p.fragments));
        if fragments.is_some_and(|f| f.global.is_some()) {
            let kind = if haproxy.is_some() { "haproxy" } else { "nginx" };
            let path = format!("spec.provider.{kind}.fragments.global");
            refuse(
                &path,
                "how an external balancer runs is in its own configuration: write it there",
            );
        }
        for (index, listener) in listeners.iter().enumerate() {
            if listener.publish.is_some() {
                let path = format!("spec.listeners[{index}].publish");
                refuse(&path, "an external balancer listens on port itself: leave publish out");
            }
            if nginx.is_some() && listener.protocol == ListenerProtocol::Tcp {
                let path = format!("spec.listeners[{index}].protocol");
                let message =
                    "an external nginx includes its file in http, where no tcp listener can be";
                refuse(&path, message);
            }
        }
        for (given, path) in [
            (access_log.is_some(), "spec.accessLog"),
            (virtual_ip.is_some(), "spec.virtualIp"),
            (!networks.is_empty(), "spec.networks"),
            (*placement != Placement::default(), "spec.placement"),
        ] {
            if given {
                refuse(path, "external balancers run where they run: leave it out");
            }
        }
        let needs = |p: &HaproxyProvider| {
            p.external
                .iter()
                .map(|e| (e.check.clone(), e.config_file.is_some()))
                .collect::<Vec<_>>()
        };
        for (index, (check, file)) in haproxy.map(needs).unwrap_or_default().iter().enumerate() {
            if *file && !check.iter().any(|arg| arg.contains("{candidate}")) {
                let path = format!("spec.provider.haproxy.external[{index}].check");
                refuse(
                    &path,
                    "check tries the file in force: write {candidate} where it names configFile",
                );
            }
        }
        let (sockets, files): (Vec<_>, Vec<_>) = match (haproxy, nginx) {
            (Some(p), _) => p
                .external
                .iter()
                .enumerate()
                .map(|(i, e)| ((i, &e.runtime_socket), e.config_file.as_ref().map(|f| (i, f))))
                .unzip(),
            (None, Some(p)) => p
                .external
                .iter()
                .enumerate()
                .map(|(i, e)| ((i, &e.status), Some((i, &e.config_file))))
                .unzip(),
            (None, None) => return,
        };
        let (kind, socket) =
            if haproxy.is_some() { ("haproxy", "runtimeSocket") } else { ("nginx", "status") };
        let list = format!("spec.provider.{kind}.external");
        conflicts.extend(duplicates_at(&list, socket, sockets.into_iter()));
        conflicts.extend(duplicates_at(&list, "configFile", files.into_iter().flatten()));
    }
}

impl ScalingServiceSpec {
    /// Every contradiction between fields, in the order of the document.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let env = self.env.iter().map(|EnvVar { name, .. }| name);
        let mut conflicts = duplicates("spec.env", "name", env);
        conflicts.extend(duplicates("spec.ports", "name", self.ports.iter().map(|p| &p.name)));
        let published = self.ports.iter().enumerate();
        let published =
            published.filter_map(|(index, p)| Some((index, Published(p.publish?, p.protocol))));
        conflicts.extend(duplicates_at("spec.ports", "publish", published));
        let volumes = self.volumes.iter().map(|VolumeMount { name, .. }| name);
        conflicts.extend(duplicates("spec.volumes", "name", volumes));
        if let Some(health) = &self.health {
            let http = health.http.as_ref().map(|check| ("spec.health.http.port", &check.port));
            let tcp = health.tcp.as_ref().map(|check| ("spec.health.tcp.port", &check.port));
            for (path, port) in http.into_iter().chain(tcp) {
                conflicts.extend(self.undeclared(port).map(|message| at(path, message)));
            }
        }
        conflicts.extend(self.parts());
        for (index, route) in self.routes.iter().enumerate() {
            let path = format!("spec.routes[{index}].port");
            conflicts.extend(self.undeclared(&route.port).map(|message| at(&path, message)));
        }
        conflicts
    }

    /// What is wrong with its parts on several fleets.
    fn parts(&self) -> Vec<Conflict> {
        let list = "spec.placements";
        let mut conflicts = duplicates(list, "fleet", self.placements.iter().map(|p| &p.fleet));
        if self.placements.is_empty() {
            return conflicts;
        }
        if self.fleet != DEFAULT_FLEET && !self.placements.iter().any(|p| p.fleet == self.fleet) {
            conflicts.push(at("spec.fleet", "fleet is not among placements: leave it out".into()));
        }
        let counted: u64 = self.placements.iter().filter_map(|p| p.replicas).map(u64::from).sum();
        let weighed = self.placements.iter().any(|p| p.weight.is_some_and(|w| w > 0));
        let replicas = u64::from(self.replicas);
        if counted > replicas || (counted < replicas && !weighed) {
            let message = format!(
                "the parts come to {counted}, and replicas is {replicas}: make them equal, or give a fleet a weight"
            );
            conflicts.push(at(list, message));
        }
        conflicts
    }

    /// What is wrong with a reference to a port of this service, if anything.
    fn undeclared(&self, port: &PortRef) -> Option<String> {
        let PortRef::Name(name) = port else { return None };
        if self.ports.iter().any(|port| port.name == *name) {
            return None;
        }
        let known: Vec<_> = self.ports.iter().map(|port| port.name.as_str()).collect();
        Some(if known.is_empty() {
            format!("no port is named {name}: ports is empty")
        } else {
            format!("no port is named {name}: ports has {}", known.join(", "))
        })
    }
}

/// A host port taken by a container port; the protocols do not meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Published(u16, crate::Protocol);

impl std::fmt::Display for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

pub(crate) fn at(path: &str, message: String) -> Conflict {
    Conflict { path: path.to_owned(), message }
}

fn duplicates<T: Ord + std::fmt::Display>(
    list: &str,
    field: &str,
    values: impl Iterator<Item = T>,
) -> Vec<Conflict> {
    duplicates_at(list, field, values.enumerate())
}

/// The second and later entries of `list` with a value that an earlier one has.
fn duplicates_at<T: Ord + std::fmt::Display>(
    list: &str,
    field: &str,
    values: impl Iterator<Item = (usize, T)>,
) -> Vec<Conflict> {
    let mut seen = BTreeSet::new();
    let mut conflicts = Vec::new();
    for (index, value) in values {
        let message = format!("{field} {value} is taken by an earlier entry of {list}");
        if !seen.insert(value) {
            conflicts.push(Conflict { path: format!("{list}[{index}].{field}"), message });
        }
    }
    conflicts
}
