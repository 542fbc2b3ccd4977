//! A real Kubernetes API server for a test: etcd and ports of its own, started in a second, and faults on demand.
//!
//! The programs are made by `cargo xtask testbed kubernetes up`, and by `cargo xtask test` before the tests. With
//! `KUBEBUILDER_ASSETS` both take the `kube-apiserver` there instead.
#![allow(clippy::disallowed_methods, reason = "it waits for processes")]

pub mod access;
pub mod cluster;
mod flavour;
mod process;
pub mod proxy;
pub mod rig;

use std::fs;
use std::io::Write as _;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use self::flavour::{Flavour, Ports};
use self::process::{Process, gone, sweep};

/// Longer than a start takes on a machine that builds beside it.
const START: Duration = Duration::from_secs(90);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);
/// Who may ask from the beginning. The file is read at every request: see [`ApiServer::tokens`].
const TOKENS: &str = "admin-token,admin,1,\"system:masters\"\n";

/// An API server with its etcd, both ended when it is dropped.
pub struct ApiServer {
    dir: PathBuf,
    kubectl: Kubectl,
    flavour: Flavour,
    ports: Ports,
    etcd: Process,
    server: Process,
    stays: bool,
}

impl ApiServer {
    /// Starts one that nobody else has, and waits until it serves.
    pub fn start() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let runs = home().join("runs");
        fs::create_dir_all(&runs).unwrap();
        sweep(&runs);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Self::start_in(runs.join(format!("{}-{serial}", std::process::id())), false)
    }

    /// Starts one that outlives this process, unless it runs already; the path of its kubeconfig.
    pub fn stay(dir: &Path) -> PathBuf {
        let config = dir.join("kubeconfig");
        let same = fs::read_link(dir.join("programs")).ok() == fs::read_link(programs()).ok();
        if same
            && config.is_file()
            && kubectl(&config, &["get", "--raw", "/readyz"]).status.success()
        {
            return config;
        }
        Self::end(dir);
        let started = Self::start_in(dir.to_owned(), true).kubeconfig();
        if let Ok(of) = fs::read_link(programs()) {
            std::os::unix::fs::symlink(of, dir.join("programs")).unwrap();
        }
        started
    }

    /// Ends one that [`stay`](Self::stay) started.
    pub fn end(dir: &Path) {
        gone(dir);
    }

    fn start_in(dir: PathBuf, stays: bool) -> Self {
        let flavour = Flavour::look();
        gone(&dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("tokens.csv"), TOKENS).unwrap();
        let ports = Ports::free();
        let etcd = Process::spawn("etcd", &dir, stays, flavour.etcd(&dir, ports));
        let server = Process::spawn("apiserver", &dir, stays, flavour.server(&dir, ports));
        let kubectl = Kubectl { config: dir.join("kubeconfig") };
        let started = Self { dir, kubectl, flavour, ports, etcd, server, stays };
        started.wait();
        started
    }

    /// Where the programs are, `kubectl` among them.
    pub fn programs(&self) -> PathBuf {
        programs()
    }

    /// Where its kubeconfig is, with the token of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// `host:port` where it serves https.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.server)
    }

    /// The file of `token,user,id,"groups"` lines. Who is taken out is refused with 401 from the next request on (a
    /// `kube-apiserver` reads it only at its start).
    pub fn tokens(&self) -> PathBuf {
        self.dir.join("tokens.csv")
    }

    /// Stops it in the middle of whatever it does: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.server.signal("STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.server.signal("CONT");
    }

    /// Kills it; what it served is kept, and connections break.
    pub fn kill(&mut self) {
        self.server.end("KILL");
    }

    /// Starts it again at the same address, after [`kill`](Self::kill) or instead of the one that runs.
    pub fn restart(&mut self) {
        self.server.end("TERM");
        let command = self.flavour.server(&self.dir, self.ports);
        self.server = Process::spawn("apiserver", &self.dir, self.stays, command);
        self.wait();
    }

    fn wait(&self) {
        let deadline = Instant::now() + START;
        loop {
            self.flavour.kubeconfig(&self.dir, self.ports);
            let ready = self.kubeconfig().is_file()
                && kubectl(&self.kubeconfig(), &["get", "--raw", "/readyz"]).status.success()
                && kubectl(&self.kubeconfig(), &["get", "namespace", "default"]).status.success();
            if ready {
                return;
            }
            for process in [&self.etcd, &self.server] {
                assert!(process.alive(), "{} ended at once:\n{}", process.name, process.said());
            }
            let said = || [self.etcd.said(), self.server.said()].join("\n");
            assert!(Instant::now() < deadline, "it does not serve after {START:?}:\n{}", said());
            std::thread::sleep(LOOK);
        }
    }
}

