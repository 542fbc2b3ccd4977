//! Talks to a git server: which commit does the reference name, and bring it here.
//!
//! Runs on a thread of its own that may have to be abandoned, so it shares nothing but
//! [`Pulse`] and owns its mirror directory. Never follows a redirect with credentials.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use git2::{
    AutotagOption, CertificateCheckStatus, Cred, Direction, ErrorClass, ErrorCode, FetchOptions,
    Oid, ProxyOptions, RemoteCallbacks, Repository,
};

use super::auth::{Answer, Around, Dealer, Offer, offers};
use super::hosts::{self, Verdict};
use super::url::Kind;
use super::{HostKeys, Job, Reference, read, tls};
use crate::source::error::FetchError;
use crate::source::tree::Tree;

/// Where a fetched reference is kept in the mirror.
const TARGET: &str = "refs/evenkeel/target";
/// Packs in a mirror before it is made anew: every fetch adds one and libgit2 never joins them.
const MAX_PACKS: usize = 50;

/// Errors about our own copy and not about the server.
const OURS: [ErrorClass; 8] = [
    ErrorClass::Odb,
    ErrorClass::Reference,
    ErrorClass::Zlib,
    ErrorClass::Repository,
    ErrorClass::Object,
    ErrorClass::Indexer,
    ErrorClass::Config,
    ErrorClass::Filesystem,
];

/// Life signs of a call into libgit2, and the wish that it end.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Grows whenever the server was heard.
    pub beats: AtomicU64,
    /// Nobody waits any more.
    pub cancelled: AtomicBool,
    /// The thread is through.
    pub done: AtomicBool,
}

impl Pulse {
    /// Counts a life sign; false where the call should end.
    fn beat(&self) -> bool {
        self.beats.fetch_add(1, Ordering::Relaxed);
        !self.cancelled.load(Ordering::Relaxed)
    }
}

/// One advertised reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub name: String,
    pub id: Oid,
}

/// What to ask the server for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want {
    /// Left side of the refspec: a reference or a commit id.
    pub source: String,
    /// The commit, tags peeled where the server said so.
    pub id: Oid,
}

/// Which of the advertised references is meant.
pub(super) fn resolve(
    remote: &str,
    reference: &Reference,
    heads: &[Head],
) -> Result<Want, FetchError> {
    if heads.is_empty() {
        return Err(FetchError::Empty { remote: remote.to_owned() });
    }
    let find = |name: &str| heads.iter().find(|h| h.name == name);
    let missing = |prefix: &str| {
        let mut there: Vec<String> = heads
            .iter()
            .filter_map(|h| h.name.strip_prefix(prefix))
            .filter(|n| !n.ends_with("^{}"))
            .map(str::to_owned)
            .collect();
        // Tags are named after versions, so the newest are likely at the end.
        there.sort();
        let there = there.split_off(there.len().saturating_sub(10));
        FetchError::NoReference { remote: remote.to_owned(), wanted: reference.to_string(), there }
    };
    let want = |h: &Head| Want { source: h.name.clone(), id: h.id };
    match reference {
        Reference::Head => find("HEAD").map(want).ok_or_else(|| missing("refs/heads/")),
        Reference::Branch(b) => {
            find(&format!("refs/heads/{b}")).map(want).ok_or_else(|| missing("refs/heads/"))
        }
        Reference::Tag(t) => {
            let name = format!("refs/tags/{t}");
            let tag = find(&name).ok_or_else(|| missing("refs/tags/"))?;
            let id = find(&format!("{name}^{{}}")).unwrap_or(tag).id;
            Ok(Want { source: name, id })
        }
        Reference::Commit(c) => {
            let id = commit_id(c)?;
            let named = heads.iter().find(|h| h.id == id && !h.name.ends_with("^{}"));
            Ok(named.map_or_else(|| Want { source: id.to_string(), id }, want))
        }
    }
}

/// A full commit id; a short one may mean another commit tomorrow.
pub(super) fn commit_id(text: &str) -> Result<Oid, FetchError> {
    let full = text.len() == 40;
    Oid::from_str(text).ok().filter(|_| full).ok_or_else(|| FetchError::Config {
        what: format!("{text:?} is not a commit id"),
        hint: "write all 40 digits".into(),
    })
}

