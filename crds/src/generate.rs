//! The generated files: `crds/*.yaml` for `kubectl apply -f crds/`, `crds/schema/*.json` for editors.

use std::path::{Path, PathBuf};
use std::{fs, io};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{
    Fleet, FleetSpec, LoadBalancer, LoadBalancerSpec, ScalingService, ScalingServiceSpec, schema,
};

const META_SCHEMA: &str = "http://json-schema.org/draft-07/schema#";
const YAML_HEADER: &str = "# Generated from crds/src by `cargo xtask crd`. Do not edit.\n";
const COMMENT: &str = "Generated from crds/src by `cargo xtask crd`. Do not edit.";

/// The custom resource definitions, as evenkeel installs them. Prefer them to `Fleet::crd()`, where
/// the derive lets an absent percentage be null.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    [Fleet::crd(), LoadBalancer::crd(), ScalingService::crd()].map(without_null).into()
}

fn without_null(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let Some(validation) = &mut version.schema else { continue };
        let Ok(mut tree) = serde_json::to_value(&validation.open_api_v3_schema) else { continue };
        schema::each_schema(&mut tree, &mut |schema| {
            schema.remove("nullable");
        });
        if let Ok(tree) = serde_json::from_value(tree) {
            validation.open_api_v3_schema = tree;
        }
    }
    definition
}

/// The definitions as YAML files for `kubectl apply`: (file name, text).
pub fn crds() -> Vec<(String, String)> {
    definitions()
        .into_iter()
        .map(|definition| {
            let name = format!("{}.yaml", definition.spec.names.plural);
            (name, format!("{YAML_HEADER}{}", yaml(&definition)))
        })
        .collect()
}

fn yaml(definition: &CustomResourceDefinition) -> String {
    let mut value = json!(definition);
    whole_numbers(&mut value);
    // Of the failures of a serialiser, none is possible for JSON values in a String.
    serde_yaml::to_string(&value).unwrap_or_default()
}

/// `10000`, not `10000.0`: the definition's Rust type keeps limits as floats.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let text = number.to_string();
            if let Some(Ok(whole)) = text.strip_suffix(".0").map(str::parse::<i64>) {
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The JSON Schemas of whole documents: (file name, text). One for each kind, and
/// `evenkeel.schema.json` for a document of any kind.
pub fn json_schemas() -> Vec<(String, String)> {
    let kinds = [
        ("Fleet", schema::document::<FleetSpec>("Fleet", Fleet::DESCRIPTION)),
        (
            "LoadBalancer",
            schema::document::<LoadBalancerSpec>("LoadBalancer", LoadBalancer::DESCRIPTION),
        ),
        (
            "ScalingService",
            schema::document::<ScalingServiceSpec>("ScalingService", ScalingService::DESCRIPTION),
        ),
    ];
    let any = json!({
        "$schema": META_SCHEMA,
        "$comment": COMMENT,
        "title": "evenkeel",
        "oneOf": kinds
            .iter()
            .map(|(kind, _)| json!({"$ref": format!("#/definitions/{kind}")}))
            .collect::<Vec<_>>(),
        "definitions": kinds
            .iter()
            .map(|(kind, schema)| ((*kind).to_owned(), schema.clone()))
            .collect::<serde_json::Map<_, _>>(),
    });
    let mut files: Vec<_> = kinds
        .into_iter()
        .map(|(kind, mut schema)| {
            schema["$schema"] = META_SCHEMA.into();
            schema["$comment"] = COMMENT.into();
            schema["title"] = kind.into();
            (format!("{}.schema.json", kind.to_lowercase()), format!("{schema:#}\n"))
        })
        .collect();
    files.push(("evenkeel.schema.json".to_owned(), format!("{any:#}\n")));
    files
}

/// Every generated file: (path below the crate's directory, text).
fn files() -> impl Iterator<Item = (PathBuf, String)> {
    let schemas = json_schemas().into_iter();
    crds()
        .into_iter()
        .map(|(name, text)| (PathBuf::from(name), text))
        .chain(schemas.map(|(name, text)| (Path::new("schema").join(name), text)))
}

/// Writes the generated files below `dir`, the directory of this crate, and returns those that
/// were not up to date.
///
/// # Errors
/// A file could not be read or written; those before it were.
pub fn generate(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(dir.join("schema"))?;
    let mut written = Vec::new();
    for (path, text) in files() {
        let path = dir.join(path);
        if !is_current(&path, &text) {
            fs::write(&path, text)?;
            written.push(path);
        }
    }
    Ok(written)
}

/// The generated files below `dir` that are missing or not up to date; `cargo xtask crd` mends them.
pub fn stale(dir: &Path) -> Vec<PathBuf> {
    files()
        .map(|(path, text)| (dir.join(path), text))
        .filter(|(path, text)| !is_current(path, text))
        .map(|(path, _)| path)
        .collect()
}

fn is_current(path: &Path, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|current| current == text)
}
