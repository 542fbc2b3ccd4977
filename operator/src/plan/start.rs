//! Who comes: what is missing, as far as the ceiling, the pauses and the hosts allow.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::board::Board;
use super::classify::Bucket;
use super::place::Placer;
use super::service::{Seated, Work};
use crate::model::{
    HealthState, Place, Plan, Reason, Seen, Slot, SlotFailures, Start, State, Step, Time, Traffic,
    Why,
};

impl<'a> Work<'_, 'a> {
    /// Starts what is missing, as far as ceiling, pauses and hosts allow.
    pub(super) fn start(&self, board: &mut Board<'a>, out: &mut Plan) {
        let mut needs: Vec<(u8, Reverse<u32>, Slot)> = self
            .keepers
            .iter()
            .zip(&self.held)
            .zip(1..)
            .filter(|((keeper, held), _)| keeper.is_none() && !**held)
            .map(|(_, slot)| self.urgency(board, Slot(slot)))
            .collect();
        if needs.is_empty() {
            return;
        }
        if let Some((host, until)) = board.unseen(self.service.replace_after) {
            out.wait(self.subject(), Why::NeverSeen { host: host.clone() }, Some(until));
            return;
        }
        needs.sort_unstable();
        let (most, _) = self.allowance();
        let pause = self.unproven_pause();
        let mut room = most.saturating_sub(self.count(Seated::counts));
        let mut placer = None;
        let mut homeless = 0;
        let mut backoff: Option<(Time, Slot)> = None;
        let mut over_ceiling = false;
        for (_, _, slot) in needs {
            let own = self.memory.slots.get(&slot).map(|f| (f.next_try(), slot));
            if let Some(wait) = own.max(pause)
                && wait.0 > self.now()
            {
                backoff = backoff.max(Some(wait));
                continue;
            }
            if room == 0 {
                over_ceiling = true;
                break;
            }
            let placer = placer.get_or_insert_with(|| {
                let members = self.seated.iter().filter(|s| s.counts());
                let members = members.map(|s| (&s.member, s.current && s.fills()));
                Placer::new(self.service, &self.effective.spec, board, self.now(), members)
            });
            let Some((host, published)) = placer.pick(board) else {
                homeless += 1;
                continue;
            };
            room -= 1;
            let ports: Vec<u16> = published.iter().map(|p| p.host).collect();
            if board.begin(host, self.effective.spec.resources, &ports) {
                let place = Place {
                    fleet: board.fleet,
                    host: board.hosts[host].spec,
                    service: &self.service.name,
                    slot,
                };
                let start = Start {
                    host: board.hosts[host].spec.name.clone(),
                    name: self.free_name(board, host, slot),
                    service: self.service.name.clone(),
                    slot,
                    hash: self.effective.hash,
                    spec: self.effective.spec.placed(&place),
                    published,
                    stop_signal: self.service.termination.signal.clone(),
                };
                out.take(Some(Step::Start(start)), self.comes_because(board, slot));
            }
        }
        if homeless > 0 {
            let refused = placer.map(|p| p.refusals(board)).unwrap_or_default();
            out.wait(self.subject(), Why::NoHost { count: homeless, refused }, None);
        }
        if let Some((until, slot)) = backoff
            && let Some(f) = self.memory.slots.get(&slot)
        {
            let (failures, message) = (f.count, f.message.clone());
            out.wait(self.subject(), Why::Backoff { slot, failures, message }, Some(until));
        }
        if over_ceiling {
            out.wait(self.subject(), Why::Ceiling { most }, None);
        }
    }

    /// While no instance of a new spec has ever been available, its failures count together: a bad
    /// spec must not wander from slot to slot, first try after first try.
    fn unproven_pause(&self) -> Option<(Time, Slot)> {
        if self.memory.rollout.as_ref().is_none_or(|r| r.best > 0) {
            return None;
        }
        let (slot, last) = self.memory.slots.iter().max_by_key(|(_, f)| f.last)?;
        let count = self.memory.slots.values().map(|f| f.count).sum();
        let together = SlotFailures { count, last: last.last, ..SlotFailures::default() };
        Some((together.next_try(), *slot))
    }

    /// Empty slots first, then those whose member is sick, then those on the fullest host.
    fn urgency(&self, board: &Board<'_>, slot: Slot) -> (u8, Reverse<u32>, Slot) {
        let mut rank = (0, Reverse(0));
        for s in self.in_slot(slot) {
            let own = u8::from(s.bucket == Bucket::Sick) + 2 * u8::from(s.fills());
            if own > rank.0 {
                rank = (own, Reverse(board.hosts[s.member.host].instances));
            }
        }
        (rank.0, rank.1, slot)
    }

    fn in_slot(&self, slot: Slot) -> &[Seated<'a>] {
        let from = self.seated.partition_point(|s| s.member.slot < slot);
        let to = self.seated.partition_point(|s| s.member.slot <= slot);
        &self.seated[from..to]
    }

    fn comes_because(&self, board: &Board<'_>, slot: Slot) -> Reason {
        let members = self.in_slot(slot);
        let of = |bucket| members.iter().find(|s| s.bucket == bucket);
        if let Some(s) = members.iter().find(|s| s.fills()) {
            return self.outdated_because(s);
        }
        if let Some(s) = of(Bucket::Lost) {
            let host = &board.hosts[s.member.host];
            let silent = match host.seen(self.now()) {
                Seen::Silent { since } | Seen::Never { since } => self.now().since(since),
                Seen::Now => Duration::ZERO,
            };
            return Reason::HostLost { host: host.spec.name.clone(), silent };
        }
        if of(Bucket::Sick).is_some() {
            return Reason::Unhealthy;
        }
        let died = of(Bucket::Dead).and_then(|s| s.member.instance).map(|i| i.state);
        if let Some(State::Exited { code, out_of_memory }) = died {
            return Reason::Died { code, out_of_memory };
        }
        if let Some(f) = self.memory.slots.get(&slot) {
            return Reason::Retry { failures: f.count, message: f.message.clone() };
        }
        if slot.0 > self.memory.settled {
            return self.scale();
        }
        if self.memory.last_good.as_ref().is_some_and(|good| good.hash != self.effective.hash) {
            return self.updated();
        }
        Reason::Missing
    }

    /// `<service>_<slot>`, or the first of `.2`, `.3` … behind it that is free on the host.
    fn free_name(&self, board: &Board<'_>, host: usize, slot: Slot) -> Arc<str> {
        let base = format!("{}_{slot}", self.service.name);
        let mut name: Arc<str> = base.as_str().into();
        let mut n = 2;
        while self.is_taken(board, host, &name) {
            name = format!("{base}.{n}").into();
            n += 1;
        }
        name
    }

    fn is_taken(&self, board: &Board<'_>, host: usize, name: &Arc<str>) -> bool {
        let foreign = board.hosts[host].view.is_some_and(|v| v.foreign_names.contains(name));
        foreign
            || self.seated.iter().filter(|s| s.member.host == host).any(|s| {
                let becomes = match s.member.step {
                    Some(Step::Rename { to, .. }) => Some(to),
                    _ => None,
                };
                s.member.name == name || becomes == Some(name)
            })
    }

    /// Gives those who stay the name of their slot, and lets clients reach them.
    pub(super) fn tidy(&self, board: &Board<'_>, leaving: &[usize], out: &mut Plan) {
        for (index, s) in self.seated.iter().enumerate() {
            let Some(instance) = s.member.instance else { continue };
            if !s.fills()
                || s.bucket == Bucket::Unknown
                || s.member.step.is_some()
                || leaving.contains(&index)
            {
                continue;
            }
            let slot = s.member.slot.0 as usize;
            let stays = slot <= self.keepers.len() && self.keepers[slot - 1] == Some(index);
            if stays && !named_by_slot(s.member.name, self.service.name.as_str(), slot) {
                let to: Arc<str> = format!("{}_{slot}", self.service.name).into();
                if !self.is_taken(board, s.member.host, &to) {
                    let step = Step::Rename {
                        host: s.member.host_name.clone(),
                        id: instance.id.clone(),
                        service: self.service.name.clone(),
                        slot: s.member.slot,
                        from: s.member.name.clone(),
                        to,
                    };
                    out.take(Some(step), Reason::NameFree);
                    continue;
                }
            }
            let healthy = matches!(instance.health, HealthState::Healthy { .. });
            let unreached = matches!(instance.traffic, Traffic::None | Traffic::Withdrawn { .. });
            let wanted = stays || self.outdated.contains(&index);
            if self.service.routed && healthy && unreached && wanted {
                out.take(s.member.admit(&self.service.name), Reason::Ready);
            }
        }
    }
}

/// Whether a name is `<service>_<slot>`, without making one.
fn named_by_slot(name: &str, service: &str, slot: usize) -> bool {
    name.strip_prefix(service)
        .and_then(|rest| rest.strip_prefix('_'))
        .is_some_and(|n| n.parse() == Ok(slot) && !n.starts_with(['0', '+']))
}
