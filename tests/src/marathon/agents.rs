//! The machines that tasks run on, and which of them a constraint allows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::app::{App, Need};
use super::instance::Instance;
use super::pattern::Pattern;

/// One agent of Mesos.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its host name or address: what tasks say they run on.
    pub host: String,
    /// What constraints may ask for.
    pub attributes: BTreeMap<String, String>,
    /// The region it is in, if any.
    pub region: Option<String>,
    /// The zone it is in, if any.
    pub zone: Option<String>,
    /// All that it has.
    pub has: Need,
    /// The ports that tasks may get.
    pub ports: RangeInclusive<u16>,
    /// Where its Docker Engine is, as `docker -H` takes it; none for this machine's own.
    pub engine: Option<String>,
    pub(super) used: Need,
    pub(super) taken: BTreeSet<u16>,
    pub(super) tasks: usize,
    pub(super) silent: bool,
    pub(super) maintenance: bool,
    pub(super) number: usize,
}

impl Agent {
    /// One with plenty of everything, and the ports that agents have when nobody says others.
    pub fn new(host: &str) -> Self {
        Self {
            host: host.into(),
            attributes: BTreeMap::new(),
            region: None,
            zone: None,
            has: Need { cpus: 64.0, mem: 262_144.0, disk: 1_048_576.0, gpus: 0.0 },
            ports: 31_000..=32_000,
            engine: None,
            used: Need::default(),
            taken: BTreeSet::new(),
            tasks: 0,
            silent: false,
            maintenance: false,
            number: 0,
        }
    }

    /// With an attribute.
    #[must_use]
    pub fn attribute(mut self, name: &str, value: &str) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// With so many processors and mebibytes of memory.
    #[must_use]
    pub fn size(mut self, cpus: f64, mem: f64) -> Self {
        (self.has.cpus, self.has.mem) = (cpus, mem);
        self
    }

    /// With these ports.
    #[must_use]
    pub fn ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.ports = ports;
        self
    }

    /// With an engine elsewhere.
    #[must_use]
    pub fn engine(mut self, endpoint: &str) -> Self {
        self.engine = Some(endpoint.into());
        self
    }

    /// What Mesos calls it.
    pub(super) fn id(&self) -> String {
        format!("4fb620fa-ba8d-4eb0-8ae3-f2912aaf015c-S{}", self.number)
    }

    fn value(&self, field: &str) -> Option<&str> {
        match field {
            "hostname" | "@hostname" => Some(&self.host),
            "@region" => self.region.as_deref(),
            "@zone" => self.zone.as_deref(),
            name => self.attributes.get(name).map(String::as_str),
        }
    }

    /// A port for each of the app's, or none if it has not enough.
    fn ports_for(&self, app: &App) -> Option<Vec<Option<u16>>> {
        let mut got = BTreeSet::new();
        let mut free = self.ports.clone().filter(|port| !self.taken.contains(port));
        let wanted = app.ports();
        let fixed: BTreeSet<u16> =
            wanted.iter().filter_map(|port| port.host).filter(|&port| port != 0).collect();
        let each = wanted.iter().map(|port| match port.host {
            None => Some(None),
            Some(0) => {
                let port = free.find(|port| !fixed.contains(port))?;
                got.insert(port).then_some(Some(port))
            }
            Some(port) => {
                let there = self.ports.contains(&port) && !self.taken.contains(&port);
                (there && got.insert(port)).then_some(Some(port))
            }
        });
        each.collect()
    }

    /// Takes what an instance needs.
    pub(super) fn take(&mut self, need: Need, ports: &[Option<u16>]) {
        self.change(need, 1.0);
        self.taken.extend(ports.iter().flatten());
        self.tasks += 1;
    }

    /// Gives it back.
    pub(super) fn free(&mut self, need: Need, ports: &[Option<u16>]) {
        self.change(need, -1.0);
        ports.iter().flatten().for_each(|port| {
            self.taken.remove(port);
        });
        self.tasks = self.tasks.saturating_sub(1);
    }

    fn change(&mut self, need: Need, sign: f64) {
        self.used.cpus += sign * need.cpus;
        self.used.mem += sign * need.mem;
        self.used.disk += sign * need.disk;
        self.used.gpus += sign * need.gpus;
    }
}

