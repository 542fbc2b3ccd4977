//! The task of one cluster: subscribe, list, follow; when nobody answers, say so and begin again.
//!
//! Events are a doorbell: each is a reason to look, and none is believed. Without them everything is looked at often.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use reqwest::Response;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::error::CallError;
use super::events::{Look, TYPES};
use super::sse::Lines;
use super::view::Live;
use crate::error::causes;
use crate::model::AppId;

/// What came is looked at together after so long.
const TOGETHER: Duration = Duration::from_millis(100);
/// While anything of ours moves, deployments and the queue are looked at so often.
const MOVING: Duration = Duration::from_secs(5);
/// Without a stream of events everything is looked at so often.
const POLL: Duration = Duration::from_secs(5);
/// Apps that are looked at one by one; more are as well listed in full.
const APPS: usize = 50;
/// Looks at single apps at a time.
const AT_ONCE: usize = 8;
/// Pauses between tries to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Between three and five quarters of `d`: agents that lost a leader together do not come back together.
fn jittered(d: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) % 512;
    d.mul_f64(0.75 + f64::from(u16::try_from(random).unwrap_or(0)) / 1024.0)
}

/// Follows a cluster until the task is ended.
pub(super) async fn run(cluster: Arc<Cluster>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut arrived = false;
        let error = match follow(&cluster, &mut arrived).await {
            Err(e) => e,
            Ok(never) => match never {},
        };
        if arrived {
            pause = FIRST_PAUSE;
        }
        let why = causes(&error);
        if cluster.lost(why.clone()) {
            tracing::warn!(host = %cluster.name, "Marathon is silent: {why}");
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What something that was begun has come to.
enum Done {
    Opened(Result<Response, CallError>),
    Listed,
    Looked(AppId),
    LookedAround,
    Resolved,
}

type Work<'a> = FuturesUnordered<BoxFuture<'a, Result<Done, CallError>>>;

/// The stream of events, as far as it has come.
struct Stream {
    response: Option<Response>,
    lines: Lines,
    heard: Instant,
    pause: Duration,
    again_at: Option<Instant>,
}

/// What is to be looked at, and what is being looked at.
#[derive(Default)]
struct Ahead {
    look: Look,
    due: Option<Instant>,
    looking: BTreeSet<AppId>,
    listing: bool,
    around: bool,
    resolving: bool,
}

impl Ahead {
    fn add(&mut self, look: Look) {
        if !look.is_empty() {
            self.look.extend(look);
            self.due.get_or_insert_with(|| Instant::now() + TOGETHER);
        }
    }

    fn add_all(&mut self) {
        self.add(Look { all: true, ..Look::default() });
    }

    fn is_due(&self) -> bool {
        self.due.is_some_and(|at| at <= Instant::now())
    }
}

async fn follow(cluster: &Arc<Cluster>, arrived: &mut bool) -> Result<Infallible, CallError> {
    cluster.meet().await?;
    let config = cluster.shared.config;
    let mut work: Work<'_> = FuturesUnordered::new();
    let mut ahead = Ahead::default();
    let mut stream = Stream {
        response: None,
        lines: Lines::default(),
        heard: Instant::now(),
        pause: FIRST_PAUSE,
        again_at: None,
    };
    // Subscribed first, so that nothing happens between the list and the stream.
    work.push(open(cluster).boxed());
    let mut relist_at: Option<Instant> = None;
    let mut around_at = Instant::now() + MOVING;
    loop {
        begin(cluster, &mut ahead, &work, &mut relist_at);
        let never = Instant::now() + config.relist;
        let (open_now, silent_at) = (stream.response.is_some(), stream.heard + config.silence);
        tokio::select! {
            Some(done) = work.next() => match done? {
                Done::Opened(Ok(opened)) => {
                    stream.begin(opened);
                    cluster.note(None);
                    ahead.add_all();
                }
                Done::Opened(Err(e)) => {
                    stream.fail(cluster, &causes(&e));
                    // What can be seen without events is seen.
                    ahead.add_all();
                }
                Done::Listed => {
                    ahead.listing = false;
                    let pause = if open_now { config.relist } else { POLL.min(config.relist) };
                    relist_at = Some(Instant::now() + jittered(pause));
                    if !*arrived {
                        *arrived = true;
                        tracing::info!(host = %cluster.name, "Marathon answers");
                    }
                    cluster.arrived();
                    resolve(cluster, &mut ahead, &work, true);
                }
                Done::Looked(id) => {
                    ahead.looking.remove(&id);
                    resolve(cluster, &mut ahead, &work, false);
                }
                Done::LookedAround => {
                    ahead.around = false;
                    around_at = Instant::now() + MOVING;
                }
                Done::Resolved => ahead.resolving = false,
            },
            came = next(&mut stream.response) => match came {
                Ok(Some(bytes)) => {
                    for came in stream.lines.feed(&bytes) {
                        stream.heard = Instant::now();
                        stream.pause = FIRST_PAUSE;
                        heed(cluster, &mut ahead, Look::at(&came));
                    }
                }
                end => {
                    let why = end.err().unwrap_or_else(|| "it was closed".to_owned());
                    stream.fail(cluster, &why);
                    ahead.add_all();
                }
            },
            () = tokio::time::sleep_until(silent_at), if open_now => {
                stream.fail(cluster, "nothing came from it for too long");
                ahead.add_all();
            }
            () = tokio::time::sleep_until(stream.again_at.unwrap_or(never)),
                if stream.again_at.is_some() =>
            {
                stream.again_at = None;
                work.push(open(cluster).boxed());
            }
            () = tokio::time::sleep_until(relist_at.unwrap_or(never)),
                if relist_at.is_some() && !ahead.listing =>
            {
                relist_at = None;
                ahead.add_all();
            }
            () = tokio::time::sleep_until(around_at), if *arrived && !ahead.around => {
                around_at = Instant::now() + MOVING;
                if cluster.read(Live::is_moving) {
                    ahead.around = true;
                    work.push(look_around(cluster, true).boxed());
                }
            }
            () = tokio::time::sleep_until(ahead.due.unwrap_or(never)), if ahead.due.is_some() => {}
            () = cluster.kick.notified() => {
                let unread = cluster.change(|live, _| live.unread());
                ahead.add(Look { apps: unread, ..Look::default() });
                resolve(cluster, &mut ahead, &work, false);
            }
        }
    }
}

impl Stream {
    fn begin(&mut self, response: Response) {
        self.response = Some(response);
        self.lines = Lines::default();
        self.heard = Instant::now();
    }

    fn fail(&mut self, cluster: &Cluster, why: &str) {
        self.response = None;
        self.again_at = Some(Instant::now() + jittered(self.pause));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        let why = format!("Marathon's stream of events: {why}");
        if cluster.note(Some(why.clone())) {
            tracing::warn!(host = %cluster.name, "{why}");
        }
    }
}

/// The next bytes of an open stream. Nothing is lost when this is not waited for to the end.
async fn next(response: &mut Option<Response>) -> Result<Option<Bytes>, String> {
    match response {
        Some(response) => response.chunk().await.map_err(|e| e.without_url().to_string()),
        None => std::future::pending().await,
    }
}

/// Adds what an event asks for, and what it ends. Apps of others are none of our business.
fn heed(cluster: &Cluster, ahead: &mut Ahead, mut look: Look) {
    for id in std::mem::take(&mut look.ended) {
        look.apps.extend(cluster.change(|live, _| live.ended(&id)));
    }
    cluster.read(|live| look.apps.retain(|id| live.knows(id)));
    look.apps.append(&mut look.labelled);
    ahead.add(look);
}

/// Begins the looks that are due.
fn begin<'a>(
    cluster: &'a Arc<Cluster>,
    ahead: &mut Ahead,
    work: &Work<'a>,
    relist_at: &mut Option<Instant>,
) {
    if !ahead.is_due() {
        return;
    }
    if ahead.look.all || ahead.look.apps.len() > APPS {
        if ahead.listing {
            // The one under way may have passed by what this is about: another one follows.
            ahead.due = Some(Instant::now() + TOGETHER);
            return;
        }
        ahead.listing = true;
        *relist_at = None;
        ahead.look = Look::default();
        ahead.due = None;
        work.push(async move { cluster.list().await.map(|()| Done::Listed) }.boxed());
        return;
    }
    let free = AT_ONCE.saturating_sub(ahead.looking.len());
    let next = ahead.look.apps.iter().filter(|id| !ahead.looking.contains(*id));
    let next: Vec<AppId> = next.take(free).cloned().collect();
    for id in next {
        ahead.look.apps.remove(&id);
        ahead.looking.insert(id.clone());
        work.push(look(cluster, id).boxed());
    }
    if ahead.look.deployments && !ahead.around {
        ahead.look.deployments = false;
        ahead.around = true;
        work.push(look_around(cluster, false).boxed());
    }
    let left = !ahead.look.is_empty();
    ahead.due = left.then(|| Instant::now() + TOGETHER);
}

async fn look(cluster: &Cluster, id: AppId) -> Result<Done, CallError> {
    match cluster.look(&id).await {
        Ok(_) => {}
        // One app that may not be seen does not make the cluster silent.
        Err(e) if e.is_of_one() => {
            tracing::warn!(host = %cluster.name, app = %id, "cannot look at app: {}", causes(&e));
        }
        Err(e) => return Err(e),
    }
    Ok(Done::Looked(id))
}

async fn look_around(cluster: &Cluster, queue: bool) -> Result<Done, CallError> {
    cluster.look_around(queue).await.map(|()| Done::LookedAround)
}

/// Begins to find the addresses of agents, beside everything else: names may take their time.
fn resolve<'a>(cluster: &'a Arc<Cluster>, ahead: &mut Ahead, work: &Work<'a>, again: bool) {
    let wanted = |live: &Live| {
        if again { !live.hosts().is_empty() } else { !live.unresolved().is_empty() }
    };
    if !ahead.resolving && cluster.read(wanted) {
        ahead.resolving = true;
        work.push(
            async move {
                cluster.resolve(again).await;
                Ok(Done::Resolved)
            }
            .boxed(),
        );
    }
}

/// Opens a stream, and meets who is there now.
async fn open(cluster: &Cluster) -> Result<Done, CallError> {
    let mut query = vec![("plan-format", "light")];
    query.extend(TYPES.map(|kind| ("event_type", kind)));
    let opened = cluster.http.stream("/v2/events", &query).await;
    if opened.is_ok() {
        cluster.meet().await?;
    }
    Ok(Done::Opened(opened))
}
