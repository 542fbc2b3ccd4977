//! The configuration as text, and what is seen of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::facts::Facts;
use super::shell::State;
use super::sight::Sight;
use super::{Culprit, Image, LeftOut, Part, Stream, render};
use crate::model::{
    Balance, BalancerKind, Certificate, Fragments, InstanceId, Listener, ListenerProtocol, Pool,
    PoolName, Route, Routing, Secret, Seen, Server, ServerState, ServiceName, Slot, Table, Target,
    Time,
};

pub(super) fn name(service: &str) -> PoolName {
    PoolName::new(&ServiceName::new(service).unwrap(), 80, None)
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn server(service: &str, slot: u32, target: Target) -> Server {
    Server {
        instance: InstanceId(format!("{service}{slot}-0123456789ab").into()),
        name: format!("{service}_{slot}").into(),
        slot: Slot(slot),
        address: format!("10.0.0.{slot}:80").parse().unwrap(),
        target,
        sick: false,
    }
}

pub(super) fn table() -> Table {
    let http = |name: &str, port, protocol| Listener {
        name: name.into(),
        port,
        protocol,
        certificates: Vec::new(),
    };
    let mut listeners = vec![
        http("http", 80, ListenerProtocol::Http),
        http("https", 443, ListenerProtocol::Http),
        http("db", 5432, ListenerProtocol::Tcp),
    ];
    let pem = Secret::new("not looked at here");
    listeners[1].certificates.push(Certificate { name: "site.tls".into(), pem });
    let route = |listener: &str, host: Option<&str>, path: &str, pool: &str| Route {
        listener: listener.into(),
        host: host.map(str::to_owned),
        path: path.into(),
        pool: name(pool),
    };
    let routes = vec![
        route("http", Some("app-test"), "/", "web"),
        route("http", Some("app-test"), "/cart", "cart"),
        route("http", Some("*.example.com"), "/", "nobody"),
        route("https", None, "/", "web"),
        route("db", None, "/", "db"),
    ];
    let pool = |service: &str, protocol, cookie: Option<&str>| Pool {
        service: ServiceName::new(service).unwrap(),
        port: 80,
        protocol,
        balance: Balance::Leastconn,
        cookie: cookie.map(str::to_owned),
        check: None,
        most: 4,
    };
    let pools = BTreeMap::from([
        (name("web"), pool("web", ListenerProtocol::Http, None)),
        (name("cart"), pool("cart", ListenerProtocol::Http, Some("CART"))),
        (name("nobody"), pool("nobody", ListenerProtocol::Http, None)),
        (name("db"), pool("db", ListenerProtocol::Tcp, None)),
    ]);
    let fragments = Fragments {
        global: None,
        defaults: Some("proxy_connect_timeout 2s;".into()),
        frontend: None,
        backend: Some("proxy_read_timeout 7s;\nproxy_set_header X-Keel even;".into()),
    };
    let routing = Routing {
        kind: BalancerKind::Nginx,
        listeners,
        routes,
        pools,
        fragments,
        access_log: true,
        drain: Duration::from_millis(1500),
        external: vec![],
    };
    let servers = BTreeMap::from([
        (name("web"), vec![server("web", 1, Target::Ready), server("web", 2, Target::Drain)]),
        (name("cart"), vec![server("cart", 3, Target::Ready), server("cart", 4, Target::Ready)]),
        (name("db"), vec![server("db", 5, Target::Ready)]),
    ]);
    Table { routing: Arc::new(routing), servers, complete: true, held: false }
}

fn change(table: &mut Table, how: impl FnOnce(&mut Routing)) {
    how(Arc::make_mut(&mut table.routing));
}

#[test]
fn the_whole_configuration() {
    let image = Image {
        version: (1, 22, 1),
        stream: Stream::Module("/usr/lib/nginx/modules/ngx_stream_module.so".into()),
        ..Image::default()
    };
    insta::assert_snapshot!(render(&table(), &image, &LeftOut::new()).text);
}

#[test]
fn what_newer_versions_say_otherwise() {
    let text = render(&table(), &Image::default(), &LeftOut::new()).text;
    assert!(text.contains("listen 443 ssl default_server;\n        http2 on;"), "{text}");
    assert!(text.contains("keepalive_min_timeout 1s;") && !text.contains("load_module"));
}

#[test]
fn every_line_knows_whom_it_belongs_to() {
    let rendered = render(&table(), &Image::default(), &LeftOut::new());
    assert_eq!(rendered.culprits.len(), rendered.text.lines().count());
    let of = |wanted: &str| {
        let at = rendered.text.lines().position(|line| line.trim().starts_with(wanted)).unwrap();
        rendered.culprits[at].clone()
    };
    assert_eq!(of("proxy_read_timeout 7s"), Culprit::Part(Part::Backend));
    assert_eq!(of("proxy_connect_timeout 2s"), Culprit::Part(Part::Defaults));
    assert_eq!(of("server 10.0.0.2"), Culprit::Pool(name("web")));
    assert_eq!(of("location = /cart"), Culprit::Route(1));
    assert_eq!(of("ssl_certificate "), Culprit::Certificate("site.tls".into()));
    assert_eq!(of("listen 80"), Culprit::Listener("http".into()));
    assert_eq!(of("events"), Culprit::Ours);
}

#[test]
fn what_this_nginx_cannot_do_is_refused_and_the_rest_is_not() {
    let image = Image { stream: Stream::Missing, ..Image::default() };
    let rendered = render(&table(), &image, &LeftOut::new());
    let why = &rendered.facts.refused[&service("db")];
    assert_eq!(why, "listener db is tcp, and nginx in this image has no stream module");
    assert_eq!(rendered.facts.refused.len(), 1);
    assert!(!rendered.text.contains("stream {") && rendered.text.contains("upstream web.80 {"));
    assert_eq!(rendered.facts.pools.len(), 3);
}

#[test]
fn nothing_hostile_reaches_the_file() {
    let hosts = ["a;b", "a b", "a\nb", "a{", "a}", "a\"", "a'", "$a", "~a", "a\\", ".a", "A"];
    let paths = ["/a;b", "/a b", "/a\nb", "/a{", "/a}", "/a\"", "/a'", "/$a", "a", "/%41", "/\\"];
    let all = hosts.map(|h| (Some(h), "/")).into_iter().chain(paths.map(|p| (None, p)));
    for (host, path) in all {
        let mut table = table();
        change(&mut table, |routing| {
            routing.routes[0].host = host.map(str::to_owned);
            routing.routes[0].path = path.into();
        });
        let rendered = render(&table, &Image::default(), &LeftOut::new());
        assert_eq!(rendered.facts.refused.len(), 1, "{host:?} {path:?}");
        assert!(!rendered.culprits.contains(&Culprit::Route(0)), "{host:?} {path:?}");
    }
    let mut table = table();
    table.servers.get_mut(&name("web")).unwrap()[0].name = "a;\nb".into();
    change(&mut table, |routing| {
        routing.pools.get_mut(&name("cart")).unwrap().cookie = Some("a\"; b".into());
        routing.fragments.frontend = Some("} server {".into());
    });
    let Facts { refused, problem, .. } = render(&table, &Image::default(), &LeftOut::new()).facts;
    assert!(refused.contains_key(&service("web")) && refused.contains_key(&service("cart")));
    assert_eq!(problem.unwrap(), "fragment frontend is left out: it has a `}` too many");
}

#[test]
fn the_digest_follows_what_matters_only() {
    let digest = |table: &Table| render(table, &Image::default(), &LeftOut::new()).facts.digest;
    let base = digest(&table());
    assert_eq!(base, digest(&table()));
    let mut same = table();
    change(&mut same, |routing| {
        routing.pools.values_mut().for_each(|pool| pool.most += 1);
    });
    assert_eq!(base, digest(&same));
    let mut other = table();
    other.servers.get_mut(&name("web")).unwrap()[0].target = Target::Drain;
    assert_ne!(base, digest(&other));
    let mut other = table();
    change(&mut other, |r| r.listeners[1].certificates[0].pem = Secret::new("renewed"));
    assert_ne!(base, digest(&other));
    let text = render(&table(), &Image::default(), &LeftOut::new()).text;
    assert!(!text.contains("not looked at"), "a key is in the configuration");
}

#[test]
fn whoever_is_kept_is_written_as_before() {
    let before = facts(&table());
    let read = Facts::parse(&before.lines().join("\n")).unwrap();
    let mut some = Table { complete: false, ..table() };
    some.servers.get_mut(&name("web")).unwrap().remove(0);
    let in_force = |of: &Facts| {
        let all = of.servers.iter().map(|((pool, _), server)| (pool.clone(), server.clone()));
        all.collect::<Vec<_>>().into_iter()
    };
    let kept = Arc::new(some.clone()).keeping(in_force(&read));
    assert_eq!(facts(&kept), before, "nothing to reload for");
    // What an earlier version wrote does not say who they are.
    let mut nameless = read;
    for server in nameless.servers.values_mut() {
        *server = Server::unlisted(server.slot, server.address, server.target);
    }
    let facts = facts(&Arc::new(some).keeping(in_force(&nameless)));
    assert!(facts.refused.is_empty(), "{:?}", facts.refused);
    assert_eq!(facts.servers.len(), before.servers.len());
}

/// Some instances of some services, whoever they are.
fn some() -> impl Strategy<Value = Vec<(&'static str, u32, bool)>> {
    let one = (prop_oneof![Just("web"), Just("cart"), Just("db")], 1..5u32, any::<bool>());
    proptest::collection::vec(one, 0..8)
}

fn with(some: &[(&str, u32, bool)], complete: bool) -> Arc<Table> {
    let mut servers: BTreeMap<PoolName, Vec<Server>> = BTreeMap::new();
    for (service, slot, ready) in some {
        let target = if *ready { Target::Ready } else { Target::Drain };
        let its = servers.entry(name(service)).or_default();
        if its.iter().all(|s| s.slot != Slot(*slot)) {
            its.push(server(service, *slot, target));
            its.sort_by_key(|s| s.slot);
        }
    }
    Arc::new(Table { servers, complete, ..table() })
}

proptest! {
    /// Promise 5: unlisted is not gone, whatever else changes, and nobody's route is lost by it.
    #[test]
    fn an_incomplete_table_takes_nobody_out(before in some(), after in some()) {
        let before = facts(&with(&before, true));
        let in_force = before.servers.iter().map(|((pool, _), s)| (pool.clone(), s.clone()));
        let asked = with(&after, false);
        let now = facts(&asked.keeping(in_force.collect::<Vec<_>>().into_iter()));
        prop_assert!(now.refused.is_empty(), "{:?}", now.refused);
        for (key, was) in &before.servers {
            let listed = asked.servers.get(&key.0).and_then(|all| all.iter().find(|s| s.address == key.1));
            prop_assert_eq!(&now.servers[key], listed.unwrap_or(was));
        }
    }
}

fn state(digest: &str, workers: &[u32], old: &[u32]) -> State {
    State {
        digest: Some(digest.into()),
        workers: workers.iter().copied().collect(),
        old: old.iter().copied().collect(),
        requests: 0,
        told: None,
    }
}

fn facts(table: &Table) -> Facts {
    render(table, &Image::default(), &LeftOut::new()).facts
}

#[test]
fn a_draining_server_is_busy_while_a_worker_lives_that_knew_it_as_ready() {
    let (mut before, after) = (table(), table());
    before.servers.get_mut(&name("web")).unwrap()[1].target = Target::Ready;
    let drained = (name("web"), "10.0.0.2:80".parse().unwrap());
    let mut sight = Sight::never(Time(0));
    sight.answered(state("nothing", &[1], &[]), None, Time(1));
    assert!(!sight.view(&before).listening && sight.view(&before).servers.is_empty());
    let (first, second) = (facts(&before), facts(&after));
    sight.took(first.clone(), state(&first.digest, &[2], &[1]), Time(2));
    let view = sight.view(&before);
    assert!(view.listening && view.pools.len() == 4 && view.old_workers == 1);
    assert_eq!(view.servers[&drained].state, ServerState::Up);
    assert!(!sight.view(&after).pools.contains(&name("web")), "it is not as ordered yet");

    sight.took(second.clone(), state(&second.digest, &[3], &[1, 2]), Time(3));
    let seen = |sight: &Sight| {
        let server = sight.view(&after).servers[&drained];
        (server.state, server.since, server.sessions)
    };
    assert_eq!(seen(&sight), (ServerState::Draining, Time(3), 2));
    // A later reload leaves a worker behind that never sent it anything.
    sight.answered(state(&second.digest, &[4], &[2, 3]), None, Time(4));
    assert_eq!(seen(&sight), (ServerState::Draining, Time(3), 1));
    sight.answered(state(&second.digest, &[4], &[3]), None, Time(5));
    assert_eq!(seen(&sight), (ServerState::Draining, Time(3), 0));

    // An agent that starts anew takes every old worker for one that may know it.
    let mut anew = Sight::never(Time(9));
    anew.answered(state(&second.digest, &[4], &[2, 3]), Some(second.clone()), Time(10));
    assert_eq!(seen(&anew), (ServerState::Draining, Time(10), 2));
    assert_eq!(anew.view(&after).pools.len(), 4);
    // What is on disk and not in force says nothing.
    let mut misled = Sight::never(Time(9));
    misled.answered(state(&first.digest, &[4], &[]), Some(second), Time(10));
    assert!(misled.view(&after).servers.is_empty() && !misled.view(&after).listening);
}

#[test]
fn silence_keeps_what_was_known() {
    let table = table();
    let facts = facts(&table);
    let mut sight = Sight::never(Time(0));
    sight.silent("no".into(), Time(1));
    assert_eq!(sight.view(&table).seen, Seen::Never { since: Time(0) });
    sight.took(facts.clone(), state(&facts.digest, &[1], &[]), Time(2));
    sight.answered(state(&facts.digest, &[1], &[]), None, Time(2));
    sight.silent("gone".into(), Time(3));
    sight.silent("gone still".into(), Time(4));
    let view = sight.view(&table);
    assert_eq!(view.seen, Seen::Silent { since: Time(3) });
    assert_eq!((view.problem.as_deref(), view.servers.len()), (Some("gone still"), 5));
}
