//! Who goes: the dead, the sick, those whom nobody would miss, and the serving down to the floor.

use super::board::{Board, Member};
use super::classify::Bucket;
use super::exit;
use super::rollout::Disruptions;
use super::service::{Seated, Work};
use super::share;
use crate::model::{Plan, Reason, State, Why};

impl Work<'_, '_> {
    /// Removes what has ended or never started.
    pub(super) fn clear_away(&self, out: &mut Plan) {
        for s in self.seated.iter().filter(|s| s.bucket == Bucket::Dead && s.member.step.is_none())
        {
            let Some(instance) = s.member.instance else { continue };
            let reason = match instance.state {
                State::Exited { code, out_of_memory } => Reason::Died { code, out_of_memory },
                State::Created
                | State::Running
                | State::Paused
                | State::Removing
                | State::Ending => Reason::NeverStarted,
            };
            out.take(s.member.remove(&self.service.name), reason);
        }
    }

    /// Stops what goes, as far as floor and budget allow; returns who is on the way out.
    pub(super) fn stop(
        &self,
        board: &Board<'_>,
        budget: &mut Disruptions,
        out: &mut Plan,
    ) -> Vec<usize> {
        let (_, least) = self.allowance();
        let mut available = self.count(|s| s.bucket == Bucket::Available);
        let mut leaving = Vec::new();
        // What was begun is seen through: it serves nobody for long any more.
        let begun = |s: &&Seated<'_>| s.bucket == Bucket::Leaving && s.member.is_interrupted();
        for s in self.seated.iter().filter(begun) {
            self.emit_stop(&s.member, Reason::Interrupted, out);
        }
        // Sick ones first: they serve nobody and cost no budget (promise 8).
        for (index, s) in self.seated.iter().enumerate() {
            if s.bucket == Bucket::Sick {
                leaving.push(index);
                if s.member.step.is_none() {
                    self.emit_stop(&s.member, Reason::Unhealthy, out);
                }
            }
        }
        let candidates = self.candidates(board);
        // Of voters one at a time goes, and only while all others are counted on. One that is missing is no less a voter.
        if self.service.exposure.quorum {
            let free = |index: &usize| {
                let others = self.seated.iter().enumerate().filter(|(i, _)| i != index);
                let (on, off): (Vec<_>, Vec<_>) =
                    others.partition(|(_, s)| s.bucket == Bucket::Available);
                self.seated[*index].member.step.is_none()
                    && off.is_empty()
                    && on.len() + 1 >= self.service.replicas as usize
            };
            if let Some(index) = candidates.iter().copied().find(free)
                && self.leave(index, budget, out)
            {
                leaving.push(index);
            }
            return leaving;
        }
        // Then those whom nobody would miss.
        for &index in &candidates {
            let s = &self.seated[index];
            if matches!(s.bucket, Bucket::Starting | Bucket::Unserved) && s.member.step.is_none() {
                leaving.push(index);
                self.leave(index, budget, out);
            }
        }
        // Then the serving ones, in the order of the candidates, down to the floor (promise 2).
        let within = share::least_within(self.input, self.service).max(least);
        let mut refused = None;
        for &index in &candidates {
            let s = &self.seated[index];
            let beyond = s.current && s.member.slot.0 > self.service.replicas;
            let least = if beyond { within } else { least };
            let cost = u32::from(s.bucket == Bucket::Available);
            if !matches!(s.bucket, Bucket::Available | Bucket::Settling) || s.member.step.is_some()
            {
                continue;
            }
            if available < least.saturating_add(cost) {
                refused = refused.max(Some(least));
            } else if self.leave(index, budget, out) {
                leaving.push(index);
                available -= cost;
            }
        }
        if let Some(least) = refused {
            out.wait(self.subject(), Why::Floor { least, available }, None);
        }
        leaving
    }

