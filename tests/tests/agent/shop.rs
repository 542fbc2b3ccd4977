//! A fleet with Consul, balancers and servers on the real engine, for what happens to all of them together.

use std::collections::BTreeSet;

use evenkeel_tests::agent::{Bed, LONG, Service, until};
use evenkeel_tests::consul::{CONSUL, get, passing, registered, voters};
use evenkeel_tests::docker::SOCKET;
use evenkeel_tests::traffic::{Front, HOST, Provider, Quiet, Stage, free_ports};

/// Requests a second, and of each stage at least.
pub(super) const RATE: u32 = 150;
pub(super) const LEAST: usize = 600;
/// Milliseconds: some requests are always under way.
pub(super) const SLOW: u32 = 100;

/// The Consul cluster that the fleet brings along.
pub(super) struct Cluster {
    /// Its servers.
    pub(super) service: Service,
    /// Where each server's API and user interface are, on the loopback.
    pub(super) ui: Vec<u16>,
}

impl Cluster {
    /// Waits until each server, asked by itself, gives clients just the instances that run.
    pub(super) async fn gives_just(&self, bed: &Bed, service: &Service) {
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

    /// Waits until every server has its vote and is healthy. One that was killed is taken back by the others no sooner
    /// than half a minute after they missed it.
    pub(super) async fn votes(&self) {
        let what = "every server of Consul votes";
        until(what, 2 * LONG, async || {
            let all = voters(self.ui[0]).await?;
            (all.len() == self.service.replicas as usize).then_some(())
        })
        .await;
    }

    /// The same without one server, which is not asked.
    pub(super) fn but(&self, slot: usize) -> Self {
        let asked = self.ui.iter().enumerate().filter(|(at, _)| at + 1 != slot);
        Self { service: self.service.clone(), ui: asked.map(|(_, port)| *port).collect() }
    }

    /// The slot of the leader.
    pub(super) async fn leader(&self, bed: &Bed) -> String {
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

/// A fleet on the local engine, with the inside of its `discovery.consul`.
pub(super) fn fleet(bed: &Bed, consul: &str) -> String {
    let name = bed.name("shop");
    format!(
        "apiVersion: evenkeel.dev/v1alpha1
kind: Fleet
metadata: {{name: {name}}}
spec:
  backend: {{docker: {{hosts: [{{name: local, endpoint: \"unix://{SOCKET}\"}}]}}}}
  discovery: {{consul: {{{consul}}}}}
"
    )
}

/// Balancers of that fleet.
pub(super) fn front(bed: &Bed, replicas: u32) -> Front {
    Front::new(bed, Provider::Haproxy, replicas).more(&format!("fleet: {}", bed.name("shop")))
}

/// A service of that fleet behind them.
pub(super) fn server(bed: &Bed, front: &Front, short: &str, host: &str) -> Service {
    let it = bed.service(short, 2).env("SERVICE", short).env("TOY_SLOW", &format!("{SLOW}ms"));
    let it = it.rollout("maxSurge: 2, progressDeadline: 60s");
    front.routed(&it.more(&format!("fleet: {}", bed.name("shop"))), host, "/")
}

/// So many of everything, by one commit.
pub(super) async fn begin(bed: Bed, consuls: u16, front: Front, servers: u32) -> (Quiet, Cluster) {
    let ui = free_ports(consuls);
    let network = &front.network;
    let consul = format!(
        "servers: {consuls}, image: \"{CONSUL}\", network: {network}, publish: {{ui: {ui}}}"
    );
    bed.repo.write("fleet.yaml", fleet(&bed, &consul));
    let name = bed.name("shop-consul");
    let service = Service { name, ..bed.service("consul", consuls.into()) };
    let web = server(&bed, &front, "server", HOST).replicas(servers);
    let mut quiet = Quiet::begin(bed, front, web).await;
    quiet.agent.settled(&service, &quiet.commit.clone()).await;
    let cluster = Cluster { service, ui: (ui..ui + consuls).collect() };
    cluster.votes().await;
    cluster.gives_just(&quiet.bed, &quiet.web).await;
    (quiet, cluster)
}

/// No request is lost but what the killed had in hand, and whoever is in answers.
pub(super) fn well(stage: &Stage, servers: usize) {
    eprintln!("{stage}");
    let Stage { report, excused, .. } = stage;
    assert!(report.failures.is_empty(), "{stage}\n{:#?}", report.failures);
    assert!(report.requests() + excused >= LEAST, "{stage}");
    assert_eq!(report.elsewhere, 0, "no balancer may refuse anybody\n{stage}");
    let spread = report.spread();
    assert!(spread.len() >= servers && spread.values().all(|n| *n > 0), "{spread:?}");
}
