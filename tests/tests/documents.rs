//! The documents say what is so: every command in them parses and is run or accounted for, every
//! YAML example is taken, and every name that they list exists.
//!
//! `UPDATE_EXPECT=1 cargo test -p evenkeel-tests --test documents` writes docs/reference.md anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test panics where it fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use evenkeel::cli::{Cli, ReadError};
use evenkeel::model::{Desired, HostView, Memory, OwnerId, Resources, Secret, Seen, Time, World};
use evenkeel::plan::{Input, plan};
use evenkeel::source::load::{context, parse_tree};
use evenkeel::source::parse::{Applied, Secrets};
use evenkeel::source::{self, Tree};
use evenkeel_tests::agent::binary;

#[path = "documents/reference.rs"]
mod reference;

const DOCUMENTS: [&str; 12] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "docs/moving.md",
    "docs/operations.md",
    "docs/reference.md",
    "docs/walkthroughs/kubernetes.md",
    "docs/walkthroughs/marathon.md",
    "docs/walkthroughs/one-host.md",
    "docs/walkthroughs/three-hosts.md",
    "docs/why.md",
    "gitops-example/README.md",
];

/// What a test of its own runs from its middle to its end.
const KUBERNETES: &str = "docs/walkthroughs/kubernetes.md";

/// Commands that something else runs, or that need what only the reader has.
const ACCOUNTED: [(&str, &str); 27] = [
    (
        "docker volume ls --quiet --filter name=evenkeel-shop-consul | xargs --no-run-if-empty docker volume rm",
        "deletes what only the reader may delete",
    ),
    ("cargo xtask demo", "the demo is what CI shows"),
    ("cargo xtask test", "it runs this test"),
    ("cargo xtask images", "`cargo xtask test` begins with it"),
    ("cargo install --locked --path operator", "builds what `cargo xtask test` builds"),
    ("cargo build --release -p evenkeel", "the same, optimised"),
    (
        "EVENKEEL_GIT=https://git.example/shop.git docker compose -f manifests/compose/compose.yaml up -d",
        "needs an image and a repository of the reader's",
    ),
    ("curl --silent http://127.0.0.1:7070/readyz", "operator/src/http has tests for every route"),
    ("curl --silent http://127.0.0.1:8181/", "tests/tests/docker/haproxy.rs asks a balancer"),
    (
        "curl --silent --header 'Host: hello.example' http://127.0.0.1:8181/",
        "the same, by host name",
    ),
    (
        "curl --silent --header 'Host: admin.example' http://127.0.0.1:8183/",
        "the same, by host name",
    ),
    ("git init --quiet one-host", "tests/tests/agent/walkthrough.rs commits the same"),
    ("git -C one-host add --all", "the same"),
    ("git -C one-host commit --quiet --message 'The shop'", "the same"),
    (
        "curl --silent http://127.0.0.1:8501/v1/catalog/service/server | grep -o '\"ServiceID\":\"[^\"]*\"'",
        "tests/tests/agent/walkthrough.rs asks Consul",
    ),
    ("docker kill server_1 server_4 shop-consul_3", "tests/tests/agent/walkthrough.rs kills them"),
    (
        "docker run --rm --volume haproxy-logs:/logs evenkeel/balancers:1 sh -c 'tail -qn 1 /logs/*.log'",
        "needs the containers of the walk-through",
    ),
    ("cargo xtask testbed hosts up 3", "`cargo xtask test` begins with it"),
    ("cargo xtask testbed hosts down", "would take the hosts from tests that run beside"),
    ("docker login registry.example:5000", "the tests write what it would write"),
    (
        "curl --silent --header 'Host: app-test' http://10.77.0.100/",
        "tests/tests/hosts/three_hosts/walk.rs asks the address",
    ),
    (
        "curl --silent --header 'Host: app-production' http://10.77.0.100/",
        "the same, by the other name",
    ),
    (
        "docker -H tcp://10.77.0.11:2375 kill edge_1",
        "tests/tests/hosts/three_hosts/walk.rs kills the balancer that has the address",
    ),
    ("cargo xtask image", "tests/tests/image.rs builds one and runs it"),
    ("kubectl apply -k manifests/", "tests/tests/crd/manifests.rs applies it"),
    (
        "export KUBECONFIG=$(cargo xtask testbed kubernetes up | tail -n 1)",
        "`cargo xtask test` builds what it starts",
    ),
    ("cargo xtask testbed kubernetes down", "would take it from who tries things beside"),
];

