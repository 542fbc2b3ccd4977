//! One broken document holds only what it defines, at its last good document.

use super::*;
use crate::model::{FleetName, ServiceName};

/// What is in force and what is held: `api image=b replicas=1 · web (held) image=a …`.
fn force(desired: &Desired) -> String {
    let mut names: BTreeSet<&str> = desired.services.keys().map(ServiceName::as_str).collect();
    names.extend(desired.held.iter().map(ServiceName::as_str));
    let line = |name: &str| {
        let id = ServiceName::new(name).unwrap();
        let held = if desired.held.contains(&id) { " (held)" } else { "" };
        match desired.services.get(&id) {
            Some(s) => format!("{name}{held} image={}", s.spec.image),
            None => format!("{name}{held} nothing"),
        }
    };
    names.into_iter().map(line).collect::<Vec<_>>().join(" · ")
}

/// Parses one revision after another; each line is what the last one gives.
struct Story {
    files: Files,
    applied: Applied,
}

impl Story {
    fn begin(given: &[(&str, &str)]) -> Self {
        let files = files(given);
        let (desired, applied) = parse_with(&files, &Applied::default());
        assert_eq!(desired.problems, []);
        Self { files, applied }
    }

    #[track_caller]
    fn then(&mut self, path: &str, text: &str, expect: &str) -> Desired {
        self.files.insert(path.into(), text.into());
        self.again(&[], expect)
    }

    #[track_caller]
    fn again(&mut self, skipped: &[(String, String)], expect: &str) -> Desired {
        // What is kept between two revisions goes through its text, as after a restart.
        let previous = Applied::from_json(&self.applied.to_json()).unwrap();
        assert_eq!(previous, self.applied);
        let (desired, applied) = parse_skipping(&self.files, skipped, &previous);
        assert_eq!(force(&desired), expect);
        self.applied = applied;
        desired
    }
}

fn web(image: &str) -> String {
    service(&format!("{{image: {image}}}"))
}

fn api(image: &str) -> String {
    web(image).replace("web", "api")
}

#[test]
fn a_broken_document_holds_itself_and_nobody_else() {
    let mut story = Story::begin(&[("web.yaml", &web("a")), ("api.yaml", &api("a"))]);
    story.then("web.yaml", &service("{image: b, replicaz: 1}"), "api image=a · web (held) image=a");
    story.then("api.yaml", &api("b"), "api image=b · web (held) image=a");
    story.then("web.yaml", &web("c"), "api image=b · web image=c");
    let never = service("{image: a, replicaz: 1}").replace("web", "new");
    story.then("new.yaml", &never, "api image=b · new (held) nothing · web image=c");
}

#[test]
fn a_file_that_is_no_yaml_holds_what_it_defined_and_lets_the_rest_of_it_live() {
    let both = format!("{}---\n{}", web("a"), api("a"));
    let mut story = Story::begin(&[("all.yaml", &both)]);
    let broken = format!("{}---\n{}", web("b").replace("spec:", "spec: ["), api("b"));
    story.then("all.yaml", &broken, "api image=b · web (held) image=a");
    story.then(
        "all.yaml",
        &format!("{}---\n\"\n---\n{}", web("c"), api("c")),
        "api image=c · web image=c",
    );
    // What follows a mistake may have been anything: what is gone from such a file is not gone.
    let alone = web("d").replace("spec:", "spec: [");
    story.then("all.yaml", &alone, "api (held) image=c · web (held) image=c");
    story.then("all.yaml", "\u{0}", "api (held) image=c · web (held) image=c");
    let desired = story.then("all.yaml", "- [", "api (held) image=c · web (held) image=c");
    assert_eq!(desired.problems.len(), 1);
    story.files.remove("all.yaml");
    story.again(&[], "");
    assert_eq!(story.applied.objects().count(), 0);
}

#[test]
fn a_document_without_a_good_name_may_be_any_of_its_file() {
    let mut story = Story::begin(&[("web.yaml", &web("a")), ("api.yaml", &api("a"))]);
    let renamed = web("b").replace("web", "Web");
    story.then("web.yaml", &renamed, "api image=a · web (held) image=a");
    let slip = web("b").replace("evenkeel.dev", "evenkeel.io");
    story.then("web.yaml", &slip, "api image=a · web (held) image=a");
    // Of another group: it is nobody's here, and what was there before is gone.
    story.then("web.yaml", &web("b").replace("evenkeel.dev", "example.com"), "api image=a");
    assert_eq!(story.applied.foreign(), 1);
}

