//! A cluster with the definitions installed, a namespace, and an agent on it.

use std::ops::Deref;
use std::time::Duration;

use serde_json::Value;

use super::cluster::Cluster;
use super::proxy::Proxy;
use super::{ApiServer, Kubectl};
use crate::agent::{Agent, Bed, LONG, Service, throughout, until};

/// Beside the engine, everything that a test of the controller has.
pub struct Rig<S = ApiServer> {
    /// The engine, and what agents need there.
    pub bed: Bed,
    /// Whom kubectl asks.
    pub server: S,
    namespace: String,
}

impl Rig {
    /// A cluster without an agent.
    pub async fn new() -> Self {
        let server = ApiServer::start();
        let mut bed = Bed::new().await;
        bed.env.insert("KUBECONFIG".into(), server.kubeconfig().display().to_string());
        server.install();
        server.run(&["create", "namespace", "shop"]);
        Self { bed, server, namespace: "shop".into() }
    }

    /// From now on agents go through a proxy.
    pub async fn proxy(&mut self) -> Proxy {
        // Where the lease is of those who come through it.
        self.server.run(&["create", "namespace", "evenkeel"]);
        let proxy = Proxy::start(&self.server).await;
        let path = proxy.kubeconfig().display().to_string();
        self.bed.env.insert("KUBECONFIG".into(), path);
        proxy
    }
}

impl Rig<Cluster> {
    /// The cluster of the environment, with a namespace of the test's own.
    pub async fn on_cluster() -> Self {
        let (server, mut bed) = (Cluster::enter(), Bed::new().await);
        bed.env.insert("KUBECONFIG".into(), server.config().display().to_string());
        let namespace = server.namespace().to_owned();
        Self { bed, server, namespace }
    }

    /// An agent that looks at this namespace and at nothing else.
    pub fn confined(&self) -> Agent {
        let lease = format!("{}/evenkeel", self.namespace);
        self.agent_named("state", &["--namespaces", &self.namespace, "--lease", &lease])
    }
}

impl<S: Deref<Target = Kubectl>> Rig<S> {
    /// An agent.
    pub fn agent(&self) -> Agent {
        self.agent_named("state", &[])
    }

    /// An agent with a state directory of its own, and these arguments besides.
    pub fn agent_named(&self, state: &str, more: &[&str]) -> Agent {
        let state = self.bed.dir().join(state).display().to_string();
        let mut all = vec!["--kubernetes", "--owner", &self.bed.owner, "--state-dir", &state];
        all.extend(more);
        self.bed.agent_of(&all)
    }

    /// `kubectl apply` in the namespace.
    pub fn apply(&self, document: &impl ToString) {
        self.server.feed(&["apply", "-n", &self.namespace, "-f", "-"], &document.to_string());
    }

    /// A service that was applied and is ready.
    pub fn runs(&self, name: &str, replicas: u32) -> Service {
        let service = self.bed.service(name, replicas);
        self.apply(&service);
        self.ready(&service);
        service
    }

    /// kubectl on the one service, in the namespace.
    pub fn on(&self, verb: &[&str], service: &Service, more: &[&str]) -> String {
        let name = format!("scalingservice/{}", service.name);
        let mut args = verb.to_vec();
        args.extend(["-n", &self.namespace, &name]);
        args.extend(more);
        self.server.run(&args)
    }

    /// Has as many available as are asked for by `kubectl scale`.
    pub async fn scales(&self, service: &Service, replicas: u32) {
        self.on(&["scale", &format!("--replicas={replicas}")], service, &[]);
        self.until(service, "/status/availableReplicas", replicas.into()).await;
    }

    /// The service as the API server has it; `Null` where it is gone.
    pub fn get(&self, service: &Service) -> Value {
        let name = format!("scalingservice/{}", service.name);
        let got = self.server.kubectl(&["get", "-n", &self.namespace, &name, "-o", "json"]);
        serde_json::from_slice(&got.stdout).unwrap_or_default()
    }

    /// Waits until a pointer into the object is a value.
    pub async fn until(&self, service: &Service, pointer: &str, value: Value) {
        let what = format!("{pointer} of {} is {value}", service.name);
        until(&what, LONG, async || {
            let object = self.get(service);
            (object.pointer(pointer) == Some(&value)).then_some(())
        })
        .await;
    }

    /// `kubectl wait --for=condition=Ready`.
    pub fn ready(&self, service: &Service) {
        self.on(&["wait", "--for=condition=Ready", "--timeout=90s"], service, &[]);
    }

    /// The text of a condition, as `Stalled`.
    pub fn condition(&self, service: &Service, kind: &str) -> Option<String> {
        let object = self.get(service);
        let all = object.pointer("/status/conditions")?.as_array()?.clone();
        let found = all.into_iter().find(|c| c["type"] == kind)?;
        Some(found["message"].as_str()?.to_owned())
    }

    /// Waits for a condition whose text holds these words.
    pub async fn says(&self, service: &Service, kind: &str, words: &str) -> String {
        until(&format!("{} says {kind}: {words}", service.name), LONG, async || {
            self.condition(service, kind).filter(|text| text.contains(words))
        })
        .await
    }

    /// Waits until nothing of a service is left on the engine.
    pub async fn emptied(&self, service: &Service) {
        until(&format!("nothing of {} is left", service.name), LONG, async || {
            self.bed.of(service).await.is_empty().then_some(())
        })
        .await;
    }

    /// Nothing is written to an object while this lasts.
    pub async fn quiet(&self, service: &Service, lasts: Duration) {
        let version = |o: &Value| o["metadata"]["resourceVersion"].clone();
        let before = version(&self.get(service));
        throughout(lasts, async || {
            assert_eq!(version(&self.get(service)), before, "it was written to for nothing");
            tokio::time::sleep(Duration::from_millis(500)).await;
        })
        .await;
    }
}
