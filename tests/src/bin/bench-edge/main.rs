//! Measures traffic through real balancers: prints one JSON row a measurement, for `cargo xtask bench`.
//!
//! `bench-edge [--quick] [loss] [drop] [burst] [size]`. The agent is the one that `EVENKEEL_BIN` names. What this makes
//! is removed at the end, also after Ctrl-C.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot be made ends")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod burst;
mod drop;
mod loss;
mod size;

use std::process::ExitCode;
use std::time::SystemTime;

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
