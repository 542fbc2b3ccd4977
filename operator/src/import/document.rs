//! One document as text: fields in the order of the reference, what is a default left out.

use evenkeel_crds::{
    DEFAULT_FLEET, MarathonApp, OnHostLost, Placement, Resources, Rollout, ScalingServiceSpec,
    ServiceDiscovery, Termination,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Value};

use super::yaml;

/// A document that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its kind, as `ScalingService`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What it was made of, as that was called.
    pub subject: String,
    /// The document.
    pub text: String,
}

/// Fields in which nothing is a default: they hold what others wrote.
const OPAQUE: [&str; 5] = ["args", "command", "env", "fields", "meta"];

impl Document {
    /// A document of a spec.
    pub(super) fn new<T>(kind: &'static str, name: &str, subject: &str, spec: &T) -> Self
    where
        T: Serialize + DeserializeOwned + PartialEq,
    {
        let text = |text: &str| Value::from(text);
        let metadata = Mapping::from_iter([(text("name"), text(name))]);
        let document = Mapping::from_iter([
            (text("apiVersion"), text(evenkeel_crds::API_VERSION)),
            (text("kind"), text(kind)),
            (text("metadata"), metadata.into()),
            (text("spec"), without_defaults(spec)),
        ]);
        let text = yaml::write(&document);
        Self { kind, name: name.to_owned(), subject: subject.to_owned(), text }
    }

    /// The name of a file of its own.
    pub fn file(&self) -> String {
        match self.kind {
            "ScalingService" => format!("{}.yaml", self.name),
            kind => format!("{}-{}.yaml", kind.to_lowercase(), self.name),
        }
    }
}

/// A service of which nothing is known but its image.
pub(super) fn blank(image: &str) -> ScalingServiceSpec {
    // Without `..`: whoever adds a field says here what is made of it.
    ScalingServiceSpec {
        fleet: DEFAULT_FLEET.to_owned(),
        replicas: 1,
        placements: Vec::new(),
        image: image.to_owned(),
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        ports: Vec::new(),
        resources: Resources::default(),
        volumes: Vec::new(),
        networks: Vec::new(),
        placement: Placement::default(),
        health: None,
        discovery: ServiceDiscovery::default(),
        routes: Vec::new(),
        rollout: Rollout::default(),
        termination: Termination::default(),
        on_host_lost: OnHostLost::default(),
        marathon: MarathonApp::default(),
        suspend: false,
    }
}

/// A spec without whatever reads the same when it is not there.
fn without_defaults<T>(spec: &T) -> Value
where
    T: Serialize + DeserializeOwned + PartialEq,
{
    let mut whole = serde_yaml::to_value(spec).unwrap_or_default();
    let mut places = Vec::new();
    fields(&whole, &mut Vec::new(), &mut places);
    for place in places {
        let mut without = whole.clone();
        remove(&mut without, &place);
        if serde_yaml::from_value::<T>(without.clone()).is_ok_and(|read| read == *spec) {
            whole = without;
        }
    }
    whole
}

/// The places of all fields, what holds others before these.
fn fields(value: &Value, at: &mut Vec<Value>, out: &mut Vec<Vec<Value>>) {
    let mut visit = |key: Value, value: &Value, is_field: bool| {
        at.push(key.clone());
        if is_field {
            out.push(at.clone());
        }
        if !key.as_str().is_some_and(|name| OPAQUE.contains(&name)) {
            fields(value, at, out);
        }
        at.pop();
    };
    match value {
        Value::Mapping(map) => map.iter().for_each(|(key, value)| visit(key.clone(), value, true)),
        Value::Sequence(items) => {
            items.iter().enumerate().for_each(|(at, value)| visit(Value::from(at), value, false));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {}
    }
}

fn remove(value: &mut Value, place: &[Value]) {
    let Some((last, before)) = place.split_last() else { return };
    let mut here = value;
    for step in before {
        let next = match step.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(index) => here.get_mut(index),
            None => here.get_mut(step),
        };
        // It is in something that was left out.
        let Some(next) = next else { return };
        here = next;
    }
    if let Value::Mapping(map) = here {
        map.shift_remove(last);
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_crds::ScalingServiceSpec;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_a_default_is_left_out_and_the_order_is_that_of_the_reference() {
        let spec: ScalingServiceSpec = serde_json::from_value(json!({
            "rollout": {"maxSurge": "25%", "maxUnavailable": 1}, "image": "nginx:1.28", "replicas": 1, "fleet": "shop",
            "ports": [{"containerPort": 80, "name": "http", "protocol": "tcp"}],
            "health": {"http": {"port": "http", "path": "/"}, "interval": "10s", "timeout": "3s"},
            "env": [{"name": "MODE", "value": "0600"}], "suspend": false,
            "marathon": {"app": "/shop/web", "fields": {"backoffSeconds": 2, "env": {"A": null}}},
        }))
        .unwrap();
        let document = Document::new("ScalingService", "web", "/shop/web", &spec);
        assert_eq!(document.file(), "web.yaml");
        assert_eq!(
            document.text,
            "apiVersion: evenkeel.dev/v1alpha1\nkind: ScalingService\nmetadata: {name: web}\nspec:\n  fleet: shop\n  \
             image: nginx:1.28\n  env:\n    - {name: MODE, value: \"0600\"}\n  ports:\n    - {name: http, containerPort: \
             80}\n  health: {http: {port: http}, timeout: 3s}\n  rollout: {maxUnavailable: 1}\n  marathon:\n    app: \
             /shop/web\n    fields: {backoffSeconds: 2, env: {A: null}}\n"
        );
    }
}
