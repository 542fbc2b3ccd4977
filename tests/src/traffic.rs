//! Balancers before a service, and clients that keep asking while everything changes: for the tests, at a small rate,
//! and for `cargo xtask bench`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use hmac::{KeyInit as _, Mac as _};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::agent::{Agent, BROKEN, Bed, LONG, Seen, Service, TOY_2, find, until, waits};
use crate::balancer::BALANCERS;
use crate::docker::serial;
use crate::load::{Load, Plan, Report};
use crate::workers::Workers;

/// As desired for this long, a spec is one to come back to.
const PROVEN: Duration = Duration::from_secs(11);
/// The webhook's.
const SECRET: &str = "rings";
/// The host name that the clients ask for.
pub const HOST: &str = "web-test";

/// The program that balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// HAProxy.
    Haproxy,
    /// nginx.
    Nginx,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        })
    }
}

/// A balancer as it is asked for; `Display` is its document.
#[derive(Debug, Clone)]
pub struct Front {
    /// Its name.
    pub name: String,
    /// What it runs.
    pub provider: Provider,
    /// Of what.
    pub image: String,
    /// How many.
    pub replicas: u32,
    /// The network that it meets the services on.
    pub network: String,
    /// The host port of the first.
    pub publish: u16,
    /// More lines of the spec.
    pub more: String,
}

impl Front {
    /// One that nobody else's meets, with ports of its own.
    pub fn new(bed: &Bed, provider: Provider, replicas: u32) -> Self {
        Self {
            name: bed.name("edge"),
            provider,
            image: BALANCERS.into(),
            replicas,
            network: bed.name("net"),
            publish: free_ports(u16::try_from(replicas).unwrap()),
            more: String::new(),
        }
    }

    /// The same with more lines of spec.
    #[must_use]
    pub fn more(&self, line: &str) -> Self {
        Self { more: format!("{}  {line}\n", self.more), ..self.clone() }
    }

    /// Where its instances are asked, by slot.
    pub async fn addresses(&self, bed: &Bed) -> BTreeMap<String, SocketAddr> {
        // Not the loopback: what goes there goes through a process of the engine, which takes connections for
        // containers that are gone. From anywhere else it is the kernel that leads them.
        let network = bed.docker.inspect_network(&self.network, None).await.unwrap();
        let config = network.ipam.and_then(|i| i.config).unwrap_or_default();
        let gateway = config.into_iter().find_map(|c| c.gateway?.parse().ok()).unwrap();
        let at = |n: u32| {
            let port = self.publish + u16::try_from(n).unwrap() - 1;
            (n.to_string(), SocketAddr::new(gateway, port))
        };
        (1..=self.replicas).map(at).collect()
    }

    /// The same, as the containers that it is.
    pub fn service(&self, bed: &Bed) -> Service {
        Service { name: self.name.clone(), ..bed.service("edge", self.replicas) }
    }

