//! A table as HAProxy's configuration, and for each of its lines whose it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::assign::{NOBODY, Seat, Seats, place_name};
use super::routes::{Host, sites};
use super::site::{Frame, Ours};
use super::words::{Section, fragment, name, word};
use super::{BOOT, PORT};
use crate::edge::File;
use crate::model::{
    Balance, Certificate, Listener, ListenerProtocol, Pool, PoolName, Probe, ProbeKind, Route,
    Routing, Target,
};

/// What can be left out, so that the rest gets through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Culprit {
    /// One rule.
    Route(Route),
    /// A pool, with every route to it.
    Pool(PoolName),
    /// A certificate, wherever it is used.
    Certificate(String),
    /// A listener, with its routes.
    Listener(String),
    /// What a person added.
    Fragment(Section),
}

/// What is left out, and why.
pub(super) type LeftOut = BTreeMap<Culprit, String>;

/// A configuration that HAProxy has not seen yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) text: String,
    /// Of everything that only a reload can change.
    pub(super) digest: String,
    /// Certificates. They hold keys.
    pub(super) files: Vec<File>,
    /// Whose each line is.
    pub(super) owners: Vec<Option<Culprit>>,
    /// What was left out before, and what had to be now.
    pub(super) left_out: LeftOut,
    /// Where certificates are.
    pub(super) certificates: String,
}

/// Before the first table: the runtime socket and nothing else.
pub(super) fn boot() -> String {
    let frame = Frame::container();
    let mut page = Page::new(&frame);
    page.global(Duration::from_secs(10));
    page.text.replace(UNKNOWN, BOOT)
}

/// Renders what `routing` fixes, with `seats` taken. What is in `left_out`, or cannot be written down, stays out.
pub(super) fn render(
    frame: &Frame,
    routing: &Routing,
    sizes: &BTreeMap<PoolName, u32>,
    seats: &BTreeMap<PoolName, Seats>,
    left_out: &LeftOut,
) -> Rendered {
    let mut page = Page { left_out: left_out.clone(), ..Page::new(frame) };
    page.global(routing.drain);
    page.fragment(routing, Section::Global);
    page.defaults(routing.access_log);
    page.fragment(routing, Section::Defaults);
    for listener in &routing.listeners {
        page.part(&Culprit::Listener(listener.name.clone()), |p| p.listener(routing, listener));
    }
    page.say(&format!("\nbackend evenkeel:none{}", page.from()));
    page.say("    mode http");
    page.say(
        "    http-request return status 404 content-type text/plain string \
         \"no route for this host and path\\n\"",
    );
    let nobody = Seats::new();
    for (pool, what) in &routing.pools {
        let size = sizes.get(pool).copied().unwrap_or_default();
        let seats = seats.get(pool).unwrap_or(&nobody);
        page.part(&Culprit::Pool(pool.clone()), |p| {
            p.backend(pool, what)?;
            if what.protocol == ListenerProtocol::Http {
                p.fragment(routing, Section::Backend);
            }
            p.places(what, size, seats);
            Ok(())
        });
    }
    page.finish()
}

/// Stands for the digest until it is known. It cannot come from outside, where a `$` is refused.
const UNKNOWN: &str = "$unknown$";

struct Page<'f> {
    frame: &'f Frame,
    text: String,
    structure: Sha256,
    files: Vec<File>,
    owners: Vec<Option<Culprit>>,
    owner: Option<Culprit>,
    left_out: LeftOut,
}

impl<'f> Page<'f> {
    fn new(frame: &'f Frame) -> Self {
        Self {
            frame,
            text: String::new(),
            structure: Sha256::new(),
            files: Vec::new(),
            owners: Vec::new(),
            owner: None,
            left_out: LeftOut::new(),
        }
    }

    fn say(&mut self, line: &str) {
        self.structure.update(line.as_bytes());
        self.structure.update(b"\n");
        self.put(line);
    }

    /// A line whose every part can change without a reload.
    fn put(&mut self, line: &str) {
        for line in line.split('\n') {
            self.text.push_str(line);
            self.text.push('\n');
            self.owners.push(self.owner.clone());
        }
    }

