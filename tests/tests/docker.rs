//! The Docker backend against the real engine of this machine.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

#[path = "docker/container.rs"]
mod container;
#[path = "docker/ending.rs"]
mod ending;
#[path = "docker/haproxy.rs"]
mod haproxy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel::backend::Backend;
use evenkeel::error::{Remedy, causes};
use evenkeel::model::{
    CommandCheck, EnvValue, EnvVar, HealthState, HostName, InstanceSpec, Mount, MountSource, Port,
    Probe, ProbeKind, Protocol, Published, Resources, Secret, Seen, ServiceName, Slot, SpecHash,
    Start, State, Step,
};
use evenkeel_tests::conformance::{
    Oracle, conformance, instances, remove, start, stop, until, until_within,
};
use evenkeel_tests::docker::{IMAGE, Rig, foreign, h1, idle, local, shell, tcp, watch};
use evenkeel_tests::proxy::{Mode, Proxy, parrot};

const GRACE: Duration = Duration::from_secs(1);

/// A rig whose host answers.
async fn ready() -> Rig {
    let rig = Rig::new().await;
    rig.watch_local();
    until(&rig.backend, &h1(), "the host answers", |v| v.seen == Seen::Now).await;
    rig
}

fn step(rig: &Rig, slot: u32, spec: InstanceSpec) -> Start {
    start(&h1(), &rig.owner, &format!("{}_{slot}", rig.name()), "web", slot, spec)
}

async fn refused(rig: &Rig, it: Start) -> (Remedy, String) {
    let e = rig.backend.apply(&Step::Start(it)).await.unwrap_err();
    (e.remedy, causes(&e))
}

