//! Everything that leads clients to the instances of one fleet: its balancers and its registry, for the loop.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::balancers::{Balancers, Find};
use super::consul::Consul;
use super::{Discovery, LoadBalancer};
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::model::{
    BalancerId, BalancerView, CONSUL_AGENT_PORT, CONSUL_PORT, ConsulSpec, Edges, Fleet, FleetName,
    HealthState, HostName, HostSpec, Instance, ManagedConsul, ManagedReach, OwnerId, RegistrySpec,
    RegistryView, Seen, State, World,
};
use crate::reconcile::Edge;

/// Between two questions for the voters of a cluster that is run here.
const ASK_VOTERS: Duration = Duration::from_secs(1);
/// What they knew is not believed for longer than this.
const BELIEVED: Duration = Duration::from_secs(5);

type Voters = Option<Arc<BTreeMap<String, bool>>>;

/// The edges of one fleet.
pub struct FleetEdge {
    owner: OwnerId,
    fleet: FleetName,
    bell: Doorbell,
    clock: Clock,
    balancers: Balancers,
    registry: Mutex<Registry>,
}

/// The registry of the fleet's newest document.
#[derive(Default)]
struct Registry {
    /// The fleet that the rest was taken from.
    of: Option<Arc<Fleet>>,
    wanted: Option<RegistrySpec>,
    addresses: BTreeMap<HostName, String>,
    running: Option<Running>,
    /// What was last known of it.
    known: Option<Arc<RegistryView>>,
}

/// A registry that is spoken with.
struct Running {
    spec: ConsulSpec,
    consul: Arc<Consul>,
    voters: Option<watch::Receiver<Voters>>,
    _tasks: JoinSet<()>,
}

impl FleetEdge {
    /// Nothing is driven yet; `bell` rings at every change of a view.
    pub fn new(owner: OwnerId, fleet: FleetName, find: Find, bell: Doorbell, clock: Clock) -> Self {
        let balancers =
            Balancers::new(owner.clone(), fleet.clone(), find, bell.clone(), clock.clone());
        Self { owner, fleet, bell, clock, balancers, registry: Mutex::default() }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Speaks with the registry at `spec`, unless it does already.
    fn speak(&self, registry: &mut Registry, spec: ConsulSpec, managed: bool) {
        if registry.running.as_ref().is_some_and(|r| r.spec == spec) {
            return;
        }
        let consul = Arc::new(Consul::new(
            self.owner.clone(),
            self.fleet.clone(),
            spec.clone(),
            registry.addresses.clone(),
            self.bell.clone(),
            self.clock.clone(),
        ));
        let mut tasks = JoinSet::new();
        let voters = managed.then(|| {
            let (tell, voters) = watch::channel(None);
            tasks.spawn(ask_voters(consul.clone(), tell, self.bell.clone()));
            voters
        });
        registry.running = Some(Running { spec, consul, voters, _tasks: tasks });
    }
}

impl Edge for FleetEdge {
    fn watch(&self, fleet: &Arc<Fleet>) {
        let mut registry = self.registry();
        if registry.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, fleet)) {
            return;
        }
        registry.of = Some(Arc::clone(fleet));
        if registry.wanted != fleet.registry {
            // What the old one was entered in stays there until its own checks say otherwise.
            let same = matches!(
                (&registry.wanted, &fleet.registry),
                (Some(RegistrySpec::Managed(_)), Some(RegistrySpec::Managed(_)))
            );
            registry.wanted.clone_from(&fleet.registry);
            if !same {
                registry.running = None;
                registry.known = None;
            }
        }
        let addressed = |(name, host): (&HostName, &Arc<HostSpec>)| {
            Some((name.clone(), host.ip()?.to_string()))
        };
        registry.addresses = fleet.hosts.iter().filter_map(addressed).collect();
        if let Some(running) = &registry.running {
            running.consul.set_hosts(registry.addresses.clone());
        }
    }

    /// Must be called within a tokio runtime.
    fn observe(&self, world: &mut World) {
        world.balancers = self.balancers.views();
        let mut registry = self.registry();
        match registry.wanted.clone() {
            None => return,
            Some(RegistrySpec::Existing(spec)) => self.speak(&mut registry, spec, false),
            Some(RegistrySpec::Managed(managed)) => {
                let now = registry.running.as_ref().map(|r| &r.spec);
                if let Some(spec) = reached(&managed, world, &registry.addresses, now) {
                    self.speak(&mut registry, spec, true);
                }
            }
        }
        let view = registry.running.as_ref().map(|running| running.consul.view());
        world.registry = Some(match (view, &registry.known) {
            // Another agent of the same cluster is asked: what the one before knew is still so.
            (Some(view), Some(known)) if matches!(view.seen, Seen::Never { .. }) => {
                let since = match known.seen {
                    Seen::Silent { since } => since,
                    Seen::Now | Seen::Never { .. } => self.clock.now(),
                };
                Arc::new(RegistryView { seen: Seen::Silent { since }, ..known.as_ref().clone() })
            }
            (Some(view), _) => view,
            (None, _) => Arc::new(RegistryView {
                seen: Seen::Never { since: self.clock.now() },
                entries: BTreeMap::new(),
                problem: Some("no agent of it runs yet".into()),
            }),
        });
        registry.known = world.registry.clone().filter(|v| !matches!(v.seen, Seen::Never { .. }));
        let voters = registry.running.as_ref().and_then(|r| r.voters.as_ref());
        world.voters = voters.and_then(|voters| voters.borrow().clone());
    }

    fn fronts(&self) -> BTreeMap<BalancerId, Arc<BalancerView>> {
        self.balancers.views()
    }

    fn publish(&self, edges: &Edges) {
        self.balancers.publish(edges.orders.clone());
        if let Some(running) = &self.registry().running {
            running.consul.publish(edges.registrations.clone());
        }
    }

    /// The registry is spoken with anew from the next look on, and changed only once something is published.
    fn release(&self) {
        self.balancers.publish(BTreeMap::new());
        self.registry().running = None;
    }
}

