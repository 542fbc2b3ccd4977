//! Consul as the registry: every instance is registered with the agent of its host, and only what says that it is
//! ours is ever changed.
//!
//! One task an agent keeps that agent as it should be; one task follows what the servers know, which is what the view
//! shows, because it is what clients see; one takes out what dead hosts left there.

mod agent;
mod board;
mod catalog;
mod diff;
mod entry;
mod http;
pub mod lock;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use self::agent::Agent;
use self::board::Board;
use self::diff::{Agents, Want, Whose};
use self::entry::Ours;
use self::http::{Base, CallError, Http};
use self::wire::{AutopilotAnswer, Catalog};
use super::Discovery;
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::error::{PortError, causes};
use crate::model::{ConsulSpec, FleetName, HostName, OwnerId, Registrations, RegistryView};

pub use self::entry::{ENTRY, FLEET, HASH, HOST, INSTANCE, OWNER, SLOT};

/// Pauses after failures, growing.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Everything is looked at again so often, in case something changed that nobody rang for.
const SLOW: Duration = Duration::from_secs(30);

/// The registry of one fleet.
pub struct Consul {
    shared: Result<Arc<Shared>, Arc<Board>>,
    published: Mutex<Option<Arc<Registrations>>>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    hosts: Option<BTreeMap<HostName, String>>,
    agents: BTreeMap<Base, (Responsible, AbortHandle)>,
    tasks: JoinSet<()>,
}

/// What the tasks share.
struct Shared {
    ours: Ours,
    agent_port: Option<u16>,
    base: Base,
    http: Http,
    board: Arc<Board>,
    /// `None` until something was published.
    want: watch::Sender<Option<Arc<Want>>>,
    /// `None` until the servers answered.
    catalog: watch::Sender<Option<Arc<Catalog>>>,
    agents: watch::Sender<States>,
}

/// Which hosts' instances an agent should have.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Responsible {
    All,
    These(BTreeSet<HostName>),
}

impl Responsible {
    fn is_for(&self, host: &HostName) -> bool {
        match self {
            Self::All => true,
            Self::These(hosts) => hosts.contains(host),
        }
    }
}

/// What is known of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Unasked,
    /// With the node that it is, where it may be told.
    Answers {
        node: Option<String>,
    },
    Silent,
}

/// What is known of every agent.
#[derive(Debug, Clone, Default)]
struct States {
    agents: BTreeMap<Base, State>,
    /// The agent of each host; all hosts have the only one where this is empty.
    of_host: BTreeMap<HostName, Base>,
}

impl States {
    fn node(&self, base: &Base) -> Option<&str> {
        match self.agents.get(base)? {
            State::Answers { node } => node.as_deref(),
            State::Unasked | State::Silent => None,
        }
    }

    /// `None` until each was asked once.
    fn known(&self) -> Option<Agents> {
        if self.agents.values().any(|state| *state == State::Unasked) {
            return None;
        }
        let nodes = self.agents.keys().filter_map(|base| self.node(base));
        let of_host = self.of_host.iter();
        let of_host = of_host
            .filter_map(|(host, base)| Some((host.clone(), self.node(base)?.to_owned())))
            .collect();
        Some(Agents { of_host, answering: nodes.map(str::to_owned).collect() })
    }
}

impl Shared {
    fn node(&self, base: &Base) -> Option<String> {
        self.agents.borrow().node(base).map(str::to_owned)
    }

    fn state(&self, base: &Base, state: State) {
        self.agents.send_if_modified(|states| {
            let Some(known) = states.agents.get_mut(base) else { return false };
            let news = *known != state;
            *known = state;
            news
        });
    }

    fn whose(&self, base: &Base, responsible: &Responsible, host: &HostName) -> Whose {
        if responsible.is_for(host) {
            return Whose::Mine;
        }
        let states = self.agents.borrow();
        let theirs = states.of_host.get(host).and_then(|other| states.node(other));
        match (states.node(base), theirs) {
            (Some(mine), Some(theirs)) if mine != theirs => Whose::Another,
            _ => Whose::Unsure,
        }
    }
}

