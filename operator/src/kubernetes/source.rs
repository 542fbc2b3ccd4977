//! Publishes the objects as a source does: the newest tree, and beside it what is wrong.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::cache::{Cache, View};
use super::tree::{Snapshot, compose};
use crate::clock::Clock;
use crate::source::poll::{SourceError, SourceState};
use crate::source::store::Store;
use crate::source::{Limits, Tree};

/// What is told of the source, and what its trees are kept under.
pub const DESCRIBE: &str = "kubernetes custom resources";
/// A watch that fails for less than this is no news: servers restart.
const PATIENCE: SignedDuration = SignedDuration::from_secs(3);
/// Changes that come together become one tree.
const QUIET: Duration = Duration::from_millis(20);
/// How often it is looked at while something is wrong.
const ILL: Duration = Duration::from_secs(1);
/// How often otherwise, to say that it was read.
const WELL: Duration = Duration::from_secs(10);
/// Objects in all trees that are remembered.
const REMEMBERED: usize = 200_000;
/// Most objects that one tree holds. A file of a repository may hold many documents, and an object is one.
pub const MOST: usize = 20_000;
/// Trees that are remembered whatever their size.
const LEAST: usize = 8;

/// Which generation of each object the newest trees had: what a pass was about is told by its revision.
#[derive(Debug, Clone, Default)]
pub struct Snapshots(Arc<Mutex<Newest>>);

/// By revision, the newest last.
type Newest = VecDeque<(String, Arc<Snapshot>)>;

impl Snapshots {
    fn push(&self, revision: &str, snapshot: Snapshot) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_back((revision.to_owned(), Arc::new(snapshot)));
        let mut size: usize = all.iter().map(|(_, s)| s.len()).sum();
        while all.len() > LEAST && size > REMEMBERED {
            size -= all.pop_front().map_or(0, |(_, s)| s.len());
        }
    }

    /// The objects of a revision, also of one that has other documents too. `None` where it is forgotten, or was of
    /// another process.
    pub fn get(&self, revision: &str) -> Option<Arc<Snapshot>> {
        let own = revision.rsplit('+').next().unwrap_or(revision);
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().rev().find(|(r, _)| r == own).map(|(_, s)| s.clone())
    }
}

/// The source. Build it, subscribe, then [`Source::run`] it.
pub struct Source {
    cache: Cache,
    clock: Clock,
    store: Option<Arc<Store>>,
    snapshots: Snapshots,
    published: watch::Sender<SourceState>,
}

impl Source {
    /// One that begins with the last good tree of an earlier start.
    pub fn new(cache: Cache, clock: Clock, store: Option<Arc<Store>>) -> Self {
        let kept = store.as_ref().and_then(|s| s.load_tree(DESCRIBE));
        let from_store = kept.is_some();
        let state = SourceState { tree: kept.map(Arc::new), from_store, ..SourceState::default() };
        let snapshots = Snapshots::default();
        Self { cache, clock, store, snapshots, published: watch::Sender::new(state) }
    }

    /// The published state; the receiver sees every change, or the newest of several.
    pub fn subscribe(&self) -> watch::Receiver<SourceState> {
        self.published.subscribe()
    }

    /// What the trees were made of.
    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }

    /// Publishes for ever. Ends by being dropped, which is safe at any moment.
    pub async fn run(self) {
        let mut news = self.cache.subscribe();
        loop {
            news.borrow_and_update();
            let view = self.cache.view();
            self.publish(&view).await;
            let pause = if view.broken.is_empty() { WELL } else { ILL };
            tokio::select! {
                changed = news.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(QUIET).await;
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn publish(&self, view: &View) {
        let now = self.clock.timestamp();
        let error = error(view, now);
        let known = {
            let state = self.published.borrow();
            // What an earlier process kept was read by its rules: it is replaced by what is seen now.
            state.tree.as_ref().filter(|_| !state.from_store).map(|t| t.revision.clone())
        };
        let composed = compose(view, &Limits { max_files: MOST, ..Limits::default() });
        let new = composed.filter(|(tree, _)| Some(&tree.revision) != known.as_ref());
        let new = new.map(|(tree, snapshot)| {
            self.snapshots.push(&tree.revision, snapshot);
            Arc::new(tree)
        });
        let read = view.unlisted.is_empty() && view.broken.is_empty();
        self.published.send_modify(|state| {
            if let Some(tree) = &new {
                tracing::info!(revision = %tree.revision, objects = tree.files.len(), "new objects");
                state.tree = Some(tree.clone());
                state.from_store = false;
            }
            if read {
                state.last_success = Some(now);
            }
            state.error = error;
        });
        // After it was told: a slow disk must not hold up what a person waits for.
        if let Some(tree) = new {
            let not_kept = self.keep(tree).await;
            if self.published.borrow().not_kept != not_kept {
                self.published.send_modify(|state| state.not_kept = not_kept);
            }
        }
    }

    /// Why the tree could not be kept, or `None`.
    async fn keep(&self, tree: Arc<Tree>) -> Option<String> {
        let store = self.store.clone()?;
        let save = move || store.save_tree(DESCRIBE, &tree).map_err(|e| e.chain());
        let message = match tokio::task::spawn_blocking(save).await {
            Ok(saved) => saved.err()?,
            Err(e) => e.to_string(),
        };
        tracing::warn!(error = %message, "the objects cannot be kept for the next start");
        Some(message)
    }
}

/// What is wrong with watching, as one error. The first of several stands for them all.
fn error(view: &View, now: Timestamp) -> Option<SourceError> {
    let lasting = |since: Timestamp| now.duration_since(since) >= PATIENCE;
    let mut broken = view
        .broken
        .iter()
        .filter(|(scope, b)| lasting(b.since) || view.unlisted.contains(*scope))
        .map(|(_, b)| b);
    let first = broken.next()?;
    let rest = broken.clone().count();
    let more = if rest == 0 { String::new() } else { format!(" (and {rest} more)") };
    let all = || std::iter::once(first).chain(broken.clone());
    Some(SourceError {
        message: format!("{}{more}", first.message),
        hint: first.hint.clone(),
        since: all().map(|b| b.since).min().unwrap_or(first.since),
        next_try: all().map(|b| b.next_try).min().unwrap_or(first.next_try),
        failures: all().map(|b| b.failures).max().unwrap_or(first.failures),
    })
}
