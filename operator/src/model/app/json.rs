//! JSON in one form: numbers that are equal look equal, and `null` is nothing.

use serde_json::{Map, Number, Value};

/// The value without any `null` in it, and with each number in its shortest form.
pub(super) fn clean(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Number(n) => Some(shortest(n)),
        Value::Bool(_) | Value::String(_) => Some(value.clone()),
        Value::Array(items) => Some(items.iter().filter_map(clean).collect()),
        Value::Object(fields) => Some(Value::Object(clean_fields(fields))),
    }
}

/// The same for all fields of an object.
pub(super) fn clean_fields(fields: &Map<String, Value>) -> Map<String, Value> {
    fields.iter().filter_map(|(k, v)| Some((k.clone(), clean(v)?))).collect()
}

/// `1.0` and `1` are one number.
fn shortest(n: &Number) -> Value {
    let whole = n.as_f64().filter(|f| f.trunc().to_bits() == f.to_bits() && f.abs() < 9e15);
    let whole = n.as_i64().or_else(|| format!("{:.0}", whole?).parse().ok());
    whole.map_or_else(|| Value::Number(n.clone()), Value::from)
}

/// Whether a number is this one.
pub(super) fn is_number(value: &Value, number: f64) -> bool {
    value.as_f64().is_some_and(|f| (f - number).abs() < 1e-9)
}

/// Whether there is nothing in it.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Leaves a field out where it holds the default.
pub(super) fn drop_default(fields: &mut Map<String, Value>, name: &str, default: &Value) {
    let same = fields.get(name).is_some_and(|value| match default.as_f64() {
        Some(number) => is_number(value, number),
        None => value == default,
    });
    if same {
        fields.remove(name);
    }
}

/// Leaves a field out where there is nothing in it.
pub(super) fn drop_empty(fields: &mut Map<String, Value>, name: &str) {
    if fields.get(name).is_some_and(is_empty) {
        fields.remove(name);
    }
}

/// Keeps only the fields of these names.
pub(super) fn keep_only(fields: &mut Map<String, Value>, names: &[&str]) {
    let strange: Vec<String> =
        fields.keys().filter(|name| !names.contains(&name.as_str())).cloned().collect();
    for name in strange {
        fields.remove(&name);
    }
}

/// The items of a list without order: each once, in the order of their text.
pub(super) fn sorted(items: Vec<Value>) -> Vec<Value> {
    let mut keyed: Vec<(String, Value)> = items.into_iter().map(|v| (v.to_string(), v)).collect();
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    keyed.dedup_by(|(a, _), (b, _)| a == b);
    keyed.into_iter().map(|(_, v)| v).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_numbers_look_equal_and_null_is_nothing() {
        let mixed = json!({"a": 1.0, "b": [null, 2.50, 0.0], "c": null, "d": {"e": null}});
        assert_eq!(clean(&mixed), Some(json!({"a": 1, "b": [2.5, 0], "d": {}})));
        assert_eq!(clean(&json!(null)), None);
        assert_eq!(clean(&json!(1e300)), Some(json!(1e300)));
    }

    #[test]
    fn a_set_has_each_item_once_in_an_order_of_its_own() {
        let set = vec![json!(["b"]), json!(["a", "x"]), json!(["b"])];
        assert_eq!(sorted(set), [json!(["a", "x"]), json!(["b"])]);
    }
}
