//! Judges documents by the JSON Schemas of `evenkeel_crds`: every problem at once, each at its place.
//!
//! Knows exactly the keywords that the generator emits. Any other fails to compile, which a test
//! notices: a new keyword cannot go unchecked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value as Json};

use super::node::{Flaw, Node, Pos, Value, meant, quoted};

/// What is wrong with a document.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) flaws: Vec<Flaw>,
    /// Where the keys of unknown fields stand: without them the rest can be judged further.
    pub(super) unknown: BTreeSet<Pos>,
}

/// The schemas by kind, compiled once. The error is a fault of this program.
static SCHEMAS: LazyLock<Result<BTreeMap<String, Schema>, String>> = LazyLock::new(|| {
    let files = evenkeel_crds::json_schemas();
    let (_, text) = files.last().ok_or("no schema was generated")?;
    let root: Json = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let definitions = root.get("definitions").and_then(Json::as_object);
    let definitions = definitions.ok_or("the schema has no definitions")?;
    definitions.iter().map(|(kind, rule)| Ok((kind.clone(), compile(rule)?))).collect()
});

/// The schema of a kind.
pub(super) fn of(kind: &str) -> Result<&'static Schema, String> {
    let schemas = SCHEMAS.as_ref().map_err(Clone::clone)?;
    schemas.get(kind).ok_or_else(|| format!("there is no schema of {kind}"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Object,
    Array,
    Text,
    Boolean,
    Integer,
}

#[derive(Debug, Default)]
enum Additional {
    #[default]
    Any,
    Refused,
    Of(Box<Schema>),
}

/// One schema, ready to judge.
#[derive(Debug, Default)]
pub(super) struct Schema {
    types: Vec<Type>,
    constant: Option<Json>,
    variants: Vec<Json>,
    pattern: Option<Regex>,
    pattern_message: Option<String>,
    message: Option<String>,
    length: (Option<u64>, Option<u64>),
    range: (Option<i64>, Option<i64>),
    items_count: (Option<u64>, Option<u64>),
    max_properties: Option<u64>,
    unique: bool,
    required: Vec<String>,
    properties: BTreeMap<String, Schema>,
    additional: Additional,
    names: Option<Box<Schema>>,
    items: Option<Box<Schema>>,
    exactly_one: Vec<String>,
    dependencies: Vec<(String, Vec<String>)>,
    /// Where all these fields are given, the schema holds too.
    when: Option<(Vec<String>, Box<Schema>)>,
}

fn compile(rule: &Json) -> Result<Schema, String> {
    let map = rule.as_object().ok_or("a schema is not an object")?;
    let mut out = Schema::default();
    for (keyword, value) in map {
        let bad = || format!("the schema keyword {keyword} has a form that is not known: {value}");
        let count = || value.as_u64().ok_or_else(bad);
        let text = || value.as_str().map(str::to_owned).ok_or_else(bad);
        let boxed = || compile(value).map(Box::new);
        match keyword.as_str() {
            "$schema"
            | "$comment"
            | "title"
            | "description"
            | "default"
            | "format"
            | "then"
            | "x-kubernetes-list-type"
            | "x-kubernetes-list-map-keys" => {}
            "type" => {
                let one = value.as_str().map(|_| std::slice::from_ref(value));
                let names = one.or(value.as_array().map(Vec::as_slice)).ok_or_else(bad)?;
                out.types =
                    names.iter().map(|n| type_of(n).ok_or_else(bad)).collect::<Result<_, _>>()?;
            }
            "const" => out.constant = Some(value.clone()),
            "enum" => out.variants.clone_from(value.as_array().ok_or_else(bad)?),
            "pattern" => out.pattern = Some(Regex::new(&text()?).map_err(|e| e.to_string())?),
            "patternErrorMessage" => out.pattern_message = Some(text()?),
            "errorMessage" => out.message = Some(text()?),
            "minLength" => out.length.0 = Some(count()?),
            "maxLength" => out.length.1 = Some(count()?),
            "minimum" => out.range.0 = Some(value.as_i64().ok_or_else(bad)?),
            "maximum" => out.range.1 = Some(value.as_i64().ok_or_else(bad)?),
            "minItems" => out.items_count.0 = Some(count()?),
            "maxItems" => out.items_count.1 = Some(count()?),
            "maxProperties" => out.max_properties = Some(count()?),
            "uniqueItems" => out.unique = value.as_bool().ok_or_else(bad)?,
            "required" => out.required = names(value).ok_or_else(bad)?,
            "properties" => {
                for (name, rule) in value.as_object().ok_or_else(bad)? {
                    out.properties.insert(name.clone(), compile(rule)?);
                }
            }
            "additionalProperties" => {
                out.additional = match value {
                    Json::Bool(false) => Additional::Refused,
                    Json::Bool(true) => Additional::Any,
                    Json::Null
                    | Json::Number(_)
                    | Json::String(_)
                    | Json::Array(_)
                    | Json::Object(_) => Additional::Of(boxed()?),
                };
            }
            "propertyNames" => out.names = Some(boxed()?),
            "items" => out.items = Some(boxed()?),
            "oneOf" => {
                let branches = value.as_array().ok_or_else(bad)?.iter();
                out.exactly_one = branches
                    .map(only_required)
                    .collect::<Option<Vec<_>>>()
                    .ok_or_else(bad)?
                    .concat();
            }
            "dependencies" => {
                for (field, others) in value.as_object().ok_or_else(bad)? {
                    out.dependencies.push((field.clone(), names(others).ok_or_else(bad)?));
                }
            }
            "if" => {
                let fields = only_required(value).ok_or_else(bad)?;
                let then = compile(map.get("then").ok_or_else(bad)?)?;
                out.when = Some((fields, Box::new(then)));
            }
            _ => return Err(format!("the schema keyword {keyword} is not known")),
        }
    }
    Ok(out)
}

fn type_of(name: &Json) -> Option<Type> {
    Some(match name.as_str()? {
        "object" => Type::Object,
        "array" => Type::Array,
        "string" => Type::Text,
        "boolean" => Type::Boolean,
        "integer" => Type::Integer,
        _ => return None,
    })
}

fn names(value: &Json) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|n| n.as_str().map(str::to_owned)).collect()
}

