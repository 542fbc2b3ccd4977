//! Running the tests, with all of their set-up.

use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::apiserver;
use crate::command::cargo;
use crate::images;
use crate::kubernetes;
use crate::python;
use crate::rust_text;
use crate::setup;
use crate::testbed;
use crate::tidy::has_extension;
use crate::tree::{Text, Tree};

/// How many hosts the tests of several hosts take, and what is in the name of each such test.
const HOSTS: u8 = 3;
const ON_HOSTS: &str = "three_hosts::";
/// What is in the name of each test that takes a full cluster.
const ON_A_CLUSTER: &str = "on_a_cluster::";

pub(crate) fn test(tree: &Tree, filters: &[String]) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    setup::ensure(setup::TESTS)?;
    apiserver::ensure(tree)?;
    let client = python::ensure(tree);
    let outcome = with_hosts(tree, filters);
    if let Err(why) = client {
        println!("NOT TESTED: our Marathon with a client that others wrote: {why:#}");
    }
    println!("NOT TESTED: {}: KUBECONFIG=… cargo xtask test --cluster", kubernetes::ONLY_A_CLUSTER);
    outcome
}

/// The tests that take a full cluster, in the one that the environment names.
pub(crate) fn on_cluster(tree: &Tree, filters: &[String]) -> Result<()> {
    let Some(cluster) = kubernetes::named() else {
        println!("NOT TESTED: {}", kubernetes::ONLY_A_CLUSTER);
        println!(
            "hint: KUBECONFIG must name a cluster on which tests may make namespaces of their own"
        );
        return Ok(());
    };
    setup::ensure(setup::BUILD)?;
    setup::ensure(setup::TESTS)?;
    apiserver::ensure(tree)?;
    images::build(tree, false)?;
    let definitions = kubernetes::Definitions::ensure(tree)?;
    let notes = tree.target().join("cluster-not-tested");
    let _ = std::fs::remove_file(&notes);
    let words: &[&str] = if setup::nextest() { &["nextest", "run"] } else { &["test"] };
    let outcome = cargo()
        .args(words)
        .args(["--locked", "--package", "evenkeel-tests", "--test", "cluster", "--"])
        .args(filters)
        .env("EVENKEEL_CLUSTER", &cluster)
        .env("EVENKEEL_NOT_TESTED", &notes.to_string_lossy())
        .within(tree.root())
        .go();
    let removed = definitions.remove();
    // Where it is read, after the line that counts.
    print!("{}", std::fs::read_to_string(&notes).unwrap_or_default());
    outcome.and(removed)
}

fn with_hosts(tree: &Tree, filters: &[String]) -> Result<()> {
    // Brings the images to the local engine too.
    let why = match testbed::up(tree, HOSTS) {
        Ok(()) => return run(tree, filters, &["--skip", ON_A_CLUSTER]),
        Err(why) => why,
    };
    let not_tested = || {
        println!("NOT TESTED: everything that takes several hosts (tests/tests/hosts): {why:#}");
    };
    images::build(tree, false)?;
    not_tested();
    let outcome = run(tree, filters, &["--skip", ON_A_CLUSTER, "--skip", ON_HOSTS]);
    // Once more where it is read, after the line that counts the others.
    not_tested();
    outcome
}

/// Runs the tests; `limits` is for the test harness.
fn run(tree: &Tree, filters: &[String], limits: &[&str]) -> Result<()> {
    let nextest = setup::nextest();
    // Before the others, so that what is read last is the line that counts them.
    if filters.is_empty() && has_doc_tests(&tree.texts(&tree.paths()?)?) {
        cargo().args(["test", "--locked", "--workspace", "--doc"]).within(tree.root()).go()?;
    }
    let run = if nextest {
        cargo().args(["nextest", "run", "--locked", "--workspace"])
    } else {
        println!(
            "WARNING: falling back to `cargo test`: slower, and no limit to the time of a test"
        );
        let targets = ["--lib", "--bins", "--tests", "--examples"];
        cargo().args(["test", "--locked", "--workspace"]).args(targets)
    };
    // Only after `--` the test harness takes several filters.
    run.arg("--").args(filters).args(limits).within(tree.root()).go()
}

/// The property tests of the promises, for long, with cases of their own.
#[allow(clippy::disallowed_methods, reason = "no two runs draw the same cases")]
pub(crate) fn promises(tree: &Tree, cases: u32) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    let test = if setup::nextest() {
        // No output until the end would look like a hang in a run of hours.
        cargo().args([
            "nextest",
            "run",
            "--locked",
            "--package",
            "evenkeel-tests",
            "--test",
            "promises",
            "--release",
        ])
    } else {
        cargo().args([
            "test",
            "--locked",
            "--package",
            "evenkeel-tests",
            "--test",
            "promises",
            "--release",
        ])
    };
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    test.env("PROPTEST_CASES", &cases.to_string())
        .env("PROPTEST_RNG_SEED", &seed.as_secs().to_string())
        .env("NEXTEST_PROFILE", "promises")
        .within(tree.root())
        .go()
        .context(
            "a promise was broken, or there is none; proptest has written the case that broke it",
        )
}

/// Whether any library has an example in its documentation that would be run.
fn has_doc_tests(files: &[Text]) -> bool {
    let tested = |file: &&Text| has_extension(&file.path, "rs") && file.path.contains("/src/");
    files.iter().filter(tested).any(|file| rust_text::has_example(&file.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rust_examples_of_libraries_are_run() {
        let has = |path: &str, text: &str| {
            has_doc_tests(&[Text { path: path.into(), text: text.into() }])
        };
        assert!(has("operator/src/lib.rs", "/// ```\n/// x\n/// ```"));
        assert!(has("operator/src/lib.rs", "//! ```no_run\n"));
        assert!(!has("operator/src/lib.rs", "/// ```text\n/// x\n/// ```\n"));
        assert!(!has("operator/src/lib.rs", "/// ```yaml\n/// x\n/// ```\n/// z\n/// ```text\n"));
        assert!(!has("README.md", "/// ```\n"));
    }
}
