//! A thousand services applied at once, until every one is ready.

use std::time::{Duration, Instant};

use evenkeel_tests::measure::row;
use serde_json::json;

use crate::agent::Agent;
use crate::cluster::Cluster;

const MANY: usize = 1000;
const HOSTS: usize = 20;

pub(crate) async fn measure(quick: bool) {
    let rounds = if quick { 1 } else { 3 };
    let mut took = Vec::new();
    let (mut bare, mut peaks, mut applied) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("objects: round {round} of {rounds}");
        let cluster = Cluster::start().await;
        bare.push(cluster.bare(MANY).await.as_secs_f64());
        let agent = Agent::simulated(&cluster, "objects", &["--namespaces", "shop"]);
        cluster.fleet(HOSTS).await;
        let begun = Instant::now();
        applied.push(cluster.services(MANY).await.as_secs_f64());
        cluster.ready(MANY).await;
        took.push(begun.elapsed().as_secs_f64());
        tokio::time::sleep(Duration::from_secs(2)).await;
        agent.rests().await;
        peaks.push(agent.usage().peak_mib);
    }
    let median = |samples: &[f64]| evenkeel_tests::measure::quantile(samples, 0.5);
    let what = format!("{MANY} services applied: all ready");
    let note = format!("the apply alone took {:.1} s of it", median(&applied));
    row(&json!({"row": "objects", "what": what, "value": median(&took), "unit": "s", "target": 60,
        "judged": "value", "ratio": median(&took) / median(&bare), "samples": took, "note": note}));
    let what = "the same writes by 8 at once, nobody acting on them";
    row(&json!({"row": "objects", "what": what, "value": median(&bare), "unit": "s", "ratio": 1,
        "samples": bare}));
    let most = peaks.iter().copied().fold(0.0, f64::max);
    row(&json!({"row": "objects", "what": "memory of the agent, the most", "value": most,
        "unit": "MiB", "target": 150, "judged": "value", "samples": peaks}));
}
