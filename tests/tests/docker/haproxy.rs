//! HAProxy itself, driven by tables.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use evenkeel::edge::haproxy::{boot, drive};
use evenkeel::model::{
    BalancerKind, Certificate, PoolName, Secret, Seen, ServerState, Table, Target,
};
use evenkeel_tests::agent::{LONG, until};
use evenkeel_tests::balancer::{Balancer, Client, follows, listen, nothing, of, route, serve, web};
use evenkeel_tests::container::{eventually, file};
use evenkeel_tests::pki::self_signed;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

const READY: Target = Target::Ready;

/// A pool `web` behind `shop.test` on port 80.
fn shop() -> (Table, PoolName) {
    let mut table = nothing(BalancerKind::Haproxy);
    listen(&mut table, "http", 80);
    let pool = web(&mut table, "web", 3);
    route(&mut table, "http", Some("shop.test"), "/", &pool);
    (table, pool)
}

fn ready(table: &mut Table, pool: &PoolName, all: &[SocketAddr]) {
    let all: Vec<_> = (1..).zip(all).map(|(slot, at)| (slot, *at, READY)).collect();
    serve(table, pool, &all);
}

/// The text that the renderer's own tests have agreed to.
const GOLDEN: &str = include_str!(
    "../../../operator/src/edge/haproxy/snapshots/evenkeel__edge__haproxy__tests__everything.snap"
);

#[tokio::test]
async fn haproxy_itself_agrees_to_the_golden_file() {
    let lb = Balancer::start(boot()).await;
    let text = GOLDEN.splitn(3, "---\n").nth(2).unwrap();
    let list = text.split_whitespace().find(|word| word.contains("/certificates/")).unwrap();
    let (_, pem) = certificate("shop.test");
    let files = [("/tmp/golden.cfg", text), (list, "/tmp/golden.pem\n"), ("/tmp/golden.pem", &pem)];
    lb.container.put(&files.map(|(path, text)| file(path, text))).await.unwrap();
    let out = lb.container.exec(&["haproxy", "-c", "-f", "/tmp/golden.cfg"]).await.unwrap();
    assert!(out.code == 0 && !out.text.contains("[WARNING]"), "{}", out.text);
}

#[tokio::test]
async fn requests_go_where_host_and_path_say() {
    let mut lb = Balancer::start(boot()).await;
    let (mut table, shop) = shop();
    let (api, rest) = (web(&mut table, "api", 1), web(&mut table, "rest", 1));
    route(&mut table, "http", Some("shop.test"), "/api", &api);
    route(&mut table, "http", Some("*.shop.test"), "/", &api);
    route(&mut table, "http", None, "/here", &rest);
    for (pool, service) in [(&shop, "web"), (&api, "api"), (&rest, "rest")] {
        let at = lb.toys(service, 1).await;
        ready(&mut table, pool, &at);
    }
    // Until the first table is in force nobody is let in.
    assert!(TcpStream::connect((lb.ip.as_str(), 80)).await.is_err());
    lb.drive(&table, drive).await;
    let view = lb.follows(&table).await;
    assert_eq!((view.reloads, view.problem.as_deref(), view.refused.len()), (1, None, 0));
    for (host, path, who) in [
        ("shop.test", "/", "web"),
        ("SHOP.test:80", "/x", "web"),
        ("shop.test.", "/apis", "web"),
        ("shop.test", "/api", "api"),
        ("shop.test", "/api/v1?x=/", "api"),
        ("eu.shop.test", "/anything", "api"),
        ("xshop.test", "/anything", "404"),
        ("other.test", "/here/now", "rest"),
        ("other.test", "/hereafter", "404"),
        ("shop.test", "/here", "web"),
    ] {
        assert_eq!(lb.who(80, host, path).await, who, "{host}{path}");
    }
    eventually("requests are counted", async || lb.view().requests >= 10).await;

    // A pool without anybody is no reason to let go of the others.
    table.servers.remove(&api);
    lb.order(&table);
    lb.follows(&table).await;
    assert_eq!(lb.who(80, "shop.test", "/api").await, "503");
    assert_eq!(lb.who(80, "shop.test", "/").await, "web");
    assert_eq!(lb.view().reloads, 1);
}

