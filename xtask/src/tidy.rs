//! What no compiler checks: purity of the plan, file lengths, leftovers, names that must not get in.

use std::fmt;

use crate::rust_text::{code, paths};
use crate::tree::Text;

const MAX_LINES: usize = 650;

/// What the pure part may not name, whatever path leads to it.
const IMPURE_WORDS: [&str; 18] = [
    "async",
    "await",
    "tokio",
    "tracing",
    "log",
    "print",
    "println",
    "eprint",
    "eprintln",
    "dbg",
    "HashMap",
    "HashSet",
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
];
/// `std::net` is not among them: addresses are values. Its sockets are above.
const IMPURE_PATHS: [&str; 5] =
    ["std::fs", "std::env", "std::process", "std::thread", "jiff::Timestamp::now"];

/// Put together, so that this file does not name what it looks for.
const LEFTOVERS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
const REGISTRY_HOSTS: [&str; 9] = [
    concat!("deb.", "debian.org"),
    concat!("security.", "debian.org"),
    concat!("snapshot.", "debian.org"),
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("pypi.", "org"),
    concat!("files.", "pythonhosted.org"),
    concat!("registry.", "npmjs.org"),
    concat!("proxy.", "golang.org"),
];

/// Something to put right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// What this machine alone is called, and so may be in no file: the hosts that it installs from, the
/// directory that it has the project in.
#[derive(Default)]
pub(crate) struct Local {
    pub(crate) hosts: Vec<String>,
    pub(crate) root: String,
}

/// Everything wrong with `files`, in their order.
pub(crate) fn tidy(files: &[Text], local: &Local) -> Vec<Finding> {
    let mut findings: Vec<Finding> = files
        .iter()
        .flat_map(|file| check(file, local))
        .map(|(file, line, what)| Finding { path: file.path.clone(), line, what })
        .collect();
    if !files.iter().any(|file| file.path == "CHANGELOG.md") {
        findings.push(Finding {
            path: "CHANGELOG.md".into(),
            line: 1,
            what: "there is none".into(),
        });
    }
    findings
}

fn check<'a>(file: &'a Text, local: &Local) -> Vec<(&'a Text, usize, String)> {
    // Cargo writes this one, and names the registry in it.
    if file.path == "Cargo.lock" {
        return Vec::new();
    }
    let mut found = words(file, local);
    if has_extension(&file.path, "rs") {
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            found.push((lines, format!("{lines} lines, at most {MAX_LINES}: take it apart")));
        }
        if is_pure(&file.path) {
            found.extend(impurities(&file.text));
        }
    }
    found.into_iter().map(|(line, what)| (file, line, what)).collect()
}

fn words(file: &Text, local: &Local) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, text) in (1..).zip(file.text.lines()) {
        for word in LEFTOVERS {
            if has_word(text, word) {
                found.push((line, format!("{word}: do it, or file it")));
            }
        }
        let hosts = REGISTRY_HOSTS.into_iter().chain(local.hosts.iter().map(String::as_str));
        for host in hosts {
            if has_word(text, host) {
                found.push((line, format!("names {host}: read the machine's own configuration")));
            }
        }
        // `/` or `/src` would be in every other file.
        if local.root.matches('/').count() > 1 && has_word(text, &local.root) {
            found.push((line, format!("names {}, which is only here", local.root)));
        }
    }
    found
}

/// The word itself, not a part of another.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

/// The plan and what it is made of, save their tests, which may read files.
fn is_pure(path: &str) -> bool {
    let Some(path) = path.strip_prefix("operator/src/") else { return false };
    let pure =
        ["import/", "model/", "model.rs", "plan/", "plan.rs", "source/parse/", "source/parse.rs"];
    let tests = path.ends_with("/tests.rs") || path.contains("/tests/");
    pure.iter().any(|start| path.starts_with(start)) && !tests
}

fn impurities(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, path) in paths(&code(source)) {
        let word = path.split("::").find(|part| IMPURE_WORDS.contains(part));
        let impure = IMPURE_PATHS
            .into_iter()
            .find(|start| path == *start || path.starts_with(&format!("{start}::")))
            .or(word);
        if let Some(impure) = impure {
            found.push((line, format!("{impure} in the pure part (docs: ARCHITECTURE.md)")));
        }
    }
    found
}

pub(crate) fn has_extension(path: &str, extension: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, end)| end == extension)
}

