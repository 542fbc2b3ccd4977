//! A table as a configuration that HAProxy has agreed to, less whatever it does not take.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::assign::Seats;
use super::parse::{all_fragments, blame, first_alert};
use super::render::{LeftOut, Rendered, render};
use super::site::{Frame, Site};
use crate::error::causes;
use crate::model::{PoolName, Routing};

/// How often HAProxy is asked about one table; each time at least one more thing is left out.
const MOST_TRIES: usize = 12;

/// Everything that only a reload can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Structure {
    pub(super) frame: Arc<Frame>,
    pub(super) routing: Arc<Routing>,
    pub(super) sizes: BTreeMap<PoolName, u32>,
}

/// What became of a structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// HAProxy takes it, less what is left out.
    Taken { digest: String, left_out: LeftOut },
    /// It does not, and why.
    Refused(String),
    /// It could not be asked.
    Unasked(String),
}

impl Structure {
    pub(super) fn render(&self, seats: &BTreeMap<PoolName, Seats>, left_out: &LeftOut) -> Rendered {
        render(&self.frame, &self.routing, &self.sizes, seats, left_out)
    }
}

/// Asks HAProxy, until it agrees or nobody can be blamed any more. `in_force` needs no asking.
pub(super) async fn approve(
    site: Site,
    structure: Structure,
    seats: BTreeMap<PoolName, Seats>,
    in_force: String,
) -> Verdict {
    let mut left_out = LeftOut::new();
    for _ in 0..MOST_TRIES {
        let rendered = structure.render(&seats, &left_out);
        left_out.clone_from(&rendered.left_out);
        if rendered.digest == in_force {
            return Verdict::Taken { digest: rendered.digest, left_out };
        }
        let said = match site.check(&rendered).await {
            Ok(None) => return Verdict::Taken { digest: rendered.digest, left_out },
            Ok(Some(said)) => said,
            Err(e) => return Verdict::Unasked(causes(&e)),
        };
        let why = first_alert(&said, &site.frame.candidate);
        let mut more = blame(&said, &site.frame.candidate, &rendered);
        more.retain(|culprit, _| !left_out.contains_key(culprit));
        if more.is_empty() {
            more = all_fragments(&rendered, &why);
        }
        if more.is_empty() {
            return Verdict::Refused(why);
        }
        left_out.append(&mut more);
    }
    Verdict::Refused("too much of it is at fault".into())
}
