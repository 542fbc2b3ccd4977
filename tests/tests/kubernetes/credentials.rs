//! What a Fleet needs to be let in anywhere comes from Secrets of its namespace.

use std::path::Path;

use evenkeel_tests::agent::{LONG, Service, until};
use evenkeel_tests::consul::{Consuls, call, free_port, led};
use evenkeel_tests::kube::rig::Rig;
use evenkeel_tests::pki::{authority, engine_with_tls, issued};
use evenkeel_tests::registry::{PASSWORD, Registry};
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};

/// A Fleet called `depot`.
fn depot(docker: &Value, discovery: &Value) -> Value {
    let mut spec = json!({"backend": {"docker": docker}});
    if !discovery.is_null() {
        spec["discovery"] = discovery.clone();
    }
    json!({"apiVersion": "evenkeel.dev/v1alpha1", "kind": "Fleet", "metadata": {"name": "depot"},
        "spec": spec})
}

/// A probe would need a published port, or an image that listens.
pub(crate) fn without_probe(service: &Service) -> String {
    let text = service.to_string();
    text.lines().filter(|line| !line.contains("health:")).collect::<Vec<_>>().join("\n")
}

fn local() -> Value {
    json!([{"name": "h1", "endpoint": "unix:///var/run/docker.sock"}])
}

/// A Secret of the namespace, made or replaced.
fn secret(rig: &Rig, name: &str, values: &[(&str, &str)]) {
    let data: serde_json::Map<String, Value> =
        values.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": data});
    rig.apply(&secret);
}

