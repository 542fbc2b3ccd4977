//! The ways to an engine other than its socket, and the way of an image to it.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use evenkeel::backend::Backend;
use evenkeel::backend::docker::DockerConfig;
use evenkeel::error::{Remedy, causes};
use evenkeel::model::{Endpoint, HostName, InstanceSpec, Seen, State, Step, Tls};
use evenkeel_tests::conformance::{conformance, instances, start, until};
use evenkeel_tests::container::{contract, inside, reach};
use evenkeel_tests::docker::{Rig, busybox, h1, local};
use evenkeel_tests::proxy::Proxy;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Ca {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issued(ca: &Ca, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![purpose];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

/// Writes the three files of a client; returns where they are.
fn client_files(dir: &Path, name: &str, trusts: &Ca, signed_by: &Ca) -> Tls {
    let (cert, key) = issued(signed_by, name, ExtendedKeyUsagePurpose::ClientAuth);
    let put = |what: &str, text: String| {
        let path = dir.join(format!("{name}-{what}.pem"));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    Tls {
        ca_file: put("ca", trusts.pem()),
        cert_file: put("cert", cert),
        key_file: put("key", key),
    }
}

/// An engine that takes only clients of one authority.
async fn engine_with_tls(ca: &Ca, name: &str) -> Proxy {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let (cert, key) = issued(ca, name, ExtendedKeyUsagePurpose::ServerAuth);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    Proxy::listen(Some(Arc::new(config).into())).await
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
    missing.key_file = "/no/such/key.pem".into();
    let mut garbage = files("garbage", &good, &good);
    fs::write(&garbage.cert_file, "not a certificate").unwrap();
    garbage.key_file.clone_from(&garbage.cert_file);
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

/// A registry of one image, with a password whose base64 has characters that only one alphabet has.
struct Registry {
    authority: String,
    digest: String,
    pulls: Arc<AtomicU32>,
    _task: JoinSet<()>,
}

const PASSWORD: &str = "~~~???>>>~?>~?>";

fn sha(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut s, b| {
        write!(s, "{b:02x}").unwrap();
        s
    })
}

impl Registry {
    async fn serve(unique: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        busybox(root.path());
        fs::write(root.path().join("unique"), unique).unwrap();
        let tar = Command::new("tar").arg("-C").arg(root.path()).args(["-c", "."]).output();
        let layer = tar.unwrap().stdout;
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sleep", "1000"]},
            "rootfs": {"type": "layers", "diff_ids": [sha(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": kind,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": config.len(), "digest": sha(&config),
            },
            "layers": [{
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                "size": layer.len(), "digest": sha(&layer),
            }],
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = sha(&manifest);
        let blobs = Arc::new(BTreeMap::from([(sha(&layer), layer), (sha(&config), config)]));
        let pulls = Arc::new(AtomicU32::new(0));
        let (of, counted) = (digest.clone(), Arc::clone(&pulls));
        let app = axum::Router::new().fallback(move |request: Request<Body>| {
            let (blobs, manifest, of) = (Arc::clone(&blobs), manifest.clone(), of.clone());
            let counted = Arc::clone(&counted);
            async move {
                // user:PASSWORD
                let known = "Basic dXNlcjp+fn4/Pz8+Pj5+Pz5+Pz4=";
                let given =
                    request.headers().get("authorization").map(axum::http::HeaderValue::as_bytes);
                if given != Some(known.as_bytes()) {
                    let ask = [("www-authenticate", "Basic realm=\"t\"")];
                    return (StatusCode::UNAUTHORIZED, ask, "{}").into_response();
                }
                let path = request.uri().path().to_owned();
                if path == "/v2/" {
                    return "{}".into_response();
                }
                if let Some(what) = path.strip_prefix("/v2/box/manifests/") {
                    if what == "1" || what == of {
                        counted.fetch_add(1, Ordering::Relaxed);
                        let head = [("content-type", kind), ("docker-content-digest", &of)];
                        return (head, manifest).into_response();
                    }
                } else if let Some(blob) =
                    path.strip_prefix("/v2/box/blobs/").and_then(|d| blobs.get(d))
                {
                    return blob.clone().into_response();
                }
                let no = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
                let answer: Response = (StatusCode::NOT_FOUND, no).into_response();
                answer
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { authority, digest, pulls, _task: task }
    }
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
