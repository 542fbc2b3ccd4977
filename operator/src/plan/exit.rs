//! The way out of an instance that may be serving: traffic first (promise 4).

use super::board::Member;
use super::rollout::Disruptions;
use crate::model::{
    HealthState, Instance, Plan, Reason, ServiceName, Subject, Termination, Time, Traffic, Waiting,
    Why,
};

/// Who leaves, and how.
pub(super) struct Leaver<'l> {
    pub(super) member: &'l Member<'l>,
    pub(super) service: &'l ServiceName,
    pub(super) termination: &'l Termination,
    /// The registry knows the service and does not answer, or there may be a balancer that has not been looked at: nobody can
    /// leave now, and whoever seems to have left may still be in there.
    pub(super) locked: bool,
    pub(super) now: Time,
}

/// The next thing on the way out.
pub(super) enum Turn {
    /// Nobody can say whether clients are led to it: it stays.
    Untold,
    /// It is taken out of the registry and every balancer; charged to the budget.
    Withdraw,
    /// Its connections drain.
    Drains {
        /// How many there are, where anybody counts them.
        sessions: Option<u32>,
        /// When they have had their time.
        until: Time,
    },
    /// It can end now.
    End {
        /// It is serving, as far as is known: charged to the budget.
        charged: bool,
    },
}

impl Leaver<'_> {
    /// What comes next for an instance. A healthy one is withdrawn, then observed without traffic, then drained, then ended.
    pub(super) fn turn(&self, instance: &Instance) -> Turn {
        let healthy =
            !matches!(instance.health, HealthState::Starting | HealthState::Unhealthy { .. });
        if !healthy {
            return Turn::End { charged: false };
        }
        if self.locked {
            return Turn::Untold;
        }
        match instance.traffic {
            Traffic::Unknown => Turn::Untold,
            Traffic::Serving { .. } => Turn::Withdraw,
            Traffic::Withdrawn { since, sessions } => {
                let until = since.plus(self.termination.drain);
                if sessions != Some(0) && until > self.now {
                    Turn::Drains { sessions, until }
                } else {
                    Turn::End { charged: false }
                }
            }
            Traffic::None | Traffic::Nobody | Traffic::Voter { .. } => Turn::End { charged: true },
        }
    }
}

/// Plans the next step on the way out; `false` when the hourly budget is spent.
///
/// The budget is charged once, with the first step that ends its service.
pub(super) fn take(
    leaver: &Leaver<'_>,
    reason: impl Fn() -> Reason,
    budget: &mut Disruptions,
    out: &mut Plan,
) -> bool {
    let Leaver { member, service, termination, .. } = leaver;
    let Some(instance) = member.instance else { return true };
    let subject = || Subject::Service((*service).clone());
    match leaver.turn(instance) {
        Turn::Untold => {
            out.untold(subject());
            false
        }
        Turn::Withdraw => {
            let granted = budget.spend(out);
            if granted {
                out.take(member.withdraw(service), reason());
            }
            granted
        }
        Turn::Drains { sessions, until } => {
            out.wait(subject(), Why::Draining { count: 1, sessions }, Some(until));
            true
        }
        Turn::End { charged } => {
            let granted = !charged || budget.spend(out);
            if granted {
                out.take(member.stop(service, &termination.signal, termination.grace), reason());
            }
            granted
        }
    }
}

impl Plan {
    /// One more that cannot leave because nobody can say whether clients are led to it; several are told of together.
    pub(super) fn untold(&mut self, subject: Subject) {
        match self.waiting.last_mut() {
            Some(Waiting { subject: of, why: Why::TrafficUnknown { count }, .. })
                if *of == subject =>
            {
                *count += 1;
            }
            _ => self.wait(subject, Why::TrafficUnknown { count: 1 }, None),
        }
    }
}
