//! A fleet's own view of what is desired, where services run on several fleets or move from one to another.
//!
//! The parts that documents name are where it ends. On the way there a fleet that has too many keeps as many as the others
//! lack, and a fleet that has too few starts no more than the whole service may have: the floor and the ceiling hold over all
//! fleets. A new spec is rolled by each fleet within its own part, once no other has more than its own.
//!
//! Fleets hear each other late. What one of them said counts only if it was said by the same documents: since then it goes in
//! one direction only, so that its word, however old, promises no more than there is. Where several fleets go in the same
//! direction the first by name goes first, and the others take it to be there already.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Input;
use super::places::places;
use crate::model::{Desired, Fleet, FleetName, Outward, Part, Service, Shifting, Time, World};

/// What is desired of this fleet; `None` where that is what the documents say.
pub fn localise(
    fleet: &Fleet,
    desired: &Desired,
    world: &World,
    now: Time,
) -> Option<Arc<Desired>> {
    if desired.fleets.len() < 2 {
        return None;
    }
    let here = places(fleet, desired, world, now);
    let mut out = None;
    for (name, service) in &desired.services {
        let have = here.get(name).copied();
        let Some(want) = service.share(&fleet.name).or(have.map(|_| 0)) else { continue };
        let others = Others::of(fleet, desired, world, service, now);
        let shifting = others.way(service, &fleet.name, want, have.unwrap_or(0));
        // Docker has slots, and fills as many of them as it may. Marathon is told how many.
        let replicas = match shifting {
            Some(s) if s.leaves => s.most,
            Some(s) if fleet.marathon.is_some() => s.most.max(have.unwrap_or(0)),
            Some(_) | None => want,
        };
        let own =
            Service { fleet: fleet.name.clone(), replicas, shifting, ..service.as_ref().clone() };
        if own != **service {
            let local = out.get_or_insert_with(|| desired.clone());
            local.services.insert(name.clone(), Arc::new(own));
        }
    }
    out.map(Arc::new)
}

/// Nobody beyond the last slot leaves where fewer than so many would be available here.
///
/// After a part was made smaller an instance beyond it may be all that is left of it, when one within it has died. The others
/// count on that part. Making room for the one within it is no roll, so the floor of the whole service is kept; of the others
/// no more counts than their parts, for they may be on their way there.
pub(super) fn least_within(input: &Input<'_>, service: &Service) -> u32 {
    let Input { fleet, desired, world, .. } = *input;
    let whole: u32 = service.placements.values().sum();
    let Some(part) = service.placements.get(&fleet.name) else { return 0 };
    let (_, unavailable) = service.rollout.allowance(whole);
    let others = service.placements.iter().filter(|(name, _)| **name != fleet.name);
    let elsewhere = others.map(|(name, share)| {
        let its = said(desired, world, name).and_then(|said| said.parts.get(&service.name));
        its.map_or(0, |its| its.available.min(*share))
    });
    let elsewhere = elsewhere.sum();
    whole.saturating_sub(unavailable).saturating_sub(elsewhere).min(*part)
}

/// What a fleet said last, if it was said by the same documents.
fn said<'w>(desired: &Desired, world: &'w World, name: &FleetName) -> Option<&'w Outward> {
    let said = world.elsewhere.said.get(name)?;
    (said.revision.as_ref() == Some(&desired.revision)).then_some(&**said)
}

/// What the other fleets have of a service, as far as they can be believed.
#[derive(Debug, Default)]
struct Others {
    /// Available on them, however they go on: see the module.
    available: u32,
    /// What they have and may come to have; `None`: one of them may have anything.
    most: Option<u32>,
    /// One of them has more than its part, or may have, and lets go of it, counting on what the others have.
    leaving: bool,
}

impl Others {
    /// None of them has any.
    const fn nobody() -> Self {
        Self { available: 0, most: Some(0), leaving: false }
    }

