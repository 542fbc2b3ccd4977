//! Balancers and routes from one revision to the next: what was in force stays in force.

use super::traffic::rules;
use super::*;
use crate::model::ServiceName;

const EDGE: &str = "apiVersion: evenkeel.dev/v1alpha1\nkind: LoadBalancer\nmetadata: {name: edge}\n\
    spec: {provider: {haproxy: {}}, listeners: [{name: http, port: 80, publish: 8181}]}\n";

fn at(name: &str, host: &str) -> String {
    let spec = format!(
        "{{image: a, routes: [{{loadBalancer: edge, listener: http, host: {host}, port: 80}}]}}"
    );
    service(&spec).replace("name: web", &format!("name: {name}"))
}

/// One revision after another; what is kept goes through its text, as after a restart.
#[derive(Default)]
struct Story {
    files: Files,
    applied: Applied,
}

impl Story {
    #[track_caller]
    fn then(&mut self, path: &str, text: &str, expect: &[&str]) -> Desired {
        self.files.insert(path.into(), text.into());
        let previous = Applied::from_json(&self.applied.to_json()).unwrap();
        let (desired, applied) = parse_with(&self.files, &previous);
        assert_eq!(rules(&desired), expect, "{:?}", desired.problems);
        self.applied = applied;
        desired
    }
}

#[test]
fn who_had_the_requests_keeps_them_whatever_the_others_are_called() {
    let mut story = Story::default();
    story.then("edge.yaml", EDGE, &[]);
    story.then("m.yaml", &at("mid", "app"), &["edge http app/ mid"]);
    // Its name sorts before.
    let desired = story.then("a.yaml", &at("early", "app"), &["edge http app/ mid"]);
    assert_eq!(
        render_problems(&desired.problems, ""),
        "a.yaml:4:27: ScalingService early: spec.routes[0]: app/ on the listener http is taken by the service mid; the route is left out\n  \
         hint: choose another host or pathPrefix, or remove the other route\n1 problem in 1 file\n"
    );
    let early = &desired.services[&ServiceName::new("early").unwrap()];
    assert!(desired.held.is_empty() && !early.routed);
    // Both documents are on record now; it is still who had them.
    for _ in 0..3 {
        story.then(
            "z.yaml",
            &at("zulu", "other"),
            &["edge http app/ mid", "edge http other/ zulu"],
        );
    }
    // It cannot have them for a revision, and nobody else wants them: its right stays.
    story.files.remove("a.yaml");
    story.then(
        "m.yaml",
        &at("mid", "app").replace("listener: http", "listener: htpt"),
        &["edge http other/ zulu"],
    );
    story.then("m.yaml", &at("mid", "app"), &["edge http app/ mid", "edge http other/ zulu"]);
    story.then("a.yaml", &at("early", "app"), &["edge http app/ mid", "edge http other/ zulu"]);
    // It wants them no more.
    story.then(
        "m.yaml",
        &at("mid", "third"),
        &["edge http app/ early", "edge http other/ zulu", "edge http third/ mid"],
    );
}

#[test]
fn without_history_the_first_by_name_has_them_whatever_the_files_are_called() {
    for (one, other) in [("1.yaml", "2.yaml"), ("2.yaml", "1.yaml")] {
        let (desired, _) = parse_files(&[
            ("edge.yaml", EDGE),
            (one, &at("mid", "app")),
            (other, &at("early", "app")),
        ]);
        assert_eq!(rules(&desired), ["edge http app/ early"]);
        assert_eq!(desired.problems.len(), 1);
    }
}

#[test]
fn a_broken_balancer_keeps_its_last_good_routing() {
    let mut story = Story::default();
    story.then("web.yaml", &at("web", "app"), &[]);
    story.then("edge.yaml", EDGE, &["edge http app/ web"]);
    let broken = EDGE.replace("name: http, port: 80", "name: web, port: 0");
    let desired = story.then("edge.yaml", &broken, &["edge http app/ web"]);
    assert!(desired.held.contains(&ServiceName::new("edge").unwrap()));
    assert_eq!(desired.problems.len(), 1, "{:?}", desired.problems);
    // New routes go on being taken while it is.
    story.then("api.yaml", &at("api", "api"), &["edge http api/ api", "edge http app/ web"]);
    // Renamed for good: the route is left out, and the service told why.
    let renamed = EDGE.replace("name: http", "name: web");
    let desired = story.then("edge.yaml", &renamed, &[]);
    assert_eq!(desired.problems.len(), 2, "{:?}", desired.problems);
}

