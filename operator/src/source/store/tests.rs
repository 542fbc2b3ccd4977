//! What survives, what is refused, and who holds the lock.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("a/b")).unwrap();
    (dir, store)
}

fn tree() -> Tree {
    Tree {
        objects: None,
        revision: "abc".into(),
        describe: Some(TreeMeta {
            author: "Ann".into(),
            subject: "x".into(),
            when: jiff::Timestamp::UNIX_EPOCH,
        }),
        files: BTreeMap::from([
            ("a.yaml".into(), (*b"one\n").into()),
            ("b/empty.yaml".into(), [].into()),
            ("b/raw.yaml".into(), [0, 255, b'\n'].into()),
        ]),
        skipped: vec![Skipped { path: "c".into(), why: "too big".into() }],
    }
}

#[test]
fn what_is_saved_is_loaded() {
    let (_dir, s) = store();
    assert_eq!(s.load("memory").unwrap(), None);
    s.save("memory", b"one").unwrap();
    s.save("memory", b"two").unwrap();
    s.save("other", b"").unwrap();
    assert_eq!(s.load("memory").unwrap().unwrap(), b"two");
    assert_eq!(s.load("other").unwrap().unwrap(), b"");
    let mode = std::os::unix::fs::PermissionsExt::mode;
    assert_eq!(mode(&fs::metadata(s.dir()).unwrap().permissions()) & 0o777, 0o700);
    assert_eq!(
        mode(&fs::metadata(s.dir().join("memory.state")).unwrap().permissions()) & 0o777,
        0o600
    );
    assert_eq!(fs::read_dir(s.dir()).unwrap().count(), 2, "nothing half written stays");
}

#[test]
fn a_name_cannot_leave_the_directory() {
    let (_dir, s) = store();
    for bad in ["", "../x", "a/b", "A", "a.b", "é", &"x".repeat(65)] {
        assert!(matches!(s.save(bad, b""), Err(StoreError::Name { .. })), "{bad}");
        assert!(matches!(s.load(bad), Err(StoreError::Name { .. })), "{bad}");
    }
}

#[test]
fn the_tree_comes_back_for_its_own_source_only() {
    let (_dir, s) = store();
    assert_eq!(s.load_tree("git a"), None);
    s.save_tree("git a", &tree()).unwrap();
    assert_eq!(s.load_tree("git a"), Some(tree()));
    assert_eq!(s.load_tree("git b"), None);
    assert_eq!(s.load_tree("git a"), Some(tree()), "asking for another destroys nothing");
}

#[test]
fn a_newer_version_is_refused_and_set_aside() {
    let (_dir, s) = store();
    let path = s.dir().join("memory.state");
    fs::write(&path, format!("{MAGIC} 2 something else entirely\nbody")).unwrap();
    assert!(matches!(s.load("memory"), Err(StoreError::Future { found: 2, .. })));
    assert_eq!(s.load_or_set_aside("memory"), None);
    assert!(!path.exists() && s.dir().join("memory.state.bad").exists());
    s.save("memory", b"new").unwrap();
    assert_eq!(s.load("memory").unwrap().unwrap(), b"new");
}

#[test]
fn one_state_is_not_taken_for_another() {
    let (_dir, s) = store();
    s.save("memory", b"x").unwrap();
    fs::copy(s.dir().join("memory.state"), s.dir().join("other.state")).unwrap();
    assert!(matches!(s.load("other"), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_good_wrapper_around_a_bad_tree_is_set_aside() {
    let (_dir, s) = store();
    let index = |files: &str| {
        format!(
            "{{\"source\":\"g\",\"revision\":\"r\",\"describe\":null,\"skipped\":[],\"files\":{files}}}\n"
        )
    };
    for body in [
        "no index".to_owned(),
        "{}\n".to_owned(),
        index("[[\"a\",5]]") + "four",
        index("[[\"a\",1]]") + "four",
        index("[[\"a\",18446744073709551615]]"),
    ] {
        s.save(TREE, body.as_bytes()).unwrap();
        assert_eq!(s.load_tree("g"), None, "{body}");
        assert!(!s.dir().join("last-good.state").exists());
    }
}

#[test]
fn one_holds_the_lock_and_the_next_gets_it_after() {
    let (dir, s) = store();
    let other = Store::open(dir.path().join("a/b")).unwrap();
    let stale = s.dir().join(".tmp-memory-1-1");
    fs::write(&stale, "half").unwrap();
    let guard = s.try_lock().unwrap().unwrap();
    assert!(!stale.exists(), "what a crash left is removed");
    assert!(other.try_lock().unwrap().is_none());
    drop(guard);
    assert!(other.try_lock().unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_lock_ends_when_it_is_free() {
    let (_dir, s) = store();
    let guard = s.try_lock().unwrap().unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(60), s.lock()).await;
    assert!(waited.is_err(), "standing by");
    let release = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        drop(guard);
    };
    let ((), got) = tokio::join!(release, tokio::time::timeout(Duration::from_secs(5), s.lock()));
    got.unwrap().unwrap();
}

/// A process that is killed leaves no lock behind.
#[test]
fn the_lock_is_the_kernels_and_not_a_file() {
    let (_dir, s) = store();
    fs::write(s.dir().join("lock"), "left by a dead process").unwrap();
    assert!(s.try_lock().unwrap().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_tree_comes_back(
        files in prop::collection::btree_map("[a-z/\n\"é]{1,12}", prop::collection::vec(any::<u8>(), 0..50), 0..6),
        source in ".*",
    ) {
        let (_dir, s) = store();
        let tree = Tree { files: files.into_iter().map(|(path, bytes)| (path, bytes.into())).collect(), ..tree() };
        s.save_tree(&source, &tree).unwrap();
        prop_assert_eq!(s.load_tree(&source), Some(tree));
    }

    #[test]
    fn damage_is_always_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>()) {
        let (_dir, s) = store();
        s.save_tree("git a", &tree()).unwrap();
        let path = s.dir().join("last-good.state");
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        fs::write(&path, &bytes).unwrap();
        prop_assert!(s.load(TREE).is_err());
        prop_assert_eq!(s.load_tree("git a"), None);
        prop_assert!(s.dir().join("last-good.state.bad").exists(), "kept for a person to look at");
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), ours in any::<bool>()) {
        let (_dir, s) = store();
        let mut file = if ours { b"evenkeel-state 1 last-good ".to_vec() } else { Vec::new() };
        file.extend(bytes.clone());
        fs::write(s.dir().join("last-good.state"), &file).unwrap();
        prop_assert_eq!(s.load_tree("x"), None);
        let _ = decode(&bytes);
    }
}
