//! The way out of an instance that may be serving: traffic first (promise 4).

use super::board::Member;
use super::rollout::Disruptions;
use crate::model::{
    HealthState, Plan, Reason, ServiceName, Subject, Termination, Time, Traffic, Waiting, Why,
};

/// Who leaves, and how.
pub(super) struct Leaver<'l> {
    pub(super) member: &'l Member<'l>,
    pub(super) service: &'l ServiceName,
    pub(super) termination: &'l Termination,
    /// The registry knows the service and does not answer: nobody can leave it now, and whoever seems to have left may
    /// still be in there.
    pub(super) locked: bool,
    pub(super) now: Time,
}

/// Plans the next step on the way out; `false` when the hourly budget is spent.
///
/// A healthy instance is withdrawn, then observed without traffic, then drained, then stopped. The
/// budget is charged once, with the first step that ends its service.
pub(super) fn take(
    leaver: &Leaver<'_>,
    reason: impl Fn() -> Reason,
    budget: &mut Disruptions,
    out: &mut Plan,
) -> bool {
    let Leaver { member, service, termination, locked, now } = leaver;
    let Some(instance) = member.instance else { return true };
    let healthy = !matches!(instance.health, HealthState::Starting | HealthState::Unhealthy { .. });
    let stop = || member.stop(service, &termination.signal, termination.grace);
    let subject = || Subject::Service((*service).clone());
    if healthy && *locked {
        out.untold(subject());
        return false;
    }
    match instance.traffic {
        Traffic::Unknown if healthy => {
            out.untold(subject());
            false
        }
        Traffic::Serving { .. } if healthy => {
            let granted = budget.spend(out);
            if granted {
                out.take(member.withdraw(service), reason());
            }
            granted
        }
        Traffic::Withdrawn { since, sessions }
            if healthy && sessions != Some(0) && since.plus(termination.drain) > *now =>
        {
            let until = since.plus(termination.drain);
            out.wait(subject(), Why::Draining { count: 1, sessions }, Some(until));
            true
        }
        Traffic::None | Traffic::Nobody | Traffic::Voter { .. } if healthy => {
            let granted = budget.spend(out);
            if granted {
                out.take(stop(), reason());
            }
            granted
        }
        Traffic::Withdrawn { .. }
        | Traffic::None
        | Traffic::Nobody
        | Traffic::Voter { .. }
        | Traffic::Serving { .. }
        | Traffic::Unknown => {
            out.take(stop(), reason());
            true
        }
    }
}

impl Plan {
    /// One more that cannot leave because nobody can say whether clients are led to it; several are told of together.
    fn untold(&mut self, subject: Subject) {
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
