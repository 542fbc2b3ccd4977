//! Variables in a compose file: `$NAME`, `${NAME}` and its forms with a default, an error or an alternative.

use serde_yaml::Value;

/// Where variables are looked up.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Defaults inside one another.
const DEEPEST: usize = 8;
/// The longest text that comes of it.
const LONGEST: usize = 256 << 10;

/// Puts values in the place of variables in every text; adds what could not be to `unset`.
pub(super) fn all(value: &mut Value, lookup: Lookup<'_>, unset: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            if text.contains('$') {
                *text = one(text, lookup, unset);
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(|item| all(item, lookup, unset)),
        Value::Mapping(fields) => {
            fields.iter_mut().for_each(|(_, field)| all(field, lookup, unset));
        }
        Value::Tagged(tagged) => all(&mut tagged.value, lookup, unset),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// One text. What is not set is empty, as compose has it.
pub(super) fn one(text: &str, lookup: Lookup<'_>, unset: &mut Vec<String>) -> String {
    let mut out = String::new();
    expand(text, lookup, unset, &mut out, 0);
    out
}

fn expand(text: &str, lookup: Lookup<'_>, unset: &mut Vec<String>, out: &mut String, depth: usize) {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if out.len() > LONGEST {
            return;
        }
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((inside, after)) = braced(after) {
            form(inside, lookup, unset, out, depth);
            rest = after;
        } else {
            let end = after.find(|c| !is_inner(c)).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                out.push('$');
                out.push_str(name);
            } else {
                out.push_str(&value(name, lookup, unset));
            }
            rest = after;
        }
    }
    out.push_str(rest);
}

fn is_inner(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// What is in braces, and what comes after them.
fn braced(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('{')?;
    let mut open = 1_usize;
    for (at, c) in inside.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some((inside.get(..at)?, inside.get(at + 1..)?));
        }
    }
    None
}

fn form(inside: &str, lookup: Lookup<'_>, unset: &mut Vec<String>, out: &mut String, depth: usize) {
    let end = inside.find(|c| !is_inner(c)).unwrap_or(inside.len());
    let (name, rest) = inside.split_at(end);
    let known = lookup(name);
    let filled = known.clone().filter(|value| !value.is_empty());
    let mut other = |text: &str, out: &mut String| {
        if depth < DEEPEST {
            expand(text, lookup, unset, out, depth + 1);
        }
    };
    let (value, operator) = match rest.strip_prefix(':') {
        Some(rest) => (filled, rest),
        None => (known, rest),
    };
    match (operator.chars().next(), value) {
        (Some('-'), None) | (Some('+'), Some(_)) => {
            other(operator.get(1..).unwrap_or_default(), out);
        }
        (None | Some('-' | '?'), Some(value)) => out.push_str(&value),
        (Some('+'), None) => {}
        (None | Some('?'), None) if !name.is_empty() => unset.push(name.to_owned()),
        _ => unset.push(inside.to_owned()),
    }
}

fn value(name: &str, lookup: Lookup<'_>, unset: &mut Vec<String>) -> String {
    lookup(name).unwrap_or_else(|| {
        unset.push(name.to_owned());
        String::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str) -> (String, Vec<String>) {
        let lookup = |name: &str| match name {
            "TAG" => Some("1.2".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let mut unset = Vec::new();
        (one(text, &lookup, &mut unset), unset)
    }

    #[test]
    fn variables_are_filled_in_as_compose_does() {
        for (text, expect) in [
            ("a:$TAG", "a:1.2"),
            ("a:${TAG}-x", "a:1.2-x"),
            ("${TAG:-9}${EMPTY:-9}${EMPTY-9}${NO:-9}", "1.299"),
            ("${NO:-${TAG}}", "1.2"),
            ("${NO:-${ALSO:-x}y}", "xy"),
            ("${TAG:+set}${EMPTY:+set}${EMPTY+set}${NO+set}", "setset"),
            ("${TAG:?must}", "1.2"),
            ("$$HOME $$$TAG", "$HOME $1.2"),
            ("cost: 5$ and $1", "cost: 5$ and $1"),
            ("{$TAG}", "{1.2}"),
        ] {
            assert_eq!(made(text), (expect.to_owned(), vec![]), "{text}");
        }
    }

    #[test]
    fn what_is_not_set_is_empty_and_told() {
        for (text, expect, unset) in [
            ("a:${NO}", "a:", "NO"),
            ("$NO.", ".", "NO"),
            ("${EMPTY:?say it}", "", "EMPTY"),
            ("${NO?say it}", "", "NO"),
            ("${a b}", "", "a b"),
            ("${}", "", ""),
        ] {
            assert_eq!(made(text), (expect.to_owned(), vec![unset.to_owned()]), "{text}");
        }
        assert_eq!(made("${TAG").0, "$".to_owned() + "{TAG");
        let deep = "${A:-".repeat(100) + &"}".repeat(100);
        assert_eq!(made(&deep).0, "");
    }
}
