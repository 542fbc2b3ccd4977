//! What fleets tell each other from pass to pass, see [`Outward`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bell::Doorbell;
use crate::model::{BalancerView, Elsewhere, FleetName, Outward, ServiceName};

/// Where the loops of all fleets leave their newest word. Cheap to clone.
#[derive(Clone, Default)]
pub struct Exchange(Arc<Mutex<Board>>);

#[derive(Default)]
struct Board {
    told: BTreeMap<FleetName, Arc<Outward>>,
    bells: BTreeMap<FleetName, Doorbell>,
}

impl Exchange {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rings `bell` whenever another fleet than this has something new to say.
    pub fn join(&self, fleet: &FleetName, bell: Doorbell) {
        self.board().bells.insert(fleet.clone(), bell);
    }

    /// What all others said last.
    pub fn hear(&self, fleet: &FleetName) -> Elsewhere {
        let board = self.board();
        let others = board.told.iter().filter(|(name, _)| *name != fleet);
        Elsewhere(others.map(|(name, said)| (name.clone(), Arc::clone(said))).collect())
    }

    /// What this fleet says from now on.
    pub fn tell(&self, fleet: &FleetName, outward: &Arc<Outward>) {
        let mut board = self.board();
        let before = board.told.insert(fleet.clone(), Arc::clone(outward));
        if before.is_some_and(|before| is_no_news(&before, outward)) {
            return;
        }
        board.bells.iter().filter(|(name, _)| *name != fleet).for_each(|(_, bell)| bell.ring());
    }
}

fn is_no_news(before: &Outward, now: &Outward) -> bool {
    let Outward { revision, unseen, servers, complete, witnesses, parts } = now;
    let same = |(a, b): (&(ServiceName, Option<Arc<BalancerView>>), &_)| {
        let (of_a, view_a): &(ServiceName, Option<Arc<BalancerView>>) = a;
        let (of_b, view_b): &(ServiceName, Option<Arc<BalancerView>>) = b;
        let alike = match (view_a, view_b) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a.same_but_for_counters(b),
            (None, Some(_)) | (Some(_), None) => false,
        };
        of_a == of_b && alike
    };
    before.revision == *revision
        && before.unseen == *unseen
        && before.servers == *servers
        && before.complete == *complete
        && before.parts == *parts
        && before.witnesses.len() == witnesses.len()
        && before.witnesses.iter().zip(witnesses).all(same)
}
