//! One app as a document: what it says in words of its own, and the fields that keep everything else as it is.
//!
//! What the document then renders to is the app as it runs, to the last field: planning against the server changes nothing.

use evenkeel_crds::ScalingServiceSpec;
use serde_json::{Map, Value, json};

use super::reach::Reach;
use super::{health, meaning, patch, place, policy, process};
use crate::import::document::blank;
use crate::import::{Notes, meaning as read};
use crate::model::app::compare::differences;
use crate::model::app::normal::normalise;
use crate::model::app::render::render;
use crate::model::{Definition, MarathonSpec, OWN_LABELS, OwnerId, Service};

/// Where servers take service ports from by themselves.
const ASSIGNED: std::ops::RangeInclusive<u64> = 10_000..=20_000;
/// What `maxLaunchDelaySeconds` is where nobody says it, in servers of two ages.
const DEFAULT_DELAYS: [u64; 2] = [300, 3600];
/// How often the rest is merged over what is there.
const ROUNDS: usize = 3;

/// Why an app is left out.
pub(super) struct Unfit {
    pub(super) why: String,
    pub(super) hint: Option<&'static str>,
}

impl Unfit {
    fn new(why: impl Into<String>, hint: &'static str) -> Self {
        Self { why: why.into(), hint: Some(hint) }
    }
}

/// Where documents of apps are to be read.
pub(super) struct Ground<'a> {
    pub(super) fleet: &'a str,
    pub(super) cluster: &'a MarathonSpec,
    pub(super) owner: &'a OwnerId,
}

/// The spec of an app's document.
pub(super) fn spec(
    id: &str,
    app: &Value,
    ground: &Ground<'_>,
    notes: &mut Notes,
) -> Result<ScalingServiceSpec, Unfit> {
    let live = normalise(app);
    let image = live.0.get("container").and_then(|c| c.get("docker")?.get("image")?.as_str());
    let Some(image) = image.filter(|image| !image.is_empty()) else {
        let hint = "build an image of what it runs";
        return Err(Unfit::new("it has no image, and runs what its agent has", hint));
    };
    let given = app.get("instances").filter(|n| !n.is_null());
    let given = given.map_or(Some(1.0), Value::as_f64);
    let replicas = given.and_then(|n| format!("{n:.0}").parse().ok());
    let Some(replicas) = replicas.filter(|n| *n <= 10_000) else {
        return Err(Unfit::new(
            "more than 10000 instances, or no number of them",
            "scale it to less",
        ));
    };
    let mut spec = blank(image);
    ground.fleet.clone_into(&mut spec.fleet);
    spec.replicas = replicas;
    spec.marathon.app = Some(id.to_owned());
    process::process(&live.0, &mut spec, notes);
    spec.placement = place::placement(live.0.get("constraints"), notes);
    // Who knows how many of them meet on one host: as many as there may be.
    let together = spec.placement.max_per_host.unwrap_or(replicas).min(replicas);
    let reach = Reach::of(&live.0, together, notes);
    spec.health = health::health(live.0.get("healthChecks"), &reach, notes);
    spec.networks = reach.networks;
    spec.ports = reach.ports;
    policy::policy(&live.0, &mut spec, notes);

    let service = meant(&spec, ground)?;
    let fields = fields(&service, &live, ground.cluster)?;
    meaning::tell(&fields, notes);
    meaning::tell_environment(spec.env.iter().map(|var| var.name.as_str()), notes);
    spec.marathon.fields = fields.into_iter().collect();
    // Read again with its fields: a document that is not taken is not written.
    let service = meant(&spec, ground)?;
    let found = differences(&render(&service, &service.spec, ground.cluster), &live);
    match found.first() {
        None => Ok(spec),
        Some(first) => {
            let why = format!("evenkeel cannot say it as it is: {}", first.change.field);
            Err(Unfit::new(
                why,
                "write its document by hand; evenkeel render shows what becomes of it",
            ))
        }
    }
}

fn meant(spec: &ScalingServiceSpec, ground: &Ground<'_>) -> Result<Service, Unfit> {
    let document = json!({
        "apiVersion": evenkeel_crds::API_VERSION, "kind": "ScalingService",
        "metadata": {"name": "app"}, "spec": spec,
    });
    read(&document, ground.owner).map_err(|why| Unfit { why, hint: None })
}

