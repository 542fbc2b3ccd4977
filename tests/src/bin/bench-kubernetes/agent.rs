//! The agent that is measured: a child process.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use evenkeel_tests::measure::{Usage, usage};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::simulate::RING;

/// Two looks apart by this tell whether it is at rest.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
    /// When it was started.
    pub(crate) begun: Instant,
}

impl Agent {
    /// Over simulated hosts. `name` is of its state.
    pub(crate) fn simulated(cluster: &Cluster, name: &str, more: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("simulate");
        Self::start(command, cluster, name, more)
    }

    /// The one that `EVENKEEL_BIN` names, on real engines.
    pub(crate) fn real(cluster: &Cluster, name: &str, more: &[&str]) -> Self {
        let binary = std::env::var_os("EVENKEEL_BIN").unwrap_or_else(|| "evenkeel".into());
        Self::start(Command::new(binary), cluster, name, more)
    }

    fn start(mut command: Command, cluster: &Cluster, name: &str, more: &[&str]) -> Self {
        let directory = cluster.directory.path();
        let log = directory.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.args(["run", "--kubernetes", "--listen", "off", "--log-format", "json"]);
        command.args(["--owner", &cluster.owner]);
        command.arg("--state-dir").arg(directory.join(name)).args(more);
        command.env("KUBECONFIG", cluster.kubeconfig());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(file);
        let begun = Instant::now();
        Self { child: command.spawn().unwrap(), log, begun }
    }

    pub(crate) fn usage(&self) -> Usage {
        usage(self.child.id())
    }

    /// Asks for another pass over everything.
    pub(crate) fn ring(&mut self) {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "{RING}").and_then(|()| input.flush()).unwrap();
    }

    /// Waits until it does nothing any more.
    pub(crate) async fn rests(&self) {
        let mut before = self.usage().seconds;
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.usage().seconds;
            if now - before < 0.015 {
                return;
            }
            before = now;
        }
    }

    /// What it logged, by its message.
    pub(crate) fn said(&self, message: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
