//! Clients that keep asking at a steady rate, and what became of each request.
//!
//! HTTP/1.1 by hand, so that every way in which a request can be lost is told apart. They behave as good clients do:
//! one that cannot connect asks the next address, one whose kept connection was closed before a byte of the answer
//! came sends its request once more (RFC 9110, 9.2.2). Both are counted apart from requests that just went well.

pub mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at};

pub use self::wire::{Answer, Kind, get};
use self::wire::{Broken, Connection};

/// A request that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(10);
/// Requests on one kept connection, after which the client begins another at the next address.
const KEEP: u32 = 50;

/// Who asks what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The balancers, each of which is asked in turn.
    pub at: Vec<SocketAddr>,
    /// The host name asked for.
    pub host: String,
    /// The path asked for.
    pub path: String,
    /// Requests a second, all workers together.
    pub rate: u32,
    /// How many ask at once: half of them GET on connections that they keep, the others POST on a new one each time.
    pub workers: u32,
}

/// A request that was answered with 200 by an instance.
#[derive(Debug, Clone)]
pub struct Hit {
    /// When it was sent first.
    pub begun: Instant,
    /// When its answer was complete.
    pub ended: Instant,
    /// The instance that says so.
    pub instance: Arc<str>,
    /// The balancer that was asked last.
    pub at: SocketAddr,
}

/// A request that was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How.
    pub kind: Kind,
    /// The balancer that was asked last.
    pub at: SocketAddr,
    /// When it was sent first.
    pub begun: Instant,
    /// When it failed.
    pub ended: Instant,
    /// Whether on a connection that had been used before.
    pub kept: bool,
}

/// What became of all requests of a while.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Those that went well, in the order in which they were answered.
    pub hits: Vec<Hit>,
    /// Those that did not.
    pub failures: Vec<Failure>,
    /// Went well at the next balancer, because no connection could be made to the first.
    pub elsewhere: u64,
    /// Went well when sent again, because a kept connection had been closed without a byte of an answer.
    pub again: u64,
}

impl Report {
    /// All requests.
    pub fn requests(&self) -> usize {
        self.hits.len() + self.failures.len()
    }

    /// How many requests each instance answered.
    pub fn spread(&self) -> BTreeMap<Arc<str>, usize> {
        let mut all = BTreeMap::new();
        for hit in &self.hits {
            *all.entry(hit.instance.clone()).or_default() += 1;
        }
        all
    }

    /// When an instance was sent its first and its last request.
    pub fn between(&self, instance: &str) -> Option<(Instant, Instant)> {
        let its = || self.hits.iter().filter(|h| &*h.instance == instance).map(|h| h.begun);
        Some((its().min()?, its().max()?))
    }

    /// How many failed, by kind.
    pub fn kinds(&self) -> BTreeMap<Kind, usize> {
        let mut all = BTreeMap::new();
        for failure in &self.failures {
            *all.entry(failure.kind).or_default() += 1;
        }
        all
    }

    /// The time in milliseconds that this part of the answered requests did not exceed.
    pub fn latency(&self, part: f64) -> f64 {
        let mut all: Vec<f64> =
            self.hits.iter().map(|h| (h.ended - h.begun).as_secs_f64() * 1e3).collect();
        all.sort_by(f64::total_cmp);
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index into samples"
        )]
        let rank = (part * all.len() as f64).ceil() as usize;
        all.get(rank.clamp(1, all.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    }

    /// Takes out the failures that `excused` names; gives how many these were.
    pub fn excuse(&mut self, excused: impl Fn(&Failure) -> bool) -> usize {
        let before = self.failures.len();
        self.failures.retain(|f| !excused(f));
        before - self.failures.len()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hits, failures, elsewhere, again } = self;
        write!(f, "{} answered, {} failed", hits.len(), failures.len())?;
        for (kind, n) in self.kinds() {
            write!(f, " ({n} {kind})")?;
        }
        write!(f, ", {elsewhere} elsewhere, {again} again, ")?;
        let [half, most, all] = [0.5, 0.99, 1.0].map(|part| self.latency(part));
        write!(f, "p50 {half:.1} ms, p99 {most:.1} ms, max {all:.1} ms")
    }
}

/// Clients at work, until they are dropped or [ended](Load::end).
pub struct Load {
    plan: Arc<Plan>,
    report: Arc<Mutex<Report>>,
    ends: watch::Sender<bool>,
    workers: JoinSet<()>,
}

impl Load {
    /// They begin at once.
    pub fn start(plan: Plan) -> Self {
        assert!(!plan.at.is_empty() && plan.rate > 0 && plan.workers > 0, "{plan:?}");
        let plan = Arc::new(plan);
        let report = Arc::<Mutex<Report>>::default();
        let (ends, ending) = watch::channel(false);
        let mut workers = JoinSet::new();
        for n in 0..plan.workers {
            let worker = Worker {
                plan: plan.clone(),
                report: report.clone(),
                ending: ending.clone(),
                keeps: n % 2 == 0,
                // Those that keep their connections begin at different balancers, and so do the others.
                next: (n / 2) as usize,
                kept: None,
            };
            workers.spawn(worker.work(n));
        }
        Self { plan, report, ends, workers }
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap()
    }

