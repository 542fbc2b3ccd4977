//! Apps out of whatever Marathon says of them: a tree of groups, a list, a single one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};

use crate::import::{ImportError, LeftOut};

/// Groups inside one another.
const DEEPEST: usize = 64;
/// More than any cluster has.
const MOST: usize = 20_000;

/// What a dump holds.
#[derive(Debug, Default)]
pub(super) struct Dump<'a> {
    /// Apps by their absolute paths.
    pub(super) apps: BTreeMap<String, &'a Map<String, Value>>,
    /// What cannot be an app of ours.
    pub(super) left_out: Vec<LeftOut>,
    /// Groups that start after others.
    pub(super) ordered: Vec<String>,
}

/// Reads any of the forms.
pub(super) fn read(value: &Value) -> Result<Dump<'_>, ImportError> {
    let mut dump = Dump::default();
    let known = match value {
        Value::Array(items) => {
            let mut all = items.iter().filter_map(Value::as_object);
            let known = items.is_empty() || all.clone().any(|one| is_app(one) || is_group(one));
            all.try_for_each(|one| dump.one(one, "/", 0))?;
            known
        }
        Value::Object(fields) => {
            dump.one(fields, "/", 0)?;
            is_app(fields) || is_group(fields) || fields.contains_key("app")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    if !known {
        let hint = "give what GET /v2/groups or GET /v2/apps answers, or the JSON of one app";
        return Err(ImportError::new(
            "there is neither a group nor an app of Marathon in it",
            hint,
        ));
    }
    Ok(dump)
}

fn is_group(fields: &Map<String, Value>) -> bool {
    ["apps", "groups", "*"].iter().any(|name| fields.get(*name).is_some_and(Value::is_array))
}

fn is_app(fields: &Map<String, Value>) -> bool {
    fields.contains_key("id") && !is_group(fields)
}

impl<'a> Dump<'a> {
    fn one(
        &mut self,
        fields: &'a Map<String, Value>,
        within: &str,
        depth: usize,
    ) -> Result<(), ImportError> {
        if let Some(Value::Object(app)) = fields.get("app") {
            self.app(app, within)
        } else if is_group(fields) {
            self.group(fields, within, depth)
        } else if fields.contains_key("id") {
            self.app(fields, within)
        } else {
            Ok(())
        }
    }

    fn group(
        &mut self,
        fields: &'a Map<String, Value>,
        within: &str,
        depth: usize,
    ) -> Result<(), ImportError> {
        if depth > DEEPEST {
            let message = format!("groups inside one another, more than {DEEPEST}");
            return Err(ImportError { message, hint: None });
        }
        let id = fields.get("id").and_then(Value::as_str);
        let id = id.map_or_else(|| within.to_owned(), |id| absolute(id, within));
        let objects = |name: &str| {
            let items = fields.get(name).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(Value::as_object)
        };
        if fields.get("dependencies").and_then(Value::as_array).is_some_and(|d| !d.is_empty()) {
            self.ordered.push(id.clone());
        }
        for app in objects("apps").chain(objects("*")) {
            self.app(app, &id)?;
        }
        for pod in objects("pods") {
            let name = pod.get("id").and_then(Value::as_str).unwrap_or("a pod");
            self.left_out.push(LeftOut {
                subject: absolute(name, &id),
                why: "a pod: evenkeel runs one container in each instance".to_owned(),
                hint: Some("write a ScalingService for each of its containers".to_owned()),
            });
        }
        objects("groups").try_for_each(|group| self.group(group, &id, depth + 1))
    }

    fn app(&mut self, app: &'a Map<String, Value>, within: &str) -> Result<(), ImportError> {
        if self.apps.len() >= MOST {
            return Err(ImportError::new(
                format!("more than {MOST} apps"),
                "import one group at a time with --group",
            ));
        }
        let Some(id) = app.get("id").and_then(Value::as_str) else {
            let why = "an app without an id".to_owned();
            self.left_out.push(LeftOut { subject: within.to_owned(), why, hint: None });
            return Ok(());
        };
        let id = absolute(id, within);
        match self.apps.entry(id) {
            Entry::Vacant(free) => {
                free.insert(app);
            }
            Entry::Occupied(taken) => {
                let why = "it is there twice: this one is passed over".to_owned();
                let subject = taken.key().clone();
                self.left_out.push(LeftOut { subject, why, hint: None });
            }
        }
        Ok(())
    }
}

/// A path as the server makes it of what is written: relative to the group that it is in.
fn absolute(id: &str, within: &str) -> String {
    let front = if id.starts_with('/') { "" } else { within };
    let mut segments: Vec<&str> = Vec::new();
    for segment in front.split('/').chain(id.split('/')) {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    format!("/{}", segments.join("/"))
}

/// The path of an app below a group; `None` where it is elsewhere.
pub(super) fn below<'i>(id: &'i str, group: &str) -> Option<&'i str> {
    id.strip_prefix(group.trim_end_matches('/'))?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ids(value: &Value) -> Vec<String> {
        read(value).unwrap().apps.into_keys().collect()
    }

    #[test]
    fn every_form_of_a_dump_is_read() {
        let app = |id: &str| json!({"id": id, "cmd": "x"});
        assert_eq!(ids(&app("a")), ["/a"]);
        assert_eq!(ids(&json!({"app": app("/s/a")})), ["/s/a"]);
        assert_eq!(ids(&json!({"apps": [app("/b"), app("a")]})), ["/a", "/b"]);
        assert_eq!(ids(&json!({"*": [app("/b")]})), ["/b"]);
        assert_eq!(ids(&json!([app("/b"), {"app": app("/a")}])), ["/a", "/b"]);
        let tree = json!({"id": "/", "apps": [app("/x")], "groups": [
            {"id": "shop", "apps": [app("web")], "groups": [{"id": "/shop/in", "apps": [app("../db"), app("/o")]}],
             "pods": [{"id": "pod"}], "dependencies": ["/x"]}]});
        assert_eq!(ids(&tree), ["/o", "/shop/db", "/shop/web", "/x"]);
        let dump = read(&tree).unwrap();
        assert_eq!(dump.left_out[0].subject, "/shop/pod");
        assert_eq!(dump.ordered, ["/shop"]);
        let twice = json!([app("/a"), app("a"), {"id": 7}]);
        let why: Vec<String> = read(&twice).unwrap().left_out.into_iter().map(|l| l.why).collect();
        assert_eq!(why, ["it is there twice: this one is passed over", "an app without an id"]);
    }

    #[test]
    fn what_is_nothing_of_marathons_is_refused() {
        for value in [json!(7), json!("x"), json!({"services": {}}), json!([1, {"a": 1}])] {
            assert!(read(&value).is_err(), "{value}");
        }
        assert!(ids(&json!([])).is_empty() && ids(&json!({"apps": []})).is_empty());
    }

    #[test]
    fn a_group_holds_what_is_below_it() {
        assert_eq!(below("/shop/web", "/"), Some("shop/web"));
        assert_eq!(below("/shop/web", "/shop"), Some("web"));
        assert_eq!(below("/shopping/web", "/shop"), None);
        assert_eq!(below("/shop", "/shop"), None);
    }
}
