//! A Marathon that answers on sockets: one or more members that share one state, of which one leads.

mod fault;
mod http;
mod options;
mod record;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use evenkeel::clock::Clock;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;

pub use self::fault::Fault;
use self::fault::Faults;
pub use self::options::{Auth, Options, Run};
pub use self::record::Recorded;
use self::streams::Hub;
pub use self::streams::Mood;
use super::path::AppId;
use super::render::{self, Embed};
use super::runner::{End, Order, Report, Runner};
use super::stamp::Stamp;
use super::state::State;

/// Between two looks at what time does, while it does anything.
const TICK: Duration = Duration::from_millis(5);
/// The same while nothing is to be done.
const REST: Duration = Duration::from_secs(1);

/// What all members share.
struct Shared {
    state: Mutex<State>,
    clock: Clock,
    options: Options,
    hub: Hub,
    faults: Mutex<Faults>,
    seen: Mutex<Vec<Recorded>>,
    /// Who leads.
    leader: watch::Sender<Option<usize>>,
    addresses: Vec<SocketAddr>,
    /// Which members listen.
    up: Mutex<BTreeSet<usize>>,
    wake: Notify,
    words: UnboundedSender<Word>,
}

/// What the one who drives the runner is asked.
enum Word {
    Living(oneshot::Sender<BTreeSet<String>>),
    Flush,
    Stop(oneshot::Sender<()>),
}

/// A running Marathon. Everything that it started ends when it is dropped; real containers are removed by
/// [`stop`](Self::stop) and, should that not be called, when it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    members: Vec<Option<JoinSet<()>>>,
    _driver: JoinSet<()>,
}