/// The fields of a schema that says nothing but `required`.
fn only_required(rule: &Json) -> Option<Vec<String>> {
    let map: &Map<String, Json> = rule.as_object()?;
    if map.len() != 1 {
        return None;
    }
    names(map.get("required")?)
}

impl Schema {
    /// Everything that is wrong with a document.
    pub(super) fn judge(&self, document: &Node, out: &mut Findings) {
        self.check(document, &mut String::new(), out);
    }

    fn check(&self, node: &Node, path: &mut String, out: &mut Findings) {
        if let Some(constant) = &self.constant {
            if constant.as_str() != node.text() {
                flaw(out, node.pos, path, &format!("expected {constant}"));
            }
            return;
        }
        if !self.type_fits(node, path, out) {
            return;
        }
        match &node.value {
            Value::Null | Value::Bool(..) => {}
            Value::Number(number, text) => {
                self.check_number(node, number.as_i64(), text, path, out);
            }
            Value::Text(text) => self.check_text(node, text, path, out),
            Value::List(items) => self.check_list(node, items, path, out),
            Value::Map(_) => self.check_map(node, path, out),
        }
    }

    fn type_fits(&self, node: &Node, path: &str, out: &mut Findings) -> bool {
        let is = |t: &Type| match (&node.value, t) {
            (Value::Map(_), Type::Object)
            | (Value::List(_), Type::Array)
            | (Value::Text(_), Type::Text)
            | (Value::Bool(..), Type::Boolean) => true,
            (Value::Number(number, _), Type::Integer) => number.is_i64() || number.is_u64(),
            _ => false,
        };
        if self.types.is_empty() || self.types.iter().any(is) {
            return true;
        }
        let expected = match (&self.pattern_message, self.types.as_slice()) {
            // It says which text and which number are meant.
            (Some(message), [_, _, ..] | [Type::Text]) => message.clone(),
            (_, [only, ..]) => format!("expected {}", only.name()),
            (_, []) => String::new(),
        };
        let message = format!("{}, found {}", separated(path, &expected), node.describe());
        let mut flaw = Flaw::new(node.pos, message);
        flaw.hint = self.type_hint(node);
        out.flaws.push(flaw);
        false
    }

