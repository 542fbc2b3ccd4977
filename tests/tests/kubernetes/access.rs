//! Least privilege, both ways: the manifests allow every request that the controller makes, and nothing that it never makes.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_tests::agent::{LONG, until};
use evenkeel_tests::kube::ApiServer;
use evenkeel_tests::kube::access::{Access, Grant};
use evenkeel_tests::kube::proxy::Proxy;
use evenkeel_tests::kube::rig::Rig;
use k8s_openapi::api::rbac::v1::{ClusterRole, Role};
use serde_json::{Value, json};

/// What an installation allows.
fn grants(server: &ApiServer, of: &str) -> Vec<Grant> {
    let path = format!("{}/../{of}", env!("CARGO_MANIFEST_DIR"));
    let documents = server.items("--dry-run=client", &server.run(&["kustomize", &path]));
    let mut grants = Vec::new();
    for document in documents {
        let namespace = document["metadata"]["namespace"].as_str().map(str::to_owned);
        let rules = match document["kind"].as_str() {
            Some("ClusterRole") => read::<ClusterRole>(document).rules,
            Some("Role") => read::<Role>(document).rules,
            _ => continue,
        };
        let rules = rules.into_iter().flatten();
        grants.extend(rules.map(|rule| Grant { namespace: namespace.clone(), rule }));
    }
    grants
}

fn read<T: serde::de::DeserializeOwned>(document: Value) -> T {
    serde_json::from_value(document).unwrap()
}

/// All that a controller does in its life: who it is, one object of each kind, a loss, a mistake, the end.
async fn life(rig: &mut Rig) -> Vec<Access> {
    rig.server.run(&["create", "namespace", "evenkeel"]);
    let proxy = Proxy::start(&rig.server).await;
    rig.bed.env.insert("KUBECONFIG".into(), proxy.kubeconfig().display().to_string());
    // Without an owner given it asks for the cluster's own id. There is nothing yet that it could do in that name.
    let state = rig.bed.dir().join("nameless").display().to_string();
    let mut nameless = rig.bed.agent_of(&["--kubernetes", "--state-dir", &state]);
    let asked = |access: &Access| access.resource == "namespaces" && access.verb == "get";
    until("it asks who it is", LONG, async || proxy.seen().iter().any(asked).then_some(())).await;
    nameless.kill();
    // As in its pod: the lease is in its own namespace.
    let _agent = rig.agent_named("state", &["--lease", "evenkeel/evenkeel"]);
    let args = ["create", "secret", "generic", "app", "-n", "shop", "--from-literal=token=one"];
    rig.server.run(&args);
    let fleet = json!({
        "apiVersion": "evenkeel.dev/v1alpha1",
        "kind": "Fleet",
        "metadata": {"name": rig.bed.name("fleet")},
        "spec": {"backend": {"docker": {"hosts": [
            {"name": "local", "endpoint": "unix:///var/run/docker.sock"},
        ]}}},
    });
    let edge = json!({
        "apiVersion": "evenkeel.dev/v1alpha1",
        "kind": "LoadBalancer",
        "metadata": {"name": rig.bed.name("edge")},
        "spec": {
            "fleet": rig.bed.name("fleet"),
            "replicas": 0,
            "provider": {"haproxy": {"image": "evenkeel/balancers:1"}},
            "listeners": [{"name": "http", "port": 80}],
        },
    });
    rig.apply(&fleet);
    rig.apply(&edge);
    let web = rig.bed.service("web", 1);
    let secret = "env: [{name: TOKEN, secret: {name: app, key: token}}]";
    rig.apply(&web.to_string().replace("env: []", secret));
    rig.ready(&web);
    // Ready once more: what was told before is counted.
    let counted = |access: &Access| access.resource == "events" && access.verb == "patch";
    until("it is ready again, and that is counted", 2 * LONG, async || {
        if proxy.seen().iter().any(counted) {
            return Some(());
        }
        let (_, id) = rig.bed.ids(&web).await.pop_first()?;
        rig.bed.kill(&id).await;
        rig.ready(&web);
        tokio::time::sleep(Duration::from_secs(3)).await;
        None
    })
    .await;
    // What only `check` finds, and so reaches the controller.
    let wrong = json!({"spec": {"fleet": "nowhere"}}).to_string();
    rig.on(&["patch", "--type=merge", "-p", &wrong], &web, &[]);
    rig.says(&web, "Stalled", "nowhere").await;
    rig.on(&["delete", "--timeout=90s"], &web, &[]);
    for object in [&edge, &fleet] {
        let kind = object["kind"].as_str().unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        rig.server.run(&["delete", "-n", "shop", kind, name, "--timeout=90s"]);
    }
    proxy.seen()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifests_allow_what_is_asked_and_nothing_else() {
    let mut rig = Rig::new().await;
    let seen = life(&mut rig).await;
    let grants = grants(&rig.server, "manifests");
    let refused: BTreeSet<String> = seen
        .iter()
        .filter(|access| !grants.iter().any(|grant| grant.allows(access)))
        .map(ToString::to_string)
        .collect();
    assert!(refused.is_empty(), "the manifests do not allow: {refused:#?}");
    let unused: Vec<String> = grants.iter().flat_map(|grant| grant.unused(&seen)).collect();
    assert!(unused.is_empty(), "nobody ever needs: {unused:#?}");
}

/// What a namespace's own role allows there is what the cluster role allows everywhere.
#[test]
fn a_namespace_allows_what_the_cluster_would() {
    let server = ApiServer::start();
    let rules = |of: &str| -> Vec<String> {
        let grants = grants(&server, of).into_iter();
        let mut rules: Vec<String> = grants
            .filter(|grant| grant.rule.resources != Some(vec!["namespaces".to_owned()]))
            .map(|grant| serde_json::to_string(&grant.rule).unwrap())
            .collect();
        rules.sort();
        rules
    };
    assert_eq!(rules("manifests/overlays/namespaced"), rules("manifests"));
    let reaches: BTreeSet<Option<String>> =
        grants(&server, "manifests/overlays/namespaced").into_iter().map(|g| g.namespace).collect();
    assert!(!reaches.contains(&None), "a role reaches beyond its namespace");
}
