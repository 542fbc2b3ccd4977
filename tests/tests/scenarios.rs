//! Runs every `scenarios/*.txt` and compares what came of it with the `.out` beside it.
//!
//! `UPDATE_EXPECT=1 cargo nextest run -p evenkeel-tests scenarios` writes the outcomes anew.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which clippy does not count as tests"
)]

use std::fmt::Write;
use std::path::Path;

use evenkeel::fake::scenario::Scenario;

#[test]
fn scenarios() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "the scenarios are gone");
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = Vec::new();
    for file in files {
        let (got, want) = (play(&file), file.with_extension("out"));
        if update {
            std::fs::write(&want, &got).unwrap();
        }
        let expected = std::fs::read_to_string(&want).unwrap_or_default();
        if got != expected {
            wrong.push(format!("{}:\n{}", file.display(), difference(&expected, &got)));
        }
        // Nobody reviews a golden that nobody reads.
        assert!(got.len() < 8000, "{} says too much", file.display());
    }
    assert!(wrong.is_empty(), "UPDATE_EXPECT=1 takes these as right:\n{}", wrong.join("\n"));
}

/// Every scenario ends settled, and then planning again changes nothing.
fn play(file: &Path) -> String {
    let mut scenario = Scenario::default();
    let mut out = String::new();
    let text = std::fs::read_to_string(file).unwrap();
    let last = "settle\nshow plan\n";
    for line in text.lines().chain(last.lines()) {
        let _ = writeln!(out, "{}{line}", if line.starts_with('#') { "" } else { "> " });
        match scenario.line(line) {
            Ok(answer) => out.push_str(&answer),
            Err(e) => panic!("{}: {line}: {e}", file.display()),
        }
    }
    out
}

fn difference(want: &str, got: &str) -> String {
    let mut out = String::new();
    let (want, got): (Vec<_>, Vec<_>) = (want.lines().collect(), got.lines().collect());
    let same = want.iter().zip(&got).take_while(|(a, b)| a == b).count();
    for line in want.iter().skip(same).take(12) {
        let _ = writeln!(out, "- {line}");
    }
    for line in got.iter().skip(same).take(12) {
        let _ = writeln!(out, "+ {line}");
    }
    out
}
