//! How the parser asks for secrets; where they are kept is the caller's to know.

use crate::model::Secret;

/// Looks secrets up.
pub trait Secrets {
    /// The value of a key of a secret.
    ///
    /// # Errors
    /// Why there is none, for a message: which file or variable was looked at, never a value.
    fn get(&self, name: &str, key: &str) -> Result<Secret, String>;

    /// The same for the document at a path: where documents come from several places, each has secrets of its own.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn get_for(&self, path: &str, name: &str, key: &str) -> Result<Secret, String> {
        let _ = path;
        self.get(name, key)
    }

    /// Whether any secret that was asked for would be answered differently now.
    fn changed(&self) -> bool {
        false
    }

    /// Whether values only stand for the real ones, so that nothing can be said against them.
    fn are_stand_ins(&self) -> bool {
        false
    }
}

/// The secrets of the document at one path.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) secrets: &'a dyn Secrets,
    pub(super) path: &'a str,
}

impl Secrets for Of<'_> {
    fn get(&self, name: &str, key: &str) -> Result<Secret, String> {
        self.secrets.get_for(self.path, name, key)
    }

    fn are_stand_ins(&self) -> bool {
        self.secrets.are_stand_ins()
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
