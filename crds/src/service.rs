//! `ScalingService`: one kind of container, how many of it, and everything around it.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, exactly_one, rule};
use crate::{
    Constraint, Cpu, DEFAULT_FLEET, FleetShare, HumanDuration, MarathonApp, Memory, OnHostLost,
    PortRef, Rollout, ScalingServiceStatus, Termination, text,
};

/// What a user wants of a service.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "evenkeel.dev",
    version = "v1alpha1",
    kind = "ScalingService",
    namespaced,
    schema = "manual",
    status = "ScalingServiceStatus",
    derive = "PartialEq",
    shortname = "ssvc",
    category = "evenkeel",
    selectable = ".spec.fleet",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Fleet",
        type_ = "string",
        json_path = ".status.fleets",
        description = "where it runs"
    ),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".spec.replicas",
        description = "instances wanted"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "instances that pass their health check"
    ),
    printcolumn(
        name = "Available",
        type_ = "integer",
        json_path = ".status.availableReplicas",
        description = "instances that are ready and served by every balancer"
    ),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "the Ready condition"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    transform = rule(
        "!has(self.routes) || self.routes.all(r, type(r.port) == int || \
         (has(self.ports) && self.ports.exists(p, p.name == r.port)))",
        "every route's port must be the name of an entry of ports, or a number",
    ),
    transform = rule(
        "!has(self.health) || !has(self.health.http) || type(self.health.http.port) == int || \
         (has(self.ports) && self.ports.exists(p, p.name == self.health.http.port))",
        "health.http.port must be the name of an entry of ports, or a number",
    ),
    transform = rule(
        "!has(self.health) || !has(self.health.tcp) || type(self.health.tcp.port) == int || \
         (has(self.ports) && self.ports.exists(p, p.name == self.health.tcp.port))",
        "health.tcp.port must be the name of an entry of ports, or a number",
    ),
    transform = rule(
        "!has(self.routes) || !has(self.ports) || self.routes.all(r, \
         self.ports.all(p, p.protocol == 'tcp' || (p.name != r.port && \
         (p.containerPort != r.port || self.ports.exists(q, \
         q.containerPort == r.port && q.protocol == 'tcp')))))",
        "a route's port must be a tcp port",
    ),
    transform = rule(
        "!has(self.health) || !has(self.ports) || !has(self.health.http) || \
         self.ports.all(p, p.protocol == 'tcp' || (p.name != self.health.http.port && \
         (p.containerPort != self.health.http.port || self.ports.exists(q, \
         q.containerPort == self.health.http.port && q.protocol == 'tcp'))))",
        "health.http.port must be a tcp port",
    ),
    transform = rule(
        "!has(self.health) || !has(self.ports) || !has(self.health.tcp) || \
         self.ports.all(p, p.protocol == 'tcp' || (p.name != self.health.tcp.port && \
         (p.containerPort != self.health.tcp.port || self.ports.exists(q, \
         q.containerPort == self.health.tcp.port && q.protocol == 'tcp'))))",
        "health.tcp.port must be a tcp port",
    ),
    transform = rule(
        "!has(self.placements) || size(self.placements) == 0 || self.fleet == 'default' || \
         self.placements.exists(p, p.fleet == self.fleet)",
        "fleet is not among placements: leave it out",
    ),
    transform = rule(
        "!has(self.placements) || size(self.placements) == 0 || (self.placements.exists(p, has(p.weight) && \
         p.weight > 0) ? self.placements.map(p, has(p.replicas) ? p.replicas : 0).sum() <= self.replicas : \
         self.placements.map(p, has(p.replicas) ? p.replicas : 0).sum() == self.replicas)",
        "the parts of placements do not come to replicas",
    ),
    transform = rule(
        "!has(self.ports) || self.ports.all(p, !has(p.publish) || p.publish + \
         (has(self.placement.maxPerHost) && self.placement.maxPerHost < self.replicas ? \
         self.placement.maxPerHost : self.replicas) <= 65536)",
        "the instances on one host would publish ports beyond 65535: lower publish or maxPerHost",
    ),
)]
pub struct ScalingServiceSpec {
    /// The fleet that it runs on. Default: `default`, which is the local Docker Engine where no
    /// document defines it.
    #[serde(default = "default_fleet")]
    #[schemars(schema_with = "text::name")]
    pub fleet: String,
    /// How many instances should run, over all fleets, 0 to 10000. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: u32,
    /// The fleets that it runs on and their parts, where it runs on several. Where parts change, instances move as they become
    /// available. Default: all on `fleet`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 20),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["fleet"]),
    )]
    pub placements: Vec<FleetShare>,
    /// The image, with tag or digest.
    #[schemars(schema_with = "text::image")]
    pub image: String,
    /// The program that takes the place of the image's entry point, word by word; no shell reads it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "text::words")]
    pub command: Vec<String>,
    /// The arguments that take the place of the image's command, word by word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "text::words")]
    pub args: Vec<String>,
    /// Environment variables, each a plain value or a key of a secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), transform = schema::by_name)]
    pub env: Vec<EnvVar>,
    /// The ports that the container listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 50),
        transform = schema::by_name,
        transform = rule(
            "self.all(a, !has(a.publish) || self.exists_one(b, has(b.publish) && \
             b.publish == a.publish && b.protocol == a.protocol))",
            "two ports may not publish the same host port",
        ),
    )]
    pub ports: Vec<ContainerPort>,
    /// What an instance may use of its host, and what is kept free for it. Default: no limit.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Directories of the host and Docker volumes inside the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 50),
        transform = schema::by_name,
        transform = rule(
            "self.all(a, self.exists_one(b, b.mountPath == a.mountPath))",
            "two volumes may not have the same mountPath",
        ),
    )]
    pub volumes: Vec<VolumeMount>,
    /// The Docker networks that the container joins, where it answers to the service's name. A
    /// network that the host does not have is made there, as a bridge. Default: the engine's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "text::networks")]
    pub networks: Vec<String>,
    /// Which hosts may run it, and how instances spread over them.
    #[serde(default)]
    pub placement: Placement,
    /// How to tell that an instance works. Default: it works while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How it appears in the fleet's service catalogue.
    #[serde(default, skip_serializing_if = "ServiceDiscovery::is_empty")]
    pub discovery: ServiceDiscovery,
    /// Where balancers send traffic to it from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub routes: Vec<Route>,
    /// How a change replaces running instances.
    #[serde(default)]
    pub rollout: Rollout,
    /// How an instance is taken out of service and stopped.
    #[serde(default)]
    pub termination: Termination,
    /// What happens when a host falls silent.
    #[serde(default)]
    pub on_host_lost: OnHostLost,
    /// What is said of its app where the fleet is a Marathon cluster.
    #[serde(default, skip_serializing_if = "MarathonApp::is_empty")]
    pub marathon: MarathonApp,
    /// Leave everything of this service as it is until set to false again. Default: false.
    #[serde(default)]
    pub suspend: bool,
}

