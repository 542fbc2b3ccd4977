//! YAML for people: lists of small things on one line each, and quotes wherever any reader of YAML, old or new, could take a
//! text for something else.

use std::fmt::Write;

use serde_yaml::{Mapping, Number, Value};

/// The longest line that is put together of several values.
const WIDTH: usize = 100;
/// The most values in one line.
const VALUES: usize = 6;
/// The most mappings inside one another in one line.
const NESTED: usize = 2;

/// Words that some version of YAML takes for a truth value or for nothing.
const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan"];

/// A document, without the line that separates it from others. Its first two levels are never put on one line.
pub(super) fn write(document: &Mapping) -> String {
    let mut out = String::new();
    for (key, value) in document {
        match value.as_mapping().filter(|_| key == "spec") {
            Some(fields) => {
                out.push_str("spec:\n");
                for (key, value) in fields {
                    entry(&mut out, 1, "", key, value);
                }
            }
            None => entry(&mut out, 0, "", key, value),
        }
    }
    out
}

/// `key: value` at a depth; `lead` stands in front of the key where it is the first of an item.
fn entry(out: &mut String, depth: usize, lead: &str, key: &Value, value: &Value) {
    indent(out, depth);
    out.push_str(lead);
    out.push_str(&scalar(key, false));
    out.push(':');
    let used = 2 * depth + 2 * usize::from(!lead.is_empty()) + scalar(key, false).len() + 1;
    let depth = depth + usize::from(!lead.is_empty());
    match value {
        Value::String(text) if is_literal(text) => literal(out, depth + 1, text),
        Value::Sequence(items) if !items.is_empty() && !is_plain_list(items) => {
            out.push('\n');
            list(out, depth + 1, items);
        }
        Value::Sequence(_) | Value::Mapping(_) => {
            if let Some(text) = one_line(value, used) {
                let _ = writeln!(out, " {text}");
            } else {
                out.push('\n');
                block(out, depth + 1, value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {
            let _ = writeln!(out, " {}", scalar(value, false));
        }
    }
}

fn block(out: &mut String, depth: usize, value: &Value) {
    match value {
        Value::Mapping(fields) => {
            for (key, value) in fields {
                entry(out, depth, "", key, value);
            }
        }
        Value::Sequence(items) => list(out, depth, items),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {
            indent(out, depth);
            let _ = writeln!(out, "{}", scalar(value, false));
        }
    }
}

fn list(out: &mut String, depth: usize, items: &[Value]) {
    for item in items {
        if let Value::Mapping(fields) = item
            && one_line(item, 2 * depth + 2).is_none()
        {
            for (at, (key, value)) in fields.iter().enumerate() {
                match at {
                    0 => entry(out, depth, "- ", key, value),
                    _ => entry(out, depth + 1, "", key, value),
                }
            }
            continue;
        }
        indent(out, depth);
        if let Some(text) = item.as_str().filter(|text| is_literal(text)) {
            out.push('-');
            literal(out, depth + 1, text);
        } else {
            // A list in a list stays on one line however long it is.
            let _ = writeln!(out, "- {}", flow(item));
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Lists of texts and numbers are put on one line where they fit there.
fn is_plain_list(items: &[Value]) -> bool {
    !items.iter().any(|v| matches!(v, Value::Mapping(_)) || is_long(v))
}

fn is_long(value: &Value) -> bool {
    value.as_str().is_some_and(is_literal)
}

/// The value on what is left of a line, if that is readable.
fn one_line(value: &Value, used: usize) -> Option<String> {
    let (values, nested) = measure(value);
    let small = !value.is_mapping() || (values <= VALUES && nested <= NESTED);
    let text = flow(value);
    (small && used + text.chars().count() < WIDTH).then_some(text)
}

/// How many values are in it, and how many mappings inside one another. Texts of several lines count as many.
fn measure(value: &Value) -> (usize, usize) {
    let sum = |all: &mut dyn Iterator<Item = &Value>| {
        all.map(measure).fold((0, 0), |(n, deep), (m, d)| (n + m, deep.max(d)))
    };
    match value {
        Value::Mapping(fields) => {
            let (values, nested) = sum(&mut fields.values());
            (values, nested + 1)
        }
        Value::Sequence(items) => sum(&mut items.iter()),
        Value::String(text) if is_literal(text) => (VALUES + 1, 0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {
            (1, 0)
        }
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::Mapping(fields) => {
            let one = |(k, v): (&Value, &Value)| format!("{}: {}", scalar(k, true), flow(v));
            format!("{{{}}}", fields.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        Value::Sequence(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {
            scalar(value, true)
        }
    }
}

fn scalar(value: &Value, inside: bool) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(n) => number(n),
        Value::String(text) if is_plain(text, inside) => text.clone(),
        Value::String(text) => quoted(text),
        Value::Tagged(tagged) => scalar(&tagged.value, inside),
        // Keys are texts.
        Value::Sequence(_) | Value::Mapping(_) => flow(value),
    }
}

/// As JSON writes it: with a point or an exponent where it is no whole number.
fn number(n: &Number) -> String {
    match (n.as_i64(), n.as_u64(), n.as_f64()) {
        (Some(n), _, _) => n.to_string(),
        (None, Some(n), _) => n.to_string(),
        (None, None, Some(f)) => serde_json::Value::from(f).to_string(),
        (None, None, None) => "null".to_owned(),
    }
}

/// Whether a text is nothing else without quotes. Inside of braces and brackets less is.
fn is_plain(text: &str, inside: bool) -> bool {
    let inner = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '_' | '-' | '.' | '/' | '+' | '=' | '%')
            || (c == ':' && !inside)
    };
    let Some(first) = text.chars().next() else { return false };
    if !text.chars().all(inner) || text.ends_with(':') {
        return false;
    }
    if first.is_ascii_digit() {
        return is_amount(text);
    }
    let word = text.to_ascii_lowercase();
    (first.is_ascii_alphabetic() || matches!(first, '_' | '/')) && !WORDS.contains(&word.as_str())
}

/// Digits with units, as `10s`, `1h30m`, `64Mi`, `25%`: no number in any form, nor a time.
fn is_amount(text: &str) -> bool {
    let unit = |c: char| c == '%' || (c.is_ascii_alphabetic() && !"eExXoObBfF_".contains(c));
    text.chars().all(|c| c.is_ascii_digit() || unit(c)) && text.ends_with(unit)
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_shown(c) => out.push(c),
            c => {
                let _ = match u32::from(c) {
                    code @ 0..=0xffff => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// Whether a character may stand in a file as it is: nothing that moves a cursor, hides or reorders.
fn is_shown(c: char) -> bool {
    !(c.is_control()
        || matches!(c, '\u{a0}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' | '\u{e000}'..='\u{f8ff}')
        || u32::from(c) > 0xffff)
}

/// Whether a text of several lines can be written as its lines.
fn is_literal(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let fits = |line: &str| {
        line.chars().all(|c| is_shown(c) || c == '\t')
            && !line.starts_with('\t')
            && !line.ends_with([' ', '\t'])
    };
    body.contains('\n')
        && !body.starts_with([' ', '\n'])
        && !body.ends_with('\n')
        && body.split('\n').all(fits)
}

fn literal(out: &mut String, depth: usize, text: &str) {
    let body = text.strip_suffix('\n');
    let _ = writeln!(out, " {}", if body.is_some() { "|" } else { "|-" });
    for line in body.unwrap_or(text).split('\n') {
        if !line.is_empty() {
            indent(out, depth);
        }
        out.push_str(line);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;

    fn written(value: &Json) -> String {
        write(&serde_yaml::to_value(value).unwrap().as_mapping().unwrap().clone())
    }

    #[test]
    fn small_things_are_on_one_line_and_what_could_be_misread_is_quoted() {
        let document = json!({
            "metadata": {"name": "web"},
            "spec": {
                "a_mode": "0600", "b": "on", "c": "1.5", "d": "10s", "e": "", "f": "a: b", "g": "~",
                "h": ["x", "y"], "i": [{"name": "A", "value": "1"}, {"name": "B", "value": "b:c"}],
                "j": {"k": {"l": null}}, "m": "first\n  second\n\nlast", "nn": "1e3", "o": 0.5, "p": "12:30",
                "q": "2001-01-01", "r": "é\u{7}", "s": [], "t": {}, "u": "#x", "v": "nginx:1.28",
                "w": {"x": {"yy": {"z": 1}}}, "z": ["one\ntwo", "a"],
            },
        });
        assert_eq!(
            written(&document),
            "metadata: {name: web}\nspec:\n  a_mode: \"0600\"\n  b: \"on\"\n  c: \"1.5\"\n  d: 10s\n  e: \"\"\n  \
             f: \"a: b\"\n  g: \"~\"\n  h: [x, \"y\"]\n  i:\n    - {name: A, value: \"1\"}\n    - {name: B, value: \
             \"b:c\"}\n  j: {k: {l: null}}\n  m: |-\n    first\n      second\n\n    last\n  nn: \"1e3\"\n  o: 0.5\n  p: \
             \"12:30\"\n  q: \"2001-01-01\"\n  r: \"é\\u0007\"\n  s: []\n  t: {}\n  u: \"#x\"\n  v: nginx:1.28\n  w:\n    \
             x: {yy: {z: 1}}\n  z:\n    - |-\n      one\n      two\n    - a\n"
        );
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let text = prop_oneof![
            "[ -~]{0,12}",
            "\\PC{0,8}",
            "[a-z:#\\-\\n\\t \"'|>]{0,20}",
            Just("0x1F".to_owned()),
            Just("1_000".to_owned()),
            Just(".5".to_owned()),
            Just("- a\n  b: c\n".to_owned()),
        ];
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            prop::num::f64::NORMAL.prop_map(Json::from),
            text.clone().prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
                prop::collection::btree_map(text.clone(), inner, 0..5)
                    .prop_map(|m| Json::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_written_is_read_back(value in any_json(), deeper in any::<bool>()) {
            let document = if deeper { json!({"spec": {"it": value}}) } else { json!({"it": value}) };
            let text = written(&document);
            let read: Json = serde_yaml::from_str(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
            prop_assert_eq!(&read, &document, "\n{}", text);
        }
    }
}
