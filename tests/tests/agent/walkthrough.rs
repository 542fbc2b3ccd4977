//! The walk-through of one host, docs/walkthroughs/one-host.md, as a whole: five Consul servers, three balancers and ten
//! servers by one commit, while clients keep asking.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use evenkeel_tests::agent::{Bed, LONG, Service, TOY_2, find, until};
use evenkeel_tests::balancer::BALANCERS;
use evenkeel_tests::consul::{CONSUL, docker, get, passing, registered, voters};
use evenkeel_tests::docker::{SOCKET, TEST};
use evenkeel_tests::load::get as ask;
use evenkeel_tests::traffic::{Front, HOST, Provider, Quiet, Show, Stage, free_ports};

/// Requests a second, and of each stage at least.
const RATE: u32 = 150;
const LEAST: usize = 600;
/// Milliseconds: some requests are always under way.
const SLOW: u32 = 100;
const SERVERS: u16 = 5;

/// The Consul cluster that the fleet brings along.
struct Cluster {
    service: Service,
    /// Where its user interfaces are.
    ui: Vec<u16>,
}

impl Cluster {
    /// Waits until each server, asked by itself, gives clients just the instances that run.
    async fn gives_just(&self, bed: &Bed, service: &Service) {
        let ids: BTreeSet<String> = bed.ids(service).await.into_values().collect();
        assert_eq!(ids.len(), service.replicas as usize);
        for port in &self.ui {
            let what = format!("Consul at {port} has just {} of {}", ids.len(), service.name);
            until(&what, LONG, async || {
                let all = registered(*port, &service.name).await?;
                let good = passing(*port, &service.name).await?;
                (all == ids && good == ids).then_some(())
            })
            .await;
        }
    }

    /// Waits until every server has its vote and is healthy.
    async fn votes(&self) {
        let what = "every server of Consul votes";
        until(what, LONG, async || {
            let all = voters(self.ui[0]).await?;
            (all.len() == usize::from(SERVERS)).then_some(())
        })
        .await;
    }

    /// The slot of the leader.
    async fn leader(&self, bed: &Bed) -> String {
        until("Consul has a leader", LONG, async || {
            let leader = get(self.ui[0], "/v1/status/leader").await?;
            let ip = leader.as_str()?.split(':').next()?.to_owned();
            let all = bed.of(&self.service).await;
            let it = all.into_iter().find(|c| c.address.split(':').next() == Some(&ip))?;
            Some(it.slot)
        })
        .await
    }
}

