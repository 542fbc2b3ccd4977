//! What can go wrong at the rim, and what follows from it.

use std::error::Error;
use std::fmt::{self, Write};

/// A step or an observation that failed at the outside world.
///
/// `Display` says what was being done and never prints the source; [`causes`] prints the whole chain.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct PortError {
    /// What was being done, as `create web_3 on h1`.
    pub doing: String,
    /// What follows.
    pub remedy: Remedy,
    /// What the outside said.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// What follows from a failure at the rim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The same step may work later: try again with growing pauses, counted against its slot.
    Retry,
    /// The world is not as it was thought to be: look again, it counts against nobody.
    Reobserve,
    /// It cannot work until the document or the host changes: longest pause, said loudly.
    Hold,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retry => "retry",
            Self::Reobserve => "look again",
            Self::Hold => "hold",
        })
    }
}

impl PortError {
    /// A failure while `doing`, with what follows from it.
    pub fn new(
        doing: impl Into<String>,
        remedy: Remedy,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { doing: doing.into(), remedy, source: source.into() }
    }
}

/// An error and all that caused it, on one line, each cause once.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        let text = e.to_string();
        if !out.ends_with(&text) {
            let _ = write!(out, ": {text}");
        }
        next = e.source();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_each_cause_once() {
        let e = PortError::new("start web_1 on h1", Remedy::Retry, "no space left");
        assert_eq!(e.to_string(), "start web_1 on h1");
        assert_eq!(causes(&e), "start web_1 on h1: no space left");
    }
}
