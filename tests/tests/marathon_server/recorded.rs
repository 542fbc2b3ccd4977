//! Against what real Marathons were sent, and what they answered. The data is somebody else's: it is read where it is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use evenkeel_tests::marathon::{Options, Release, Server};
use serde_json::{Value, json};

use super::client::{ask, done};

/// Where the recorded data is, if it is.
fn data() -> Option<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = tests.ancestors().map(|dir| dir.join("shared/reference/marathon-data"));
    let found = shared.into_iter().find(|dir| dir.is_dir());
    if found.is_none() {
        eprintln!(
            "NOT TESTED: our Marathon against recorded data; there is no ../shared/reference/marathon-data"
        );
    }
    found
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Everything as the last release would take it.
fn last() -> Options {
    let options =
        Options { network: Some("dcos".into()), role: "slave_public".into(), ..Options::default() };
    options.feature("external_volumes").feature("secrets")
}

#[tokio::test]
async fn the_bodies_of_real_tests_are_taken_and_stay_what_they_are() {
    let Some(data) = data() else { return };
    let mut taken = 0;
    for release in [Release::V1_5, Release::V1_8, Release::V1_11] {
        let server = Server::start(Options { release, ..last() }).await;
        for entry in fs::read_dir(data.join("marathon-system-apps")).unwrap() {
            let path = entry.unwrap().path();
            let body = read(&path);
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // IPv6 came with 1.6.
            if name.contains("ipv6") && !release.has(6) {
                continue;
            }
            let group = body.get("groups").is_some();
            let to = if group { "/v2/groups" } else { "/v2/apps" };
            let reply = ask(&server.url(), "POST", to, &body).await;
            assert_eq!(reply.code, 201, "{release} {name}: {}", reply.text);
            taken += 1;
            if group {
                continue;
            }
            // What it shows it takes back, and nothing changes.
            let id = format!("/{}", body["id"].as_str().unwrap().trim_start_matches('/'));
            let shown = server.app(&id).unwrap();
            let back = without(&shown, &["version", "versionInfo"]);
            let again = format!("/v2/apps{id}?partialUpdate=false&force=true");
            let reply = ask(&server.url(), "PUT", &again, &back).await;
            assert_eq!(reply.code, 200, "{release} {name}: {}", reply.text);
            let after = server.app(&id).unwrap();
            let said = [
                "tasks",
                "tasksStaged",
                "tasksRunning",
                "tasksHealthy",
                "tasksUnhealthy",
                "deployments",
                "lastTaskFailure",
            ];
            assert_eq!(without(&after, &said), without(&shown, &said), "{release} {name}");
            // Two of them have the same id.
            let path = format!("/v2/apps{id}");
            assert_eq!(ask(&server.url(), "DELETE", &path, &Value::Null).await.code, 200);
        }
    }
    assert!(taken >= 60, "{taken}");
}

#[tokio::test]
async fn the_bodies_of_the_balancer_are_taken_or_refused_as_they_were() {
    let Some(data) = data() else { return };
    let server = Server::start(last()).await;
    let post = async |body: &Value| ask(&server.url(), "POST", "/v2/apps", body).await;
    let lb = data.join("marathon-lb");
    // Those of DC/OS 1.9, which is Marathon 1.4, have old and new words for networks: there the new ones mean nothing, and
    // later both are refused. Ports of the host that an app with a network of its own has are dropped, whatever the
    // documentation says.
    let old = Server::start(Options { release: Release::V1_4, ..last() }).await;
    for (name, code) in
        [("docker_bridge", 422), ("docker_host", 422), ("docker_ippc", 422), ("ucr_host", 201)]
    {
        let body = read(&lb.join(format!("ci/backends_1.9/{name}.json")));
        let reply = post(&body).await;
        assert_eq!(reply.code, code, "{name}: {}", reply.text);
        let reply = ask(&old.url(), "POST", "/v2/apps", &body).await;
        assert_eq!(reply.code, 201, "1.4 {name}: {}", reply.text);
    }
    done(&server, "DELETE", "/v2/apps/nginx-ucr-host", &Value::Null).await;
    for entry in fs::read_dir(lb.join("ci/backends")).unwrap() {
        let path = entry.unwrap().path();
        let reply = post(&read(&path)).await;
        assert_eq!(reply.code, 201, "{}: {}", path.display(), reply.text);
    }
    // A role that is not the app's own is refused from 1.10 on, and was nothing special before.
    for (release, code) in [(Release::V1_11, 422), (Release::V1_9, 201)] {
        let server = Server::start(Options { release, ..last() }).await;
        let body = read(&lb.join("tests/1-nginx-marathon1.5.json"));
        let mut foreign = body.clone();
        foreign["acceptedResourceRoles"] = json!(["*", "somebody"]);
        let reply = ask(&server.url(), "POST", "/v2/apps", &foreign).await;
        assert_eq!(reply.code, code, "{release}: {}", reply.text);
        let reply = ask(&server.url(), "PUT", "/v2/apps/nginx?force=true", &body).await;
        assert!(reply.code < 300, "{release}: {}", reply.text);
    }
}

