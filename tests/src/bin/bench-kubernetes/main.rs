//! Measures the controller on a real API server: prints one JSON row a measurement, for `cargo xtask bench`.
//!
//! `bench-kubernetes [--quick] [objects] [many] [read] [quiet] [kubectl]`. But for `kubectl`, hosts are simulated: the agent is
//! then this program itself, as `bench-kubernetes simulate run …`, and otherwise the one that `EVENKEEL_BIN` names. What
//! this makes is removed at the end, also after Ctrl-C.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot be made ends")]
#![allow(clippy::disallowed_methods, reason = "it measures time, and its tasks end with it")]

mod agent;
mod cluster;
mod kubectl;
mod many;
mod objects;
mod quiet;
mod read;
mod simulate;
mod socket;

use std::process::ExitCode;

async fn run(quick: bool, only: Vec<String>) {
    let wants = |row: &str| only.is_empty() || only.iter().any(|r| r == row);
    if wants("objects") {
        objects::measure(quick).await;
    }
    if wants("many") {
        many::measure(quick).await;
    }
    if wants("read") {
        read::measure(quick);
    }
    if wants("quiet") {
        quiet::measure(quick).await;
    }
    if wants("kubectl") {
        kubectl::measure(quick).await;
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|word| word == "simulate") {
        return simulate::agent(&args).await;
    }
    let (flags, rows): (Vec<String>, Vec<String>) =
        args.into_iter().partition(|a| a.starts_with('-'));
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
