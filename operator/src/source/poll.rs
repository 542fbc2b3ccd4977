//! Asks a source for its newest tree, on a timer and when a doorbell rings, and publishes what
//! came.
//!
//! An error never replaces a tree: the last good one stays in force beside it, also over a
//! restart. A ring is never lost: one that comes during a fetch causes another fetch, and any
//! number of them cause one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::bell::Doorbell;

use super::error::FetchError;
use super::store::Store;
use super::tree::Tree;

/// Somewhere that revisions come from.
#[async_trait]
pub trait Fetch: Send {
    /// The newest tree, or `None` where it is still the revision `last`. Must return in bounded
    /// time; dropping the future must be safe.
    async fn fetch(&mut self, last: Option<&str>) -> Result<Option<Tree>, FetchError>;

    /// Which source this is, for people and for the store: stable, and without credentials.
    fn describe(&self) -> String;
}

#[async_trait]
impl Fetch for Box<dyn Fetch + Sync> {
    async fn fetch(&mut self, last: Option<&str>) -> Result<Option<Tree>, FetchError> {
        (**self).fetch(last).await
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}

/// Gives the wall clock, for people to read; nothing is decided by it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How often a source is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two fetches that went well; ±10 % jitter, so that a hundred agents do not ask
    /// one server in step.
    pub interval: Duration,
    /// After the first error; doubles with each further one.
    pub retry_min: Duration,
    /// Where the doubling ends.
    pub retry_max: Duration,
    /// Least time between two fetches, however often the bell rings.
    pub quiet: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            retry_min: Duration::from_secs(2),
            retry_max: Duration::from_secs(300),
            quiet: Duration::from_millis(100),
        }
    }
}

impl Pace {
    /// The delay after `failures` errors in a row (1 for the first), before jitter.
    pub fn retry(&self, failures: u32) -> Duration {
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1).min(31));
        self.retry_min.saturating_mul(doubled).min(self.retry_max)
    }
}

/// What is known of a source now.
#[derive(Debug, Clone, Default)]
pub struct SourceState {
    /// The newest good tree there ever was. `None` only before the first one.
    pub tree: Option<Arc<Tree>>,
    /// When a fetch last went well, with or without a change.
    pub last_success: Option<Timestamp>,
    /// Why the newest fetch did not.
    pub error: Option<SourceError>,
    /// The tree is from the state directory and the source has not confirmed it since start.
    pub from_store: bool,
    /// Why the tree could not be kept for the next start, where so.
    pub not_kept: Option<String>,
}

/// Errors of one source, seen together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError {
    /// The newest error with its causes, without credentials.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// When the row of errors began.
    pub since: Timestamp,
    /// When it will be tried again, unless a bell rings before.
    pub next_try: Timestamp,
    /// Errors in a row.
    pub failures: u32,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Small seeded generator (SplitMix64): only the spread counts here, not secrecy.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// Seeded at the rim, for example from the process id and the clock.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `d` times 0.9 to 1.1.
    pub fn spread(&mut self, d: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = u32::try_from((z ^ (z >> 31)) >> 44).unwrap_or(0); // 20 bits
        let unit = f64::from(part) / f64::from(1u32 << 20);
        d.mul_f64(0.9 + 0.2 * unit)
    }
}

/// The loop of one source. Build it, subscribe, then [`Poller::run`] it on a task that somebody
/// waits for.
pub struct Poller<F> {
    fetch: F,
    pace: Pace,
    bell: Doorbell,
    clock: Clock,
    jitter: Jitter,
    store: Option<Arc<Store>>,
    state: watch::Sender<SourceState>,
}

impl<F> fmt::Debug for Poller<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("pace", &self.pace).finish_non_exhaustive()
    }
}

