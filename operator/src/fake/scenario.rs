//! The language of scenarios: `commit web replicas=3 image=a`, `crash web/1`, `silence h2`, `tick 3`.
//!
//! One line, one event; the answer is what the agent does about it. The same language drives
//! `tests/scenarios/*.txt` and `evenkeel plan --demo`.

use std::fmt::Write;
use std::str::FromStr;
use std::time::Duration;

use super::{Sim, make};
use crate::model::{
    Amount, Constraint, HostName, HostSpec, HostState, InstanceId, Keep, Limits, OnFailure,
    Packing, Plan, Resources, Seen, ServiceName, State, Time,
};

/// What `help` prints.
pub const HELP: &str = "\
commit NAME [replicas=N] [image=I] [surge=N|N%] [unavailable=N|N%] [min-ready=S] [deadline=S]
            [on-failure=rollback|pause] [replace-after=S] [keep=original|replacement|healthiest]
            [max-per-host=N] [spread=LABEL] [only=LABEL:VALUE] [packing=spread|binpack]
            [cpu=MILLIS] [memory=MIB] [publish=PORT] [routed=yes|no] [drain=S] [suspend=yes|no]
delete NAME · break [NAME] · mend · approve CODE · limit [prune=PERCENT] [disruption=N] [starts=N]
crash NAME/SLOT · sicken NAME/SLOT · cure NAME/SLOT · remove NAME/SLOT
silence HOST · answer HOST · restart-engine HOST · refuse HOST · allow HOST · stranger HOST NAME
cordon HOST · drain HOST · activate HOST · kill-agent [forget] · edges silent|back
tick [SECONDS] · settle [SECONDS] · show plan|world|services
";

/// A scenario under way.
#[derive(Debug)]
pub struct Scenario {
    sim: Option<Sim>,
    hosts: Vec<HostSpec>,
    capacity: Resources,
    limits: Limits,
    start: Time,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            sim: None,
            hosts: Vec::new(),
            capacity: Resources { cpu_millis: 4000, memory_bytes: 8 << 30 },
            limits: Limits::default(),
            start: Time(0),
        }
    }
}

type Answer = Result<String, String>;

impl Scenario {
    /// Takes one line and answers with what came of it; empty lines and `#` comments say nothing.
    pub fn line(&mut self, line: &str) -> Answer {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(String::new());
        }
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        match verb {
            "host" => return self.add_host(&rest),
            "help" => return Ok(HELP.into()),
            _ => {}
        }
        if self.sim.is_none() {
            if self.hosts.is_empty() {
                self.add_host(&["h1"])?;
            }
            let mut sim = Sim::new(self.hosts.clone(), self.limits, self.capacity);
            sim.elapse(super::GRAIN);
            self.start = sim.now;
            self.sim = Some(sim);
        }
        let Some(sim) = &mut self.sim else { return Ok(String::new()) };
        let mut log = Log { out: String::new(), start: self.start };
        match verb {
            "tick" => log.run(sim, seconds(rest.first().unwrap_or(&"1"))?),
            "settle" => {
                let at_most = seconds(rest.first().unwrap_or(&"120"))?;
                let begin = sim.now;
                if sim.settle(at_most, |s, _, p| log.plan(s.now, p)) {
                    let _ = writeln!(log.out, "  settled after {} s", tenths(sim.now.since(begin)));
                    log.waits(&sim.plan());
                } else {
                    let _ = writeln!(log.out, "  not settled after {} s", at_most.as_secs());
                    log.waits(&sim.plan());
                }
            }
            "show" => log.show(sim, rest.first().copied().unwrap_or("plan"))?,
            _ => event(sim, verb, &rest)?,
        }
        Ok(log.out)
    }

    fn add_host(&mut self, words: &[&str]) -> Answer {
        if self.sim.is_some() {
            return Err("hosts come first, before anything happens".into());
        }
        let (name, labels) = words.split_first().ok_or("host needs a name")?;
        let labels = labels.iter().map(|l| pair(l)).collect::<Result<Vec<_>, _>>()?;
        self.hosts.push(make::host(name, &labels).map_err(|e| e.to_string())?);
        Ok(String::new())
    }
}

struct Log {
    out: String,
    start: Time,
}

impl Log {
    fn plan(&mut self, now: Time, plan: &Plan) {
        for planned in &plan.steps {
            let at = tenths(now.since(self.start));
            let _ = writeln!(self.out, "  {at:>6}  {planned}");
        }
    }

