//! The state directory: the last good tree, other small states by name, and the lock.
//!
//! All of it may be lost without breaking a promise, so whatever is damaged, foreign or from a
//! newer version is set aside with a warning and never believed in part. A write is whole or not
//! at all: written beside, flushed, renamed.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::tree::{Objects, Skipped, Tree, TreeMeta};

/// First word of every file, so that a stray file is not taken for one of ours.
const MAGIC: &str = "evenkeel-state";
/// Format of the header and of what [`Store::save`] wraps. Bumped when an older program could
/// misread it.
const VERSION: u32 = 1;
/// Most a state file may hold, bytes: a full tree with room to spare.
const MAX_BYTES: u64 = 256 << 20;
/// The header is one short line.
const MAX_HEADER: usize = 256;
/// The name the tree is kept under.
const TREE: &str = "last-good";
/// And that of custom resources, which may come beside another source.
const OBJECTS: &str = "last-good-objects";

/// Why a state could not be kept or given.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{} is damaged: {why}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// A newer program wrote the file.
    #[error("{} is of version {found}, and this program knows {VERSION}", path.display())]
    Future {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// More than a state file may hold.
    #[error("the state {name} is larger than {MAX_BYTES} bytes")]
    TooBig {
        /// The state.
        name: String,
    },
    /// Not a name for a state.
    #[error("{name:?} cannot name a state: small letters, digits and dashes only")]
    Name {
        /// What was asked for.
        name: String,
    },
}

impl StoreError {
    /// The error and what the system said, on one line.
    pub fn chain(&self) -> String {
        match self {
            Self::Io { source, .. } => format!("{self}: {source}"),
            Self::Corrupt { .. }
            | Self::Future { .. }
            | Self::TooBig { .. }
            | Self::Name { .. } => self.to_string(),
        }
    }
}

/// A state directory. Readable by its owner alone.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

/// Holds the state directory for this process until dropped, or until the process ends in any
/// way at all.
#[derive(Debug)]
pub struct Guard {
    _file: File,
}

impl Store {
    /// Opens the directory and makes it (mode 0700) if it is not there.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let dir = dir.into();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| StoreError::Io { doing: "make", path: dir.clone(), source })?;
        Ok(Self { dir })
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the directory for this process, or `None` while another has it.
    pub fn try_lock(&self) -> Result<Option<Guard>, StoreError> {
        let path = self.dir.join("lock");
        let io = |source| StoreError::Io { doing: "lock", path: path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {
                self.sweep();
                Ok(Some(Guard { _file: file }))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(io(e)),
        }
    }

    /// Waits until the directory is ours. Asks twice a second: a thread parked in `flock`
    /// could not be told to stop.
    pub async fn lock(&self) -> Result<Guard, StoreError> {
        let mut told = false;
        loop {
            if let Some(guard) = self.try_lock()? {
                return Ok(guard);
            }
            if !told {
                tracing::info!(dir = %self.dir.display(), "another agent holds the state, standing by");
                told = true;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Removes what a crash left half written. Only under the lock.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(".tmp-") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
            return Err(StoreError::Name { name: name.to_owned() });
        }
        Ok(self.dir.join(format!("{name}.state")))
    }

    /// Keeps `bytes` under `name` (small letters, digits, dashes), whole or not at all.
    pub fn save(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        static TURN: AtomicU64 = AtomicU64::new(0);
        let path = self.path(name)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(StoreError::TooBig { name: name.to_owned() });
        }
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let temp = self.dir.join(format!(".tmp-{name}-{}-{turn}", std::process::id()));
        let written = write_new(&temp, header(name, bytes).as_bytes(), bytes)
            .and_then(|()| fs::rename(&temp, &path))
            // The rename itself is only sure once the directory is flushed.
            .and_then(|()| File::open(&self.dir)?.sync_all());
        written.map_err(|source| {
            let _ = fs::remove_file(&temp);
            StoreError::Io { doing: "write", path, source }
        })
    }

    /// What was kept under `name`; `None` where nothing was.
    pub fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(name)?;
        let io = |source| StoreError::Io { doing: "read", path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        let mut bytes = Vec::new();
        let most = MAX_BYTES + MAX_HEADER as u64;
        file.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > most {
            return Err(StoreError::Corrupt { path, why: "it is too long".into() });
        }
        match unwrap(name, &bytes) {
            Ok(body) => Ok(Some(body.to_vec())),
            Err(Unwrap::Future(found)) => Err(StoreError::Future { path, found }),
            Err(Unwrap::Corrupt(why)) => Err(StoreError::Corrupt { path, why }),
        }
    }

    /// As [`Store::load`], for states that may be lost: what cannot be used is set aside as
    /// `<name>.state.bad` with a warning.
    pub fn load_or_set_aside(&self, name: &str) -> Option<Vec<u8>> {
        match self.load(name) {
            Ok(bytes) => bytes,
            Err(e) => {
                self.set_aside(name, &e);
                None
            }
        }
    }

    fn set_aside(&self, name: &str, error: &StoreError) {
        let bad = self.dir.join(format!("{name}.state.bad"));
        let moved = self.path(name).is_ok_and(|path| fs::rename(path, &bad).is_ok());
        tracing::warn!(
            error = %error.chain(), moved_to = moved.then(|| bad.display().to_string()),
            "kept state is ignored, going on without it"
        );
    }

    /// Keeps the last good tree of `source`.
    pub fn save_tree(&self, source: &str, tree: &Tree) -> Result<(), StoreError> {
        let bytes = encode(source, tree)
            .map_err(|e| self.corrupt(format!("the tree cannot be written: {e}")))?;
        self.save(name_of(source), &bytes)
    }

    /// The last good tree of exactly this `source`; that of another is not given, so that a
    /// changed `--git` does not deploy the old repository.
    pub fn load_tree(&self, source: &str) -> Option<Tree> {
        let bytes = self.load_or_set_aside(name_of(source))?;
        match decode(&bytes) {
            Ok((from, tree)) if from == source => {
                tracing::info!(revision = %tree.revision, "going on with the last good revision");
                Some(tree)
            }
            Ok((from, _)) => {
                tracing::warn!(kept = %from, wanted = %source,
                    "the kept revision is of another source and is not used");
                None
            }
            Err(why) => {
                self.set_aside(name_of(source), &self.corrupt(why));
                None
            }
        }
    }

    fn corrupt(&self, why: String) -> StoreError {
        StoreError::Corrupt { path: self.dir.join(format!("{TREE}.state")), why }
    }
}

fn name_of(source: &str) -> &'static str {
    if source.starts_with("kubernetes ") { OBJECTS } else { TREE }
}

