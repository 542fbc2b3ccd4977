//! A table as nginx's configuration: pure, and the same for the same input to the byte.
//!
//! What this nginx cannot do is left out with its reason and never makes the rest invalid. The check of what is left
//! is nginx's own; who is to blame for a line is known here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::certificate;
use super::facts::Facts;
use super::image::{Image, Stream};
use super::page::{Culprit, Page, Part};
use super::{server, token, upstream};
use crate::edge::File;
use crate::model::edge::ACCESS_LOG;
use crate::model::{
    Certificate, Listener, ListenerProtocol, Pool, PoolName, Server, Table, Target,
};

/// The port on the container's loopback where nginx tells which configuration is in force.
pub const ASK_PORT: u16 = 10_901;
/// Stands for the digest while it is computed.
const UNKNOWN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What is to be left out, and why.
pub type LeftOut = BTreeMap<Culprit, String>;

/// A configuration that nginx may be asked to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The file.
    pub text: String,
    /// Whom each of its lines belongs to.
    pub culprits: Vec<Culprit>,
    /// Certificates that it names.
    pub certificates: Vec<(String, File)>,
    /// What it says about itself.
    pub facts: Facts,
}

/// What the parts of a configuration are written from.
pub(super) struct Draft<'a> {
    pub(super) table: &'a Table,
    pub(super) image: &'a Image,
    left_out: LeftOut,
    /// What each fragment that is left in says at its own level.
    parts: BTreeMap<Part, Vec<String>>,
}

impl<'a> Draft<'a> {
    pub(super) fn fragment(&self, part: Part) -> Option<&'a str> {
        let fragments = &self.table.routing.fragments;
        let text = match part {
            Part::Global => &fragments.global,
            Part::Defaults => &fragments.defaults,
            Part::Frontend => &fragments.frontend,
            Part::Backend => &fragments.backend,
        };
        text.as_deref().filter(|_| !self.left_out.contains_key(&Culprit::Part(part)))
    }

    /// Whether a fragment has a statement of its own of that name.
    pub(super) fn sets(&self, part: Part, statement: &str) -> bool {
        self.parts.get(&part).is_some_and(|words| words.iter().any(|word| word == statement))
    }

    pub(super) fn certificates(&self, listener: &'a Listener) -> Vec<&'a Certificate> {
        let there =
            |c: &&Certificate| !self.left_out.contains_key(&Culprit::Certificate(c.name.clone()));
        listener.certificates.iter().filter(there).collect()
    }

    /// A pool with its number.
    pub(super) fn pool(&self, name: &PoolName) -> Option<(usize, &'a Pool)> {
        let mut pools = self.table.routing.pools.iter().enumerate();
        pools.find(|(_, (other, _))| *other == name).map(|(number, (_, pool))| (number, pool))
    }

    pub(super) fn servers(&self, pool: &PoolName) -> &'a [Server] {
        self.table.servers.get(pool).map_or(&[], Vec::as_slice)
    }

    /// Why a route is not in the configuration, if so.
    fn refusal(&self, number: usize) -> Option<String> {
        let route = &self.table.routing.routes[number];
        let left_out = |culprit| self.left_out.get(&culprit).cloned();
        left_out(Culprit::Route(number))
            .or_else(|| left_out(Culprit::Pool(route.pool.clone())))
            .or_else(|| left_out(Culprit::Listener(route.listener.clone())))
    }

    fn leave_out(&mut self, culprit: Culprit, why: impl Into<String>) {
        self.left_out.entry(culprit).or_insert_with(|| why.into());
    }
}

/// Renders `table` for nginx as it is in `image`, without what is `left_out`.
pub fn render(table: &Table, image: &Image, left_out: &LeftOut) -> Rendered {
    // Whoever drains gets nothing: whether he is still listed makes no difference to anybody's requests.
    let mut serving = table.clone();
    for servers in serving.servers.values_mut() {
        servers.retain(|server| server.target == Target::Ready);
    }
    serving.servers.retain(|_, servers| !servers.is_empty());
    let serves = draw(&serving, image, left_out, "").facts.digest;
    draw(table, image, left_out, &serves)
}

