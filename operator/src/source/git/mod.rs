//! A git repository as a source: one reference, followed by asking, read without a work tree.
//!
//! Needs no `git` program. A call into libgit2 cannot be interrupted from outside, so each runs
//! on a thread of its own and is left behind when the server falls silent: a hanging server must
//! never hang the agent. A repository that is gone, empty or lacks the reference is an error and
//! never an empty tree.

mod auth;
mod hosts;
mod read;
mod remote;
mod tls;
mod url;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use git2::{ErrorCode, Oid, Repository};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use auth::Auth;
pub use url::Address;

use self::remote::Pulse;
use self::url::Kind;
use super::error::FetchError;
use super::poll::{Clock, Fetch};
use super::secret::{Secret, redact};
use super::tree::{Limits, Tree};

/// Threads left behind in silent calls before no more are started. They end when the system
/// gives their connection up; each holds one socket and a small stack.
const MAX_LEFT_BEHIND: usize = 64;
/// libgit2 needs little, OpenSSL more.
const STACK: usize = 2 << 20;

/// Which revision is followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reference {
    /// The server's default branch.
    #[default]
    Head,
    /// A branch, followed through force-pushes.
    Branch(String),
    /// A tag, light or annotated.
    Tag(String),
    /// One commit by its 40 digits, for ever.
    Commit(String),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("HEAD"),
            Self::Branch(b) => write!(f, "branch {b}"),
            Self::Tag(t) => write!(f, "tag {t}"),
            Self::Commit(c) => write!(f, "commit {c}"),
        }
    }
}

/// Which ssh servers are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HostKeys {
    /// `~/.ssh/known_hosts` and `/etc/ssh/ssh_known_hosts`.
    #[default]
    Usual,
    /// These files, all of which must be there.
    Files(Vec<PathBuf>),
    /// Anyone. For throw-away test servers only.
    AcceptAny,
}

/// How a repository is reached and read.
#[derive(Clone)]
pub struct GitConfig {
    /// Path, `file://`, `http(s)://`, `ssh://` or `user@host:path`. Credentials in it are used
    /// with [`Auth::Auto`] and shown nowhere.
    pub url: String,
    /// What is followed.
    pub reference: Reference,
    /// The directory whose documents count; empty for all.
    pub subdir: String,
    /// How we say who we are.
    pub auth: Auth,
    /// Which ssh servers are trusted.
    pub host_keys: HostKeys,
    /// Certificates (PEM) trusted for https beside the system's. An authority that issues
    /// through another needs both in the file.
    pub ca_file: Option<PathBuf>,
    /// Where the mirror is kept; for this process alone (hold [`Store`](super::store::Store)'s lock).
    pub state_dir: PathBuf,
    /// How much is read.
    pub limits: Limits,
    /// Silence after which a fetch is given up. Default 30 s.
    pub stall: Duration,
    /// All a fetch may take. Default 10 min, for a first one over a slow line.
    pub deadline: Duration,
}

impl GitConfig {
    /// The default branch of `url`, everything else by default.
    pub fn new(url: impl Into<String>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            url: url.into(),
            reference: Reference::Head,
            subdir: String::new(),
            auth: Auth::Auto,
            host_keys: HostKeys::Usual,
            ca_file: None,
            state_dir: state_dir.into(),
            limits: Limits::default(),
            stall: Duration::from_secs(30),
            deadline: Duration::from_secs(600),
        }
    }
}

impl fmt::Debug for GitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitConfig")
            .field("url", &redact(&self.url))
            .field("reference", &self.reference)
            .field("subdir", &self.subdir)
            .finish_non_exhaustive()
    }
}

/// What one thread needs.
struct Job {
    address: Address,
    found: Option<(String, Secret)>,
    auth: Auth,
    reference: Reference,
    subdir: String,
    host_keys: HostKeys,
    ca_file: Option<PathBuf>,
    mirror: PathBuf,
    limits: Limits,
    clock: Clock,
    pulse: Arc<Pulse>,
}

/// Follows one reference of one repository.
pub struct Git {
    config: GitConfig,
    address: Address,
    found: Option<(String, Secret)>,
    clock: Clock,
    /// Mirrors are numbered: one that a thread was left behind in is not used again.
    generation: u64,
    newest: Option<Arc<Pulse>>,
    running: Arc<AtomicUsize>,
}

