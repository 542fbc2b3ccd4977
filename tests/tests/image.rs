//! The image of evenkeel itself, of the debug build: it is built, and runs confined as the manifests have it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::{Command, Output};
use std::time::Duration;

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_image_is_built_and_runs_confined() {
    // It tries the image out: version, a check of the example, ssh.
    let built = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "--package", "xtask", "--", "image", "--dev"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", said(&built));
    let confined = |args: &[&str]| {
        Command::new("docker")
            .args(["run", "--rm", "--read-only", "--cap-drop=ALL", "--network=none"])
            .args(["--security-opt=no-new-privileges", "--user=65532:65532"])
            .args(args)
            .output()
            .unwrap()
    };
    // It begins to work, state and all, with nothing but two places to write to, and ends when it is told to.
    let places = ["--tmpfs=/tmp:mode=1777", "--tmpfs=/var/lib/evenkeel:uid=65532,gid=65532"];
    let image = "evenkeel/evenkeel:dev";
    let name = format!("evenkeel-image-{}", std::process::id());
    let named = format!("--name={name}");
    let run = ["run", "--dir", "/etc/evenkeel", "--listen=off", "--owner=image-test"];
    let args: Vec<&str> =
        ["--detach", &named].into_iter().chain(places).chain([image]).chain(run).collect();
    let begun = confined(&args);
    assert!(begun.status.success(), "{}", said(&begun));
    let docker = |args: &[&str]| Command::new("docker").args(args).output().unwrap();
    let mut log = String::new();
    for _ in 0..600 {
        log = said(&docker(&["logs", &name]));
        if log.contains("image-test") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let ended = docker(&["stop", "--time=20", &name]);
    docker(&["rm", "--force", &name]);
    assert!(log.contains("image-test"), "it does not begin: {log}");
    assert!(ended.status.success(), "{}", said(&ended));
    // Nothing in it that a person who gets in could use.
    let shell = confined(&["--entrypoint=/bin/sh", image, "-c", "true"]);
    assert!(!shell.status.success(), "there is a shell");
}
