//! A cluster that others filled is written down as documents, and planning them against it changes nothing.

use std::path::{Path, PathBuf};
use std::process::Output;

use evenkeel_tests::agent::binary;
use evenkeel_tests::marathon::{Auth, Options, Release, Server};
use serde_json::{Value, json};

use crate::drift::by_hand;
use crate::{SOON, cluster};

/// Runs the binary beside the server, which is on this thread, too.
async fn run(dir: &Path, args: &[&str]) -> (Output, String) {
    let mut command = tokio::process::Command::new(binary());
    let done = command.args(args).current_dir(dir).output().await.unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done, said)
}

/// What a plan for the documents says, and its exit code.
async fn plan(dir: &Path) -> (Option<i32>, Value) {
    let args = ["plan", "--dir", "shop", "--owner", "import", "--state-dir", "state", "-o", "json"];
    let (done, said) = run(dir, &args).await;
    let value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    (done.status.code(), value)
}

/// Apps as people write them for a release.
fn apps(release: Release) -> Vec<Value> {
    let check = json!([{"protocol": "HTTP", "path": "/up", "portIndex": 0, "gracePeriodSeconds": 5, "intervalSeconds": 1}]);
    let port = json!([{"containerPort": 8080, "hostPort": 0, "servicePort": 9104, "name": "http", "labels": {"VIP_0": "/web:80"}}]);
    let mut web = json!({
        "id": "/shop/web", "instances": 3, "cpus": 0.1, "mem": 32, "env": {"MODE": "0600", "FLAG": "on"},
        "labels": {"HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": "web"}, "constraints": [["environment", "CLUSTER", "test"]],
        "healthChecks": check, "backoffSeconds": 2, "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.2},
        "dependencies": ["/shop/db/main"],
    });
    let docker = json!({"image": "web:1", "parameters": [{"key": "env", "value": "A=b"}, {"key": "cap-drop", "value": "ALL"}]});
    web["container"] = json!({"type": "DOCKER", "docker": docker,
        "volumes": [{"containerPath": "/data", "hostPath": "/srv/data", "mode": "RW"}]});
    if release.has(5) {
        web["container"]["portMappings"] = port;
        web["networks"] = json!([{"mode": "container/bridge"}]);
    } else {
        web["container"]["docker"]["portMappings"] = port;
        web["container"]["docker"]["network"] = json!("BRIDGE");
    }
    vec![
        json!({"id": "/shop/db/main", "cmd": "exec db --port $PORT0", "instances": 1, "cpus": 0.1, "mem": 64, "killSelection": "OLDEST_FIRST",
            "container": {"type": "DOCKER", "docker": {"image": "db:1"}}, "taskKillGracePeriodSeconds": 30}),
        json!({"id": "/shop/ucr", "args": ["-v", "x y"], "instances": 2, "cpus": 0.333, "mem": 40.5,
            "container": {"type": "MESOS", "docker": {"image": "ucr:1"}}, "constraints": [["hostname", "UNIQUE"]]}),
        web,
    ]
}

async fn filled(release: Release) -> Server {
    let server = cluster(release).await;
    for app in apps(release) {
        let (code, said) = by_hand(&server, "POST", "/v2/apps", &app).await;
        assert_eq!(code, 201, "{app}: {said}");
        server.settled(SOON).await;
    }
    server
}

