//! A Marathon, the backend in front of it, and words for what is done and seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel::backend::marathon::{MarathonBackend, MarathonConfig};
use evenkeel::backend::{Backend, Watch};
use evenkeel::bell::Doorbell;
use evenkeel::clock::Clock;
use evenkeel::error::{PortError, causes};
use evenkeel::fake::make;
use evenkeel::model::app::render::render;
use evenkeel::model::{
    AppAct, AppId, AppStep, AppView, CLUSTER, Credential, Endpoint, Fleet, FleetName, HostName,
    HostSpec, HostState, HostView, Instance, InstanceId, Limits, MarathonAuth, MarathonSpec,
    OwnerId, Probe, ProbeKind, Service, ServiceName, Step,
};
use evenkeel_tests::marathon::Server;

/// Nothing here takes longer, even on a machine that builds beside it.
pub(super) const LONG: Duration = Duration::from_secs(30);
/// The owner in these tests.
const OWNER: &str = "conformance";

/// A backend and what it is told to watch.
pub(super) struct Rig {
    pub(super) backend: Arc<MarathonBackend>,
    pub(super) host: HostName,
    bell: Doorbell,
    spec: MarathonSpec,
}

/// The cluster of a document.
pub(super) fn spec(urls: Vec<String>) -> MarathonSpec {
    MarathonSpec {
        urls,
        auth: None,
        group: "/shop".into(),
        registry_config: None,
        registrator: false,
    }
}

pub(super) fn basic(username: &str, file: &std::path::Path) -> MarathonAuth {
    let password = Credential::File(file.display().to_string());
    MarathonAuth::Basic { username: username.into(), password }
}

pub(super) fn id(path: &str) -> AppId {
    AppId::new(path).unwrap()
}

pub(super) fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

/// A service that is checked by HTTP, with memory as Marathon wants it said.
pub(super) fn service(name: &str, image: &str) -> Service {
    let mut service = make::service(name, 3, image).unwrap();
    make::publish(&mut service, 80);
    make::respec(&mut service, |spec| spec.resources.memory_bytes = 64 << 20);
    service.probe = Some(Probe {
        kind: ProbeKind::Http { path: "/".into() },
        port: 80,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        failure_threshold: 3,
        start_period: Duration::from_secs(60),
    });
    service
}

impl Rig {
    /// A backend in front of a server, that has seen it.
    pub(super) async fn of(server: &Server) -> Self {
        let rig = Self::with(spec(server.urls()), MarathonConfig::default());
        rig.until("Marathon is seen", |v| v.seen == evenkeel::model::Seen::Now).await;
        rig
    }

    /// A backend that has not seen anything.
    pub(super) fn with(spec: MarathonSpec, config: MarathonConfig) -> Self {
        let bell = Doorbell::new();
        let owner = OwnerId::new(OWNER).unwrap();
        let backend = MarathonBackend::new(owner, bell.clone(), Clock::real(), config);
        let host = HostName::new(CLUSTER).unwrap();
        let rig = Self { backend: Arc::new(backend), host, bell, spec };
        rig.name(&[]);
        rig
    }

    /// From now on documents name these apps.
    pub(super) fn name(&self, apps: &[(&str, &str)]) {
        let host = HostSpec {
            name: self.host.clone(),
            endpoint: Endpoint::Marathon,
            address: None,
            labels: BTreeMap::new(),
            state: HostState::Active,
            registry_auth: None,
        };
        let fleet = Fleet {
            name: FleetName::new("f").unwrap(),
            hosts: BTreeMap::from([(self.host.clone(), Arc::new(host))]),
            marathon: Some(Arc::new(self.spec.clone())),
            limits: Limits::default(),
            registry: None,
            approved_prune: None,
        };
        let apps = apps.iter().map(|(app, service)| (id(app), name(service))).collect();
        self.backend.watch(Watch { fleet: Arc::new(fleet), probes: BTreeMap::new(), apps });
    }

    pub(super) fn view(&self) -> Arc<HostView> {
        Arc::clone(&self.backend.views()[&self.host])
    }

    pub(super) fn app(&self, path: &str) -> Option<Arc<AppView>> {
        self.view().apps.get(&id(path)).cloned()
    }

    pub(super) fn instances(&self, service: &str) -> Vec<Instance> {
        let all = self.view().instances.clone();
        all.into_iter().filter(|i| i.service.as_str() == service).collect()
    }

    pub(super) fn problem(&self) -> String {
        self.backend.problems().remove(&self.host).unwrap_or_default()
    }

    /// Waits until a view is as it should be, woken by the bell alone.
    pub(super) async fn until(&self, what: &str, good: impl Fn(&HostView) -> bool) {
        let waits = async {
            while !good(&self.view()) {
                self.bell.rung().await;
            }
        };
        let in_time = tokio::time::timeout(LONG, waits).await.is_ok();
        assert!(in_time, "{what}: not within {LONG:?}; {}: {:#?}", self.problem(), self.view());
    }

    /// Waits until an app has so many tasks that are well and of its newest definition, and nothing is under way.
    pub(super) async fn settled(&self, path: &str, count: usize) {
        let well = |v: &HostView, task: &InstanceId| {
            let of = v.instances.iter().find(|i| i.id == *task);
            of.is_some_and(|i| matches!(i.health, evenkeel::model::HealthState::Healthy { .. }))
        };
        self.until(&format!("{path} has {count} that are well"), |v| {
            v.apps.get(&id(path)).is_some_and(|app| {
                let current = app.current.iter().filter(|task| well(v, task)).count();
                current == count && app.outdated.is_empty() && app.deployments.is_empty()
            })
        })
        .await;
    }

    /// Does something with the app of a service.
    pub(super) async fn act(
        &self,
        path: &str,
        service: &str,
        act: AppAct,
    ) -> Result<(), PortError> {
        let app = AppStep { host: self.host.clone(), app: id(path), service: name(service), act };
        self.backend.apply(&Step::App(app)).await
    }

    pub(super) fn put_of(&self, service: &Service, instances: u32, create: bool) -> AppAct {
        let definition = Arc::new(render(service, &service.spec, &self.spec));
        AppAct::Put { definition, instances, hash: service.hash, create, force: false }
    }

    /// Makes a service's app, or makes it what it is to be.
    pub(super) async fn put(
        &self,
        service: &Service,
        instances: u32,
        create: bool,
    ) -> Result<(), PortError> {
        let app = service.app_id("/shop");
        let act = self.put_of(service, instances, create);
        self.act(app.as_str(), service.name.as_str(), act).await
    }
}

/// A step's error as people see it.
pub(super) fn said(result: Result<(), PortError>) -> String {
    causes(&result.unwrap_err())
}
