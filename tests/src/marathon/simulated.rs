//! Tasks that are nothing but time: for thousands of them, and for those that misbehave to the millisecond.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::runner::{End, Order, Report, Reports, Runner, Task};

/// What a task does.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// From its launch until it runs.
    pub start: Duration,
    /// From then until its checks succeed; none for never.
    pub healthy: Option<Duration>,
    /// From running until its readiness check says yes; none for never.
    pub ready: Option<Duration>,
    /// From running until its checks fail again, if they do.
    pub sick: Option<Duration>,
    /// From running until it ends by itself, if it does, and how.
    pub ends: Option<(Duration, End, String)>,
    /// From the word that ends it until it has ended; none for not before SIGKILL.
    pub stops: Option<Duration>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            start: Duration::from_millis(20),
            healthy: Some(Duration::from_millis(20)),
            ready: Some(Duration::from_millis(20)),
            sick: None,
            ends: None,
            stops: Some(Duration::from_millis(10)),
        }
    }
}

impl Behaviour {
    /// It fails so soon after it began to run.
    pub fn crashes(after: Duration) -> Self {
        Self {
            ends: Some((after, End::Failed, "Command exited with status 1".into())),
            ..Self::default()
        }
    }

    /// It runs, and no check of it ever succeeds.
    pub fn unhealthy() -> Self {
        Self { healthy: None, ready: None, ..Self::default() }
    }
}

/// What tasks do, by what they are.
pub type Behave = Arc<dyn Fn(&Task) -> Behaviour + Send + Sync>;

/// When Mesos' executor loses patience where an app says nothing.
const GRACE: u64 = 3;

/// Runs nothing.
pub struct Simulated {
    behave: Behave,
    orders: Option<UnboundedSender<Word>>,
    stage: JoinSet<()>,
}

enum Word {
    Order(Order),
    Living(oneshot::Sender<BTreeSet<String>>),
}

impl Simulated {
    /// Tasks that do this.
    pub fn new(behave: Behave) -> Self {
        Self { behave, orders: None, stage: JoinSet::new() }
    }
}

#[async_trait]
impl Runner for Simulated {
    fn start(&mut self, reports: Reports, second: Duration) {
        let (orders, taken) = unbounded_channel();
        self.orders = Some(orders);
        let stage = Stage {
            behave: Arc::clone(&self.behave),
            reports,
            second,
            tasks: BTreeMap::new(),
            due: BTreeMap::new(),
            serial: 0,
        };
        self.stage.spawn(stage.play(taken));
    }

    async fn order(&mut self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(Word::Order(order));
        }
    }

    async fn living(&mut self) -> BTreeSet<String> {
        let (asked, answer) = oneshot::channel();
        if let Some(orders) = &self.orders {
            let _ = orders.send(Word::Living(asked));
        }
        answer.await.unwrap_or_default()
    }

    async fn stop(&mut self) {
        self.stage.abort_all();
    }
}

/// Something that happens to a task.
#[derive(Clone, Debug)]
enum Cue {
    Runs,
    Checks,
    Ready,
    Ends(End, String),
}

struct Actor {
    task: Box<Task>,
    behaviour: Behaviour,
    runs: Option<Instant>,
}

struct Stage {
    behave: Behave,
    reports: Reports,
    second: Duration,
    tasks: BTreeMap<String, Actor>,
    due: BTreeMap<(Instant, u64), (String, Cue)>,
    serial: u64,
}

impl Stage {
    async fn play(mut self, mut orders: UnboundedReceiver<Word>) {
        loop {
            let next = self.due.keys().next().map(|(at, _)| *at);
            let far = Instant::now() + Duration::from_secs(3600);
            tokio::select! {
                word = orders.recv() => match word {
                    Some(Word::Order(order)) => self.obey(order),
                    Some(Word::Living(asked)) => {
                        let _ = asked.send(self.tasks.keys().cloned().collect());
                    }
                    None => return,
                },
                () = sleep_until(next.unwrap_or(far)) => self.perform(),
            }
        }
    }

    fn plan(&mut self, after: Duration, task: &str, cue: Cue) {
        self.serial += 1;
        self.due.insert((Instant::now() + after, self.serial), (task.to_owned(), cue));
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Launch(task) => {
                let behaviour = (self.behave)(&task);
                self.plan(behaviour.start, &task.id, Cue::Runs);
                self.tasks.insert(task.id.clone(), Actor { task, behaviour, runs: None });
            }
            Order::Kill { task, grace, .. } => {
                let Some(actor) = self.tasks.get(&task) else { return };
                let patience =
                    self.second * u32::try_from(grace.unwrap_or(GRACE)).unwrap_or(u32::MAX);
                let after = actor.behaviour.stops.unwrap_or(patience).min(patience);
                self.plan(after, &task, Cue::Ends(End::Killed, "Container killed".into()));
            }
        }
    }

    fn perform(&mut self) {
        let now = Instant::now();
        while let Some(((at, _), _)) = self.due.first_key_value()
            && *at <= now
        {
            let Some((_, (task, cue))) = self.due.pop_first() else { return };
            self.act(&task, cue, now);
        }
    }

    fn tell(&self, task: &str, report: Report) {
        let _ = self.reports.send((task.to_owned(), report));
    }

    fn act(&mut self, id: &str, cue: Cue, now: Instant) {
        let Some(actor) = self.tasks.get_mut(id) else { return };
        match cue {
            Cue::Runs => {
                actor.runs = Some(now);
                let bridged = actor.task.app.network() != "host";
                let number = self.serial;
                let address = format!("172.17.{}.{}", (number >> 8) & 0xff, number & 0xff);
                let addresses =
                    if bridged { vec![address] } else { vec![actor.task.agent.host.clone()] };
                let Behaviour { healthy, ready, sick, ends, .. } = actor.behaviour.clone();
                let checked = !actor.task.app.health_checks().is_empty();
                let waits = actor.task.app.readiness().is_some();
                self.tell(id, Report::Running(addresses));
                if checked {
                    self.plan(healthy.unwrap_or_default(), id, Cue::Checks);
                    if let Some(sick) = sick {
                        self.plan(sick, id, Cue::Checks);
                    }
                }
                if let Some(ready) = ready.filter(|_| waits) {
                    self.plan(ready, id, Cue::Ready);
                }
                if let Some((after, end, message)) = ends {
                    self.plan(after, id, Cue::Ends(end, message));
                }
            }
            Cue::Checks => {
                let Behaviour { healthy, sick, .. } = &actor.behaviour;
                let ran = actor.runs.map_or(Duration::ZERO, |since| now - since);
                let well = healthy.is_some_and(|at| ran >= at) && sick.is_none_or(|at| ran < at);
                let checks = actor.task.app.health_checks();
                for check in 0..checks.len() {
                    let result = if well { Ok(()) } else { Err("503 Service Unavailable".into()) };
                    self.tell(id, Report::Health(check, result));
                }
                // Who is well says so once; who is not is looked at until something happens.
                if !well && let Some(first) = checks.first() {
                    let interval = u32::try_from(first.interval.max(1)).unwrap_or(u32::MAX);
                    self.plan(self.second * interval, id, Cue::Checks);
                }
            }
            Cue::Ready => {
                let response = Some((200, "text/plain".to_owned(), "ready".to_owned()));
                self.tell(id, Report::Ready(true, response));
            }
            Cue::Ends(end, message) => {
                self.tasks.remove(id);
                self.tell(id, Report::Ended(end, message));
            }
        }
    }
}