/// One fetch; `None` where the reference still names `last`.
pub(super) fn fetch(job: &Job, last: Option<&str>) -> Result<Option<Tree>, FetchError> {
    // A commit cannot change: once read there is nothing to ask.
    if let Reference::Commit(c) = &job.reference
        && last.is_some_and(|l| l.eq_ignore_ascii_case(c))
    {
        return Ok(None);
    }
    match attempt(job, last, 1) {
        // Some servers and proxies know no shallow fetch, and some give no commit by its id.
        Err(Failure::TryFull) => {
            discard(&job.mirror)?;
            attempt(job, last, 0)
        }
        // A mirror damaged by a crash or a full disk costs one more download.
        Err(Failure::Mirror(_)) if job.mirror.exists() => {
            discard(&job.mirror)?;
            attempt(job, last, 1)
        }
        other => other,
    }
    .map_err(|failure| match failure {
        Failure::Is(e) | Failure::Mirror(e) => e,
        Failure::TryFull => FetchError::Config {
            what: format!("{} gives neither a shallow nor a full copy", job.address),
            hint: "ask for a branch instead of a commit".into(),
        },
    })
}

enum Failure {
    Is(FetchError),
    /// Our own copy is at fault.
    Mirror(FetchError),
    /// Ask again for everything.
    TryFull,
}

impl From<FetchError> for Failure {
    fn from(e: FetchError) -> Self {
        Self::Is(e)
    }
}

fn attempt(job: &Job, last: Option<&str>, depth: i32) -> Result<Option<Tree>, Failure> {
    let remote_name = job.address.to_string();
    let session = Session::new(job)?;
    let broken = |doing| move |source| Failure::Mirror(FetchError::Git { doing, source });
    let repo = open(job, session.has_offers).map_err(broken("open the mirror"))?;
    let mut remote =
        repo.remote_anonymous(job.address.as_str()).map_err(broken("use the mirror"))?;
    let mut proxy = ProxyOptions::new();
    proxy.auto();
    let mut connection = remote
        .connect_auth(Direction::Fetch, Some(session.callbacks()), Some(proxy))
        .map_err(|e| session.explain(e))?;
    job.pulse.beat();
    let heads: Vec<Head> = connection
        .list()
        .map_err(|e| session.explain(e))?
        .iter()
        .map(|h| Head { name: h.name().to_owned(), id: h.oid() })
        .collect();
    let want = resolve(&remote_name, &job.reference, &heads)?;
    if last == Some(want.id.to_string().as_str()) {
        return Ok(None);
    }
    if repo.find_commit(want.id).is_err() {
        let mut options = FetchOptions::new();
        let mut proxy = ProxyOptions::new();
        proxy.auto();
        options
            .remote_callbacks(session.callbacks())
            .proxy_options(proxy)
            .download_tags(AutotagOption::None)
            .update_fetchhead(false)
            .depth(depth);
        let by_id = matches!(job.reference, Reference::Commit(_)) && want.source.len() == 40;
        let specs = if depth == 0 && by_id {
            vec![
                "+refs/heads/*:refs/evenkeel/heads/*".to_owned(),
                "+refs/tags/*:refs/evenkeel/tags/*".to_owned(),
            ]
        } else {
            vec![format!("+{}:{TARGET}", want.source)]
        };
        if let Err(e) = connection.remote().fetch(&specs, Some(&mut options), None) {
            let cannot = by_id || e.message().contains("support shallow");
            let own = session.verdict.borrow().is_some();
            if depth > 0 && cannot && !own && e.code() != ErrorCode::Auth {
                return Err(Failure::TryFull);
            }
            // A damaged object comes to light while the server is told what we have.
            let ours = !own && OURS.contains(&e.class());
            let e = session.explain(e);
            return Err(if ours { Failure::Mirror(e) } else { Failure::Is(e) });
        }
        if by_id && repo.find_commit(want.id).is_err() {
            if depth > 0 {
                return Err(Failure::TryFull);
            }
            return Err(FetchError::NoReference {
                remote: remote_name,
                wanted: job.reference.to_string(),
                there: Vec::new(),
            }
            .into());
        }
    }
    // A tag of a tag, or of something that is no commit.
    let object = repo.find_object(want.id, None).map_err(broken("read the mirror"))?;
    let commit = object.peel_to_commit().map_err(|source| {
        Failure::Is(FetchError::Git { doing: "find a commit behind the reference", source })
    })?;
    match read::tree(&repo, commit.id(), &job.subdir, job.limits) {
        Ok(tree) => Ok((last != Some(tree.revision.as_str())).then_some(tree)),
        Err(e @ FetchError::Git { .. }) => Err(Failure::Mirror(e)),
        Err(e) => Err(Failure::Is(e)),
    }
}

