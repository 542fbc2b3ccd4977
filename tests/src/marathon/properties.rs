//! Whatever is asked of it and whatever happens to its tasks: nothing is lost, nothing is given twice, and it settles.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::agents::Agent;
use super::api::{self, Answer, Call, Content};
use super::instance::{Instance, Phase};
use super::path::AppId;
use super::plan::Action;
use super::release::Release;
use super::runner::{End, Order, Report};
use super::stamp::Stamp;
use super::state::{Settings, State};

const APPS: [&str; 3] = ["/a", "/g/b", "/g/c"];
const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

#[derive(Clone, Debug)]
enum Op {
    Put { app: usize, count: usize, mem: u64, force: bool, strategy: usize },
    Scale { app: usize, count: usize },
    Delete { app: usize, force: bool },
    Restart { app: usize },
    Group { count: usize, both: bool },
    Cancel { which: usize, force: bool },
    Kill { which: usize, scale: bool },
    Fail { which: usize },
    Silence { host: usize },
    Hear { host: usize },
    Pass { ms: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let app = 0..APPS.len();
    prop_oneof![
        4 => (app.clone(), 0..5usize, 0..3u64, any::<bool>(), 0..4usize)
            .prop_map(|(app, count, mem, force, strategy)| Op::Put { app, count, mem, force, strategy }),
        2 => (app.clone(), 0..6usize).prop_map(|(app, count)| Op::Scale { app, count }),
        1 => (app.clone(), any::<bool>()).prop_map(|(app, force)| Op::Delete { app, force }),
        1 => app.prop_map(|app| Op::Restart { app }),
        1 => (0..4usize, any::<bool>()).prop_map(|(count, both)| Op::Group { count, both }),
        1 => (0..3usize, any::<bool>()).prop_map(|(which, force)| Op::Cancel { which, force }),
        2 => (0..9usize, any::<bool>()).prop_map(|(which, scale)| Op::Kill { which, scale }),
        2 => (0..9usize).prop_map(|which| Op::Fail { which }),
        1 => (0..HOSTS.len()).prop_map(|host| Op::Silence { host }),
        2 => (0..HOSTS.len()).prop_map(|host| Op::Hear { host }),
        8 => (1..2000u64).prop_map(|ms| Op::Pass { ms }),
    ]
}

/// A state with tasks that do at once what they are told.
struct World {
    state: State,
    now: Stamp,
    /// Tasks that run, with their agents.
    tasks: BTreeMap<String, String>,
    /// Orders that agents have not heard of.
    unheard: Vec<Order>,
    versions: Vec<Stamp>,
    /// Whether a deployment was taken back: with its apps their old ports return, whoever has them now.
    reverted: bool,
}

impl World {
    fn new(release: Release) -> Self {
        let settings = Settings {
            release,
            features: Vec::new(),
            network: None,
            role: "*".into(),
            most_deployments: 100,
            local_ports: (10_000, 10_100),
            deployment_delay: Duration::from_millis(100),
            offer_delay: Duration::from_millis(10),
            second: Duration::from_secs(1),
            heal_seconds: 300.0,
        };
        let agents = HOSTS.map(|host| Agent::new(host).size(8.0, 4096.0)).into();
        let state = State::new(settings, agents, 7);
        let now = Stamp(1_000_000);
        Self {
            state,
            now,
            tasks: BTreeMap::new(),
            unheard: Vec::new(),
            versions: Vec::new(),
            reverted: false,
        }
    }

    fn ask(&mut self, method: &str, path: &str, query: &[(&str, String)], body: &Value) -> Answer {
        let query = query.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let call =
            Call { method: method.into(), path: path.into(), query, body, ..Call::default() };
        let before = self.state.tree.clone();
        let answer = api::answer(&mut self.state, &call, self.now).answer;
        assert!(
            [200, 201, 202, 400, 404, 409, 422].contains(&answer.status),
            "{call:?}: {answer:?}"
        );
        if answer.status >= 400 {
            assert_eq!(before, self.state.tree, "a refusal changed something: {call:?}");
        }
        if let Content::Json(body) = &answer.content
            && let Some(version) = body["version"].as_str()
            && method != "GET"
        {
            let version = Stamp::parse(version).unwrap();
            assert!(self.versions.last().is_none_or(|last| *last < version), "versions only grow");
            self.versions.push(version);
        }
        answer
    }

    fn live(&self, which: usize) -> Option<String> {
        self.tasks.keys().nth(which).cloned()
    }

    fn silent(&self, host: &str) -> bool {
        self.state.agents[host].silent
    }

