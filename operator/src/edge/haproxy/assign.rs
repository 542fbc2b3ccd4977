//! Which place of a pool each server has, and the commands that bring it there from what is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::model::{Pool, Server, ServiceName, Target};

/// The fewest places of a pool.
const FEWEST: u32 = 8;
/// The most: a document that asks for more gets a reload when it really has more.
const MOST: u32 = 4096;
/// The address of a place that nobody has. Such a place is in maintenance, so nothing is sent there.
pub(super) const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// What a place is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Admin {
    Ready,
    /// No new requests, except from clients with a cookie for it.
    Drain,
    /// No new requests at all; those under way go on.
    Maint,
}

/// A place in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    pub(super) admin: Admin,
    /// Whether its check passes, as far as anybody knows.
    pub(super) up: bool,
}

impl Place {
    #[cfg(test)]
    pub(super) const FREE: Self = Self { address: NOBODY, admin: Admin::Maint, up: false };

    fn is_free(&self) -> bool {
        self.address == NOBODY && self.admin == Admin::Maint
    }
}

/// Places in force, by number.
pub(super) type Places = BTreeMap<u32, Place>;

/// Who should have a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) address: SocketAddr,
    pub(super) target: Target,
}

/// Who should have which place.
pub(super) type Seats = BTreeMap<u32, Seat>;

/// One change of one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Address(SocketAddr),
    State(Admin),
    /// Ends what is left of a server that is gone: its peer does not answer any more.
    Shutdown,
}

/// How a pool gets to where it should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Assigned {
    pub(super) seats: Seats,
    pub(super) changes: Vec<(u32, Change)>,
    /// Servers for which there is no place.
    pub(super) left_over: usize,
}

/// How many places a pool has: never fewer than now, so that no reload takes one away, and twice what it needs, so
/// that it rarely needs one.
pub(super) fn size(pool: &Pool, in_force: u32, wanted: usize) -> u32 {
    let wanted = u32::try_from(wanted).unwrap_or(MOST);
    let roomy = |n: u32| n.min(MOST).saturating_mul(2).next_power_of_two().clamp(FEWEST, MOST);
    let enough = if wanted > in_force { roomy(wanted) } else { 0 };
    roomy(pool.most).max(in_force).max(enough)
}

/// Gives every server a place. One that has a place keeps it; a new one gets the place of its own number if that is
/// free, else the first that is.
pub(super) fn assign(places: &Places, cookie: bool, wanted: &[Server]) -> Assigned {
    let mut out = Assigned::default();
    let mut new = Vec::new();
    // Where one address is in two places, the one that has its traffic stays.
    let mut has: BTreeMap<SocketAddr, (Admin, u32)> = BTreeMap::new();
    for (k, place) in places {
        let best = has.entry(place.address).or_insert((place.admin, *k));
        *best = (*best).min((place.admin, *k));
    }
    for server in wanted {
        let seat = Seat { address: server.address, target: server.target };
        match has.get(&seat.address) {
            Some((_, k)) if !out.seats.contains_key(k) => {
                out.seats.insert(*k, seat);
            }
            _ => new.push((server.slot.0, seat)),
        }
    }
    let kept: BTreeSet<u32> = out.seats.keys().copied().collect();
    let mut homeless = Vec::new();
    for (own, seat) in new {
        if places.contains_key(&own) && !out.seats.contains_key(&own) {
            out.seats.insert(own, seat);
        } else {
            homeless.push(seat);
        }
    }
    let mut free = places
        .keys()
        .copied()
        .filter(|k| !out.seats.contains_key(k))
        .collect::<Vec<_>>()
        .into_iter();
    for seat in homeless {
        match free.next() {
            Some(k) => {
                out.seats.insert(k, seat);
            }
            None => out.left_over += 1,
        }
    }
    for (k, place) in places {
        let change = |c| (*k, c);
        let seat = out.seats.get(k);
        if !kept.contains(k) && !place.is_free() {
            if place.admin != Admin::Maint {
                out.changes.push(change(Change::State(Admin::Maint)));
            }
            out.changes.push(change(Change::Shutdown));
            if seat.is_none() {
                out.changes.push(change(Change::Address(NOBODY)));
            }
        }
        let Some(Seat { address, target }) = seat.copied() else { continue };
        let admin = if kept.contains(k) { place.admin } else { Admin::Maint };
        if !kept.contains(k) {
            out.changes.push(change(Change::Address(address)));
        }
        match (target, admin) {
            (Target::Ready, Admin::Ready) | (Target::Drain, Admin::Maint) => {}
            (Target::Drain, Admin::Drain) if !cookie => {}
            (Target::Ready, Admin::Drain | Admin::Maint) => {
                out.changes.push(change(Change::State(Admin::Ready)));
            }
            // A client that has the cookie of a draining server would still be sent there; one in maintenance gets
            // nobody new and finishes what it has.
            (Target::Drain, Admin::Ready | Admin::Drain) => {
                let admin = if cookie { Admin::Maint } else { Admin::Drain };
                out.changes.push(change(Change::State(admin)));
            }
        }
    }
    out
}

