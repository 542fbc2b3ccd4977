//! When nginx is told to reload: each reload leaves workers behind for as long as their connections last.
//!
//! Somebody in force who is of no use is taken out at once. Everything else is gathered: the first change after a quiet time
//! goes at once, and while more keep coming they are let come to rest. A rollout's waves rest by themselves, as each waits
//! for the reload before it; a burst of changes does not.

use std::time::Duration;

use crate::model::Time;

/// The least time between two reloads where nobody may get requests any longer.
const GAP: Duration = Duration::from_millis(200);
/// Nothing happened for this long: what comes then goes at once.
const QUIET: Duration = Duration::from_secs(1);
/// How long changes must have rested, by how many came since the last reload.
const REST: [(u32, Duration); 3] = [
    (4, Duration::from_millis(200)),
    (12, Duration::from_secs(1)),
    (u32::MAX, Duration::from_secs(2)),
];
/// The longest rest that is asked for: many reloads and many old workers lengthen it.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// After this long a change goes, though more keep coming.
const LONGEST: Duration = Duration::from_secs(15);
/// Generations of old workers, and half as many reloads lately, that slow nothing down: a rollout has some.
const FREE: usize = 4;
/// Reloads are remembered for this long.
const LATELY: Duration = Duration::from_secs(10);

/// The reloads of late, and what waits for the next.
#[derive(Debug, Default)]
pub(super) struct Pace {
    reloads: Vec<Time>,
    gathered: Option<Gathered>,
}

/// Changes that are not in force yet.
#[derive(Debug, Clone, Copy)]
struct Gathered {
    first: Time,
    last: Time,
    count: u32,
}

impl Pace {
    /// Something changed that only a reload brings into force.
    pub(super) fn changed(&mut self, now: Time) {
        let gathered = self.gathered.get_or_insert(Gathered { first: now, last: now, count: 0 });
        gathered.last = now;
        gathered.count = gathered.count.saturating_add(1);
    }

    /// What is in force is what should be.
    pub(super) fn settled(&mut self) {
        self.gathered = None;
    }

    /// It is told to reload now.
    pub(super) fn reloads(&mut self, now: Time) {
        self.gathered = None;
        self.reloads.retain(|at| now.since(*at) < LATELY.max(QUIET));
        self.reloads.push(now);
    }

    /// How long until the next reload. `urgent`: somebody in force is of no use; `generations`: of old workers.
    pub(super) fn wait(&self, urgent: bool, generations: usize, now: Time) -> Duration {
        let since_last = self.reloads.last().map(|last| now.since(*last));
        if urgent {
            return since_last.map_or(Duration::ZERO, |ago| GAP.saturating_sub(ago));
        }
        let Some(Gathered { first, last, count }) = self.gathered else { return Duration::ZERO };
        let busy = |at: &&Time| first.since(**at) < LATELY;
        let lately = self.reloads.iter().filter(busy).count();
        let rest = rest(count, generations.max(lately / 2));
        if self.reloads.last().is_none_or(|at| first.since(*at) >= rest.max(QUIET)) {
            return Duration::ZERO;
        }
        let (rested, waited) = (now.since(last), now.since(first));
        rest.saturating_sub(rested).min(LONGEST.saturating_sub(waited))
    }
}

/// How long changes must have rested.
fn rest(count: u32, crowd: usize) -> Duration {
    let by_count = REST.iter().find(|(most, _)| count <= *most).map_or(LONGEST_REST, |(_, d)| *d);
    let factor = u32::try_from(crowd.saturating_sub(FREE)).unwrap_or(u32::MAX);
    by_count.saturating_add(REST[0].1.saturating_mul(factor)).min(LONGEST_REST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Milliseconds until each reload, when changes come at `at` and take force as soon as they may.
    fn calm(at: &[u64]) -> Vec<u64> {
        let (mut pace, mut reloads) = (Pace::default(), Vec::new());
        let mut due = at.iter().peekable();
        for now in 0..=at.last().map_or(0, |last| last + 20_000) {
            while due.next_if(|at| **at <= now).is_some() {
                pace.changed(Time(now));
            }
            if pace.gathered.is_some() && pace.wait(false, 0, Time(now)).is_zero() {
                pace.reloads(Time(now));
                reloads.push(now);
            }
        }
        assert!(pace.gathered.is_none(), "{at:?}: something is never in force");
        reloads
    }

    #[test]
    fn the_first_is_at_once_and_what_follows_rests() {
        assert_eq!(calm(&[0]), [0]);
        assert_eq!(calm(&[0, 5000]), [0, 5000]);
        assert_eq!(calm(&[0, 100, 250]), [0, 450]);
        // Three instances of a wave, the three that they take the place of, and the next wave.
        assert_eq!(calm(&[0, 40, 90, 500, 1400, 1450]), [0, 290, 700, 1650]);
    }

    #[test]
    fn a_hundred_changes_in_ten_seconds_are_two_reloads() {
        let burst: Vec<u64> = (0..100).map(|n| n * 100).collect();
        assert_eq!(calm(&burst), [0, 9900 + 2000]);
        let endless: Vec<u64> = (0..600).map(|n| n * 100).collect();
        assert_eq!(calm(&endless), [0, 15_100, 30_200, 45_300, 60_400]);
    }

    #[test]
    fn many_old_workers_and_many_reloads_lengthen_the_rest() {
        assert_eq!(rest(1, 4), REST[0].1);
        assert_eq!(rest(1, 6), REST[0].1 * 3);
        assert_eq!(rest(100, 0), REST[2].1);
        assert_eq!(rest(u32::MAX, usize::MAX), LONGEST_REST);
        // Somebody who changes his mind every half second.
        let fickle: Vec<u64> = (0..120).map(|n| n * 500).collect();
        let reloads = calm(&fickle).len();
        assert!(reloads < 40, "{reloads} reloads");
    }

    #[test]
    fn whoever_is_of_no_use_is_out_at_once_whatever_else_goes_on() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(true, 99, Time(0)), Duration::ZERO);
        pace.reloads(Time(1000));
        (0..50).for_each(|n| pace.changed(Time(1000 + n)));
        assert_eq!(pace.wait(true, 99, Time(1050)), Duration::from_millis(150));
        assert_eq!(pace.wait(true, 99, Time(1200)), Duration::ZERO);
        assert!(pace.wait(false, 0, Time(1200)) > Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn nothing_waits_longer_than_the_longest(
            gaps in prop::collection::vec(0u64..4000, 1..60), generations in 0usize..20,
        ) {
            let mut pace = Pace::default();
            let mut now = 0;
            for gap in gaps {
                let until = now + gap;
                while now < until {
                    now += 10;
                    let first = pace.gathered.map(|g| g.first);
                    if let Some(first) = first {
                        let wait = pace.wait(false, generations, Time(now));
                        let waited = Time(now).since(first);
                        prop_assert!(waited + wait <= LONGEST, "{waited:?} and {wait:?} more");
                        if wait.is_zero() {
                            pace.reloads(Time(now));
                        }
                    }
                    prop_assert!(pace.wait(true, generations, Time(now)) <= GAP);
                }
                pace.changed(Time(now));
            }
        }

        #[test]
        fn changes_that_do_not_rest_are_one_reload_and_one_more(
            gaps in prop::collection::vec(0u64..200, 1..150),
        ) {
            let mut at = vec![0];
            for gap in gaps {
                let next = at.last().unwrap() + gap;
                if next < 10_000 {
                    at.push(next);
                }
            }
            prop_assert!(calm(&at).len() <= 2, "{at:?}");
        }
    }
}
