//! The walk-through of `docs/walkthroughs/marathon.md`, by its own documents: tasks of a Marathon behind two nginx, promoted
//! by commits, and a service that leaves for Docker hosts, under traffic.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use evenkeel::report::view::StatusView;
use evenkeel_tests::agent::{Agent, Bed, LONG, TOY, TOY_2, until};
use evenkeel_tests::hosts::{GATEWAY, Hosts};
use evenkeel_tests::load::{Load, Plan, get};
use evenkeel_tests::marathon::{Agent as MesosAgent, Options, Server};
use evenkeel_tests::private::Private;
use evenkeel_tests::traffic::Stage;
use serde_json::Value;
use tokio::time::Instant;

const VIP: &str = "10.77.0.100";
const RATE: u32 = 60;
const LEAST: usize = 300;

/// The YAML of the document, by path, with what a test needs more.
fn documents(shared: &Path, credentials: &Path, server: &Server) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/walkthroughs/marathon.md");
    let text = fs::read_to_string(path).unwrap();
    let blocks = text.split("\n```yaml\n# marathon/").skip(1);
    let files = blocks.map(|block| {
        let block = block.split("\n```").next().unwrap();
        let (path, yaml) = block.split_once('\n').unwrap();
        let yaml = yaml
            .replace("/srv/shop", shared.to_str().unwrap())
            .replace("/etc/docker.tar.gz", credentials.to_str().unwrap())
            .replace("http://10.77.0.1:8080", &server.url())
            // Requests are always under way, and as the document says: whoever is told to end goes on for a moment.
            .replace("  env:\n", "  env:\n    - {name: TOY_SLOW, value: 100ms}\n    - {name: TOY_LINGER, value: 2s}\n");
        (path.to_owned(), yaml + "\n")
    });
    files.collect()
}

/// The credentials of the registry, as Mesos fetches them.
fn archive(bed: &Bed, config: &Path) -> std::path::PathBuf {
    let home = bed.dir().join("home");
    fs::create_dir_all(home.join(".docker")).unwrap();
    fs::copy(config.join("config.json"), home.join(".docker/config.json")).unwrap();
    let archive = bed.dir().join("docker.tar.gz");
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(&archive).arg("-C").arg(&home).arg(".docker");
    assert!(tar.status().unwrap().success());
    archive
}

struct Walk {
    agent: Agent,
    bed: Bed,
    server: Server,
    files: BTreeMap<String, String>,
    commit: String,
    loads: [Load; 2],
}

fn load(host: &str) -> Load {
    let at = vec![SocketAddr::new(VIP.parse().unwrap(), 80)];
    Load::start(Plan { at, host: host.into(), path: "/".into(), rate: RATE, workers: 24 })
}

/// The environment and the version that a page shows.
async fn page(host: &str) -> Option<(String, String)> {
    let answer = get(SocketAddr::new(VIP.parse().unwrap(), 80), host, "/").await.ok()?;
    let said: Value = serde_json::from_str(&answer.body).ok()?;
    let word = |key: &str| said[key].as_str().map(str::to_owned);
    Some((word("environment")?, word("version")?))
}

/// How many of a service are available, over all fleets, with nothing left to do for it at this commit.
fn available(status: &StatusView, name: &str, commit: &str) -> Option<u32> {
    let of = || status.services.iter().filter(|s| s.name == name);
    let done = of().all(|s| {
        let planned = s.attempted_revision.as_deref().is_none_or(|r| r == commit);
        let phase = s.phase == evenkeel::report::view::PhaseView::Ready;
        planned && phase && s.in_flight.is_empty()
    });
    (done && of().count() > 0).then(|| of().map(|s| s.available).sum())
}

impl Walk {
    /// Waits until so many of a service are available and nothing is left to do.
    async fn settled(&mut self, name: &str, count: u32) {
        let commit = self.commit.clone();
        let what = format!("{count} of {name}");
        self.agent
            .until(&what, |s| {
                let planned = s.fleets.iter().all(|f| f.revision.as_deref() == Some(&commit));
                planned && available(s, name, &commit) == Some(count)
            })
            .await;
    }

    /// Changes one document and commits it.
    fn change(&mut self, path: &str, from: &str, to: &str) {
        let file = self.files.get_mut(path).unwrap();
        assert!(file.contains(from), "{path} has no {from}");
        *file = file.replace(from, to);
        self.bed.repo.write(path, &*file);
        self.commit = self.bed.repo.commit(&format!("{path}: {to}"));
    }

    async fn begin(&self) -> [Instant; 2] {
        [Stage::begin(&self.loads[0]).await, Stage::begin(&self.loads[1]).await]
    }

    /// Not one request is lost.
    async fn well(&self, what: &'static str, begun: [Instant; 2]) {
        for (load, begun) in self.loads.iter().zip(begun) {
            let stage = Stage::end(load, what, begun, LEAST).await;
            eprintln!("{stage}");
            assert!(stage.report.failures.is_empty(), "{stage}\n{:#?}", stage.report.failures);
        }
    }

