//! What balancers and the registry should do: pure, from the same world and plan as the steps.
//!
//! Whoever a step of this plan or one under way admits is in; whoever one withdraws or stops is on the way out. Everybody
//! else stays as observed: what nobody can tell is never taken for gone (promise 5).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::places::parts;
use super::{Input, traffic};
use crate::model::external::local_address;
use crate::model::{
    BalancerId, Edges, Fleet, HealthState, HostName, HostSpec, HostView, Instance, InstanceId,
    InstanceSpec, ManagedConsul, ManagedReach, Order, Outward, Plan, Pool, PoolName, Registration,
    Registrations, RegistrySpec, Routing, Seen, Server, Service, ServiceName, State, Step, Table,
    Target, Time, Traffic, Way, Whereabouts, Why,
};

/// The tables of every running balancer, and what the registry should have.
pub(super) fn edges(input: &Input<'_>, plan: &Plan) -> Edges {
    let Input { fleet, desired, world, .. } = input;
    if desired.routings.is_empty() && fleet.registry.is_none() && desired.fleets.len() < 2 {
        return Edges::default();
    }
    let intents = intents(input, plan);
    // Like everything else, a host that never answers is waited for as long as the most patient service says.
    let ours = desired.services.values().filter(|s| s.routed && s.fleet == fleet.name);
    let longest = ours.map(|s| s.replace_after).max().unwrap_or_default();
    // What a platform cannot be asked about runs on all the same: nobody puts anything in its place.
    let patience = |since: Time| fleet.marathon.is_some() || input.now.since(since) < longest;
    let unseen: BTreeSet<&HostName> = fleet
        .hosts
        .keys()
        .filter(|name| {
            let view = world.hosts.get(*name);
            view.is_none_or(|v| matches!(v.seen, Seen::Never { since } if patience(since)))
        })
        .collect();
    let held = plan.waiting.iter().any(|w| {
        matches!(w.why, Why::PruneInDoubt { .. } | Why::PruneEmpty { .. } | Why::PruneBudget { .. })
    });
    let ground = Ground { input, intents: &intents, members: members(input) };
    let mut tables: BTreeMap<&ServiceName, Arc<Table>> = BTreeMap::new();
    for (name, routing) in &desired.routings {
        let Some(balancer) = desired.services.get(name).filter(|s| s.fleet == fleet.name) else {
            continue;
        };
        let table = Table { held, ..ground.table(routing, balancer, unseen.is_empty()) };
        tables.insert(name, Arc::new(table));
    }
    let mut orders = BTreeMap::new();
    // One that is ending is let go: it would wait for whoever still speaks with it.
    let stays = |i: &&Instance| i.state == State::Running && !intents.contains_key(&i.id);
    for (host, view) in &world.hosts {
        for instance in view.instances.iter().filter(stays) {
            let Some(table) = tables.get(&instance.service) else { continue };
            let at = Whereabouts::Container { host: host.clone(), id: instance.id.clone() };
            let order = Order { at, table: table.clone() };
            orders.insert(BalancerId::Container(instance.id.clone()), order);
        }
    }
    for (name, table) in &tables {
        for (index, external) in table.routing.external.iter().enumerate() {
            let (balancer, external) = ((*name).clone(), external.clone());
            let id = BalancerId::External { balancer: balancer.clone(), index };
            let at = Whereabouts::External { balancer, external };
            orders.insert(id, Order { at, table: table.clone() });
        }
    }
    let outward = Arc::new(ground.outward(plan, unseen.is_empty()));
    let registrations = if fleet.registry.is_some() {
        let unknown = world.hosts.iter().filter(|(_, v)| v.seen != Seen::Now).map(|(n, _)| n);
        let unknown_hosts = unknown.chain(unseen).cloned().collect();
        Arc::new(Registrations { entries: ground.registrations(), unknown_hosts })
    } else {
        Arc::default()
    };
    Edges { orders, registrations, outward }
}

/// Where a port of an instance is reached.
pub(crate) fn reached(
    fleet: &Fleet,
    host: &HostSpec,
    instance: &Instance,
    port: u16,
    way: Way<'_>,
) -> Option<SocketAddr> {
    match way {
        // On one host everybody is on the same network: no detour through a published port.
        Way::Meet(network) if fleet.hosts.len() == 1 && fleet.marathon.is_none() => {
            let on = instance.networks.iter().find(|(name, _)| **name == *network);
            return on.map(|(_, ip)| SocketAddr::new(*ip, port));
        }
        Way::Machine => {
            if let Some(ip) = local_address(host, &instance.networks) {
                return Some(SocketAddr::new(ip, port));
            }
        }
        Way::Meet(_) | Way::Published => {}
    }
    let (_, published) = instance.bindings.iter().find(|(inside, _)| *inside == port)?;
    Some(SocketAddr::new(instance.at.or_else(|| host.ip())?, *published))
}

