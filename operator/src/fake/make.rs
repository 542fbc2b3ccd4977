//! Documents in five words: hosts and services for tests, scenarios and what-ifs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    AppClaim, Balance, CLUSTER, Endpoint, Fleet, FleetName, HealthState, HostName, HostSpec,
    HostState, Instance, InstanceId, InstanceSpec, Keep, Limits, ListenerProtocol, MarathonSpec,
    NameError, OwnerId, Placement, Pool, PoolName, Port, Protocol, Resources, Rollout, Service,
    ServiceName, Slot, SpecHash, State, Termination, Time, Traffic,
};

/// An active host that is never connected to.
pub fn host(name: &str, labels: &[(&str, &str)]) -> Result<HostSpec, NameError> {
    Ok(HostSpec {
        name: HostName::new(name)?,
        endpoint: Endpoint::Unix { path: "/nowhere".into() },
        address: None,
        labels: labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        state: HostState::Active,
        registry_auth: None,
    })
}

/// A service with the defaults of the API.
pub fn service(name: &str, replicas: u32, image: &str) -> Result<Service, NameError> {
    let mut service = Service {
        name: ServiceName::new(name)?,
        fleet: FleetName::of_default(),
        replicas,
        spec: Arc::new(InstanceSpec { image: image.into(), ..InstanceSpec::default() }),
        hash: SpecHash(0),
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
        document: format!("{{\"image\":{image:?}}}").into(),
    };
    rehash(&mut service);
    Ok(service)
}

/// A healthy instance of a service that has run for long, by another spec.
pub fn instance(service: &ServiceName, slot: u32) -> Instance {
    let name = format!("{service}_{slot}");
    Instance {
        id: InstanceId(format!("id-{name}").into()),
        name: name.into(),
        service: service.clone(),
        slot: Slot(slot),
        hash: SpecHash(1),
        state: State::Running,
        health: HealthState::Healthy { since: Time(0) },
        created: Time(0),
        resources: Resources::default(),
        published: Vec::new(),
        bindings: Vec::new(),
        networks: Vec::new(),
        at: None,
        traffic: Traffic::None,
    }
}

/// Changes what an instance of the service is.
pub fn respec(service: &mut Service, change: impl FnOnce(&mut InstanceSpec)) {
    change(Arc::make_mut(&mut service.spec));
    rehash(service);
}

fn rehash(service: &mut Service) {
    if let Ok(owner) = OwnerId::new("sim") {
        service.hash = SpecHash::of(&owner, &service.spec);
    }
}

/// Routes port 80, published from `first` on, through a balancer.
pub fn route(service: &mut Service, first: u16, balancer: &ServiceName) {
    publish(service, first);
    service.routed = true;
    let pool = PoolName::new(&service.name, 80, None);
    service.exposure.pools = vec![(balancer.clone(), pool)];
}

/// The pools of a service, for its balancer's routing.
pub fn pools(service: &Service) -> Vec<(PoolName, Pool)> {
    let pool = |(_, name): &(ServiceName, PoolName)| {
        let pool = Pool {
            service: service.name.clone(),
            port: 80,
            protocol: ListenerProtocol::Http,
            balance: Balance::Roundrobin,
            cookie: None,
            check: None,
            most: service.replicas,
        };
        (name.clone(), pool)
    };
    service.exposure.pools.iter().map(pool).collect()
}

/// Publishes port 80 from `first` on.
pub fn publish(service: &mut Service, first: u16) {
    respec(service, |s| {
        s.ports = vec![Port {
            name: "http".into(),
            container: 80,
            protocol: Protocol::Tcp,
            publish: Some(first),
        }];
    });
}

/// A fleet of these hosts.
pub fn fleet(name: &str, hosts: Vec<HostSpec>) -> Result<Fleet, NameError> {
    Ok(Fleet {
        name: FleetName::new(name)?,
        hosts: hosts.into_iter().map(|h| (h.name.clone(), Arc::new(h))).collect(),
        marathon: None,
        limits: Limits { prune_max_percent: 100, ..Limits::default() },
        registry: None,
        approved_prune: None,
    })
}

/// A fleet that is a Marathon cluster with a group of its own.
pub fn cluster(name: &str) -> Result<Fleet, NameError> {
    let host = HostSpec {
        name: HostName::new(CLUSTER)?,
        endpoint: Endpoint::Marathon,
        address: None,
        labels: BTreeMap::new(),
        state: HostState::Active,
        registry_auth: None,
    };
    let marathon = MarathonSpec {
        urls: vec!["http://nowhere:8080".into()],
        auth: None,
        group: format!("/{name}"),
        registry_config: None,
        registrator: false,
    };
    Ok(Fleet { marathon: Some(Arc::new(marathon)), ..fleet(name, vec![host])? })
}
