//! Measures a running agent on the local engine: prints one JSON row a measurement, for `cargo xtask bench`.
//!
//! `bench-engine EVENKEEL [--quick] [scale] [rotation] [heal] [commit] [idle]`. What it makes carries owners of its own
//! and is removed at the end, also after Ctrl-C.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot be made ends")]
#![allow(clippy::print_stdout, reason = "the rows are its output")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod agent;
mod engine;
mod peers;
mod recorder;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use bollard::query_parameters::KillContainerOptionsBuilder;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::{Agent, Ask, Edge};
use crate::engine::{Engine, OWNER, millis};
use crate::recorder::Recorder;

/// The local engine.
const SOCKET: &str = "/var/run/docker.sock";
const IMAGE: &str = "evenkeel/toy:1";
const BALANCERS: &str = "evenkeel/balancers:1";
const CONSUL: &str = "evenkeel/consul:1";
const FIFTY: u32 = 50;

/// Nanoseconds since the Unix epoch, as the engine's events count them.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(0)
}

/// Waits for something; `false` when the time is over.
async fn until<F: Future<Output = bool>>(limit: Duration, reached: impl Fn() -> F) -> bool {
    let begun = Instant::now();
    while !reached().await {
        if begun.elapsed() > limit {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// The value that this part of the samples does not exceed.
fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into a few samples"
    )]
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

struct Bench {
    binary: PathBuf,
    quick: bool,
    rows: Vec<String>,
    engine: Engine,
    directory: tempfile::TempDir,
}

impl Bench {
    fn wants(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|r| r == row)
    }

    fn owner(what: &str) -> String {
        format!("bench-{}-{what}", std::process::id())
    }

    async fn run(&self) {
        if self.wants("scale") {
            self.scale().await;
        }
        if self.wants("rotation") {
            self.rotation().await;
        }
        if ["commit", "heal", "idle"].iter().any(|r| self.wants(r)) {
            self.watched().await;
        }
    }

    /// From nothing to fifty, by evenkeel and by everybody else.
    async fn scale(&self) {
        let (mine, bare) = (Self::owner("scale"), Self::owner("bare"));
        let socket = Path::new(SOCKET);
        let agent = Agent::start(&self.binary, self.directory.path(), &mine, socket, None).await;
        let parallel: &[usize] = if self.quick { &[2, 4, 8] } else { &[1, 2, 4, 8, 16] };
        let mut ours = Vec::new();
        let mut theirs = vec![Vec::new(); parallel.len()];
        for round in 0..3 {
            // In turns, so that what else the machine does disturbs everybody alike.
            eprintln!("scale: round {} of 3: evenkeel", round + 1);
            let committed = agent.ask(Ask { replicas: FIFTY, ..Ask::default() }).await;
            ours.push(self.engine.all_started((OWNER, &mine), committed, FIFTY as usize).await);
            agent.settled(FIFTY).await;
            agent.ask(Ask::default()).await;
            agent.settled(0).await;
            for (parallel, took) in parallel.iter().zip(&mut theirs) {
                eprintln!("scale: round {} of 3: bare, {parallel} at once", round + 1);
                took.push(self.engine.bare(&bare, FIFTY, *parallel, None).await);
                self.engine.remove((OWNER, &bare)).await;
            }
        }
        drop(agent);
        let best = theirs.iter().map(|t| median(t)).fold(f64::INFINITY, f64::min);
        let ratio = |ms: f64| ms / best;
        let all = format!("evenkeel, commit to {FIFTY} running");
        row(&json!({"row": "scale", "what": all, "value": median(&ours), "unit": "ms",
            "ratio": ratio(median(&ours)), "target": 1.15, "judged": "ratio", "samples": ours}));
        for (parallel, took) in parallel.iter().zip(&theirs) {
            let what = format!("bare Engine API, {parallel} at once");
            row(&json!({"row": "scale", "what": what, "value": median(took), "unit": "ms",
                "ratio": ratio(median(took)), "samples": took}));
        }
        eprintln!("scale: docker-compose");
        let peer = Self::owner("compose");
        peer_row(
            "docker-compose up --scale",
            best,
            peers::compose(self.directory.path(), &peer, FIFTY),
        );
        eprintln!("scale: Swarm");
        let peer = Self::owner("swarm");
        peer_row("Swarm service", best, peers::swarm(&self.engine, &peer, FIFTY).await);
        eprintln!("scale: docker run");
        let peer = Self::owner("run");
        peer_row(
            "docker run -d, one by one",
            best,
            peers::one_by_one(&self.engine, &peer, FIFTY).await,
        );
    }

    /// From nothing to fifty that are registered and that the balancer sends requests to.
    async fn rotation(&self) {
        let (mine, bare) = (Self::owner("rotation"), Self::owner("bare"));
        let edge = Edge::new(&mine);
        let network = edge.network.clone();
        let socket = Path::new(SOCKET);
        let within = self.directory.path();
        let agent = Agent::start(&self.binary, within, &mine, socket, Some(edge)).await;
        // The best that the row above finds, within what two rounds differ by.
        let parallel: &[usize] = if self.quick { &[4] } else { &[4, 16] };
        let mut ours = Vec::new();
        let mut theirs = vec![Vec::new(); parallel.len()];
        for round in 0..3 {
            eprintln!("rotation: round {} of 3: evenkeel", round + 1);
            let committed =
                agent.ask(Ask { replicas: FIFTY, probes: true, ..Ask::default() }).await;
            agent.settled(FIFTY).await;
            agent.registered(FIFTY).await;
            ours.push(millis(now() - committed));
            agent.ask(Ask { probes: true, ..Ask::default() }).await;
            agent.settled(0).await;
            for (parallel, took) in parallel.iter().zip(&mut theirs) {
                eprintln!("rotation: round {} of 3: bare, {parallel} at once", round + 1);
                took.push(self.engine.bare(&bare, FIFTY, *parallel, Some(&network)).await);
                self.engine.remove((OWNER, &bare)).await;
            }
        }
        drop(agent);
        self.engine.remove((OWNER, &mine)).await;
        let _ = self.engine.docker.remove_network(&network).await;
        let best = theirs.iter().map(|t| median(t)).fold(f64::INFINITY, f64::min);
        let what = format!("commit to {FIFTY} in Consul and asked by HAProxy");
        row(&json!({"row": "rotation", "what": what, "value": median(&ours), "unit": "ms",
            "ratio": median(&ours) / best, "target": 1.25, "judged": "ratio", "samples": ours}));
        for (parallel, took) in parallel.iter().zip(&theirs) {
            let what = format!("bare Engine API, the same network, {parallel} at once");
            row(&json!({"row": "rotation", "what": what, "value": median(took), "unit": "ms",
                "ratio": median(took) / best, "samples": took}));
        }
    }

    /// What is seen at a socket between an agent and the engine.
    async fn watched(&self) {
        let recorder = Recorder::listen(self.directory.path().join("engine.sock"));
        let owner = Self::owner("watch");
        let within = self.directory.path();
        let agent = Agent::start(&self.binary, within, &owner, &recorder.socket, None).await;
        let mut ask = Ask { replicas: FIFTY, ..Ask::default() };
        if self.wants("commit") {
            let times = if self.quick { 10 } else { 30 };
            ask.replicas = FIFTY - times;
            agent.ask(ask).await;
            agent.settled(ask.replicas).await;
            self.commits(&agent, &recorder, &mut ask, times).await;
        } else {
            agent.ask(ask).await;
            agent.settled(FIFTY).await;
        }
        if self.wants("heal") {
            self.kills(&agent, &recorder, &mut ask).await;
        }
        if self.wants("idle") {
            self.idle(&agent, &recorder, "without probes").await;
            ask.probes = true;
            agent.ask(ask).await;
            agent.settled(FIFTY).await;
            self.idle(&agent, &recorder, "an http probe each, every 10 s").await;
        }
    }

    async fn commits(&self, agent: &Agent, recorder: &Recorder, ask: &mut Ask, times: u32) {
        let mut took = Vec::new();
        for n in 0..times {
            eprintln!("commit: {} of {times}", n + 1);
            ask.replicas += 1;
            let committed = agent.ask(*ask).await;
            agent.settled(ask.replicas).await;
            let created = recorder.first_create(committed).unwrap();
            took.push(millis(created - committed));
        }
        let what = format!("commit to first create call, {times} times: median");
        row(&json!({"row": "commit", "what": what, "value": median(&took), "unit": "ms",
            "target": 150, "judged": "value", "samples": took}));
    }

    /// Every slot once, since a slot that dies twice is rightly given a pause; then another spec, and again.
    async fn kills(&self, agent: &Agent, recorder: &Recorder, ask: &mut Ask) {
        let times = if self.quick { 30 } else { 2 * FIFTY };
        let label = (OWNER, agent.owner.as_str());
        let mut took = Vec::new();
        let mut victims = self.engine.ids(label).await;
        for n in 0..times {
            eprintln!("heal: {} of {times}", n + 1);
            if n == FIFTY {
                ask.variant += 1;
                agent.ask(*ask).await;
                // Not settled at the old one: there is none of the new one yet.
                let old = victims.clone();
                let replaced = until(Duration::from_secs(300), || async {
                    !self.engine.ids(label).await.iter().any(|id| old.contains(id))
                })
                .await;
                assert!(replaced, "the other spec did not replace the first");
                agent.settled(FIFTY).await;
                // What dies before a spec has proven itself speaks against the spec, and is replaced at a slower pace.
                tokio::time::sleep(Duration::from_secs(15)).await;
                victims = self.engine.ids(label).await;
            }
            let victim = victims[(n % FIFTY) as usize].clone();
            let begun = now();
            let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
            self.engine.docker.kill_container(&victim, Some(options)).await.unwrap();
            let died = self.engine.died(label, begun).await;
            let reached = || async { recorder.first_create(begun).is_some() };
            assert!(until(Duration::from_secs(60), reached).await, "not replaced");
            took.push(millis(recorder.first_create(begun).unwrap() - died));
            agent.settled(FIFTY).await;
        }
        let what = |part: &str| format!("die event to create call, {times} kills: {part}");
        row(&json!({"row": "heal", "what": what("median"), "value": median(&took), "unit": "ms",
            "target": 50, "judged": "value", "samples": took}));
        row(
            &json!({"row": "heal", "what": what("p99"), "value": quantile(&took, 0.99), "unit": "ms",
            "target": 250, "judged": "value"}),
        );
    }

    async fn idle(&self, agent: &Agent, recorder: &Recorder, how: &str) {
        let seconds = if self.quick { 60 } else { 600 };
        eprintln!("idle: {how}, {seconds} s");
        // What the last commit still brought about is not idleness.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (begun, since) = (Instant::now(), now());
        let (before, _) = agent.usage();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let (after, rss) = agent.usage();
        let share = (after - before) / begun.elapsed().as_secs_f64() * 100.0;
        let calls = recorder.changing(since);
        let what = |what: &str| format!("idle {seconds} s, {FIFTY} containers, {how}: {what}");
        let named: Vec<String> =
            calls.iter().take(5).map(|c| format!("{} {}", c.method, c.path)).collect();
        row(
            &json!({"row": "idle", "what": what("mutating calls"), "value": calls.len(), "unit": "",
            "target": 0, "judged": "value", "note": named.join(", ")}),
        );
        row(&json!({"row": "idle", "what": what("processor"), "value": share, "unit": "%",
            "target": 0.5, "judged": "value"}));
        row(&json!({"row": "idle", "what": what("memory"), "value": rss / f64::from(1 << 20),
            "unit": "MiB", "target": 50, "judged": "value"}));
    }

    /// Removes everything of these owners.
    async fn sweep(&self) {
        for what in ["scale", "rotation", "bare", "compose", "swarm", "run", "watch"] {
            self.engine.remove((OWNER, &Self::owner(what))).await;
        }
    }
}

