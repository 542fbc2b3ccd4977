//! What HAProxy has in force, and what is told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::BOOT;
use super::assign::{Admin, NOBODY, Places};
use super::parse::{Counters, InPool, counters, mark, place, pools};
use super::render::{Culprit, LeftOut};
use super::site::{Frame, Ours};
use super::words::Section;
use crate::model::{
    PoolName, Route, Routing, Server, ServerState, ServerView, ServiceName, Slot, Table, Target,
    Time,
};

/// What was read of one worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct InForce {
    /// Which structure it has.
    pub(super) digest: String,
    pub(super) pools: BTreeMap<String, InPool>,
    pub(super) counters: Counters,
}

/// The structure of somebody else.
const THEIRS: &str = "theirs";

/// What is about to change by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Transition {
    pub(super) places: BTreeSet<(PoolName, u32)>,
    /// Somebody who has no place yet is on the way.
    pub(super) more: bool,
}

/// The commands whose answers [`read`] takes.
pub(super) fn questions(frame: &Frame) -> [String; 3] {
    // Type 5 is frontends (1) and servers (4).
    [format!("show env {}", frame.mark), "show servers state".into(), "show stat -1 5 -1".into()]
}

/// `None` where it is a HAProxy that was not configured by us and should be. One that somebody else runs has nothing of
/// ours until its first reload, and never has where only its servers are ours.
pub(super) fn read(answers: &[String], frame: &Frame) -> Option<InForce> {
    let [env, state, stat] = answers else { return None };
    let digest = match (frame.ours, mark(env, &frame.mark)) {
        (Ours::Everything | Ours::File, Some(mark)) => mark.to_owned(),
        (Ours::Everything, None) => return None,
        (Ours::File, None) => String::new(),
        (Ours::Servers, _) => THEIRS.to_owned(),
    };
    Some(InForce { digest, pools: pools(state), counters: counters(stat) })
}

impl InForce {
    /// The table, with whoever must stay though it does not list them.
    pub(super) fn kept(&self, table: &Arc<Table>) -> Arc<Table> {
        let pools = table.routing.pools.keys();
        table.keeping(pools.flat_map(|pool| {
            let places = self.places(pool).into_iter().flatten();
            places.filter(|(_, place)| place.address != NOBODY).map(|(k, place)| {
                let target = match place.admin {
                    Admin::Ready => Target::Ready,
                    Admin::Drain | Admin::Maint => Target::Drain,
                };
                (pool.clone(), Server::unlisted(Slot(*k), place.address, target))
            })
        }))
    }

    /// The places of a pool, where it is in force.
    pub(super) fn places(&self, pool: &PoolName) -> Option<&Places> {
        self.pools.get(pool.as_str()).map(|its| &its.places)
    }

    /// What is about to change by itself, and is looked at often.
    pub(super) fn in_transition(&self, table: &Table) -> Transition {
        let mut out = Transition::default();
        for pool in table.routing.pools.keys() {
            let wanted = table.servers.get(pool).map_or(&[][..], Vec::as_slice);
            let mut coming: BTreeSet<SocketAddr> =
                wanted.iter().filter(|s| s.target == Target::Ready).map(|s| s.address).collect();
            let counters = self.counters.places.get(pool.as_str());
            for (k, place) in self.places(pool).into_iter().flatten() {
                let arrives =
                    coming.remove(&place.address) && !(place.up && place.admin == Admin::Ready);
                let leaves = place.admin != Admin::Ready
                    && counters.and_then(|c| c.get(k)).is_some_and(|(now, _)| *now > 0);
                if arrives || leaves {
                    out.places.insert((pool.clone(), *k));
                }
            }
            out.more |= !coming.is_empty();
        }
        out
    }

    /// The commands whose answers [`Self::reread`] takes; `None` where this worker has no numbers for them.
    pub(super) fn question_each(&self, places: &BTreeSet<(PoolName, u32)>) -> Option<Vec<String>> {
        let each = places.iter().map(|(pool, k)| {
            let its = self.pools.get(pool.as_str())?;
            Some(format!("show stat {} 4 {}", its.id, its.ids.get(k)?))
        });
        each.collect()
    }

    /// Takes what was said of some places. `false` where it does not tell: then everything is to be read.
    #[must_use]
    pub(super) fn reread(
        &mut self,
        places: &BTreeSet<(PoolName, u32)>,
        answers: &[String],
    ) -> bool {
        places.len() == answers.len()
            && places.iter().zip(answers).all(|((pool, k), answer)| {
                let (Some(its), Some((place, counted))) =
                    (self.pools.get_mut(pool.as_str()), place(answer))
                else {
                    return false;
                };
                its.places.insert(*k, place);
                let counters = self.counters.places.entry(pool.as_str().to_owned()).or_default();
                counters.insert(*k, counted);
                true
            })
    }

    pub(super) fn listening(&self) -> bool {
        !self.digest.is_empty() && self.digest != BOOT
    }