fn write_new(path: &Path, header: &[u8], body: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(header)?;
    file.write_all(body)?;
    file.sync_all()
}

/// `evenkeel-state 1 <name> <length> sha256:<hex over name and body>`
fn header(name: &str, body: &[u8]) -> String {
    format!("{MAGIC} {VERSION} {name} {} sha256:{}\n", body.len(), digest(name, body))
}

fn digest(name: &str, body: &[u8]) -> String {
    let mut sum = Sha256::new();
    sum.update(name.as_bytes());
    sum.update([0]);
    sum.update(body);
    hex::encode(sum.finalize())
}

enum Unwrap {
    Future(u32),
    Corrupt(String),
}

fn unwrap<'b>(name: &str, bytes: &'b [u8]) -> Result<&'b [u8], Unwrap> {
    let corrupt = |why: &str| Unwrap::Corrupt(why.to_owned());
    let end = bytes
        .iter()
        .take(MAX_HEADER)
        .position(|b| *b == b'\n')
        .ok_or_else(|| corrupt("it has no header"))?;
    let (line, body) = (&bytes[..end], &bytes[end + 1..]);
    let line = str::from_utf8(line).map_err(|_| corrupt("its header is not text"))?;
    let mut words = line.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(corrupt("it is not one of ours"));
    }
    // Judged before the rest, which a newer program may have changed.
    let version: u32 = words
        .next()
        .and_then(|w| w.parse().ok())
        .ok_or_else(|| corrupt("its version is not a number"))?;
    if version > VERSION {
        return Err(Unwrap::Future(version));
    }
    if version < VERSION {
        return Err(corrupt("its version was never written"));
    }
    if words.next() != Some(name) {
        return Err(corrupt("it is another state"));
    }
    if words.next() != Some(body.len().to_string().as_str()) {
        return Err(corrupt("its length does not fit"));
    }
    let sum = words.next().and_then(|w| w.strip_prefix("sha256:"));
    if sum != Some(digest(name, body).as_str()) || words.next().is_some() {
        return Err(corrupt("its checksum does not fit"));
    }
    Ok(body)
}

/// First line of a kept tree; the contents follow it, one after the other.
#[derive(Serialize, Deserialize)]
struct Index {
    source: String,
    revision: String,
    describe: Option<TreeMeta>,
    skipped: Vec<Skipped>,
    files: Vec<(String, usize)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    objects: Option<Objects>,
}

fn encode(source: &str, tree: &Tree) -> Result<Vec<u8>, serde_json::Error> {
    let Tree { revision, describe, files, skipped, objects } = tree;
    let index = Index {
        source: source.to_owned(),
        revision: revision.clone(),
        describe: describe.clone(),
        skipped: skipped.clone(),
        files: files.iter().map(|(path, bytes)| (path.clone(), bytes.len())).collect(),
        objects: objects.clone(),
    };
    let mut out = serde_json::to_vec(&index)?;
    out.push(b'\n');
    for bytes in files.values() {
        out.extend_from_slice(bytes);
    }
    Ok(out)
}

fn decode(bytes: &[u8]) -> Result<(String, Tree), String> {
    let end = bytes.iter().position(|b| *b == b'\n').ok_or("it has no index")?;
    let Index { source, revision, describe, skipped, files: index, objects } =
        serde_json::from_slice(&bytes[..end]).map_err(|e| format!("its index: {e}"))?;
    let mut rest = &bytes[end + 1..];
    let mut files = std::collections::BTreeMap::new();
    for (path, len) in index {
        let (file, after) =
            rest.split_at_checked(len).ok_or_else(|| format!("{path} is cut short"))?;
        files.insert(path, file.into());
        rest = after;
    }
    if !rest.is_empty() {
        return Err("it has bytes that belong to no file".into());
    }
    Ok((source, Tree { revision, describe, files, skipped, objects }))
}

#[cfg(test)]
mod tests;
