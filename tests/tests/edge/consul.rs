//! Consul itself, from `evenkeel/consul:1`: what is published is what clients then see, through whatever happens to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evenkeel::bell::Doorbell;
use evenkeel::clock::Clock;
use evenkeel::edge::Discovery;
use evenkeel::edge::consul::{Consul, INSTANCE};
use evenkeel::model::{
    ConsulSpec, ConsulTls, Credential, FleetName, HostName, InstanceId, OwnerId, Probe, ProbeKind,
    Registration, Registrations, RegistryView, Seen, ServiceName, Slot, SpecHash, Target,
};
use evenkeel_tests::consul::{
    Consuls, PATIENCE, call, docker, free_port, get, led, passing, until,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use serde_json::{Value, json};

/// The driver of a test's fleet.
fn driver(bed: &Consuls, spec: ConsulSpec, hosts: BTreeMap<HostName, String>) -> Consul {
    let (owner, fleet) = (OwnerId::new(&bed.owner).unwrap(), FleetName::new("f").unwrap());
    Consul::new(owner, fleet, spec, hosts, Doorbell::new(), Clock::real())
}

fn spec(port: u16) -> ConsulSpec {
    ConsulSpec {
        address: format!("http://127.0.0.1:{port}"),
        agent_port: None,
        token: None,
        tls: None,
    }
}

/// Instance `n` of `web`, at a port where the agent itself answers, so that its check succeeds.
fn registration(host: &str, n: u32) -> Registration {
    Registration {
        instance: InstanceId(format!("{n:04x}{:060x}", 7).into()),
        service: ServiceName::new("web").unwrap(),
        host: HostName::new(host).unwrap(),
        slot: Slot(n),
        hash: SpecHash(1),
        address: "127.0.0.1:8500".parse().unwrap(),
        tags: vec!["v1".into(), "a".into()],
        meta: BTreeMap::from([("team".into(), "sea".into())]),
        check: Some(Probe {
            kind: ProbeKind::Http { path: "/v1/status/leader".into() },
            port: 8080,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            failure_threshold: 2,
            start_period: Duration::ZERO,
        }),
        target: Target::Ready,
    }
}

fn drained(r: &Registration) -> Registration {
    Registration { target: Target::Drain, ..r.clone() }
}

fn publish(consul: &Consul, all: &[Registration]) {
    let entries = all.iter().map(|r| (r.instance.clone(), r.clone())).collect();
    consul.publish(Arc::new(Registrations { entries, unknown_hosts: BTreeSet::new() }));
}

fn is_now(view: &RegistryView, entries: usize) -> bool {
    view.seen == Seen::Now && view.entries.len() == entries && view.problem.is_none()
}

async fn has(consul: &Consul, entries: usize) {
    let shown = async || is_now(&consul.view(), entries).then_some(());
    let waited = tokio::time::timeout(PATIENCE, until("", shown)).await;
    assert!(waited.is_ok(), "never {entries} entries: {:?}", consul.view());
}

fn ids(all: &[&Registration]) -> BTreeSet<String> {
    all.iter().map(|r| r.instance.0.to_string()).collect()
}

/// The number of the newest change of any service or check.
async fn index(port: u16) -> u64 {
    let checks = get(port, "/v1/health/state/any").await.unwrap();
    let newest = checks.as_array().unwrap().iter().map(|c| c["ModifyIndex"].as_u64().unwrap());
    newest.max().unwrap()
}

#[tokio::test]
async fn clients_see_what_is_published_and_others_keep_theirs() {
    let (bed, port) = (Consuls::new(), free_port());
    bed.single(port, &[]);
    led(port).await;
    let put = async |body| {
        let path = "/v1/agent/service/register";
        call(port, "PUT", path, "", Some(body)).await.unwrap();
    };
    put(json!({"ID": "redis", "Name": "redis", "Port": 6379})).await;
    // Another fleet of the same owner, in the same words.
    let meta = json!({"evenkeel-owner": bed.owner, "evenkeel-fleet": "g"});
    put(json!({"ID": format!("{}/g/web/h1/1/000000000000", bed.owner), "Name": "web", "Meta": meta}))
        .await;
    let foreign = async || {
        let services = get(port, "/v1/agent/services").await.unwrap();
        let ours = format!("{}/f/", bed.owner);
        let all = services.as_object().unwrap().clone();
        all.into_iter().filter(|(id, _)| !id.starts_with(&ours)).collect::<BTreeMap<_, _>>()
    };
    let before = foreign().await;
    assert_eq!(before.len(), 2);

    let consul = driver(&bed, spec(port), BTreeMap::new());
    let (a, b) = (registration("h1", 1), registration("h2", 2));
    publish(&consul, &[a.clone(), b.clone()]);
    has(&consul, 2).await;
    let seen = passing(port, "web").await.unwrap();
    assert!(seen.is_superset(&ids(&[&a, &b])), "registered as passing: {seen:?}");

    // The checks of Consul's own come round, and nothing changes.
    let rested = index(port).await;
    publish(&consul, &[a.clone(), b.clone()]);
    tokio::time::timeout(Duration::from_secs(4), consul_is_other(&consul, &consul.view()))
        .await
        .unwrap_err();
    assert_eq!(index(port).await, rested, "something changed at rest");

    publish(&consul, &[drained(&a), b.clone()]);
    until("one is in maintenance", async || {
        consul.view().entries[&a.instance].maintenance.then_some(())
    })
    .await;
    let seen = passing(port, "web").await.unwrap();
    assert!(seen.is_superset(&ids(&[&b])) && seen.is_disjoint(&ids(&[&a])), "{seen:?}");
    // A change of the entry leaves it in maintenance.
    let mut renamed = drained(&a);
    renamed.tags.push("leaving".into());
    publish(&consul, &[renamed.clone(), b.clone()]);
    until("the tag is there", async || {
        let found = get(port, "/v1/health/service/web?tag=leaving").await?;
        (found.as_array()?.len() == 1).then_some(())
    })
    .await;
    assert!(passing(port, "web").await.unwrap().is_disjoint(&ids(&[&a])));
    publish(&consul, &[a.clone(), b.clone()]);
    until("it is back", async || {
        passing(port, "web").await.filter(|seen| seen.is_superset(&ids(&[&a])))
    })
    .await;
    publish(&consul, std::slice::from_ref(&b));
    has(&consul, 1).await;
    publish(&consul, &[]);
    has(&consul, 0).await;
    let left = get(port, "/v1/catalog/service/web").await.unwrap();
    assert_eq!(left.as_array().unwrap().len(), 1, "only the other fleet's is left");
    assert_eq!(foreign().await, before);
}

/// Waits until the view is another.
async fn consul_is_other(consul: &Consul, before: &RegistryView) {
    until("another view", async || (*consul.view() != *before).then_some(())).await;
}

#[tokio::test]
async fn an_instance_that_does_not_answer_drops_out_by_itself() {
    let (bed, port) = (Consuls::new(), free_port());
    bed.single(port, &[]);
    led(port).await;
    let consul = driver(&bed, spec(port), BTreeMap::new());
    let (a, mut b) = (registration("h1", 1), registration("h1", 2));
    b.address = "127.0.0.1:1".parse().unwrap();
    publish(&consul, &[a.clone(), b.clone()]);
    has(&consul, 2).await;
    until("the other drops out", async || {
        passing(port, "web").await.filter(|seen| *seen == ids(&[&a]))
    })
    .await;
    assert!(is_now(&consul.view(), 2), "it is registered all the same");
}

#[tokio::test]
async fn what_was_lost_with_a_restart_is_there_again() {
    let (bed, port) = (Consuls::new(), free_port());
    bed.single(port, &[]);
    led(port).await;
    let consul = driver(&bed, spec(port), BTreeMap::new());
    let all = [registration("h1", 1), registration("h1", 2), drained(&registration("h2", 3))];
    publish(&consul, &all);
    has(&consul, 3).await;
    bed.remove("n1");
    until("it is silent", async || matches!(consul.view().seen, Seen::Silent { .. }).then_some(()))
        .await;
    assert_eq!(consul.view().entries.len(), 3, "the last known are kept");
    bed.single(port, &[]);
    until("it is all back", async || {
        let view = consul.view();
        assert_eq!(view.entries.len(), 3, "claimed to have fewer: {view:?}");
        is_now(&view, 3).then_some(())
    })
    .await;
    assert_eq!(passing(port, "web").await.unwrap(), ids(&[&all[0], &all[1]]));
}

#[tokio::test]
async fn without_a_leader_the_last_known_stays() {
    let bed = Consuls::new();
    let network = bed.network();
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let join: Vec<String> =
        (1..=3).map(|n| format!("-retry-join={}", bed.name(&format!("s{n}")))).collect();
    let fast = r#"{"performance": {"raft_multiplier": 1}, "retry_interval": "1s"}"#;
    for (n, port) in (1..).zip(&ports) {
        let mut args = vec!["-server", "-bootstrap-expect=3", "-hcl", fast];
        args.extend(join.iter().map(String::as_str));
        bed.start(&format!("s{n}"), *port, &network, &args);
    }
    led(ports[0]).await;
    let consul = driver(&bed, spec(ports[0]), BTreeMap::new());
    let (a, b) = (registration("h1", 1), registration("h1", 2));
    publish(&consul, std::slice::from_ref(&a));
    has(&consul, 1).await;
    let voters = until("all are healthy", async || {
        let voters = consul.voters().await.ok()?;
        (voters.len() == 3 && voters.values().all(|healthy| *healthy)).then_some(voters)
    })
    .await;
    assert_eq!(voters.keys().collect::<Vec<_>>(), ["s1", "s2", "s3"]);

    bed.kill("s2");
    bed.kill("s3");
    until("it is silent", async || matches!(consul.view().seen, Seen::Silent { .. }).then_some(()))
        .await;
    assert!(consul.view().problem.is_some());
    publish(&consul, std::slice::from_ref(&b));
    // The agent was told, and what it says is not taken for what clients see.
    until("the agent has it", async || {
        let services = get(ports[0], "/v1/agent/services").await?;
        let of = |s: &Value| s["Meta"][INSTANCE].as_str().unwrap_or_default().to_owned();
        let now: BTreeSet<_> = services.as_object()?.values().map(of).collect();
        (now == ids(&[&b])).then_some(())
    })
    .await;
    let view = consul.view();
    assert!(matches!(view.seen, Seen::Silent { .. }), "{view:?}");
    assert_eq!(view.entries.keys().collect::<Vec<_>>(), [&a.instance]);
    for server in ["s2", "s3"] {
        docker(&["start", &bed.name(server)]);
    }
    until("it is as published", async || {
        let view = consul.view();
        (is_now(&view, 1) && view.entries.contains_key(&b.instance)).then_some(())
    })
    .await;
}

/// The least that a token must be allowed.
const RULES: &str = r#"service_prefix "" { policy = "write" } node_prefix "" { policy = "read" }"#;

#[tokio::test]
async fn a_token_is_enough_and_its_absence_is_said() {
    let (bed, port) = (Consuls::new(), free_port());
    let root = "11111111-2222-3333-4444-555555555555";
    let acl = json!({"acl": {"enabled": true, "default_policy": "deny",
        "tokens": {"master": root, "agent": root}}})
    .to_string();
    bed.single(port, &["-hcl", &acl]);
    let put = async |path, body| call(port, "PUT", path, root, Some(body)).await;
    until("policies can be made", async || {
        put("/v1/acl/policy", json!({"Name": "evenkeel", "Rules": RULES})).await
    })
    .await;
    let token = json!({"Policies": [{"Name": "evenkeel"}]});
    let token = put("/v1/acl/token", token).await.unwrap()["SecretID"].as_str().unwrap().to_owned();

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "not-a-token").unwrap();
    let kept = Some(Credential::File(file.to_str().unwrap().to_owned()));
    let consul = driver(&bed, ConsulSpec { token: kept, ..spec(port) }, BTreeMap::new());
    let a = registration("h1", 1);
    publish(&consul, std::slice::from_ref(&a));
    until("the refusal is said", async || consul.view().problem.clone()).await;
    assert!(!consul.view().problem.clone().unwrap().contains("not-a-token"));
    std::fs::write(&file, format!("{token}\n")).unwrap();
    has(&consul, 1).await;
    publish(&consul, &[drained(&a)]);
    until("it leaves", async || consul.view().entries[&a.instance].maintenance.then_some(())).await;
    publish(&consul, &[]);
    has(&consul, 0).await;
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(vec!["authority".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn over_tls_both_sides_say_who_they_are() {
    let (mut bed, port) = (Consuls::new(), free_port());
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (ours, theirs) = (authority(), authority());
    std::fs::write(path("ca.pem"), ours.pem()).unwrap();
    std::fs::write(path("other-ca.pem"), theirs.pem()).unwrap();
    let issue = |name: &str, by: &CertifiedIssuer<'static, KeyPair>, purpose| {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, by).unwrap().pem();
        std::fs::write(path(&format!("{name}.pem")), certificate).unwrap();
        std::fs::write(path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        (path(&format!("{name}.pem")), path(&format!("{name}.key")))
    };
    issue("server", &ours, ExtendedKeyUsagePurpose::ServerAuth);
    let good = issue("good", &ours, ExtendedKeyUsagePurpose::ClientAuth);
    let bad = issue("bad", &theirs, ExtendedKeyUsagePurpose::ClientAuth);
    bed.tls = Some(directory.path().to_str().unwrap().to_owned());
    let config = json!({"ports": {"https": 8500, "http": -1}, "verify_incoming": true,
        "ca_file": "/tls/ca.pem", "cert_file": "/tls/server.pem", "key_file": "/tls/server.key"});
    bed.single(port, &["-hcl", &config.to_string()]);

    let with = |ca: &str, identity: Option<&(String, String)>| {
        let file = |path: &String| Credential::File(path.clone());
        let identity = identity.map(|(cert, key)| (file(cert), file(key)));
        let tls = Box::new(ConsulTls { ca: Some(file(&path(ca))), identity });
        let address = format!("https://127.0.0.1:{port}/");
        let spec = ConsulSpec { address, agent_port: None, token: None, tls: Some(tls) };
        driver(&bed, spec, BTreeMap::new())
    };
    let consul = with("ca.pem", Some(&good));
    publish(&consul, &[registration("h1", 1)]);
    has(&consul, 1).await;
    for (ca, identity) in [("other-ca.pem", Some(&good)), ("ca.pem", Some(&bad)), ("ca.pem", None)]
    {
        let consul = with(ca, identity);
        let problem = until("it is said", async || consul.view().problem.clone()).await;
        assert!(problem.contains("ertificate"), "{problem}");
        assert!(matches!(consul.view().seen, Seen::Never { .. }));
    }
}

#[tokio::test]
async fn a_dead_hosts_entries_go_and_stay_gone_when_it_returns() {
    let bed = Consuls::new();
    let network = bed.network();
    let server = free_port();
    bed.start("s1", server, &network, &["-server", "-bootstrap-expect=1"]);
    led(server).await;
    let join = format!("-retry-join={}", bed.name("s1"));
    // Each host's agent on an address of its own; the port is the same.
    for node in ["c1", "c2"] {
        bed.start(node, free_port(), &network, &[join.as_str()]);
    }
    let address = |node: &str| {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        docker(&["inspect", "--format", format, &bed.name(node)])
    };
    let hosts = BTreeMap::from([
        (HostName::new("h1").unwrap(), address("c1")),
        (HostName::new("h2").unwrap(), address("c2")),
    ]);
    let spec = ConsulSpec { agent_port: Some(8500), ..spec(server) };
    let consul = driver(&bed, spec, hosts);
    let (a, b, c) = (registration("h1", 1), registration("h2", 2), registration("h1", 3));
    publish(&consul, &[a.clone(), b.clone()]);
    has(&consul, 2).await;
    let nodes = async || {
        let found = get(server, "/v1/catalog/service/web").await?;
        let of = |e: &Value| e["Node"].as_str().unwrap_or_default().to_owned();
        Some(found.as_array()?.iter().map(of).collect::<Vec<_>>())
    };
    assert_eq!(nodes().await.unwrap(), ["c1", "c2"], "each with its own agent");

    let before = address("c2");
    bed.kill("c2");
    // Nobody knows yet what became of what ran there.
    consul.publish(Arc::new(Registrations {
        entries: [&a, &b, &c].map(|r| (r.instance.clone(), r.clone())).into(),
        unknown_hosts: BTreeSet::from([b.host.clone()]),
    }));
    until("the others go on", async || {
        consul.view().entries.contains_key(&c.instance).then_some(())
    })
    .await;
    assert!(consul.view().entries.contains_key(&b.instance));
    // It was replaced.
    publish(&consul, &[a.clone(), c.clone()]);
    has(&consul, 2).await;
    assert_eq!(nodes().await.unwrap(), ["c1", "c1"]);
    // The agent comes back and remembers; it tells the servers, and is told.
    docker(&["start", &bed.name("c2")]);
    assert_eq!(address("c2"), before, "the test needs it where it was");
    until("the agent has forgotten", async || {
        let exec =
            ["exec", &bed.name("c2"), "wget", "-qO-", "http://127.0.0.1:8500/v1/agent/services"];
        let services: Value = serde_json::from_str(&docker(&exec)).ok()?;
        services.as_object()?.is_empty().then_some(())
    })
    .await;
    until("and so have the servers", async || nodes().await.filter(|nodes| *nodes == ["c1", "c1"]))
        .await;
    has(&consul, 2).await;
}
