//! Where the documents of `evenkeel run` come from: git or a directory, custom resources, or both as one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::CliError;
use super::read::SourceChoice;
use super::stand::me;
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::config::{self, FileSecrets};
use crate::kubernetes::cache::{Cache, Scope};
use crate::kubernetes::event::Recorder;
use crate::kubernetes::secret::ClusterSecrets;
use crate::kubernetes::source::Source;
use crate::kubernetes::write::Writer;
use crate::kubernetes::{connect, follow, source as objects, tree};
use crate::model::OwnerId;
use crate::reconcile::Fence;
use crate::report::Report;
use crate::source;
use crate::source::dir::Dir;
use crate::source::git::Git;
use crate::source::merge;
use crate::source::parse::Secrets;
use crate::source::poll::{Fetch, Jitter, Pace, Poller, SourceState};
use crate::source::store::Store;

/// The fetcher of a source, and the directory to watch where there is one.
pub fn fetcher(
    choice: &SourceChoice<'_>,
    state_dir: &Path,
    clock: &Clock,
) -> Result<(Box<dyn Fetch + Sync>, Option<Dir>), CliError> {
    if let SourceChoice::Dir { dir, .. } = choice {
        let dir = Dir::new(*dir, source::Limits::default());
        return Ok((Box::new(dir.clone()), Some(dir)));
    }
    let Some(config) = config::git(choice, state_dir)? else {
        return Err(CliError::new("no source is given"));
    };
    let clock = clock.clone();
    let git = Git::new(config, Arc::new(move || clock.timestamp()))
        .map_err(|e| CliError { message: e.chain(), hint: e.hint() })?;
    Ok((Box::new(git), None))
}

/// A Kubernetes cluster, and what of it is watched.
pub struct Cluster {
    client: kube::Client,
    scopes: Vec<Scope>,
}

impl Cluster {
    /// The cluster that the environment names. It must know our kinds.
    pub async fn connect(namespaces: &[String]) -> Result<Self, CliError> {
        let cluster = Self { client: connect::client().await?, scopes: Scope::all(namespaces) };
        connect::check(&cluster.client, &cluster.scopes).await?;
        Ok(cluster)
    }

    /// The installation's id, from the cluster's own.
    pub async fn owner(&self) -> Result<OwnerId, CliError> {
        connect::owner(&self.client).await
    }

    /// All objects as they are now, also those that no agent has taken up yet.
    pub async fn objects(&self) -> Result<source::Tree, CliError> {
        let cache = Cache::new(&self.scopes);
        for scope in &self.scopes {
            let listed = follow::once(self.client.clone(), scope, &cache).await;
            listed.map_err(|why| CliError::new(format!("list {scope}: {why}")))?;
        }
        let limits = source::Limits { max_files: objects::MOST, ..source::Limits::default() };
        let composed = tree::preview(&cache.view(), &limits);
        composed.ok_or_else(|| CliError::new("not everything could be listed"))
    }

    /// How the cluster is spoken to.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }
}

/// What sources work with.
pub struct Parts<'a> {
    /// The time.
    pub clock: Clock,
    /// What outlives the process.
    pub store: Arc<Store>,
    /// What people see.
    pub report: Report,
    /// Where repositories are mirrored.
    pub state_dir: &'a Path,
    /// Rung by a webhook.
    pub bell: Doorbell,
    /// Whether this agent acts.
    pub fence: Arc<dyn Fence>,
    /// Rung when every fleet is to be looked at now.
    pub nudge: Doorbell,
}

/// Sources that were begun.
pub struct Sourced {
    /// The newest tree of all of them together, and what is wrong.
    pub states: watch::Receiver<SourceState>,
    /// `git`, `dir` or `kubernetes`.
    pub kind: &'static str,
    /// Where.
    pub describe: String,
}

/// Begins every source on tasks of `side`.
pub fn begin(
    parts: &Parts<'_>,
    documents: Option<&SourceChoice<'_>>,
    cluster: Option<&Cluster>,
    side: &mut JoinSet<()>,
) -> Result<Sourced, CliError> {
    let documents = documents.map(|choice| poll(parts, choice, side)).transpose()?;
    let root = root(documents.is_some());
    let objects = cluster.map(|cluster| watch_objects(parts, cluster, root, side));
    match (documents, objects) {
        (Some(one), None) | (None, Some(one)) => Ok(one),
        (Some(documents), Some(objects)) => {
            let (out, states) = watch::channel(SourceState::default());
            side.spawn(merge::run(documents.states, objects.states, out));
            let describe = format!("{} and {}", objects.describe, documents.describe);
            Ok(Sourced { states, kind: objects.kind, describe })
        }
        (None, None) => Err(CliError::new("no source is given")),
    }
}

