//! The account of the manifests, with the rights of the manifests and no others, and with tokens that a cluster gives and takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_tests::agent::{Agent, LONG, until};
use evenkeel_tests::kube::cluster::Cluster;
use evenkeel_tests::kube::rig::Rig;
use serde_json::Value;

/// A document of the manifests for another namespace: what was of `evenkeel` or `shop` is of it, and what is of no namespace
/// has its name.
pub(super) fn moved(mut document: Value, namespace: &str) -> Value {
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    if kind.starts_with("Cluster") {
        document["metadata"]["name"] = namespace.into();
        if let Some(name) = document.pointer_mut("/roleRef/name") {
            *name = namespace.into();
        }
    } else {
        document["metadata"]["namespace"] = namespace.into();
    }
    for subject in document["subjects"].as_array_mut().into_iter().flatten() {
        subject["namespace"] = namespace.into();
    }
    document
}

/// The account and its rights, as the overlay for one namespace gives them.
fn account(server: &Cluster) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/overlays/namespaced");
    let text = server.run(&["kustomize", &path.display().to_string()]);
    for document in server.items("--dry-run=client", &text) {
        let kind = document["kind"].as_str().unwrap();
        if ["ServiceAccount", "Role", "RoleBinding"].contains(&kind) {
            let text = moved(document, server.namespace()).to_string();
            server.feed(&["apply", "-f", "-"], &text);
        }
    }
}

/// A token of the account that ends with a Secret, in a file.
fn token(rig: &Rig<Cluster>, bound: &str) -> PathBuf {
    let namespace = rig.server.namespace();
    rig.server.run(&["create", "secret", "generic", bound, "-n", namespace]);
    let args = ["create", "token", "evenkeel", "-n", namespace, "--duration=1h"];
    let until_gone = ["--bound-object-kind=Secret", "--bound-object-name", bound];
    let token = rig.server.run(&[&args[..], &until_gone].concat());
    let path = rig.bed.dir().join("token");
    fs::write(&path, token.trim()).unwrap();
    path
}

/// A namespace where the account has a token, or the reason why there is none.
async fn rig(what: &str) -> Option<Rig<Cluster>> {
    let mut rig = Rig::on_cluster().await;
    if !rig.server.serves("authorization.k8s.io/v1") {
        Cluster::not_tested(what, "this API server has no access control and gives no tokens");
        return None;
    }
    account(&rig.server);
    let token = token(&rig, "first");
    let config = rig.server.config_with(&token);
    rig.bed.env.insert("KUBECONFIG".into(), config);
    Some(rig)
}

async fn ill(agent: &Agent, want: bool) {
    until(&format!("the source is ill: {want}"), Duration::from_secs(180), async || {
        (agent.status().await?.source?.error.is_some() == want).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_of_the_manifests_are_enough_and_no_more() {
    let what = "the rights of the manifests are enough where rights are enforced, and no more";
    let Some(rig) = rig(what).await else { return };
    let agent = rig.confined();
    let namespace = rig.server.namespace();
    let secret = ["create", "secret", "generic", "app", "-n", namespace];
    rig.server.run(&[&secret[..], &["--from-literal=token=one"]].concat());
    let web = rig.bed.service("web", 1);
    let named = "env: [{name: TOKEN, secret: {name: app, key: token}}]";
    rig.apply(&web.to_string().replace("env: []", named));
    rig.ready(&web);
    let told = rig.on(&["describe"], &web, &[]);
    assert!(told.contains("Events:") && told.contains("Ready"), "{told}");
    rig.on(&["delete", "--timeout=90s"], &web, &[]);
    rig.emptied(&web).await;
    let log = agent.log();
    assert!(!log.contains("(403)") && !log.contains("forbidden"), "{log}");
    let may = |verb: &str, of: &str, place: &[&str]| {
        let who = format!("--as=system:serviceaccount:{namespace}:evenkeel");
        let asked = rig.server.kubectl(&[&["auth", "can-i", verb, of, &who][..], place].concat());
        String::from_utf8_lossy(&asked.stdout).trim() == "yes"
    };
    let here = ["-n", namespace];
    assert!(may("patch", "scalingservices.evenkeel.dev", &here));
    for (verb, of) in [
        ("delete", "scalingservices.evenkeel.dev"),
        ("create", "scalingservices.evenkeel.dev"),
        ("list", "secrets"),
        ("create", "pods"),
        ("update", "roles.rbac.authorization.k8s.io"),
    ] {
        assert!(!may(verb, of, &here), "it may {verb} {of}");
    }
    for of in ["scalingservices.evenkeel.dev", "secrets"] {
        assert!(!may("get", of, &["-n", "kube-system"]), "it may read {of} elsewhere");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_taken_away_and_given_back() {
    let what = "rights that are taken away are missed with the command, and taken up again";
    let Some(rig) = rig(what).await else { return };
    let mut agent = rig.confined();
    let web = rig.runs("web", 1);
    let ids = rig.bed.ids(&web).await;
    let namespace = rig.server.namespace().to_owned();
    rig.server.run(&["delete", "rolebinding", "evenkeel", "-n", &namespace]);
    ill(&agent, true).await;
    let error = agent.status().await.unwrap().source.unwrap().error.unwrap();
    assert!(error.message.contains("(403)"), "{}", error.message);
    assert!(error.hint.unwrap().contains("kubectl apply -k manifests/"));
    assert_eq!(rig.bed.ids(&web).await, ids);
    account(&rig.server);
    ill(&agent, false).await;
    rig.scales(&web, 2).await;
    assert!(agent.runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ended_is_replaced_by_the_next_in_its_file() {
    let what = "a token that ended is replaced by the next in its file";
    let Some(rig) = rig(what).await else { return };
    let mut agent = rig.confined();
    let web = rig.runs("web", 1);
    let namespace = rig.server.namespace().to_owned();
    rig.server.run(&["delete", "secret", "first", "-n", &namespace]);
    ill(&agent, true).await;
    token(&rig, "second");
    ill(&agent, false).await;
    rig.scales(&web, 2).await;
    until("it says nothing more of it", LONG, async || agent.runs().then_some(())).await;
}
