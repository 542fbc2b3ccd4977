//! Clients that keep asking through real balancers while the agent changes everything behind and before them.

use evenkeel_tests::traffic::{Provider, Show, Stage};

/// Requests a second, and of each stage at least.
const RATE: u32 = 200;
const LEAST: usize = 1000;

/// Not one request is lost; `detours`: some had to go to another balancer.
fn well(stage: &Stage, detours: bool) {
    eprintln!("{stage}");
    let Stage { what, report, .. } = stage;
    assert!(
        report.failures.is_empty(),
        "{stage}\n{:#?}",
        &report.failures[..3.min(report.failures.len())]
    );
    assert!(report.requests() >= LEAST, "{stage}");
    assert!(detours || report.elsewhere == 0, "{what}: nobody may be refused\n{stage}");
    assert!(report.latency(0.5) < 100.0, "{stage}");
    // Whoever answers, answers his share: nobody that is in is left out.
    let spread = report.spread();
    assert!(spread.len() >= 3 && spread.values().all(|n| *n > 0), "{what}: {spread:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_loses_no_request_whatever_happens() {
    let mut show = Show::begin(Provider::Haproxy, 2, RATE, LEAST).await;
    well(&show.scale().await, false);
    // More places were made for more servers; from here on there is room for everybody.
    let before = show.workers().await;
    well(&show.roll().await, false);
    well(&show.rollback().await, false);
    well(&show.restart().await, false);
    assert_eq!(show.workers().await, before, "endpoints changed, and HAProxy was reloaded");
    well(&show.kill().await, true);
    well(&show.roll_balancers().await, true);
    show.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_loses_no_request_whatever_happens() {
    let mut show = Show::begin(Provider::Nginx, 2, RATE, LEAST).await;
    well(&show.scale().await, false);
    well(&show.roll().await, false);
    well(&show.restart().await, false);
    well(&show.roll_balancers().await, true);
    show.end().await;
}
