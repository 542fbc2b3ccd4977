//! What is taken, what is refused, and with what words.

use evenkeel_tests::marathon::{Options, Release, Server};
use serde_json::{Value, json};

use super::client::{LONG, ask, done, send};

fn app(id: &str) -> Value {
    json!({"id": id, "cmd": "sleep 100", "cpus": 0.1, "mem": 32})
}

#[tokio::test]
async fn an_app_is_created_listed_changed_and_deleted() {
    let server = Server::start(Options::default()).await;
    let url = server.url();
    let made = done(&server, "POST", "/v2/apps", &app("/shop/web")).await;
    assert_eq!((made.code, made.header("location")), (201, "/shop/web"));
    let deployment = made.header("marathon-deployment-id");
    assert_eq!(made.json["deployments"], json!([{"id": deployment}]));
    assert_eq!(made.json["portDefinitions"][0]["port"], 0, "it was not assigned yet");
    assert_eq!(made.json.get("versionInfo"), None);
    assert_eq!(made.header("x-marathon-leader"), url);

    let shown = ask(&url, "GET", "/v2/apps/shop/web", &Value::Null).await.json["app"].clone();
    assert_eq!(shown["version"], made.json["version"]);
    assert_eq!(shown["versionInfo"]["lastConfigChangeAt"], made.json["version"]);
    assert_eq!(shown["portDefinitions"][0]["port"], 10_000);
    assert_eq!((&shown["tasksRunning"], &shown["deployments"]), (&json!(1), &json!([])));
    let task = &shown["tasks"][0];
    assert_eq!((&task["state"], &task["appId"]), (&json!("TASK_RUNNING"), &json!("/shop/web")));
    assert!(task["id"].as_str().unwrap().starts_with("shop_web.instance-"), "{task}");
    assert_eq!(task["ports"], json!([31_000]));

    // Scaling moves the version and restarts nobody.
    let scaled = done(&server, "PATCH", "/v2/apps/shop/web", &json!({"instances": 3})).await;
    let shown = server.app("/shop/web").unwrap();
    assert_eq!(shown["version"], scaled.json["version"]);
    assert_eq!(shown["versionInfo"]["lastScalingAt"], scaled.json["version"]);
    assert_eq!(shown["versionInfo"]["lastConfigChangeAt"], made.json["version"]);
    assert_eq!(shown["tasks"].as_array().unwrap().len(), 3);
    assert_eq!(shown["tasks"][0]["id"], task["id"]);

    // What changes nothing is no deployment, and no new version of the app.
    let same = ask(&url, "PUT", "/v2/apps/shop/web", &json!({"instances": 3, "mem": 32.0})).await;
    assert_eq!((same.code, server.deployments().len()), (200, 0));
    assert_eq!(server.app("/shop/web").unwrap()["version"], scaled.json["version"]);

    // A change of labels replaces all.
    let changed = done(&server, "PUT", "/v2/apps/shop/web", &json!({"labels": {"a": "b"}})).await;
    let shown = server.app("/shop/web").unwrap();
    assert_eq!(shown["versionInfo"]["lastConfigChangeAt"], changed.json["version"]);
    for new in shown["tasks"].as_array().unwrap() {
        assert_eq!(new["version"], changed.json["version"]);
    }
    assert_eq!(shown["mem"], 32.0, "a put is a merge by default");

    let list = ask(&url, "GET", "/v2/apps?label=a%3D%3Db&id=WEB", &Value::Null).await;
    assert_eq!(list.json["apps"].as_array().unwrap().len(), 1);
    assert_eq!(list.json["apps"][0].get("tasks"), None);
    let list = ask(&url, "GET", "/v2/apps?label=a!%3Db", &Value::Null).await;
    assert_eq!(list.json, json!({"apps": []}));

    let back = json!({"version": scaled.json["version"]});
    done(&server, "PUT", "/v2/apps/shop/web", &back).await;
    assert_eq!(server.app("/shop/web").unwrap()["labels"], json!({}));
    let versions = ask(&url, "GET", "/v2/apps/shop/web/versions", &Value::Null).await;
    assert_eq!(versions.json["versions"].as_array().unwrap().len(), 4);

    let gone = ask(&url, "DELETE", "/v2/apps/shop/web", &Value::Null).await;
    assert_eq!(gone.code, 200);
    let missing = ask(&url, "GET", "/v2/apps/shop/web", &Value::Null).await;
    assert_eq!(
        (missing.code, missing.json),
        (404, json!({"message": "App '/shop/web' does not exist"}))
    );
    server.settled(LONG).await;
    assert_eq!(server.tasks("/shop/web"), Vec::<Value>::new());
    let groups = ask(&url, "GET", "/v2/groups", &Value::Null).await;
    assert_eq!(groups.json["groups"][0]["id"], "/shop", "groups stay when their last app goes");
}

