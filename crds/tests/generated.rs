//! The generated files: up to date, and such that an API server takes them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, which clippy does not count as tests"
)]

mod support;

use std::path::Path;

use evenkeel_crds::{
    Fleet, LoadBalancer, ScalingService, crds, definitions, generate, json_schemas, stale,
};
use kube::CustomResourceExt;
use serde_json::{Value, json};

#[test]
fn the_checked_in_files_are_up_to_date() {
    let stale = stale(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(stale.is_empty(), "run `cargo xtask crd`: not up to date are {stale:#?}");
}

#[test]
fn only_definitions_lie_where_kubectl_looks() {
    let names: Vec<_> = crds().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["fleets.yaml", "loadbalancers.yaml", "scalingservices.yaml"]);
    let mut found: Vec<_> = std::fs::read_dir(env!("CARGO_MANIFEST_DIR"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end)))
        .collect();
    found.sort();
    assert_eq!(found, names, "`kubectl apply -f crds/` would apply the others too");
}

#[test]
fn generating_twice_writes_once() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(stale(dir.path()).len(), 7);
    assert_eq!(generate(dir.path()).unwrap().len(), 7);
    assert_eq!(generate(dir.path()).unwrap(), Vec::<std::path::PathBuf>::new());
    assert!(stale(dir.path()).is_empty());
    let spoilt = dir.path().join("schema/fleet.schema.json");
    std::fs::write(&spoilt, "{}").unwrap();
    assert_eq!(stale(dir.path()), [spoilt]);
}

/// The rules of structural schemas, and of what this API promises besides.
fn assert_structural(schema: &Value, path: &str) {
    let known = [
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maximum",
        "minimum",
        "maxItems",
        "minItems",
        "maxLength",
        "minLength",
        "maxProperties",
        "pattern",
        "properties",
        "additionalProperties",
        "required",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-validations",
    ];
    let schema = schema.as_object().unwrap_or_else(|| panic!("{path} is no object"));
    for keyword in schema.keys() {
        let title = keyword == "title" && path.is_empty();
        // Fields of Marathon's own, which change with its versions.
        let open = keyword == "x-kubernetes-preserve-unknown-fields";
        if open {
            assert_eq!(path, "spec.marathon.fields");
        }
        assert!(title || open || known.contains(&keyword.as_str()), "{path} has {keyword}");
    }
    let kind = schema.get("type").map_or("int-or-string", |kind| kind.as_str().unwrap());
    match kind {
        "int-or-string" => {
            assert_eq!(schema.get("x-kubernetes-int-or-string"), Some(&json!(true)), "{path}");
        }
        "object" => {
            let open = "x-kubernetes-preserve-unknown-fields";
            let shapes =
                [schema.get("properties"), schema.get("additionalProperties"), schema.get(open)];
            assert_eq!(shapes.iter().flatten().count(), 1, "{path}: properties or a map");
            if let Some(values) = schema.get("additionalProperties") {
                assert!(schema.contains_key("maxProperties"), "{path} has no limit");
                assert_structural(values, &format!("{path}.*"));
            }
        }
        "array" => {
            let status = path.starts_with("status");
            assert!(schema.contains_key("maxItems") || status, "{path} has no limit");
            assert_structural(&schema["items"], &format!("{path}[]"));
        }
        "string" => {
            let limited = schema.contains_key("maxLength") || schema.contains_key("enum");
            assert!(limited || path.starts_with("status"), "{path} has no limit");
        }
        "integer" => {
            let limited = schema.contains_key("maximum") || schema.contains_key("enum");
            assert!(limited || path.starts_with("status"), "{path} has no limit");
        }
        "boolean" => {}
        other => panic!("{path} is a {other}"),
    }
    for (name, property) in
        schema.get("properties").and_then(Value::as_object).into_iter().flatten()
    {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let described = property.get("description").is_some_and(|text| text != "");
        assert!(described || path.starts_with("metadata"), "{path} has no description");
        assert_structural(property, &path);
    }
}

