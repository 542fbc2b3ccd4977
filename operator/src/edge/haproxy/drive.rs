//! Keeps one HAProxy at what it was last told, from whatever it has in force.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::approve::{Structure, Verdict, approve};
use super::assign::{Seats, arrange, assign, command, size};
use super::observe::{self, InForce};
use super::render::LeftOut;
use super::runtime::Runtime;
use super::site::{Ours, Site};
use crate::edge::Link;
use crate::error::causes;
use crate::model::{BalancerView, PoolName, Routing, Seen, Table, Time};

/// Between two looks while something is about to change, when it has been for longer than `SOON`, and while nothing is.
const OFTEN: Duration = Duration::from_millis(50);
const NOW_AND_THEN: Duration = Duration::from_millis(250);
const SELDOM: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(10);
/// Between two reloads: each leaves a worker behind until its last connection ends.
const BETWEEN_RELOADS: Duration = Duration::from_millis(1500);
/// Workers of earlier configurations beyond which none is added.
const MOST_OLD_WORKERS: u32 = 3;
/// Longest wait for a reload to be in force.
const RELOAD: Duration = Duration::from_secs(15);
/// Until what HAProxy refused, or could not be asked about, is tried again.
const AGAIN: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// The file follows changes of servers after this long, so that many make one.
const FILE: Duration = Duration::from_secs(1);
/// A silence that is told.
const SILENCE: Duration = Duration::from_secs(1);
/// Pauses between attempts to reach a runtime socket.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Up to so many places are looked at one by one.
const SOME: usize = 32;

/// Work beside the conversation. At most one at a time: all of it writes the same files.
type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

enum Done {
    Judged(Structure, Verdict),
    Filed(Result<(), String>),
    Counted(Option<u32>),
}

/// Why a conversation ended.
enum End {
    /// Nobody gives orders any more.
    Dismissed,
    Broken(String),
}

/// Brings a balancer to each order and tells what it has in force, until the orders end. What the balancer has when
/// this begins is kept where it is right.
pub async fn drive(link: Link) {
    let mut driver = Driver::new(link);
    let mut pause = FIRST_PAUSE;
    let mut broken: Option<Instant> = None;
    loop {
        let why = match driver.converse(&mut broken, &mut pause).await {
            End::Dismissed => return,
            End::Broken(why) => why,
        };
        let since = *broken.get_or_insert_with(Instant::now);
        if since.elapsed() >= SILENCE {
            driver.fell_silent(&why, since);
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = driver.dismissed() => return,
        }
    }
}

struct Driver {
    link: Link,
    site: Site,
    in_force: InForce,
    /// When everything was looked at last.
    looked: Instant,
    /// When the newest order came.
    ordered: Instant,
    /// What HAProxy said of the newest structure it was asked about, and when to ask again.
    verdict: Option<(Structure, Verdict, Instant)>,
    /// What the structure in force was made of, where this agent knows.
    made_of: Option<(String, Arc<Routing>, LeftOut)>,
    job: Option<Job>,
    last_reload: Option<Instant>,
    reload_problem: Option<String>,
    reloads: u64,
    old_workers: u32,
    count_at: Option<Instant>,
    /// Requests that earlier workers answered.
    requests_before: u64,
    /// What the file has, as far as this agent wrote it, and when it is to follow.
    filed: Option<String>,
    file_at: Option<Instant>,
    /// The structure in force is to stay.
    held: bool,
    /// Whether there may be certificates that nothing names: an earlier agent may have left them.
    litter: bool,
}

impl Driver {
    fn new(link: Link) -> Self {
        Self {
            site: Site::new(link.at.clone()),
            link,
            in_force: InForce::default(),
            looked: Instant::now(),
            ordered: Instant::now(),
            verdict: None,
            made_of: None,
            job: None,
            last_reload: None,
            reload_problem: None,
            reloads: 0,
            old_workers: 0,
            count_at: None,
            requests_before: 0,
            filed: None,
            file_at: None,
            held: false,
            litter: true,
        }
    }

