//! How the parser asks for secrets; where they are kept is the caller's to know.

use crate::model::Secret;

/// Looks secrets up.
pub trait Secrets {
    /// The value of a key of a secret.
    ///
    /// # Errors
    /// Why there is none, for a message: which file or variable was looked at, never a value.
    fn get(&self, name: &str, key: &str) -> Result<Secret, String>;

    /// Whether values only stand for the real ones, so that nothing can be said against them.
    fn are_stand_ins(&self) -> bool {
        false
    }
}

/// No secrets at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn get(&self, _: &str, _: &str) -> Result<Secret, String> {
        Err("no place for secrets was given".into())
    }
}