    /// Where the tasks of an app are.
    fn places(&self, app: &str) -> Vec<String> {
        let tasks = self.server.tasks(app);
        let mut all: Vec<String> =
            tasks.iter().map(|t| t["host"].as_str().unwrap_or_default().to_owned()).collect();
        all.sort();
        all
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_and_production_on_marathon_and_the_way_out() {
    let mut bed = Bed::new().await;
    let hosts = Hosts::claim(&bed).await;
    let mut registry = Private::serve(&bed, &hosts).await;
    registry.push(TOY, "app:1");
    registry.push(TOY_2, "app:2");
    bed.env.insert("DOCKER_CONFIG".into(), registry.config().into());
    let credentials = archive(&bed, Path::new(registry.config()));
    let agents = hosts.all.iter().map(|host| {
        let environment = if host.name == "h1" { "test" } else { "production" };
        let agent = MesosAgent::new(&host.ip.to_string()).engine(&host.endpoint());
        agent.attribute("environment", environment)
    });
    let listen = vec![SocketAddr::new(GATEWAY.into(), 0)];
    let options = Options { listen, ..Options::default().feature("task_killing") };
    let server = Server::start(options.containers_on(agents.collect())).await;
    fs::write(hosts.shared().join("note"), "the same everywhere").unwrap();
    let files = documents(hosts.shared(), &credentials, &server);
    for (path, yaml) in &files {
        bed.repo.write(path, yaml);
    }
    let commit = bed.repo.commit("begin");
    let agent = bed.agent();
    let loads = [load("app-test"), load("app-production")];
    let mut walk = Walk { agent, bed, server, files, commit, loads };
    for (name, count) in [("edge", 2), ("edge-vip", 2), ("app-test", 3), ("app-production", 4)] {
        walk.settled(name, count).await;
    }
    let (h1, h2, h3) = ("10.77.0.11", "10.77.0.12", "10.77.0.13");
    assert_eq!(walk.places("/shop/app-test"), [h1, h1, h1]);
    assert_eq!(walk.places("/shop/app-production"), [h2, h2, h3, h3]);
    until("somebody has the address", LONG, async || page("app-test").await).await;
    assert_eq!(page("app-test").await.unwrap(), ("test".into(), "1".into()));
    assert_eq!(page("app-production").await.unwrap(), ("production".into(), "1".into()));

    let (test, production) = ("test/app.yaml", "production/app.yaml");
    let begun = walk.begin().await;
    walk.change(production, "replicas: 4", "replicas: 7");
    walk.settled("app-production", 7).await;
    walk.change(production, "replicas: 7", "replicas: 3");
    walk.settled("app-production", 3).await;
    walk.well("production 4 to 7 to 3", begun).await;

    let begun = walk.begin().await;
    walk.change(test, "app:1", "app:2");
    walk.settled("app-test", 3).await;
    walk.well("release in test", begun).await;
    assert_eq!(page("app-test").await.unwrap(), ("test".into(), "2".into()));
    assert_eq!(page("app-production").await.unwrap(), ("production".into(), "1".into()));
    let begun = walk.begin().await;
    walk.change(production, "app:1", "app:2");
    walk.settled("app-production", 3).await;
    walk.well("promoted to production", begun).await;
    assert_eq!(page("app-production").await.unwrap(), ("production".into(), "2".into()));

    // The way out: a part, then all of it.
    let begun = walk.begin().await;
    walk.change(
        production,
        "  fleet: mesos\n",
        "  placements: [{fleet: docker, weight: 1}, {fleet: mesos, weight: 2}]\n",
    );
    walk.settled("app-production", 3).await;
    assert_eq!(walk.server.tasks("/shop/app-production").len(), 2);
    assert_eq!(hosts.of("app-production").await.len(), 1);
    walk.well("a third of production moves to Docker hosts", begun).await;
    let begun = walk.begin().await;
    walk.change(
        production,
        "  placements: [{fleet: docker, weight: 1}, {fleet: mesos, weight: 2}]\n",
        "  fleet: docker\n",
    );
    walk.settled("app-production", 3).await;
    until("the app is gone", LONG, async || {
        walk.server.app("/shop/app-production").is_none().then_some(())
    })
    .await;
    assert_eq!(hosts.of("app-production").await.len(), 3);
    walk.well("all of production is on Docker hosts", begun).await;
    // And back.
    let begun = walk.begin().await;
    walk.change(production, "  fleet: docker\n", "  fleet: mesos\n");
    walk.settled("app-production", 3).await;
    until("Docker hosts have none", LONG, async || {
        hosts.of("app-production").await.is_empty().then_some(())
    })
    .await;
    assert_eq!(walk.server.tasks("/shop/app-production").len(), 3);
    walk.well("and back", begun).await;

    let Walk { bed, loads, agent, server, .. } = walk;
    for load in loads {
        let rest = load.end().await;
        assert!(rest.failures.is_empty(), "at the end: {rest}");
    }
    bed.nothing_left();
    drop(agent);
    server.stop().await;
}