    fn waits(&mut self, plan: &Plan) {
        for w in &plan.waiting {
            let _ = writeln!(self.out, "  waiting  {w}");
        }
    }

    fn run(&mut self, sim: &mut Sim, for_: Duration) {
        sim.run(for_, |s, _, p| self.plan(s.now, p));
    }

    fn show(&mut self, sim: &Sim, what: &str) -> Result<(), String> {
        match what {
            "plan" => {
                let plan = sim.plan();
                for planned in &plan.steps {
                    let _ = writeln!(self.out, "  {planned}");
                }
                self.waits(&plan);
                if plan.steps.is_empty() && plan.waiting.is_empty() {
                    let _ = writeln!(self.out, "  nothing to do, nothing waited for");
                }
            }
            "services" => {
                for (name, s) in &sim.plan().services {
                    let _ = writeln!(
                        self.out,
                        "  {name}  desired {}  total {}  updated {}  ready {}  available {}  {:?}",
                        s.desired, s.total, s.updated, s.ready, s.available, s.phase
                    );
                }
            }
            "world" => {
                for (name, host) in &sim.hosts {
                    let seen = match host.seen() {
                        Seen::Now => "",
                        Seen::Silent { .. } => "  (silent)",
                        Seen::Never { .. } => "  (never seen)",
                    };
                    let _ = writeln!(self.out, "  {name}{seen}");
                    for c in host.containers.values() {
                        let i = &c.instance;
                        let state = match i.state {
                            State::Running => "running".to_owned(),
                            State::Exited { code, .. } => format!("exited {code}"),
                            State::Created => "created".to_owned(),
                            State::Paused => "paused".to_owned(),
                            State::Removing => "removing".to_owned(),
                            State::Ending => "ending".to_owned(),
                        };
                        let _ = writeln!(self.out, "    {}  {state}", i.name);
                    }
                }
            }
            other => return Err(format!("show what? not {other:?}")),
        }
        Ok(())
    }
}

fn tenths(d: Duration) -> String {
    format!("{}.{}", d.as_secs(), d.subsec_millis() / 100)
}

fn event(sim: &mut Sim, verb: &str, rest: &[&str]) -> Result<(), String> {
    let first = || rest.first().copied().ok_or_else(|| format!("{verb} needs a name"));
    match verb {
        "commit" => return commit(sim, first()?, rest.get(1..).unwrap_or_default()),
        "delete" => sim.delete(&service_name(first()?)?),
        "break" => {
            let name = rest.first().map(|n| service_name(n)).transpose()?;
            sim.break_source(name.as_ref());
        }
        "mend" => sim.mend_source(),
        "approve" => {
            let code = first()?.to_owned();
            sim.change_fleet(|f| f.approved_prune = Some(code));
        }
        "limit" => {
            let mut limits = sim.fleet().limits;
            for word in rest {
                match pair(word)? {
                    ("prune", v) => limits.prune_max_percent = number(v)?,
                    ("disruption", v) => limits.disruptions_per_hour = Some(number(v)?),
                    ("starts", v) => limits.parallel_starts_per_host = number(v)?,
                    (other, _) => return Err(format!("no limit is called {other:?}")),
                }
            }
            sim.change_fleet(|f| f.limits = limits);
        }
        "crash" | "sicken" | "cure" | "remove" => harm(sim, verb, first()?)?,
        "silence" | "answer" | "restart-engine" | "refuse" | "allow" | "stranger" => {
            let now = sim.now;
            let name = host_name(first()?)?;
            let host = sim.hosts.get_mut(&name).ok_or_else(|| format!("no host {name}"))?;
            match verb {
                "silence" => host.silence(now),
                "answer" => host.answer(),
                "restart-engine" => host.restart_engine(),
                "refuse" => host.refuses = true,
                "stranger" => {
                    host.add_stranger(rest.get(1).ok_or("stranger HOST NAME")?);
                }
                _ => host.refuses = false,
            }
        }
        "cordon" | "drain" | "activate" => {
            let name = host_name(first()?)?;
            let state = match verb {
                "cordon" => HostState::Cordoned,
                "drain" => HostState::Draining,
                _ => HostState::Active,
            };
            sim.change_fleet(|f| {
                if let Some(host) = f.hosts.get_mut(&name) {
                    std::sync::Arc::make_mut(host).state = state;
                }
            });
        }
        "kill-agent" => sim.kill_agent(0b01_10_00_11, rest.first() != Some(&"forget")),
        "edges" => sim.edges_silent = first()? == "silent",
        other => return Err(format!("{other:?} is not known; try help")),
    }
    Ok(())
}