/// Waits until nothing has rung for a while, or for long enough, and forgets what has rung.
async fn settle(rig: &Rig) {
    for _ in 0..20 {
        if tokio::time::timeout(Duration::from_millis(500), rig.bell.rung()).await.is_err() {
            return;
        }
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn it_keeps_the_contract_of_a_backend() {
    let rig = Rig::new().await;
    rig.watch_local();
    conformance(&rig.backend, &rig, &rig.name()).await;
}

#[tokio::test]
async fn every_field_of_a_spec_reaches_the_container() {
    let rig = ready().await;
    let dir = tempfile::tempdir().unwrap();
    let (front, back) = (format!("{}-front", rig.owner), format!("{}-back", rig.owner));
    let volume = format!("{}-data", rig.owner);
    let port = free_port();
    let spec = InstanceSpec {
        env: vec![
            EnvVar { name: "GREETING".into(), value: EnvValue::Plain("hi there".into()) },
            EnvVar {
                name: "TOKEN".into(),
                value: EnvValue::Secret {
                    name: "app".into(),
                    key: "token".into(),
                    value: Secret::new("hush-hush"),
                },
            },
        ],
        ports: vec![Port {
            name: "http".into(),
            container: 8080,
            protocol: Protocol::Tcp,
            publish: Some(port),
        }],
        resources: Resources { cpu_millis: 250, memory_bytes: 32 << 20 },
        mounts: vec![
            Mount {
                source: MountSource::Host(dir.path().to_str().unwrap().into()),
                path: "/data".into(),
                read_only: true,
            },
            Mount {
                source: MountSource::Volume(volume.clone()),
                path: "/volume".into(),
                read_only: false,
            },
        ],
        networks: vec![back.clone(), front.clone()],
        healthcheck: Some(CommandCheck {
            command: vec!["/bin/true".into()],
            interval: Duration::from_millis(500),
            timeout: Duration::from_secs(1),
            failure_threshold: 2,
            start_period: Duration::from_secs(1),
        }),
        ..idle()
    };
    let mut it = step(&rig, 3, spec);
    it.published = vec![Published { container: 8080, host: port, protocol: Protocol::Tcp }];
    it.stop_signal = "SIGINT".into();
    rig.backend.apply(&Step::Start(it.clone())).await.unwrap();
    let seen = instances(&rig.backend, &h1(), "web").remove(0);
    assert_eq!(seen.published, [port]);
    assert_eq!(seen.resources, Resources { cpu_millis: 250, memory_bytes: 32 << 20 });
    until(&rig.backend, &h1(), "its own check is heeded", |v| {
        matches!(v.instances[0].health, HealthState::Healthy { .. })
    })
    .await;

    let found = rig.docker.inspect_container(&seen.id.0, None).await.unwrap();
    let config = found.config.unwrap();
    assert_eq!(config.hostname.as_deref(), Some("web-3"));
    let env = config.env.unwrap();
    assert!(env.contains(&"GREETING=hi there".into()) && env.contains(&"TOKEN=hush-hush".into()));
    let labels = config.labels.unwrap();
    assert_eq!(labels["evenkeel.dev/hash"], it.hash.to_string());
    assert!(!format!("{labels:?}").contains("hush"), "a secret is in a label");
    assert!(!format!("{it:?} {seen:?}").contains("hush"), "a secret is in what is shown");
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    let host = found.host_config.unwrap();
    assert_eq!((host.nano_cpus, host.memory), (Some(250_000_000), Some(32 << 20)));
    assert_eq!(host.restart_policy.unwrap().name.unwrap().to_string(), "no");
    let mounts = found.mounts.unwrap();
    let at = |path: &str| mounts.iter().find(|m| m.destination.as_deref() == Some(path)).unwrap();
    assert_eq!((at("/data").rw, at("/volume").rw), (Some(false), Some(true)));
    let networks = found.network_settings.unwrap().networks.unwrap();
    for network in [&front, &back] {
        let aliases = networks[network].aliases.clone().unwrap_or_default();
        assert!(aliases.contains(&"web".into()), "{network}: {aliases:?}");
    }

    // Networks that we made are known, refused while in use, and go afterwards, once and twice.
    let view = rig.backend.views()[&h1()].clone();
    assert!(view.networks.contains(&*front) && view.networks.contains(&*back));
    let gone = Step::RemoveNetwork { host: h1(), network: front.as_str().into() };
    assert_eq!(rig.backend.apply(&gone).await.unwrap_err().remedy, Remedy::Reobserve);
    rig.backend.apply(&stop(&h1(), &seen, GRACE)).await.unwrap();
    for _ in 0..2 {
        rig.backend.apply(&gone).await.unwrap();
        assert!(!rig.backend.views()[&h1()].networks.contains(&*front));
    }
    let theirs = Step::RemoveNetwork { host: h1(), network: "bridge".into() };
    assert_eq!(rig.backend.apply(&theirs).await.unwrap_err().remedy, Remedy::Reobserve);
    // Named volumes outlive their instances.
    assert!(rig.docker.inspect_volume(&volume).await.is_ok());
    rig.docker
        .remove_volume(&volume, None::<bollard::query_parameters::RemoveVolumeOptions>)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_cannot_start_says_why_and_leaves_no_debris() {
    let rig = ready().await;
    let missing = Mount {
        source: MountSource::Host("/surely/not/there".into()),
        path: "/data".into(),
        read_only: true,
    };
    let (remedy, said) =
        refused(&rig, step(&rig, 1, InstanceSpec { mounts: vec![missing], ..idle() })).await;
    assert_eq!(remedy, Remedy::Hold, "{said}");
    assert!(said.contains("/surely/not/there"), "{said}");

    let nothing = InstanceSpec { command: Some(vec!["/no/such/program".into()]), ..idle() };
    let (remedy, said) = refused(&rig, step(&rig, 1, nothing)).await;
    assert_eq!(remedy, Remedy::Hold, "{said}");
    assert!(said.contains("/no/such/program"), "{said}");

    let port = free_port();
    let name = format!("{}-holder", rig.owner);
    foreign(&rig, &name, BTreeMap::new(), Some((80, port))).await;
    until(&rig.backend, &h1(), "foreign ports are seen", |v| v.foreign_ports.contains(&port)).await;
    let mut taken = step(&rig, 1, idle());
    taken.published = vec![Published { container: 80, host: port, protocol: Protocol::Tcp }];
    let (remedy, said) = refused(&rig, taken).await;
    assert_eq!(remedy, Remedy::Retry, "{said}");
    assert!(said.contains("port is already allocated"), "{said}");

    assert_eq!(rig.count().await, 0, "debris is left");
    assert_eq!(instances(&rig.backend, &h1(), "web"), []);

    // A container that was made and never started by an agent that stopped in between is started.
    let it = step(&rig, 2, idle());
    rig.backend.apply(&Step::Start(it.clone())).await.unwrap();
    let one = instances(&rig.backend, &h1(), "web").remove(0);
    let body = rig.docker.inspect_container(&one.id.0, None).await.unwrap();
    rig.backend.apply(&stop(&h1(), &one, GRACE)).await.unwrap();
    let labels: BTreeMap<_, _> = body.config.unwrap().labels.unwrap().into_iter().collect();
    let id = foreign(&rig, &it.name, labels, None).await;
    rig.docker.kill_container(&id, None).await.unwrap();
    until(&rig.backend, &h1(), "a death is seen", |v| {
        v.instances.iter().any(|i| i.state == State::Exited { code: 137, out_of_memory: false })
    })
    .await;
    let (remedy, _) = refused(&rig, it).await;
    assert_eq!(remedy, Remedy::Reobserve, "what ended is not started again under the same name");
}

/// The engine is on this machine, so its clock is ours.
#[expect(clippy::disallowed_methods, reason = "compared with what the engine wrote")]
fn wall_nanos() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

#[tokio::test]
async fn a_death_is_in_the_view_within_milliseconds() {
    let rig = ready().await;
    let mut took = Vec::new();
    for slot in 1..=5 {
        let it =
            step(&rig, slot, shell("while :; do sleep 0.05; test -f /tmp/end && exit 7; done"));
        rig.backend.apply(&Step::Start(it)).await.unwrap();
        let one = instances(&rig.backend, &h1(), "web").remove(0);
        let options = bollard::query_parameters::EventsOptionsBuilder::default()
            .filters(&std::collections::HashMap::from([
                ("container", vec![one.id.0.to_string()]),
                ("event", vec!["die".to_owned()]),
            ]))
            .build();
        let docker = rig.docker.clone();
        let died = async move {
            use futures::StreamExt;
            let mut events = std::pin::pin!(docker.events(Some(options)));
            let event = events.next().await.unwrap().unwrap();
            u64::try_from(event.time_nano.unwrap()).unwrap()
        };
        let seen = async {
            let dead = || {
                let of = instances(&rig.backend, &h1(), "web");
                of.iter().any(|i| matches!(i.state, State::Exited { code: 137, .. }))
            };
            while !dead() {
                rig.bell.rung().await;
            }
            wall_nanos()
        };
        let kill = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            rig.kill(&one.id.0).await;
        };
        let (died, seen, ()) = tokio::join!(died, seen, kill);
        took.push(Duration::from_nanos(seen.saturating_sub(died)));
        rig.backend.apply(&remove(&h1(), &one)).await.unwrap();
    }
    took.sort();
    println!("from the engine's own time of the die event to the bell: {took:?}");
    // How fast is for `cargo xtask bench` to say; here it must come from the event, not from a list.
    assert!(took[2] < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn crashes_are_seen_with_their_code() {
    let rig = ready().await;
    rig.backend.apply(&Step::Start(step(&rig, 1, shell("exit 7")))).await.unwrap();
    assert_eq!(instances(&rig.backend, &h1(), "web").len(), 1, "a crash at once hides the start");
    let view = until(&rig.backend, &h1(), "the crash is seen", |v| {
        v.instances.iter().any(|i| matches!(i.state, State::Exited { code: 7, .. }))
    })
    .await;
    rig.backend.apply(&remove(&h1(), &view.instances[0])).await.unwrap();
    // Paused, renamed and removed by somebody else.
    rig.backend.apply(&Step::Start(step(&rig, 2, idle()))).await.unwrap();
    let one = instances(&rig.backend, &h1(), "web").remove(0);
    rig.docker.pause_container(&one.id.0).await.unwrap();
    until(&rig.backend, &h1(), "a pause is seen", |v| v.instances[0].state == State::Paused).await;
    rig.docker.unpause_container(&one.id.0).await.unwrap();
    until(&rig.backend, &h1(), "its end is seen", |v| v.instances[0].state == State::Running).await;
    let new = format!("{}-renamed", rig.owner);
    let options =
        bollard::query_parameters::RenameContainerOptionsBuilder::default().name(&new).build();
    rig.docker.rename_container(&one.id.0, options).await.unwrap();
    until(&rig.backend, &h1(), "a rename is seen", |v| *v.instances[0].name == *new).await;
    let force =
        bollard::query_parameters::RemoveContainerOptionsBuilder::default().force(true).build();
    rig.docker.remove_container(&one.id.0, Some(force)).await.unwrap();
    until(&rig.backend, &h1(), "a removal is seen", |v| v.instances.is_empty()).await;
}

#[tokio::test]
async fn health_comes_from_the_agents_own_probes() {
    let rig = Rig::new().await;
    let probe = |kind, failure_threshold| Probe {
        kind,
        port: 8080,
        interval: Duration::from_millis(300),
        timeout: Duration::from_millis(500),
        failure_threshold,
        start_period: Duration::from_secs(20),
    };
    let http = || ProbeKind::Http { path: "/index.html".into() };
    let probes = BTreeMap::from([
        (ServiceName::new("web").unwrap(), probe(http(), 2)),
        (ServiceName::new("raw").unwrap(), probe(ProbeKind::Tcp, 2)),
    ]);
    rig.watch(&[("h1", local())], probes);
    until(&rig.backend, &h1(), "the host answers", |v| v.seen == Seen::Now).await;
    // It serves after half a second, and not found once the page is gone.
    let serves =
        "sleep 0.5; httpd -p 8080 -h /www; trap 'exit 0' TERM; while :; do sleep 0.1; done";
    rig.backend.apply(&Step::Start(step(&rig, 1, shell(serves)))).await.unwrap();
    let one = instances(&rig.backend, &h1(), "web").remove(0);
    assert_eq!(one.health, HealthState::Starting, "healthy before it was asked");
    let begun = tokio::time::Instant::now();
    let healthy = |s: &'static str| {
        move |v: &evenkeel::model::HostView| {
            let mut of = v.instances.iter().filter(|i| i.service.as_str() == s);
            of.any(|i| matches!(i.health, HealthState::Healthy { .. }))
        }
    };
    until(&rig.backend, &h1(), "it becomes healthy", healthy("web")).await;
    println!("healthy {:?} after the start of a server that needs 500 ms", begun.elapsed());
    let exec = std::process::Command::new("docker")
        .args(["exec", &one.id.0, "rm", "/www/index.html"])
        .status();
    assert!(exec.unwrap().success());
    until(&rig.backend, &h1(), "it becomes unhealthy", |v| {
        v.instances.iter().any(|i| matches!(i.health, HealthState::Unhealthy { .. }))
    })
    .await;
    let listens = shell("httpd -p 8080 -h /tmp; trap 'exit 0' TERM; while :; do sleep 0.1; done");
    let raw = start(&h1(), &rig.owner, &format!("{}-raw", rig.name()), "raw", 1, listens);
    rig.backend.apply(&Step::Start(raw)).await.unwrap();
    until(&rig.backend, &h1(), "a port that accepts is healthy", healthy("raw")).await;
}

#[tokio::test]
async fn from_afar_only_published_ports_are_probed() {
    let rig = Rig::new().await;
    let proxy = Proxy::listen(None).await;
    let probe = Probe {
        kind: ProbeKind::Http { path: "/index.html".into() },
        port: 8080,
        interval: Duration::from_millis(300),
        timeout: Duration::from_millis(500),
        failure_threshold: 2,
        start_period: Duration::from_secs(20),
    };
    rig.watch(
        &[("h1", tcp(&proxy.authority()))],
        BTreeMap::from([(ServiceName::new("web").unwrap(), probe)]),
    );
    until(&rig.backend, &h1(), "the host answers", |v| v.seen == Seen::Now).await;
    let serves = "httpd -p 8080 -h /www; trap 'exit 0' TERM; while :; do sleep 0.1; done";
    rig.backend.apply(&Step::Start(step(&rig, 1, shell(serves)))).await.unwrap();
    let hidden = instances(&rig.backend, &h1(), "web").remove(0);
    let said = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            if let Some(said) = rig.backend.problems().get(&h1()) {
                return said.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let said = said.await.unwrap();
    assert!(said.contains("not published"), "{said}");
    assert_eq!(instances(&rig.backend, &h1(), "web")[0].health, HealthState::Starting);
    rig.backend.apply(&stop(&h1(), &hidden, GRACE)).await.unwrap();

    let port = free_port();
    let mut it = step(&rig, 2, shell(serves));
    it.published = vec![Published { container: 8080, host: port, protocol: Protocol::Tcp }];
    rig.backend.apply(&Step::Start(it)).await.unwrap();
    until(&rig.backend, &h1(), "it becomes healthy", |v| {
        matches!(v.instances[0].health, HealthState::Healthy { .. })
    })
    .await;
}

#[tokio::test]
async fn a_host_that_breaks_turns_silent_and_catches_up() {
    let rig = Rig::new().await;
    let proxy = Proxy::listen(None).await;
    rig.watch(&[("h1", tcp(&proxy.authority())), ("h2", local())], BTreeMap::new());
    let h2 = HostName::new("h2").unwrap();
    for host in [h1(), h2.clone()] {
        until(&rig.backend, &host, "it answers", |v| v.seen == Seen::Now).await;
    }
    let names: Vec<String> = (1..=3).map(|n| format!("{}_{n}", rig.name())).collect();
    for slot in [1, 2] {
        rig.backend.apply(&Step::Start(step(&rig, slot, idle()))).await.unwrap();
    }
    let before = instances(&rig.backend, &h1(), "web");
    let silent = |v: &evenkeel::model::HostView| matches!(v.seen, Seen::Silent { .. });
    for mode in [Mode::Cut, Mode::Stall, Mode::Garble] {
        // Nothing is being asked: that it stalls can only be found by asking.
        settle(&rig).await;
        proxy.set(mode);
        if mode == Mode::Garble {
            // An open connection that says nothing more is only noticed when it is asked.
            proxy.set(Mode::Cut);
            proxy.set(mode);
        }
        let limit = Duration::from_secs(15);
        let view = until_within(limit, &rig.backend, &h1(), "it is silent", silent).await;
        assert_eq!(view.instances.len(), 2, "{mode:?}: the last known is forgotten");
        assert!(!rig.backend.problems()[&h1()].is_empty());
        let e = rig.backend.apply(&Step::Start(step(&rig, 3, idle()))).await.unwrap_err();
        assert_eq!(e.remedy, Remedy::Retry);
        assert_eq!(rig.backend.views()[&h2].seen, Seen::Now, "another host suffers");
        // Missed events: one dies and one appears while nobody looks.
        let dies = before.iter().find(|i| i.slot == Slot(1)).unwrap();
        let state = rig.state(&dies.id.0).await;
        if state == Some(true) {
            rig.kill(&dies.id.0).await;
        }
        let name = format!("{}-{mode:?}", rig.owner).to_lowercase();
        foreign(&rig, &name, BTreeMap::new(), None).await;
        proxy.set(Mode::Pass);
        until_within(Duration::from_secs(30), &rig.backend, &h1(), "it catches up", |v| {
            v.seen == Seen::Now
                && v.foreign_names.contains(name.as_str())
                && v.instances
                    .iter()
                    .any(|i| i.id == dies.id && matches!(i.state, State::Exited { code: 137, .. }))
        })
        .await;
        assert_eq!(rig.backend.problems().get(&h1()), None, "{names:?}");
    }
}

#[tokio::test]
async fn what_is_not_an_engine_is_that_hosts_problem_only() {
    let rig = Rig::new().await;
    let (web, _web) =
        parrot(b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\nconnection: close\r\n\r\nsorry")
            .await;
    let (page, _page) =
        parrot(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>").await;
    let (noise, _noise) = parrot(b"\x00\x01\x02 SSH-2.0 garbage\r\n\r\n").await;
    let refusing = format!("127.0.0.1:{}", free_port());
    let nothing = evenkeel::model::Endpoint::Unix { path: "/no/such.sock".into() };
    let hosts = [
        ("web", tcp(&web)),
        ("page", tcp(&page)),
        ("noise", tcp(&noise)),
        ("refuses", tcp(&refusing)),
        ("nothing", nothing),
        ("h1", local()),
    ];
    rig.watch(&hosts, BTreeMap::new());
    until(&rig.backend, &h1(), "the good one answers", |v| v.seen == Seen::Now).await;
    let said = |host: &str, needle: &str| {
        let host = HostName::new(host).unwrap();
        let needle = needle.to_owned();
        let rig = &rig;
        async move {
            let poll = async {
                while !rig.backend.problems().get(&host).is_some_and(|p| p.contains(&needle)) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let done = tokio::time::timeout(Duration::from_secs(10), poll).await;
            assert!(done.is_ok(), "{host}: {:?}", rig.backend.problems().get(&host));
            let seen = rig.backend.views()[&host].seen;
            assert!(matches!(seen, Seen::Never { .. }), "{host}: {seen:?}");
        }
    };
    said("web", "not as a Docker Engine").await;
    said("page", "not as a Docker Engine").await;
    said("noise", "HTTP").await;
    said("refuses", "refused").await;
    said("nothing", "/no/such.sock").await;
    println!("{:#?}", rig.backend.problems());
    // Hosts that leave the fleet are let go.
    rig.watch(&[("h1", local())], BTreeMap::new());
    assert_eq!(rig.backend.views().len(), 1);
    assert_eq!(rig.backend.problems().len(), 0);
}

#[tokio::test]
async fn two_owners_on_one_engine_never_meet() {
    let rig = ready().await;
    let (owner, other) = rig.neighbour();
    other.watch(watch(&[("h1", local())], BTreeMap::new()));
    until(&other, &h1(), "the other one answers", |v| v.seen == Seen::Now).await;
    rig.backend.apply(&Step::Start(step(&rig, 1, idle()))).await.unwrap();
    let spec = idle();
    let theirs = Start {
        name: format!("{}-b_1", rig.name()).into(),
        hash: SpecHash::of(&owner, &spec),
        ..step(&rig, 1, spec)
    };
    other.apply(&Step::Start(theirs.clone())).await.unwrap();
    let ours = instances(&rig.backend, &h1(), "web").remove(0);
    until(&rig.backend, &h1(), "theirs is foreign to us", |v| {
        v.foreign_names.contains(&theirs.name) && v.instances.len() == 1
    })
    .await;
    until(&other, &h1(), "ours is foreign to them", |v| {
        v.foreign_names.contains(&ours.name) && v.instances.len() == 1
    })
    .await;
    for step in [stop(&h1(), &ours, GRACE), remove(&h1(), &ours)] {
        assert_eq!(other.apply(&step).await.unwrap_err().remedy, Remedy::Reobserve);
    }
    assert_eq!(rig.state(&ours.id.0).await, Some(true));
}

#[tokio::test]
async fn a_bell_rings_for_every_change_and_for_nothing_else() {
    let rig = ready().await;
    rig.backend.apply(&Step::Start(step(&rig, 1, idle()))).await.unwrap();
    let one = instances(&rig.backend, &h1(), "web").remove(0);
    // Others use the engine too: what they do may change the view, and then it rings rightly.
    for _ in 0..5 {
        settle(&rig).await;
        let before = Arc::clone(&rig.backend.views()[&h1()]);
        let exec =
            tokio::process::Command::new("docker").args(["exec", &one.id.0, "true"]).status();
        assert!(exec.await.unwrap().success());
        let rang = tokio::time::timeout(Duration::from_millis(500), rig.bell.rung()).await;
        let same = Arc::ptr_eq(&before, &rig.backend.views()[&h1()]);
        assert_eq!(rang.is_err(), same, "rang: {}, the same view: {same}", rang.is_ok());
        assert_eq!(before.instances, rig.backend.views()[&h1()].instances);
    }
    rig.kill(&one.id.0).await;
    let rings = async {
        while rig.backend.views()[&h1()].instances[0].state == State::Running {
            rig.bell.rung().await;
        }
    };
    let rang = tokio::time::timeout(Duration::from_secs(5), rings).await;
    assert!(rang.is_ok(), "it did not ring for a death");
}

#[tokio::test]
async fn starts_in_parallel_all_arrive() {
    let rig = ready().await;
    let starts = (1..=8).map(|slot| {
        let step = Step::Start(step(&rig, slot, idle()));
        let backend = &rig.backend;
        async move {
            backend.apply(&step).await.unwrap();
            let seen = instances(backend, &h1(), "web");
            assert!(seen.iter().any(|i| Some(i.slot) == step.slot() && i.state == State::Running));
        }
    });
    let begun = tokio::time::Instant::now();
    futures::future::join_all(starts).await;
    println!("8 starts at once: {:?}", begun.elapsed());
    let all = instances(&rig.backend, &h1(), "web");
    assert_eq!(all.len(), 8);
    assert_eq!(rig.count().await, 8);
    let stops = all.iter().map(|i| {
        let backend = &rig.backend;
        async move { backend.apply(&stop(&h1(), i, GRACE)).await.unwrap() }
    });
    futures::future::join_all(stops).await;
    assert_eq!(instances(&rig.backend, &h1(), "web"), []);
    assert!(rig.docker.inspect_image(IMAGE).await.is_ok());
}