/// How a client agent of a cluster that is run here is reached, the one that is spoken with `now` as long as it works; `None`
/// while none does.
fn reached(
    managed: &ManagedConsul,
    world: &World,
    addresses: &BTreeMap<HostName, String>,
    now: Option<&ConsulSpec>,
) -> Option<ConsulSpec> {
    let works = |i: &&Instance| {
        i.service == managed.agent.name
            && i.state == State::Running
            && matches!(i.health, HealthState::Healthy { .. })
    };
    let spec = |address, agent_port| ConsulSpec { address, agent_port, token: None, tls: None };
    match &managed.reach {
        ManagedReach::Network(network) => {
            let instances = world.hosts.values().flat_map(|view| &view.instances);
            let on =
                |i: &Instance| i.networks.iter().find(|(name, _)| **name == **network).cloned();
            let (_, ip) = instances.filter(works).find_map(on)?;
            Some(spec(format!("http://{ip}:{CONSUL_PORT}"), None))
        }
        ManagedReach::Hosts => {
            // What is known of a silent host is old.
            let answering = world.hosts.iter().filter(|(_, view)| view.seen == Seen::Now);
            let hosts = answering.filter(|(_, view)| view.instances.iter().any(|i| works(&i)));
            let at = |ip: &String| {
                let ip: IpAddr = ip.parse().ok()?;
                let socket = SocketAddr::new(ip, CONSUL_AGENT_PORT);
                Some(spec(format!("http://{socket}"), Some(CONSUL_AGENT_PORT)))
            };
            let all: Vec<ConsulSpec> =
                hosts.filter_map(|(host, _)| at(addresses.get(host)?)).collect();
            now.filter(|now| all.contains(now)).or(all.first()).cloned()
        }
    }
}

/// Keeps up with who has a vote, until nobody wants to know.
async fn ask_voters(consul: Arc<Consul>, tell: watch::Sender<Voters>, bell: Doorbell) {
    let mut silent = Duration::ZERO;
    while !tell.is_closed() {
        let newest = match timeout(BELIEVED, consul.voters()).await {
            Ok(Ok(voters)) => {
                silent = Duration::ZERO;
                Some(Some(Arc::new(voters)))
            }
            Ok(Err(_)) => {
                silent += ASK_VOTERS;
                (silent >= BELIEVED).then_some(None)
            }
            Err(_) => Some(None),
        };
        let changed = newest.is_some_and(|newest| {
            tell.send_if_modified(|known| {
                let changed = *known != newest;
                *known = newest;
                changed
            })
        });
        if changed {
            bell.ring();
        }
        tokio::time::sleep(ASK_VOTERS).await;
    }
}
