//! Tasks that are real containers: each agent is an address of this machine, or a Docker Engine of its own.

mod checks;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use futures::StreamExt as _;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::agents::Agent;
use super::runner::{End, Order, Report, Reports, Runner, Task};
use crate::docker::{SOCKET, TEST, serial, sweep_at, sweep_left};

/// What Mesos waits from SIGTERM to SIGKILL where an app says nothing.
const GRACE: u64 = 3;

/// Starts tasks as containers, and removes all of them in the end.
pub struct Containers {
    shared: Option<Arc<Shared>>,
    owner: String,
    engines: BTreeSet<Option<String>>,
    tasks: JoinSet<()>,
}

struct Shared {
    owner: String,
    reports: Reports,
    second: Duration,
    running: Mutex<BTreeMap<String, Running>>,
    client: reqwest::Client,
}

/// A task that has not ended.
struct Running {
    container: String,
    endpoint: Option<String>,
    /// Whether it was told to end.
    told: bool,
}

impl Containers {
    /// None yet.
    pub fn new() -> Self {
        let owner = format!("t-{}-{}-marathon", std::process::id(), serial());
        Self { shared: None, owner, engines: BTreeSet::new(), tasks: JoinSet::new() }
    }

    /// So many agents at addresses of loopback that no other run has.
    pub fn agents(count: u8) -> Vec<Agent> {
        let (pid, run) = (std::process::id(), serial());
        let [_, _, high, low] = pid.to_be_bytes();
        let of = |n: u8| {
            format!("127.{}.{}.{}", 1 + high % 126, low, (run % 20) * 12 + u32::from(n) + 1)
        };
        (0..count.min(12)).map(|n| Agent::new(&of(n))).collect()
    }
}

impl Default for Containers {
    fn default() -> Self {
        Self::new()
    }
}

/// An engine, by its endpoint.
fn engine(endpoint: Option<&str>) -> Docker {
    let version = bollard::API_DEFAULT_VERSION;
    match endpoint {
        None => Docker::connect_with_unix(SOCKET, 120, version),
        Some(at) => match at.strip_prefix("unix://") {
            Some(path) => Docker::connect_with_unix(path, 120, version),
            None => Docker::connect_with_http(&at.replacen("tcp://", "http://", 1), 120, version),
        },
    }
    .expect("an endpoint")
}

/// A command of the engine's, with its words.
async fn docker(endpoint: Option<&str>, args: &[String]) -> Output {
    let mut command = Command::new("docker");
    if let Some(endpoint) = endpoint {
        command.args(["-H", endpoint]);
    }
    command
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("docker is there")
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).trim().to_owned()
}

#[async_trait]
impl Runner for Containers {
    fn start(&mut self, reports: Reports, second: Duration) {
        let client = reqwest::Client::builder()
            .danger_accept_invalid_certs(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .build()
            .unwrap();
        let shared = Shared {
            owner: self.owner.clone(),
            reports,
            second,
            running: Mutex::default(),
            client,
        };
        self.shared = Some(Arc::new(shared));
        self.tasks.spawn(async { sweep_left(&engine(None)).await });
    }

    async fn order(&mut self, order: Order) {
        let Some(shared) = self.shared.clone() else { return };
        while self.tasks.try_join_next().is_some() {}
        match order {
            Order::Launch(task) => {
                self.engines.insert(task.agent.engine.clone());
                let name = words::name(&shared.owner, &task);
                let endpoint = task.agent.engine.clone();
                let entry = Running { container: name.clone(), endpoint, told: false };
                shared.running.lock().unwrap().insert(task.id.clone(), entry);
                self.tasks.spawn(async move { shared.live(*task, name).await });
            }
            Order::Kill { task, grace, .. } => {
                self.tasks.spawn(async move { shared.kill(&task, grace.unwrap_or(GRACE)).await });
            }
        }
    }

    async fn living(&mut self) -> BTreeSet<String> {
        let running =
            |shared: &Arc<Shared>| shared.running.lock().unwrap().keys().cloned().collect();
        self.shared.as_ref().map(running).unwrap_or_default()
    }

    async fn stop(&mut self) {
        self.tasks.shutdown().await;
        self.sweep();
    }
}

impl Containers {
    fn sweep(&mut self) {
        for endpoint in std::mem::take(&mut self.engines) {
            sweep_at(endpoint.as_deref(), &self.owner);
        }
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        self.tasks.abort_all();
        self.sweep();
    }
}

impl Shared {
    fn tell(&self, task: &str, report: Report) {
        let _ = self.reports.send((task.to_owned(), report));
    }

