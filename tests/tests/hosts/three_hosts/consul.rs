//! A Consul that evenkeel runs over three hosts: a server and a client agent on each, and what is registered there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use evenkeel_tests::agent::{Agent, Bed, LONG, Service, http, until};
use evenkeel_tests::hosts::{Host, Hosts};
use serde_json::Value;
use tokio::time::Instant;

const REPLICAS: u32 = 6;
/// What follows the fleet's name in that of the servers and of the agents.
const SERVERS: &str = "consul";
const AGENTS: &str = "consul-agent";
/// What the agents of the hosts are asked at.
const AGENT_PORT: u16 = 8510;

fn documents(bed: &Bed, hosts: &Hosts, ui: &str) -> String {
    // Servers keep their data: those of another test are called otherwise.
    let fleet = bed.name("shop");
    let mut all = String::new();
    for host in &hosts.all {
        let (name, endpoint) = (&host.name, host.endpoint());
        let _ = writeln!(all, "        - {{name: {name}, endpoint: \"{endpoint}\"}}");
    }
    format!(
        "apiVersion: evenkeel.dev/v1alpha1
kind: Fleet
metadata: {{name: {fleet}}}
spec:
  backend:
    docker:
      hosts:
{all}  discovery:
    consul: {{servers: 3, image: \"evenkeel/consul:1\"{ui}}}
---
apiVersion: evenkeel.dev/v1alpha1
kind: ScalingService
metadata: {{name: web}}
spec:
  fleet: {fleet}
  replicas: {REPLICAS}
  image: evenkeel/toy:1
  ports: [{{name: http, containerPort: 8080, publish: 9300}}]
  health: {{http: {{path: /healthz, port: http}}, interval: 1s, timeout: 1s}}
  discovery: {{tags: [v1]}}
  rollout: {{maxSurge: 1, progressDeadline: 60s}}
  termination: {{drain: 1s, grace: 5s}}
  onHostLost: {{replaceAfter: 15s, keep: healthiest}}
"
    )
}

struct Scene<'h> {
    hosts: &'h Hosts,
    agent: Agent,
    bed: Bed,
    commit: String,
}

/// What a Consul at this port of a host says.
async fn ask(host: &Host, port: u16, path: &str) -> Option<Value> {
    let (code, body) = http(&format!("{}:{port}", host.ip), "GET", path, &[], "").await?;
    (code == 200).then(|| serde_json::from_str(&body).ok()).flatten()
}

/// The servers that have a vote and are healthy, if the leader says that all is well.
async fn voters(host: &Host) -> Option<Vec<String>> {
    let health = ask(host, AGENT_PORT, "/v1/operator/autopilot/health").await?;
    let all = health["Servers"].as_array()?.iter().filter(|s| s["Voter"] == true);
    let mut names: Vec<String> = all.map(|s| s["Name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    (health["Healthy"] == true).then_some(names)
}

/// The host of the leader.
async fn leader<'h>(hosts: &'h Hosts, asked: &Host) -> Option<&'h Host> {
    let said = ask(asked, AGENT_PORT, "/v1/status/leader").await?;
    let (ip, _) = said.as_str()?.rsplit_once(':')?;
    hosts.all.iter().find(|host| host.ip.to_string() == ip)
}

/// The instances of the service that clients are led to, as one host's agent knows them: node, address and port.
async fn passing(asked: &Host) -> Option<Vec<(String, String)>> {
    let all = ask(asked, AGENT_PORT, "/v1/health/service/web?passing").await?;
    let entry = |e: &Value| {
        let (s, node) = (&e["Service"], e["Node"]["Node"].as_str()?);
        Some((node.to_owned(), format!("{}:{}", s["Address"].as_str()?, s["Port"])))
    };
    let mut all: Vec<_> = all.as_array()?.iter().filter_map(entry).collect();
    all.sort();
    Some(all)
}

impl<'h> Scene<'h> {
    async fn settled(&mut self) {
        let (servers, agents) = (self.named(SERVERS), self.named(AGENTS));
        for (name, replicas) in [(servers, 3), (agents, 3), ("web".into(), REPLICAS)] {
            let service = Service { name, ..self.bed.service("any", replicas) };
            self.agent.settled(&service, &self.commit).await;
        }
    }

    async fn begin(bed: Bed, hosts: &'h Hosts) -> Self {
        bed.repo.write("shop.yaml", documents(&bed, hosts, ""));
        let commit = bed.repo.commit("begin");
        let agent = bed.agent();
        let mut scene = Self { hosts, agent, bed, commit };
        scene.settled().await;
        scene
    }

    /// Where the instances that run are reached, each with its host.
    async fn running(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for (host, c) in self.hosts.of("web").await {
            let found = host.docker.inspect_container(&c.id, None).await.unwrap();
            let ports = found.network_settings.and_then(|n| n.ports).unwrap_or_default();
            let port = ports["8080/tcp"].as_ref().and_then(|p| p[0].host_port.clone()).unwrap();
            all.push((host.name.clone(), format!("{}:{port}", host.ip)));
        }
        all.sort();
        all
    }

    /// Waits until clients are led to exactly those who run, wherever they ask.
    async fn catalogue_is_right(&self) {
        let running = self.running().await;
        assert_eq!(running.len(), REPLICAS as usize);
        for host in &self.hosts.all {
            let begun = Instant::now();
            until("the catalogue is right", LONG * 2, async || {
                let known = passing(host).await;
                let late = begun.elapsed() > LONG;
                assert!(!late, "{} knows {known:?}, and there are {running:?}", host.name);
                (known? == running).then_some(())
            })
            .await;
        }
    }

    async fn all_vote(&self) {
        let names = [1, 2, 3].map(|slot| format!("{}-{slot}", self.named(SERVERS)));
        for host in &self.hosts.all {
            until("all servers vote", LONG, async || (voters(host).await? == names).then_some(()))
                .await;
        }
    }

    /// A part of the cluster.
    fn named(&self, part: &str) -> String {
        format!("{}-{part}", self.bed.name("shop"))
    }

    async fn ids(&self, service: &str) -> BTreeMap<String, String> {
        let all = self.hosts.of(service).await;
        all.into_iter().map(|(host, c)| (c.id, host.name.clone())).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_over_three_hosts_survives_its_leader_and_leads_nobody_to_a_lost_host() {
    let bed = Bed::new().await;
    let hosts = Hosts::claim(&bed).await;
    let mut scene = Scene::begin(bed, &hosts).await;
    let servers = scene.named(SERVERS);
    scene.all_vote().await;
    scene.catalogue_is_right().await;
    let each = ["h1", "h2", "h3"].map(str::to_owned);
    for part in [SERVERS, AGENTS] {
        let mut at: Vec<String> = scene.ids(&scene.named(part)).await.into_values().collect();
        at.sort();
        assert_eq!(at, each, "{part}: one a host");
    }
    let web = scene.ids("web").await;

    // The leader dies; its slot is filled again with what it knew. Whether another leads by then or it does again is Consul's.
    let was = leader(&hosts, &hosts.all[0]).await.unwrap();
    let (_, it) = hosts.of(&servers).await.into_iter().find(|(h, _)| h.name == was.name).unwrap();
    let killed = Instant::now();
    was.docker.kill_container(&it.id, None).await.unwrap();
    until("its slot is filled", LONG, async || {
        let now = scene.ids(&servers).await;
        (now.len() == 3 && !now.contains_key(&it.id)).then_some(())
    })
    .await;
    let other = hosts.all.iter().find(|host| host.name != was.name).unwrap();
    until("somebody leads", LONG, async || leader(&hosts, other).await).await;
    scene.all_vote().await;
    eprintln!("all vote again after {:.1} s", killed.elapsed().as_secs_f64());
    scene.settled().await;
    scene.catalogue_is_right().await;
    assert_eq!(scene.ids("web").await, web, "nobody else was touched");

    // A host is cut off while nobody is there to do anything about it: Consul itself leads nobody there any more.
    scene.agent.kill();
    let lost = hosts.get("h3");
    let begun = Instant::now();
    lost.cut();
    until("its entries turn critical", LONG, async || {
        let all = passing(&hosts.all[0]).await?;
        (all.len() == 4 && all.iter().all(|(node, _)| node != "h3")).then_some(())
    })
    .await;
    eprintln!("its entries are critical after {:.1} s", begun.elapsed().as_secs_f64());
    scene.agent = scene.bed.agent();
    until("others take over", LONG, async || {
        (passing(&hosts.all[1]).await?.len() == REPLICAS as usize).then_some(())
    })
    .await;

    // It returns, with its server's data and with entries of instances that are replaced.
    lost.mend();
    scene
        .agent
        .until("every host answers", |s| s.fleets[0].hosts.iter().all(|h| h.state == "up"))
        .await;
    scene.settled().await;
    scene.all_vote().await;
    scene.catalogue_is_right().await;
    scene.bed.nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_servers_roll_one_at_a_time() {
    let bed = Bed::new().await;
    let hosts = Hosts::claim(&bed).await;
    let mut scene = Scene::begin(bed, &hosts).await;
    let servers = scene.named(SERVERS);
    scene.all_vote().await;
    let (web, before) = (scene.ids("web").await, scene.ids(&servers).await);
    scene.bed.repo.write("shop.yaml", documents(&scene.bed, &hosts, ", publish: {ui: 8650}"));
    scene.commit = scene.bed.repo.commit("another port");
    // Of three, two always run.
    until("all are new", Duration::from_secs(180), async || {
        let all = hosts.of(&servers).await;
        let runs = all.iter().filter(|(_, c)| c.state == "running").count();
        assert!(runs >= 2, "{runs} servers run");
        (runs == 3 && !all.iter().any(|(_, c)| before.contains_key(&c.id))).then_some(())
    })
    .await;
    scene.settled().await;
    scene.all_vote().await;
    scene.catalogue_is_right().await;
    assert_eq!(scene.ids("web").await, web, "nobody else was touched");
    for host in &hosts.all {
        let said = ask(host, 8650, "/v1/status/peers")
            .await
            .expect("the interface is where it was asked for");
        assert_eq!(said.as_array().map(Vec::len), Some(3), "{said}");
    }
    scene.bed.nothing_left();
}