/// Every path of fields in a value; names that users chose are one.
fn paths(value: &Value, path: &str, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let free = [".labels", ".env", ".options"].iter().any(|end| path.ends_with(end));
                let path = format!("{path}.{}", if free { "*" } else { name });
                all.insert(path.clone());
                paths(value, &path, all);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, path, all)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn without(value: &Value, names: &[&str]) -> Value {
    let mut value = value.clone();
    for name in names {
        value.as_object_mut().unwrap().remove(*name);
    }
    value
}

#[tokio::test]
async fn an_app_of_1_5_has_exactly_the_fields_that_were_recorded() {
    let Some(data) = data() else { return };
    let recorded = read(&data.join("marathon-lb/tests/marathon15_apps.json"))["apps"][0].clone();
    let server = Server::start(Options::of(Release::new(1, 5, 0))).await;
    let said = [
        "version",
        "versionInfo",
        "tasks",
        "tasksStaged",
        "tasksRunning",
        "tasksHealthy",
        "tasksUnhealthy",
        "deployments",
    ];
    done(&server, "PUT", "/v2/apps/pywebserver", &without(&recorded, &said)).await;
    let list = ask(&server.url(), "GET", "/v2/apps?embed=apps.tasks", &Value::Null).await;
    let shown = list.json["apps"][0].clone();
    let of = |value: &Value| {
        let mut all = BTreeSet::new();
        paths(value, "", &mut all);
        all
    };
    assert_eq!(of(&shown), of(&recorded));
    // And the same values, where they do not depend on the day.
    assert_eq!(without(&shown, &said), without(&recorded, &said));
    let id = shown["tasks"][0]["id"].as_str().unwrap();
    assert!(id.starts_with("pywebserver.") && id.matches('-').count() == 4, "{id}");
}

#[tokio::test]
async fn a_real_group_is_taken_and_shown_with_the_fields_that_it_had() {
    let Some(data) = data() else { return };
    for name in ["155_100", "155_200"] {
        let dump = read(&data.join(format!("marathon-real-dumps/{name}.json")));
        let server = Server::start(Options::of(Release::new(1, 5, 5))).await;
        done(&server, "PUT", "/v2/groups?force=true", &dump).await;
        let apps = |group: &Value| {
            let mut all = Vec::new();
            let mut groups = vec![group.clone()];
            while let Some(group) = groups.pop() {
                all.extend(group["apps"].as_array().cloned().unwrap_or_default());
                groups.extend(group["groups"].as_array().cloned().unwrap_or_default());
            }
            all
        };
        let id = dump["id"].as_str().unwrap();
        let shown = ask(&server.url(), "GET", &format!("/v2/groups{id}"), &Value::Null).await.json;
        let (was, is) = (apps(&dump), apps(&shown));
        assert_eq!(was.len(), is.len());
        for old in &was {
            let new = is.iter().find(|new| new["id"] == old["id"]).expect("it is there");
            let said = ["version", "versionInfo"];
            assert_eq!(without(new, &said), without(old, &said), "{}", old["id"]);
        }
        let names =
            |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let mut more = names(&shown);
        for name in names(&dump) {
            assert!(more.remove(&name), "{name}");
        }
        assert!(more.iter().all(|name| name == "version"), "{more:?}");
        // Once more, and nothing is deployed.
        let again = ask(&server.url(), "PUT", "/v2/groups", &dump).await;
        assert_eq!((again.code, server.deployments().len()), (200, 0), "{}", again.text);
    }
}

#[tokio::test]
async fn the_examples_of_the_schema_are_judged_as_the_reference_says() {
    let Some(data) = data() else { return };
    let server = Server::start(last()).await;
    let examples = data.join("marathon-raml/v2/examples");
    let stale = ask(&server.url(), "POST", "/v2/apps", &read(&examples.join("app.json"))).await;
    assert_eq!(stale.code, 422, "it has both a command and arguments: {}", stale.text);
    let created =
        ask(&server.url(), "PUT", "/v2/apps", &read(&examples.join("apps_create.json"))).await;
    assert_eq!(created.code, 200, "{}", created.text);
    assert_eq!(ask(&server.url(), "GET", "/v2/nothing", &json!(null)).await.code, 500);
}
