//! The doorbell: something may have changed. It carries no data, so there is no second path.

use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::Notify;

/// Rings are coalesced and never lost: one that comes during a pass causes another pass.
#[derive(Debug, Clone, Default)]
pub struct Doorbell(Arc<Notify>);

impl Doorbell {
    /// A bell that nobody has rung.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rings.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Forgets the rings up to now, because what begins now answers them all.
    pub fn answer(&self) {
        // Of a burst, the first ring wakes the waiter and the second leaves a permit behind.
        let _ = self.0.notified().now_or_never();
    }

    /// Returns at once if it has rung since the last return, else when it rings. Cancel safe.
    pub async fn rung(&self) {
        self.0.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_during_work_causes_exactly_one_more_pass() {
        let bell = Doorbell::new();
        for _ in 0..100 {
            bell.ring();
        }
        bell.rung().await;
        let again = tokio::time::timeout(std::time::Duration::from_millis(20), bell.rung()).await;
        assert!(again.is_err(), "the burst was not coalesced");
    }
}