#[test]
fn what_was_not_read_is_held() {
    let given = [("a/web.yaml", web("a")), ("b/api.yaml", api("a"))];
    let given = given.each_ref().map(|(path, text)| (*path, text.as_str()));
    for (skipped, expect) in [
        ("a/web.yaml", "api image=a · web (held) image=a"),
        ("a", "api image=a · web (held) image=a"),
        ("a/", "api image=a · web (held) image=a"),
        ("a/we", "api image=a"),
        ("", "api image=a · web (held) image=a"),
        (".", "api image=a · web (held) image=a"),
    ] {
        let mut story = Story::begin(&given);
        story.files.remove("a/web.yaml");
        let desired = story.again(&[(skipped.into(), "too large".into())], expect);
        assert_eq!(desired.problems[0].message, "not read: too large");
    }
    // An object that moved to a file that could be read is not held.
    let mut story = Story::begin(&given);
    story.files.remove("a/web.yaml");
    story.files.insert("c.yaml".into(), web("b").into());
    story.again(&[("a".into(), "no permission".into())], "api image=a · web image=b");
}

#[test]
fn of_two_with_one_name_neither_counts() {
    let mut story = Story::begin(&[("web.yaml", &web("a"))]);
    let desired = story.then("z.yaml", &web("b"), "web (held) image=a");
    assert_eq!(
        render_problems(&desired.problems, "."),
        "web.yaml:3:18: ScalingService web: defined again at z.yaml:3:18\n  \
         hint: rename or remove one; until then neither counts\n\
         z.yaml:3:18: ScalingService web: defined a second time: first at web.yaml:3:18\n  \
         hint: rename or remove one; until then neither counts\n2 problems in 2 files\n"
    );
    // Where the second is broken as well, nothing changes.
    story.then("z.yaml", &service("{}"), "web (held) image=a");
}

#[test]
fn a_broken_fleet_stays_as_it_was() {
    let shop = fleet("shop", "[{name: h1, endpoint: \"unix:///a\"}]");
    let on_shop = service("{image: a, fleet: shop}");
    let mut story = Story::begin(&[("fleet.yaml", &shop), ("web.yaml", &on_shop)]);
    let desired = story.then("fleet.yaml", &shop.replace("h1", "h_1"), "web image=a");
    assert_eq!(desired.fleets.values().next().unwrap().hosts.keys().next().unwrap().as_str(), "h1");
    assert_eq!(desired.problems.len(), 1);
    // Gone while a service runs on it: the service is held, on the fleet as it was.
    story.files.remove("fleet.yaml");
    let desired = story.again(&[], "web (held) image=a");
    assert_eq!(desired.fleets.len(), 1);
    story.then("fleet.yaml", &shop, "web image=a");

    let fresh = [("fleet.yaml", shop.replace("h1", "h_1")), ("web.yaml", on_shop)];
    let (desired, _) = parse_files(&fresh.each_ref().map(|(p, t)| (*p, t.as_str())));
    assert_eq!(force(&desired), "web (held) nothing");
    assert_eq!(desired.problems.len(), 1, "the fleet's problem is told, not its services'");
}

#[test]
fn a_missing_secret_holds_the_service_and_its_record_survives() {
    let with = |image: &str, key: &str| {
        service(&format!(
            "{{image: {image}, env: [{{name: T, secret: {{name: app, key: {key}}}}}]}}"
        ))
    };
    let mut story = Story::begin(&[("web.yaml", &with("a", "token"))]);
    story.then("web.yaml", &with("b", "gone"), "web (held) image=a");
    assert!(!story.applied.to_json().contains("hunter2"));
    // Without any secrets not even the last good document can be read: held, nothing in force.
    let owner = owner();
    let ctx = Context {
        owner: &owner,
        secrets: &NoSecrets,
        previous: &story.applied,
        limits: Limits::default(),
        default_endpoint: DEFAULT_ENDPOINT,
    };
    let (desired, applied) = parse("r", &shared(&story.files), &[], &ctx);
    assert_eq!(force(&desired), "web (held) nothing");
    assert_eq!(applied, story.applied, "the record survives the failure");
}