    /// A service behind it, by a host name and a path.
    pub fn routed(&self, service: &Service, host: &str, path: &str) -> Service {
        let name = &self.name;
        let route = format!(
            "{{loadBalancer: {name}, listener: http, host: {host}, pathPrefix: {path}, port: http}}"
        );
        let mut service = service.more(&format!("networks: [{}]", self.network));
        // A toy that is told to end finishes what it has, which would hide that it was told too early.
        service.termination = "drain: 5s, grace: 5s, signal: SIGKILL".into();
        service.more(&format!("routes: [{route}]"))
    }
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, provider, image, replicas, network, publish, more } = self;
        write!(
            f,
            "apiVersion: evenkeel.dev/v1alpha1
kind: LoadBalancer
metadata: {{name: {name}}}
spec:
  provider: {{{provider}: {{image: \"{image}\"}}}}
  replicas: {replicas}
  networks: [{network}]
  listeners: [{{name: http, port: 80, publish: {publish}}}]
{more}"
        )
    }
}

/// The first of so many ports in a row that nothing listens on.
pub fn free_ports(count: u16) -> u16 {
    let mine = (std::process::id() + serial() * 37) % 90;
    let free = |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
    let all = (0..90).map(|n| 18_000 + u16::try_from((mine + n) % 90).unwrap() * 10);
    let mut fit = all.filter(|first| (*first..first + count).all(|port| free(&port)));
    fit.next().expect("free ports")
}

/// What became of the requests while one thing happened.
pub struct Stage {
    /// What happened.
    pub what: String,
    /// The requests, less those that a killed balancer took with it.
    pub report: Report,
    /// Requests that were under way in a balancer that was killed.
    pub excused: usize,
    /// How long it took.
    pub took: Duration,
}

impl Stage {
    /// Begins one: what the clients did before is another's.
    pub async fn begin(load: &Load) -> Instant {
        load.more(1).await;
        load.take();
        Instant::now()
    }

    /// Ends it, once there were this many requests at least.
    pub async fn end(load: &Load, what: &str, begun: Instant, least: usize) -> Self {
        let took = begun.elapsed();
        load.more(1).await;
        load.until(least).await;
        Self { what: what.to_owned(), report: load.take(), excused: 0, took }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, report, excused, took } = self;
        write!(f, "{what} ({:.1} s): {report}", took.as_secs_f64())?;
        if *excused > 0 { write!(f, ", {excused} under way where it was killed") } else { Ok(()) }
    }
}

/// An installation with an agent, balancers, a service of four and clients.
pub struct Show {
    /// The clients.
    pub load: Load,
    /// The agent, which ends before its directory does.
    pub agent: Agent,
    /// The installation.
    pub bed: Bed,
    /// The balancers.
    pub front: Front,
    /// The service.
    pub web: Service,
    /// Requests that a stage has at least.
    pub least: usize,
    /// The newest commit.
    pub commit: String,
    tag: Option<Tag>,
}

/// A name of an image that is taken away again.
struct Tag(String);

impl Drop for Tag {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "--force", &self.0]).output();
    }
}

/// The same before anybody asks.
pub struct Quiet {
    /// The agent, which ends before its directory does.
    pub agent: Agent,
    /// The installation.
    pub bed: Bed,
    /// The balancers.
    pub front: Front,
    /// The service.
    pub web: Service,
    /// The newest commit.
    pub commit: String,
}

impl Quiet {
    /// Everything runs, with whatever else was written to the repository.
    pub async fn begin(bed: Bed, front: Front, web: Service) -> Self {
        bed.repo.write("edge.yaml", front.to_string());
        let commit = bed.repo.put(&web);
        fs::write(bed.dir().join("secret"), SECRET).unwrap();
        let mut agent = agent(&bed);
        agent.settled(&front.service(&bed), &commit).await;
        agent.settled(&web, &commit).await;
        Self { agent, bed, front, web, commit }
    }

    /// Begins to ask `rate` times a second.
    pub async fn ask(self, rate: u32, slow: u32, least: usize) -> Show {
        let Self { agent, bed, front, web, commit } = self;
        let at = front.addresses(&bed).await.into_values().collect();
        let workers = (rate / 25).max(4) + 2 * rate * slow / 1000;
        let plan = Plan { at, host: HOST.into(), path: "/".into(), rate, workers };
        let load = Load::start(plan);
        Show { load, agent, bed, front, web, least, commit, tag: None }
    }
}

impl Show {
    /// Everything runs and is asked `rate` times a second; each answer takes `slow` milliseconds at least.
    pub async fn begin(
        provider: Provider,
        balancers: u32,
        rate: u32,
        slow: u32,
        least: usize,
    ) -> Self {
        let bed = Bed::new().await;
        let front = Front::new(&bed, provider, balancers);
        let web = bed.service("web", 4).rollout("maxSurge: 2, progressDeadline: 8s");
        // Some requests are always under way.
        let web = front.routed(&web.env("TOY_SLOW", &format!("{slow}ms")), HOST, "/");
        Quiet::begin(bed, front, web).await.ask(rate, slow, least).await
    }

    /// Commits the service and the balancers as they are now asked for.
    pub fn commit(&mut self) {
        self.bed.repo.write("edge.yaml", self.front.to_string());
        self.commit = self.bed.repo.put(&self.web);
    }

    /// Tells the agent that there is a commit.
    pub async fn ring(&self) {
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(b"{}");
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let headers = [("X-Hub-Signature-256", &*signature)];
        let (code, said) = self.agent.post("/webhook", &headers, "{}").await;
        assert_eq!(code, 202, "{said}");
    }

