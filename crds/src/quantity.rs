//! Amounts that users write as text: durations, cpu, memory and percentages.
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
    pub(crate) expected: &'static str,
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
pub(crate) struct FormVisitor<T> {
    pub(crate) expected: &'static str,
    pub(crate) number: Option<fn(u64) -> Option<T>>,
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
            Some(parse) => {
                parse(value).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }
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

pub(crate) use form;

/// Splits leading digits off: `("10", "s")` of `10s`. None unless there are 1 to `max` of them.
fn digits(text: &str, max: usize) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if end == 0 || end > max {
        return None;
    }
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok()?, rest))
}

const DURATION: &str = "a duration such as \"10s\", \"500ms\", \"5m\" or \"1h30m\"";
const CPU: &str =
    "processors such as \"100m\" (a tenth), \"1.5\" or 2, with at most three decimals";
const MEMORY: &str =
    "an amount with a unit such as \"64Mi\" or \"2Gi\" (Ki, Mi, Gi, Ti, k, M, G, T)";
const INT_OR_PERCENT: &str =
    "a number of instances (0 to 10000) or a percentage such as \"25%\" (0% to 100%)";

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
        let error = ParseFormError { expected: DURATION };
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

form!(HumanDuration, DURATION, number: None, schema: {
    "type": "string",
    "maxLength": 36,
    "pattern": "^([0-9]{1,7}(ms|s|m|h)){1,4}$",
    "x-kubernetes-validations": [{
        "rule": "duration(self) <= duration('8784h')",
        "message": "must not be longer than 366 days",
    }],
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
        parse().ok_or(ParseFormError { expected: CPU })
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

form!(Cpu, CPU, number: Some(Cpu::from_whole), schema: {
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
        parse().ok_or(ParseFormError { expected: MEMORY })
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

form!(Memory, MEMORY, number: None, schema: {
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
        parse().ok_or(ParseFormError { expected: INT_OR_PERCENT })
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

form!(IntOrPercent, INT_OR_PERCENT, number: Some(IntOrPercent::from_number), schema: {
    "type": ["integer", "string"],
    "minimum": 0,
    "maximum": 10000,
    "maxLength": 4,
    "pattern": "^(100|[1-9]?[0-9])%$",
});
