//! The replacement of an app's instances by those of its new definition, as Marathon does it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::app::App;
use super::instance::{Goal, Instance};

/// A replacement on its way.
#[derive(Clone, Debug)]
pub(super) struct Replace {
    /// The new definition.
    pub(super) app: Arc<App>,
    most: usize,
    /// Old ones in the order in which they go.
    to_kill: VecDeque<String>,
    /// How many of them may go now.
    may_kill: usize,
    /// New ones for which an old one went.
    paid: BTreeSet<String>,
}

/// What is to be done now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    pub(super) kill: Vec<String>,
    pub(super) start: usize,
    pub(super) done: bool,
}

/// How many must stay healthy, how many may be there, and how many go at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) least: usize,
    pub(super) most: usize,
    pub(super) kill: usize,
}

/// The sums, for so many wanted instances, healthy ones and ones at all.
pub(super) fn room(app: &App, healthy: usize, all: usize) -> Room {
    let count = app.instances();
    let upgrade = app.upgrade();
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let wanted = count as f64;
    let least = whole((wanted * upgrade.least).ceil());
    let mut most = whole((wanted * (1.0 + upgrade.over)).floor());
    let mut kill = healthy.saturating_sub(least);
    if least == most && most <= healthy {
        // Neither more nor less would stand still for ever.
        if app.is_resident() {
            kill = healthy - least + 1;
        } else {
            most += 1;
        }
    }
    if all > count {
        kill = kill.max(all - count);
    }
    Room { least, most, kill }
}

fn whole(number: f64) -> usize {
    super::read::tidy(number).as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}

impl Replace {
    /// With what is there now.
    pub(super) fn begin(app: &Arc<App>, instances: &[Instance]) -> Self {
        let running = || instances.iter().filter(|i| i.goal == Goal::Running);
        let healthy = running().filter(|i| considered_healthy(i)).count();
        let room = room(app, healthy, instances.len());
        let mut old: Vec<&Instance> = running().filter(|i| i.app.version != app.version).collect();
        old.sort_by_key(|i| considered_healthy(i));
        Self {
            app: Arc::clone(app),
            most: room.most,
            to_kill: old.into_iter().map(|i| i.uuid.clone()).collect(),
            may_kill: room.kill,
            paid: BTreeSet::new(),
        }
    }

    /// What is to be done, with what is there now.
    pub(super) fn go_on(&mut self, instances: &[Instance]) -> Moves {
        let count = self.app.instances();
        let (new, old): (Vec<&Instance>, Vec<&Instance>) =
            instances.iter().partition(|i| i.app.version == self.app.version);
        let new: Vec<&Instance> = new.into_iter().filter(|i| i.goal == Goal::Running).collect();
        let up: Vec<&&Instance> = new.iter().filter(|i| i.is_up()).collect();
        for instance in &up {
            if self.paid.insert(instance.uuid.clone()) {
                self.may_kill += 1;
            }
        }
        // Whoever ended by itself needs no killing.
        let alive = |uuid: &String| old.iter().any(|i| i.uuid == *uuid && i.goal == Goal::Running);
        self.to_kill.retain(alive);
        let mut moves = Moves::default();
        while self.may_kill > 0
            && let Some(uuid) = self.to_kill.pop_front()
        {
            self.may_kill -= 1;
            moves.kill.push(uuid);
        }
        let room = self.most.saturating_sub(old.len() + new.len());
        moves.start = count.saturating_sub(new.len()).min(room);
        moves.done = up.len() >= count && old.is_empty();
        moves
    }
}

