//! A small world that has one of everything, and a report in which one of everything has happened.

use std::time::Duration;

use super::super::*;
use crate::model::{
    AppClaim, Endpoint, EnvValue, EnvVar, FieldChange, HealthState, HostSpec, HostState, HostView,
    Instance, InstanceId, InstanceSpec, Keep, Limits, Placement, Reason, Resources, Rollout,
    Secret, Seen, Service, ServiceStatus, Slot, SpecHash, Start, State as Life, Step, Subject,
    Termination, Traffic, Waiting, Why,
};

pub(super) const SECRET: &str = "hunter2-and-more";
pub(super) const NOW: Time = Time(1_763_800_000_000);

pub(super) fn ago(s: u64) -> Time {
    Time(NOW.0 - s * 1000)
}

pub(super) fn svc(s: &str) -> ServiceName {
    ServiceName::new(s).unwrap()
}

pub(super) fn host(s: &str) -> HostName {
    HostName::new(s).unwrap()
}

pub(super) fn fleet_name() -> FleetName {
    FleetName::new("shop").unwrap()
}

pub(super) fn spec(image: &str) -> Arc<InstanceSpec> {
    let var = |name: &str, value| EnvVar { name: name.into(), value };
    Arc::new(InstanceSpec {
        image: image.into(),
        env: vec![
            var("GREETING", EnvValue::Plain("a-plain-greeting".into())),
            var(
                "TOKEN",
                EnvValue::Secret {
                    name: "app".into(),
                    key: "t".into(),
                    value: Secret::new(SECRET),
                },
            ),
        ],
        ..InstanceSpec::default()
    })
}

pub(super) fn service(name: &str, replicas: u32, image: &str, hash: u64) -> Arc<Service> {
    Arc::new(Service {
        name: svc(name),
        fleet: fleet_name(),
        replicas,
        spec: spec(image),
        hash: SpecHash(hash),
        probe: None,
        placement: Placement::default(),
        rollout: Rollout::default(),
        termination: Termination::default(),
        replace_after: Duration::from_secs(20),
        keep: Keep::Healthiest,
        placements: BTreeMap::new(),
        app: AppClaim::default(),
        shifting: None,
        suspend: false,
        routed: false,
        exposure: crate::model::Exposure::default(),
        document: format!("{{\"env\":\"{SECRET}\"}}").as_str().into(),
    })
}

pub(super) fn fleet() -> Arc<Fleet> {
    let one = |name: &str, endpoint, state| {
        let labels = [("zone".to_owned(), "a".to_owned())].into();
        (
            host(name),
            Arc::new(HostSpec {
                name: host(name),
                endpoint,
                address: None,
                labels,
                state,
                registry_auth: None,
            }),
        )
    };
    Arc::new(Fleet {
        name: fleet_name(),
        hosts: [
            one("h1", Endpoint::Unix { path: "/var/run/docker.sock".into() }, HostState::Active),
            one(
                "h2",
                Endpoint::Ssh { authority: format!("root:{SECRET}@10.77.0.12") },
                HostState::Draining,
            ),
        ]
        .into(),
        marathon: None,
        limits: Limits::default(),
        registry: None,
        approved_prune: None,
    })
}

pub(super) fn instance(
    name: &str,
    slot: u32,
    hash: u64,
    state: Life,
    health: HealthState,
) -> Instance {
    Instance {
        id: InstanceId("0123456789abcdef".into()),
        name: name.into(),
        service: svc(name.split('_').next().unwrap()),
        slot: Slot(slot),
        hash: SpecHash(hash),
        state,
        health,
        created: ago(754),
        resources: Resources { cpu_millis: 100, memory_bytes: 64 << 20 },
        published: vec![8080],
        bindings: vec![(80, 8080)],
        networks: vec![],
        at: None,
        traffic: Traffic::Serving { up: true },
    }
}

pub(super) fn status_of(desired: u32, available: u32, phase: Phase, hash: u64) -> ServiceStatus {
    ServiceStatus {
        desired,
        total: available + 1,
        updated: available,
        ready: available,
        available,
        phase,
        hash: SpecHash(hash),
        spec: spec(if hash == 7 { "postgres:18" } else { "registry.example:5000/shop/web:2" }),
    }
}

pub(super) fn start(name: &str, reason: Reason) -> Planned {
    Planned {
        step: Arc::new(Step::Start(Start {
            host: host("h1"),
            name: name.into(),
            service: svc("web"),
            slot: Slot(3),
            hash: SpecHash(2),
            spec: spec("web:2"),
            published: vec![],
            stop_signal: "SIGTERM".into(),
        })),
        reason,
    }
}

pub(super) fn update() -> Reason {
    let change = |field: &str, old: &str, new: &str| FieldChange {
        field: field.into(),
        old: Some(old.into()),
        new: Some(new.into()),
    };
    Reason::Update {
        changes: vec![
            change("image", "web:1", "web:2"),
            change("env.GREETING", "an-old-greeting", "a-plain-greeting"),
            change("env.TOKEN", SECRET, "other"),
            change("env", "an-old-greeting", "a-plain-greeting"),
        ],
        revision: revision(),
    }
}

