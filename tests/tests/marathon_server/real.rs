//! Tasks that are real containers.

use evenkeel_tests::agent::{TOY, http};
use evenkeel_tests::consul::docker;
use evenkeel_tests::docker::{IMAGE, Rig};
use evenkeel_tests::marathon::{Agent, Options, Server};
use evenkeel_tests::proxy::Proxy;
use serde_json::{Value, json};

use super::client::{ask, done, until};

fn toy(id: &str, count: usize) -> Value {
    json!({
        "id": id, "instances": count, "cpus": 0.1, "mem": 32, "taskKillGracePeriodSeconds": 5,
        "container": {
            "docker": {"image": TOY, "parameters": [
                {"key": "env", "value": "SERVICE=by-parameter"}, {"key": "cap-drop", "value": "ALL"},
            ]},
            "portMappings": [{"containerPort": 8080, "name": "http"}],
        },
        "networks": [{"mode": "container/bridge"}],
        "healthChecks": [{
            "protocol": "HTTP", "path": "/healthz", "intervalSeconds": 1, "gracePeriodSeconds": 10,
        }],
    })
}

/// Where a task answers.
fn place(task: &Value) -> String {
    format!("{}:{}", task["host"].as_str().unwrap(), task["ports"][0])
}

async fn answers(task: &Value) -> Value {
    let (code, text) = http(&place(task), "GET", "/", &[], "").await.expect("it answers");
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// A container's settings, by the task in its environment.
fn inspected(task: &Value) -> Value {
    let id = task["id"].as_str().unwrap();
    for container in docker(&["ps", "-q"]).lines() {
        let text = docker(&["inspect", container]);
        let one: Value = serde_json::from_str(&text).unwrap_or_default();
        let env = one[0]["Config"]["Env"].as_array().cloned().unwrap_or_default();
        if env.contains(&json!(format!("MESOS_TASK_ID={id}"))) {
            return one[0].clone();
        }
    }
    Value::Null
}

#[tokio::test]
async fn tasks_run_as_containers_that_answer_and_end_with_their_app() {
    let server = Server::start(Options::default().containers(2)).await;
    done(&server, "POST", "/v2/apps", &toy("/shop/web", 2)).await;
    let tasks = server.tasks("/shop/web");
    assert_eq!(tasks.len(), 2);
    assert_ne!(tasks[0]["host"], tasks[1]["host"], "they are spread");
    for task in &tasks {
        assert_eq!(answers(task).await["service"], "by-parameter");
        assert_eq!(task["healthCheckResults"][0]["alive"], true);
        let container = inspected(task);
        assert_eq!(container["HostConfig"]["CapDrop"], json!(["ALL"]), "{container}");
        let env = container["Config"]["Env"].as_array().unwrap();
        for wanted in [
            format!("PORT0={}", task["ports"][0]),
            format!("PORT_HTTP={}", task["ports"][0]),
            format!("HOST={}", task["host"].as_str().unwrap()),
            "MARATHON_APP_ID=/shop/web".to_owned(),
        ] {
            assert!(env.contains(&json!(wanted)), "{wanted} in {env:?}");
        }
        let address = container["NetworkSettings"]["IPAddress"].clone();
        assert_eq!(task["ipAddresses"][0]["ipAddress"], address);
    }

    // A task that ends by itself is replaced, and the failure is told.
    let first = &tasks[0];
    http(&place(first), "POST", "/control?crash", &[], "").await;
    until("it is replaced", || {
        let now = server.tasks("/shop/web");
        let up = now.iter().filter(|t| t["healthCheckResults"][0]["alive"] == true).count();
        (up == 2 && now.iter().all(|t| t["id"] != first["id"])).then_some(())
    })
    .await;
    let failure = server.app("/shop/web").unwrap()["lastTaskFailure"].clone();
    assert_eq!(failure["message"], "Container exited with status 1");

    done(&server, "PATCH", "/v2/apps/shop/web", &json!({"instances": 1})).await;
    let left = server.tasks("/shop/web");
    assert_eq!(
        (left.len(), answers(&left[0]).await["service"].clone()),
        (1, json!("by-parameter"))
    );
    let gone: Vec<&Value> = tasks.iter().filter(|t| t["id"] != left[0]["id"]).collect();
    for task in gone {
        assert!(inspected(task).is_null(), "{}", task["id"]);
    }
    server.stop().await;
    assert!(inspected(&left[0]).is_null(), "all are gone in the end");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let server = Server::start(Options::default().containers(1)).await;
    let mut body = toy("/none", 1);
    body["container"]["docker"]["image"] = "127.0.0.1:9/none:1".into();
    ask(&server.url(), "POST", "/v2/apps", &body).await;
    let message = until("it failed", || {
        server.app("/none").unwrap()["lastTaskFailure"]["message"].as_str().map(str::to_owned)
    })
    .await;
    assert!(message.contains("docker pull 127.0.0.1:9/none:1"), "{message}");
    let mut body = toy("/odd", 1);
    body["container"]["docker"]["parameters"] = json!([{"key": "no-such-flag", "value": "1"}]);
    ask(&server.url(), "POST", "/v2/apps", &body).await;
    let message = until("it failed", || {
        server.app("/odd").unwrap()["lastTaskFailure"]["message"].as_str().map(str::to_owned)
    })
    .await;
    assert!(message.contains("no-such-flag"), "{message}");
}

#[tokio::test]
async fn who_is_ended_while_it_is_being_made_ends() {
    let server = Server::start(Options::default().containers(1)).await;
    for round in 0..4 {
        ask(&server.url(), "POST", "/v2/apps", &toy("/brief", 3)).await;
        let task = until("it is being made", || server.tasks("/brief").first().cloned()).await;
        done(&server, "DELETE", "/v2/apps/brief", &Value::Null).await;
        assert!(inspected(&task).is_null(), "round {round}: {task}");
    }
}

#[tokio::test]
async fn commands_and_the_other_checks_are_really_made() {
    // It makes the image.
    let _rig = Rig::new().await;
    let options = Options { second: std::time::Duration::from_millis(200), ..Options::default() };
    let server = Server::start(options.containers(1)).await;
    for (id, check) in [
        ("/tcp", json!({"protocol": "TCP", "intervalSeconds": 1})),
        (
            "/mesos",
            json!({"protocol": "MESOS_HTTP", "path": "/healthz", "delaySeconds": 0, "intervalSeconds": 1}),
        ),
        ("/mesos-tcp", json!({"protocol": "MESOS_TCP", "delaySeconds": 0, "intervalSeconds": 1})),
    ] {
        let mut body = toy(id, 1);
        body["healthChecks"] = json!([check]);
        done(&server, "PUT", &format!("/v2/apps{id}"), &body).await;
        assert_eq!(server.app(id).unwrap()["tasksHealthy"], 1, "{id}");
    }
    let command = json!({"id": "/command", "cpus": 0.1, "mem": 16,
        "cmd": "echo $PORT0 > /tmp/port; exec sleep 1000", "taskKillGracePeriodSeconds": 0,
        "container": {"docker": {"image": IMAGE}},
        "healthChecks": [{"protocol": "COMMAND", "delaySeconds": 0, "intervalSeconds": 1,
            "command": {"value": "test -s /tmp/port"}}],
    });
    done(&server, "POST", "/v2/apps", &command).await;
    assert_eq!(server.app("/command").unwrap()["tasksHealthy"], 1);
    // One whose check fails is never deployed, and killed again and again.
    let mut sick = command.clone();
    (sick["id"], sick["healthChecks"][0]["command"]["value"]) = ("/sick".into(), "false".into());
    (
        sick["healthChecks"][0]["gracePeriodSeconds"],
        sick["healthChecks"][0]["maxConsecutiveFailures"],
    ) = (1.into(), 1.into());
    ask(&server.url(), "POST", "/v2/apps", &sick).await;
    until("a second attempt is made", || {
        server
            .tasks("/sick")
            .iter()
            .any(|t| t["id"].as_str().unwrap().ends_with("._app.2"))
            .then_some(())
    })
    .await;
    assert!(!server.deployments().is_empty());
    done(&server, "DELETE", "/v2/apps/sick", &Value::Null).await;
}

#[tokio::test]
async fn an_agent_may_have_an_engine_of_its_own() {
    let proxy = Proxy::listen(None).await;
    let mut options = Options::default().containers(1);
    let agent = Agent::new("127.0.0.1").ports(31_871..=31_879);
    options.agents = vec![agent.engine(&format!("tcp://{}", proxy.authority()))];
    let server = Server::start(options).await;
    done(&server, "POST", "/v2/apps", &toy("/far", 1)).await;
    let task = server.tasks("/far")[0].clone();
    assert_eq!(answers(&task).await["service"], "by-parameter");
    done(&server, "DELETE", "/v2/apps/far", &Value::Null).await;
    assert!(inspected(&task).is_null());
}
