//! The only place that reads the wall clock; everything else is handed the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::Time;

/// A wall clock that never runs backwards within one process.
///
/// It starts at the wall time and advances with the monotonic clock, so that a clock that is set
/// while the agent runs neither expires nor prolongs any wait.
#[derive(Debug, Clone)]
pub struct Clock(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Real { wall_at_start: u64, start: tokio::time::Instant },
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    #[expect(clippy::disallowed_methods, reason = "this is the rim where time enters")]
    pub fn real() -> Self {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0));
        Self(Kind::Real { wall_at_start: wall, start: tokio::time::Instant::now() })
    }

    /// The wall clock as it is shown to people.
    pub fn timestamp(&self) -> jiff::Timestamp {
        let ms = i64::try_from(self.now().0).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(ms).unwrap_or_default()
    }

    /// The wall clock as the machine has it now, which may be set to any other time while the agent runs.
    #[expect(clippy::disallowed_methods, reason = "this is the rim where time enters")]
    pub fn wall(&self) -> Duration {
        match &self.0 {
            Kind::Real { .. } => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default(),
            Kind::Manual(at) => Duration::from_millis(at.load(Ordering::Relaxed)),
        }
    }

    /// A clock that stands still until it is advanced.
    pub fn manual(at: Time) -> Self {
        Self(Kind::Manual(Arc::new(AtomicU64::new(at.0))))
    }

    /// Now.
    pub fn now(&self) -> Time {
        match &self.0 {
            Kind::Real { wall_at_start, start } => Time(*wall_at_start).plus(start.elapsed()),
            Kind::Manual(at) => Time(at.load(Ordering::Relaxed)),
        }
    }

    /// Moves a manual clock on; the real one moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Kind::Manual(at) = &self.0 {
            at.store(Time(at.load(Ordering::Relaxed)).plus(by).0, Ordering::Relaxed);
        }
    }
}
