//! The view of the registry: what was last seen there, whether that can be believed, and what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::diff::Want;
use super::wire::Catalog;
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::model::{EntryView, InstanceId, RegistryView, Seen, Time};

/// A registry that lost its entries gets so long to have them all again; after that its word is taken.
const RECOVERY: Duration = Duration::from_secs(15);

/// Holds the newest view.
pub(super) struct Board {
    inner: Mutex<Inner>,
    bell: Doorbell,
    clock: Clock,
}

struct Inner {
    view: Arc<RegistryView>,
    wanted: BTreeSet<InstanceId>,
    /// Since when it has been without what it had.
    emptied: Option<Time>,
    /// Why the servers' word is not known.
    registry: Option<String>,
    /// What is wrong with single agents, by where they are.
    agents: BTreeMap<String, String>,
}

impl Board {
    pub(super) fn new(bell: Doorbell, clock: Clock) -> Self {
        let view = RegistryView {
            seen: Seen::Never { since: clock.now() },
            entries: BTreeMap::new(),
            problem: None,
        };
        let inner = Inner {
            view: Arc::new(view),
            wanted: BTreeSet::new(),
            emptied: None,
            registry: None,
            agents: BTreeMap::new(),
        };
        Self { inner: Mutex::new(inner), bell, clock }
    }

    pub(super) fn view(&self) -> Arc<RegistryView> {
        Arc::clone(&self.lock().view)
    }

    /// What is wanted from now on: whatever of it vanishes was not taken away by us.
    pub(super) fn wants(&self, wanted: BTreeSet<InstanceId>) {
        self.lock().wanted = wanted;
    }

    /// The servers answered, and have these; `true` is in maintenance.
    pub(super) fn seen(&self, found: &BTreeMap<InstanceId, bool>) {
        let now = self.clock.now();
        let mut inner = self.lock();
        let mut expected = inner.view.entries.keys().filter(|id| inner.wanted.contains(id));
        // A registry that was started anew without its data answers like one that never had any.
        let lost = match inner.emptied {
            None => found.is_empty() && expected.next().is_some(),
            Some(since) => {
                now.since(since) < RECOVERY && expected.any(|id| !found.contains_key(id))
            }
        };
        if lost {
            inner.emptied.get_or_insert(now);
            inner.registry =
                Some("the registry lost its entries; they are registered again".into());
            self.tell(inner, None);
            return;
        }
        inner.emptied = None;
        inner.registry = None;
        let before = &inner.view.entries;
        let entries = found.iter().map(|(id, maintenance)| {
            let same = before.get(id).filter(|entry| entry.maintenance == *maintenance);
            let since = same.map_or(now, |entry| entry.since);
            (id.clone(), EntryView { maintenance: *maintenance, since })
        });
        let entries = entries.collect();
        self.tell(inner, Some(entries));
    }

    /// The servers' word cannot be had.
    pub(super) fn failed(&self, why: String) {
        let mut inner = self.lock();
        inner.registry = Some(why);
        self.tell(inner, None);
    }

    /// What is wrong with one agent; `None` once it is not.
    pub(super) fn agent(&self, at: &str, problem: Option<String>) {
        let mut inner = self.lock();
        match problem {
            Some(problem) => inner.agents.insert(at.to_owned(), problem),
            None => inner.agents.remove(at),
        };
        self.retell(inner);
    }

    /// The agents that are left: the others' problems are nobody's any more.
    pub(super) fn only(&self, agents: &BTreeSet<String>) {
        let mut inner = self.lock();
        inner.agents.retain(|at, _| agents.contains(at));
        self.retell(inner);
    }

    /// `entries`: as just seen, or `None` where the last known stay.
    fn tell(&self, inner: MutexGuard<'_, Inner>, entries: Option<BTreeMap<InstanceId, EntryView>>) {
        let seen = match (&entries, inner.view.seen) {
            (Some(_), _) => Seen::Now,
            (None, Seen::Now) => Seen::Silent { since: self.clock.now() },
            (None, before @ (Seen::Silent { .. } | Seen::Never { .. })) => before,
        };
        let entries = entries.unwrap_or_else(|| inner.view.entries.clone());
        self.put(inner, seen, entries);
    }

    fn retell(&self, inner: MutexGuard<'_, Inner>) {
        let (seen, entries) = (inner.view.seen, inner.view.entries.clone());
        self.put(inner, seen, entries);
    }