/// Opens the mirror, made anew where it has collected too much.
fn open(job: &Job, with_credentials: bool) -> Result<Repository, git2::Error> {
    let packs = std::fs::read_dir(job.mirror.join("objects/pack"))
        .map(|dir| dir.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "pack")))
        .map_or(0, Iterator::count);
    if packs > MAX_PACKS {
        // What is left of it is opened all the same.
        let _ = discard(&job.mirror);
    }
    let repo = Repository::init_bare(&job.mirror)?;
    // libgit2 would send the credentials on to wherever the first answer points.
    let redirects = if with_credentials { "false" } else { "initial" };
    repo.config()?.set_str("http.followRedirects", redirects)?;
    Ok(repo)
}

pub(super) fn discard(mirror: &Path) -> Result<(), FetchError> {
    match std::fs::remove_dir_all(mirror) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(FetchError::Io { doing: "remove", path: mirror.to_owned(), source: e })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// One conversation: its credentials and what its callbacks found.
struct Session<'j> {
    job: &'j Job,
    has_offers: bool,
    dealer: Rc<RefCell<Dealer>>,
    /// The real reason of a failure that libgit2 only knows as "callback said no".
    verdict: Rc<RefCell<Option<FetchError>>>,
    /// Why our own certificates did not vouch for the server.
    tls: Rc<RefCell<Option<String>>>,
}

impl<'j> Session<'j> {
    fn new(job: &'j Job) -> Result<Self, FetchError> {
        let offers: Vec<Offer> =
            offers(&job.auth, &job.address, job.found.as_ref(), &Around::look(), |path| {
                path.is_file()
            })?;
        Ok(Self {
            job,
            has_offers: !offers.is_empty(),
            dealer: Rc::new(RefCell::new(Dealer::new(offers))),
            verdict: Rc::default(),
            tls: Rc::default(),
        })
    }

    fn callbacks(&self) -> RemoteCallbacks<'j> {
        let job = self.job;
        let mut callbacks = RemoteCallbacks::new();
        let (dealer, verdict) = (Rc::clone(&self.dealer), Rc::clone(&self.verdict));
        callbacks.credentials(move |_, _, allowed| {
            job.pulse.beat();
            match dealer.borrow_mut().next(allowed) {
                Answer::Username(user) => Cred::username(&user),
                Answer::Offer(offer) => offer.cred(),
                Answer::GiveUp(why) => {
                    let remote = job.address.to_string();
                    *verdict.borrow_mut() = Some(FetchError::Denied { remote, why });
                    Err(git2::Error::new(ErrorCode::Auth, ErrorClass::Callback, "refused"))
                }
            }
        });
        let (tls, verdict) = (Rc::clone(&self.tls), Rc::clone(&self.verdict));
        callbacks.certificate_check(move |cert, host| {
            job.pulse.beat();
            let untrusted = |e| {
                *verdict.borrow_mut() = Some(e);
                Err(git2::Error::new(ErrorCode::Certificate, ErrorClass::Callback, "untrusted"))
            };
            if let Some(x509) = cert.as_x509() {
                let Some(file) = &job.ca_file else {
                    return Ok(CertificateCheckStatus::CertificatePassthrough);
                };
                let now = (job.clock)();
                let trust = tls::read(file).and_then(|c| tls::trusted(&c, x509.data(), host, now));
                return Ok(match trust {
                    Ok(()) => CertificateCheckStatus::CertificateOk,
                    // The system may still know it.
                    Err(why) => {
                        *tls.borrow_mut() = Some(why);
                        CertificateCheckStatus::CertificatePassthrough
                    }
                });
            }
            let key = cert.as_hostkey().and_then(git2::cert::CertHostkey::hostkey);
            match host_key(job, key) {
                Ok(()) => Ok(CertificateCheckStatus::CertificateOk),
                Err(e) => untrusted(e),
            }
        });
        let verdict = Rc::clone(&self.verdict);
        callbacks.transfer_progress(move |stats| {
            let limit = job.limits.max_transfer_bytes;
            if stats.received_bytes() as u64 > limit {
                let what = format!("what {} sends", job.address);
                *verdict.borrow_mut() = Some(FetchError::TooBig { what, limit });
                return false;
            }
            job.pulse.beat()
        });
        callbacks.sideband_progress(move |_| job.pulse.beat());
        callbacks
    }

    fn explain(&self, e: git2::Error) -> FetchError {
        if let Some(verdict) = self.verdict.borrow_mut().take() {
            return verdict;
        }
        let remote = self.job.address.to_string();
        let status = e.message().rsplit("status code: ").next().unwrap_or_default();
        // libgit2 gives the certificate error its own code only on some of the ways to it.
        let tls = e.class() == ErrorClass::Ssl && e.message().contains("certificate");
        if e.code() == ErrorCode::Certificate || tls {
            let why = self.tls.borrow_mut().take().unwrap_or_else(|| e.message().to_owned());
            let hint = "give the certificate of its authority as a PEM file with --git-ca-file";
            return FetchError::Untrusted { remote, why, hint: hint.into() };
        }
        if e.code() == ErrorCode::Auth || matches!(status, "401" | "403") {
            return FetchError::Denied { remote, why: e.message().to_owned() };
        }
        if status == "404" {
            return FetchError::NoRepository { remote };
        }
        FetchError::Unreachable { remote, source: e }
    }
}