impl<F: Fetch> Poller<F> {
    /// A poller that has asked nothing yet. With a `store` it begins with the last good tree
    /// of the same source.
    pub fn new(
        fetch: F,
        pace: Pace,
        bell: Doorbell,
        clock: Clock,
        jitter: Jitter,
        store: Option<Arc<Store>>,
    ) -> Self {
        let kept = store.as_ref().and_then(|s| s.load_tree(&fetch.describe()));
        let from_store = kept.is_some();
        let state = SourceState { tree: kept.map(Arc::new), from_store, ..SourceState::default() };
        Self { fetch, pace, bell, clock, jitter, store, state: watch::Sender::new(state) }
    }

    /// The published state; the receiver sees every change, or the newest of several.
    pub fn subscribe(&self) -> watch::Receiver<SourceState> {
        self.state.subscribe()
    }

    /// Fetches for ever. Ends by being dropped, which is safe at any moment.
    pub async fn run(mut self) {
        loop {
            self.bell.answer();
            let wait = self.once().await;
            tokio::time::sleep(self.pace.quiet.min(wait)).await;
            let rest = wait.saturating_sub(self.pace.quiet);
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.bell.rung() => {}
            }
        }
    }

    /// Fetches once and publishes; gives the time until the next one. For `--once` and tests.
    pub async fn once(&mut self) -> Duration {
        // What is in the store was read by an earlier process, maybe by other rules: the first
        // fetch of this one reads it all again. A git server is asked for nothing twice by it.
        let last = {
            let state = self.state.borrow();
            state.tree.as_ref().filter(|_| !state.from_store).map(|t| t.revision.clone())
        };
        match self.fetch.fetch(last.as_deref()).await {
            Ok(new) => {
                let new = new.map(Arc::new);
                let kept = match &new {
                    Some(tree) => Some(self.keep(tree).await),
                    None => None,
                };
                let now = (self.clock)();
                self.state.send_modify(|s| {
                    if let Some(tree) = new {
                        tracing::info!(revision = %tree.revision, files = tree.files.len(),
                            skipped = tree.skipped.len(), "new revision");
                        s.tree = Some(tree);
                        s.from_store = false;
                    }
                    if let Some(kept) = kept {
                        s.not_kept = kept;
                    }
                    if s.error.take().is_some() {
                        tracing::info!(source = %self.fetch.describe(), "source is back");
                    }
                    s.last_success = Some(now);
                });
                self.jitter.spread(self.pace.interval)
            }
            Err(e) => {
                let now = (self.clock)();
                let before = self.state.borrow().error.clone();
                let failures = before.as_ref().map_or(0, |b| b.failures).saturating_add(1);
                let wait = self.jitter.spread(self.pace.retry(failures));
                let next_try = SignedDuration::try_from(wait)
                    .ok()
                    .and_then(|d| now.checked_add(d).ok())
                    .unwrap_or(now);
                let error = SourceError {
                    message: e.chain(),
                    hint: e.hint(),
                    since: before.map_or(now, |b| b.since),
                    next_try,
                    failures,
                };
                tracing::warn!(source = %self.fetch.describe(), error = %error.message,
                    hint = error.hint.as_deref(), failures,
                    "fetch failed, retry in {} s", wait.as_secs().max(1));
                self.state.send_modify(|s| s.error = Some(error));
                wait
            }
        }
    }

    /// Why the tree could not be kept, or `None`.
    async fn keep(&self, tree: &Arc<Tree>) -> Option<String> {
        let (store, tree) = (Arc::clone(self.store.as_ref()?), Arc::clone(tree));
        let source = self.fetch.describe();
        // Flushing tens of megabytes to a slow disk must not hold up the other tasks.
        let save = move || store.save_tree(&source, &tree).map_err(|e| e.chain());
        let message = match tokio::task::spawn_blocking(save).await {
            Ok(saved) => saved.err()?,
            Err(e) => e.to_string(),
        };
        tracing::warn!(error = %message, "the revision cannot be kept for the next start");
        Some(message)
    }
}

#[cfg(test)]
mod tests;
