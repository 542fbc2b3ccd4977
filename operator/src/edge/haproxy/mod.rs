//! HAProxy, 2.6 or newer: servers change through its runtime socket, everything else by a checked file and a reload.
//!
//! The configuration in force carries a digest of its structure in its environment, and each pool has more places than
//! servers. So what is in force is read from HAProxy itself, and instances come and go without a reload.

mod approve;
mod assign;
mod drive;
mod observe;
mod parse;
mod render;
mod routes;
mod runtime;
mod site;
mod words;

pub use self::drive::drive;
use self::site::Frame;
use super::Preview;
use super::container::Boot;
use crate::model::edge::ACCESS_LOG;
use crate::model::{File, Routing};

/// The configuration in force, inside the container.
const CONFIG: &str = "/etc/evenkeel/haproxy.cfg";
/// A configuration that is still to be checked.
const CANDIDATE: &str = "/etc/evenkeel/haproxy.candidate";
/// Its certificates.
const CERTIFICATES: &str = "/etc/evenkeel/certificates";
/// The runtime socket's port, on the container's own loopback.
pub(super) const PORT: u16 = 9099;
/// The variable that says which structure is in force.
const MARK: &str = "EVENKEEL_TABLE";
/// Its value until the first table is in force.
const BOOT: &str = "boot";

/// How a container of HAProxy begins: with its runtime socket and no listener, so that a health check of a listener's
/// port fails until the first table is in force. The same for every table.
pub fn boot() -> Boot {
    // The access log's directory is there only where one was asked for; an image whose user may not write to it logs
    // to the container's log rather than not at all.
    let script = format!(
        "f={ACCESS_LOG}/$(cat /etc/hostname).log; \
         if [ -d {ACCESS_LOG} ] && true 2>/dev/null >>\"$f\"; then exec >>\"$f\"; fi; \
         exec haproxy -W -db -f {CONFIG}"
    );
    Boot {
        command: vec!["/bin/sh".into(), "-c".into()],
        args: vec![script],
        files: vec![File { path: CONFIG.into(), content: render::boot().into(), mode: 0o644 }],
        stop_signal: "SIGUSR1",
    }
}

/// What stands around a table, for a person to look at: whose it is depends on the agent.
fn frame(routing: &Routing) -> Frame {
    let header = "# written by evenkeel: what is changed by hand here is overwritten";
    routing.external.first().map_or_else(Frame::container, |e| Frame::external(e, header))
}

/// A configuration whose places are all free.
pub(super) fn preview(routing: &Routing) -> Preview {
    let sizes = routing.pools.iter().map(|(name, pool)| (name.clone(), assign::size(pool, 0, 0)));
    let rendered = render::render(
        &frame(routing),
        routing,
        &sizes.collect(),
        &std::collections::BTreeMap::new(),
        &render::LeftOut::new(),
    );
    let note =
        "# no server is known here: each takes one of the places when it runs, without a reload\n";
    Preview {
        file: "haproxy.cfg",
        text: format!("{note}{}", rendered.text),
        problem: observe::problem(&rendered.left_out),
    }
}

/// Why a route's host or path cannot be configured, if so.
pub(super) fn unfit(host: Option<&str>, path: &str) -> Option<String> {
    host.and_then(|host| words::word("host", host).err())
        .or_else(|| words::word("path", path).err())
        .map(|why| why.replace("be configured", "be written for HAProxy"))
}

#[cfg(test)]
mod tests;
