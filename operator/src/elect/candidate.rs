//! Who of several acts: the state machine of one that wants to. Pure: no I/O and no clock.
//!
//! Nobody's clock is compared with another's. Who holds the record believes so for [`Times::renew`] from the moment that it
//! *began* to write; who waits takes it only after it has seen no change for [`Times::lasts`] by a clock of its own. What
//! lies between the two is the time that a call already on its way has to end.

use std::time::Duration;

/// The times of a record that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Others wait this long for a sign of life.
    pub lasts: Duration,
    /// A holder that could not renew for this long acts no more. Less than `lasts`.
    pub renew: Duration,
    /// Between two looks or renewals.
    pub retry: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            lasts: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// A moment of this process: since any beginning, by a clock that never jumps, and by the wall clock. A machine that
/// slept shows it on one of the two at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// By the clock that never jumps.
    pub steady: Duration,
    /// By the wall clock.
    pub wall: Duration,
}

impl Moment {
    /// The longer of what the two clocks say has passed.
    fn since(self, earlier: Self) -> Duration {
        let steady = self.steady.saturating_sub(earlier.steady);
        steady.max(self.wall.saturating_sub(earlier.wall))
    }
}

/// What the ledger has: a lease of an API server, or a key that a session of Consul holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Who has it; empty for nobody.
    pub holder: String,
    /// Seconds that others are to wait without a sign of life. Where the ledger itself frees what nobody renews, for ever.
    pub seconds: u32,
    /// How often it went from one to another.
    pub transitions: u32,
    /// Changes with every write: the ledger's version of it.
    pub version: String,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Look again after this.
    Look(Duration),
    /// Write this over the version in it; an empty one means that there is none yet.
    Write(Record),
}

/// One candidate.
#[derive(Debug, Clone)]
pub struct Candidate {
    me: String,
    times: Times,
    /// What was seen last, and since when it has not changed.
    seen: Option<(Record, Moment)>,
    /// When the write began by which the lease was last ours.
    held: Option<Moment>,
    released: bool,
}

impl Candidate {
    /// One that has seen nothing. `me` must be of this process alone.
    pub fn new(me: impl Into<String>, times: Times) -> Self {
        Self { me: me.into(), times, seen: None, held: None, released: false }
    }

    /// The server was asked; `None`: there is no such lease.
    pub fn looked(&mut self, record: Option<Record>, now: Moment) {
        let record = record.unwrap_or_default();
        if record.holder != self.me {
            self.held = None;
        }
        match &self.seen {
            Some((before, _)) if *before == record => {}
            Some(_) | None => self.seen = Some((record, now)),
        }
    }

    /// A write that began then was taken by the server, which gave it this version.
    pub fn wrote(&mut self, record: Record, version: String, began: Moment, now: Moment) {
        let ours = record.holder == self.me && !self.released;
        self.held = ours.then_some(began);
        self.seen = Some((Record { version, ..record }, now));
    }

    /// The ledger says that it is not ours any more.
    pub fn lost(&mut self) {
        self.seen = None;
        self.held = None;
    }

    /// A write was refused, or nobody knows what became of it: what is seen is no longer to be built upon.
    pub fn failed(&mut self) {
        // Whether it is still ours is not known, and it need not be: it was ours from a write that was taken.
        self.seen = None;
    }

    /// What to do next. `None`: ask the server now.
    pub fn next(&self, now: Moment) -> Option<Next> {
        let (record, since) = self.seen.as_ref()?;
        let mine = record.holder == self.me;
        if self.released {
            let give = Record { holder: String::new(), seconds: 1, ..record.clone() };
            return Some(if mine { Next::Write(give) } else { Next::Look(self.times.retry) });
        }
        let take = Record {
            holder: self.me.clone(),
            seconds: u32::try_from(self.times.lasts.as_secs()).unwrap_or(u32::MAX),
            transitions: record.transitions + u32::from(!mine),
            version: record.version.clone(),
        };
        if mine {
            let due = self.held.map_or(self.times.retry, |began| now.since(began));
            let rest = self.times.retry.saturating_sub(due);
            return Some(if rest.is_zero() { Next::Write(take) } else { Next::Look(rest) });
        }
        // Its holder may have been promised more than is usual here, never less.
        let promised = Duration::from_secs(record.seconds.into());
        let wait =
            if record.holder.is_empty() { Duration::ZERO } else { promised.max(self.times.lasts) };
        // Only the steady clock counts here: a wall clock that is set forward must not shorten a wait.
        let waited = now.steady.saturating_sub(since.steady);
        Some(if waited >= wait { Next::Write(take) } else { Next::Look(self.times.retry) })
    }

