//! What every `Backend` must do, run against a fake and against real engines alike.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evenkeel::backend::Backend;
use evenkeel::error::Remedy;
use evenkeel::model::{
    HealthState, HostName, HostView, Instance, InstanceId, InstanceSpec, OwnerId, Seen,
    ServiceName, Slot, SpecHash, Start, State, Step,
};

/// The truth about an engine, learned and changed without the backend.
#[async_trait]
pub trait Oracle: Send + Sync {
    /// The host to act on.
    fn host(&self) -> HostName;
    /// In whose name.
    fn owner(&self) -> OwnerId;
    /// A spec that runs until it is told to end.
    fn spec(&self) -> InstanceSpec;
    /// Ends a container from outside.
    async fn kill(&self, id: &str);
    /// Whether there is such a container, and whether it runs.
    async fn state(&self, id: &str) -> Option<bool>;
    /// How many containers there are with our labels.
    async fn count(&self) -> usize;
    /// Makes and starts a container that is not ours; returns its id and the name it really has.
    async fn foreign(&self, name: &str, labels: BTreeMap<String, String>) -> (String, String);
}

/// Waits until the view of a host is as wanted; says what it is when it does not become so.
pub async fn until(
    backend: &dyn Backend,
    host: &HostName,
    what: &str,
    wanted: impl Fn(&HostView) -> bool,
) -> Arc<HostView> {
    until_within(Duration::from_secs(20), backend, host, what, wanted).await
}

