//! From the cache to the files of a source. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::cache::View;
use super::object::{Key, Kind, Object};
use crate::model::name::OBJECTS;
use crate::source::{Limits, Objects, Skipped, Tree};

/// What was in a tree of each object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// The generation of its spec.
    pub generation: i64,
    /// It was leaving already.
    pub leaving: bool,
}

/// The objects of one tree.
pub type Snapshot = BTreeMap<Key, Planned>;

/// The files of all objects that are to be acted on, and what is in them. `None` while anything was never listed: what
/// is not known must not look as if it were not there.
pub fn compose(view: &View, limits: &Limits) -> Option<(Tree, Snapshot)> {
    of_those(view, limits, counts)
}

/// The files that there will be once an agent has taken up what is there.
pub fn preview(view: &View, limits: &Limits) -> Option<Tree> {
    of_those(view, limits, |o| !is_let_go(o)).map(|(tree, _)| tree)
}

fn of_those(
    view: &View,
    limits: &Limits,
    those: fn(&Arc<Object>) -> bool,
) -> Option<(Tree, Snapshot)> {
    if !view.unlisted.is_empty() {
        return None;
    }
    let mut sum = Sha256::new();
    let (mut files, mut skipped, mut snapshot) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    let (mut leaving, mut bytes) = (BTreeSet::new(), 0);
    for object in view.objects.values().filter(|o| those(o)) {
        let path = object.key.path();
        let size = object.document.len() as u64;
        bytes += size;
        let why = if size > limits.max_file_bytes {
            Some(format!("{size} bytes, more than {} for an object", limits.max_file_bytes))
        } else if files.len() >= limits.max_files {
            Some(format!("more than {} objects", limits.max_files))
        } else if bytes > limits.max_total_bytes {
            Some(format!("more than {} bytes in all", limits.max_total_bytes))
        } else {
            None
        };
        for part in [path.as_bytes(), &object.document, &object.generation.to_be_bytes()] {
            sum.update((part.len() as u64).to_be_bytes());
            sum.update(part);
        }
        sum.update([u8::from(leaves(object))]);
        if leaves(object) {
            leaving.insert(path.clone());
        }
        let planned = Planned { generation: object.generation, leaving: leaves(object) };
        snapshot.insert(object.key.clone(), planned);
        match why {
            Some(why) => skipped.push(Skipped { path, why }),
            None => {
                files.insert(path, object.document.clone());
            }
        }
    }
    let revision = format!("{OBJECTS}{}", hex::encode(sum.finalize()));
    let objects = Some(Objects { root: String::new(), leaving });
    Some((Tree { revision, describe: None, files, skipped, objects }, snapshot))
}

/// Whether an object is acted on: what is held by our finalizer, or was before somebody took that away. Anything else
/// could be deleted without our seeing it.
fn counts(object: &Arc<Object>) -> bool {
    let known = object.key.kind == Kind::Fleet || object.is_ours() || object.was_taken_up();
    known && !is_let_go(object)
}

fn is_let_go(object: &Arc<Object>) -> bool {
    object.is_orphaned() || (object.deleting && object.finalizers.is_empty())
}

fn leaves(object: &Object) -> bool {
    object.deleting && object.key.kind != Kind::Fleet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::cache::Scope;
    use crate::kubernetes::object::tests::object;
    use serde_json::{Value, json};

    fn view(objects: Vec<(Kind, Value)>) -> View {
        let objects = objects.into_iter().map(|(kind, whole)| object(kind, whole));
        View { objects: objects.map(|o| (o.key.clone(), Arc::new(o))).collect(), ..View::default() }
    }

    fn web(more: &Value) -> (Kind, Value) {
        let mut metadata =
            json!({"name": "web", "generation": 1, "finalizers": ["evenkeel.dev/drain"]});
        for (key, value) in more.as_object().unwrap() {
            metadata[key] = value.clone();
        }
        (Kind::ScalingService, json!({"metadata": metadata, "spec": {"image": "a"}}))
    }

    fn of(objects: Vec<(Kind, Value)>) -> (Tree, Snapshot) {
        compose(&view(objects), &Limits::default()).unwrap()
    }

    #[test]
    fn nothing_is_known_before_everything_was_listed() {
        let mut view = view(vec![web(&json!({}))]);
        view.unlisted.insert(Scope { kind: Kind::Fleet, namespace: None });
        assert!(compose(&view, &Limits::default()).is_none());
    }

    #[test]
    fn an_object_counts_once_our_finalizer_holds_it() {
        assert_eq!(of(vec![web(&json!({"finalizers": []}))]).0.files.len(), 0);
        assert_eq!(of(vec![web(&json!({}))]).0.files.len(), 1);
        // Somebody took the finalizer away from one that runs: it must not look as if it were gone.
        let (kind, mut whole) = web(&json!({"finalizers": []}));
        whole["status"] = json!({"observedGeneration": 1});
        assert_eq!(of(vec![(kind, whole)]).0.files.len(), 1);
    }

    #[test]
    fn a_deleted_object_leaves_and_an_orphaned_one_is_let_go() {
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let tree = of(vec![web(&deleted)]).0;
        assert!(tree.objects.unwrap().leaving.contains("shop/ScalingService/web"));
        let mut orphaned = deleted;
        orphaned["annotations"] = json!({"evenkeel.dev/deletion": "orphan"});
        assert_eq!(of(vec![web(&orphaned)]).0.files.len(), 0);
    }

    #[test]
    fn the_revision_tells_trees_apart_and_no_others() {
        let same = of(vec![web(&json!({}))]).0.revision;
        assert_eq!(
            same,
            of(vec![web(&json!({"resourceVersion": "9", "labels": {"a": "b"}}))]).0.revision
        );
        for other in [
            json!({"generation": 2}),
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            json!({"annotations": {"evenkeel.dev/suspend": "true"}}),
        ] {
            assert_ne!(same, of(vec![web(&other)]).0.revision, "{other}");
        }
    }

    #[test]
    fn what_is_too_large_is_told_and_the_others_go_on() {
        let limits = Limits { max_file_bytes: 200, ..Limits::default() };
        let (kind, mut whole) = web(&json!({"name": "big"}));
        whole["spec"]["image"] = "x".repeat(300).into();
        let (tree, _) = compose(&view(vec![web(&json!({})), (kind, whole)]), &limits).unwrap();
        assert_eq!(tree.files.len(), 1);
        assert_eq!(tree.skipped[0].path, "shop/ScalingService/big");
    }
}
