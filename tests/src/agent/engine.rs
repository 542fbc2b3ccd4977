//! What the engine shows, without the agent: containers, events, and whether they serve.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder,
};
use evenkeel::backend::docker::{HASH, OWNER, SERVICE, SLOT};
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{LONG, LOOK, Service, TOY, until};
use crate::docker::{TEST, serial};

/// A container as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The engine's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The label.
    pub service: String,
    /// The label.
    pub slot: String,
    /// The label.
    pub hash: String,
    /// `running`, `exited`, …
    pub state: String,
    /// As it was asked for.
    pub image: String,
    /// Where its port 8080 is reached, while it runs.
    pub address: String,
}

/// Every container of an owner, by service, slot and name.
pub async fn containers(docker: &Docker, owner: &str) -> Vec<Seen> {
    asked(docker, owner).await.unwrap()
}

/// The same of an engine that may be dead.
pub async fn asked(docker: &Docker, owner: &str) -> Result<Vec<Seen>, bollard::errors::Error> {
    let filters = HashMap::from([("label", vec![format!("{OWNER}={owner}")])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let list = docker.list_containers(Some(options)).await?;
    let mut all: Vec<Seen> = list
        .into_iter()
        .map(|c| {
            let labels = c.labels.unwrap_or_default();
            let of = |key: &str| labels.get(key).cloned().unwrap_or_default();
            let name = c.names.unwrap_or_default().pop().unwrap_or_default();
            let networks = c.network_settings.and_then(|n| n.networks).unwrap_or_default();
            let ip = networks.into_values().find_map(|n| n.ip_address.filter(|a| !a.is_empty()));
            Seen {
                id: c.id.unwrap_or_default(),
                name: name.trim_start_matches('/').into(),
                service: of(SERVICE),
                slot: of(SLOT),
                hash: of(HASH),
                state: c.state.map(|s| s.to_string()).unwrap_or_default(),
                image: c.image.unwrap_or_default(),
                address: ip.map(|ip| format!("{ip}:8080")).unwrap_or_default(),
            }
        })
        .collect();
    all.sort_by(|a, b| (&a.service, &a.slot, &a.name).cmp(&(&b.service, &b.slot, &b.name)));
    Ok(all)
}

/// What happened to the containers of one owner, in order.
pub struct Events {
    docker: Docker,
    owner: String,
    seen: Arc<Mutex<Vec<Event>>>,
    _task: JoinSet<()>,
}

/// One thing that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `create`, `start`, `die`, …
    pub action: String,
    /// The container.
    pub id: String,
    /// Its name at that time.
    pub name: String,
    /// The service it is of.
    pub service: String,
}

impl Events {
    pub(super) async fn listen(docker: &Docker, owner: &str) -> Self {
        let seen = Arc::<Mutex<Vec<Event>>>::default();
        let filters = HashMap::from([("type", vec!["container"])]);
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        let mut stream = Box::pin(docker.events(Some(options)));
        let mut task = JoinSet::new();
        let into = seen.clone();
        let mine = owner.to_owned();
        task.spawn(async move {
            while let Some(Ok(event)) = stream.next().await {
                let actor = event.actor.unwrap_or_default();
                let labels = actor.attributes.unwrap_or_default();
                let of = |key: &str| labels.get(key).cloned().unwrap_or_default();
                if of(OWNER) == mine || of(TEST) == mine {
                    into.lock().unwrap().push(Event {
                        action: event.action.unwrap_or_default(),
                        id: actor.id.unwrap_or_default(),
                        name: of("name"),
                        service: of(SERVICE),
                    });
                }
            }
        });
        let events = Self { docker: docker.clone(), owner: owner.to_owned(), seen, _task: task };
        events.all().await;
        events.seen.lock().unwrap().clear();
        events
    }

    /// All until now: a container of ours is made and removed, and its end waited for.
    pub async fn all(&self) -> Vec<Event> {
        let name = format!("{}-mark-{}", self.owner, serial());
        until("the engine sends events", LONG, async || {
            let body = ContainerCreateBody {
                image: Some(TOY.into()),
                labels: Some([(TEST.to_owned(), self.owner.clone())].into()),
                ..Default::default()
            };
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            let made = self.docker.create_container(Some(options), body).await.unwrap();
            self.docker.remove_container(&made.id, None).await.unwrap();
            let deadline = Instant::now() + Duration::from_secs(2);
            while Instant::now() < deadline {
                if self.seen.lock().unwrap().iter().any(|e| e.id == made.id) {
                    return Some(());
                }
                tokio::time::sleep(LOOK).await;
            }
            None
        })
        .await;
        let mine = |e: &&Event| !e.name.contains("-mark-");
        self.seen.lock().unwrap().iter().filter(mine).cloned().collect()
    }

    /// How often something happened to containers of a service.
    pub async fn count(&self, action: &str, service: &Service) -> usize {
        let all = self.all().await;
        all.iter().filter(|e| e.action == action && e.service == service.name).count()
    }
}

/// One request on a connection of its own, by HTTP/1.0, whose answers come in one piece; `None` when nobody answers.
pub async fn http(
    at: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<(u16, String)> {
    http_as(at, at, method, path, headers, body).await
}

/// The same, for a host by its name.
pub async fn http_as(
    at: &str,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(at).await.ok()?;
        let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\n");
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let _ = write!(head, "Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some((code, body.to_owned()))
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await.ok().flatten()
}

/// How many of a service's containers answer their health check now; `None` when looking took so
/// long that it says nothing about one moment.
pub async fn serving(docker: &Docker, owner: &str, service: &Service) -> Option<usize> {
    let begun = Instant::now();
    let all = containers(docker, owner).await;
    let asked = all
        .iter()
        .filter(|c| c.service == service.name && c.state == "running" && !c.address.is_empty())
        .map(|c| http(&c.address, "GET", "/healthz", &[], ""));
    let answers = futures::future::join_all(asked).await;
    let healthy = answers.iter().flatten().filter(|(code, _)| *code == 200).count();
    (begun.elapsed() < Duration::from_millis(400)).then_some(healthy)
}