/// As `until`, with a limit of its own.
pub async fn until_within(
    limit: Duration,
    backend: &dyn Backend,
    host: &HostName,
    what: &str,
    wanted: impl Fn(&HostView) -> bool,
) -> Arc<HostView> {
    let poll = async {
        loop {
            if let Some(view) = backend.views().get(host)
                && wanted(view)
            {
                return Arc::clone(view);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let found = tokio::time::timeout(limit, poll).await.ok();
    found
        .unwrap_or_else(|| panic!("{what}: not within {limit:?}: {:#?}", backend.views().get(host)))
}

/// The instances of a service in the newest view.
pub fn instances(backend: &dyn Backend, host: &HostName, service: &str) -> Vec<Instance> {
    let views = backend.views();
    let all = views.get(host).map(|v| v.instances.clone()).unwrap_or_default();
    all.into_iter().filter(|i| i.service.as_str() == service).collect()
}

/// A step that starts one instance of a service.
pub fn start(
    host: &HostName,
    owner: &OwnerId,
    name: &str,
    service: &str,
    slot: u32,
    spec: InstanceSpec,
) -> Start {
    Start {
        host: host.clone(),
        name: name.into(),
        service: ServiceName::new(service).unwrap(),
        slot: Slot(slot),
        hash: SpecHash::of(owner, &spec),
        spec: Arc::new(spec),
        published: Vec::new(),
        stop_signal: "SIGTERM".into(),
    }
}

/// A step that stops an instance.
pub fn stop(host: &HostName, i: &Instance, grace: Duration) -> Step {
    Step::Stop {
        host: host.clone(),
        id: i.id.clone(),
        name: Arc::clone(&i.name),
        service: i.service.clone(),
        slot: i.slot,
        signal: "SIGTERM".into(),
        grace,
    }
}

/// A step that removes an instance.
pub fn remove(host: &HostName, i: &Instance) -> Step {
    Step::Remove {
        host: host.clone(),
        id: i.id.clone(),
        name: Arc::clone(&i.name),
        service: i.service.clone(),
        slot: i.slot,
    }
}

/// The whole contract of `Backend`. `name` makes container names that no other run uses.
pub async fn conformance(backend: &dyn Backend, oracle: &dyn Oracle, name: &str) {
    let host = oracle.host();
    let (owner, spec) = (oracle.owner(), oracle.spec());
    until(backend, &host, "the host answers", |v| v.seen == Seen::Now).await;
    assert_eq!(oracle.count().await, 0, "the run does not begin empty");
    let named = |slot: u32| format!("{name}_{slot}");
    let grace = Duration::from_secs(1);

    // A step that returned Ok is in the next views; twice is once.
    let first = Step::Start(start(&host, &owner, &named(1), "web", 1, spec.clone()));
    backend.apply(&first).await.unwrap();
    let [one] = &instances(backend, &host, "web")[..] else {
        panic!("the start is not in the view")
    };
    assert_eq!(one.state, State::Running);
    assert!(matches!(one.health, HealthState::Healthy { .. }), "{:?}", one.health);
    assert_eq!(
        (&*one.name, one.slot, one.hash),
        (&*named(1), Slot(1), SpecHash::of(&owner, &spec))
    );
    assert_eq!(one.resources, spec.resources);
    backend.apply(&first).await.unwrap();
    assert_eq!(
        &instances(backend, &host, "web")[..],
        std::slice::from_ref(one),
        "twice is not once"
    );
    assert_eq!(oracle.count().await, 1);

    // The same name for something else is a changed world, and changes nothing.
    let mut other = spec.clone();
    other.args = Some(vec!["another".into()]);
    let clash = Step::Start(start(&host, &owner, &named(1), "web", 1, other));
    assert_eq!(backend.apply(&clash).await.unwrap_err().remedy, Remedy::Reobserve);
    assert_eq!(oracle.count().await, 1);

    // What runs is not removed, only stopped.
    assert_eq!(backend.apply(&remove(&host, one)).await.unwrap_err().remedy, Remedy::Reobserve);
    assert_eq!(oracle.state(&one.id.0).await, Some(true));

    // Two of one slot, and a rename once the name is free.
    let surge =
        Step::Start(start(&host, &owner, &format!("{}.2", named(1)), "web", 1, spec.clone()));
    backend.apply(&surge).await.unwrap();
    let both = instances(backend, &host, "web");
    let two = both.iter().find(|i| i.id != one.id).unwrap();
    let rename = Step::Rename {
        host: host.clone(),
        id: two.id.clone(),
        service: two.service.clone(),
        slot: two.slot,
        from: Arc::clone(&two.name),
        to: named(1).into(),
    };
    assert_eq!(backend.apply(&rename).await.unwrap_err().remedy, Remedy::Reobserve);
    backend.apply(&stop(&host, one, grace)).await.unwrap();
    assert_eq!(instances(backend, &host, "web").len(), 1, "a stop is not in the view");
    assert_eq!(oracle.state(&one.id.0).await, None);
    for _ in 0..2 {
        backend.apply(&rename).await.unwrap();
        assert_eq!(&*instances(backend, &host, "web")[0].name, named(1));
    }

    // Stopping, removing and renaming what is gone.
    for _ in 0..2 {
        backend.apply(&stop(&host, one, grace)).await.unwrap();
        backend.apply(&remove(&host, one)).await.unwrap();
    }
    let never = Instance { id: InstanceId("0123456789abcdef".repeat(4).into()), ..one.clone() };
    backend.apply(&stop(&host, &never, grace)).await.unwrap();
    backend.apply(&remove(&host, &never)).await.unwrap();

    // A death is seen without being asked for, and what is dead can be removed.
    oracle.kill(&two.id.0).await;
    until(backend, &host, "a death is seen", |v| {
        v.instances.iter().any(|i| i.id == two.id && matches!(i.state, State::Exited { .. }))
    })
    .await;
    for _ in 0..2 {
        backend.apply(&remove(&host, two)).await.unwrap();
        assert_eq!(instances(backend, &host, "web"), []);
    }
    assert_eq!(oracle.count().await, 0);

    foreigners(backend, oracle, name).await;
}

/// What is not ours is seen, avoided and never touched.
async fn foreigners(backend: &dyn Backend, oracle: &dyn Oracle, name: &str) {
    let host = oracle.host();
    let (owner, spec) = (oracle.owner(), oracle.spec());
    let grace = Duration::from_secs(1);
    let probe = start(&host, &owner, &format!("{name}_9"), "web", 9, spec.clone());
    backend.apply(&Step::Start(probe)).await.unwrap();
    let ours = instances(backend, &host, "web").remove(0);

    let label = |k: &str, v: &str| (format!("evenkeel.dev/{k}"), v.to_owned());
    let good = |owner: &str| {
        BTreeMap::from([
            label("owner", owner),
            label("fleet", "f"),
            label("service", "web"),
            label("slot", "1"),
            label("hash", &ours.hash.to_string()),
        ])
    };
    let mut garbled = good(owner.as_str());
    garbled.extend([label("slot", "one")]);
    let mut other_fleet = good(owner.as_str());
    other_fleet.extend([label("fleet", "g")]);
    let mut half = good(owner.as_str());
    half.remove("evenkeel.dev/hash");
    let mut made = Vec::new();
    for (n, labels) in
        [BTreeMap::new(), good("somebody-else"), garbled, other_fleet, half].into_iter().enumerate()
    {
        made.push(oracle.foreign(&format!("{name}_{}", n + 1), labels).await);
    }
    until(backend, &host, "foreign names are seen", |v| {
        made.iter().all(|(_, name)| v.foreign_names.contains(name.as_str()))
    })
    .await;
    assert_eq!(
        &instances(backend, &host, "web")[..],
        std::slice::from_ref(&ours),
        "a foreign one is taken for ours"
    );
    for (id, _) in &made {
        let theirs = Instance { id: InstanceId(id.as_str().into()), ..ours.clone() };
        for step in [stop(&host, &theirs, grace), remove(&host, &theirs)] {
            assert_eq!(backend.apply(&step).await.unwrap_err().remedy, Remedy::Reobserve);
        }
        let rename = Step::Rename {
            host: host.clone(),
            id: theirs.id.clone(),
            service: theirs.service.clone(),
            slot: theirs.slot,
            from: Arc::clone(&theirs.name),
            to: "stolen".into(),
        };
        assert_eq!(backend.apply(&rename).await.unwrap_err().remedy, Remedy::Reobserve);
        assert_eq!(oracle.state(id).await, Some(true), "a foreign container was touched");
    }
    // A name that a foreign container has is refused, and the foreign one stays.
    let (id, taken) = &made[0];
    let step = Step::Start(start(&host, &owner, taken, "web", 1, spec));
    assert_eq!(backend.apply(&step).await.unwrap_err().remedy, Remedy::Reobserve);
    assert_eq!(oracle.state(id).await, Some(true));
    backend.apply(&stop(&host, &ours, grace)).await.unwrap();
}
