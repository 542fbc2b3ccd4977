//! The API server that is measured against, what is put into it, and what is seen in it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use evenkeel::clock::Clock;
use evenkeel::kubernetes::cache::{Cache, Scope, View};
use evenkeel::kubernetes::follow::follow;
use evenkeel::kubernetes::object::{Kind, Object};
use evenkeel::source::poll::Jitter;
use evenkeel_tests::kube::ApiServer;
use evenkeel_tests::kube::proxy::Proxy;
use futures::{StreamExt as _, stream};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Where the services are.
pub(crate) const NAMESPACE: &str = "shop";
/// As many requests are under way at a time as the agent allows itself.
const AT_ONCE: usize = 8;
/// What goes on for longer has failed.
const DEADLINE: Duration = Duration::from_secs(900);

pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) directory: TempDir,
    pub(crate) owner: String,
    pub(crate) client: kube::Client,
    kubeconfig: PathBuf,
    seen: Cache,
    _tasks: JoinSet<()>,
}

impl Cluster {
    /// One of its own, with the definitions and two namespaces.
    pub(crate) async fn start() -> Self {
        let server = ApiServer::start();
        server.install();
        for namespace in [NAMESPACE, "bare", "evenkeel"] {
            server.run(&["create", "namespace", namespace]);
        }
        let client = client(server.kubeconfig()).await;
        let scopes = Scope::all(&[NAMESPACE.to_owned()]);
        let seen = Cache::new(&scopes);
        let mut tasks = JoinSet::new();
        for scope in scopes {
            let jitter = Jitter::new(1);
            tasks.spawn(follow(client.clone(), scope, seen.clone(), Clock::real(), jitter));
        }
        let owner = format!("bench-{}", std::process::id());
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = server.kubeconfig();
        Self { server, directory, owner, client, kubeconfig, seen, _tasks: tasks }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// From now on agents go through a proxy.
    pub(crate) async fn proxy(&mut self) -> Proxy {
        let proxy = Proxy::start(&self.server).await;
        self.kubeconfig = proxy.kubeconfig();
        proxy
    }

    pub(crate) fn api(&self, namespace: &str, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }

    /// What is there now.
    pub(crate) fn view(&self) -> View {
        self.seen.view()
    }

    /// Puts a fleet of simulated hosts in.
    pub(crate) async fn fleet(&self, hosts: usize) {
        // Nobody connects to them.
        let host = |n: usize| {
            let endpoint = format!("tcp://127.{}.{}.1:9", n / 200 + 1, n % 200);
            json!({"name": format!("h{n:03}"), "endpoint": endpoint})
        };
        let hosts: Vec<Value> = (0..hosts).map(host).collect();
        let spec = json!({"backend": {"docker": {"hosts": hosts}}});
        self.put(Kind::Fleet, "bench", spec).await;
    }

    /// Puts one object in.
    pub(crate) async fn put(&self, kind: Kind, name: &str, spec: Value) {
        let object = object(kind, name, &spec);
        let made = self.api(NAMESPACE, kind).create(&PostParams::default(), &object).await;
        made.unwrap();
    }

    /// Applies this many services, several at a time; how long that took.
    pub(crate) async fn services(&self, many: usize) -> Duration {
        let begun = Instant::now();
        let api = self.api(NAMESPACE, Kind::ScalingService);
        let params = PatchParams::apply("bench");
        let mut all = stream::iter(0..many)
            .map(|n| {
                let (api, params) = (api.clone(), params.clone());
                async move {
                    let name = format!("s{n:05}");
                    let object = object(Kind::ScalingService, &name, &service());
                    api.patch(&name, &params, &Patch::Apply(&object)).await.unwrap();
                }
            })
            .buffer_unordered(AT_ONCE);
        while all.next().await.is_some() {}
        begun.elapsed()
    }

    /// The requests that the same objects cost whoever does what a controller must: each is made, gets a finalizer, and has
    /// its status written twice.
    pub(crate) async fn bare(&self, many: usize) -> Duration {
        let begun = Instant::now();
        let api = self.api("bare", Kind::ScalingService);
        let mut all = stream::iter(0..many)
            .map(|n| {
                let api = api.clone();
                async move {
                    let name = format!("s{n:05}");
                    let object = object(Kind::ScalingService, &name, &service());
                    let apply = PatchParams::apply("bench").force();
                    api.patch(&name, &apply, &Patch::Apply(&object)).await.unwrap();
                    let held = json!({"metadata": {"finalizers": ["example.org/bench"]}});
                    let merge = PatchParams::default();
                    api.patch(&name, &merge, &Patch::Merge(&held)).await.unwrap();
                    for replicas in [0, 1] {
                        let mut with = object.clone();
                        with.data = json!({"status": {"replicas": replicas, "conditions": [{
                            "type": "Ready", "status": "True", "reason": "Available",
                            "message": "1 of 1 available",
                            "lastTransitionTime": "2026-01-01T00:00:00Z",
                        }]}});
                        api.patch_status(&name, &apply, &Patch::Apply(&with)).await.unwrap();
                    }
                }
            })
            .buffer_unordered(AT_ONCE);
        while all.next().await.is_some() {}
        begun.elapsed()
    }

    /// Waits until this many services are ready.
    pub(crate) async fn ready(&self, many: usize) -> Duration {
        let begun = Instant::now();
        let mut news = self.seen.subscribe();
        loop {
            news.borrow_and_update();
            let ready = self.view().objects.values().filter(|o| is_ready(o)).count();
            if ready >= many {
                return begun.elapsed();
            }
            if let Some(stalled) = self.view().objects.values().find_map(|o| stalled(o)) {
                panic!("{stalled}");
            }
            assert!(begun.elapsed() < DEADLINE, "{ready} of {many} are ready after {DEADLINE:?}");
            let _ = tokio::time::timeout(Duration::from_secs(1), news.changed()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A client of a kubeconfig.
pub(crate) async fn client(kubeconfig: PathBuf) -> kube::Client {
    let read = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    kube::Client::try_from(config.unwrap()).unwrap()
}

pub(crate) fn object(kind: Kind, name: &str, spec: &Value) -> DynamicObject {
    DynamicObject::new(name, &kind.resource()).data(json!({ "spec": spec }))
}

pub(crate) fn service() -> Value {
    json!({
        "fleet": "bench", "replicas": 1, "image": "registry.example/shop/server:1.4.2",
        "env": [{"name": "GREETING", "value": "hi"}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"cpu": "10m", "memory": "16Mi"},
        "health": {"command": {"command": ["/bin/check"]}},
    })
}

/// What only a person could mend.
fn stalled(object: &Object) -> Option<String> {
    let conditions = object.status["conditions"].as_array()?;
    let stalled = conditions.iter().find(|c| c["type"] == "Stalled" && c["status"] == "True")?;
    Some(format!("{}: {}", object.key, stalled["message"]))
}

/// Whether a service is ready in the form that it has now.
fn is_ready(object: &Object) -> bool {
    let conditions = object.status["conditions"].as_array();
    let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
    object.key.kind == Kind::ScalingService
        && object.status["observedGeneration"] == object.generation
        && conditions.into_iter().flatten().any(ready)
}
