//! Objects of an API: they are deleted by name, and that one is not there any more says nothing.

use super::*;
use crate::model::ServiceName;
use crate::source::Objects;

/// Parses one revision after another.
#[derive(Default)]
struct Story {
    files: Files,
    leaving: BTreeSet<String>,
    root: &'static str,
    applied: Applied,
}

impl Story {
    fn put(&mut self, path: &str, text: &str) -> &mut Self {
        self.files.insert(path.into(), text.into());
        self
    }

    fn parse(&mut self) -> Desired {
        let previous = Applied::from_json(&self.applied.to_json()).unwrap();
        let owner = owner();
        let ctx = Context {
            owner: &owner,
            secrets: &OneSecret,
            previous: &previous,
            limits: Limits::default(),
            default_endpoint: DEFAULT_ENDPOINT,
        };
        let objects = Objects { root: self.root.into(), leaving: self.leaving.clone() };
        let (desired, applied) = parse_objects(
            "r",
            &shared(&self.files),
            &[],
            Some(&objects),
            &ctx,
            &mut Known::default(),
        );
        self.applied = applied;
        desired
    }
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn names(given: &[&str]) -> BTreeSet<ServiceName> {
    given.iter().map(|n| name(n)).collect()
}

#[test]
fn what_is_being_deleted_is_wanted_no_more_and_leaves_as_it_says() {
    let mut story = Story::default();
    story.put("a/web", &service("{image: a, replicas: 3, suspend: true}"));
    assert_eq!(story.parse().services[&name("web")].replicas, 3);
    story.leaving.insert("a/web".into());
    let desired = story.parse();
    let web = &desired.services[&name("web")];
    assert_eq!((web.replicas, web.suspend), (0, false));
    assert_eq!(desired.held, names(&[]));
    assert_eq!(desired.removal.deleted, names(&["web"]));
}

#[test]
fn what_is_being_deleted_and_broken_leaves_as_its_last_good_document_says() {
    let mut story = Story::default();
    story.put("a/web", &service("{image: a, replicas: 3}")).parse();
    story.put("a/web", &service("{replicas: many}"));
    assert_eq!(story.parse().held, names(&["web"]));
    story.leaving.insert("a/web".into());
    let desired = story.parse();
    assert_eq!((desired.services[&name("web")].replicas, desired.held), (0, names(&[])));
    assert_eq!(desired.problems, [], "what goes need not be mended");
    // Without any good document it is told by name.
    story.applied = Applied::default();
    let desired = story.parse();
    assert!(desired.services.is_empty() && desired.held.is_empty());
    assert_eq!(desired.removal.deleted, names(&["web"]));
}

#[test]
fn of_two_of_one_name_the_deleted_one_leaves_what_runs_to_the_other() {
    let mut story = Story::default();
    story.put("a/web", &service("{image: a, replicas: 3}"));
    story.put("b/web", &service("{image: b, replicas: 2}"));
    let paths: Vec<String> = story.parse().problems.into_iter().map(|p| p.path).collect();
    assert_eq!(paths, ["a/web", "b/web"], "a problem on both");
    story.leaving.insert("a/web".into());
    let desired = story.parse();
    assert_eq!(desired.problems, []);
    assert_eq!(desired.services[&name("web")].replicas, 2);
    assert_eq!(desired.removal.deleted, names(&[]));
}

#[test]
fn absence_says_something_of_files_only() {
    let mut story = Story { root: "kubernetes/", ..Story::default() };
    let api = service("{image: a}").replace("name: web", "name: api");
    let here = service("{image: a}").replace("name: web", "name: here");
    story.put("git/web.yaml", &service("{image: a}")).put("kubernetes/a/api", &api);
    story.put("kubernetes/a/here", &here);
    let only = |desired: Desired| desired.removal.only.unwrap();
    assert_eq!(only(story.parse()), names(&[]));
    story.files.remove("git/web.yaml");
    story.files.remove("kubernetes/a/api");
    assert_eq!(only(story.parse()), names(&["web"]));
    assert_eq!(only(story.parse()), names(&["web"]), "it is remembered until it is there again");
    story.put("kubernetes/a/web", &service("{image: a}"));
    assert_eq!(only(story.parse()), names(&[]));
}

#[test]
fn what_a_document_implies_goes_with_the_word_that_implied_it() {
    let mut story = Story::default();
    let shop = fleet("shop", "[{name: h1, endpoint: \"unix:///a\"}]");
    story.put("a/shop", &shop);
    let expected = names(&["shop-consul", "shop-consul-agent"]);
    assert_eq!(story.parse().removal.only.unwrap(), expected);
}

#[test]
fn an_object_cannot_have_files_and_commands_of_the_agents_machine() {
    let external = "apiVersion: evenkeel.dev/v1alpha1\nkind: LoadBalancer\nmetadata: {name: edge}\nspec:\n  provider: \
                    {haproxy: {external: [{runtimeSocket: /s, configFile: /c, check: [a, \"{candidate}\"], reload: [b]}]}}\n  \
                    listeners: [{name: http, port: 9099}]\n";
    let mut story = Story { root: "objects/", ..Story::default() };
    story.put("objects/a/LoadBalancer/edge", external);
    let desired = story.parse();
    assert!(desired.routings.is_empty());
    assert!(desired.problems[0].message.contains("no custom resource"), "{:?}", desired.problems);
    // In git, whose writers are trusted with it, it is as good as ever.
    story.files = [("git/edge.yaml".to_owned(), external.into())].into();
    let desired = story.parse();
    assert_eq!((desired.problems.len(), desired.routings.len()), (0, 1), "{:?}", desired.problems);
}

#[test]
fn an_objects_credentials_are_secrets_and_no_files_of_the_agents_machine() {
    let tls = |form: &str| {
        fleet("shop", &format!("[{{name: h1, endpoint: \"tcp://h1:2376\", tls: {{{form}}}}}]"))
    };
    let files = tls("caFile: /a, certFile: /b, keyFile: /c");
    let token = "{name: app, key: token}";
    let secrets = tls(&format!("caSecret: {token}, certSecret: {token}, keySecret: {token}"));
    let mut story = Story { root: "objects/", ..Story::default() };
    story.put("objects/a/Fleet/shop", &files);
    let desired = story.parse();
    let message = &desired.problems[0].message;
    assert!(message.contains("tls.caFile: a file of the agent's own machine"), "{message}");
    assert!(desired.problems[0].hint.as_ref().unwrap().contains("caSecret"));
    assert!(desired.fleets.keys().all(|name| name.as_str() != "shop"));
    story.put("objects/a/Fleet/shop", &secrets);
    let desired = story.parse();
    assert_eq!(desired.problems, []);
    let shown = format!("{:?}", desired.fleets);
    assert!(shown.contains("token") && !shown.contains("hunter2"), "{shown}");
    // A secret that is not there holds the fleet at its last good document.
    story.put("objects/a/Fleet/shop", &secrets.replace("key: token", "key: gone"));
    let desired = story.parse();
    assert!(desired.problems[0].message.contains("no secret app/gone"), "{:?}", desired.problems);
    assert!(desired.fleets.keys().any(|name| name.as_str() == "shop"));
    // In git both forms are as good.
    story.files = [("git/fleet.yaml".to_owned(), files.into())].into();
    assert_eq!(story.parse().problems, []);
    story.files = [("git/fleet.yaml".to_owned(), secrets.into())].into();
    assert_eq!(story.parse().problems, []);
}

#[test]
fn what_is_being_deleted_has_no_part_on_any_fleet() {
    let mut story = Story::default();
    for name in ["near", "far"] {
        story.put(&format!("a/{name}"), &fleet(name, "[{name: h1, endpoint: \"unix:///a\"}]"));
    }
    let parts = "[{fleet: near, replicas: 2}, {fleet: far, weight: 1}]";
    let web = format!("{{image: a, replicas: 3, placements: {parts}}}");
    story.put("a/web", &service(&web));
    let of = |desired: Desired| -> Vec<u32> {
        desired.services[&name("web")].placements.values().copied().collect()
    };
    assert_eq!(of(story.parse()), [1, 2]);
    story.leaving.insert("a/web".into());
    assert_eq!(of(story.parse()), [0, 0]);
}
