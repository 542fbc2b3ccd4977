//! The image of evenkeel itself, of the debug build: it is built, and runs confined as the manifests have it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::{Command, Output};

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
    // A whole life without any documents, state and all, in nothing but two places to write to.
    let places = ["--tmpfs=/tmp:mode=1777", "--tmpfs=/var/lib/evenkeel:uid=65532,gid=65532"];
    let image = "evenkeel/evenkeel:dev";
    let once = ["run", "--dir", "/etc/evenkeel", "--once", "--listen=off", "--owner=image-test"];
    let args: Vec<&str> = places.into_iter().chain([image]).chain(once).collect();
    let ran = confined(&args);
    assert!(ran.status.success(), "{}", said(&ran));
    // Nothing in it that a person who gets in could use.
    let shell = confined(&["--entrypoint=/bin/sh", image, "-c", "true"]);
    assert!(!shell.status.success(), "there is a shell");
}