#[tokio::test]
async fn a_put_that_replaces_keeps_nothing_of_what_was() {
    let server = Server::start(Options::default()).await;
    let mut first = app("/a");
    first["env"] = json!({"X": "1"});
    first["instances"] = 2.into();
    done(&server, "PUT", "/v2/apps/a", &first).await;
    let port = server.app("/a").unwrap()["portDefinitions"][0]["port"].clone();
    let body = json!({"cmd": "sleep 200"});
    done(&server, "PUT", "/v2/apps/a?partialUpdate=false", &body).await;
    let shown = server.app("/a").unwrap();
    assert_eq!((shown.get("env"), &shown["instances"]), (None, &json!(1)));
    assert_eq!(shown["portDefinitions"][0]["port"], port, "a service port is kept");
}

#[tokio::test]
async fn limits_are_lost_by_any_change_in_part() {
    let server = Server::start(Options::default()).await;
    let mut limited = app("/a");
    limited["resourceLimits"] = json!({"mem": "unlimited"});
    let made = done(&server, "POST", "/v2/apps", &limited).await;
    assert_eq!(server.app("/a").unwrap()["resourceLimits"], json!({"mem": "unlimited"}));
    let patched = done(&server, "PATCH", "/v2/apps/a", &json!({"instances": 2})).await;
    let shown = server.app("/a").unwrap();
    assert_eq!(shown.get("resourceLimits"), None);
    assert_ne!(made.json["version"], patched.json["version"]);
    let restarted = &shown["versionInfo"]["lastConfigChangeAt"];
    assert_eq!(*restarted, patched.json["version"], "so a scale became a restart");
}

