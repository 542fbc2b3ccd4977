//! Breaks the planner on purpose, one fault at a time, and sees whether the tests notice.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::command::{cargo, run};
use crate::tree::Tree;

const LIST: &str = include_str!("../mutants.txt");

struct Mutant<'l> {
    file: &'l str,
    from: &'l str,
    to: &'l str,
}

fn listed(list: &str) -> Result<Vec<Mutant<'_>>> {
    let lines = list.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let mut parts = line.split(" | ");
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(file), Some(from), Some(to), None) => Ok(Mutant { file, from, to }),
                _ => bail!("not FILE | FROM | TO: {line}"),
            }
        })
        .collect()
}

/// Works on a clone of what is committed, with build products of its own.
pub(crate) fn mutants(tree: &Tree) -> Result<()> {
    let place = tree.target().join("mutants");
    let clone = place.join("tree");
    if clone.exists() {
        fs::remove_dir_all(&clone)?;
    }
    fs::create_dir_all(&place)?;
    run("git").args(["clone", "--quiet", "."]).arg(&clone).within(tree.root()).go()?;
    let mut survivors = Vec::new();
    for Mutant { file, from, to } in listed(LIST)? {
        let path = clone.join(file);
        let sound = fs::read_to_string(&path).with_context(|| format!("cannot read {file}"))?;
        if sound.matches(from).count() == 0 {
            bail!("xtask/mutants.txt is out of date: {file} has no `{from}`");
        }
        fs::write(&path, sound.replacen(from, to, 1))?;
        println!("== {file}: {from} -> {to}");
        let test = |extra: &[&str]| {
            cargo()
                .args(["test", "--quiet", "--package", "evenkeel-tests"])
                .args(["--test", "promises", "--test", "scenarios"])
                .args(extra)
                .env("PROPTEST_CASES", "60")
                .env("RUST_BACKTRACE", "0")
                .env("CARGO_TARGET_DIR", &place.join("target").to_string_lossy())
                .within(&clone)
                .go()
        };
        test(&["--no-run"]).context("the fault does not compile")?;
        if test(&[]).is_ok() {
            survivors.push(format!("{file}: {from} -> {to}"));
        }
        fs::write(&path, sound)?;
    }
    if survivors.is_empty() {
        println!("every fault was noticed");
        return Ok(());
    }
    bail!("nobody noticed:\n  {}", survivors.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_fault_still_has_its_place() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let all = listed(LIST).unwrap();
        assert!(all.len() >= 15);
        for Mutant { file, from, to } in all {
            let text = fs::read_to_string(root.join(file)).unwrap();
            assert!(text.contains(from), "{file} has no `{from}`");
            assert_ne!(from, to);
        }
    }
}
