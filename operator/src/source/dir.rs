//! A plain directory as a source, for laptops, tests and mounted volumes.
//!
//! Never writes, never leaves the directory by a symbolic link, and never takes a directory
//! that has vanished for an empty one.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use super::error::FetchError;
use super::poll::Fetch;
use super::tree::{
    Collector, Files, Limits, Name, Skipped, Tree, is_document, join, name, printable_bytes,
};
use crate::bell::Doorbell;

/// How often [`Dir::watch`] looks, at the least. A save is noticed within this and one look.
const LOOK: Duration = Duration::from_millis(150);
/// Reads that begin again because somebody was saving, before the newest is taken as it is.
const RETRIES: u32 = 3;

/// Reads a directory.
#[derive(Debug, Clone)]
pub struct Dir {
    root: PathBuf,
    limits: Limits,
}

impl Dir {
    /// A source of the documents below `root`.
    pub fn new(root: impl Into<PathBuf>, limits: Limits) -> Self {
        Self { root: root.into(), limits }
    }

    /// Rings `bell` when a name, size or time below the directory changes. Runs for ever; it
    /// only saves waiting, the poll finds every change without it.
    ///
    /// Looks rather than subscribes: inotify sees nothing on network and many container mounts,
    /// and swapped links (Kubernetes mounts) need watches that follow them. A look over a
    /// thousand files takes a few milliseconds; the pause grows with it, so that it stays below
    /// a twentieth of one core.
    pub async fn watch(self, bell: Doorbell) {
        let mut seen = None;
        loop {
            let dir = self.clone();
            let began = tokio::time::Instant::now();
            // A look that fails is a state of its own: vanishing rings as well.
            let now = spawn_blocking(move || dir.look().ok()).await.unwrap_or(None);
            let took = began.elapsed();
            if seen.as_ref().is_some_and(|before| *before != now) {
                bell.ring();
            }
            seen = Some(now);
            tokio::time::sleep(LOOK.max(took.saturating_mul(20))).await;
        }
    }

    /// Reads everything now. Blocks on the file system.
    pub fn read(&self) -> Result<Tree, FetchError> {
        self.read_while(|_| ())
    }

    /// `meanwhile` stands for whoever else is at work: called after each reading.
    fn read_while(&self, mut meanwhile: impl FnMut(u32)) -> Result<Tree, FetchError> {
        let mut turn = 0;
        loop {
            let Scan { files, skipped, print } = self.scan(true)?;
            meanwhile(turn);
            // Somebody may be saving: half a file, or half of several, is no revision.
            if turn == RETRIES || self.look()? == print {
                let revision = revision(&files, &skipped);
                return Ok(Tree { revision, describe: None, files, skipped, objects: None });
            }
            turn += 1;
        }
    }

    /// The state of all names without reading a document.
    fn look(&self) -> Result<Print, FetchError> {
        Ok(self.scan(false)?.print)
    }

    fn scan(&self, read: bool) -> Result<Scan, FetchError> {
        let io = |source| FetchError::Io { doing: "read", path: self.root.clone(), source };
        let root = fs::canonicalize(&self.root).map_err(io)?;
        // Also says that it is a directory; below it, what cannot be read is only skipped.
        fs::read_dir(&root).map_err(io)?;
        let collector = Collector::new(self.limits);
        let mut walk = Walk { root: &root, read, collector, print: Sha256::new() };
        walk.dir(&root, "", 0);
        let print = walk.print.finalize().into();
        // Vanished meanwhile: then what was read is not a revision either.
        fs::read_dir(&root).map_err(io)?;
        let (files, skipped) = walk.collector.finish();
        Ok(Scan { files, skipped, print })
    }
}

type Print = [u8; 32];

struct Scan {
    files: Files,
    skipped: Vec<Skipped>,
    /// Over names, sizes and times, and over contents by nothing else.
    print: Print,
}

struct Walk<'a> {
    root: &'a Path,
    read: bool,
    collector: Collector,
    print: Sha256,
}

