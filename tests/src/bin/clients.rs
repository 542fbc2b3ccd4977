//! Clients for `cargo xtask demo`: asks balancers at a steady rate and says four times a second, as a line of JSON, what
//! became of all requests so far. Ends with its standard input, after the requests under way.
//!
//! `clients RATE HOST ADDRESS…`
#![allow(clippy::unwrap_used, reason = "it has nothing else to do than to end")]
#![allow(clippy::print_stdout, reason = "the lines are its output")]
#![allow(
    clippy::disallowed_methods,
    reason = "failures are told by the wall clock, as those who caused them know it"
)]

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime};

use evenkeel_tests::load::{Load, Plan, Report};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};

const EVERY: Duration = Duration::from_millis(250);

/// All requests so far.
#[derive(Default)]
struct Totals {
    answered: usize,
    elsewhere: u64,
    /// By balancer, then by who answered.
    by: BTreeMap<String, BTreeMap<String, u64>>,
    failures: Vec<Value>,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.answered += report.hits.len();
        self.elsewhere += report.elsewhere;
        for hit in &report.hits {
            let its = self.by.entry(hit.at.to_string()).or_default();
            *its.entry(hit.instance.to_string()).or_default() += 1;
        }
        self.failures.extend(report.failures.iter().map(
            |f| json!({"how": f.kind.to_string(), "at": f.at.to_string(), "begun": epoch(f.begun)}),
        ));
    }

    fn say(&self) {
        let Self { answered, elsewhere, by, failures } = self;
        println!(
            "{}",
            json!({"answered": answered, "elsewhere": elsewhere, "by": by, "failures": failures})
        );
    }
}

/// Milliseconds since the Unix epoch.
fn epoch(at: Instant) -> u64 {
    let then = SystemTime::now() - at.elapsed();
    let since = then.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [rate, host, at @ ..] = &args[..] else {
        eprintln!("usage: clients RATE HOST ADDRESS…");
        std::process::exit(2);
    };
    let rate = rate.parse().unwrap();
    let at = at.iter().map(|at| at.parse().unwrap()).collect();
    let plan = Plan { at, host: host.clone(), path: "/".into(), rate, workers: (rate / 10).max(6) };
    let load = Load::start(plan);
    let mut totals = Totals::default();
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (end, mut ended) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = end.send(());
    });
    loop {
        tokio::select! {
            _ = &mut ended => break,
            _ = tick.tick() => {}
        }
        totals.add(&load.take());
        totals.say();
    }
    totals.add(&load.end().await);
    totals.say();
}
