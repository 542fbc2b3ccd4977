//! The agent's parts put together: source, loader, a loop for each fleet, report and API.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ports::{self, Ask, Make, Ports};
use super::sources::{self, Cluster, Parts, Sourced};
use super::{CliError, Exit, stand};
use crate::bell::Doorbell;
use crate::cli::args::{Listen, RunArgs};
use crate::clock::Clock;
use crate::config::{self, FileSecrets};
use crate::exchange::Exchange;
use crate::http::{self, Api, Verifier};
use crate::keep::StoreKeeper;
use crate::model::{Desired, FleetName, HostName, OwnerId, Phase, Planned, Seen, Time};
use crate::reconcile::{Alone, Fence, Reconciler, Witness};
use crate::report::{PassReport, Report, SourceError, SourceReport};
use crate::source::load::Loader;
use crate::source::poll::SourceState;
use crate::source::store::Store;
use crate::source::{self, webhook};

/// A loop that gave no sign for this long is dead: four times the resync.
const ALIVE_WITHIN: Duration = Duration::from_secs(120);

/// `evenkeel run`.
pub async fn run(args: &RunArgs) -> Result<Exit, CliError> {
    run_on(args, Box::new(ports::real)).await
}

/// The same over what `make` gives each fleet, such as hosts that are simulated.
pub async fn run_on(args: &RunArgs, make: Box<Make>) -> Result<Exit, CliError> {
    let choice = args.source.documents()?;
    let cluster = if args.source.kubernetes {
        Some(Cluster::connect(&args.source.namespaces).await?)
    } else {
        None
    };
    let owner = match (&args.agent.owner, &cluster, &choice) {
        (Some(owner), _, _) => owner.clone(),
        (None, Some(cluster), _) => cluster.owner().await?,
        (None, None, Some(choice)) => config::owner(&args.agent, choice)?,
        (None, None, None) => return Err(CliError::new("no source is given")),
    };
    let state_dir = config::state_dir(&args.agent, &owner);
    let clock = Clock::real();
    let report = Report::new(clock.clone(), owner.clone());
    let (stop, stopped) = watch::channel(false);
    let mut side = JoinSet::new();
    let source_bell = Doorbell::new();
    serve(args, &report, &source_bell, &stopped, &mut side).await?;
    side.spawn(async move {
        signalled().await;
        stop.send_replace(true);
        std::future::pending::<()>().await;
    });

    let store = Arc::new(Store::open(&state_dir).map_err(|e| {
        CliError::new(e.chain()).hint("choose a directory that can be written with --state-dir")
    })?);
    let mut waiting = stopped.clone();
    // Asked before it is waited for: an agent that is alone must not say that it stands by.
    let lock = if let Some(lock) = store.try_lock().map_err(|e| CliError::new(e.chain()))? {
        lock
    } else {
        report.standby(true);
        tokio::select! {
            lock = store.lock() => lock.map_err(|e| CliError::new(e.chain()))?,
            _ = waiting.wait_for(|stop| *stop) => return Ok(Exit::Fine),
        }
    };
    report.standby(false);

    tracing::info!(%owner, state = %state_dir.display(), "evenkeel begins");
    let election = stand::begin(args, cluster.as_ref(), &owner, &report, &clock)?;
    let fence: Arc<dyn Fence> = match &election {
        Some((_, held)) => Arc::new(held.clone()),
        None => Arc::new(Alone::default()),
    };
    let parts = Parts {
        clock: clock.clone(),
        store: store.clone(),
        report: report.clone(),
        state_dir: &state_dir,
        bell: source_bell,
        fence,
        nudge: Doorbell::new(),
    };
    let Sourced { states, kind, describe } =
        sources::begin(&parts, choice.as_ref(), cluster.as_ref(), &mut side)?;
    let files = FileSecrets::new(args.agent.secrets.clone());
    let secrets = sources::secrets(files, choice.is_some(), cluster.as_ref(), &mut side);
    let loader = Loader::new(owner.clone(), secrets.clone(), Some(store.clone()));
    let (desired_in, desired) = watch::channel(None);
    side.spawn(tell_source(report.clone(), states.clone(), desired.clone(), kind, describe));
    side.spawn(loader.run(states.clone(), desired_in));

    let fleets = Fleets {
        owner: owner.clone(),
        clock,
        report: report.clone(),
        keeper: Arc::new(StoreKeeper::new(store, owner, secrets)),
        quiet: Arc::new(Quiet::default()),
        tasks: JoinSet::new(),
        running: BTreeMap::new(),
        desired_out: BTreeMap::new(),
        make,
        fence: parts.fence,
        exchange: Exchange::default(),
        nudge: parts.nudge,
    };
    let holding = election.as_ref().map(|(election, _)| {
        let election = election.clone();
        side.spawn(async move { election.run().await })
    });
    let exit = fleets.run(desired, states, stopped, args.once).await;
    if let (Some((election, _)), Some(holding)) = (&election, holding) {
        // Nothing is under way any more: the next may begin at once.
        holding.abort();
        election.release().await;
    }
    drop(lock);
    tracing::info!("evenkeel ends; what runs goes on running");
    exit
}

