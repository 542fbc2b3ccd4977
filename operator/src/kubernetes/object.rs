//! One custom resource, as far as it concerns us.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use evenkeel_crds::{API_VERSION, DEFAULT_FLEET, GROUP, VERSION};
use kube::api::{ApiResource, DynamicObject};
use serde_json::{Map, Value, json};

use super::{DELETION, FINALIZER, PREFIX, RECONCILE, SUSPEND};

/// The kinds that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Where things run.
    Fleet,
    /// What leads clients to services.
    LoadBalancer,
    /// What runs.
    ScalingService,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fleet, Self::LoadBalancer, Self::ScalingService];

    /// As documents say it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fleet => "Fleet",
            Self::LoadBalancer => "LoadBalancer",
            Self::ScalingService => "ScalingService",
        }
    }

    /// As the API's paths say it.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Fleet => "fleets",
            Self::LoadBalancer => "loadbalancers",
            Self::ScalingService => "scalingservices",
        }
    }

    /// How the API server is asked for it.
    pub fn resource(self) -> ApiResource {
        ApiResource {
            group: GROUP.into(),
            version: VERSION.into(),
            api_version: API_VERSION.into(),
            kind: self.word().into(),
            plural: self.plural().into(),
        }
    }
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
}

impl Key {
    /// The file that the object is in a tree, below the root of all objects.
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.kind.word(), self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.word(), self.namespace, self.name)
    }
}

/// What is known of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Which one.
    pub key: Key,
    /// Told apart from an earlier one of the same name by this.
    pub uid: String,
    /// The version that was seen.
    pub version: String,
    /// Counts the changes of its spec.
    pub generation: i64,
    /// Somebody has deleted it, and finalizers hold it.
    pub deleting: bool,
    /// Who holds it.
    pub finalizers: Vec<String>,
    /// Annotations of ours.
    pub annotations: BTreeMap<String, String>,
    /// The fleets that the document names, or the default one; never none.
    pub fleets: Vec<Arc<str>>,
    /// The document: what it says and nothing of what others wrote beside it.
    pub document: Arc<[u8]>,
    /// Its status as it stands.
    pub status: Value,
}

impl Object {
    /// Takes apart what the API server sent. `None` where it has no name, which no server sends.
    pub fn read(kind: Kind, object: DynamicObject) -> Option<Self> {
        let DynamicObject { types: _, metadata, mut data } = object;
        let name: Arc<str> = metadata.name?.into();
        let namespace: Arc<str> = metadata.namespace.unwrap_or_default().into();
        let annotations: BTreeMap<String, String> = metadata
            .annotations
            .unwrap_or_default()
            .into_iter()
            .filter(|(key, _)| key.starts_with(PREFIX))
            .collect();
        let spec = data.get_mut("spec").map(Value::take).unwrap_or_default();
        let status = data.get_mut("status").map(Value::take).unwrap_or_default();
        let fleets = fleets(&spec);
        let document = document(kind, &name, &annotations, spec);
        Some(Self {
            key: Key { namespace, kind, name },
            uid: metadata.uid.unwrap_or_default(),
            version: metadata.resource_version.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.unwrap_or_default(),
            annotations,
            fleets,
            document,
            status,
        })
    }

    /// Whether our finalizer holds it.
    pub fn is_ours(&self) -> bool {
        self.finalizers.iter().any(|f| f == FINALIZER)
    }

    /// Whether a status of ours says that it was taken up before.
    pub fn was_taken_up(&self) -> bool {
        self.status.get("observedGeneration").is_some()
    }

    /// Whether it is being deleted and what runs is to stay.
    pub fn is_orphaned(&self) -> bool {
        self.deleting && self.annotations.get(DELETION).is_some_and(|v| v == "orphan")
    }

    /// What the annotation asks to be answered.
    pub fn asked(&self) -> Option<&str> {
        self.annotations.get(RECONCILE).map(String::as_str)
    }

    /// What is wrong with an annotation that the rules of documents do not know.
    pub fn misspelt(&self) -> Option<String> {
        let wrong = |key: &str, known: &[&str]| {
            let value = self.annotations.get(key)?;
            (!known.contains(&value.as_str())).then(|| {
                format!("the annotation {key} is {value:?}; it can be {}", known.join(" or "))
            })
        };
        wrong(DELETION, &["orphan"]).or_else(|| wrong(SUSPEND, &["true", "false"]))
    }
}

