//! The cluster that somebody names, for what only a full one shows. A test has a namespace of its own there, and what it makes
//! beside that has the namespace's name; both go when it ends, and nothing of anybody else's is touched.

use std::fs;
use std::io::Write as _;
use std::ops::Deref;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::{Kubectl, LOOK, programs, succeeded};

/// How `cargo xtask test --cluster` says which one: as `KUBECONFIG` does.
const CONFIG: &str = "EVENKEEL_CLUSTER";
/// The file whose lines it shows at the end: what was not tested, and why.
const NOT_TESTED: &str = "EVENKEEL_NOT_TESTED";
/// The longest until the controllers of a cluster have seen a new namespace.
const CONTROLLERS: Duration = Duration::from_secs(20);

/// A namespace of a cluster.
pub struct Cluster {
    kubectl: Kubectl,
    namespace: String,
    _dir: TempDir,
}

impl Deref for Cluster {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.kubectl
    }
}

impl Cluster {
    /// Makes the namespace.
    pub fn enter() -> Self {
        let given = std::env::var_os(CONFIG);
        let hint = "hint: KUBECONFIG=… cargo xtask test --cluster";
        let given = given.unwrap_or_else(|| panic!("no cluster is named\n{hint}"));
        let dir = tempfile::tempdir().unwrap();
        // A copy: nothing is kept beside the user's own.
        let mut view = Command::new(programs().join("kubectl"));
        view.args(["config", "view", "--raw", "--flatten", "--minify"]).env("KUBECONFIG", given);
        let config = dir.path().join("kubeconfig");
        fs::write(&config, succeeded(&["config", "view"], &view.output().unwrap())).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let namespace =
            format!("evenkeel-test-{}-{:x}", std::process::id(), now.as_nanos() & 0xffff_ffff);
        let cluster = Self { kubectl: Kubectl { config }, namespace, _dir: dir };
        cluster.run(&["create", "namespace", &cluster.namespace]);
        cluster
    }

    /// What it is called.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether it serves a group in a version.
    pub fn serves(&self, group: &str) -> bool {
        self.kubectl(&["get", "--raw", &format!("/apis/{group}")]).status.success()
    }

    /// Whether anybody acts on what is written there: a new namespace gets its account.
    pub fn has_controllers(&self) -> bool {
        let deadline = Instant::now() + CONTROLLERS;
        let account = ["get", "-n", &self.namespace, "serviceaccount", "default"];
        while !self.kubectl(&account).status.success() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    /// Says that this cluster could not show something.
    pub fn not_tested(what: &str, why: &str) {
        let line = format!("NOT TESTED: {what}: {why}");
        eprintln!("{line}");
        let Some(path) = std::env::var_os(NOT_TESTED) else { return };
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let name = self.namespace.as_str();
        // The agent has ended, and nobody else lets go of them.
        let free = r#"{"metadata":{"finalizers":null}}"#;
        for kind in ["scalingservices", "loadbalancers", "fleets"] {
            let found = self.kubectl(&["get", "-n", name, kind, "-o", "name"]);
            for object in String::from_utf8_lossy(&found.stdout).lines() {
                self.kubectl(&["delete", "-n", name, object, "--wait=false"]);
                self.kubectl(&["patch", "-n", name, object, "--type=merge", "-p", free]);
            }
        }
        for kind in ["clusterrole", "clusterrolebinding"] {
            self.kubectl(&["delete", kind, name, "--ignore-not-found", "--wait=false"]);
        }
        self.kubectl(&["delete", "namespace", name, "--ignore-not-found", "--wait=false"]);
    }
}
