//! A commit's documents, straight from the object database.
//!
//! There is no work tree: nothing is checked out, no filter and no hook runs, and no name from
//! the repository becomes a path on this machine.

use git2::{Commit, ObjectType, Oid, Repository};
use jiff::Timestamp;

use crate::source::error::FetchError;
use crate::source::tree::{
    Collector, Limits, Name, Tree, TreeMeta, components, is_document, join, name, printable,
    printable_bytes,
};

/// Links followed for one name before it is taken for a circle.
const MAX_HOPS: usize = 16;
/// Largest tree object parsed and longest link, bytes.
const MAX_TREE: usize = 16 << 20;
const MAX_LINK: usize = 4096;

const MODE_TREE: i32 = 0o040_000;
const MODE_LINK: i32 = 0o120_000;
const MODE_COMMIT: i32 = 0o160_000;

/// Reads the documents below `subdir` of the commit `id`. A missing sub-directory or object is an
/// error, never an empty tree.
pub(super) fn tree(
    repo: &Repository,
    id: Oid,
    subdir: &str,
    limits: Limits,
) -> Result<Tree, FetchError> {
    let commit = repo.find_commit(id).map_err(git("read the commit"))?;
    let wanted = components(subdir).map_err(|what| FetchError::Config {
        what: format!("cannot use the path {what}"),
        hint: "give a directory relative to the repository, with no `..`".into(),
    })?;
    let gone = || FetchError::NoDirectory { revision: id.to_string(), path: printable(subdir) };
    let root = commit.tree_id();
    let mut at = root;
    for part in &wanted {
        at = match entry(repo, at, part)? {
            Some(Entry { mode: MODE_TREE, id }) => id,
            Some(_) | None => return Err(gone()),
        };
    }
    let mut walk = Walk { repo, root, base: wanted, collector: Collector::new(limits) };
    walk.dir(at, "", 0)?;
    let (files, skipped) = walk.collector.finish();
    Ok(Tree {
        revision: id.to_string(),
        describe: describe(&commit),
        files,
        skipped,
        objects: None,
    })
}

fn git(doing: &'static str) -> impl Fn(git2::Error) -> FetchError {
    move |source| FetchError::Git { doing, source }
}

fn describe(commit: &Commit<'_>) -> Option<TreeMeta> {
    let subject = commit.message_bytes().split(|b| *b == b'\n').find(|l| !l.is_empty());
    Some(TreeMeta {
        author: printable_bytes(commit.author().name_bytes()),
        subject: printable_bytes(subject.unwrap_or_default()),
        // A commit can claim any time at all.
        when: Timestamp::from_second(commit.time().seconds()).ok()?,
    })
}

#[derive(Clone, Copy)]
struct Entry {
    mode: i32,
    id: Oid,
}

fn find_tree(repo: &Repository, id: Oid) -> Result<git2::Tree<'_>, FetchError> {
    let (size, _) = header(repo, id)?;
    if size > MAX_TREE {
        return Err(FetchError::TooBig {
            what: format!("the directory object {id}"),
            limit: MAX_TREE as u64,
        });
    }
    repo.find_tree(id).map_err(git("read a directory of the commit"))
}

fn header(repo: &Repository, id: Oid) -> Result<(usize, ObjectType), FetchError> {
    let read = || repo.odb()?.read_header(id);
    read().map_err(git("read an object of the commit"))
}

fn blob(repo: &Repository, id: Oid) -> Result<Vec<u8>, FetchError> {
    let blob = repo.find_blob(id).map_err(git("read a file of the commit"))?;
    Ok(blob.content().to_vec())
}

fn entry(repo: &Repository, dir: Oid, name: &str) -> Result<Option<Entry>, FetchError> {
    let tree = find_tree(repo, dir)?;
    Ok(tree.get_name_bytes(name.as_bytes()).map(|e| Entry { mode: e.filemode(), id: e.id() }))
}

struct Walk<'r> {
    repo: &'r Repository,
    root: Oid,
    /// Components of the sub-directory, from where links start.
    base: Vec<String>,
    collector: Collector,
}

