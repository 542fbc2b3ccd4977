//! The arguments, by hand: a parser library would cost more to compile than the rest of this crate.

use crate::bench;

/// How many Docker hosts `testbed hosts up` brings up when nobody says.
const HOSTS: u8 = 3;
/// More would not fit the address plan of the testbed.
pub(crate) const MAX_HOSTS: u8 = 40;
const CASES: u32 = 10_000;

pub(crate) const USAGE: &str = "\
usage: cargo xtask TASK

  demo [--keep]                the main job, shown: commits that scale, roll out and heal balancers, servers and Consul
                               under load, then everything is taken down (--keep leaves it running)
  images [--force]             build the images that tests and examples run, unless they are current
  image [--dev]                the image of evenkeel itself, tried out (--dev: of the debug build, as :dev)
  crd [--check]                write what is generated from the API types, or check that it is current
  lint                         format, tidiness, clippy, documentation, generated files, dependencies
  test [FILTER…]               set up what is missing, then run the tests
  test --cluster [FILTER…]     those that take a full Kubernetes cluster, in namespaces of their own on that of KUBECONFIG
  promises [--cases N]         the property tests for long, in release (default 10000 cases)
  mutants                      break the planner in known ways, one at a time: the tests must notice each
  bench [--quick] [ROW…]       measure scale, rotation, heal, commit, plan, idle; loss, drop, burst, size of traffic;
                               objects, many, read, quiet, kubectl on an API server; marathon; or only these rows, in release;
                               a table, and target/bench/latest.json
  testbed hosts up [N]         N Docker hosts on this machine, each in a network namespace (default 3)
  testbed hosts down [I]       take all of them down, or only host I
  testbed kubernetes up        a Kubernetes API server on this machine; prints the path of its kubeconfig.
                               built once, or the one of KUBEBUILDER_ASSETS; --cluster takes the cluster that
                               KUBECONFIG names
  testbed kubernetes down      end it and forget what it held";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Help,
    Image { dev: bool },
    Images { force: bool },
    Crd { check: bool },
    Lint,
    Test { cluster: bool, filters: Vec<String> },
    Promises { cases: u32 },
    Mutants,
    Demo { keep: bool },
    Bench { quick: bool, rows: Vec<String> },
    HostsUp { count: u8 },
    HostsDown { only: Option<u8> },
    KubernetesUp { cluster: bool },
    KubernetesDown,
}

pub(crate) fn parse(args: &[String]) -> Result<Task, String> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [] | ["help" | "--help" | "-h", ..] | [_, "--help" | "-h"] => Ok(Task::Help),
        ["demo"] => Ok(Task::Demo { keep: false }),
        ["demo", "--keep"] => Ok(Task::Demo { keep: true }),
        ["bench", rest @ ..] => bench(rest),
        ["image"] => Ok(Task::Image { dev: false }),
        ["image", "--dev"] => Ok(Task::Image { dev: true }),
        ["images"] => Ok(Task::Images { force: false }),
        ["images", "--force"] => Ok(Task::Images { force: true }),
        ["crd"] => Ok(Task::Crd { check: false }),
        ["crd", "--check"] => Ok(Task::Crd { check: true }),
        ["lint"] => Ok(Task::Lint),
        ["test", rest @ ..] => test(rest),
        ["mutants"] => Ok(Task::Mutants),
        ["promises"] => Ok(Task::Promises { cases: CASES }),
        ["promises", "--cases", cases] => match cases.parse() {
            Ok(cases) if cases > 0 => Ok(Task::Promises { cases }),
            _ => Err(format!("--cases takes a number above 0, not {cases}")),
        },
        ["testbed", "hosts", "up"] => Ok(Task::HostsUp { count: HOSTS }),
        ["testbed", "hosts", "up", count] => Ok(Task::HostsUp { count: host_number(count)? }),
        ["testbed", "hosts", "down"] => Ok(Task::HostsDown { only: None }),
        ["testbed", "hosts", "down", host] => {
            Ok(Task::HostsDown { only: Some(host_number(host)?) })
        }
        ["testbed", "kubernetes", "up"] => Ok(Task::KubernetesUp { cluster: false }),
        ["testbed", "kubernetes", "up", "--cluster"] => Ok(Task::KubernetesUp { cluster: true }),
        ["testbed", "kubernetes", "down"] => Ok(Task::KubernetesDown),
        _ => Err(format!("cannot make sense of `{}`", args.join(" "))),
    }
}

