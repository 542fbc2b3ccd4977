//! Holds a lease of the API server, or stands by for who does.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::connect::{code, hint, said};
use super::lease::{Candidate, Moment, Next, Record, Times};
use crate::clock::Clock;
use crate::reconcile::Fence;
use crate::report::Report;

/// The longest for one answer about the lease.
const ANSWER: Duration = Duration::from_secs(4);
/// How long giving it back may take.
const GIVE: Duration = Duration::from_secs(5);
/// The lease that is held where no other is named.
pub const NAME: &str = "evenkeel";

/// The lease as a fence: asked before each step, told when it changes.
#[derive(Clone)]
pub struct LeaseFence(Arc<Inner>);

struct Inner {
    candidate: Mutex<Candidate>,
    start: Instant,
    clock: Clock,
    held: watch::Sender<bool>,
    held_once: AtomicBool,
}

impl fmt::Debug for LeaseFence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseFence(held: {})", *self.0.held.borrow())
    }
}

impl LeaseFence {
    /// One that holds nothing yet. `me` must be of this process alone.
    pub fn new(me: impl Into<String>, times: Times, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            candidate: Mutex::new(Candidate::new(me, times)),
            start: Instant::now(),
            clock,
            held: watch::Sender::new(false),
            held_once: AtomicBool::new(false),
        }))
    }

    fn now(&self) -> Moment {
        Moment { steady: self.0.start.elapsed(), wall: self.0.clock.wall() }
    }

    fn candidate(&self) -> MutexGuard<'_, Candidate> {
        self.0.candidate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether it holds where that changed.
    fn tell(&self) {
        let holds = self.candidate().holds(self.now());
        self.0.held_once.fetch_or(holds, Ordering::Relaxed);
        self.0.held.send_if_modified(|held| std::mem::replace(held, holds) != holds);
    }

    /// Says so when the lease runs out, whatever else hangs.
    async fn watch(&self) {
        let mut news = self.0.held.subscribe();
        loop {
            let held = *news.borrow_and_update();
            let until = self.candidate().until().filter(|_| held);
            match until {
                Some(until) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(self.0.start + until) => {}
                        // The wall clock may say before that the machine slept.
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                        changed = news.changed() => if changed.is_err() { return },
                    }
                    self.tell();
                }
                None => {
                    if news.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

impl Fence for LeaseFence {
    fn holds(&self) -> bool {
        self.candidate().holds(self.now())
    }

    fn changes(&self) -> watch::Receiver<bool> {
        self.0.held.subscribe()
    }
}

/// A lease of the API server.
pub struct Election {
    api: Api<Lease>,
    name: String,
    fence: LeaseFence,
    report: Report,
    clock: Clock,
}

impl Election {
    /// Of the lease with this name in the client's own namespace, or in the one in front of a slash.
    pub fn new(
        client: &Client,
        name: &str,
        fence: LeaseFence,
        report: Report,
        clock: Clock,
    ) -> Self {
        let (api, name) = match name.split_once('/') {
            Some((namespace, name)) => (Api::namespaced(client.clone(), namespace), name),
            None => (Api::default_namespaced(client.clone()), name),
        };
        Self { api, name: name.to_owned(), fence, report, clock }
    }

    /// Holds the lease or stands by, for ever. Ends by being dropped.
    pub async fn run(&self) {
        tokio::join!(self.fence.watch(), async {
            let mut failures = 0;
            loop {
                let pause = self.once(&mut failures).await;
                tokio::time::sleep(pause).await;
            }
        });
    }

    /// Gives the lease back. Nothing may be under way any more.
    pub async fn release(&self) {
        self.fence.candidate().release();
        self.fence.tell();
        let mut failures = 0;
        let given = timeout(GIVE, async {
            while !self.fence.candidate().is_released() {
                let pause = self.once(&mut failures).await;
                if !self.fence.candidate().is_released() {
                    tokio::time::sleep(pause.min(Duration::from_millis(200))).await;
                }
            }
        });
        if given.await.is_err() {
            tracing::warn!(lease = %self.name, "the lease could not be given back, it runs out by itself");
        }
    }

    /// One look or write; gives the pause before the next.
    async fn once(&self, failures: &mut u32) -> Duration {
        let next = self.fence.candidate().next(self.fence.now());
        let done = match next {
            // Who holds it need not look: its writes are refused once it is another's.
            Some(Next::Look(pause)) if self.fence.holds() => return pause,
            Some(Next::Write(record)) => self.write(record).await,
            Some(Next::Look(_)) | None => self.look().await,
        };
        self.fence.tell();
        let holds = self.fence.holds();
        let other = self.fence.candidate().holder().map(str::to_owned);
        // Before it was asked once nobody knows whether there is another; who held it and cannot ask must assume so.
        if holds || other.is_some() || self.fence.0.held_once.load(Ordering::Relaxed) {
            self.report.standby(!holds);
        }
        match done {
            Ok(()) => {
                *failures = 0;
                let next = self.fence.candidate().next(self.fence.now());
                match next {
                    Some(Next::Write(_)) | None => Duration::ZERO,
                    Some(Next::Look(pause)) => pause,
                }
            }
            Err(why) => {
                *failures += 1;
                self.fence.candidate().failed();
                let (text, hint, quiet) = why;
                if quiet && *failures < 3 {
                    tracing::debug!(lease = %self.name, error = %text, "the lease changed");
                } else {
                    tracing::warn!(lease = %self.name, error = %text, hint, failures = *failures,
                        "the lease cannot be asked for or renewed");
                }
                Duration::from_millis(500 << (*failures).min(2))
            }
        }
    }

    async fn look(&self) -> Result<(), (String, Option<String>, bool)> {
        let found = ask(self.api.get_opt(&self.name)).await?;
        let record = found.map(|lease| record(&lease));
        let now = self.fence.now();
        self.fence.candidate().looked(record, now);
        Ok(())
    }

    async fn write(&self, record: Record) -> Result<(), (String, Option<String>, bool)> {
        let began = self.fence.now();
        let lease = self.lease(&record);
        let params = PostParams::default();
        let written = if record.version.is_empty() {
            ask(self.api.create(&params, &lease)).await?
        } else {
            ask(self.api.replace(&self.name, &params, &lease)).await?
        };
        let version = written.metadata.resource_version.unwrap_or_default();
        let held = self.fence.holds();
        let now = self.fence.now();
        self.fence.candidate().wrote(record, version, began, now);
        if !held && self.fence.holds() {
            tracing::info!(lease = %self.name, "this replica acts");
        }
        Ok(())
    }

    fn lease(&self, record: &Record) -> Lease {
        let now = MicroTime(self.clock.timestamp());
        let seconds = i32::try_from(record.seconds).unwrap_or(i32::MAX);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: Some(record.version.clone()).filter(|v| !v.is_empty()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(record.holder.clone()),
                lease_duration_seconds: Some(seconds),
                lease_transitions: i32::try_from(record.transitions).ok(),
                renew_time: Some(now.clone()),
                acquire_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// The longest that one answer about a lease takes; with what it says and whether it is only that another was quicker.
async fn ask<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, (String, Option<String>, bool)> {
    match timeout(ANSWER, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err((said(&e), hint(&e), code(&e) == Some(409))),
        Err(_) => Err(("the API server says nothing".to_owned(), None, false)),
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        seconds: spec.lease_duration_seconds.and_then(|s| u32::try_from(s).ok()).unwrap_or(0),
        transitions: spec.lease_transitions.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