/// May we talk to the ssh server that showed `key`?
fn host_key(job: &Job, key: Option<&[u8]>) -> Result<(), FetchError> {
    let remote = job.address.to_string();
    let (Some(key), Kind::Ssh { host, port, .. }) = (key, job.address.kind()) else {
        let why = "it showed no host key".to_owned();
        return Err(FetchError::Untrusted { remote, why, hint: "is it an ssh server?".into() });
    };
    let files = match &job.host_keys {
        HostKeys::AcceptAny => return Ok(()),
        HostKeys::Files(paths) => paths.iter().map(|p| known_hosts(p)).collect::<Result<_, _>>()?,
        HostKeys::Usual => {
            let home = Around::look().home.map(|h| h.join(".ssh/known_hosts"));
            home.iter()
                .map(std::path::PathBuf::as_path)
                .chain([Path::new("/etc/ssh/ssh_known_hosts")])
                .filter_map(|p| known_hosts(p).ok())
                .collect::<Vec<_>>()
        }
    };
    let shown = format!("{} {}", key_type(key), hosts::fingerprint(key));
    let flag = if *port == 22 { String::new() } else { format!("-p {port} ") };
    let add = format!(
        "compare the fingerprint with the one the server's owner publishes, then add the output \
         of `ssh-keyscan {flag}{host}` to known_hosts"
    );
    let (why, hint) = match hosts::judge(&files, host, *port, key) {
        Verdict::Known => return Ok(()),
        Verdict::Unknown => (format!("its host key {shown} is not in known_hosts"), add),
        Verdict::Revoked => {
            (format!("its host key {shown} is revoked"), "ask the server's owner".into())
        }
        Verdict::Changed(known) if known.iter().any(|k| *k == key_type(key)) => (
            format!("its host key is {shown}, and known_hosts says another"),
            "the server was rebuilt or somebody is in between: ask its owner before you change \
             known_hosts"
                .into(),
        ),
        Verdict::Changed(known) => {
            (format!("its host key is {shown}, and known_hosts has only {}", known.join(", ")), add)
        }
    };
    Err(FetchError::Untrusted { remote, why, hint })
}

fn known_hosts(path: &Path) -> Result<String, FetchError> {
    let io = |source| FetchError::Io { doing: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, hosts::MAX_BYTES), &mut bytes)
        .map_err(io)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The key type is the first string of the key itself.
fn key_type(key: &[u8]) -> &str {
    let read = || {
        let (len, rest) = key.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        str::from_utf8(rest.get(..len)?).ok()
    };
    read().unwrap_or("unknown")
}
