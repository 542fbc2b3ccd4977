//! Points in time as plain numbers, so that the planner can be handed any moment it is asked about.

use std::fmt;
use std::time::Duration;

/// Milliseconds since the Unix epoch, on the agent's own clock.
///
/// Host clocks are never compared with it: what an engine reports is stamped when it is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// This moment plus `d`, saturating.
    #[must_use]
    pub fn plus(self, d: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not (clocks jump backwards).
    #[must_use]
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A duration as people write it: `1h30m`, `10m`, `2s`, `500ms`, `0s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Human(pub Duration);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms == 0 {
            return write!(f, "0s");
        }
        if ms < 1000 {
            return write!(f, "{ms}ms");
        }
        let s = ms / 1000;
        let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
        if h > 0 {
            write!(f, "{h}h")?;
        }
        if m > 0 {
            write!(f, "{m}m")?;
        }
        if s > 0 || (h == 0 && m == 0) {
            write!(f, "{s}s")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_back_gives_zero_not_a_panic() {
        assert_eq!(Time(5).since(Time(9)), Duration::ZERO);
        assert_eq!(Time(u64::MAX).plus(Duration::from_secs(1)), Time(u64::MAX));
    }

    #[test]
    fn durations_read_as_people_write_them() {
        let h = |ms| Human(Duration::from_millis(ms)).to_string();
        assert_eq!(
            [h(0), h(20), h(2000), h(90_000), h(5_400_000)],
            ["0s", "20ms", "2s", "1m30s", "1h30m"]
        );
    }
}
