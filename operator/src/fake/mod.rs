//! The misbehaving world: hosts, engines, balancers, a registry and an agent that do what they are told, late,
//! halfway or not at all. For tests, for `evenkeel plan --demo`, and for asking "what if".
//!
//! It is a simulation in one thread and with a clock of its own; it never touches the outside.

pub mod backend;
pub mod balance;
pub mod fleets;
pub mod host;
pub mod make;
pub mod marathon;
pub mod register;
pub mod scenario;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Watch;
use crate::error::Remedy;
use crate::model::{
    BalancerKind, Desired, Elsewhere, External, Fleet, FleetName, Fragments, HostName, HostSpec,
    InFlight, InstanceId, Limits, Memory, Plan, Planned, Problem, Revision, Routing, Seen, Service,
    ServiceName, Socket, Step, Time, Traffic, World,
};
use crate::plan::{Input, localise, plan, traffic};
use host::{Fate, SimHost};
use marathon::SimMarathon;

/// How finely time runs.
pub const GRAIN: Duration = Duration::from_millis(100);
/// How long a host is silent before the agent notices.
const NOTICE: Duration = Duration::from_secs(2);
/// How long a step to a silent host hangs.
const HANG: Duration = Duration::from_secs(5);
/// How long the agent waits to see a change of traffic before it asks for it anew.
const LONGEST_TURN: Duration = Duration::from_secs(5);
/// How long it lets a change of an app rest that was refused.
const COOLS: Duration = Duration::from_secs(1);

/// A world, what is asked of it, and an agent that plans and acts in it.
#[derive(Debug)]
pub struct Sim {
    /// The fleet that its agent is for.
    pub name: FleetName,
    /// The world's clock.
    pub now: Time,
    /// What the agent believes should run.
    pub desired: Desired,
    /// What the agent remembers.
    pub memory: Memory,
    /// The hosts as they are.
    pub hosts: BTreeMap<HostName, SimHost>,
    /// The cluster as it is, where the fleet is one of Marathon.
    pub cluster: Option<SimMarathon>,
    /// What the agent has heard of other fleets.
    pub elsewhere: Elsewhere,
    /// Whether registry and balancers are silent.
    pub edges_silent: bool,
    /// The balancers as they are.
    pub balancers: balance::Balancers,
    /// The registry as it is; nobody asks it where the fleet has none.
    pub registry: register::SimRegistry,
    flights: Vec<Flight>,
    agent_began: Time,
    commits: u32,
    next_id: u32,
}

#[derive(Debug, Clone)]
struct Flight {
    step: Arc<Step>,
    since: Time,
    ends: Time,
    /// It failed, and is not tried again before it ends.
    cools: bool,
}

impl Sim {
    /// A world with these hosts of one fleet, `default`, and nothing asked for yet.
    pub fn new(hosts: Vec<HostSpec>, limits: Limits, capacity: crate::model::Resources) -> Self {
        let hosts = hosts.into_iter().map(|h| (h.name.clone(), Arc::new(h)));
        let fleet = Fleet {
            name: FleetName::of_default(),
            hosts: hosts.collect(),
            marathon: None,
            limits,
            registry: None,
            approved_prune: None,
        };
        Self::of(fleet, capacity, &[])
    }

    /// A world of this fleet, and nothing asked for yet. Of a Marathon cluster the machines have these addresses.
    pub fn of(fleet: Fleet, capacity: crate::model::Resources, machines: &[IpAddr]) -> Self {
        let now = Time(1_000_000);
        let docker = fleet.hosts.keys().filter(|_| fleet.marathon.is_none());
        Self {
            name: fleet.name.clone(),
            now,
            hosts: docker.map(|name| (name.clone(), SimHost::new(capacity, now))).collect(),
            cluster: fleet.marathon.is_some().then(|| SimMarathon::new(machines, now)),
            elsewhere: Elsewhere::default(),
            desired: Desired {
                revision: Revision("c0".into()),
                fleets: BTreeMap::from([(fleet.name.clone(), Arc::new(fleet))]),
                services: BTreeMap::new(),
                routings: BTreeMap::new(),
                held: std::collections::BTreeSet::new(),
                problems: Vec::new(),
                removal: crate::model::Removal::default(),
            },
            memory: Memory::default(),
            edges_silent: false,
            balancers: balance::Balancers::default(),
            registry: register::SimRegistry::new(now),
            flights: Vec::new(),
            agent_began: now,
            commits: 0,
            next_id: 0,
        }
    }