/// What the steps of this plan and those under way mean for the traffic of instances.
fn intents<'a>(input: &'a Input<'_>, plan: &'a Plan) -> BTreeMap<&'a InstanceId, Target> {
    let under_way = input.world.in_flight.iter().map(|f| &f.step);
    let all = under_way.chain(plan.steps.iter().map(|p| &p.step));
    let mut out = BTreeMap::new();
    for step in all {
        let (id, target) = match step.as_ref() {
            Step::Admit { id, .. } => (id, Target::Ready),
            Step::Withdraw { id, .. } | Step::Stop { id, .. } => (id, Target::Drain),
            Step::Start(_)
            | Step::Remove { .. }
            | Step::Rename { .. }
            | Step::RemoveNetwork { .. }
            | Step::App(_) => continue,
        };
        let entry = out.entry(id).or_insert(target);
        *entry = (*entry).max(target);
    }
    out
}

/// The instances of the fleet's services that something leads clients to.
fn members<'a>(
    input: &'a Input<'_>,
) -> BTreeMap<&'a ServiceName, Vec<(&'a HostSpec, &'a HostView, &'a Instance)>> {
    let Input { fleet, desired, world, .. } = input;
    let mut out: BTreeMap<&ServiceName, Vec<_>> = BTreeMap::new();
    for (name, view) in &world.hosts {
        let Some(host) = fleet.hosts.get(name) else { continue };
        for instance in &view.instances {
            let Some((service, _)) = desired
                .services
                .get_key_value(&instance.service)
                .filter(|(_, s)| s.routed && s.fleet == fleet.name)
            else {
                continue;
            };
            out.entry(service).or_default().push((host.as_ref(), view.as_ref(), instance));
        }
    }
    for members in out.values_mut() {
        // Of two at one address the one that runs comes first, see `Ground::servers`.
        let ends = |i: &Instance| i.state == State::Ending;
        members.sort_by(|(_, _, a), (_, _, b)| {
            (ends(a), a.slot, &a.id).cmp(&(ends(b), b.slot, &b.id))
        });
    }
    out
}

struct Ground<'g, 'a> {
    input: &'g Input<'a>,
    intents: &'g BTreeMap<&'g InstanceId, Target>,
    members: BTreeMap<&'g ServiceName, Vec<(&'g HostSpec, &'g HostView, &'g Instance)>>,
}

impl Ground<'_, '_> {
    /// What should become of an instance's traffic; `None`: it gets none.
    fn target(&self, view: &HostView, instance: &Instance) -> Option<Target> {
        // What is known of a silent host is old; its traffic stays as it is, and the balancers' own checks judge.
        if view.seen == Seen::Now
            && !matches!(instance.state, State::Running | State::Paused | State::Ending)
        {
            return None;
        }
        let observed = match instance.traffic {
            Traffic::Serving { .. } => Some(Target::Ready),
            Traffic::Withdrawn { .. } => Some(Target::Drain),
            Traffic::None | Traffic::Nobody | Traffic::Voter { .. } | Traffic::Unknown => None,
        };
        let intended = self.intents.get(&instance.id).copied();
        // Whom nobody has is not entered anywhere in order to leave.
        let nowhere = matches!(instance.traffic, Traffic::None | Traffic::Nobody);
        intended.or(observed).filter(|target| *target == Target::Ready || !nowhere)
    }

    fn table(&self, routing: &Arc<Routing>, balancer: &Service, complete: bool) -> Table {
        let mut servers = BTreeMap::new();
        for (name, pool) in &routing.pools {
            let in_it = self.in_pool(routing, balancer, name, pool);
            if !in_it.is_empty() {
                servers.insert(name.clone(), in_it);
            }
        }
        let complete =
            complete && self.all_told() && !routing.pools.values().any(|p| self.lacks_some(p));
        Table { routing: routing.clone(), servers, complete, held: false }
    }

    /// Whether somebody is not listed in a pool whose traffic cannot be told now: he must not be dropped from where he is.
    fn lacks_some(&self, pool: &Pool) -> bool {
        let unlisted = |(_, view, i): &(_, &HostView, &Instance)| {
            i.traffic == Traffic::Unknown && self.target(view, i).is_none()
        };
        self.members.get(&pool.service).is_some_and(|members| members.iter().any(unlisted))
    }

    /// Whether every other fleet has said who of it is where.
    fn all_told(&self) -> bool {
        let Input { fleet, desired, world, .. } = self.input;
        let others = desired.fleets.keys().filter(|name| **name != fleet.name);
        others.into_iter().all(|name| world.elsewhere.said.get(name).is_some_and(|o| o.complete))
    }

