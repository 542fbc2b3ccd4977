//! The real agent as a child process on the real engine, with a repository, a state directory, a
//! port and an owner of its own.

mod engine;
mod repo;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use bollard::Docker;
use evenkeel::report::view::{PhaseView, PlanView, ServiceView, StatusView};
use tempfile::TempDir;
use tokio::time::Instant;

pub use self::engine::{Event, Events, Seen, asked, containers, http, http_as, serving};
pub use self::repo::{Repo, Service};
use crate::docker::{SOCKET, serial, sweep, sweep_left};

/// The image most tests run.
pub const TOY: &str = "evenkeel/toy:1";
/// The same service in its next version.
pub const TOY_2: &str = "evenkeel/toy:2";
/// One that never becomes healthy.
pub const BROKEN: &str = "evenkeel/toy:broken";
/// Longer than anything here takes, even beside other tests on two cores.
pub const LONG: Duration = Duration::from_secs(90);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until `look` gives something; panics with `what` when it takes longer than `within`.
pub async fn until<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Checks for as long as `lasts` that nothing happens that should not.
pub async fn throughout(lasts: Duration, mut check: impl AsyncFnMut()) {
    let end = Instant::now() + lasts;
    while Instant::now() < end {
        check().await;
        tokio::time::sleep(LOOK).await;
    }
}

/// The binary, built now if it is not current: the tests of a crate build no binary of another.
pub fn binary() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(given) = std::env::var_os("EVENKEEL_BIN") {
            return given.into();
        }
        let run = std::env::var("NEXTEST_RUN_ID").ok();
        let me = std::env::current_exe().unwrap();
        let profile = me.parent().and_then(Path::parent).unwrap();
        // Every test is a process of its own under nextest: the first of a run builds, the others read.
        let note = profile.join(".evenkeel-e2e");
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(profile.join(".evenkeel-e2e.lock"))
            .unwrap();
        lock.lock().unwrap();
        let mut text = String::new();
        lock.rewind().and_then(|()| lock.read_to_string(&mut text)).unwrap();
        if let Some(run) = &run
            && let Ok(noted) = fs::read_to_string(&note)
            && let Some(path) = noted.strip_prefix(&format!("{run}\n"))
        {
            return path.into();
        }
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--locked", "--workspace", "--bin", "evenkeel"]);
        build.arg("--message-format=json-render-diagnostics");
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let out = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "cannot build the agent: {said}");
        let path = String::from_utf8_lossy(&out.stdout)
            .lines()
            .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok())
            .filter(|m| m["target"]["name"] == "evenkeel")
            .find_map(|m| m["executable"].as_str().map(PathBuf::from))
            .expect("cargo names the binary that it built");
        if let Some(run) = run {
            fs::write(&note, format!("{run}\n{}", path.display())).unwrap();
        }
        path
    })
}

/// A port that nothing listens on now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// One installation: an owner, a repository, a state directory, and the engine.
pub struct Bed {
    /// The engine, by a way of its own.
    pub docker: Docker,
    /// The installation's own owner.
    pub owner: String,
    /// What the agent reads.
    pub repo: Repo,
    /// Where the agent keeps its state.
    pub state: PathBuf,
    /// Variables of the agent's environment.
    pub env: BTreeMap<String, String>,
    dir: TempDir,
}

impl Bed {
    /// An empty one.
    pub async fn new() -> Self {
        let docker = Docker::connect_with_unix(SOCKET, 120, bollard::API_DEFAULT_VERSION).unwrap();
        for image in [TOY, TOY_2, BROKEN] {
            let there = docker.inspect_image(image).await.is_ok();
            assert!(there, "there is no image {image}; make it with `cargo xtask images`");
        }
        sweep_left(&docker).await;
        let dir = TempDir::new().unwrap();
        Self {
            docker,
            owner: format!("t-{}-{}", std::process::id(), serial()),
            repo: Repo::new(dir.path().join("repo")),
            state: dir.path().join("state"),
            env: BTreeMap::new(),
            dir,
        }
    }

