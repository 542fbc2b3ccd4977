//! Keeps the cache up with the API server: one task for each kind and namespace.
//!
//! `kube`'s own watcher would do the same but says nothing while it reconnects, and then nobody could tell a watch
//! that works again from one that hangs. Its list and its watch are used, and each answer is taken as a sign of life.

use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use jiff::SignedDuration;
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::core::Status;
use tokio::time::timeout;

use super::cache::{Broken, Cache, Listing, Scope};
use super::connect::{hint, said};
use super::object::{Key, Object};
use crate::clock::Clock;
use crate::source::poll::{Jitter, Pace};

/// After this the API server ends a watch by itself, and a new one is begun.
const WATCH: u32 = 60;
/// A watch that brings nothing for so long hangs: the server should have ended it.
const IDLE: Duration = Duration::from_secs(WATCH as u64 + 5);
/// The longest for an answer to begin.
const ANSWER: Duration = Duration::from_secs(30);
/// Objects on one page of a list.
const PAGE: u32 = 500;
/// More objects than this are not taken from one scope: nobody has so many, and memory is finite.
const MOST: usize = 100_000;
/// The API server no longer knows the version that is asked for.
const GONE: u16 = 410;
/// Between two tries.
const PACE: Pace = Pace {
    interval: Duration::from_millis(100),
    retry_min: Duration::from_secs(1),
    retry_max: Duration::from_secs(30),
    quiet: Duration::ZERO,
};

/// How a watch ended.
enum Ended {
    /// The server ended it; the next goes on where it was.
    Closed,
    /// The server no longer knows what came before.
    Gone,
}

/// Why a watch ended before its time.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", said(.0))]
    Client(Box<kube::Error>),
    #[error("the API server ended the watch: {} ({})", .0.message, .0.code)]
    Told(Box<Status>),
    #[error("the API server says nothing")]
    Silent,
    #[error("there are more than {MOST} {0}")]
    TooMany(Scope),
}

impl From<kube::Error> for Failure {
    fn from(e: kube::Error) -> Self {
        Self::Client(Box::new(e))
    }
}

/// Follows one scope for ever. Ends by being dropped.
pub async fn follow(
    client: kube::Client,
    scope: Scope,
    cache: Cache,
    clock: Clock,
    mut jitter: Jitter,
) {
    let api = api(client, &scope);
    let mut version = None;
    let (mut failures, mut gone) = (0, 0);
    loop {
        let ended = watch(&api, &scope, &cache, &mut version, &mut failures).await;
        let wait = match ended {
            Ok(Ended::Closed) => {
                gone = 0;
                jitter.spread(PACE.interval)
            }
            // Listing again at once is what is meant, but not without end.
            Ok(Ended::Gone) => {
                tracing::debug!(%scope, "the watch is too old, listing again");
                gone += 1;
                jitter.spread(if gone == 1 { PACE.interval } else { PACE.retry(gone) })
            }
            Err(failure) => {
                // Whatever went wrong: a list shows the truth.
                version = None;
                failures += 1;
                let wait = jitter.spread(PACE.retry(failures));
                let now = clock.timestamp();
                let span = SignedDuration::try_from(wait).unwrap_or_default();
                let message = format!("watch {scope}: {failure}");
                tracing::warn!(error = %message, failures, "watch failed, retry in {} s",
                    wait.as_secs().max(1));
                let hint = match &failure {
                    Failure::Client(e) => hint(e),
                    Failure::Told(_) | Failure::Silent | Failure::TooMany(_) => None,
                };
                let next_try = now.checked_add(span).unwrap_or(now);
                let broken = Broken { message, hint, since: now, next_try, failures };
                cache.fails(&scope, broken);
                wait
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Lists one scope into the cache, once.
///
/// # Errors
/// Why it cannot be listed, for people.
pub async fn once(client: kube::Client, scope: &Scope, cache: &Cache) -> Result<(), String> {
    let api = api(client, scope);
    list(&api, scope, cache).await.map(|_| ()).map_err(|failure| failure.to_string())
}

fn api(client: kube::Client, scope: &Scope) -> Api<DynamicObject> {
    let resource = scope.kind.resource();
    match &scope.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    }
}

/// Lists where that is needed, then watches until the server ends it.
async fn watch(
    api: &Api<DynamicObject>,
    scope: &Scope,
    cache: &Cache,
    version: &mut Option<String>,
    failures: &mut u32,
) -> Result<Ended, Failure> {
    let from = match version.take() {
        Some(version) => version,
        None => list(api, scope, cache).await?,
    };
    let params = WatchParams::default().timeout(WATCH);
    let begun = timeout(ANSWER, api.watch(&params, &from)).await.map_err(|_| Failure::Silent)?;
    let stream = match begun {
        Ok(stream) => stream,
        Err(kube::Error::Api(status)) if status.code == GONE => return Ok(Ended::Gone),
        Err(e) => return Err(e.into()),
    };
    cache.answers(scope);
    if *failures > 0 {
        tracing::info!(%scope, "watch works again");
        *failures = 0;
    }
    let mut newest = from;
    pin_mut!(stream);
    loop {
        let event = timeout(IDLE, stream.next()).await.map_err(|_| Failure::Silent)?;
        let Some(event) = event else { break };
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                newest = object.metadata.resource_version.clone().unwrap_or(newest);
                if let Some(object) = Object::read(scope.kind, object) {
                    cache.put(object);
                }
            }
            WatchEvent::Deleted(object) => {
                newest = object.metadata.resource_version.clone().unwrap_or(newest);
                let namespace = object.metadata.namespace.unwrap_or_default().into();
                let name = object.metadata.name.unwrap_or_default().into();
                cache.remove(&Key { namespace, kind: scope.kind, name });
            }
            WatchEvent::Bookmark(mark) => newest = mark.metadata.resource_version,
            WatchEvent::Error(told) if told.code == GONE => return Ok(Ended::Gone),
            WatchEvent::Error(told) => return Err(Failure::Told(told.boxed())),
        }
    }
    *version = Some(newest);
    Ok(Ended::Closed)
}

/// Lists everything, page by page; only a whole list counts.
async fn list(api: &Api<DynamicObject>, scope: &Scope, cache: &Cache) -> Result<String, Failure> {
    let mut params = ListParams::default().limit(PAGE);
    let mut listing = Listing::default();
    loop {
        let page = timeout(ANSWER, api.list(&params)).await.map_err(|_| Failure::Silent)??;
        let objects = page.items.into_iter().filter_map(|o| Object::read(scope.kind, o));
        cache.page(&mut listing, objects);
        if listing.len() > MOST {
            return Err(Failure::TooMany(scope.clone()));
        }
        let more = page.metadata.continue_.filter(|token| !token.is_empty());
        if let Some(token) = more {
            params.continue_token = Some(token);
            continue;
        }
        cache.replace(scope, listing);
        return Ok(page.metadata.resource_version.unwrap_or_default());
    }
}
