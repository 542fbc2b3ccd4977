//! Files into [`Desired`]: every problem at once, each with its place, and one broken document
//! holds only what it defines.
//!
//! Pure: no I/O, no async, no clock, no logging; the same files give the same result whatever
//! their order. Reading has limits everywhere, since anyone who can commit can write here.
//!
//! The way of a document: `yaml` (bytes to values with places) → `document` (whose is it) →
//! `schema` (is it well-formed) → `lower` (what does it mean) → `force` (what do all of them mean together, and what stays of the last revision).

mod applied;
mod balancer;
mod credential;
mod document;
mod file;
mod force;
mod form;
mod implied;
mod leave;
mod lower;
mod node;
mod platform;
mod ports;
mod registry;
mod render;
mod routes;
mod schema;
mod secret;
mod share;
mod yaml;

#[cfg(test)]
mod tests;

pub use applied::{Applied, AppliedError};
pub use file::Known;
pub use render::render_problems;
pub use secret::{NoSecrets, Secrets};
use std::collections::BTreeSet;
use std::fmt;

use document::{Id, Meaning, Object, Sorted};
use file::Places;
use node::{Flaw, Pos};

use crate::model::{Desired, OwnerId, Problem, Revision, Service};
use crate::source::{Files, Objects as ApiObjects};

/// Where a local Docker Engine listens.
pub const DEFAULT_ENDPOINT: &str = "unix:///var/run/docker.sock";

/// How much is read. Each is far above what a person writes, and low enough that no commit can
/// keep the agent busy or fill its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one file.
    pub file_bytes: usize,
    /// Documents in one file.
    pub documents_per_file: usize,
    /// Documents in all files together.
    pub documents: usize,
    /// Lists and mappings inside one another.
    pub depth: usize,
    /// Values in one file, those that aliases repeat counted each time.
    pub nodes: usize,
    /// Bytes in one text.
    pub scalar_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 4 << 20,
            documents_per_file: 200,
            documents: 20_000,
            depth: 64,
            nodes: 200_000,
            scalar_bytes: 128 << 10,
        }
    }
}

/// What a parse depends on beside the files.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The installation, which keys the digests of secrets.
    pub owner: &'a OwnerId,
    /// Where the values of secrets come from.
    pub secrets: &'a dyn Secrets,
    /// What the last parse left in force.
    pub previous: &'a Applied,
    /// How much is read.
    pub limits: Limits,
    /// The engine of the fleet `default` where no document defines that: an endpoint, or the path
    /// of a socket. See [`DEFAULT_ENDPOINT`].
    pub default_endpoint: &'a str,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, secrets: _, previous, limits, default_endpoint } = self;
        f.debug_struct("Context")
            .field("owner", owner)
            .field("previous", &previous.objects.len())
            .field("limits", limits)
            .field("default_endpoint", default_endpoint)
            .finish_non_exhaustive()
    }
}

/// Reads a revision. It cannot fail: what is wrong is in `problems` of the result.
///
/// `skipped` are paths that should have been read and could not be, each with the reason; a
/// directory stands for everything in it, and `.` or nothing for all there is. The second result
/// is the `previous` of the next call.
pub fn parse(
    revision: &str,
    files: &Files,
    skipped: &[(String, String)],
    ctx: &Context<'_>,
) -> (Desired, Applied) {
    parse_objects(revision, files, skipped, None, ctx, &mut Known::default())
}

