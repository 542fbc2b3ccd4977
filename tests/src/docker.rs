//! A backend on the local Docker Engine, with an owner of its own that is swept at the end.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use evenkeel::backend::docker::{DockerBackend, DockerConfig, OWNER};
use evenkeel::backend::{Backend, Watch};
use evenkeel::bell::Doorbell;
use evenkeel::clock::Clock;
use evenkeel::model::{
    Endpoint, Fleet, FleetName, HostName, HostSpec, HostState, InstanceSpec, Limits, OwnerId,
    Probe, Resources, ServiceName,
};

use crate::conformance::Oracle;

/// The local engine.
pub const SOCKET: &str = "/var/run/docker.sock";
/// An image with busybox and nothing else.
pub const IMAGE: &str = "evenkeel/box:2";
/// Marks what a test makes besides the backend.
pub const TEST: &str = "evenkeel.dev/test";
/// What is older than this was left by a run that crashed.
const LEFT: i64 = 15 * 60;

/// A backend of one fleet `f`, and the engine it runs on.
pub struct Rig {
    /// What is tested.
    pub backend: DockerBackend,
    /// Rings when a view changes.
    pub bell: Doorbell,
    /// The engine, by a way of its own.
    pub docker: Docker,
    /// The run's own owner.
    pub owner: OwnerId,
}

impl Rig {
    /// A backend that watches nothing yet.
    pub async fn new() -> Self {
        Self::with(DockerConfig::default()).await
    }

    /// With a configuration.
    pub async fn with(config: DockerConfig) -> Self {
        let docker = Docker::connect_with_unix(SOCKET, 120, bollard::API_DEFAULT_VERSION).unwrap();
        image(&docker).await;
        sweep_left(&docker).await;
        let owner = OwnerId::new(&format!("t-{}-{}", std::process::id(), serial())).unwrap();
        let bell = Doorbell::new();
        let backend = DockerBackend::new(owner.clone(), bell.clone(), Clock::real(), config);
        Self { backend, bell, docker, owner }
    }

    /// A second backend with another owner, on the same engine.
    pub fn neighbour(&self) -> (OwnerId, DockerBackend) {
        let owner = OwnerId::new(&format!("{}-b", self.owner)).unwrap();
        let backend = DockerBackend::new(
            owner.clone(),
            Doorbell::new(),
            Clock::real(),
            DockerConfig::default(),
        );
        (owner, backend)
    }

    /// Watches one host `h1` at the local socket.
    pub fn watch_local(&self) -> HostName {
        self.watch(&[("h1", local())], BTreeMap::new());
        h1()
    }

    /// Watches hosts.
    pub fn watch(&self, hosts: &[(&str, Endpoint)], probes: BTreeMap<ServiceName, Probe>) {
        self.backend.watch(watch(hosts, probes));
    }

    /// A name that no other run uses.
    pub fn name(&self) -> String {
        format!("{}-web", self.owner)
    }
}

/// What to watch: hosts by name.
pub fn watch(hosts: &[(&str, Endpoint)], probes: BTreeMap<ServiceName, Probe>) -> Watch {
    let hosts = hosts.iter().map(|(name, endpoint)| {
        let name = HostName::new(name).unwrap();
        let spec = HostSpec {
            name: name.clone(),
            endpoint: endpoint.clone(),
            address: None,
            labels: BTreeMap::new(),
            state: HostState::Active,
            registry_auth: None,
        };
        (name, Arc::new(spec))
    });
    let fleet = Fleet {
        name: FleetName::new("f").unwrap(),
        hosts: hosts.collect(),
        marathon: None,
        limits: Limits::default(),
        registry: None,
        approved_prune: None,
    };
    Watch { fleet: Arc::new(fleet), probes, apps: BTreeMap::new() }
}

/// The host of most tests.
pub fn h1() -> HostName {
    HostName::new("h1").unwrap()
}

/// The local engine.
pub fn local() -> Endpoint {
    Endpoint::Unix { path: SOCKET.into() }
}

/// The local engine behind a TCP port.
pub fn tcp(authority: &str) -> Endpoint {
    Endpoint::Tcp { authority: authority.into(), tls: None }
}

/// A spec that runs a shell command.
pub fn shell(script: &str) -> InstanceSpec {
    InstanceSpec {
        image: IMAGE.into(),
        command: Some(vec!["/bin/sh".into(), "-c".into()]),
        args: Some(vec![script.into()]),
        ..InstanceSpec::default()
    }
}

/// A spec that runs until it is told to end.
pub fn idle() -> InstanceSpec {
    InstanceSpec {
        resources: Resources { cpu_millis: 100, memory_bytes: 16 << 20 },
        ..shell("trap 'exit 0' TERM; while :; do sleep 0.1; done")
    }
}

/// A number that no other caller in this process got.
pub fn serial() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Drop for Rig {
    fn drop(&mut self) {
        sweep(self.owner.as_str());
        sweep(&format!("{}-b", self.owner));
    }
}

/// Removes everything of an owner. By the command, because a drop cannot wait and must work after
/// a panic too.
pub fn sweep(owner: &str) {
    sweep_at(None, owner);
}

