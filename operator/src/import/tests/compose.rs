//! A compose file of our own, and what becomes of it.

use super::*;
use crate::import::compose::{Options, import};

const FILE: &str = include_str!("shop.compose.yaml");

fn taken(text: &str, fleet: &str) -> Result<Import, ImportError> {
    let owner = owner();
    let lookup = |name: &str| match name {
        "TAG" => Some("1.4.2".to_owned()),
        "HOME" => Some("/home/me".to_owned()),
        _ => None,
    };
    let read = |path: &str| match path {
        "./web.env" => Ok("GREETING=hi there\nLEVEL=info\n".to_owned()),
        _ => Err("No such file or directory (os error 2)".to_owned()),
    };
    import(
        text,
        &Options {
            fleet,
            project: "Shop",
            dir: "/srv/shop",
            lookup: &lookup,
            read: &read,
            owner: &owner,
        },
    )
}

fn report(import: &Import) -> String {
    let told = lines(import);
    let line = |l: &Line| match &l.hint {
        Some(hint) => format!("{}\n  hint: {hint}\n", l.text),
        None => format!("{}\n", l.text),
    };
    told.iter().map(line).collect()
}

#[test]
fn a_shop_of_compose_is_documents() {
    let import = taken(FILE, "default").unwrap();
    let texts: Vec<&str> = import.documents.iter().map(|d| d.text.as_str()).collect();
    insta::assert_snapshot!("compose", texts.join("---\n"));
    insta::assert_snapshot!("compose-report", report(&import));
    let (desired, problems) = read(&import.documents, &[], &owner());
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(desired.services.len(), import.documents.len());
    let left: Vec<&str> = import.left_out.iter().map(|l| l.subject.as_str()).collect();
    assert_eq!(left, ["services.worker"]);
}

#[test]
fn what_compose_itself_does_not_take_is_refused() {
    for (text, says) in [
        ("services: [", "not YAML"),
        ("web: {image: a}", "there are no services"),
        ("services: []", "there are no services"),
        ("a: &a [x]\nservices: {<<: *a}", ""),
    ] {
        let error = taken(text, "default").unwrap_err();
        assert!(error.message.contains(says), "{text}: {error}");
    }
}

#[test]
fn what_our_own_parser_says_is_told() {
    let text = "services:\n  a: {image: x, scale: 3, ports: ['8080:80']}\n  b: {image: x, ports: ['8081:80']}\n  c: {image: 'X y'}\n  \
                d: {image: x, deploy: {placement: {constraints: [node.labels.zone == a]}}}\n";
    let import = taken(text, "edge").unwrap();
    let told = report(&import);
    assert!(told.contains("check: on one host evenkeel check says:"), "{told}");
    assert!(told.contains("services.c: left out: spec.image"), "{told}");
    assert!(import.documents.iter().all(|d| d.text.contains("  fleet: edge\n")), "{import:?}");
}

#[test]
fn names_that_a_document_cannot_have_are_changed_and_others_are_kept() {
    let text = "services:\n  My_App.web: {image: a}\n  my-app-web: {image: b}\n";
    let import = taken(text, "default").unwrap();
    let names: Vec<(&str, &str)> =
        import.documents.iter().map(|d| (d.subject.as_str(), d.name.as_str())).collect();
    assert_eq!(
        names,
        [("services.My_App.web", "my-app-web-2"), ("services.my-app-web", "my-app-web")]
    );
    assert!(
        report(&import).contains("services.My_App.web: name: is my-app-web-2 here"),
        "{import:?}"
    );
}
