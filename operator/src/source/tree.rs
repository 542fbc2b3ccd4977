//! One revision's files, bounded and not yet parsed, however they were come by.
//!
//! Nothing is left out in silence: a document that did not make it is in [`Tree::skipped`],
//! which the planner takes as a reason to remove nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Contents by path. They are shared: the same bytes are in the trees of many revisions.
pub type Files = BTreeMap<String, Arc<[u8]>>;

/// One revision's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The full commit id, or `dir:sha256:<hex>` over names and contents.
    pub revision: String,
    /// Who made the revision and why, where the source knows.
    pub describe: Option<TreeMeta>,
    /// Contents by path below the source's directory, `/` separated.
    pub files: Files,
    /// What should have been read and could not be; each becomes a problem.
    pub skipped: Vec<Skipped>,
    /// Where some of the files are objects of an API, which are deleted one by one and by name.
    pub objects: Option<Objects>,
}

/// Which files are objects of an API. Of these one that is not there any more says nothing: who deletes an object
/// says so, and it stays until all of it is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objects {
    /// What their paths begin with; empty where all files are objects.
    pub root: String,
    /// Paths of those that are being deleted.
    pub leaving: BTreeSet<String>,
}

impl Objects {
    /// Whether the file at a path is one.
    pub fn has(&self, path: &str) -> bool {
        path.starts_with(&self.root)
    }
}

/// Who made a revision, for people. Bounded and free of control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeMeta {
    /// The author's name.
    pub author: String,
    /// The first line of the message.
    pub subject: String,
    /// When it was committed.
    pub when: Timestamp,
}

/// Something that should have been read and was not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Skipped {
    /// The path, printable: odd bytes are escaped.
    pub path: String,
    /// Why, lower case, no full stop.
    pub why: String,
}

/// How much of a source is read. Every number is a guard against a mistake or an attack and
/// far above what a person writes; passing one is a [`Skipped`], never a shorter list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Documents in one revision.
    pub max_files: usize,
    /// Bytes in one document.
    pub max_file_bytes: u64,
    /// Bytes in all documents together.
    pub max_total_bytes: u64,
    /// Directories inside directories.
    pub max_depth: usize,
    /// Names looked at, documents or not: a few nested trees can name millions.
    pub max_entries: usize,
    /// Bytes received from a git server for one fetch.
    pub max_transfer_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_files: 10_000,
            max_file_bytes: 1 << 20,
            max_total_bytes: 64 << 20,
            max_depth: 32,
            max_entries: 200_000,
            max_transfer_bytes: 1 << 30,
        }
    }
}

/// Longest path taken, bytes: what a Linux file system can hold.
const MAX_PATH: usize = 4096;
/// Problems told one by one; the rest are counted.
const MAX_SKIPPED: usize = 100;

/// Gathers files under [`Limits`]: both git and directories fill a tree through it, so that
/// the same repository gives the same tree either way.
#[derive(Debug)]
pub(super) struct Collector {
    limits: Limits,
    files: Files,
    bytes: u64,
    entries: usize,
    skipped: Vec<Skipped>,
    more: usize,
    full: bool,
}

impl Collector {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            files: BTreeMap::new(),
            bytes: 0,
            entries: 0,
            skipped: Vec::new(),
            more: 0,
            full: false,
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts one name; false once too many were seen, and then the walk must end.
    pub(super) fn visit(&mut self, dir: &str) -> bool {
        if self.full {
            return false;
        }
        self.entries += 1;
        if self.entries > self.limits.max_entries {
            let why = format!("more than {} names, reading stopped here", self.limits.max_entries);
            self.stop(dir, why);
        }
        !self.full
    }

    /// May a document of `size` bytes be read? Says why not by itself.
    pub(super) fn admit(&mut self, path: &str, size: u64) -> bool {
        let l = self.limits;
        if self.full {
            return false;
        }
        if size > l.max_file_bytes {
            self.skip(path, format!("{size} bytes, more than {} for a file", l.max_file_bytes));
            return false;
        }
        if self.files.len() >= l.max_files {
            self.stop(path, format!("more than {} files, reading stopped here", l.max_files));
            return false;
        }
        if self.bytes + size > l.max_total_bytes {
            let why = format!("more than {} bytes in all, reading stopped here", l.max_total_bytes);
            self.stop(path, why);
            return false;
        }
        true
    }

    /// Takes a document that [`Collector::admit`] let in.
    pub(super) fn add(&mut self, path: String, bytes: Vec<u8>) {
        self.bytes += bytes.len() as u64;
        self.files.insert(path, bytes.into());
    }

    pub(super) fn skip(&mut self, path: &str, why: impl Into<String>) {
        if self.skipped.len() < MAX_SKIPPED {
            self.skipped.push(Skipped { path: printable(path), why: why.into() });
        } else {
            self.more += 1;
        }
    }

    fn stop(&mut self, path: &str, why: String) {
        self.full = true;
        // The most important one: it must not drown among the counted.
        self.skipped.insert(0, Skipped { path: printable(path), why });
    }

    pub(super) fn finish(mut self) -> (Files, Vec<Skipped>) {
        self.skipped.sort();
        if self.more > 0 {
            let why = format!("{} more were skipped", self.more);
            self.skipped.push(Skipped { path: "…".into(), why });
        }
        (self.files, self.skipped)
    }
}

