//! A Kubernetes API server to try things with, or the cluster that the environment names.

use anyhow::{Context as _, Result, bail};

use crate::apiserver;
use crate::command::{cargo, run};
use crate::tree::Tree;

/// Makes sure of one and prints the path of its kubeconfig, last and alone on its line.
pub(crate) fn up(tree: &Tree, cluster: bool) -> Result<()> {
    if cluster {
        let config = std::env::var("KUBECONFIG").ok().filter(|path| !path.is_empty());
        let config =
            config.context("--cluster takes the cluster of KUBECONFIG, which is not set")?;
        let asked = run("kubectl").args(["get", "--raw", "/readyz"]).read();
        asked.with_context(|| format!("the cluster of {config} does not answer"))?;
        println!("{config}");
        return Ok(());
    }
    apiserver::ensure(tree)?;
    program(tree, "up")
}

/// Ends it.
pub(crate) fn down(tree: &Tree) -> Result<()> {
    if !tree.target().join("kubernetes").exists() {
        bail!("none was built here\nhint: cargo xtask testbed kubernetes up");
    }
    program(tree, "down")
}

/// The tests know how one is started, so it is theirs to do.
fn program(tree: &Tree, word: &str) -> Result<()> {
    cargo()
        .args(["run", "--quiet", "--locked", "--package", "evenkeel-tests"])
        .args(["--bin", "testbed-kubernetes", "--", word])
        .within(tree.root())
        .go()
}