    /// Writes what is `whose`, all of it or, if it is left out or cannot be written, nothing.
    fn part(
        &mut self,
        whose: &Culprit,
        write: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> bool {
        if self.left_out.contains_key(whose) {
            return false;
        }
        let mut part = Self {
            owner: Some(whose.clone()),
            left_out: std::mem::take(&mut self.left_out),
            ..Self::new(self.frame)
        };
        let written = write(&mut part);
        self.left_out = part.left_out;
        if let Err(why) = written {
            self.left_out.insert(whose.clone(), why);
            return false;
        }
        self.text.push_str(&part.text);
        self.owners.append(&mut part.owners);
        self.files.append(&mut part.files);
        self.structure.update(part.structure.finalize());
        true
    }

    fn finish(mut self) -> Rendered {
        // Two listeners may have the same certificate.
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.files.dedup_by(|a, b| a.path == b.path);
        let digest = hex::encode(self.structure.finalize()).chars().take(32).collect::<String>();
        let text = self.text.replacen(UNKNOWN, &digest, 1);
        Rendered {
            text,
            digest,
            files: self.files,
            owners: self.owners,
            left_out: self.left_out,
            certificates: self.frame.certificates.clone(),
        }
    }

    fn fragment(&mut self, routing: &Routing, section: Section) {
        let Some(text) = section.of(&routing.fragments) else { return };
        self.part(&Culprit::Fragment(section), |p| {
            for line in fragment(text)? {
                p.say(&format!("    {line}"));
            }
            Ok(())
        });
    }

    fn global(&mut self, drain: Duration) {
        self.say(&self.frame.header);
        self.say("global");
        self.put(&format!("    setenv {} {UNKNOWN}", self.frame.mark));
        // How it runs is said by whoever runs it; of two sections of that name the later would win.
        if self.frame.ours != Ours::Everything {
            return;
        }
        self.say(&format!(
            "    stats socket ipv4@127.0.0.1:{PORT} level admin expose-fd listeners"
        ));
        self.say("    stats timeout 1m");
        self.say("    log stdout format raw local0");
        self.say(&format!("    hard-stop-after {}ms", (drain + LAST_WORDS).as_millis()));
    }

    fn defaults(&mut self, access_log: bool) {
        // With a name, so that it holds for our own sections whatever stands before them.
        self.say(if self.named() { "\ndefaults evenkeel" } else { "\ndefaults" });
        self.say("    log global");
        self.say("    option dontlognull");
        if !access_log {
            self.say("    option dontlog-normal");
        }
        for line in DEFAULTS {
            self.say(&format!("    {line}"));
        }
    }

    /// Whether our sections say themselves which defaults are theirs.
    fn named(&self) -> bool {
        self.frame.ours != Ours::Everything
    }

    fn from(&self) -> &'static str {
        if self.named() { " from evenkeel" } else { "" }
    }

    fn listener(&mut self, routing: &Routing, listener: &Listener) -> Result<(), String> {
        let Listener { name: of, port, protocol, certificates } = listener;
        let of = name("listener", of)?;
        let tls = if certificates.is_empty() {
            String::new()
        } else {
            self.certificates(certificates, *protocol)?
        };
        self.say(&format!("\nfrontend listener:{of}{}", self.from()));
        self.say(&format!("    bind :{port}{tls}"));
        let routes = routing.routes.iter().filter(|r| r.listener == listener.name);
        let routes = routes.filter(|r| {
            routing.pools.get(&r.pool).is_some_and(|p| p.protocol == *protocol)
                && !self.left_out.contains_key(&Culprit::Pool(r.pool.clone()))
        });
        let routes: Vec<&Route> = routes.collect();
        match protocol {
            ListenerProtocol::Tcp => self.tcp(&routes),
            ListenerProtocol::Http => self.http(routing, listener, &routes),
        }
        Ok(())
    }

    fn tcp(&mut self, routes: &[&Route]) {
        self.say("    mode tcp");
        self.say("    option tcplog");
        let one = routes.iter().any(|route| {
            self.part(&Culprit::Route((*route).clone()), |p| {
                p.say(&format!("    default_backend {}", name("pool", route.pool.as_str())?));
                Ok(())
            })
        });
        if !one {
            self.say("    tcp-request connection reject");
        }
    }

