//! Listeners and routes as nginx's `server` and `location` blocks.

use std::collections::{BTreeMap, BTreeSet};

use super::certificate;
use super::page::{Culprit, Page, Part};
use super::render::Draft;
use super::upstream;
use crate::model::{Certificate, Listener, Pool, PoolName};

/// The routes of one listener by host: `None` is every other host.
type Hosts<'a> = BTreeMap<Option<&'a str>, Vec<usize>>;

/// How the instance sees who asked, and over what.
const FORWARDED: [&str; 7] = [
    "proxy_set_header Host $ek_host;",
    "proxy_set_header Connection $ek_connection;",
    "proxy_set_header Upgrade $http_upgrade;",
    "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    "proxy_set_header X-Forwarded-Proto $scheme;",
    "proxy_set_header X-Forwarded-Host $ek_host;",
    "proxy_set_header X-Forwarded-Port $server_port;",
];

/// Writes them where they are inherited from.
pub(super) fn forwarded(page: &mut Page) {
    for line in FORWARDED {
        page.line(line);
    }
}

/// An HTTP listener with `routes`, by their places in the routing.
pub(super) fn http(page: &mut Page, draft: &Draft<'_>, listener: &Listener, routes: &[usize]) {
    let mut hosts: Hosts<'_> = BTreeMap::from([(None, Vec::new())]);
    for &route in routes {
        let host = draft.table.routing.routes[route].host.as_deref();
        hosts.entry(host).or_default().push(route);
    }
    let certificates = draft.certificates(listener);
    let named = extra_names(&certificates, &hosts);
    page.by(Culprit::Listener(listener.name.clone()), |page| {
        for (host, routes) in &hosts {
            server(page, draft, listener, &certificates, *host, routes);
        }
        for name in &named {
            let routes = routes_of(&hosts, name);
            server(page, draft, listener, &certificates, Some(name), routes);
        }
    });
}

/// Names that a certificate other than the first has and no route: a client that asks for them must be shown it.
fn extra_names(certificates: &[&Certificate], hosts: &Hosts<'_>) -> BTreeSet<String> {
    let names = certificates.iter().skip(1).flat_map(|certificate| certificate::names(certificate));
    names
        .filter(|name| {
            !hosts.contains_key(&Some(name.as_str()))
                && super::token::unfit(Some(name), "/").is_none()
        })
        .collect()
}

/// The routes that a name without any of its own has: those of the longest wildcard above it, or of every other host.
fn routes_of<'a>(hosts: &'a Hosts<'_>, name: &str) -> &'a [usize] {
    let name = name.strip_prefix("*.").map_or(name, |rest| rest);
    let above = hosts.iter().filter_map(|(host, routes)| {
        let suffix = host.as_ref()?.strip_prefix('*')?;
        name.ends_with(suffix).then_some((suffix.len(), routes))
    });
    let longest = above.max_by_key(|(length, _)| *length).map(|(_, routes)| routes);
    longest.or_else(|| hosts.get(&None)).map_or(&[], Vec::as_slice)
}

fn server(
    page: &mut Page,
    draft: &Draft<'_>,
    listener: &Listener,
    certificates: &[&Certificate],
    host: Option<&str>,
    routes: &[usize],
) {
    page.line("");
    page.block("server", |page| {
        let other = if host.is_none() { " default_server" } else { "" };
        listen(page, draft, listener, other);
        // An empty name is that of requests without any; all others come to the default.
        page.line(format!("server_name {};", host.unwrap_or("\"\"")));
        if let Some(certificate) = certificate::choose(certificates, host) {
            tls(page, draft, certificate);
        }
        if draft.image.beside.is_some() {
            // The `http` block is somebody else's.
            super::render::settings(page, draft);
        }
        if let Some(text) = draft.fragment(Part::Frontend) {
            page.fragment(Part::Frontend, text);
        }
        if draft.image.beside.is_some() || draft.sets(Part::Frontend, "proxy_set_header") {
            forwarded(page);
        }
        let mut longest_first = routes.to_vec();
        longest_first.sort_by_key(|route| std::cmp::Reverse(path(draft, *route).len()));
        for &route in &longest_first {
            page.by(Culprit::Route(route), |page| locations(page, draft, route));
        }
        if !routes.iter().any(|route| path(draft, *route).is_empty()) {
            page.block("location /", |page| {
                answer(page, 404, "no route leads from this host and path");
            });
        }
    });
}

