//! A balancer as an object: its certificate is a Secret, and its status says how many routes are in force.

use evenkeel_tests::agent::{LONG, until};
use evenkeel_tests::balancer::BALANCERS;
use evenkeel_tests::kube::rig::Rig;
use evenkeel_tests::pki::{asked_by_tls, self_signed};
use evenkeel_tests::traffic::free_ports;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_from_a_secret_and_the_routes_in_force() {
    let rig = Rig::new().await;
    let agent = rig.agent();
    let (name, network, port) = (rig.bed.name("edge"), rig.bed.name("net"), free_ports(1));
    let edge = json!({
        "apiVersion": "evenkeel.dev/v1alpha1", "kind": "LoadBalancer", "metadata": {"name": name},
        "spec": {
            "provider": {"haproxy": {"image": BALANCERS}}, "networks": [network],
            "listeners": [{"name": "https", "port": 443, "publish": port,
                "certificates": [{"name": "shop-tls", "key": "all.pem"}]}],
        },
    });
    rig.apply(&edge);
    let object = format!("loadbalancer/{name}");
    let get = |pointer: &str| -> Option<Value> {
        let got = rig.server.kubectl(&["get", "-n", "shop", &object, "-o", "json"]);
        let value: Value = serde_json::from_slice(&got.stdout).ok()?;
        value.pointer(pointer).cloned()
    };
    until("it says that its certificate is missing", LONG, async || {
        get("/status/conditions")?.to_string().contains("no secret shop-tls/all.pem").then_some(())
    })
    .await;
    let make = |host: &str| {
        let (cert, key) = self_signed(host);
        let pem = format!("{cert}{key}");
        let secret = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "shop-tls"}, "stringData": {"all.pem": pem}});
        rig.apply(&secret);
        (cert, key)
    };
    let (first, key) = make("shop.test");
    let route = |host: &str| {
        format!(
            "{{loadBalancer: {name}, listener: https, host: {host}, pathPrefix: /, port: http}}"
        )
    };
    let web = rig.bed.service("web", 1).more(&format!("networks: [{network}]"));
    let web = web.more(&format!("routes: [{}, {}]", route("shop.test"), route("other.test")));
    rig.apply(&web);
    rig.ready(&web);
    rig.server.run(&["wait", "-n", "shop", "--for=condition=Ready", &object, "--timeout=90s"]);
    until("its status counts the routes", LONG, async || {
        (get("/status/routes")? == json!(2)).then_some(())
    })
    .await;
    let answers = async |trusted: &str| asked_by_tls("shop.test", port, trusted).await;
    until("it speaks TLS with the certificate", LONG, async || {
        (answers(&first).await? == 200).then_some(())
    })
    .await;
    // A renewed one is taken, and who had the first no longer finds it.
    let (second, _) = make("shop.test");
    until("it speaks TLS with the new one", LONG, async || {
        (answers(&second).await? == 200).then_some(())
    })
    .await;
    assert_eq!(answers(&first).await, None);
    let line = key.lines().nth(1).unwrap();
    assert!(!agent.log().contains(line), "the key is in the log");
    // One route less is one less in the status.
    let only = json!({"spec": {"routes": [{"loadBalancer": name, "listener": "https",
        "host": "shop.test", "pathPrefix": "/", "port": "http"}]}});
    rig.on(&["patch", "--type=merge", "-p", &only.to_string()], &web, &[]);
    until("its status counts one", LONG, async || {
        (get("/status/routes")? == json!(1)).then_some(())
    })
    .await;
    for (kind, name) in [("scalingservice", &web.name), ("loadbalancer", &name)] {
        rig.server.run(&["delete", "-n", "shop", kind, name, "--timeout=90s"]);
    }
}
