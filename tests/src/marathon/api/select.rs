//! Selectors of labels: `a`, `a==b`, `a!=b`, `a in (b, c)`, `a notin (b, c)`, all of which must hold.

use std::collections::BTreeMap;

use super::super::refusal::Refusal;

/// What labels must be like.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selector(Vec<(String, Test)>);

#[derive(Debug, PartialEq, Eq)]
enum Test {
    There,
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl Selector {
    /// Refuses what is none.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let mut rest = text.trim_start();
        let mut all = Vec::new();
        while !rest.is_empty() {
            let found = one(&mut rest);
            let more = rest.strip_prefix(',');
            let (Some(found), true) = (found, more.is_some() || rest.is_empty()) else {
                let error = format!("{text} is no selector of labels, because of '{rest}'");
                return Err(Refusal::illegal(error));
            };
            all.push(found);
            rest = more.unwrap_or(rest).trim_start();
        }
        Ok(Self(all))
    }

    /// Whether a label is there and says what it must, for each of them.
    pub(super) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(name, test)| {
            labels.get(name).is_some_and(|value| match test {
                Test::There => true,
                Test::In(values) => values.contains(value),
                Test::NotIn(values) => !values.contains(value),
            })
        })
    }
}

fn one(rest: &mut &str) -> Option<(String, Test)> {
    let name = term(rest)?;
    for (operator, is) in [("==", true), ("!=", false)] {
        if let Some(after) = rest.strip_prefix(operator) {
            *rest = after.trim_start();
            let value = vec![term(rest)?];
            return Some((name, if is { Test::In(value) } else { Test::NotIn(value) }));
        }
    }
    let before = *rest;
    let word = term(rest);
    let is = match word.as_deref() {
        Some("in") => true,
        Some("notin") => false,
        _ => {
            *rest = before;
            return Some((name, Test::There));
        }
    };
    *rest = rest.strip_prefix('(')?.trim_start();
    let mut values = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(')') {
            *rest = after.trim_start();
            break;
        }
        values.push(term(rest)?);
        *rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Some((name, if is { Test::In(values) } else { Test::NotIn(values) }))
}

/// Letters, digits and `-_.`; anything else behind a backslash.
fn term(rest: &mut &str) -> Option<String> {
    let mut word = String::new();
    let mut chars = rest.char_indices();
    let mut end = rest.len();
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            word.push(chars.next()?.1);
        } else if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            word.push(c);
        } else {
            end = at;
            break;
        }
    }
    *rest = rest[end..].trim_start();
    (!word.is_empty()).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_those_of_the_reference() {
        let labels = [("tier", "front"), ("env", "test"), ("a/b", "x")];
        let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (text, matches) in [
            ("tier", true),
            ("nothing", false),
            ("tier==front", true),
            ("tier == back", false),
            ("tier!=back,env", true),
            ("nothing!=back", false),
            ("env in (test, production)", true),
            ("env notin (test)", false),
            ("env notin (production),tier in (front)", true),
            ("a\\/b==x", true),
            ("", true),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&labels), matches, "{text}");
        }
        for wrong in ["a=b", "a/b", "a in test", "a in (b", "==x", "a,,b"] {
            assert_eq!(Selector::parse(wrong).unwrap_err().status, 422, "{wrong}");
        }
    }
}