#[test]
fn who_takes_a_port_from_a_running_service_waits() {
    let publishes = |name: &str, image: &str, port: u16| {
        let spec = format!(
            "{{image: {image}, ports: [{{name: http, containerPort: 80, publish: {port}}}]}}"
        );
        service(&spec).replace("web", name)
    };
    let mut story = Story::begin(&[("web.yaml", &publishes("web", "a", 80))]);
    // web moves to 81 by a document that is broken, so that it stays on 80, which api wants.
    story
        .files
        .insert("web.yaml".into(), publishes("web", "b", 81).replace("publish", "publ").into());
    let desired = story.then(
        "api.yaml",
        &publishes("api", "a", 80),
        "api (held) nothing · web (held) image=a",
    );
    assert_eq!(desired.problems.len(), 2, "web is told of its own mistake only");
    let told = desired.problems.iter().find(|p| p.path == "api.yaml").unwrap();
    assert!(told.message.ends_with(
        "80 on the host local is also published by ScalingService web (80, by its last good document in web.yaml)"
    ), "{}", told.message);
    story.then("web.yaml", &publishes("web", "b", 81), "api image=a · web image=b");
    // Both ask for one port: both stay where they were.
    story.files.insert("web.yaml".into(), publishes("web", "c", 90).into());
    story.then("api.yaml", &publishes("api", "c", 90), "api (held) image=a · web (held) image=b");
}

#[test]
fn the_record_is_text_that_cannot_hurt() {
    for bad in [
        "",
        "null",
        "[]",
        "{}",
        "{\"version\":2}",
        "{\"version\":1,\"objects\":[]}",
        "{\"version\":1,\"objects\":{\"ScalingService/../x\":{\"path\":\"a\",\"document\":\"\"}}}",
        "{\"version\":1,\"objects\":{\"Fleet/x\":{\"path\":\"a\"}}}",
        &"[".repeat(100_000),
    ] {
        Applied::from_json(bad).expect_err(bad);
    }
    // Well-formed, but its documents are not: held, and nothing in force.
    for document in ["", "{", "[]", "{\\\"kind\\\":\\\"ScalingService\\\"}"] {
        let text = format!(
            "{{\"version\":1,\"objects\":{{\"ScalingService/web\":{{\"path\":\"a.yaml\",\"document\":\"{document}\"}}}}}}"
        );
        let previous = Applied::from_json(&text).unwrap();
        let (desired, _) = parse_with(&files(&[("a.yaml", "[")]), &previous);
        assert_eq!(force(&desired), "web (held) nothing");
    }
}

#[test]
fn a_service_does_not_move_to_the_local_engine_because_its_fleet_lost_its_document() {
    let web = service("{image: a, replicas: 2}");
    let remote = "apiVersion: evenkeel.dev/v1alpha1\nkind: Fleet\nmetadata: {name: default}\n\
                  spec: {backend: {docker: {hosts: [{name: far, endpoint: \"tcp://10.0.0.1:2375\"}]}}}\n";
    let (_, first) =
        parse_with(&files(&[("web.yaml", &web), ("fleet.yaml", remote)]), &Applied::default());
    let mut previous = first;
    for _ in 0..2 {
        let (desired, applied) = parse_with(&files(&[("web.yaml", &web)]), &previous);
        assert_eq!(desired.problems.len(), 1, "{:?}", desired.problems);
        assert!(desired.problems[0].message.contains("would move to the local engine"));
        let fleet = desired.fleets.values().next().unwrap();
        assert_eq!(fleet.hosts.keys().next().unwrap().as_str(), "far");
        previous = Applied::from_json(&applied.to_json()).unwrap();
    }
    // Nobody ever wrote one: the local engine is meant.
    let (desired, _) = parse_with(&files(&[("web.yaml", &web)]), &Applied::default());
    assert!(desired.problems.is_empty(), "{:?}", desired.problems);
}

#[test]
fn the_fleets_of_an_emptied_source_stay_to_say_that_nothing_is_removed() {
    let web = service("{image: a, fleet: shop}");
    let shop = "apiVersion: evenkeel.dev/v1alpha1\nkind: Fleet\nmetadata: {name: shop}\n\
                spec: {backend: {docker: {hosts: [{name: h1, endpoint: \"unix:///s\"}]}}}\n";
    let (_, mut previous) =
        parse_with(&files(&[("web.yaml", &web), ("fleet.yaml", shop)]), &Applied::default());
    for _ in 0..2 {
        let (desired, applied) = parse_with(&files(&[]), &previous);
        let names: Vec<&str> = desired.fleets.keys().map(FleetName::as_str).collect();
        assert_eq!((names, desired.services.len()), (vec!["shop"], 0));
        previous = Applied::from_json(&applied.to_json()).unwrap();
    }
    // A fleet that nobody needs any more is let go with the next revision that has services.
    let (desired, _) = parse_with(&files(&[("web.yaml", &service("{image: a}"))]), &previous);
    assert_eq!(desired.fleets.keys().next().map(FleetName::as_str), Some("default"));
    // An empty source from the start: the local engine may hold what an agent before us started.
    let (desired, _) = parse_with(&files(&[]), &Applied::default());
    assert_eq!(desired.fleets.keys().next().map(FleetName::as_str), Some("default"));
}