    fn report(&mut self, task: &str, report: Report) {
        match self.state.owner(task) {
            Some((app, uuid)) => self.state.report(&app, &uuid, report, self.now),
            None => self.state.stranger(task, End::Killed, self.now),
        }
    }

    /// Time passes, and tasks obey.
    fn pass(&mut self, ms: u64) {
        self.now = Stamp(self.now.0 + ms);
        for _ in 0..4 {
            self.state.advance(self.now);
            self.unheard.extend(std::mem::take(&mut self.state.orders));
            for order in std::mem::take(&mut self.unheard) {
                if self.silent(order.host()) {
                    self.unheard.push(order);
                    continue;
                }
                match order {
                    Order::Launch(task) => {
                        assert!(!self.tasks.contains_key(&task.id), "{} runs already", task.id);
                        self.tasks.insert(task.id.clone(), task.agent.host.clone());
                        self.report(&task.id, Report::Running(Vec::new()));
                        self.report(&task.id, Report::Health(0, Ok(())));
                    }
                    Order::Kill { task, .. } => {
                        if self.tasks.remove(&task).is_some() {
                            self.report(&task, Report::Ended(End::Killed, String::new()));
                        }
                    }
                }
            }
            self.judge();
        }
        self.state.events.clear();
    }

    fn judge(&self) {
        let mut seen = BTreeSet::new();
        for deployment in &self.state.deployments {
            for app in &deployment.affected {
                assert!(seen.insert(app), "{app} is in two deployments");
            }
        }
        for (host, agent) in &self.state.agents {
            let here = || {
                let all = self.state.instances.values().flatten();
                all.filter(|i| i.agent.as_ref() == Some(host) && i.phase != Phase::Scheduled)
            };
            let mem: f64 = here().map(|i| i.app.need().mem).sum();
            assert!(
                (mem - agent.used.mem).abs() < 0.01,
                "{host} counts {} for {mem}",
                agent.used.mem
            );
            assert!(agent.used.mem <= agent.has.mem + 0.01, "{host} has not so much");
            assert_eq!(agent.tasks, here().count());
            let ports: Vec<u16> =
                here().flat_map(|i| i.host_ports.iter().flatten()).copied().collect();
            let once: BTreeSet<u16> = ports.iter().copied().collect();
            assert_eq!(ports.len(), once.len(), "{host} gave a port twice");
            assert_eq!(once, agent.taken);
        }
        let mut services = BTreeSet::new();
        for app in self.state.tree.apps.values() {
            for port in app.service_ports() {
                let own = services.insert(port) || self.reverted;
                assert!(port != 0 && own, "{} has no port of its own", app.id);
            }
        }
    }

