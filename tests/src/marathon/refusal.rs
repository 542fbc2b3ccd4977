//! What a request is refused with: the status and the body of the reference.

use serde_json::{Value, json};

use super::path::AppId;
use super::release::Release;
use super::stamp::Stamp;

/// A request that changed nothing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    /// The HTTP status.
    pub(super) status: u16,
    /// The JSON of the answer.
    pub(super) body: Value,
}

impl Refusal {
    fn message(status: u16, message: impl Into<String>) -> Self {
        Self { status, body: json!({"message": message.into()}) }
    }

    /// Something that is not there.
    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self::message(404, message)
    }

    pub(super) fn no_app(id: &AppId) -> Self {
        Self::missing(format!("App '{id}' does not exist"))
    }

    pub(super) fn no_app_in(id: &AppId, version: Stamp) -> Self {
        Self::missing(format!("App '{id}' does not exist in version {version}"))
    }

    pub(super) fn no_group(id: &AppId) -> Self {
        Self::missing(format!("Group '{id}' does not exist"))
    }

    /// A request that makes no sense by itself.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::message(400, message)
    }

    /// Not JSON at all: `details` is a string here, and nowhere else.
    pub(super) fn syntax(details: &str) -> Self {
        Self { status: 400, body: json!({"message": "Invalid JSON", "details": details}) }
    }

    /// No body at all.
    pub(super) fn empty() -> Self {
        let details = "No content to map due to end-of-input";
        let message = "Please specify data in JSON format";
        Self { status: 400, body: json!({"message": message, "details": details}) }
    }

    /// JSON of other types than the schema's: each path with what is wrong there.
    pub(super) fn types(release: Release, wrong: Vec<(String, String)>) -> Self {
        let status = if release.has(5) { 422 } else { 400 };
        Self { status, body: json!({"message": "Invalid JSON", "details": details(wrong)}) }
    }

    /// JSON of the right types that breaks rules.
    pub(super) fn invalid(wrong: Vec<(String, String)>) -> Self {
        Self {
            status: 422,
            body: json!({"message": "Object is not valid", "details": details(wrong)}),
        }
    }

    pub(super) fn illegal(message: impl Into<String>) -> Self {
        Self::message(422, message)
    }

    /// Somebody has it already.
    pub(super) fn exists(message: impl Into<String>) -> Self {
        Self::message(409, message)
    }

    /// A running deployment has it.
    pub(super) fn locked<'d>(deployments: impl Iterator<Item = &'d str>) -> Self {
        let deployments: Vec<Value> = deployments.map(|id| json!({"id": id})).collect();
        let message = "App is locked by one or more deployments. Override with force=true";
        Self { status: 409, body: json!({"message": message, "deployments": deployments}) }
    }

    /// More deployments run than may.
    pub(super) fn busy(limit: usize) -> Self {
        Self::message(
            403,
            format!("Max number ({limit}) of running deployments is reached: wait, or cancel one"),
        )
    }

    /// A path that leads nowhere.
    pub(super) fn lost(release: Release, path: &str) -> Self {
        if release.has(8) {
            Self::message(500, "URI not found")
        } else {
            Self::message(404, format!("URI not found: {path}"))
        }
    }
}

/// One entry a path, in the order of their first appearance.
fn details(wrong: Vec<(String, String)>) -> Vec<Value> {
    let mut by_path: Vec<(String, Vec<String>)> = Vec::new();
    for (path, error) in wrong {
        match by_path.iter_mut().find(|(known, _)| *known == path) {
            Some((_, errors)) => errors.push(error),
            None => by_path.push((path, vec![error])),
        }
    }
    by_path.into_iter().map(|(path, errors)| json!({"path": path, "errors": errors})).collect()
}