impl fmt::Debug for Git {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Git").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Git {
    /// Checks all that can be checked without asking anybody. `clock` judges certificates.
    pub fn new(config: GitConfig, clock: Clock) -> Result<Self, FetchError> {
        let (address, found) = Address::parse(&config.url)?;
        let (kind, name) = match &config.reference {
            Reference::Head => ("heads", "HEAD"),
            Reference::Branch(b) => ("heads", b.as_str()),
            Reference::Tag(t) => ("tags", t.as_str()),
            Reference::Commit(c) => {
                remote::commit_id(c)?;
                ("heads", "commit")
            }
        };
        // A `*` or `:` in a name would make another refspec of it.
        if !git2::Reference::is_valid_name(&format!("refs/{kind}/{name}")) {
            return Err(FetchError::Config {
                what: format!("{name:?} cannot name a branch or tag"),
                hint: "write it as `git branch` or `git tag` shows it".into(),
            });
        }
        super::tree::components(&config.subdir).map_err(|what| FetchError::Config {
            what: format!("cannot use the path {what}"),
            hint: "give a directory relative to the repository, with no `..`".into(),
        })?;
        if let Some(file) = &config.ca_file {
            tls::read(file).map_err(|e| FetchError::Config {
                what: format!("cannot use the certificates in {e}"),
                hint: "it takes a PEM file with at least one certificate".into(),
            })?;
        }
        let plain = matches!(address.kind(), Kind::Http { secure: false, .. });
        let secret = found.is_some() || !matches!(config.auth, Auth::Auto | Auth::None);
        if plain && secret {
            tracing::warn!(repository = %address,
                "credentials go over the network in clear text; use https");
        }
        Ok(Self {
            config,
            address,
            found,
            clock,
            generation: 0,
            newest: None,
            running: Arc::default(),
        })
    }

    /// The address without credentials.
    pub fn address(&self) -> &Address {
        &self.address
    }

    fn mirror_base(&self) -> String {
        hex::encode(&Sha256::digest(self.address.as_str())[..8])
    }

    fn job(&mut self) -> Job {
        // A thread that is still at it has the mirror for itself.
        if self.newest.as_ref().is_some_and(|p| !p.done.load(Ordering::Acquire)) {
            self.generation += 1;
        }
        let pulse = Arc::new(Pulse::default());
        let mirrors = self.config.state_dir.join("mirrors");
        if self.newest.replace(Arc::clone(&pulse)).is_none() {
            sweep(&mirrors, &self.mirror_base());
        }
        Job {
            address: self.address.clone(),
            found: self.found.clone(),
            auth: self.config.auth.clone(),
            reference: self.config.reference.clone(),
            subdir: self.config.subdir.clone(),
            host_keys: self.config.host_keys.clone(),
            ca_file: self.config.ca_file.clone(),
            mirror: mirrors.join(format!("{}-{}", self.mirror_base(), self.generation)),
            limits: self.config.limits,
            clock: Arc::clone(&self.clock),
            pulse,
        }
    }
}

/// Removes numbered mirrors that an earlier process left.
fn sweep(mirrors: &Path, base: &str) {
    for entry in std::fs::read_dir(mirrors).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix(base)?.strip_prefix('-'));
        if number.is_some_and(|n| n != "0") {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Tells the thread that nobody waits any more, also when the waiting future is dropped.
struct Cancel(Arc<Pulse>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Counts a thread as long as it lives, whatever ends it.
struct Running(Arc<AtomicUsize>, Arc<Pulse>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        self.1.done.store(true, Ordering::Release);
    }
}

#[async_trait]
impl Fetch for Git {
    async fn fetch(&mut self, last: Option<&str>) -> Result<Option<Tree>, FetchError> {
        let remote = self.address.to_string();
        if self.running.load(Ordering::Relaxed) >= MAX_LEFT_BEHIND {
            return Err(FetchError::LeftBehind { remote, calls: MAX_LEFT_BEHIND });
        }
        let job = self.job();
        let pulse = Arc::clone(&job.pulse);
        let _cancel = Cancel(Arc::clone(&pulse));
        let last = last.map(str::to_owned);
        let (tell, told) = oneshot::channel();
        self.running.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(&self.running), Arc::clone(&pulse));
        // Not `spawn_blocking`: the runtime waits for those when it ends, and this may hang.
        let spawned =
            thread::Builder::new().name("git".into()).stack_size(STACK).spawn(move || {
                let result = match job.address.kind() {
                    Kind::Local(path) => local(&job, path, last.as_deref()),
                    Kind::Http { .. } | Kind::Ssh { .. } => remote::fetch(&job, last.as_deref()),
                };
                if job.pulse.cancelled.load(Ordering::Relaxed) {
                    // Another mirror is in use by now.
                    let _ = remote::discard(&job.mirror);
                }
                // Before the answer, so that the next fetch finds the mirror free.
                drop(running);
                let _ = tell.send(result);
            });
        spawned.map_err(|source| FetchError::Io {
            doing: "start a thread for",
            path: self.config.state_dir.clone(),
            source,
        })?;
        self.wait(told, &pulse).await
    }

    fn describe(&self) -> String {
        let path = match self.config.subdir.as_str() {
            "" => String::new(),
            path => format!(" path {path}"),
        };
        format!("git {} {}{path}", self.address, self.config.reference)
    }
}

