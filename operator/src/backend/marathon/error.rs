//! What Marathon says when it refuses, and what follows from it.

use serde_json::Value;

use super::wire::line;
use crate::error::{PortError, Remedy};

/// A call to Marathon that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("cannot read {path}")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("what is in {0} cannot be sent: it must be one line of text")]
    Credentials(String),
    #[error("{0}")]
    Client(String),
    /// The connection could not be made or broke, or nothing came in time.
    #[error("{at} does not answer: {why}")]
    Silent { at: String, why: String },
    /// A change was sent and nobody can tell whether it was made.
    #[error("{at} did not say whether it did it: {why}")]
    Uncertain { at: String, why: String },
    /// Something answered that is not Marathon, or not one that we understand.
    #[error("{at} answers what Marathon does not: {why}")]
    Strange { at: String, why: String },
    #[error("{at} sends us to {to}, which is neither one of the urls nor the leader")]
    Astray { at: String, to: String },
    /// Another deployment holds the app.
    #[error("the app is locked by deployment {}", .0.join(", "))]
    Locked(Vec<String>),
    /// As many deployments are under way as the server allows.
    #[error("{said}")]
    Full { limit: Option<usize>, said: String },
    #[error("{at} refuses: {status}{}", after(.said))]
    Refused { at: String, status: u16, said: String },
}

fn after(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl CallError {
    /// From a status that is not a success.
    pub(super) fn refused(at: String, status: u16, body: &[u8]) -> Self {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let message = json.as_ref().and_then(|j| j.get("message")?.as_str()).map(line);
        let Some(message) = message else {
            let why = if is_html(body) { "an HTML page" } else { "nothing that explains it" };
            return match status {
                // An app is only gone when Marathon says so.
                404 => Self::Strange { at, why: format!("status 404 with {why}") },
                _ => Self::Refused { at, status, said: why.to_owned() },
            };
        };
        let locks = json.as_ref().and_then(|j| j.get("deployments")?.as_array());
        match (status, locks) {
            (409, Some(locks)) => {
                let id = |lock: &Value| Some(line(lock.get("id")?.as_str()?));
                Self::Locked(locks.iter().filter_map(id).collect())
            }
            (403, _) if message.starts_with("Max number") => {
                let digits = message.chars().skip_while(|c| !c.is_ascii_digit());
                let digits: String = digits.take_while(char::is_ascii_digit).collect();
                Self::Full { limit: digits.parse().ok(), said: message }
            }
            _ => {
                let details = json.as_ref().and_then(|j| j.get("details")).map(details);
                let said = match details.filter(|d| !d.is_empty()) {
                    Some(details) => line(&format!("{message}: {details}")),
                    None => message,
                };
                Self::Refused { at, status, said }
            }
        }
    }

    /// Whether Marathon said that there is no such thing.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether it concerns only what was asked for, so that everything else may go on.
    pub(super) fn is_of_one(&self) -> bool {
        match self {
            Self::Locked(_) | Self::Full { .. } => true,
            Self::Refused { status, .. } => *status < 500 && *status != 401,
            Self::File { .. }
            | Self::Credentials(_)
            | Self::Client(_)
            | Self::Silent { .. }
            | Self::Uncertain { .. }
            | Self::Strange { .. }
            | Self::Astray { .. } => false,
        }
    }

    /// What follows from it.
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::File { .. } | Self::Credentials(_) | Self::Client(_) | Self::Astray { .. } => {
                Remedy::Hold
            }
            Self::Silent { .. }
            | Self::Uncertain { .. }
            | Self::Strange { .. }
            | Self::Full { .. } => Remedy::Retry,
            Self::Locked(_) => Remedy::Reobserve,
            Self::Refused { status, .. } => match *status {
                404 | 409 => Remedy::Reobserve,
                408 | 429 | 500.. => Remedy::Retry,
                _ => Remedy::Hold,
            },
        }
    }

    /// As the error of a step.
    pub(super) fn while_doing(self, doing: &str) -> PortError {
        PortError::new(doing, self.remedy(), self)
    }
}

/// Whether a body is a page for people: what stands before Marathon answers so.
pub(super) fn is_html(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'<')
}

/// `details` as text: a text, or a list of paths with what is wrong there, in the words of three ages.
fn details(value: &Value) -> String {
    let one = |item: &Value| {
        let of = |name: &str| item.get(name).and_then(Value::as_str);
        let place = of("path").or_else(|| of("attribute")).unwrap_or_default();
        let errors: Vec<&str> = match item.get("errors").or_else(|| item.get("error")) {
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(text)) => vec![text],
            _ => Vec::new(),
        };
        format!("{place} {}", errors.join(", "))
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(one).collect::<Vec<_>>().join("; "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> CallError {
        CallError::refused("http://m:8080".to_owned(), status, body.as_bytes())
    }

    #[test]
    fn each_refusal_has_its_remedy() {
        use Remedy::{Hold, Reobserve, Retry};
        let locked = r#"{"message":"App is locked by one or more deployments.","deployments":[{"id":"d-1"}]}"#;
        for (status, body, remedy, said) in [
            (409, locked, Reobserve, "the app is locked by deployment d-1"),
            (
                409,
                r#"{"message":"An app with id [/x] already exists."}"#,
                Reobserve,
                "already exists",
            ),
            (
                403,
                r#"{"message":"Max number (100) of running deployments reached."}"#,
                Retry,
                "(100)",
            ),
            (403, r#"{"message":"not for you"}"#, Hold, "403: not for you"),
            (401, "", Hold, "401"),
            (404, r#"{"message":"App '/x' does not exist"}"#, Reobserve, "App '/x' does not exist"),
            (404, "<html>no such page</html>", Retry, "an HTML page"),
            (400, r#"{"message":"Invalid JSON","details":"at 1"}"#, Hold, "Invalid JSON: at 1"),
            (
                422,
                r#"{"message":"Object is not valid","details":[{"path":"/mem","errors":["too low","x"]}]}"#,
                Hold,
                "Object is not valid: /mem too low, x",
            ),
            (
                422,
                r#"{"message":"Bad","details":[{"attribute":"id","error":"no"}]}"#,
                Hold,
                "Bad: id no",
            ),
            (500, "<html/>", Retry, "an HTML page"),
            (502, "", Retry, "502"),
            (503, r#"{"message":"Too many concurrent requests"}"#, Retry, "Too many"),
        ] {
            let error = refused(status, body);
            assert_eq!(error.remedy(), remedy, "{status} {body}");
            assert!(error.to_string().contains(said), "{error}");
        }
        let full = refused(403, r#"{"message":"Max number (7) of running deployments reached."}"#);
        assert!(matches!(full, CallError::Full { limit: Some(7), .. }));
        assert!(refused(404, r#"{"message":"App '/x' does not exist"}"#).is_absent());
        assert!(!refused(404, "<html/>").is_absent());
    }

    #[test]
    fn texts_from_outside_are_one_short_line() {
        let body = serde_json::json!({"message": "x\n".repeat(10_000)}).to_string();
        assert!(refused(500, &body).to_string().chars().count() < 400);
    }
}
