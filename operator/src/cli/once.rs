//! A source that is read once, for `evenkeel plan`: nothing is written, and nothing is followed.

use std::path::Path;
use std::sync::Arc;

use super::CliError;
use super::args::PlanArgs;
use super::read::SourceChoice;
use super::sources::{Cluster, fetcher, root};
use crate::clock::Clock;
use crate::config::{self, FileSecrets};
use crate::kubernetes::secret::ClusterSecrets;
use crate::model::OwnerId;
use crate::source::parse::Secrets;
use crate::source::store::Store;
use crate::source::{Tree, merge};

/// What a plan is made from.
pub struct Once {
    /// The installation.
    pub owner: OwnerId,
    /// The documents.
    pub tree: Tree,
    /// Their secrets. A lookup may wait: to be used on a thread that may.
    pub secrets: Arc<dyn Secrets + Send + Sync>,
    /// What a running agent keeps here, if one does.
    pub store: Option<Arc<Store>>,
}

/// Reads it.
pub async fn read(args: &PlanArgs, clock: &Clock) -> Result<Once, CliError> {
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
    // The mirror of a running agent is its own: this one is thrown away.
    let scratch = tempfile::tempdir().map_err(|e| CliError::new(format!("scratch: {e}")))?;
    let documents = match &choice {
        Some(choice) => Some(documents(choice, scratch.path(), clock).await?),
        None => None,
    };
    let objects = match &cluster {
        Some(cluster) => Some(cluster.objects().await?),
        None => None,
    };
    let tree = match (documents, objects) {
        (Some(documents), Some(objects)) => merge::both(&documents, &objects),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return Err(CliError::new("no source is given")),
    };
    let files = FileSecrets::new(args.agent.secrets.clone());
    let secrets: Arc<dyn Secrets + Send + Sync> = match &cluster {
        Some(cluster) => {
            let client = cluster.client().clone();
            Arc::new(ClusterSecrets::new(client, files, root(choice.is_some())))
        }
        None => Arc::new(files),
    };
    // What a running agent remembers is read, never written.
    let state_dir = config::state_dir(&args.agent, &owner);
    let store = state_dir.is_dir().then(|| Store::open(&state_dir));
    let store = store.and_then(Result::ok).map(Arc::new);
    Ok(Once { owner, tree, secrets, store })
}

async fn documents(
    choice: &SourceChoice<'_>,
    scratch: &Path,
    clock: &Clock,
) -> Result<Tree, CliError> {
    let (mut fetch, _) = fetcher(choice, scratch, clock)?;
    let fetched = fetch.fetch(None).await;
    fetched
        .map_err(|e| CliError { message: e.chain(), hint: e.hint() })?
        .ok_or_else(|| CliError::new("the source gave nothing"))
}
