//! A Marathon that misbehaves: what was known stays known, and no change is made twice or lost in silence.

use std::time::Duration;

use evenkeel::backend::marathon::{MarathonConfig, view_of};
use evenkeel::error::{PortError, Remedy};
use evenkeel::model::{AppAct, FleetName, OwnerId, Seen};
use evenkeel_tests::marathon::{Fault, Options, Recorded, Release, Server};
use serde_json::{Value, json};

use super::rig::{Rig, id, said, service, spec};

fn lists(r: &Recorded) -> bool {
    r.method == "GET" && r.path == "/v2/apps"
}

fn puts(r: &Recorded) -> bool {
    r.method == "PUT"
}

/// A backend that looks at everything often, so that what the server makes of a list is soon seen.
async fn eager(server: &Server) -> Rig {
    let relist = Duration::from_millis(200);
    let rig =
        Rig::with(spec(server.urls()), MarathonConfig { relist, ..MarathonConfig::default() });
    rig.until("Marathon is seen", |v| v.seen == Seen::Now).await;
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_no_list_makes_marathon_silent_and_never_empty() {
    let server = Server::start(Options::default()).await;
    let rig = eager(&server).await;
    rig.put(&service("web", "toy:1"), 3, true).await.unwrap();
    rig.settled("/shop/web", 3).await;
    for (fault, why) in [
        (Fault::Html(200), "an HTML page"),
        (Fault::Html(500), "an HTML page"),
        (Fault::Html(404), "an HTML page"),
        (Fault::Json(200, json!({"apps": "none"})), "no JSON of the right shape"),
        (Fault::Json(200, json!([])), "no JSON of the right shape"),
        (Fault::Json(403, json!({"message": "not for you"})), "not for you"),
        (Fault::Truncate, "does not answer"),
        (Fault::Drop, "does not answer"),
    ] {
        let shown = format!("{fault:?}");
        server.fault(usize::MAX, fault, lists);
        rig.until(&shown, |v| matches!(v.seen, Seen::Silent { .. })).await;
        assert_eq!(rig.instances("web").len(), 3, "{shown}: what was known is gone");
        assert!(rig.app("/shop/web").is_some());
        assert!(rig.problem().contains(why), "{shown}: {}", rig.problem());
        server.calm();
        rig.until("it answers again", |v| v.seen == Seen::Now).await;
        assert_eq!(rig.instances("web").len(), 3);
        assert_eq!(rig.problem(), "");
    }
    // An app without its tasks is not one that has none.
    let mut app = server.app("/shop/web").unwrap();
    app.as_object_mut().unwrap().remove("tasks");
    server.fault(usize::MAX, Fault::Json(200, json!({"apps": [app]})), lists);
    rig.until("silent", |v| matches!(v.seen, Seen::Silent { .. })).await;
    assert_eq!(rig.instances("web").len(), 3);
}

/// Where names are people's own, or where what an app is has more to it: that is a difference, and is told as one.
const OWN: [&str; 9] = [
    "container",
    "env",
    "healthChecks",
    "labels",
    "networks",
    "portDefinitions",
    "secrets",
    "unreachableStrategy",
    "upgradeStrategy",
];

/// Puts something into every other object that nobody has heard of.
fn estrange(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (_, value) in fields.iter_mut().filter(|(name, _)| !OWN.contains(&name.as_str())) {
                estrange(value);
            }
            fields.insert("fromAnotherTime".into(), json!({"a": [1, null]}));
        }
        Value::Array(all) => all.iter_mut().for_each(estrange),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_has_heard_of_is_passed_over() {
    for release in [Release::V1_4, Release::V1_8, Release::V1_11] {
        let server = Server::start(Options::of(release)).await;
        let rig = Rig::of(&server).await;
        rig.put(&service("web", "toy:1"), 2, true).await.unwrap();
        rig.settled("/shop/web", 2).await;
        let url = format!("{}/v2/apps?embed=apps.tasks&embed=apps.deployments", server.url());
        let mut answer: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        let view = |answer: &Value| {
            let (owner, fleet) =
                (OwnerId::new("conformance").unwrap(), FleetName::new("f").unwrap());
            view_of(
                &owner,
                &fleet,
                std::collections::BTreeMap::new(),
                answer.to_string().as_bytes(),
            )
        };
        let plain = view(&answer).unwrap();
        assert_eq!((plain.apps.len(), plain.instances.len()), (1, 2), "{release}");
        estrange(&mut answer);
        assert_eq!(view(&answer).unwrap(), plain, "{release}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_never_answered_may_hold_anything() {
    let server = Server::start(Options::default()).await;
    server.fault(usize::MAX, Fault::Html(502), |_| true);
    let rig = Rig::with(spec(server.urls()), MarathonConfig::default());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(rig.view().seen, Seen::Never { .. }));
    assert!(rig.problem().contains("502"), "{}", rig.problem());
    let error = rig.put(&service("web", "toy:1"), 1, true).await;
    assert_eq!(error.as_ref().unwrap_err().remedy, Remedy::Retry);
    assert!(said(error).contains("Marathon is silent"));
    server.calm();
    rig.until("it answers", |v| v.seen == Seen::Now).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_is_gone_only_when_marathon_says_so() {
    let server = Server::start(Options::default()).await;
    let rig = Rig::of(&server).await;
    rig.put(&service("web", "toy:1"), 1, true).await.unwrap();
    rig.settled("/shop/web", 1).await;
    server.fault(usize::MAX, Fault::Html(404), |r| r.path == "/v2/apps/shop/web");
    let scale = AppAct::Scale { instances: 2, force: false };
    let error = rig.act("/shop/web", "web", scale).await;
    assert_eq!(error.as_ref().unwrap_err().remedy, Remedy::Retry);
    assert!(said(error).contains("an HTML page"));
    assert!(rig.app("/shop/web").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_nobody_can_tell_of_is_looked_for() {
    let server = Server::start(Options::default()).await;
    let rig = Rig::of(&server).await;
    // Made, and badly answered: nothing is sent again.
    for (n, fault) in [Fault::After(500), Fault::After(502), Fault::DropAfter, Fault::Truncate]
        .into_iter()
        .enumerate()
    {
        let name = format!("made-{n}");
        server.forget();
        server.fault(1, fault.clone(), puts);
        rig.put(&service(&name, "toy:1"), 1, true).await.unwrap();
        assert_eq!(server.writes().len(), 1, "{fault:?}");
        assert!(rig.app(&format!("/shop/{name}")).is_some(), "{fault:?}");
    }
    // Not made: that is said, and another try makes it.
    for (n, fault) in [
        Fault::Json(500, json!({"message": "oh"})),
        Fault::Json(503, json!({"message": "Too many concurrent requests"})),
        Fault::Html(502),
        Fault::Drop,
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("unmade-{n}");
        server.fault(1, fault.clone(), puts);
        let error = rig.put(&service(&name, "toy:1"), 1, true).await.unwrap_err();
        assert_eq!(error.remedy, Remedy::Retry, "{fault:?}: {error:?}");
        assert!(rig.app(&format!("/shop/{name}")).is_none(), "{fault:?}");
        rig.put(&service(&name, "toy:1"), 1, true).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_waited_for_and_broken_only_when_that_is_said() {
    let server = Server::start(Options::default()).await;
    let rig = Rig::of(&server).await;
    rig.put(&service("web", "toy:1"), 1, true).await.unwrap();
    rig.settled("/shop/web", 1).await;
    server.hold("/shop/web");
    rig.put(&service("web", "toy:2"), 1, false).await.unwrap();
    let app = rig.app("/shop/web").unwrap();
    let touches: Vec<usize> = app.deployments.values().map(|d| d.touches).collect();
    assert_eq!(touches, [1], "it is known to be this app's alone");
    let third = service("web", "toy:3");
    let error = rig.put(&third, 1, false).await;
    assert_eq!(error.as_ref().unwrap_err().remedy, Remedy::Reobserve);
    assert!(said(error).contains(&server.deployments()[0]));
    let error = rig.act("/shop/web", "web", AppAct::Delete).await.unwrap_err();
    assert_eq!(error.remedy, Remedy::Reobserve, "a delete breaks no lock");
    let AppAct::Put { definition, instances, hash, create, .. } = rig.put_of(&third, 1, false)
    else {
        unreachable!()
    };
    let forced = AppAct::Put { definition, instances, hash, create, force: true };
    rig.act("/shop/web", "web", forced).await.unwrap();
    server.release("/shop/web");
    rig.settled("/shop/web", 1).await;
    assert!(rig.instances("web").iter().all(|i| i.hash == third.hash));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_deployments_are_begun_than_the_server_allows() {
    for most_deployments in [100, 5] {
        let server = Server::start(Options {
            most_deployments,
            deployment_delay: Duration::from_millis(100),
            ..Options::default()
        })
        .await;
        let rig = Rig::of(&server).await;
        let names: Vec<String> = (0..40).map(|n| format!("s{n}")).collect();
        let services: Vec<_> = names.iter().map(|name| service(name, "toy:1")).collect();
        let puts = services.iter().map(|service| rig.put(service, 1, true));
        let results: Vec<Result<(), PortError>> = futures::future::join_all(puts).await;
        for result in results {
            result.unwrap();
        }
        assert_eq!(server.apps().len(), 40);
        let refused = server.writes().iter().filter(|w| w.status == Some(403)).count();
        // What it allows is its own secret until it refuses once.
        let most = if most_deployments == 100 { 0 } else { 8 };
        assert!(refused <= most, "{refused} were refused");
        let statuses: Vec<_> = server.writes().iter().map(|w| w.status).collect();
        assert_eq!(statuses.iter().filter(|s| **s == Some(201)).count(), 40, "{statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_over_leader_is_followed() {
    for release in [Release::V1_4, Release::V1_11] {
        let mut server = Server::start(Options { members: 2, ..Options::of(release) }).await;
        let rig = Rig::of(&server).await;
        rig.put(&service("web", "toy:1"), 2, true).await.unwrap();
        rig.settled("/shop/web", 2).await;
        server.kill(0).await;
        server.lead(Some(1));
        rig.put(&service("other", "toy:1"), 1, true).await.unwrap();
        rig.settled("/shop/other", 1).await;
        assert_eq!(rig.instances("web").len(), 2);
        // Back again, and a standby now: whoever is asked, the leader answers.
        server.revive(0).await;
        let scale = AppAct::Scale { instances: 3, force: false };
        rig.act("/shop/web", "web", scale).await.unwrap();
        rig.settled("/shop/web", 3).await;
        server.lead(Some(0));
        rig.act("/shop/other", "other", AppAct::Delete).await.unwrap();
        rig.until("it is gone", |v| !v.apps.contains_key(&id("/shop/other"))).await;
        rig.settled("/shop/web", 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_leader_nothing_is_forgotten() {
    let election = Duration::from_millis(50);
    let server = Server::start(Options { members: 2, election, ..Options::default() }).await;
    let rig = eager(&server).await;
    rig.put(&service("web", "toy:1"), 2, true).await.unwrap();
    rig.settled("/shop/web", 2).await;
    server.lead(None);
    rig.until("silent", |v| matches!(v.seen, Seen::Silent { .. })).await;
    assert_eq!(rig.instances("web").len(), 2);
    let scale = AppAct::Scale { instances: 3, force: false };
    let error = rig.act("/shop/web", "web", scale.clone()).await.unwrap_err();
    assert_eq!(error.remedy, Remedy::Retry);
    server.lead(Some(1));
    rig.until("it answers", |v| v.seen == Seen::Now).await;
    rig.act("/shop/web", "web", scale).await.unwrap();
    rig.settled("/shop/web", 3).await;
}
