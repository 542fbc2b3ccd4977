//! What each member of a service counts as: an ordered table, the first rule that matches wins.

use std::time::Duration;

use super::board::Member;
use crate::model::{HealthState, Seen, State, Step, Time, Traffic};

/// What a member counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bucket {
    /// On a host that has been silent for too long: it is replaced, and does not count.
    Lost,
    /// On a silent host: neither gone nor serving. It keeps its slot and counts in the ceiling.
    Unknown,
    /// Ended, or never started: to be removed; does not count.
    Dead,
    /// A step of ours is ending it: counts in the ceiling, keeps no slot.
    Leaving,
    /// Runs and does not work: goes first and costs no budget.
    Sick,
    /// Seen to start, not healthy yet: nobody misses it.
    Starting,
    /// Nobody could be asked about it yet, or a balancer is silent: it may well be serving.
    Unproven,
    /// Healthy, but not reached by clients: not admitted, withdrawn, or down in a balancer.
    Unserved,
    /// Healthy, but not for long enough; time will tell.
    Settling,
    /// Serves.
    Available,
}

/// What the rules look at.
pub(super) struct Facts<'a> {
    pub(super) member: &'a Member<'a>,
    pub(super) seen: Seen,
    pub(super) now: Time,
    pub(super) replace_after: Duration,
    pub(super) min_ready: Duration,
    pub(super) routed: bool,
}

type Rule = (Bucket, fn(&Facts<'_>) -> bool);

const RULES: [Rule; 12] = [
    // A silent host first: nothing else that is known of it can be believed (promise 5).
    (Bucket::Lost, |f| match f.seen {
        Seen::Silent { since } | Seen::Never { since } => f.now.since(since) >= f.replace_after,
        Seen::Now => false,
    }),
    (Bucket::Unknown, |f| f.seen != Seen::Now),
    // A stop counts as leaving until the engine has removed the instance, dead or not, so that
    // its end is not taken for a crash. So does one that an agent began which was killed.
    (Bucket::Leaving, |f| {
        matches!(f.member.step, Some(Step::Stop { .. } | Step::Withdraw { .. }))
            || matches!(f.state(), Some(State::Removing | State::Ending))
    }),
    (Bucket::Dead, |f| f.member.is_dead()),
    (Bucket::Sick, |f| {
        f.state() == Some(State::Paused) || matches!(f.health(), HealthState::Unhealthy { .. })
    }),
    // A container that is up while its start is still under way is not believed yet.
    (Bucket::Starting, |f| matches!(f.member.step, Some(Step::Start(_)))),
    (Bucket::Starting, |f| f.health() == HealthState::Starting),
    // After a restart of the agent everything is unproven for a moment: taking that for "not
    // serving" would let a rollout stop all old instances at once.
    (Bucket::Unproven, |f| f.health() == HealthState::Unknown),
    (Bucket::Unproven, |f| f.routed && f.traffic() == Traffic::Unknown),
    (Bucket::Settling, |f| f.ready_at().is_none_or(|at| at > f.now)),
    (Bucket::Unserved, |f| {
        f.routed
            && !matches!(
                f.traffic(),
                Traffic::Serving { up: true } | Traffic::Voter { up: true } | Traffic::Nobody
            )
    }),
    (Bucket::Available, |_| true),
];

impl Facts<'_> {
    fn state(&self) -> Option<State> {
        self.member.instance.map(|i| i.state)
    }

    fn health(&self) -> HealthState {
        self.member.instance.map_or(HealthState::Starting, |i| i.health)
    }

    /// When it has been healthy for long enough.
    pub(super) fn ready_at(&self) -> Option<Time> {
        match self.health() {
            HealthState::Healthy { since } => Some(since.plus(self.min_ready)),
            HealthState::Unknown | HealthState::Starting | HealthState::Unhealthy { .. } => None,
        }
    }

    fn traffic(&self) -> Traffic {
        self.member.instance.map_or(Traffic::None, |i| i.traffic)
    }

    pub(super) fn bucket(&self) -> Bucket {
        RULES.iter().find(|(_, rule)| rule(self)).map_or(Bucket::Unknown, |(bucket, _)| *bucket)
    }
}
