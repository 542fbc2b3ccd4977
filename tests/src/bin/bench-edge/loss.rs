//! Requests that are lost while everything changes: none.

use evenkeel_tests::traffic::{Provider, Show, Stage};
use serde_json::json;

use evenkeel_tests::measure::row;

const RATE: u32 = 500;

pub(crate) async fn measure(quick: bool) {
    let least = if quick { 3_000 } else { 30_000 };
    for provider in [Provider::Haproxy, Provider::Nginx] {
        eprintln!("loss: {provider}");
        let mut show = Show::begin(provider, 3, RATE, 20, least).await;
        show.settle_at(10).await;
        tell(provider, &show.scale(&[3, 10]).await);
        tell(provider, &show.roll().await);
        tell(provider, &show.rollback().await);
        tell(provider, &show.restart().await);
        tell(provider, &show.kill().await);
        tell(provider, &show.roll_balancers().await);
        show.end().await;
    }
}

fn tell(provider: Provider, stage: &Stage) {
    eprintln!("loss: {provider}: {stage}");
    let Stage { what, report, excused, took } = stage;
    let requests = report.requests();
    let kinds: Vec<String> = report.kinds().iter().map(|(k, n)| format!("{n} {k}")).collect();
    let [half, most] = [0.5, 0.99].map(|part| report.latency(part));
    let mut note = format!(
        "{} elsewhere, {} again, p50 {half:.1} ms, p99 {most:.1} ms",
        report.elsewhere, report.again
    );
    if *excused > 0 {
        note = format!("{note}, {excused} in the killed one");
    }
    if !kinds.is_empty() {
        note = format!("{note}, {}", kinds.join(", "));
    }
    row(&json!({
        "row": "loss", "what": format!("{provider}, {what}: lost of {requests}"),
        "value": report.failures.len(), "unit": "", "target": 0, "judged": "value", "note": note,
        "requests": requests, "elsewhere": report.elsewhere, "again": report.again,
        "excused": excused, "kinds": kinds, "rate": RATE, "tookMs": took.as_secs_f64() * 1e3,
        "p50Ms": half, "p99Ms": most, "maxMs": report.latency(1.0),
    }));
}
