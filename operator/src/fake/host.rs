//! One simulated host: an engine with containers that behave as their image's name says.
//!
//! `…bad…` never becomes healthy, `…crash…` exits a second after its start, `…slow…` takes ten
//! seconds to become healthy, `…instant…` is healthy at once; every other image is healthy after half
//! a second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::error::Remedy;
use crate::model::{
    HealthState, HostView, Instance, InstanceId, Resources, Seen, ServiceName, State, Step, Time,
    Traffic,
};

/// How long a container goes on that was told to end by an agent that was killed.
const GOES_ON: Duration = Duration::from_secs(1);

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All of it happened.
    Done,
    /// A start only created, a stop only stopped.
    Half,
    /// Nothing happened.
    Lost,
}

/// Why a simulated engine did not do a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// For people.
    pub why: &'static str,
    /// What follows.
    pub remedy: Remedy,
}

impl Refused {
    pub(super) fn retry(why: &'static str) -> Self {
        Self { why, remedy: Remedy::Retry }
    }

    pub(super) fn reobserve(why: &'static str) -> Self {
        Self { why, remedy: Remedy::Reobserve }
    }
}

/// A simulated host.
#[derive(Debug, Clone)]
pub struct SimHost {
    /// Ours and others', as they are.
    pub containers: BTreeMap<InstanceId, Container>,
    /// Starts fail here.
    pub refuses: bool,
    /// The host does not answer.
    pub silent: bool,
    capacity: Resources,
    silent_from: Time,
    seen: Seen,
    /// What was last seen of it.
    last: Arc<HostView>,
    foreign: BTreeMap<InstanceId, Arc<str>>,
    now: Time,
}

/// A simulated container.
#[derive(Debug, Clone)]
pub struct Container {
    /// As the agent sees it when the host answers.
    pub instance: Instance,
    /// Somebody made it ill.
    pub ill: bool,
    image: String,
    started: Time,
    up_from: Option<Time>,
    seen_from: Time,
    sessions: u32,
    /// When it will have ended, having been told to.
    ends: Option<Time>,
}

impl SimHost {
    pub(super) fn new(capacity: Resources, now: Time) -> Self {
        Self {
            containers: BTreeMap::new(),
            refuses: false,
            silent: false,
            capacity,
            silent_from: now,
            seen: Seen::Never { since: now },
            last: Arc::new(HostView::never(now)),
            foreign: BTreeMap::new(),
            now,
        }
    }