    /// The servers, by the pools that are known.
    pub(super) fn servers<'a>(
        &self,
        pools: impl Iterator<Item = &'a PoolName>,
        before: &BTreeMap<(PoolName, SocketAddr), ServerView>,
        now: Time,
    ) -> BTreeMap<(PoolName, SocketAddr), ServerView> {
        let mut out = BTreeMap::new();
        for pool in pools {
            let Some(places) = self.places(pool) else { continue };
            let counters = self.counters.places.get(pool.as_str());
            for (k, place) in places.iter().filter(|(_, p)| p.address != NOBODY) {
                let state = match (place.admin, place.up) {
                    (Admin::Ready, true) => ServerState::Up,
                    (Admin::Ready, false) => ServerState::Down,
                    (Admin::Drain | Admin::Maint, _) => ServerState::Draining,
                };
                let key = (pool.clone(), place.address);
                let same = before.get(&key).filter(|v| v.state == state);
                let since = same.map_or(now, |v| v.since);
                let counted = counters.and_then(|c| c.get(k));
                let (sessions, requests) = counted.copied().unwrap_or_default();
                out.insert(key, ServerView { state, since, sessions, requests });
            }
        }
        out
    }
}

/// What somebody else's HAProxy lacks for a table: the backend of a pool, or places in one. A service is led to as long as
/// there is a backend, so that only the first is a refusal.
pub(super) fn lacking(
    table: &Table,
    in_force: &InForce,
) -> (BTreeMap<ServiceName, String>, Option<String>) {
    let (mut refused, mut short) = (BTreeMap::new(), Vec::new());
    for (name, pool) in &table.routing.pools {
        let wanted = table.servers.get(name).map_or(0, Vec::len);
        let has = in_force.places(name).map_or(0, BTreeMap::len);
        let enough = usize::try_from(pool.most).unwrap_or(usize::MAX).max(wanted);
        let needs = format!("servers {0}_1 to {0}_{enough}", pool.service);
        if has == 0 {
            let why = format!(
                "HAProxy has no backend {name} with {needs}, and its structure is not ours"
            );
            refused.insert(pool.service.clone(), why);
        } else if wanted > has {
            short.push(format!("the backend {name} has {has} servers and needs {needs}"));
        }
    }
    (refused, (!short.is_empty()).then(|| short.join("; ")))
}

/// What documents say of one pool.
fn said_of<'a>(routing: &'a Routing, pool: &PoolName) -> impl PartialEq + use<'a> {
    let routes: Vec<&Route> = routing.routes.iter().filter(|r| r.pool == *pool).collect();
    let listeners: Vec<_> =
        routing.listeners.iter().filter(|l| routes.iter().any(|r| r.listener == l.name)).collect();
    (routing.pools.get(pool), routes, listeners)
}

/// The pools of `wanted` that are served as it says, while `in_force` is.
pub(super) fn same_pools(
    wanted: &Routing,
    in_force: &Routing,
    left_out: &LeftOut,
) -> BTreeSet<PoolName> {
    let refused = |pool: &PoolName| left_out.keys().any(|c| concerns(c, wanted, pool));
    let all = wanted.pools.keys();
    all.filter(|p| !refused(p) && said_of(wanted, p) == said_of(in_force, p)).cloned().collect()
}

fn concerns(culprit: &Culprit, routing: &Routing, pool: &PoolName) -> bool {
    match culprit {
        Culprit::Route(route) => route.pool == *pool,
        Culprit::Pool(name) => name == pool,
        Culprit::Listener(name) => {
            routing.routes.iter().any(|r| r.listener == *name && r.pool == *pool)
        }
        Culprit::Certificate(_) | Culprit::Fragment(_) => false,
    }
}

/// Services that are not served as they say, and why.
pub(super) fn refused(routing: &Routing, left_out: &LeftOut) -> BTreeMap<ServiceName, String> {
    let mut out = BTreeMap::new();
    for (culprit, why) in left_out {
        for (name, pool) in &routing.pools {
            if !concerns(culprit, routing, name) {
                continue;
            }
            let what = match culprit {
                Culprit::Route(Route { host, path, .. }) => {
                    let what = format!("{}{path}", host.as_deref().unwrap_or("*"));
                    format!("route {}: {why}", what.escape_debug())
                }
                Culprit::Listener(name) => format!("listener {name}: {why}"),
                Culprit::Pool(_) | Culprit::Certificate(_) | Culprit::Fragment(_) => why.clone(),
            };
            out.entry(pool.service.clone()).or_insert(what);
        }
    }
    out
}

/// What is left out and is no service's own.
pub(super) fn problem(left_out: &LeftOut) -> Option<String> {
    let said = left_out.iter().filter_map(|(culprit, why)| match culprit {
        Culprit::Certificate(name) => Some(format!("certificate {name} is left out: {why}")),
        Culprit::Fragment(section) => Some(format!("{} is left out: {why}", called(*section))),
        Culprit::Listener(name) => Some(format!("listener {name} is left out: {why}")),
        Culprit::Route(_) | Culprit::Pool(_) => None,
    });
    let said: Vec<String> = said.collect();
    (!said.is_empty()).then(|| said.join("; "))
}

fn called(section: Section) -> String {
    format!("the {} fragment", section.as_str())
}