    fn type_hint(&self, node: &Node) -> Option<String> {
        let takes = |t| self.types.contains(&t);
        match &node.value {
            Value::Null => Some("give it a value, or leave the field out".into()),
            Value::Bool(_, text) if takes(Type::Text) => Some(format!("quote it: \"{text}\"")),
            // A number for a form with a unit is not helped by quotes.
            Value::Number(_, text) if takes(Type::Text) => match &self.pattern {
                Some(p) if !p.is_match(text) => None,
                _ => Some(format!("quote it: \"{}\"", super::node::shown(text))),
            },
            Value::Text(text) if takes(Type::Boolean) => match text.to_lowercase().as_str() {
                "yes" | "on" | "y" | "true" => Some("write true, without quotes".into()),
                "no" | "off" | "n" | "false" => Some("write false, without quotes".into()),
                _ => Some("write true or false".into()),
            },
            Value::Text(text) if takes(Type::Integer) => {
                text.parse::<i64>().ok().map(|n| format!("write {n}, without quotes"))
            }
            Value::Map(_) if takes(Type::Array) => Some("begin each entry with '- '".into()),
            Value::Text(_) | Value::Number(..) if takes(Type::Array) => {
                Some(format!("a list of one is written [{}]", node.plain()))
            }
            Value::Bool(..)
            | Value::Number(..)
            | Value::Text(_)
            | Value::List(_)
            | Value::Map(_) => None,
        }
    }

    fn check_number(
        &self,
        node: &Node,
        number: Option<i64>,
        text: &str,
        path: &str,
        out: &mut Findings,
    ) {
        let digits = text.trim_start_matches(['+', '-']);
        if digits.len() > 1 && digits.bytes().all(|b| b.is_ascii_digit()) && digits.starts_with('0')
        {
            let message = format!("{text} could be meant as octal or as decimal");
            let hint = format!(
                "write {} or 0o{}",
                digits.trim_start_matches('0'),
                digits.trim_start_matches('0')
            );
            out.flaws.push(Flaw::new(node.pos, separated(path, &message)).hint(hint));
            return;
        }
        self.check_variants(node, path, out);
        let (min, max) = self.range;
        let low = min.is_some_and(|min| number.is_some_and(|n| n < min));
        let high = max.is_some_and(|max| number.is_none_or(|n| n > max));
        if low || high {
            let message = match (&self.pattern_message, min, max) {
                (Some(message), ..) => message.clone(),
                (None, Some(min), Some(max)) => format!("expected a number from {min} to {max}"),
                (None, Some(min), None) => format!("expected a number of at least {min}"),
                (None, None, Some(max)) => format!("expected a number of at most {max}"),
                (None, None, None) => return,
            };
            let found = format!("{message}, found {}", super::node::shown(text));
            flaw(out, node.pos, path, &found);
        }
    }

    fn check_variants(&self, node: &Node, path: &str, out: &mut Findings) {
        if self.variants.is_empty() {
            return;
        }
        let same = |variant: &Json| match &node.value {
            Value::Text(text) => variant.as_str() == Some(text),
            Value::Number(number, _) => {
                variant.as_i64().is_some() && variant.as_i64() == number.as_i64()
            }
            Value::Null | Value::Bool(..) | Value::List(_) | Value::Map(_) => false,
        };
        if self.variants.iter().any(same) {
            return;
        }
        let known: Vec<&str> = self.variants.iter().filter_map(Json::as_str).collect();
        let expected = match &self.message {
            Some(message) => message.clone(),
            None => format!("expected one of {}", known.join(", ")),
        };
        let message = format!("{}, found {}", separated(path, &expected), node.describe());
        let mut flaw = Flaw::new(node.pos, message);
        let near = node.text().and_then(|t| super::node::nearest(t, known.iter().copied()));
        flaw.hint = near.map(|near| format!("did you mean \"{near}\"?"));
        out.flaws.push(flaw);
    }

    fn check_text(&self, node: &Node, text: &str, path: &str, out: &mut Findings) {
        self.check_variants(node, path, out);
        let length = text.chars().count() as u64;
        let (min, max) = self.length;
        if let Some(max) = max.filter(|max| length > *max) {
            flaw(out, node.pos, path, &format!("has {length} characters, and {max} are the most"));
            return;
        }
        if min.is_some_and(|min| length < min) {
            flaw(out, node.pos, path, "may not be empty");
            return;
        }
        if self.pattern.as_ref().is_some_and(|p| !p.is_match(text)) {
            let expected =
                self.pattern_message.as_deref().unwrap_or("has a form that is not taken");
            flaw(out, node.pos, path, &format!("{expected}, found {}", quoted(text)));
        }
    }