impl Walk<'_> {
    fn dir(&mut self, id: Oid, at: &str, depth: usize) -> Result<(), FetchError> {
        if depth > self.collector.limits().max_depth {
            self.collector.skip(at, "directories are nested too deeply");
            return Ok(());
        }
        for entry in &find_tree(self.repo, id)? {
            if !self.collector.visit(at) {
                return Ok(());
            }
            let raw = entry.name_bytes();
            let clean = match name(raw) {
                Name::Hidden => continue,
                Name::Good(clean) => clean,
                Name::Bad(why) => {
                    self.collector.skip(&format!("{at}/{}", printable_bytes(raw)), why);
                    continue;
                }
            };
            let Some(path) = join(at, clean) else {
                self.collector.skip(at, "the path is too long");
                continue;
            };
            match entry.filemode() {
                MODE_TREE => self.dir(entry.id(), &path, depth + 1)?,
                MODE_COMMIT => self.collector.skip(&path, "a submodule is not followed"),
                MODE_LINK => self.link(entry.id(), &path, clean)?,
                _ if is_document(clean) => self.document(entry.id(), path)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn document(&mut self, id: Oid, path: String) -> Result<(), FetchError> {
        // The header gives the size without unpacking: a small pack can hold huge blobs.
        let (size, kind) = header(self.repo, id)?;
        if kind != ObjectType::Blob {
            self.collector.skip(&path, "not a file");
        } else if self.collector.admit(&path, size as u64) {
            let bytes = blob(self.repo, id)?;
            self.collector.add(path, bytes);
        }
        Ok(())
    }

    fn link(&mut self, id: Oid, path: &str, clean: &str) -> Result<(), FetchError> {
        match (self.resolve(id, path)?, is_document(clean)) {
            (Target::File(id), true) => self.document(id, path.to_owned())?,
            (Target::Dir, _) => {
                self.collector.skip(path, "a symbolic link to a directory is not followed");
            }
            (Target::Nowhere(why), true) => self.collector.skip(path, why),
            (Target::File(_) | Target::Nowhere(_), false) => {}
        }
        Ok(())
    }

    /// Where the link `id` at `path` leads inside this commit, links on the way included.
    fn resolve(&self, id: Oid, path: &str) -> Result<Target, FetchError> {
        let mut done: Vec<String> = self.base.clone();
        done.extend(path.split('/').map(str::to_owned));
        done.pop();
        let mut todo: Vec<String> = Vec::new(); // next component last
        let mut link = Some(id);
        let mut hops = 0;
        loop {
            if let Some(id) = link.take() {
                hops += 1;
                if hops > MAX_HOPS {
                    return Ok(Target::Nowhere("a symbolic link that goes in a circle"));
                }
                if header(self.repo, id)?.0 > MAX_LINK {
                    return Ok(Target::Nowhere("a symbolic link that is too long"));
                }
                let Ok(target) = String::from_utf8(blob(self.repo, id)?) else {
                    return Ok(Target::Nowhere("a symbolic link that is not UTF-8"));
                };
                if target.starts_with('/') {
                    return Ok(Target::Nowhere("a symbolic link out of the repository"));
                }
                todo.extend(target.split('/').rev().map(str::to_owned));
            }
            match todo.pop().as_deref() {
                None => return Ok(Target::Dir),
                Some("" | ".") => {}
                Some("..") => {
                    if done.pop().is_none() {
                        return Ok(Target::Nowhere("a symbolic link out of the repository"));
                    }
                }
                Some(part) => match self.at(&done, part)? {
                    Some(Entry { mode: MODE_LINK, id }) => link = Some(id),
                    Some(Entry { mode: MODE_TREE, .. }) => done.push(part.to_owned()),
                    Some(Entry { mode: MODE_COMMIT, .. }) => {
                        return Ok(Target::Nowhere("a symbolic link into a submodule"));
                    }
                    Some(Entry { id, .. }) if todo.is_empty() => return Ok(Target::File(id)),
                    Some(_) | None => {
                        return Ok(Target::Nowhere("a symbolic link that leads nowhere"));
                    }
                },
            }
        }
    }

    /// The entry `part` of the directory `dir`, which is known to have no links on its way.
    fn at(&self, dir: &[String], part: &str) -> Result<Option<Entry>, FetchError> {
        let mut id = self.root;
        for name in dir {
            match entry(self.repo, id, name)? {
                Some(Entry { mode: MODE_TREE, id: next }) => id = next,
                Some(_) | None => return Ok(None),
            }
        }
        entry(self.repo, id, part)
    }
}

enum Target {
    File(Oid),
    Dir,
    Nowhere(&'static str),
}
