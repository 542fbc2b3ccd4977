//! Values that know where they stand in their file, and what can be wrong with one.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::{Map, Number, Value as Json};

/// A place in a file: line and column from 1; zeroes where a place has no meaning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pos {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Something wrong at a place of one document; the file and the object are added later.
#[derive(Debug, Clone)]
pub(super) struct Flaw {
    pub(super) pos: Pos,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Flaw {
    pub(super) fn new(pos: Pos, message: impl Into<String>) -> Self {
        Self { pos, message: message.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) pos: Pos,
    pub(super) value: Value,
}

/// A value as YAML 1.2's core schema reads it. Numbers and booleans keep their text for messages.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool, String),
    Number(Number, String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Field>),
}

/// An entry of a mapping; no two of a mapping have the same key.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) key: String,
    pub(super) pos: Pos,
    pub(super) value: Node,
}

impl Node {
    /// A stored document; it has no places.
    pub(super) fn from_json(json: Json) -> Self {
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(b, b.to_string()),
            Json::Number(n) => {
                let text = n.to_string();
                Value::Number(n, text)
            }
            Json::String(s) => Value::Text(s),
            Json::Array(items) => Value::List(items.into_iter().map(Self::from_json).collect()),
            Json::Object(map) => Value::Map(
                map.into_iter()
                    .map(|(key, v)| Field { key, pos: Pos::default(), value: Self::from_json(v) })
                    .collect(),
            ),
        };
        Self { pos: Pos::default(), value }
    }

    /// The value without places, and without the fields that are known to be wrong: those whose
    /// keys stand at one of `unknown`, and those whose plain values stand at one of `wrong`.
    pub(super) fn to_json(&self, unknown: &BTreeSet<Pos>, wrong: &BTreeSet<Pos>) -> Json {
        let good = |field: &&Field| {
            let nested = matches!(field.value.value, Value::List(_) | Value::Map(_));
            !unknown.contains(&field.pos) && (nested || !wrong.contains(&field.value.pos))
        };
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b, _) => Json::Bool(*b),
            Value::Number(n, _) => Json::Number(n.clone()),
            Value::Text(s) => Json::String(s.clone()),
            Value::List(items) => items.iter().map(|i| i.to_json(unknown, wrong)).collect(),
            Value::Map(fields) => fields
                .iter()
                .filter(good)
                .map(|f| (f.key.clone(), f.value.to_json(unknown, wrong)))
                .collect::<Map<_, _>>()
                .into(),
        }
    }

    pub(super) fn fields(&self) -> &[Field] {
        if let Value::Map(fields) = &self.value { fields } else { &[] }
    }

    pub(super) fn items(&self) -> &[Self] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    pub(super) fn field(&self, key: &str) -> Option<&Field> {
        self.fields().iter().find(|f| f.key == key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.field(key).map(|f| &f.value)
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// The place of a path such as `spec.ports[0].publish`, or of the nearest thing above it.
    pub(super) fn locate(&self, path: &str) -> Pos {
        let mut here = self;
        for step in path.split(['.', '[']).filter(|s| !s.is_empty()) {
            let next = match step.strip_suffix(']') {
                Some(index) => index.parse().ok().and_then(|i: usize| here.items().get(i)),
                None => here.get(step),
            };
            match next {
                Some(next) => here = next,
                None => break,
            }
        }
        here.pos
    }

    /// A scalar as it could be written again, for a hint.
    pub(super) fn plain(&self) -> String {
        match &self.value {
            Value::Bool(_, text) | Value::Number(_, text) => shown(text),
            Value::Text(text) => quoted(text),
            Value::Null | Value::List(_) | Value::Map(_) => String::new(),
        }
    }

    /// What it is, for a message: `the number 8080`.
    pub(super) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(_, text) => format!("the boolean {}", shown(text)),
            Value::Number(_, text) => format!("the number {}", shown(text)),
            Value::Text(text) => format!("the text {}", quoted(text)),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }
}

/// The most of a user's text that a message repeats, in characters.
const SHOWN: usize = 60;

/// A user's text for a message: cut, without credentials and without anything that a terminal
/// would obey.
pub(super) fn shown(text: &str) -> String {
    let (text, cut) = cut(text);
    without_credentials(text).chars().flat_map(printable).chain(cut.then_some('…')).collect()
}

/// The same in quotes.
pub(super) fn quoted(text: &str) -> String {
    let (text, cut) = cut(text);
    let mut out = String::from('"');
    for c in without_credentials(text).chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c => out.extend(printable(c)),
        }
    }
    out.extend(cut.then_some('…'));
    out.push('"');
    out
}

fn cut(text: &str) -> (&str, bool) {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => (&text[..at], true),
        None => (text, false),
    }
}

/// `http://user:password@host` without what is between `://` and `@`. A text that was cut
/// may have lost its `@`: then nothing of the authority is shown.
fn without_credentials(text: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = text.split_once("://") else { return Cow::Borrowed(text) };
    let authority = rest.split('/').next().unwrap_or(rest);
    match rest.rsplit_once('@') {
        Some((_, after)) => Cow::Owned(format!("{scheme}://…@{after}")),
        None if authority.len() == rest.len() && text.chars().count() == SHOWN => {
            Cow::Owned(format!("{scheme}://"))
        }
        None => Cow::Borrowed(text),
    }
}

/// The character, escaped where it would move a cursor, hide or reorder text.
pub(super) fn printable(c: char) -> impl Iterator<Item = char> {
    let unsafe_ = c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let escaped = unsafe_.then(|| c.escape_default());
    let plain = (!unsafe_).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

/// The nearest of `known`, where one is near enough to be what was meant.
pub(super) fn nearest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given: String = given.chars().take(100).collect::<String>().to_lowercase();
    let far = (given.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&given, &k.to_lowercase()), k))
        .filter(|(distance, _)| *distance <= far)
        .min()
        .map(|(_, k)| k)
}

/// `did you mean "x"?`, or else the list of what is known.
pub(super) fn meant<'a>(
    given: &str,
    what: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    if let Some(near) = nearest(given, known.clone()) {
        return format!("did you mean \"{near}\"?");
    }
    let mut names: Vec<&str> = known.into_iter().take(41).collect();
    let more = names.len() > 40;
    names.truncate(40);
    if names.is_empty() {
        return format!("there are no {what} here");
    }
    format!("known {what}: {}{}", names.join(", "), if more { ", …" } else { "" })
}

/// A path for a message: whole, but without anything that a terminal would obey.
pub(super) fn shown_path(path: &str) -> String {
    path.chars().flat_map(printable).collect()
}