#[test]
fn the_definitions_are_structural_limited_and_described() {
    for definition in definitions() {
        let version = &definition.spec.versions[0];
        let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        assert_structural(&json!(schema), "");
    }
}

#[test]
fn the_derive_differs_only_by_null() {
    fn without_null(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("nullable");
                map.values_mut().for_each(without_null);
            }
            Value::Array(items) => items.iter_mut().for_each(without_null),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let derived = [Fleet::crd(), LoadBalancer::crd(), ScalingService::crd()];
    for (derived, definition) in derived.iter().zip(definitions()) {
        let (mut derived, definition) = (json!(derived), json!(definition));
        without_null(&mut derived);
        assert_eq!(derived, definition);
        assert!(
            !definition.to_string().contains("nullable"),
            "an absent field is absent, not null"
        );
    }
}

#[test]
fn the_definitions_say_what_kubectl_needs() {
    let [fleet, balancer, service] = definitions().try_into().unwrap();
    for (definition, short, scales) in
        [(&fleet, "fl", false), (&balancer, "lb", true), (&service, "ssvc", true)]
    {
        let names = &definition.spec.names;
        assert_eq!(names.short_names, Some(vec![short.to_owned()]));
        assert_eq!(names.categories, Some(vec!["evenkeel".to_owned()]));
        assert_eq!(definition.spec.scope, "Namespaced");
        let version = json!(definition.spec.versions[0]);
        assert_eq!(version["subresources"]["status"], json!({}));
        let scale = json!({
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        });
        let expected = if scales { scale } else { Value::Null };
        assert_eq!(version["subresources"]["scale"], expected, "{short}");
    }
    let columns = json!(service.spec.versions[0])["additionalPrinterColumns"].clone();
    let columns: Vec<_> = columns
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        columns,
        ["Fleet", "Desired", "Ready", "Available", "Image", "Status", "Message", "Age"]
    );
}

/// Every default of the schema is what serde fills in, and the other way round.
#[test]
fn schema_defaults_are_the_serde_defaults() {
    fn apply(schema: &Value, value: &mut Value) {
        for (name, rule) in schema["properties"].as_object().into_iter().flatten() {
            let object = value.as_object_mut().unwrap();
            if let Some(default) = rule.get("default") {
                object.entry(name).or_insert_with(|| default.clone());
            }
            if let Some(inner) = object.get_mut(name) {
                match inner {
                    Value::Object(_) => apply(rule, inner),
                    Value::Array(items) => {
                        items.iter_mut().filter(|item| item.is_object()).for_each(|item| {
                            apply(&rule["items"], item);
                        });
                    }
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
                }
            }
        }
    }
    for definition in definitions() {
        let schema = json!(definition.spec.versions[0].schema)["openAPIV3Schema"].clone();
        let kind = definition.spec.names.kind.as_str();
        let examples = support::EXAMPLES.map(|(name, _)| support::example(name));
        for mut document in examples.into_iter().filter(|document| document["kind"] == kind) {
            let by_serde = support::through_serde(&document).unwrap();
            apply(&schema["properties"]["spec"], &mut document["spec"]);
            assert_eq!(document["spec"], by_serde["spec"], "{kind}");
        }
    }
}

#[test]
fn every_object_of_the_json_schemas_refuses_unknown_fields() {
    fn check(schema: &Value, path: &str) {
        if schema["type"] == "object" {
            let closed = schema.get("additionalProperties").is_some();
            assert!(closed, "{path} accepts anything");
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            check(property, &format!("{path}.{name}"));
        }
        if let Some(items) = schema.get("items") {
            check(items, &format!("{path}[]"));
        }
    }
    let schemas = json_schemas();
    let names: Vec<_> = schemas.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "fleet.schema.json",
            "loadbalancer.schema.json",
            "scalingservice.schema.json",
            "evenkeel.schema.json"
        ]
    );
    for (name, text) in &schemas[..3] {
        check(&serde_json::from_str(text).unwrap(), name);
    }
}
