//! A group of Marathon of our own, and what becomes of it.

use serde_json::Value;

use super::*;

#[test]
fn a_shop_of_marathon_is_documents() {
    let dump: Value = serde_json::from_str(include_str!("shop.marathon.json")).unwrap();
    let import = imported(&dump, "/shop");
    let texts: Vec<&str> = import.documents.iter().map(|d| d.text.as_str()).collect();
    insta::assert_snapshot!("marathon", texts.join("---\n"));
    let told = lines(&import);
    let line = |l: &Line| match &l.hint {
        Some(hint) => format!("{}\n  hint: {hint}\n", l.text),
        None => format!("{}\n", l.text),
    };
    insta::assert_snapshot!("marathon-report", told.iter().map(line).collect::<String>());
    let desired = desired(&import);
    for app in dump["groups"][0]["apps"].as_array().unwrap() {
        let id = app["id"].as_str().unwrap();
        if import.documents.iter().any(|d| d.subject == id) {
            assert_eq!(changes(&desired, id, app), [""; 0], "{id}");
        }
    }
    let left: Vec<&str> = import.left_out.iter().map(|l| l.subject.as_str()).collect();
    assert_eq!(left, ["/shop/pod", "/shop/cron"]);
}

#[test]
fn a_group_without_apps_is_refused_with_what_there_is() {
    let owner = owner();
    let options = Options { fleet: "marathon", group: "/other", cluster: None, owner: &owner };
    let dump = serde_json::json!([{"id": "/shop/web", "cmd": "x"}]);
    let error = import(&dump, &options).unwrap_err();
    assert_eq!(error.message, "there is no app below the group /other");
    assert_eq!(error.hint.as_deref(), Some("there is /shop/web"));
}

#[test]
fn without_a_url_no_fleet_is_written() {
    let owner = owner();
    let options = Options { fleet: "mesos", group: "/", cluster: None, owner: &owner };
    let dump = serde_json::json!({"id": "/shop/web", "container": {"docker": {"image": "a"}}});
    let import = import(&dump, &options).unwrap();
    let [document] = &import.documents[..] else { panic!("{import:?}") };
    assert_eq!((document.name.as_str(), document.kind), ("shop-web", "ScalingService"));
    assert!(document.text.contains("  fleet: mesos\n"), "{}", document.text);
}
