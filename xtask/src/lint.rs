//! Everything that is wrong with the source, at once: one failing check does not hide the next.

use anyhow::{Result, bail};

use crate::command::{cargo, on_path, run};
use crate::links;
use crate::setup;
use crate::tidy::{self, Finding, Local};
use crate::tree::Tree;

type Check = fn(&Tree) -> Result<()>;

pub(crate) fn lint(tree: &Tree) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    let checks: [(&str, Check); 6] = [
        ("format", format),
        ("tidy", tidy),
        ("generated files", generated),
        ("clippy", clippy),
        ("documentation", documentation),
        ("dependencies", dependencies),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        println!("== lint: {name}");
        if let Err(error) = check(tree) {
            println!("{error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        println!("== lint: all {} checks passed", checks.len());
        Ok(())
    } else {
        bail!("lint failed: {}", failed.join(", "))
    }
}

/// Writes what is generated from the API types, or checks that it is current. Done by a program of that
/// crate, so that this one need not compile it.
pub(crate) fn crd(tree: &Tree, check: bool) -> Result<()> {
    let example = cargo()
        .args([
            "run",
            "--quiet",
            "--locked",
            "--package",
            "evenkeel-crds",
            "--example",
            "generate",
            "--",
        ])
        .args(check.then_some("--check"))
        .within(tree.root());
    example.go()
}

fn generated(tree: &Tree) -> Result<()> {
    crd(tree, true)
}

fn format(tree: &Tree) -> Result<()> {
    cargo().args(["fmt", "--all", "--check"]).within(tree.root()).go()
}

fn tidy(tree: &Tree) -> Result<()> {
    let paths = tree.paths()?;
    let files = tree.texts(&paths)?;
    let root = tree.root().display().to_string();
    // Without apt there is no such host to name by mistake.
    let sites = run("apt-get").args(["indextargets", "--format", "$(SITE)"]).read();
    let hosts = sites.map(|sites| tidy::hosts(&sites)).unwrap_or_default();
    let mut findings = tidy::tidy(&files, &Local { hosts, root });
    findings.extend(links::dangling(&files, &paths));
    report(&findings)
}

fn report(findings: &[Finding]) -> Result<()> {
    for finding in findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("1 thing is untidy"),
        count => bail!("{count} things are untidy"),
    }
}

/// Warnings are errors here and nowhere else; not by `RUSTFLAGS`, which would rebuild every dependency.
fn clippy(tree: &Tree) -> Result<()> {
    cargo()
        .args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])
        .within(tree.root())
        .go()
}

fn documentation(tree: &Tree) -> Result<()> {
    cargo()
        .args([
            "doc",
            "--quiet",
            "--locked",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ])
        .env("RUSTDOCFLAGS", "-D warnings")
        .within(tree.root())
        .go()
}

fn dependencies(tree: &Tree) -> Result<()> {
    if on_path("cargo-deny") {
        // Not advisories: they change without us, and need a database from elsewhere.
        cargo()
            .args(["deny", "--locked", "check", "bans", "licenses", "sources"])
            .within(tree.root())
            .go()
    } else {
        println!("SKIPPED: cargo-deny is not installed, so licences and sources were NOT checked");
        println!("hint: cargo install --locked cargo-deny");
        Ok(())
    }
}