fn draw(table: &Table, image: &Image, left_out: &LeftOut, serves: &str) -> Rendered {
    let mut draft = Draft { table, image, left_out: left_out.clone(), parts: BTreeMap::new() };
    judge_fragments(&mut draft);
    judge_listeners(&mut draft);
    judge_routes(&mut draft);
    let mut by_listener: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, route) in table.routing.routes.iter().enumerate() {
        if draft.refusal(number).is_none() {
            by_listener.entry(&route.listener).or_default().push(number);
        }
    }
    let facts = Facts { serves: serves.to_owned(), ..facts(&draft, &by_listener) };
    let page = configuration(&draft, &by_listener, &facts);
    seal(page, facts, used(&draft))
}

/// The configuration that a balancer begins with: nothing but the answer to what is in force.
pub(super) fn empty() -> String {
    let mut page = Page::new();
    page.line("worker_processes 1;");
    page.line("error_log stderr warn;");
    page.block("events", |_| {});
    page.block("http", |page| {
        page.line("access_log off;");
        ask(page, "nothing");
    });
    page.finish().0
}

fn judge_fragments(draft: &mut Draft<'_>) {
    for part in Part::ALL {
        let Some(text) = draft.fragment(part) else { continue };
        match token::statements(text) {
            Ok(words) => drop(draft.parts.insert(part, words)),
            Err(why) => draft.leave_out(Culprit::Part(part), why),
        }
    }
}

fn judge_listeners(draft: &mut Draft<'_>) {
    for listener in &draft.table.routing.listeners {
        let Listener { name, port, protocol, certificates } = listener;
        let culprit = Culprit::Listener(name.clone());
        if !certificates.is_empty() && draft.certificates(listener).is_empty() {
            let why = format!("listener {name} has no certificate that nginx takes");
            draft.leave_out(culprit.clone(), why);
        }
        if *protocol == ListenerProtocol::Http {
            continue;
        }
        if draft.image.stream == Stream::Missing {
            let why =
                format!("listener {name} is tcp, and nginx in this image has no stream module");
            draft.leave_out(culprit.clone(), why);
        }
        if *port == ASK_PORT {
            let why = format!("listener {name} has port {port}, where nginx is asked what it does");
            draft.leave_out(culprit, why);
        }
    }
}

fn judge_routes(draft: &mut Draft<'_>) {
    let mut taken = BTreeSet::new();
    for (number, route) in draft.table.routing.routes.iter().enumerate() {
        let listener = draft.table.routing.listeners.iter().find(|l| l.name == route.listener);
        let fault = match listener {
            None => Some(format!("there is no listener {:?}", route.listener)),
            Some(Listener { protocol: ListenerProtocol::Http, .. }) => {
                token::unfit(route.host.as_deref(), &route.path)
            }
            Some(Listener { protocol: ListenerProtocol::Tcp, name, .. }) => (!taken.insert(name))
                .then(|| format!("listener {name} is tcp, and another route has it")),
        };
        let odd =
            |server: &&Server| !token::plain(&server.name) || !token::plain(&server.instance.0);
        let fault = fault.or_else(|| {
            let server = draft.servers(&route.pool).iter().find(odd)?;
            Some(format!("instance {:?} cannot be written for nginx", server.name))
        });
        let cookie = draft.pool(&route.pool).and_then(|(_, pool)| pool.cookie.as_deref());
        let fault = fault.or_else(|| {
            let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let odd = cookie.filter(|cookie| !cookie.chars().all(letters))?;
            Some(format!("cookie {odd:?} cannot be written for nginx"))
        });
        if let Some(why) = fault {
            draft.leave_out(Culprit::Route(number), why);
        }
    }
}

