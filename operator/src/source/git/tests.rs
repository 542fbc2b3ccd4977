//! Real repositories, made in temporary directories: what they give, and how they fail.

use std::path::Path;

use git2::{ObjectType, Signature, Time};
use tempfile::TempDir;

use super::*;
use crate::source::poll::Clock;

fn clock() -> Clock {
    Arc::new(|| jiff::Timestamp::UNIX_EPOCH)
}

/// A bare repository that is written object by object, so that it can hold what git itself
/// would not take.
pub(super) struct Origin {
    pub dir: TempDir,
    pub repo: Repository,
}

impl Origin {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repository::init_bare(dir.path().join("origin.git")).unwrap();
        repo.set_head("refs/heads/main").unwrap();
        Self { dir, repo }
    }

    pub(super) fn path(&self) -> &Path {
        self.repo.path()
    }

    fn blob(&self, bytes: &[u8]) -> Oid {
        self.repo.blob(bytes).unwrap()
    }

    /// A raw tree: mode, name, id, sorted by the caller or not at all.
    fn tree(&self, entries: &[(&str, &[u8], Oid)]) -> Oid {
        let mut raw = Vec::new();
        for (mode, name, id) in entries {
            raw.extend_from_slice(mode.as_bytes());
            raw.push(b' ');
            raw.extend_from_slice(name);
            raw.push(0);
            raw.extend_from_slice(id.as_bytes());
        }
        self.repo.odb().unwrap().write(ObjectType::Tree, &raw).unwrap()
    }

    fn files(&self, files: &[(&str, &str)]) -> Oid {
        let blobs: Vec<_> = files.iter().map(|(n, c)| (*n, self.blob(c.as_bytes()))).collect();
        let entries: Vec<_> = blobs.iter().map(|(n, id)| ("100644", n.as_bytes(), *id)).collect();
        self.tree(&entries)
    }

    fn commit_tree(&self, reference: &str, tree: Oid, message: &str, parents: &[Oid]) -> Oid {
        let by = Signature::new("Ann", "ann@example.com", &Time::new(1_700_000_000, 0)).unwrap();
        let tree = self.repo.find_tree(tree).unwrap();
        let parents: Vec<_> = parents.iter().map(|p| self.repo.find_commit(*p).unwrap()).collect();
        let parents: Vec<_> = parents.iter().collect();
        let id = self.repo.commit(None, &by, &by, message, &tree, &parents).unwrap();
        self.repo.reference(reference, id, true, "test").unwrap();
        id
    }

    pub(super) fn commit(&self, files: &[(&str, &str)]) -> Oid {
        let parent = self.repo.refname_to_id("refs/heads/main").ok();
        let parents: Vec<_> = parent.into_iter().collect();
        self.commit_tree("refs/heads/main", self.files(files), "change\n\nbody", &parents)
    }

    fn config(&self) -> GitConfig {
        GitConfig::new(self.path().to_str().unwrap(), self.dir.path().join("state"))
    }

    fn git(&self, edit: impl FnOnce(&mut GitConfig)) -> Git {
        let mut config = self.config();
        edit(&mut config);
        Git::new(config, clock()).unwrap()
    }

    async fn read(&self, edit: impl FnOnce(&mut GitConfig)) -> Result<Tree, FetchError> {
        self.git(edit).fetch(None).await.map(Option::unwrap)
    }

    /// The tree `entries` as the newest commit, read.
    async fn raw(&self, entries: &[(&str, &[u8], Oid)]) -> Tree {
        self.commit_tree("refs/heads/main", self.tree(entries), "raw", &[]);
        self.read(|_| ()).await.unwrap()
    }
}

fn names(tree: &Tree) -> Vec<&str> {
    tree.files.keys().map(String::as_str).collect()
}

fn skipped(tree: &Tree) -> Vec<String> {
    tree.skipped.iter().map(|s| format!("{}: {}", s.path, s.why)).collect()
}