/// What the paths of objects begin with.
pub fn root(merged: bool) -> &'static str {
    if merged { merge::OBJECTS } else { "" }
}

/// Where secrets come from: the cluster for its own objects, files for all other documents.
pub fn secrets(
    files: FileSecrets,
    merged: bool,
    cluster: Option<&Cluster>,
    side: &mut JoinSet<()>,
) -> Arc<dyn Secrets + Send + Sync> {
    let Some(cluster) = cluster else { return Arc::new(files) };
    let secrets = Arc::new(ClusterSecrets::new(cluster.client.clone(), files, root(merged)));
    let again = secrets.clone();
    side.spawn(async move { again.run().await });
    secrets
}

fn poll(
    parts: &Parts<'_>,
    choice: &SourceChoice<'_>,
    side: &mut JoinSet<()>,
) -> Result<Sourced, CliError> {
    let clock = parts.clock.clone();
    let (fetch, dir) = fetcher(choice, parts.state_dir, &clock)?;
    if let Some(dir) = dir {
        side.spawn(dir.watch(parts.bell.clone()));
    }
    let (kind, interval) = match choice {
        SourceChoice::Git { interval, .. } => ("git", *interval),
        SourceChoice::Dir { interval, .. } => ("dir", *interval),
    };
    let describe = fetch.describe();
    tracing::info!(source = %describe, "documents");
    // `git URL` and `directory PATH`: the kind is told apart from the place.
    let describe =
        describe.split_once(' ').map_or(describe.as_str(), |(_, place)| place).to_owned();
    let wall = clock.clone();
    let poller = Poller::new(
        fetch,
        Pace { interval, ..Pace::default() },
        parts.bell.clone(),
        Arc::new(move || wall.timestamp()),
        jitter(&clock, 0),
        Some(parts.store.clone()),
    );
    let states = poller.subscribe();
    side.spawn(poller.run());
    Ok(Sourced { states, kind, describe })
}

fn watch_objects(
    parts: &Parts<'_>,
    cluster: &Cluster,
    root: &'static str,
    side: &mut JoinSet<()>,
) -> Sourced {
    let cache = Cache::new(&cluster.scopes);
    for (n, scope) in cluster.scopes.iter().enumerate() {
        tracing::info!(%scope, "custom resources");
        let (client, clock) = (cluster.client.clone(), parts.clock.clone());
        let jitter = jitter(&clock, n as u64);
        side.spawn(follow::follow(client, scope.clone(), cache.clone(), clock, jitter));
    }
    let source = Source::new(cache.clone(), parts.clock.clone(), Some(parts.store.clone()));
    let writer = Writer {
        client: cluster.client.clone(),
        cache: cache.clone(),
        snapshots: source.snapshots(),
        report: parts.report.clone(),
        fence: parts.fence.clone(),
        clock: parts.clock.clone(),
        nudge: parts.nudge.clone(),
        root,
    };
    side.spawn(writer.run());
    let recorder = Recorder {
        client: cluster.client.clone(),
        cache: cache.clone(),
        report: parts.report.clone(),
        fence: parts.fence.clone(),
        clock: parts.clock.clone(),
        instance: me(),
    };
    side.spawn(recorder.run());
    let states = source.subscribe();
    side.spawn(source.run());
    let namespaces: BTreeSet<&str> =
        cluster.scopes.iter().filter_map(|s| s.namespace.as_deref()).collect();
    let describe = if namespaces.is_empty() {
        objects::DESCRIBE.to_owned()
    } else {
        let names: Vec<&str> = namespaces.into_iter().collect();
        format!("{} in {}", objects::DESCRIBE, names.join(", "))
    };
    Sourced { states, kind: "kubernetes", describe }
}

fn jitter(clock: &Clock, salt: u64) -> Jitter {
    Jitter::new(clock.now().0 ^ u64::from(std::process::id()) ^ (salt << 32))
}
