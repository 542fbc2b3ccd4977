//! How many of an app's tasks count as what, and which of them are too many.

use super::App;
use crate::model::{
    AppAct, AppView, Instance, InstanceId, Plan, Reason, State, Step, Traffic, Why,
};
use crate::plan::classify::Bucket;
use crate::plan::exit::{Leaver, Turn};
use crate::plan::rollout::{Disruptions, Progress};
use crate::plan::service::{Seated, Work};

impl Work<'_, '_> {
    /// Tells the tasks of the newest definition from the others, and seats as many as there are to be.
    pub(super) fn recount(&mut self, app: &App<'_>) {
        let hash = self.effective.hash;
        for s in &mut self.seated {
            let newest = |id: &InstanceId| app.live.is_some_and(|live| live.current.contains(id));
            let current = app.is_current() && s.member.instance.is_some_and(|i| newest(&i.id));
            s.current = current;
            // A hash that nothing has: the app is what it was, and its tasks with it.
            s.member.hash = if current { hash } else { crate::model::SpecHash(!hash.0) };
        }
        let mut best: Vec<usize> = (0..self.seated.len())
            .filter(|&i| self.seated[i].current && self.seated[i].fills())
            .collect();
        best.sort_by(|&a, &b| self.seated[b].bucket.cmp(&self.seated[a].bucket).then(a.cmp(&b)));
        let wanted = self.service.replicas as usize;
        self.keepers = (0..wanted).map(|at| best.get(at).copied()).collect();
    }

    pub(super) fn app_progress(&self, app: &App<'_>) -> Progress {
        let mut progress = self.progress();
        let asked = match app.live {
            None => self.service.replicas == 0,
            Some(live) => {
                let sized =
                    self.service.app.scaled_elsewhere || live.instances == self.service.replicas;
                live.deployments.is_empty() && sized
            }
        };
        progress.complete &= asked && (app.live.is_none() || app.is_current());
        progress
    }

    /// Brings the number of instances, and of tasks of the newest definition, to what it is to be; returns who is on the way
    /// out.
    pub(super) fn resize(
        &self,
        app: &App<'_>,
        live: &AppView,
        budget: &mut Disruptions,
        out: &mut Plan,
    ) -> Vec<usize> {
        let want = self.service.replicas;
        let locked = is_locked(live);
        let stragglers = self.seated.iter().filter(|s| is_of(live, s) && !s.current).count();
        let leaves = self.service.shifting.is_some_and(|s| s.leaves);
        let as_asked = live.instances == want || (self.service.app.scaled_elsewhere && !leaves);
        if as_asked || (leaves && live.instances < want) {
            if !leaves && stragglers > 0 && !locked {
                let reason = Reason::Stragglers { count: stragglers };
                out.take(Some(app.step(self.service, AppAct::Restart { force: false })), reason);
            }
            return Vec::new();
        }
        if live.instances < want {
            if !locked {
                let act = AppAct::Scale { instances: want, force: false };
                out.take(Some(app.step(self.service, act)), self.scale());
            }
            return Vec::new();
        }
        // Instances that no task was started for cost nobody anything.
        let tasks = u32::try_from(self.seated.iter().filter(|s| is_of(live, s)).count())
            .unwrap_or(u32::MAX);
        let least = want.max(tasks);
        if live.instances > least {
            // A deployment may wait for room that there never is; it replaces nobody.
            let hangs = is_alone(live) && live.outdated.is_empty();
            if !locked || hangs {
                let act = AppAct::Scale { instances: least, force: locked };
                out.take(Some(app.step(self.service, act)), self.scale());
            }
            return Vec::new();
        }
        self.shrink(app, live, (live.instances - want) as usize, budget, out)
    }

    /// Leads `count` tasks out of the traffic and ends those that are out of it.
    fn shrink(
        &self,
        app: &App<'_>,
        live: &AppView,
        count: usize,
        budget: &mut Disruptions,
        out: &mut Plan,
    ) -> Vec<usize> {
        let locked = is_locked(live);
        let (_, least) = self.allowance();
        let mut available = self.count(|s| s.bucket == Bucket::Available);
        let mut order: Vec<usize> =
            (0..self.seated.len()).filter(|&i| is_of(live, &self.seated[i])).collect();
        order.sort_by(|&a, &b| self.goes_before(a).cmp(&self.goes_before(b)));
        order.truncate(count);
        let mut ended = std::collections::BTreeSet::new();
        let mut refused = false;
        for &index in &order {
            let s = &self.seated[index];
            let Some(instance) = s.member.instance else { continue };
            // It is on its way out of the traffic.
            if s.member.step.is_some() {
                continue;
            }
            let leaver = Leaver {
                member: &s.member,
                service: &self.service.name,
                termination: &self.service.termination,
                locked: self.is_locked_in(),
                now: self.now(),
            };
            let turn = leaver.turn(instance);
            let costs = s.bucket == Bucket::Available
                && matches!(turn, Turn::Withdraw | Turn::End { charged: true });
            if costs && available <= least {
                refused = true;
                continue;
            }
            match turn {
                Turn::Untold => out.untold(self.subject()),
                Turn::Withdraw => {
                    if !budget.spend(out) {
                        continue;
                    }
                    out.take(s.member.withdraw(&self.service.name), self.fewer());
                }
                Turn::Drains { sessions, until } => {
                    out.wait(self.subject(), Why::Draining { count: 1, sessions }, Some(until));
                }
                // Marathon would refuse it now; nobody is withdrawn in vain, as it will not in a moment.
                Turn::End { .. } if locked => {}
                Turn::End { charged } => {
                    if charged && !budget.spend(out) {
                        continue;
                    }
                    ended.insert(instance.id.clone());
                }
            }
            available -= u32::from(costs);
        }
        if refused {
            out.wait(self.subject(), Why::Floor { least, available }, None);
        }
        if !ended.is_empty() {
            out.take(Some(app.step(self.service, AppAct::Kill { tasks: ended })), self.fewer());
        }
        order
    }

    /// Why there are to be fewer.
    fn fewer(&self) -> Reason {
        let leaves = self.service.shifting.is_some_and(|s| s.leaves);
        if leaves { Reason::Moved } else { self.scale() }
    }

    /// Who goes first: whoever is out of the traffic or on the way there, then the sick and the unready, the outdated, the
    /// youngest.
    fn goes_before(&self, index: usize) -> impl Ord + use<> {
        let s = &self.seated[index];
        let withdrawn =
            s.member.instance.is_some_and(|i| matches!(i.traffic, Traffic::Withdrawn { .. }))
                || matches!(s.member.step, Some(Step::Withdraw { .. }));
        let created = s.member.instance.map_or(u64::MAX, |i| i.created.0);
        (
            !withdrawn,
            s.bucket,
            s.current,
            u64::MAX - created,
            s.member.instance.map(|i| i.id.clone()),
        )
    }
}

/// Whether Marathon is changing it.
pub(super) fn is_locked(live: &AppView) -> bool {
    !live.deployments.is_empty()
}

/// Whether what Marathon is changing is nothing but this app.
pub(super) fn is_alone(live: &AppView) -> bool {
    live.deployments.values().all(|d| d.touches <= 1)
}

/// A task of the app that its platform counts among the instances.
fn is_of(live: &AppView, s: &Seated<'_>) -> bool {
    let its = |id: &InstanceId| live.current.contains(id) || live.outdated.contains(id);
    let counted = |i: &Instance| i.state != State::Ending && its(&i.id);
    s.member.instance.is_some_and(counted) && !s.member.is_dead()
}
