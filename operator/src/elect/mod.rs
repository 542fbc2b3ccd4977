//! One of several agents acts: it holds a record that a ledger outside keeps, and the others stand by.
//!
//! What is held, and when, is decided by [`candidate`] (pure). A [`Ledger`] is a lease of a Kubernetes API server or a
//! session lock of Consul.

pub mod candidate;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::candidate::{Candidate, Moment, Next, Record, Times};
use crate::clock::Clock;
use crate::reconcile::Fence;
use crate::report::{Report, Standing};

/// How long giving it back may take.
const GIVE: Duration = Duration::from_secs(5);
/// The longest pause of one that holds nothing and is refused.
const LONGEST: Duration = Duration::from_secs(8);
/// The longest pause of one that holds it and must renew it in time.
const PRESSING: Duration = Duration::from_secs(2);

/// Where the record is kept. Every call is bounded in time by the ledger.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// What is there; nothing where nobody ever wrote.
    async fn look(&self) -> Result<Option<Record>, Refusal>;

    /// Writes over the version that the record names; nobody else may have written since. Gives the new version. A record
    /// without a holder gives back what is ours.
    async fn write(&self, record: &Record) -> Result<String, Refusal>;

    /// Nothing is held any more; what else was made is put away. Best effort.
    async fn close(&self) {}

    /// What is held, for people: `lease evenkeel`.
    fn name(&self) -> String;
}

/// Why the ledger did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// With all causes.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What it means.
    pub why: Why,
}

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Another was quicker: look again.
    Quicker,
    /// It is certain that we do not hold it any more.
    Lost,
    /// Nobody knows.
    Failed,
}

impl Refusal {
    /// One that says nothing about who holds it.
    pub fn failed(text: impl Into<String>, hint: Option<String>) -> Self {
        Self { text: text.into(), hint, why: Why::Failed }
    }
}

/// The record as a fence: asked before each step, told when it changes.
#[derive(Clone)]
pub struct Held(Arc<Inner>);

struct Inner {
    candidate: Mutex<Candidate>,
    start: Instant,
    clock: Clock,
    held: watch::Sender<bool>,
    held_once: AtomicBool,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", *self.0.held.borrow())
    }
}

impl Held {
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

    /// Says so when the time runs out, whatever else hangs.
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

impl Fence for Held {
    fn holds(&self) -> bool {
        self.candidate().holds(self.now())
    }

    fn changes(&self) -> watch::Receiver<bool> {
        self.0.held.subscribe()
    }
}

/// Wants a record of a ledger.
pub struct Election {
    ledger: Box<dyn Ledger>,
    held: Held,
    report: Report,
}

impl Election {
    /// One that tells `held` whether it has it, and the report why not.
    pub fn new(ledger: Box<dyn Ledger>, held: Held, report: Report) -> Self {
        Self { ledger, held, report }
    }

    /// Holds the record or stands by, for ever. Ends by being dropped.
    pub async fn run(&self) {
        tokio::join!(self.held.watch(), async {
            let mut failures = 0;
            loop {
                let pause = self.once(&mut failures).await;
                tokio::time::sleep(pause).await;
            }
        });
    }

    /// Gives the record back. Nothing may be under way any more.
    pub async fn release(&self) {
        self.held.candidate().release();
        self.held.tell();
        let mut failures = 0;
        let given = timeout(GIVE, async {
            while !self.held.candidate().is_released() {
                let pause = self.once(&mut failures).await;
                if !self.held.candidate().is_released() {
                    tokio::time::sleep(pause.min(Duration::from_millis(200))).await;
                }
            }
            self.ledger.close().await;
        });
        if given.await.is_err() {
            tracing::warn!(
                "the {} could not be given back, it runs out by itself",
                self.ledger.name()
            );
        }
    }

    /// One look or write; gives the pause before the next.
    async fn once(&self, failures: &mut u32) -> Duration {
        let next = self.held.candidate().next(self.held.now());
        let writes = matches!(next, Some(Next::Write(_)));
        let done = match next {
            // Who holds it need not look: its writes are refused once it is another's.
            Some(Next::Look(pause)) if self.held.holds() => return pause,
            Some(Next::Write(record)) => self.write(record).await,
            Some(Next::Look(_)) | None => self.look().await,
        };
        match &done {
            Ok(()) => {}
            Err(refusal) if refusal.why == Why::Lost => self.held.candidate().lost(),
            Err(_) => self.held.candidate().failed(),
        }
        self.held.tell();
        self.stand(done.as_ref().err());
        match done {
            Ok(()) => {
                // That one can look says nothing of whether one can write.
                if writes || self.held.candidate().holder().is_some() {
                    *failures = 0;
                }
                let next = self.held.candidate().next(self.held.now());
                match next {
                    Some(Next::Write(_)) | None => Duration::ZERO,
                    Some(Next::Look(pause)) => pause,
                }
            }
            Err(Refusal { text, hint, why }) => {
                *failures += 1;
                let name = self.ledger.name();
                // Once, twice, four times …: who is refused for hours need not say so every few seconds.
                if (why == Why::Quicker && *failures < 3) || !failures.is_power_of_two() {
                    tracing::debug!(error = %text, "the {name} is not to be had now");
                } else {
                    tracing::warn!(error = %text, hint, failures = *failures,
                        "the {name} cannot be asked for or renewed");
                }
                let soon = self.held.holds() || why == Why::Quicker;
                let most = if soon { PRESSING } else { LONGEST };
                Duration::from_millis(500 << (*failures).min(4)).min(most)
            }
        }
    }

    /// Says why this agent acts or not.
    fn stand(&self, refused: Option<&Refusal>) {
        if self.held.holds() {
            self.report.stands(Standing::Acts);
            return;
        }
        let other = self.held.candidate().holder().is_some();
        let quicker = refused.is_some_and(|r| r.why == Why::Quicker);
        match refused {
            _ if other || quicker => self.report.stands(Standing::By),
            Some(refused) => {
                let text = format!("the {}: {}", self.ledger.name(), refused.text);
                self.report.stands(Standing::Unsure(text));
            }
            // Before it was asked once nobody knows whether there is another.
            None if self.held.0.held_once.load(Ordering::Relaxed) => {
                self.report.stands(Standing::By);
            }
            None => {}
        }
    }

    async fn look(&self) -> Result<(), Refusal> {
        let record = self.ledger.look().await?;
        let now = self.held.now();
        self.held.candidate().looked(record, now);
        Ok(())
    }

    async fn write(&self, record: Record) -> Result<(), Refusal> {
        let began = self.held.now();
        let version = self.ledger.write(&record).await?;
        let held = self.held.holds();
        let now = self.held.now();
        self.held.candidate().wrote(record, version, began, now);
        if !held && self.held.holds() {
            tracing::info!("this agent acts: it holds the {}", self.ledger.name());
        }
        Ok(())
    }
}
