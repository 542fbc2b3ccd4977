//! What `kubectl apply -k manifests/` applies, strictly.

use std::collections::BTreeMap;

use evenkeel_tests::kube::ApiServer;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const INSTALLATIONS: [&str; 3] =
    ["manifests", "manifests/overlays/git", "manifests/overlays/namespaced"];

fn path(of: &str) -> String {
    format!("{}/../{of}", env!("CARGO_MANIFEST_DIR"))
}

/// What kustomize makes of a directory, as the API server would be told.
fn built(server: &ApiServer, of: &str) -> Vec<Value> {
    let text = server.run(&["kustomize", &path(of)]);
    server.items("--dry-run=client", &text)
}

/// Through the type and back: what the type does not know would be gone.
fn strictly<T: DeserializeOwned + Serialize>(document: &Value) {
    let typed: T = serde_json::from_value(document.clone()).unwrap();
    let back = serde_json::to_value(typed).unwrap();
    assert_eq!(alike(&back), alike(document));
}

/// With every number as one kind of number: limits of a schema are floating point in the type.
fn alike(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), alike(v))).collect(),
        Value::Array(items) => items.iter().map(alike).collect(),
        Value::Number(number) => number.as_f64().into(),
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

#[test]
fn every_document_is_strictly_of_its_kind() {
    let server = ApiServer::start();
    for of in INSTALLATIONS {
        let mut kinds = BTreeMap::new();
        for document in built(&server, of) {
            let kind = document["kind"].as_str().unwrap();
            match kind {
                "ClusterRole" => strictly::<ClusterRole>(&document),
                "ClusterRoleBinding" => strictly::<ClusterRoleBinding>(&document),
                "CustomResourceDefinition" => strictly::<CustomResourceDefinition>(&document),
                "Deployment" => strictly::<Deployment>(&document),
                "Namespace" => strictly::<Namespace>(&document),
                "NetworkPolicy" => strictly::<NetworkPolicy>(&document),
                "PodDisruptionBudget" => strictly::<PodDisruptionBudget>(&document),
                "Role" => strictly::<Role>(&document),
                "RoleBinding" => strictly::<RoleBinding>(&document),
                "Service" => strictly::<Service>(&document),
                "ServiceAccount" => strictly::<ServiceAccount>(&document),
                other => panic!("no type is known for {other}"),
            }
            *kinds.entry(kind.to_owned()).or_insert(0) += 1;
        }
        assert_eq!(kinds.get("CustomResourceDefinition"), Some(&3), "{of}: {kinds:?}");
        assert_eq!(kinds.get("Deployment"), Some(&1), "{of}: {kinds:?}");
        assert_eq!(kinds.contains_key("ClusterRole"), !of.ends_with("namespaced"), "{of}");
    }
}

#[test]
fn an_installation_is_applied_as_a_user_types_it() {
    for of in INSTALLATIONS {
        let server = ApiServer::start();
        if of.ends_with("namespaced") {
            server.run(&["create", "namespace", "shop"]);
        }
        server.run(&["apply", "--validate=strict", "-k", &path(of)]);
        // What kubectl says it did is not it: it calls every budget configured.
        let versions = "jsonpath={..metadata.resourceVersion}";
        let before = server.run(&["get", "-k", &path(of), "-o", versions]);
        server.run(&["apply", "--validate=strict", "-k", &path(of)]);
        let after = server.run(&["get", "-k", &path(of), "-o", versions]);
        assert_eq!(before, after, "{of}: applied again it changes something");
        assert_eq!(server.run(&["get", "fleets", "-o", "name"]), "");
    }
}

/// The pod may do nothing that a pod of the restricted standard may not, and what it is asked answers.
#[test]
fn the_pod_is_confined_and_probed() {
    let server = ApiServer::start();
    let built = built(&server, "manifests");
    let pod = &built.iter().find(|d| d["kind"] == "Deployment").unwrap()["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["spec"]["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(container["securityContext"]["capabilities"]["drop"], serde_json::json!(["ALL"]));
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    let image = format!("evenkeel/evenkeel:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(container["image"], image.as_str(), "manifests/base/kustomization.yaml names it");
}

/// Whoever has the monitoring's kind takes the component in; the others can still apply everything.
#[test]
fn monitoring_is_apart() {
    let text = std::fs::read_to_string(path("manifests/monitoring/servicemonitor.yaml")).unwrap();
    assert!(text.contains("kind: ServiceMonitor") && text.contains("port: http"));
    let server = ApiServer::start();
    assert!(!server.run(&["kustomize", &path("manifests")]).contains("ServiceMonitor"));
    // A copy, for an overlay must be beside what it is laid over.
    let copy = tempfile::tempdir().unwrap();
    for part in ["crds", "manifests"] {
        let to = copy.path().join(part);
        let copied = std::process::Command::new("cp").arg("-r").arg(path(part)).arg(to).status();
        assert!(copied.unwrap().success());
    }
    let overlay = copy.path().join("manifests/overlays/monitored");
    std::fs::create_dir(&overlay).unwrap();
    let lines = "resources: [../../base, ../../cluster]\ncomponents: [../../monitoring]\n";
    std::fs::write(overlay.join("kustomization.yaml"), lines).unwrap();
    let with = server.run(&["kustomize", &overlay.display().to_string()]);
    assert!(with.contains("kind: ServiceMonitor"));
}