    fn put(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        seen: Seen,
        entries: BTreeMap<InstanceId, EntryView>,
    ) {
        let problem = inner.registry.clone().or_else(|| {
            let first = inner.agents.values().next()?;
            Some(match inner.agents.len() {
                1 => first.clone(),
                n => format!("{first} (and {} more)", n - 1),
            })
        });
        let view = RegistryView { seen, entries, problem };
        if *inner.view == view {
            return;
        }
        if inner.view.problem != view.problem {
            if let Some(problem) = &view.problem {
                tracing::warn!("registry: {problem}");
            } else {
                tracing::info!("registry: all is well again");
            }
        }
        inner.view = Arc::new(view);
        drop(inner);
        self.bell.ring();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the servers have, by instance. One that two nodes have is in maintenance where both say so. What names no
/// instance and is not wanted is not ours, whatever its id looks like.
pub(super) fn by_instance(catalog: &Catalog, want: Option<&Want>) -> BTreeMap<InstanceId, bool> {
    let mut found = BTreeMap::new();
    for (id, entry) in catalog.nodes.values().flatten() {
        let wanted = || want?.entries.get(id).map(|entry| entry.instance.clone());
        let Some(instance) = entry.instance.clone().or_else(wanted) else { continue };
        *found.entry(instance).or_insert(true) &= entry.maintenance;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> InstanceId {
        InstanceId(format!("i{n}").into())
    }

    fn board(wanted: &[u8]) -> (Board, Clock) {
        let clock = Clock::manual(Time(1000));
        let board = Board::new(Doorbell::new(), clock.clone());
        board.wants(wanted.iter().map(|n| id(*n)).collect());
        (board, clock)
    }

    fn found(all: &[(u8, bool)]) -> BTreeMap<InstanceId, bool> {
        all.iter().map(|(n, maintenance)| (id(*n), *maintenance)).collect()
    }

    #[test]
    fn nothing_is_believed_before_the_first_answer() {
        let (board, clock) = board(&[]);
        clock.advance(Duration::from_secs(1));
        board.failed("no".into());
        assert_eq!(board.view().seen, Seen::Never { since: Time(1000) });
        board.seen(&found(&[]));
        assert_eq!(board.view().seen, Seen::Now);
        assert_eq!(board.view().problem, None);
    }

    #[test]
    fn silence_keeps_what_was_known_and_since_when() {
        let (board, clock) = board(&[1]);
        board.seen(&found(&[(1, false)]));
        clock.advance(Duration::from_secs(1));
        board.failed("no leader".into());
        clock.advance(Duration::from_secs(1));
        board.failed("no answer".into());
        let view = board.view();
        assert_eq!(view.seen, Seen::Silent { since: Time(2000) });
        assert_eq!(view.entries[&id(1)], EntryView { maintenance: false, since: Time(1000) });
        assert_eq!(view.problem.as_deref(), Some("no answer"));
        clock.advance(Duration::from_secs(1));
        board.seen(&found(&[(1, true)]));
        assert_eq!(board.view().seen, Seen::Now);
        assert_eq!(
            board.view().entries[&id(1)],
            EntryView { maintenance: true, since: Time(4000) }
        );
    }

    #[test]
    fn an_emptied_registry_is_not_taken_at_its_word() {
        let (board, clock) = board(&[1, 2]);
        board.seen(&found(&[(1, false), (2, false)]));
        board.seen(&found(&[]));
        assert!(matches!(board.view().seen, Seen::Silent { .. }));
        assert_eq!(board.view().entries.len(), 2);
        // Half of it is not all of it.
        board.seen(&found(&[(1, false)]));
        assert!(matches!(board.view().seen, Seen::Silent { .. }));
        board.seen(&found(&[(1, false), (2, false)]));
        assert_eq!(board.view().seen, Seen::Now);
        // One that is missing is the truth.
        board.seen(&found(&[(1, false)]));
        assert_eq!((board.view().seen, board.view().entries.len()), (Seen::Now, 1));
        // And so is nothing, when it does not come back.
        board.seen(&found(&[]));
        clock.advance(RECOVERY);
        board.seen(&found(&[]));
        assert_eq!((board.view().seen, board.view().entries.len()), (Seen::Now, 0));
    }

    #[test]
    fn what_was_taken_away_on_purpose_is_not_missed() {
        let (board, _) = board(&[]);
        board.seen(&found(&[(1, true)]));
        board.seen(&found(&[]));
        assert_eq!((board.view().seen, board.view().entries.len()), (Seen::Now, 0));
    }

    #[tokio::test]
    async fn the_bell_rings_at_changes_only() {
        let bell = Doorbell::new();
        let board = Board::new(bell.clone(), Clock::manual(Time(1)));
        let rang =
            async || tokio::time::timeout(Duration::from_millis(1), bell.rung()).await.is_ok();
        board.seen(&found(&[(1, false)]));
        assert!(rang().await);
        board.seen(&found(&[(1, false)]));
        board.agent("a", None);
        assert!(!rang().await);
        board.agent("a", Some("x".into()));
        assert!(rang().await);
        board.agent("b", Some("y".into()));
        assert_eq!(board.view().problem.as_deref(), Some("x (and 1 more)"));
        board.only(&BTreeSet::from(["b".to_owned()]));
        assert_eq!(board.view().problem.as_deref(), Some("y"));
    }
}