#[test]
fn a_service_of_the_balancers_name_takes_nothing_from_it() {
    let mut story = Story::default();
    story.then("web.yaml", &at("web", "app"), &[]);
    story.then("edge.yaml", EDGE, &["edge http app/ web"]);
    let desired = story.then(
        "more.yaml",
        &service("{image: b}").replace("name: web", "name: edge"),
        &["edge http app/ web"],
    );
    let edge = ServiceName::new("edge").unwrap();
    assert!(desired.held.contains(&edge) && desired.services[&edge].spec.image == "haproxy:3.2");
}

/// A place for one certificate.
struct Pem(Result<String, String>);

impl Secrets for Pem {
    fn get(&self, _: &str, _: &str) -> Result<Secret, String> {
        self.0.as_deref().map(Secret::new).map_err(Clone::clone)
    }
}

struct StandIn;

impl Secrets for StandIn {
    fn get(&self, _: &str, _: &str) -> Result<Secret, String> {
        Ok(Secret::new("(secret)"))
    }
    fn are_stand_ins(&self) -> bool {
        true
    }
}

fn with(secrets: &dyn Secrets, previous: &Applied) -> (Desired, Applied) {
    let tls =
        EDGE.replace("publish: 8181", "publish: 8181, certificates: [{name: site, key: tls}]");
    let owner = owner();
    let ctx = Context {
        owner: &owner,
        secrets,
        previous,
        limits: Limits::default(),
        default_endpoint: DEFAULT_ENDPOINT,
    };
    parse("r1", &shared(&files(&[("edge.yaml", &tls), ("web.yaml", &at("web", "app"))])), &[], &ctx)
}

fn pem() -> String {
    let made = rcgen::generate_simple_self_signed(vec!["app".to_owned()]).unwrap();
    made.cert.pem() + &made.signing_key.serialize_pem()
}

#[test]
fn a_certificate_that_would_not_load_is_the_balancers_problem() {
    let none = Applied::default();
    for (pem, expect) in [
        (
            Err("there is no file".to_owned()),
            "edge.yaml:4:98: LoadBalancer edge: spec.listeners[0].certificates[0]: no secret site/tls: there is no file",
        ),
        (
            Ok("garbage".to_owned()),
            "edge.yaml:4:98: LoadBalancer edge: spec.listeners[0].certificates[0]: the secret site/tls has no certificate in it\n  \
             hint: the secret holds PEM text: the certificate, then those that signed it, and its key",
        ),
    ] {
        let (desired, _) = with(&Pem(pem), &none);
        let told = render_problems(&desired.problems, "");
        assert!(told.starts_with(expect), "{told}");
        assert!(!told.contains("garbage"), "{told}");
    }
    assert_eq!(with(&Pem(Ok(pem())), &none).0.problems, []);
    assert_eq!(with(&StandIn, &none).0.problems, [], "nothing is known of what only stands for it");
}

#[test]
fn a_renewal_that_went_wrong_changes_nothing_that_is_in_force() {
    let good = Pem(Ok(pem()));
    let (first, applied) = with(&good, &Applied::default());
    for bad in [Pem(Ok("garbage".into())), Pem(Err("gone".into()))] {
        let (desired, kept) = with(&bad, &applied);
        assert_eq!(desired.problems.len(), 1, "{:?}", desired.problems);
        assert_eq!(desired.routings, first.routings);
        assert_eq!(kept, applied, "and so at the next look");
    }
    assert!(!applied.to_json().contains("PRIVATE"));
    // After a restart nothing is known of the certificate: what runs is left alone, and nobody leaves it unseen.
    let restarted = Applied::from_json(&applied.to_json()).unwrap();
    let (desired, kept) = with(&Pem(Ok("garbage".into())), &restarted);
    let (edge, web) = (ServiceName::new("edge").unwrap(), ServiceName::new("web").unwrap());
    assert!(desired.held.contains(&edge) && desired.routings.is_empty());
    let web = &desired.services[&web];
    assert!(web.routed && web.exposure.pools.len() == 1, "{:?}", web.exposure);
    assert_eq!(
        web.exposure.left_out,
        ["the load balancer edge goes on with what it has: its own document has a problem"]
    );
    // And it has its requests back with the certificate.
    assert_eq!(with(&good, &kept).0.routings, first.routings);
}