    /// Whether the agent can believe what it knows of the host.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    pub(super) fn view(&self, edges_silent: bool) -> Arc<HostView> {
        if self.seen != Seen::Now {
            return Arc::new(HostView { seen: self.seen, ..(*self.last).clone() });
        }
        if !edges_silent {
            return self.last.clone();
        }
        let mut view = (*self.last).clone();
        for i in &mut view.instances {
            i.traffic = Traffic::Unknown;
        }
        Arc::new(view)
    }

    pub(super) fn running(&self, service: &ServiceName) -> usize {
        let runs =
            |c: &&Container| c.instance.service == *service && c.instance.state == State::Running;
        self.containers.values().filter(runs).count()
    }

    /// Falls silent: nothing gets through from now on.
    pub fn silence(&mut self, now: Time) {
        if !self.silent {
            self.silent = true;
            self.silent_from = now;
        }
    }

    /// Answers again: what happened in a silence that nobody noticed is seen at once.
    pub fn answer(&mut self) {
        self.silent = false;
        self.publish();
    }

    /// The engine stops and starts again: every container has ended.
    pub fn restart_engine(&mut self) {
        for c in self.containers.values_mut() {
            if c.is_up() {
                c.instance.state = State::Exited { code: 137, out_of_memory: false };
            }
        }
        self.publish();
    }

    /// A new agent has not asked yet.
    pub(super) fn forget(&mut self, now: Time) {
        self.seen = Seen::Never { since: now };
        self.last = Arc::new(HostView::never(now));
        for c in self.containers.values_mut() {
            c.seen_from = now;
            if let HealthState::Healthy { .. } = c.instance.health {
                c.instance.health = HealthState::Unknown;
            }
        }
    }

    /// How long a step takes here.
    pub(super) fn takes(&self, step: &Step) -> Duration {
        if self.silent {
            return super::HANG;
        }
        Duration::from_millis(match step {
            Step::Start(_) => 300,
            Step::Stop { .. } => 400,
            Step::Remove { .. } | Step::RemoveNetwork { .. } | Step::App(_) => 200,
            Step::Rename { .. } | Step::Admit { .. } | Step::Withdraw { .. } => 100,
        })
    }

    /// Does a step as far as fate lets it.
    pub(super) fn apply(
        &mut self,
        step: &Step,
        id: InstanceId,
        fate: Fate,
        now: Time,
    ) -> Result<(), Refused> {
        if self.silent {
            return Err(Refused::retry("the host does not answer"));
        }
        if fate == Fate::Lost {
            return Ok(());
        }
        if step.id().is_some_and(|id| self.foreign.contains_key(id)) {
            return Err(Refused::reobserve("it is not ours"));
        }
        match step {
            Step::Start(s) => {
                if self.refuses {
                    return Err(Refused::retry("no space left on device"));
                }
                let same = |c: &Container| {
                    let i = &c.instance;
                    (&i.name, i.hash, i.slot) == (&s.name, s.hash, s.slot)
                        && i.state == State::Running
                };
                if self.containers.values().any(same) {
                    return Ok(());
                }
                if self.is_named(&s.name) {
                    return Err(Refused::reobserve("its name is taken"));
                }
                let ports: Vec<u16> = s.published.iter().map(|p| p.host).collect();
                let busy = |c: &Container| {
                    c.is_up() && c.instance.published.iter().any(|p| ports.contains(p))
                };
                if self.containers.values().any(busy) {
                    return Err(Refused::retry("a port is taken"));
                }
                let started = fate == Fate::Done;
                let instance = Instance {
                    id: id.clone(),
                    name: s.name.clone(),
                    service: s.service.clone(),
                    slot: s.slot,
                    hash: s.hash,
                    state: if started { State::Running } else { State::Created },
                    health: if s.spec.image.contains("instant") {
                        HealthState::Healthy { since: now }
                    } else {
                        HealthState::Starting
                    },
                    created: now,
                    resources: s.spec.resources,
                    published: ports,
                    bindings: s.published.iter().map(|p| (p.container, p.host)).collect(),
                    networks: Vec::new(),
                    at: None,
                    traffic: Traffic::None,
                };
                let image = s.spec.image.clone();
                let container = Container {
                    instance,
                    ill: false,
                    image,
                    started: now,
                    up_from: None,
                    seen_from: now,
                    sessions: 0,
                    ends: None,
                };
                self.containers.insert(id, container);
            }
            Step::Stop { id, .. } => {
                if fate == Fate::Half {
                    if let Some(c) = self.containers.get_mut(id) {
                        c.instance.name = format!("{}.ending-{}", c.instance.name, id.0).into();
                        c.instance.state = State::Ending;
                        c.instance.health = HealthState::Starting;
                        c.ends = Some(now.plus(GOES_ON));
                    }
                } else {
                    self.containers.remove(id);
                }
            }
            Step::Remove { id, .. } => {
                if self.containers.get(id).is_some_and(Container::is_up) {
                    return Err(Refused::reobserve("it runs"));
                }
                self.containers.remove(id);
            }
            Step::Rename { id, to, .. } => {
                let own = self.containers.get(id).is_some_and(|c| &c.instance.name == to);
                if !own && self.is_named(to) {
                    return Err(Refused::reobserve("the name is taken"));
                }
                if let Some(c) = self.containers.get_mut(id) {
                    c.instance.name = to.clone();
                }
            }
            Step::Admit { id, .. } => {
                if let Some(c) = self.containers.get_mut(id) {
                    c.instance.traffic = Traffic::Serving { up: false };
                    c.up_from = Some(now.plus(Duration::from_millis(300)));
                }
            }
            Step::Withdraw { id, .. } => {
                if let Some(c) = self.containers.get_mut(id) {
                    c.sessions = 3;
                    c.instance.traffic = Traffic::Withdrawn { since: now, sessions: Some(3) };
                }
            }
            Step::RemoveNetwork { .. } | Step::App(_) => {}
        }
        self.publish();
        Ok(())
    }

    /// What happens by itself until `now`.
    pub(super) fn live(&mut self, now: Time, notice: Duration) {
        self.now = now;
        for c in self.containers.values_mut() {
            c.live(now);
        }
        if !self.silent {
            self.seen = Seen::Now;
            self.publish();
        } else if self.seen == Seen::Now && now.since(self.silent_from) >= notice {
            self.seen = Seen::Silent { since: now };
        }
    }

    /// A stranger's container appears, under a name that ours might want; returns its id.
    pub fn add_stranger(&mut self, name: &str) -> InstanceId {
        let id = InstanceId(format!("stranger-{}", self.foreign.len()).into());
        self.foreign.insert(id.clone(), name.into());
        self.publish();
        id
    }

    /// Whether a stranger's container is there.
    pub fn has_stranger(&self, id: &InstanceId) -> bool {
        self.foreign.contains_key(id)
    }

    fn is_named(&self, name: &Arc<str>) -> bool {
        self.containers.values().any(|c| &c.instance.name == name)
            || self.foreign.values().any(|n| n == name)
    }

    /// Changes a container from outside, and the agent sees it at once; `false` when there is none.
    pub fn with(&mut self, id: &InstanceId, change: impl FnOnce(&mut Container)) -> bool {
        let found = self.containers.get_mut(id).map(change).is_some();
        self.publish();
        found
    }

    /// Somebody removes a container by hand.
    pub fn remove(&mut self, id: &InstanceId) {
        self.containers.remove(id);
        self.publish();
    }

    fn publish(&mut self) {
        if self.silent || self.seen != Seen::Now {
            return;
        }
        self.last = Arc::new(HostView {
            seen: Seen::Now,
            capacity: self.capacity,
            instances: self.containers.values().map(|c| c.instance.clone()).collect(),
            foreign_names: self.foreign.values().cloned().collect(),
            foreign_ports: BTreeSet::new(),
            networks: BTreeSet::new(),

            apps: BTreeMap::new(),
        });
    }

    /// Whether something will still happen by itself.
    pub(super) fn is_restless(&self, now: Time) -> bool {
        if self.silent {
            return self.seen == Seen::Now;
        }
        self.seen != Seen::Now || self.containers.values().any(|c| c.is_restless(now))
    }
}

