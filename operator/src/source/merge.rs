//! Documents of files and objects of an API as one source: either that fails keeps what it had.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::poll::{SourceError, SourceState};
use super::tree::{Files, Objects, Skipped, Tree};

/// What the paths of documents begin with then.
pub const FILES: &str = "git/";
/// What the paths of objects begin with then.
pub const OBJECTS: &str = "kubernetes/";

/// Publishes both as one, until either ends.
pub async fn run(
    mut files: watch::Receiver<SourceState>,
    mut objects: watch::Receiver<SourceState>,
    out: watch::Sender<SourceState>,
) {
    loop {
        let (f, o) = (files.borrow_and_update().clone(), objects.borrow_and_update().clone());
        out.send_modify(|state| {
            let before = state.tree.take();
            *state = merge(&f, &o);
            // The same tree is the same pointer: it is not read again.
            if let (Some(old), Some(new)) = (before, &state.tree)
                && old == *new
            {
                state.tree = Some(old);
            }
        });
        tokio::select! {
            changed = files.changed() => if changed.is_err() { return },
            changed = objects.changed() => if changed.is_err() { return },
        }
    }
}

/// Both as one. Before each has given a tree there is none: half of what is wanted must not look like all of it.
pub fn merge(files: &SourceState, objects: &SourceState) -> SourceState {
    let tree = match (&files.tree, &objects.tree) {
        (Some(f), Some(o)) => Some(Arc::new(both(f, o))),
        (None | Some(_), None) | (None, Some(_)) => None,
    };
    SourceState {
        tree,
        last_success: files.last_success.min(objects.last_success),
        error: worse(files.error.as_ref(), objects.error.as_ref()),
        from_store: files.from_store || objects.from_store,
        not_kept: files.not_kept.clone().or_else(|| objects.not_kept.clone()),
    }
}

/// Two trees as one.
pub fn both(files: &Tree, objects: &Tree) -> Tree {
    let under = |root: &'static str, tree: &Tree| -> Files {
        tree.files
            .iter()
            .map(|(path, bytes)| (format!("{root}{path}"), Arc::clone(bytes)))
            .collect()
    };
    let skipped = |root: &'static str, tree: &Tree| -> Vec<Skipped> {
        let path =
            |p: &str| if p.is_empty() || p == "." { root.into() } else { format!("{root}{p}") };
        tree.skipped.iter().map(|s| Skipped { path: path(&s.path), why: s.why.clone() }).collect()
    };
    let mut all = under(FILES, files);
    all.extend(under(OBJECTS, objects));
    let leaving: BTreeSet<String> = objects
        .objects
        .iter()
        .flat_map(|o| &o.leaving)
        .map(|path| format!("{OBJECTS}{path}"))
        .collect();
    Tree {
        revision: format!("{}+{}", files.revision, objects.revision),
        describe: files.describe.clone(),
        files: all,
        skipped: [skipped(FILES, files), skipped(OBJECTS, objects)].concat(),
        objects: Some(Objects { root: OBJECTS.to_owned(), leaving }),
    }
}

fn worse(files: Option<&SourceError>, objects: Option<&SourceError>) -> Option<SourceError> {
    match (files, objects) {
        (Some(f), Some(o)) => Some(SourceError {
            message: format!("{}; {}", f.message, o.message),
            hint: f.hint.clone().or_else(|| o.hint.clone()),
            since: f.since.min(o.since),
            next_try: f.next_try.min(o.next_try),
            failures: f.failures.max(o.failures),
        }),
        (one, other) => one.or(other).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(revision: &str, path: &str) -> SourceState {
        let files = Files::from([(path.to_owned(), b"{}".as_slice().into())]);
        let skipped = vec![Skipped { path: ".".into(), why: "odd".into() }];
        let tree =
            Tree { revision: revision.into(), describe: None, files, skipped, objects: None };
        SourceState { tree: Some(Arc::new(tree)), ..SourceState::default() }
    }

    #[test]
    fn both_are_one_tree_and_half_is_none() {
        let (git, mut api) = (state("abc", "web.yaml"), state("objects:sha256:1", "a/Fleet/x"));
        let tree = merge(&git, &api).tree.unwrap();
        assert_eq!(tree.revision, "abc+objects:sha256:1");
        assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["git/web.yaml", "kubernetes/a/Fleet/x"]);
        let skipped: Vec<&str> = tree.skipped.iter().map(|s| s.path.as_str()).collect();
        assert_eq!(skipped, ["git/", "kubernetes/"]);
        api.tree = None;
        assert!(merge(&git, &api).tree.is_none());
    }
}
