//! One service: who stays, who goes, who comes.
//!
//! The order of thought: classify the members; note failures; decide which spec is in force; seat
//! one current member in each slot; stop what the floor allows; start what the ceiling allows.

use std::sync::Arc;

use super::board::{Board, Member};
use super::classify::{Bucket, Facts};
use super::rollout::{self, Disruptions, Effective, Progress};
use super::{Input, explain, traffic};
use crate::model::{
    BalancerId, Good, HostState, Keep, Note, Phase, Plan, Reason, Seen, Service, ServiceMemory,
    ServiceStatus, Slot, State, Subject, Time, Why,
};

/// A member and what it counts as.
pub(super) struct Seated<'a> {
    pub(super) member: Member<'a>,
    pub(super) bucket: Bucket,
    pub(super) ready_at: Option<Time>,
    /// Of the spec in force and on a host that it may stay on.
    pub(super) current: bool,
}

impl Seated<'_> {
    /// Counts in the ceiling.
    pub(super) fn counts(&self) -> bool {
        !matches!(self.bucket, Bucket::Lost | Bucket::Dead)
    }

    /// May fill a slot.
    pub(super) fn fills(&self) -> bool {
        matches!(
            self.bucket,
            Bucket::Unknown
                | Bucket::Starting
                | Bucket::Unproven
                | Bucket::Unserved
                | Bucket::Settling
                | Bucket::Available
        )
    }
}

/// Everything at hand while one service is planned.
pub(super) struct Work<'w, 'a> {
    pub(super) input: &'w Input<'a>,
    pub(super) service: &'a Service,
    pub(super) seated: Vec<Seated<'a>>,
    pub(super) memory: ServiceMemory,
    pub(super) effective: Effective,
    /// For each slot from 1: the current member that fills it.
    pub(super) keepers: Vec<Option<usize>>,
    /// For each slot from 1: an outdated member on a silent host holds it.
    pub(super) held: Vec<bool>,
    /// Current members beyond the one that fills their slot, and those of slots that are too many.
    pub(super) surplus: Vec<usize>,
    /// Members of another spec, or on a draining host.
    pub(super) outdated: Vec<usize>,
}

/// Plans one service.
pub(super) fn plan<'a>(
    input: &Input<'a>,
    service: &'a Service,
    members: Vec<Member<'a>>,
    board: &mut Board<'a>,
    budget: &mut Disruptions,
    out: &mut Plan,
) {
    let known = input.memory.services.get(&service.name);
    let mut memory = known.map(|m| m.as_ref().clone()).unwrap_or_default();
    let effective = rollout::effective(service, &mut memory);
    let mut work = Work {
        input,
        service,
        seated: seat(input, service, members, board),
        memory,
        effective,
        keepers: Vec::new(),
        held: Vec::new(),
        surplus: Vec::new(),
        outdated: Vec::new(),
    };
    work.sort_out(board);
    if service.suspend {
        work.memory.rollout = None;
        out.wait(work.subject(), Why::Suspended, None);
        work.status(0, out, Phase::Suspended);
    } else {
        work.note_deaths();
        let mut progress = work.progress();
        if rollout::judge(service, &work.effective, &progress, &mut work.memory, input.now) {
            work.effective = rollout::effective(service, &mut work.memory);
            work.sort_out(board);
            progress = work.progress();
        }
        let first_step = out.steps.len();
        let first_wait = out.waiting.len();
        work.clear_away(out);
        let stopping = work.stop(board, budget, out);
        work.start(board, out);
        work.tidy(board, &stopping, out);
        work.waits(board, &progress, out);
        work.remember(&progress, out);
        let stuck = out.waiting[first_wait..].iter().any(|w| w.why.needs_a_person());
        let quiet = out.steps.len() == first_step && out.waiting.len() == first_wait;
        let phase = match (progress.complete && quiet, stuck) {
            (true, _) => Phase::Ready,
            (false, true) => Phase::Stalled,
            (false, false) => Phase::Reconciling,
        };
        work.status(progress.updated_available, out, phase);
    }
    if known.map_or(work.memory != ServiceMemory::default(), |k| **k != work.memory) {
        out.notes.push(Note::Service(service.name.clone(), Arc::new(work.memory)));
    }
}

