//! Tables for tests, and what becomes of them as text.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::assign::{Seat, Seats};
use super::render::{Culprit, LeftOut, Rendered, boot, render};
use super::site::Frame;
use super::words::Section;
use crate::model::{
    Balance, BalancerKind, Certificate, Fragments, Listener, ListenerProtocol, Pool, PoolName,
    Probe, ProbeKind, Route, Routing, Secret, ServiceName, Target,
};

pub(super) fn pool(service: &str, most: u32) -> Pool {
    Pool {
        service: ServiceName::new(service).unwrap(),
        port: 8080,
        protocol: ListenerProtocol::Http,
        balance: Balance::Roundrobin,
        cookie: None,
        check: None,
        most,
    }
}

fn pool_name(service: &str, port: u16) -> PoolName {
    PoolName::new(&ServiceName::new(service).unwrap(), port, None)
}

fn route(listener: &str, host: Option<&str>, path: &str, pool: &PoolName) -> Route {
    Route {
        listener: listener.into(),
        host: host.map(String::from),
        path: path.into(),
        pool: pool.clone(),
    }
}

fn listener(name: &str, port: u16, protocol: ListenerProtocol) -> Listener {
    Listener { name: name.into(), port, protocol, certificates: vec![] }
}

/// One of everything.
fn routing() -> Routing {
    let (web, api, db) = (pool_name("web", 8080), pool_name("api", 9000), pool_name("db", 5432));
    let probe = |kind, port| {
        Some(Probe {
            kind,
            port,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            failure_threshold: 3,
            start_period: Duration::ZERO,
        })
    };
    let tls = Certificate { name: "tls.shop.pem".into(), pem: Secret::new("not shown") };
    Routing {
        kind: BalancerKind::Haproxy,
        listeners: vec![
            listener("http", 80, ListenerProtocol::Http),
            Listener { certificates: vec![tls], ..listener("https", 443, ListenerProtocol::Http) },
            listener("postgres", 5432, ListenerProtocol::Tcp),
            listener("unused", 81, ListenerProtocol::Tcp),
        ],
        routes: vec![
            route("http", Some("shop.example"), "/", &web),
            route("http", Some("shop.example"), "/api/v1", &api),
            route("http", Some("shop.example"), "/api/", &api),
            route("http", Some("*.shop.example"), "/", &web),
            route("http", Some("*.eu.shop.example"), "/", &api),
            route("http", None, "/status", &api),
            route("https", None, "/", &web),
            route("postgres", None, "/", &db),
        ],
        pools: BTreeMap::from([
            (
                web,
                Pool {
                    cookie: Some("SRV".into()),
                    balance: Balance::Leastconn,
                    check: probe(ProbeKind::Http { path: "/healthz".into() }, 8080),
                    ..pool("web", 3)
                },
            ),
            // Another port is asked: only a connection is made.
            (
                api,
                Pool { check: probe(ProbeKind::Http { path: "/h".into() }, 81), ..pool("api", 1) },
            ),
            (
                db,
                Pool { protocol: ListenerProtocol::Tcp, balance: Balance::Source, ..pool("db", 1) },
            ),
        ]),
        fragments: Fragments {
            global: Some("maxconn 2000".into()),
            defaults: Some("maxconn 1000".into()),
            frontend: Some("http-request deny if { path -m str /secret }".into()),
            backend: Some("http-response set-header X-Served-By evenkeel".into()),
        },
        access_log: true,
        drain: Duration::from_secs(30),
        external: vec![],
    }
}

fn sizes(routing: &Routing) -> BTreeMap<PoolName, u32> {
    routing.pools.keys().map(|p| (p.clone(), 3)).collect()
}

fn seats() -> BTreeMap<PoolName, Seats> {
    let seat = |address: &str, target| Seat { address: address.parse().unwrap(), target };
    let web =
        [(1, seat("10.0.0.1:32768", Target::Ready)), (3, seat("[fd00::3]:80", Target::Drain))];
    let db = [(2, seat("10.0.0.9:5432", Target::Ready))];
    [(pool_name("web", 8080), web.into()), (pool_name("db", 5432), db.into())].into()
}

pub(super) fn rendered() -> (Routing, Rendered) {
    let routing = routing();
    let rendered =
        render(&Frame::container(), &routing, &sizes(&routing), &seats(), &LeftOut::new());
    (routing, rendered)
}

#[test]
fn one_of_everything() {
    let (_, rendered) = rendered();
    insta::assert_snapshot!("everything", rendered.text);
    insta::assert_snapshot!("boot", boot());
    assert_eq!(rendered.left_out, LeftOut::new());
    assert!(!rendered.text.contains("not shown"));
    assert_eq!(rendered.text.lines().count(), rendered.owners.len());
}