/// SIGTERM or SIGINT.
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

async fn serve(
    args: &RunArgs,
    report: &Report,
    bell: &Doorbell,
    stopped: &watch::Receiver<bool>,
    side: &mut JoinSet<()>,
) -> Result<(), CliError> {
    let webhook = args.webhook_secret_file.as_deref().map(verifier).transpose()?;
    let Listen::At(addr) = args.listen else { return Ok(()) };
    let listener = http::bind(addr)
        .await
        .map_err(|e| CliError { message: crate::error::causes(&e), hint: e.hint() })?;
    let router = http::router(Api {
        report: report.clone(),
        bell: bell.clone(),
        webhook,
        alive_within: ALIVE_WITHIN,
    });
    let mut stop = stopped.clone();
    side.spawn(http::serve(listener, router, http::Limits::default(), async move {
        let _ = stop.wait_for(|stop| *stop).await;
    }));
    Ok(())
}

fn verifier(file: &Path) -> Result<Arc<Verifier>, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| CliError::new(format!("{}: {e}", file.display())))?;
    let secret = source::Secret::new(text.trim_end());
    if secret.is_empty() {
        return Err(CliError::new(format!("{}: the webhook secret is empty", file.display())));
    }
    Ok(Arc::new(move |headers, body| {
        let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        match webhook::verify(header, body, &secret) {
            Ok(provider) => {
                tracing::debug!(provider = provider.as_str(), "webhook");
                Ok(())
            }
            Err(why) => Err(why.to_string()),
        }
    }))
}

/// Keeps the report's word on the source true.
async fn tell_source(
    report: Report,
    mut states: watch::Receiver<SourceState>,
    mut desired: watch::Receiver<Option<Arc<Desired>>>,
    kind: &'static str,
    describe: String,
) {
    loop {
        let state = states.borrow_and_update().clone();
        let current = desired.borrow_and_update().clone();
        let time = |t: jiff::Timestamp| Time(u64::try_from(t.as_millisecond()).unwrap_or(0));
        let meta = state.tree.as_ref().and_then(|t| t.describe.clone());
        report.source(SourceReport {
            kind,
            describe: describe.clone(),
            revision: current.as_ref().map(|d| d.revision.clone()),
            subject: meta.as_ref().map(|m| m.subject.clone()),
            author: meta.map(|m| m.author),
            fetched: state.last_success.map(time),
            error: state.error.map(|e| SourceError {
                message: e.message,
                hint: e.hint,
                since: time(e.since),
                next_try: Some(time(e.next_try)),
            }),
            from_store: state.from_store,
            problems: current.map(|d| d.problems.clone()).unwrap_or_default(),
        });
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            changed = desired.changed() => if changed.is_err() { return },
        }
    }
}

/// Which fleets have nothing left to do, for `--once`, and what keeps them from being as desired.
#[derive(Default)]
struct Quiet(Mutex<BTreeMap<FleetName, Option<Ended>>>);

/// How a fleet ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ended {
    well: bool,
    /// Hosts that never answered.
    deaf: Vec<HostName>,
}

/// A host that has not answered since the beginning for so long is not waited for.
const DEAF: Duration = Duration::from_secs(30);

impl Quiet {
    fn tell(&self, pass: &PassReport) {
        let plan = &pass.plan;
        let hosts = &pass.world.hosts;
        let never = |seen: Seen| match seen {
            Seen::Never { since } => Some(pass.at.since(since)),
            Seen::Now | Seen::Silent { .. } => None,
        };
        let seen = hosts.values().all(|h| never(h.seen).is_none_or(|silent| silent >= DEAF));
        let deaf = hosts.iter().filter(|(_, h)| never(h.seen).is_some());
        let deaf: Vec<HostName> = deaf.map(|(name, _)| name.clone()).collect();
        // Where nobody answers, nothing that waits has anything to wait for.
        let alone = !hosts.is_empty() && deaf.len() == hosts.len();
        let waits = !alone && plan.services.values().any(|s| s.phase == Phase::Reconciling);
        let ended = plan.steps.is_empty() && pass.world.in_flight.is_empty() && !waits && seen;
        let well = plan.services.values().all(|s| s.phase != Phase::Stalled)
            && !plan.waiting.iter().any(|w| w.why.needs_a_person());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(pass.fleet.name.clone(), ended.then_some(Ended { well, deaf }));
    }