/// The host of each address in `sites`, which are one a line: `http://host:port/…`.
pub(crate) fn hosts(sites: &str) -> Vec<String> {
    let mut hosts: Vec<String> = sites
        .lines()
        .filter_map(|site| site.trim().split_once("://"))
        .map(|(_, rest)| rest.split(['/', ':']).next().unwrap_or_default().to_owned())
        .filter(|host| host.contains('.') && !host.starts_with("127."))
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Text {
        Text { path: path.into(), text: text.into() }
    }

    fn findings(path: &str, text: &str) -> Vec<String> {
        let local = Local { hosts: vec!["mirror.example".into()], root: "/home/me/keel".into() };
        let files = [file("CHANGELOG.md", ""), file(path, text)];
        tidy(&files, &local).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_pure_part_names_nothing_impure() {
        for source in [
            "async fn f() {}",
            "use tokio::sync::mpsc;",
            "use std::fs;",
            "use std::{fmt, fs};",
            "use std::fs::File;",
            "let x = std::env::var(name);",
            "use std::time::{Duration, Instant};",
            "std::time::SystemTime::now()",
            "use std::collections::{BTreeMap, HashMap};",
            "use std::collections::HashSet;",
            "tracing::info!(x);",
            "println!();",
            "use std::net::{IpAddr, TcpStream};",
            "jiff::Timestamp::now()",
        ] {
            for path in
                ["model/host.rs", "plan/mod.rs", "plan.rs", "source/parse.rs", "source/parse/a.rs"]
            {
                let path = format!("operator/src/{path}");
                assert_eq!(findings(&path, &format!("\n{source}")).len(), 1, "{path}: {source}");
            }
        }
    }

    #[test]
    fn what_is_pure_may_be_named_and_the_rest_may_be_impure() {
        let pure = "//! no tokio, no println!\nuse std::net::IpAddr;\nuse std::time::Duration;\n\
                    let env = spec.env; let hint = \"async std::fs HashMap\"; let at: jiff::Timestamp;";
        assert_eq!(findings("operator/src/plan/place.rs", pure), [""; 0]);
        let impure = "use tokio::sync::mpsc; use std::fs;";
        for path in [
            "operator/src/source/git.rs",
            "operator/src/planner.rs",
            "operator/src/plan/tests.rs",
            "operator/src/model/tests/all.rs",
            "xtask/src/plan/x.rs",
        ] {
            assert_eq!(findings(path, impure), [""; 0], "{path}");
        }
    }

    #[test]
    fn findings_say_where() {
        let found = findings("operator/src/plan/a.rs", "use std::{\n    fmt,\n    fs,\n};\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("operator/src/plan/a.rs:3: std::fs "), "{found:?}");
    }

    #[test]
    fn long_files_are_refused() {
        assert_eq!(findings("a.rs", &"\n".repeat(650)).len(), 0);
        assert_eq!(
            findings("a.rs", &"\n".repeat(651)),
            ["a.rs:651: 651 lines, at most 650: take it apart"]
        );
        assert_eq!(findings("a.yaml", &"\n".repeat(651)).len(), 0);
    }

    #[test]
    fn leftovers_and_local_names_are_refused() {
        let leftover = LEFTOVERS[0];
        assert_eq!(
            findings("a.md", &format!("x\n{leftover}: y"))[0],
            format!("a.md:2: {leftover}: do it, or file it")
        );
        assert_eq!(findings("a.md", &format!("{leftover}S")).len(), 0);
        assert_eq!(findings("a.sh", "curl http://mirror.example:80/x").len(), 1);
        assert_eq!(findings("a.sh", "curl http://my-mirror.example/x").len(), 0);
        assert_eq!(findings("a.yaml", &format!("from: https://{}/x", REGISTRY_HOSTS[0])).len(), 1);
        assert_eq!(findings("Cargo.lock", REGISTRY_HOSTS[3]).len(), 0);
        assert_eq!(findings("a.md", "cd /home/me/keel/operator").len(), 1);
        assert_eq!(findings("a.md", "cd /home/me/keelhaul").len(), 0);
    }

    #[test]
    fn a_changelog_there_must_be() {
        let found = tidy(&[file("README.md", "")], &Local::default());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "CHANGELOG.md");
    }

    #[test]
    fn hosts_are_taken_from_addresses() {
        let sites = "http://b.example/debian\nhttps://a.example:8080/x\nfile:/srv\nhttp://b.example/s\nhttp://127.0.0.1/x\n";
        assert_eq!(hosts(sites), ["a.example", "b.example"]);
    }
}