impl Server {
    /// Starts it on ports of loopback that nobody has, or where the options say.
    pub async fn start(options: Options) -> Self {
        let mut listeners = Vec::new();
        for member in 0..options.members.max(1) {
            let at = options.listen.get(member).copied();
            let at = at.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
            listeners.push(TcpListener::bind(at).await.expect("the address is free"));
        }
        let addresses = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
        let clock = Clock::real();
        let seed = clock.now().0 ^ u64::from(std::process::id());
        let state = State::new(options.settings(), options.agents.clone(), seed);
        let (words, taken) = unbounded_channel();
        let hub = Hub::new(&options);
        let mut runner = options.runner();
        let second = options.second;
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            clock,
            options,
            hub,
            faults: Mutex::default(),
            seen: Mutex::default(),
            leader: watch::Sender::new(Some(0)),
            addresses,
            up: Mutex::new((0..listeners.len()).collect()),
            wake: Notify::new(),
            words,
        });
        let (reports, told) = unbounded_channel();
        runner.start(reports, second);
        let mut driver = JoinSet::new();
        driver.spawn(drive(Arc::clone(&shared), runner, told, taken));
        let each = listeners.into_iter().enumerate();
        let members = each.map(|(at, l)| Some(http::listen(&shared, at, l))).collect();
        Self { shared, members, _driver: driver }
    }

    /// Where the first member listens, as a URL without a path.
    pub fn url(&self) -> String {
        self.url_of(0)
    }

    /// Where one member listens.
    pub fn url_of(&self, member: usize) -> String {
        format!("http://{}", self.shared.addresses[member])
    }

    /// Where all of them listen.
    pub fn urls(&self) -> Vec<String> {
        (0..self.members.len()).map(|member| self.url_of(member)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    fn now(&self) -> Stamp {
        self.shared.now()
    }

    /// An app as `GET /v2/apps/{id}` shows it, with its tasks.
    pub fn app(&self, id: &str) -> Option<Value> {
        let (state, now) = (self.state(), self.now());
        let app = state.tree.apps.get(&AppId::absolute(id))?;
        let embed = Embed {
            tasks: true,
            counts: true,
            deployments: true,
            failure: true,
            ..Embed::default()
        };
        Some(render::info(&state, app, embed, now))
    }

    /// The ids of all apps.
    pub fn apps(&self) -> Vec<String> {
        self.state().tree.apps.keys().map(ToString::to_string).collect()
    }

    /// An app's tasks as `GET /v2/apps/{id}/tasks` shows them.
    pub fn tasks(&self, app: &str) -> Vec<Value> {
        render::tasks(&self.state(), std::iter::once(&AppId::absolute(app)), true)
    }

    /// The ids of the running deployments.
    pub fn deployments(&self) -> Vec<String> {
        self.state().deployments.iter().map(|deployment| deployment.id.clone()).collect()
    }

    /// Waits until no deployment runs; panics with what still does after `within`.
    pub async fn settled(&self, within: Duration) {
        let calm = async {
            while !self.deployments().is_empty() {
                tokio::time::sleep(TICK).await;
            }
        };
        if tokio::time::timeout(within, calm).await.is_err() {
            let state = self.state();
            let running = render::deployments(&state);
            let queue = render::queue(&state, true, self.now());
            panic!("these do not end within {within:?}: {running:#}\nwaiting: {queue:#}");
        }
    }

    /// From now on deployments of this app do nothing, until [`release`](Self::release).
    pub fn hold(&self, app: &str) {
        self.state().held.insert(AppId::absolute(app));
    }

    /// The opposite.
    pub fn release(&self, app: &str) {
        self.state().held.remove(&AppId::absolute(app));
        self.shared.wake.notify_one();
    }

    /// Ends a task as if it had failed by itself.
    pub fn fail(&self, task: &str, message: &str) {
        self.end(task, End::Failed, message);
    }

    /// Ends a task by itself in some way. A real container runs on until its app is changed.
    pub fn end(&self, task: &str, end: End, message: &str) {
        let now = self.now();
        let mut state = self.state();
        let (app, uuid) = state.owner(task).expect("there is such a task");
        state.report(&app, &uuid, Report::Ended(end, message.into()), now);
        drop(state);
        self.shared.wake.notify_one();
    }

    /// An agent is not heard of from now on.
    pub fn silence(&self, host: &str) {
        self.state().silence(host, self.now());
        self.shared.wake.notify_one();
    }

    /// It is heard of again, with the tasks that are still there; what was to be ended meanwhile ends now.
    pub async fn hear(&self, host: &str) {
        let (asked, answer) = oneshot::channel();
        let _ = self.shared.words.send(Word::Living(asked));
        let alive = answer.await.unwrap_or_default();
        self.state().hear(host, &alive, self.now());
        let _ = self.shared.words.send(Word::Flush);
        self.shared.wake.notify_one();
    }

    /// An agent takes nothing new, or does again.
    pub fn maintain(&self, host: &str, down: bool) {
        let mut state = self.state();
        state.agents.get_mut(host).expect("there is such an agent").maintenance = down;
    }

    /// Every request up to now, in their order; those that a standby hands on are there once.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Those that may change anything.
    pub fn writes(&self) -> Vec<Recorded> {
        let mut all = self.requests();
        all.retain(Recorded::is_write);
        all
    }

    /// Forgets the requests up to now.
    pub fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
    }

    /// From now on requests that match meet a fault, so many times; the newest rule that matches counts.
    pub fn fault(
        &self,
        times: usize,
        fault: Fault,
        matches: impl Fn(&Recorded) -> bool + Send + 'static,
    ) {
        self.shared.faults.lock().unwrap().add(times, fault, Box::new(matches));
    }

    /// From now on no request meets a fault.
    pub fn calm(&self) {
        *self.shared.faults.lock().unwrap() = Faults::default();
    }

    /// How many event streams are open.
    pub fn streams(&self) -> usize {
        self.shared.hub.count()
    }

    /// Closes all event streams.
    pub fn drop_streams(&self) {
        self.shared.hub.close(None);
    }

    /// What event streams do from now on.
    pub fn streams_are(&self, mood: Mood) {
        self.shared.hub.mood(mood);
    }

    /// Sends these bytes to all event streams as they are.
    pub fn say(&self, raw: &str) {
        self.shared.hub.raw(raw);
    }

    /// Who leads from now on, if anybody. All event streams close.
    pub fn lead(&self, member: Option<usize>) {
        self.shared.lead(member);
    }

    /// Who leads now.
    pub fn leader(&self) -> Option<usize> {
        *self.shared.leader.borrow()
    }

    /// A member dies: every connection breaks, and nothing listens there. Who leads is not changed by it.
    pub async fn kill(&mut self, member: usize) {
        self.shared.up.lock().unwrap().remove(&member);
        if let Some(mut tasks) = self.members[member].take() {
            tasks.shutdown().await;
        }
    }

    /// It listens again.
    pub async fn revive(&mut self, member: usize) {
        let listener = TcpListener::bind(self.shared.addresses[member]).await.unwrap();
        self.shared.up.lock().unwrap().insert(member);
        self.members[member] = Some(http::listen(&self.shared, member, listener));
    }

    /// Ends it, and removes every container that it started.
    pub async fn stop(mut self) {
        for member in 0..self.members.len() {
            self.kill(member).await;
        }
        let (asked, done) = oneshot::channel();
        if self.shared.words.send(Word::Stop(asked)).is_ok() {
            let _ = done.await;
        }
    }
}

