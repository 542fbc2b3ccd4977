//! What the tests share: the examples, and a judge for the few JSON Schema keywords that are used.
//! The judge fails on any other keyword, so that a new one cannot go unchecked.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use evenkeel_crds::{Fleet, LoadBalancer, ScalingService, json_schemas};
use regex::Regex;
use serde_json::{Map, Value};

pub(crate) const EXAMPLES: [(&str, &str); 5] = [
    ("fleet", include_str!("../examples/fleet.yaml")),
    ("marathon", include_str!("../examples/marathon.yaml")),
    ("loadbalancer", include_str!("../examples/loadbalancer.yaml")),
    ("scalingservice", include_str!("../examples/scalingservice.yaml")),
    ("minimal", include_str!("../examples/minimal.yaml")),
];

pub(crate) fn example(name: &str) -> Value {
    let (_, text) = EXAMPLES.iter().find(|(known, _)| *known == name).expect(name);
    serde_yaml::from_str(text).unwrap()
}

/// The schema for a document of any kind.
pub(crate) static COMBINED_SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let (_, text) = json_schemas().pop().unwrap();
    serde_json::from_str(&text).unwrap()
});

fn matches(pattern: &str, text: &str) -> bool {
    static COMPILED: Mutex<BTreeMap<String, Regex>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap();
    let regex = compiled.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).unwrap());
    regex.is_match(text)
}

/// The document as its type sees it: what serialises again after deserialising.
pub(crate) fn through_serde(document: &Value) -> Result<Value, String> {
    fn pass<T>(document: &Value) -> Result<Value, String>
    where
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        let typed: T = serde_json::from_value(document.clone()).map_err(|e| e.to_string())?;
        Ok(serde_json::to_value(typed).unwrap())
    }
    match document["kind"].as_str() {
        Some("Fleet") => pass::<Fleet>(document),
        Some("LoadBalancer") => pass::<LoadBalancer>(document),
        Some("ScalingService") => pass::<ScalingService>(document),
        other => panic!("kind {other:?}"),
    }
}

/// Every problem of `value`, as `path: problem`.
pub(crate) fn judge(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let schema = schema.as_object().expect("a schema is an object");
    let mut problems = Vec::new();
    for (keyword, rule) in schema {
        match holds(root, schema, keyword, rule, value, path) {
            Verdict::Yes => {}
            Verdict::No => problems.push(format!("{path}: {keyword} {rule}")),
            Verdict::Inside(mut inner) => problems.append(&mut inner),
        }
    }
    problems
}

enum Verdict {
    Yes,
    No,
    Inside(Vec<String>),
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

fn holds(
    root: &Value,
    schema: &Map<String, Value>,
    keyword: &str,
    rule: &Value,
    value: &Value,
    path: &str,
) -> Verdict {
    let text = value.as_str();
    let list = value.as_array();
    let object = value.as_object();
    let limit = rule.as_f64().unwrap_or_default();
    #[allow(clippy::cast_precision_loss, reason = "lengths of test data")]
    let within = |length: Option<usize>, fits: fn(f64, f64) -> bool| {
        Verdict::from(length.is_none_or(|length| fits(length as f64, limit)))
    };
    match keyword {
        "$schema"
        | "$comment"
        | "title"
        | "description"
        | "default"
        | "definitions"
        | "format"
        | "errorMessage"
        | "patternErrorMessage"
        | "then"
        | "x-kubernetes-list-type"
        | "x-kubernetes-list-map-keys" => Verdict::Yes,
        "$ref" => {
            let pointer = rule.as_str().unwrap().trim_start_matches('#');
            Verdict::Inside(judge(root, root.pointer(pointer).expect(pointer), value, path))
        }
        "oneOf" => {
            let branches = rule.as_array().unwrap().iter();
            let fitting = branches.filter(|branch| judge(root, branch, value, path).is_empty());
            (fitting.count() == 1).into()
        }
        "if" => {
            let applies = judge(root, rule, value, path).is_empty();
            let then = applies.then(|| judge(root, &schema["then"], value, path));
            Verdict::Inside(then.unwrap_or_default())
        }
        "type" => {
            let is = |name: &Value| match name.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("type {other}"),
            };
            rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is)).into()
        }
        "const" => (rule == value).into(),
        "enum" => rule.as_array().unwrap().contains(value).into(),
        "pattern" => text.is_none_or(|text| matches(rule.as_str().unwrap(), text)).into(),
        "minLength" => within(text.map(|text| text.chars().count()), |a, b| a >= b),
        "maxLength" => within(text.map(|text| text.chars().count()), |a, b| a <= b),
        "minItems" => within(list.map(Vec::len), |a, b| a >= b),
        "maxItems" => within(list.map(Vec::len), |a, b| a <= b),
        "maxProperties" => within(object.map(Map::len), |a, b| a <= b),
        "minimum" => value.as_f64().is_none_or(|number| number >= limit).into(),
        "maximum" => value.as_f64().is_none_or(|number| number <= limit).into(),
        "uniqueItems" => {
            list.is_none_or(|l| l.iter().enumerate().all(|(i, item)| !l[..i].contains(item))).into()
        }
        "required" => {
            let mut names = rule.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
            object.is_none_or(|object| names.all(|name| object.contains_key(name))).into()
        }
        "dependencies" => {
            let object = object.unwrap();
            let met = |(field, others): (&String, &Value)| {
                let mut others = others.as_array().unwrap().iter().map(|o| o.as_str().unwrap());
                !object.contains_key(field) || others.all(|other| object.contains_key(other))
            };
            rule.as_object().unwrap().iter().all(met).into()
        }
        "properties" => {
            let known = rule.as_object().unwrap().iter();
            let given = known.filter_map(|(name, rule)| Some((name, rule, object?.get(name)?)));
            let judged =
                given.map(|(name, rule, value)| judge(root, rule, value, &join(path, name)));
            Verdict::Inside(judged.flatten().collect())
        }
        "additionalProperties" => {
            let known = schema.get("properties").and_then(Value::as_object);
            let others = object.into_iter().flatten();
            let others = others.filter(|(name, _)| known.is_none_or(|k| !k.contains_key(*name)));
            Verdict::Inside(if rule == &Value::Bool(false) {
                others.map(|(name, _)| format!("{}: unknown field", join(path, name))).collect()
            } else {
                others.flat_map(|(name, v)| judge(root, rule, v, &join(path, name))).collect()
            })
        }
        "propertyNames" => {
            let names = object.into_iter().flatten().map(|(name, _)| name);
            Verdict::Inside(
                names.flat_map(|n| judge(root, rule, &n.as_str().into(), path)).collect(),
            )
        }
        "items" => {
            let items = list.into_iter().flatten().enumerate();
            Verdict::Inside(
                items.flat_map(|(i, v)| judge(root, rule, v, &format!("{path}[{i}]"))).collect(),
            )
        }
        other => panic!("{path}: the keyword {other} is unknown to this judge"),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
