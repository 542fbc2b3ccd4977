//! Nothing is written while nothing happens, whatever becomes of the watches.

use std::time::{Duration, Instant};

use evenkeel_tests::kube::access::Access;
use evenkeel_tests::kube::proxy::{Fault, Proxy};
use evenkeel_tests::measure::row;
use serde_json::json;

use crate::agent::Agent;
use crate::cluster::Cluster;

const MANY: usize = 1000;
const HOSTS: usize = 20;
/// Each is watched.
const KINDS: usize = 3;
/// Longer than any watch lasts.
const WATCH: Duration = Duration::from_secs(75);

pub(crate) async fn measure(quick: bool) {
    let (seconds, pause) = if quick { (90, 30) } else { (600, 60) };
    let mut cluster = Cluster::start().await;
    let proxy = cluster.proxy().await;
    let mut agent = Agent::simulated(&cluster, "quiet", &[]);
    cluster.fleet(HOSTS).await;
    cluster.services(MANY).await;
    cluster.ready(MANY).await;
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let each = writes(&proxy.seen()).len() as f64 / MANY as f64;
    row(&json!({"row": "quiet", "what": format!("writes for each of {MANY} services until ready"),
        "value": each, "unit": ""}));
    rests(&proxy, &agent).await;
    eprintln!("quiet: {seconds} s");
    let from = proxy.seen().len();
    let (begun, before) = (Instant::now(), agent.usage().seconds);
    let mut gone = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        // The next watches are told that their version is too old: everything is listed again.
        proxy.fault(|access| access.verb == "watch", Fault::Answer(410));
        agent.ring();
        let lists = || proxy.seen().iter().filter(|a| a.verb == "list").count();
        let (before, faulty) = (lists(), Instant::now());
        while lists() < before + KINDS && faulty.elapsed() < WATCH {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        proxy.calm();
        gone += 1;
    }
    let share = (agent.usage().seconds - before) / begun.elapsed().as_secs_f64() * 100.0;
    let seen = proxy.seen().split_off(from);
    let count = |verb: &str| seen.iter().filter(|a| a.verb == verb).count();
    let leases = seen.iter().filter(|a| a.resource == "leases").count();
    let written = writes(&seen);
    let mut note = format!(
        "{} lists, {} watches, versions too old {gone} times; {leases} requests about the lease",
        count("list"),
        count("watch"),
    );
    for access in written.iter().take(5) {
        note = format!("{note}; {access}");
    }
    let what = format!("idle {seconds} s, {MANY} services: writes beside the lease");
    row(&json!({"row": "quiet", "what": what, "value": written.len(), "unit": "", "target": 0,
        "judged": "value", "note": note}));
    let what = format!("idle {seconds} s, {MANY} services: processor");
    row(&json!({"row": "quiet", "what": what, "value": share, "unit": "%"}));
}

fn writes(seen: &[Access]) -> Vec<&Access> {
    let reads = ["get", "list", "watch"];
    seen.iter().filter(|a| !reads.contains(&a.verb.as_str()) && a.resource != "leases").collect()
}

/// What the beginning brings about is not idleness.
async fn rests(proxy: &Proxy, agent: &Agent) {
    loop {
        let before = writes(&proxy.seen()).len();
        tokio::time::sleep(Duration::from_secs(12)).await;
        if writes(&proxy.seen()).len() == before {
            return;
        }
        eprintln!("quiet: not yet at rest, {:.0} MiB", agent.usage().mib);
    }
}
