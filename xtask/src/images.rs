//! The images that tests and examples run, built here: nothing is pulled.
//!
//! An image carries a digest of everything it was made of, and is left alone while that is current.

mod balancers;
mod consul;

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use crate::command::{cargo, run};
use crate::packages::digest;
use crate::setup;
use crate::tar::{Entry, archive};
use crate::tree::Tree;

const LABEL: &str = "xtask.inputs";

/// One binary, several tags that differ in what the environment tells it.
struct Recipe {
    tag: &'static str,
    env: &'static [&'static str],
}

const TOYS: [Recipe; 3] = [
    Recipe { tag: "evenkeel/toy:1", env: &["TOY_VERSION=1"] },
    Recipe { tag: "evenkeel/toy:2", env: &["TOY_VERSION=2"] },
    Recipe { tag: "evenkeel/toy:broken", env: &["TOY_VERSION=broken", "TOY_UNHEALTHY=1"] },
];

/// Every tag that [`build`] makes sure of.
pub(crate) fn tags() -> impl Iterator<Item = &'static str> {
    TOYS.iter().map(|recipe| recipe.tag).chain([balancers::TAG, consul::TAG])
}

/// Makes sure of every image on the engine that the environment names.
pub(crate) fn build(tree: &Tree, force: bool) -> Result<()> {
    setup::engine(tree)?;
    balancers::build(force)?;
    consul::build(force)?;
    let source = source(tree)?;
    let mut layer = None;
    for recipe in &TOYS {
        let inputs = digest(&format!("{source}{:?}", changes(recipe, "")))?;
        if !force && label(None, recipe.tag).as_deref() == Some(inputs.as_str()) {
            println!("{}: current", recipe.tag);
            continue;
        }
        if layer.is_none() {
            layer = Some(toy_layer(tree)?);
        }
        let layer = layer.as_deref().unwrap_or_default();
        let mut import = run("docker").arg("import");
        for change in changes(recipe, &inputs) {
            import = import.args(["--change", change.as_str()]);
        }
        import.args(["-", recipe.tag]).feed(layer)?;
        println!("{}: built", recipe.tag);
    }
    Ok(())
}

/// The digest of what an image was made of, as its label says; `None` if there is no such image.
/// Asks `engine`, or the one that the environment names.
pub(crate) fn label(engine: Option<&str>, tag: &str) -> Option<String> {
    let docker = match engine {
        Some(engine) => run("docker").args(["-H", engine]),
        None => run("docker"),
    };
    let format = format!("{{{{index .Config.Labels \"{LABEL}\"}}}}");
    docker.args(["image", "inspect", "--format", &format, tag]).read().ok()
}

/// How the engine that the environment names stores its images.
pub(crate) fn driver() -> Result<String> {
    run("docker").args(["info", "--format", "{{.Driver}}"]).read()
}

fn changes(recipe: &Recipe, inputs: &str) -> Vec<String> {
    let mut changes = vec![
        "CMD [\"/bin/toy\"]".to_owned(),
        "ENV PATH=/bin".to_owned(),
        "EXPOSE 8080".to_owned(),
        "USER 65534:65534".to_owned(),
    ];
    changes.extend(recipe.env.iter().map(|variable| format!("ENV {variable}")));
    changes.push(format!("LABEL {LABEL}={inputs}"));
    changes
}

/// Everything that decides what the binary is: its source, its dependencies, its profile, the compiler.
/// Not the binary itself, which a fresh clone would have to build only to learn that it need not.
fn source(tree: &Tree) -> Result<String> {
    let mut source = run("rustc").arg("-vV").read()?;
    for path in tree.paths()? {
        if path.starts_with("tests/toy/") || path == "Cargo.toml" || path == "Cargo.lock" {
            let bytes = fs::read(tree.root().join(&path))?;
            let text = String::from_utf8_lossy(&bytes);
            // The length keeps a line that moves from one file to the next from going unnoticed.
            write!(source, "\n{path} {}\n{text}", text.len())?;
        }
    }
    Ok(source)
}

fn toy_layer(tree: &Tree) -> Result<Vec<u8>> {
    let version = run("rustc").arg("-vV").read()?;
    let triple = host_triple(&version).context("rustc does not name its host")?;
    // A directory of its own: other RUSTFLAGS in the main one would rebuild the world on every change of task.
    let target = tree.target().join("toy");
    cargo()
        .args(["build", "--package", "toy", "--profile", "toy", "--locked"])
        .args(["--target", triple, "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .within(tree.root())
        .go()?;
    let binary = target.join(triple).join("toy/toy");
    let binary = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    Ok(archive(&[("bin/", Entry::Directory), ("bin/toy", Entry::Program(&binary))]))
}

fn host_triple(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("host: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_triple_is_read_from_the_compiler() {
        let version =
            "rustc 1.95.0\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0";
        assert_eq!(host_triple(version), Some("x86_64-unknown-linux-gnu"));
        assert_eq!(host_triple("rustc 1.95.0"), None);
    }

    #[test]
    fn recipes_differ_in_their_changes() {
        let [one, two, broken] = TOYS.each_ref().map(|recipe| changes(recipe, "x"));
        assert_ne!(one, two);
        assert!(broken.contains(&"ENV TOY_UNHEALTHY=1".to_owned()));
        assert!(one.contains(&"LABEL xtask.inputs=x".to_owned()));
    }

    #[test]
    fn digests_follow_the_text() {
        assert_eq!(digest("a").unwrap(), digest("a").unwrap());
        assert_ne!(digest("a").unwrap(), digest("b").unwrap());
    }

    #[test]
    fn the_source_has_the_toy_and_its_profile() {
        let source = source(&Tree::find().unwrap()).unwrap();
        for part in ["tests/toy/src/server.rs", "[profile.toy]", "name = \"hyper\"", "host: "] {
            assert!(source.contains(part), "{part}");
        }
    }
}