    /// The one fleet.
    pub fn fleet(&self) -> Arc<Fleet> {
        self.desired.fleets.get(&self.name).cloned().unwrap_or_else(|| {
            Arc::new(Fleet {
                name: self.name.clone(),
                hosts: BTreeMap::new(),
                marathon: None,
                limits: Limits::default(),
                registry: None,
                approved_prune: None,
            })
        })
    }

    /// Changes the fleet by a commit.
    pub fn change_fleet(&mut self, change: impl FnOnce(&mut Fleet)) {
        let mut fleet = (*self.fleet()).clone();
        change(&mut fleet);
        self.desired.fleets.insert(self.name.clone(), Arc::new(fleet));
        self.commit();
    }

    /// Adds or replaces a service by a commit.
    pub fn put(&mut self, service: Service) {
        self.desired.held.remove(&service.name);
        self.desired.services.insert(service.name.clone(), Arc::new(service));
        self.commit();
    }

    /// Leaves a service out by a commit.
    pub fn delete(&mut self, name: &ServiceName) {
        self.desired.services.remove(name);
        self.desired.held.remove(name);
        self.commit();
    }

    /// Breaks the source: one service's document, or a file that nobody can read.
    pub fn break_source(&mut self, service: Option<&ServiceName>) {
        self.desired.held.extend(service.cloned());
        self.desired.problems.push(Problem {
            path: "broken.yaml".into(),
            line: 1,
            column: 1,
            message: "it does not parse".into(),
            hint: None,
            object: service.map(|s| format!("ScalingService/{s}")),
        });
        self.commit();
    }

    /// Mends whatever was broken in the source.
    pub fn mend_source(&mut self) {
        self.desired.problems.clear();
        self.desired.held.clear();
        self.commit();
    }

    fn commit(&mut self) {
        self.commits += 1;
        self.desired.revision = Revision(format!("c{}", self.commits).into());
    }

    /// What the agent sees now.
    pub fn world(&self) -> World {
        self.look().0
    }

    /// What the agent sees, and what it takes for desired of its own fleet.
    fn look(&self) -> (World, Option<Arc<Desired>>) {
        let fleet = self.fleet();
        let hosts = self.hosts.iter().map(|(n, h)| (n.clone(), h.view(self.edges_silent)));
        let cluster = self.cluster.iter().flat_map(|c| {
            fleet.hosts.keys().map(|name| (name.clone(), c.view())).collect::<Vec<_>>()
        });
        let mut world = World {
            hosts: hosts.chain(cluster).collect(),
            balancers: self.balancers.views(),
            in_flight: self
                .flights
                .iter()
                .map(|f| InFlight { step: f.step.clone(), since: f.since })
                .collect(),
            registry: fleet.registry.as_ref().map(|_| self.registry.view()),
            voters: None,
            elsewhere: self.elsewhere.clone(),
        };
        let local = localise(&fleet, &self.desired, &world, self.now);
        let desired = local.as_deref().unwrap_or(&self.desired);
        traffic::observe(&fleet, desired, &mut world, self.now);
        (world, local)
    }

    /// One plan of the world as it is, without doing anything.
    pub fn plan(&self) -> Plan {
        let (world, local) = self.look();
        self.plan_for(&world, local.as_deref())
    }

    fn plan_for(&self, world: &World, local: Option<&Desired>) -> Plan {
        plan(&Input {
            fleet: &self.fleet(),
            desired: local.unwrap_or(&self.desired),
            world,
            memory: &self.memory,
            now: self.now,
        })
    }

    /// What the agent sees and what it makes of that.
    fn consider(&self) -> (World, Plan) {
        let (world, local) = self.look();
        let plan = self.plan_for(&world, local.as_deref());
        (world, plan)
    }

    /// One pass of the agent: plan, remember, begin every step.
    pub fn pass(&mut self) -> Plan {
        let plan = self.plan();
        self.act(&plan);
        plan
    }

