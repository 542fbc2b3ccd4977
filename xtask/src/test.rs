//! Running the tests, with all of their set-up.

use anyhow::{Context as _, Result};

use crate::apiserver;
use crate::command::cargo;
use crate::images;
use crate::rust_text;
use crate::setup;
use crate::tidy::has_extension;
use crate::tree::{Text, Tree};

pub(crate) fn test(tree: &Tree, filters: &[String]) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    setup::ensure(setup::TESTS)?;
    images::build(tree, false)?;
    apiserver::ensure(tree)?;
    let nextest = setup::nextest();
    // Before the others, so that what is read last is the line that counts them.
    if filters.is_empty() && has_doc_tests(&tree.texts(&tree.paths()?)?) {
        cargo().args(["test", "--locked", "--workspace", "--doc"]).within(tree.root()).go()?;
    }
    if nextest {
        let run = cargo().args(["nextest", "run", "--locked", "--workspace"]).args(filters);
        return run.within(tree.root()).go();
    }
    println!("WARNING: falling back to `cargo test`: slower, and no limit to the time of a test");
    let targets = ["--lib", "--bins", "--tests", "--examples"];
    if filters.is_empty() {
        let run = cargo().args(["test", "--locked", "--workspace"]).args(targets);
        return run.within(tree.root()).go();
    }
    // After `--` the test harness takes several filters.
    let run =
        cargo().args(["test", "--locked", "--workspace"]).args(targets).arg("--").args(filters);
    run.within(tree.root()).go()
}

/// The property tests of the promises, for long.
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
    test.env("PROPTEST_CASES", &cases.to_string())
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
