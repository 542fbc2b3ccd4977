//! All that a cluster runs, as it says so itself: for whoever takes it over.

use serde_json::Value;

use super::error::CallError;
use super::http::{Call, Http, LIST};
use crate::error::PortError;
use crate::model::MarathonSpec;

/// The parts of a tree of groups that are asked for.
const EMBED: [(&str, &str); 3] =
    [("embed", "group.groups"), ("embed", "group.apps"), ("embed", "group.pods")];

/// The tree of the cluster's group; its apps as a list where the server does not show groups.
///
/// # Errors
/// The cluster does not answer, refuses, or has no such group.
pub async fn dump(spec: &MarathonSpec) -> Result<Value, PortError> {
    let http = Http::new(spec);
    let group = spec.group.trim_end_matches('/');
    let path = format!("/v2/groups{group}");
    let groups = Call::get(&path, &EMBED).within(LIST);
    match http.json(groups).await {
        Err(CallError::Refused { status: 403..=405 | 500..=501, .. }) if group.is_empty() => {
            let apps = Call::get("/v2/apps", &[]).within(LIST);
            http.json(apps).await.map_err(|e| e.while_doing("read the apps of Marathon"))
        }
        answer => {
            answer.map_err(|e| e.while_doing(&format!("read the group {} of Marathon", spec.group)))
        }
    }
}
