//! One host: its view, its connection, and the one door through which the view is changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::connect::Engine;
use super::images::Pulls;
use super::labels::Me;
use super::view::Live;
use super::{Shared, lock};
use crate::model::{HostName, HostSpec, HostView, Probe, ServiceName, Time};

/// One host, shared by its task and the steps on it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: HostName,
    pub(super) me: Me,
    pub(super) shared: Arc<Shared>,
    /// Tells the host's task that a step or a new spec changed something.
    pub(super) kick: Notify,
    pub(super) pulls: Pulls,
    /// Networks are made one at a time: the engine takes two of one name.
    pub(super) networks: tokio::sync::Mutex<()>,
    spec: Mutex<Arc<HostSpec>>,
    live: Mutex<Live>,
    engine: Mutex<Option<Engine>>,
    problem: Mutex<Problem>,
}

#[derive(Debug, Default)]
struct Problem {
    connection: Option<String>,
    other: Option<String>,
}

impl Host {
    pub(super) fn new(me: Me, spec: Arc<HostSpec>, shared: Arc<Shared>) -> Self {
        let live = Live::new(me.clone(), shared.clock.now());
        Self {
            name: spec.name.clone(),
            me,
            shared,
            kick: Notify::new(),
            pulls: Pulls::default(),
            networks: tokio::sync::Mutex::default(),
            spec: Mutex::new(spec),
            live: Mutex::new(live),
            engine: Mutex::default(),
            problem: Mutex::default(),
        }
    }

    pub(super) fn spec(&self) -> Arc<HostSpec> {
        Arc::clone(&lock(&self.spec))
    }

    /// A new spec of the same engine, and new probes.
    pub(super) fn respec(&self, spec: Arc<HostSpec>, probes: Arc<BTreeMap<ServiceName, Probe>>) {
        *lock(&self.spec) = spec;
        self.change(|live, _| live.set_probes(probes));
        self.kick.notify_one();
    }

    /// The newest view.
    pub(super) fn view(&self) -> Arc<HostView> {
        lock(&self.live).published()
    }

    /// Changes what is known, publishes it if that changed anything, and rings then.
    pub(super) fn change<T>(&self, f: impl FnOnce(&mut Live, Time) -> T) -> T {
        let now = self.shared.clock.now();
        let (result, rings) = {
            let mut live = lock(&self.live);
            let result = f(&mut live, now);
            (result, live.publish())
        };
        if rings {
            self.shared.bell.ring();
        }
        result
    }

    /// Reads what is known.
    pub(super) fn read<T>(&self, f: impl FnOnce(&Live) -> T) -> T {
        f(&lock(&self.live))
    }

    pub(super) fn engine(&self) -> Option<Engine> {
        lock(&self.engine).clone()
    }

    pub(super) fn connected(&self, engine: Engine) {
        *lock(&self.engine) = Some(engine);
    }

    /// All that was to be seen has been seen.
    pub(super) fn arrived(&self) {
        lock(&self.problem).connection = None;
        self.change(|live, _| live.arrived());
    }

    /// The connection is gone. Returns whether that is news.
    pub(super) fn lost(&self, why: String) -> bool {
        *lock(&self.engine) = None;
        let news = {
            let mut problem = lock(&self.problem);
            let news = problem.connection.as_ref() != Some(&why);
            problem.connection = Some(why);
            news
        };
        self.change(super::view::Live::lost);
        news
    }

    /// Something else that a person should know.
    pub(super) fn note(&self, other: Option<String>) {
        lock(&self.problem).other = other;
    }

    pub(super) fn problem(&self) -> Option<String> {
        let problem = lock(&self.problem);
        problem.connection.clone().or_else(|| problem.other.clone())
    }
}