/// kubectl on one cluster.
pub struct Kubectl {
    config: PathBuf,
}

impl Deref for ApiServer {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.kubectl
    }
}

impl Kubectl {
    /// The kubeconfig that it uses.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// A kubeconfig for the same cluster with the token that a file holds. It is kept beside the file.
    pub fn config_with(&self, token: &Path) -> String {
        let path = token.with_file_name("token-config");
        let text = fs::read_to_string(&self.config).unwrap();
        let mut whole: Value = serde_yaml::from_str(&text).unwrap();
        whole["users"] = serde_json::json!([{"name": "test", "user": {"tokenFile": token}}]);
        whole["contexts"][0]["context"]["user"] = "test".into();
        fs::write(&path, whole.to_string()).unwrap();
        path.display().to_string()
    }

    /// Runs kubectl.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        kubectl(&self.config, args)
    }

    /// Runs kubectl, which must succeed; what it said on standard output.
    pub fn run(&self, args: &[&str]) -> String {
        succeeded(args, &self.kubectl(args))
    }

    /// The same with `text` on standard input, for `-f -`.
    pub fn feed(&self, args: &[&str], text: &str) -> String {
        succeeded(args, &self.fed(args, text))
    }

    /// Runs kubectl with `text` on standard input; it may fail.
    pub fn fed(&self, args: &[&str], text: &str) -> Output {
        let mut command = kubectl_command(&self.config);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|both| {
            // It may answer before it has read everything, and then waits for somebody to listen. One that fails before
            // closes the pipe, and says why on its own.
            both.spawn(move || {
                let _ = stdin.write_all(text.as_bytes());
            });
            child.wait_with_output().unwrap()
        })
    }

    /// The documents of a text as they would be made, one by one: `--dry-run=client` only reads them, `--dry-run=server`
    /// asks the server, which fills in its defaults.
    pub fn items(&self, dry_run: &str, text: &str) -> Vec<Value> {
        let text = self.feed(&["create", dry_run, "-o", "json", "-f", "-"], text);
        let mut items = Vec::new();
        for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
            match value.unwrap() {
                mut list if list["kind"] == "List" => {
                    items.append(list["items"].as_array_mut().unwrap());
                }
                one => items.push(one),
            }
        }
        items
    }

    /// Makes sure of the custom resource definitions, as a user does, and waits until they are served.
    pub fn install(&self) {
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
        self.run(&["apply", "-f", &crds.display().to_string()]);
        let all = ["fleets", "loadbalancers", "scalingservices"];
        let names = all.map(|plural| format!("crd/{plural}.evenkeel.dev"));
        let mut wait = vec!["wait", "--for=condition=Established", "--timeout=60s"];
        wait.extend(names.iter().map(String::as_str));
        self.run(&wait);
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        self.server.end("KILL");
        self.etcd.end("KILL");
        // What it said is worth more than a tidy directory when a test is about to fail.
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Where the one that stays is.
pub fn testbed() -> PathBuf {
    home().join("testbed")
}

/// Runs kubectl with a kubeconfig.
pub fn kubectl(config: &Path, args: &[&str]) -> Output {
    kubectl_command(config).args(args).output().unwrap()
}

/// A kubectl that knows no other cluster and keeps nothing.
pub fn kubectl_command(config: &Path) -> Command {
    let mut command = Command::new(programs().join("kubectl"));
    command.arg("--kubeconfig").arg(config);
    // What is discovered is kept by address, and the next server may have the same one.
    command.arg("--cache-dir").arg(config.with_file_name("discovery"));
    command.env_remove("KUBECONFIG").env_remove("POD_NAMESPACE");
    command
}

fn succeeded(args: &[&str], output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The programs, as `cargo xtask` linked them.
fn programs() -> PathBuf {
    let programs = target().join("kubernetes");
    let hint = "cargo xtask testbed kubernetes up";
    assert!(programs.is_dir(), "there is no API server to start\nhint: {hint}");
    programs
}

/// For what runs, beside the programs.
fn home() -> PathBuf {
    target().join("kubernetes-runs")
}

/// The target directory of this build, however it was chosen.
fn target() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let marked = own.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
    marked.expect("a test lies in a target directory").to_owned()
}
