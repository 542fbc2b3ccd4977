//! `Fleet`: where things run, and what is shared by everything that runs there.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, exactly_one, one_of, requires, rule};
use crate::{ClientTls, FleetStatus, MarathonAuth, SecretKeyRef, text};

/// What a user says about a fleet.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "evenkeel.dev",
    version = "v1alpha1",
    kind = "Fleet",
    namespaced,
    schema = "manual",
    status = "FleetStatus",
    derive = "PartialEq",
    shortname = "fl",
    category = "evenkeel",
    printcolumn(
        name = "Hosts",
        type_ = "integer",
        json_path = ".status.hosts",
        description = "hosts that are known"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyHosts",
        description = "hosts that answer"
    ),
    printcolumn(name = "Services", type_ = "integer", json_path = ".status.services"),
    printcolumn(
        name = "Instances",
        type_ = "integer",
        json_path = ".status.instances",
        description = "instances that run"
    ),
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
pub struct FleetSpec {
    /// What runs the instances.
    pub backend: Backend,
    /// The service catalogue. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,
    /// How much may happen at once, and how much may disappear.
    #[serde(default)]
    pub limits: FleetLimits,
}

schema::resource!(
    Fleet,
    FleetSpec,
    FleetStatus,
    "Where things run: Docker hosts or a Marathon cluster, with their service catalogue and the \
     limits that hold for everything on them.",
    "!has(self.spec.discovery) || !has(self.spec.discovery.consul.servers) || \
     size(self.metadata.name) <= 50",
    "with consul.servers the name may have 50 characters: the cluster is called after it"
);

/// What runs the instances: exactly one of `docker` and `marathon`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = exactly_one(&["docker", "marathon"]))]
pub struct Backend {
    /// Docker hosts, each with its own engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<DockerBackend>,
    /// A Mesos cluster behind Marathon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marathon: Option<MarathonBackend>,
}

/// Docker hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = one_of("registryAuthFile", "registryAuthSecret"))]
pub struct DockerBackend {
    /// The hosts, at least one.
    #[schemars(length(min = 1, max = 5_000), transform = schema::by_name)]
    pub hosts: Vec<DockerHost>,
    /// A docker `config.json` with the credentials of registries that images are pulled from. Default: the one of the
    /// agent's own user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::file_path")]
    pub registry_auth_file: Option<String>,
    /// The same from a secret, such as the key `.dockerconfigjson` of what `kubectl create secret docker-registry` makes.
    /// Programs that it names as credential helpers are not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_auth_secret: Option<SecretKeyRef>,
}

/// One Docker Engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    transform = rule(
        "!has(self.tls) || self.endpoint.startsWith('tcp://')",
        "tls is only for an endpoint that begins with tcp://",
    ),
    extend(
        "if" = {"required": ["tls"]},
        "then" = {"properties": {"endpoint": {
            "pattern": "^tcp://",
            "patternErrorMessage": "tls is only for an endpoint that begins with tcp://",
        }}},
    ),
)]
pub struct DockerHost {
    /// The host's name, unique in the fleet.
    #[schemars(schema_with = "text::name")]
    pub name: String,
    /// Where its engine listens: `unix:///path`, `tcp://host:port` or `ssh://[user@]host[:port]`.
    #[schemars(schema_with = "text::endpoint")]
    pub endpoint: String,
    /// How a `tcp://` endpoint is authenticated, both ways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// Where balancers and other hosts reach the ports that it publishes. Default: the host of the
    /// endpoint, 127.0.0.1 for a unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::address")]
    pub address: Option<String>,
    /// What placement constraints and `spreadBy` see, such as `zone: a`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        schema_with = "text::labels",
        transform = rule("!('host' in self)", "the label host stands for the host's own name"),
    )]
    pub labels: BTreeMap<String, String>,
    /// Whether instances may be placed here. Default: `active`.
    #[serde(default)]
    pub state: HostState,
}

/// Whether a host takes instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// It takes new instances.
    #[default]
    Active,
    /// It keeps what it has and takes nothing new.
    Cordoned,
    /// What it has moves elsewhere, within each service's rollout limits.
    Draining,
}

