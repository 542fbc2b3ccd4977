//! Measures a Marathon fleet of a thousand apps: prints one JSON row a measurement, for `cargo xtask bench`.
//!
//! `bench-marathon [--quick]`. The agent is the one that `EVENKEEL_BIN` names; Marathon is the one of the tests, in this
//! process, with simulated tasks. What this makes is gone at the end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot be made ends")]
#![allow(clippy::print_stdout, reason = "the rows are its output")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use evenkeel::backend::marathon::view_of;
use evenkeel::model::app::compare::differences;
use evenkeel::model::{FleetName, OwnerId};
use evenkeel_tests::marathon::{Agent, Options, Recorded, Server};
use serde_json::{Value, json};

/// Tasks of each app.
const REPLICAS: usize = 3;
/// No part of this takes longer.
const LONG: Duration = Duration::from_secs(600);
/// How long an idle agent is watched.
const IDLE: Duration = Duration::from_secs(15);

fn row(what: &str, value: impl Into<Value>, unit: &str, target: Option<u32>, note: &str) {
    println!(
        "{}",
        json!({"row": "marathon", "what": what, "value": value.into(), "unit": unit,
            "target": target, "judged": "value", "note": note})
    );
}

/// Documents by the name of their file: one file may have 200.
fn documents(url: &str, apps: usize, image: &str) -> BTreeMap<String, String> {
    let fleet = format!(
        "apiVersion: evenkeel.dev/v1alpha1\nkind: Fleet\nmetadata: {{name: default}}\n\
         spec: {{backend: {{marathon: {{urls: [\"{url}\"], group: /bench}}}}}}\n"
    );
    let mut files = BTreeMap::from([("fleet.yaml".to_owned(), fleet)]);
    for n in 0..apps {
        let text = files.entry(format!("s{:02}.yaml", n / 100)).or_default();
        let _ = write!(
            text,
            "---\napiVersion: evenkeel.dev/v1alpha1\nkind: ScalingService\nmetadata: {{name: s{n:04}}}\n\
             spec:\n  replicas: {REPLICAS}\n  image: {image}\n\
             \x20 env: [{{name: GREETING, value: hello}}, {{name: NUMBER, value: \"{n}\"}}]\n\
             \x20 ports: [{{name: http, containerPort: 8080}}]\n\
             \x20 resources: {{cpu: 10m, memory: 32Mi}}\n\
             \x20 health: {{http: {{path: /, port: http}}, interval: 2s}}\n"
        );
    }
    files
}

/// The agent, ended with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(documents: &Path, state: &Path) -> Self {
        let binary = std::env::var("EVENKEEL_BIN").unwrap_or_else(|_| "evenkeel".to_owned());
        let child = Command::new(binary)
            .args(["run", "--owner", "bench", "--interval", "1s", "--listen", "127.0.0.1:0"])
            .args(["--log", "warn"])
            .arg("--dir")
            .arg(documents)
            .arg("--state-dir")
            .arg(state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// The most memory that it has had, in MiB.
    fn peak_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }
}

/// Waits until every app has its tasks of an image, well, and nothing is under way; how long that took.
async fn until_all(server: &Server, apps: usize, image: &str) -> f64 {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < LONG, "only {} of {apps} apps are there", server.apps().len());
        tokio::time::sleep(Duration::from_millis(100)).await;
        if server.apps().len() != apps || !server.deployments().is_empty() {
            continue;
        }
        let good = |id: &String| {
            let app = server.app(id).unwrap();
            app["container"]["docker"]["image"] == image && app["tasksHealthy"] == REPLICAS
        };
        if server.apps().iter().all(good) {
            return begun.elapsed().as_secs_f64();
        }
    }
}

/// How often changes were refused, and how many were sent at most at a time.
fn refused(server: &Server) -> (usize, usize) {
    let writes = server.writes();
    let refused = |w: &&Recorded| w.status.is_some_and(|s| s >= 400);
    (writes.iter().filter(refused).count(), writes.len())
}

async fn measure(quick: bool) {
    let apps = if quick { 200 } else { 1000 };
    let agents = (0..40).map(|n| Agent::new(&format!("10.1.0.{n}")).size(64.0, 65_536.0));
    let server = Server::start(Options { agents: agents.collect(), ..Options::default() }).await;
    let scratch = tempfile::tempdir().unwrap();
    let (docs, state) = (scratch.path().join("docs"), scratch.path().join("state"));
    fs::create_dir(&docs).unwrap();
    fs::create_dir(&state).unwrap();
    let write = |image: &str| {
        for (name, text) in documents(&server.url(), apps, image) {
            fs::write(scratch.path().join("new.yaml"), text).unwrap();
            fs::rename(scratch.path().join("new.yaml"), docs.join(name)).unwrap();
        }
    };
    write("toy:1");
    let agent = Running::start(&docs, &state);
    let took = until_all(&server, apps, "toy:1").await;
    let (no, all) = refused(&server);
    row(&format!("{apps} apps made"), took, "s", None, &format!("{all} changes sent"));
    row(&format!("{apps} apps made: changes refused"), no, "", Some(0), "");

    // The first measurement of what the agent does at each start, each reconnect and each minute.
    let url = format!(
        "{}/v2/apps?embed=apps.tasks&embed=apps.lastTaskFailure&embed=apps.deployments",
        server.url()
    );
    let answer = reqwest::get(url).await.unwrap().bytes().await.unwrap();
    let (owner, fleet) = (OwnerId::new("bench").unwrap(), FleetName::of_default());
    let mut best = f64::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        let view = view_of(&owner, &fleet, BTreeMap::new(), &answer).unwrap();
        assert_eq!((view.apps.len(), view.instances.len()), (apps, apps * REPLICAS));
        // Each against the next: no two are the same, so that every field is looked at.
        let all: Vec<_> = view.apps.values().collect();
        let pairs = all.iter().zip(all.iter().skip(1));
        let found: usize =
            pairs.map(|(a, b)| differences(&a.definition, &b.definition).len()).sum();
        assert!(found >= apps - 1);
        best = best.min(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let size = answer.len() / 1024;
    let what = format!("{apps} apps, a list of {size} KiB: read and compared");
    row(&what, best, "ms", Some(300), "");

    tokio::time::sleep(Duration::from_secs(5)).await;
    server.forget();
    tokio::time::sleep(IDLE).await;
    let writes = server.writes().len();
    row(&format!("changes in {} s of idleness", IDLE.as_secs()), writes, "", Some(0), "");

    server.forget();
    write("toy:2");
    let took = until_all(&server, apps, "toy:2").await;
    let (no, all) = refused(&server);
    row(&format!("{apps} apps changed"), took, "s", None, &format!("{all} changes sent"));
    row(&format!("{apps} apps changed: changes refused"), no, "", Some(0), "");
    row("the agent's memory at most", agent.peak_mib(), "MiB", Some(150), "");
}

#[tokio::main]
async fn main() {
    let quick = std::env::args().any(|a| a == "--quick");
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    tokio::select! {
        () = measure(quick) => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