    fn act(&mut self, op: &Op) {
        let null = Value::Null;
        match op {
            Op::Put { app, count, mem, force, strategy } => {
                let (least, over) = [(1.0, 1.0), (0.5, 0.0), (0.0, 0.0), (1.0, 0.0)][*strategy];
                let body = json!({
                    "cmd": "run", "instances": count, "mem": 64 + mem, "cpus": 0.1,
                    "healthChecks": [{"protocol": "HTTP"}],
                    "upgradeStrategy": {"minimumHealthCapacity": least, "maximumOverCapacity": over},
                });
                let path = format!("/v2/apps{}", APPS[*app]);
                let query = [("force", force.to_string()), ("partialUpdate", "false".into())];
                self.ask("PUT", &path, &query, &body);
            }
            Op::Scale { app, count } => {
                let path = format!("/v2/apps{}", APPS[*app]);
                self.ask("PATCH", &path, &[], &json!({"instances": count}));
            }
            Op::Delete { app, force } => {
                let path = format!("/v2/apps{}", APPS[*app]);
                self.ask("DELETE", &path, &[("force", force.to_string())], &null);
            }
            Op::Restart { app } => {
                self.ask("POST", &format!("/v2/apps{}/restart", APPS[*app]), &[], &null);
            }
            Op::Group { count, both } => {
                let app = |id: &str| json!({"id": id, "cmd": "run", "mem": 32, "cpus": 0.1, "instances": count});
                let mut apps = vec![app("b")];
                if *both {
                    apps.push(app("c"));
                }
                self.ask("PUT", "/v2/groups/g", &[], &json!({"apps": apps}));
            }
            Op::Cancel { which, force } => {
                let Some(id) = self.state.deployments.get(*which).map(|d| d.id.clone()) else {
                    return;
                };
                let query = [("force", force.to_string())];
                self.reverted |= !force;
                self.ask("DELETE", &format!("/v2/deployments/{id}"), &query, &null);
            }
            Op::Kill { which, scale } => {
                let Some(task) = self.live(*which) else { return };
                let query = [("scale", scale.to_string())];
                self.ask("POST", "/v2/tasks/delete", &query, &json!({"ids": [task]}));
            }
            Op::Fail { which } => {
                let Some(task) = self.live(*which) else { return };
                // What nobody hears of has not happened to Marathon until the agent returns.
                let host = self.tasks.remove(&task).unwrap();
                if !self.silent(&host) {
                    self.report(&task, Report::Ended(End::Failed, "it fell over".into()));
                }
            }
            Op::Silence { host } => self.state.silence(HOSTS[*host], self.now),
            Op::Hear { host } => {
                let alive = self.tasks.keys().cloned().collect();
                self.state.hear(HOSTS[*host], &alive, self.now);
            }
            Op::Pass { ms } => self.pass(*ms),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_settles_and_counts_right(
        ops in proptest::collection::vec(op(), 1..60), old in any::<bool>(),
    ) {
        let mut world = World::new(if old { Release::V1_5 } else { Release::V1_11 });
        for op in &ops {
            world.act(op);
            world.pass(1);
        }
        // Everything is well from here on, and the longest wait of a launch passes.
        for host in 0..HOSTS.len() {
            world.act(&Op::Hear { host });
        }
        for _ in 0..60 {
            world.pass(20_000);
        }
        // Marathon counts who is healthy once, when a replacement begins: one that begins while an old one is only about to
        // be may have no room to begin with, and waits for ever. Its way out is the same as a person's.
        while let Some(stuck) = world.state.deployments.first() {
            let replaces = stuck.current().iter().any(|action| matches!(action, Action::Restart(_)));
            prop_assert!(replaces, "{:#?}", stuck);
            world.act(&Op::Cancel { which: 0, force: false });
            for _ in 0..60 {
                world.pass(20_000);
            }
        }
        for id in APPS.map(AppId::absolute) {
            let wanted = world.state.tree.apps.get(&id).map_or(0, |app| app.instances());
            let there = world.state.instances_of(&id);
            prop_assert_eq!(there.len(), wanted, "{}: {:#?}", id, there);
            prop_assert!(there.iter().all(Instance::is_healthy), "{:#?}", there);
        }
        let known: usize = world.state.instances.values().map(Vec::len).sum();
        prop_assert_eq!(world.tasks.len(), known, "a task runs that nobody knows");
        prop_assert!(world.state.busy.is_empty(), "{:?}", world.state.busy);
    }

    /// Without any failure, an upgrade keeps what it promised, at every moment.
    #[test]
    fn an_upgrade_keeps_its_capacities(count in 1..8usize, least in 0..=4u32, over in 0..=4u32) {
        let (least, over) = (f64::from(least) / 4.0, f64::from(over) / 4.0);
        let mut world = World::new(Release::V1_11);
        let body = |mem: u32| json!({
            "cmd": "run", "instances": count, "mem": mem, "cpus": 0.1,
            "upgradeStrategy": {"minimumHealthCapacity": least, "maximumOverCapacity": over},
        });
        world.ask("PUT", "/v2/apps/a", &[], &body(32));
        world.pass(1000);
        world.pass(1000);
        world.ask("PUT", "/v2/apps/a", &[], &body(64));
        let id = AppId::absolute("/a");
        let (mut fewest, mut most) = (count, count);
        for _ in 0..1000 {
            world.now = Stamp(world.now.0 + 50);
            world.state.advance(world.now);
            // One order at a time, so that every state between is seen.
            world.unheard.extend(std::mem::take(&mut world.state.orders));
            if !world.unheard.is_empty() {
                match world.unheard.remove(0) {
                    Order::Launch(task) => world.report(&task.id, Report::Running(Vec::new())),
                    Order::Kill { task, .. } => world.report(&task, Report::Ended(End::Killed, String::new())),
                }
            }
            let up = world.state.instances_of(&id).iter().filter(|i| i.phase == Phase::Running).count();
            let all = world.state.instances_of(&id).len();
            (fewest, most) = (fewest.min(up), most.max(all));
        }
        prop_assert!(world.state.deployments.is_empty());
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        let wanted = count as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are small")]
        let (least, over) = ((wanted * least).ceil() as usize, (wanted * (1.0 + over)).floor() as usize);
        prop_assert!(fewest >= least, "{fewest} of {least}");
        let most_allowed = if least == over { over + 1 } else { over };
        prop_assert!(most <= most_allowed, "{most} of {most_allowed}");
    }
}