impl Walk<'_> {
    fn dir(&mut self, dir: &Path, at: &str, depth: usize) {
        if depth > self.collector.limits().max_depth {
            self.collector.skip(at, "directories are nested too deeply");
            return;
        }
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) => return self.collector.skip(at, format!("cannot read: {e}")),
        };
        // In order, so that a limit cuts at the same place every time.
        let mut names = Vec::new();
        for entry in entries {
            if !self.collector.visit(at) {
                return;
            }
            match entry {
                Ok(entry) => names.push(entry.file_name()),
                Err(e) => self.collector.skip(at, format!("cannot read: {e}")),
            }
        }
        names.sort();
        for raw in names {
            let clean = match name(raw.as_bytes()) {
                Name::Hidden => continue,
                Name::Good(clean) => clean,
                Name::Bad(why) => {
                    let shown = printable_bytes(raw.as_bytes());
                    self.collector.skip(&format!("{at}/{shown}"), why);
                    continue;
                }
            };
            match join(at, clean) {
                Some(path) => self.entry(&dir.join(&raw), &path, clean, depth),
                None => self.collector.skip(at, "the path is too long"),
            }
        }
    }

    fn entry(&mut self, real: &Path, path: &str, clean: &str, depth: usize) {
        let meta = match fs::symlink_metadata(real) {
            Ok(meta) => meta,
            // Deleted since it was listed: not there.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => return self.collector.skip(path, format!("cannot read: {e}")),
        };
        if meta.is_dir() {
            self.dir(real, path, depth + 1);
        } else if meta.is_symlink() {
            self.link(real, path, clean);
        } else if is_document(clean) {
            self.document(real, path, &meta);
        }
    }

    fn link(&mut self, real: &Path, path: &str, clean: &str) {
        let target = fs::canonicalize(real).and_then(|t| Ok((fs::metadata(&t)?, t)));
        match target {
            Ok((_, target)) if !target.starts_with(self.root) && is_document(clean) => {
                self.collector.skip(path, "a symbolic link out of the directory");
            }
            Ok((meta, target)) if meta.is_dir() => {
                let why = if target.starts_with(self.root) {
                    "a symbolic link to a directory is not followed"
                } else {
                    "a symbolic link out of the directory"
                };
                self.collector.skip(path, why);
            }
            Ok((meta, target)) if is_document(clean) => self.document(&target, path, &meta),
            Err(e) if is_document(clean) => {
                self.collector.skip(path, format!("a symbolic link that leads nowhere: {e}"));
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn document(&mut self, real: &Path, path: &str, meta: &Metadata) {
        // Opening a pipe would wait for its other end.
        if !meta.is_file() {
            return self.collector.skip(path, "not a regular file");
        }
        self.print.update((path.len() as u64).to_be_bytes());
        self.print.update(path);
        for n in [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()] {
            self.print.update(n.to_be_bytes());
        }
        for n in [meta.size(), meta.ino()] {
            self.print.update(n.to_be_bytes());
        }
        if !self.collector.admit(path, meta.len()) || !self.read {
            return;
        }
        match read_file(real, self.collector.limits().max_file_bytes) {
            // It may have grown since it was looked at.
            Ok(bytes) => {
                if self.collector.admit(path, bytes.len() as u64) {
                    self.collector.add(path.to_owned(), bytes);
                }
            }
            Err(e) => self.collector.skip(path, format!("cannot read: {e}")),
        }
    }
}

/// At most one byte more than `most`, which is enough to see that it is too much.
fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What was skipped belongs to it: a file that grows too large is a change as well.
fn revision(files: &Files, skipped: &[Skipped]) -> String {
    let mut sum = Sha256::new();
    let mut add = |bytes: &[u8]| {
        sum.update((bytes.len() as u64).to_be_bytes());
        sum.update(bytes);
    };
    add(&(files.len() as u64).to_be_bytes());
    for (path, bytes) in files {
        add(path.as_bytes());
        add(bytes);
    }
    for Skipped { path, why } in skipped {
        add(path.as_bytes());
        add(why.as_bytes());
    }
    format!("dir:sha256:{}", hex::encode(sum.finalize()))
}

#[async_trait]
impl Fetch for Dir {
    async fn fetch(&mut self, last: Option<&str>) -> Result<Option<Tree>, FetchError> {
        let dir = self.clone();
        let tree = spawn_blocking(move || dir.read())
            .await
            .map_err(|_| FetchError::Broken { remote: self.describe() })??;
        Ok((last != Some(tree.revision.as_str())).then_some(tree))
    }

    fn describe(&self) -> String {
        format!("directory {}", self.root.display())
    }
}

#[cfg(test)]
mod tests;