schema::resource!(
    ScalingService,
    ScalingServiceSpec,
    ScalingServiceStatus,
    "A service that is kept at a number of instances: containers on Docker hosts or an app of \
     Marathon, with its entries in the service catalogue and in the load balancers."
);

fn default_fleet() -> String {
    DEFAULT_FLEET.to_owned()
}

const fn one() -> u32 {
    1
}

/// An environment variable: a plain `value`, or a `secret`. Exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = exactly_one(&["value", "secret"]))]
pub struct EnvVar {
    /// The variable's name, unique in the list.
    #[schemars(schema_with = "text::env_name")]
    pub name: String,
    /// The value as it is. Quote numbers and `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32_768))]
    pub value: Option<String>,
    /// The secret that holds the value. A change of the secret rolls the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretKeyRef>,
}

/// One value of a secret: the file `NAME/KEY` under `--secrets`, or a Kubernetes Secret's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// The secret's name.
    #[schemars(schema_with = "text::name")]
    pub name: String,
    /// The key under that name.
    #[schemars(schema_with = "text::secret_key")]
    pub key: String,
}

/// A port that the container listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerPort {
    /// What routes and health checks call the port, unique in the list.
    #[schemars(schema_with = "text::name")]
    pub name: String,
    /// The port inside the container, 1 to 65535.
    #[schemars(range(min = 1, max = 65_535))]
    pub container_port: u16,
    /// `tcp` or `udp`. Default: `tcp`.
    #[serde(default)]
    pub protocol: Protocol,
    /// The first port on the host, 1 to 65535: the n-th instance on one host publishes
    /// `publish + n - 1`. Default: not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub publish: Option<u16>,
}

/// The transport protocol of a port.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// What one instance may use of its host. Hosts where it does not fit are not chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// Processors: `100m` is a tenth of one, `1.5` one and a half. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory with its unit, such as `64Mi`. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = schema::plausible_memory)]
    pub memory: Option<Memory>,
}

