//! The life of an app, on every family of versions: each step does what it says, once, and restarts nobody that it need not.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel::error::Remedy;
use evenkeel::model::app::compare::differences;
use evenkeel::model::app::render::render;
use evenkeel::model::{AppAct, HealthState, InstanceId, State, Whose};
use evenkeel_tests::marathon::{Behaviour, Options, Recorded, Release, Server};
use serde_json::json;

use super::rig::{Rig, said, service, spec};

const RELEASES: [Release; 7] = [
    Release::V1_4,
    Release::V1_5,
    Release::V1_7,
    Release::V1_8,
    Release::V1_9,
    Release::V1_10,
    Release::V1_11,
];

/// A server whose seconds are short, and what it is asked to do.
async fn server(release: Release) -> Server {
    let second = Duration::from_millis(50);
    Server::start(Options { second, ..Options::of(release) }.feature("task_killing")).await
}

fn ids(rig: &Rig) -> BTreeSet<InstanceId> {
    rig.instances("web").into_iter().map(|i| i.id).collect()
}

/// The changes that were asked for since they were last asked about; what the release does not know is none of them.
fn writes(server: &Server) -> Vec<String> {
    let all = server.writes();
    for write in &all {
        assert_eq!(write.ignored, Vec::<String>::new(), "{}", write.line());
        let length = write.header("content-length").map(str::to_owned);
        assert_eq!(length, Some(write.body.len().to_string()), "{}", write.line());
    }
    server.forget();
    all.iter().map(Recorded::line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_lives_on_every_version() {
    for release in RELEASES {
        let server = server(release).await;
        let rig = Rig::of(&server).await;
        let web = service("web", "toy:1");

        // A step that returned Ok is in the next view; twice is once.
        rig.put(&web, 3, true).await.unwrap();
        let app = rig.app("/shop/web").expect("the start is not in the view");
        assert!(matches!(&app.whose, Whose::Ours { hash: Some(h), .. } if *h == web.hash));
        let wanted = render(&web, &web.spec, &spec(Vec::new()));
        assert_eq!(differences(&wanted, &app.definition), [], "{release:?}");
        rig.settled("/shop/web", 3).await;
        rig.put(&web, 3, true).await.unwrap();
        rig.put(&web, 3, false).await.unwrap();
        let put = "PUT /v2/apps/shop/web?partialUpdate=false&force=false";
        assert_eq!(writes(&server), [put], "{release:?}");
        let first = ids(&rig);
        for i in rig.instances("web") {
            assert_eq!((i.state, i.hash), (State::Running, web.hash));
            assert!(i.at.is_some_and(|at| at.to_string().starts_with("10.0.0.")), "{i:?}");
            assert!(matches!(i.bindings[..], [(80, port)] if port >= 31_000), "{i:?}");
            assert_eq!(i.resources, {
                let mut wanted = web.spec.resources;
                wanted.cpu_millis = 100;
                wanted
            });
        }

        // More instances restart nobody.
        let scale = |instances| AppAct::Scale { instances, force: false };
        rig.act("/shop/web", "web", scale(5)).await.unwrap();
        assert_eq!(rig.app("/shop/web").unwrap().instances, 5);
        rig.settled("/shop/web", 5).await;
        rig.act("/shop/web", "web", scale(5)).await.unwrap();
        assert_eq!(writes(&server), ["PATCH /v2/apps/shop/web?force=false"], "{release:?}");
        assert!(ids(&rig).is_superset(&first), "{release:?}: scaling restarted somebody");

        // One that is ended by name is the one that goes, and is not replaced.
        let victim = ids(&rig).pop_first().unwrap();
        let kill = AppAct::Kill { tasks: BTreeSet::from([victim.clone()]) };
        rig.act("/shop/web", "web", kill.clone()).await.unwrap();
        assert_eq!(rig.app("/shop/web").unwrap().instances, 4);
        rig.settled("/shop/web", 4).await;
        rig.act("/shop/web", "web", kill).await.unwrap();
        let post = "POST /v2/tasks/delete?scale=true&force=false";
        assert_eq!(writes(&server), [post], "{release:?}");
        assert!(!ids(&rig).contains(&victim));

        // Another image: everybody is another one in the end.
        let before = ids(&rig);
        let other = service("web", "toy:2");
        rig.put(&other, 4, false).await.unwrap();
        rig.settled("/shop/web", 4).await;
        rig.put(&other, 4, false).await.unwrap();
        assert_eq!(writes(&server), [put], "{release:?}");
        assert!(ids(&rig).is_disjoint(&before), "{release:?}");
        assert!(rig.instances("web").iter().all(|i| i.hash == other.hash));

        // Nobody is of an older definition: there is nothing to restart. Then the app goes, once.
        rig.act("/shop/web", "web", AppAct::Restart { force: false }).await.unwrap();
        assert_eq!(writes(&server), [""; 0]);
        rig.act("/shop/web", "web", AppAct::Delete).await.unwrap();
        assert!(rig.app("/shop/web").is_none(), "{release:?}");
        rig.act("/shop/web", "web", AppAct::Delete).await.unwrap();
        assert_eq!(writes(&server), ["DELETE /v2/apps/shop/web?force=false"], "{release:?}");
        assert_eq!(server.apps(), [""; 0]);
    }
}

/// Somebody breaks off the deployment of a web that two tasks are left of.
async fn break_off(server: &Server, rig: &Rig) {
    let id = server.deployments().remove(0);
    let url = format!("{}/v2/deployments/{id}?force=true", server.url());
    let status = reqwest::Client::new().delete(url).send().await.unwrap().status().as_u16();
    assert_eq!(status, 202);
    server.release("/shop/web");
    rig.until("nothing is under way", |v| {
        v.apps.values().all(|app| app.deployments.is_empty() && app.outdated.len() == 2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_left_of_an_older_definition_are_restarted_on_every_version() {
    for release in RELEASES {
        let server = server(release).await;
        let rig = Rig::of(&server).await;
        let web = service("web", "toy:1");
        rig.put(&web, 2, true).await.unwrap();
        rig.settled("/shop/web", 2).await;
        let before = ids(&rig);
        // Somebody breaks off the deployment: the definition is new and the tasks are old.
        server.hold("/shop/web");
        let other = service("web", "toy:2");
        rig.put(&other, 2, false).await.unwrap();
        break_off(&server, &rig).await;
        assert!(rig.instances("web").iter().all(|i| i.hash != other.hash));
        // And the restart that was to mend it, which before 1.11 is no change of the app. They are still told apart.
        server.hold("/shop/web");
        rig.act("/shop/web", "web", AppAct::Restart { force: false }).await.unwrap();
        let begun = server.deployments();
        // One that stands still is given up by another.
        rig.act("/shop/web", "web", AppAct::Restart { force: true }).await.unwrap();
        rig.until("the other has taken its place", |_| {
            let now = server.deployments();
            now.len() == 1 && now != begun
        })
        .await;
        break_off(&server, &rig).await;
        assert!(rig.instances("web").iter().all(|i| i.hash != other.hash));
        server.forget();
        rig.act("/shop/web", "web", AppAct::Restart { force: false }).await.unwrap();
        rig.settled("/shop/web", 2).await;
        rig.act("/shop/web", "web", AppAct::Restart { force: false }).await.unwrap();
        let restart = "POST /v2/apps/shop/web/restart?force=false";
        assert_eq!(writes(&server), [restart], "{release:?}");
        assert!(ids(&rig).is_disjoint(&before), "{release:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_resources_survive_a_scaling() {
    for release in [Release::V1_10, Release::V1_11] {
        let server = server(release).await;
        let rig = Rig::of(&server).await;
        let mut web = service("web", "toy:1");
        web.app.fields.insert("resourceLimits".into(), json!({"cpus": 2, "mem": "unlimited"}));
        rig.put(&web, 1, true).await.unwrap();
        rig.settled("/shop/web", 1).await;
        let before = ids(&rig);
        rig.act("/shop/web", "web", AppAct::Scale { instances: 2, force: false }).await.unwrap();
        rig.settled("/shop/web", 2).await;
        assert!(ids(&rig).is_superset(&before), "{release:?}: scaling restarted somebody");
        let limits = server.app("/shop/web").unwrap()["resourceLimits"].clone();
        assert_eq!((limits["cpus"].as_f64(), &limits["mem"]), (Some(2.0), &json!("unlimited")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_is_never_changed() {
    let server = server(Release::V1_11).await;
    let rig = Rig::of(&server).await;
    let client = reqwest::Client::new();
    let mut theirs = json!({"id": "/shop/theirs", "cmd": "sleep 1", "instances": 2, "labels": {
        "evenkeel.dev/owner": "somebody-else", "evenkeel.dev/fleet": "f",
        "evenkeel.dev/service": "theirs", "evenkeel.dev/hash": "00000000000000ab"}});
    let post = async |body: &serde_json::Value| {
        let url = format!("{}/v2/apps", server.url());
        assert_eq!(client.post(url).json(body).send().await.unwrap().status().as_u16(), 201);
    };
    post(&theirs).await;
    theirs["id"] = json!("/shop/fleets");
    theirs["labels"]["evenkeel.dev/owner"] = json!("conformance");
    theirs["labels"]["evenkeel.dev/fleet"] = json!("g");
    post(&theirs).await;
    theirs["id"] = json!("/shop/garbled");
    theirs["labels"]["evenkeel.dev/fleet"] = json!("f");
    theirs["labels"]["evenkeel.dev/service"] = json!("no name");
    post(&theirs).await;
    post(&json!({"id": "/shop/bare", "cmd": "sleep 1", "instances": 2})).await;
    server.settled(super::rig::LONG).await;
    server.forget();
    let all = ["theirs", "fleets", "garbled", "bare"];
    let named = all.map(|name| (format!("/shop/{name}"), name));
    let named: Vec<(&str, &str)> = named.iter().map(|(id, name)| (&**id, *name)).collect();
    for names in [&[][..], &named[..]] {
        rig.name(names);
        if !names.is_empty() {
            rig.until("all are seen", |v| v.apps.len() == 4).await;
            let whose = |name: &str| rig.app(&format!("/shop/{name}")).unwrap().whose.clone();
            assert_eq!(whose("bare"), Whose::Nobodys);
            for name in &all[..3] {
                assert_eq!(whose(name), Whose::Others, "{name}");
                assert_eq!(rig.instances(name), []);
            }
        }
        for name in all {
            let app = format!("/shop/{name}");
            let task = server.tasks(&app)[0]["id"].as_str().unwrap().to_owned();
            let tasks = BTreeSet::from([InstanceId(task.into())]);
            let one = service(name, "toy:1");
            // A document names it, so that all but its making and its end are the planner's to decide.
            let claimed = !names.is_empty() && name == "bare";
            let mut acts = vec![rig.put_of(&one, 1, true), AppAct::Delete];
            if !claimed {
                acts.push(rig.put_of(&one, 1, false));
                acts.push(AppAct::Scale { instances: 9, force: true });
                acts.push(AppAct::Kill { tasks });
                acts.push(AppAct::Restart { force: false });
            }
            for act in acts {
                let error = rig.act(&app, name, act.clone()).await.unwrap_err();
                assert_eq!(error.remedy, Remedy::Reobserve, "{name} {act:?}: {error:?}");
            }
        }
    }
    assert_eq!(writes(&server), [""; 0]);
    // A claim makes it ours.
    rig.put(&service("bare", "toy:1"), 2, false).await.unwrap();
    rig.settled("/shop/bare", 2).await;
    assert!(matches!(rig.app("/shop/bare").unwrap().whose, Whose::Ours { .. }));
    assert_eq!(rig.instances("bare").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_cluster_is_left_alone() {
    let server = server(Release::V1_11).await;
    let rig = Rig::of(&server).await;
    rig.put(&service("web", "toy:1"), 3, true).await.unwrap();
    rig.settled("/shop/web", 3).await;
    let stays = rig.view();
    // What came with the deployment's end is looked at first.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.forget();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let asked: Vec<String> = server.requests().iter().map(Recorded::line).collect();
    assert_eq!(asked, [""; 0], "nothing happens, and it asks");
    assert_eq!(rig.view(), stays);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_out_of_sight_is_ending_until_it_returns() {
    let server = server(Release::V1_11).await;
    let rig = Rig::of(&server).await;
    let mut web = service("web", "toy:1");
    web.replace_after = Duration::from_secs(100_000);
    rig.put(&web, 3, true).await.unwrap();
    rig.settled("/shop/web", 3).await;
    let agent = server.tasks("/shop/web")[0]["host"].as_str().unwrap().to_owned();
    let of = |rig: &Rig| {
        let at = agent.parse().ok();
        rig.instances("web").into_iter().filter(move |i| i.at == at).collect::<Vec<_>>()
    };
    let before = of(&rig);
    server.silence(&agent);
    rig.until("it is out of sight", |v| v.instances.iter().any(|i| i.state == State::Ending)).await;
    assert!(of(&rig).iter().all(|i| i.state == State::Ending));
    server.hear(&agent).await;
    rig.until("it is back", |v| v.instances.iter().all(|i| i.state == State::Running)).await;
    assert_eq!(of(&rig).len(), before.len());
    assert!(of(&rig).iter().all(|i| matches!(i.health, HealthState::Healthy { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_marathon_cannot_do_is_told() {
    let server =
        Server::start(Options::default().behave(|_| Behaviour::crashes(Duration::from_millis(5))))
            .await;
    let rig = Rig::of(&server).await;
    let mut web = service("web", "toy:1");
    web.placement.constraints = vec![evenkeel::model::Constraint {
        label: "zone".into(),
        equal: true,
        value: "nowhere".into(),
    }];
    rig.put(&web, 1, true).await.unwrap();
    rig.until("the queue says why", |v| {
        v.apps.values().any(|app| app.queued == ["agents do not fulfil its constraints"])
    })
    .await;
    rig.put(&service("sick", "toy:1"), 1, true).await.unwrap();
    rig.until("the failure is told", |v| {
        let failure =
            v.apps.get(&super::rig::id("/shop/sick")).and_then(|a| a.last_failure.clone());
        failure.is_some_and(|f| f.contains("Command exited with status 1"))
    })
    .await;
    // What the server does not take is said in its own words.
    let mut odd = service("odd", "toy:1");
    odd.app.fields.insert("cpus".into(), json!(-1));
    let error = rig.put(&odd, 1, true).await;
    assert_eq!(error.as_ref().unwrap_err().remedy, Remedy::Hold);
    assert!(said(error).contains("/cpus"));
}
