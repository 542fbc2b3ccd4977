//! What every measurement needs: rows as `cargo xtask bench` reads them, and what a process takes.
#![allow(clippy::print_stdout, reason = "the rows are the output of a measurement")]

use std::fs;

use serde_json::{Value, json};

/// The value that this part of the samples does not exceed.
pub fn quantile(samples: &[f64], part: f64) -> f64 {
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

/// Prints one row.
pub fn row(row: &Value) {
    println!("{row}");
}

/// Median and p99 of samples in milliseconds, each with its target where there is one.
pub fn rows(name: &str, what: &str, samples: &[f64], targets: [Option<u32>; 2]) {
    for ((part, text), target) in [(0.5, "median"), (0.99, "p99")].into_iter().zip(targets) {
        let what = format!("{what}, {} times: {text}", samples.len());
        row(&json!({"row": name, "what": what, "value": quantile(samples, part), "unit": "ms",
            "target": target, "judged": "value", "samples": samples}));
    }
}

/// What a process has taken.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Seconds of processor time.
    pub seconds: f64,
    /// Resident memory now, MiB.
    pub mib: f64,
    /// The most that was ever resident, MiB.
    pub peak_mib: f64,
}

/// What a process that runs has taken.
pub fn usage(pid: u32) -> Usage {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let (stat, status) = (read("stat"), read("status"));
    // After the name in brackets, which may hold anything: state, then 10 more before user and system time.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let mib = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    };
    // The kernel's tick is 100 a second wherever Linux runs today.
    Usage { seconds: ticks / 100.0, mib: mib("VmRSS:"), peak_mib: mib("VmHWM:") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert!((quantile(&samples, 0.5) - 50.0).abs() < f64::EPSILON);
        assert!((quantile(&samples, 0.99) - 99.0).abs() < f64::EPSILON);
        assert!((quantile(&samples[..1], 0.01) - 100.0).abs() < f64::EPSILON);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_process_takes_something() {
        let taken = usage(std::process::id());
        assert!(taken.mib > 1.0 && taken.peak_mib >= taken.mib && taken.seconds >= 0.0);
    }
}
