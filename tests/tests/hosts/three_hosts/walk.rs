//! The walk-through of `docs/walkthroughs/three-hosts.md`, by its own documents: test and production on three hosts, two nginx
//! that share an address, an image that takes a password.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use evenkeel_tests::agent::{Agent, Bed, LONG, Service, TOY, TOY_2, until};
use evenkeel_tests::hosts::{Host, Hosts};
use evenkeel_tests::load::{Load, Plan, get};
use evenkeel_tests::private::Private;
use evenkeel_tests::traffic::Stage;
use tokio::time::Instant;

const VIP: &str = "10.77.0.100";
/// Requests a second for each of the two, and of each stage at least.
const RATE: u32 = 60;
const LEAST: usize = 300;
/// The longest that nobody may have the address.
const GAP: Duration = Duration::from_secs(10);

/// The YAML of the document, by path, with what a test needs more.
fn documents(shared: &Path) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/walkthroughs/three-hosts.md");
    let text = fs::read_to_string(path).unwrap();
    let blocks = text.split("\n```yaml\n# three-hosts/").skip(1);
    let files = blocks.map(|block| {
        let block = block.split("\n```").next().unwrap();
        let (path, yaml) = block.split_once('\n').unwrap();
        let yaml = yaml
            .replace("/srv/shop", shared.to_str().unwrap())
            // Requests are always under way, and whoever is stopped too early drops them.
            .replace("  env:\n", "  env:\n    - {name: TOY_SLOW, value: 100ms}\n")
            .replace("grace: 5s}", "grace: 5s, signal: SIGKILL}");
        (path.to_owned(), yaml + "\n")
    });
    files.collect()
}

struct Walk<'h> {
    hosts: &'h Hosts,
    // Before the directory that it works in.
    agent: Agent,
    bed: Bed,
    files: BTreeMap<String, String>,
    commit: String,
    replicas: BTreeMap<&'static str, u32>,
    loads: [Load; 2],
}

/// What happens meanwhile.
type Both = [Stage; 2];

fn load(host: &str) -> Load {
    let at = vec![SocketAddr::new(VIP.parse().unwrap(), 80)];
    Load::start(Plan { at, host: host.into(), path: "/".into(), rate: RATE, workers: 24 })
}

/// The environment, the version and the instance that a page shows.
async fn page(host: &str) -> Option<(String, String, String)> {
    let answer = get(SocketAddr::new(VIP.parse().unwrap(), 80), host, "/").await.ok()?;
    let said: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
    let word = |key: &str| said[key].as_str().map(str::to_owned);
    Some((word("environment")?, word("version")?, word("instance")?))
}

async fn shows(host: &str, environment: &str, version: &str) {
    let (e, v, instance) = page(host).await.expect("a page");
    assert_eq!((&*e, &*v), (environment, version), "{host} by {instance}");
    assert!(instance.starts_with(&format!("{host}-")), "{instance}");
}

fn service(bed: &Bed, name: &str, replicas: u32) -> Service {
    Service { name: name.into(), ..bed.service(name, replicas) }
}

impl<'h> Walk<'h> {
    async fn settled(&mut self) {
        for (name, replicas) in self.replicas.clone() {
            self.agent.settled(&service(&self.bed, name, replicas), &self.commit).await;
        }
    }

    /// Changes one line of one document, commits it and waits until all is so.
    async fn change(&mut self, path: &str, from: &str, to: &str) {
        let file = self.files.get_mut(path).unwrap();
        assert!(file.contains(from), "{path} has no {from}");
        *file = file.replace(from, to);
        self.bed.repo.write(path, &*file);
        self.commit = self.bed.repo.commit(&format!("{path}: {to}"));
        self.settled().await;
    }

    async fn begin(&self) -> [Instant; 2] {
        [Stage::begin(&self.loads[0]).await, Stage::begin(&self.loads[1]).await]
    }

    async fn end(&self, what: &'static str, begun: [Instant; 2]) -> Both {
        let [test, production] = &self.loads;
        [
            Stage::end(test, what, begun[0], LEAST).await,
            Stage::end(production, what, begun[1], LEAST).await,
        ]
    }

    /// The one host that has the address.
    async fn holder(&self) -> &'h Host {
        let hosts = self.hosts;
        until("one host has the address", LONG, async || {
            let mut all = hosts.all.iter().filter(|host| host.has(VIP));
            all.next().filter(|_| all.next().is_none())
        })
        .await
    }

    /// Kills the balancer of a host.
    async fn kill_balancer(&self, host: &Host) {
        let all = self.hosts.of("edge").await;
        let (_, container) = all.iter().find(|(at, _)| at.name == host.name).unwrap();
        host.docker.kill_container(&container.id, None).await.unwrap();
    }
}

/// Not one request is lost.
fn well(stages: &Both) {
    for stage in stages {
        eprintln!("{stage}");
        assert!(stage.report.failures.is_empty(), "{stage}\n{:#?}", stage.report.failures);
        assert!(stage.report.requests() + stage.excused >= LEAST, "{stage}");
    }
}