impl Resources {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A directory of the host or a Docker volume inside the container: exactly one of `hostPath` and
/// `volume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = exactly_one(&["hostPath", "volume"]))]
pub struct VolumeMount {
    /// What the mount is called, unique in the list.
    #[schemars(schema_with = "text::name")]
    pub name: String,
    /// Where it appears in the container, an absolute path.
    #[schemars(
        schema_with = "text::mount_path",
        transform = rule(
            "!self.matches('^(/[.]?)*$')",
            "nothing can be mounted over the root directory",
        ),
    )]
    pub mount_path: String,
    /// A path of the host that already exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::mount_path")]
    pub host_path: Option<String>,
    /// A named Docker volume, made on the host where it does not exist and never removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::docker_name")]
    pub volume: Option<String>,
    /// Whether the container may only read it. Default: false.
    #[serde(default)]
    pub read_only: bool,
}

/// Which hosts may run instances, and how they spread over them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Placement {
    /// Conditions on host labels, all of which must hold: `environment == test`, `disk != slow`.
    /// A host without the label satisfies `!=` and not `==`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "set"))]
    pub constraints: Vec<Constraint>,
    /// The host label over whose values instances spread first, such as `zone`. Default: over
    /// hosts only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::label")]
    pub spread_by: Option<String>,
    /// Whether to prefer the emptiest or the fullest host. Default: `spread`.
    #[serde(default)]
    pub packing: Packing,
    /// The most instances of this service on one host, 1 to 10000. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_per_host: Option<u32>,
}

/// Which of the hosts that fit is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// The least loaded host.
    #[default]
    Spread,
    /// The most loaded host that still has room.
    Binpack,
}

/// How to tell that an instance works: exactly one of `http`, `tcp` and `command`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = exactly_one(&["http", "tcp", "command"]))]
pub struct Health {
    /// It answers a GET with a status from 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// It accepts a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// A program inside the container exits with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandCheck>,
    /// Time between two checks. Default: `10s`.
    #[serde(default = "ten_seconds")]
    #[schemars(transform = schema::positive)]
    pub interval: HumanDuration,
    /// How long a check may take before it counts as failed. Default: `2s`.
    #[serde(default = "two_seconds")]
    #[schemars(transform = schema::positive)]
    pub timeout: HumanDuration,
    /// So many failures in a row make an instance unhealthy, 1 to 100. Default: 3.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u32,
    /// For so long after its start failures do not count. Default: `0s`.
    #[serde(default)]
    pub start_period: HumanDuration,
}

const fn ten_seconds() -> HumanDuration {
    HumanDuration::from_secs(10)
}

const fn two_seconds() -> HumanDuration {
    HumanDuration::from_secs(2)
}

const fn three() -> u32 {
    3
}

fn root_path() -> String {
    "/".to_owned()
}

/// A GET over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    /// The path that is asked for. Default: `/`.
    #[serde(default = "root_path")]
    #[schemars(schema_with = "text::http_path")]
    pub path: String,
    /// The port, by name or by number.
    pub port: PortRef,
}

/// A TCP connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpCheck {
    /// The port, by name or by number.
    pub port: PortRef,
}

/// A program inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandCheck {
    /// The program and its arguments, word by word; no shell reads it.
    #[schemars(schema_with = "text::program")]
    pub command: Vec<String>,
}

/// How a service appears in the fleet's service catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceDiscovery {
    /// Tags of every instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "text::tags")]
    pub tags: Vec<String>,
    /// Metadata of every instance: keys of letters, digits, `-` and `_`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "text::meta")]
    pub meta: BTreeMap<String, String>,
}

impl ServiceDiscovery {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which requests of a balancer go to the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// The `LoadBalancer`.
    #[schemars(schema_with = "text::name")]
    pub load_balancer: String,
    /// The balancer's listener, by name.
    #[schemars(schema_with = "text::name")]
    pub listener: String,
    /// The host name of the requests, in lower case; `*.example.com` means every name below it.
    /// Default: every host that no other route names. A `tcp` listener knows no host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::route_host")]
    pub host: Option<String>,
    /// The beginning of the path; the longest that fits decides. Default: `/`.
    #[serde(default = "root_path")]
    #[schemars(schema_with = "text::path_prefix")]
    pub path_prefix: String,
    /// The port of the service that requests go to, by name or by number.
    pub port: PortRef,
    /// How the instance for a request is chosen. Default: `roundrobin`.
    #[serde(default)]
    pub balance: Balance,
    /// The name of a cookie that keeps a client on its instance, for as long as that is there. A `tcp` listener knows
    /// no cookie. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::cookie")]
    pub cookie: Option<String>,
}

/// How a balancer chooses an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Balance {
    /// In turn.
    #[default]
    Roundrobin,
    /// The one with the fewest connections.
    Leastconn,
    /// Always the same for one client address.
    Source,
}