impl Container {
    /// It runs, told to end or not.
    fn is_up(&self) -> bool {
        matches!(self.instance.state, State::Running | State::Ending)
    }

    fn live(&mut self, now: Time) {
        if self.instance.state == State::Ending && self.ends.is_none_or(|ends| ends <= now) {
            self.instance.state = State::Exited { code: 143, out_of_memory: false };
        }
        if self.instance.state != State::Running {
            return;
        }
        let age = now.since(self.started.max(self.seen_from));
        let (bad, slow) = (self.image.contains("bad"), self.image.contains("slow"));
        if self.image.contains("crash") && now.since(self.started) >= Duration::from_secs(1) {
            self.instance.state = State::Exited { code: 1, out_of_memory: false };
            return;
        }
        let healthy_after = match (slow, self.image.contains("instant")) {
            (true, _) => Duration::from_secs(10),
            (false, true) => Duration::ZERO,
            (false, false) => Duration::from_millis(500),
        };
        let healthy = now.since(self.started) >= healthy_after && !self.ill && !bad;
        self.instance.health = match self.instance.health {
            HealthState::Healthy { since } if healthy => HealthState::Healthy { since },
            HealthState::Unhealthy { since } if !healthy => HealthState::Unhealthy { since },
            _ if healthy && age >= Duration::from_millis(200) => {
                HealthState::Healthy { since: now }
            }
            HealthState::Healthy { .. } => HealthState::Unhealthy { since: now },
            HealthState::Starting | HealthState::Unknown
                if age >= Duration::from_secs(3) && (bad || self.ill) =>
            {
                HealthState::Unhealthy { since: now }
            }
            other @ (HealthState::Starting
            | HealthState::Unknown
            | HealthState::Unhealthy { .. }) => other,
        };
        match self.instance.traffic {
            Traffic::Serving { up: false } if self.up_from.is_some_and(|t| t <= now) => {
                self.instance.traffic = Traffic::Serving { up: true };
            }
            Traffic::Withdrawn { since, .. } => {
                let gone = u32::try_from(now.since(since).as_secs()).unwrap_or(u32::MAX);
                let sessions = Some(self.sessions.saturating_sub(gone));
                self.instance.traffic = Traffic::Withdrawn { since, sessions };
            }
            Traffic::None
            | Traffic::Nobody
            | Traffic::Voter { .. }
            | Traffic::Serving { .. }
            | Traffic::Unknown => {}
        }
    }

    fn is_restless(&self, now: Time) -> bool {
        let starting = matches!(self.instance.health, HealthState::Starting | HealthState::Unknown);
        self.instance.state == State::Ending
            || self.instance.state == State::Running
                && (starting
                    || (self.image.contains("crash") && now.since(self.started).as_secs() < 2))
    }
}