    /// `Some` once every one of these fleets has nothing left to do.
    fn ended<'f>(
        &self,
        fleets: impl Iterator<Item = &'f FleetName>,
    ) -> Option<Result<Exit, CliError>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut well, mut deaf) = (true, Vec::new());
        for fleet in fleets {
            let ended = all.get(fleet).and_then(Option::as_ref)?;
            well &= ended.well;
            deaf.extend(ended.deaf.iter().map(|host| format!("host {host} of fleet {fleet}")));
        }
        if deaf.is_empty() {
            return Some(Ok(if well { Exit::Fine } else { Exit::Problem }));
        }
        let message = format!("{} has not answered for {} s", deaf.join(" and "), DEAF.as_secs());
        let hint = "the log says why; without --once it is waited for".to_owned();
        Some(Err(CliError { message, hint: Some(hint) }))
    }
}

/// The witness of one fleet: report and log.
struct FleetWitness {
    report: Report,
    problems: Box<ports::Problems>,
    quiet: Arc<Quiet>,
}

impl Witness for FleetWitness {
    fn pass(&self, pass: PassReport) {
        self.quiet.tell(&pass);
        // Before the pass, so that "fell silent" can name its cause.
        self.report.hosts(&pass.fleet.name, (self.problems)());
        self.report.pass(pass);
    }

    fn began(&self, fleet: &FleetName, planned: &Planned) {
        tracing::info!(%fleet, reason = %planned.reason, "{}", planned.step);
        self.report.step_began(fleet, planned);
    }

    fn ended(
        &self,
        fleet: &FleetName,
        planned: &Planned,
        took: Duration,
        outcome: Result<(), String>,
    ) {
        match &outcome {
            Ok(()) => tracing::debug!(%fleet, ms = took.as_millis(), "done: {}", planned.step),
            Err(error) => tracing::warn!(%fleet, %error, "failed: {}", planned.step),
        }
        self.report.step_ended(fleet, planned, took, outcome);
    }
}

/// One loop for each fleet that was ever asked for.
struct Fleets {
    owner: OwnerId,
    clock: Clock,
    report: Report,
    keeper: Arc<StoreKeeper>,
    quiet: Arc<Quiet>,
    tasks: JoinSet<()>,
    running: BTreeMap<FleetName, Doorbell>,
    desired_out: BTreeMap<FleetName, watch::Sender<Arc<Desired>>>,
    make: Box<Make>,
    fence: Arc<dyn Fence>,
    /// What the fleets tell each other.
    exchange: Exchange,
    /// Rung when every fleet is to be looked at now.
    nudge: Doorbell,
}

impl Fleets {
    async fn run(
        mut self,
        mut desired: watch::Receiver<Option<Arc<Desired>>>,
        mut states: watch::Receiver<SourceState>,
        mut stopped: watch::Receiver<bool>,
        once: bool,
    ) -> Result<Exit, CliError> {
        let mut exit = Ok(Exit::Fine);
        loop {
            let current = desired.borrow_and_update().clone();
            if let Some(current) = &current {
                self.spread(current, &stopped);
                if let (true, Some(ended)) = (once, self.quiet.ended(current.fleets.keys())) {
                    let broken = !current.problems.is_empty();
                    exit = ended.map(|exit| if broken { Exit::Problem } else { exit });
                    break;
                }
            } else if let (true, Some(e)) = (once, states.borrow_and_update().error.clone()) {
                exit = Err(CliError { message: e.message, hint: e.hint });
                break;
            }
            self.report.beat();
            let pause = Duration::from_millis(if once { 100 } else { 10_000 });
            tokio::select! {
                changed = desired.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(pause) => {}
                () = self.nudge.rung() => self.running.values().for_each(Doorbell::ring),
                _ = stopped.wait_for(|stop| *stop) => break,
            }
        }
        // Without their senders the loops end, after the steps under way.
        self.desired_out.clear();
        while self.tasks.join_next().await.is_some() {}
        exit
    }

    fn spread(&mut self, desired: &Arc<Desired>, stopped: &watch::Receiver<bool>) {
        self.report.fleets(desired.fleets.keys().cloned());
        for out in self.desired_out.values() {
            out.send_if_modified(|before| {
                let changed = !Arc::ptr_eq(before, desired);
                *before = desired.clone();
                changed
            });
        }
        for name in desired.fleets.keys() {
            if self.running.contains_key(name) {
                continue;
            }
            let bell = Doorbell::new();
            let Ports { backend, edges, problems } = (self.make)(&Ask {
                owner: &self.owner,
                fleet: name,
                bell: &bell,
                clock: &self.clock,
            });
            let (out, receiver) = watch::channel(desired.clone());
            let reconciler = Reconciler {
                fleet: name.clone(),
                desired: receiver,
                backend,
                edges,
                bell: bell.clone(),
                clock: self.clock.clone(),
                keeper: self.keeper.clone(),
                witness: Arc::new(FleetWitness {
                    report: self.report.clone(),
                    problems,
                    quiet: self.quiet.clone(),
                }),
                exchange: self.exchange.clone(),
                fence: self.fence.clone(),
            };
            self.exchange.join(name, bell.clone());
            self.tasks.spawn(reconciler.run(stopped.clone()));
            self.running.insert(name.clone(), bell);
            self.desired_out.insert(name.clone(), out);
        }
    }
}