impl Git {
    async fn wait(
        &self,
        mut told: oneshot::Receiver<Result<Option<Tree>, FetchError>>,
        pulse: &Pulse,
    ) -> Result<Option<Tree>, FetchError> {
        let remote = || self.address.to_string();
        let GitConfig { stall, deadline, .. } = self.config;
        let end = Instant::now() + deadline;
        let mut heard = (pulse.beats.load(Ordering::Relaxed), Instant::now());
        loop {
            tokio::select! {
                result = &mut told => {
                    return result.unwrap_or_else(|_| Err(FetchError::Broken { remote: remote() }));
                }
                () = tokio::time::sleep(stall / 8) => {}
            }
            let (now, beats) = (Instant::now(), pulse.beats.load(Ordering::Relaxed));
            if beats != heard.0 {
                heard = (beats, now);
            }
            if now >= end {
                return Err(FetchError::Timeout { remote: remote(), after: deadline });
            }
            if now - heard.1 >= stall {
                return Err(FetchError::Stalled { remote: remote(), after: stall });
            }
        }
    }
}

/// A repository on this machine is read where it lies: libgit2 can make no shallow copy of
/// one (libgit2#6634), and a whole one would be waste.
fn local(job: &Job, path: &Path, last: Option<&str>) -> Result<Option<Tree>, FetchError> {
    let remote = || job.address.to_string();
    let repo = Repository::open(path).map_err(|source| {
        if source.code() == ErrorCode::NotFound {
            FetchError::NoRepository { remote: remote() }
        } else {
            FetchError::Git { doing: "open the repository", source }
        }
    })?;
    let id = find(&repo, job)?;
    if last == Some(id.to_string().as_str()) {
        return Ok(None);
    }
    read::tree(&repo, id, &job.subdir, job.limits).map(Some)
}

fn find(repo: &Repository, job: &Job) -> Result<Oid, FetchError> {
    let heads = || -> Result<Vec<remote::Head>, git2::Error> {
        let mut heads = Vec::new();
        if let Ok(id) = repo.refname_to_id("HEAD") {
            heads.push(remote::Head { name: "HEAD".into(), id });
        }
        for reference in repo.references()? {
            let reference = reference?;
            let (Ok(name), Ok(id)) = (reference.name(), reference.resolve()) else { continue };
            if let Some(id) = id.target() {
                heads.push(remote::Head { name: name.to_owned(), id });
            }
        }
        Ok(heads)
    };
    let heads = heads().map_err(|source| FetchError::Git {
        doing: "list the branches of the repository",
        source,
    })?;
    let want = remote::resolve(&job.address.to_string(), &job.reference, &heads)?;
    let missing = || FetchError::NoReference {
        remote: job.address.to_string(),
        wanted: job.reference.to_string(),
        there: Vec::new(),
    };
    let object = repo.find_object(want.id, None).map_err(|_| missing())?;
    let commit = object.peel_to_commit().map_err(|source| FetchError::Git {
        doing: "find a commit behind the reference",
        source,
    })?;
    Ok(commit.id())
}

#[cfg(test)]
mod tests;
