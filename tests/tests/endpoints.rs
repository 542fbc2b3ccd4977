//! The ways to an engine other than its socket, and the way of an image to it.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel::backend::Backend;
use evenkeel::backend::docker::DockerConfig;
use evenkeel::error::{Remedy, causes};
use evenkeel::model::{Credential, Endpoint, HostName, InstanceSpec, Seen, State, Step, Tls};
use evenkeel_tests::conformance::{conformance, instances, start, until};
use evenkeel_tests::container::{contract, inside, reach};
use evenkeel_tests::docker::{Rig, h1, local};
use evenkeel_tests::pki::{Ca, authority, engine_with_tls, issued};
use evenkeel_tests::proxy::Proxy;
use evenkeel_tests::registry::{PASSWORD, Registry};
use rcgen::ExtendedKeyUsagePurpose;

/// Writes the three files of a client; returns where they are.
fn client_files(dir: &Path, name: &str, trusts: &Ca, signed_by: &Ca) -> Tls {
    let (cert, key) = issued(signed_by, name, ExtendedKeyUsagePurpose::ClientAuth);
    let put = |what: &str, text: String| {
        let path = dir.join(format!("{name}-{what}.pem"));
        fs::write(&path, text).unwrap();
        Credential::File(path.to_str().unwrap().to_owned())
    };
    Tls { ca: put("ca", trusts.pem()), cert: put("cert", cert), key: put("key", key) }
}

