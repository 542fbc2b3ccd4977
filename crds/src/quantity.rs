//! Values that users write as text: durations, cpu, memory, percentages, ports and constraints.
//!
//! Each parses into a number that cannot be malformed and prints in one canonical form, so that
//! `60s` and `1m` compare equal and never look like a change.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::text;

/// A value was not in the form that its field asks for; says which form that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseFormError {
    expected: &'static str,
}

impl ParseFormError {
    /// The form that was asked for, with an example.
    pub fn expected(&self) -> &'static str {
        self.expected
    }
}

impl fmt::Display for ParseFormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl std::error::Error for ParseFormError {}

/// Deserialises from a string, and from a whole number where the form has one.
struct FormVisitor<T> {
    expected: &'static str,
    number: Option<fn(u64) -> Option<T>>,
}

impl<T: FromStr> de::Visitor<'_> for FormVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
        value.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        match self.number {
            None => Err(E::invalid_type(de::Unexpected::Unsigned(value), &self)),
            Some(parse) => parse(value)
                .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
        }
    }
}

/// `Deserialize`, and `JsonSchema` from the same description.
macro_rules! form {
    ($type:ident, $expected:expr, number: $number:expr, schema: $schema:tt) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let visitor = FormVisitor { expected: $expected, number: $number };
                deserializer.deserialize_any(visitor)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = json_schema!($schema);
                let hint = format!("expected {}", $expected);
                schema.insert(text::PATTERN_MESSAGE.to_owned(), hint.into());
                schema
            }
        }
    };
}

/// Splits leading digits off: `("10", "s")` of `10s`. None unless there are 1 to `max` of them.
fn digits(text: &str, max: usize) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if end == 0 || end > max {
        return None;
    }
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok()?, rest))
}

macro_rules! expected {
    (duration) => {
        "a duration such as \"10s\", \"500ms\", \"5m\" or \"1h30m\""
    };
    (cpu) => {
        "processors such as \"100m\" (a tenth), \"1.5\" or 2, with at most three decimals"
    };
    (memory) => {
        "an amount with a unit such as \"64Mi\" or \"2Gi\" (Ki, Mi, Gi, Ti, k, M, G, T)"
    };
    (int_or_percent) => {
        "a number of instances (0 to 10000) or a percentage such as \"25%\" (0% to 100%)"
    };
    (port_ref) => {
        "the name of a port of this service or a port number (1 to 65535)"
    };
    (constraint) => {
        "a comparison with a host label such as \"zone == a\" or \"disk != slow\""
    };
}

/// A length of time, written as whole numbers with units: `10s`, `500ms`, `5m`, `1h30m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(Duration);

impl HumanDuration {
    /// A whole number of seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The length of time.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<HumanDuration> for Duration {
    fn from(value: HumanDuration) -> Self {
        value.0
    }
}

impl FromStr for HumanDuration {
    type Err = ParseFormError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = ParseFormError { expected: expected!(duration) };
        let (mut rest, mut millis, mut parts) = (text, 0_u64, 0);
        while !rest.is_empty() {
            let (number, tail) = digits(rest, 7).ok_or(error)?;
            // "ms" before "m": the longer unit first.
            let (unit, tail) = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)]
                .iter()
                .find_map(|(name, unit)| Some((*unit, tail.strip_prefix(name)?)))
                .ok_or(error)?;
            millis += number * unit;
            parts += 1;
            rest = tail;
        }
        if parts == 0 || parts > 4 {
            return Err(error);
        }
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

form!(HumanDuration, expected!(duration), number: None, schema: {
    "type": "string",
    "maxLength": 36,
    "pattern": "^([0-9]{1,7}(ms|s|m|h)){1,4}$",
});

/// Processors, in thousandths: `100m`, `1.5`, `2`. At most 9999.999 processors, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu {
    millis: u32,
}

impl Cpu {
    /// Thousandths of a processor; None for 0 and for 10000 processors or more.
    pub const fn from_millis(millis: u32) -> Option<Self> {
        if millis == 0 || millis > 9_999_999 { None } else { Some(Self { millis }) }
    }

    /// Thousandths of a processor, 1 to 9 999 999.
    pub const fn millis(self) -> u32 {
        self.millis
    }

    fn from_whole(number: u64) -> Option<Self> {
        Self::from_millis(u32::try_from(number).ok()?.checked_mul(1_000)?)
    }
}

impl FromStr for Cpu {
    type Err = ParseFormError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            if text.len() > 1 && text.starts_with('0') && !text.starts_with("0.") {
                return None;
            }
            if let Some(millis) = text.strip_suffix('m') {
                let (millis, rest) = digits(millis, 7)?;
                return if rest.is_empty() {
                    Self::from_millis(u32::try_from(millis).ok()?)
                } else {
                    None
                };
            }
            let (whole, rest) = digits(text, 4)?;
            if rest.is_empty() {
                return Self::from_whole(whole);
            }
            let decimals = rest.strip_prefix('.')?;
            let (fraction, rest) = digits(decimals, 3)?;
            if !rest.is_empty() {
                return None;
            }
            let fraction = fraction * [100, 10, 1].get(decimals.len() - 1)?;
            Self::from_millis(u32::try_from(whole * 1_000 + fraction).ok()?)
        };
        parse().ok_or(ParseFormError { expected: expected!(cpu) })
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis.is_multiple_of(1_000) {
            write!(f, "{}", self.millis / 1_000)
        } else {
            write!(f, "{}m", self.millis)
        }
    }
}

impl Serialize for Cpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

form!(Cpu, expected!(cpu), number: Some(Cpu::from_whole), schema: {
    "type": ["integer", "string"],
    "minimum": 1,
    "maximum": 9999,
    "maxLength": 8,
    "pattern": concat!(
        "^([1-9][0-9]{0,6}m|[1-9][0-9]{0,3}(\\.[0-9]{1,3})?",
        "|0\\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9]))$",
    ),
});

