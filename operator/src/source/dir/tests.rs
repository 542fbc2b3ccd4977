//! Real directories: what they give, what is left out, and what is noticed.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

fn setup(files: &[(&str, &str)]) -> (TempDir, Dir) {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir(&root).unwrap();
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let dir = Dir::new(&root, Limits::default());
    (temp, dir)
}

fn names(tree: &Tree) -> Vec<&str> {
    tree.files.keys().map(String::as_str).collect()
}

fn skipped(tree: &Tree) -> Vec<String> {
    tree.skipped.iter().map(|s| format!("{}: {}", s.path, s.why)).collect()
}

#[test]
fn documents_are_read_and_the_rest_is_not_ours() {
    let files = [("b/x.yml", "2"), ("a.yaml", "1"), ("c.txt", "3"), (".git/x.yaml", "4")];
    let (_temp, dir) = setup(&files);
    let tree = dir.read().unwrap();
    assert_eq!((names(&tree), skipped(&tree)), (vec!["a.yaml", "b/x.yml"], vec![]));
    assert!(tree.revision.starts_with("dir:sha256:"));
    assert_eq!(tree.revision.len(), "dir:sha256:".len() + 64);
}

#[tokio::test]
async fn the_revision_follows_names_and_contents_and_nothing_else() {
    let (_temp, mut dir) = setup(&[("a.yaml", "1"), ("note.txt", "x")]);
    let first = dir.fetch(None).await.unwrap().unwrap().revision;
    assert_eq!(dir.fetch(Some(&first)).await.unwrap(), None);
    fs::write(dir.root.join("note.txt"), "y").unwrap();
    fs::write(dir.root.join("a.yaml"), "1").unwrap();
    assert_eq!(dir.fetch(Some(&first)).await.unwrap(), None, "saved without a change");
    fs::write(dir.root.join("a.yaml"), "2").unwrap();
    let second = dir.fetch(Some(&first)).await.unwrap().unwrap().revision;
    fs::rename(dir.root.join("a.yaml"), dir.root.join("b.yaml")).unwrap();
    let third = dir.fetch(Some(&second)).await.unwrap().unwrap().revision;
    fs::write(dir.root.join("big.yaml"), vec![b'x'; 2 << 20]).unwrap();
    let fourth = dir.fetch(Some(&third)).await.unwrap().unwrap();
    assert_eq!(fourth.skipped.len(), 1);
    let all = std::collections::BTreeSet::from([first, second, third, fourth.revision]);
    assert_eq!(all.len(), 4);
}

#[test]
fn contents_cannot_move_between_files_unnoticed() {
    let files = |all: &[(&str, &[u8])]| -> Files {
        all.iter().map(|(path, bytes)| ((*path).to_owned(), (*bytes).into())).collect()
    };
    let (one, two) = (files(&[("a", b"bc"), ("d", b"")]), files(&[("a", b"b"), ("d", b"c")]));
    assert_ne!(revision(&one, &[]), revision(&two, &[]));
    let note = [Skipped { path: "a".into(), why: "b".into() }];
    assert_ne!(revision(&files(&[("a", b"b")]), &[]), revision(&Files::new(), &note));
}

#[tokio::test]
async fn a_directory_that_vanished_is_an_error_and_not_empty() {
    let (_temp, mut dir) = setup(&[("a.yaml", "1")]);
    dir.fetch(None).await.unwrap();
    let aside = dir.root.with_extension("aside");
    fs::rename(&dir.root, &aside).unwrap();
    let e = dir.fetch(None).await.unwrap_err();
    assert!(matches!(e, FetchError::Io { .. }), "{e}");
    assert!(e.chain().contains("No such file"), "{}", e.chain());
    fs::write(&dir.root, "a file").unwrap();
    assert!(dir.fetch(None).await.is_err());
    fs::remove_file(&dir.root).unwrap();
    fs::create_dir(&dir.root).unwrap();
    assert!(dir.fetch(None).await.unwrap().unwrap().files.is_empty(), "emptied by hand is empty");
}