#[tokio::test]
async fn servers_come_and_go_at_once_and_without_a_reload() {
    let mut lb = Balancer::start(boot()).await;
    let (mut table, pool) = shop();
    let toys = lb.toys("web", 3).await;
    ready(&mut table, &pool, &toys[..1]);
    lb.drive(&table, drive).await;
    lb.follows(&table).await;
    let mut took = Vec::new();
    for n in 0..100 {
        let some = [&toys[n % 3..=n % 3], &toys[..2], &toys[1..]][n % 3].to_vec();
        ready(&mut table, &pool, &some);
        let begun = Instant::now();
        lb.order(&table);
        lb.follows(&table).await;
        took.push(begun.elapsed());
        if n % 10 == 0 {
            assert_eq!(lb.who(80, "shop.test", "/").await, "web", "change {n}");
        }
    }
    took.sort();
    println!("a change takes {:?} at the median, {:?} at most", took[50], took[99]);
    assert_eq!(lb.view().reloads, 1);

    // Whoever is not listed stays, while somebody may be missing.
    ready(&mut table, &pool, &toys[..2]);
    lb.order(&table);
    lb.follows(&table).await;
    ready(&mut table, &pool, &[toys[0], toys[2]]);
    table.complete = false;
    lb.order(&table);
    let up = |v: &evenkeel::model::BalancerView| {
        toys.iter().all(|toy| of(v, &pool, *toy).is_some_and(|s| s.state == ServerState::Up))
    };
    lb.until("all three are up", up).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(up(&lb.view()), "{:?}", lb.view());
    table.complete = true;
    lb.order(&table);
    lb.follows(&table).await;

    // One that dies is found out by HAProxy itself; one whose container was never there too.
    let nowhere: SocketAddr = "127.0.0.9:9".parse().unwrap();
    ready(&mut table, &pool, &[toys[0], nowhere]);
    lb.order(&table);
    let down = |v: &evenkeel::model::BalancerView| {
        of(v, &pool, nowhere).is_some_and(|s| s.state == ServerState::Down)
    };
    lb.until("it is found out", down).await;
    assert_eq!(of(&lb.view(), &pool, toys[0]).unwrap().state, ServerState::Up);

    // The file follows, so that a container that is started again begins with all of it.
    let container = Arc::clone(&lb.container);
    let file = async || container.exec(&["cat", "/etc/evenkeel/haproxy.cfg"]).await.unwrap().text;
    eventually("the file follows", async || file().await.contains(&format!("{nowhere}"))).await;

    // Somebody who drives it anew finds everything in its place and changes nothing.
    let before = file().await;
    lb.drive(&table, drive).await;
    lb.until("it is known again", |v| v.pools.contains(&pool) && v.servers.len() == 2).await;
    assert_eq!(lb.view().reloads, 0);
    assert_eq!(file().await, before);
}

#[tokio::test]
async fn who_drains_finishes_and_gets_nothing_new() {
    let mut lb = Balancer::start(boot()).await;
    let (mut table, pool) = shop();
    Arc::make_mut(&mut table.routing).pools.get_mut(&pool).unwrap().cookie = Some("SRV".into());
    let toys = lb.toys("web", 2).await;
    ready(&mut table, &pool, &toys[..1]);
    lb.drive(&table, drive).await;
    lb.follows(&table).await;
    let slow =
        evenkeel_tests::agent::http(&toys[0].to_string(), "POST", "/control?slow=1500ms", &[], "")
            .await;
    assert_eq!(slow.unwrap().0, 200);
    let ip = lb.ip.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let stream = TcpStream::connect((ip.as_str(), 80)).await.unwrap();
        Client { stream, ends: false }.get("shop.test", "/slow").await
    });
    let sessions =
        |v: &evenkeel::model::BalancerView| of(v, &pool, toys[0]).map(|s| (s.state, s.sessions));
    // At rest nobody looks often enough to see it.
    let ask = "exec 3<>/dev/tcp/127.0.0.1/9099; echo 'show stat web.8080 4 -1' >&3; cat <&3";
    let container = Arc::clone(&lb.container);
    eventually("the request is under way", async || {
        let said = container.exec(&["bash", "-c", ask]).await.unwrap().text;
        let line = said.lines().find(|l| l.starts_with("web.8080,web_1,"));
        line.is_some_and(|l| l.split(',').nth(4) == Some("1"))
    })
    .await;
    serve(&mut table, &pool, &[(1, toys[0], Target::Drain), (2, toys[1], READY)]);
    lb.order(&table);
    lb.until("it drains with one request", |v| sessions(v) == Some((ServerState::Draining, 1)))
        .await;
    // Even with its cookie.
    for host in ["shop.test\r\nCookie: SRV=web_1", "shop.test"].repeat(3) {
        let begun = Instant::now();
        assert_eq!(lb.who(80, host, "/").await, "web");
        assert!(begun.elapsed() < Duration::from_secs(1), "the draining one was asked");
    }
    let (code, _) = tasks.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(code, 200);
    lb.until("it is empty", |v| sessions(v) == Some((ServerState::Draining, 0))).await;

    // It stays so whoever looks, across a reload too, until something else is said.
    lb.drive(&table, drive).await;
    lb.follows(&table).await;
    route(&mut table, "http", Some("other.test"), "/", &pool);
    lb.order(&table);
    lb.until("it is reloaded", |v| v.reloads == 1 && follows(v, &table)).await;
    let back =
        evenkeel_tests::agent::http(&toys[0].to_string(), "POST", "/control?slow=0", &[], "").await;
    assert_eq!(back.unwrap().0, 200);
    ready(&mut table, &pool, &toys);
    lb.order(&table);
    lb.follows(&table).await;
    serve(&mut table, &pool, &[(2, toys[1], READY)]);
    lb.order(&table);
    lb.follows(&table).await;
    assert_eq!(lb.view().reloads, 1);
}

