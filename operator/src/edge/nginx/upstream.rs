//! A pool as nginx's `upstream`, and the maps that keep a client on its instance.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::page::{Culprit, Page};
use crate::model::{Balance, ListenerProtocol, Pool, PoolName, Server, Target};

/// How long one that failed is passed over. Only what clients see counts: this nginx has no checks of its own.
const PASSED_OVER: &str = "max_fails=1 fail_timeout=5s";
/// Idle connections to the instances of a pool that each worker keeps.
const KEPT: u32 = 32;
/// How long they are kept: below what common servers do, so that none closes as a request is sent.
const KEPT_FOR: &str = "4s";
/// Others that a client is passed to when its own instance fails.
const OTHERS: usize = 3;

/// What a request of a pool with cookies is told to go to.
pub(super) fn variable(number: usize) -> String {
    format!("$ek_to_{number}")
}

/// The cookie that is to be set, empty where the client has it.
pub(super) fn set_cookie(number: usize) -> String {
    format!("$ek_set_{number}")
}

/// Whether anybody takes requests.
pub(super) fn serves(servers: &[Server]) -> bool {
    servers.iter().any(|server| server.target == Target::Ready)
}

/// The upstream of a pool that has somebody.
pub(super) fn upstream(page: &mut Page, name: &PoolName, pool: &Pool, servers: &[Server]) {
    page.by(Culprit::Pool(name.clone()), |page| {
        page.block(format!("upstream {name}"), |page| {
            page.line(format!("zone {name} {}k;", 64 + 2 * servers.len()));
            match pool.balance {
                Balance::Roundrobin => {}
                Balance::Leastconn => page.line("least_conn;"),
                // Not `ip_hash`, which takes clients of one /24 for one.
                Balance::Source => page.line("hash $remote_addr consistent;"),
            }
            for server in servers {
                let Server { instance, name, slot: _, address, target, sick: _ } = server;
                let how = match target {
                    Target::Ready => PASSED_OVER,
                    Target::Drain => "down",
                };
                page.line(format!("server {address} {how}; # {name} {instance}"));
            }
            if pool.protocol == ListenerProtocol::Http {
                keepalive(page, KEPT);
            }
        });
    });
}

fn keepalive(page: &mut Page, connections: u32) {
    page.line(format!("keepalive {connections};"));
    page.line(format!("keepalive_timeout {KEPT_FOR};"));
}

/// Who gets which cookie: the first that is ready of those of one name, as a replacement on another host may have
/// the name of the one before.
fn by_cookie(servers: &[Server]) -> BTreeMap<&str, SocketAddr> {
    let mut cookies = BTreeMap::new();
    for server in servers.iter().filter(|server| server.target == Target::Ready) {
        cookies.entry(&*server.name).or_insert(server.address);
    }
    cookies
}

/// What keeps clients on their instance: one upstream an instance, with a few others in reserve, chosen by the
/// cookie. Whoever has no cookie, or that of one who is not there any more, is balanced and gets a new one.
pub(super) fn sticky(
    page: &mut Page,
    number: usize,
    name: &PoolName,
    cookie: &str,
    servers: &[Server],
) {
    let cookies = by_cookie(servers);
    let all: Vec<(&str, SocketAddr)> = cookies.into_iter().collect();
    page.by(Culprit::Pool(name.clone()), |page| {
        for (at, (server, address)) in all.iter().enumerate() {
            page.block(format!("upstream {name}~{server}"), |page| {
                page.line(format!("server {address} {PASSED_OVER};"));
                let next = all.iter().cycle().skip(at + 1).take(OTHERS.min(all.len() - 1));
                for (_, other) in next {
                    page.line(format!("server {other} {PASSED_OVER} backup;"));
                }
                keepalive(page, KEPT / 4);
            });
        }
        let escaped = cookie.replace('.', "\\.");
        page.block(format!("map $http_cookie $ek_cookie_{number}"), |page| {
            page.line("default \"\";");
            page.line(format!("\"~(?:^|;) *{escaped}=([A-Za-z0-9_.-]+)\" $1;"));
        });
        page.block(format!("map $ek_cookie_{number} {}", variable(number)), |page| {
            page.line(format!("default {name};"));
            for (server, _) in &all {
                page.line(format!("{server} {name}~{server};"));
            }
        });
        let key = format!("\"$ek_cookie_{number} $ek_instance\"");
        page.block(format!("map {key} {}", set_cookie(number)), |page| {
            page.line(format!("default \"{cookie}=$ek_instance; Path=/; HttpOnly$ek_secure\";"));
            page.line("\"~ -$\" \"\";");
            page.line("\"~^([^ ]+) \\1$\" \"\";");
        });
    });
}

/// Who answered, for the log and the cookies: nginx knows addresses only, all that it tried.
pub(super) fn instances<'a>(page: &mut Page, servers: impl Iterator<Item = &'a Server>) {
    page.block("map $upstream_addr $ek_last", |page| {
        page.line("default \"\";");
        page.line("\"~([^ ,]+)$\" $1;");
    });
    let names: BTreeMap<SocketAddr, &str> =
        servers.map(|server| (server.address, &*server.name)).collect();
    page.block("map $ek_last $ek_instance", |page| {
        page.line("default -;");
        for (address, name) in names {
            page.line(format!("{address} {name};"));
        }
    });
    page.block("map $https $ek_secure", |page| {
        page.line("default \"\";");
        page.line("on \"; Secure\";");
    });
}
