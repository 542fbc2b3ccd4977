//! The simulated hosts behind the `Backend` trait, on tokio's clock: for tests of the loop, and for
//! the conformance suite that a real engine passes too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::GRAIN;
use super::host::{Fate, SimHost};
use crate::backend::{Backend, Watch};
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::error::{PortError, Remedy};
use crate::model::{HostName, HostView, InstanceId, Resources, Seen, Step, Time};

/// Nothing happens by itself on a host that was left alone for longer: its containers need not be looked at.
const RESTLESS: Duration = Duration::from_secs(20);

/// Simulated hosts as a backend.
#[derive(Debug)]
pub struct FakeBackend {
    inner: Mutex<Inner>,
    bell: Doorbell,
    clock: Clock,
}

#[derive(Debug)]
struct Inner {
    hosts: BTreeMap<HostName, Housed>,
    next_id: u64,
    calls: Vec<String>,
}

/// A host, and until when something may happen on it by itself.
#[derive(Debug)]
struct Housed {
    host: SimHost,
    awake: Time,
}

impl Housed {
    fn wake(&mut self, now: Time) -> &mut SimHost {
        self.awake = now.plus(RESTLESS);
        &mut self.host
    }
}

impl FakeBackend {
    /// No hosts yet: they come with [`Backend::watch`].
    pub fn new(bell: Doorbell, clock: Clock) -> Self {
        let inner = Inner { hosts: BTreeMap::new(), next_id: 0, calls: Vec::new() };
        Self { inner: Mutex::new(inner), bell, clock }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to a host, as the world does, and rings.
    pub fn with<R>(&self, host: &HostName, act: impl FnOnce(&mut SimHost) -> R) -> Option<R> {
        let now = self.clock.now();
        let done = self.lock().hosts.get_mut(host).map(|h| act(h.wake(now)));
        self.bell.ring();
        done
    }

    /// Every step that was applied, in order.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// Lets the containers live: one that becomes healthy or ends rings the bell.
    pub async fn live(&self) {
        loop {
            tokio::time::sleep(GRAIN).await;
            let now = self.clock.now();
            let mut changed = false;
            for Housed { host, awake } in self.lock().hosts.values_mut() {
                if now > *awake && host.seen() == Seen::Now {
                    continue;
                }
                let before = host.view(false);
                host.live(now, Duration::from_secs(2));
                changed |= before != host.view(false);
            }
            if changed {
                self.bell.ring();
            }
        }
    }
}

#[async_trait]
impl Backend for FakeBackend {
    fn watch(&self, watch: Watch) {
        let now = self.clock.now();
        let mut inner = self.lock();
        for name in watch.fleet.hosts.keys() {
            let capacity = Resources { cpu_millis: 8000, memory_bytes: 32 << 30 };
            let new = || Housed { host: SimHost::new(capacity, now), awake: now };
            inner.hosts.entry(name.clone()).or_insert_with(new);
        }
        inner.hosts.retain(|name, _| watch.fleet.hosts.contains_key(name));
    }

    fn views(&self) -> BTreeMap<HostName, Arc<HostView>> {
        self.lock().hosts.iter().map(|(n, h)| (n.clone(), h.host.view(false))).collect()
    }

    async fn apply(&self, step: &Step) -> Result<(), PortError> {
        let takes = {
            let mut inner = self.lock();
            inner.calls.push(step.to_string());
            inner.hosts.get(step.host()).map_or(GRAIN, |h| h.host.takes(step))
        };
        tokio::time::sleep(takes).await;
        let now = self.clock.now();
        let mut inner = self.lock();
        inner.next_id += 1;
        let id = InstanceId(format!("{:012x}", inner.next_id).into());
        let host = inner.hosts.get_mut(step.host()).map(|h| h.wake(now));
        let outcome = host.map(|h| h.apply(step, id, Fate::Done, now));
        drop(inner);
        self.bell.ring();
        match outcome {
            Some(Ok(())) => Ok(()),
            Some(Err(e)) => Err(PortError::new(step.to_string(), e.remedy, e.why)),
            None => Err(PortError::new(step.to_string(), Remedy::Retry, "there is no such host")),
        }
    }
}
