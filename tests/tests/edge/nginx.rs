//! The nginx driver against the real nginx, in front of real containers.

mod client;
mod rig;

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel::edge::nginx::{Image, LeftOut, render};
use evenkeel::model::{
    Balance, Certificate, ListenerProtocol, Secret, ServerState, ServiceName, Target,
};

use self::client::{Load, get};
use self::rig::{Edge, Recipe, listener, pool, route};

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_force_answers_by_host_and_path() {
    let edge = Edge::new(Recipe::default()).await;
    let (web, api, db) = tokio::join!(edge.toy("web"), edge.toy("api"), edge.toy("db"));
    let mut recipe = Recipe::default();
    recipe.access_log = true;
    recipe.listeners.push(listener("db", 5432, ListenerProtocol::Tcp));
    for (name, host, path) in [
        ("web", Some("app-test"), "/"),
        ("api", Some("app-test"), "/api"),
        ("api", Some("*.example.com"), "/"),
        ("web", Some("www.example.com"), "/only"),
        ("nobody", Some("empty"), "/"),
        ("web", None, "/other/"),
    ] {
        recipe.routes.push(route("http", host, path, name));
    }
    recipe.routes.push(route("db", None, "/", "db"));
    for name in ["web", "api", "db", "nobody"] {
        recipe.pool(name);
    }
    recipe.pools.get_mut(&pool("db")).unwrap().protocol = ListenerProtocol::Tcp;
    recipe.server("web", 1, &web).server("api", 1, &api).server("db", 1, &db);
    let view = edge.follow(&recipe).await;
    assert_eq!((view.problem.as_deref(), view.refused.len()), (None, 0), "{view:?}");
    assert!(view.listening);
    assert_eq!(view.servers.len(), 3);
    assert!(view.servers.values().all(|s| s.state == ServerState::Up));

    let ask = async |host: &str, path: &str| {
        let answer = get(edge.http(), host, path).await.unwrap();
        (answer.status, answer.service())
    };
    let from = |name: &str| (200, name.to_owned());
    let none = |status| (status, String::new());
    assert_eq!(ask("app-test", "/").await, from("web"));
    assert_eq!(ask("APP-test:80", "/x").await, from("web"));
    assert_eq!(ask("app-test", "/api").await, from("api"));
    assert_eq!(ask("app-test", "/api/v1?q=1").await, from("api"));
    assert_eq!(ask("app-test", "/apis").await, from("web"));
    assert_eq!(ask("a.example.com", "/").await, from("api"));
    assert_eq!(ask("a.b.example.com", "/").await, from("api"));
    assert_eq!(ask("www.example.com", "/only/this").await, from("web"));
    assert_eq!(ask("www.example.com", "/").await, none(404));
    assert_eq!(ask("example.com", "/").await, none(404));
    assert_eq!(ask("example.com", "/other").await, from("web"));
    assert_eq!(ask("unknown", "/other/x").await, from("web"));
    assert_eq!(ask("unknown", "/others").await, none(404));
    assert_eq!(ask("empty", "/").await, none(503));
    let direct = get(edge.at(5432), "x", "/").await.unwrap();
    assert_eq!(direct.service(), "db");

    let log = edge.run("cat /var/log/evenkeel/$(cat /proc/sys/kernel/hostname).log").await;
    let line = log.lines().find(|line| line.contains("/api/v1?q=1")).unwrap();
    assert!(line.contains(&format!("instance=api_1 upstream={}", api.address)), "{line}");
    // Nobody outside the container hears what only the agent asks.
    assert!(
        tokio::net::TcpStream::connect(edge.at(evenkeel::edge::nginx::ASK_PORT)).await.is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_loses_a_request_while_instances_come_and_go() {
    let edge = Edge::new(Recipe::default()).await;
    let addresses = futures::future::join_all((0..4).map(|_| edge.toy("web"))).await;
    let mut recipe = Recipe::web();
    recipe.server("web", 1, &addresses[0]).server("web", 2, &addresses[1]);
    edge.follow(&recipe).await;
    let load = Load::start(edge.http(), "web", 4, 2);
    load.more(200).await;
    recipe.server("web", 3, &addresses[2]).server("web", 4, &addresses[3]);
    edge.follow(&recipe).await;
    load.more(200).await;
    recipe.target("web", 1, Target::Drain).target("web", 2, Target::Drain);
    let view = edge.follow(&recipe).await;
    let draining = |v: &evenkeel::model::ServerView| v.state == ServerState::Draining;
    assert_eq!(view.servers.values().filter(|v| draining(v)).count(), 2, "{view:?}");
    edge.until("the drained have nothing to do", |view| {
        view.servers.values().filter(|v| draining(v)).all(|v| v.sessions == 0)
    })
    .await;
    // From here on it may be stopped: it gets nothing any more.
    // The answers under way to the clients are counted first.
    load.more(20).await;
    let of = |load: &Load| load.seen().instances[addresses[0].instance()];
    let before = of(&load);
    load.more(300).await;
    assert_eq!(of(&load), before, "it still gets requests");
    recipe.without("web", 1).without("web", 2);
    edge.follow(&recipe).await;
    load.more(200).await;
    let seen = load.end().await;
    assert_eq!(seen.failed, Vec::<String>::new());
    assert_eq!(seen.instances.len(), 4, "{:?}", seen.instances);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_keeps_a_draining_instance_busy() {
    let edge = Edge::new(Recipe::default()).await;
    let (slow, other) = tokio::join!(edge.slow_toy("web", "1500ms"), edge.toy("web"));
    let mut recipe = Recipe::web();
    recipe.server("web", 1, &slow);
    edge.follow(&recipe).await;
    let at = edge.http();
    let mut under_way = tokio::task::JoinSet::new();
    under_way.spawn(async move { get(at, "web", "/").await.unwrap().status });
    edge.until_run("a connection to it", "cat /proc/net/tcp", |text| {
        // 8080 in hexadecimal, established.
        text.lines().any(|line| line.contains(":1F90 01"))
    })
    .await;
    recipe.target("web", 1, Target::Drain).server("web", 2, &other);
    let view = edge.follow(&recipe).await;
    let one = view.servers.values().find(|v| v.state == ServerState::Draining).unwrap();
    assert!(one.sessions > 0, "{view:?}");
    // An agent that starts anew knows as much.
    let edge = edge.restart_agent().await;
    edge.until("it is seen to drain still", |view| {
        view.servers.values().any(|v| v.state == ServerState::Draining && v.sessions > 0)
            && view.pools.contains(&pool("web"))
            && view.reloads == 0
    })
    .await;
    assert_eq!(under_way.join_next().await.unwrap().unwrap(), 200);
    edge.until("it has drained", |view| {
        view.servers.values().all(|v| v.sessions == 0) && view.old_workers == 0
    })
    .await;
}

/// A host that has not answered yet may have whoever is in force and not listed.
#[tokio::test(flavor = "multi_thread")]
async fn while_somebody_may_be_missing_all_who_are_in_force_stay() {
    let edge = Edge::new(Recipe::web()).await;
    let (one, two, api) = tokio::join!(edge.toy("web"), edge.toy("web"), edge.toy("api"));
    let mut recipe = Recipe::web();
    recipe.pools.get_mut(&pool("web")).unwrap().cookie = Some("keel".into());
    recipe.server("web", 1, &one).server("web", 2, &two);
    edge.follow(&recipe).await;
    let ask = async |host: &str| {
        let answer = get(edge.http(), host, "/").await.unwrap();
        (answer.status, answer.instance())
    };
    let all = BTreeSet::from([one.instance().to_owned(), two.instance().to_owned()]);
    let who = async || {
        let mut said = BTreeSet::new();
        for _ in 0..8 {
            let (status, instance) = ask("web").await;
            assert_eq!(status, 200);
            said.insert(instance);
        }
        said
    };
    assert_eq!(who().await, all);

    (recipe.complete, _) = (false, recipe.without("web", 1));
    edge.publish(&recipe);
    let reloads = edge.view().reloads;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(edge.view().reloads, reloads, "nothing was asked for that is not there");
    // Something else is, which makes the file anew.
    recipe.pool("api").server("api", 1, &api);
    recipe.routes.push(route("http", Some("api"), "/", "api"));
    edge.publish(&recipe);
    let view = edge.until("it is in force", |v| v.pools.contains(&pool("api"))).await;
    assert_eq!((view.refused.len(), view.problem.as_deref()), (0, None), "{view:?}");
    assert!(view.servers.values().all(|s| s.state == ServerState::Up) && view.servers.len() == 3);
    assert_eq!(ask("api").await, (200, api.instance().to_owned()));
    assert_eq!(who().await, all);
    recipe.complete = true;
    edge.follow(&recipe).await;
    assert_eq!(who().await, BTreeSet::from([two.instance().to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nginx_refuses_is_left_out_and_the_rest_is_in_force() {
    let edge = Edge::new(Recipe::default()).await;
    let (web, api) = tokio::join!(edge.toy("web"), edge.toy("api"));
    let mut recipe = Recipe::web();
    recipe.pool("api").server("web", 1, &web).server("api", 1, &api);
    recipe.routes.push(route("http", Some("web"), "/api", "api"));
    edge.follow(&recipe).await;

    // Both are the same prefix to nginx, which blames the second.
    recipe.routes.push(route("http", Some("web"), "/api/", "api"));
    // A fragment that is no nginx, and one that is.
    recipe.fragments.backend = Some("proxy_read_timeout 7s;\ngzap on;".into());
    recipe.fragments.defaults = Some("gzip on;\nproxy_connect_timeout 2s;".into());
    let bad = Secret::new("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    recipe.listeners.push(listener("https", 443, ListenerProtocol::Http));
    recipe.listeners[1].certificates = vec![Certificate { name: "tls.pem".into(), pem: bad }];
    recipe.pool("shop").server("shop", 1, &web);
    recipe.routes.push(route("https", None, "/", "shop"));
    edge.publish(&recipe);
    let view = edge.until("it says what it left out", |view| view.refused.len() == 2).await;
    let (api, shop) = (&view.refused[&service("api")], &view.refused[&service("shop")]);
    assert!(api.contains("duplicate location"), "{api}");
    assert!(shop.contains("listener https has no certificate"), "{shop}");
    let problem = view.problem.clone().unwrap();
    assert!(
        problem.contains("fragment backend is left out: nginx says: unknown directive"),
        "{problem}"
    );
    assert!(problem.contains("certificate tls.pem is left out"), "{problem}");
    assert_eq!(view.pools, BTreeSet::from([pool("web")]));
    assert_eq!(get(edge.http(), "web", "/").await.unwrap().service(), "web");
    assert_eq!(get(edge.http(), "web", "/api").await.unwrap().service(), "api");
    let config = edge.run("cat /etc/evenkeel/nginx.conf").await;
    assert!(
        config.contains("proxy_connect_timeout 2s;") && !config.contains("gzap on;"),
        "{config}"
    );

    // Nothing but what a person must change is wrong, so nothing is tried again and again.
    let reloads = view.reloads;
    recipe.fragments.backend = None;
    recipe.routes.retain(|route| route.path != "/api/" && route.listener != "https");
    recipe.without("shop", 1);
    recipe.listeners.truncate(1);
    let view = edge.follow(&recipe).await;
    assert_eq!((view.refused.len(), view.problem, view.reloads), (0, None, reloads + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_changes_cause_few_reloads_and_the_last_counts() {
    let edge = Edge::new(Recipe::default()).await;
    let (one, two) = tokio::join!(edge.toy("web"), edge.toy("web"));
    let mut recipe = Recipe::web();
    recipe.server("web", 1, &one);
    let first = edge.follow(&recipe).await;
    let load = Load::start(edge.http(), "web", 2, 1);
    recipe.server("web", 2, &two);
    let mut most_old = 0;
    for round in 0..50 {
        let target = if round % 2 == 0 { Target::Drain } else { Target::Ready };
        recipe.target("web", 2, target);
        edge.publish(&recipe);
        most_old = most_old.max(edge.view().old_workers);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let last = edge.follow(&recipe).await;
    let reloads = last.reloads - first.reloads;
    assert!((1..=4).contains(&reloads), "{reloads} reloads");
    let cores = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    assert!(most_old <= 4 * cores, "{most_old} old workers");
    assert!(last.servers.values().all(|s| s.state == ServerState::Up), "{last:?}");
    assert_eq!(load.end().await.failed, Vec::<String>::new());
    edge.until("they all end", |view| view.old_workers == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_dies_is_passed_over_and_left_out_at_once() {
    let edge = Edge::new(Recipe::default()).await;
    let addresses = futures::future::join_all((0..3).map(|_| edge.toy("web"))).await;
    let mut recipe = Recipe::web();
    for (slot, address) in (1..).zip(&addresses) {
        recipe.server("web", slot, address);
    }
    edge.follow(&recipe).await;
    let load = Load::start(edge.http(), "web", 4, 2);
    load.more(200).await;
    edge.kill(&addresses[0]).await;
    load.more(400).await;
    recipe.without("web", 1);
    let begin = tokio::time::Instant::now();
    edge.follow(&recipe).await;
    let took = begin.elapsed();
    println!("out of nginx after {took:?}");
    // Half a second on a quiet machine, which `cargo xtask bench` holds it to.
    assert!(took < Duration::from_millis(1500), "{took:?}");
    load.more(100).await;
    assert_eq!(load.end().await.failed, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_keeps_a_client_on_its_instance_until_that_drains() {
    let edge = Edge::new(Recipe::default()).await;
    let addresses = futures::future::join_all((0..3).map(|_| edge.toy("web"))).await;
    let mut recipe = Recipe::web();
    recipe.pools.get_mut(&pool("web")).unwrap().cookie = Some("my.lb".into());
    for (slot, address) in (1..).zip(&addresses) {
        recipe.server("web", slot, address);
    }
    let view = edge.follow(&recipe).await;
    assert_eq!((view.problem, view.refused.len()), (None, 0));
    let at = edge.http();
    let ask =
        async |cookie: &str| client::with(at, "web", "/", &[("Cookie", cookie)]).await.unwrap();
    let first = ask("a=b").await;
    let cookie = first.header("set-cookie").unwrap();
    let pair = cookie.split(';').next().unwrap().to_owned();
    assert!(pair.starts_with("my.lb=web_") && cookie.contains("HttpOnly"), "{cookie}");
    for _ in 0..10 {
        let again = ask(&format!("a=b; {pair}; c=d")).await;
        assert_eq!(again.instance(), first.instance());
        assert_eq!(again.header("set-cookie"), None);
    }
    let slot: u32 = pair.rsplit('_').next().unwrap().parse().unwrap();
    recipe.target("web", slot, Target::Drain);
    edge.follow(&recipe).await;
    let moved = ask(&pair).await;
    assert_ne!(moved.instance(), first.instance());
    let new = moved.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_ne!(new, pair);
    // One that dies is passed over, and its clients are told where they are now.
    let slot: usize = new.rsplit('_').next().unwrap().parse().unwrap();
    edge.kill(&addresses[slot - 1]).await;
    let last = ask(&new).await;
    assert_eq!(last.status, 200);
    assert!(last.header("set-cookie").is_some_and(|cookie| !cookie.starts_with(&new)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_shown_the_certificate_of_the_name_that_it_asks_for() {
    let edge = Edge::new(Recipe::default()).await;
    let web = edge.toy("web").await;
    let certificate = |name: &str, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let pem = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem());
        Certificate { name: name.into(), pem: Secret::new(&pem) }
    };
    let mut recipe = Recipe::web();
    recipe.server("web", 1, &web);
    recipe.listeners.push(listener("https", 443, ListenerProtocol::Http));
    recipe.listeners[1].certificates = vec![
        certificate("a.pem", &["a.example", "default.example"]),
        certificate("b.pem", &["b.example", "*.wild.example"]),
    ];
    recipe.routes.push(route("https", Some("a.example"), "/", "web"));
    recipe.routes.push(route("https", Some("*.wild.example"), "/", "web"));
    recipe.routes.push(route("https", None, "/rest", "web"));
    let view = edge.follow(&recipe).await;
    assert_eq!((view.problem, view.refused.len()), (None, 0));
    // The certificates are their own authorities.
    let shown = async |host: &str| {
        let ask = format!(
            "for c in a b; do curl -s -o /dev/null -w \"$c%{{ssl_verify_result}} \" \
             --cacert /etc/evenkeel/certificates/$c.pem-*.pem \
             --resolve {host}:443:127.0.0.1 https://{host}/; done"
        );
        let said = edge.run(&ask).await;
        // 18: signed by itself, and not by the one that was given.
        said.split_whitespace().find(|word| !word.ends_with("18")).map(|word| word[..1].to_owned())
    };
    assert_eq!(shown("a.example").await.as_deref(), Some("a"));
    assert_eq!(shown("elsewhere.example").await.as_deref(), Some("a"));
    assert_eq!(shown("b.example").await.as_deref(), Some("b"));
    assert_eq!(shown("x.wild.example").await.as_deref(), Some("b"));
    let curl = async |url: &str| {
        let host = url.split('/').nth(2).unwrap();
        edge.run(&format!(
            "curl -sk -w '%{{http_code}} %{{http_version}}' --resolve {host}:443:127.0.0.1 {url}"
        ))
        .await
    };
    assert!(curl("https://x.wild.example/y").await.ends_with("200 2"));
    assert!(curl("https://b.example/rest").await.ends_with("200 2"));
    assert!(curl("https://b.example/").await.ends_with("404 2"));
    let files = edge.run("ls -l /etc/evenkeel/certificates").await;
    assert_eq!(files.matches("-rw-------").count(), 2, "{files}");
    // A key that is not used any more does not stay.
    recipe.listeners[1].certificates.truncate(1);
    edge.publish(&recipe);
    edge.until_run("one certificate", "ls -l /etc/evenkeel/certificates", |files| {
        files.matches("-rw-------").count() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_pool_listener_and_fragment_is_valid() {
    let edge = Edge::new(Recipe::default()).await;
    let mut recipe = Recipe::everything();
    let about = "nginx -V 2>&1; ls /usr/lib/nginx/modules/*.so | sed 's/^/module /'";
    let image = Image::parse(&edge.run(about).await).unwrap();
    for balance in [Balance::Roundrobin, Balance::Leastconn, Balance::Source] {
        recipe.pools.values_mut().for_each(|pool| pool.balance = balance);
        let rendered = render(&recipe.table(), &image, &LeftOut::new());
        assert_eq!(rendered.facts.refused.len(), 0, "{:?}", rendered.facts);
        let check = edge.check(&rendered).await;
        assert_eq!(check, "", "{}", rendered.text);
    }
}