    async fn dismissed(&mut self) {
        while self.link.orders.changed().await.is_ok() {}
    }

    /// One conversation, from its beginning to its end.
    async fn converse(&mut self, broken: &mut Option<Instant>, pause: &mut Duration) -> End {
        let mut runtime = match Runtime::open(&self.site).await {
            Ok(runtime) => runtime,
            Err(why) => return End::Broken(why),
        };
        if let Err(why) = self.look(&mut runtime).await {
            return End::Broken(why);
        }
        // What an agent before this one left behind must be known before anybody is told that a server is idle.
        if let Some(old) = self.site.old_workers().await {
            self.take(Done::Counted(Some(old)));
        }
        loop {
            let table = Arc::clone(&self.link.orders.borrow_and_update());
            let table = self.in_force.kept(&table);
            match self.turn(&mut runtime, &table).await {
                Ok(None) => {}
                Ok(Some(new)) => runtime = new,
                Err(why) => return End::Broken(why),
            }
            (*broken, *pause) = (None, FIRST_PAUSE);
            if let Err(end) = self.rest(&mut runtime, &table).await {
                return end;
            }
        }
    }

    /// Waits until there is something to do, and has looked where that was due.
    async fn rest(&mut self, runtime: &mut Runtime, table: &Table) -> Result<(), End> {
        let changing = self.in_force.in_transition(table);
        let busy = changing.more || !changing.places.is_empty();
        let next = match (busy, self.ordered.elapsed() < SOON) {
            (true, true) => OFTEN,
            (true, false) => NOW_AND_THEN,
            (false, _) => SELDOM,
        };
        let next = Instant::now() + next;
        let beside = [self.file_at, self.count_at].into_iter().filter(|_| !self.held);
        let woken = beside.chain([self.next_attempt()]).flatten().min();
        let done = tokio::select! {
            changed = self.link.orders.changed() => {
                self.ordered = Instant::now();
                return changed.map_err(|_| End::Dismissed);
            }
            done = wait(&mut self.job) => Some(done),
            () = sleep_until(next) => None,
            () = until(woken), if self.job.is_none() => return Ok(()),
        };
        match done {
            Some(done) => {
                self.job = None;
                self.take(done);
                Ok(())
            }
            None if busy && !changing.more && self.looked.elapsed() < SELDOM => {
                self.look_at(runtime, &changing.places).await.map_err(End::Broken)
            }
            None => self.look(runtime).await.map_err(End::Broken),
        }
    }