/// The smallest patch that makes what is rendered the app as it runs.
fn fields(
    service: &Service,
    live: &Definition,
    cluster: &MarathonSpec,
) -> Result<Map<String, Value>, Unfit> {
    let rendered = |fields: &Map<String, Value>| {
        let mut service = service.clone();
        service.app.fields.clone_from(fields);
        render(&service, &service.spec, cluster)
    };
    let plain = rendered(&Map::new());
    let target = target(live, &plain);
    let mut fields = patch::between(&plain.0, &target);
    if plain.0.contains_key("networks") && !target.contains_key("networks") {
        // The same as none, and easier to read.
        fields.insert("networks".to_owned(), json!([{"mode": "host"}]));
    }
    // Some fields change others when they are merged.
    for _ in 0..ROUNDS {
        let now = rendered(&fields);
        if now.0 == target {
            break;
        }
        patch::then(&mut fields, patch::between(&now.0, &target));
    }
    let now = rendered(&fields);
    if let Some(first) = differences(&now, live).first() {
        let why = format!("evenkeel cannot say it as it is: {}", first.change.field);
        return Err(Unfit::new(
            why,
            "write its document by hand; evenkeel render shows what becomes of it",
        ));
    }
    let mut fields = patch::minimise(fields, "networks", rendered);
    // All of it may be a default; an empty thing says nothing to who reads it.
    for check in fields.get_mut("healthChecks").and_then(Value::as_array_mut).into_iter().flatten()
    {
        if let Value::Object(check) = check {
            check.entry("protocol").or_insert_with(|| "HTTP".into());
        }
    }
    Ok(fields)
}

/// What is to be said: the app as it runs, but for what the server decided by itself and keeps to.
fn target(live: &Definition, plain: &Definition) -> Map<String, Value> {
    let mut target = live.0.clone();
    let by_number = target
        .get("labels")
        .and_then(Value::as_object)
        .is_some_and(|labels| labels.keys().any(|name| name.starts_with("HAPROXY_")));
    if let Some(Value::Object(labels)) = target.get_mut("labels") {
        labels.retain(|name, _| !name.starts_with(OWN_LABELS));
        if labels.is_empty() {
            target.remove("labels");
        }
    }
    let delay = target.get("maxLaunchDelaySeconds").and_then(Value::as_u64);
    if delay.is_some_and(|delay| DEFAULT_DELAYS.contains(&delay)) {
        target.remove("maxLaunchDelaySeconds");
    }
    if target.get("role").is_some_and(|role| role == "*") {
        target.remove("role");
    }
    let of = |app: &Map<String, Value>| {
        app.get("container").and_then(|c| c.get("portMappings")).cloned()
    };
    let ports = of(&plain.0);
    let listed = target.get_mut("container").and_then(|c| c.get_mut("portMappings"));
    if let Some(Value::Array(mappings)) = listed {
        forget(mappings, "servicePort", by_number);
        call(mappings, ports.as_ref());
    }
    let fixed = target.contains_key("requirePorts");
    if let Some(Value::Array(definitions)) = target.get_mut("portDefinitions") {
        forget(definitions, "port", by_number || fixed);
    }
    target
}

/// Leaves out numbers that the server chose. Whoever balances by number needs them, and nobody can tell who chose them.
fn forget(ports: &mut [Value], number: &str, keep: bool) {
    for port in ports.iter_mut().filter_map(Value::as_object_mut).filter(|_| !keep) {
        if port.get(number).and_then(Value::as_u64).is_some_and(|n| ASSIGNED.contains(&n)) {
            port.remove(number);
        }
    }
}

/// Calls a lone port without a name what it is called in the document: to Marathon that is the same.
fn call(ports: &mut [Value], plain: Option<&Value>) {
    if let ([Value::Object(port)], Some(Value::Array(plain))) = (ports, plain)
        && let [one] = &plain[..]
        && one.get("name").is_some_and(|name| name == "default")
        && !port.contains_key("name")
    {
        port.insert("name".to_owned(), "default".into());
    }
}