    fn check_list(&self, node: &Node, items: &[Node], path: &mut String, out: &mut Findings) {
        let count = items.len() as u64;
        let (min, max) = self.items_count;
        if let Some(max) = max.filter(|max| count > *max) {
            flaw(out, node.pos, path, &format!("has {count} entries, and {max} are the most"));
        } else if let Some(min) = min.filter(|min| count < *min) {
            flaw(out, node.pos, path, &format!("has {count} entries, and {min} is the least"));
        } else if self.unique {
            let mut seen = BTreeSet::new();
            for item in items {
                if item.text().is_some_and(|text| !seen.insert(text)) {
                    flaw(out, item.pos, path, &format!("has {} twice", item.describe()));
                }
            }
        }
        let Some(rule) = &self.items else { return };
        let most = usize::try_from(max.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        for (index, item) in items.iter().enumerate().take(most) {
            let length = path.len();
            let _ = write!(path, "[{index}]");
            rule.check(item, path, out);
            path.truncate(length);
        }
    }

    fn check_map(&self, node: &Node, path: &mut String, out: &mut Findings) {
        let fields = node.fields();
        if let Some(max) = self.max_properties.filter(|max| fields.len() as u64 > *max) {
            let message = format!("has {} entries, and {max} are the most", fields.len());
            flaw(out, node.pos, path, &message);
            return;
        }
        for field in fields {
            let length = path.len();
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&super::node::shown(&field.key));
            if let Some(rule) = self.properties.get(&field.key) {
                rule.check(&field.value, path, out);
            } else {
                match &self.additional {
                    Additional::Any => {}
                    Additional::Of(rule) => rule.check(&field.value, path, out),
                    Additional::Refused => {
                        let known = self.properties.keys().map(String::as_str);
                        let hint = meant(&field.key, "fields", known);
                        let message = format!("the field {path} is unknown");
                        out.flaws.push(Flaw::new(field.pos, message).hint(hint));
                        out.unknown.insert(field.pos);
                    }
                }
            }
            if let Some(rule) = &self.names {
                let key = Node { pos: field.pos, value: Value::Text(field.key.clone()) };
                rule.check(&key, path, out);
            }
            path.truncate(length);
        }
        let has = |name: &String| node.field(name).is_some();
        for name in self.required.iter().filter(|n| !has(n)) {
            let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            out.flaws.push(Flaw::new(node.pos, format!("{at} is missing")));
        }
        if !self.exactly_one.is_empty() {
            let given: Vec<&String> = self.exactly_one.iter().filter(|n| has(n)).collect();
            if given.len() != 1 {
                let message = self.message.as_deref().unwrap_or("set exactly one of several");
                let found = match given.as_slice() {
                    [] => "none is set".to_owned(),
                    some => {
                        let some: Vec<&str> = some.iter().map(|s| s.as_str()).collect();
                        format!("{} are set", some.join(" and "))
                    }
                };
                flaw(out, node.pos, path, &format!("{message}: {found}"));
            }
        }
        for (name, others) in &self.dependencies {
            let Some(field) = node.field(name) else { continue };
            for other in others.iter().filter(|o| !has(o)) {
                let message = format!("{name} is only for use together with {other}");
                flaw(out, field.pos, path, &message);
            }
        }
        if let Some((_, then)) = self.when.as_ref().filter(|(given, _)| given.iter().all(has)) {
            then.check(node, path, out);
        }
    }
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Object => "a mapping",
            Self::Array => "a list",
            Self::Text => "text",
            Self::Boolean => "true or false",
            Self::Integer => "a whole number",
        }
    }
}

fn separated(path: &str, message: &str) -> String {
    if path.is_empty() { message.to_owned() } else { format!("{path}: {message}") }
}

fn flaw(out: &mut Findings, pos: Pos, path: &str, message: &str) {
    out.flaws.push(Flaw::new(pos, separated(path, message)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_generated_schema_compiles() {
        for kind in ["Fleet", "LoadBalancer", "ScalingService"] {
            of(kind).expect(kind);
        }
    }

    #[test]
    fn an_unknown_keyword_is_noticed_at_any_depth() {
        for rule in [
            json!({"multipleOf": 3}),
            json!({"properties": {"a": {"items": {"contains": {}}}}}),
            json!({"oneOf": [{"type": "string"}]}),
            json!({"type": "number"}),
            json!({"if": {"properties": {}}, "then": {}}),
        ] {
            compile(&rule).expect_err(&rule.to_string());
        }
    }
}
