//! Consul and balancers fail, stop and forget, while clients keep asking: none of it stops, starts or unroutes a server.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_tests::agent::{Bed, Event, LONG, Service, TOY_2, throughout, until, waits};
use evenkeel_tests::consul::{Consuls, docker, free_port, get, led, passing};
use evenkeel_tests::traffic::{HOST, Provider, Quiet, Show};
use tokio::time::Instant;

use super::shop::{LEAST, RATE, SLOW, begin, fleet, front, server, well};

/// A registry that others stop for so long.
const OUTAGE: Duration = Duration::from_secs(60);
/// After it is back, everything is right within this; on an idle machine it takes two.
const SOON: Duration = Duration::from_secs(30);

/// What only somebody's hand does to a container.
fn touched(events: &[Event]) -> Vec<&Event> {
    let hands = ["create", "start", "kill", "die", "stop", "destroy", "rename"];
    events.iter().filter(|e| hands.contains(&&*e.action) && !e.service.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_consul_dies_and_nobody_else_is_touched() {
    let bed = Bed::new().await;
    let front = front(&bed, 1);
    let (quiet, cluster) = begin(bed, 3, front, 3).await;
    let mut show = quiet.ask(RATE, SLOW, LEAST).await;
    let stage = show.stage("the leader of Consul killed", async |show| {
        let events = show.bed.events().await;
        let slot = cluster.leader(&show.bed).await;
        let id = show.bed.ids(&cluster.service).await[&slot].clone();
        show.bed.kill(&id).await;
        super::replaced(&show.bed, &cluster.service, &id).await;
        cluster.votes().await;
        show.agent.settled(&cluster.service, &show.commit.clone()).await;
        cluster.gives_just(&show.bed, &show.web).await;
        let all = events.all().await;
        let others: Vec<_> =
            touched(&all).into_iter().filter(|e| e.service != cluster.service.name).collect();
        assert!(others.is_empty(), "{others:#?}");
        assert_eq!(events.count("start", &cluster.service).await, 1);
    });
    well(&stage.await, 3);
    show.end().await;
}

/// A Consul of somebody else's, and a fleet that is registered there.
struct Theirs {
    port: u16,
    show: Show,
    /// Gone after everything that is on its network.
    consuls: Consuls,
}

impl Theirs {
    async fn begin() -> Self {
        let (consuls, port) = (Consuls::new(), free_port());
        let network = consuls.network();
        consuls.start("n1", port, &network, &["-server", "-bootstrap-expect=1"]);
        led(port).await;
        let bed = Bed::new().await;
        let front = evenkeel_tests::traffic::Front { network, ..front(&bed, 2) };
        let consul = format!("address: \"http://127.0.0.1:{port}\"");
        bed.repo.write("fleet.yaml", fleet(&bed, &consul));
        let web = server(&bed, &front, "server", HOST).replicas(4);
        let quiet = Quiet::begin(bed, front, web).await;
        let it = Self { port, show: quiet.ask(RATE, SLOW, LEAST).await, consuls };
        it.registered().await;
        it
    }

    async fn registered(&self) {
        let Self { port, show, .. } = self;
        let ids: BTreeSet<String> = show.bed.ids(&show.web).await.into_values().collect();
        until("just what runs is registered", LONG, async || {
            (passing(*port, &show.web.name).await? == ids).then_some(())
        })
        .await;
    }

    /// When each entry was made, as the catalogue numbers it.
    async fn made(&self) -> Vec<(String, u64)> {
        let path = format!("/v1/catalog/service/{}", self.show.web.name);
        let all = get(self.port, &path).await.unwrap();
        let of = |e: &serde_json::Value| {
            (e["ServiceID"].as_str().unwrap().to_owned(), e["CreateIndex"].as_u64().unwrap())
        };
        all.as_array().unwrap().iter().map(of).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consul_is_down_for_a_minute_and_balancers_keep_their_backends() {
    let mut it = Theirs::begin().await;
    let node = it.consuls.name("n1");
    let made = it.made().await;
    let show = &mut it.show;
    let stage = show.stage("Consul stopped for a minute", async |show| {
        let events = show.bed.events().await;
        docker(&["pause", &node]);
        let stopped = Instant::now();
        let silent = |s: &_| waits(s).contains("the registry does not answer");
        show.agent.until("it is said that the registry is silent", silent).await;
        // Four are asked to become two: none can leave while clients may find him in Consul.
        show.web = show.web.replicas(2);
        show.commit();
        show.ring().await;
        let status = show.agent.planned(&show.commit.clone()).await;
        eprintln!("meanwhile:\n{}", waits(&status));
        throughout(OUTAGE.saturating_sub(stopped.elapsed()), async || {
            let status = show.agent.status().await.unwrap();
            let said = waits(&status);
            let held = format!("service {}: ", show.web.name);
            assert!(said.contains("keeps what it has"), "{said}");
            assert!(said.lines().any(|l| l.starts_with(&held)), "{said}");
        })
        .await;
        let all = events.all().await;
        assert!(touched(&all).is_empty(), "{:#?}", touched(&all));
        docker(&["unpause", &node]);
        let back = Instant::now();
        show.settled().await;
        eprintln!("two are left {:?} after it is back", back.elapsed());
        assert!(back.elapsed() < SOON, "{:?}", back.elapsed());
        assert_eq!(events.count("start", &show.web).await, 0);
    });
    well(&stage.await, 4);
    it.registered().await;
    let now = it.made().await;
    assert_eq!(now.len(), 2);
    assert!(now.iter().all(|entry| made.contains(entry)), "{now:?} was not in {made:?}");
    it.show.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consul_loses_everything_and_has_it_again() {
    let mut it = Theirs::begin().await;
    let (port, consuls) = (it.port, &it.consuls);
    let show = &mut it.show;
    let stage = show.stage("Consul emptied", async |show| {
        let events = show.bed.events().await;
        consuls.remove("n1");
        consuls.start("n1", port, &show.front.network, &["-server", "-bootstrap-expect=1"]);
        led(port).await;
        let ids: BTreeSet<String> = show.bed.ids(&show.web).await.into_values().collect();
        let back = Instant::now();
        until("all are registered again", LONG, async || {
            (passing(port, &show.web.name).await? == ids).then_some(())
        })
        .await;
        eprintln!("registered again {:?} after it is back", back.elapsed());
        assert!(back.elapsed() < SOON, "{:?}", back.elapsed());
        let all = events.all().await;
        assert!(touched(&all).is_empty(), "{:#?}", touched(&all));
    });
    well(&stage.await, 4);
    it.show.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_dies_in_the_middle_of_a_rolling_update() {
    let mut show = Show::begin(Provider::Haproxy, 3, RATE, SLOW, LEAST).await;
    let edge = show.front.service(&show.bed);
    let addresses = show.front.addresses(&show.bed).await;
    let mut killed = None;
    let mut stage = show
        .stage("a balancer killed in the middle of a rolling update", async |show| {
            let old: Service = show.web.clone();
            show.web = old.image(TOY_2);
            show.commit();
            show.ring().await;
            let news = async || {
                let all = show.bed.of(&show.web).await;
                let (new, old): (Vec<_>, Vec<_>) = all.into_iter().partition(|c| c.image == TOY_2);
                (!new.is_empty() && !old.is_empty()).then_some(())
            };
            until("the update is half done", LONG, news).await;
            let victim = show.bed.of(&edge).await.swap_remove(1);
            show.bed.kill(&victim.id).await;
            killed = Some((addresses[&victim.slot], Instant::now()));
            super::replaced(&show.bed, &edge, &victim.id).await;
            show.settled().await;
            assert!(show.bed.of(&show.web).await.iter().all(|c| c.image == TOY_2));
        })
        .await;
    let (at, when) = killed.unwrap();
    stage.excused = stage.report.excuse(|f| f.at == at && f.begun <= when);
    eprintln!("{stage}");
    assert!(stage.report.failures.is_empty(), "{stage}\n{:#?}", stage.report.failures);
    assert!(stage.report.requests() + stage.excused >= LEAST, "{stage}");
    show.end().await;
}
