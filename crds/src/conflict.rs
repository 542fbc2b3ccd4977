//! What no single field is wrong about: contradictions between fields of one document.
//!
//! The API server finds the same by CEL rules and list-map keys, which JSON Schema does not have.

use std::collections::BTreeSet;

use crate::{
    DockerHost, EnvVar, FleetSpec, ListenerProtocol, LoadBalancerSpec, PortRef, ScalingServiceSpec,
    VolumeMount,
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
        let hosts = self.backend.docker.iter().flat_map(|docker| &docker.hosts);
        duplicates("spec.backend.docker.hosts", "name", hosts.map(|DockerHost { name, .. }| name))
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
        conflicts
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
        for (index, route) in self.routes.iter().enumerate() {
            let path = format!("spec.routes[{index}].port");
            conflicts.extend(self.undeclared(&route.port).map(|message| at(&path, message)));
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

fn at(path: &str, message: String) -> Conflict {
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
