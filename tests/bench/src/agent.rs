//! The agent that is measured: a child process, its repository and its API.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{BALANCERS, CONSUL, IMAGE, now, until};

const SECRET: &str = "bench";
/// What goes on for longer has failed.
const DEADLINE: Duration = Duration::from_secs(300);

pub(crate) struct Agent {
    pub(crate) owner: String,
    /// Its one service, and the start of its containers' names.
    pub(crate) service: String,
    directory: PathBuf,
    api: SocketAddr,
    child: Child,
    edge: Option<Edge>,
}

/// What is asked for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ask {
    pub(crate) replicas: u32,
    pub(crate) probes: bool,
    /// Another number, another spec.
    pub(crate) variant: u32,
}

/// What leads clients to the instances: one HAProxy and one Consul server, on a network of their own.
pub(crate) struct Edge {
    pub(crate) network: String,
    /// Where the balancer listens.
    pub(crate) port: u16,
    /// Where Consul answers.
    pub(crate) consul: u16,
}

impl Edge {
    /// Named after an owner, on ports that are free now.
    pub(crate) fn new(owner: &str) -> Self {
        Self { network: format!("{owner}-net"), port: free_port(), consul: free_port() }
    }
}

impl Agent {
    /// Starts it on a repository that asks for nothing yet; `engine` is the socket it uses.
    pub(crate) async fn start(
        binary: &Path,
        within: &Path,
        owner: &str,
        engine: &Path,
        edge: Option<Edge>,
    ) -> Self {
        let directory = within.join(owner);
        let repository = directory.join("repository");
        fs::create_dir_all(&repository).unwrap();
        let mut fleet = format!(
            "apiVersion: evenkeel.dev/v1alpha1\nkind: Fleet\nmetadata: {{name: bench}}\nspec:\n  backend:\n    \
             docker:\n      hosts:\n        - {{name: h1, endpoint: \"unix://{}\"}}\n",
            engine.display()
        );
        if let Some(Edge { network, port, consul }) = &edge {
            let more = format!(
                "  discovery:\n    consul: {{servers: 1, image: \"{CONSUL}\", network: {network}, publish: {{ui: {consul}}}}}\n\
                 ---\napiVersion: evenkeel.dev/v1alpha1\nkind: LoadBalancer\nmetadata: {{name: {owner}-edge}}\nspec:\n  \
                 fleet: bench\n  provider: {{haproxy: {{image: \"{BALANCERS}\"}}}}\n  networks: [{network}]\n  \
                 listeners: [{{name: http, port: 80, publish: {port}}}]\n"
            );
            fleet.push_str(&more);
        }
        fs::write(repository.join("fleet.yaml"), fleet).unwrap();
        fs::write(directory.join("secret"), SECRET).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let api = listener.local_addr().unwrap();
        drop(listener);
        let service = format!("{owner}-web");
        let log = File::create(directory.join("log")).unwrap();
        let mut command = Command::new(binary);
        command.arg("run").arg("--git").arg(&repository);
        command.arg("--state-dir").arg(directory.join("state"));
        command.args(["--owner", owner, "--listen", &api.to_string()]);
        command.arg("--webhook-secret-file").arg(directory.join("secret"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        git(&repository, &["init", "--quiet", "--initial-branch=main"]);
        write(&repository, &service, Ask::default(), edge.as_ref());
        commit(&repository, "bench");
        let child = command.spawn().unwrap();
        let agent = Self { owner: owner.into(), service, directory, api, child, edge };
        agent.settled(0).await;
        if agent.edge.is_some() {
            agent.reach("its Consul and its balancer", || async { agent.has_edge().await }).await;
        }
        agent
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Commits what is asked for and rings; gives the moment between the two.
    pub(crate) async fn ask(&self, ask: Ask) -> i64 {
        let repository = self.directory.join("repository");
        write(&repository, &self.service, ask, self.edge.as_ref());
        commit(&repository, "bench");
        let committed = now();
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(b"{}");
        let signature = hex::encode(mac.finalize().into_bytes());
        let request = format!(
            "POST /webhook HTTP/1.0\r\nX-Hub-Signature-256: sha256={signature}\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        let answer = http(self.api, &request).await;
        assert!(answer.as_deref().unwrap_or_default().contains(" 202 "), "{answer:?}");
        committed
    }

    /// Waits until the service has this many, all of them available, with nothing under way.
    pub(crate) async fn settled(&self, replicas: u32) {
        let what = format!("{} at {replicas}", self.service);
        self.reach(&what, || async { self.is_settled(replicas).await.unwrap_or(false) }).await;
    }

    /// Waits until this many are registered and pass.
    pub(crate) async fn registered(&self, replicas: u32) {
        let what = format!("{replicas} of {} in Consul", self.service);
        self.reach(&what, || async { self.is_registered(replicas).await.unwrap_or(false) }).await;
    }

    async fn reach<F: Future<Output = bool>>(&self, what: &str, reached: impl Fn() -> F) {
        if !until(DEADLINE, reached).await {
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            let from = log.len().saturating_sub(4000);
            panic!("{what} was not reached; the agent said:\n{}", log.get(from..).unwrap_or(&log));
        }
    }

    async fn has_edge(&self) -> bool {
        let Some(status) = get(self.api, "/api/v1/status").await else { return false };
        let all = status["services"].as_array().into_iter().flatten();
        let implied = all.filter(|s| s["name"] != self.service.as_str()).collect::<Vec<_>>();
        // A server, an agent, a balancer.
        implied.len() == 3 && implied.iter().all(|s| s["phase"] == "ready")
    }

    async fn is_registered(&self, replicas: u32) -> Option<bool> {
        let consul = SocketAddr::from(([127, 0, 0, 1], self.edge.as_ref()?.consul));
        let path = format!("/v1/health/service/{}?passing", self.service);
        Some(get(consul, &path).await?.as_array()?.len() == replicas as usize)
    }

    async fn is_settled(&self, replicas: u32) -> Option<bool> {
        let status = get(self.api, "/api/v1/status").await?;
        let services = status["services"].as_array()?;
        let it = services.iter().find(|s| s["name"] == self.service.as_str())?;
        let counts = ["desired", "replicas", "updated", "available"];
        Some(
            it["phase"] == "ready"
                && it["inFlight"].as_array()?.is_empty()
                && counts.iter().all(|key| it[*key] == replicas),
        )
    }

    /// Seconds of processor time used so far, and resident memory in bytes.
    pub(crate) fn usage(&self) -> (f64, f64) {
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", self.pid())).unwrap();
        let (stat, status) = (read("stat"), read("status"));
        // After the name in brackets, which may hold anything: state, then 10 more before user and system time.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        let kib: f64 = rss.split_whitespace().next().unwrap().parse().unwrap();
        // The kernel's tick is 100 a second wherever Linux runs today.
        (ticks / 100.0, kib * 1024.0)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn http(to: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(to).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

async fn get(from: SocketAddr, path: &str) -> Option<Value> {
    let answer = http(from, &format!("GET {path} HTTP/1.0\r\n\r\n")).await?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn write(repository: &Path, service: &str, ask: Ask, edge: Option<&Edge>) {
    let Ask { replicas, probes, variant } = ask;
    let probe = "  health: {http: {path: /healthz, port: http}, interval: 10s}\n";
    let routed = edge.map_or_else(String::new, |Edge { network, .. }| {
        let edge = service.replace("-web", "-edge");
        format!(
            "  networks: [{network}]\n  routes: [{{loadBalancer: {edge}, listener: http, port: http}}]\n  \
             discovery: {{tags: [bench]}}\n"
        )
    });
    let text = format!(
        "apiVersion: evenkeel.dev/v1alpha1\nkind: ScalingService\nmetadata: {{name: {service}}}\nspec:\n  \
         fleet: bench\n  replicas: {replicas}\n  image: {IMAGE}\n  env: [{{name: VARIANT, value: \"{variant}\"}}]\n  \
         ports: [{{name: http, containerPort: 8080}}]\n  resources: {{memory: 32Mi}}\n  \
         rollout: {{maxSurge: 100%}}\n{}{routed}",
        if probes { probe } else { "" }
    );
    fs::write(repository.join("web.yaml"), text).unwrap();
}

fn commit(repository: &Path, message: &str) {
    git(repository, &["add", "--all"]);
    git(repository, &["commit", "--quiet", "--allow-empty", "--message", message]);
}

fn git(repository: &Path, args: &[&str]) {
    let settings = ["user.name=bench", "user.email=bench@example.com", "commit.gpgsign=false"];
    let settings = settings.iter().flat_map(|s| ["-c", s]);
    let git = Command::new("git").arg("-C").arg(repository).args(settings).args(args).output();
    let git = git.unwrap();
    assert!(git.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&git.stderr));
}
