//! What the parser promises, by example and by chance.

mod bad;
mod bad_fields;
mod chance;
mod external;
mod good;
mod held;
mod marathon;
mod objects;
mod traffic;
mod traffic_held;

use std::collections::BTreeMap;

use super::*;
use crate::model::Secret;

/// A place for secrets that knows one.
struct OneSecret;

impl Secrets for OneSecret {
    fn get(&self, name: &str, key: &str) -> Result<Secret, String> {
        match (name, key) {
            ("app", "token") => Ok(Secret::new("hunter2")),
            _ => Err(format!("there is no file /secrets/{name}/{key}")),
        }
    }
}

fn owner() -> OwnerId {
    OwnerId::new("test").unwrap()
}

type Files = BTreeMap<String, Vec<u8>>;

fn shared(files: &Files) -> crate::source::Files {
    files.iter().map(|(path, bytes)| (path.clone(), bytes.as_slice().into())).collect()
}

fn files(given: &[(&str, &str)]) -> Files {
    given.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
}

fn parse_with(files: &Files, previous: &Applied) -> (Desired, Applied) {
    parse_skipping(files, &[], previous)
}

fn parse_skipping(
    files: &Files,
    skipped: &[(String, String)],
    previous: &Applied,
) -> (Desired, Applied) {
    let owner = owner();
    let ctx = Context {
        owner: &owner,
        secrets: &OneSecret,
        previous,
        limits: Limits::default(),
        default_endpoint: DEFAULT_ENDPOINT,
    };
    parse("r1", &shared(files), skipped, &ctx)
}

fn parse_files(given: &[(&str, &str)]) -> (Desired, Applied) {
    parse_with(&files(given), &Applied::default())
}

/// What `evenkeel check` would say about one file called `a.yaml`, without the count.
fn told(yaml: &str) -> String {
    let (desired, _) = parse_files(&[("a.yaml", yaml)]);
    let text = render_problems(&desired.problems, "");
    let (lines, _count) = text.trim_end().rsplit_once('\n').unwrap_or_default();
    lines.to_owned()
}

#[track_caller]
fn check(yaml: &str, expect: &str) {
    let expect: Vec<&str> = expect.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let told = told(yaml);
    let told: Vec<&str> = told.lines().map(str::trim).collect();
    assert_eq!(told, expect, "\n{yaml}\n");
}

/// A service of which only the spec matters, on line 4.
fn service(spec: &str) -> String {
    format!(
        "apiVersion: evenkeel.dev/v1alpha1\nkind: ScalingService\nmetadata: {{name: web}}\nspec: {spec}\n"
    )
}

/// A fleet of which only the hosts matter, on line 4.
fn fleet(name: &str, hosts: &str) -> String {
    format!(
        "apiVersion: evenkeel.dev/v1alpha1\nkind: Fleet\nmetadata: {{name: {name}}}\nspec: {{backend: {{docker: {{hosts: {hosts}}}}}}}\n"
    )
}
