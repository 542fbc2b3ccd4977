//! How soon a balancer lets go of an instance that died, and how soon a new one is asked.

use std::collections::HashMap;
use std::fs;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::EventsOptionsBuilder;
use evenkeel_tests::agent::{LONG, Service, find, until};
use evenkeel_tests::traffic::{Provider, Show, children};
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::{millis, now};
use evenkeel_tests::measure::rows;

/// Requests a second, where a new instance is waited for.
const RATE: u32 = 500;
/// Each dies once a spec: a slot that dies twice is rightly given a pause.
const REPLICAS: u32 = 10;
/// What dies before a spec has proven itself speaks against the spec, and is replaced at a slower pace.
const PROVEN: Duration = Duration::from_secs(15);

/// When containers died, by the engine's clock.
struct Deaths {
    seen: Arc<Mutex<HashMap<String, i64>>>,
    _task: JoinSet<()>,
}

impl Deaths {
    fn listen(docker: &Docker) -> Self {
        let filters = HashMap::from([("type", vec!["container"]), ("event", vec!["die"])]);
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        let mut stream = docker.events(Some(options));
        let seen = Arc::<Mutex<HashMap<String, i64>>>::default();
        let (into, mut task) = (seen.clone(), JoinSet::new());
        task.spawn(async move {
            while let Some(Ok(event)) = stream.next().await {
                let id = event.actor.and_then(|a| a.id).unwrap_or_default();
                into.lock().unwrap().insert(id, event.time_nano.unwrap_or_default());
            }
        });
        Self { seen, _task: task }
    }

    async fn of(&self, id: &str) -> i64 {
        until("the engine tells of a death", LONG, async || {
            self.seen.lock().unwrap().get(id).copied()
        })
        .await
    }
}

/// A conversation with HAProxy's runtime socket beside that of the agent.
struct Runtime {
    child: Child,
    heard: Vec<u8>,
}

impl Runtime {
    async fn open(id: &str) -> Self {
        let script = "exec 3<>/dev/tcp/127.0.0.1/9099; cat <&3 & cat >&3";
        let child = Command::new("docker")
            .args(["exec", "-i", id, "bash", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut runtime = Self { child, heard: Vec::new() };
        runtime.ask("prompt").await;
        runtime
    }

    async fn ask(&mut self, command: &str) -> String {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        input.flush().await.unwrap();
        loop {
            if self.heard.ends_with(b"\n> ") {
                let text = String::from_utf8_lossy(&self.heard).into_owned();
                self.heard.clear();
                return text;
            }
            let output = self.child.stdout.as_mut().unwrap();
            assert!(output.read_buf(&mut self.heard).await.unwrap() > 0, "the socket is closed");
        }
    }

    /// Whether requests go to an address.
    async fn serves(&mut self, ip: &str) -> bool {
        let said = self.ask("show servers state").await;
        let header = said.lines().find_map(|l| l.strip_prefix("# ")).unwrap_or_default();
        let column = |name: &str| header.split(' ').position(|c| c == name).unwrap();
        let (address, admin) = (column("srv_addr"), column("srv_admin_state"));
        let up = column("srv_op_state");
        said.lines().filter(|l| !l.starts_with('#')).any(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| fields.get(at).and_then(|n| n.parse::<u32>().ok());
            // That its file once had it disabled says nothing of now.
            let out = number(admin).is_none_or(|bits| bits & !0x04 != 0) || number(up) == Some(0);
            fields.get(address) == Some(&ip) && !out
        })
    }
}

/// Whether requests go to an address: its file says so, or a worker that knew it still takes requests.
fn nginx_serves(master: i64, before: &[u32], at: &str) -> bool {
    let file = fs::read_to_string(format!("/proc/{master}/root/etc/evenkeel/nginx.conf"));
    // Behind `#` there may be what people are told.
    let listed = |l: &str| l.trim_start().starts_with("server ") && l.contains(at);
    if file.unwrap_or_default().lines().any(|l| listed(l) && !l.contains(" down")) {
        return true;
    }
    children(master).into_iter().filter(|pid| before.contains(pid)).any(|pid| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        !command.is_empty() && !command.contains("shutting down")
    })
}