    /// Whether this process may begin something now.
    pub fn holds(&self, now: Moment) -> bool {
        !self.released && self.held.is_some_and(|began| now.since(began) < self.times.renew)
    }

    /// The moment until which it holds, by the steady clock, while it does.
    pub fn until(&self) -> Option<Duration> {
        self.held.filter(|_| !self.released).map(|began| began.steady + self.times.renew)
    }

    /// Gives the lease away: nothing may be under way any more.
    pub fn release(&mut self) {
        self.released = true;
        self.held = None;
    }

    /// Whether nothing of ours is left at the server.
    pub fn is_released(&self) -> bool {
        self.released && self.seen.as_ref().is_some_and(|(r, _)| r.holder != self.me)
    }

    /// Who has the lease, as last seen.
    pub fn holder(&self) -> Option<&str> {
        self.seen.as_ref().map(|(r, _)| r.holder.as_str()).filter(|h| !h.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIMES: Times = Times {
        lasts: Duration::from_secs(15),
        renew: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };

    fn at(ms: u64) -> Moment {
        Moment { steady: Duration::from_millis(ms), wall: Duration::from_millis(ms) }
    }

    fn record(holder: &str, version: &str) -> Record {
        Record { holder: holder.into(), seconds: 15, transitions: 1, version: version.into() }
    }

    #[test]
    fn a_free_lease_is_taken_at_once_and_renewed() {
        let mut a = Candidate::new("a", TIMES);
        assert_eq!(a.next(at(0)), None);
        a.looked(None, at(0));
        let Some(Next::Write(take)) = a.next(at(0)) else { panic!("{:?}", a.next(at(0))) };
        assert_eq!((take.holder.as_str(), take.version.as_str()), ("a", ""));
        a.wrote(take, "1".into(), at(5), at(50));
        assert!(a.holds(at(9_999)) && !a.holds(at(10_005)));
        assert_eq!(a.next(at(1_005)), Some(Next::Look(Duration::from_secs(1))));
        assert!(matches!(a.next(at(2_005)), Some(Next::Write(_))));
    }

    #[test]
    fn another_waits_from_what_it_saw_and_not_by_the_holders_clock() {
        let mut b = Candidate::new("b", TIMES);
        b.looked(Some(record("a", "1")), at(1_000));
        b.looked(Some(record("a", "1")), at(9_000));
        assert_eq!(b.next(at(15_999)), Some(Next::Look(TIMES.retry)));
        b.looked(Some(record("a", "2")), at(15_500));
        assert_eq!(b.next(at(30_499)), Some(Next::Look(TIMES.retry)));
        assert!(matches!(b.next(at(30_500)), Some(Next::Write(r)) if r.transitions == 2));
    }

    #[test]
    fn a_machine_that_slept_acts_no_more_whichever_clock_shows_it() {
        let mut a = Candidate::new("a", TIMES);
        a.looked(None, at(0));
        a.wrote(record("a", ""), "1".into(), at(0), at(0));
        let slept = Moment { steady: Duration::from_millis(10), wall: Duration::from_secs(3_600) };
        assert!(!a.holds(slept));
        let set_back = Moment { steady: Duration::from_secs(11), wall: Duration::ZERO };
        assert!(!a.holds(set_back));
    }

    #[test]
    fn what_is_lost_is_not_believed_for_a_moment_longer() {
        let mut a = Candidate::new("a", TIMES);
        a.looked(None, at(0));
        a.wrote(record("a", ""), "1".into(), at(0), at(0));
        assert!(a.holds(at(1)));
        a.lost();
        assert!(!a.holds(at(1)) && a.next(at(1)).is_none());
    }

    #[test]
    fn a_released_lease_is_free_for_the_next() {
        let mut a = Candidate::new("a", TIMES);
        a.looked(None, at(0));
        a.wrote(record("a", ""), "1".into(), at(0), at(0));
        a.release();
        assert!(!a.holds(at(1)));
        let Some(Next::Write(give)) = a.next(at(1)) else { panic!("it keeps it") };
        assert_eq!(give.holder, "");
        let mut b = Candidate::new("b", TIMES);
        b.looked(Some(Record { version: "2".into(), ..give.clone() }), at(2));
        assert!(matches!(b.next(at(2)), Some(Next::Write(_))));
        a.wrote(give, "2".into(), at(1), at(2));
        assert!(a.is_released());
    }

    /// What the world does to a candidate in one tick.
    #[derive(Debug, Clone, Copy)]
    enum Fate {
        Runs,
        /// Not scheduled: a SIGSTOP, a full machine.
        Paused(u64),
        /// The request gets lost on its way.
        RequestLost,
        /// The server took it, and the answer gets lost.
        AnswerLost,
        /// Its answer comes this late.
        Slow(u64),
        /// Its wall clock is set.
        Wall(i64),
        Ends,
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            20 => Just(Fate::Runs),
            2 => (100u64..40_000).prop_map(Fate::Paused),
            3 => Just(Fate::RequestLost),
            3 => Just(Fate::AnswerLost),
            3 => (50u64..12_000).prop_map(Fate::Slow),
            1 => (-100_000i64..100_000).prop_map(Fate::Wall),
            1 => Just(Fate::Ends),
        ]
    }

    struct Process {
        candidate: Candidate,
        /// Not before this does it run again.
        ready: u64,
        wall: i64,
        /// A write under way: what, when it began, and the version that the server gave.
        answer: Option<(Record, Moment, Option<String>)>,
        last_held: Option<u64>,
    }

    impl Process {
        fn new(name: String) -> Self {
            let candidate = Candidate::new(name, TIMES);
            Self { candidate, ready: 0, wall: 0, answer: None, last_held: None }
        }

        fn now(&self, t: u64) -> Moment {
            let wall = i64::try_from(t).unwrap() + 1_000_000 + self.wall;
            Moment {
                steady: Duration::from_millis(t),
                wall: Duration::from_millis(u64::try_from(wall).unwrap_or(0)),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// Never do two act at a time, and between the last act of one and the first of the next there is the time
        /// that a call on its way may take.
        #[test]
        fn never_two_at_a_time(
            script in prop::collection::vec((0usize..3, fate(), 20u64..3_000), 20..300),
            gone in (0u64..200_000, 0u64..60_000),
        ) {
            let mut server: Option<Record> = None;
            let (mut version, mut names) = (0, 3);
            let mut all: Vec<Process> = (0..3).map(|n| Process::new(n.to_string())).collect();
            let mut t = 0;
            let mut last_act: Option<(usize, u64)> = None;
            for (who, fate, pause) in script {
                t += pause;
                let reachable = !(gone.0..gone.0 + gone.1).contains(&t);
                let p = &mut all[who];
                if let Fate::Ends = fate {
                    *p = Process::new(names.to_string());
                    names += 1;
                    if last_act.is_some_and(|(w, _)| w == who) {
                        last_act = last_act.map(|(_, at)| (usize::MAX, at));
                    }
                    continue;
                }
                if t < p.ready {
                    continue;
                }
                let mut slow = 0;
                match fate {
                    Fate::Paused(ms) => { p.ready = t + ms; continue; }
                    Fate::Wall(by) => p.wall += by,
                    Fate::Slow(ms) => slow = ms,
                    Fate::Runs | Fate::RequestLost | Fate::AnswerLost | Fate::Ends => {}
                }
                let now = p.now(t);
                if let Some((record, began, version)) = p.answer.take() {
                    match version {
                        Some(version) => p.candidate.wrote(record, version, began, now),
                        None => p.candidate.failed(),
                    }
                } else {
                    match p.candidate.next(now) {
                        Some(Next::Write(record)) if reachable && !matches!(fate, Fate::RequestLost) => {
                            let there = server.as_ref().map_or("", |r| r.version.as_str());
                            let mut taken = None;
                            if there == record.version {
                                version += 1;
                                server = Some(Record { version: version.to_string(), ..record.clone() });
                                taken = Some(version.to_string());
                            }
                            if matches!(fate, Fate::AnswerLost) {
                                taken = None;
                            }
                            p.answer = Some((record, now, taken));
                            p.ready = t + slow;
                        }
                        Some(Next::Write(_)) => p.candidate.failed(),
                        Some(Next::Look(_)) | None => {
                            if reachable && !matches!(fate, Fate::RequestLost | Fate::AnswerLost) {
                                p.candidate.looked(server.clone(), now);
                            }
                        }
                    }
                }
                // Everybody who runs acts whenever it may.
                for (n, p) in all.iter_mut().enumerate() {
                    if t < p.ready || !p.candidate.holds(p.now(t)) {
                        continue;
                    }
                    if let Some((before, at)) = last_act
                        && before != n
                    {
                        let margin = u64::try_from(TIMES.lasts.saturating_sub(TIMES.renew).as_millis()).unwrap();
                        prop_assert!(t >= at + margin, "{before} acted at {at}, {n} at {t}");
                    }
                    p.last_held = Some(t);
                    last_act = Some((n, t));
                }
            }
        }
    }
}
