//! What the API server refuses and what `evenkeel check` refuses, document by document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use evenkeel::model::{OwnerId, Secret};
use evenkeel::source::parse::{Applied, Context, DEFAULT_ENDPOINT, Limits, Secrets, parse};
use evenkeel_crds::{FleetSpec, LoadBalancerSpec, ScalingServiceSpec};
use evenkeel_tests::kube::ApiServer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cases::{BALANCERS, FLEETS, SERVICES, Verdict};

/// Stands for every secret: what is in one is not the API server's to judge.
struct Any;

impl Secrets for Any {
    fn get(&self, _: &str, _: &str) -> Result<Secret, String> {
        Ok(Secret::new("stand-in"))
    }

    fn are_stand_ins(&self) -> bool {
        true
    }
}

struct Case {
    name: String,
    text: String,
    verdict: Verdict,
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    let version = evenkeel_crds::API_VERSION;
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, table) in
        [("ScalingService", SERVICES), ("LoadBalancer", BALANCERS), ("Fleet", FLEETS)]
    {
        for (index, (spec, verdict)) in table.iter().enumerate() {
            let name = format!("{}-{index}", kind.to_lowercase());
            let text = document(kind, &name, spec);
            cases.push(Case { name, text, verdict: *verdict });
        }
    }
    let address = "virtualIp: {address: 10.0.0.9/24, interface: eth0, routerId: 5}";
    let vip =
        format!("{{provider: {{haproxy: {{}}}}, listeners: [{{name: a, port: 80}}], {address}}}");
    let consul = "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}]}}, \
                  discovery: {consul: {servers: 1}}}";
    for (kind, spec, length, verdict) in [
        ("LoadBalancer", vip.as_str(), 59, Verdict::Good),
        ("LoadBalancer", vip.as_str(), 60, Verdict::Bad),
        ("Fleet", consul, 50, Verdict::Good),
        ("Fleet", consul, 51, Verdict::Bad),
        ("ScalingService", "{image: a}", 63, Verdict::Good),
        ("ScalingService", "{image: a}", 64, Verdict::Bad),
    ] {
        let name = "n".repeat(length);
        cases.push(Case { text: document(kind, &name, spec), name, verdict });
    }
    cases
}

fn problems(text: &str) -> Vec<String> {
    let owner = OwnerId::new("test").unwrap();
    let ctx = Context {
        owner: &owner,
        secrets: &Any,
        previous: &Applied::default(),
        limits: Limits::default(),
        default_endpoint: DEFAULT_ENDPOINT,
    };
    let files = BTreeMap::from([("a.yaml".to_owned(), text.as_bytes().into())]);
    let (desired, _) = parse("r", &files, &[], &ctx);
    desired.problems.into_iter().map(|p| p.message).collect()
}

/// All of them in one file, which kubectl takes one by one.
fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.fold(String::new(), |mut all, text| {
        write!(all, "---\n{text}").unwrap();
        all
    })
}

#[test]
fn the_api_server_refuses_what_it_can_and_never_what_check_takes() {
    let cases = cases();
    let names: BTreeSet<&str> = cases.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "every case has a name of its own");
    let server = ApiServer::start();
    server.install();
    let all = joined(cases.iter().map(|c| c.text.as_str()));
    let said = server.fed(&["create", "--dry-run=server", "-o", "name", "-f", "-"], &all);
    let taken = String::from_utf8_lossy(&said.stdout);
    let taken: BTreeSet<&str> = taken.lines().filter_map(|l| Some(l.split_once('/')?.1)).collect();
    let refusals = String::from_utf8_lossy(&said.stderr);
    let mut wrong = String::new();
    for Case { name, text, verdict } in &cases {
        let (accepted, problems) = (taken.contains(name.as_str()), problems(text));
        let right = match verdict {
            Verdict::Good => accepted && problems.is_empty(),
            Verdict::Bad => !accepted && !problems.is_empty(),
            Verdict::Beyond(_) => accepted && !problems.is_empty(),
        };
        if !right {
            let why: Vec<&str> = refusals.lines().filter(|line| line.contains(name)).collect();
            writeln!(wrong, "{text}  is to be {verdict:?}\n  check: {problems:?}\n  server: taken {accepted} {why:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn typed<T: DeserializeOwned + Serialize>(spec: &Value) -> Value {
    let spec: T = serde_json::from_value(spec.clone()).unwrap();
    serde_json::to_value(spec).unwrap()
}

/// Which fields there are, whatever they hold.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), shape(v))).collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Value::Null,
    }
}

#[test]
fn the_api_server_fills_in_the_same_defaults() {
    let server = ApiServer::start();
    server.install();
    let cases = cases();
    let good = cases.iter().filter(|c| c.verdict == Verdict::Good);
    let good = joined(good.map(|c| c.text.as_str()));
    let items = |dry_run: &str| server.items(dry_run, &good);
    let (written, stored) = (items("--dry-run=client"), items("--dry-run=server"));
    assert!(written.len() > 40 && written.len() == stored.len(), "{}", written.len());
    for (written, held) in written.iter().zip(&stored) {
        assert_eq!(written["metadata"]["name"], held["metadata"]["name"]);
        let read = match written["kind"].as_str().unwrap() {
            "Fleet" => typed::<FleetSpec>,
            "LoadBalancer" => typed::<LoadBalancerSpec>,
            "ScalingService" => typed::<ScalingServiceSpec>,
            kind => panic!("kind {kind}"),
        };
        let meant = read(&written["spec"]);
        // Serde writes forms in their shortest way, so that values are compared as they are meant.
        assert_eq!(shape(&held["spec"]), shape(&meant), "{written}");
        assert_eq!(read(&held["spec"]), meant, "{written}");
    }
}

#[test]
fn the_examples_are_taken_whole() {
    let server = ApiServer::start();
    server.install();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    for directory in ["crds/tests/examples", "gitops-example"] {
        let path = format!("{root}/{directory}");
        let said = server.run(&["create", "--dry-run=server", "-o", "name", "-R", "-f", &path]);
        assert!(said.lines().count() > 3, "{directory}: {said}");
    }
}
