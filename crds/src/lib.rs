//! The API as users write it: `Fleet`, `LoadBalancer` and `ScalingService` of `evenkeel.dev/v1alpha1`.
//!
//! The same types serve git and Kubernetes. This crate says what a document may contain and never
//! what is done about it: no I/O but [`generate()`] and [`stale`], no clock, no cluster.
//!
//! From the types come the custom resource definitions (`crds/*.yaml`, for the API server) and the
//! JSON Schemas (`crds/schema/*.json`, for editors and `evenkeel check`). How the three agree:
//!
//! * every document that a schema accepts deserialises; unknown fields, wrong types and malformed
//!   durations, quantities, percentages and constraints are refused by all three;
//! * lengths, ranges, name patterns and "exactly one of" are in both schemas, not in serde;
//! * what spans several fields (a route's port that no `ports` entry declares, two hosts of one
//!   name) is in `conflicts()` of each spec, and in the CRDs as CEL rules and list-map keys.

#![allow(
    clippy::duplicated_attributes,
    reason = "kube's printcolumn(name, type_, json_path, …) is repeated by design"
)]
#![allow(
    clippy::doc_markdown,
    reason = "the comments are the descriptions that users read: HAProxy is a name, not code"
)]

mod balancer;
mod conflict;
mod credential;
mod fleet;
mod generate;
mod quantity;
mod reference;
mod rollout;
mod schema;
mod service;
mod share;
mod status;
mod text;

pub use balancer::{
    AccessLog, BalancerProvider, ExternalHaproxy, ExternalNginx, Fragments, HaproxyProvider,
    Listener, ListenerProtocol, LoadBalancer, LoadBalancerSpec, NginxProvider, VirtualIp,
};
pub use conflict::Conflict;
pub use credential::{ClientTls, MarathonAuth};
pub use fleet::{
    Backend, Consul, ConsulPublish, Discovery, DisruptionLimits, DockerBackend, DockerHost, Fleet,
    FleetLimits, FleetSpec, HostState, MarathonBackend, PruneLimits,
};
pub use generate::{crds, definitions, generate, json_schemas, stale};
pub use quantity::{Cpu, HumanDuration, IntOrPercent, Memory, ParseFormError};
pub use reference::{Constraint, Operator, PortRef};
pub use rollout::{KeepOnReturn, OnFailure, OnHostLost, Rollout, Signal, Termination};
pub use service::{
    Balance, CommandCheck, ContainerPort, EnvVar, Health, HttpCheck, Packing, Placement, Protocol,
    Resources, Route, ScalingService, ScalingServiceSpec, SecretKeyRef, ServiceDiscovery, TcpCheck,
    VolumeMount,
};
pub use share::{FleetShare, InstancesFrom, MarathonApp};
pub use status::{FleetStatus, LoadBalancerStatus, ScalingServiceStatus, Waiting};

/// The API group of every kind.
pub const GROUP: &str = "evenkeel.dev";
/// The API version of every kind.
pub const VERSION: &str = "v1alpha1";
/// What a document's `apiVersion` says.
pub const API_VERSION: &str = "evenkeel.dev/v1alpha1";
/// The fleet of a service or balancer that names none: the local Docker Engine unless a document
/// defines it.
pub const DEFAULT_FLEET: &str = "default";
/// The longest name of a document, port, volume, listener or host: a DNS-1123 label.
pub const NAME_MAX: usize = 63;
