//! What somebody else runs, as documents of evenkeel: apps of Marathon, and compose files. Pure.
//!
//! Nothing is lost in silence: whatever a document has no word for becomes a [`Note`], and what cannot be a document at all is
//! [`LeftOut`] with its reason. Documents that our own parser refuses are never handed out. No message repeats a value of the
//! environment.

pub mod compose;
mod document;
pub mod marathon;
mod mount;
mod name;
mod report;
mod text;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::model::{Desired, OwnerId, Problem, Service};
use crate::source::parse::{self, Applied, Context, NoSecrets};

pub use document::Document;
pub use report::{Line, lines};

/// Documents, and what was not carried over into them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Import {
    /// In the order in which they are to be written.
    pub documents: Vec<Document>,
    /// What documents do not say in their own words.
    pub notes: Vec<Note>,
    /// What became no document.
    pub left_out: Vec<LeftOut>,
    /// What is to be known of all of it.
    pub remarks: Vec<String>,
}

/// Something that a document does not say in its own words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// What it is about, as it was called: `/shop/web`, `services.web`.
    pub subject: String,
    /// The field there, such as `healthChecks`.
    pub field: String,
    /// What became of it: lower case, no full stop.
    pub said: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether Docker hosts will have nothing like it. If not, it is said in other words or makes no difference.
    pub lost: bool,
}

/// Something that became no document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// What it was called.
    pub subject: String,
    /// Why.
    pub why: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Why nothing could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ImportError {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl ImportError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// What is told of one thing while it is read.
#[derive(Debug)]
struct Notes {
    subject: String,
    all: Vec<Note>,
}

impl Notes {
    fn of(subject: &str) -> Self {
        Self { subject: subject.to_owned(), all: Vec::new() }
    }

    fn add(&mut self, field: &str, said: impl Into<String>, hint: Option<&str>, lost: bool) {
        self.all.push(Note {
            subject: self.subject.clone(),
            field: field.to_owned(),
            said: said.into(),
            hint: hint.map(str::to_owned),
            lost,
        });
    }

    /// Docker hosts will have nothing like it.
    fn lost(&mut self, field: &str, said: impl Into<String>) {
        self.add(field, said, None, true);
    }

    /// The same, with what to do about it.
    fn lost_but(&mut self, field: &str, said: impl Into<String>, hint: &str) {
        self.add(field, said, Some(hint), true);
    }

    /// It is said in other words, or makes no difference.
    fn kept(&mut self, field: &str, said: impl Into<String>) {
        self.add(field, said, None, false);
    }

    /// Whether something was told of a field or of a part of it.
    fn has(&self, field: &str) -> bool {
        let part = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.all.iter().any(|note| note.field.strip_prefix(field).is_some_and(part))
    }
}

/// Reads documents by our own rules, and says what is wrong with each, by its file. The stand-ins are read and not written.
fn read(
    documents: &[Document],
    stand_ins: &[Document],
    owner: &OwnerId,
) -> (Desired, BTreeMap<String, Vec<Problem>>) {
    let all = documents.iter().chain(stand_ins);
    let files = all.map(|d| (d.file(), d.text.as_bytes().into())).collect();
    let (desired, _) = parse::parse("import", &files, &[], &context(owner, &Applied::default()));
    let mut problems: BTreeMap<String, Vec<Problem>> = BTreeMap::new();
    for problem in &desired.problems {
        problems.entry(problem.path.clone()).or_default().push(problem.clone());
    }
    (desired, problems)
}

/// What a service's document means by itself.
fn meaning(document: &serde_json::Value, owner: &OwnerId) -> Result<Service, String> {
    let nothing = Applied::default();
    let read = parse::service_from_document(&document.to_string(), "", &context(owner, &nothing));
    read.map_err(|e| e.flaws().join("; "))
}

fn context<'a>(owner: &'a OwnerId, nothing: &'a Applied) -> Context<'a> {
    let limits = parse::Limits::default();
    let default_endpoint = parse::DEFAULT_ENDPOINT;
    Context { owner, secrets: &NoSecrets, previous: nothing, limits, default_endpoint }
}
