//! What waits for an agent, and why: offers, and the delay after failures.

use std::collections::BTreeMap;
use std::time::Duration;

use super::agents::{Agent, Reason, offer};
use super::app::App;
use super::instance::{Goal, Instance, Phase};
use super::path::AppId;
use super::runner::{Order, Task};
use super::stamp::Stamp;
use super::state::State;

/// Between two rounds of offers that nobody could use.
const RETRY: Duration = Duration::from_millis(100);
/// An instance that ran for so many seconds forgives what failed before.
const VIABLE_SECONDS: f64 = 60.0;

/// The wait after a failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Delay {
    pub(super) until: Stamp,
    seconds: f64,
    /// The configuration that failed: another one does not wait for it.
    configured: Stamp,
}

/// The launch of an app's instances.
#[derive(Clone, Debug, Default)]
pub(super) struct Launch {
    pub(super) since: Stamp,
    pub(super) delay: Option<Delay>,
    next: Stamp,
    pub(super) processed: usize,
    pub(super) unused: usize,
    pub(super) last_unused: Option<Stamp>,
    pub(super) last_used: Option<Stamp>,
    /// For each agent why its last offer was of no use.
    pub(super) last: BTreeMap<String, (Stamp, Vec<Reason>)>,
    /// How often an offer met each reason first.
    pub(super) attempt: BTreeMap<Reason, usize>,
}

impl State {
    /// Wants so many more instances of a definition.
    pub(super) fn schedule(&mut self, app: &std::sync::Arc<App>, count: usize, now: Stamp) {
        for _ in 0..count {
            let uuid = self.uuid();
            let instance = Instance::new(app, uuid, now);
            self.instances.entry(app.id.clone()).or_default().push(instance);
        }
        if count > 0 {
            let launch = self.launches.entry(app.id.clone()).or_default();
            *launch = Launch { since: now, delay: launch.delay, ..Launch::default() };
            self.busy.insert(app.id.clone());
        }
    }

    /// Until when the launch of a definition waits, if it does.
    pub(super) fn delayed(&self, app: &App, now: Stamp) -> Option<Stamp> {
        let delay = self.launches.get(&app.id)?.delay?;
        (delay.configured == app.configured && delay.until > now).then_some(delay.until)
    }

    /// One more failure: the next launch waits longer than the one before.
    pub(super) fn back_off(&mut self, app: &App, now: Stamp) {
        let (first, factor, longest) = app.backoff();
        let launch = self.launches.entry(app.id.clone()).or_default();
        let seconds = match launch.delay.filter(|delay| delay.configured == app.configured) {
            Some(delay) => (delay.seconds * factor).min(longest),
            None => first.min(longest),
        };
        let until = now.plus(self.settings.seconds(seconds));
        launch.delay = Some(Delay { until, seconds, configured: app.configured });
    }

    pub(super) fn reset_delay(&mut self, app: &AppId) {
        if let Some(launch) = self.launches.get_mut(app) {
            launch.delay = None;
        }
    }

    /// Forgives failures to who runs for long enough.
    pub(super) fn forgive(&mut self, app: &AppId, now: Stamp) {
        let long = self.settings.seconds(VIABLE_SECONDS);
        let viable = |i: &Instance| i.phase == Phase::Running && now.since(i.since) >= long;
        if self.instances_of(app).iter().any(viable) {
            self.reset_delay(app);
        }
    }

    /// Gives what waits to agents, as far as they can take it.
    pub(super) fn place(&mut self, app: &AppId, now: Stamp) {
        let offered = |i: &Instance, delay| {
            i.phase == Phase::Scheduled && i.goal == Goal::Running && now >= i.since.plus(delay)
        };
        let delay = self.settings.offer_delay;
        if self.launches.get(app).is_some_and(|launch| now < launch.next) {
            return;
        }
        let waiting: Vec<String> = self
            .instances_of(app)
            .iter()
            .filter(|instance| offered(instance, delay))
            .map(|instance| instance.uuid.clone())
            .collect();
        for uuid in waiting {
            if !self.place_one(app, &uuid, now) {
                break;
            }
        }
    }

    fn place_one(&mut self, app: &AppId, uuid: &str, now: Stamp) -> bool {
        let Some(instance) = self.instances_of(app).iter().find(|i| i.uuid == uuid) else {
            return true;
        };
        let definition = std::sync::Arc::clone(&instance.app);
        if self.delayed(&definition, now).is_some() {
            return false;
        }
        // What will be replaced by this very configuration is no hindrance to it.
        let counts = |i: &&Instance| i.agent.is_some() && i.app.version >= definition.configured;
        let placed: Vec<(&Agent, &Instance)> = self
            .instances_of(app)
            .iter()
            .filter(counts)
            .filter_map(|i| Some((self.agents.get(i.agent.as_ref()?)?, i)))
            .collect();
        let offers = self.agents.values().filter(|agent| !agent.silent);
        let answers: Vec<_> =
            offers.map(|agent| (agent, offer(agent, &definition, &placed))).collect();
        let best = answers
            .iter()
            .filter_map(|(agent, answer)| Some((*agent, answer.as_ref().ok()?)))
            .min_by_key(|(agent, _)| (agent.tasks, agent.number));
        let found = best.map(|(agent, ports)| (agent.host.clone(), ports.clone()));
        let refused: Vec<(String, Vec<Reason>)> = answers
            .iter()
            .filter_map(|(agent, answer)| {
                let reasons = answer.as_ref().err()?.iter().copied().collect();
                Some((agent.host.clone(), reasons))
            })
            .collect();
        let launch = self.launches.entry(app.clone()).or_default();
        let used = usize::from(found.is_some());
        launch.processed += refused.len() + used;
        launch.unused += refused.len();
        if !refused.is_empty() {
            launch.last_unused = Some(now);
        }
        for (host, reasons) in refused {
            if let Some(first) = reasons.first() {
                *launch.attempt.entry(*first).or_default() += 1;
            }
            launch.last.insert(host, (now, reasons));
        }
        let Some((host, ports)) = found else {
            launch.next = now.plus(RETRY);
            return false;
        };
        launch.last_used = Some(now);
        launch.last.remove(&host);
        self.begin(app, uuid, &host, ports, now);
        true
    }

    /// An agent takes an instance.
    fn begin(&mut self, app: &AppId, uuid: &str, host: &str, ports: Vec<Option<u16>>, now: Stamp) {
        let release = self.settings.release;
        let Some(agent) = self.agents.get_mut(host) else { return };
        let Some(instance) =
            self.instances.get_mut(app).and_then(|all| all.iter_mut().find(|i| i.uuid == uuid))
        else {
            return;
        };
        agent.take(instance.app.need(), &ports);
        instance.agent = Some(host.to_owned());
        instance.host_ports = ports;
        instance.staged = now;
        instance.enter(Phase::Staging, now);
        let task = Task {
            id: instance.task(release),
            instance: instance.id(release),
            app: std::sync::Arc::clone(&instance.app),
            agent: agent.clone(),
            host_ports: instance.host_ports.clone(),
            attempt: instance.attempt,
        };
        self.orders.push(Order::Launch(Box::new(task)));
        self.changed(app, uuid, now);
    }
}