/// The same at an engine elsewhere.
pub fn sweep_at(endpoint: Option<&str>, owner: &str) {
    let at: Vec<&str> = endpoint.iter().flat_map(|endpoint| ["-H", endpoint]).collect();
    let run = |args: &[&str]| {
        let out = Command::new("docker").args(&at).args(args).stderr(Stdio::null()).output();
        let text = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        text.unwrap_or_default()
    };
    let remove = |command: &[&str], found: String| {
        let found: Vec<&str> = found.split_whitespace().collect();
        if !found.is_empty() {
            run(&[command, &found].concat());
        }
    };
    for key in [OWNER, TEST] {
        let label = format!("label={key}={owner}");
        remove(&["rm", "-f", "-v"], run(&["ps", "-a", "-q", "--filter", &label]));
        remove(&["network", "rm"], run(&["network", "ls", "-q", "--filter", &label]));
    }
    // A named volume carries no label of ours; tests begin its name with their owner.
    let name = format!("name={owner}-");
    remove(&["volume", "rm"], run(&["volume", "ls", "-q", "--filter", &name]));
}

/// Whether the process that an owner is named after still runs: a long test is not a crashed one.
fn alive(owner: &str) -> bool {
    let pid = owner.strip_prefix("t-").and_then(|rest| rest.split('-').next()).unwrap_or_default();
    !pid.is_empty() && Path::new("/proc").join(pid).exists()
}

/// How old what is swept must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Others run now.
    Old,
    /// Nobody else is there.
    Any,
}

/// Removes what runs that crashed left behind: only what is old, for others run now.
pub async fn sweep_left(docker: &Docker) {
    sweep_dead(docker, Age::Old).await;
}

/// Removes what runs that crashed left behind.
pub async fn sweep_dead(docker: &Docker, age: Age) {
    let now = docker.info().await.unwrap().system_time.unwrap_or_default();
    let now: i64 = now.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
    for key in [OWNER, TEST] {
        let filters = HashMap::from([("label", vec![key])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        for c in docker.list_containers(Some(options)).await.unwrap_or_default() {
            let labels = c.labels.unwrap_or_default();
            let test = labels.get(key).is_some_and(|o| o.starts_with("t-") && !alive(o));
            if test && (age == Age::Any || c.created.is_some_and(|t| now - t > LEFT)) {
                let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
                let _ = docker.remove_container(&c.id.unwrap_or_default(), Some(options)).await;
            }
        }
    }
}

/// A directory with a static busybox and links to it.
pub fn busybox(root: &Path) {
    let from = Path::new("/bin/busybox");
    if !from.exists() {
        let got = Command::new("apt-get").args(["install", "-y", "busybox-static"]).output();
        assert!(got.is_ok_and(|o| o.status.success()), "install busybox-static: the tests need it");
    }
    for dir in ["bin", "tmp", "www"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy(from, root.join("bin/busybox")).unwrap();
    fs::write(root.join("www/index.html"), "hello\n").unwrap();
    for name in
        ["sh", "sleep", "httpd", "nc", "cat", "true", "false", "test", "rm", "touch", "mv", "ls"]
    {
        let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(name));
    }
}

/// Makes the image once for all runs.
async fn image(docker: &Docker) {
    if docker.inspect_image(IMAGE).await.is_ok() {
        return;
    }
    let lock = fs::File::create(std::env::temp_dir().join("evenkeel-box.lock")).unwrap();
    lock.lock().unwrap();
    if docker.inspect_image(IMAGE).await.is_ok() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    busybox(root.path());
    let tar = Command::new("tar").arg("-C").arg(root.path()).args(["-c", "."]).output().unwrap();
    assert!(tar.status.success());
    let mut import = Command::new("docker")
        .args(["import", "-c", r#"CMD ["/bin/sleep", "1000"]"#, "-", IMAGE])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut import.stdin.take().unwrap(), &tar.stdout).unwrap();
    assert!(import.wait().unwrap().success());
}

/// Makes and starts a container that is not ours.
pub async fn foreign(
    rig: &Rig,
    name: &str,
    labels: BTreeMap<String, String>,
    port: Option<(u16, u16)>,
) -> String {
    let mut all: HashMap<String, String> = labels.into_iter().collect();
    all.insert(TEST.into(), rig.owner.to_string());
    let host_config = port.map(|(inside, outside)| HostConfig {
        port_bindings: Some(HashMap::from([(
            format!("{inside}/tcp"),
            Some(vec![PortBinding { host_ip: None, host_port: Some(outside.to_string()) }]),
        )])),
        ..HostConfig::default()
    });
    let body = ContainerCreateBody {
        image: Some(IMAGE.into()),
        labels: Some(all),
        // Without this an engine binds nothing, whatever the bindings say.
        exposed_ports: port.map(|(inside, _)| vec![format!("{inside}/tcp")]),
        host_config,
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    let made = rig.docker.create_container(Some(options), body).await.unwrap();
    rig.docker.start_container(&made.id, None).await.unwrap();
    made.id
}

#[async_trait]
impl Oracle for Rig {
    fn host(&self) -> HostName {
        h1()
    }

    fn owner(&self) -> OwnerId {
        self.owner.clone()
    }

    fn spec(&self) -> InstanceSpec {
        idle()
    }

    async fn kill(&self, id: &str) {
        self.docker.kill_container(id, None).await.unwrap();
    }

    async fn state(&self, id: &str) -> Option<bool> {
        let found = self.docker.inspect_container(id, None).await.ok()?;
        found.state.and_then(|s| s.running)
    }

    async fn count(&self) -> usize {
        let filters = HashMap::from([("label", vec![format!("{OWNER}={}", self.owner)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        self.docker.list_containers(Some(options)).await.unwrap().len()
    }

    async fn foreign(&self, name: &str, labels: BTreeMap<String, String>) -> (String, String) {
        let name = format!("{name}-foreign");
        (foreign(self, &name, labels, None).await, name)
    }
}