/// Why an agent cannot have an instance, in the order in which Marathon looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    UnfulfilledRole,
    UnfulfilledConstraint,
    NoCorrespondingReservationFound,
    AgentMaintenance,
    InsufficientCpus,
    InsufficientMemory,
    InsufficientDisk,
    InsufficientGpus,
    InsufficientPorts,
    DeclinedScarceResources,
}

impl Reason {
    pub(super) const ALL: [Self; 10] = [
        Self::UnfulfilledRole,
        Self::UnfulfilledConstraint,
        Self::NoCorrespondingReservationFound,
        Self::AgentMaintenance,
        Self::InsufficientCpus,
        Self::InsufficientMemory,
        Self::InsufficientDisk,
        Self::InsufficientGpus,
        Self::InsufficientPorts,
        Self::DeclinedScarceResources,
    ];
}

/// What an agent offers to an app: its ports, or all that is missing.
pub(super) fn offer(
    agent: &Agent,
    app: &App,
    placed: &[(&Agent, &Instance)],
) -> Result<Vec<Option<u16>>, BTreeSet<Reason>> {
    let mut reasons = BTreeSet::new();
    let mut unless = |holds: bool, reason| {
        if !holds {
            reasons.insert(reason);
        }
    };
    let fits = app.constraints().iter().all(|constraint| allows(constraint, agent, app, placed));
    unless(fits, Reason::UnfulfilledConstraint);
    unless(!agent.maintenance, Reason::AgentMaintenance);
    let (need, has, used) = (app.need(), agent.has, agent.used);
    // What is added up and taken away again is never exactly what it was.
    let room = |need: f64, has: f64, used: f64| used + need <= has + 1e-6;
    unless(room(need.cpus, has.cpus, used.cpus), Reason::InsufficientCpus);
    unless(room(need.mem, has.mem, used.mem), Reason::InsufficientMemory);
    unless(room(need.disk, has.disk, used.disk), Reason::InsufficientDisk);
    unless(room(need.gpus, has.gpus, used.gpus), Reason::InsufficientGpus);
    let ports = agent.ports_for(app);
    unless(ports.is_some(), Reason::InsufficientPorts);
    match ports {
        Some(ports) if reasons.is_empty() => Ok(ports),
        Some(_) | None => Err(reasons),
    }
}

/// Whether one constraint allows one more instance on an agent.
fn allows(
    [field, operator, value]: &[&str; 3],
    agent: &Agent,
    app: &App,
    placed: &[(&Agent, &Instance)],
) -> bool {
    let operator = operator.to_uppercase();
    let Some(offered) = agent.value(field) else { return operator == "UNLIKE" };
    let same = || placed.iter().filter(|(agent, _)| agent.value(field) == Some(offered)).count();
    let matches = || Pattern::new(value).is_some_and(|pattern| pattern.matches(offered));
    match operator.as_str() {
        "UNIQUE" => same() == 0,
        "CLUSTER" if value.is_empty() => {
            placed.first().is_none_or(|(agent, _)| agent.value(field) == Some(offered))
        }
        "CLUSTER" => offered == *value,
        "LIKE" => !value.is_empty() && matches(),
        "UNLIKE" => !value.is_empty() && !matches(),
        "MAX_PER" => value.parse().is_ok_and(|most: usize| same() < most),
        "IS" => is(offered, value),
        "GROUP_BY" => is_even(field, offered, value, app, placed),
        _ => false,
    }
}

/// Numbers are the same to three digits, words letter by letter.
fn is(offered: &str, value: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().ok().map(|n| format!("{n:.3}"));
    match (number(offered), number(value)) {
        (Some(offered), Some(value)) => offered == value,
        _ => offered == value,
    }
}

fn is_even(
    field: &str,
    offered: &str,
    value: &str,
    app: &App,
    placed: &[(&Agent, &Instance)],
) -> bool {
    let mut groups: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    for (agent, _) in placed {
        *groups.entry(agent.value(field)).or_default() += 1;
    }
    // Without a number of groups only those count that were seen, and Marathon takes a new one always.
    let wanted = value.parse::<usize>().unwrap_or(0);
    let count = groups.get(&Some(offered)).copied();
    if wanted == 0 {
        let fewest = groups.values().min().copied().unwrap_or(0);
        return count.is_none_or(|count| count <= fewest);
    }
    let (each, rest) = (app.instances() / wanted, app.instances() % wanted);
    let over: usize = groups.values().map(|count| count.saturating_sub(each)).sum();
    match count {
        Some(count) => count < each || (count == each && rest > over),
        None => groups.len() < wanted,
    }
}
