//! Apps that servers of every age had are carried over without a change. They are not part of the project.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::backend::marathon::tests::recorded::{apps, documents, recorded};

/// Every app that somebody recorded, by where it is from.
fn all(dir: &Path) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (name, document) in documents(dir) {
        let mut found = Vec::new();
        apps(&document, &mut found);
        all.extend(found.into_iter().map(|app| (name.clone(), app)));
    }
    all
}

#[test]
fn every_recorded_app_is_what_it_was_or_is_left_out_with_its_reason() {
    let Some(dir) = recorded() else { return };
    let (mut carried, mut left) = (0, 0);
    for (name, app) in all(&dir) {
        let import = imported(&app, "/");
        let has_image = normalise(&app)
            .0
            .get("container")
            .and_then(|c| c.get("docker")?.get("image"))
            .is_some();
        if let [LeftOut { subject, why, .. }] = &import.left_out[..] {
            // One example of the schema names an image that is none.
            let told = why.starts_with("spec.image: the image's registry is not")
                || why.contains("no image")
                || why.contains("its id")
                || why.contains("without an id");
            assert!(told && !(has_image && why.contains("no image")), "{name}: {subject}: {why}");
            left += 1;
            continue;
        }
        assert!(has_image, "{name}: {app}");
        let [_, document] = &import.documents[..] else { panic!("{name}: {import:?}") };
        let desired = desired(&import);
        assert_eq!(
            changes(&desired, &document.subject, &app),
            [""; 0],
            "{name}: {}",
            document.text
        );
        carried += 1;
    }
    assert!(carried > 300 && left > 5, "{carried} were carried over, {left} left out");
}

#[test]
fn whole_dumps_are_carried_over_at_once() {
    let Some(dir) = recorded() else { return };
    let all = documents(&dir);
    for (name, count) in [("155_100", 100), ("155_200", 200)] {
        let dump = &all[&format!("marathon-real-dumps/{name}.json")];
        let import = imported(dump, "/");
        assert_eq!((import.documents.len(), import.left_out.len()), (count + 1, 0), "{name}");
        let desired = desired(&import);
        let mut found = Vec::new();
        apps(dump, &mut found);
        for app in &found {
            let id = app["id"].as_str().unwrap();
            assert_eq!(changes(&desired, id, app), [""; 0], "{name}: {id}");
        }
        assert_eq!(found.len(), count);
    }
}

#[test]
fn a_change_of_a_recorded_app_is_a_change() {
    let Some(dir) = recorded() else { return };
    let app = documents(&dir)["marathon-lb/tests/marathon15_apps.json"]["apps"][0].clone();
    let desired = desired(&imported(&app, "/"));
    let id = app["id"].as_str().unwrap();
    for (field, value) in
        [("cmd", json!("other")), ("mem", json!(7)), ("labels", json!({})), ("user", json!("x"))]
    {
        let mut other = app.clone();
        other[field] = value;
        assert!(!changes(&desired, id, &other).is_empty(), "{field} is not seen");
    }
}