/// The places that servers have in a configuration that is made anew.
pub(super) fn arrange(places: &Places, size: u32, wanted: &[Server]) -> Seats {
    let all = (1..=size).map(|k| {
        let nobody = Place { address: NOBODY, admin: Admin::Maint, up: false };
        (k, places.get(&k).copied().unwrap_or(nobody))
    });
    assign(&all.collect(), false, wanted).seats
}

/// A place's name.
pub(super) fn place_name(service: &ServiceName, k: u32) -> String {
    format!("{service}_{k}")
}

/// The command of a change.
pub(super) fn command(pool: &str, service: &ServiceName, k: u32, change: Change) -> String {
    let place = format!("{pool}/{}", place_name(service, k));
    match change {
        Change::Address(a) => format!("set server {place} addr {} port {}", a.ip(), a.port()),
        Change::State(admin) => {
            let state = match admin {
                Admin::Ready => "ready",
                Admin::Drain => "drain",
                Admin::Maint => "maint",
            };
            format!("set server {place} state {state}")
        }
        Change::Shutdown => format!("shutdown sessions server {place}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{InstanceId, Slot};

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 8080))
    }

    fn server(slot: u32, n: u8, target: Target) -> Server {
        Server {
            instance: InstanceId(format!("{n}").into()),
            name: format!("web_{slot}").into(),
            slot: Slot(slot),
            address: address(n),
            target,
            sick: false,
        }
    }

    fn ready(n: u8) -> Place {
        Place { address: address(n), admin: Admin::Ready, up: true }
    }

    /// HAProxy, as far as these commands go, and stricter: what the real one lets happen under traffic is a mistake.
    fn apply(places: &mut Places, changes: &[(u32, Change)]) {
        for (k, change) in changes {
            let place = places.get_mut(k).unwrap();
            match change {
                Change::Address(a) => {
                    assert_eq!(place.admin, Admin::Maint, "{k} gets another address under traffic");
                    place.address = *a;
                }
                Change::State(admin) => place.admin = *admin,
                Change::Shutdown => {
                    assert_eq!(place.admin, Admin::Maint, "{k} is cut off under traffic");
                }
            }
        }
    }

    fn places() -> impl Strategy<Value = Places> {
        let admin = prop_oneof![Just(Admin::Ready), Just(Admin::Drain), Just(Admin::Maint)];
        let address = prop_oneof![Just(NOBODY), (1..12_u8).prop_map(address)];
        let place =
            (address, admin).prop_map(|(address, admin)| Place { address, admin, up: true });
        proptest::collection::vec(place, 0..12).prop_map(|all| (1..).zip(all).collect())
    }

    fn servers() -> impl Strategy<Value = Vec<Server>> {
        let one = (1..14_u32, 1..12_u8, any::<bool>());
        proptest::collection::vec(one, 0..12).prop_map(|all| {
            let mut seen = BTreeSet::new();
            let all = all.into_iter().filter(|(_, n, _)| seen.insert(*n));
            let target = |drain| if drain { Target::Drain } else { Target::Ready };
            all.map(|(slot, n, drain)| server(slot, n, target(drain))).collect()
        })
    }

    proptest! {
        #[test]
        fn the_commands_lead_to_exactly_what_is_wanted(
            before in places(), wanted in servers(), cookie: bool,
        ) {
            let plan = assign(&before, cookie, &wanted);
            let mut after = before.clone();
            apply(&mut after, &plan.changes);
            // Exactly the wanted ones have a place, each one.
            let has: Vec<_> = after.values().filter(|p| p.address != NOBODY).map(|p| p.address).collect();
            prop_assert_eq!(has.len() + plan.left_over, wanted.len());
            prop_assert_eq!(has.iter().collect::<BTreeSet<_>>().len(), has.len());
            prop_assert_eq!(plan.left_over, wanted.len().saturating_sub(before.len()));
            for server in &wanted {
                let Some(place) = after.values().find(|p| p.address == server.address) else { continue };
                match server.target {
                    Target::Ready => prop_assert_eq!(place.admin, Admin::Ready),
                    Target::Drain => {
                        prop_assert_ne!(place.admin, Admin::Ready);
                        prop_assert!(!cookie || place.admin == Admin::Maint);
                    }
                }
            }
            for place in after.values().filter(|p| p.address == NOBODY) {
                prop_assert_eq!(place.admin, Admin::Maint);
            }
            // Whoever takes traffic and should is never touched.
            for (k, place) in &before {
                let stays = wanted.iter().any(|s| s.address == place.address && s.target == Target::Ready);
                let once = before.values().filter(|p| p.address == place.address).count() == 1;
                if stays && once && place.admin == Admin::Ready {
                    prop_assert!(plan.changes.iter().all(|(other, _)| other != k));
                }
            }
            // Once more changes nothing.
            let again = assign(&after, cookie, &wanted);
            prop_assert_eq!(&again.changes, &[]);
            prop_assert_eq!(again.seats, plan.seats);
        }
    }

    #[test]
    fn a_server_prefers_the_place_of_its_number() {
        let before: Places = [(1, ready(9)), (2, Place::FREE), (3, Place::FREE)].into();
        let wanted =
            [server(1, 1, Target::Ready), server(3, 3, Target::Ready), server(2, 9, Target::Ready)];
        let plan = assign(&before, false, &wanted);
        let seats: Vec<_> = plan.seats.iter().map(|(k, s)| (*k, s.address)).collect();
        assert_eq!(seats, [(1, address(9)), (2, address(1)), (3, address(3))]);
    }

    #[test]
    fn who_is_gone_makes_room_for_who_is_new() {
        let before: Places = [(1, ready(1))].into();
        let plan = assign(&before, false, &[server(1, 2, Target::Ready)]);
        let service = ServiceName::new("web").unwrap();
        let commands: Vec<_> =
            plan.changes.iter().map(|(k, c)| command("web.8080", &service, *k, *c)).collect();
        assert_eq!(
            commands,
            [
                "set server web.8080/web_1 state maint",
                "shutdown sessions server web.8080/web_1",
                "set server web.8080/web_1 addr 10.0.0.2 port 8080",
                "set server web.8080/web_1 state ready",
            ]
        );
    }

    #[test]
    fn there_is_room_before_it_is_needed() {
        let pool = |most| crate::edge::haproxy::tests::pool("web", most);
        assert_eq!(size(&pool(1), 0, 0), 8);
        assert_eq!(size(&pool(10), 0, 0), 32);
        assert_eq!(size(&pool(1), 32, 0), 32, "a place in force stays");
        assert_eq!(size(&pool(1), 8, 8), 8);
        assert_eq!(size(&pool(1), 8, 9), 32);
        assert_eq!(size(&pool(u32::MAX), 0, 0), MOST);
    }
}