    /// Everybody in a pool of a balancer that runs here, wherever they run.
    fn in_pool(
        &self,
        routing: &Routing,
        balancer: &Service,
        name: &PoolName,
        pool: &Pool,
    ) -> Vec<Server> {
        let fleet = self.input.fleet;
        let way = |service| Way::of(&routing.external, balancer, service, fleet);
        let mut servers = self.servers(pool, way);
        let key = (balancer.name.clone(), name.clone());
        let elsewhere = self.input.world.elsewhere.said.values();
        for server in elsewhere.flat_map(|o| o.servers.get(&key).into_iter().flatten()) {
            if servers.iter().all(|s| s.address != server.address) {
                servers.push(server.clone());
            }
        }
        servers
    }

    /// What the other fleets must know.
    fn outward(&self, plan: &Plan, complete: bool) -> Outward {
        let Input { fleet, desired, world, .. } = self.input;
        if desired.fleets.len() < 2 {
            return Outward::default();
        }
        let never = |name: &HostName| match world.hosts.get(name).map(|v| v.seen) {
            None => Some(self.input.now),
            Some(Seen::Never { since }) => Some(since),
            Some(Seen::Now | Seen::Silent { .. }) => None,
        };
        let (revision, unseen) =
            (Some(desired.revision.clone()), fleet.hosts.keys().filter_map(never).max());
        let mut out = Outward { revision, unseen, complete, ..Outward::default() };
        for (name, routing) in &desired.routings {
            let Some(balancer) = desired.services.get(name) else { continue };
            // Who seems to be in none may be in one that nobody has looked at.
            out.complete &= !traffic::unseen(self.input, std::iter::once(name));
            // Of one that moves some run elsewhere, whichever fleet it is of.
            for (pool_name, pool) in &routing.pools {
                let way = |service| match Way::of(&routing.external, balancer, service, fleet) {
                    Way::Meet(_) => Way::Published,
                    way @ (Way::Machine | Way::Published) => way,
                };
                let servers = self.servers(pool, way);
                out.complete &= !self.lacks_some(pool);
                if !servers.is_empty() {
                    out.servers.insert((name.clone(), pool_name.clone()), servers);
                }
            }
        }
        out.fronts = traffic::fronts(self.input);
        out.parts = parts(self.input, plan);
        out
    }

    fn servers<'s>(
        &'s self,
        pool: &Pool,
        way: impl FnOnce(&'s InstanceSpec) -> Way<'s>,
    ) -> Vec<Server> {
        let Some(service) = self.input.desired.services.get(&pool.service) else {
            return Vec::new();
        };
        let way = way(&service.spec);
        let mut taken = BTreeSet::new();
        let members = self.members.get(&pool.service).into_iter().flatten();
        members
            .filter_map(|(host, view, instance)| {
                let target = self.target(view, instance)?;
                let address = reached(self.input.fleet, host, instance, pool.port, way)?;
                // An address is reused as soon as the engine has it back: the one that runs has it.
                taken.insert(address).then(|| Server {
                    instance: instance.id.clone(),
                    name: instance.name.clone(),
                    slot: instance.slot,
                    address,
                    target,
                    sick: matches!(instance.health, HealthState::Unhealthy { .. }),
                })
            })
            .collect()
    }

    fn registrations(&self) -> BTreeMap<InstanceId, Registration> {
        let mut out = BTreeMap::new();
        for (name, members) in &self.members {
            let Some(service) = self.input.desired.services.get(*name) else { continue };
            let fleet = &self.input.fleet.name;
            let Some(port) = service.exposure.registered.get(fleet).copied() else { continue };
            let network = match &self.input.fleet.registry {
                Some(RegistrySpec::Managed(ManagedConsul {
                    reach: ManagedReach::Network(network),
                    ..
                })) => network.as_str(),
                Some(RegistrySpec::Managed(_) | RegistrySpec::Existing(_)) | None => {
                    service.spec.networks.first().map_or("bridge", String::as_str)
                }
            };
            for (host, view, instance) in members {
                let Some(target) = self.target(view, instance) else { continue };
                let way = match self.input.fleet.marathon {
                    None => Way::Meet(network),
                    Some(_) => Way::Published,
                };
                let found = reached(self.input.fleet, host, instance, port, way);
                let Some(address) = found else { continue };
                let entry = Registration {
                    instance: instance.id.clone(),
                    service: (*name).clone(),
                    host: host.name.clone(),
                    slot: instance.slot,
                    hash: instance.hash,
                    address,
                    tags: service.exposure.labels.tags.clone(),
                    meta: service.exposure.labels.meta.clone(),
                    // The registry asks at the entry's own address: a check of another port is none of it.
                    check: service.probe.clone().filter(|probe| probe.port == port),
                    target,
                };
                out.insert(instance.id.clone(), entry);
            }
        }
        out
    }
}