#[tokio::test]
async fn a_conversation_that_breaks_is_taken_up_again() {
    let mut lb = Balancer::start(boot()).await;
    let (mut table, pool) = shop();
    let toys = lb.toys("web", 2).await;
    ready(&mut table, &pool, &toys[..1]);
    lb.drive(&table, drive).await;
    lb.follows(&table).await;
    let kill =
        "for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = cat ] && kill -9 ${p#/proc/}; done; true";
    for n in 0..2 {
        let out = lb.container.exec(&["bash", "-c", kill]).await.unwrap();
        assert_eq!(out.code, 0, "{}", out.text);
        ready(&mut table, &pool, &toys[..=n]);
        lb.order(&table);
        lb.follows(&table).await;
    }
    let said = lb.container.processes().await.unwrap();
    assert!(said.iter().filter(|p| p.ends_with("cat")).count() <= 2, "left behind: {said:?}");

    // A balancer that stalls is silent, and what is known of it stays.
    lb.rig.docker.pause_container(&lb.id).await.unwrap();
    let view = lb.until("it is silent", |v| matches!(v.seen, Seen::Silent { .. })).await;
    assert_eq!(view.servers.len(), 2);
    assert!(view.problem.is_some());
    lb.rig.docker.unpause_container(&lb.id).await.unwrap();
    lb.follows(&table).await;
    assert_eq!(lb.view().reloads, 1);
}

#[tokio::test]
async fn what_haproxy_refuses_is_left_out_with_its_reason() {
    let mut lb = Balancer::start(boot()).await;
    let (mut table, pool) = shop();
    let toys = lb.toys("web", 1).await;
    ready(&mut table, &pool, &toys);
    let bad = web(&mut table, "bad", 1);
    route(&mut table, "http", Some("bad host\n"), "/", &bad);
    let fragments = &mut Arc::make_mut(&mut table.routing).fragments;
    fragments.frontend = Some("http-request nonsense".into());
    fragments.backend = Some("http-response set-header X-Added yes".into());
    lb.drive(&table, drive).await;
    let view = lb.until("the rest is in force", |v| v.listening && v.pools.contains(&pool)).await;
    assert_eq!(lb.who(80, "shop.test", "/").await, "web");
    println!("{:?} {:?}", view.refused, view.problem);
    assert_eq!(view.refused.keys().map(ToString::to_string).collect::<Vec<_>>(), ["bad"]);
    assert!(view.problem.as_ref().unwrap().contains("frontend fragment"), "{view:?}");
    assert!(!view.problem.as_ref().unwrap().contains("backend fragment"), "{view:?}");
    assert_eq!(view.reloads, 1);

    // Where nobody can be blamed, what is in force stays: here no file can be written any more.
    assert_eq!(lb.container.exec(&["sh", "-c", "rm /bin/mv"]).await.unwrap().code, 0);
    route(&mut table, "http", Some("more.test"), "/", &pool);
    lb.order(&table);
    lb.until("it says why", |v| v.problem.as_ref().is_some_and(|p| p.contains("write"))).await;
    assert_eq!(lb.who(80, "shop.test", "/").await, "web");
    assert_eq!(lb.view().reloads, 1);
}

