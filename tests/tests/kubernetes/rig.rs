//! A cluster with the definitions installed, a namespace, and an agent on it.

use std::time::Duration;

use evenkeel_tests::agent::{Agent, Bed, LONG, Service, until};
use evenkeel_tests::kube::ApiServer;
use evenkeel_tests::kube::proxy::Proxy;
use serde_json::Value;

/// Beside the engine, everything that a test of the controller has.
pub(crate) struct Rig {
    pub(crate) bed: Bed,
    pub(crate) server: ApiServer,
}

impl Rig {
    /// A cluster without an agent.
    pub(crate) async fn new() -> Self {
        let server = ApiServer::start();
        let mut bed = Bed::new().await;
        bed.env.insert("KUBECONFIG".into(), server.kubeconfig().display().to_string());
        server.install();
        server.run(&["create", "namespace", "shop"]);
        Self { bed, server }
    }

    /// From now on agents go through a proxy.
    pub(crate) async fn proxy(&mut self) -> Proxy {
        // Where the lease is of those who come through it.
        self.server.run(&["create", "namespace", "evenkeel"]);
        let proxy = Proxy::start(&self.server).await;
        let path = proxy.kubeconfig().display().to_string();
        self.bed.env.insert("KUBECONFIG".into(), path);
        proxy
    }

    pub(crate) fn agent(&self) -> Agent {
        self.agent_named("state", &[])
    }

    pub(crate) fn agent_named(&self, state: &str, more: &[&str]) -> Agent {
        let state = self.bed.dir().join(state).display().to_string();
        let mut all = vec!["--kubernetes", "--owner", &self.bed.owner, "--state-dir", &state];
        all.extend(more);
        self.bed.agent_of(&all)
    }

    /// `kubectl apply` in the namespace.
    pub(crate) fn apply(&self, document: &impl ToString) {
        self.server.feed(&["apply", "-n", "shop", "-f", "-"], &document.to_string());
    }

    /// A service that was applied and is ready.
    pub(crate) fn runs(&self, name: &str, replicas: u32) -> Service {
        let service = self.bed.service(name, replicas);
        self.apply(&service);
        self.ready(&service);
        service
    }

    /// kubectl on the one service, in the namespace.
    pub(crate) fn on(&self, verb: &[&str], service: &Service, more: &[&str]) -> String {
        let name = format!("scalingservice/{}", service.name);
        let mut args = verb.to_vec();
        args.extend(["-n", "shop", &name]);
        args.extend(more);
        self.server.run(&args)
    }

    /// The service as the API server has it; `Null` where it is gone.
    pub(crate) fn get(&self, service: &Service) -> Value {
        let name = format!("scalingservice/{}", service.name);
        let got = self.server.kubectl(&["get", "-n", "shop", &name, "-o", "json"]);
        serde_json::from_slice(&got.stdout).unwrap_or_default()
    }

    /// Waits until a pointer into the object is a value.
    pub(crate) async fn until(&self, service: &Service, pointer: &str, value: Value) {
        let what = format!("{pointer} of {} is {value}", service.name);
        until(&what, LONG, async || {
            let object = self.get(service);
            (object.pointer(pointer) == Some(&value)).then_some(())
        })
        .await;
    }

    /// `kubectl wait --for=condition=Ready`.
    pub(crate) fn ready(&self, service: &Service) {
        self.on(&["wait", "--for=condition=Ready", "--timeout=90s"], service, &[]);
    }

    /// The text of a condition, as `Stalled`.
    pub(crate) fn condition(&self, service: &Service, kind: &str) -> Option<String> {
        let object = self.get(service);
        let all = object.pointer("/status/conditions")?.as_array()?.clone();
        let found = all.into_iter().find(|c| c["type"] == kind)?;
        Some(found["message"].as_str()?.to_owned())
    }

    /// Waits for a condition whose text holds these words.
    pub(crate) async fn says(&self, service: &Service, kind: &str, words: &str) -> String {
        until(&format!("{} says {kind}: {words}", service.name), LONG, async || {
            self.condition(service, kind).filter(|text| text.contains(words))
        })
        .await
    }

    /// Waits until nothing of a service is left on the engine.
    pub(crate) async fn emptied(&self, service: &Service) {
        until(&format!("nothing of {} is left", service.name), LONG, async || {
            self.bed.of(service).await.is_empty().then_some(())
        })
        .await;
    }

    /// Nothing is written to an object while this lasts.
    pub(crate) async fn quiet(&self, service: &Service, lasts: Duration) {
        let version = |o: &Value| o["metadata"]["resourceVersion"].clone();
        let before = version(&self.get(service));
        evenkeel_tests::agent::throughout(lasts, async || {
            assert_eq!(version(&self.get(service)), before, "it was written to for nothing");
            tokio::time::sleep(Duration::from_millis(500)).await;
        })
        .await;
    }
}