    /// Waits until everything is as it was last asked for.
    pub async fn settled(&mut self) {
        self.agent.settled(&self.web, &self.commit).await;
        self.agent.settled(&self.front.service(&self.bed), &self.commit).await;
    }

    async fn begin_stage(&self) -> Instant {
        Stage::begin(&self.load).await
    }

    async fn end_stage(&self, what: &str, begun: Instant) -> Stage {
        Stage::end(&self.load, what, begun, self.least).await
    }

    /// Whatever `act` does, and what becomes of the requests meanwhile.
    pub async fn stage(&mut self, what: &str, act: impl AsyncFnOnce(&mut Self)) -> Stage {
        let begun = self.begin_stage().await;
        act(self).await;
        self.end_stage(what, begun).await
    }

    /// Waits until there are this many.
    pub async fn settle_at(&mut self, replicas: u32) {
        self.web = self.web.replicas(replicas);
        self.commit();
        self.settled().await;
    }

    /// To each of these numbers, one after the other.
    pub async fn scale(&mut self, to: &[u32]) -> Stage {
        let numbers = to.iter().map(u32::to_string).collect::<Vec<_>>().join(" to ");
        let what = format!("scale {} to {numbers}", self.web.replicas);
        let each = async |show: &mut Self| {
            for replicas in to {
                show.settle_at(*replicas).await;
            }
        };
        self.stage(&what, each).await
    }

    /// So many changes of scale, ten a second; beside the stage the most reloads of a balancer, and the most workers of
    /// before that one had.
    pub async fn burst(&mut self, events: u32) -> (Stage, usize, usize) {
        let workers = Workers::watch(self.masters().await.into_values());
        let what = format!("{events} changes of scale");
        let act = async |show: &mut Self| {
            let mut due = interval(Duration::from_millis(100));
            due.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for n in 0..events {
                due.tick().await;
                show.web = show.web.replicas(4 + n * 3 % 7);
                show.commit();
                show.ring().await;
            }
            show.settled().await;
            show.load.more(2).await;
        };
        let stage = self.stage(&what, act).await;
        let (reloads, old) = workers.end().await;
        (stage, reloads, old)
    }

    /// Another image.
    pub async fn roll(&mut self) -> Stage {
        let begun = self.begin_stage().await;
        self.web = self.web.image(TOY_2);
        self.commit();
        self.settled().await;
        let what = format!("rolling update of {}", self.web.replicas);
        self.end_stage(&what, begun).await
    }

    /// An image that never gets healthy, until it is given up; then what it was before.
    pub async fn rollback(&mut self) -> Stage {
        let settled = Instant::now();
        until("the spec has proved itself", LONG, async || {
            (settled.elapsed() > PROVEN).then_some(())
        })
        .await;
        let begun = self.begin_stage().await;
        let good = self.web.clone();
        let before = self.bed.ids(&good).await;
        self.web = good.image(BROKEN);
        self.commit();
        let bad = self.web.clone();
        self.agent.until("it is rolled back", |s| waits(s).contains("quarantined")).await;
        until("the bad one is gone", LONG, async || {
            let all = self.bed.of(&bad).await;
            (all.len() == good.replicas as usize).then_some(())
        })
        .await;
        assert_eq!(self.bed.ids(&good).await, before, "the good ones were touched");
        self.web = good;
        self.commit();
        self.settled().await;
        self.end_stage("rollback of a broken image", begun).await
    }

    /// SIGKILL, a while without an agent, and the next one. Nothing at all happens to the balancers.
    pub async fn restart(&mut self) -> Stage {
        let begun = self.begin_stage().await;
        let before = self.workers().await;
        let ids = self.bed.ids(&self.front.service(&self.bed)).await;
        self.agent.kill();
        self.load.more(2).await;
        self.agent = agent(&self.bed);
        self.settled().await;
        // What would be done wrongly would be done now.
        self.load.more(3).await;
        assert_eq!(self.workers().await, before, "a balancer was reloaded");
        if self.front.provider == Provider::Haproxy {
            let since = begun.elapsed().as_secs();
            for id in ids.values() {
                for (server, unchanged) in last_changes(id) {
                    assert!(unchanged >= since, "{server} changed {unchanged} s ago, of {since} s");
                }
            }
        }
        self.end_stage("agent killed and restarted", begun).await
    }

