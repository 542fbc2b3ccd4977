//! How often nginx is told to reload: each reload leaves workers behind for as long as their connections last.

use std::time::Duration;

use crate::model::Time;

/// The least time between two reloads.
const GAP: Duration = Duration::from_millis(300);
/// The most: whoever left must not get requests for longer.
const LONGEST_GAP: Duration = Duration::from_secs(3);
/// Generations of old workers that slow nothing down.
const FREE: usize = 3;

/// How long to wait until the next reload, which is not at all after a quiet time.
pub(super) fn wait(last: Option<Time>, now: Time, old: usize, workers: usize) -> Duration {
    let generations = old.div_ceil(workers.max(1));
    let factor = u32::try_from(generations.saturating_sub(FREE)).unwrap_or(u32::MAX);
    let gap = GAP.saturating_mul(factor.saturating_add(1)).min(LONGEST_GAP);
    last.map_or(Duration::ZERO, |last| gap.saturating_sub(now.since(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_at_once_and_many_old_workers_slow_the_next() {
        let ms = |last, now, old| wait(last, Time(now), old, 2).as_millis();
        assert_eq!(ms(None, 0, 99), 0);
        assert_eq!(ms(Some(Time(0)), 100, 0), 200);
        assert_eq!(ms(Some(Time(0)), 300, 0), 0);
        assert_eq!(ms(Some(Time(0)), 300, 6), 0);
        assert_eq!(ms(Some(Time(0)), 300, 8), 300);
        assert_eq!(ms(Some(Time(0)), 0, usize::MAX), 3000);
        assert_eq!(wait(Some(Time(0)), Time(0), 5, 0), GAP * 3);
    }
}