    fn http(&mut self, routing: &Routing, listener: &Listener, routes: &[&Route]) {
        let scheme = if listener.certificates.is_empty() { "http" } else { "https" };
        self.say("    mode http");
        self.say("    option httplog");
        self.say("    option forwardfor");
        self.say("    option idle-close-on-response");
        self.say(&format!("    http-request set-header X-Forwarded-Proto {scheme}"));
        self.say("    http-request set-header X-Forwarded-Host %[req.hdr(host)]");
        self.say(&format!("    http-request set-header X-Forwarded-Port {}", listener.port));
        self.fragment(routing, Section::Frontend);
        self.say("    http-request set-var(txn.host) req.hdr(host),field(1,:),lower,rtrim(.)");
        let sites = sites(routes.iter().copied());
        for (n, site) in sites.iter().enumerate() {
            let fits = match site.host {
                Host::Exactly(host) => {
                    word("host", host).map(|h| format!(" {{ var(txn.host) -m str -- {h} }}"))
                }
                Host::Below(_, parent) => {
                    word("host", parent).map(|p| format!(" {{ var(txn.host) -m end -- {p} }}"))
                }
                Host::Any => Ok(String::new()),
            };
            match fits {
                Ok(fits) => self.say(&format!(
                    "    http-request set-var(txn.site) str(s{n}) if !{{ var(txn.site) -m found }}{fits}"
                )),
                Err(why) => {
                    for route in &site.routes {
                        self.left_out.insert(Culprit::Route((*route).clone()), why.clone());
                    }
                }
            }
        }
        for (n, site) in sites.iter().enumerate() {
            for (m, route) in site.routes.iter().enumerate() {
                self.part(&Culprit::Route((*route).clone()), |p| {
                    p.route(&format!("s{n}"), m, route)
                });
            }
        }
        self.say("    default_backend evenkeel:none");
    }

    fn route(&mut self, site: &str, n: usize, route: &Route) -> Result<(), String> {
        let path = word("path", &route.path)?;
        let pool = name("pool", route.pool.as_str())?;
        let here = format!("    use_backend {pool} if {{ var(txn.site) -m str {site} }}");
        if !path.starts_with('/') {
            return Err(format!("path {path} does not begin with a slash"));
        }
        match path.trim_end_matches('/') {
            "" => self.say(&here),
            whole => {
                let acl = format!("{site}r{n}");
                if whole == path {
                    self.say(&format!("    acl {acl} path -m str -- {whole}"));
                }
                self.say(&format!("    acl {acl} path -m beg -- {whole}/"));
                self.say(&format!("{here} {acl}"));
            }
        }
        Ok(())
    }

    /// The part of a `bind` that makes it speak TLS. A listener that should and cannot is left out: it never speaks
    /// in the clear instead.
    fn certificates(
        &mut self,
        all: &[Certificate],
        protocol: ListenerProtocol,
    ) -> Result<String, String> {
        let mut list = String::new();
        for Certificate { name: of, pem } in all {
            let culprit = Culprit::Certificate(of.clone());
            if self.left_out.contains_key(&culprit) {
                continue;
            }
            match name("certificate", of) {
                Ok(of) => {
                    let path = self.file(of, pem.reveal());
                    let _ = writeln!(list, "{path}");
                }
                Err(why) => {
                    self.left_out.insert(culprit, why);
                }
            }
        }
        if list.is_empty() {
            return Err("no certificate of it can be used".into());
        }
        let list = self.file("list", &list);
        let alpn = match protocol {
            ListenerProtocol::Http => " alpn h2,http/1.1",
            ListenerProtocol::Tcp => "",
        };
        Ok(format!(" ssl crt-list {list}{alpn}"))
    }

    /// A file that is only read where this configuration is; returns its path.
    fn file(&mut self, of: &str, content: &str) -> String {
        let digest: String =
            hex::encode(Sha256::digest(content.as_bytes())).chars().take(16).collect();
        let path = format!("{}/{digest}.{of}", self.frame.certificates);
        let mode = self.frame.mode;
        self.files.push(File { path: path.clone(), content: content.into(), mode });
        path
    }