/// An amount of memory with a unit: `64Mi`, `2Gi`, `500M`. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Memory {
    bytes: u64,
}

/// Largest first within binary and decimal, as the canonical form takes the first that fits.
const MEMORY_UNITS: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

impl Memory {
    /// The amount in bytes, a whole number of some unit.
    pub const fn bytes(self) -> u64 {
        self.bytes
    }
}

impl FromStr for Memory {
    type Err = ParseFormError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (number, unit) = digits(text, 7)?;
            let (_, size) = MEMORY_UNITS.iter().find(|(name, _)| *name == unit)?;
            if text.starts_with('0') { None } else { Some(Self { bytes: number * size }) }
        };
        parse().ok_or(ParseFormError { expected: expected!(memory) })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The form takes at most seven digits, so a unit that divides evenly may still be too small.
        for (unit, size) in MEMORY_UNITS {
            if self.bytes.is_multiple_of(size) && self.bytes / size < 10_000_000 {
                return write!(f, "{}{unit}", self.bytes / size);
            }
        }
        write!(f, "{}", self.bytes)
    }
}

impl Serialize for Memory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

form!(Memory, expected!(memory), number: None, schema: {
    "type": "string",
    "maxLength": 9,
    "pattern": "^[1-9][0-9]{0,6}(Ki|Mi|Gi|Ti|k|M|G|T)$",
});

/// A number of instances, or a percentage of the replicas: `2`, `25%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntOrPercent {
    /// So many instances, 0 to 10000.
    Int(u32),
    /// So many hundredths of the replicas, 0 to 100. Which way it rounds is the field's to say.
    Percent(u8),
}

impl IntOrPercent {
    fn from_number(number: u64) -> Option<Self> {
        u32::try_from(number).ok().filter(|n| *n <= 10_000).map(Self::Int)
    }
}

impl FromStr for IntOrPercent {
    type Err = ParseFormError;

    /// Only the percentage is text; a number is written without quotes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (percent, rest) = digits(text, 3)?;
            if rest != "%" || percent > 100 || (text.len() > 2 && text.starts_with('0')) {
                return None;
            }
            u8::try_from(percent).ok().map(Self::Percent)
        };
        parse().ok_or(ParseFormError { expected: expected!(int_or_percent) })
    }
}

impl fmt::Display for IntOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for IntOrPercent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(number) => serializer.serialize_u32(*number),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

form!(IntOrPercent, expected!(int_or_percent), number: Some(IntOrPercent::from_number), schema: {
    "type": ["integer", "string"],
    "minimum": 0,
    "maximum": 10000,
    "maxLength": 4,
    "pattern": "^(100|[1-9]?[0-9])%$",
});

/// A port of the container, by the name it has under `ports` or by number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PortRef {
    /// The `name` of an entry of `ports`.
    Name(String),
    /// The container's port, 1 to 65535.
    Number(u16),
}

impl PortRef {
    fn from_number(number: u64) -> Option<Self> {
        u16::try_from(number).ok().filter(|n| *n > 0).map(Self::Number)
    }
}

impl FromStr for PortRef {
    type Err = ParseFormError;

    /// Only the name is text; a number is written without quotes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text::is_name(text) {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(ParseFormError { expected: expected!(port_ref) })
        }
    }
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl Serialize for PortRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => serializer.serialize_str(name),
            Self::Number(number) => serializer.serialize_u16(*number),
        }
    }
}

form!(PortRef, expected!(port_ref), number: Some(PortRef::from_number), schema: {
    "type": ["integer", "string"],
    "minimum": 1,
    "maximum": 65535,
    "maxLength": 63,
    "pattern": text::NAME_PATTERN,
});

/// How a constraint compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// `==`: the host has the label with this value.
    Equal,
    /// `!=`: the host has the label with another value, or not at all.
    NotEqual,
}

impl Operator {
    /// As users write it: `==` or `!=`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
        }
    }
}

/// A condition on a host's labels: `environment == test`, `zone != b`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Constraint {
    key: String,
    operator: Operator,
    value: String,
}

impl Constraint {
    /// The key of the host label.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How the label compares with [`value`](Self::value).
    pub const fn operator(&self) -> Operator {
        self.operator
    }

    /// The value compared with.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a host with this value of the label, if any, satisfies the constraint.
    pub fn allows(&self, label: Option<&str>) -> bool {
        let equal = label == Some(self.value.as_str());
        match self.operator {
            Operator::Equal => equal,
            Operator::NotEqual => !equal,
        }
    }
}

impl FromStr for Constraint {
    type Err = ParseFormError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (key, operator, value) = match (text.split_once("=="), text.split_once("!=")) {
                (Some((key, value)), None) => (key, Operator::Equal, value),
                (None, Some((key, value))) => (key, Operator::NotEqual, value),
                (None, None) | (Some(_), Some(_)) => return None,
            };
            let (key, value) = (key.trim_matches(' '), value.trim_matches(' '));
            if text.len() > text::CONSTRAINT_MAX || !text::is_label(key) || !text::is_label(value) {
                return None;
            }
            Some(Self { key: key.to_owned(), operator, value: value.to_owned() })
        };
        parse().ok_or(ParseFormError { expected: expected!(constraint) })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.key, self.operator.as_str(), self.value)
    }
}

impl Serialize for Constraint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

form!(Constraint, expected!(constraint), number: None, schema: {
    "type": "string",
    "maxLength": text::CONSTRAINT_MAX,
    "pattern": concat!(
        "^ *[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])? *(==|!=)",
        " *[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])? *$",
    ),
});