    /// A name that no other installation uses.
    pub fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.owner)
    }

    /// A directory of its own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A service with quick checks.
    pub fn service(&self, short: &str, replicas: u32) -> Service {
        Service {
            name: self.name(short),
            replicas,
            image: TOY.into(),
            env: BTreeMap::new(),
            rollout: "maxSurge: 1, progressDeadline: 60s".into(),
            termination: "drain: 0s, grace: 5s".into(),
            more: String::new(),
            comment: String::new(),
        }
    }

    /// Runs the binary to its end.
    pub fn evenkeel(&self, args: &[&str]) -> Output {
        let out =
            Command::new(binary()).args(args).envs(&self.env).current_dir(self.dir()).output();
        out.unwrap()
    }

    /// The arguments that say which installation is meant.
    pub fn which(&self) -> Vec<String> {
        let path = |p: &Path| p.to_str().unwrap().to_owned();
        let (repo, state) = (path(&self.repo.path), path(&self.state));
        ["--git", &repo, "--state-dir", &state, "--owner", &self.owner].map(Into::into).into()
    }

    /// Starts an agent that looks every second.
    pub fn agent(&self) -> Agent {
        self.agent_with(&["--interval", "1s"])
    }

    /// Starts an agent with more arguments.
    pub fn agent_with(&self, args: &[&str]) -> Agent {
        let mut all = self.which();
        all.extend(args.iter().map(|a| (*a).to_owned()));
        Agent::start(self, &all)
    }

    /// Starts an agent with these arguments and no others.
    pub fn agent_of(&self, args: &[&str]) -> Agent {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        Agent::start(self, &args)
    }

    /// What `evenkeel plan` says, and its exit code.
    pub fn plan(&self) -> (i32, Vec<PlanView>, String) {
        let mut args: Vec<String> = vec!["plan".into()];
        args.extend(self.which());
        args.extend(["-o".into(), "json".into()]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let out = self.evenkeel(&args);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let value: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        let plans = serde_json::from_value(value["plans"].clone()).unwrap_or_default();
        let both = format!("{said}\n{}", String::from_utf8_lossy(&out.stderr));
        (out.status.code().unwrap_or(-1), plans, both)
    }

    /// Planning again changes nothing: the end of every scenario.
    pub fn nothing_left(&self) {
        let (_, plans, said) = self.plan();
        assert!(!plans.is_empty(), "no plan: {said}");
        assert!(plans.iter().all(|p| p.steps.is_empty()), "something is left to do: {said}");
    }

    /// Every container of this installation, also those that do not run.
    pub async fn all(&self) -> Vec<Seen> {
        containers(&self.docker, &self.owner).await
    }

    /// Every container of a service.
    pub async fn of(&self, service: &Service) -> Vec<Seen> {
        self.all().await.into_iter().filter(|c| c.service == service.name).collect()
    }

    /// The ids of a service's containers by slot; panics when a slot is taken twice or anything
    /// does not run.
    pub async fn ids(&self, service: &Service) -> BTreeMap<String, String> {
        let mut ids = BTreeMap::new();
        for c in self.of(service).await {
            assert_eq!(c.state, "running", "{c:?}");
            let before = ids.insert(c.slot.clone(), c.id.clone());
            assert!(before.is_none(), "slot {} is taken twice", c.slot);
        }
        ids
    }

    /// When each container of a service was started, by id.
    pub async fn starts(&self, service: &Service) -> BTreeMap<String, String> {
        let mut starts = BTreeMap::new();
        for c in self.of(service).await {
            let found = self.docker.inspect_container(&c.id, None).await.unwrap();
            starts.insert(c.id, found.state.and_then(|s| s.started_at).unwrap_or_default());
        }
        starts
    }

    /// Kills a container.
    pub async fn kill(&self, id: &str) {
        self.docker.kill_container(id, None).await.unwrap();
    }

    /// Begins to listen to what happens to the containers of this installation.
    pub async fn events(&self) -> Events {
        Events::listen(&self.docker, &self.owner).await
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        sweep(&self.owner);
        sweep(&format!("{}-b", self.owner));
    }
}