#[test]
fn links_inside_are_followed_and_others_are_reported() {
    let (temp, dir) = setup(&[("real/a.yaml", "1"), ("..data-1/cm.yaml", "c")]);
    let root = &dir.root;
    fs::write(temp.path().join("secret.yaml"), "outside").unwrap();
    symlink("real/a.yaml", root.join("in.yaml")).unwrap();
    symlink("../secret.yaml", root.join("out.yaml")).unwrap();
    symlink("/etc/hostname", root.join("abs.yaml")).unwrap();
    symlink("/etc/hostname", root.join("abs.txt")).unwrap();
    symlink("gone.yaml", root.join("nowhere.yaml")).unwrap();
    symlink("loop.yaml", root.join("loop.yaml")).unwrap();
    symlink("real", root.join("linked")).unwrap();
    symlink("/", root.join("slash")).unwrap();
    // As Kubernetes mounts a ConfigMap.
    symlink("..data-1", root.join("..data")).unwrap();
    symlink("..data/cm.yaml", root.join("cm.yaml")).unwrap();
    let tree = dir.read().unwrap();
    assert_eq!(names(&tree), ["cm.yaml", "in.yaml", "real/a.yaml"]);
    let got = skipped(&tree);
    let want = ["abs.yaml", "linked", "loop.yaml", "nowhere.yaml", "out.yaml", "slash"];
    let paths: Vec<_> = tree.skipped.iter().map(|s| s.path.as_str()).collect();
    assert_eq!(paths, want, "{got:?}");
    assert!(got.contains(&"out.yaml: a symbolic link out of the directory".to_owned()));
}

#[test]
fn odd_things_are_reported_and_do_not_hang() {
    let (_temp, dir) = setup(&[("ok.yaml", "1"), ("a\nb.yaml", "2")]);
    let raw = std::ffi::OsStr::from_bytes(b"\xff.yaml");
    fs::write(dir.root.join(raw), "3").unwrap();
    let socket = std::os::unix::net::UnixListener::bind(dir.root.join("s.yaml")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(dir.root.join("p.yaml")).status().unwrap();
    assert!(made.success());
    let tree = dir.read().unwrap();
    assert_eq!((names(&tree), tree.skipped.len()), (vec!["ok.yaml"], 4), "{:?}", skipped(&tree));
    drop(socket);
}

#[test]
fn limits_hold_and_say_so() {
    let (_temp, mut dir) = setup(&[("a.yaml", "12345"), ("b.yaml", "1"), ("c/d/e.yaml", "1")]);
    dir.limits.max_file_bytes = 3;
    dir.limits.max_depth = 1;
    let tree = dir.read().unwrap();
    assert_eq!(names(&tree), ["b.yaml"]);
    assert_eq!(
        skipped(&tree),
        ["a.yaml: 5 bytes, more than 3 for a file", "c/d: directories are nested too deeply"]
    );
    dir.limits = Limits { max_files: 1, ..Limits::default() };
    let tree = dir.read().unwrap();
    assert_eq!((tree.files.len(), tree.skipped.len()), (1, 1));
}

#[tokio::test]
async fn a_save_rings_within_a_moment_and_silence_does_not() {
    let (_temp, dir) = setup(&[("a.yaml", "1")]);
    let root = dir.root.clone();
    let bell = Doorbell::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(dir.watch(bell.clone()));
    let rung = |within| tokio::time::timeout(Duration::from_millis(within), bell.rung());
    assert!(rung(400).await.is_err(), "nothing happened");
    let changes: [&dyn Fn(); 4] = [
        // The same length, so only the time tells.
        &|| fs::write(root.join("a.yaml"), "2").unwrap(),
        &|| fs::write(root.join("b.yaml"), "new").unwrap(),
        &|| fs::remove_file(root.join("b.yaml")).unwrap(),
        &|| fs::rename(&root, root.with_extension("gone")).unwrap(),
    ];
    for (i, change) in changes.iter().enumerate() {
        change();
        // A few times what it should take, for a loaded machine.
        assert!(rung(3000).await.is_ok(), "change {i} went unnoticed");
    }
    assert!(rung(400).await.is_err(), "one change is one ring");
}

#[test]
fn a_save_during_the_reading_is_read_again_but_not_for_ever() {
    let (_temp, dir) = setup(&[("a.yaml", "old"), ("b.yaml", "old")]);
    let write = |text: &str| {
        for name in ["a.yaml", "b.yaml"] {
            fs::write(dir.root.join(name), text).unwrap();
        }
    };
    let mut turns = 0;
    let tree = dir.read_while(|turn| {
        turns += 1;
        if turn == 0 {
            write("newer");
        }
    });
    assert_eq!((turns, &tree.unwrap().files["a.yaml"][..]), (2, &b"newer"[..]));

    let mut turns = 0;
    let tree = dir.read_while(|turn| {
        turns += 1;
        write(&"x".repeat(turn as usize + 1));
    });
    assert!(tree.is_ok());
    assert_eq!(turns, RETRIES + 1);
}