    /// One of the balancers is killed.
    pub async fn kill(&mut self) -> Stage {
        let begun = self.begin_stage().await;
        let edge = self.front.service(&self.bed);
        let victim = self.bed.of(&edge).await.swap_remove(0);
        let at = self.front.addresses(&self.bed).await[&victim.slot];
        self.bed.kill(&victim.id).await;
        let killed = Instant::now();
        self.replaced(&edge, &[victim.id]).await;
        let mut stage = self.end_stage("balancer killed", begun).await;
        stage.excused = stage.report.excuse(|f| f.at == at && f.begun <= killed);
        stage
    }

    /// Another tag of the balancers' image: one by one they are replaced.
    pub async fn roll_balancers(&mut self) -> Stage {
        let begun = self.begin_stage().await;
        let edge = self.front.service(&self.bed);
        let before: Vec<String> = self.bed.of(&edge).await.into_iter().map(|c| c.id).collect();
        let tag = format!("evenkeel/balancers:{}-{}", self.bed.owner, serial());
        docker(&["tag", BALANCERS, &tag]);
        self.front.image.clone_from(&tag);
        self.tag = Some(Tag(tag));
        self.commit();
        self.replaced(&edge, &before).await;
        self.end_stage("balancers rolled", begun).await
    }

    async fn replaced(&mut self, edge: &Service, gone: &[String]) {
        until("the balancers are replaced", LONG, async || {
            let now = self.bed.of(edge).await;
            let fresh = |c: &Seen| c.state == "running" && !gone.contains(&c.id);
            let new = now.iter().filter(|c| fresh(c)).count() >= gone.len();
            (new && !now.iter().any(|c| gone.contains(&c.id))).then_some(())
        })
        .await;
        self.settled().await;
        let status = self.agent.status().await.unwrap();
        let all = find(&status, edge).map_or(0, |s| s.available);
        assert_eq!(all, edge.replicas, "balancers that are available");
    }

    /// The first process of each balancer.
    pub async fn masters(&self) -> BTreeMap<String, i64> {
        let mut all = BTreeMap::new();
        for (slot, id) in self.bed.ids(&self.front.service(&self.bed)).await {
            let found = self.bed.docker.inspect_container(&id, None).await.unwrap();
            all.insert(slot, found.state.and_then(|s| s.pid).unwrap_or_default());
        }
        all
    }

    /// The worker processes of each balancer, old ones too.
    pub async fn workers(&self) -> BTreeMap<String, Vec<u32>> {
        self.masters().await.into_iter().map(|(slot, pid)| (slot, children(pid))).collect()
    }

    /// The end of every scenario: nothing is left to do, and what the clients still had under way went well.
    pub async fn end(mut self) {
        self.settled().await;
        let rest = self.load.end().await;
        assert!(rest.failures.is_empty(), "at the end: {rest}");
        self.bed.nothing_left();
    }
}

fn agent(bed: &Bed) -> Agent {
    let secret = bed.dir().join("secret");
    bed.agent_with(&["--interval", "1s", "--webhook-secret-file", secret.to_str().unwrap()])
}

/// The processes that a process began and that still run.
pub fn children(pid: i64) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut all: Vec<u32> = text.split_whitespace().filter_map(|p| p.parse().ok()).collect();
    all.sort_unstable();
    all
}

fn docker(args: &[&str]) -> String {
    let out = Command::new("docker").args(args).output().unwrap();
    assert!(out.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// For how many seconds each server of a HAProxy has been as it is.
fn last_changes(id: &str) -> Vec<(String, u64)> {
    let ask = "exec 3<>/dev/tcp/127.0.0.1/9099; echo 'show servers state' >&3; cat <&3";
    let said = docker(&["exec", id, "bash", "-c", ask]);
    let header = said.lines().find_map(|l| l.strip_prefix("# ")).unwrap_or_default();
    let column = |name: &str| header.split(' ').position(|c| c == name).unwrap();
    let (name, address) = (column("srv_name"), column("srv_addr"));
    let since = column("srv_time_since_last_change");
    let all = said.lines().filter(|l| !l.starts_with('#')).filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let server = format!("{} {}", fields.get(name)?, fields.get(address)?);
        Some((server, fields.get(since)?.parse().ok()?))
    });
    let all: Vec<_> = all.collect();
    assert!(!all.is_empty(), "{said}");
    all
}
