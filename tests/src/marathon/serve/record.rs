//! What clients sent, byte for byte.

use serde_json::Value;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The member that it came to.
    pub member: usize,
    /// `GET`, …
    pub method: String,
    /// As it was sent.
    pub path: String,
    /// As it was sent, without the question mark.
    pub query: String,
    /// In their order, the names in lower case.
    pub headers: Vec<(String, String)>,
    /// All of it.
    pub body: Vec<u8>,
    /// What was answered, if anything was yet.
    pub status: Option<u16>,
    /// Fields of the body that meant nothing to the server.
    pub ignored: Vec<String>,
}

impl Recorded {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON, null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Whether it may change anything.
    pub fn is_write(&self) -> bool {
        !["GET", "HEAD"].contains(&self.method.as_str())
    }

    /// `PUT /v2/apps/web?force=false`: what a test compares.
    pub fn line(&self) -> String {
        let mark = if self.query.is_empty() { "" } else { "?" };
        format!("{} {}{mark}{}", self.method, self.path, self.query)
    }
}
