//! A table as a configuration that HAProxy has agreed to, less whatever it does not take.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::assign::Seats;
use super::parse::{all_fragments, blame, first_alert};
use super::render::{LeftOut, Rendered, render};
use super::{CANDIDATE, CERTIFICATES};
use crate::edge::{Container, File};
use crate::error::{PortError, causes};
use crate::model::{PoolName, Routing};

/// How often HAProxy is asked about one table; each time at least one more thing is left out.
const MOST_TRIES: usize = 12;

/// Everything that only a reload can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Structure {
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
        render(&self.routing, &self.sizes, seats, left_out)
    }
}

/// Asks HAProxy, until it agrees or nobody can be blamed any more. `in_force` needs no asking.
pub(super) async fn approve(
    container: Arc<dyn Container>,
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
        let said = match check(&*container, &rendered).await {
            Ok(None) => return Verdict::Taken { digest: rendered.digest, left_out },
            Ok(Some(said)) => said,
            Err(e) => return Verdict::Unasked(causes(&e)),
        };
        let why = first_alert(&said, CANDIDATE);
        let mut more = blame(&said, CANDIDATE, &rendered);
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

/// Has HAProxy read a configuration; says what it does not like.
async fn check(
    container: &dyn Container,
    rendered: &Rendered,
) -> Result<Option<String>, PortError> {
    let mut files = rendered.files.clone();
    files.push(File { path: CANDIDATE.into(), content: rendered.text.clone().into(), mode: 0o644 });
    container.put(&files).await?;
    let out = container.exec(&["haproxy", "-c", "-f", CANDIDATE]).await?;
    if out.code == 0 {
        return Ok(None);
    }
    Ok(Some(out.text))
}

/// Removes the certificates that a configuration does not name: keys that were replaced stay nowhere.
pub(super) async fn sweep(container: &dyn Container, rendered: &Rendered) -> Result<(), PortError> {
    let script = format!(
        "cd {CERTIFICATES} 2>/dev/null || exit 0; for f in *; do case \" $* \" in *\" $f \"*) ;; \
         *) rm -f -- \"$f\";; esac; done"
    );
    let prefix = format!("{CERTIFICATES}/");
    let keep = rendered.files.iter().filter_map(|f| f.path.strip_prefix(&prefix));
    let mut command = vec!["/bin/sh", "-c", script.as_str(), "sweep"];
    command.extend(keep);
    container.exec(&command).await.map(drop)
}