/// Commands that are run here, in a directory with the examples, and the exit code they must have.
const RUN: [(&str, i32); 10] = [
    ("evenkeel check hello", 0),
    ("evenkeel check gitops-example", 0),
    ("evenkeel render gitops-example --service web-test", 0),
    ("evenkeel check one-host", 0),
    ("evenkeel render one-host --service haproxy", 0),
    ("evenkeel check three-hosts", 0),
    ("evenkeel check traffic", 0),
    ("evenkeel schema ScalingService", 0),
    ("evenkeel completions bash", 0),
    ("echo 'crash web/1' | evenkeel plan --demo", 0),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The fenced blocks of a language: where, and what is in them.
fn fenced(language: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    for path in DOCUMENTS {
        let text = text(path);
        let mut open: Option<(usize, bool, String)> = None;
        for (number, line) in text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(tag)) => open = Some((number + 1, tag == language, String::new())),
                (Some(_), Some(_)) => {
                    let (begun, wanted, block) = open.take().unwrap();
                    if wanted {
                        blocks.push((format!("{path}:{begun}"), block));
                    }
                }
                (Some((_, _, block)), None) => {
                    block.push_str(line);
                    block.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{path}: a block is not closed");
    }
    blocks
}

/// Every command line of the documents, without its comment.
fn commands() -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for (at, block) in fenced("sh") {
        for line in block.lines() {
            let line = line.split(" #").next().unwrap().trim();
            if !line.is_empty() {
                lines.push((at.clone(), line.to_owned()));
            }
        }
    }
    for (at, block) in fenced("console") {
        let typed = block.lines().filter_map(|l| l.strip_prefix("$ "));
        lines.extend(typed.map(|line| (at.clone(), line.to_owned())));
    }
    lines
}

/// What the command line says of these words, which may lack an operand.
fn parses(words: &str) -> Result<(), String> {
    match Cli::read(words.split_whitespace()) {
        Ok(_) => Ok(()),
        Err(ReadError::Words(e)) if !e.use_stderr() => Ok(()),
        Err(ReadError::Words(e)) if e.to_string().contains("required arguments were not") => Ok(()),
        Err(ReadError::Words(e)) => Err(e.to_string()),
        Err(ReadError::Other(e)) => Err(e.message),
    }
}

#[test]
fn every_command_parses_and_is_run_or_accounted_for() {
    let mut seen = BTreeSet::new();
    for (at, line) in commands() {
        seen.insert(line.clone());
        let typed = line.rsplit_once("| ").map_or(line.as_str(), |(_, last)| last);
        if typed.starts_with("evenkeel ") {
            parses(typed).unwrap_or_else(|e| panic!("{at}: {line}: {e}"));
        } else {
            // tests/tests/kubernetes/document.rs runs these; those of the installation, tests/tests/crd/manifests.rs.
            let walked = at.starts_with(KUBERNETES) && typed.starts_with("kubectl ");
            let known = walked || ACCOUNTED.iter().any(|(known, _)| *known == line);
            assert!(known, "{at}: nothing runs `{line}`; run it here or say in ACCOUNTED who does");
        }
    }
    for known in ACCOUNTED.iter().map(|(c, _)| c).chain(RUN.iter().map(|(c, _)| c)) {
        assert!(seen.contains(*known), "no document says `{known}` any more");
    }
}

#[test]
fn every_command_in_a_sentence_parses() {
    for path in DOCUMENTS {
        let text = text(path);
        for span in text.split('`').skip(1).step_by(2).filter(|s| s.starts_with("evenkeel ")) {
            parses(span).unwrap_or_else(|e| panic!("{path}: `{span}`: {e}"));
        }
    }
}