/// Everything by one commit.
async fn begin(bed: Bed) -> (Quiet, Cluster) {
    let fleet = bed.name("shop");
    let ui = free_ports(SERVERS);
    let volume = bed.name("logs");
    let front = Front::new(&bed, Provider::Haproxy, 3);
    let front =
        front.more(&format!("fleet: {fleet}")).more(&format!("accessLog: {{volume: {volume}}}"));
    let network = &front.network;
    bed.repo.write(
        "fleet.yaml",
        format!(
            "apiVersion: evenkeel.dev/v1alpha1
kind: Fleet
metadata: {{name: {fleet}}}
spec:
  backend: {{docker: {{hosts: [{{name: local, endpoint: \"unix://{SOCKET}\"}}]}}}}
  discovery: {{consul: {{servers: {SERVERS}, image: \"{CONSUL}\", network: {network}, publish: {{ui: {ui}}}}}}}
"
        ),
    );
    let web = server(&bed, &front, "server", HOST).replicas(10);
    let service =
        Service { name: format!("{fleet}-consul"), ..bed.service("consul", SERVERS.into()) };
    let quiet = Quiet::begin(bed, front, web).await;
    (quiet, Cluster { service, ui: (ui..ui + SERVERS).collect() })
}

fn server(bed: &Bed, front: &Front, short: &str, host: &str) -> Service {
    let it = bed.service(short, 2).env("SERVICE", short).env("TOY_SLOW", &format!("{SLOW}ms"));
    let it = it.rollout("maxSurge: 2, progressDeadline: 60s");
    front.routed(&it.more(&format!("fleet: {}", bed.name("shop"))), host, "/")
}

/// No request is lost but what the killed had in hand, and whoever is in answers.
fn well(stage: &Stage, servers: usize) {
    eprintln!("{stage}");
    let Stage { report, excused, .. } = stage;
    assert!(report.failures.is_empty(), "{stage}\n{:#?}", report.failures);
    assert!(report.requests() + excused >= LEAST, "{stage}");
    assert_eq!(report.elsewhere, 0, "no balancer may refuse anybody\n{stage}");
    let spread = report.spread();
    assert!(spread.len() >= servers && spread.values().all(|n| *n > 0), "{spread:?}");
}

/// Who answers at one balancer, one after the other.
async fn in_turn(at: SocketAddr, path: &str, times: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..times {
        let answer = ask(at, HOST, path).await.unwrap();
        let said: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        all.push(said["instance"].as_str().unwrap().to_owned());
    }
    all
}

/// The servers in the access logs whose line has a text, by balancer, in the order of the lines.
fn logged(bed: &Bed, text: &str) -> BTreeMap<String, Vec<String>> {
    let mount = format!("{}:/logs:ro", bed.name("logs"));
    let label = format!("{TEST}={}", bed.owner);
    let look = format!("cd /logs && grep -F '{text}' *");
    let said = docker(&[
        "run", "--rm", "--label", &label, "--volume", &mount, BALANCERS, "sh", "-c", &look,
    ]);
    let mut all = BTreeMap::<String, Vec<String>>::new();
    for line in said.lines() {
        let (file, entry) = line.split_once(':').unwrap();
        let server = entry
            .split(' ')
            .find_map(|word| word.split_once('/').filter(|(pool, _)| pool.ends_with(".8080")));
        let (_, server) = server.unwrap_or_else(|| panic!("no server in {line}"));
        all.entry(file.to_owned()).or_default().push(server.to_owned());
    }
    all
}

/// Every balancer asks every server in turn, and its log says the same.
async fn everybody_has_his_turn(quiet: &Quiet) {
    let Quiet { bed, front, web, .. } = quiet;
    let servers = web.replicas as usize;
    let mut said = Vec::new();
    for (slot, at) in front.addresses(bed).await {
        let answers = in_turn(at, &format!("/turn-{slot}"), 3 * servers).await;
        let (round, rest) = answers.split_at(servers);
        assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), servers, "{slot}: {answers:?}");
        assert!(rest.chunks(servers).all(|next| next == round), "{slot}: {answers:?}");
        said.push(answers);
    }
    // The hostname that a server says is its container's name with a dash.
    let dashed = |all: &Vec<String>| all.iter().map(|s| s.replace('_', "-")).collect::<Vec<_>>();
    let log = until("the log has it all", LONG, async || {
        let log = logged(bed, "GET /turn-");
        (log.values().map(Vec::len).sum::<usize>() == 9 * servers).then_some(log)
    })
    .await;
    let mut written: Vec<_> = log.values().map(dashed).collect();
    written.sort();
    said.sort();
    assert_eq!(written, said, "what the access log says is what was answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_host_from_the_first_commit_to_the_last() {
    let began = std::time::Instant::now();
    let (quiet, cluster) = begin(Bed::new().await).await;
    eprintln!("settled after {:?}", began.elapsed());
    let ui = cluster.ui.clone();
    for port in ui {
        let answer =
            ask(([127, 0, 0, 1], port).into(), "consul", "/v1/status/peers").await.unwrap();
        assert_eq!(answer.status, 200);
    }
    cluster.votes().await;
    cluster.gives_just(&quiet.bed, &quiet.web).await;
    eprintln!("registered after {:?}", began.elapsed());
    everybody_has_his_turn(&quiet).await;
    let mut show = quiet.ask(RATE, SLOW, LEAST).await;
    let kills = kill_three(&mut show, &cluster).await;
    well(&kills, 10);
    let led = kill_leader(&mut show, &cluster).await;
    well(&led, 10);
    eprintln!("killed after {:?}", began.elapsed());
    let scaled = show.stage("scale 10 to 4, 10 and 3", async |show| {
        let edges = show.bed.ids(&show.front.service(&show.bed)).await;
        for replicas in [4, 10, 3] {
            let before = show.bed.ids(&show.web).await;
            show.settle_at(replicas).await;
            let now = show.bed.ids(&show.web).await;
            super::same_in_common(&before, &now);
            cluster.gives_just(&show.bed, &show.web).await;
        }
        assert_eq!(show.bed.ids(&show.front.service(&show.bed)).await, edges);
    });
    well(&scaled.await, 10);
    eprintln!("scaled after {:?}", began.elapsed());
    let second = second_service(&mut show, &cluster).await;
    well(&second, 3);
    eprintln!("second after {:?}", began.elapsed());
    show.end().await;
}

async fn kill_three(show: &mut Show, cluster: &Cluster) -> Stage {
    let mut killed = None;
    let mut stage = show
        .stage("server_1, server_4 and the third Consul server killed", async |show| {
            let (before, servers) =
                (show.bed.ids(&show.web).await, show.bed.ids(&cluster.service).await);
            let events = show.bed.events().await;
            let gone = [&before["1"], &before["4"], &servers["3"]].map(String::clone);
            let dies = gone.iter().map(|id| show.bed.kill(id));
            futures::future::join_all(dies).await;
            killed = Some(tokio::time::Instant::now());
            until("they come back", LONG, async || {
                let all = show.bed.all().await;
                let back = |s: &Service| {
                    all.iter().filter(|c| c.service == s.name && c.state == "running").count()
                };
                let whole = |s: &Service| back(s) == s.replicas as usize;
                (gone.iter().all(|id| all.iter().all(|c| c.id != *id))
                    && whole(&show.web)
                    && whole(&cluster.service))
                .then_some(())
            })
            .await;
            show.settled().await;
            show.agent.settled(&cluster.service, &show.commit.clone()).await;
            cluster.votes().await;
            cluster.gives_just(&show.bed, &show.web).await;
            // Three are lost, three are started, and everybody else is as he was.
            for (service, before, gone) in
                [(&show.web, before, &["1", "4"][..]), (&cluster.service, servers, &["3"][..])]
            {
                let now = show.bed.ids(service).await;
                let changed: Vec<&str> = before
                    .iter()
                    .filter(|(slot, id)| now[*slot] != **id)
                    .map(|(slot, _)| &**slot)
                    .collect();
                assert_eq!(changed, gone, "{}", service.name);
                assert_eq!(events.count("start", service).await, gone.len(), "{}", service.name);
            }
        })
        .await;
    // What the killed had in hand; a balancer repeats a GET elsewhere, and may not repeat a POST.
    let killed = killed.unwrap();
    stage.excused = stage.report.excuse(|f| f.begun <= killed);
    let in_hand = usize::try_from(RATE * SLOW / 1000).unwrap();
    assert!(stage.excused <= in_hand, "{stage}");
    stage
}

async fn kill_leader(show: &mut Show, cluster: &Cluster) -> Stage {
    show.stage("the leader of Consul killed", async |show| {
        let before =
            (show.bed.ids(&show.web).await, show.bed.ids(&show.front.service(&show.bed)).await);
        let slot = cluster.leader(&show.bed).await;
        let id = show.bed.ids(&cluster.service).await[&slot].clone();
        show.bed.kill(&id).await;
        super::replaced(&show.bed, &cluster.service, &id).await;
        show.agent.settled(&cluster.service, &show.commit.clone()).await;
        cluster.votes().await;
        cluster.gives_just(&show.bed, &show.web).await;
        let now =
            (show.bed.ids(&show.web).await, show.bed.ids(&show.front.service(&show.bed)).await);
        assert_eq!(now, before, "Consul is nobody's reason to be started again");
    })
    .await
}

async fn second_service(show: &mut Show, cluster: &Cluster) -> Stage {
    show.stage("a second service behind the same balancers", async |show| {
        let before =
            (show.bed.ids(&show.web).await, show.bed.ids(&show.front.service(&show.bed)).await);
        let admin = server(&show.bed, &show.front, "admin", "admin.example").image(TOY_2);
        let commit = show.bed.repo.put(&admin);
        show.agent.settled(&admin, &commit).await;
        cluster.gives_just(&show.bed, &admin).await;
        for at in show.front.addresses(&show.bed).await.into_values() {
            for (host, service, version) in [(HOST, "server", "1"), ("admin.example", "admin", "2")]
            {
                let answer = ask(at, host, "/").await.unwrap();
                let said: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
                assert_eq!(
                    (&said["service"], &said["version"]),
                    (&service.into(), &version.into())
                );
            }
        }
        let status = show.agent.status().await.unwrap();
        assert_eq!(find(&status, &show.web).unwrap().available, show.web.replicas);
        let now =
            (show.bed.ids(&show.web).await, show.bed.ids(&show.front.service(&show.bed)).await);
        assert_eq!(now, before, "a second service restarts nobody");
        show.commit = commit;
    })
    .await
}
