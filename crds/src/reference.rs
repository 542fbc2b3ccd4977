//! What users write to point at something: a port of the service, a label of a host.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::quantity::{FormVisitor, ParseFormError, form};
use crate::text;

const PORT_REF: &str = "the name of a port of this service or a port number (1 to 65535)";
const CONSTRAINT: &str = "a comparison with a host label such as \"zone == a\" or \"disk != slow\"";

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
            Err(ParseFormError { expected: PORT_REF })
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

form!(PortRef, PORT_REF, number: Some(PortRef::from_number), schema: {
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
        parse().ok_or(ParseFormError { expected: CONSTRAINT })
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

form!(Constraint, CONSTRAINT, number: None, schema: {
    "type": "string",
    "maxLength": text::CONSTRAINT_MAX,
    "pattern": concat!(
        "^ *[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])? *(==|!=)",
        " *[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])? *$",
    ),
});