pub(crate) async fn measure(quick: bool) {
    for provider in [Provider::Haproxy, Provider::Nginx] {
        eprintln!("drop: {provider}");
        let specs = if quick { 1 } else { 5 };
        let mut show = Show::begin(provider, 1, 100, 0, 0).await;
        let deaths = Deaths::listen(&show.bed.docker);
        let mut gone = Vec::new();
        let mut lost = 0;
        for variant in 0..specs {
            show.web = show.web.replicas(REPLICAS).env("VARIANT", &variant.to_string());
            show.commit();
            show.settled().await;
            sleep(PROVEN).await;
            for victim in show.bed.of(&show.web.clone()).await {
                show.load.take();
                gone.push(died(&show, provider, &deaths, &victim.id, &victim.address).await);
                show.settled().await;
                lost += show.load.take().failures.len();
            }
            eprintln!("drop: {provider}: {gone:.1?}, {lost} requests lost");
        }
        show.end().await;
        let first = first_requests(provider, if quick { 5 } else { 20 }).await;
        let what = format!("{provider}, die event to no more requests");
        let targets = match provider {
            Provider::Haproxy => [Some(20), Some(100)],
            Provider::Nginx => [Some(500), None],
        };
        rows("drop", &what, &gone, targets);
        let what = format!("{provider}, healthy to first request, {RATE} requests/s to 3");
        rows("drop", &what, &first, targets);
    }
}

/// Kills an instance; gives the time from its death until the balancer has let go of it.
async fn died(show: &Show, provider: Provider, deaths: &Deaths, id: &str, at: &str) -> f64 {
    let edge = show.front.service(&show.bed);
    let balancer = show.bed.ids(&edge).await.into_values().next().unwrap();
    let master = show.masters().await.into_values().next().unwrap();
    let workers = children(master);
    let ip = at.split(':').next().unwrap();
    let mut runtime = match provider {
        Provider::Haproxy => Some(Runtime::open(&balancer).await),
        Provider::Nginx => None,
    };
    let mut serves = async || match &mut runtime {
        Some(runtime) => runtime.serves(ip).await,
        None => nginx_serves(master, &workers, at),
    };
    assert!(serves().await, "{at} is not asked at all");
    let docker = show.bed.docker.clone();
    let victim = id.to_owned();
    let mut killing = JoinSet::new();
    killing.spawn(async move { docker.kill_container(&victim, None).await.unwrap() });
    let begun = Instant::now();
    let out = loop {
        if !serves().await {
            break now();
        }
        assert!(begun.elapsed() < LONG, "it is never let go of");
        sleep(Duration::from_millis(1)).await;
    };
    killing.join_next().await;
    // Below nothing where its own checks were before the engine's word.
    millis(out - deaths.of(id).await)
}

/// The time from the first successful check of a new instance until its first request. Few take turns at many
/// requests, so that its turn comes at once.
async fn first_requests(provider: Provider, times: u32) -> Vec<f64> {
    let mut show = Show::begin(provider, 1, RATE, 0, 0).await;
    show.settle_at(2).await;
    let mut all = Vec::new();
    for _ in 0..times {
        show.load.more(1).await;
        show.load.take();
        let (then, stamp) = (Instant::now(), now());
        show.web = show.web.replicas(3);
        show.commit();
        show.ring().await;
        show.settled().await;
        show.load.more(1).await;
        let report = show.load.take();
        let healthy = healthy_since(&show, &show.web, "3").await;
        let new = report.spread().into_keys().find(|i| i.ends_with("-3"));
        let Some(name) = new else {
            panic!("no request reached the third: {:?}", report.spread());
        };
        let (first, _) = report.between(&name).unwrap();
        let first = stamp + i64::try_from((first - then).as_nanos()).unwrap();
        // The agent's stamps are whole milliseconds.
        all.push((millis(first) - healthy).max(0.0));
        show.settle_at(2).await;
    }
    show.end().await;
    all
}

async fn healthy_since(show: &Show, web: &Service, slot: &str) -> f64 {
    let status = show.agent.status().await.unwrap();
    let its = find(&status, web).unwrap().instances.iter();
    let found = its.filter(|i| i.slot.to_string() == slot).find_map(|i| i.health_since);
    #[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
    let since = found.unwrap().0.0 as f64;
    since
}