#[tokio::test]
async fn a_commit_is_read_once_and_then_again_when_it_changes() {
    let o = Origin::new();
    let first = o.commit(&[("a.yaml", "1"), ("b.yml", "2"), ("c.json", "3"), ("d.txt", "4")]);
    let mut git = o.git(|_| ());
    let tree = git.fetch(None).await.unwrap().unwrap();
    assert_eq!(tree.revision, first.to_string());
    assert_eq!(names(&tree), ["a.yaml", "b.yml", "c.json"]);
    assert_eq!(&*tree.files["a.yaml"], b"1");
    let meta = tree.describe.unwrap();
    assert_eq!((meta.author.as_str(), meta.subject.as_str()), ("Ann", "change"));
    assert_eq!(meta.when.as_second(), 1_700_000_000);

    assert_eq!(git.fetch(Some(&first.to_string())).await.unwrap(), None);
    let second = o.commit(&[("a.yaml", "2")]);
    let tree = git.fetch(Some(&first.to_string())).await.unwrap().unwrap();
    assert_eq!((tree.revision, tree.files.len()), (second.to_string(), 1));
}

#[tokio::test]
async fn a_force_push_is_followed_also_backwards() {
    let o = Origin::new();
    let first = o.commit(&[("a.yaml", "1")]);
    let second = o.commit(&[("a.yaml", "2")]);
    o.repo.reference("refs/heads/main", first, true, "reset").unwrap();
    let tree = o.git(|_| ()).fetch(Some(&second.to_string())).await.unwrap().unwrap();
    assert_eq!(tree.revision, first.to_string());
}

#[tokio::test]
async fn branches_tags_and_commits_are_found() {
    let o = Origin::new();
    let first = o.commit(&[("a.yaml", "1")]);
    let second = o.commit(&[("a.yaml", "2")]);
    o.repo.reference("refs/heads/team/x", first, true, "t").unwrap();
    o.repo.reference("refs/tags/light", first, true, "t").unwrap();
    let by = Signature::now("t", "t@t").unwrap();
    let object = o.repo.find_object(first, None).unwrap();
    let tag = o.repo.tag("v1", &object, &by, "annotated", true).unwrap();
    let tag = o.repo.find_object(tag, None).unwrap();
    o.repo.tag("v1-again", &tag, &by, "a tag of a tag", true).unwrap();
    for (reference, want) in [
        (Reference::Head, second),
        (Reference::Branch("main".into()), second),
        (Reference::Branch("team/x".into()), first),
        (Reference::Tag("light".into()), first),
        (Reference::Tag("v1".into()), first),
        (Reference::Tag("v1-again".into()), first),
        (Reference::Commit(first.to_string()), first),
    ] {
        let mut git = o.git(|c| c.reference = reference.clone());
        let tree = git.fetch(None).await.unwrap().unwrap();
        assert_eq!(tree.revision, want.to_string(), "{reference}");
        let again = git.fetch(Some(&tree.revision)).await.unwrap();
        assert_eq!(again, None, "{reference}: unchanged must be no news");
    }
}

#[tokio::test]
async fn what_is_missing_is_an_error_and_never_an_empty_tree() {
    let o = Origin::new();
    assert!(matches!(o.read(|_| ()).await, Err(FetchError::Empty { .. })));
    o.commit(&[("a.yaml", "1")]);

    let e = o.read(|c| c.reference = Reference::Branch("mian".into())).await.unwrap_err();
    assert!(e.to_string().ends_with("has no branch mian"), "{e}");
    assert_eq!(e.hint().unwrap(), "there are: main");
    let e = o.read(|c| c.reference = Reference::Tag("v1".into())).await.unwrap_err();
    assert!(matches!(e, FetchError::NoReference { .. }), "{e}");
    let e = o.read(|c| c.reference = Reference::Commit("1".repeat(40))).await.unwrap_err();
    assert!(matches!(e, FetchError::NoReference { .. }), "{e}");
    for path in ["envs/prod", "a.yaml", "a.yaml/x"] {
        let e = o.read(|c| c.subdir = path.into()).await.unwrap_err();
        assert!(matches!(e, FetchError::NoDirectory { .. }), "{path}: {e}");
    }
    let e = o.read(|c| c.url.push_str("-gone")).await.unwrap_err();
    assert!(matches!(e, FetchError::NoRepository { .. }), "{e}");

    // HEAD points to a branch that was deleted; others are there.
    o.repo.set_head("refs/heads/gone").unwrap();
    let e = o.read(|_| ()).await.unwrap_err();
    assert_eq!(e.hint().unwrap(), "there are: main");

    // A branch that names no commit at all.
    let blob = o.blob(b"not a commit");
    std::fs::write(o.path().join("refs/heads/main"), format!("{blob}\n")).unwrap();
    assert!(o.read(|c| c.reference = Reference::Branch("main".into())).await.is_err());
    std::fs::write(o.path().join("refs/heads/main"), "rubbish\n").unwrap();
    assert!(o.read(|c| c.reference = Reference::Branch("main".into())).await.is_err());
}