    fn of(fleet: &Fleet, desired: &Desired, world: &World, service: &Service, now: Time) -> Self {
        let mut out = Self::nobody();
        let told = world.elsewhere.said.keys();
        let names: BTreeSet<&FleetName> = desired.fleets.keys().chain(told).collect();
        for name in names.into_iter().filter(|name| **name != fleet.name) {
            let Some(said) = said(desired, world, name) else {
                out.anything();
                continue;
            };
            if said.unseen.is_some_and(|since| now.since(since) < service.replace_after) {
                out.anything();
            }
            let part = said.parts.get(&service.name).copied().unwrap_or_default();
            out.add(part, service.share(name).unwrap_or(0), *name < fleet.name);
        }
        out
    }

    /// One of them may have any number, and be about to let go of it.
    const fn anything(&mut self) {
        self.most = None;
        self.leaving = true;
    }

    /// One more fleet. Who comes first by name goes first: down to its share, or up to it.
    fn add(&mut self, Part { total, available }: Part, share: u32, first: bool) {
        let stays = if first { available.min(share) } else { available };
        let grows = if first { total.max(share) } else { total };
        self.available = self.available.saturating_add(stays);
        self.most = self.most.map(|most| most.saturating_add(grows));
        self.leaving |= total > share;
    }

    /// How this fleet's part goes from `have` to `want`; `None` where it is free to do as it likes.
    fn way(&self, service: &Service, own: &FleetName, want: u32, have: u32) -> Option<Shifting> {
        let (surge, unavailable) = service.rollout.allowance(service.replicas);
        let elsewhere = self.available;
        let gone = service.share(own).is_none();
        if have > want || gone {
            // There may be more in those places than there are to stay: two of which one replaces the other.
            let least = service.replicas.saturating_sub(unavailable).saturating_sub(elsewhere);
            let least = least.max(want);
            let most = least.min(have.max(want));
            let shifting = Shifting { want, most, least, leaves: true, elsewhere };
            return (gone || most > want || self.leaving).then_some(shifting);
        }
        // While the others have no more than their parts, this one rolls and heals by its own.
        if !self.leaving
            && self.most.is_some_and(|others| others <= service.replicas.saturating_sub(want))
        {
            return None;
        }
        let all = service.replicas.saturating_add(surge);
        let most = self.most.map_or(have, |others| all.saturating_sub(others).min(want));
        // Whoever leaves counts on this one's part: nobody who serves is made to be another meanwhile.
        let (_, unavailable) = service.rollout.allowance(want);
        let least = if self.leaving { want } else { want.saturating_sub(unavailable) };
        Some(Shifting { want, most, least, leaves: false, elsewhere })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::make;
    use crate::model::{Amount, Rollout};

    fn service(replicas: u32, surge: u32, unavailable: u32, parts: &[(&str, u32)]) -> Service {
        let (max_surge, max_unavailable) = (Amount::Count(surge), Amount::Count(unavailable));
        let rollout = Rollout { max_surge, max_unavailable, ..Rollout::default() };
        let placements = parts.iter().map(|(f, n)| (FleetName::new(f).unwrap(), *n)).collect();
        Service { placements, rollout, ..make::service("web", replicas, "toy:1").unwrap() }
    }

    /// What `own` may have now, where it has `have` and the others, in their order, so many in all and available.
    fn most(web: &Service, own: &str, have: u32, parts: &[(&str, u32, u32)]) -> u32 {
        let own = FleetName::new(own).unwrap();
        let want = web.share(&own).unwrap_or(0);
        let mut others = Others::nobody();
        for (name, total, available) in parts {
            let name = FleetName::new(name).unwrap();
            let part = Part { total: *total, available: *available };
            others.add(part, web.share(&name).unwrap_or(0), name < own);
        }
        others.way(web, &own, want, have).map_or(want, |s| s.most)
    }

    #[test]
    fn a_move_keeps_the_floor_and_the_ceiling_over_both_fleets() {
        let web = service(10, 2, 1, &[("new", 10)]);
        // What is new may have as many as the surge, then as many more as the old fleet has let go.
        assert_eq!(most(&web, "new", 0, &[("old", 10, 10)]), 2);
        assert_eq!(most(&web, "new", 2, &[("old", 8, 8)]), 4);
        // What is old lets go of as many as are available elsewhere, and of one more: that many may be missing.
        assert_eq!(most(&web, "old", 10, &[("new", 2, 0)]), 9);
        assert_eq!(most(&web, "old", 9, &[("new", 2, 2)]), 7);
        assert_eq!(most(&web, "old", 3, &[("new", 10, 9)]), 0);
    }

    #[test]
    fn of_several_that_go_the_same_way_the_first_goes_first() {
        let web = service(10, 1, 1, &[("c", 10)]);
        let (a, b) = (("a", 5, 5), ("b", 5, 5));
        assert_eq!(most(&web, "a", 5, &[b, ("c", 2, 2)]), 2);
        assert_eq!(most(&web, "b", 5, &[a, ("c", 2, 2)]), 5, "as if `a` had gone");
        let web = service(10, 2, 0, &[("b", 5), ("c", 5)]);
        let a = ("a", 10, 10);
        assert_eq!(most(&web, "b", 0, &[a, ("c", 0, 0)]), 2);
        assert_eq!(most(&web, "c", 0, &[a, ("b", 0, 0)]), 0, "as if `b` had come");
    }

    #[test]
    fn parts_that_are_as_asked_stay_whatever_the_others_have() {
        let web = service(10, 0, 1, &[("a", 5), ("b", 5)]);
        assert_eq!(most(&web, "a", 5, &[("b", 5, 0)]), 5);
        // None of them leaves, and none comes in their place, while the others have too many.
        let (b, too_many) =
            (FleetName::new("b").unwrap(), Others { available: 20, most: Some(20), leaving: true });
        let shifting = too_many.way(&web, &b, 5, 5).unwrap();
        assert_eq!((shifting.want, shifting.most, shifting.leaves), (5, 0, false));
    }

    #[test]
    fn while_another_leaves_nobody_who_serves_is_made_to_be_another() {
        let web = service(2, 0, 1, &[("d", 1), ("m", 1)]);
        let own = FleetName::new("d").unwrap();
        let others = |total: u32| {
            let mut out = Others::nobody();
            out.add(Part { total, available: total }, 0, false);
            out
        };
        // One that is on its way out counts on the one here, which would be down for a moment if it were rolled.
        let shifting = others(1).way(&web, &own, 1, 1).unwrap();
        assert_eq!((shifting.most, shifting.least, shifting.leaves), (1, 1, false));
        assert_eq!(others(0).way(&web, &own, 1, 1), None, "it rolls once the other is gone");
        // Nor is he while this one lets go of who is too many.
        let shifting = others(1).way(&web, &own, 1, 2).unwrap();
        assert_eq!((shifting.most, shifting.least, shifting.leaves), (1, 1, true));
    }

    #[test]
    fn while_somebody_has_not_spoken_nobody_comes() {
        let web = service(10, 2, 1, &[("a", 10)]);
        let own = FleetName::new("a").unwrap();
        let mut silent = Others::nobody();
        silent.anything();
        let shifting = silent.way(&web, &own, 10, 3).unwrap();
        assert_eq!((shifting.most, shifting.least, shifting.leaves), (3, 10, false));
        assert_eq!(silent.way(&web, &own, 10, 10).unwrap().most, 10, "nor for one that leaves");
    }

    #[test]
    fn a_move_ends_whatever_the_order_of_looks() {
        for (surge, unavailable) in [(1, 0), (0, 1), (3, 2)] {
            let web = service(6, surge, unavailable, &[("new", 6)]);
            let (mut old, mut new) = (6, 0);
            for round in 0.. {
                assert!(round < 50, "no end with {surge} and {unavailable}");
                let shrunk = most(&web, "old", old, &[("new", new, new)]);
                let grown = most(&web, "new", new, &[("old", old, old)]);
                assert!(shrunk + new >= 6 - unavailable.max(u32::from(surge == 0)));
                assert!(old + grown <= 6 + surge);
                (old, new) = (shrunk, grown);
                if (old, new) == (0, 6) {
                    break;
                }
            }
        }
    }
}
