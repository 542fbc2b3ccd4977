//! What deployments do to tasks, and what tasks do to deployments.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_tests::marathon::{Agent, Behaviour, Options, Release, Server};
use serde_json::{Value, json};

use super::client::{LONG, ask, done, until};

fn app(id: &str, count: usize) -> Value {
    json!({"id": id, "cmd": "sleep 100", "cpus": 0.1, "mem": 32, "instances": count})
}

fn checked(id: &str, count: usize) -> Value {
    let mut app = app(id, count);
    app["healthChecks"] = json!([{"protocol": "HTTP", "intervalSeconds": 1, "gracePeriodSeconds": 1, "maxConsecutiveFailures": 2}]);
    app
}

fn ids(tasks: &[Value]) -> BTreeSet<String> {
    tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
}

fn hosts(tasks: &[Value]) -> Vec<String> {
    let mut hosts: Vec<String> =
        tasks.iter().map(|t| t["host"].as_str().unwrap().to_owned()).collect();
    hosts.sort();
    hosts
}

/// A second of ten milliseconds.
fn quick() -> Options {
    Options { second: Duration::from_millis(10), ..Options::default() }
}

#[tokio::test]
async fn a_bad_definition_hangs_until_it_is_replaced_by_force() {
    let options = quick().behave(|task| match task.app.env().get("BAD") {
        Some(_) => Behaviour::unhealthy(),
        None => Behaviour::default(),
    });
    let server = Server::start(options).await;
    let url = server.url();
    done(&server, "POST", "/v2/apps", &checked("/web", 3)).await;
    let old = ids(&server.tasks("/web"));
    let bad = ask(&url, "PUT", "/v2/apps/web", &json!({"env": {"BAD": "1"}})).await;
    until("the new ones run, and are sick", || {
        let shown = server.app("/web").unwrap();
        (shown["tasksUnhealthy"].as_u64() >= Some(1)).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.deployments().len(), 1, "it never gives up by itself");
    assert!(old.is_subset(&ids(&server.tasks("/web"))), "no old one goes for a sick one");
    // Between two attempts there may be none.
    until("an attempt of the new definition is there", || {
        let tasks = server.tasks("/web");
        tasks.iter().any(|task| task["version"] == bad.json["version"]).then_some(())
    })
    .await;
    let mut good = checked("/web", 3);
    good["env"] = json!({"GOOD": "1"});
    let locked = ask(&url, "PUT", "/v2/apps/web?partialUpdate=false", &good).await;
    assert_eq!(locked.code, 409);
    let forced = done(&server, "PUT", "/v2/apps/web?partialUpdate=false&force=true", &good).await;
    for task in server.tasks("/web") {
        assert_eq!(task["version"], forced.json["version"]);
    }
    assert_eq!(server.tasks("/web").len(), 3);
}

#[tokio::test]
async fn a_deployment_that_is_cancelled_goes_back_or_stays_where_it_is() {
    let server = Server::start(Options::default()).await;
    let url = server.url();
    done(&server, "POST", "/v2/apps", &app("/web", 2)).await;
    server.hold("/web");
    let change = ask(&url, "PUT", "/v2/apps/web", &json!({"mem": 64, "instances": 4})).await;
    let id = change.json["deploymentId"].as_str().unwrap().to_owned();
    let back = ask(&url, "DELETE", &format!("/v2/deployments/{id}"), &Value::Null).await;
    assert_eq!(back.code, 200, "{}", back.text);
    assert_ne!(back.json["deploymentId"], id.as_str());
    server.release("/web");
    server.settled(LONG).await;
    let shown = server.app("/web").unwrap();
    assert_eq!((&shown["mem"], &shown["instances"]), (&json!(32.0), &json!(2)));
    // An app that a deployment made is gone with it.
    server.hold("/new/one");
    let made = ask(&url, "POST", "/v2/apps", &app("/new/one", 1)).await;
    let id = made.header("marathon-deployment-id").to_owned();
    ask(&url, "DELETE", &format!("/v2/deployments/{id}"), &Value::Null).await;
    assert_eq!(server.apps(), ["/web"]);
    assert_eq!(ask(&url, "GET", "/v2/groups/new", &Value::Null).await.code, 404);
}

#[tokio::test]
async fn what_no_agent_can_take_waits_and_says_why() {
    let agents = vec![
        Agent::new("a1").attribute("environment", "test").size(1.0, 1000.0),
        Agent::new("a2").attribute("environment", "production").size(8.0, 100.0),
    ];
    let server = Server::start(Options { agents, ..Options::default() }).await;
    let url = server.url();
    let why = async |body: &Value| {
        let path = format!("/v2/apps{}", body["id"].as_str().unwrap());
        ask(&url, "PUT", &path, body).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let queue = ask(&url, "GET", "/v2/queue?embed=lastUnusedOffers", &Value::Null).await.json;
        assert_eq!(queue["queue"][0]["app"]["id"], body["id"], "{queue:#}");
        let summary = &queue["queue"][0]["processedOffersSummary"]["rejectSummaryLastOffers"];
        let refused = summary.as_array().unwrap().iter().filter(|r| r["declined"] != 0);
        let refused: Vec<String> = refused
            .map(|r| format!("{}={}", r["reason"].as_str().unwrap(), r["declined"]))
            .collect();
        assert!(!server.deployments().is_empty());
        done(&server, "DELETE", &path, &Value::Null).await;
        refused
    };
    let mut one = app("/one", 1);
    one["constraints"] = json!([["environment", "CLUSTER", "staging"]]);
    assert_eq!(why(&one).await, ["UnfulfilledConstraint=2"]);
    let mut one = app("/one", 1);
    (one["cpus"], one["mem"]) = (2.into(), 500.into());
    assert_eq!(why(&one).await, ["InsufficientCpus=1", "InsufficientMemory=1"]);
    let mut one = app("/one", 1);
    (one["portDefinitions"], one["requirePorts"]) = (json!([{"port": 80}]), true.into());
    assert_eq!(why(&one).await, ["InsufficientPorts=2"]);
}

#[tokio::test]
async fn constraints_decide_where_instances_go() {
    let agent = |n: usize| {
        let rack = if n < 2 { "r1" } else { "r2" };
        Agent::new(&format!("a{n}")).attribute("rack", rack).attribute("cores", "8")
    };
    let server =
        Server::start(Options { agents: (0..4).map(agent).collect(), ..Options::default() }).await;
    for (constraint, hosts_are) in [
        (json!(["hostname", "UNIQUE"]), vec!["a0", "a1", "a2", "a3"]),
        (json!(["hostname", "CLUSTER", "a2"]), vec!["a2", "a2", "a2", "a2"]),
        (json!(["hostname", "LIKE", "a[13]"]), vec!["a1", "a1", "a3", "a3"]),
        (json!(["hostname", "UNLIKE", "a[13]"]), vec!["a0", "a0", "a2", "a2"]),
        (json!(["missing", "UNLIKE", "x"]), vec!["a0", "a1", "a2", "a3"]),
        (json!(["rack", "IS", "r2"]), vec!["a2", "a2", "a3", "a3"]),
        (json!(["cores", "IS", "8.000"]), vec!["a0", "a1", "a2", "a3"]),
        (json!(["rack", "MAX_PER", "2"]), vec!["a0", "a1", "a2", "a3"]),
        (json!(["rack", "GROUP_BY", "2"]), vec!["a0", "a1", "a2", "a3"]),
    ] {
        let mut body = app("/web", 4);
        body["constraints"] = json!([constraint]);
        done(&server, "POST", "/v2/apps", &body).await;
        assert_eq!(hosts(&server.tasks("/web")), hosts_are, "{constraint}");
        done(&server, "DELETE", "/v2/apps/web", &Value::Null).await;
    }
    // Whoever goes leaves the others as even as they can be.
    let mut body = app("/web", 4);
    body["constraints"] = json!([["rack", "GROUP_BY", "2"]]);
    done(&server, "POST", "/v2/apps", &body).await;
    done(&server, "PATCH", "/v2/apps/web", &json!({"instances": 2})).await;
    let left = hosts(&server.tasks("/web"));
    let rack = |host: &str| host < "a2";
    assert_ne!(rack(&left[0]), rack(&left[1]), "{left:?}");
}

#[tokio::test]
async fn tasks_that_fail_come_back_later_and_later() {
    let mut options = quick().behave(|task| match task.app.env().get("CRASH") {
        Some(_) => Behaviour::crashes(Duration::from_millis(5)),
        None => Behaviour::default(),
    });
    options.second = Duration::from_millis(50);
    let server = Server::start(options).await;
    let url = server.url();
    done(&server, "POST", "/v2/apps", &app("/web", 2)).await;
    let before = server.tasks("/web");
    let victim = before[0]["id"].as_str().unwrap();
    server.fail(victim, "it fell over");
    until("there are two again", || {
        let tasks = server.tasks("/web");
        let up = tasks.iter().filter(|t| t["state"] == "TASK_RUNNING").count() == 2;
        (up && !ids(&tasks).contains(victim)).then_some(())
    })
    .await;
    let again = server.tasks("/web");
    let instance = victim.split("._app.").next().unwrap();
    let next = format!("{instance}._app.2");
    assert!(ids(&again).contains(&next), "from 1.8 on an instance keeps its id: {again:?}");
    let failure = server.app("/web").unwrap()["lastTaskFailure"].clone();
    assert_eq!(
        (&failure["message"], &failure["state"]),
        (&json!("it fell over"), &json!("TASK_FAILED"))
    );
    assert_eq!(failure["taskId"], victim);

    let mut crash = app("/crash", 1);
    (crash["env"], crash["backoffFactor"]) = (json!({"CRASH": "1"}), 10.into());
    ask(&url, "POST", "/v2/apps", &crash).await;
    let queued = until("its next launch is delayed", || {
        let shown = server.app("/crash").unwrap();
        shown.get("lastTaskFailure").map(|_| ())
    });
    queued.await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let queue = ask(&url, "GET", "/v2/queue", &Value::Null).await.json["queue"].clone();
    assert_eq!(
        (&queue[0]["count"], &queue[0]["delay"]["overdue"]),
        (&json!(1), &json!(false)),
        "{queue}"
    );
    let reset = ask(&url, "DELETE", "/v2/queue/crash/delay", &Value::Null).await;
    assert_eq!(reset.code, 204);
    assert_eq!(ask(&url, "DELETE", "/v2/queue/web/delay", &Value::Null).await.code, 404);
}

#[tokio::test]
async fn sick_tasks_are_killed_and_replaced() {
    let options = quick().behave(|task| match task.attempt {
        1 => Behaviour { sick: Some(Duration::from_millis(50)), ..Behaviour::default() },
        _ => Behaviour::default(),
    });
    let server = Server::start(options).await;
    done(&server, "POST", "/v2/apps", &checked("/web", 1)).await;
    let first = ids(&server.tasks("/web"));
    until("another attempt is well", || {
        let shown = server.app("/web").unwrap();
        (shown["tasksHealthy"] == 1 && ids(&server.tasks("/web")) != first).then_some(())
    })
    .await;
}

#[tokio::test]
async fn agents_that_fall_silent_are_waited_for_as_long_as_the_app_says() {
    let server = Server::start(quick()).await;
    let mut patient = app("/patient", 3);
    patient["unreachableStrategy"] = "disabled".into();
    let mut hasty = app("/hasty", 3);
    hasty["unreachableStrategy"] = json!({"inactiveAfterSeconds": 5, "expungeAfterSeconds": 60000});
    done(&server, "POST", "/v2/apps", &patient).await;
    done(&server, "POST", "/v2/apps", &hasty).await;
    let (patients, hastes) = (ids(&server.tasks("/patient")), ids(&server.tasks("/hasty")));
    server.silence("10.0.0.1");
    let state = |app: &str, state: &str| {
        server.tasks(app).iter().filter(|task| task["state"] == state).count()
    };
    assert_eq!(
        (state("/patient", "TASK_UNREACHABLE"), state("/hasty", "TASK_UNREACHABLE")),
        (1, 1)
    );
    until("the hasty one is replaced", || (state("/hasty", "TASK_RUNNING") == 3).then_some(()))
        .await;
    assert_eq!(state("/patient", "TASK_RUNNING"), 2);
    let lost =
        server.tasks("/hasty").into_iter().find(|t| t["state"] == "TASK_UNREACHABLE").unwrap();
    assert_eq!(lost.get("version"), None, "who is not active has none");
    server.hear("10.0.0.1").await;
    until("all is as it was, and the surplus is gone", || {
        let same = ids(&server.tasks("/patient")) == patients;
        (same && server.tasks("/hasty").len() == 3 && state("/hasty", "TASK_RUNNING") == 3)
            .then_some(())
    })
    .await;
    assert!(!ids(&server.tasks("/hasty")).is_disjoint(&hastes));
}

#[tokio::test]
async fn killed_tasks_are_replaced_or_wanted_no_more() {
    let server = Server::start(Options::default()).await;
    let url = server.url();
    done(&server, "POST", "/v2/apps", &app("/g/web", 4)).await;
    let before = server.tasks("/g/web");
    let first = before[0]["id"].as_str().unwrap();
    let killed = ask(&url, "DELETE", &format!("/v2/apps/g/web/tasks/{first}"), &Value::Null).await;
    assert_eq!((killed.code, &killed.json["task"]["id"]), (200, &before[0]["id"]));
    let none =
        ask(&url, "DELETE", "/v2/apps/g/web/tasks/g_web.instance-x._app.1", &Value::Null).await;
    assert_eq!(none.code, 404);
    let there = || server.tasks("/g/web").iter().filter(|t| t["state"] == "TASK_RUNNING").count();
    until("it is replaced", || {
        (there() == 4 && !ids(&server.tasks("/g/web")).contains(first)).then_some(())
    })
    .await;
    let two: Vec<Value> =
        server.tasks("/g/web").iter().take(2).map(|task| task["id"].clone()).collect();
    let scaled = done(&server, "POST", "/v2/tasks/delete?scale=true", &json!({"ids": two})).await;
    assert!(scaled.json["deploymentId"].is_string());
    assert_eq!(
        (server.tasks("/g/web").len(), &server.app("/g/web").unwrap()["instances"]),
        (2, &json!(2))
    );
    let left = ids(&server.tasks("/g/web"));
    assert!(two.iter().all(|id| !left.contains(id.as_str().unwrap())), "just those, not any");
    let host = server.tasks("/g/web")[0]["host"].as_str().unwrap().to_owned();
    let by_host =
        ask(&url, "DELETE", &format!("/v2/apps/g/web/tasks?host={host}"), &Value::Null).await;
    assert!(!by_host.json["tasks"].as_array().unwrap().is_empty());
    let all = ask(&url, "GET", "/v2/tasks?status=running", &Value::Null).await;
    for task in all.json["tasks"].as_array().unwrap() {
        assert_eq!(task["servicePorts"], json!([10_000]));
    }
}

#[tokio::test]
async fn a_restart_replaces_all_and_its_time_depends_on_the_release() {
    for (release, configured) in [(Release::V1_11, true), (Release::V1_10, false)] {
        let server = Server::start(Options::of(release)).await;
        done(&server, "POST", "/v2/apps", &app("/web", 2)).await;
        let before = ids(&server.tasks("/web"));
        let restart = done(&server, "POST", "/v2/apps/web/restart", &Value::Null).await;
        assert!(before.is_disjoint(&ids(&server.tasks("/web"))));
        let shown = server.app("/web").unwrap();
        assert_eq!(shown["version"], restart.json["version"]);
        let moved = shown["versionInfo"]["lastConfigChangeAt"] == restart.json["version"];
        assert_eq!(moved, configured, "{release}");
    }
}

/// Three instances that want a host each, on three hosts.
#[tokio::test]
async fn only_a_restart_of_old_releases_is_in_its_own_way() {
    for release in [Release::V1_4, Release::V1_10, Release::V1_11] {
        let server = Server::start(Options::of(release)).await;
        let mut body = app("/web", 3);
        body["constraints"] = json!([["hostname", "UNIQUE"]]);
        done(&server, "POST", "/v2/apps", &body).await;
        done(&server, "PUT", "/v2/apps/web", &json!({"mem": 64})).await;
        ask(&server.url(), "POST", "/v2/apps/web/restart", &Value::Null).await;
        if release == Release::V1_11 {
            server.settled(LONG).await;
            continue;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let queue = ask(&server.url(), "GET", "/v2/queue", &Value::Null).await.json;
        assert_eq!(queue["queue"][0]["count"], 3, "{release}: the old ones have all hosts");
    }
}

#[tokio::test]
async fn thousands_of_tasks_are_no_trouble() {
    let agents = (0..10).map(|n| Agent::new(&format!("a{n}")).size(1e6, 1e9)).collect();
    let server = Server::start(Options { agents, ..Options::default() }).await;
    let apps: Vec<Value> = (0..1000).map(|n| app(&format!("/g{}/app{n}", n % 10), 3)).collect();
    let began = tokio::time::Instant::now();
    done(&server, "PUT", "/v2/apps?partialUpdate=false", &apps.into()).await;
    eprintln!("1,000 apps, 3,000 tasks: {:?}", began.elapsed());
    let list = ask(&server.url(), "GET", "/v2/apps?embed=apps.tasks", &Value::Null).await;
    let apps = list.json["apps"].as_array().unwrap();
    assert_eq!(apps.len(), 1000);
    assert!(apps.iter().all(|app| app["tasksRunning"] == 3));
}
