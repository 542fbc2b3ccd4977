//! The smallest JSON merge patch (RFC 7386) that makes of one app another.

use serde_json::{Map, Value};

/// What has to be merged over `from` for it to become `to`. Neither may hold `null`.
pub(super) fn between(from: &Map<String, Value>, to: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for name in from.keys().filter(|name| !to.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, wanted) in to {
        match (from.get(name), wanted) {
            (Some(have), wanted) if have == wanted => {}
            (Some(Value::Object(have)), Value::Object(wanted)) => {
                patch.insert(name.clone(), between(have, wanted).into());
            }
            (_, wanted) => {
                patch.insert(name.clone(), wanted.clone());
            }
        }
    }
    patch
}

/// One patch that does what two do one after the other.
pub(super) fn then(first: &mut Map<String, Value>, second: Map<String, Value>) {
    for (name, value) in second {
        match (first.get_mut(&name), value) {
            (Some(Value::Object(have)), Value::Object(more)) => then(have, more),
            (_, value) => {
                first.insert(name, value);
            }
        }
    }
}

/// The patch without every part that changes nothing of what `result` makes of it, but for what `keep` names.
pub(super) fn minimise<R: PartialEq>(
    patch: Map<String, Value>,
    keep: &str,
    result: impl Fn(&Map<String, Value>) -> R,
) -> Map<String, Value> {
    let goal = result(&patch);
    let mut best = patch;
    let mut places = Vec::new();
    leaves(&best, &mut Vec::new(), &mut places);
    // The last first: `portDefinitions` before the `networks` that they imply.
    for place in places.iter().rev().filter(|place| place.first().is_some_and(|p| p != keep)) {
        let mut without = best.clone();
        remove(&mut without, place);
        if result(&without) == goal {
            best = without;
        }
    }
    best
}

fn leaves(patch: &Map<String, Value>, at: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    for (name, value) in patch {
        at.push(name.clone());
        match value {
            Value::Object(fields) if !fields.is_empty() => leaves(fields, at, out),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => out.push(at.clone()),
        }
        at.pop();
    }
}

/// Takes a part out, and whatever held nothing else.
fn remove(patch: &mut Map<String, Value>, place: &[String]) {
    match place {
        [] => {}
        [last] => {
            patch.remove(last);
        }
        [first, rest @ ..] => {
            if let Some(Value::Object(inner)) = patch.get_mut(first) {
                remove(inner, rest);
                if inner.is_empty() {
                    patch.remove(first);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        let Value::Object(fields) = value else { panic!("{value} has no fields") };
        fields
    }

    #[test]
    fn a_patch_says_only_what_differs() {
        let from = fields(json!({"a": 1, "b": {"c": 1, "d": [1]}, "e": 1, "f": {"g": 1}}));
        let to = fields(json!({"a": 1, "b": {"c": 1, "d": [2], "x": {}}, "f": "text", "h": null}));
        let patch = between(&from, &fields(json!({"a": 1, "b": to["b"], "f": "text"})));
        assert_eq!(Value::from(patch), json!({"b": {"d": [2], "x": {}}, "e": null, "f": "text"}));
    }

    #[test]
    fn two_patches_are_one_and_the_last_word_holds() {
        let mut first = fields(json!({"a": {"b": 1, "c": null}, "d": 1}));
        then(&mut first, fields(json!({"a": {"b": null, "e": 2}, "d": {"f": 1}})));
        assert_eq!(Value::from(first), json!({"a": {"b": null, "c": null, "e": 2}, "d": {"f": 1}}));
    }

    #[test]
    fn what_makes_no_difference_goes() {
        let patch = fields(json!({"a": {"b": null, "c": 1}, "d": null, "k": null}));
        let seen = |patch: &Map<String, Value>| patch.get("a").map(|a| a["c"].clone());
        let least = minimise(patch, "k", seen);
        assert_eq!(Value::from(least), json!({"a": {"c": 1}, "k": null}));
    }
}