    /// The whole life of a task.
    async fn live(self: Arc<Self>, task: Task, name: String) {
        let (end, message) = match self.run(&task, &name).await {
            Ok(outcome) => outcome,
            Err(message) => (End::Failed, message),
        };
        let told = self.running.lock().unwrap().remove(&task.id).is_some_and(|r| r.told);
        let end = if told { End::Killed } else { end };
        self.tell(&task.id, Report::Ended(end, message));
        let remove = ["rm", "-f", "-v", &name].map(str::to_owned);
        docker(task.agent.engine.as_deref(), &remove).await;
    }

    async fn run(self: &Arc<Self>, task: &Task, name: &str) -> Result<(End, String), String> {
        let endpoint = task.agent.engine.as_deref();
        let image = task.app.image().ok_or("there is no image, and nothing here runs commands")?;
        let sandbox = TempDir::new().map_err(|error| error.to_string())?;
        let engine = engine(endpoint);
        let forced = task.app.get("container")["docker"]["forcePullImage"] == true;
        if forced || engine.inspect_image(image).await.is_err() {
            fetch(task, &sandbox).await?;
            let mut pull = vec!["pull".to_owned(), "--quiet".to_owned(), image.to_owned()];
            let known = sandbox.path().join(".docker");
            if known.is_dir() {
                pull.splice(0..0, ["--config".to_owned(), known.to_string_lossy().into_owned()]);
            }
            let out = docker(endpoint, &pull).await;
            if !out.status.success() {
                return Err(format!(
                    "Failed to launch container: Failed to run 'docker pull {image}': exited with \
                     status {}; stderr='{}'",
                    out.status.code().unwrap_or(-1),
                    said(&out)
                ));
            }
        }
        let label = format!("{TEST}={}", self.owner);
        let create = words::create(task, name, &label, sandbox.path());
        let out = docker(endpoint, &create).await;
        if !out.status.success() {
            return Err(format!("Failed to launch container: {}", said(&out)));
        }
        let out = docker(endpoint, &["start".to_owned(), name.to_owned()]).await;
        if !out.status.success() {
            return Err(format!("Failed to launch container: {}", said(&out)));
        }
        let address = address(&engine, name).await;
        let own = address.clone().unwrap_or_else(|| task.agent.host.clone());
        self.tell(&task.id, Report::Running(vec![own]));
        let checks = checks::all(self, task, name, address.as_deref());
        let ends = wait(&engine, name);
        tokio::select! {
            () = checks => unreachable!("checks never end"),
            end = ends => Ok(end),
        }
    }

    async fn kill(&self, task: &str, grace: u64) {
        let found = {
            let mut running = self.running.lock().unwrap();
            running.get_mut(task).map(|running| {
                running.told = true;
                (running.container.clone(), running.endpoint.clone())
            })
        };
        let Some((container, endpoint)) = found else { return };
        let stop = ["stop", "--time", &grace.to_string(), &container].map(str::to_owned);
        // One that is still being made is stopped as soon as it runs: until then the engine has nothing to stop, and says
        // that it is done.
        while self.running.lock().unwrap().contains_key(task) {
            docker(endpoint.as_deref(), &stop).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The address of its own that a container has, where it has one.
async fn address(engine: &Docker, name: &str) -> Option<String> {
    let found = engine.inspect_container(name, None).await.ok()?;
    let networks = found.network_settings?.networks?;
    networks.into_values().filter_map(|n| n.ip_address).find(|address| !address.is_empty())
}

async fn wait(engine: &Docker, name: &str) -> (End, String) {
    let code = match engine.wait_container(name, None).next().await {
        Some(Ok(ended)) => ended.status_code,
        Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => code,
        Some(Err(error)) => return (End::Failed, error.to_string()),
        None => -1,
    };
    match code {
        0 => (End::Finished, "Container exited with status 0".into()),
        code => (End::Failed, format!("Container exited with status {code}")),
    }
}

/// Brings archives of this machine into the sandbox, as the fetcher of Mesos does.
async fn fetch(task: &Task, sandbox: &TempDir) -> Result<(), String> {
    for artifact in task.app.get("fetch").as_array().into_iter().flatten() {
        let uri = artifact["uri"].as_str().unwrap_or_default();
        let path = uri.strip_prefix("file://").unwrap_or(uri);
        let fails = |why: String| {
            format!("Failed to launch container: Failed to fetch all URIs for container: {why}")
        };
        let out = if artifact["extract"] == true {
            Command::new("tar").arg("-xf").arg(path).arg("-C").arg(sandbox.path()).output().await
        } else {
            Command::new("cp").arg(path).arg(sandbox.path()).output().await
        };
        match out {
            Ok(out) if out.status.success() => {}
            Ok(out) => return Err(fails(format!("{uri}: {}", said(&out)))),
            Err(error) => return Err(fails(error.to_string())),
        }
    }
    Ok(())
}
