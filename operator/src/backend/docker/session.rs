//! The task of one host: connect, subscribe, list, follow; when anything breaks, say so and begin again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptionsBuilder, ListNetworksOptionsBuilder};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::connect::{Engine, READ, limited};
use super::errors::CallError;
use super::host::Host;
use super::instance::nanos;
use super::labels::{FLEET, OWNER};
use super::probe::{self, Target};
use super::view::{Heed, Ticket, Todo};
use super::wire::{Inspect, Summary};

/// A host that said nothing for so long is asked whether it is there, and has as long to answer.
const QUIET: Duration = Duration::from_secs(5);
/// How long a host may take to answer for one of its instances that failed a check.
const PING: Duration = Duration::from_secs(2);
/// Everything is listed again so often, in case an event never came.
const RELIST: Duration = Duration::from_secs(60);
/// Changes of foreign containers are looked at together after so long.
const FOREIGN: Duration = Duration::from_millis(100);
/// Inspects under way at a time.
const INSPECTS: usize = 8;
/// Pauses between tries to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Between three and five quarters of `d`: hosts that broke together do not come back together.
fn jittered(d: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) % 512;
    d.mul_f64(0.75 + f64::from(u16::try_from(random).unwrap_or(0)) / 1024.0)
}

/// Follows a host until the task is ended.
pub(super) async fn run(host: Arc<Host>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut arrived = false;
        let why = session(&host, &mut arrived).await.to_string();
        if arrived {
            pause = FIRST_PAUSE;
        }
        if host.lost(why.clone()) {
            tracing::warn!(host = %host.name, "host is silent: {why}");
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What a call that was begun has come to.
enum Done {
    Listed(Ticket, Vec<Summary>),
    Networks(Ticket, BTreeSet<Arc<str>>),
    Inspected(Arc<str>, Ticket, Option<Box<Inspect>>),
    Unseen(Arc<str>),
    ForeignDue,
    Foreign(Ticket, BTreeSet<Arc<str>>, Vec<Summary>),
    Alive,
}

type Work<'a> = FuturesUnordered<BoxFuture<'a, Result<Done, CallError>>>;

/// What is to be looked at, and what is being looked at.
#[derive(Default)]
struct Ahead {
    inspect: BTreeSet<Arc<str>>,
    inspecting: BTreeSet<Arc<str>>,
    foreign: BTreeSet<Arc<str>>,
    foreign_due: bool,
    networks: bool,
    listing_networks: bool,
    /// Those of ours that the first list found and that have not been seen yet; `None` before that list.
    first: Option<BTreeSet<Arc<str>>>,
}

async fn session(host: &Arc<Host>, arrived: &mut bool) -> CallError {
    match follow(host, arrived).await {
        Err(e) => e,
        Ok(never) => match never {},
    }
}

async fn follow(
    host: &Arc<Host>,
    arrived: &mut bool,
) -> Result<std::convert::Infallible, CallError> {
    let spec = host.spec();
    let ssh = host.shared.config.ssh.as_deref().unwrap_or(Path::new("ssh"));
    let engine = Engine::connect(&spec.endpoint, ssh).await?;
    let info = engine.info().await?;
    host.change(|live, _| live.capacity(&info));
    host.connected(engine.clone());

    // The stream is asked for events since a moment *before* the list on the engine's own clock: the
    // engine begins to send before it has subscribed us, so asking first is not enough by itself.
    let filters = HashMap::from([
        ("type", vec!["container", "network"]),
        (
            "event",
            vec![
                "create",
                "start",
                "die",
                "oom",
                "destroy",
                "rename",
                "pause",
                "unpause",
                "health_status",
                "remove",
            ],
        ),
    ]);
    let options = EventsOptionsBuilder::default().filters(&filters);
    let options = match nanos(&info.system_time) / 1_000_000_000 {
        0 => options,
        seconds => options.since(&(seconds - 1).to_string()),
    };
    let mut events = pin!(engine.docker.events(Some(options.build())));

    let mut work: Work<'_> = FuturesUnordered::new();
    let mut ahead = Ahead { networks: true, ..Ahead::default() };
    let mut probes = Probes::default();
    let mut heard = Instant::now();
    let mut pinging = false;
    let mut tick = tokio::time::interval(QUIET);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut relist_at = Instant::now();
    let mut listing = false;
    // Sends the request before anything else is asked.
    let mut early = events.next().now_or_never();
    loop {
        if !listing && Instant::now() >= relist_at {
            listing = true;
            work.push(list(host, &engine).boxed());
        }
        begin(host, &engine, &mut ahead, &work);
        if ahead.first.as_ref().is_some_and(BTreeSet::is_empty) && !*arrived {
            *arrived = true;
            tracing::info!(host = %host.name, "host answers");
            host.arrived();
        }
        probes.follow(host);
        if let Some(event) = early.take() {
            heard = Instant::now();
            heed(host, event, &mut ahead)?;
            continue;
        }
        tokio::select! {
            event = events.next() => early = Some(event),
            Some(done) = work.next() => {
                heard = Instant::now();
                match done? {
                    Done::Listed(begun, all) => {
                        let inspect = host.change(|live, _| live.listed(begun, &all, None));
                        ahead.first.get_or_insert_with(|| inspect.clone());
                        ahead.inspect.extend(inspect);
                        ahead.networks = true;
                        listing = false;
                        relist_at = Instant::now() + jittered(RELIST);
                    }
                    Done::Inspected(id, begun, answer) => {
                        let heed = host.change(|live, now| {
                            live.inspected(begun, &id, answer.as_deref(), now)
                        });
                        ahead.inspecting.remove(&id);
                        match heed {
                            Heed::Stale => { ahead.inspect.insert(id); }
                            Heed::Taken | Heed::Gone => {
                                if let Some(first) = &mut ahead.first { first.remove(&id); }
                            }
                        }
                    }
                    Done::Unseen(id) => {
                        ahead.inspecting.remove(&id);
                        if let Some(first) = &mut ahead.first { first.remove(&id); }
                    }
                    Done::Networks(begun, names) => {
                        ahead.listing_networks = false;
                        host.change(|live, _| live.networks_listed(begun, names));
                    }
                    Done::ForeignDue => {
                        let ids = std::mem::take(&mut ahead.foreign);
                        ahead.foreign_due = false;
                        work.push(list_some(host, &engine, ids).boxed());
                    }
                    Done::Foreign(begun, ids, all) => {
                        host.change(|live, _| live.listed(begun, &all, Some(&ids)));
                    }
                    Done::Alive => pinging = false,
                }
            }
            _ = tick.tick() => {
                if !pinging && heard.elapsed() >= QUIET {
                    pinging = true;
                    let docker = engine.docker.clone();
                    work.push(async move {
                        limited(QUIET, docker.ping()).await.map(|_| Done::Alive)
                    }.boxed());
                }
            }
            () = tokio::time::sleep_until(relist_at), if !listing => {}
            () = host.kick.notified() => {}
        }
    }
}

/// Takes one event, or the end of the stream.
fn heed(
    host: &Host,
    event: Option<Result<EventMessage, bollard::errors::Error>>,
    ahead: &mut Ahead,
) -> Result<(), CallError> {
    let event = event.ok_or(CallError::Transport("the engine ended the event stream".into()))??;
    match host.change(|live, _| live.event(&event)) {
        Todo::Nothing => {}
        Todo::Inspect(id) => {
            ahead.inspect.insert(id);
        }
        Todo::Foreign(id) => {
            ahead.foreign.insert(id);
        }
        Todo::Networks => ahead.networks = true,
    }
    Ok(())
}

/// Begins the calls that are due: each container at most once at a time, so that a burst of events costs
/// two inspects, not one an event.
fn begin(host: &Arc<Host>, engine: &Engine, ahead: &mut Ahead, work: &Work<'_>) {
    while ahead.inspecting.len() < INSPECTS {
        let next = ahead.inspect.iter().find(|id| !ahead.inspecting.contains(*id)).cloned();
        let Some(id) = next else { break };
        ahead.inspect.remove(&id);
        ahead.inspecting.insert(Arc::clone(&id));
        let begun = host.change(|live, _| live.begin());
        let engine = engine.clone();
        let name = host.name.clone();
        work.push(
            async move {
                match inspect(&engine, &id).await {
                    Ok(answer) => Ok(Done::Inspected(id, begun, answer)),
                    // One container that the engine cannot inspect does not make the host silent.
                    Err(e @ CallError::Refused { .. }) => {
                        tracing::warn!(host = %name, container = %id, "cannot inspect: {e}");
                        Ok(Done::Unseen(id))
                    }
                    Err(e) => Err(e),
                }
            }
            .boxed(),
        );
    }
    if ahead.networks && !ahead.listing_networks {
        (ahead.networks, ahead.listing_networks) = (false, true);
        work.push(list_networks(host, engine).boxed());
    }
    if !ahead.foreign.is_empty() && !ahead.foreign_due {
        ahead.foreign_due = true;
        let due = async {
            tokio::time::sleep(FOREIGN).await;
            Ok(Done::ForeignDue)
        };
        work.push(due.boxed());
    }
}

/// Inspects one container; `None`: there is none.
pub(super) async fn inspect(engine: &Engine, id: &str) -> Result<Option<Box<Inspect>>, CallError> {
    match engine.get(&format!("/containers/{id}/json")).await {
        Ok(found) => Ok(Some(Box::new(found))),
        Err(e) if e.is_absent() => Ok(None),
        Err(e) => Err(e),
    }
}

fn list(
    host: &Arc<Host>,
    engine: &Engine,
) -> impl Future<Output = Result<Done, CallError>> + use<> {
    let (begun, engine) = (host.change(|live, _| live.begin()), engine.clone());
    async move { Ok(Done::Listed(begun, engine.get("/containers/json?all=1").await?)) }
}

fn list_some(
    host: &Arc<Host>,
    engine: &Engine,
    ids: BTreeSet<Arc<str>>,
) -> impl Future<Output = Result<Done, CallError>> + use<> {
    let (begun, engine) = (host.change(|live, _| live.begin()), engine.clone());
    async move {
        // Ids come from events; only hex ones are ids, and they need no escaping. Many are as well listed in full.
        let hex = |id: &&Arc<str>| id.bytes().all(|b| b.is_ascii_hexdigit());
        let named: Vec<String> = ids.iter().filter(hex).map(|id| format!("%22{id}%22")).collect();
        let path = if named.len() > 40 {
            "/containers/json?all=1".to_owned()
        } else {
            format!("/containers/json?all=1&filters=%7B%22id%22:%5B{}%5D%7D", named.join(","))
        };
        if named.is_empty() {
            return Ok(Done::Foreign(begun, BTreeSet::new(), Vec::new()));
        }
        let found = engine.get(&path).await?;
        Ok(Done::Foreign(begun, ids, found))
    }
}

fn list_networks(
    host: &Arc<Host>,
    engine: &Engine,
) -> impl Future<Output = Result<Done, CallError>> + use<> {
    let (begun, engine) = (host.change(|live, _| live.begin()), engine.clone());
    let me = host.me.clone();
    async move {
        let labels = vec![format!("{OWNER}={}", me.owner), format!("{FLEET}={}", me.fleet)];
        let filters = HashMap::from([("label", labels)]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let found = limited(READ, engine.docker.list_networks(Some(options))).await?;
        let names = found.into_iter().filter_map(|n| n.name).map(Into::into).collect();
        Ok(Done::Networks(begun, names))
    }
}

/// The probes of one host, each a task that ends with this.
#[derive(Default)]
struct Probes {
    tasks: JoinSet<()>,
    by_id: BTreeMap<Arc<str>, (Target, AbortHandle)>,
}

impl Probes {
    /// Probes what is to be probed now, and nothing else.
    fn follow(&mut self, host: &Arc<Host>) {
        while self.tasks.try_join_next().is_some() {}
        let spec = host.spec();
        let targets = host.read(|live| live.targets(&spec));
        if targets.is_empty() && self.by_id.is_empty() {
            host.note(None);
            return;
        }
        host.note(targets.iter().find_map(|t| t.at.clone().err()));
        let wanted: BTreeMap<Arc<str>, Target> =
            targets.into_iter().filter(|t| t.at.is_ok()).map(|t| (Arc::clone(&t.id), t)).collect();
        self.by_id.retain(|id, (target, task)| {
            let stays = wanted.get(id) == Some(target);
            if !stays {
                task.abort();
            }
            stays
        });
        for (id, target) in wanted {
            self.by_id.entry(id).or_insert_with(|| {
                let task = self.tasks.spawn(watch(Arc::clone(host), target.clone()));
                (target, task)
            });
        }
    }
}

/// Whether the host's engine answers now.
async fn answers(host: &Host) -> bool {
    let Some(engine) = host.engine() else { return false };
    limited(PING, engine.docker.ping()).await.is_ok()
}

/// Probes one run of one instance for as long as it lasts.
async fn watch(host: Arc<Host>, target: Target) {
    let starting = || host.read(|live| live.ours(&target.id).is_some_and(|o| o.verdict.is_open()));
    let mut n = 0;
    let mut was_starting = starting();
    loop {
        tokio::time::sleep(probe::pause(&target, was_starting, n)).await;
        let ok = probe::ask(&target).await;
        // A failure counts only where the host itself answers: cut off from it, nobody can tell who is sick there.
        if ok || answers(&host).await {
            host.change(|live, now| live.probed(&target, ok, now));
        }
        was_starting = starting();
        n = n.saturating_add(1);
    }
}