fn run(program: &Path, line: &str, dir: &Path) -> Output {
    let (stdin, typed) = match line.split_once(" | ") {
        Some((echo, typed)) => {
            let said = echo.strip_prefix("echo '").and_then(|e| e.strip_suffix('\'')).unwrap();
            (format!("{said}\n"), typed)
        }
        None => (String::new(), line),
    };
    let mut child = Command::new(program)
        .args(typed.split_whitespace().skip(1))
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn what_can_be_run_here_runs() {
    let program = binary();
    let dir = tempfile::tempdir().unwrap();
    for (_, block) in fenced("yaml") {
        if let Some(path) = block.lines().next().and_then(|l| l.strip_prefix("# ")) {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &block).unwrap();
        }
    }
    for sub in ["", "test", "production"] {
        let (from, to) =
            (root().join("gitops-example").join(sub), dir.path().join("gitops-example").join(sub));
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
    for (line, code) in RUN {
        let done = run(program, line, dir.path());
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{line}: {said}");
        if line.ends_with("--demo") {
            let answer = String::from_utf8_lossy(&done.stdout);
            assert!(answer.contains("start web_1.2 on h1: it died"), "{line}: {answer}");
        }
        assert!(
            line.starts_with("evenkeel check") || !done.stdout.is_empty(),
            "{line} says nothing"
        );
    }
}

/// What documents mean to the agent; every secret is missing.
fn desired(files: &[(&str, &str)]) -> Desired {
    let files = files.iter().map(|(p, t)| ((*p).to_owned(), t.as_bytes().into()));
    let tree = Tree {
        revision: "0123456789abcdef".into(),
        describe: None,
        files: files.collect(),
        skipped: Vec::new(),
        objects: None,
    };
    of_tree(&tree)
}

fn of_tree(tree: &Tree) -> Desired {
    let owner = OwnerId::new("documents").unwrap();
    let nothing = Applied::default();
    parse_tree(tree, &context(&owner, &AnySecret, &nothing)).0
}

/// What documents name is the reader's: it is taken to be there.
struct AnySecret;

impl Secrets for AnySecret {
    fn get(&self, _: &str, _: &str) -> Result<Secret, String> {
        Ok(Secret::new("stand-in"))
    }

    fn are_stand_ins(&self) -> bool {
        true
    }
}

#[test]
fn every_yaml_example_is_taken() {
    let blocks = fenced("yaml");
    assert!(blocks.len() >= 3, "the examples are gone");
    // Those of one directory are one source.
    let mut sources: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for (at, block) in &blocks {
        let path = block.lines().next().and_then(|l| l.strip_prefix("# ")).unwrap_or_default();
        let source = path.split_once('/').map_or(at.as_str(), |(directory, _)| directory);
        sources.entry(source).or_default().push((at, block));
    }
    for (source, files) in sources {
        let problems = desired(&files).problems;
        assert!(problems.is_empty(), "{source}: {problems:?}");
    }
}

#[test]
fn the_example_repository_gives_the_expected_plan() {
    let dir = source::dir::Dir::new(root().join("gitops-example"), source::Limits::default());
    let desired = of_tree(&dir.read().unwrap());
    assert!(desired.problems.is_empty(), "{:?}", desired.problems);
    let [fleet] = desired.fleets.values().collect::<Vec<_>>()[..] else { panic!("not one fleet") };
    let now = Time(1_000_000);
    let view = HostView {
        seen: Seen::Now,
        capacity: Resources { cpu_millis: 4000, memory_bytes: 8 << 30 },
        ..HostView::never(now)
    };
    let hosts = fleet.hosts.keys().map(|h| (h.clone(), Arc::new(view.clone()))).collect();
    let world = World { hosts, ..World::default() };
    let memory = Memory::default();
    let plan = plan(&Input { fleet, desired: &desired, world: &world, memory: &memory, now });
    let steps: Vec<String> = plan.steps.iter().map(|p| p.step.to_string()).collect();
    assert_eq!(
        steps,
        [
            "start edge_1 on local",
            "start web-production_1 on local",
            "start web-production_2 on local",
            "start web-production_3 on local",
            "start web-production_4 on local",
            "start web-test_1 on local",
            "start web-test_2 on local",
        ]
    );
    assert!(plan.waiting.iter().all(|w| !w.why.needs_a_person()), "{:?}", plan.waiting);
}

#[test]
fn every_promise_names_where_it_is_kept_and_what_checks_it() {
    let (map, tests) = (text("ARCHITECTURE.md"), text("tests/tests/promises.rs"));
    let section = map.split("\n## The promises\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    for n in 1..=11 {
        let from = section.split(&format!("\n{n}. **")).nth(1);
        let from = from.unwrap_or_else(|| panic!("promise {n} is gone"));
        let own = from.split(&format!("\n{}. **", n + 1)).next().unwrap();
        let (kept, checked) = own.split_once("Kept in ").unwrap().1.split_once("Test: ").unwrap();
        let file = kept.split('`').nth(1).unwrap();
        assert!(root().join("operator/src/plan").join(file).is_file(), "promise {n}: {file}");
        let names: Vec<&str> = checked.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "promise {n} is checked by nothing");
        for name in names {
            assert!(tests.contains(&format!("fn {name}(")), "promise {n}: no test {name}");
        }
    }
}

