//! The engine by a way of its own: its events, and what it can do without anybody in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::SOCKET;
use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use futures::StreamExt;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{IMAGE, now, until};

/// For fifty containers to run.
const DEADLINE: Duration = Duration::from_secs(300);

/// Something that happened to a container.
struct Event {
    action: String,
    at: i64,
    labels: HashMap<String, String>,
}

pub(crate) struct Engine {
    pub(crate) docker: Docker,
    events: Arc<Mutex<Vec<Event>>>,
    _task: JoinSet<()>,
}

impl Engine {
    pub(crate) async fn connect() -> Self {
        let docker = Docker::connect_with_unix(SOCKET, 300, bollard::API_DEFAULT_VERSION).unwrap();
        let docker = docker.negotiate_version().await.unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let filters = HashMap::from([
            ("type", vec!["container"]),
            ("event", vec!["start", "die", "destroy"]),
        ]);
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        let mut stream = docker.events(Some(options));
        let notes = events.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Some(Ok(event)) = stream.next().await {
                let labels = event.actor.and_then(|a| a.attributes).unwrap_or_default();
                let action = event.action.unwrap_or_default();
                notes.lock().unwrap().push(Event {
                    action,
                    at: event.time_nano.unwrap_or(0),
                    labels,
                });
            }
        });
        Self { docker, events, _task: task }
    }

    /// When something happened for the `count`th time since a moment to containers with a label; 0 if never.
    async fn happened(&self, action: &str, label: (&str, &str), since: i64, count: usize) -> i64 {
        let find = || {
            let all = self.events.lock().unwrap();
            let matches = |e: &&Event| {
                e.action == action
                    && e.at >= since
                    && e.labels.get(label.0).is_some_and(|v| v == label.1)
            };
            all.iter().filter(matches).nth(count - 1).map(|e| e.at)
        };
        until(DEADLINE, || async { find().is_some() }).await;
        find().unwrap_or(0)
    }

    /// Milliseconds from a moment until the `count`th start.
    pub(crate) async fn all_started(&self, label: (&str, &str), since: i64, count: usize) -> f64 {
        let at = self.happened("start", label, since, count).await;
        assert!(at > 0, "only some of {count} containers of {label:?} were started");
        millis(at - since)
    }

    /// When a container with a label died.
    pub(crate) async fn died(&self, label: (&str, &str), since: i64) -> i64 {
        self.happened("die", label, since, 1).await
    }

    /// The ids of containers with a label.
    pub(crate) async fn ids(&self, label: (&str, &str)) -> Vec<String> {
        let label = format!("{}={}", label.0, label.1);
        let filters = HashMap::from([("label", vec![label.as_str()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = self.docker.list_containers(Some(options)).await.unwrap_or_default();
        found.into_iter().filter_map(|c| c.id).collect()
    }

    pub(crate) async fn remove(&self, label: (&str, &str)) {
        let ids = self.ids(label).await;
        let removals = futures::stream::iter(ids).map(|id| async move {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            let _ = self.docker.remove_container(&id, Some(options)).await;
        });
        removals.buffer_unordered(8).collect::<Vec<()>>().await;
    }

    /// Milliseconds for what the agent does, done by nobody: create and start, so many at once.
    /// On `network`, where one is named, as the agent's own.
    pub(crate) async fn bare(
        &self,
        owner: &str,
        count: u32,
        parallel: usize,
        network: Option<&str>,
    ) -> f64 {
        let begun = now();
        let starts = futures::stream::iter(1..=count).map(|slot| async move {
            let name = format!("{owner}-web_{slot}");
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            let body = body(owner, slot, network);
            let made = self.docker.create_container(Some(options), body).await.unwrap();
            self.docker.start_container(&made.id, None).await.unwrap();
        });
        starts.buffer_unordered(parallel).collect::<Vec<()>>().await;
        self.all_started((OWNER, owner), begun, count as usize).await
    }
}

pub(crate) const OWNER: &str = "evenkeel.dev/owner";

/// What the agent sends for an instance of the benchmark's service.
fn body(owner: &str, slot: u32, network: Option<&str>) -> ContainerCreateBody {
    let service = format!("{owner}-web");
    let mut body = json!({
        "Hostname": format!("{service}-{slot}"),
        "Image": IMAGE,
        "Env": ["VARIANT=0"],
        "ExposedPorts": {"8080/tcp": {}},
        "StopSignal": "SIGTERM",
        "Labels": {
            OWNER: owner, "evenkeel.dev/fleet": "bench", "evenkeel.dev/service": service,
            "evenkeel.dev/slot": slot.to_string(), "evenkeel.dev/hash": "0123456789abcdef",
        },
        "HostConfig": {
            "Memory": 32 << 20, "Mounts": [], "PortBindings": {}, "RestartPolicy": {"Name": "no"},
        },
    });
    if let Some(network) = network {
        body["HostConfig"]["NetworkMode"] = network.into();
        body["NetworkingConfig"] = json!({"EndpointsConfig": {network: {"Aliases": [service]}}});
    }
    serde_json::from_value(body).unwrap()
}

pub(crate) fn millis(nanos: i64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "milliseconds are shown with one digit")]
    let nanos = nanos as f64;
    nanos / 1e6
}