#[tokio::test]
async fn reloads_lose_no_request() {
    let mut lb = Balancer::start(boot()).await;
    let (mut table, pool) = shop();
    let toys = lb.toys("web", 3).await;
    ready(&mut table, &pool, &toys);
    lb.drive(&table, drive).await;
    lb.follows(&table).await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let mut clients = JoinSet::new();
    for n in 0..6 {
        let (ip, stop, asked) = (lb.ip.clone(), Arc::clone(&stop), Arc::clone(&asked));
        clients.spawn(async move {
            let mut kept: Option<Client<TcpStream>> = None;
            let mut lost = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let reused = kept.is_some();
                let mut client = match kept.take() {
                    Some(client) => client,
                    None => match TcpStream::connect((ip.as_str(), 80)).await {
                        Ok(stream) => Client { stream, ends: false },
                        Err(e) => {
                            lost.push(format!("connect: {e}"));
                            continue;
                        }
                    },
                };
                match client.get("shop.test", "/").await {
                    Some((200, _)) => {}
                    other => lost.push(format!("reused {reused}: {other:?}")),
                }
                asked.fetch_add(1, Ordering::Relaxed);
                // Half of them keep their connections, as long as the answer to one did not say that it ends.
                if n % 2 == 0 && lost.is_empty() && !client.ends {
                    kept = Some(client);
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            lost
        });
    }
    for n in 0..4_u32 {
        route(&mut table, "http", Some(&format!("h{n}.test")), "/", &pool);
        lb.order(&table);
        lb.until("it is reloaded", |v| v.reloads == u64::from(n) + 2 && follows(v, &table)).await;
    }
    lb.until("workers of before are gone", |v| v.old_workers == 0).await;
    stop.store(true, Ordering::Relaxed);
    let lost: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    println!("{} requests", asked.load(Ordering::Relaxed));
    assert_eq!(lost, Vec::<String>::new());
    assert!(asked.load(Ordering::Relaxed) > 100);

    // Many changes of structure at once are few reloads.
    let before = lb.view().reloads;
    for n in 0..30 {
        route(&mut table, "http", Some(&format!("m{n}.test")), "/", &pool);
        lb.order(&table);
    }
    lb.until("all of them are in force", |v| v.reloads > before && follows(v, &table)).await;
    assert_eq!(lb.who(80, "m29.test", "/").await, "web");
    assert!(lb.view().reloads - before <= 3, "{} reloads", lb.view().reloads - before);
}

fn certificate(host: &str) -> (String, String) {
    let (cert, key) = self_signed(host);
    let pem = format!("{cert}{key}");
    (cert, pem)
}

#[tokio::test]
async fn certificates_that_load_are_used_and_others_are_left_out() {
    let mut lb = Balancer::start(boot()).await;
    let (mut table, pool) = shop();
    let toys = lb.toys("web", 1).await;
    ready(&mut table, &pool, &toys);
    listen(&mut table, "https", 443);
    route(&mut table, "https", None, "/", &pool);
    listen(&mut table, "hopeless", 444);
    let (cert, pem) = certificate("shop.test");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let certificate =
        |name: &str, pem: &str| Certificate { name: name.into(), pem: Secret::new(pem) };
    let listeners = &mut Arc::make_mut(&mut table.routing).listeners;
    listeners[1].certificates =
        vec![certificate("tls.bad.pem", broken), certificate("tls.shop.pem", &pem)];
    listeners[2].certificates = vec![certificate("tls.bad.pem", broken)];
    lb.drive(&table, drive).await;
    let view = lb.until("the rest is in force", |v| v.listening && v.pools.contains(&pool)).await;
    let problem = view.problem.clone().unwrap();
    assert!(problem.contains("tls.bad.pem") && !problem.contains("tls.shop.pem"), "{problem}");
    assert!(problem.contains("hopeless"), "{problem}");
    assert!(TcpStream::connect((lb.ip.as_str(), 444)).await.is_err());

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let connect = async |cert: &str| {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(rustls::pki_types::CertificateDer::from_pem_slice(cert.as_bytes()).unwrap())
            .unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect((lb.ip.as_str(), 443)).await.ok()?;
        let stream = connector.connect("shop.test".try_into().unwrap(), stream).await.ok()?;
        Client { stream, ends: false }.get("shop.test", "/").await
    };
    assert_eq!(connect(&cert).await.unwrap().0, 200);

    // A renewed one is taken, and the key before it is kept nowhere.
    let (cert, renewed) = self::certificate("shop.test");
    let listeners = &mut Arc::make_mut(&mut table.routing).listeners;
    listeners[1].certificates = vec![certificate("tls.shop.pem", &renewed)];
    listeners.pop();
    lb.order(&table);
    lb.until("it is renewed", |v| v.reloads == 2 && v.problem.is_none()).await;
    until("the new one is shown", LONG, async || connect(&cert).await).await;
    let files =
        async || lb.container.exec(&["ls", "/etc/evenkeel/certificates"]).await.unwrap().text;
    eventually("old keys are gone", async || files().await.lines().count() == 2).await;
}