fn listen(page: &mut Page, draft: &Draft<'_>, listener: &Listener, other: &str) {
    let Listener { name: _, port, protocol: _, certificates } = listener;
    let apart = draft.image.version >= (1, 25, 1);
    match (certificates.is_empty(), draft.image.http2) {
        (true, _) => page.line(format!("listen {port}{other};")),
        (false, true) if apart => {
            page.line(format!("listen {port} ssl{other};"));
            page.line("http2 on;");
        }
        (false, true) => page.line(format!("listen {port} ssl http2{other};")),
        (false, false) => page.line(format!("listen {port} ssl{other};")),
    }
}

pub(super) fn tls(page: &mut Page, draft: &Draft<'_>, certificate: &Certificate) {
    let path = certificate::path(certificate, draft.image.beside.as_ref());
    page.by(Culprit::Certificate(certificate.name.clone()), |page| {
        page.line(format!("ssl_certificate {path};"));
        page.line(format!("ssl_certificate_key {path};"));
    });
}

/// A route's prefix without the slash at its end: the root is empty.
fn path<'a>(draft: &Draft<'a>, route: usize) -> &'a str {
    draft.table.routing.routes[route].path.trim_end_matches('/')
}

/// A prefix of whole segments is two locations: the path itself, and what is below it.
fn locations(page: &mut Page, draft: &Draft<'_>, route: usize) {
    let path = path(draft, route);
    if !path.is_empty() {
        page.block(format!("location = {path}"), |page| target(page, draft, route));
    }
    // A person's expressions do not come before it.
    page.block(format!("location ^~ {path}/"), |page| target(page, draft, route));
}

fn target(page: &mut Page, draft: &Draft<'_>, route: usize) {
    let name = &draft.table.routing.routes[route].pool;
    match draft.pool(name) {
        Some((number, pool)) if upstream::serves(draft.servers(name)) => {
            pass(page, draft, number, name, pool);
        }
        Some(_) | None => answer(page, 503, "no instance takes requests at the moment"),
    }
}

fn pass(page: &mut Page, draft: &Draft<'_>, number: usize, name: &PoolName, pool: &Pool) {
    if pool.cookie.is_some() {
        page.line(format!("proxy_pass http://{};", upstream::variable(number)));
        page.line(format!("add_header Set-Cookie {} always;", upstream::set_cookie(number)));
    } else {
        page.line(format!("proxy_pass http://{name};"));
    }
    if let Some(text) = draft.fragment(Part::Backend) {
        page.fragment(Part::Backend, text);
    }
    if draft.sets(Part::Backend, "proxy_set_header") {
        forwarded(page);
    }
}

fn answer(page: &mut Page, code: u16, why: &str) {
    page.line("default_type text/plain;");
    page.line(format!("return {code} \"{why}\\n\";"));
}

/// A listener whose connections all go to one pool.
pub(super) fn tcp(page: &mut Page, draft: &Draft<'_>, listener: &Listener, route: usize) {
    let name = &draft.table.routing.routes[route].pool;
    let certificates = draft.certificates(listener);
    page.line("");
    page.by(Culprit::Route(route), |page| {
        page.block("server", |page| {
            let ssl = if listener.certificates.is_empty() { "" } else { " ssl" };
            page.line(format!("listen {}{ssl};", listener.port));
            if let Some(certificate) = certificate::choose(&certificates, None) {
                tls(page, draft, certificate);
            }
            if upstream::serves(draft.servers(name)) {
                page.line(format!("proxy_pass {name};"));
            } else {
                // The connection is closed at once.
                page.line("return \"\";");
            }
        });
    });
}
