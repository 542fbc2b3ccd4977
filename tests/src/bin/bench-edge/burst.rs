//! A hundred changes of scale in ten seconds: how often a balancer reloads, and what it leaves behind.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_tests::traffic::{Provider, Show, children};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::row;

/// What was seen of one balancer's workers.
#[derive(Default)]
struct Seen {
    first: BTreeSet<u32>,
    all: BTreeSet<u32>,
    most: usize,
}

impl Seen {
    fn look(&mut self, now: &[u32]) {
        self.most = self.most.max(now.len());
        self.all.extend(now);
    }

    /// How many workers a generation has.
    fn generation(&self) -> usize {
        self.first.len().max(1)
    }

    fn reloads(&self) -> usize {
        self.all.difference(&self.first).count() / self.generation()
    }

    /// Beyond the generation in force.
    fn old(&self) -> usize {
        self.most.saturating_sub(self.generation())
    }
}

pub(crate) async fn measure(quick: bool) {
    for provider in [Provider::Haproxy, Provider::Nginx] {
        let events = if quick { 30 } else { 100 };
        eprintln!("burst: {provider}");
        let mut show = Show::begin(provider, 3, 500, 0, 0).await;
        let mut watch = JoinSet::new();
        let mut seen = Vec::new();
        for (_, master) in show.masters().await {
            let first: BTreeSet<u32> = children(master).into_iter().collect();
            let its = Arc::new(Mutex::new(Seen { first, ..Seen::default() }));
            seen.push(its.clone());
            watch.spawn(async move {
                loop {
                    its.lock().unwrap().look(&children(master));
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
        show.load.take();
        let mut due = interval(Duration::from_millis(100));
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for n in 0..events {
            due.tick().await;
            show.web = show.web.replicas(4 + n * 3 % 7);
            show.commit();
            show.ring().await;
        }
        show.settled().await;
        show.load.more(2).await;
        watch.shutdown().await;
        let report = show.load.take();
        eprintln!("burst: {provider}: {report}");
        let most = |of: fn(&Seen) -> usize| {
            seen.iter().map(|s| of(&s.lock().unwrap())).max().unwrap_or_default()
        };
        // nginx reloads for each; what bounds it is the pace of its reloads.
        let target = (provider == Provider::Haproxy).then_some(2);
        let what = |what: &str| format!("{provider}, {events} changes of scale: {what}");
        let reloads = what("reloads of a balancer at most");
        row(&json!({"row": "burst", "what": reloads, "value": most(Seen::reloads), "unit": "",
            "target": target, "judged": "value"}));
        let old = what("old workers of a balancer at most");
        row(&json!({"row": "burst", "what": old, "value": most(Seen::old), "unit": "",
            "target": target, "judged": "value"}));
        let lost = what(&format!("lost of {} requests", report.requests()));
        let note = report.to_string();
        row(&json!({"row": "burst", "what": lost, "value": report.failures.len(), "unit": "",
            "target": 0, "judged": "value", "note": note}));
        show.end().await;
    }
}