#[tokio::test]
async fn refusals_have_the_codes_and_bodies_of_the_reference() {
    let server = Server::start(Options { most_deployments: 2, ..Options::default() }).await;
    let url = server.url();
    let raw = async |method: &str, path: &str, kind: &str, body: &str| {
        send(&url, method, path, &[("content-type", kind)], body).await
    };
    let json_kind = "application/json";
    let syntax = raw("POST", "/v2/apps", json_kind, "{").await;
    assert_eq!((syntax.code, &syntax.json["message"]), (400, &json!("Invalid JSON")));
    assert!(syntax.json["details"].is_string());
    let empty = raw("POST", "/v2/apps", json_kind, " ").await;
    assert_eq!(empty.json["message"], "Please specify data in JSON format");
    assert_eq!(raw("POST", "/v2/apps", "text/plain", "{}").await.code, 415);
    let types = raw("POST", "/v2/apps", json_kind, r#"{"id": 1, "cmd": "xx"}"#).await;
    assert_eq!(
        (types.code, types.errors("/id")),
        (422, vec!["error.expected.jsstring".to_owned()])
    );

    for (body, path) in [
        (json!({"id": "/A", "cmd": "xx"}), "/id"),
        (json!({"id": "/", "cmd": "xx"}), "/id"),
        (json!({"id": "/a/tasks", "cmd": "xx"}), "/id"),
        (json!({"id": "/a"}), "/"),
        (json!({"id": "/a", "cmd": "x"}), "/"),
        (json!({"id": "/a", "cmd": "xx", "args": ["y"]}), "/"),
        (
            json!({"id": "/a", "cmd": "xx", "constraints": [["hostname", "UNIQUE", ""]]}),
            "/constraints(0)",
        ),
        (json!({"id": "/a", "cmd": "xx", "constraints": [["a", "LIKE"]]}), "/constraints(0)"),
        (json!({"id": "/a", "cmd": "xx", "constraints": [["a", "SOME"]]}), "/constraints(0)"),
        (json!({"id": "/a", "cmd": "xx", "secrets": {"s": {"source": "x"}}}), "/secrets"),
        (json!({"id": "/a", "cmd": "xx", "resourceLimits": {"cpus": 0.5}}), "/resourceLimits/cpus"),
        (json!({"id": "/a", "cmd": "xx", "role": "other"}), "/role"),
        (json!({"id": "/a", "cmd": "xx", "readinessChecks": [{}]}), "/readinessChecks(0)/portName"),
        (
            json!({"id": "/a", "cmd": "xx", "networks": [{"mode": "container/bridge"}], "portDefinitions": []
                , "container": {"docker": {"image": "i", "network": "BRIDGE"}}}),
            "/",
        ),
        (json!({"id": "/a", "cmd": "xx", "healthChecks": [{"portIndex": 1}]}), "/healthChecks(0)"),
        (
            json!({"id": "/a", "cmd": "xx", "unreachableStrategy":
                {"inactiveAfterSeconds": 2, "expungeAfterSeconds": 1}}),
            "/unreachableStrategy",
        ),
        (
            json!({"id": "/a", "cmd": "xx", "labels": {"MARATHON_SINGLE_INSTANCE_APP": "true"},
                "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 0}}),
            "/upgradeStrategy/minimumHealthCapacity",
        ),
    ] {
        let reply = ask(&url, "POST", "/v2/apps", &body).await;
        assert_eq!(
            (reply.code, &reply.json["message"]),
            (422, &json!("Object is not valid")),
            "{body}"
        );
        assert!(!reply.errors(path).is_empty(), "{path} of {body}: {}", reply.json);
    }
    assert_eq!(server.apps(), Vec::<String>::new(), "a refusal changes nothing");

    done(&server, "POST", "/v2/apps", &app("/a")).await;
    let exists = ask(&url, "POST", "/v2/apps", &app("/a")).await;
    assert_eq!(
        (exists.code, exists.json),
        (409, json!({"message": "An app with id [/a] already exists."}))
    );
    let clash = ask(&url, "POST", "/v2/apps", &app("/a/b")).await;
    assert_eq!(clash.code, 422, "an id is not both an app and a group");
    let missing = ask(&url, "PATCH", "/v2/apps/none", &json!({"instances": 1})).await;
    assert_eq!(missing.code, 404);
    let missing = ask(&url, "PATCH", "/v2/apps", &json!([{"id": "/a"}, {"id": "/none"}])).await;
    assert_eq!(missing.code, 404);
    let nameless = ask(&url, "PATCH", "/v2/apps", &json!([{"instances": 1}])).await;
    assert_eq!((nameless.code, nameless.json["details"].is_null()), (422, true));
    let both =
        ask(&url, "PUT", "/v2/apps/a", &json!({"version": "2020-01-01T00:00:00.000Z", "cpus": 1}))
            .await;
    assert_eq!(both.code, 422);
    let old = ask(&url, "PUT", "/v2/apps/a", &json!({"version": "2020-01-01T00:00:00.000Z"})).await;
    assert_eq!(old.code, 404);

    // A deployment that hangs locks its app, and counts.
    server.hold("/a");
    let first = ask(&url, "PUT", "/v2/apps/a", &json!({"instances": 2})).await;
    let id = first.json["deploymentId"].clone();
    let locked = ask(&url, "PUT", "/v2/apps/a", &json!({"instances": 3})).await;
    assert_eq!((locked.code, &locked.json["deployments"]), (409, &json!([{"id": id}])));
    let nothing = ask(&url, "PUT", "/v2/apps/a", &json!({"instances": 2})).await;
    assert_eq!(nothing.code, 200, "what changes nothing is never locked out");
    server.hold("/b");
    assert_eq!(ask(&url, "POST", "/v2/apps", &app("/b")).await.code, 201);
    let full = ask(&url, "POST", "/v2/apps", &app("/c")).await;
    assert_eq!(full.code, 403);
    assert!(
        full.json["message"].as_str().unwrap().starts_with("Max number (2) of running deployments")
    );
    let listed = ask(&url, "GET", "/v2/deployments", &Value::Null).await.json;
    assert_eq!(listed[0]["affectedApps"], json!(["/a"]));
    assert_eq!(
        listed[0]["steps"],
        json!([{"actions": [{"action": "ScaleApplication", "app": "/a"}]}])
    );
    assert_eq!((&listed[0]["currentStep"], &listed[0]["currentActions"]), (&json!(0), &json!([])));

    let cancelled = ask(
        &url,
        "DELETE",
        &format!("/v2/deployments/{}?force=true", id.as_str().unwrap()),
        &Value::Null,
    )
    .await;
    assert_eq!((cancelled.code, cancelled.text.as_str()), (202, ""));
    assert_eq!(server.app("/a").unwrap()["instances"], 2, "the definition stays");
    let again =
        ask(&url, "DELETE", &format!("/v2/deployments/{}", id.as_str().unwrap()), &Value::Null)
            .await;
    assert_eq!(again.code, 404);
    server.release("/b");
    server.settled(LONG).await;

    let lost = ask(&url, "GET", "/v2/nothing", &Value::Null).await;
    assert_eq!((lost.code, lost.json), (500, json!({"message": "URI not found"})));
    assert_eq!(ask(&url, "POST", "/v2/apps/a", &json!({})).await.code, 405);
    let bad = ask(&url, "POST", "/v2/tasks/delete?scale=true&wipe=true", &json!({"ids": []})).await;
    assert_eq!(bad.code, 400);
    let bad = ask(&url, "POST", "/v2/tasks/delete", &json!({"ids": ["nonsense"]})).await;
    assert_eq!(bad.code, 400);
}

#[tokio::test]
async fn a_delete_is_by_force_unless_it_says_otherwise() {
    let server = Server::start(Options::default()).await;
    done(&server, "POST", "/v2/apps", &app("/a")).await;
    server.hold("/a");
    ask(&server.url(), "PUT", "/v2/apps/a", &json!({"instances": 2})).await;
    let gentle = ask(&server.url(), "DELETE", "/v2/apps/a?force=false", &Value::Null).await;
    assert_eq!(gentle.code, 409);
    let rough = ask(&server.url(), "DELETE", "/v2/apps/a", &Value::Null).await;
    assert_eq!((rough.code, server.deployments().len()), (200, 1));
}

#[tokio::test]
async fn old_releases_speak_their_own_words() {
    let server = Server::start(Options::of(Release::V1_4)).await;
    let url = server.url();
    let body = json!({
        "id": "/web", "uris": ["file:///etc/docker.tar.gz"], "networks": [{"mode": "host"}],
        "container": {"type": "DOCKER", "docker": {
            "image": "i", "network": "BRIDGE", "portMappings": [{"containerPort": 80}],
        }},
    });
    done(&server, "POST", "/v2/apps", &body).await;
    let ignored = server.writes()[0].ignored.clone();
    assert_eq!(ignored, ["/networks"], "nobody knew of networks then");
    let shown = server.app("/web").unwrap();
    assert_eq!(
        (&shown["cmd"], &shown["args"], &shown["user"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let docker = &shown["container"]["docker"];
    assert_eq!(
        (&docker["network"], &docker["portMappings"][0]["servicePort"]),
        (&json!("BRIDGE"), &json!(10_000))
    );
    assert_eq!(
        (&shown["ports"], &shown["uris"]),
        (&json!([10_000]), &json!(["file:///etc/docker.tar.gz"]))
    );
    assert_eq!(shown["fetch"][0]["extract"], true);
    assert_eq!((shown.get("networks"), shown["container"].get("portMappings")), (None, None));
    let task = shown["tasks"][0]["id"].as_str().unwrap();
    assert!(task.starts_with("web.") && !task.contains("instance-"), "{task}");
    let types = ask(&url, "POST", "/v2/apps", &json!({"id": "/x", "cmd": 1})).await;
    assert_eq!(types.code, 400, "what is 422 from 1.5 on");
    // What it answers it takes back as it is, and nothing changes.
    let mut echo = shown.clone();
    for said in [
        "version",
        "versionInfo",
        "tasks",
        "tasksStaged",
        "tasksRunning",
        "tasksHealthy",
        "tasksUnhealthy",
        "deployments",
    ] {
        echo.as_object_mut().unwrap().remove(said);
    }
    let same = ask(&url, "PUT", "/v2/apps/web?partialUpdate=false", &echo).await;
    assert_eq!((same.code, server.deployments().len()), (200, 0), "{}", same.text);
    assert_eq!(server.app("/web").unwrap()["version"], shown["version"]);

    let server = Server::start(Options::of(Release::V1_8)).await;
    let mut new = body.clone();
    new.as_object_mut().unwrap().remove("networks");
    done(&server, "POST", "/v2/apps", &new).await;
    let shown = server.app("/web").unwrap();
    assert_eq!(shown["networks"], json!([{"mode": "container/bridge"}]));
    assert_eq!(shown["container"]["portMappings"][0]["hostPort"], 0);
    assert_eq!((shown.get("role"), shown.get("uris"), shown.get("ports")), (None, None, None));
    assert!(shown["tasks"][0]["id"].as_str().unwrap().ends_with("._app.1"));
}

#[tokio::test]
async fn groups_are_trees_whose_lists_are_complete() {
    let server = Server::start(Options::default()).await;
    let url = server.url();
    let body = json!({"id": "/shop", "apps": [app("web"), app("db")], "groups": [
        {"id": "back", "apps": [app("worker")], "dependencies": ["/shop/db"]},
    ]});
    let plan = ask(&url, "PUT", "/v2/groups?dryRun=true", &body).await.json;
    assert_eq!(plan["steps"].as_array().unwrap().len(), 3, "{plan}");
    assert_eq!(
        plan["steps"][2]["actions"],
        json!([{"action": "ScaleApplication", "app": "/shop/back/worker"}])
    );
    assert_eq!(server.apps(), Vec::<String>::new());
    let made = done(&server, "POST", "/v2/groups", &body).await;
    assert_eq!(made.code, 201);
    assert_eq!(server.apps(), ["/shop/back/worker", "/shop/db", "/shop/web"]);
    let again = ask(&url, "POST", "/v2/groups", &body).await;
    assert_eq!(again.code, 409);

    // A list says all there is; no list says nothing.
    done(&server, "PUT", "/v2/groups/shop", &json!({"apps": [app("/shop/web")]})).await;
    assert_eq!(server.apps(), ["/shop/back/worker", "/shop/web"]);
    let before = ask(&url, "GET", "/v2/groups/shop/versions", &Value::Null).await.json[0].clone();
    done(&server, "PUT", "/v2/groups/shop", &json!({"scaleBy": 3})).await;
    assert_eq!(server.tasks("/shop/web").len() + server.tasks("/shop/back/worker").len(), 6);
    done(&server, "PUT", "/v2/groups/shop", &json!({"version": before})).await;
    assert_eq!(server.tasks("/shop/web").len() + server.tasks("/shop/back/worker").len(), 2);

    let stranger = ask(&url, "PUT", "/v2/groups/shop", &json!({"apps": [app("/other")]})).await;
    assert_eq!(
        (stranger.code, stranger.errors("/apps(0)/id").len()),
        (422, 1),
        "{}",
        stranger.json
    );
    let circle = json!({"id": "/c", "apps": [
        {"id": "a", "cmd": "xx", "dependencies": ["b"]}, {"id": "b", "cmd": "xx", "dependencies": ["a"]},
    ]});
    assert_eq!(ask(&url, "PUT", "/v2/groups", &circle).await.code, 422);
    let only =
        ask(&url, "GET", "/v2/groups/shop?embed=group.apps&embed=group.apps.tasks", &Value::Null)
            .await;
    assert_eq!(only.json.get("groups"), None);
    assert_eq!(only.json["apps"][0]["tasks"].as_array().unwrap().len(), 1);
    let all = ask(&url, "GET", "/v2/apps/shop/*", &Value::Null).await;
    assert_eq!(all.json["*"].as_array().unwrap().len(), 2);
    done(&server, "DELETE", "/v2/groups/shop", &Value::Null).await;
    assert_eq!(server.apps(), Vec::<String>::new());
    assert_eq!(ask(&url, "GET", "/v2/groups/shop", &Value::Null).await.code, 404);
}
