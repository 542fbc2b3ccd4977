//! A hundred changes of scale in ten seconds: how often a balancer reloads, and what it leaves behind.

use evenkeel_tests::traffic::{Provider, Show};
use serde_json::json;

use evenkeel_tests::measure::row;

pub(crate) async fn measure(quick: bool) {
    for provider in [Provider::Haproxy, Provider::Nginx] {
        let events = if quick { 30 } else { 100 };
        eprintln!("burst: {provider}");
        let mut show = Show::begin(provider, 3, 500, 0, 0).await;
        let (stage, reloads, old) = show.burst(events).await;
        let report = &stage.report;
        eprintln!("burst: {provider}: {stage}");
        // nginx reloads for each; what bounds it is the pace of its reloads.
        let target = (provider == Provider::Haproxy).then_some(2);
        let what = |what: &str| format!("{provider}, {events} changes of scale: {what}");
        row(
            &json!({"row": "burst", "what": what("reloads of a balancer at most"), "value": reloads, "unit": "",
            "target": target, "judged": "value"}),
        );
        row(
            &json!({"row": "burst", "what": what("old workers of a balancer at most"), "value": old, "unit": "",
            "target": target, "judged": "value"}),
        );
        let lost = what(&format!("lost of {} requests", report.requests()));
        row(&json!({"row": "burst", "what": lost, "value": report.failures.len(), "unit": "",
            "target": 0, "judged": "value", "note": report.to_string()}));
        show.end().await;
    }
}