impl Shared {
    fn now(&self) -> Stamp {
        Stamp(self.clock.now().0)
    }

    fn lead(&self, member: Option<usize>) {
        let old = self.leader.send_replace(member);
        if old != member {
            self.hub.close(None);
            let now = self.now();
            if member.is_some() {
                self.state.lock().unwrap().elected(now);
            }
            self.wake.notify_one();
        }
    }
}

/// Lets time pass, tells events and gives orders.
async fn drive(
    shared: Arc<Shared>,
    mut runner: Box<dyn Runner>,
    mut told: UnboundedReceiver<(String, Report)>,
    mut words: UnboundedReceiver<Word>,
) {
    // What was ordered of agents that are not heard of.
    let mut held: BTreeMap<String, Vec<Order>> = BTreeMap::new();
    loop {
        let (orders, restless) = pass(&shared, &mut held);
        for order in orders {
            runner.order(order).await;
        }
        tokio::select! {
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(if restless { TICK } else { REST }) => {}
            Some((task, report)) = told.recv() => {
                hear(&shared, &task, report);
                while let Ok((task, report)) = told.try_recv() {
                    hear(&shared, &task, report);
                }
            }
            Some(word) = words.recv() => match word {
                Word::Living(asked) => {
                    let _ = asked.send(runner.living().await);
                }
                Word::Flush => {
                    let silent = |host: &String| {
                        shared.state.lock().unwrap().agents.get(host).is_some_and(|a| a.silent)
                    };
                    let hosts: Vec<String> = held.keys().filter(|host| !silent(host)).cloned().collect();
                    for order in hosts.iter().flat_map(|host| held.remove(host).unwrap_or_default()) {
                        runner.order(order).await;
                    }
                }
                Word::Stop(asked) => {
                    runner.stop().await;
                    let _ = asked.send(());
                    return;
                }
            },
        }
    }
}

/// Does what is due; what is to be done with tasks, and whether more is due soon.
fn pass(shared: &Shared, held: &mut BTreeMap<String, Vec<Order>>) -> (Vec<Order>, bool) {
    // Without a leader tasks run on, and nobody decides anything.
    if shared.leader.borrow().is_none() {
        return (Vec::new(), false);
    }
    let now = shared.now();
    let mut state = shared.state.lock().unwrap();
    state.advance(now);
    let orders = std::mem::take(&mut state.orders);
    let (silent, given): (Vec<Order>, Vec<Order>) = orders
        .into_iter()
        .partition(|order| state.agents.get(order.host()).is_some_and(|agent| agent.silent));
    for order in silent {
        held.entry(order.host().to_owned()).or_default().push(order);
    }
    let restless = !state.busy.is_empty() || !state.forgotten.is_empty();
    shared.publish(&mut state);
    (given, restless)
}

impl Shared {
    /// Tells what happened; with the state held, so that its order is that of what happened.
    fn publish(&self, state: &mut State) {
        let mut events = std::mem::take(&mut state.events);
        events.extend(self.hub.detached(self.now()));
        self.hub.publish(state, &events);
    }
}

fn hear(shared: &Shared, task: &str, report: Report) {
    let now = shared.now();
    let mut state = shared.state.lock().unwrap();
    match (state.owner(task), report) {
        (Some((app, uuid)), report) => state.report(&app, &uuid, report, now),
        (None, Report::Ended(end, _)) => state.stranger(task, end, now),
        (None, _) => {}
    }
}
