//! Several fleets of one agent: one set of documents, and loops that hear each other late.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{GRAIN, Sim};
use crate::exchange::{Voice, Word};
use crate::model::{Desired, Edges, FleetName, Plan, ServiceName, Time, World};

/// The worlds of all fleets.
#[derive(Debug)]
pub struct Fleets {
    /// By fleet.
    pub sims: BTreeMap<FleetName, Sim>,
    /// How long a word takes from one loop to another.
    pub delay: Duration,
    /// Each fleet's side of the conversation.
    voices: BTreeMap<FleetName, Voice>,
    /// Words on their way, in the order in which they were said.
    letters: Vec<Letter>,
}

#[derive(Debug)]
struct Letter {
    due: Time,
    of: FleetName,
    to: FleetName,
    said: Word,
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
        let voices = voices(&sims);
        Self { sims, delay, voices, letters: Vec::new() }
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
            let Some(sim) = self.sims.get_mut(name) else { continue };
            let due = sim.now.plus(self.delay);
            sim.act(&plan);
            let Edges { outward, orders, .. } = &plan.edges;
            let said = outward.clone().once_published(orders, &sim.balancers.views());
            let Some(voice) = self.voices.get_mut(name) else { continue };
            let said = voice.say(&said);
            for other in names.iter().filter(|n| *n != name) {
                let (of, to, said) = (name.clone(), other.clone(), said.clone());
                self.letters.push(Letter { due, of, to, said });
            }
        }
        settled
    }

    fn hear(&mut self, name: &FleetName) {
        let now = self.now();
        let (Some(sim), Some(voice)) = (self.sims.get_mut(name), self.voices.get_mut(name)) else {
            return;
        };
        // Where the delay became shorter, nobody hears an older word after a newer one.
        let newest: BTreeMap<FleetName, usize> = (0..)
            .zip(&self.letters)
            .filter(|(_, letter)| letter.due <= now && letter.to == *name)
            .map(|(at, letter)| (letter.of.clone(), at))
            .collect();
        let mut at = 0;
        self.letters.retain(|letter| {
            let last = newest.get(&letter.of).filter(|_| letter.to == *name);
            if last == Some(&at) {
                voice.hear(&letter.of, letter.said.clone());
            }
            at += 1;
            last.is_none_or(|last| at - 1 > *last)
        });
        sim.elsewhere = voice.elsewhere();
    }

    fn elapse(&mut self) {
        for sim in self.sims.values_mut() {
            sim.elapse(GRAIN);
        }
    }

    /// SIGKILL for the one agent of all fleets, see [`Sim::kill_agent`].
    pub fn kill_agent(&mut self, dice: u64, keep_memory: bool) {
        self.letters.clear();
        self.voices = voices(&self.sims);
        for sim in self.sims.values_mut() {
            sim.kill_agent(dice, keep_memory);
        }
    }

    /// How many running instances a service has, on all fleets, seen or not.
    pub fn running(&self, service: &ServiceName) -> usize {
        self.sims.values().map(|sim| sim.running(service)).sum()
    }
}

fn voices(sims: &BTreeMap<FleetName, Sim>) -> BTreeMap<FleetName, Voice> {
    sims.keys().map(|name| (name.clone(), Voice::new(name.clone()))).collect()
}
