//! The real agent on the real engine: commits go in, containers come out.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod change;
mod external;
mod faults;
mod heal;
mod lock;
mod share;
mod shop;
mod surface;
mod traffic;
mod walkthrough;

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_tests::agent::{Bed, LONG, Service, serving, until};

/// Those of `before` that are still there are the same ones.
fn same_in_common(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    for (slot, id) in after {
        if let Some(old) = before.get(slot) {
            assert_eq!(old, id, "slot {slot} was restarted");
        }
    }
}

/// Looks at the service from outside for as long as `until_done` takes.
async fn fewest_serving(bed: &Bed, web: &Service, until_done: impl Future) -> (usize, usize) {
    let (mut fewest, mut most) = (usize::MAX, 0);
    let mut done = std::pin::pin!(until_done);
    loop {
        tokio::select! {
            _ = &mut done => return (fewest, most),
            () = tokio::time::sleep(Duration::from_millis(30)) => {}
        }
        if let Some(n) = serving(&bed.docker, &bed.owner, web).await {
            fewest = fewest.min(n);
        }
        most = most.max(bed.of(web).await.iter().filter(|c| c.state == "running").count());
    }
}

async fn replaced(bed: &Bed, web: &Service, id: &str) {
    until("it is replaced", LONG, async || {
        let now = bed.of(web).await;
        let all = now.len() == web.replicas as usize;
        (all && now.iter().all(|c| c.state == "running" && c.id != id)).then_some(())
    })
    .await;
}
