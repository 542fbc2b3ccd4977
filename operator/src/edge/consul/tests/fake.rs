//! A strict agent and servers in one: everything that it is asked is written down, and it can misbehave.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// 500 to everything.
    Broken,
    /// What a real one says without a leader; the agent's own part works.
    Leaderless,
    /// 200 to everything, with a page.
    Page,
    /// Half of the right answer.
    Cut,
    /// Takes requests and never answers.
    Mute,
    /// More than anybody wants to read.
    Endless,
    /// 403 to everything.
    Forbidding,
    /// Accepts changes and makes none.
    Deaf,
    /// Refuses to register any service named `bad`.
    Picky,
}

#[derive(Default)]
pub(super) struct Data {
    pub(super) services: BTreeMap<String, Value>,
    pub(super) maintenance: BTreeMap<String, String>,
    /// Entries of other nodes: node, id, body.
    pub(super) others: BTreeMap<(String, String), Value>,
    /// `METHOD path` of all that changes something.
    pub(super) changes: Vec<String>,
    pub(super) strange: Vec<String>,
    pub(super) asked: usize,
    pub(super) tokens: Vec<Option<String>>,
}

#[derive(Clone)]
struct Shared {
    node: &'static str,
    data: Arc<Mutex<Data>>,
    mood: watch::Sender<Mood>,
    index: watch::Sender<u64>,
}

/// One agent that is its own server, on a port of its own.
pub(super) struct Fake {
    pub(super) port: u16,
    shared: Shared,
    tasks: JoinSet<()>,
}

impl Fake {
    pub(super) async fn start(node: &'static str) -> Self {
        let shared = Shared {
            node,
            data: Arc::default(),
            mood: watch::Sender::new(Mood::Well),
            index: watch::Sender::new(1),
        };
        let mut fake = Self { port: 0, shared, tasks: JoinSet::new() };
        fake.listen().await;
        fake
    }

    async fn listen(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let app = Router::new().fallback(answer).with_state(self.shared.clone());
        self.tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    }

    /// Ends it; connections break.
    pub(super) async fn stop(&mut self) {
        self.tasks.shutdown().await;
        self.mood(Mood::Mute);
    }

    pub(super) async fn start_again(&mut self) {
        self.mood(Mood::Well);
        self.listen().await;
    }

    pub(super) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn mood(&self, mood: Mood) {
        self.shared.mood.send_replace(mood);
    }

    /// Reads or changes what it holds; whoever waits for news gets it.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Data) -> T) -> T {
        let result = f(&mut self.shared.data.lock().unwrap());
        self.shared.index.send_modify(|index| *index += 1);
        result
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.with(|data| data.services.keys().cloned().collect())
    }

    pub(super) fn changes(&self) -> Vec<String> {
        self.shared.data.lock().unwrap().changes.clone()
    }
}

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let mutates = method != Method::GET;
    {
        let mut data = shared.data.lock().unwrap();
        data.asked += 1;
        data.tokens.push(headers.get("X-Consul-Token").map(|v| v.to_str().unwrap().to_owned()));
        if mutates {
            data.changes.push(format!("{method} {path}"));
        }
    }
    if let Some(refusal) = mood(&shared, &path, mutates, &body).await {
        return refusal;
    }
    let mut index = *shared.index.borrow();
    if let Some(seen) = query.get("index").map(|index| index.parse::<u64>().unwrap()) {
        let wait = query["wait"].strip_suffix('s').unwrap().parse().unwrap();
        let mut changed = shared.index.subscribe();
        let mut moody = shared.mood.subscribe();
        let news = async {
            tokio::select! {
                _ = changed.wait_for(|index| *index > seen) => {}
                _ = moody.wait_for(|mood| *mood != Mood::Well && *mood != Mood::Picky) => {}
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(wait), news).await;
        if let Some(refusal) = mood(&shared, &path, mutates, &body).await {
            return refusal;
        }
        index = *shared.index.borrow();
    }
    let Some(mut said) = plainly(&shared, &method, &path, &query, &body) else {
        let mut data = shared.data.lock().unwrap();
        data.strange.push(format!("{method} {uri}"));
        return StatusCode::NOT_FOUND.into_response();
    };
    if *shared.mood.borrow() == Mood::Cut {
        said.truncate(said.len() / 2);
    }
    if mutates {
        shared.index.send_modify(|index| *index += 1);
    }
    ([("X-Consul-Index", index.to_string()), ("X-Consul-KnownLeader", "true".into())], said)
        .into_response()
}