fn row(row: &Value) {
    println!("{row}");
}

fn peer_row(what: &str, best: f64, outcome: peers::Outcome) {
    match outcome {
        Ok(ms) => row(&json!({"row": "scale", "what": what, "value": ms, "unit": "ms",
            "ratio": ms / best, "samples": [ms]})),
        Err(why) => {
            row(&json!({"row": "scale", "what": what, "note": format!("not measured: {why}")}));
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((binary, rest)) = args.split_first() else {
        eprintln!(
            "usage: bench-engine EVENKEEL [--quick] [scale] [rotation] [heal] [commit] [idle]"
        );
        return ExitCode::from(2);
    };
    let (flags, rows): (Vec<String>, Vec<String>) =
        rest.iter().cloned().partition(|a| a.starts_with('-'));
    let bench = std::sync::Arc::new(Bench {
        binary: binary.into(),
        quick: flags.iter().any(|f| f == "--quick"),
        rows,
        engine: Engine::connect().await,
        directory: tempfile::tempdir().unwrap(),
    });
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    // On a task of its own, so that a panic in it is swept up after, too.
    let measured = bench.clone();
    let mut task = tokio::task::JoinSet::new();
    task.spawn(async move { measured.run().await });
    let fine = tokio::select! {
        ended = task.join_next() => ended.is_some_and(|e| e.is_ok()),
        _ = tokio::signal::ctrl_c() => false,
        _ = terminate.recv() => false,
    };
    task.shutdown().await;
    bench.sweep().await;
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert!((median(&samples) - 50.0).abs() < f64::EPSILON);
        assert!((quantile(&samples, 0.99) - 99.0).abs() < f64::EPSILON);
        assert!((quantile(&samples[..1], 0.01) - 100.0).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }
}
