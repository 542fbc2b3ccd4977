//! One file by itself: what its documents say is a value that depends on its path, its bytes and the secrets that it asks
//! for, and on nothing else. It is kept, so that where one of thousands changes one is read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::applied::Applied;
use super::document::{Object, Sorted, sort};
use super::node::{Flaw, Node, Pos};
use super::yaml;
use super::{Context, Limits, Secrets};
use crate::model::{OwnerId, Secret};
use crate::source::Files;

/// The files of the last revision, each as it was read. Whoever has none loses time and nothing else.
#[derive(Default)]
pub struct Known {
    ground: Option<Ground>,
    files: BTreeMap<String, Arc<File>>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Known({} files)", self.files.len())
    }
}

/// What every file's meaning depends on.
#[derive(Debug, PartialEq)]
struct Ground {
    owner: OwnerId,
    limits: Limits,
    stand_ins: bool,
}

/// A file as it was read.
#[derive(Debug)]
pub(super) struct File {
    bytes: Arc<[u8]>,
    asked: Vec<Asked>,
    pub(super) documents: Vec<Found>,
}

/// One document of a file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) pos: Pos,
    /// Whether it could be read to its end.
    pub(super) complete: bool,
    pub(super) sorted: Sorted,
    /// What is wrong with it, of the object that it defines if that can be told.
    pub(super) flaws: Vec<Flaw>,
}

/// A secret that was asked for, and the answer.
#[derive(Debug)]
struct Asked {
    name: String,
    key: String,
    answer: Result<Secret, String>,
}

impl Known {
    /// Reads a revision's files, those that are as they were excepted.
    pub(super) fn read(&mut self, files: &Files, ctx: &Context<'_>) -> Vec<Arc<File>> {
        let Context { owner, secrets, previous: _, limits, default_endpoint: _ } = *ctx;
        let ground = Ground { owner: owner.clone(), limits, stand_ins: secrets.are_stand_ins() };
        if self.ground.as_ref() != Some(&ground) {
            *self = Self { ground: Some(ground), files: BTreeMap::new() };
        }
        let mut before = std::mem::take(&mut self.files);
        let mut all = Vec::with_capacity(files.len());
        for (path, bytes) in files {
            let same = before.remove(path).filter(|file| file.is_still(path, bytes, secrets));
            let file = same.unwrap_or_else(|| Arc::new(File::read(path, bytes, ctx)));
            self.files.insert(path.clone(), Arc::clone(&file));
            all.push(file);
        }
        all
    }
}

impl File {
    fn read(path: &str, bytes: &Arc<[u8]>, ctx: &Context<'_>) -> Self {
        let shared: Arc<str> = path.into();
        let asking = Asking { secrets: ctx.secrets, path, asked: RefCell::default() };
        // What other documents say, and what was before, is nothing to it.
        let alone = Context {
            secrets: &asking,
            previous: &Applied::default(),
            default_endpoint: "",
            ..*ctx
        };
        let docs = yaml::read(bytes, &ctx.limits).into_iter().enumerate();
        let documents = docs.map(|(index, doc)| {
            let (pos, complete) = (doc.pos, doc.complete);
            let (sorted, flaws) = sort(doc, &shared, index, &alone);
            Found { pos, complete, sorted, flaws }
        });
        let documents = documents.collect();
        Self { bytes: Arc::clone(bytes), asked: asking.asked.into_inner(), documents }
    }

    /// Whether reading it again would give the same.
    fn is_still(&self, path: &str, bytes: &Arc<[u8]>, secrets: &dyn Secrets) -> bool {
        let same = Arc::ptr_eq(&self.bytes, bytes) || self.bytes == *bytes;
        same && self
            .asked
            .iter()
            .all(|Asked { name, key, answer }| secrets.get_for(path, name, key) == *answer)
    }
}

/// The secrets of the document at one path, with a note of what was asked for.
struct Asking<'a> {
    secrets: &'a dyn Secrets,
    path: &'a str,
    asked: RefCell<Vec<Asked>>,
}

impl Secrets for Asking<'_> {
    fn get(&self, name: &str, key: &str) -> Result<Secret, String> {
        let answer = self.secrets.get_for(self.path, name, key);
        let asked = Asked { name: name.into(), key: key.into(), answer: answer.clone() };
        self.asked.borrow_mut().push(asked);
        answer
    }

    fn are_stand_ins(&self) -> bool {
        self.secrets.are_stand_ins()
    }
}

/// Where things stand in documents. A file is read again for that, once: it is asked for only where something is wrong.
pub(super) struct Places<'a> {
    files: &'a Files,
    limits: Limits,
    read: RefCell<BTreeMap<Arc<str>, Vec<Node>>>,
}

impl<'a> Places<'a> {
    pub(super) fn of(files: &'a Files, limits: Limits) -> Self {
        Self { files, limits, read: RefCell::default() }
    }

    /// Where a field of an object stands, or what is nearest to it.
    pub(super) fn locate(&self, object: &Object, field: &str) -> Pos {
        let mut read = self.read.borrow_mut();
        let roots = read.entry(Arc::clone(&object.path)).or_insert_with(|| {
            let bytes = self.files.get(&*object.path).map(|bytes| &**bytes).unwrap_or_default();
            yaml::read(bytes, &self.limits).into_iter().map(yaml::Doc::into_root).collect()
        });
        roots.get(object.index).map_or(object.pos, |root| root.locate(field))
    }
}