/// What one name in a directory is to us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name<'a> {
    /// Begins with a dot: `.git`, `.github`, `.pre-commit-config.yaml`. Not ours, not a problem.
    Hidden,
    /// Can be part of a path.
    Good(&'a str),
    /// Cannot, and why.
    Bad(&'static str),
}

/// Judges one path component as it came, in bytes.
pub(super) fn name(bytes: &[u8]) -> Name<'_> {
    let Ok(text) = str::from_utf8(bytes) else {
        return Name::Bad("the name is not UTF-8");
    };
    // Before "hidden": a `..` would climb out of the tree.
    if text.is_empty() || text == "." || text == ".." {
        return Name::Bad("the name is not a file name");
    }
    if text.contains(['/', '\\']) {
        return Name::Bad("the name has a slash in it");
    }
    if text.chars().any(char::is_control) {
        return Name::Bad("the name has a control character in it");
    }
    if text.starts_with('.') { Name::Hidden } else { Name::Good(text) }
}

/// Is this a document by its name? Case as written: `A.YAML` is not one anywhere else either.
pub(super) fn is_document(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(stem, ext)| !stem.is_empty() && matches!(ext, "yaml" | "yml" | "json"))
}

/// `dir` and `name` as one path; `None` where it grows too long.
pub(super) fn join(dir: &str, name: &str) -> Option<String> {
    let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
    (path.len() <= MAX_PATH).then_some(path)
}

/// The directory a user asked for as clean components, or what is wrong with it.
/// `""`, `.` and `/` mean the whole tree.
pub(super) fn components(path: &str) -> Result<Vec<String>, String> {
    path.split('/')
        .filter(|c| !matches!(*c, "" | "."))
        .map(|c| match name(c.as_bytes()) {
            Name::Good(c) => Ok(c.to_owned()),
            // Asked for by name, so it is meant.
            Name::Hidden => Ok(c.to_owned()),
            Name::Bad(why) => Err(format!("{}: {why}", printable(path))),
        })
        .collect()
}

/// Text for people: control characters escaped, at most 200 characters.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == 200 {
            out.push('…');
            break;
        }
        if c.is_control() {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// [`printable`] for bytes that may not be text.
pub(super) fn printable_bytes(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(800)];
    match str::from_utf8(cut) {
        Ok(text) => printable(text),
        Err(_) => printable(&cut.escape_ascii().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_judged() {
        assert_eq!(name(b"web.yaml"), Name::Good("web.yaml"));
        assert_eq!(name("wéb".as_bytes()), Name::Good("wéb"));
        assert_eq!(name(b".github"), Name::Hidden);
        for bad in [&b".."[..], b".", b"", b"a/b", b"a\nb", b"\xff", b"a\0", b"a\\b"] {
            assert!(matches!(name(bad), Name::Bad(_)), "{bad:?}");
        }
    }

    #[test]
    fn documents_are_known_by_their_ending() {
        for yes in ["a.yaml", "a.yml", "a.json", "a.b.yaml"] {
            assert!(is_document(yes), "{yes}");
        }
        for no in ["a.txt", "yaml", ".yaml", "a.YAML", "a.yaml~", "a.yaml.swp"] {
            assert!(!is_document(no), "{no}");
        }
    }

    #[test]
    fn the_asked_directory_cannot_climb() {
        assert_eq!(components("./envs//test/").unwrap(), ["envs", "test"]);
        assert_eq!(components("/").unwrap(), Vec::<String>::new());
        assert_eq!(components(".hidden/x").unwrap(), [".hidden", "x"]);
        assert!(components("a/../b").is_err());
        assert!(components("a\nb").is_err());
    }

    #[test]
    fn too_many_problems_are_counted() {
        let mut c = Collector::new(Limits { max_file_bytes: 1, ..Limits::default() });
        for i in 0..150 {
            assert!(!c.admit(&format!("{i}.yaml"), 2));
        }
        let (_, skipped) = c.finish();
        assert_eq!(skipped.len(), MAX_SKIPPED + 1);
        assert_eq!(skipped.last().unwrap().why, "50 more were skipped");
    }

    proptest! {
        #[test]
        fn any_name_is_judged_and_good_ones_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Name::Good(n) = name(&bytes) {
                prop_assert!(!n.contains('/') && !n.contains('\n') && !n.starts_with('.'));
            }
            let _ = printable_bytes(&bytes);
        }

        #[test]
        fn limits_hold_whatever_comes(sizes in prop::collection::vec(0u64..200, 0..60)) {
            let limits = Limits { max_files: 20, max_file_bytes: 100, max_total_bytes: 500,
                                  max_entries: 40, ..Limits::default() };
            let mut c = Collector::new(limits);
            let all = sizes.len();
            for (i, size) in sizes.into_iter().enumerate() {
                let path = format!("{i:03}.yaml");
                if !c.visit("") { break }
                if c.admit(&path, size) {
                    c.add(path, vec![0; usize::try_from(size).unwrap()]);
                }
            }
            let (files, skipped) = c.finish();
            prop_assert!(files.len() <= 20);
            prop_assert!(files.values().all(|f| f.len() <= 100));
            prop_assert!(files.values().map(|f| f.len()).sum::<usize>() <= 500);
            prop_assert!(files.len() == all || !skipped.is_empty());
        }
    }
}
