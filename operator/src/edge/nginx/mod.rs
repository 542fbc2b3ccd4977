//! nginx: every change is a reload, so changes are gathered, tried first and confirmed.
//!
//! nginx cannot say how many requests a server has. What it can say is which workers of earlier configurations still
//! finish theirs: a server that drains counts as busy for as long as one of those lives that knew it as ready. That is
//! never too short, and never longer than the longest drain of any service, which ends those workers.
//! Requests are counted with the agent's own questions among them.

mod blame;
mod certificate;
mod drive;
mod facts;
mod here;
mod image;
mod pace;
mod page;
mod render;
mod server;
mod shell;
mod sight;
#[cfg(test)]
mod tests;
mod token;
mod upstream;

pub use drive::drive;
pub use facts::Facts;
pub use image::{Image, Stream, Surroundings};
pub use page::{Culprit, Part};
pub use render::{ASK_PORT, LeftOut, Rendered, render};

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Boot, File, Preview};
use crate::model::{Routing, Table};

/// Where nginx reads its configuration.
const CONFIG: &str = "/etc/evenkeel/nginx.conf";

/// A configuration without anybody to pass requests to.
pub(super) fn preview(routing: &Arc<Routing>) -> Preview {
    let table =
        Table { routing: routing.clone(), servers: BTreeMap::new(), complete: true, held: false };
    let header = "# written by evenkeel: what is changed by hand here is overwritten";
    let beside = |external| Image::beside(Surroundings::of(external, header), None);
    let image = routing.external.first().map_or_else(Image::default, |e| beside(e));
    let Rendered { text, facts, .. } = render(&table, &image, &LeftOut::new());
    let note = "# no server is known here: each comes into its upstream when it runs\n";
    Preview { file: "nginx.conf", text: format!("{note}{text}"), problem: facts.problem }
}

/// Why a route's host or path cannot be written, if so.
pub(super) fn unfit(host: Option<&str>, path: &str) -> Option<String> {
    token::unfit(host, path)
}

/// How an nginx begins: without a listener, whatever its routing is going to be.
pub fn boot() -> Boot {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let file = File { path: CONFIG.to_owned(), content: render::empty().into_bytes(), mode: 0o644 };
    Boot {
        command: words(&["nginx"]),
        args: words(&["-g", "daemon off;", "-c", CONFIG]),
        files: vec![file],
        stop_signal: "SIGQUIT",
    }
}