pub(super) fn revision() -> Revision {
    Revision("4f2a9c1d3e5b6a7081920a1b2c3d4e5f60718293".into())
}

pub(super) fn pass() -> PassReport {
    let desired = Desired {
        revision: revision(),
        fleets: [(fleet_name(), fleet())].into(),
        services: [
            (svc("web"), service("web", 3, "registry.example:5000/shop/web:2", 2)),
            (svc("db"), service("db", 1, "postgres:18", 7)),
        ]
        .into(),
        routings: [].into(),
        held: BTreeSet::default(),
        problems: vec![],
        removal: crate::model::Removal::default(),
    };
    let seen = |seen, instances| {
        let mut v = HostView::never(ago(600));
        v.seen = seen;
        v.capacity = Resources { cpu_millis: 4000, memory_bytes: 8 << 30 };
        v.instances = instances;
        Arc::new(v)
    };
    let healthy = HealthState::Healthy { since: ago(700) };
    let died = Life::Exited { code: 137, out_of_memory: true };
    let world = World {
        hosts: [
            (
                host("h1"),
                seen(
                    Seen::Now,
                    vec![
                        instance("web_1", 1, 2, Life::Running, healthy),
                        instance("db_1", 1, 7, died, HealthState::Starting),
                    ],
                ),
            ),
            (
                host("h2"),
                seen(
                    Seen::Silent { since: ago(12) },
                    vec![instance("web_2", 2, 1, Life::Running, healthy)],
                ),
            ),
        ]
        .into(),
        in_flight: vec![],
        balancers: [].into(),
        registry: None,
        voters: None,
        elsewhere: crate::model::Elsewhere::default(),
    };
    let wait = |subject, why, until| Waiting { subject, why, until };
    let plan = Plan {
        edges: crate::model::Edges::default(),
        steps: vec![
            start("web_3", Reason::Scale { have: 2, want: 3, revision: revision() }),
            start("web_1.2", update()),
            Planned {
                step: Arc::new(Step::Stop {
                    host: host("h1"),
                    id: InstanceId("0123456789abcdef".into()),
                    name: "web_1".into(),
                    service: svc("web"),
                    slot: Slot(1),
                    signal: "SIGTERM".into(),
                    grace: Duration::from_secs(10),
                }),
                reason: Reason::Replaced { by: "web_1.2".into() },
            },
            Planned {
                step: Arc::new(Step::RemoveNetwork { host: host("h1"), network: "old".into() }),
                reason: Reason::Unused,
            },
        ],
        waiting: vec![
            wait(
                Subject::Service(svc("web")),
                Why::Silent { host: host("h2"), count: 1 },
                Some(NOW.plus(Duration::from_secs(8))),
            ),
            wait(
                Subject::Service(svc("db")),
                Why::Stalled { why: format!("postgres says {SECRET} is wrong") },
                None,
            ),
            wait(
                Subject::Fleet,
                Why::PruneEmpty { services: vec![svc("old")], code: "a1b2".into() },
                None,
            ),
        ],
        notes: vec![],
        services: [
            (svc("web"), status_of(3, 1, Phase::Reconciling, 2)),
            (svc("db"), status_of(1, 0, Phase::Stalled, 7)),
        ]
        .into(),
        wake_at: None,
    };
    PassReport {
        fleet: fleet(),
        desired: Arc::new(desired),
        world,
        plan: Arc::new(plan),
        at: NOW,
        took: Duration::from_micros(800),
    }
}

pub(super) fn source() -> SourceReport {
    SourceReport {
        kind: "git",
        describe: "https://git.example/shop.git branch main".into(),
        revision: Some(revision()),
        subject: Some("Scale web".into()),
        author: Some("alice".into()),
        fetched: Some(ago(12)),
        ..SourceReport::default()
    }
}

/// A report in which one of everything has happened.
pub(super) fn full() -> Report {
    let clock = Clock::manual(ago(90));
    let report = Report::new(clock.clone(), OwnerId::new("shop-a1b2").unwrap());
    clock.advance(Duration::from_secs(90));
    let mut bad = source();
    bad.error = Some(SourceError {
        message: "git.example: connection refused".into(),
        hint: Some("is the server up?".into()),
        since: ago(40),
        next_try: Some(NOW.plus(Duration::from_secs(20))),
    });
    bad.problems = vec![Problem {
        path: "shop/api.yaml".into(),
        line: 4,
        column: 3,
        message: "unknown field \"replica\"".into(),
        hint: Some("did you mean \"replicas\"?".into()),
        object: Some("ScalingService/api".into()),
    }];
    report.source(bad);
    report.pass(pass());
    report.hosts(&fleet_name(), [(host("h2"), "no route to host".to_owned())].into());
    let p = pass();
    report.step_began(&fleet_name(), &p.plan.steps[0]);
    report.step_began(&fleet_name(), &p.plan.steps[1]);
    let why = format!("start web_1.2 on h1: engine says: bad env TOKEN={SECRET}");
    report.step_ended(&fleet_name(), &p.plan.steps[1], Duration::from_millis(1200), Err(why));
    report
}