/// The same for files of which some are `api` objects. What is `known` of an earlier revision need not be read again;
/// the result is the same whatever is.
pub fn parse_objects(
    revision: &str,
    files: &Files,
    skipped: &[(String, String)],
    api: Option<&ApiObjects>,
    ctx: &Context<'_>,
    known: &mut Known,
) -> (Desired, Applied) {
    let leaving = |path: &str| api.is_some_and(|api| api.leaving.contains(path));
    let mut objects = Vec::new();
    let mut problems = Vec::new();
    let mut lost: BTreeSet<&str> = BTreeSet::new();
    let (mut foreign, mut documents, mut full) = (0, 0, false);
    for (path, why) in skipped {
        let message = format!("not read: {}", node::shown(why));
        problems.push(problem(path, None, Flaw::new(Pos::default(), message)));
        lost.insert(path);
    }
    for (path, file) in files.keys().zip(known.read(files, ctx)) {
        if full {
            lost.insert(path);
            continue;
        }
        for doc in &file.documents {
            documents += 1;
            if documents > ctx.limits.documents {
                let message = format!(
                    "more than {} documents: this one and all after it are not read",
                    ctx.limits.documents
                );
                problems.push(problem(path, None, Flaw::new(doc.pos, message)));
                lost.insert(path);
                full = true;
                break;
            }
            // What follows the place where reading stopped may have defined anything.
            if !doc.complete {
                lost.insert(path);
            }
            // What is on its way out need not be mended.
            let mut tell = |id: Option<&Id>, flaw: &Flaw| {
                if !leaving(path) {
                    problems.push(problem(path, id, flaw.clone()));
                }
            };
            let id = if let Sorted::Object(object) = &doc.sorted { Some(&object.id) } else { None };
            for flaw in &doc.flaws {
                tell(id, flaw);
            }
            match &doc.sorted {
                Sorted::Empty => documents -= 1,
                Sorted::Foreign => foreign += 1,
                Sorted::Object(object) => {
                    let mut object = Object::clone(object);
                    object.leaving = leaving(path);
                    if api.is_some_and(|api| api.has(path))
                        && let Some(flaw) = object.trespass.take()
                    {
                        tell(Some(&object.id), &flaw);
                        object.ready = None;
                    }
                    objects.push(object);
                }
                Sorted::Lost => {
                    lost.insert(path);
                }
            }
        }
    }
    let mut force = force::Force::new((ctx, api), Places::of(files, ctx.limits), objects, problems);
    force.keep_lost(|path| {
        let inside = |dir: &&str| {
            let dir = dir.trim_end_matches('/');
            dir.is_empty()
                || dir == "."
                || path.strip_prefix(dir).is_some_and(|r| r.is_empty() || r.starts_with('/'))
        };
        lost.contains(path) || skipped.iter().map(|(p, _)| p.as_str()).any(|d| inside(&d))
    });
    let in_force = force.settle();
    let force::InForce {
        fleets,
        services,
        routings,
        held,
        mut problems,
        objects,
        routes,
        removal,
        gone,
    } = in_force;
    problems.sort();
    problems.dedup();
    let revision = Revision(revision.into());
    let all = routings.values().flat_map(|r| &r.listeners).flat_map(|l| &l.certificates);
    let certificates = all.map(|c| (c.name.clone(), c.pem.clone())).collect();
    let applied = Applied { objects, routes, certificates, foreign, gone };
    (Desired { revision, fleets, services, routings, held, problems, removal }, applied)
}

/// Reads a service's stored document ([`Service::document`]) again, with the secrets of the path that it came from.
///
/// # Errors
/// What is wrong with it by the rules of this version.
pub fn service_from_document(
    json: &str,
    path: &str,
    ctx: &Context<'_>,
) -> Result<Service, DocumentError> {
    let secrets = secret::Of { secrets: ctx.secrets, path };
    let ctx = &Context { secrets: &secrets, ..*ctx };
    let (id, ready) = document::restore(json, ctx)
        .map_err(|flaws| DocumentError { flaws: flaws.into_iter().map(|f| f.message).collect() })?;
    match ready.meaning {
        Meaning::Service(service) => Ok((*service).clone()),
        Meaning::Balancer(balancer) => Ok((*balancer.service).clone()),
        Meaning::Fleet(_) => {
            Err(DocumentError { flaws: vec![format!("{} is not a service", id.key())] })
        }
    }
}

/// Why a stored document means nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored document is not good any more: {}", flaws.join("; "))]
pub struct DocumentError {
    flaws: Vec<String>,
}

impl DocumentError {
    /// Each thing that is wrong.
    pub fn flaws(&self) -> &[String] {
        &self.flaws
    }
}

fn problem(path: &str, id: Option<&Id>, flaw: Flaw) -> Problem {
    let Flaw { pos: Pos { line, column }, message, hint } = flaw;
    let message = match id {
        Some(Id { kind, name }) => format!("{kind} {name}: {message}"),
        None => message,
    };
    Problem { path: path.to_owned(), line, column, message, hint, object: id.map(Id::key) }
}