/// A service over several fleets has its own among those.
fn fleets(spec: &Value) -> Vec<Arc<str>> {
    let named = |at: &Value| at.get("fleet").and_then(Value::as_str).map(Arc::from);
    let placements = spec.get("placements").and_then(Value::as_array);
    let all: Vec<Arc<str>> = placements.into_iter().flatten().filter_map(named).collect();
    if all.is_empty() { vec![named(spec).unwrap_or_else(|| DEFAULT_FLEET.into())] } else { all }
}

/// The object as a document: JSON is YAML.
fn document(
    kind: Kind,
    name: &str,
    annotations: &BTreeMap<String, String>,
    mut spec: Value,
) -> Arc<[u8]> {
    if annotations.get(SUSPEND).is_some_and(|v| v == "true")
        && kind == Kind::ScalingService
        && let Some(spec) = spec.as_object_mut()
    {
        spec.insert("suspend".into(), true.into());
    }
    let mut metadata = Map::from_iter([("name".to_owned(), Value::from(name))]);
    // Those that mean something to the document, and those that mean nothing to anybody and are told.
    let theirs: Map<String, Value> = annotations
        .iter()
        .filter(|(key, _)| ![SUSPEND, RECONCILE, DELETION].contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
        .collect();
    if !theirs.is_empty() {
        metadata.insert("annotations".into(), theirs.into());
    }
    let whole = json!({
        "apiVersion": API_VERSION, "kind": kind.word(), "metadata": metadata, "spec": spec,
    });
    whole.to_string().into_bytes().into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn object(kind: Kind, whole: Value) -> Object {
        let mut dynamic: DynamicObject = serde_json::from_value(whole).unwrap();
        dynamic.metadata.namespace.get_or_insert_with(|| "shop".into());
        Object::read(kind, dynamic).unwrap()
    }

    #[test]
    fn a_document_holds_what_was_meant_and_nothing_of_others() {
        let o = object(
            Kind::ScalingService,
            json!({
                "apiVersion": API_VERSION, "kind": "ScalingService",
                "metadata": {
                    "name": "web", "uid": "u", "resourceVersion": "7", "generation": 3,
                    "labels": {"a": "b"}, "managedFields": [],
                    "annotations": {
                        "kubectl.kubernetes.io/last-applied-configuration": "{}",
                        "evenkeel.dev/suspend": "true", "evenkeel.dev/reconcile": "now",
                        "evenkeel.dev/colour": "red",
                    },
                },
                "spec": {"image": "a"}, "status": {"replicas": 1},
            }),
        );
        assert_eq!(
            String::from_utf8_lossy(&o.document),
            r#"{"apiVersion":"evenkeel.dev/v1alpha1","kind":"ScalingService","metadata":{"annotations":{"evenkeel.dev/colour":"red"},"name":"web"},"spec":{"image":"a","suspend":true}}"#
        );
        assert_eq!((o.generation, o.asked()), (3, Some("now")));
        assert_eq!(o.status, json!({"replicas": 1}));
    }

    #[test]
    fn a_spec_of_any_form_is_taken_as_it_is() {
        for spec in [json!(null), json!(7), json!("x"), json!([1]), json!({"unknown": {}})] {
            let whole = json!({"metadata": {"name": "web"}, "spec": spec});
            let o = object(Kind::Fleet, whole);
            let read: Value = serde_json::from_slice(&o.document).unwrap();
            assert_eq!(read["spec"], spec);
        }
    }

    #[test]
    fn a_service_names_all_of_its_fleets() {
        let of = |spec: Value| {
            let whole = json!({"metadata": {"name": "web"}, "spec": spec});
            object(Kind::ScalingService, whole).fleets.join(" ")
        };
        assert_eq!(of(json!({})), "default");
        assert_eq!(of(json!({"fleet": "shop", "placements": []})), "shop");
        let placements = json!([{"fleet": "old", "weight": 1}, {"fleet": "new", "weight": 1}]);
        assert_eq!(of(json!({"fleet": "default", "placements": placements})), "old new");
        assert_eq!(of(json!({"placements": [{"fleet": 7}], "fleet": "shop"})), "shop");
    }

    #[test]
    fn a_word_that_means_nothing_is_told() {
        let with = |key: &str, value: &str| {
            let annotations = Map::from_iter([(key.to_owned(), value.into())]);
            object(
                Kind::ScalingService,
                json!({"metadata": {"name": "web", "annotations": annotations}}),
            )
            .misspelt()
        };
        assert_eq!(with(DELETION, "orphan"), None);
        assert!(with(DELETION, "Orphan").unwrap().contains("it can be orphan"));
        assert!(with(SUSPEND, "yes").unwrap().contains("true or false"));
        assert_eq!(with(SUSPEND, "false"), None);
    }
}