    fn take(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Judged(structure, verdict) => {
                let again = match &verdict {
                    Verdict::Taken { .. } => now,
                    Verdict::Refused(_) => now + AGAIN,
                    Verdict::Unasked(_) => now + ASK_AGAIN,
                };
                self.verdict = Some((structure, verdict, again));
            }
            Done::Filed(Ok(())) => {}
            Done::Filed(Err(why)) => {
                warn!(why, "the balancer's file does not follow");
                (self.filed, self.file_at) = (None, Some(now + ASK_AGAIN));
            }
            Done::Counted(count) => {
                let drain = self.made_of.as_ref().map_or(Duration::ZERO, |(_, of, _)| of.drain);
                // Where they cannot be counted, HAProxy's own limit to their lives is what is known.
                let ended = self.last_reload.is_none_or(|at| at.elapsed() > drain + SOON);
                self.old_workers = count.unwrap_or(if ended { 0 } else { self.old_workers });
                self.count_at = (self.old_workers > 0).then_some(now + NOW_AND_THEN * 2);
            }
        }
    }

    /// When a job or a reload that had to wait may begin.
    fn next_attempt(&self) -> Option<Instant> {
        let (_, verdict, again) = self.verdict.as_ref().filter(|_| !self.held)?;
        match verdict {
            Verdict::Taken { digest, .. } if *digest != self.in_force.digest => {
                self.reload_at().filter(|_| self.old_workers <= MOST_OLD_WORKERS)
            }
            Verdict::Taken { .. } => None,
            Verdict::Refused(_) | Verdict::Unasked(_) => Some(*again),
        }
    }

    /// `None`: at once.
    fn reload_at(&self) -> Option<Instant> {
        let pause = if self.reload_problem.is_some() { AGAIN } else { BETWEEN_RELOADS };
        self.last_reload.map(|last| last + pause)
    }

    async fn look(&mut self, runtime: &mut Runtime) -> Result<(), String> {
        let answers = runtime.ask(&observe::questions(&self.site.frame)).await?;
        self.looked = Instant::now();
        self.in_force = observe::read(&answers, &self.site.frame)
            .ok_or("this HAProxy was not started by evenkeel")?;
        Ok(())
    }

    /// Does what can be done now. Another conversation, where a reload began one.
    async fn turn(
        &mut self,
        runtime: &mut Runtime,
        table: &Table,
    ) -> Result<Option<Runtime>, String> {
        self.follow(runtime, table).await?;
        if self.site.frame.ours == Ours::Servers {
            // There is no file to follow.
            self.file_at = None;
            self.tell(table);
            return Ok(None);
        }
        self.held = table.held && self.in_force.listening();
        if self.held {
            self.tell(table);
            return Ok(None);
        }
        let structure = self.structure(table);
        let mut new = None;
        if let Some((digest, left_out)) = self.approved(&structure) {
            if digest == self.in_force.digest {
                self.reload_problem = None;
                self.made_of = Some((digest, Arc::clone(&table.routing), left_out));
            } else if self.job.is_none()
                && self.reload_at().is_none_or(|at| at <= Instant::now())
                && self.old_workers <= MOST_OLD_WORKERS
            {
                new = self.reload(&structure, table, &digest, &left_out).await?;
                if let Some(runtime) = &mut new {
                    // Orders that came meanwhile are followed at once.
                    self.look(runtime).await?;
                    self.follow(runtime, table).await?;
                    self.made_of = Some((digest, Arc::clone(&table.routing), left_out));
                }
            }
        }
        self.begin_job(&structure, table);
        self.tell(table);
        Ok(new)
    }

    /// Brings every server of a pool in force to where it should be.
    async fn follow(&mut self, runtime: &mut Runtime, table: &Table) -> Result<(), String> {
        if self.in_force.digest.is_empty() {
            // Nothing of ours is in force: a backend of that name would be somebody else's.
            return Ok(());
        }
        let mut commands = Vec::new();
        let mut changed = BTreeSet::new();
        for (name, pool) in &table.routing.pools {
            let Some(places) = self.in_force.places(name) else { continue };
            let wanted = table.servers.get(name).map_or(&[][..], Vec::as_slice);
            let plan = assign(places, pool.cookie.is_some(), wanted);
            changed.extend(plan.changes.iter().map(|(k, _)| (name.clone(), *k)));
            commands.extend(
                plan.changes.iter().map(|(k, c)| command(name.as_str(), &pool.service, *k, *c)),
            );
        }
        if commands.is_empty() {
            return Ok(());
        }
        runtime.ask(&commands).await?;
        self.file_at.get_or_insert_with(|| Instant::now() + FILE);
        self.look_at(runtime, &changed).await
    }

    /// Looks at some places, where that is less than looking at all. A change must not take longer because others are
    /// in the same pool.
    async fn look_at(
        &mut self,
        runtime: &mut Runtime,
        places: &BTreeSet<(PoolName, u32)>,
    ) -> Result<(), String> {
        if places.len() <= SOME
            && let Some(questions) = self.in_force.question_each(places)
        {
            let answers = runtime.ask(&questions).await?;
            if self.in_force.reread(places, &answers) {
                return Ok(());
            }
        }
        self.look(runtime).await
    }

    fn structure(&self, table: &Table) -> Structure {
        let sizes = table.routing.pools.iter().map(|(name, pool)| {
            let places = self.in_force.places(name);
            let in_force = places.and_then(|p| p.keys().next_back()).copied().unwrap_or_default();
            let wanted = table.servers.get(name).map_or(0, Vec::len);
            (name.clone(), size(pool, in_force, wanted))
        });
        let frame = Arc::clone(&self.site.frame);
        Structure { frame, routing: Arc::clone(&table.routing), sizes: sizes.collect() }
    }

    fn seats(&self, structure: &Structure, table: &Table) -> BTreeMap<PoolName, Seats> {
        let nobody = BTreeMap::new();
        let seats = structure.sizes.iter().map(|(name, size)| {
            let places = self.in_force.places(name).unwrap_or(&nobody);
            let wanted = table.servers.get(name).map_or(&[][..], Vec::as_slice);
            (name.clone(), arrange(places, *size, wanted))
        });
        seats.collect()
    }

    fn approved(&self, structure: &Structure) -> Option<(String, LeftOut)> {
        match self.verdict.as_ref()? {
            (of, Verdict::Taken { digest, left_out }, _) if of == structure => {
                Some((digest.clone(), left_out.clone()))
            }
            _ => None,
        }
    }

    /// Puts a configuration that HAProxy has agreed to in force. `None` where it did not come to be.
    async fn reload(
        &mut self,
        structure: &Structure,
        table: &Table,
        digest: &str,
        left_out: &LeftOut,
    ) -> Result<Option<Runtime>, String> {
        if !self.link.announce(table) {
            return Ok(None);
        }
        let site = self.site.clone();
        let rendered = structure.render(&self.seats(structure, table), left_out);
        let begun = Instant::now();
        self.last_reload = Some(begun);
        let mut files = rendered.files.clone();
        files.push(site.config(&rendered.text));
        let reload = async {
            site.put(&files).await?;
            site.reload().await
        };
        if let Err(e) = reload.await {
            self.reload_problem = Some(causes(&e));
            return Ok(None);
        }
        (self.filed, self.file_at) = (Some(rendered.text.clone()), None);
        let before = self.in_force.counters.requests;
        let new = timeout(RELOAD, async {
            loop {
                if let Ok(mut runtime) = Runtime::open(&site).await
                    && self.look(&mut runtime).await.is_ok()
                    && self.in_force.digest == digest
                {
                    return runtime;
                }
                sleep(OFTEN).await;
            }
        });
        let Ok(new) = new.await else {
            let why = site.not_in_force();
            warn!(why, "reload of a balancer");
            self.reload_problem = Some(why.clone());
            return Err(why);
        };
        info!(ms = begun.elapsed().as_millis(), "a balancer has another configuration in force");
        self.requests_before = self.requests_before.saturating_add(before);
        self.reloads += 1;
        // At least the one that was in force, until they are counted: it may still have requests.
        self.old_workers += 1;
        self.reload_problem = None;
        self.last_reload = Some(Instant::now());
        self.count_at = Some(Instant::now());
        if self.litter || !rendered.files.is_empty() {
            // What is left lies there until the next time. What is in force now is litter once it is not.
            let swept = site.sweep(&rendered).await.is_ok();
            self.litter = !swept || !rendered.files.is_empty();
        }
        Ok(Some(new))
    }

    /// Begins what is due and takes time, beside the conversation.
    fn begin_job(&mut self, structure: &Structure, table: &Table) {
        if self.job.is_some() {
            return;
        }
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let site = self.site.clone();
        let judged = self.verdict.as_ref().is_some_and(|(of, verdict, again)| {
            of == structure && (matches!(verdict, Verdict::Taken { .. }) || *again > now)
        });
        if !judged {
            // To be tried they are put there, whatever comes of it.
            self.litter |= structure.routing.listeners.iter().any(|l| !l.certificates.is_empty());
            let (structure, seats) = (structure.clone(), self.seats(structure, table));
            let in_force = self.in_force.digest.clone();
            self.job = Some(Box::pin(async move {
                let verdict = approve(site, structure.clone(), seats, in_force).await;
                Done::Judged(structure, verdict)
            }));
        } else if due(self.count_at) {
            self.count_at = None;
            self.job = Some(Box::pin(async move { Done::Counted(site.old_workers().await) }));
        } else if due(self.file_at) {
            self.file_at = None;
            let Some((digest, left_out)) = self.approved(structure) else { return };
            let text = structure.render(&self.seats(structure, table), &left_out).text;
            if digest != self.in_force.digest || self.filed.as_ref() == Some(&text) {
                return;
            }
            self.filed = Some(text.clone());
            self.job = Some(Box::pin(async move {
                Done::Filed(site.put(&[site.config(&text)]).await.map_err(|e| causes(&e)))
            }));
        }
    }

    fn tell(&self, table: &Table) {
        let before = self.link.view.get();
        let now = self.link.clock.now();
        let routing = &table.routing;
        let known = self.made_of.as_ref().filter(|(digest, ..)| *digest == self.in_force.digest);
        let pools =
            known.map(|(_, made_of, left_out)| observe::same_pools(routing, made_of, left_out));
        let mut all: Vec<&PoolName> = routing.pools.keys().collect();
        if let Some((_, made_of, _)) = known {
            all.extend(made_of.pools.keys());
        }
        if self.site.frame.ours == Ours::Servers {
            self.tell_servers(table, &before, now);
            return;
        }
        let newest = self.verdict.as_ref().filter(|(of, ..)| of.routing == *routing);
        let (refused, problem) = match newest {
            Some((_, Verdict::Taken { left_out, .. }, _)) => {
                (observe::refused(routing, left_out), observe::problem(left_out))
            }
            Some((_, Verdict::Refused(why), _)) => {
                (BTreeMap::new(), Some(format!("HAProxy refuses the configuration: {why}")))
            }
            Some((_, Verdict::Unasked(why), _)) => (BTreeMap::new(), Some(why.clone())),
            None => (before.refused.clone(), before.problem.clone()),
        };
        self.link.view.set(BalancerView {
            seen: Seen::Now,
            listening: self.in_force.listening(),
            pools: pools.unwrap_or_default(),
            servers: self.in_force.servers(all.into_iter(), &before.servers, now),
            coming: BTreeSet::new(),
            refused,
            problem: self.reload_problem.clone().or(problem),
            requests: self.requests_before.saturating_add(self.in_force.counters.requests),
            reloads: self.reloads,
            old_workers: self.old_workers,
        });
    }

    /// Of a HAProxy whose structure is somebody else's.
    fn tell_servers(&self, table: &Table, before: &BalancerView, now: Time) {
        let routing = &table.routing;
        let (refused, problem) = observe::lacking(table, &self.in_force);
        let pools = routing.pools.keys().filter(|pool| self.in_force.places(pool).is_some());
        self.link.view.set(BalancerView {
            seen: Seen::Now,
            listening: true,
            servers: self.in_force.servers(routing.pools.keys(), &before.servers, now),
            coming: BTreeSet::new(),
            pools: pools.cloned().collect(),
            refused,
            problem,
            requests: 0,
            reloads: 0,
            old_workers: self.old_workers,
        });
    }

    /// What was known stays; it is only not certain any more.
    fn fell_silent(&self, why: &str, since: Instant) {
        let mut view = (*self.link.view.get()).clone();
        view.seen = match view.seen {
            Seen::Now => {
                let ago = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                Seen::Silent { since: Time(self.link.clock.now().0.saturating_sub(ago)) }
            }
            silent @ (Seen::Silent { .. } | Seen::Never { .. }) => silent,
        };
        view.problem = Some(why.to_owned());
        self.link.view.set(view);
    }
}

async fn wait(job: &mut Option<Job>) -> Done {
    match job {
        Some(job) => job.await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