#[tokio::test]
async fn a_deleted_repository_is_an_error_and_coming_back_heals() {
    let o = Origin::new();
    let first = o.commit(&[("a.yaml", "1")]);
    let mut git = o.git(|_| ());
    git.fetch(None).await.unwrap();
    let aside = o.dir.path().join("aside");
    std::fs::rename(o.path(), &aside).unwrap();
    let last = first.to_string();
    assert!(matches!(git.fetch(Some(&last)).await, Err(FetchError::NoRepository { .. })));
    std::fs::rename(&aside, o.path()).unwrap();
    assert_eq!(git.fetch(Some(&last)).await.unwrap(), None);
}

#[tokio::test]
async fn a_damaged_object_is_an_error_and_never_a_missing_file() {
    let o = Origin::new();
    let blob = o.blob(b"precious").to_string();
    o.commit(&[("a.yaml", "1"), ("b.yaml", "precious")]);
    std::fs::remove_file(o.path().join("objects").join(&blob[..2]).join(&blob[2..])).unwrap();
    assert!(matches!(o.read(|_| ()).await, Err(FetchError::Git { .. })));
}

#[tokio::test]
async fn only_the_subdirectory_is_read_and_hidden_names_are_not_ours() {
    let o = Origin::new();
    let inner = o.files(&[(".hidden.yaml", "x"), ("web.yaml", "w")]);
    let github = o.files(&[("ci.yaml", "ci")]);
    let envs = o.tree(&[("40000", b".github", github), ("40000", b"test", inner)]);
    let root = o.tree(&[("40000", b".github", github), ("40000", b"envs", envs)]);
    o.commit_tree("refs/heads/main", root, "tree", &[]);
    let tree = o.read(|_| ()).await.unwrap();
    assert_eq!((names(&tree), skipped(&tree)), (vec!["envs/test/web.yaml"], vec![]));
    let tree = o.read(|c| c.subdir = "./envs/test/".into()).await.unwrap();
    assert_eq!(names(&tree), ["web.yaml"]);
}

#[tokio::test]
async fn links_are_followed_inside_the_tree_and_reported_elsewhere() {
    let o = Origin::new();
    let link = |to: &str| o.blob(to.as_bytes());
    let base = o.files(&[("more.txt", "t"), ("real.yaml", "r")]);
    let deep = o.tree(&[
        ("120000", b"abs.yaml", link("/etc/passwd")),
        ("120000", b"circle.yaml", link("circle.yaml")),
        ("120000", b"climb.yaml", link("../../../x.yaml")),
        ("120000", b"dir", link("../base")),
        ("120000", b"good.yaml", link("../base/real.yaml")),
        ("120000", b"nowhere.yaml", link("gone.yaml")),
        ("120000", b"readme.md", link("gone.md")),
        ("120000", b"sub.yaml", link("../vendor/x.yaml")),
        ("120000", b"text.yaml", link("../base/more.txt")),
        ("120000", b"through.yaml", link("./dir/real.yaml")),
    ]);
    let tree = o
        .raw(&[
            ("40000", b"base", base),
            ("40000", b"deep", deep),
            ("160000", b"vendor", Oid::from_str(&"1".repeat(40)).unwrap()),
        ])
        .await;
    let want = ["base/real.yaml", "deep/good.yaml", "deep/text.yaml", "deep/through.yaml"];
    assert_eq!(names(&tree), want);
    assert_eq!(&*tree.files["deep/through.yaml"], b"r");
    assert_eq!(
        skipped(&tree),
        [
            "deep/abs.yaml: a symbolic link out of the repository",
            "deep/circle.yaml: a symbolic link that goes in a circle",
            "deep/climb.yaml: a symbolic link out of the repository",
            "deep/dir: a symbolic link to a directory is not followed",
            "deep/nowhere.yaml: a symbolic link that leads nowhere",
            "deep/sub.yaml: a symbolic link into a submodule",
            "vendor: a submodule is not followed",
        ]
    );
    // Out of the sub-directory is still inside the repository.
    let tree = o.read(|c| c.subdir = "deep".into()).await.unwrap();
    assert_eq!(names(&tree), ["good.yaml", "text.yaml", "through.yaml"]);
}

