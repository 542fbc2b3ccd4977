//! Ids of apps and groups: absolute paths of names.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// An absolute path, `/` for the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(Arc<str>);

impl AppId {
    /// The group that contains everything.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// Resolves what a client wrote, which may be relative to `base`.
    pub fn of(text: &str, base: &Self) -> Self {
        let mut names: Vec<&str> = Vec::new();
        let from = if text.starts_with('/') { "" } else { &*base.0 };
        for name in from.split('/').chain(text.split('/')) {
            match name {
                "" | "." => {}
                ".." => {
                    names.pop();
                }
                name => names.push(name),
            }
        }
        Self(format!("/{}", names.join("/")).into())
    }

    /// Resolves against the root.
    pub fn absolute(text: &str) -> Self {
        Self::of(text, &Self::root())
    }

    /// The whole of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The group it is in; the root is in itself.
    #[must_use]
    pub fn parent(&self) -> Self {
        match self.0.rfind('/') {
            Some(0) | None => Self::root(),
            Some(at) => Self(self.0[..at].into()),
        }
    }

    /// Its last name; empty for the root.
    pub fn last(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Its first name; empty for the root.
    pub(super) fn first(&self) -> &str {
        self.0.split('/').nth(1).unwrap_or_default()
    }

    pub(super) fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// Whether it is somewhere below `group`.
    pub(super) fn is_within(&self, group: &Self) -> bool {
        if group.is_root() {
            return !self.is_root();
        }
        self.0.strip_prefix(&*group.0).is_some_and(|rest| rest.starts_with('/'))
    }

    /// As it is in ids of tasks.
    pub(super) fn safe(&self) -> String {
        self.0[1..].replace('/', "_")
    }

    /// Every group above it, the nearest first, without the root.
    pub(super) fn above(&self) -> impl Iterator<Item = Self> + use<> {
        std::iter::successors(Some(self.parent()), |id| Some(id.parent()))
            .take_while(|id| !id.is_root())
    }

    pub(super) fn json(&self) -> Value {
        Value::String(self.0.to_string())
    }

    /// What is wrong with the names in it.
    pub(super) fn fault(&self, reserved: bool) -> Option<String> {
        let names = || self.0.split('/').filter(|name| !name.is_empty());
        if let Some(wrong) = names().find(|name| !is_name(name)) {
            return Some(format!(
                "must fully match the pattern of names, which '{wrong}' does not"
            ));
        }
        let last = self.last();
        (reserved && ["restart", "tasks", "versions"].contains(&last)).then(|| {
            format!("the last name must not be one of restart, tasks, versions, but is {last}")
        })
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Words of lower case letters, digits and inner dashes, joined by dots.
fn is_name(name: &str) -> bool {
    name.split('.').all(is_word)
}

/// Lower case letters, digits, and dashes within.
pub(super) fn is_word(word: &str) -> bool {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = word.as_bytes();
    bytes.iter().all(|&c| fits(c) || c == b'-')
        && bytes.first().is_some_and(|&c| fits(c))
        && bytes.last().is_some_and(|&c| fits(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_write_becomes_absolute() {
        let base = AppId::absolute("/a/b");
        for (text, is) in [
            ("c", "/a/b/c"),
            ("../c", "/a/c"),
            ("./c/", "/a/b/c"),
            ("/c", "/c"),
            ("/../..", "/"),
            ("//x//y", "/x/y"),
        ] {
            assert_eq!(AppId::of(text, &base).as_str(), is, "{text}");
        }
        assert_eq!(
            AppId::absolute("/a/b/c").above().map(|id| id.to_string()).collect::<Vec<_>>(),
            ["/a/b", "/a"]
        );
        assert_eq!(AppId::absolute("/a/b/c").safe(), "a_b_c");
        assert_eq!(base.parent().parent(), AppId::root());
    }

    #[test]
    fn a_group_is_not_within_one_whose_name_begins_alike() {
        let within = |id, group| AppId::absolute(id).is_within(&AppId::absolute(group));
        assert!(within("/a/b", "/a") && within("/a", "/") && within("/a/b/c", "/a"));
        assert!(!within("/ab", "/a") && !within("/a", "/a") && !within("/", "/"));
    }

    #[test]
    fn names_are_checked() {
        let fault = |id: &str| AppId::absolute(id).fault(true).is_some();
        for good in ["/a", "/a-b/c.d", "/0/1", "/a/tasks/b"] {
            assert!(!fault(good), "{good}");
        }
        for bad in ["/A", "/a_b", "/-a", "/a-", "/a..b", "/a/tasks", "/restart", "/a b"] {
            assert!(fault(bad), "{bad}");
        }
        assert!(AppId::absolute("/a/tasks").fault(false).is_none());
    }
}