    /// Begins the steps of a plan.
    pub fn act(&mut self, plan: &Plan) {
        self.memory.take(&plan.notes);
        self.memory.forget_old(self.now);
        self.balancers.publish(&plan.edges, self.now);
        self.registry.publish(&plan.edges.registrations, self.now);
        for Planned { step, .. } in &plan.steps {
            let takes = match (&self.cluster, self.hosts.get(step.host())) {
                _ if self.is_observed(step) => LONGEST_TURN,
                (Some(cluster), _) => cluster.takes(),
                (None, host) => host.map_or(HANG, |h| h.takes(step)),
            };
            let (step, since, ends) = (step.clone(), self.now, self.now.plus(takes));
            self.flights.push(Flight { step, since, ends, cools: false });
        }
    }

    /// Lets time pass: steps end, containers start, fall ill and die, silence is noticed.
    pub fn elapse(&mut self, by: Duration) {
        let until = self.now.plus(by);
        while self.now < until {
            self.now = self.now.plus(GRAIN);
            self.land();
            for host in self.hosts.values_mut() {
                host.live(self.now, NOTICE);
            }
            if let Some(cluster) = &mut self.cluster {
                cluster.live(self.now, NOTICE);
            }
            self.balancers.live(&self.hosts, self.now);
            self.registry.live(self.now);
        }
    }

    /// Ends the steps whose time has come, and the changes of traffic that are observed.
    fn land(&mut self) {
        if let Some(cluster) = &mut self.cluster
            && let Some(fleet) = self.desired.fleets.get(&self.name)
        {
            cluster.watch(Watch::of(fleet, &self.desired).apps);
        }
        let turns = self.flights.iter().any(|f| self.is_observed(&f.step));
        let world = turns.then(|| self.world());
        let done = |f: &Flight| {
            f.ends <= self.now || world.as_ref().is_some_and(|w| is_turned(&f.step, w))
        };
        let (ended, going): (Vec<Flight>, Vec<Flight>) =
            self.flights.iter().cloned().partition(done);
        self.flights = going;
        for flight in ended.into_iter().filter(|f| !f.cools) {
            self.end(&flight, Fate::Done);
        }
    }

    /// Whether a step is over only when balancers and the registry have followed.
    fn is_observed(&self, step: &Step) -> bool {
        let service = step.service().and_then(|name| self.desired.services.get(name));
        matches!(step, Step::Admit { .. } | Step::Withdraw { .. })
            && service.is_some_and(|s| !s.exposure.pools.is_empty())
    }

    fn end(&mut self, flight: &Flight, fate: Fate) {
        if let (Some(cluster), Step::App(step)) = (&mut self.cluster, &*flight.step) {
            let refused = cluster.apply(step, fate).err();
            if refused.is_some_and(|why| why.remedy != Remedy::Reobserve) {
                let ends = self.now.plus(COOLS);
                self.flights.push(Flight { ends, cools: true, ..flight.clone() });
            }
            return;
        }
        self.next_id += 1;
        let id = InstanceId(format!("{:012x}", self.next_id).into());
        let Some(host) = self.hosts.get_mut(flight.step.host()) else { return };
        let outcome = host.apply(&flight.step, id, fate, self.now);
        if let (Err(e), Step::Start(start), Fate::Done) = (outcome, &*flight.step, fate)
            && e.remedy != Remedy::Reobserve
        {
            self.memory.failed_start(start, e.why.into(), true, self.now);
        }
    }

    /// SIGKILL for the agent: each step under way is lost, half done or done, by the bits of `dice`.
    /// The new agent has seen nothing yet and remembers what was saved, or nothing.
    pub fn kill_agent(&mut self, mut dice: u64, keep_memory: bool) {
        for flight in std::mem::take(&mut self.flights).into_iter().filter(|f| !f.cools) {
            let fate = [Fate::Lost, Fate::Half, Fate::Done, Fate::Done][(dice & 3) as usize];
            dice = dice.rotate_right(2);
            self.end(&flight, fate);
        }
        self.flights.clear();
        if !keep_memory {
            self.memory = Memory::default();
        }
        self.memory.resume(self.now);
        self.agent_began = self.now;
        self.balancers.forget(self.now);
        self.registry.forget(self.now);
        self.elsewhere = Elsewhere::default();
        for host in self.hosts.values_mut() {
            host.forget(self.now);
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.forget();
        }
    }