    /// Who should go, in the order of going: those who are replaced already, then surplus, then
    /// scaled down ones from the highest slot, then outdated ones from the fullest host.
    fn candidates(&self, board: &Board<'_>) -> Vec<usize> {
        let slot = |i: usize| self.seated[i].member.slot;
        let replaced = |i: usize| {
            let keeper = self.keepers.get((slot(i).0 as usize).wrapping_sub(1)).copied().flatten();
            keeper.is_some_and(|k| self.seated[k].bucket == Bucket::Available)
                || slot(i).0 > self.service.replicas
        };
        let mut surplus = self.surplus.clone();
        surplus
            .sort_by_key(|&i| (slot(i).0 > self.service.replicas, std::cmp::Reverse(slot(i)), i));
        let (done, mut pending): (Vec<usize>, Vec<usize>) =
            self.outdated.iter().partition(|&&i| replaced(i));
        pending.sort_by_key(|&i| {
            let host = &board.hosts[self.seated[i].member.host];
            (std::cmp::Reverse(host.instances), slot(i), i)
        });
        done.into_iter()
            .chain(surplus)
            .chain(pending)
            .filter(|&i| self.seated[i].bucket != Bucket::Unknown)
            .collect()
    }

    /// The next step on the way out; `false` when the hourly budget is spent.
    fn leave(&self, index: usize, budget: &mut Disruptions, out: &mut Plan) -> bool {
        let member = &self.seated[index].member;
        exit::take(
            &exit::Leaver {
                member,
                service: &self.service.name,
                termination: &self.service.termination,
                locked: self.is_locked_in(),
                now: self.now(),
            },
            || self.goes_because(index),
            budget,
            out,
        )
    }

    fn goes_because(&self, index: usize) -> Reason {
        let s = &self.seated[index];
        let slot = s.member.slot;
        if slot.0 > self.service.replicas {
            return self.scale();
        }
        let keeper = self.keepers[slot.0 as usize - 1];
        match keeper.map(|k| &self.seated[k]) {
            Some(k) if s.current => Reason::Surplus { stays: k.member.name.clone() },
            Some(k) if k.bucket == Bucket::Available => {
                Reason::Replaced { by: k.member.name.clone() }
            }
            _ => self.outdated_because(s),
        }
    }

    pub(super) fn outdated_because(&self, s: &Seated<'_>) -> Reason {
        if s.member.hash == self.effective.hash {
            return Reason::HostDraining { host: s.member.host_name.clone() };
        }
        self.updated()
    }

    fn emit_stop(&self, member: &Member<'_>, reason: Reason, out: &mut Plan) {
        let t = &self.service.termination;
        out.take(member.stop(&self.service.name, &t.signal, t.grace), reason);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::fake::{Sim, make};
    use crate::model::{
        Amount, Exposure, HostSpec, HostView, Instance, Limits, Memory, Resources, Rollout, Seen,
        Step, Time, Traffic, World,
    };
    use crate::plan::{Input, plan};

    /// How many servers of a cluster of three are told to end, of those that are there and have a vote that counts or not.
    fn stopped(servers: &[(u32, bool)]) -> usize {
        let mut service = make::service("consul", 3, "new").unwrap();
        service.routed = true;
        service.exposure = Exposure { quorum: true, ..Exposure::default() };
        service.rollout = Rollout { max_surge: Amount::Count(0), ..service.rollout };
        let now = Time(1_000_000);
        let hosts: Vec<HostSpec> =
            (1..=3).map(|n| make::host(&format!("h{n}"), &[]).unwrap()).collect();
        let seen = HostView { seen: Seen::Now, ..HostView::never(now) };
        let mut world = World::default();
        for (n, host) in (1..).zip(&hosts) {
            let here = servers.iter().filter(|(slot, _)| *slot == n);
            let server = |(slot, up): &(u32, bool)| Instance {
                traffic: Traffic::Voter { up: *up },
                ..make::instance(&service.name, *slot)
            };
            let view = HostView { instances: here.map(server).collect(), ..seen.clone() };
            world.hosts.insert(host.name.clone(), Arc::new(view));
        }
        let mut sim = Sim::new(hosts, Limits::default(), Resources::default());
        sim.put(service);
        let (fleet, memory) = (sim.fleet(), Memory::default());
        let input =
            Input { fleet: &fleet, desired: &sim.desired, world: &world, memory: &memory, now };
        let plan = plan(&input);
        plan.steps.iter().filter(|p| matches!(&*p.step, Step::Stop { .. })).count()
    }

    #[test]
    fn a_voter_leaves_only_while_all_others_are_there_and_counted_on() {
        assert_eq!(stopped(&[(1, true), (2, true), (3, true)]), 1, "one at a time");
        assert_eq!(stopped(&[(2, true), (3, true)]), 0, "one is missing");
        assert_eq!(stopped(&[(1, false), (2, true), (3, true)]), 1, "the one that does not count");
        assert_eq!(stopped(&[(1, false), (2, false), (3, true)]), 0, "two do not count");
    }
}
