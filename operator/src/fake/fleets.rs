//! Several fleets of one agent: one set of documents, and loops that hear each other late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{GRAIN, Sim};
use crate::model::{Desired, FleetName, Outward, Plan, ServiceName, Time, World};

/// The worlds of all fleets.
#[derive(Debug)]
pub struct Fleets {
    /// By fleet.
    pub sims: BTreeMap<FleetName, Sim>,
    /// How long a word takes from one loop to another.
    pub delay: Duration,
    /// Words on their way, in the order in which they were said.
    words: Vec<Word>,
}

#[derive(Debug)]
struct Word {
    due: Time,
    of: FleetName,
    to: FleetName,
    said: Arc<Outward>,
}

impl Fleets {
    /// Fleets that hear each other after `delay`. The documents of all are put together.
    pub fn new(sims: Vec<Sim>, delay: Duration) -> Self {
        let mut sims: BTreeMap<FleetName, Sim> =
            sims.into_iter().map(|s| (s.name.clone(), s)).collect();
        let all: BTreeMap<_, _> = sims.values().flat_map(|s| s.desired.fleets.clone()).collect();
        for sim in sims.values_mut() {
            sim.desired.fleets.clone_from(&all);
        }
        Self { sims, delay, words: Vec::new() }
    }

    /// What all of them are asked for.
    pub fn desired(&self) -> Option<&Desired> {
        self.sims.values().next().map(|sim| &sim.desired)
    }

    /// The time in all of them.
    pub fn now(&self) -> Time {
        self.sims.values().next().map_or(Time(0), |sim| sim.now)
    }

    /// Changes the documents by a commit, which every loop sees with its next pass.
    pub fn commit(&mut self, change: impl Fn(&mut Sim)) {
        let Some(first) = self.sims.values_mut().next() else { return };
        change(first);
        first.commit();
        let desired = first.desired.clone();
        for sim in self.sims.values_mut() {
            sim.desired = desired.clone();
        }
    }

    /// Lets every loop make its passes for a while. `check` sees each plan with the world it was made for, before it is
    /// acted upon.
    pub fn run(&mut self, for_: Duration, mut check: impl FnMut(&Self, &FleetName, &World, &Plan)) {
        let until = self.now().plus(for_);
        while self.now() < until {
            self.round(&mut check);
            self.elapse();
        }
    }

    /// Runs until nothing is under way, planned, waited for or unheard; `false` when that takes longer than `at_most`.
    pub fn settle(
        &mut self,
        at_most: Duration,
        mut check: impl FnMut(&Self, &FleetName, &World, &Plan),
    ) -> bool {
        let until = self.now().plus(at_most);
        let mut calm = Time(u64::MAX);
        while self.now() < until {
            let settled = self.round(&mut check);
            let idle = self.sims.values().all(|s| s.flights.is_empty() && s.is_quiet());
            if !(settled && idle) {
                calm = Time(u64::MAX);
            } else if calm == Time(u64::MAX) {
                calm = self.now().plus(self.delay * 2);
            }
            // Whatever was said last has been heard by all, and nobody had anything to do.
            if settled && idle && calm <= self.now() {
                return true;
            }
            self.elapse();
        }
        false
    }

    /// One pass of every loop; whether all of them have nothing to do.
    fn round(&mut self, check: &mut impl FnMut(&Self, &FleetName, &World, &Plan)) -> bool {
        let names: Vec<FleetName> = self.sims.keys().cloned().collect();
        let mut settled = true;
        for name in &names {
            self.hear(name);
            let Some(sim) = self.sims.get(name) else { continue };
            let (world, plan) = sim.consider();
            check(self, name, &world, &plan);
            settled &= plan.is_settled();
            let due = self.now().plus(self.delay);
            for other in names.iter().filter(|n| *n != name) {
                let said = Arc::clone(&plan.edges.outward);
                self.words.push(Word { due, of: name.clone(), to: other.clone(), said });
            }
            if let Some(sim) = self.sims.get_mut(name) {
                sim.act(&plan);
            }
        }
        settled
    }

    fn hear(&mut self, name: &FleetName) {
        let now = self.now();
        let Some(sim) = self.sims.get_mut(name) else { return };
        // Nobody hears an older word after a newer one.
        let arrives = |w: &Word| w.due <= now && w.to == *name;
        let mut newest: BTreeMap<FleetName, usize> = BTreeMap::new();
        for (at, word) in self.words.iter().enumerate().filter(|(_, w)| arrives(w)) {
            newest.insert(word.of.clone(), at);
            sim.elsewhere.0.insert(word.of.clone(), Arc::clone(&word.said));
        }
        let mut at = 0;
        self.words.retain(|word| {
            let old = word.to == *name && newest.get(&word.of).is_some_and(|newest| at <= *newest);
            at += 1;
            !old
        });
    }

    fn elapse(&mut self) {
        for sim in self.sims.values_mut() {
            sim.elapse(GRAIN);
        }
    }

    /// SIGKILL for the one agent of all fleets, see [`Sim::kill_agent`].
    pub fn kill_agent(&mut self, dice: u64, keep_memory: bool) {
        self.words.clear();
        for sim in self.sims.values_mut() {
            sim.kill_agent(dice, keep_memory);
        }
    }

    /// How many running instances a service has, on all fleets, seen or not.
    pub fn running(&self, service: &ServiceName) -> usize {
        self.sims.values().map(|sim| sim.running(service)).sum()
    }
}
