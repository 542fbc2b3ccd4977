//! What the servers know: followed all the time, and rid of what dead hosts left in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::board::by_instance;
use super::diff::leftovers;
use super::http::{CALL, CallError};
use super::wire::{CheckAnswer, NodeAnswer, catalog, checks_filter, services_filter};
use super::{FIRST_PAUSE, LONGEST_PAUSE, SLOW, Shared};
use crate::error::causes;
use crate::model::Seen;

/// How long the servers may wait for news. A registry that fell silent without a word is noticed a little later.
const WAIT: Duration = Duration::from_secs(10);
/// At least so long between two questions: in a large cluster there is news all the time.
const GAP: Duration = Duration::from_millis(100);
/// The same where the servers do not number their answers, and so cannot wait.
const LONG_GAP: Duration = Duration::from_secs(1);

/// Follows the checks of our entries; they come and go with the entries, and maintenance is one of them.
pub(super) async fn follow(shared: Arc<Shared>) {
    let filter = checks_filter(&shared.ours);
    let wait = format!("{}s", WAIT.as_secs());
    let (mut index, mut pause) = (0_u64, FIRST_PAUSE);
    loop {
        let number = index.to_string();
        let mut query = vec![("filter", filter.as_str())];
        let mut within = CALL;
        if index > 0 {
            query.extend([("index", number.as_str()), ("wait", wait.as_str())]);
            // The servers add up to a sixteenth, so that not everybody comes back at once.
            within += WAIT + WAIT / 16;
        }
        let asked = shared.http.get::<Vec<CheckAnswer>>(
            &shared.base,
            "/v1/health/state/any",
            &query,
            within,
        );
        match asked.await {
            Ok(answer) => {
                pause = FIRST_PAUSE;
                // Numbers that go back are those of another life of the servers.
                index = if answer.index < index { 0 } else { answer.index };
                let found = catalog(&shared.ours, answer.body);
                {
                    let wanted = shared.want.borrow();
                    shared.board.seen(&by_instance(&found, wanted.as_deref()));
                }
                shared.catalog.send_if_modified(|known| {
                    let news = known.as_deref() != Some(&found);
                    if news {
                        *known = Some(Arc::new(found));
                    }
                    news
                });
                sleep(if index == 0 { LONG_GAP } else { GAP }).await;
            }
            Err(e) => {
                index = 0;
                shared.board.failed(causes(&e));
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Takes back what no agent can take back any more: the entries of dead hosts.
///
/// An agent that returns tells the servers of them again, and then takes them back itself.
pub(super) async fn sweep(shared: Arc<Shared>) {
    let mut catalog = shared.catalog.subscribe();
    let mut want = shared.want.subscribe();
    let mut agents = shared.agents.subscribe();
    let mut swept: BTreeMap<(String, String), Instant> = BTreeMap::new();
    loop {
        let known = catalog.borrow_and_update().clone();
        let wanted = want.borrow_and_update().clone();
        let of_agents = agents.borrow_and_update().known();
        if let (Some(known), Some(wanted), Some(of_agents)) = (known, wanted, of_agents)
            && shared.board.view().seen == Seen::Now
        {
            swept.retain(|_, at| at.elapsed() < SLOW);
            let mut problem = None;
            for (node, ids) in leftovers(&shared.ours, &wanted, &known, &of_agents) {
                let due = |id: &String| !swept.contains_key(&(node.clone(), id.clone()));
                let ids: BTreeSet<String> = ids.into_iter().filter(due).collect();
                if ids.is_empty() {
                    continue;
                }
                if let Err(e) = forget(&shared, &node, &ids).await {
                    problem = Some(format!("entries of node {node} are left over: {}", causes(&e)));
                }
                swept.extend(ids.into_iter().map(|id| ((node.clone(), id), Instant::now())));
            }
            shared.board.agent(SWEEP, problem);
        }
        let news = async {
            tokio::select! {
                changed = catalog.changed() => changed.is_ok(),
                changed = want.changed() => changed.is_ok(),
                changed = agents.changed() => changed.is_ok(),
            }
        };
        if matches!(timeout(SLOW, news).await, Ok(false)) {
            return;
        }
    }
}

/// What the sweep's own problem is kept under.
pub(super) const SWEEP: &str = "the catalogue";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Forget<'a> {
    node: &'a str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
}

/// Asks whose they are before it takes them out.
async fn forget(shared: &Shared, node: &str, ids: &BTreeSet<String>) -> Result<(), CallError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !node.chars().all(plain) || node.chars().all(|c| c == '.') {
        return Ok(()); // would be another path
    }
    let filter = services_filter(&shared.ours);
    let (http, base) = (&shared.http, &shared.base);
    let path = format!("/v1/catalog/node/{node}");
    let answer =
        http.get::<Option<NodeAnswer>>(base, &path, &[("filter", filter.as_str())], CALL).await?;
    let own = answer.body.unwrap_or_default().ours(&shared.ours);
    for id in ids.intersection(&own) {
        let body = Forget { node, service_id: id };
        http.put(base, "/v1/catalog/deregister", &[], Some(&body)).await?;
        tracing::info!(node, id, "took the entry of a dead host out of the registry");
    }
    Ok(())
}
