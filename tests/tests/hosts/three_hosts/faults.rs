//! Hosts that are lost and come back, while clients ask through balancers on the other two.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel::model::{ServiceName, Slot, instance_host_name};
use evenkeel_tests::agent::{Agent, Bed, LONG, Seen, Service, find, throughout, until};
use evenkeel_tests::hosts::{Host, Hosts};
use evenkeel_tests::load::{Failure, Kind, Load, Plan};
use evenkeel_tests::traffic::{Provider, Stage};
use tokio::time::Instant;

/// Requests a second, and of each stage at least.
const RATE: u32 = 100;
const LEAST: usize = 500;
/// Milliseconds: some requests are always under way.
const SLOW: u32 = 100;
const REPLICAS: u32 = 6;
const PUBLISH: u16 = 8181;
/// Until the balancers' own checks have taken out who does not answer: three that fail, and what a connection takes.
const NOTICED: Duration = Duration::from_secs(8);

fn documents(bed: &Bed, hosts: &Hosts, provider: Provider) -> (String, Service) {
    let each = hosts.all.iter().map(|host| {
        let edge = if host.name == "h3" { "no" } else { "yes" };
        let (name, endpoint) = (&host.name, host.endpoint());
        format!(
            "        - {{name: {name}, endpoint: \"{endpoint}\", labels: {{edge: \"{edge}\"}}}}\n"
        )
    });
    let all = each.collect::<Vec<_>>().concat();
    let text = format!(
        "apiVersion: evenkeel.dev/v1alpha1
kind: Fleet
metadata: {{name: shop}}
spec:
  backend:
    docker:
      hosts:
{all}---
apiVersion: evenkeel.dev/v1alpha1
kind: LoadBalancer
metadata: {{name: edge}}
spec:
  fleet: shop
  replicas: 2
  provider: {{{provider}: {{image: \"evenkeel/balancers:1\"}}}}
  placement: {{constraints: [\"edge == yes\"], maxPerHost: 1}}
  listeners: [{{name: http, port: 80, publish: {PUBLISH}}}]
---
apiVersion: evenkeel.dev/v1alpha1
kind: ScalingService
metadata: {{name: web}}
spec:
  fleet: shop
  replicas: {REPLICAS}
  image: evenkeel/toy:1
  env: [{{name: TOY_SLOW, value: {SLOW}ms}}]
  ports: [{{name: http, containerPort: 8080, publish: 9200}}]
  health: {{http: {{path: /healthz, port: http}}, interval: 1s, timeout: 1s}}
  routes: [{{loadBalancer: edge, listener: http, port: http}}]
  rollout: {{maxSurge: 1, progressDeadline: 60s}}
  termination: {{drain: 5s, grace: 5s, signal: SIGKILL}}
  onHostLost: {{replaceAfter: 15s, keep: healthiest}}
"
    );
    (text, Service { name: "web".into(), ..bed.service("web", REPLICAS) })
}

struct Scene<'h> {
    hosts: &'h Hosts,
    agent: Agent,
    bed: Bed,
    web: Service,
    commit: String,
    load: Load,
}

impl<'h> Scene<'h> {
    /// Six instances on three hosts, two on each, behind two balancers that are asked all the time.
    async fn begin(bed: Bed, hosts: &'h Hosts, provider: Provider) -> Self {
        let (text, web) = documents(&bed, hosts, provider);
        bed.repo.write("shop.yaml", text);
        let commit = bed.repo.commit("begin");
        let mut agent = bed.agent();
        agent.settled(&web, &commit).await;
        let edge = Service { name: "edge".into(), ..bed.service("edge", 2) };
        agent.settled(&edge, &commit).await;
        let balancers = [&hosts.all[0], &hosts.all[1]];
        let at = balancers.map(|host| SocketAddr::new(host.ip, PUBLISH)).into();
        let load =
            Load::start(Plan { at, host: "web".into(), path: "/".into(), rate: RATE, workers: 30 });
        let scene = Self { hosts, agent, bed, web, commit, load };
        let begun = Stage::begin(&scene.load).await;
        scene.well("peace", begun).await;
        for host in &hosts.all {
            let here = scene.ids().await.values().filter(|at| **at == host.name).count();
            assert_eq!(here, 2, "on {}", host.name);
        }
        scene
    }

    /// The running instances by id, each with its host.
    async fn ids(&self) -> BTreeMap<String, String> {
        let all = self.hosts.of("web").await;
        let runs = all.into_iter().filter(|(_, c)| c.state == "running");
        runs.map(|(host, c)| (c.id, host.name.clone())).collect()
    }

    /// Ends a stage in which not one request may be lost.
    async fn well(&self, what: &'static str, begun: Instant) {
        let stage = Stage::end(&self.load, what, begun, LEAST).await;
        eprintln!("{stage}");
        assert!(stage.report.failures.is_empty(), "{stage}\n{:#?}", stage.report.failures);
    }

    /// Waits until the host is known to be silent and others have taken over, exactly one for each of its instances.
    async fn replaced(&mut self, before: &BTreeMap<String, String>, lost: &Host) {
        let mine = |(id, at): (&String, &String)| (*at != lost.name).then(|| id.clone());
        let stayed: BTreeSet<String> = before.iter().filter_map(mine).collect();
        let now = until("others have taken over", LONG, async || {
            let now: BTreeSet<String> = self.ids().await.iter().filter_map(mine).collect();
            (now.len() >= REPLICAS as usize).then_some(now)
        })
        .await;
        assert!(now.is_superset(&stayed), "somebody was restarted");
        assert_eq!(now.len(), REPLICAS as usize, "one for each");
        let web = self.web.clone();
        self.agent
            .until("they are available", |s| find(s, &web).is_some_and(|s| s.available == REPLICAS))
            .await;
    }

    /// Waits until everything is as it should be, and looks whether it stays so.
    async fn calm(&mut self) {
        let (web, commit) = (self.web.clone(), self.commit.clone());
        self.agent
            .until("every host answers", |s| s.fleets[0].hosts.iter().all(|h| h.state == "up"))
            .await;
        self.agent.settled(&web, &commit).await;
        let ids = self.ids().await;
        assert_eq!(ids.len(), REPLICAS as usize);
        throughout(Duration::from_secs(5), async || {
            assert_eq!(self.ids().await, ids, "it flaps");
        })
        .await;
    }

    /// The host comes back: nothing is lost by it, and nothing flaps.
    async fn returns(&mut self, what: &'static str, back: impl FnOnce()) {
        let begun = Stage::begin(&self.load).await;
        back();
        self.calm().await;
        self.well(what, begun).await;
    }

    async fn end(mut self) {
        self.agent.settled(&self.web, &self.commit).await;
        let rest = self.load.end().await;
        assert!(rest.failures.is_empty(), "at the end: {rest}");
        self.bed.nothing_left();
    }
}

/// What was under way to the host when it was lost is lost with it, and a few more until it is noticed; nothing after.
fn noticed(mut stage: Stage, lost: Instant) {
    let end = stage.report.failures.iter().map(|f| f.begun).max().unwrap_or(lost);
    // Of those that the host had received the balancer says so before its clients lose patience, after ten seconds. Of those
    // that were sent into the silence it does not: see docs/operations.md.
    let hung = |f: &&Failure| f.kind == Kind::Timeout && f.begun < lost;
    let hung = stage.report.failures.iter().filter(hung).count();
    assert_eq!(hung, 0, "requests hang: {stage}");
    stage.excused = stage.report.excuse(|f| f.ended >= lost && f.begun <= lost + NOTICED);
    let within = end.saturating_duration_since(lost).as_secs_f64();
    eprintln!("{stage}, the last begun after {within:.1} s");
    assert!(stage.report.failures.is_empty(), "{stage}\n{:#?}", stage.report.failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_cut_off_is_replaced_and_its_return_loses_nothing() {
    let bed = Bed::new().await;
    let hosts = Hosts::claim(&bed).await;
    let mut scene = Scene::begin(bed, &hosts, Provider::Haproxy).await;
    let h3 = hosts.get("h3");
    let before = scene.ids().await;

    let begun = Stage::begin(&scene.load).await;
    let lost = Instant::now();
    h3.cut();
    scene.replaced(&before, h3).await;
    assert!(lost.elapsed() >= Duration::from_secs(15), "it was waited for");
    noticed(Stage::end(&scene.load, "cut off", begun, LEAST).await, lost);
    let begun = Stage::begin(&scene.load).await;
    scene.well("without it", begun).await;

    scene.returns("back", || h3.mend()).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_killed_takes_no_traffic_with_it() {
    let bed = Bed::new().await;
    let hosts = Hosts::claim(&bed).await;
    let mut scene = Scene::begin(bed, &hosts, Provider::Haproxy).await;
    let h3 = hosts.get("h3");
    let before = scene.ids().await;

    // Its containers go on, and so do the clients: nobody takes them out of the balancers.
    let begun = Stage::begin(&scene.load).await;
    h3.kill_engine();
    scene.replaced(&before, h3).await;
    scene.well("engine killed", begun).await;

    scene.returns("engine back", || hosts.revive()).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_dies_comes_back_empty_handed_and_nobody_notices() {
    let bed = Bed::new().await;
    let hosts = Hosts::claim(&bed).await;
    let mut scene = Scene::begin(bed, &hosts, Provider::Haproxy).await;
    let h3 = hosts.get("h3");
    let before = scene.ids().await;

    let begun = Stage::begin(&scene.load).await;
    let lost = Instant::now();
    h3.die().await;
    scene.replaced(&before, h3).await;
    noticed(Stage::end(&scene.load, "power off", begun, LEAST).await, lost);

    scene.returns("power on", || hosts.revive()).await;
    assert!(scene.hosts.of("web").await.iter().all(|(_, c)| c.state == "running"), "the dead stay");
    scene.end().await;
}

/// A new agent cannot see who runs on a host that does not answer. One that dies elsewhere meanwhile is taken out at once,
/// and nobody else is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_begins_while_a_host_does_not_answer_takes_nobody_out() {
    let bed = Bed::new().await;
    let hosts = Hosts::claim(&bed).await;
    let mut scene = Scene::begin(bed, &hosts, Provider::Nginx).await;
    let (h1, h3) = (hosts.get("h1"), hosts.get("h3"));
    let before = hosts.of("web").await;
    let on = |host: &Host| -> Vec<&Seen> {
        before.iter().filter(|(at, _)| at.name == host.name).map(|(_, c)| c).collect()
    };
    let begun = Stage::begin(&scene.load).await;
    h3.kill_engine();
    scene.agent.kill();
    scene.agent = scene.bed.agent();
    scene.agent.planned(&scene.commit).await;
    let killed = Instant::now();
    h1.docker.kill_container(&on(h1)[0].id, None).await.unwrap();
    let gone = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut stage = Stage::end(&scene.load, "one dies", begun, LEAST).await;
    stage.excused = stage.report.excuse(|f| f.begun <= gone && f.ended >= killed);
    eprintln!("{stage}");
    assert!(stage.report.failures.is_empty(), "{stage}\n{:#?}", stage.report.failures);
    assert!(stage.excused < 10, "{stage}");
    let web = ServiceName::new("web").unwrap();
    for slot in on(h3).iter().map(|c| Slot(c.slot.parse().unwrap())) {
        let asked = stage.report.between(&instance_host_name(&web, slot));
        let (_, last) = asked.unwrap_or_else(|| panic!("it serves: {:?}", stage.report.spread()));
        assert!(last > gone + Duration::from_secs(2), "nobody asks {slot} any more");
    }
    scene.returns("engine back", || hosts.revive()).await;
    scene.end().await;
}
