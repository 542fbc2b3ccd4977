//! Ten thousand services: reading them, looking at all of them again, and what that leaves behind in memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel::kubernetes::object::Kind;
use evenkeel_tests::measure::{quantile, row};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::agent::Agent;
use crate::cluster::{Cluster, NAMESPACE};

/// In an hour everything is looked at again this often.
const RESYNCS: usize = 120;
/// And every watch was broken this often.
const BREAKS: usize = 6;
/// Looks until memory has come to what it is.
const WARM: usize = 20;

pub(crate) async fn measure(quick: bool) {
    let (many, resyncs) = if quick { (2000, 40) } else { (10_000, RESYNCS) };
    let mut cluster = Cluster::start().await;
    cluster.fleet(many / 100).await;
    eprintln!("many: {many} services");
    let agent = Agent::simulated(&cluster, "many", &["--lease", "off"]);
    let begun = Instant::now();
    cluster.services(many).await;
    cluster.ready(many).await;
    let what = format!("{many} services applied: all ready");
    row(&json!({"row": "many", "what": what, "value": begun.elapsed().as_secs_f64(), "unit": "s"}));
    let what = format!("{many} services: memory of the agent, the most");
    row(&json!({"row": "many", "what": what, "value": agent.usage().peak_mib, "unit": "MiB"}));
    drop(agent);

    eprintln!("many: a start with all of them there");
    let bare = list(&cluster).await;
    let started = Timestamp::now();
    let mut agent = Agent::simulated(&cluster, "many", &["--lease", "off"]);
    let read = loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let whole = agent.said("new objects").into_iter().find_map(|line| {
            let at: Timestamp = line["timestamp"].as_str()?.parse().ok()?;
            let all = line["objects"].as_u64()? > many as u64;
            (all && at >= started).then(|| at.duration_since(started).as_secs_f64() * 1e3)
        });
        if let Some(read) = whole {
            break read;
        }
        assert!(agent.begun.elapsed() < Duration::from_secs(120), "{}", agent.tail());
    };
    let what = format!("{many} services: from the start of the agent to all read");
    row(&json!({"row": "many", "what": what, "value": read, "unit": "ms", "ratio": read / bare,
        "note": format!("a bare list takes {bare:.0} ms")}));
    settled(&cluster, &agent).await;

    let before = versions(&cluster);
    let events = count(&cluster).await;
    let (mut took, mut mib) = (Vec::new(), Vec::new());
    for n in 0..resyncs {
        eprintln!("many: look {} of {resyncs}", n + 1);
        if n % (resyncs / BREAKS) == 0 && n > 0 {
            cluster.server.restart();
            tokio::time::sleep(Duration::from_secs(3)).await;
            agent.rests().await;
        }
        let at = agent.usage().seconds;
        // A change that means nothing: the documents are put together anew and every status compared.
        touch(&cluster, n).await;
        agent.ring();
        tokio::time::sleep(Duration::from_millis(100)).await;
        agent.rests().await;
        let usage = agent.usage();
        took.push((usage.seconds - at) * 1e3);
        mib.push(usage.mib);
    }
    let what = format!("{many} services: everything looked at again, processor time, median");
    row(&json!({"row": "many", "what": what, "value": quantile(&took, 0.5), "unit": "ms",
        "target": 2000, "judged": "value", "samples": took}));
    let what = format!("{many} services: memory at rest");
    row(&json!({"row": "many", "what": what, "value": mib.last(), "unit": "MiB"}));
    let warm = WARM.min(resyncs / 2);
    let early = quantile(&mib[..warm], 1.0);
    let late = quantile(&mib[mib.len() - warm..], 0.5);
    let what = format!("{resyncs} looks, watches broken {} times: growth of memory", BREAKS - 1);
    row(&json!({"row": "many", "what": what, "value": late - early, "unit": "MiB", "target": 5,
        "judged": "value", "samples": mib}));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = versions(&cluster);
    let touched = "s00000";
    let written = before.iter().filter(|(k, v)| *k != touched && after.get(*k) != Some(v)).count();
    let events = count(&cluster).await - events;
    let what = format!("{resyncs} looks: objects written to");
    row(&json!({"row": "many", "what": what, "value": written + events, "unit": "", "target": 0,
        "judged": "value"}));
}

/// Waits until every service is ready, and nothing is written any more.
async fn settled(cluster: &Cluster, agent: &Agent) {
    let mut before = versions(cluster);
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        agent.rests().await;
        let now = versions(cluster);
        if now == before {
            return;
        }
        before = now;
    }
}

fn versions(cluster: &Cluster) -> BTreeMap<String, String> {
    let view = cluster.view();
    view.objects.values().map(|o| (o.key.name.to_string(), o.version.clone())).collect()
}

async fn count(cluster: &Cluster) -> usize {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    events.list(&ListParams::default()).await.unwrap().items.len()
}

async fn touch(cluster: &Cluster, n: usize) {
    let patch = json!({"metadata": {"labels": {"look": n.to_string()}}});
    let api = cluster.api(NAMESPACE, Kind::ScalingService);
    api.patch("s00000", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

/// How long the API server takes for the same list where nobody keeps it, in pages of the same size.
async fn list(cluster: &Cluster) -> f64 {
    let begun = Instant::now();
    let api = cluster.api(NAMESPACE, Kind::ScalingService);
    let mut params = ListParams::default().limit(500);
    loop {
        let page = api.list_metadata(&params).await.unwrap();
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return begun.elapsed().as_secs_f64() * 1e3,
        }
    }
}
