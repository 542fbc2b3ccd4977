//! Why a fetch did not give a tree, said so that a person knows what to do next.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::redact;

/// A fetch that failed. `Display` never prints its source (see [`FetchError::chain`]) and no
/// variant holds a URL with credentials.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The configuration itself cannot work.
    #[error("{what}")]
    Config {
        /// What is wrong.
        what: String,
        /// What to write instead.
        hint: String,
    },
    /// The server or path could not be reached or broke off.
    #[error("cannot reach {remote}")]
    Unreachable {
        /// The repository, without credentials.
        remote: String,
        /// What libgit2 said.
        #[source]
        source: git2::Error,
    },
    /// The server asked for credentials and did not take ours, or we have none.
    #[error("{remote} refused us: {why}")]
    Denied {
        /// The repository, without credentials.
        remote: String,
        /// Which credentials were tried.
        why: String,
    },
    /// The server could not prove who it is.
    #[error("{remote} is not trusted: {why}")]
    Untrusted {
        /// The repository, without credentials.
        remote: String,
        /// What it showed.
        why: String,
        /// How to trust it.
        hint: String,
    },
    /// There is no repository at this address.
    #[error("no git repository at {remote}")]
    NoRepository {
        /// The repository, without credentials.
        remote: String,
    },
    /// The repository has no commits at all. An error, never an empty tree.
    #[error("{remote} has no commits")]
    Empty {
        /// The repository, without credentials.
        remote: String,
    },
    /// The branch, tag or commit does not exist there.
    #[error("{remote} has no {wanted}")]
    NoReference {
        /// The repository, without credentials.
        remote: String,
        /// `branch x`, `tag x`, `commit x` or `HEAD`.
        wanted: String,
        /// A few that exist.
        there: Vec<String>,
    },
    /// The sub-directory is not in this revision. An error, never an empty tree.
    #[error("{revision} has no directory {path}")]
    NoDirectory {
        /// The revision that was read.
        revision: String,
        /// The directory that was asked for.
        path: String,
    },
    /// More data than we agreed to take.
    #[error("{what} is larger than {limit} bytes")]
    TooBig {
        /// What is too big.
        what: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// Nothing came for too long.
    #[error("{remote} sent nothing for {} s", after.as_secs())]
    Stalled {
        /// The repository, without credentials.
        remote: String,
        /// How long we waited.
        after: Duration,
    },
    /// It kept sending, but not enough in the time it had.
    #[error("{remote} did not finish in {} s", after.as_secs())]
    Timeout {
        /// The repository, without credentials.
        remote: String,
        /// How long it had.
        after: Duration,
    },
    /// Too many calls hang in servers that went silent.
    #[error("{calls} earlier calls to {remote} still hang")]
    LeftBehind {
        /// The repository, without credentials.
        remote: String,
        /// How many.
        calls: usize,
    },
    /// A file or directory on this machine cannot be used.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// libgit2 failed at something else.
    #[error("cannot {doing}")]
    Git {
        /// The verb.
        doing: &'static str,
        /// What libgit2 said.
        #[source]
        source: git2::Error,
    },
    /// A part of evenkeel itself broke off.
    #[error("the fetch of {remote} broke off")]
    Broken {
        /// The source.
        remote: String,
    },
}

impl FetchError {
    /// What a person can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Config { hint, .. } | Self::Untrusted { hint, .. } => hint.clone(),
            Self::Denied { .. } => {
                "check that the token or key may read this repository and has not expired".into()
            }
            Self::NoRepository { .. } => "check the address; servers also answer so where the \
                                          credentials may not see a private repository"
                .into(),
            Self::Empty { .. } => "push a first commit".into(),
            Self::NoReference { there, .. } if there.is_empty() => return None,
            Self::NoReference { there, .. } => format!("there are: {}", there.join(", ")),
            Self::NoDirectory { .. } => "check --path; it is relative to the repository".into(),
            Self::TooBig { .. } => "keep large files out of the repository, or give evenkeel a \
                                    repository of its own"
                .into(),
            Self::Stalled { .. } | Self::Timeout { .. } => {
                "the network or the server is slow; the last good state stays in force".into()
            }
            Self::Git { source, .. } if source.code() == git2::ErrorCode::Owner => {
                "the repository belongs to another user: run as that user, or add it to \
                 safe.directory in the git configuration"
                    .into()
            }
            Self::LeftBehind { .. } => "the network swallows connections without closing them; \
                                        restart evenkeel once it is mended"
                .into(),
            Self::Unreachable { .. } | Self::Io { .. } | Self::Git { .. } | Self::Broken { .. } => {
                return None;
            }
        };
        Some(text)
    }

    /// The whole chain on one line, credentials cut: `cannot reach X: connection refused`.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(e) = next {
            text.push_str(": ");
            text.push_str(e.to_string().trim_end_matches('.'));
            next = e.source();
        }
        redact(&text)
    }
}
