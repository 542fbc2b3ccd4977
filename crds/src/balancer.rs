//! `LoadBalancer`: HAProxy or nginx in front of services, a workload that scales like any other.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, exactly_one, requires, rule};
use crate::{DEFAULT_FLEET, LoadBalancerStatus, Placement, SecretKeyRef, text};

/// What a user wants of a load balancer.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "evenkeel.dev",
    version = "v1alpha1",
    kind = "LoadBalancer",
    namespaced,
    schema = "manual",
    status = "LoadBalancerStatus",
    derive = "PartialEq",
    shortname = "lb",
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
        json_path = ".spec.fleet",
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
        description = "instances that serve the newest routes"
    ),
    printcolumn(
        name = "Routes",
        type_ = "integer",
        json_path = ".status.routes",
        description = "routes in force"
    ),
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".spec.provider.*.image",
        priority = 1
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
#[schemars(
    transform = rule(
        "self.listeners.all(l, (has(l.publish) ? l.publish : l.port) + \
         (has(self.placement.maxPerHost) && self.placement.maxPerHost < self.replicas ? \
         self.placement.maxPerHost : self.replicas) <= 65536)",
        "the instances on one host would publish ports beyond 65535: lower publish or maxPerHost",
    ),
    transform = rule(
        "!has(self.provider.haproxy) || has(self.provider.haproxy.external) || \
         self.listeners.all(l, l.port != 9099)",
        "9099 is the port inside the container where HAProxy is spoken to",
    ),
    transform = rule(
        "!has(self.provider.nginx) || has(self.provider.nginx.external) || \
         self.listeners.all(l, l.port != 10901)",
        "10901 is the port inside the container where nginx is spoken to",
    ),
    transform = rule(
        "!((has(self.provider.haproxy) && has(self.provider.haproxy.external)) \
         || (has(self.provider.nginx) && has(self.provider.nginx.external))) \
         || (self.replicas == 1 && !has(self.accessLog) && !has(self.virtualIp) && !has(self.networks) \
         && self.listeners.all(l, !has(l.publish)))",
        "nothing is started for external balancers: leave replicas, accessLog, virtualIp, networks and publish out",
    ),
)]
pub struct LoadBalancerSpec {
    /// The fleet that it runs on, and whose services it can route to. Default: `default`.
    #[serde(default = "default_fleet")]
    #[schemars(schema_with = "text::name")]
    pub fleet: String,
    /// The program that balances.
    pub provider: BalancerProvider,
    /// How many instances should run, 0 to 1000. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000))]
    pub replicas: u32,
    /// Where it takes traffic.
    #[schemars(
        length(min = 1, max = 50),
        transform = schema::by_name,
        transform = rule(
            "self.all(a, self.exists_one(b, b.port == a.port))",
            "two listeners may not have the same port",
        ),
        transform = rule(
            "self.all(a, !has(a.publish) || self.exists_one(b, has(b.publish) && b.publish == a.publish))",
            "two listeners may not publish the same host port",
        ),
    )]
    pub listeners: Vec<Listener>,
    /// Where it writes its access log. Default: none is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// An address that always one of the instances answers. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_ip: Option<VirtualIp>,
    /// The Docker networks to join, each made where it does not exist. On a fleet of one host the balancer
    /// reaches an instance by the first network that both have. Default: the engine's own bridge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "text::networks")]
    pub networks: Vec<String>,
    /// Which hosts may run it, and how instances spread over them.
    #[serde(default)]
    pub placement: Placement,
}

schema::resource!(
    LoadBalancer,
    LoadBalancerSpec,
    LoadBalancerStatus,
    "A load balancer that sends traffic to the instances of services. Which traffic goes where is \
     said by the routes of each ScalingService.",
    "!has(self.spec.virtualIp) || size(self.metadata.name) <= 59",
    "with a virtualIp the name may have 59 characters: keepalived is called after it"
);

fn default_fleet() -> String {
    DEFAULT_FLEET.to_owned()
}

const fn one() -> u32 {
    1
}

/// The program that balances: exactly one of `haproxy` and `nginx`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = exactly_one(&["haproxy", "nginx"]))]
pub struct BalancerProvider {
    /// HAProxy: endpoints change without a reload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub haproxy: Option<HaproxyProvider>,
    /// nginx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nginx: Option<NginxProvider>,
}

/// HAProxy, 2.6 or newer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HaproxyProvider {
    /// The image. Default: `haproxy:3.2`.
    #[serde(default = "haproxy_image")]
    #[schemars(schema_with = "text::image")]
    pub image: String,
    /// HAProxies that run already, on the machine of the agent: nothing is started, and each is told the same.
    /// Without any, `replicas` containers are run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub external: Vec<ExternalHaproxy>,
    /// Configuration of your own, for what the API does not say.
    #[serde(default, skip_serializing_if = "Fragments::is_empty")]
    pub fragments: Fragments,
}

pub(crate) fn haproxy_image() -> String {
    "haproxy:3.2".to_owned()
}

/// nginx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NginxProvider {
    /// The image. Default: `nginx:1.28`.
    #[serde(default = "nginx_image")]
    #[schemars(schema_with = "text::image")]
    pub image: String,
    /// nginxes that run already, on the machine of the agent: nothing is started, and each is told the same.
    /// Without any, `replicas` containers are run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub external: Vec<ExternalNginx>,
    /// Configuration of your own, for what the API does not say.
    #[serde(default, skip_serializing_if = "Fragments::is_empty")]
    pub fragments: Fragments,
}

