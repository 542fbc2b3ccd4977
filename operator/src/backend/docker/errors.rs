//! What an engine says when it refuses, and what follows from it.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use bollard::errors::Error as Bollard;

use crate::error::{PortError, Remedy, causes};
use crate::model::Human;

/// A call to an engine that did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CallError {
    /// The engine answered no.
    #[error("{message}")]
    Refused { status: u16, message: String },
    /// No answer in time.
    #[error("no answer within {}", Human(*.0))]
    Timeout(Duration),
    /// The connection could not be made or broke.
    #[error("{0}")]
    Transport(String),
    /// Something answered that is not a Docker Engine, or not one we understand.
    #[error("{0}")]
    Garbled(String),
}

/// No text from outside is kept longer than this.
const LONGEST: usize = 600;

fn clip(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if one_line.chars().count() <= LONGEST {
        return one_line;
    }
    let mut cut: String = one_line.chars().take(LONGEST).collect();
    cut.push('…');
    cut
}

/// The chain of causes without the layers that say nothing.
pub(super) fn text(error: &(dyn Error + 'static)) -> String {
    let mut out = String::new();
    let mut next = Some(error);
    while let Some(e) = next {
        let said = e.to_string();
        let empty = said.starts_with("client error (") || said.starts_with("Error in the hyper");
        if !empty && !out.ends_with(&said) {
            let _ = write!(out, "{}{said}", if out.is_empty() { "" } else { ": " });
        }
        next = e.source();
    }
    clip(if out.is_empty() { "the connection failed" } else { &out })
}

impl From<Bollard> for CallError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else bollard can say is about the connection, today and tomorrow"
    )]
    fn from(e: Bollard) -> Self {
        match e {
            Bollard::DockerResponseServerError { status_code, message } => {
                Self::refused(status_code, &message)
            }
            Bollard::DockerStreamError { error } => Self::refused(500, &error),
            Bollard::JsonDataError { message, .. } => Self::Garbled(clip(&message)),
            Bollard::JsonSerdeError { err } => Self::Garbled(clip(&err.to_string())),
            other => Self::Transport(text(&other)),
        }
    }
}

impl CallError {
    pub(super) fn refused(status: u16, message: &str) -> Self {
        let message = if message.trim().is_empty() {
            format!("the engine answered with status {status} and no message")
        } else {
            clip(message)
        };
        Self::Refused { status, message }
    }

    /// Whether the engine said that there is no such thing.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether a create failed only for want of the image.
    pub(super) fn wants_image(&self) -> bool {
        matches!(self, Self::Refused { status: 404, message } if {
            let m = message.to_lowercase();
            m.contains("no such image") || m.contains("image not found")
        })
    }

    /// What follows, from the engine's status where it is true to its meaning, else from its words.
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Timeout(_) | Self::Transport(_) | Self::Garbled(_) => Remedy::Retry,
            Self::Refused { status, message } => {
                let said = message.to_lowercase();
                let says = |words: &[&str]| words.iter().any(|w| said.contains(w));
                // The engine wraps what a registry said in a 404, a 500 or in the body of a 200.
                let refused_for_good = says(&[
                    "pull access denied",
                    "manifest unknown",
                    "manifest for ",
                    "name unknown",
                    "no matching manifest",
                    "repository does not exist",
                    "unauthorized",
                    "no basic auth credentials",
                    "requested access to the resource is denied",
                    "invalid reference format",
                    "invalid repository name",
                    "executable file not found",
                ]);
                match *status {
                    400 | 401 | 403 => Remedy::Hold,
                    _ if refused_for_good || self.wants_image() => Remedy::Hold,
                    404 | 409 => Remedy::Reobserve,
                    _ => Remedy::Retry,
                }
            }
        }
    }

    /// As the error of a step.
    pub(super) fn while_doing(self, doing: &str) -> PortError {
        PortError::new(doing, self.remedy(), self)
    }
}

/// An error and its causes as one line for people.
pub(super) fn line(e: &PortError) -> String {
    clip(&causes(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_remedy() {
        use Remedy::{Hold, Reobserve, Retry};
        // The words are those of Docker Engine 20.10 and 28.
        for (status, message, remedy) in [
            (404, "No such image: nope:1", Hold),
            (404, "No such container: abc", Reobserve),
            (409, "Conflict. The container name \"/web_1\" is already in use", Reobserve),
            (409, "You cannot remove a running container abc", Reobserve),
            (500, "driver failed: Bind for 0.0.0.0:80 failed: port is already allocated", Retry),
            (500, "write /x: no space left on device", Retry),
            (400, "invalid mount config: bind source path does not exist: /x", Hold),
            (500, "Get \"https://r/v2/\": dial tcp: lookup r: no such host", Retry),
            (500, "manifest for r/x:1 not found: manifest unknown: manifest unknown", Hold),
            (404, "pull access denied for x, repository does not exist", Hold),
            (500, "Head \"http://r/v2/x\": no basic auth credentials", Hold),
            (500, "toomanyrequests: rate limit", Retry),
        ] {
            assert_eq!(CallError::refused(status, message).remedy(), remedy, "{status} {message}");
        }
        assert_eq!(CallError::Timeout(Duration::from_secs(1)).remedy(), Retry);
    }

    #[test]
    fn texts_from_outside_are_one_short_line() {
        let long = "x\n".repeat(10_000);
        assert!(CallError::refused(500, &long).to_string().chars().count() <= LONGEST + 1);
        assert_eq!(CallError::refused(500, "a\n  b\n").to_string(), "a b");
    }
}
