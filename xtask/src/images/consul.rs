//! The image of Consul, from the last release of the distribution that has it: the binary, its libc and a shell.
//!
//! The packages are fetched once a machine; where from is in no file and no image.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{LABEL, label};
use crate::command::run;
use crate::packages::{self, digest};

/// Later releases have none, for its licence changed.
const SUITE: &str = "bullseye";
const PACKAGES: [&str; 3] = ["busybox-static", "consul", "libc6"];
/// What of the packages nothing needs that runs.
const LEFT_OUT: [&str; 5] =
    ["./usr/share", "./usr/lib/*/gconv", "./usr/lib/*/audit", "./lib/systemd", "./etc"];
/// The commands that people expect where there is a shell.
const LINKS: [&str; 16] = [
    "cat", "echo", "env", "grep", "hostname", "ip", "kill", "ls", "mkdir", "nc", "ps", "rm", "sed",
    "sh", "sleep", "wget",
];
/// As the image has them that users run.
const DIRECTORIES: [&str; 4] = ["consul/config", "consul/data", "etc", "tmp"];
const CHANGES: [&str; 3] = [
    r#"CMD ["consul", "agent", "-dev", "-client", "0.0.0.0"]"#,
    "ENV PATH=/usr/bin:/bin",
    "EXPOSE 8500 8301 8302 8300 8600",
];

pub(super) const TAG: &str = "evenkeel/consul:1";

/// Makes sure of the image on the engine that the environment names.
pub(super) fn build(force: bool) -> Result<()> {
    let inputs = digest(&format!("{} {CHANGES:?}", contents()))?;
    if !force && label(None, TAG).as_deref() == Some(inputs.as_str()) {
        println!("{TAG}: current");
        return Ok(());
    }
    let mut import = run("docker").arg("import");
    let mark = format!("LABEL {LABEL}={inputs}");
    for change in CHANGES.into_iter().chain([mark.as_str()]) {
        import = import.args(["--change", change]);
    }
    import.arg(rootfs()?).arg(TAG).go()?;
    println!("{TAG}: built");
    Ok(())
}

fn contents() -> String {
    format!("{SUITE} {PACKAGES:?} {LEFT_OUT:?} {LINKS:?} {DIRECTORIES:?}")
}

/// The unpacked packages as a tar, made when this machine has none yet.
fn rootfs() -> Result<PathBuf> {
    packages::kept("consul", ".tar", &contents(), unpack)
}

fn unpack(work: &Path, tar: &Path) -> Result<()> {
    println!(
        "fetching {} of {SUITE}; this takes some seconds, once a machine",
        PACKAGES.join(", ")
    );
    let root = work.join("root");
    packages::unpack(work, SUITE, &PACKAGES, &root)?;
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory))?;
    }
    for name in LINKS {
        symlink("busybox", root.join("bin").join(name))?;
    }
    let part = tar.with_extension("part");
    run("tar")
        .args(["--create", "--numeric-owner", "--owner=0", "--group=0", "--file"])
        .arg(&part)
        .args(LEFT_OUT.map(|path| format!("--exclude={path}/*")))
        .arg("--directory")
        .arg(&root)
        .arg(".")
        .go()?;
    fs::rename(&part, tar).context("cannot keep what was packed")
}
