//! Consul in containers of a test's own, and what its clients see: asked by a way that shares nothing with the product.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use evenkeel::edge::consul::INSTANCE;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::docker::{TEST, serial, sweep};

/// Consul itself.
pub const CONSUL: &str = "evenkeel/consul:1";
/// No condition takes longer on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Containers of one test, gone with it.
pub struct Consuls {
    /// Whose these are.
    pub owner: String,
    /// A directory of this machine that agents have as `/tls`.
    pub tls: Option<String>,
}

impl Consuls {
    /// None yet.
    pub fn new() -> Self {
        let image = docker(&["image", "inspect", "--format", "{{.Id}}", CONSUL]);
        assert!(!image.is_empty(), "there is no {CONSUL}: cargo xtask images");
        Self { owner: format!("t-{}-{}-consul", std::process::id(), serial()), tls: None }
    }

    fn label(&self) -> String {
        format!("{TEST}={}", self.owner)
    }

    /// A network of their own.
    pub fn network(&self) -> String {
        docker(&["network", "create", "--label", &self.label(), &self.owner]);
        self.owner.clone()
    }

    /// The name of a container.
    pub fn name(&self, node: &str) -> String {
        format!("{}-{node}", self.owner)
    }

    /// Starts an agent, reached on `port` of this machine.
    pub fn start(&self, node: &str, port: u16, network: &str, args: &[&str]) {
        let (name, label, publish) =
            (self.name(node), self.label(), format!("127.0.0.1:{port}:8500"));
        let run = ["run", "-d", "--name", &name, "--label", &label, "--network", network];
        let rest = ["--publish", &publish, CONSUL, "consul", "agent", "-node", node];
        let common = ["-client", "0.0.0.0", "-data-dir", "/consul/data"];
        let mount = self.tls.as_ref().map(|from| format!("--volume={from}:/tls:ro"));
        let mount: Vec<&str> = mount.iter().map(String::as_str).collect();
        let id = docker(&[&run[..], &mount[..], &rest[..], &common[..], args].concat());
        assert_eq!(id.len(), 64, "{node} did not start");
    }

    /// One that is a cluster by itself.
    pub fn single(&self, port: u16, args: &[&str]) {
        let alone = ["-server", "-bootstrap-expect=1", "-bind", "127.0.0.1"];
        self.start("n1", port, "bridge", &[&alone[..], args].concat());
    }

    /// SIGKILL.
    pub fn kill(&self, node: &str) {
        docker(&["kill", &self.name(node)]);
    }

    /// With all that it knows.
    pub fn remove(&self, node: &str) {
        docker(&["rm", "-f", &self.name(node)]);
    }
}

impl Default for Consuls {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Consuls {
    fn drop(&mut self) {
        sweep(&self.owner);
    }
}

/// What a command of the engine says.
pub fn docker(args: &[&str]) -> String {
    let out = Command::new("docker").args(args).output().unwrap();
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A port of the loopback that nothing listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks an agent; `None` when it does not answer with 200.
pub async fn call(
    port: u16,
    method: &str,
    path: &str,
    token: &str,
    body: Option<Value>,
) -> Option<Value> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let body = body.map_or(String::new(), |body| body.to_string());
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: consul\r\nX-Consul-Token: {token}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        if !head.contains(" 200 ") {
            return None;
        }
        Some(serde_json::from_str(body).unwrap_or(Value::Null))
    };
    tokio::time::timeout(PATIENCE / 4, exchange).await.ok().flatten()
}

/// The same for what is just looked at.
pub async fn get(port: u16, path: &str) -> Option<Value> {
    call(port, "GET", path, "", None).await
}

/// Waits for a condition.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let Ok(found) = tokio::time::timeout(PATIENCE, waiting).await else { panic!("never: {what}") };
    found
}

/// Waits until the cluster has a leader.
pub async fn led(port: u16) {
    until("there is a leader", async || {
        get(port, "/v1/status/leader").await.filter(|leader| leader.as_str() != Some(""))
    })
    .await;
}

/// The instances of a service that clients are given: those whose checks all pass.
pub async fn passing(port: u16, service: &str) -> Option<BTreeSet<String>> {
    instances(port, &format!("/v1/health/service/{service}?passing=1")).await
}

/// The instances of a service that are registered, whatever their checks say.
pub async fn registered(port: u16, service: &str) -> Option<BTreeSet<String>> {
    instances(port, &format!("/v1/health/service/{service}")).await
}

async fn instances(port: u16, path: &str) -> Option<BTreeSet<String>> {
    let found = get(port, path).await?;
    let of = |entry: &Value| entry["Service"]["Meta"][INSTANCE].as_str().map(str::to_owned);
    Some(found.as_array()?.iter().map(|entry| of(entry).unwrap_or_default()).collect())
}

/// The nodes whose vote counts, as the leader judges; `None` while one of the servers is sick, too.
pub async fn voters(port: u16) -> Option<BTreeSet<String>> {
    let found = get(port, "/v1/operator/autopilot/health").await?;
    let votes = |s: &&Value| s["Voter"] == true && s["Healthy"] == true;
    let name = |s: &Value| s["Name"].as_str().unwrap_or_default().to_owned();
    Some(found["Servers"].as_array()?.iter().filter(votes).map(name).collect())
}
