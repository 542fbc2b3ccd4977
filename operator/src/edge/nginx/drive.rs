//! Drives one nginx: tries a configuration, swaps it in, reloads and confirms; and tells what is in force.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::CONFIG;
use super::blame::{CANDIDATE, complaint, culprit};
use super::facts::Facts;
use super::image::Image;
use super::pace::Pace;
use super::render::{LeftOut, Rendered, render};
use super::shell::{Question, Shell, State};
use super::sight::Sight;
use crate::edge::{File, Link};
use crate::error::{PortError, Remedy, causes};
use crate::model::{PoolName, Routing, Table, Target, Time};

/// Between two looks, when nothing is expected.
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks, while old workers finish.
const LOOK_CLOSELY: Duration = Duration::from_millis(100);
/// Between two looks at whether a reload is done.
const CONFIRM: Duration = Duration::from_millis(10);
/// The longest wait for it.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// The most things left out of one configuration before it is given up.
const MOST_TRIES: usize = 20;
/// How long a table that does not list everybody waits for one that does.
const HESITATE: Duration = Duration::from_secs(2);
/// Between two tries of what nginx does not take.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// Between two tries to reach the container: the first, and the longest.
const REACH: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Makes one nginx do what it is told, until nobody tells it any more.
pub async fn drive(mut link: Link) {
    let mut driver = Driver::new(link.clock.now());
    let mut pause = REACH.0;
    loop {
        match driver.session(&mut link).await {
            Ok(()) => return,
            Err(error) => {
                if driver.sight.seen == crate::model::Seen::Now {
                    pause = REACH.0;
                }
                driver.sight.silent(causes(&error), link.clock.now());
                driver.tell(&link);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REACH.1);
        if link.orders.has_changed().is_err() {
            return;
        }
    }
}

struct Driver {
    sight: Sight,
    image: Image,
    /// What nginx did not take of the routing beside it.
    left_out: LeftOut,
    of: Option<Arc<Routing>>,
    /// The table that is in force or was given up, and when.
    done: Option<(Arc<Table>, Outcome)>,
    /// The newest table that was looked at.
    asked: Option<Arc<Table>>,
    pace: Pace,
    /// Certificates that are in the container.
    put: BTreeSet<String>,
    /// Whether there may be some that nothing names: an earlier agent may have left them.
    litter: bool,
    /// Since when the tables do not list everybody.
    incomplete: Option<tokio::time::Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    InForce,
    GivenUp { at: Time },
}

impl Driver {
    fn new(now: Time) -> Self {
        Self {
            sight: Sight::never(now),
            image: Image::default(),
            left_out: LeftOut::new(),
            of: None,
            done: None,
            asked: None,
            pace: Pace::default(),
            put: BTreeSet::new(),
            litter: true,
            incomplete: None,
        }
    }

    /// One conversation, from its begin to an error; returns when there is nobody to tell.
    async fn session(&mut self, link: &mut Link) -> Result<(), PortError> {
        let mut shell = Shell::open(&link.at).await?;
        self.image = shell.image().await?;
        self.put.clear();
        self.done = None;
        self.look(&mut shell, link).await?;
        loop {
            let table = link.orders.borrow_and_update().clone();
            let held = table.held && self.sight.listening();
            let table = self.kept(&table, held);
            // Until it is done, less is in force as ordered than was a moment ago.
            self.tell(link);
            let wait = if held && self.of.is_none() {
                // Every change is a reload, and what the one in force was made of is not known any more.
                None
            } else {
                self.heed(&table, link.clock.now());
                self.due(&table, link.clock.now()).map(|wait| wait.max(self.hesitation(&table)))
            };
            if wait == Some(Duration::ZERO) {
                self.apply(link, &mut shell, &table).await?;
                self.tell(link);
                continue;
            }
            let look = if self.sight.restless() { LOOK_CLOSELY } else { LOOK };
            tokio::select! {
                changed = link.orders.changed() => if changed.is_err() {
                    return Ok(());
                },
                () = tokio::time::sleep(wait.map_or(look, |wait| wait.min(look))) => {
                    self.look(&mut shell, link).await?;
                }
            }
        }
    }

    /// An agent that has just begun knows more in a moment, and then mostly that nothing is to be done.
    fn hesitation(&mut self, table: &Table) -> Duration {
        if table.complete || !self.sight.listening() {
            self.incomplete = None;
            return Duration::ZERO;
        }
        let since = *self.incomplete.get_or_insert_with(tokio::time::Instant::now);
        HESITATE.saturating_sub(since.elapsed())
    }

    /// The table, with whoever must stay though it does not list them; by the routing in force where that must stay.
    fn kept(&self, table: &Arc<Table>, held: bool) -> Arc<Table> {
        let in_force = self.sight.in_force.iter().flat_map(|facts| &facts.servers);
        let in_force = in_force.map(|((pool, _), server)| (pool.clone(), server.clone()));
        let Some(of) = self.of.as_ref().filter(|of| held && **of != table.routing) else {
            return table.keeping(in_force);
        };
        let unlisted =
            in_force.filter(|(pool, _)| !table.complete || !table.routing.pools.contains_key(pool));
        let table = Table { routing: of.clone(), complete: false, ..(**table).clone() };
        Arc::new(table).keeping(unlisted)
    }

    fn tell(&self, link: &Link) {
        let table = link.orders.borrow().clone();
        link.view.set(self.sight.view(&table));
    }

    async fn look(&mut self, shell: &mut Shell, link: &Link) -> Result<(), PortError> {
        let state = shell.state().await?;
        let mut on_disk = None;
        if self.sight.wonders(&state) {
            on_disk = Facts::parse(&shell.ask(Question::Facts).await?.text);
            // Whatever was in force is not any more: what is wanted must be compared again.
            self.done = None;
        }
        self.sight.answered(state, on_disk, link.clock.now());
        self.tell(link);
        Ok(())
    }

    /// How long until something should be done for `table`; `None` if nothing.
    fn due(&self, table: &Arc<Table>, now: Time) -> Option<Duration> {
        let done = self.done.as_ref().filter(|(done, _)| Arc::ptr_eq(done, table) || done == table);
        match done {
            Some((_, Outcome::InForce)) => None,
            Some((_, Outcome::GivenUp { at })) => Some(TRY_AGAIN.saturating_sub(now.since(*at))),
            None => {
                let state = &self.sight.state;
                let generations = state.old.len().div_ceil(state.workers.len().max(1));
                Some(self.pace.wait(self.is_urgent(table), generations, now))
            }
        }
    }

    /// Counts a table that is not the one before, and is done with it where it makes no difference.
    fn heed(&mut self, table: &Arc<Table>, now: Time) {
        let same = |asked: &Arc<Table>| Arc::ptr_eq(asked, table) || asked == table;
        if self.asked.as_ref().is_some_and(same) {
            return;
        }
        self.asked = Some(table.clone());
        self.adopt(table);
        if self.in_force(&render(table, &self.image, &self.left_out)) {
            self.pace.settled();
            self.sight.problem = None;
            self.done = Some((table.clone(), Outcome::InForce));
        } else {
            self.pace.changed(now);
        }
    }

    /// Of another routing nothing is known to be refused.
    fn adopt(&mut self, table: &Table) {
        let same = |of: &Arc<Routing>| Arc::ptr_eq(of, &table.routing) || *of == table.routing;
        if !self.of.as_ref().is_some_and(same) || self.gave_up() {
            self.left_out.clear();
            self.of = Some(table.routing.clone());
        }
    }

    /// Whether somebody is in force who should not get one more request: dead, gone or sick. Who leaves in order can.
    fn is_urgent(&self, table: &Table) -> bool {
        let Some(facts) = &self.sight.in_force else { return false };
        let servers =
            table.servers.iter().flat_map(|(pool, all)| all.iter().map(move |s| (pool, s)));
        let useful = servers.filter(|(_, s)| s.target == Target::Ready || !s.sick);
        let useful: BTreeSet<(&PoolName, SocketAddr)> =
            useful.map(|(pool, s)| (pool, s.address)).collect();
        let mut ready = facts.servers.iter().filter(|(_, server)| server.target == Target::Ready);
        ready.any(|((pool, address), _)| {
            table.routing.pools.contains_key(pool) && !useful.contains(&(pool, *address))
        })
    }

    async fn apply(
        &mut self,
        link: &Link,
        shell: &mut Shell,
        table: &Arc<Table>,
    ) -> Result<(), PortError> {
        self.adopt(table);
        let accepted = match self.accepted(link, shell, table).await {
            // It is there, and only a person can help: what is in force goes on.
            Err(e) if e.remedy == Remedy::Hold && self.image.beside.is_some() => Err(causes(&e)),
            other => other?,
        };
        let outcome = match accepted {
            Ok(rendered) if !self.in_force(&rendered) && !link.announce(table) => {
                return shell.abandon();
            }
            Ok(rendered) => self.reload(link, shell, rendered).await?,
            Err(why) => Err(why),
        };
        let now = link.clock.now();
        let outcome = match outcome {
            Ok(()) => Outcome::InForce,
            Err(why) => {
                tracing::warn!(%why, "an nginx keeps the configuration that it has");
                self.sight.problem = Some(why);
                Outcome::GivenUp { at: now }
            }
        };
        self.done = Some((table.clone(), outcome));
        Ok(())
    }

    fn gave_up(&self) -> bool {
        matches!(self.done, Some((_, Outcome::GivenUp { .. })))
    }

    /// A configuration that nginx takes, less what it refuses; or why there is none.
    async fn accepted(
        &mut self,
        link: &Link,
        shell: &mut Shell,
        table: &Table,
    ) -> Result<Result<Rendered, String>, PortError> {
        let mut said = String::new();
        for _ in 0..MOST_TRIES {
            let rendered = render(table, &self.image, &self.left_out);
            if self.in_force(&rendered) {
                return Ok(Ok(rendered));
            }
            self.upload(link, shell, &rendered).await?;
            if shell.give(&rendered.text).await?.code != 0 {
                return Ok(Err(format!("{CANDIDATE} cannot be written")));
            }
            let answer = shell.ask(Question::Test).await?;
            if answer.code == 0 {
                return Ok(Ok(rendered));
            }
            let file = self.image.beside.as_ref().map_or(CANDIDATE, |beside| &beside.file);
            said = complaint(&answer.text, file);
            let guilty = culprit(&answer.text, file, &rendered, &self.left_out);
            let Some(guilty) = guilty else { break };
            tracing::warn!(?guilty, %said, "nginx does not take a part of its configuration");
            self.left_out.insert(guilty, format!("nginx says: {said}"));
        }
        Ok(Err(format!("nginx does not take its configuration: {said}")))
    }

    fn in_force(&self, rendered: &Rendered) -> bool {
        let in_force = self.sight.in_force.as_ref();
        in_force.is_some_and(|facts| facts.serves == rendered.facts.serves)
    }

    /// Puts certificates into the container that are not there yet.
    async fn upload(
        &mut self,
        link: &Link,
        shell: &mut Shell,
        rendered: &Rendered,
    ) -> Result<(), PortError> {
        let missing = rendered.certificates.iter().map(|(_, file)| file);
        let missing: Vec<File> =
            missing.filter(|file| !self.put.contains(&file.path)).cloned().collect();
        if !missing.is_empty() {
            self.litter = true;
            shell.put(&link.at, &missing).await?;
            self.put.extend(missing.into_iter().map(|file| file.path));
        }
        Ok(())
    }

    /// Puts what was accepted in force, unless it is; or says why nginx has not taken it.
    async fn reload(
        &mut self,
        link: &Link,
        shell: &mut Shell,
        rendered: Rendered,
    ) -> Result<Result<(), String>, PortError> {
        if self.in_force(&rendered) {
            self.pace.settled();
            self.sight.problem = None;
            return Ok(Ok(()));
        }
        let before = shell.state().await?.workers;
        self.pace.reloads(link.clock.now());
        let swapped = shell.ask(Question::Swap).await?;
        if swapped.code != 0 {
            let why = Some(swapped.text).filter(|text| !text.is_empty());
            return Ok(Err(why.unwrap_or_else(|| format!("{CONFIG} cannot be replaced"))));
        }
        let confirmed = tokio::time::timeout(CONFIRM_WITHIN, async {
            loop {
                let state = shell.state().await?;
                if replaced(&before, &state, &rendered.facts.digest) {
                    return Ok::<State, PortError>(state);
                }
                tokio::time::sleep(CONFIRM).await;
            }
        });
        let Ok(state) = confirmed.await else {
            // It was cut in the middle of an answer, so the conversation is of no use any more.
            *shell = Shell::open(&link.at).await?;
            shell.ask(Question::Back).await?;
            let why = match &self.image.beside {
                None => "nginx does not take its configuration, its log says why".to_owned(),
                Some(beside) => format!(
                    "the reload has brought nothing into force: nginx must include {} in its http block, and its log \
                     says what else is wrong",
                    beside.file
                ),
            };
            return Ok(Err(why));
        };
        self.sight.took(rendered.facts, state?, link.clock.now());
        shell.settled();
        if self.image.beside.is_some() {
            // What it can do it tells once something of ours is in force.
            self.image = shell.image().await?;
        }
        if self.litter {
            shell.ask(Question::Tidy).await?;
            self.put = rendered.certificates.into_iter().map(|(_, file)| file.path).collect();
            // Those that are in force now are litter once the next configuration names them no more.
            self.litter = !self.put.is_empty();
        }
        Ok(Ok(()))
    }
}

/// Whether no connection can come to a worker of the configuration before: nginx starts the new ones, and tells the
/// old ones to end a moment later.
fn replaced(before: &BTreeSet<u32>, state: &State, digest: &str) -> bool {
    state.digest.as_deref() == Some(digest)
        && !state.workers.is_empty()
        && state.workers.is_disjoint(before)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{name, table};
    use super::*;

    /// In force is a table with `web` 1, which serves, and 2, which drains.
    fn driver() -> Driver {
        let (mut driver, table) = (Driver::new(Time(0)), Arc::new(table()));
        let facts = render(&table, &Image::default(), &LeftOut::new()).facts;
        let state = State { digest: Some(facts.digest.clone()), ..State::default() };
        driver.sight.took(facts, state, Time(1));
        driver.pace.reloads(Time(1));
        driver
    }

    fn changed(how: impl FnOnce(&mut Table)) -> Arc<Table> {
        let mut table = table();
        how(&mut table);
        Arc::new(table)
    }

    #[test]
    fn what_drained_and_is_gone_is_no_reason_to_reload() {
        let mut driver = driver();
        let gone = changed(|t| drop(t.servers.get_mut(&name("web")).unwrap().pop()));
        for table in [Arc::new(table()), gone.clone()] {
            driver.heed(&table, Time(2));
            assert_eq!(driver.due(&table, Time(2)), None);
        }
        // Nobody hears of it any more, and of one who is still asked for everybody does.
        let known = |table: &Table| driver.sight.view(table).servers.len();
        assert_eq!((known(&table()), known(&gone)), (5, 4));
        // An agent that starts anew knows as much.
        let mut anew = Driver::new(Time(9));
        anew.sight = driver.sight.clone();
        anew.heed(&gone, Time(9));
        assert_eq!(anew.due(&gone, Time(9)), None);
    }

    #[test]
    fn who_is_of_no_use_goes_at_once_and_the_rest_in_its_time() {
        let web = name("web");
        let dead = changed(|t| drop(t.servers.get_mut(&web).unwrap().remove(0)));
        let leaving = changed(|t| t.servers.get_mut(&web).unwrap()[0].target = Target::Drain);
        let sick = changed(|t| {
            let one = &mut t.servers.get_mut(&web).unwrap()[0];
            (one.target, one.sick) = (Target::Drain, true);
        });
        let comes = changed(|t| t.servers.get_mut(&web).unwrap()[1].target = Target::Ready);
        let unrouted = changed(|t| {
            let routing = Arc::make_mut(&mut t.routing);
            routing.routes.retain(|route| route.pool != name("db"));
            routing.pools.remove(&name("db"));
            t.servers.remove(&name("db"));
        });
        for (what, table, urgent) in [
            ("dead", dead, true),
            ("sick", sick, true),
            ("leaving", leaving, false),
            ("comes", comes, false),
            ("unrouted", unrouted, false),
        ] {
            let mut driver = driver();
            assert_eq!(driver.is_urgent(&table), urgent, "{what}");
            // Twenty others came just before.
            (0..20).for_each(|_| driver.pace.changed(Time(2)));
            driver.heed(&table, Time(202));
            let wait = driver.due(&table, Time(202)).unwrap();
            assert_eq!(wait.is_zero(), urgent, "{what}: {wait:?}");
        }
    }

    #[test]
    fn a_reload_is_done_when_no_worker_of_before_takes_connections() {
        let before = BTreeSet::from([1, 2]);
        let done = |digest: &str, workers: &[u32], old: &[u32]| {
            let state = State {
                digest: Some(digest.into()),
                workers: workers.iter().copied().collect(),
                old: old.iter().copied().collect(),
                requests: 0,
                told: None,
            };
            replaced(&before, &state, "new")
        };
        assert!(done("new", &[3, 4], &[1, 2]));
        assert!(done("new", &[3, 4], &[]));
        assert!(!done("old", &[3, 4], &[1, 2]));
        // A new worker has answered, an old one still takes connections.
        assert!(!done("new", &[2, 3, 4], &[1]));
        assert!(!done("new", &[], &[1, 2]));
    }
}