#[test]
fn every_metric_is_listed_and_every_listed_metric_exists() {
    let code = text("operator/src/metrics.rs");
    let code = code.split("#[cfg(test)]").next().unwrap();
    let (own, process) = code.split_once("\nfn process()").unwrap();
    let registered = |code: &str, prefix: &str| -> Vec<String> {
        let names = code.split(".register(").skip(1);
        names.map(|rest| format!("{prefix}_{}", rest.split('"').nth(1).unwrap())).collect()
    };
    let exist: BTreeSet<String> =
        registered(own, "evenkeel").into_iter().chain(registered(process, "process")).collect();
    let document = text("docs/operations.md");
    let row = |line: &str| -> Option<String> {
        let name = line.strip_prefix("| `")?.split('`').next()?;
        let ours = name.starts_with("evenkeel_") || name.starts_with("process_");
        ours.then(|| name.trim_end_matches("_total").trim_end_matches("_info").to_owned())
    };
    let listed: BTreeSet<String> = document.lines().filter_map(row).collect();
    assert_eq!(listed, exist);
}

#[test]
fn every_flag_of_run_is_explained() {
    let Err(ReadError::Words(help)) = Cli::read(["evenkeel", "run", "--help"]) else {
        panic!("no help")
    };
    let document = text("docs/operations.md");
    let help = help.to_string();
    let shown = help.split("\nExamples:").next().unwrap();
    let words = shown.split(|c: char| !c.is_ascii_lowercase() && c != '-');
    let flags: BTreeSet<&str> = words.filter(|w| w.starts_with("--") && w.len() > 2).collect();
    assert!(flags.len() > 15, "{flags:?}");
    for flag in flags.iter().filter(|f| **f != "--help") {
        assert!(document.contains(&format!("`{flag}`")), "{flag} is not in docs/operations.md");
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let (manifest, why) = (text("Cargo.toml"), text("docs/why.md"));
    let table = manifest.split("[workspace.dependencies]").nth(1).unwrap();
    let table = table.split("\n[").next().unwrap();
    let named: BTreeSet<&str> = table
        .lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split_once(" = ").map(|(name, _)| name))
        .collect();
    let given: BTreeSet<&str> = why
        .lines()
        .filter_map(|l| l.strip_prefix("| `")?.split_once("` |").map(|(name, _)| name))
        .collect();
    let missing: Vec<_> = named.difference(&given).collect();
    let stale: Vec<_> = given.difference(&named).collect();
    assert!(missing.is_empty() && stale.is_empty(), "missing {missing:?}, stale {stale:?}");
}
