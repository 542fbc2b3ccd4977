//! Images from the distribution's packages: the balancers with keepalived, and a registry to pull from.
//!
//! The packages are unpacked once a machine, into a tar that is named after its recipe. Where they come from is asked
//! of the machine's own package manager each time, and is in no file and no image.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{LABEL, label};
use crate::command::run;
use crate::packages::{self, digest};
use crate::setup;

const SUITE: &str = "bookworm";
/// The registry is in the same tree because a tree of its own would take another minute to unpack.
const PACKAGES: &str = "haproxy,nginx-light,libnginx-mod-stream,keepalived,docker-registry,\
                        bash,curl,procps,iproute2";
/// What no container needs, and what names the place that the packages came from.
const LEFT_OUT: [&str; 9] = [
    "./debootstrap",
    "./etc/apt/sources.list",
    "./usr/share/doc",
    "./usr/share/locale",
    "./usr/share/man",
    "./var/cache/apt",
    "./var/lib/apt/lists",
    "./var/log/apt",
    "./var/log/bootstrap.log",
];
/// The distribution's own wants a file with passwords.
const REGISTRY_CONFIG: &str = "\
version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: /var/lib/docker-registry}
  delete: {enabled: true}
http: {addr: ':5000'}
";

const REGISTRY_CONFIG_PATH: &str = "etc/docker/registry/config.yml";

struct Recipe {
    tag: &'static str,
    changes: [&'static str; 2],
}

const BALANCERS: Recipe = Recipe {
    tag: "evenkeel/balancers:1",
    changes: [r#"CMD ["sleep", "infinity"]"#, "ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
};

const REGISTRY: Recipe = Recipe {
    tag: "evenkeel/registry:1",
    changes: [
        r#"CMD ["docker-registry", "serve", "/etc/docker/registry/config.yml"]"#,
        "EXPOSE 5000",
    ],
};

/// What runs on the hosts of a testbed too; the registry only ever stands beside them.
pub(super) const TAG: &str = BALANCERS.tag;

/// Makes sure of both images on the engine that the environment names.
pub(super) fn build(force: bool) -> Result<()> {
    let mut stale = force;
    for recipe in [&BALANCERS, &REGISTRY] {
        let inputs = digest(&format!("{} {:?}", contents(), recipe.changes))?;
        // The second is made of the first, so that it follows it.
        stale |= label(None, recipe.tag).as_deref() != Some(inputs.as_str());
        if !stale {
            println!("{}: current", recipe.tag);
            continue;
        }
        let mark = format!("LABEL {LABEL}={inputs}");
        let changes: Vec<&str> = recipe
            .changes
            .iter()
            .chain([&mark.as_str()])
            .flat_map(|change| ["--change", change])
            .collect();
        if recipe.tag == TAG {
            run("docker").arg("import").args(changes).arg(rootfs()?).arg(recipe.tag).go()?;
        } else {
            committed(&changes, recipe.tag)?;
        }
        println!("{}: built", recipe.tag);
    }
    Ok(())
}

/// The same content under another name: nothing is unpacked twice.
fn committed(changes: &[&str], tag: &str) -> Result<()> {
    let container = run("docker").args(["create", TAG]).read()?;
    let made = run("docker").arg("commit").args(changes).args([&container, tag]).read();
    run("docker").args(["rm", "--force", &container]).read()?;
    made.map(drop)
}

fn contents() -> String {
    format!("{SUITE} {PACKAGES} {LEFT_OUT:?} {REGISTRY_CONFIG}")
}

/// The unpacked packages as a tar, made when this machine has none yet.
fn rootfs() -> Result<PathBuf> {
    packages::kept("rootfs", ".tar", &contents(), unpack)
}

fn unpack(root: &Path, tar: &Path) -> Result<()> {
    setup::ensure(setup::PACKAGES)?;
    let mirror = packages::mirror(SUITE)?;
    println!("unpacking {PACKAGES} of {SUITE}; this takes some minutes, once a machine");
    run("debootstrap")
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE])
        .arg(root)
        .arg(mirror)
        .read()?;
    fs::write(root.join(REGISTRY_CONFIG_PATH), REGISTRY_CONFIG)?;
    let part = tar.with_extension("part");
    run("tar")
        .arg("--create")
        .args(["--numeric-owner", "--one-file-system", "--file"])
        .arg(&part)
        .args(LEFT_OUT.map(|path| format!("--exclude={path}")))
        .arg("--directory")
        .arg(root)
        .arg(".")
        .go()?;
    fs::rename(&part, tar).context("cannot keep what was packed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_names_the_mirror_is_packed() {
        for path in ["./etc/apt/sources.list", "./var/lib/apt/lists", "./var/log/bootstrap.log"] {
            assert!(LEFT_OUT.contains(&path), "{path}");
        }
    }
}