    fn backend(&mut self, pool: &PoolName, what: &Pool) -> Result<(), String> {
        let Pool { service, port, protocol, balance, cookie, check, most: _ } = what;
        self.say(&format!("\nbackend {}{}", name("pool", pool.as_str())?, self.from()));
        let http = match protocol {
            ListenerProtocol::Http => true,
            ListenerProtocol::Tcp => false,
        };
        self.say(if http { "    mode http" } else { "    mode tcp" });
        let balance = match balance {
            Balance::Roundrobin => "roundrobin",
            Balance::Leastconn => "leastconn",
            Balance::Source => "source",
        };
        self.say(&format!("    balance {balance}"));
        if http {
            // What a server may have begun to do is done once: only what can be asked twice is asked again.
            self.say("    http-request disable-l7-retry unless METH_GET or METH_OPTIONS");
        }
        let cookie = cookie.as_deref().filter(|_| http);
        if let Some(cookie) = cookie {
            let cookie = name("cookie", cookie)?;
            self.say(&format!("    cookie {cookie} insert indirect nocache httponly"));
        }
        self.say(&format!("    default-server {}", self::check(check.as_ref())));
        if let Some(Probe { kind, port: asked, timeout, .. }) = check {
            self.say(&format!("    timeout check {}ms", timeout.as_millis().max(1)));
            match kind {
                ProbeKind::Http { path } if asked == port => {
                    let path = word("path of the check", path)?;
                    self.say("    option httpchk");
                    self.say(&format!(
                        "    http-check send meth GET uri {path} ver HTTP/1.1 hdr Host {service}"
                    ));
                    self.say("    http-check expect status 200-399");
                }
                ProbeKind::Http { .. } | ProbeKind::Tcp => {}
            }
        }
        Ok(())
    }

    fn places(&mut self, pool: &Pool, size: u32, seats: &Seats) {
        let http = pool.protocol == ListenerProtocol::Http;
        let cookie = pool.cookie.as_ref().filter(|_| http);
        for k in 1..=size {
            let name = place_name(&pool.service, k);
            let cookie = cookie.map_or_else(String::new, |_| format!(" cookie {name}"));
            let (address, off) = match seats.get(&k) {
                Some(Seat { address, target: Target::Ready }) => (*address, ""),
                Some(Seat { address, target: Target::Drain }) => (*address, " disabled"),
                None => (NOBODY, " disabled"),
            };
            self.structure.update(name.as_bytes());
            self.put(&format!("    server {name} {address}{cookie}{off}"));
        }
    }
}

/// The time that a worker of an earlier configuration has beyond the longest drain.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Requests are lost to nobody's restart: a connection that fails, or is closed without a word, is tried again
/// elsewhere, and a client's idle connection is not closed by a reload just when it is used again.
///
/// A host that is cut off answers nothing, not even that a connection is alive: what waits there ends within seconds. A server
/// that is slow to answer has a kernel that answers for it.
const DEFAULTS: [&str; 15] = [
    "option redispatch 1",
    "retries 3",
    "retry-on conn-failure empty-response",
    "timeout connect 2s",
    "timeout client 60s",
    "timeout server 60s",
    "timeout http-request 30s",
    "timeout http-keep-alive 10s",
    "timeout queue 10s",
    "timeout client-fin 10s",
    "timeout tunnel 1h",
    "option srvtcpka",
    "srvtcpka-idle 2s",
    "srvtcpka-intvl 1s",
    "srvtcpka-cnt 3",
];

/// What was sent and is not even received after this is lost.
const CUT_OFF: Duration = Duration::from_secs(5);

/// Without a check of its own a pool is at least connected to, so that a host that is cut off drops out by itself.
fn check(check: Option<&Probe>) -> String {
    let (every, fall) = match check {
        Some(p) => (p.interval, p.failure_threshold.max(1)),
        None => (Duration::from_secs(2), 3),
    };
    let every = every.max(Duration::from_millis(100));
    // A server in doubt is asked more often.
    let fast = every.min(Duration::from_millis(500));
    let (every, fast, cut) = (ms(every), ms(fast), ms(CUT_OFF));
    format!("check inter {every} fastinter {fast} fall {fall} rise 1 tcp-ut {cut}")
}

fn ms(d: Duration) -> String {
    format!("{}ms", d.as_millis())
}