#[tokio::test]
async fn planning_what_was_imported_against_its_own_server_changes_nothing() {
    for release in [Release::V1_4, Release::V1_5, Release::V1_8, Release::V1_11] {
        let server = filled(release).await;
        let dir = tempfile::tempdir().unwrap();
        server.forget();
        let url = server.url();
        let (done, said) =
            run(dir.path(), &["import", "marathon", &url, "--group", "/shop", "--to", "shop/"])
                .await;
        assert_eq!(done.status.code(), Some(0), "{release:?}: {said}");
        assert!(said.ends_with("3 services were written, 0 left out\n"), "{release:?}: {said}");
        for told in [
            "/shop/web: backoffSeconds: kept for Marathon only",
            "/shop/db/main: networks: its agent's own network",
        ] {
            assert!(said.contains(told), "{release:?}: {told}: {said}");
        }
        let (checked, said) = run(dir.path(), &["check", "shop"]).await;
        assert_eq!(checked.status.code(), Some(0), "{release:?}: {said}");
        let (code, plans) = plan(dir.path()).await;
        assert_eq!(
            (code, &plans["plans"][0]["steps"]),
            (Some(0), &json!([])),
            "{release:?}: {plans:#}"
        );
        // An agent leaves everything as it is, too.
        let args = [
            "run",
            "--dir",
            "shop",
            "--owner",
            "import",
            "--state-dir",
            "state",
            "--listen",
            "off",
            "--once",
        ];
        let (ran, said) = run(dir.path(), &args).await;
        assert_eq!(ran.status.code(), Some(0), "{release:?}: {said}");
        let writes: Vec<String> = server.writes().iter().map(|w| format!("{w:?}")).collect();
        assert!(writes.is_empty(), "{release:?}: {writes:?}");
        // And the documents are in force: another number is a change, and no restart.
        let web = dir.path().join("shop/web.yaml");
        let text = std::fs::read_to_string(&web).unwrap();
        std::fs::write(&web, text.replace("replicas: 3", "replicas: 4")).unwrap();
        let (code, plans) = plan(dir.path()).await;
        let steps = plans["plans"][0]["steps"].as_array().unwrap();
        assert_eq!((code, steps.len()), (Some(2), 1), "{release:?}: {plans:#}");
        assert!(
            steps[0].to_string().contains("scale app /shop/web to 4"),
            "{release:?}: {plans:#}"
        );
    }
}

#[tokio::test]
async fn a_real_group_dump_is_written_down_and_planned_without_a_step() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path: PathBuf =
        root.join("../shared/reference/marathon-data/marathon-real-dumps/155_100.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("NOT TESTED: no recorded dump of Marathon at {}", path.display());
        return;
    };
    let dump: Value = serde_json::from_str(&text).unwrap();
    let server = cluster(Release::V1_5).await;
    let mut all = dump["apps"].as_array().unwrap().clone();
    for app in &mut all {
        app.as_object_mut().unwrap().remove("versionInfo");
    }
    for some in all.chunks(25) {
        let (code, said) = by_hand(&server, "PUT", "/v2/apps", &json!(some)).await;
        assert_eq!(code, 200, "{said}");
        server.settled(SOON).await;
    }
    assert_eq!(server.apps().len(), 100);
    let dir = tempfile::tempdir().unwrap();
    let (done, said) =
        run(dir.path(), &["import", "marathon", &server.url(), "--to", "shop/"]).await;
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(said.ends_with("100 services were written, 0 left out\n"), "{said}");
    let (code, plans) = plan(dir.path()).await;
    assert_eq!((code, &plans["plans"][0]["steps"]), (Some(0), &json!([])), "{plans:#}");
    assert_eq!(plans["problems"], json!([]), "{plans:#}");
}

#[tokio::test]
async fn credentials_are_read_from_files_and_are_in_no_document() {
    for (auth, flags, word) in [
        (
            Auth::Basic("ann".into(), "hunter2".into()),
            &["--username", "ann", "--password-file", "word"][..],
            "passwordFile",
        ),
        (Auth::Token("hunter2".into()), &["--token-file", "word"][..], "tokenFile"),
    ] {
        let server = Server::start(Options { auth, ..Options::default() }).await;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("word"), "hunter2\n").unwrap();
        let url = server.url();
        let (done, said) = run(dir.path(), &["import", "marathon", &url]).await;
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains("401"), "{said}");
        let all: Vec<&str> =
            ["import", "marathon", url.as_str()].iter().chain(flags).copied().collect();
        let (done, said) = run(dir.path(), &all).await;
        let text = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.status.code(), Some(0), "{said}");
        let file = dir.path().canonicalize().unwrap().join("word");
        assert!(text.contains(&format!("{word}: {}", file.display())), "{text}");
        assert!(!text.contains("hunter2") && !said.contains("hunter2"), "{text}{said}");
    }
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_or_has_no_such_group_is_said() {
    let server = Server::start(Options::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let (done, said) =
        run(dir.path(), &["import", "marathon", &server.url(), "--group", "/nowhere"]).await;
    assert_eq!((done.status.code(), done.stdout.len()), (Some(1), 0), "{said}");
    assert!(said.starts_with("error: read the group /nowhere of Marathon"), "{said}");
    let url = server.url();
    server.stop().await;
    let (done, said) = run(dir.path(), &["import", "marathon", &url]).await;
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("does not answer"), "{said}");
}