fn facts(draft: &Draft<'_>, by_listener: &BTreeMap<&str, Vec<usize>>) -> Facts {
    let mut facts = Facts { digest: UNKNOWN.to_owned(), ..Facts::default() };
    let routing = &draft.table.routing;
    let mut whole: BTreeSet<&PoolName> = routing.pools.keys().collect();
    for (number, route) in routing.routes.iter().enumerate() {
        let Some(why) = draft.refusal(number) else { continue };
        whole.remove(&route.pool);
        if let Some((_, pool)) = draft.pool(&route.pool) {
            facts.refused.entry(pool.service.clone()).or_insert(why);
        }
    }
    for pool in whole {
        facts.pools.insert(pool.clone(), pool_digest(draft.table, pool));
    }
    let routed = by_listener.values().flatten().map(|route| &routing.routes[*route].pool);
    for pool in routed.collect::<BTreeSet<_>>() {
        for server in draft.servers(pool) {
            facts
                .servers
                .insert((pool.clone(), server.address), Server { sick: false, ..server.clone() });
        }
    }
    let mut problems = Vec::new();
    for (culprit, why) in &draft.left_out {
        match culprit {
            Culprit::Part(part) => {
                problems.push(format!("fragment {} is left out: {why}", part.name()));
            }
            Culprit::Certificate(name) => {
                problems.push(format!("certificate {name} is left out: {why}"));
            }
            Culprit::Ours | Culprit::Route(_) | Culprit::Pool(_) | Culprit::Listener(_) => {}
        }
    }
    facts.problem = (!problems.is_empty()).then(|| problems.join("; "));
    facts
}

/// Whether a pool is in force as it is ordered: everything that decides about its requests takes part.
pub(super) fn pool_digest(table: &Table, name: &PoolName) -> String {
    let mut text = String::new();
    if let Some(pool) = table.routing.pools.get(name) {
        let Pool { service, port, protocol, balance, cookie, check: _, most: _ } = pool;
        let _ = writeln!(text, "{service} {port} {protocol:?} {balance:?} {cookie:?}");
    }
    for route in table.routing.routes.iter().filter(|route| route.pool == *name) {
        let _ = writeln!(text, "{} {:?} {}", route.listener, route.host, route.path);
    }
    let servers = table.servers.get(name).map_or(&[][..], Vec::as_slice);
    for server in servers.iter().filter(|server| server.target == Target::Ready) {
        let Server { instance, name, slot: _, address, target: _, sick: _ } = server;
        let _ = writeln!(text, "{} {name} {address}", instance.0);
    }
    let digest = hex::encode(Sha256::digest(text));
    digest.get(..16).unwrap_or_default().to_owned()
}