/// Whoever had the address took with him what was under way, and until somebody else has it nobody answers. From then on not
/// one request is lost.
fn moved(stages: &mut Both, killed: Instant) {
    for stage in &mut *stages {
        let last = stage.report.failures.iter().map(|f| f.begun).max().unwrap_or(killed);
        let gap = last.saturating_duration_since(killed);
        stage.excused = stage.report.excuse(|f| f.ended >= killed && f.begun <= killed + GAP);
        eprintln!("{stage}, lost within {:.1} s", gap.as_secs_f64());
    }
    well(stages);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_and_production_behind_one_address() {
    let mut bed = Bed::new().await;
    let hosts = Hosts::claim(&bed).await;
    let mut registry = Private::serve(&bed, &hosts).await;
    registry.push(TOY, "app:1");
    registry.push(TOY_2, "app:2");
    bed.env.insert("DOCKER_CONFIG".into(), registry.config().into());
    fs::write(hosts.shared().join("note"), "the same everywhere").unwrap();
    let files = documents(hosts.shared());
    for (path, yaml) in &files {
        bed.repo.write(path, yaml);
    }
    let commit = bed.repo.commit("begin");
    let agent = bed.agent();
    let replicas = [("edge", 2), ("edge-vip", 2), ("app-test", 2), ("app-production", 4)].into();
    let loads = [load("app-test"), load("app-production")];
    let mut walk = Walk { hosts: &hosts, bed, agent, files, commit, replicas, loads };
    walk.settled().await;

    // Each is where it may be, and shows what it is; all have the same files.
    let places = async |name: &str| {
        let all = hosts.of(name).await;
        all.iter().map(|(host, _)| host.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(places("app-test").await, ["h1", "h1"]);
    assert_eq!(places("app-production").await, ["h2", "h2", "h3", "h3"]);
    assert_eq!(places("edge").await, ["h1", "h2"]);
    for (host, instance) in hosts.of("app-production").await {
        let out = Command::new("docker")
            .args(["-H", &host.endpoint(), "cp", &format!("{}:/data/note", instance.id), "-"])
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&out.stdout).contains("the same everywhere"), "{out:?}");
    }
    walk.holder().await;
    shows("app-test", "test", "1").await;
    shows("app-production", "production", "1").await;

    let (test, production) = ("test/app.yaml", "production/app.yaml");
    let begun = walk.begin().await;
    walk.replicas.insert("app-production", 7);
    walk.change(production, "replicas: 4", "replicas: 7").await;
    walk.replicas.insert("app-production", 3);
    walk.change(production, "replicas: 7", "replicas: 3").await;
    well(&walk.end("production 4 to 7 to 3", begun).await);

    // A release goes to test, and is promoted by copying one line.
    let begun = walk.begin().await;
    walk.change(test, "app:1", "app:2").await;
    well(&walk.end("release in test", begun).await);
    shows("app-test", "test", "2").await;
    shows("app-production", "production", "1").await;
    let begun = walk.begin().await;
    walk.change(production, "app:1", "app:2").await;
    well(&walk.end("promoted to production", begun).await);
    shows("app-production", "production", "2").await;

    // The balancer that has the address dies; its host does not.
    let begun = walk.begin().await;
    let before = walk.holder().await;
    let killed = Instant::now();
    walk.kill_balancer(before).await;
    until("it is back", LONG, async || {
        let all = hosts.of("edge").await;
        (all.len() == 2 && all.iter().all(|(_, c)| c.state == "running")).then_some(())
    })
    .await;
    walk.settled().await;
    let mut stages = walk.end("balancer with the address killed", begun).await;
    moved(&mut stages, killed);
    eprintln!("the address was on {}, is on {}", before.name, walk.holder().await.name);

    // The same while nobody is there to start another: the address moves.
    let begun = walk.begin().await;
    walk.agent.kill();
    let before = walk.holder().await;
    let killed = Instant::now();
    walk.kill_balancer(before).await;
    until("the address moves", LONG, async || {
        let after = hosts.all.iter().find(|host| host.has(VIP))?;
        (after.name != before.name).then_some(())
    })
    .await;
    eprintln!("the address moved after {:.1} s", killed.elapsed().as_secs_f64());
    assert!(killed.elapsed() < GAP);
    let mut stages = walk.end("balancer with the address killed, no agent", begun).await;
    moved(&mut stages, killed);

    // The agent comes back and so does the balancer; the address stays where it is.
    let begun = walk.begin().await;
    let holder = walk.holder().await.name.clone();
    walk.agent = walk.bed.agent();
    walk.settled().await;
    well(&walk.end("agent and balancer are back", begun).await);
    assert_eq!(walk.holder().await.name, holder, "it moved for nothing");

    let Walk { bed, loads, agent, .. } = walk;
    for load in loads {
        let rest = load.end().await;
        assert!(rest.failures.is_empty(), "at the end: {rest}");
    }
    bed.nothing_left();
    drop(agent);
}
