//! The API server of the tests does to others what it is told to.

use std::fs;

use evenkeel_tests::kube::proxy::{Fault, Proxy};
use evenkeel_tests::kube::{ApiServer, kubectl};

const SERVICE: &str = "\
apiVersion: evenkeel.dev/v1alpha1
kind: ScalingService
metadata: {name: web}
spec: {image: 'web:1'}
";

#[test]
fn what_was_applied_outlives_a_kill() {
    let mut server = ApiServer::start();
    server.install();
    server.feed(&["apply", "-f", "-"], SERVICE);
    server.kill();
    let refused = server.kubectl(&["get", "ssvc", "web"]);
    assert!(!refused.status.success(), "nobody should answer");
    server.restart();
    assert_eq!(
        server.run(&["get", "ssvc", "web", "-o", "name"]),
        "scalingservice.evenkeel.dev/web\n"
    );
}

#[test]
fn a_frozen_one_answers_once_it_is_thawed() {
    let server = ApiServer::start();
    server.freeze();
    let hangs = server.kubectl(&["get", "namespaces", "--request-timeout=1s"]);
    assert!(!hangs.status.success(), "a stopped process cannot answer");
    server.thaw();
    assert!(server.run(&["get", "namespaces", "-o", "name"]).contains("namespace/default\n"));
}

#[test]
fn a_token_that_was_taken_away_is_refused() {
    let server = ApiServer::start();
    server.run(&["get", "namespaces"]);
    fs::write(server.tokens(), "other-token,other,2\n").unwrap();
    let refused = server.kubectl(&["get", "namespaces"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("logged in") || said.contains("Unauthorized"), "{said}");
}

#[test]
fn namespaces_must_exist_and_kinds_are_read_strictly() {
    let server = ApiServer::start();
    let elsewhere = server.kubectl(&["--namespace=nowhere", "create", "configmap", "a"]);
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("\"nowhere\" not found"));
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicaz: 3}\n";
    let mistaken = server.fed(&["apply", "-f", "-"], text);
    let said = String::from_utf8_lossy(&mistaken.stderr);
    assert!(said.contains("unknown field \"spec.replicaz\""), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_writes_down_and_misbehaves() {
    let server = ApiServer::start();
    let proxy = Proxy::start(&server).await;
    let get = |args: &'static [&'static str]| {
        let config = proxy.kubeconfig();
        tokio::task::spawn_blocking(move || kubectl(&config, args))
    };
    assert!(get(&["get", "--raw", "/api/v1/namespaces/default"]).await.unwrap().status.success());
    let seen: Vec<String> = proxy.seen().iter().map(ToString::to_string).collect();
    assert_eq!(seen, ["get namespaces default"]);
    proxy.fault(|access| access.resource == "configmaps", Fault::Answer(403));
    let refused = get(&["get", "--raw", "/api/v1/configmaps"]).await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("the test says so"), "{said}");
    proxy.fault(|access| access.verb == "list", Fault::Hang);
    let hangs = get(&["get", "--raw", "/api/v1/secrets", "--request-timeout=1s"]).await.unwrap();
    assert!(!hangs.status.success());
    proxy.calm();
    assert!(get(&["get", "--raw", "/api/v1/secrets"]).await.unwrap().status.success());
}