async fn fleet_says(rig: &Rig, kind: &str, words: &str) -> String {
    until(&format!("the fleet says {kind}: {words}"), LONG, async || {
        let got = rig.server.run(&["get", "-n", "shop", "fleet/depot", "-o", "json"]);
        let fleet: Value = serde_json::from_str(&got).unwrap();
        let all = fleet["status"]["conditions"].as_array()?.clone();
        let found = all.into_iter().find(|c| c["type"] == kind)?;
        let text = found["message"].as_str()?.to_owned();
        text.contains(words).then_some(text)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_behind_tls() {
    let rig = Rig::new().await;
    let agent = rig.agent();
    let (ca, other) = (authority("good"), authority("other"));
    let engine = engine_with_tls(&ca, "127.0.0.1").await;
    let key = |key: &str| json!({"name": "engine", "key": key});
    let hosts = json!([{"name": "h1", "endpoint": format!("tcp://{}", engine.authority()),
        "tls": {"caSecret": key("ca.pem"), "certSecret": key("cert.pem"), "keySecret": key("key.pem")}}]);
    rig.apply(&depot(&json!({"hosts": hosts}), &Value::Null));
    let web = rig.bed.service("web", 1).more("fleet: depot");
    rig.apply(&without_probe(&web));
    let text = fleet_says(&rig, "Stalled", "no secret engine/ca.pem").await;
    assert!(text.contains("not found (404)"), "{text}");
    rig.says(&web, "Stalled", "the fleet depot cannot be used").await;
    let client = || issued(&ca, "client", ExtendedKeyUsagePurpose::ClientAuth);
    let trust = ca.pem();
    let (cert, private) = client();
    secret(&rig, "engine", &[("ca.pem", &trust), ("cert.pem", &cert), ("key.pem", &private)]);
    rig.ready(&web);
    let ids = rig.bed.ids(&web).await;
    // Another certificate of the same client disturbs nobody; what comes next is done with it.
    let (cert, second) = client();
    secret(&rig, "engine", &[("cert.pem", &cert), ("key.pem", &second)]);
    rig.scales(&web, 2).await;
    assert!(rig.bed.ids(&web).await.values().any(|id| ids.values().any(|old| old == id)));
    // One that the engine does not take is told without a word of it.
    let (cert, third) = issued(&other, "client", ExtendedKeyUsagePurpose::ClientAuth);
    secret(&rig, "engine", &[("cert.pem", &cert), ("key.pem", &third)]);
    engine.set(evenkeel_tests::proxy::Mode::Cut);
    fleet_says(&rig, "Ready", "silent").await;
    engine.set(evenkeel_tests::proxy::Mode::Pass);
    fleet_says(&rig, "Ready", "h1: ").await;
    let shown = format!("{}{}", agent.log(), agent.get("/api/v1/status").await.unwrap().1);
    for private in [&private, &second, &third] {
        let line = private.lines().nth(1).unwrap();
        assert!(!shown.contains(line), "a key is shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_consul() {
    let rig = Rig::new().await;
    let agent = rig.agent();
    let (consul, port) = (Consuls::new(), free_port());
    let root = "11111111-2222-3333-4444-555555555555";
    let acl = json!({"acl": {"enabled": true, "default_policy": "deny",
        "tokens": {"master": root, "agent": root}}})
    .to_string();
    consul.single(port, &["-hcl", &acl]);
    led(port).await;
    let at = json!({"consul": {"address": format!("http://127.0.0.1:{port}"),
        "tokenSecret": {"name": "consul", "key": "token"}}});
    secret(&rig, "consul", &[("token", root)]);
    rig.apply(&depot(&json!({"hosts": local()}), &at));
    let web = rig.bed.service("web", 1).more("fleet: depot").more("discovery: {tags: [v1]}");
    rig.apply(&web);
    rig.ready(&web);
    until("it is registered", LONG, async || {
        let path = format!("/v1/health/service/{}?passing=1", web.name);
        let found = call(port, "GET", &path, root, None).await?;
        (found.as_array()?.len() == 1).then_some(())
    })
    .await;
    let shown = format!("{}{}", agent.log(), agent.get("/api/v1/status").await.unwrap().1);
    assert!(!shown.contains(root), "the token is shown");
    rig.on(&["delete", "--timeout=90s"], &web, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_for_a_registry() {
    let rig = Rig::new().await;
    let _agent = rig.agent();
    let registry = Registry::serve(&rig.bed.owner).await;
    let image = format!("{}/box:1", registry.authority);
    let docker = json!({"hosts": local(),
        "registryAuthSecret": {"name": "pull", "key": ".dockerconfigjson"}});
    // As everybody makes them; the wrong password first.
    let make = |password: &str| {
        let server = format!("--docker-server={}", registry.authority);
        let password = format!("--docker-password={password}");
        rig.server.kubectl(&["delete", "secret", "pull", "-n", "shop"]);
        let args = ["create", "secret", "docker-registry", "pull", "-n", "shop"];
        let args = [&args[..], &["--docker-username=user", &server, &password]].concat();
        rig.server.run(&args);
    };
    make("wrong");
    rig.apply(&depot(&docker, &Value::Null));
    let web = rig.bed.service("web", 1).image(&image).more("fleet: depot");
    rig.apply(&without_probe(&web));
    until("it says why there is none", LONG, async || {
        let told = rig.on(&["describe"], &web, &[]);
        told.contains("cannot be pulled").then_some(())
    })
    .await;
    make(PASSWORD);
    rig.ready(&web);
    assert_eq!(rig.bed.ids(&web).await.len(), 1);
    rig.on(&["delete", "--timeout=90s"], &web, &[]);
    let none = None::<bollard::query_parameters::RemoveImageOptions>;
    let _ = rig.bed.docker.remove_image(&image, none, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_agents_machine_are_refused() {
    let rig = Rig::new().await;
    let _agent = rig.agent();
    // Otherwise this would send to anybody's server what only the agent may know.
    let secret = rig.bed.dir().join("own-token");
    std::fs::write(&secret, "of-the-agent").unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = json!({"consul": {"address": format!("http://{}", listener.local_addr().unwrap()),
        "tokenFile": Path::new(&secret).display().to_string()}});
    rig.apply(&depot(&json!({"hosts": local()}), &at));
    let text = fleet_says(&rig, "Stalled", "tokenFile").await;
    assert!(
        text.contains("no custom resource can ask for") && text.contains("tokenSecret"),
        "{text}"
    );
    let came = tokio::time::timeout(std::time::Duration::from_secs(3), listener.accept()).await;
    assert!(came.is_err(), "somebody was asked");
}