fn configuration(
    draft: &Draft<'_>,
    by_listener: &BTreeMap<&str, Vec<usize>>,
    facts: &Facts,
) -> Page {
    let mut page = Page::new();
    draft.image.beside.iter().for_each(|beside| page.line(&beside.header));
    facts.lines().iter().for_each(|line| page.line(line));
    let listeners = |protocol| {
        let routing = &draft.table.routing;
        let out = |listener: &&Listener| {
            listener.protocol == protocol
                && !draft.left_out.contains_key(&Culprit::Listener(listener.name.clone()))
        };
        routing.listeners.iter().filter(out).collect::<Vec<_>>()
    };
    // A TCP listener that no route leads from would only refuse its clients later.
    let mut tcp = listeners(ListenerProtocol::Tcp);
    tcp.retain(|listener| by_listener.contains_key(listener.name.as_str()));
    let stream = match &draft.image.stream {
        _ if tcp.is_empty() => None,
        Stream::Module(path) => Some(format!("load_module {path};")),
        Stream::Built | Stream::Missing => Some(String::new()),
    };
    stream.iter().filter(|load| !load.is_empty()).for_each(|load| page.line(load));
    let http = |page: &mut Page| {
        http(page, draft, by_listener);
        for listener in listeners(ListenerProtocol::Http) {
            let routes = by_listener.get(listener.name.as_str()).map_or(&[][..], Vec::as_slice);
            server::http(page, draft, listener, routes);
        }
        page.line("");
        match &draft.image.beside {
            None => ask(page, UNKNOWN),
            Some(beside) => ask_beside(page, &beside.asked, UNKNOWN),
        }
    };
    if draft.image.beside.is_some() {
        // It is included in the `http` block of somebody else.
        http(&mut page);
        return page;
    }
    main(&mut page, draft);
    page.block("http", http);
    if stream.is_some() {
        page.block("stream", |page| {
            page.line("proxy_connect_timeout 1s;");
            page.line("proxy_timeout 1h;");
            pools(page, draft, by_listener, ListenerProtocol::Tcp);
            for listener in tcp {
                let routes = by_listener.get(listener.name.as_str());
                if let Some(route) = routes.and_then(|routes| routes.first()) {
                    server::tcp(page, draft, listener, *route);
                }
            }
        });
    }
    page
}

fn main(page: &mut Page, draft: &Draft<'_>) {
    let seconds = draft.table.routing.drain.as_secs_f64().ceil().max(1.0);
    let ours = [
        ("worker_processes", "auto".to_owned()),
        // Zero would be no limit.
        ("worker_shutdown_timeout", format!("{seconds:.0}s")),
        ("error_log", "stderr warn".to_owned()),
    ];
    for (name, value) in ours {
        if !draft.sets(Part::Global, name) {
            page.line(format!("{name} {value};"));
        }
    }
    if let Some(text) = draft.fragment(Part::Global) {
        page.fragment(Part::Global, text);
    }
    if !draft.sets(Part::Global, "events") {
        page.block("events", |page| page.line("worker_connections 8192;"));
    }
}

/// Room for many names holds for all servers of an nginx: beside others it is not ours to make.
const OF_ALL: [&str; 5] = [
    "server_names_hash_bucket_size",
    "server_names_hash_max_size",
    "map_hash_bucket_size",
    "map_hash_max_size",
    "variables_hash_max_size",
];

/// What each of our servers has, unless a person says otherwise.
pub(super) fn settings(page: &mut Page, draft: &Draft<'_>) {
    let mut ours = vec![
        ("server_tokens", "off"),
        ("server_names_hash_bucket_size", "512"),
        ("server_names_hash_max_size", "16384"),
        ("map_hash_bucket_size", "512"),
        ("map_hash_max_size", "16384"),
        ("variables_hash_max_size", "16384"),
        ("client_max_body_size", "0"),
        ("ssl_protocols", "TLSv1.2 TLSv1.3"),
        ("ssl_session_cache", "shared:ek_tls:4m"),
        ("proxy_http_version", "1.1"),
        ("proxy_connect_timeout", "1s"),
        // A request that may have had an effect is sent to one instance only.
        ("proxy_next_upstream", "error timeout"),
        ("proxy_next_upstream_tries", "3"),
    ];
    if draft.image.version >= (1, 27, 4) {
        // A client that has a connection to a worker that ends may be sending on it just now.
        ours.push(("keepalive_min_timeout", "1s"));
    }
    let beside = draft.image.beside.is_some();
    for (name, value) in ours {
        let theirs = beside && (OF_ALL.contains(&name) || draft.sets(Part::Frontend, name));
        if !theirs && !draft.sets(Part::Defaults, name) {
            page.line(format!("{name} {value};"));
        }
    }
}

