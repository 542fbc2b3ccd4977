//! What an import promises, on what others recorded, by chance, and on examples of our own.

mod chance;
mod compose;
mod marathon;
mod plan;
mod recorded;

use serde_json::Value;

use super::marathon::{Options, import};
use super::*;
use crate::model::app::compare::differences;
use crate::model::app::normal::normalise;
use crate::model::app::render::render;

fn owner() -> OwnerId {
    OwnerId::new("test").unwrap()
}

/// Imports a dump with the document of its fleet.
fn imported(dump: &Value, group: &str) -> Import {
    let owner = owner();
    let cluster = evenkeel_crds::MarathonBackend {
        urls: vec!["http://mm1.example:8080".to_owned()],
        auth: None,
        group: group.to_owned(),
        registry_config: None,
        registrator: false,
    };
    let options = Options { fleet: "marathon", group, cluster: Some(cluster), owner: &owner };
    import(dump, &options).unwrap()
}

/// What the documents mean, from their text; no problem may be in it.
fn desired(import: &Import) -> Desired {
    let (desired, problems) = read(&import.documents, &[], &owner());
    let text =
        || import.documents.iter().map(|d| d.text.as_str()).collect::<Vec<_>>().join("---\n");
    assert!(problems.is_empty(), "{problems:#?}\n{}", text());
    desired
}

/// Says of an app that was imported what would be changed in it.
fn changes(desired: &Desired, id: &str, app: &Value) -> Vec<String> {
    let cluster = desired.fleets.values().find_map(|f| f.marathon.clone()).unwrap();
    let of = |s: &&std::sync::Arc<Service>| s.app_id("/").as_str() == id;
    let service = desired.services.values().find(of).unwrap_or_else(|| panic!("{id} is nowhere"));
    let wanted = render(service, &service.spec, &cluster);
    differences(&wanted, &normalise(app)).iter().map(|d| d.change.to_string()).collect()
}
