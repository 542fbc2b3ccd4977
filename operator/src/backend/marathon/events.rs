//! What an event is a reason to look at: pure. Events are never believed, only followed by a look.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Deserializer, Value};

use super::sse::Came;
use crate::model::{AppId, OWN_LABELS};

/// The events that are asked for.
pub(super) const TYPES: [&str; 10] = [
    "status_update_event",
    "instance_changed_event",
    "instance_health_changed_event",
    "health_status_changed_event",
    "api_post_event",
    "app_terminated_event",
    "group_change_success",
    "deployment_info",
    "deployment_success",
    "deployment_failed",
];

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Look {
    /// These apps, where they are known.
    pub(super) apps: BTreeSet<AppId>,
    /// These apps, which carry labels of evenkeel, known or not.
    pub(super) labelled: BTreeSet<AppId>,
    /// Everything.
    pub(super) all: bool,
    /// Which deployments are under way.
    pub(super) deployments: bool,
    /// These deployments have ended.
    pub(super) ended: BTreeSet<Arc<str>>,
}

impl Look {
    /// What something that came is a reason to look at.
    pub(super) fn at(came: &Came) -> Self {
        let mut look = Self::default();
        let (kind, data) = match came {
            Came::Sign => return look,
            Came::TooLong => {
                look.all = true;
                return look;
            }
            Came::Event(kind, data) => (kind, data),
        };
        for object in Deserializer::from_str(data).into_iter::<Value>() {
            let Ok(object) = object else {
                // Whatever it was about: it will be seen.
                look.all = true;
                break;
            };
            look.add(kind, &object);
        }
        look
    }

    fn add(&mut self, kind: &str, object: &Value) {
        let of = |name: &str| object.get(name).and_then(Value::as_str);
        let kind = of("eventType").unwrap_or(kind);
        match kind {
            "group_change_success" => self.all = true,
            "deployment_info" | "deployment_success" | "deployment_failed" => {
                self.deployments = true;
                let plan = object.get("plan").unwrap_or(object);
                self.apps.extend(apps_of(plan));
                let id = of("id").or_else(|| plan.get("id")?.as_str());
                if kind != "deployment_info"
                    && let Some(id) = id
                {
                    self.ended.insert(id.into());
                }
            }
            "api_post_event" => {
                let app = object.get("appDefinition");
                let id = app.and_then(|a| a.get("id")?.as_str());
                let labels = app.and_then(|a| a.get("labels")?.as_object());
                if labels.is_some_and(|l| l.keys().any(|name| name.starts_with(OWN_LABELS))) {
                    self.labelled.extend(id.and_then(AppId::new));
                } else {
                    self.about(id);
                }
                self.deployments = true;
            }
            _ => self.about(of("appId").or_else(|| of("runSpecId"))),
        }
    }

    fn about(&mut self, app: Option<&str>) {
        self.apps.extend(app.and_then(AppId::new));
    }

    /// Takes another one in.
    pub(super) fn extend(&mut self, other: Self) {
        let Self { apps, labelled, all, deployments, ended } = other;
        self.apps.extend(apps);
        self.labelled.extend(labelled);
        self.all |= all;
        self.deployments |= deployments;
        self.ended.extend(ended);
    }

    /// Whether there is anything to look at.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The apps of a plan's steps, which are lists of actions, objects with such a list, or the actions themselves.
fn apps_of(plan: &Value) -> BTreeSet<AppId> {
    let mut apps = BTreeSet::new();
    let steps = plan.get("steps").and_then(Value::as_array);
    for step in steps.into_iter().flatten() {
        let actions = step.as_array().or_else(|| step.get("actions")?.as_array());
        let actions = actions.map_or(std::slice::from_ref(step), Vec::as_slice);
        apps.extend(actions.iter().filter_map(|a| AppId::new(a.get("app")?.as_str()?)));
    }
    apps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(kind: &str, data: &str) -> Look {
        Look::at(&Came::Event(kind.to_owned(), data.to_owned()))
    }

    fn names(look: &Look) -> Vec<&str> {
        look.apps.iter().map(AppId::as_str).collect()
    }

    #[test]
    fn each_event_names_its_app() {
        for (kind, data) in [
            ("status_update_event", r#"{"appId":"/a","taskStatus":"TASK_RUNNING"}"#),
            ("instance_changed_event", r#"{"runSpecId":"/a","condition":"Killing"}"#),
            ("api_post_event", r#"{"appDefinition":{"id":"/a"}}"#),
            (
                "deployment_info",
                r#"{"plan":{"id":"d","steps":[{"actions":[{"action":"x","app":"/a"}]}]}}"#,
            ),
            ("deployment_success", r#"{"id":"d","plan":{"steps":[[{"action":"x","app":"/a"}]]}}"#),
            ("deployment_failed", r#"{"id":"d","plan":{"steps":[{"action":"x","app":"/a"}]}}"#),
        ] {
            let look = look(kind, data);
            assert_eq!(names(&look), ["/a"], "{kind}");
            let ends = matches!(kind, "deployment_success" | "deployment_failed");
            assert_eq!(!look.ended.is_empty(), ends, "{kind}");
        }
    }

    #[test]
    fn several_objects_are_all_heeded_and_garbage_is_a_reason_to_look_at_everything() {
        let two = look("status_update_event", "{\"appId\":\"/a\"}\n{\"appId\":\"/b\"}");
        assert_eq!((names(&two), two.all), (vec!["/a", "/b"], false));
        assert!(look("status_update_event", "{\"appId\":").all);
        assert!(Look::at(&Came::TooLong).all);
        assert!(look("group_change_success", "{\"groupId\":\"/\"}").all);
        assert!(Look::at(&Came::Sign).is_empty());
        assert!(look("event_stream_attached", "{}").is_empty());
        let ours = r#"{"appDefinition":{"id":"/a","labels":{"evenkeel.dev/owner":"o"}}}"#;
        assert_eq!(look("api_post_event", ours).labelled.len(), 1);
        assert!(look("status_update_event", "{\"appId\":\"/../x\"}").is_empty());
    }
}
