//! From trees to Desired: parses every new tree, and the same one again when a secret changed.
//!
//! What is in force is kept in the store, so that a broken document is still held at its last good
//! form after a restart.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::parse::{self, Applied, Context, Known, Secrets};
use super::poll::SourceState;
use super::store::Store;
use super::tree::Tree;
use crate::model::{Desired, OwnerId};

/// The name in the store under which what is in force is kept.
pub const APPLIED: &str = "applied";
/// How often secrets are looked at.
const SECRETS: Duration = Duration::from_secs(5);

/// Parses trees.
pub struct Loader {
    owner: OwnerId,
    secrets: Arc<dyn Secrets + Send + Sync>,
    store: Option<Arc<Store>>,
    applied: Applied,
    known: Known,
}

impl Loader {
    /// A loader that goes on from what `store` kept.
    pub fn new(
        owner: OwnerId,
        secrets: Arc<dyn Secrets + Send + Sync>,
        store: Option<Arc<Store>>,
    ) -> Self {
        let kept = store.as_ref().and_then(|s| s.load_or_set_aside(APPLIED));
        let applied = kept
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| {
                let read = Applied::from_json(&text);
                if let Err(e) = &read {
                    tracing::warn!(error = %e, "what was in force cannot be read, starting afresh");
                }
                read.ok()
            })
            .unwrap_or_default();
        Self { owner, secrets, store, applied, known: Known::default() }
    }

    /// Parses one tree and keeps what is in force after it.
    pub async fn load(&mut self, tree: Arc<Tree>) -> Arc<Desired> {
        let (owner, secrets) = (self.owner.clone(), self.secrets.clone());
        let previous = std::mem::take(&mut self.applied);
        let mut known = std::mem::take(&mut self.known);
        let parsed = tokio::task::spawn_blocking(move || {
            let ctx = context(&owner, &*secrets, &previous);
            let (desired, applied) = parse_known(&tree, &ctx, &mut known);
            (desired, applied, known)
        });
        let (desired, applied, known) = match parsed.await {
            Ok(parsed) => parsed,
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        };
        if let Some(store) = &self.store
            && let Err(e) = store.save(APPLIED, applied.to_json().as_bytes())
        {
            tracing::warn!(error = %e.chain(), "what is in force cannot be kept for the next start");
        }
        self.applied = applied;
        self.known = known;
        Arc::new(desired)
    }

    /// Publishes a new Desired for every new tree and every changed secret, until the source ends.
    pub async fn run(
        mut self,
        mut states: watch::Receiver<SourceState>,
        out: watch::Sender<Option<Arc<Desired>>>,
    ) {
        let mut last: Option<Arc<Tree>> = None;
        loop {
            let tree = states.borrow_and_update().tree.clone();
            if let Some(tree) = tree {
                let same = last.as_ref().is_some_and(|l| Arc::ptr_eq(l, &tree));
                if !same || self.secrets.changed() {
                    let desired = self.load(tree.clone()).await;
                    last = Some(tree);
                    if out.send(Some(desired)).is_err() {
                        return;
                    }
                }
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(SECRETS) => {}
            }
        }
    }
}

/// A context with the usual limits and the local engine as the default fleet.
pub fn context<'a>(
    owner: &'a OwnerId,
    secrets: &'a dyn Secrets,
    previous: &'a Applied,
) -> Context<'a> {
    Context {
        owner,
        secrets,
        previous,
        limits: parse::Limits::default(),
        default_endpoint: parse::DEFAULT_ENDPOINT,
    }
}

/// Parses a tree, what was skipped of it included.
pub fn parse_tree(tree: &Tree, ctx: &Context<'_>) -> (Desired, Applied) {
    parse_known(tree, ctx, &mut Known::default())
}

fn parse_known(tree: &Tree, ctx: &Context<'_>, known: &mut Known) -> (Desired, Applied) {
    let skipped: Vec<(String, String)> =
        tree.skipped.iter().map(|s| (s.path.clone(), s.why.clone())).collect();
    parse::parse_objects(&tree.revision, &tree.files, &skipped, tree.objects.as_ref(), ctx, known)
}
