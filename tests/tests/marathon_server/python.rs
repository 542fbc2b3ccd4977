//! A client that others wrote works with it unchanged.

use std::path::PathBuf;
use std::process::Command;

use evenkeel_tests::marathon::{Auth, Options, Release, Server};

/// Where `cargo xtask test` puts it.
fn python() -> Option<PathBuf> {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| tests.parent().unwrap().join("target"));
    let python = target.join("marathon-python/bin/python");
    python.is_file().then_some(python)
}

async fn walk(line: &'static str, release: Release) {
    let Some(python) = python() else {
        eprintln!(
            "NOT TESTED: the independent client of Marathon; `cargo xtask test` installs it where python3 is"
        );
        return;
    };
    let auth = Auth::Basic("keel".into(), "even".into());
    let server = Server::start(Options { auth, members: 2, ..Options::of(release) }).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/marathon_server/walk.py");
    // The second member is a standby: it is asked first.
    let urls = [server.url_of(1), server.url()];
    let run = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .arg(script)
            .arg(line)
            .args(urls)
            .env_remove("http_proxy")
            .output()
            .unwrap()
    });
    let out = run.await.unwrap();
    let said = [&out.stdout, &out.stderr].map(|said| String::from_utf8_lossy(said)).concat();
    assert!(out.status.success(), "{release}: {said}");
    eprintln!("{release}: {said}");
}

#[tokio::test]
async fn an_independent_client_works_with_the_last_release() {
    walk("11", Release::V1_11).await;
}

/// The last one that it knows all of.
#[tokio::test]
async fn an_independent_client_works_with_the_release_of_its_time() {
    walk("8", Release::V1_8).await;
}

#[tokio::test]
async fn an_independent_client_works_with_an_old_release() {
    walk("4", Release::V1_4).await;
}
