//! The image of Consul, from the last release of the distribution that has it: the binary, its libc and a shell.
//!
//! The packages are fetched once a machine, with a configuration of the package manager's that is ours alone: the
//! system's own is only asked where its mirror is, and what that is called is in no file and no image.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{LABEL, digest, label, packages};
use crate::command::run;

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
    packages::kept("consul", &contents(), unpack)
}

fn unpack(work: &Path, tar: &Path) -> Result<()> {
    println!(
        "fetching {} of {SUITE}; this takes some seconds, once a machine",
        PACKAGES.join(", ")
    );
    let root = work.join("root");
    for directory in ["lists/partial", "cache/archives/partial", "packages", "root"] {
        fs::create_dir_all(work.join(directory))?;
    }
    fs::write(work.join("sources"), source(&packages::mirror(SUITE)?))?;
    let apt = || {
        let settings = [
            ("Dir::State::Lists", work.join("lists")),
            ("Dir::State::status", PathBuf::from("/dev/null")),
            ("Dir::Etc::SourceList", work.join("sources")),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Dir::Cache", work.join("cache")),
            // Another user could not write there.
            ("APT::Sandbox::User", PathBuf::from("root")),
            ("Acquire::Languages", PathBuf::from("none")),
        ];
        let settings = settings.map(|(name, value)| format!("{name}={}", value.display()));
        run("apt-get").args(settings.iter().flat_map(|setting| ["-o", setting]))
    };
    // Read, not shown: what they print names the mirror.
    apt().args(["update", "-q"]).read()?;
    apt().arg("download").args(PACKAGES).within(&work.join("packages")).read()?;
    for package in fs::read_dir(work.join("packages"))? {
        run("dpkg").arg("-x").arg(package?.path()).arg(&root).read()?;
    }
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

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A line for the package manager.
fn source(mirror: &str) -> String {
    let keys = if Path::new(KEYRING).is_file() {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    format!("deb {keys}{mirror} {SUITE} main\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_one_line() {
        let line = source("http://mirror.example/debian");
        assert!(line.starts_with("deb ") && line.ends_with(" bullseye main\n"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }
}