/// A HAProxy that runs already. With a file of its own evenkeel says where its traffic goes; without one it only sets the
/// servers of backends that somebody else has configured: `backend <service>.<port>` with servers `<service>_1`,
/// `<service>_2` and so on, as many as there are ever to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    transform = requires("configFile", "reload"),
    transform = requires("reload", "configFile"),
    transform = requires("configFile", "check"),
    transform = requires("check", "configFile"),
)]
pub struct ExternalHaproxy {
    /// Its runtime socket at `level admin`: an absolute path, or `host:port`.
    #[schemars(schema_with = "text::socket")]
    pub runtime_socket: String,
    /// The file that evenkeel writes; HAProxy reads it by a `-f` of its own, after all others. Where it does not exist or is
    /// empty it becomes evenkeel's; a file of anybody else is never written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::own_file")]
    pub config_file: Option<String>,
    /// Tries a configuration: the command and its arguments, without a shell, with `{candidate}` in the place of
    /// `configFile`, such as `[haproxy, -c, -f, /etc/haproxy/haproxy.cfg, -f, "{candidate}"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "text::own_command")]
    pub check: Vec<String>,
    /// Has HAProxy read its configuration again: the command and its arguments, without a shell, such as
    /// `[systemctl, reload, haproxy]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "text::own_command")]
    pub reload: Vec<String>,
}

/// An nginx that runs already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalNginx {
    /// The file that evenkeel writes; nginx includes it in its `http` block. Where it does not exist or is empty it becomes
    /// evenkeel's; a file of anybody else is never written.
    #[schemars(schema_with = "text::own_file")]
    pub config_file: String,
    /// Tries the configuration, with the new file in its place: the command and its arguments, without a shell.
    /// Default: `[nginx, -t]`.
    #[serde(default = "nginx_check")]
    #[schemars(schema_with = "text::own_command")]
    pub check: Vec<String>,
    /// Has nginx read its configuration again: the command and its arguments, without a shell.
    /// Default: `[nginx, -s, reload]`.
    #[serde(default = "nginx_reload")]
    #[schemars(schema_with = "text::own_command")]
    pub reload: Vec<String>,
    /// Where nginx answers what it has in force, and only the agent's machine should reach it: `host:port`.
    /// Default: `127.0.0.1:10901`.
    #[serde(default = "nginx_status")]
    #[schemars(schema_with = "text::host_port")]
    pub status: String,
}

fn nginx_check() -> Vec<String> {
    ["nginx", "-t"].map(str::to_owned).to_vec()
}

fn nginx_reload() -> Vec<String> {
    ["nginx", "-s", "reload"].map(str::to_owned).to_vec()
}

fn nginx_status() -> String {
    "127.0.0.1:10901".to_owned()
}

impl BalancerProvider {
    /// How many balancers that run already there are.
    pub fn external(&self) -> usize {
        let haproxy = self.haproxy.as_ref().map_or(0, |p| p.external.len());
        haproxy + self.nginx.as_ref().map_or(0, |p| p.external.len())
    }
}

/// Lines that are added to the balancer's configuration as they are. Each is tried by the balancer's own check
/// before it comes into force, and left out with a message where that refuses it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fragments {
    /// Into HAProxy's `global` section, nginx's main context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    pub global: Option<String>,
    /// Into HAProxy's `defaults` section, nginx's `http` block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    pub defaults: Option<String>,
    /// Into each HTTP frontend of HAProxy, each `server` block of nginx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    pub frontend: Option<String>,
    /// Into each HTTP backend of HAProxy, each `location` block of nginx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    pub backend: Option<String>,
}

impl Fragments {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

pub(crate) fn nginx_image() -> String {
    "nginx:1.28".to_owned()
}

/// A port where the balancer takes traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = rule(
    "self.protocol != 'tcp' || !has(self.certificates) || size(self.certificates) == 0",
    "a tcp listener passes bytes on as they are: it has no certificates",
))]
pub struct Listener {
    /// What routes call it, unique in the list.
    #[schemars(schema_with = "text::name")]
    pub name: String,
    /// The port inside the container, 1 to 65535.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// The first port on the host, 1 to 65535: the n-th instance on one host publishes
    /// `publish + n - 1`. Default: the same as `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub publish: Option<u16>,
    /// Whether requests are read or only bytes passed on. Default: `http`.
    #[serde(default)]
    pub protocol: ListenerProtocol,
    /// Certificates with their keys, each one PEM text: TLS is spoken where there are any. The one that fits the
    /// client's host name is shown, otherwise the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub certificates: Vec<SecretKeyRef>,
}

impl Listener {
    /// The first port on the host: `publish`, or else `port`.
    pub fn first_host_port(&self) -> u16 {
        self.publish.unwrap_or(self.port)
    }
}

/// What a listener understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListenerProtocol {
    /// Requests, routed by host and path.
    #[default]
    Http,
    /// Connections; one service takes them all.
    Tcp,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLog {
    /// A named Docker volume, made on each host where it does not exist and never removed.
    #[schemars(schema_with = "text::docker_name")]
    pub volume: String,
}

/// An address that moves between the instances (VRRP): one that really serves has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualIp {
    /// The address with the length of its network, such as `10.0.0.100/24`.
    #[schemars(
        schema_with = "text::cidr",
        transform = rule(
            "int(self.split('/')[1]) <= (self.contains(':') ? 128 : 32) && \
             (self.contains(':') || self.matches('^([0-9]{1,3}[.]){3}[0-9]{1,3}/'))",
            "no address with the length of its network",
        ),
    )]
    pub address: String,
    /// The hosts' network interface that takes the address, such as `eth0`.
    #[schemars(schema_with = "text::interface")]
    pub interface: String,
    /// The VRRP router id, 1 to 255, unique in the network.
    #[schemars(range(min = 1, max = 255))]
    pub router_id: u8,
    /// The image that keepalived runs in, with `bash`: one container on every host that may run the balancer, in the
    /// host's own network. Default: the balancer's own image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::image")]
    pub image: Option<String>,
}
