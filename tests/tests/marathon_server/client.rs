//! A client that knows nothing of Marathon, so that what it sees is what was sent.

use std::time::Duration;

use evenkeel_tests::marathon::Server;
use serde_json::Value;

/// No deployment here takes longer, even on a machine that builds beside it.
pub(super) const LONG: Duration = Duration::from_secs(30);

/// What was answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(super) text: String,
    pub(super) json: Value,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The errors at one path of the details.
    pub(super) fn errors(&self, path: &str) -> Vec<String> {
        let details = self.json["details"].as_array().cloned().unwrap_or_default();
        let at = details.iter().filter(|d| d["path"] == path);
        let all = at.flat_map(|d| d["errors"].as_array().cloned().unwrap_or_default());
        all.map(|error| error.as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// Asks a URL, with a body if it is not null.
pub(super) async fn ask(url: &str, method: &str, path: &str, body: &Value) -> Reply {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    send(url, method, path, &[("content-type", "application/json")], &text).await
}

/// The same with headers and any body.
pub(super) async fn send(
    url: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(LONG)
        .build()
        .unwrap();
    let mut request = client.request(method.parse().unwrap(), format!("{url}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_empty() {
        request = request.body(body.to_owned());
    }
    let answer = request.send().await.unwrap();
    let (code, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await.unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Reply { code, headers, text, json }
}

/// Asks, insists on a code, and waits until no deployment runs.
pub(super) async fn done(server: &Server, method: &str, path: &str, body: &Value) -> Reply {
    let reply = ask(&server.url(), method, path, body).await;
    assert!(reply.code < 300, "{method} {path}: {} {}", reply.code, reply.text);
    server.settled(LONG).await;
    reply
}

/// Waits until `look` gives something.
pub(super) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let waits = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(LONG, waits).await;
    found.unwrap_or_else(|_| panic!("never: {what}"))
}