#[tokio::test]
async fn over_tls_the_right_certificates_work_and_wrong_ones_say_so() {
    let rig = Rig::new().await;
    let dir = tempfile::tempdir().unwrap();
    let (good, evil) = (authority("good"), authority("evil"));
    let engine = engine_with_tls(&good, "127.0.0.1").await;
    let elsewhere = engine_with_tls(&good, "elsewhere.example").await;
    let files = |name: &str, trusts, by| client_files(dir.path(), name, trusts, by);
    let to = |engine: &Proxy, tls| Endpoint::Tcp { authority: engine.authority(), tls: Some(tls) };
    let mut missing = files("missing", &good, &good);
    missing.key = Credential::File("/no/such/key.pem".into());
    let mut garbage = files("garbage", &good, &good);
    fs::write(garbage.cert.to_string(), "not a certificate").unwrap();
    garbage.key = garbage.cert.clone();
    let hosts = [
        ("h1", to(&engine, files("right", &good, &good)), ""),
        ("untrusted-server", to(&engine, files("a", &evil, &good)), "UnknownIssuer"),
        ("untrusted-client", to(&engine, files("b", &good, &evil)), "UnknownCA"),
        ("other-name", to(&elsewhere, files("c", &good, &good)), "not valid for name"),
        ("no-key", to(&engine, missing), "/no/such/key.pem"),
        ("no-cert", to(&engine, garbage), "no PEM certificate"),
    ];
    let watched: Vec<_> = hosts.iter().map(|(name, e, _)| (*name, e.clone())).collect();
    rig.watch(&watched, BTreeMap::new());
    until(&rig.backend, &h1(), "the right one answers", |v| v.seen == Seen::Now).await;
    for (name, _, needle) in hosts.iter().filter(|(.., needle)| !needle.is_empty()) {
        let host = HostName::new(name).unwrap();
        let poll = async {
            loop {
                match rig.backend.problems().get(&host) {
                    Some(said) => return said.clone(),
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let said = tokio::time::timeout(Duration::from_secs(10), poll).await.unwrap();
        println!("{name}: {said}");
        assert!(said.contains(needle), "{name}: {said}");
    }
    conformance(&rig.backend, &rig, &rig.name()).await;
    container(&rig).await;
}

/// The way to a container's inside is the same way.
async fn container(rig: &Rig) {
    let id = inside(rig, "in").await;
    contract(&*reach(rig, &id)).await;
}

/// A program that stands for ssh.
fn program(dir: &Path, name: &str, script: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn over_ssh_the_whole_contract_holds() {
    let dir = tempfile::tempdir().unwrap();
    // What the real one would do on the other side, after it has seen to its arguments.
    let script = r#"while [ "$1" != -- ]; do shift; done; shift 2; exec "$@""#;
    let ssh = Some(program(dir.path(), "ssh", script));
    let rig = Rig::with(DockerConfig { ssh, ..DockerConfig::default() }).await;
    rig.watch(&[("h1", Endpoint::Ssh { authority: "root@h1:22".into() })], BTreeMap::new());
    conformance(&rig.backend, &rig, &rig.name()).await;
    container(&rig).await;
}

#[tokio::test]
async fn what_ssh_says_is_what_a_person_reads() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo 'Permission denied (publickey).' >&2; exit 255";
    let ssh = Some(program(dir.path(), "ssh", script));
    let rig = Rig::with(DockerConfig { ssh, ..DockerConfig::default() }).await;
    rig.watch(&[("h1", Endpoint::Ssh { authority: "h1".into() })], BTreeMap::new());
    let poll = async {
        while !rig.backend.problems().values().any(|p| p.contains("Permission denied")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(10), poll).await;
    assert!(done.is_ok(), "{:?}", rig.backend.problems());
}

#[tokio::test]
async fn images_are_pulled_once_with_the_registrys_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let auth = Some(config.clone());
    let rig = Rig::with(DockerConfig { registry_auth: auth, ..DockerConfig::default() }).await;
    let registry = Registry::serve(rig.owner.as_str()).await;
    rig.watch(&[("h1", local())], BTreeMap::new());
    until(&rig.backend, &h1(), "the host answers", |v| v.seen == Seen::Now).await;
    let tagged = format!("{}/box:1", registry.authority);
    let step = |slot: u32, image: &str| {
        let spec = InstanceSpec { image: image.into(), ..InstanceSpec::default() };
        let name = format!("{}_{slot}", rig.name());
        Step::Start(start(&h1(), &rig.owner, &name, "web", slot, spec))
    };
    let refused = async |image: &str| {
        let e = rig.backend.apply(&step(1, image)).await.unwrap_err();
        let said = causes(&e);
        assert!(!said.contains(PASSWORD), "{said}");
        println!("{said}");
        (e.remedy, said)
    };
    // Without credentials, with wrong ones, with a broken file.
    let (remedy, said) = refused(&tagged).await;
    assert_eq!(remedy, Remedy::Hold, "{said}");
    assert!(said.contains(&tagged) && said.contains("no credentials"), "{said}");
    fs::write(&config, r#"{"auths": {"#).unwrap();
    let (remedy, said) = refused(&tagged).await;
    assert_eq!(remedy, Remedy::Hold);
    assert!(said.contains("config.json"), "{said}");

    let entry = serde_json::json!({"username": "user", "password": PASSWORD});
    let file = serde_json::json!({"auths": {registry.authority.clone(): entry}});
    fs::write(&config, file.to_string()).unwrap();
    let (remedy, said) = refused(&format!("{}/box:2", registry.authority)).await;
    assert_eq!(remedy, Remedy::Hold, "{said}");
    assert!(said.contains("manifest unknown"), "{said}");
    let (remedy, said) = refused("127.0.0.1:1/box:1").await;
    assert_eq!(remedy, Remedy::Retry, "{said}");
    assert!(said.contains("127.0.0.1:1"), "{said}");

    // Three starts at once share one pull.
    let steps = [step(1, &tagged), step(2, &tagged), step(3, &tagged)];
    let all = steps.iter().map(|s| rig.backend.apply(s));
    for result in futures::future::join_all(all).await {
        result.unwrap();
    }
    let seen = instances(&rig.backend, &h1(), "web");
    assert_eq!(seen.iter().filter(|i| i.state == State::Running).count(), 3);
    let asked = registry.pulls.load(Ordering::Relaxed);
    assert!(asked <= 2, "{asked} manifests for one pull (a HEAD and a GET)");

    // By digest.
    let digest = format!("{}/box@{}", registry.authority, registry.digest);
    rig.backend.apply(&step(4, &digest)).await.unwrap();
    drop_image(&rig, &[&tagged, &digest]).await;
}

async fn drop_image(rig: &Rig, names: &[&str]) {
    for i in instances(&rig.backend, &h1(), "web") {
        let grace = Duration::ZERO;
        let step = evenkeel_tests::conformance::stop(&h1(), &i, grace);
        rig.backend.apply(&step).await.unwrap();
    }
    for name in names {
        let none = None::<bollard::query_parameters::RemoveImageOptions>;
        let _ = rig.docker.remove_image(name, none, None).await;
    }
}