/// A running agent. Dropped, it is killed.
pub struct Agent {
    child: Child,
    /// Where its API listens, on 127.0.0.1.
    pub port: u16,
    log: PathBuf,
}

impl Agent {
    fn start(bed: &Bed, args: &[String]) -> Self {
        let port = free_port();
        let log = bed.dir().join(format!("agent-{}.log", serial()));
        let file = File::create(&log).unwrap();
        let child = Command::new(binary())
            .arg("run")
            .args(args)
            .args(["--listen", &format!("127.0.0.1:{port}"), "--log", "info,evenkeel=debug"])
            .envs(&bed.env)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, port, log }
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Another signal, by name.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success(), "kill -s {name} {pid}");
    }

    /// Its exit code, once it ends.
    pub async fn ended(&mut self, within: Duration) -> Option<i32> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it did not end in {within:?}\n{}", self.tail());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Asks its API; `None` while it does not answer.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        http(&format!("127.0.0.1:{}", self.port), "GET", path, &[], "").await
    }

    /// Posts to its API.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let at = format!("127.0.0.1:{}", self.port);
        http(&at, "POST", path, headers, body).await.expect("the agent answers")
    }

    /// What it says of everything; `None` while it does not answer.
    pub async fn status(&self) -> Option<StatusView> {
        let (code, body) = self.get("/api/v1/status").await?;
        assert_eq!(code, 200, "{body}");
        Some(serde_json::from_str(&body).unwrap())
    }

    /// Waits until its status is as `test` wants it.
    pub async fn until(&mut self, what: &str, test: impl Fn(&StatusView) -> bool) -> StatusView {
        self.within(LONG, what, test).await
    }

    /// The same with a limit of its own.
    pub async fn within(
        &mut self,
        within: Duration,
        what: &str,
        test: impl Fn(&StatusView) -> bool,
    ) -> StatusView {
        let deadline = Instant::now() + within;
        loop {
            let status = self.status().await;
            if let Some(status) = &status
                && test(status)
            {
                return status.clone();
            }
            let runs = self.runs();
            if !runs || Instant::now() > deadline {
                let said = status.map(|s| serde_json::to_string_pretty(&s).unwrap());
                let why = if runs { "waited in vain" } else { "the agent ended" };
                panic!("{why}: {what}\n{}\n{}", said.unwrap_or_default(), self.tail());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until everything is as this commit wants this service to be.
    pub async fn settled(&mut self, service: &Service, commit: &str) -> StatusView {
        let what = format!("{} is as {commit} says", service.name);
        self.until(&what, |s| settled(s, service, commit)).await
    }

    /// Waits until it has planned for this commit.
    pub async fn planned(&mut self, commit: &str) -> StatusView {
        self.until(&format!("{commit} is planned for"), |s| {
            s.fleets.iter().any(|f| f.revision.as_deref() == Some(commit))
        })
        .await
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the agent's last words:\n{}", self.tail());
        }
    }
}

/// A service in a status.
pub fn find<'s>(status: &'s StatusView, service: &Service) -> Option<&'s ServiceView> {
    status.services.iter().find(|s| s.name == service.name)
}

/// Whether a service is as a commit wants it.
pub fn settled(status: &StatusView, service: &Service, commit: &str) -> bool {
    find(status, service).is_some_and(|s| {
        s.phase == PhaseView::Ready
            && s.desired == service.replicas
            && s.replicas == service.replicas
            && s.attempted_revision.as_deref() == Some(commit)
    })
}

/// Everything that a service and its fleet wait for, as text.
pub fn waits(status: &StatusView) -> String {
    let services = status.services.iter().flat_map(|s| &s.waiting);
    let mut text = String::new();
    for w in services.chain(status.fleets.iter().flat_map(|f| &f.waiting)) {
        let _ = writeln!(text, "{}: {} ({})", w.subject, w.message, w.kind);
    }
    text
}