/// What holds for every server.
fn http(page: &mut Page, draft: &Draft<'_>, by_listener: &BTreeMap<&str, Vec<usize>>) {
    if draft.image.beside.is_none() {
        settings(page, draft);
        server::forwarded(page);
    }
    page.block("map $http_upgrade $ek_connection", |page| {
        page.line("default upgrade;");
        page.line("\"\" \"\";");
    });
    page.block("map $http_host $ek_host", |page| {
        page.line("default $http_host;");
        page.line("\"\" $host;");
    });
    let servers = draft.table.servers.values().flatten();
    upstream::instances(page, servers.filter(|server| server.target == Target::Ready));
    if draft.image.beside.is_none() {
        access_log(page, draft);
    }
    if let Some(text) = draft.fragment(Part::Defaults) {
        page.fragment(Part::Defaults, text);
    }
    pools(page, draft, by_listener, ListenerProtocol::Http);
}

fn access_log(page: &mut Page, draft: &Draft<'_>) {
    if !draft.table.routing.access_log {
        if !draft.sets(Part::Defaults, "access_log") {
            page.line("access_log off;");
        }
        return;
    }
    page.line(
        "log_format evenkeel '$time_iso8601 $remote_addr \"$request\" $status $body_bytes_sent \
         $request_time host=$host pool=$proxy_host instance=$ek_instance upstream=$upstream_addr \
         upstream_status=$upstream_status upstream_time=$upstream_response_time';",
    );
    page.line(format!("access_log {ACCESS_LOG}/{}.log evenkeel;", draft.image.hostname));
}

fn pools(
    page: &mut Page,
    draft: &Draft<'_>,
    by_listener: &BTreeMap<&str, Vec<usize>>,
    protocol: ListenerProtocol,
) {
    let routes = &draft.table.routing.routes;
    let used: BTreeSet<&PoolName> =
        by_listener.values().flatten().map(|route| &routes[*route].pool).collect();
    for (number, (name, pool)) in draft.table.routing.pools.iter().enumerate() {
        let servers = draft.servers(name);
        if pool.protocol != protocol || !used.contains(name) || !upstream::serves(servers) {
            continue;
        }
        page.line("");
        upstream::upstream(page, name, pool, servers);
        if let Some(cookie) = &pool.cookie {
            upstream::sticky(page, number, name, cookie, servers);
        }
    }
}

/// Nobody but who is inside the container hears it.
fn ask(page: &mut Page, digest: &str) {
    page.block("server", |page| {
        page.line(format!("listen 127.0.0.1:{ASK_PORT};"));
        page.line("access_log off;");
        page.line(
            "location = /digest { return 200 \"digest DIGEST\\n\"; }".replace("DIGEST", digest),
        );
        page.line("location = /status { stub_status; }");
    });
}

/// Heard by whoever can reach that address, which is for the document to say.
fn ask_beside(page: &mut Page, at: &str, digest: &str) {
    page.block("server", |page| {
        page.line(format!("listen {at};"));
        page.line("access_log off;");
        page.line(format!(
            "location = /digest {{ return 200 \"digest {digest}\\nversion $nginx_version\\npid $pid\\n\"; }}"
        ));
        page.line("location = /status { stub_status; }");
    });
}

fn used(draft: &Draft<'_>) -> Vec<(String, File)> {
    let mut files = BTreeMap::new();
    for listener in &draft.table.routing.listeners {
        for certificate in draft.certificates(listener) {
            let path = certificate::path(certificate, draft.image.beside.as_ref());
            let content = certificate.pem.reveal().as_bytes().to_vec();
            let file = File { path: path.clone(), content, mode: 0o600 };
            files.insert(path, (certificate.name.clone(), file));
        }
    }
    files.into_values().collect()
}

/// Puts the digest where it was left open.
fn seal(page: Page, mut facts: Facts, certificates: Vec<(String, File)>) -> Rendered {
    let (text, culprits) = page.finish();
    facts.digest = hex::encode(Sha256::digest(&text));
    let text = text.replace(UNKNOWN, &facts.digest);
    Rendered { text, culprits, certificates, facts }
}