#[test]
fn only_structure_is_in_the_digest() {
    let (routing, first) = rendered();
    let digest = |routing: &Routing, seats: &BTreeMap<PoolName, Seats>| {
        render(&Frame::container(), routing, &sizes(routing), seats, &LeftOut::new()).digest
    };
    assert_eq!(digest(&routing, &BTreeMap::new()), first.digest);
    let mut other = seats();
    let moved: SocketAddr = "10.9.9.9:9".parse().unwrap();
    for seats in other.values_mut().flat_map(BTreeMap::values_mut) {
        seats.address = moved;
    }
    assert_eq!(digest(&routing, &other), first.digest);

    let changes: [fn(&mut Routing); 7] = [
        |r| r.listeners[0].port = 8000,
        |r| r.listeners[1].certificates[0].pem = Secret::new("renewed"),
        |r| r.routes[0].path = "/x".into(),
        |r| r.pools.values_mut().for_each(|p| p.balance = Balance::Roundrobin),
        |r| r.fragments.backend = None,
        |r| r.access_log = false,
        |r| r.drain = Duration::from_secs(31),
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut other = routing.clone();
        change(&mut other);
        assert_ne!(digest(&other, &seats()), first.digest, "change {n}");
    }
    let mut more = sizes(&routing);
    for n in more.values_mut() {
        *n += 1;
    }
    assert_ne!(
        render(&Frame::container(), &routing, &more, &seats(), &LeftOut::new()).digest,
        first.digest
    );
}

#[test]
fn what_is_left_out_leaves_the_rest_as_it_was() {
    let (routing, all) = rendered();
    let api = Culprit::Pool(pool_name("api", 9000));
    for culprit in [
        api.clone(),
        Culprit::Route(routing.routes[1].clone()),
        Culprit::Fragment(Section::Frontend),
        Culprit::Listener("postgres".into()),
    ] {
        let left_out: LeftOut = [(culprit.clone(), "why".to_owned())].into();
        let less = render(&Frame::container(), &routing, &sizes(&routing), &seats(), &left_out);
        assert_eq!(less.left_out, left_out);
        assert!(!less.owners.contains(&Some(culprit.clone())));
        assert_ne!(less.digest, all.digest);
        assert!(less.text.lines().count() < all.text.lines().count());
        assert!(culprit != api || !less.text.contains("use_backend api"), "{}", less.text);
    }
    // Never in the clear instead of with TLS.
    let left_out: LeftOut =
        [(Culprit::Certificate("tls.shop.pem".into()), "bad".to_owned())].into();
    let less = render(&Frame::container(), &routing, &sizes(&routing), &seats(), &left_out);
    assert!(!less.text.contains(":443"), "{}", less.text);
    assert!(less.left_out.contains_key(&Culprit::Listener("https".into())));
}

#[test]
fn nothing_that_is_given_begins_a_line_or_a_word_of_its_own() {
    let evil = "x\n    server evil 6.6.6.6:80";
    let given: [fn(&mut Routing, String); 6] = [
        |r, s| r.routes[0].host = Some(s),
        |r, s| r.routes[0].path = format!("/{s}"),
        |r, s| r.listeners[0].name = s,
        |r, s| r.listeners[1].certificates[0].name = s,
        |r, s| r.pools.values_mut().for_each(|p| p.cookie = Some(s.clone())),
        |r, s| {
            for probe in r.pools.values_mut().filter_map(|p| p.check.as_mut()) {
                probe.port = 8080;
                probe.kind = ProbeKind::Http { path: format!("/{s}") };
            }
        },
    ];
    for (n, give) in given.iter().enumerate() {
        for evil in [evil, "a b", "a\"b", "a'b", "a\\", "a#b", "$HOME"] {
            let mut routing = routing();
            give(&mut routing, evil.into());
            let out =
                render(&Frame::container(), &routing, &sizes(&routing), &seats(), &LeftOut::new());
            assert!(!out.text.contains(evil) && !out.text.contains("6.6.6.6"), "{n}: {evil:?}");
            assert!(!out.left_out.is_empty(), "{n}: {evil:?} was taken");
        }
    }
    for section in Section::ALL {
        let mut routing = routing();
        let text = Some("maxconn 5\nlisten evil".to_owned());
        match section {
            Section::Global => routing.fragments.global = text,
            Section::Defaults => routing.fragments.defaults = text,
            Section::Frontend => routing.fragments.frontend = text,
            Section::Backend => routing.fragments.backend = text,
        }
        let out =
            render(&Frame::container(), &routing, &sizes(&routing), &seats(), &LeftOut::new());
        assert!(!out.text.contains("evil"));
        assert_eq!(out.left_out.keys().collect::<Vec<_>>(), [&Culprit::Fragment(section)]);
    }
}