#[tokio::test]
async fn weird_names_are_reported_and_never_become_paths() {
    let o = Origin::new();
    let b = o.blob(b"x");
    let sub = o.files(&[("in.yaml", "x")]);
    let tree = o
        .raw(&[
            ("100644", b"..", b),
            ("40000", b"..", sub),
            ("100644", b"\xff.yaml", b),
            ("100644", b"a\nb.yaml", b),
            ("100644", b"ok.yaml", b),
            ("100644", b"up\\down.yaml", b),
        ])
        .await;
    assert_eq!(names(&tree), ["ok.yaml"]);
    assert_eq!(tree.skipped.len(), 5, "{:?}", skipped(&tree));
    assert!(skipped(&tree).iter().all(|s| !s.contains('\n')));
}

#[tokio::test]
async fn what_is_too_much_is_reported() {
    let o = Origin::new();
    let big = "x".repeat(2000);
    o.commit(&[("big.yaml", &big), ("small.yaml", "s")]);
    let limited = |f: fn(&mut Limits)| o.read(move |c| f(&mut c.limits));
    let tree = limited(|l| l.max_file_bytes = 1000).await.unwrap();
    assert_eq!(names(&tree), ["small.yaml"]);
    assert_eq!(skipped(&tree), ["big.yaml: 2000 bytes, more than 1000 for a file"]);
    let tree = limited(|l| l.max_total_bytes = 2000).await.unwrap();
    assert_eq!((names(&tree), tree.skipped.len()), (vec!["big.yaml"], 1));

    let many: Vec<String> = (0..30).map(|i| format!("{i:02}.yaml")).collect();
    let many: Vec<_> = many.iter().map(|n| (n.as_str(), "x")).collect();
    o.commit(&many);
    let tree = limited(|l| l.max_files = 20).await.unwrap();
    assert_eq!((tree.files.len(), tree.skipped.len()), (20, 1));
    let tree = limited(|l| l.max_entries = 25).await.unwrap();
    assert_eq!((tree.files.len(), tree.skipped.len()), (25, 1));
}

/// Ten names a level, each the same sub-tree: 10^12 names out of thirteen objects.
#[tokio::test]
async fn a_tree_that_explodes_is_cut() {
    let o = Origin::new();
    let mut level = o.files(&[("x.yaml", "x")]);
    for _ in 0..12 {
        let names: Vec<Vec<u8>> = (0..10).map(|i| format!("d{i}").into_bytes()).collect();
        let entries: Vec<_> = names.iter().map(|n| ("40000", n.as_slice(), level)).collect();
        level = o.tree(&entries);
    }
    o.commit_tree("refs/heads/main", level, "bomb", &[]);
    let tree = o.read(|_| ()).await.unwrap();
    assert!(!tree.skipped.is_empty());
    assert!(tree.files.len() <= Limits::default().max_files);
    let tree = o.read(|c| c.limits.max_depth = 3).await.unwrap();
    assert!(skipped(&tree).iter().any(|s| s.contains("nested too deeply")), "{:?}", skipped(&tree));
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |edit: fn(&mut GitConfig)| {
        let mut config = GitConfig::new("https://u:SEKRIT@h/x.git", dir.path());
        edit(&mut config);
        assert!(!format!("{config:?}").contains("SEKRIT"));
        let e = Git::new(config, clock()).unwrap_err();
        assert!(matches!(e, FetchError::Config { .. }), "{e}");
        assert!(e.hint().is_some());
    };
    refused(|c| c.reference = Reference::Branch("*".into()));
    refused(|c| c.reference = Reference::Branch("a:refs/heads/b".into()));
    refused(|c| c.reference = Reference::Tag(String::new()));
    refused(|c| c.reference = Reference::Commit("abc123".into()));
    refused(|c| c.subdir = "../etc".into());
    refused(|c| c.url = "ftp://h/x".into());
    refused(|c| c.ca_file = Some("/nonexistent".into()));
}

#[test]
fn the_description_names_the_source_without_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = GitConfig::new("https://u:SEKRIT@h/x.git", dir.path());
    config.subdir = "envs/test".into();
    config.reference = Reference::Branch("main".into());
    let git = Git::new(config, clock()).unwrap();
    assert_eq!(git.describe(), "git https://h/x.git branch main path envs/test");
    assert!(!format!("{git:?}").contains("SEKRIT"));
}

mod http;
mod https;
mod ssh;