async fn mood(shared: &Shared, path: &str, mutates: bool, body: &[u8]) -> Option<Response> {
    let mood = *shared.mood.borrow();
    let plain = |status: StatusCode, text: &str| Some((status, text.to_owned()).into_response());
    match mood {
        Mood::Broken => plain(StatusCode::INTERNAL_SERVER_ERROR, "rpc error: it\nbroke"),
        Mood::Leaderless if path.starts_with("/v1/agent/") => None,
        Mood::Leaderless => plain(StatusCode::INTERNAL_SERVER_ERROR, "No cluster leader"),
        Mood::Page => plain(StatusCode::OK, "<html><body>Welcome to nginx!</body></html>"),
        Mood::Mute => std::future::pending().await,
        Mood::Endless => Some("[1,".repeat(20 << 20).into_response()),
        Mood::Forbidding => plain(StatusCode::FORBIDDEN, "Permission denied"),
        Mood::Deaf if mutates => plain(StatusCode::OK, ""),
        Mood::Well | Mood::Cut | Mood::Deaf => None,
        Mood::Picky => {
            let bad = serde_json::from_slice::<Value>(body).is_ok_and(|body| body["Name"] == "bad");
            if bad { plain(StatusCode::BAD_REQUEST, "Invalid Service Meta") } else { None }
        }
    }
}

/// What a real one would say; `None` for what it does not know or should not be asked.
fn plainly(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &BTreeMap<String, String>,
    body: &[u8],
) -> Option<String> {
    let mut data = shared.data.lock().unwrap();
    let json = || serde_json::from_slice::<Value>(body).ok();
    // The expression itself is judged by the real one.
    let filtered =
        query.get("filter").is_some_and(|filter| filter.contains("ID matches \"^me/shop/\""));
    match (method.as_str(), path) {
        ("GET", "/v1/agent/services") if filtered => {
            Some(serde_json::to_string(&data.services).unwrap())
        }
        ("GET", "/v1/agent/checks") if filtered => {
            let checks = checks(shared.node, &data.services, &data.maintenance);
            let by_id = checks.into_iter().map(|c| (c["CheckID"].as_str().unwrap().to_owned(), c));
            Some(serde_json::to_string(&by_id.collect::<BTreeMap<_, _>>()).unwrap())
        }
        ("GET", "/v1/agent/self") => Some(json!({"Config": {"NodeName": shared.node}}).to_string()),
        ("GET", "/v1/health/state/any") if filtered => {
            let mut all = checks(shared.node, &data.services, &data.maintenance);
            for ((node, id), service) in &data.others {
                let one = BTreeMap::from([(id.clone(), service.clone())]);
                all.extend(checks(node, &one, &BTreeMap::new()));
            }
            Some(serde_json::to_string(&all).unwrap())
        }
        ("PUT", "/v1/catalog/deregister") => {
            let body = json()?;
            let text = |key: &str| body[key].as_str().map(str::to_owned);
            data.others.remove(&(text("Node")?, text("ServiceID")?));
            Some("true".into())
        }
        ("PUT", "/v1/agent/service/register") if query.is_empty() => {
            let body = json()?;
            let id = body["ID"].as_str()?.to_owned();
            let good = body["Check"]["CheckID"] == format!("service:{id}") && body["Port"].is_u64();
            good.then(|| data.services.insert(id, service(&body)))?;
            Some(String::new())
        }
        ("GET", path) if filtered => {
            let node = path.strip_prefix("/v1/catalog/node/")?;
            let of_node = data.others.iter().filter(|((on, _), _)| on == node);
            let services: BTreeMap<_, _> = of_node.map(|((_, id), s)| (id, s)).collect();
            Some(json!({"Node": {"Node": node}, "Services": services}).to_string())
        }
        ("PUT", path) => {
            if let Some(id) = path.strip_prefix("/v1/agent/service/deregister/") {
                data.maintenance.remove(id);
                return data.services.remove(id).map(|_| String::new());
            }
            let id = path.strip_prefix("/v1/agent/service/maintenance/")?;
            if !data.services.contains_key(id) {
                return None;
            }
            match query["enable"].as_str() {
                "true" => drop(data.maintenance.insert(id.into(), query["reason"].clone())),
                _ => drop(data.maintenance.remove(id)),
            }
            Some(String::new())
        }
        _ => None,
    }
}

/// As an agent shows what was registered; the notes are kept beside it.
fn service(body: &Value) -> Value {
    json!({
        "ID": body["ID"], "Service": body["Name"], "Tags": body["Tags"], "Meta": body["Meta"],
        "Port": body["Port"], "Address": body["Address"], "Weights": {"Passing": 1, "Warning": 1},
        "_notes": body["Check"]["Notes"],
    })
}

fn checks(
    node: &str,
    services: &BTreeMap<String, Value>,
    maintenance: &BTreeMap<String, String>,
) -> Vec<Value> {
    let own = services.iter().map(|(id, service)| {
        json!({"Node": node, "CheckID": format!("service:{id}"), "Name": "evenkeel",
            "Status": "passing", "Notes": service["_notes"], "ServiceID": id})
    });
    let kept = maintenance.iter().map(|(id, reason)| {
        json!({"Node": node, "CheckID": format!("_service_maintenance:{id}"),
            "Status": "critical", "Notes": reason, "ServiceID": id})
    });
    own.chain(kept).collect()
}
