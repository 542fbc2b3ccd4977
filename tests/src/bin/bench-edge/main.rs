//! Measures traffic through real balancers: prints one JSON row a measurement, for `cargo xtask bench`.
//!
//! `bench-edge [--quick] [loss] [drop] [burst] [size]`. The agent is the one that `EVENKEEL_BIN` names. What this makes
//! is removed at the end, also after Ctrl-C.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot be made ends")]
#![allow(clippy::print_stdout, reason = "the rows are its output")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod burst;
mod drop;
mod loss;
mod size;

use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::{Value, json};

/// Nanoseconds since the Unix epoch, as the engine's events count them.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(0)
}

fn millis(nanos: i64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "milliseconds are shown with one digit")]
    let nanos = nanos as f64;
    nanos / 1e6
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

fn row(row: &Value) {
    println!("{row}");
}

/// Median and p99 of samples in milliseconds, each with its target where there is one.
fn rows(name: &str, what: &str, samples: &[f64], targets: [Option<u32>; 2]) {
    for ((part, text), target) in [(0.5, "median"), (0.99, "p99")].into_iter().zip(targets) {
        let what = format!("{what}, {} times: {text}", samples.len());
        row(&json!({"row": name, "what": what, "value": quantile(samples, part), "unit": "ms",
            "target": target, "judged": "value", "samples": samples}));
    }
}

async fn run(quick: bool, only: Vec<String>) {
    let wants = |row: &str| only.is_empty() || only.iter().any(|r| r == row);
    if wants("loss") {
        loss::measure(quick).await;
    }
    if wants("drop") {
        drop::measure(quick).await;
    }
    if wants("burst") {
        burst::measure(quick).await;
    }
    if wants("size") {
        size::measure(quick).await;
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let (flags, rows): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|a| a.starts_with('-'));
    let quick = flags.iter().any(|f| f == "--quick");
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    // What is dropped in the middle, also by a panic, sweeps what it made.
    let fine = tokio::select! {
        () = run(quick, rows) => true,
        _ = tokio::signal::ctrl_c() => false,
        _ = terminate.recv() => false,
    };
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