    /// What became of the requests that ended since the last time.
    pub fn take(&self) -> Report {
        std::mem::take(&mut *self.report())
    }

    /// What became of them, which the next [`take`](Load::take) gives too.
    pub fn so_far(&self) -> Report {
        self.report().clone()
    }

    /// Waits until there are this many requests since the last [`take`](Load::take).
    pub async fn until(&self, requests: usize) {
        let due = u32::try_from(requests).unwrap() / self.plan.rate;
        let deadline = Instant::now() + Duration::from_secs(u64::from(due) * 4 + 60);
        while self.report().requests() < requests {
            assert!(Instant::now() < deadline, "the clients do not reach {requests} requests");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for what a number of seconds at the full rate gives.
    pub async fn more(&self, seconds: u32) {
        let now = self.report().requests();
        self.until(now + (self.plan.rate * seconds) as usize).await;
    }

    /// Lets the requests under way come to their end.
    pub async fn end(mut self) -> Report {
        self.ends.send_replace(true);
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
        self.take()
    }
}

struct Worker {
    plan: Arc<Plan>,
    report: Arc<Mutex<Report>>,
    ending: watch::Receiver<bool>,
    keeps: bool,
    /// Counts on through the addresses.
    next: usize,
    kept: Option<Connection>,
}

/// How one request went, beside its answer.
#[derive(Default)]
struct Detours {
    elsewhere: bool,
    again: bool,
}

impl Worker {
    async fn work(mut self, n: u32) {
        let every = Duration::from_secs(1) * self.plan.workers / self.plan.rate;
        // Spread over one turn, so that they do not ask all at once.
        let first = Instant::now() + every * n / self.plan.workers;
        let mut due = interval_at(first, every);
        // The rate is kept on the average: what a slow answer held up is asked as soon as it is there.
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            tokio::select! {
                biased;
                _ = self.ending.wait_for(|ends| *ends) => return,
                _ = due.tick() => {}
            }
            self.request().await;
        }
    }

    async fn request(&mut self) {
        let begun = Instant::now();
        let mut detours = Detours::default();
        let mut at = self.address();
        let mut kept = false;
        let outcome = timeout_at(begun + LIMIT, self.ask(&mut detours, &mut at, &mut kept)).await;
        let ended = Instant::now();
        let outcome = outcome.unwrap_or(Err(Kind::Timeout)).and_then(|answer| {
            if answer.status != 200 {
                return Err(Kind::Status(answer.status));
            }
            let said: Option<serde_json::Value> = serde_json::from_str(&answer.body).ok();
            let instance = said.as_ref().and_then(|v| v["instance"].as_str());
            instance.map(Arc::from).ok_or(Kind::Garbled)
        });
        let mut report = self.report.lock().unwrap();
        match outcome {
            Ok(instance) => {
                report.hits.push(Hit { begun, ended, instance, at });
                report.elsewhere += u64::from(detours.elsewhere);
                report.again += u64::from(detours.again);
            }
            Err(kind) => {
                drop(report);
                self.kept = None;
                let failure = Failure { kind, at, begun, ended, kept };
                self.report.lock().unwrap().failures.push(failure);
            }
        }
    }

    fn address(&self) -> SocketAddr {
        self.plan.at[self.next % self.plan.at.len()]
    }

    async fn ask(
        &mut self,
        detours: &mut Detours,
        at: &mut SocketAddr,
        on_kept: &mut bool,
    ) -> Result<Answer, Kind> {
        let plan = self.plan.clone();
        if let Some(mut connection) = self.kept.take() {
            (*at, *on_kept) = (connection.at, true);
            match connection.ask("GET", &plan.host, &plan.path, true).await {
                Ok(answer) => {
                    self.keep(connection, &answer);
                    return Ok(answer);
                }
                Err(Broken { unheard: true, .. }) => detours.again = true,
                Err(Broken { kind, .. }) => return Err(kind),
            }
            *on_kept = false;
        }
        for _ in 0..plan.at.len() {
            *at = self.address();
            self.next += 1;
            let Some(mut connection) = Connection::open(*at).await else {
                detours.elsewhere = true;
                continue;
            };
            let answer = connection.ask(self.method(), &plan.host, &plan.path, self.keeps).await;
            let answer = answer.map_err(|broken| broken.kind)?;
            self.keep(connection, &answer);
            return Ok(answer);
        }
        Err(Kind::Unreached)
    }

    /// What a balancer may not send twice shows who was stopped too early: it repeats a GET without a word. On a kept
    /// connection the client could not repeat it either.
    fn method(&self) -> &'static str {
        if self.keeps { "GET" } else { "POST" }
    }

    fn keep(&mut self, connection: Connection, answer: &Answer) {
        if self.keeps && !answer.closes && connection.asked < KEEP {
            self.kept = Some(connection);
        }
    }
}

#[cfg(test)]
mod tests;
