//! Names that cannot be wrong: once one of these exists, it is safe in a label, a path or a container name.

use std::fmt;
use std::sync::Arc;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {given:?} {why}")]
pub struct NameError {
    /// What it was meant to name, such as `service`.
    pub kind: &'static str,
    /// The text as given, cut to 40 characters.
    pub given: String,
    /// What is wrong with it.
    pub why: &'static str,
}

fn label(kind: &'static str, s: &str) -> Result<(), NameError> {
    let err = |why| NameError { kind, given: s.chars().take(40).collect(), why };
    if s.is_empty() {
        return Err(err("is empty"));
    }
    if s.len() > 63 {
        return Err(err("is longer than 63 characters"));
    }
    let ok = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if !s.bytes().all(ok) {
        return Err(err("may hold only lower-case letters, digits and '-'"));
    }
    if s.starts_with('-') || s.ends_with('-') {
        return Err(err("must begin and end with a letter or digit"));
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a DNS-1123 label: 1 to 63 of `a-z`, `0-9` and `-`, no `-` at either end.
            pub fn new(s: &str) -> Result<Self, NameError> {
                label($kind, s)?;
                Ok(Self(s.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}

names! {
    /// A fleet: where things run.
    FleetName = "fleet";
    /// One Docker host of a fleet.
    HostName = "host";
    /// A scaling service.
    ServiceName = "service";
    /// The installation: what carries another owner's id is never touched.
    OwnerId = "owner";
}

impl FleetName {
    /// `default`: the fleet of a service that names none.
    pub fn of_default() -> Self {
        Self("default".into())
    }
}

/// The stable ordinal that an instance fills, from 1: slot 3 of `web` is `web_3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The host name of an instance: `<service>-<slot>` within the 63 characters that a host name may have.
pub fn instance_host_name(service: &ServiceName, slot: Slot) -> String {
    let (service, tail) = (service.as_str(), format!("-{slot}"));
    let room = 63_usize.saturating_sub(tail.len());
    let head = service.get(..room).unwrap_or(service).trim_end_matches('-');
    format!("{head}{tail}")
}

/// A backend's own id of one instance (a container id).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub Arc<str>);

impl fmt::Display for InstanceId {
    /// The first twelve characters, as `docker ps` shows them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.0.get(..12).unwrap_or(&self.0);
        f.pad(short)
    }
}

/// A commit id, or a digest of a directory's content. Shown, never compared with what runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub Arc<str>);

impl Revision {
    /// What it is and its short form: `commit 0123456789`, `content 01234567` of a directory, or `objects 01234567` of an
    /// API.
    pub fn phrase(&self) -> String {
        let what = if self.0.starts_with(DIRECTORY) {
            "content"
        } else if self.0.starts_with(OBJECTS) {
            "objects"
        } else {
            "commit"
        };
        format!("{what} {self}")
    }
}

/// What the revision of a directory begins with.
const DIRECTORY: &str = "dir:sha256:";
/// What the revision of an API's objects begins with.
pub(crate) const OBJECTS: &str = "objects:sha256:";

impl fmt::Display for Revision {
    /// The first ten characters of the id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [DIRECTORY, OBJECTS];
        let id = known.iter().find_map(|p| self.0.strip_prefix(p)).unwrap_or(&self.0);
        f.pad(id.get(..10).unwrap_or(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_escape_are_refused() {
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "..", "a\nb", "é", &"x".repeat(64)] {
            assert!(ServiceName::new(bad).is_err(), "{bad:?} was taken");
        }
        for good in ["a", "web-1", "9", &"x".repeat(63)] {
            assert!(ServiceName::new(good).is_ok(), "{good:?} was refused");
        }
    }
}