/// A Mesos cluster behind Marathon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MarathonBackend {
    /// The masters' base URLs, tried in turn. No credentials in them.
    #[schemars(schema_with = "text::urls")]
    pub urls: Vec<String>,
    /// How the agent says who it is. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<MarathonAuth>,
    /// The group under which apps are kept. Default: `/`.
    #[serde(default = "root_group")]
    #[schemars(schema_with = "text::group")]
    pub group: String,
    /// An archive with `.docker/config.json` in it, the credentials of private registries, where each Mesos agent finds it:
    /// `file:///etc/docker.tar.gz`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::fetched")]
    pub registry_config: Option<String>,
    /// Whether the cluster enters its tasks into the catalogue by itself, as with Registrator: evenkeel then does not.
    /// Default: false.
    #[serde(default)]
    pub registrator: bool,
}

fn root_group() -> String {
    "/".to_owned()
}

/// The service catalogue of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Discovery {
    /// Consul.
    pub consul: Consul,
}

/// Consul: a cluster that evenkeel runs (`servers`), or one that exists (`address`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    transform = exactly_one(&["servers", "address"]),
    transform = requires("image", "servers"),
    transform = requires("network", "servers"),
    transform = requires("publish", "servers"),
    transform = requires("tokenFile", "address"),
    transform = requires("tokenSecret", "address"),
    transform = one_of("tokenFile", "tokenSecret"),
    transform = requires("agentPort", "address"),
    transform = requires("tls", "address"),
    transform = rule(
        "!has(self.publish) || !has(self.publish.ui) || !has(self.servers) || \
         self.publish.ui + self.servers <= 65536",
        "the servers would publish ports beyond 65535: lower publish.ui",
    ),
    transform = rule(
        "!has(self.network) || !(self.network in ['host', 'none', 'default', 'ingress', 'bridge'])",
        "network must be one where containers find each other by name",
    ),
)]
pub struct Consul {
    /// How many server containers to run: 1, 3, 5 or 7. Every host also gets a client agent. Unless the fleet's one host is
    /// the local engine, one server a host at most, each on its host's own network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::consul_servers")]
    pub servers: Option<u8>,
    /// The image of servers and client agents. Default: the version that evenkeel is tested with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::image")]
    pub image: Option<String>,
    /// The Docker network of the cluster's containers, made where it does not exist, where the fleet's one host is the local
    /// engine. Services that have it among their own `networks` are registered; the cluster could not check others. Default:
    /// `FLEET-consul`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::docker_name")]
    pub network: Option<String>,
    /// Which of the cluster's ports the hosts publish. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<ConsulPublish>,
    /// The base URL of an agent of a cluster that exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::url")]
    pub address: Option<String>,
    /// The port of the Consul agent that runs on every host of the fleet, reached at the host's address: instances are
    /// registered with the agent of their own host. Default: the agent at `address` knows them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub agent_port: Option<u16>,
    /// The file that holds the ACL token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::file_path")]
    pub token_file: Option<String>,
    /// The secret that holds the ACL token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret: Option<SecretKeyRef>,
    /// How an `https://` address is authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
}

/// The ports of a managed Consul cluster on its hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsulPublish {
    /// The first host port of the user interface, 1 to 65535: the n-th server on one host
    /// publishes `ui + n - 1`. Default: not published; over several hosts 8500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub ui: Option<u16>,
}

/// How much may happen at once on a fleet, and how much may disappear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FleetLimits {
    /// How much may be removed because no document asks for it any more.
    pub prune: PruneLimits,
    /// How much evenkeel may disturb what works.
    pub disruption: DisruptionLimits,
    /// How many instances one host starts at the same time, 1 to 64. Default: 8.
    #[schemars(range(min = 1, max = 64))]
    pub parallel_starts_per_host: u32,
}

impl Default for FleetLimits {
    fn default() -> Self {
        Self {
            prune: PruneLimits::default(),
            disruption: DisruptionLimits::default(),
            parallel_starts_per_host: 8,
        }
    }
}

/// How much may be removed because no document asks for it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PruneLimits {
    /// The most of the fleet's instances that may be removed because no document asks for their
    /// service, in percent, 0 to 100. Where it would be more, nothing is removed until a person
    /// releases it. Default: 50.
    #[schemars(range(min = 0, max = 100))]
    pub max_percent: u8,
}

impl Default for PruneLimits {
    fn default() -> Self {
        Self { max_percent: 50 }
    }
}

/// How much evenkeel may disturb what works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisruptionLimits {
    /// The most healthy instances to stop in an hour, over the whole fleet, at least 1. Default:
    /// no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_instances_per_hour: Option<u32>,
}