fn test(rest: &[&str]) -> Result<Task, String> {
    let (flags, filters): (Vec<&str>, Vec<&str>) =
        rest.iter().partition(|arg| arg.starts_with('-'));
    match flags.iter().find(|flag| **flag != "--cluster") {
        Some(flag) => Err(format!("unknown option {flag} of test")),
        None => Ok(Task::Test {
            cluster: !flags.is_empty(),
            filters: filters.into_iter().map(str::to_owned).collect(),
        }),
    }
}

fn bench(rest: &[&str]) -> Result<Task, String> {
    let (flags, rows): (Vec<&str>, Vec<&str>) = rest.iter().partition(|arg| arg.starts_with('-'));
    if let Some(flag) = flags.iter().find(|flag| **flag != "--quick") {
        return Err(format!("unknown option {flag} of bench"));
    }
    match rows.iter().find(|row| !bench::ROWS.contains(row)) {
        Some(row) => Err(format!("there is no row {row}, only {}", bench::ROWS.join(", "))),
        None => Ok(Task::Bench {
            quick: !flags.is_empty(),
            rows: rows.iter().map(|&row| row.to_owned()).collect(),
        }),
    }
}

fn host_number(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(number @ 1..=MAX_HOSTS) => Ok(number),
        _ => Err(format!("hosts are numbered 1 to {MAX_HOSTS}, not {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_task() {
        assert_eq!(parsed(""), Ok(Task::Help));
        assert_eq!(parsed("lint --help"), Ok(Task::Help));
        assert_eq!(parsed("demo"), Ok(Task::Demo { keep: false }));
        assert_eq!(parsed("demo --keep"), Ok(Task::Demo { keep: true }));
        assert_eq!(parsed("bench"), Ok(Task::Bench { quick: false, rows: vec![] }));
        let rows = vec!["heal".to_owned(), "idle".to_owned()];
        assert_eq!(parsed("bench heal --quick idle"), Ok(Task::Bench { quick: true, rows }));
        assert_eq!(parsed("image"), Ok(Task::Image { dev: false }));
        assert_eq!(parsed("image --dev"), Ok(Task::Image { dev: true }));
        assert_eq!(parsed("images"), Ok(Task::Images { force: false }));
        assert_eq!(parsed("images --force"), Ok(Task::Images { force: true }));
        assert_eq!(parsed("crd"), Ok(Task::Crd { check: false }));
        assert_eq!(parsed("crd --check"), Ok(Task::Crd { check: true }));
        assert_eq!(parsed("lint"), Ok(Task::Lint));
        let test = |cluster, filters: &[&str]| {
            Ok(Task::Test { cluster, filters: filters.iter().map(|f| (*f).to_owned()).collect() })
        };
        assert_eq!(parsed("test"), test(false, &[]));
        assert_eq!(parsed("test a b"), test(false, &["a", "b"]));
        assert_eq!(parsed("test --cluster"), test(true, &[]));
        assert_eq!(parsed("test a --cluster"), test(true, &["a"]));
        assert_eq!(parsed("promises"), Ok(Task::Promises { cases: 10_000 }));
        assert_eq!(parsed("promises --cases 7"), Ok(Task::Promises { cases: 7 }));
        assert_eq!(parsed("testbed hosts up"), Ok(Task::HostsUp { count: 3 }));
        assert_eq!(parsed("testbed hosts up 5"), Ok(Task::HostsUp { count: 5 }));
        assert_eq!(parsed("testbed hosts down"), Ok(Task::HostsDown { only: None }));
        let up = |cluster| Ok(Task::KubernetesUp { cluster });
        assert_eq!(parsed("testbed kubernetes up"), up(false));
        assert_eq!(parsed("testbed kubernetes up --cluster"), up(true));
        assert_eq!(parsed("testbed kubernetes down"), Ok(Task::KubernetesDown));
        assert_eq!(parsed("testbed hosts down 2"), Ok(Task::HostsDown { only: Some(2) }));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "demo --scale",
            "bench --slow",
            "bench speed",
            "image --fast",
            "images now",
            "lint --fix",
            "test --release",
            "promises --cases 0",
            "promises --cases",
            "testbed",
            "testbed hosts",
            "testbed hosts up 0",
            "testbed hosts up 41",
            "testbed hosts down all",
            "testbed kubernetes",
            "testbed kubernetes up 2",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn every_task_is_in_the_usage() {
        for word in [
            "demo",
            "image",
            "images",
            "crd",
            "lint",
            "test",
            "promises",
            "testbed hosts up",
            "testbed hosts down",
            "testbed kubernetes up",
            "testbed kubernetes down",
        ] {
            assert!(USAGE.contains(&format!("\n  {word} ")), "{word}");
        }
    }
}
