//! What is in force, as text that outlives the process.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::document::Id;
use crate::model::Secret;

/// The version of the text's form.
const VERSION: u32 = 1;

/// What the last parse left in force: its good documents, and the last good ones of the others.
///
/// Whoever loses it loses only the ability to go on applying the last good document of an object
/// whose newest is broken; such objects are held all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    pub(super) objects: BTreeMap<String, Document>,
    /// Which service has which requests: of two that ask for the same the one that had them keeps them.
    pub(super) routes: BTreeMap<String, String>,
    /// The certificates in force, by their file names, so that a renewal that went wrong changes nothing. In memory
    /// only: no secret's value is ever kept.
    pub(super) certificates: BTreeMap<String, Secret>,
    pub(super) foreign: usize,
    /// Services whose document was removed from where absence means something, while other documents come from an API.
    pub(super) gone: BTreeSet<String>,
}

/// A good document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Document {
    /// The file that it came from.
    pub(super) path: String,
    /// Canonical JSON, without any secret's value.
    pub(super) document: String,
}

/// Why a text is not an [`Applied`]; begin with an empty one.
#[derive(Debug, thiserror::Error)]
pub enum AppliedError {
    /// Not what `to_json` writes.
    #[error("the record of applied documents is damaged")]
    Damaged(#[source] serde_json::Error),
    /// Written by another version of evenkeel.
    #[error("the record of applied documents has the form {0}, and this version reads {VERSION}")]
    Version(u32),
    /// A name in it is none.
    #[error("the record of applied documents names an object {0:?}")]
    Name(String),
}

#[derive(Serialize, Deserialize)]
struct Form {
    version: u32,
    #[serde(default)]
    foreign: usize,
    #[serde(default)]
    objects: BTreeMap<String, Document>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    routes: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    gone: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Applied {
    /// The text to keep; the same for the same content.
    pub fn to_json(&self) -> String {
        let Self { objects, routes, certificates: _, foreign, gone } = self;
        let form = Form {
            version: VERSION,
            foreign: *foreign,
            objects: objects.clone(),
            routes: routes.clone(),
            gone: gone.clone(),
        };
        serde_json::to_string(&form).unwrap_or_default() // strings and numbers always serialise
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// The text is not that.
    pub fn from_json(text: &str) -> Result<Self, AppliedError> {
        let Versioned { version } = serde_json::from_str(text).map_err(AppliedError::Damaged)?;
        if version != VERSION {
            return Err(AppliedError::Version(version));
        }
        let Form { version: _, foreign, objects, routes, gone } =
            serde_json::from_str(text).map_err(AppliedError::Damaged)?;
        if let Some(bad) = objects.keys().find(|key| Id::read(key).is_none()) {
            return Err(AppliedError::Name(bad.chars().take(60).collect()));
        }
        Ok(Self { objects, routes, certificates: BTreeMap::new(), foreign, gone })
    }

    /// The objects in force, as `Kind/name`, with the file that each came from.
    pub fn objects(&self) -> impl Iterator<Item = (&str, &str)> {
        self.objects.iter().map(|(key, d)| (key.as_str(), d.path.as_str()))
    }

    /// Documents of other API groups that were passed over.
    pub fn foreign(&self) -> usize {
        self.foreign
    }
}