    /// Runs the agent for a while, as the loop does: a pass at every change and at every grain.
    /// `check` sees each plan with the world it was made for, before it is acted upon.
    pub fn run(&mut self, for_: Duration, check: impl FnMut(&Sim, &World, &Plan)) {
        self.run_each(GRAIN, for_, check);
    }

    /// The same with fewer passes, for times in which there is little to see.
    pub fn run_each(
        &mut self,
        pause: Duration,
        for_: Duration,
        mut check: impl FnMut(&Sim, &World, &Plan),
    ) {
        let until = self.now.plus(for_);
        while self.now < until {
            let (world, plan) = self.consider();
            check(self, &world, &plan);
            self.act(&plan);
            self.elapse(pause);
        }
    }

    /// Runs until nothing is under way, planned or waited for; `false` when that takes longer than
    /// `at_most`.
    pub fn settle(
        &mut self,
        at_most: Duration,
        mut check: impl FnMut(&Sim, &World, &Plan),
    ) -> bool {
        let until = self.now.plus(at_most);
        while self.now < until {
            let (world, plan) = self.consider();
            check(self, &world, &plan);
            self.act(&plan);
            if plan.is_settled() && self.flights.is_empty() && self.is_quiet() {
                return true;
            }
            self.elapse(GRAIN);
        }
        false
    }

    /// Whether everything that happens by itself has happened.
    fn is_quiet(&self) -> bool {
        self.hosts.values().all(|h| !h.is_restless(self.now))
            && self.cluster.as_ref().is_none_or(|c| !c.is_restless())
            && !self.balancers.is_restless(self.now)
            && (self.fleet().registry.is_none() || !self.registry.is_restless(self.now))
    }

    /// Puts a balancer in front of services: containers of the service `balancer`, which must be put too, and as many
    /// as there are `external` that run already.
    pub fn balance(&mut self, balancer: &Service, services: &[Service], external: usize) {
        let pools = services.iter().flat_map(make::pools);
        let routing = Routing {
            kind: BalancerKind::Haproxy,
            listeners: Vec::new(),
            routes: Vec::new(),
            pools: pools.collect(),
            fragments: Fragments::default(),
            access_log: false,
            drain: Duration::from_secs(10),
            external: (0..external)
                .map(|n| Arc::new(External { file: None, asked: Socket::Tcp(format!("h:{n}")) }))
                .collect(),
        };
        self.desired.routings.insert(balancer.name.clone(), Arc::new(routing));
    }

    /// How many running containers a service has, seen or not.
    pub fn running(&self, service: &ServiceName) -> usize {
        let docker: usize = self.hosts.values().map(|h| h.running(service)).sum();
        docker + self.cluster.as_ref().map_or(0, |c| c.running(service))
    }

    /// The fleet's hosts that answer.
    pub fn answering(&self) -> impl Iterator<Item = &HostName> {
        self.hosts.iter().filter(|(_, h)| h.seen() == Seen::Now).map(|(n, _)| n)
    }
}

/// Whether a change of traffic is seen to have come about, or never will.
fn is_turned(step: &Step, world: &World) -> bool {
    let (id, admits) = match step {
        Step::Admit { id, .. } => (id, true),
        Step::Withdraw { id, .. } => (id, false),
        Step::Start(_)
        | Step::Stop { .. }
        | Step::Remove { .. }
        | Step::Rename { .. }
        | Step::RemoveNetwork { .. }
        | Step::App(_) => return false,
    };
    let view = world.hosts.get(step.host());
    let Some(instance) = view.and_then(|v| v.instances.iter().find(|i| i.id == *id)) else {
        return true;
    };
    match instance.traffic {
        Traffic::Nobody => true,
        Traffic::Serving { up } => admits && up,
        Traffic::Withdrawn { .. } | Traffic::None => !admits,
        Traffic::Voter { .. } | Traffic::Unknown => false,
    }
}
