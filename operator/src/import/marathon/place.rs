//! Where tasks may run: constraints of Marathon as a placement.

use evenkeel_crds::Placement;
use serde_json::Value;

use crate::import::Notes;
use crate::model::HOST_LABEL;

/// What a document can say.
pub(super) fn placement(constraints: Option<&Value>, notes: &mut Notes) -> Placement {
    let mut placement = Placement::default();
    for constraint in constraints.and_then(Value::as_array).into_iter().flatten() {
        let words: Vec<&str> =
            constraint.as_array().into_iter().flatten().map_while(Value::as_str).collect();
        if !take(&mut placement, &words, notes) {
            let hint = "give the hosts labels of their own, and write placement.constraints with == and !=";
            let said = format!("{constraint} is kept for Marathon only (marathon.fields)");
            notes.lost_but("constraints", said, hint);
        }
    }
    placement
}

/// Whether the constraint is in the placement now.
fn take(placement: &mut Placement, words: &[&str], notes: &mut Notes) -> bool {
    let Some((label, name)) = words.first().and_then(|field| label(field)) else { return false };
    let mut compare = |operator: &str, value: &str| {
        let text = format!("{name} {operator} {value}");
        let Ok(constraint) = text.parse() else { return false };
        if placement.constraints.len() >= 50 {
            return false;
        }
        if !placement.constraints.contains(&constraint) {
            placement.constraints.push(constraint);
        }
        true
    };
    let by_host = name == HOST_LABEL;
    match words.get(1..).unwrap_or_default() {
        ["CLUSTER" | "IS", value] => compare("==", value),
        ["LIKE", regex] => literal(regex).is_some_and(|value| compare("==", &value)),
        ["UNLIKE", regex] => literal(regex).is_some_and(|value| compare("!=", &value)),
        ["UNIQUE"] if by_host => {
            placement.max_per_host = Some(1);
            true
        }
        ["MAX_PER", most] if by_host => {
            let most = most.parse().ok().filter(|n| (1..=10_000).contains(n));
            let least = placement.max_per_host.unwrap_or(u32::MAX);
            placement.max_per_host = most.map(|n: u32| n.min(least)).or(placement.max_per_host);
            most.is_some()
        }
        // Instances are spread over hosts anyway.
        ["GROUP_BY"] | ["GROUP_BY", _] if by_host => true,
        ["GROUP_BY"] | ["GROUP_BY", _] if placement.spread_by.is_none() => {
            let fits = format!("{name} == x").parse::<evenkeel_crds::Constraint>().is_ok();
            if fits {
                placement.spread_by = Some(name.to_owned());
                if label != name {
                    let said = format!("{label} is the host label {name} here");
                    notes.add(
                        "constraints",
                        said,
                        Some("give every Docker host that label"),
                        false,
                    );
                }
            }
            fits
        }
        _ => false,
    }
}

/// A field as it is there, and the host label that stands for it here.
fn label(field: &str) -> Option<(&str, &str)> {
    match field {
        "hostname" | "@hostname" => Some((field, HOST_LABEL)),
        // An attribute of this name is not the name of the host.
        HOST_LABEL => None,
        _ => Some((field, field.strip_prefix('@').unwrap_or(field))),
    }
}

/// The only text that a regular expression matches, if there is but one and it is easy to see.
fn literal(regex: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = regex.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => out.push(rest.next().filter(char::is_ascii_punctuation)?),
            c if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/') => out.push(c),
            _ => return None,
        }
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(constraints: &Value, expect: &Value, lost: usize) {
        let mut notes = Notes::of("/a");
        let placement = placement(Some(constraints), &mut notes);
        let given = serde_json::to_value(&placement).unwrap();
        for (name, value) in expect.as_object().unwrap() {
            assert_eq!(given[name], *value, "{constraints}: {name}");
        }
        let told = notes.all.iter().filter(|n| n.lost).count();
        assert_eq!(told, lost, "{constraints}: {:?}", notes.all);
    }

    #[test]
    fn what_means_the_same_is_said_in_our_words() {
        check(
            &json!([["environment", "CLUSTER", "test"]]),
            &json!({"constraints": ["environment == test"]}),
            0,
        );
        check(&json!([["rack", "LIKE", "a\\.b"]]), &json!({"constraints": ["rack == a.b"]}), 0);
        check(&json!([["disk", "UNLIKE", "slow"]]), &json!({"constraints": ["disk != slow"]}), 0);
        check(&json!([["hostname", "IS", "h1"]]), &json!({"constraints": ["host == h1"]}), 0);
        check(&json!([["hostname", "UNIQUE"]]), &json!({"maxPerHost": 1}), 0);
        check(&json!([["hostname", "MAX_PER", "3"]]), &json!({"maxPerHost": 3}), 0);
        check(&json!([["@zone", "GROUP_BY", "3"]]), &json!({"spreadBy": "zone"}), 0);
        check(
            &json!([["hostname", "GROUP_BY"]]),
            &json!({"constraints": null, "spreadBy": null}),
            0,
        );
    }

    #[test]
    fn what_does_not_is_told() {
        for odd in [
            json!([["rack", "LIKE", "a.*"]]),
            json!([["rack", "UNLIKE", "a|b"]]),
            json!([["rack", "UNIQUE"]]),
            json!([["rack", "CLUSTER"]]),
            json!([["rack", "MAX_PER", "2"]]),
            json!([["host", "CLUSTER", "h1"]]),
            json!([["hostname", "MAX_PER", "0"]]),
            json!([["rack", "CLUSTER", "a b"]]),
            json!([["x y", "GROUP_BY"]]),
            json!([["rack"]]),
            json!([[]]),
            json!([7]),
            json!([["rack", "CLUSTER", 7]]),
        ] {
            check(&odd, &json!({"constraints": null}), 1);
        }
        check(&json!([["a", "GROUP_BY"], ["b", "GROUP_BY"]]), &json!({"spreadBy": "a"}), 1);
    }
}