fn harm(sim: &mut Sim, verb: &str, target: &str) -> Result<(), String> {
    let (service, slot) = target.split_once('/').ok_or("say NAME/SLOT")?;
    let (service, slot): (ServiceName, u32) = (service_name(service)?, number(slot)?);
    for host in sim.hosts.values_mut() {
        let found: Option<InstanceId> = host
            .containers
            .iter()
            .find(|(_, c)| {
                c.instance.service == service
                    && c.instance.slot.0 == slot
                    && c.instance.state == State::Running
            })
            .map(|(id, _)| id.clone());
        let Some(id) = found else { continue };
        match verb {
            "remove" => host.remove(&id),
            "crash" => {
                host.with(&id, |c| {
                    c.instance.state = State::Exited { code: 1, out_of_memory: false };
                });
            }
            _ => {
                host.with(&id, |c| c.ill = verb == "sicken");
            }
        }
        return Ok(());
    }
    Err(format!("nothing runs as {target}"))
}

fn commit(sim: &mut Sim, name: &str, words: &[&str]) -> Result<(), String> {
    let name = service_name(name)?;
    let mut s = match sim.desired.services.get(&name) {
        Some(known) => (**known).clone(),
        None => make::service(name.as_str(), 1, "a").map_err(|e| e.to_string())?,
    };
    for word in words {
        let (key, v) = pair(word)?;
        match key {
            "replicas" => s.replicas = number(v)?,
            "image" => make::respec(&mut s, |i| v.clone_into(&mut i.image)),
            "cpu" => {
                let n = number(v)?;
                make::respec(&mut s, |i| i.resources.cpu_millis = n);
            }
            "memory" => {
                let n: u64 = number(v)?;
                make::respec(&mut s, |i| i.resources.memory_bytes = n << 20);
            }
            "publish" => make::publish(&mut s, number(v)?),
            "surge" => s.rollout.max_surge = amount(v)?,
            "unavailable" => s.rollout.max_unavailable = amount(v)?,
            "min-ready" => s.rollout.min_ready = seconds(v)?,
            "deadline" => s.rollout.progress_deadline = seconds(v)?,
            "on-failure" => {
                s.rollout.on_failure = match v {
                    "rollback" => OnFailure::Rollback,
                    "pause" => OnFailure::Pause,
                    _ => return Err(format!("on-failure cannot be {v:?}")),
                }
            }
            "replace-after" => s.replace_after = seconds(v)?,
            "keep" => {
                s.keep = match v {
                    "original" => Keep::Original,
                    "replacement" => Keep::Replacement,
                    "healthiest" => Keep::Healthiest,
                    _ => return Err(format!("keep cannot be {v:?}")),
                }
            }
            "packing" => {
                s.placement.packing =
                    if v == "binpack" { Packing::Binpack } else { Packing::Spread };
            }
            "max-per-host" => s.placement.max_per_host = Some(number(v)?),
            "spread" => s.placement.spread_by = Some(v.into()),
            "only" => {
                let (label, value) = v.split_once(':').ok_or("only=LABEL:VALUE")?;
                let (label, value) = (label.to_owned(), value.to_owned());
                s.placement.constraints.push(Constraint { label, equal: true, value });
            }
            "routed" => s.routed = v == "yes",
            "drain" => s.termination.drain = seconds(v)?,
            "suspend" => s.suspend = v == "yes",
            other => return Err(format!("no field is called {other:?}")),
        }
    }
    sim.put(s);
    Ok(())
}

fn pair(word: &str) -> Result<(&str, &str), String> {
    word.split_once('=').ok_or_else(|| format!("{word:?} is not KEY=VALUE"))
}

fn service_name(s: &str) -> Result<ServiceName, String> {
    ServiceName::new(s).map_err(|e| e.to_string())
}

fn host_name(s: &str) -> Result<HostName, String> {
    HostName::new(s).map_err(|e| e.to_string())
}

fn number<T: FromStr>(s: &str) -> Result<T, String> {
    s.parse().map_err(|_| format!("{s:?} is not a number that fits"))
}

fn seconds(s: &str) -> Result<Duration, String> {
    let n: u32 = number(s.trim_end_matches('s'))?;
    Ok(Duration::from_secs(n.into()))
}

fn amount(s: &str) -> Result<Amount, String> {
    match s.strip_suffix('%') {
        Some(p) => number(p).map(Amount::Percent),
        None => number(s).map(Amount::Count),
    }
}
