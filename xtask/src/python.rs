//! Marathon's independent client for the tests, from where this machine's own pip gets packages.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result, bail};

use crate::command::run;
use crate::packages;
use crate::setup;
use crate::tree::Tree;

/// Its last release.
const CLIENT: &str = "marathon==0.13.0";

/// Makes sure of it, and of the link `marathon-python` in the target directory; without it the link is gone, and tests
/// that want it say so.
pub(crate) fn ensure(tree: &Tree) -> Result<()> {
    let link = tree.target().join("marathon-python");
    let made = made();
    let _ = fs::remove_file(&link);
    symlink(made?, &link).with_context(|| format!("cannot make {}", link.display()))
}

fn made() -> Result<std::path::PathBuf> {
    setup::ensure(setup::PYTHON)?;
    // What was made for another Python does not run.
    let python =
        run("python3").args(["-c", "import sys; print(sys.version, sys.prefix)"]).read()?;
    packages::kept("python", "", &format!("{CLIENT} {python}"), |work, made| {
        println!("installing {CLIENT}, which tests compare our Marathon with");
        let own = work.join("venv");
        run("python3").args(["-m", "venv"]).arg(&own).read()?;
        let pip = own.join("bin/python");
        // Not shown: what it prints names where packages come from.
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", CLIENT];
        if !run(&pip.to_string_lossy()).args(install).succeeds() {
            bail!("pip does not install {CLIENT}\nhint: python3 -m pip download {CLIENT}");
        }
        fs::rename(&own, made).context("cannot keep what was installed")
    })
}