pub(super) fn seat<'a>(
    input: &Input<'a>,
    service: &Service,
    members: Vec<Member<'a>>,
    board: &Board<'a>,
) -> Vec<Seated<'a>> {
    let mut seated: Vec<Seated<'a>> = members
        .into_iter()
        .map(|member| {
            let facts = Facts {
                seen: board.hosts[member.host].seen(input.now),
                member: &member,
                now: input.now,
                // A Marathon that is silent goes on without us: its tasks are not replaced, and so not lost.
                replace_after: match input.fleet.marathon {
                    None => service.replace_after,
                    Some(_) => std::time::Duration::MAX,
                },
                min_ready: service.min_ready(),
                routed: service.routed,
            };
            let (bucket, ready_at) = (facts.bucket(), facts.ready_at());
            Seated { member, bucket, ready_at, current: false }
        })
        .collect();
    // By slot, then host and name: the order must not depend on that of the views.
    seated.sort_unstable_by(|a, b| {
        (a.member.slot, a.member.host, a.member.name).cmp(&(
            b.member.slot,
            b.member.host,
            b.member.name,
        ))
    });
    seated
}

impl<'a> Work<'_, 'a> {
    pub(super) fn subject(&self) -> Subject {
        Subject::Service(self.service.name.clone())
    }

    /// Whether the fleet's registry leads clients to it.
    pub(super) fn registered(&self) -> bool {
        self.service.exposure.registered.contains_key(&self.input.fleet.name)
    }

    /// Whether nobody can leave: the registry does not answer, or a balancer may be where nobody has looked yet.
    pub(super) fn is_locked_in(&self) -> bool {
        (self.registered() && self.input.registry_silent())
            || traffic::unseen(self.input, self.service.exposure.pools.iter().map(|(name, _)| name))
    }

    pub(super) fn now(&self) -> Time {
        self.input.now
    }

    pub(super) fn allowance(&self) -> (u32, u32) {
        if let Some(shifting) = self.service.shifting {
            return (shifting.most, shifting.least);
        }
        let (surge, unavailable) = self.service.rollout.allowance(self.service.replicas);
        let replicas = self.service.replicas;
        (replicas.saturating_add(surge), replicas.saturating_sub(unavailable))
    }

    pub(super) fn count(&self, pick: impl Fn(&Seated<'a>) -> bool) -> u32 {
        u32::try_from(self.seated.iter().filter(|s| pick(s)).count()).unwrap_or(u32::MAX)
    }

    /// Seats one current member in each slot; the others are surplus or outdated.
    fn sort_out(&mut self, board: &Board<'_>) {
        let replicas = self.service.replicas as usize;
        self.keepers = vec![None; replicas];
        self.held = vec![false; replicas];
        self.surplus.clear();
        self.outdated.clear();
        for index in 0..self.seated.len() {
            let host = board.hosts[self.seated[index].member.host].spec;
            let seated = &mut self.seated[index];
            seated.current =
                seated.member.hash == self.effective.hash && host.state != HostState::Draining;
            if !seated.fills() {
                continue;
            }
            let slot = (seated.member.slot.0 as usize).wrapping_sub(1);
            let (current, unknown) = (seated.current, seated.bucket == Bucket::Unknown);
            if !current {
                if slot < replicas {
                    self.held[slot] |= unknown;
                }
                self.outdated.push(index);
            } else if slot >= replicas {
                self.surplus.push(index);
            } else if let Some(other) = self.keepers[slot] {
                let (stays, goes) =
                    if self.prefers(index, other) { (index, other) } else { (other, index) };
                self.keepers[slot] = Some(stays);
                self.surplus.push(goes);
            } else {
                self.keepers[slot] = Some(index);
            }
        }
    }

    /// Whether `a` rather than `b` fills the slot that both claim.
    fn prefers(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.seated[a], &self.seated[b]);
        // One that cannot be seen is never taken for the one that stays while another can be.
        let seen = |s: &Seated<'_>| s.bucket != Bucket::Unknown;
        if seen(a) != seen(b) {
            return seen(a);
        }
        let created = |s: &Seated<'_>| s.member.instance.map_or(Time(u64::MAX), |i| i.created);
        let id = |s: &Seated<'a>| s.member.instance.map(|i| &i.id);
        let age = (created(a), id(a)) < (created(b), id(b));
        match self.service.keep {
            Keep::Original => age,
            Keep::Replacement => !age,
            Keep::Healthiest => {
                let since = |s: &Seated<'_>| s.ready_at.unwrap_or(Time(u64::MAX));
                match b.bucket.cmp(&a.bucket).then(since(a).cmp(&since(b))) {
                    std::cmp::Ordering::Less => true,
                    std::cmp::Ordering::Greater => false,
                    std::cmp::Ordering::Equal => age,
                }
            }
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let available =
            |k: &Option<usize>| k.is_some_and(|k| self.seated[k].bucket == Bucket::Available);
        let filled = self.keepers.iter().filter(|k| available(k)).count();
        let other_spec = self.seated.iter().any(|s| {
            (s.fills() || s.bucket == Bucket::Sick) && s.member.hash != self.effective.hash
        });
        // As many as there may be now: the others run on other fleets still.
        let due = self.service.shifting.map_or(u32::MAX, |s| s.most) as usize;
        Progress {
            updated_available: u32::try_from(filled).unwrap_or(u32::MAX),
            complete: filled >= due.min(self.keepers.len()) && !other_spec,
        }
    }

    /// Each end of a current instance is counted once against its slot.
    fn note_deaths(&mut self) {
        let (now, hash) = (self.now(), self.effective.hash);
        let last = Slot(self.service.replicas);
        self.memory.slots.retain(|slot, f| *slot <= last && f.hash == Some(hash));
        for s in &self.seated {
            let Some(instance) = s.member.instance else { continue };
            if s.member.hash != hash || s.member.slot > last || s.member.step.is_some() {
                continue;
            }
            let message = match (s.bucket, instance.state) {
                (Bucket::Dead, State::Exited { out_of_memory: true, .. }) => {
                    "ran out of memory".to_owned()
                }
                (Bucket::Dead, State::Exited { code, .. }) => format!("exit code {code}"),
                (Bucket::Sick, _) => "health check failed".to_owned(),
                _ => continue,
            };
            let failures = self.memory.slots.entry(s.member.slot).or_default();
            if failures.counted.insert(instance.id.clone()) {
                failures.fail(hash, message, now);
            }
        }
        let seated = &self.seated;
        for failures in self.memory.slots.values_mut() {
            failures
                .counted
                .retain(|id| seated.iter().any(|s| s.member.instance.is_some_and(|i| &i.id == id)));
        }
    }

    pub(super) fn updated(&self) -> Reason {
        if let Some(from) = self.effective.instead_of {
            return Reason::Rollback { from, to: self.effective.hash };
        }
        let good = self.memory.last_good.as_ref().map(|g| (g.hash, &g.spec));
        let known = self.memory.known.iter().rev().map(|(hash, spec)| (*hash, spec));
        let changes = known
            .chain(good)
            .find(|(hash, _)| *hash != self.effective.hash)
            .map(|(_, old)| explain::changes(old, &self.effective.spec))
            .unwrap_or_default();
        Reason::Update { changes, revision: self.input.desired.revision.clone() }
    }

    pub(super) fn scale(&self) -> Reason {
        let have = self.count(|s| s.fills() || s.bucket == Bucket::Sick);
        Reason::Scale {
            have,
            want: self.service.replicas,
            revision: self.input.desired.revision.clone(),
        }
    }

    /// Says why not more.
    pub(super) fn waits(&self, board: &Board<'_>, progress: &Progress, out: &mut Plan) {
        let service = self.subject();
        if self.input.desired.held.contains(&self.service.name) {
            out.wait(service.clone(), Why::Held, None);
        }
        let name = &self.service.name;
        let refused = self.input.world.balancers.values().filter_map(|v| v.refused.get(name));
        let left_out: std::collections::BTreeSet<&String> =
            self.service.exposure.left_out.iter().chain(refused).collect();
        for why in left_out {
            out.wait(service.clone(), Why::RouteLeftOut { why: why.clone() }, None);
        }
        for s in &self.seated {
            let id = s.member.instance.map(|i| BalancerId::Container(i.id.clone()));
            let view = id.and_then(|id| self.input.world.balancers.get(&id));
            if let Some(why) = view.and_then(|v| v.problem.clone()) {
                out.wait(service.clone(), Why::Behind { name: s.member.name.clone(), why }, None);
            }
        }
        let routing = self.input.desired.routings.get(name);
        for (index, external) in routing.iter().flat_map(|r| &r.external).enumerate() {
            let id = BalancerId::External { balancer: name.clone(), index };
            let view = self.input.world.balancers.get(&id);
            if let Some(why) = view.and_then(|v| v.problem.clone()) {
                let name = external.asked.to_string().into();
                out.wait(service.clone(), Why::Behind { name, why }, None);
            }
        }
        if let Some(s) = self.service.shifting.filter(|s| s.want < self.service.replicas) {
            let here = self.service.replicas - s.want;
            out.wait(service.clone(), Why::Moving { here, elsewhere: s.elsewhere }, None);
        }
        if let Some(q) = &self.memory.quarantined {
            let (hash, why) = (q.hash, q.why.clone());
            out.wait(service.clone(), Why::Quarantined { hash, why }, None);
        }
        if let Some(r) = self.memory.rollout.as_ref().filter(|r| r.failed) {
            let why = self.memory.slots.values().max_by_key(|f| f.last).map_or_else(
                || format!("{} of {} available", r.best, self.service.replicas),
                |f| f.message.clone(),
            );
            let why = format!("no progress within the deadline ({why}); commit a working spec");
            out.wait(service.clone(), Why::Stalled { why }, None);
        }
        let steps = self.count(|s| s.member.step.is_some());
        if steps > 0 {
            out.wait(service.clone(), Why::InFlight { steps }, None);
        }
        let unsettled: Vec<Time> = self
            .seated
            .iter()
            .filter(|s| s.bucket == Bucket::Settling)
            .filter_map(|s| s.ready_at)
            .collect();
        if let Some(until) = unsettled.iter().min() {
            let count = u32::try_from(unsettled.len()).unwrap_or(u32::MAX);
            out.wait(service.clone(), Why::MinReady { count }, Some(*until));
        }
        let unproven = self.count(|s| s.bucket == Bucket::Unproven);
        if unproven > 0 {
            out.wait(service.clone(), Why::TrafficUnknown { count: unproven }, None);
        }
        let mut silent = std::collections::BTreeMap::<usize, u32>::new();
        for s in self.seated.iter().filter(|s| s.bucket == Bucket::Unknown) {
            *silent.entry(s.member.host).or_default() += 1;
        }
        for (index, count) in silent {
            let host = &board.hosts[index];
            let until = match host.seen(self.now()) {
                Seen::Silent { since } | Seen::Never { since } => {
                    let ends = self.input.fleet.marathon.is_none();
                    ends.then(|| since.plus(self.service.replace_after))
                }
                Seen::Now => None,
            };
            let host = host.spec.name.clone();
            out.wait(service.clone(), Why::Silent { host, count }, until);
        }
        let missing = self.service.replicas - progress.updated_available;
        if missing > 0 {
            let until = rollout::deadline(self.service, &self.memory);
            out.wait(service, Why::NotAvailable { count: missing }, until);
        }
    }

    /// A spec that has been seen to work is the one to come back to.
    pub(super) fn remember(&mut self, progress: &Progress, out: &mut Plan) {
        let known = &mut self.memory.known;
        if known.last().is_none_or(|(hash, _)| *hash != self.effective.hash) {
            known.push((self.effective.hash, self.effective.spec.clone()));
            known.drain(..known.len().saturating_sub(2));
        }
        if !progress.complete {
            return;
        }
        self.memory.settled = self.service.replicas;
        let known = self.memory.last_good.as_ref().is_some_and(|g| g.hash == self.effective.hash);
        if known || self.service.replicas == 0 || self.effective.instead_of.is_some() {
            return;
        }
        let newest = self.keepers.iter().flatten().filter_map(|&k| self.seated[k].ready_at).max();
        let proven = newest.map_or(Time(u64::MAX), |at| at.plus(rollout::PROVEN));
        if proven > self.now() {
            out.wake_at = Some(out.wake_at.map_or(proven, |at| at.min(proven)));
        } else {
            self.memory.rollout = None;
            self.memory.last_good = Some(Good {
                hash: self.effective.hash,
                spec: self.effective.spec.clone(),
                document: self.service.document.clone(),
                revision: self.input.desired.revision.clone(),
            });
        }
    }

    pub(super) fn status(&self, updated_available: u32, out: &mut Plan, phase: Phase) {
        let status = ServiceStatus {
            desired: self.service.replicas,
            total: self.count(Seated::counts),
            updated: self.count(|s| s.fills() && s.member.hash == self.effective.hash),
            ready: self.count(|s| {
                matches!(s.bucket, Bucket::Unserved | Bucket::Settling | Bucket::Available)
            }),
            available: self.count(|s| s.bucket == Bucket::Available),
            phase,
            hash: self.effective.hash,
            spec: self.effective.spec.clone(),
        };
        debug_assert!(updated_available <= self.service.replicas);
        out.services.insert(self.service.name.clone(), status);
    }
}