/// A lock whose holders cannot leave anything half done by panicking: they only assign.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Consul {
    /// Begins to follow a registry; changes nothing there before something is published. `hosts` says at which
    /// address each host's agent is, and counts only where the spec has an `agent_port`. `bell` rings at every change of
    /// the view. Must be called within a tokio runtime.
    pub fn new(
        owner: OwnerId,
        fleet: FleetName,
        spec: ConsulSpec,
        hosts: BTreeMap<HostName, String>,
        bell: Doorbell,
        clock: Clock,
    ) -> Self {
        let board = Arc::new(Board::new(bell, clock));
        let mut tasks = JoinSet::new();
        let shared = match Base::parse(&spec.address) {
            Ok(base) => {
                let shared = Arc::new(Shared {
                    ours: Ours { owner, fleet },
                    agent_port: spec.agent_port,
                    base,
                    http: Http::new(spec),
                    board,
                    want: watch::Sender::new(None),
                    catalog: watch::Sender::new(None),
                    agents: watch::Sender::new(States::default()),
                });
                tasks.spawn(catalog::follow(Arc::clone(&shared)));
                tasks.spawn(catalog::sweep(Arc::clone(&shared)));
                Ok(shared)
            }
            Err(e) => {
                board.failed(causes(&e));
                Err(board)
            }
        };
        let running = Running { tasks, ..Running::default() };
        let consul = Self { shared, published: Mutex::new(None), running: Mutex::new(running) };
        consul.set_hosts(hosts);
        consul
    }

    /// Says at which address each host's agent is from now on. Cheap when nothing changed.
    pub fn set_hosts(&self, hosts: BTreeMap<HostName, String>) {
        let Ok(shared) = &self.shared else { return };
        let mut running = lock(&self.running);
        if running.hosts.as_ref() == Some(&hosts) {
            return;
        }
        let (wanted, of_host, bad) = agents(shared, &hosts);
        running.hosts = Some(hosts);
        let Running { agents, tasks, .. } = &mut *running;
        while tasks.try_join_next().is_some() {}
        agents.retain(|base, (responsible, task)| {
            let stays = wanted.get(base) == Some(responsible);
            if !stays {
                task.abort();
            }
            stays
        });
        shared.agents.send_modify(|states| {
            states.of_host = of_host;
            states.agents.retain(|base, _| wanted.contains_key(base));
            for base in wanted.keys() {
                states.agents.entry(base.clone()).or_insert(State::Unasked);
            }
        });
        let mut places: BTreeSet<String> = wanted.keys().map(ToString::to_string).collect();
        places.insert(catalog::SWEEP.to_owned());
        shared.board.only(&places);
        for (host, e) in bad {
            let problem = format!("the agent of host {host}: {}", causes(&e));
            shared.board.agent(host.as_str(), Some(problem));
        }
        for (base, responsible) in wanted {
            agents.entry(base).or_insert_with_key(|base| {
                let agent = Agent {
                    base: base.clone(),
                    responsible: responsible.clone(),
                    shared: Arc::clone(shared),
                };
                (responsible, tasks.spawn(agent.run()))
            });
        }
    }

    /// Whether each server that has a vote is healthy, by its node's name, as the servers' leader judges.
    pub async fn voters(&self) -> Result<BTreeMap<String, bool>, PortError> {
        let doing = "ask consul for the health of its servers";
        let shared = match &self.shared {
            Ok(shared) => shared,
            Err(board) => {
                let why = board.view().problem.clone().unwrap_or_default();
                return Err(PortError::new(doing, crate::error::Remedy::Hold, why));
            }
        };
        let path = "/v1/operator/autopilot/health";
        let answer = shared.http.get_even_sick::<AutopilotAnswer>(&shared.base, path).await;
        answer.map(AutopilotAnswer::voters).map_err(|e| e.while_doing(doing))
    }
}

type Wanted =
    (BTreeMap<Base, Responsible>, BTreeMap<HostName, Base>, BTreeMap<HostName, CallError>);

/// The agents to speak to, each host's, and the hosts whose address is none. Several hosts may share one.
fn agents(shared: &Shared, hosts: &BTreeMap<HostName, String>) -> Wanted {
    let (mut of_host, mut bad) = (BTreeMap::new(), BTreeMap::new());
    let Some(port) = shared.agent_port else {
        return (BTreeMap::from([(shared.base.clone(), Responsible::All)]), of_host, bad);
    };
    let mut by_base: BTreeMap<Base, BTreeSet<HostName>> = BTreeMap::new();
    // It may be none of theirs, and still have what was registered with it once.
    by_base.insert(shared.base.clone(), BTreeSet::new());
    for (host, address) in hosts {
        match shared.base.of_host(address, port) {
            Ok(base) => {
                by_base.entry(base.clone()).or_default().insert(host.clone());
                of_host.insert(host.clone(), base);
            }
            Err(e) => {
                bad.insert(host.clone(), e);
            }
        }
    }
    let wanted = by_base.into_iter().map(|(base, hosts)| (base, Responsible::These(hosts)));
    (wanted.collect(), of_host, bad)
}

impl Discovery for Consul {
    fn publish(&self, registrations: Arc<Registrations>) {
        let Ok(shared) = &self.shared else { return };
        let mut published = lock(&self.published);
        if published.as_ref() == Some(&registrations) {
            return;
        }
        let want = Want::new(&shared.ours, &registrations);
        *published = Some(registrations);
        shared.board.wants(want.instances());
        shared.want.send_replace(Some(Arc::new(want)));
    }

    fn view(&self) -> Arc<RegistryView> {
        match &self.shared {
            Ok(shared) => shared.board.view(),
            Err(board) => board.view(),
        }
    }
}