/// Without health checks whoever runs is healthy.
fn considered_healthy(instance: &Instance) -> bool {
    instance.is_healthy()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::instance::Phase;
    use super::super::path::AppId;
    use super::super::stamp::Stamp;
    use super::*;

    fn app(version: u64, count: usize, least: f64, over: f64) -> Arc<App> {
        let fields = json!({
            "instances": count,
            "upgradeStrategy": {"minimumHealthCapacity": least, "maximumOverCapacity": over},
        });
        let at = Stamp(version);
        let fields = fields.as_object().unwrap().clone();
        let id = AppId::absolute("/a");
        Arc::new(App { id, fields, version: at, scaled: at, configured: at })
    }

    fn running(app: &Arc<App>, name: String) -> Instance {
        let mut instance = Instance::new(app, name, Stamp(0));
        instance.phase = Phase::Running;
        instance
    }

    /// Replaces all, with everything that is started running at once; the least and the most that ran.
    fn roll(from: usize, count: usize, least: f64, over: f64) -> (usize, usize) {
        let (old, new) = (app(1, from, 1.0, 1.0), app(2, count, least, over));
        let mut all: Vec<Instance> = (0..from).map(|n| running(&old, format!("old-{n}"))).collect();
        let mut replace = Replace::begin(&new, &all);
        let mut seen = (from, from);
        for round in 0..100 {
            let moves = replace.go_on(&all);
            if moves.done {
                assert!(all.iter().all(|i| i.app.version == Stamp(2)) && all.len() == count);
                return seen;
            }
            all.retain(|i| !moves.kill.contains(&i.uuid));
            seen = (seen.0.min(all.len()), seen.1.max(all.len()));
            all.extend((0..moves.start).map(|n| running(&new, format!("new-{round}-{n}"))));
            seen = (seen.0.min(all.len()), seen.1.max(all.len()));
        }
        panic!("{from} to {count} with {least}/{over} stands still");
    }

    #[test]
    fn capacities_are_kept_and_nothing_stands_still() {
        assert_eq!(roll(4, 4, 1.0, 1.0), (4, 8));
        assert_eq!(roll(4, 4, 0.5, 0.0), (2, 4));
        assert_eq!(roll(4, 4, 1.0, 0.0), (4, 5), "one more, or it could not begin");
        assert_eq!(roll(4, 4, 0.0, 0.0), (0, 4));
        assert_eq!(roll(10, 10, 0.75, 0.2), (8, 10));
        for (from, count) in [(1, 1), (1, 5), (5, 1), (3, 4)] {
            for (least, over) in [(1.0, 1.0), (1.0, 0.0), (0.0, 0.0), (0.5, 0.5), (0.9, 0.1)] {
                roll(from, count, least, over);
            }
        }
    }

    #[test]
    fn the_sums_are_those_of_the_reference() {
        let of = |count, least, over, healthy, all| {
            let Room { least, most, kill } = room(&app(1, count, least, over), healthy, all);
            (least, most, kill)
        };
        assert_eq!(of(10, 0.75, 0.25, 10, 10), (8, 12, 2));
        assert_eq!(of(10, 1.0, 0.0, 10, 10), (10, 11, 0));
        assert_eq!(of(10, 1.0, 0.0, 9, 10), (10, 10, 0), "there is room while one is sick");
        assert_eq!(of(2, 1.0, 1.0, 5, 5), (2, 4, 3), "the surplus goes at once");
    }

    #[test]
    fn an_old_one_goes_only_for_a_new_one_that_is_up() {
        let (old, new) = (app(1, 2, 1.0, 1.0), app(2, 2, 1.0, 1.0));
        let mut all: Vec<Instance> = (0..2).map(|n| running(&old, format!("old-{n}"))).collect();
        let mut replace = Replace::begin(&new, &all);
        assert_eq!(replace.go_on(&all), Moves { start: 2, ..Moves::default() });
        all.push(Instance::new(&new, "new-0".into(), Stamp(0)));
        all.push(running(&new, "new-1".into()));
        assert_eq!(replace.go_on(&all).kill.len(), 1);
        assert_eq!(replace.go_on(&all).kill.len(), 0, "each new one pays for one");
        all[2].phase = Phase::Running;
        assert_eq!(replace.go_on(&all).kill.len(), 1);
    }
}
