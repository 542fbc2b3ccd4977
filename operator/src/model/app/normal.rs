//! An app's JSON in the one form that is compared.
//!
//! A field of the wrong type stays as it is: whoever wrote it is told by the server, and nothing is passed over in silence.

use serde_json::{Map, Value};

use super::Definition;
use super::check::{health_check, readiness_check, task_check};
use super::json::{
    clean, clean_fields, drop_default, drop_empty, is_empty, is_number, keep_only, sorted,
};
use super::network;

/// What may stand in a field, and when the field says nothing.
enum Form {
    /// A number; nothing where it is this one.
    Number(f64),
    /// A number whose default depends on the version of the server, or that has none.
    Any,
    /// A text; nothing where it is this one.
    Text(&'static str),
    /// A flag; nothing where it is not set.
    Flag,
    /// A list whose order matters; nothing where it is empty.
    List,
    /// A list whose order does not matter; nothing where it is empty.
    Set,
    /// Texts by name; nothing where there are none.
    Texts,
    /// A form of its own.
    Own(fn(Value) -> Option<Value>),
}

/// Every field of an app that is compared, but for those of its networks and its container. What is not in here is either
/// read-only or has no effect: `residency`, `storeUrls`, `executorResources` (no request can set them).
const FIELDS: [(&str, Form); 30] = [
    ("acceptedResourceRoles", Form::Set),
    ("args", Form::List),
    ("backoffFactor", Form::Number(1.15)),
    ("backoffSeconds", Form::Number(1.0)),
    ("check", Form::Own(task_check)),
    ("cmd", Form::Text("")),
    ("constraints", Form::Own(constraints)),
    ("cpus", Form::Number(1.0)),
    ("dependencies", Form::Own(dependencies)),
    ("disk", Form::Number(0.0)),
    ("env", Form::Texts),
    ("executor", Form::Text("")),
    ("fetch", Form::Own(fetch)),
    ("gpus", Form::Number(0.0)),
    ("healthChecks", Form::Own(|v| set_of(v, health_check))),
    ("killSelection", Form::Own(kill_selection)),
    ("labels", Form::Texts),
    ("maxLaunchDelaySeconds", Form::Any),
    ("mem", Form::Number(128.0)),
    ("readinessChecks", Form::Own(|v| set_of(v, readiness_check))),
    ("resourceLimits", Form::Any),
    ("role", Form::Text("")),
    ("secrets", Form::Any),
    ("taskKillGracePeriodSeconds", Form::Any),
    ("tty", Form::Flag),
    ("unreachableStrategy", Form::Own(|v| Some(unreachable(v)))),
    ("user", Form::Text("")),
    // What is made of these follows below; they are here to be known.
    ("uris", Form::Own(|_| None)),
    ("ports", Form::Own(|_| None)),
    ("upgradeStrategy", Form::Own(|_| None)),
];

/// Whether a field is one that an app of any version may be asked to have, by its new or by its old name.
pub fn is_known(field: &str) -> bool {
    let of_networks = ["container", "ipAddress", "networks", "portDefinitions", "requirePorts"];
    FIELDS.iter().any(|(name, _)| *name == field) || of_networks.contains(&field)
}

/// The form that is compared: without what the server fills in by itself, defaults left out, sets in order, and old fields
/// as the new ones that took their place. Fields that nobody knows are left out.
pub fn normalise(app: &Value) -> Definition {
    let mut out = Map::new();
    let Some(app) = app.as_object() else { return Definition(out) };
    for (name, form) in &FIELDS {
        let value = app.get(*name).and_then(clean).and_then(|value| shape(value, form));
        if let Some(value) = value {
            out.insert((*name).to_owned(), value);
        }
    }
    if !out.contains_key("fetch")
        && let Some(uris) = app.get("uris").and_then(from_uris)
    {
        out.insert("fetch".to_owned(), uris);
    }
    network::shape(app, &mut out);
    out.insert("upgradeStrategy".to_owned(), upgrade(app.get("upgradeStrategy"), &out));
    Definition(out)
}

/// A cleaned value in its form; `None` where it says nothing.
fn shape(value: Value, form: &Form) -> Option<Value> {
    let says = match form {
        Form::Number(default) => !is_number(&value, *default),
        Form::Text(default) => value.as_str() != Some(default),
        Form::Flag => value != Value::Bool(false),
        Form::Any | Form::List => !is_empty(&value),
        Form::Set => return set_of(value, |item| item),
        Form::Texts => return Some(texts(value)).filter(|map| !is_empty(map)),
        Form::Own(own) => return own(value),
    };
    says.then_some(value)
}

fn set_of(value: Value, item: fn(Value) -> Value) -> Option<Value> {
    let Value::Array(items) = value else { return Some(value) };
    let items = sorted(items.into_iter().map(item).collect());
    (!items.is_empty()).then_some(Value::Array(items))
}

/// Numbers and flags become texts: that is what whoever wrote them without quotes meant.
fn texts(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let text = |value: Value| match value {
        Value::Number(_) | Value::Bool(_) => Value::String(value.to_string()),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => value,
    };
    fields.into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// `hostname` and `@hostname` are one, operators are in upper case, and an empty value is none.
fn constraints(value: Value) -> Option<Value> {
    set_of(value, |item| {
        let Value::Array(mut parts) = item else { return item };
        if parts.len() == 3 && parts.get(2).is_some_and(is_empty) {
            parts.truncate(2);
        }
        if let Some(Value::String(field)) = parts.get_mut(0)
            && field == "@hostname"
        {
            "hostname".clone_into(field);
        }
        if let Some(Value::String(operator)) = parts.get_mut(1) {
            *operator = operator.to_uppercase();
        }
        Value::Array(parts)
    })
}

/// Absolute paths, as the server makes them: from the root.
fn dependencies(value: Value) -> Option<Value> {
    set_of(value, |item| {
        let Some(path) = item.as_str() else { return item };
        let mut segments: Vec<&str> = Vec::new();
        for segment in path.split('/') {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                name => segments.push(name),
            }
        }
        format!("/{}", segments.join("/")).into()
    })
}

fn fetch(value: Value) -> Option<Value> {
    let Value::Array(items) = value else { return Some(value) };
    let one = |item: Value| {
        let Value::Object(mut fields) = item else { return item };
        keep_only(&mut fields, &["uri", "extract", "executable", "cache", "destPath"]);
        drop_default(&mut fields, "extract", &true.into());
        drop_default(&mut fields, "executable", &false.into());
        drop_default(&mut fields, "cache", &false.into());
        Value::Object(fields)
    };
    let items: Vec<Value> = items.into_iter().map(one).collect();
    (!items.is_empty()).then_some(Value::Array(items))
}

/// The old `uris`: what looks like an archive is unpacked.
fn from_uris(value: &Value) -> Option<Value> {
    const ARCHIVES: [&str; 9] =
        [".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".zip", ".gz", ".tar"];
    let one = |uri: &str| {
        let path = uri.split(['?', '#']).next().unwrap_or(uri);
        let mut fields = Map::from_iter([("uri".to_owned(), Value::from(uri))]);
        if !ARCHIVES.iter().any(|ending| path.ends_with(ending)) {
            fields.insert("extract".to_owned(), false.into());
        }
        Value::Object(fields)
    };
    let items: Vec<Value> = value.as_array()?.iter().filter_map(Value::as_str).map(one).collect();
    (!items.is_empty()).then_some(Value::Array(items))
}

fn kill_selection(value: Value) -> Option<Value> {
    let word = match value.as_str() {
        Some("YOUNGEST_FIRST" | "YoungestFirst") => return None,
        Some("OldestFirst") => "OLDEST_FIRST",
        _ => return Some(value),
    };
    Some(word.into())
}

/// A part that is not said is 0, as in the schema; the whole has a default that depends on the version.
fn unreachable(value: Value) -> Value {
    let Value::Object(mut fields) = value else { return value };
    for name in ["inactiveAfterSeconds", "expungeAfterSeconds"] {
        fields.entry(name).or_insert(0.into());
    }
    keep_only(&mut fields, &["inactiveAfterSeconds", "expungeAfterSeconds"]);
    Value::Object(fields)
}

/// Always there and whole, as its default depends on the volumes.
fn upgrade(value: Option<&Value>, app: &Map<String, Value>) -> Value {
    let keeps = network::keeps(app);
    let (healthy, over) = if keeps { (0.5, 0.0) } else { (1.0, 1.0) };
    let given = value.and_then(Value::as_object).map(clean_fields);
    let whole = given.is_none();
    let mut fields = given.unwrap_or_default();
    // A part that is not said is 1; old servers left one out.
    let part = |default: f64| if whole { default } else { 1.0 };
    for (name, default) in [("minimumHealthCapacity", healthy), ("maximumOverCapacity", over)] {
        fields.entry(name).or_insert_with(|| Value::from(part(default)));
    }
    keep_only(&mut fields, &["minimumHealthCapacity", "maximumOverCapacity"]);
    Value::Object(clean_fields(&fields))
}

/// Labels that are there.
pub(super) fn tidy_labels(fields: &mut Map<String, Value>) {
    drop_empty(fields, "labels");
    if let Some(labels) = fields.remove("labels") {
        fields.insert("labels".to_owned(), texts(labels));
    }
}
