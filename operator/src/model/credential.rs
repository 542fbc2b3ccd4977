//! What proves who the agent is.

use std::fmt;

use super::Secret;

/// Something that only we should have, or that tells whom to trust: a key, a certificate, a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// In a file of the agent's machine, read when it is needed: one that is renewed needs no new document.
    File(String),
    /// The value of a secret.
    Secret {
        /// The secret's name.
        name: String,
        /// The key under that name.
        key: String,
        /// The value.
        value: Secret,
    },
}

impl fmt::Display for Credential {
    /// Where it comes from.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(path),
            Self::Secret { name, key, value: _ } => write!(f, "secret {name}/{key}"),
        }
    }
}

impl Credential {
    /// The value, where it is a secret's.
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::File(_) => None,
            Self::Secret { value, .. } => Some(value),
        }
    }
}
