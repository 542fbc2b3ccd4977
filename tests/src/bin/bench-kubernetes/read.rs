//! Ten thousand objects as one source, without an API server: reading all of them, and reading them again when one has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use evenkeel::kubernetes::cache::View;
use evenkeel::kubernetes::object::{Key, Kind, Object};
use evenkeel::kubernetes::tree::compose;
use evenkeel::model::OwnerId;
use evenkeel::source::load::context;
use evenkeel::source::parse::{Applied, Known, NoSecrets, parse_objects};
use evenkeel::source::{Limits, Tree};
use evenkeel_tests::measure::{quantile, row};
use serde_json::{Value, json};

use crate::cluster::{object, service};

const CHANGES: usize = 20;

fn watched(kind: Kind, name: &str, spec: &Value, generation: i64) -> Object {
    let mut seen = object(kind, name, spec);
    seen.metadata.generation = Some(generation);
    seen.metadata.finalizers = Some(vec!["evenkeel.dev/drain".into()]);
    Object::read(kind, seen).unwrap()
}

fn tree(view: &View) -> Tree {
    let limits = Limits { max_files: evenkeel::kubernetes::source::MOST, ..Limits::default() };
    compose(view, &limits).unwrap().0
}

pub(crate) fn measure(quick: bool) {
    let many = if quick { 2000 } else { 10_000 };
    let hosts = json!([{"name": "h1", "endpoint": "unix:///run/bench.sock"}]);
    let fleet = json!({"backend": {"docker": {"hosts": hosts}}});
    let mut objects: BTreeMap<Key, Arc<Object>> = BTreeMap::new();
    let put = |objects: &mut BTreeMap<Key, Arc<Object>>, object: Object| {
        objects.insert(object.key.clone(), Arc::new(object));
    };
    put(&mut objects, watched(Kind::Fleet, "bench", &fleet, 1));
    for n in 0..many {
        put(&mut objects, watched(Kind::ScalingService, &format!("s{n:05}"), &service(), 1));
    }
    let mut view = View { objects, ..View::default() };
    let owner = OwnerId::new("bench").unwrap();
    let (mut applied, mut known) = (Applied::default(), Known::default());
    let (mut composed, mut whole, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for (n, generation) in (0..CHANGES).zip(2..) {
        let mut spec = service();
        spec["replicas"] = json!(n);
        put(&mut view.objects, watched(Kind::ScalingService, "s00007", &spec, generation));
        let begun = Instant::now();
        let tree = tree(&view);
        composed.push(begun.elapsed().as_secs_f64() * 1e3);
        let ctx = context(&owner, &NoSecrets, &applied);
        let read = |known: &mut Known| {
            let begun = Instant::now();
            let read =
                parse_objects(&tree.revision, &tree.files, &[], tree.objects.as_ref(), &ctx, known);
            (begun.elapsed().as_secs_f64() * 1e3, read)
        };
        let (took, (desired, _)) = read(&mut Known::default());
        assert_eq!(desired.services.len(), many, "{:?}", desired.problems.first());
        whole.push(took);
        let (took, (_, next)) = read(&mut known);
        again.push(took);
        applied = next;
    }
    // The first has nothing to go on from.
    again.remove(0);
    let begun = Instant::now();
    let bytes = applied.to_json().len();
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let median = |samples: &[f64]| quantile(samples, 0.5);
    for (what, samples) in [
        ("objects as files, after a change of one", &composed),
        ("all of them read", &whole),
        ("read again after a change of one", &again),
    ] {
        row(&json!({"row": "read", "what": format!("{many} objects: {what}"), "unit": "ms",
            "value": median(samples), "samples": samples}));
    }
    row(&json!({"row": "read", "what": format!("{many} objects: what is in force, as text"),
        "unit": "ms", "value": took, "note": format!("{bytes} bytes")}));
}
