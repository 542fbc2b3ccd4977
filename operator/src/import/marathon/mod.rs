//! Apps of Marathon as documents: each claims its app by id and renders to what runs, so that nothing restarts.

mod app;
mod dump;
mod health;
mod meaning;
mod patch;
mod place;
mod policy;
mod process;
mod reach;

use evenkeel_crds::{Backend, FleetLimits, FleetSpec, MarathonBackend};
use serde_json::Value;

use super::name::{LONGEST, Names};
use super::{Document, Import, ImportError, LeftOut, Notes, read};
use crate::model::{AppId, MarathonSpec, OwnerId};

/// How a cluster is imported.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// The fleet that the documents are of.
    pub fleet: &'a str,
    /// Only apps below this group; `/` for all.
    pub group: &'a str,
    /// How the cluster is spoken with, for the fleet's document; without it none is written.
    pub cluster: Option<MarathonBackend>,
    /// By whom documents are read.
    pub owner: &'a OwnerId,
}

const SECRETS: &str = "values of env are written as they were found; to make one a secret, put it into the file NAME/KEY under \
                       --secrets and write {name: X, secret: {name: NAME, key: KEY}}";
const LIMITS: &str = "cpus is a share of what is free on Mesos, and resources.cpu the most that an instance gets on Docker hosts: \
                      give room before a service moves";
const PATIENCE: &str = "Marathon waits for a release for ever; evenkeel gives it up after rollout.progressDeadline (10m where \
                        nothing else is said) and returns to the last that worked";

/// Documents for the apps of a dump: what `GET /v2/groups` or `GET /v2/apps` answers, or the JSON of apps.
///
/// # Errors
/// There is nothing of Marathon's in it, or nothing below the group.
pub fn import(dump: &Value, options: &Options<'_>) -> Result<Import, ImportError> {
    let dump::Dump { apps, left_out, ordered } = dump::read(dump)?;
    let below = |id: &str| dump::below(id, options.group).is_some();
    if !apps.is_empty() && !apps.keys().any(|id| below(id)) {
        let message = format!("there is no app below the group {}", options.group);
        let hint = format!("there is {}", some(apps.keys()));
        return Err(ImportError::new(message, hint));
    }
    let mut out = Import::default();
    out.left_out.extend(left_out.into_iter().filter(|l| below(&l.subject)));
    let stand_in = stand_in(options.group);
    let fleet = fleet(options, options.cluster.as_ref().unwrap_or(&stand_in));
    let cluster = spoken_with(options.cluster.as_ref().unwrap_or(&stand_in));
    let ground = app::Ground { fleet: options.fleet, cluster: &cluster, owner: options.owner };
    let mut names = Names::default();
    for (id, app) in &apps {
        let Some(path) = dump::below(id, options.group) else { continue };
        let mut notes = Notes::of(id);
        if AppId::new(id).is_none() {
            let why = "its id is not one that Marathon takes today".to_owned();
            out.left_out.push(LeftOut { subject: id.clone(), why, hint: None });
            continue;
        }
        match app::spec(id, &Value::Object((*app).clone()), &ground, &mut notes) {
            Ok(spec) => {
                let name = names.give(path, "app", LONGEST);
                if name != path.replace('/', "-") {
                    notes.kept("id", format!("the service is called {name}"));
                }
                out.documents.push(Document::new("ScalingService", &name, id, &spec));
                out.notes.append(&mut notes.all);
            }
            Err(app::Unfit { why, hint }) => {
                let hint = hint.map(str::to_owned);
                out.left_out.push(LeftOut { subject: id.clone(), why, hint });
            }
        }
    }
    for group in ordered.into_iter().filter(|id| below(id) || id == options.group) {
        let said = "not carried over: evenkeel starts everything at once".to_owned();
        let hint = Some("let services try again until what they need answers".to_owned());
        let field = "dependencies".to_owned();
        out.notes.push(super::Note { subject: group, field, said, hint, lost: true });
    }
    refuse(&mut out, &fleet, options)?;
    remark(&mut out);
    if options.cluster.is_some() {
        out.documents.insert(0, fleet);
    }
    Ok(out)
}

fn some<'i>(ids: impl Iterator<Item = &'i String>) -> String {
    let mut named: Vec<&str> = ids.map(String::as_str).take(4).collect();
    if named.len() > 3 {
        named.truncate(3);
        named.push("…");
    }
    named.join(", ")
}

/// Takes out what our own parser would not take. The rules for all documents together are its own.
fn refuse(out: &mut Import, fleet: &Document, options: &Options<'_>) -> Result<(), ImportError> {
    let (_, problems) = read(&out.documents, std::slice::from_ref(fleet), options.owner);
    // Without it no service would be taken.
    if let Some(problem) = problems.get(&fleet.file()).and_then(|all| all.first()) {
        let (message, hint) = (problem.message.clone(), problem.hint.clone());
        return Err(ImportError { message, hint });
    }
    let (good, bad) = std::mem::take(&mut out.documents)
        .into_iter()
        .partition(|document| !problems.contains_key(&document.file()));
    out.documents = good;
    for document in bad {
        let all = problems.get(&document.file()).into_iter().flatten();
        let why: Vec<&str> = all.map(|problem| problem.message.as_str()).collect();
        out.notes.retain(|note| note.subject != document.subject);
        out.left_out.push(LeftOut { subject: document.subject, why: why.join("; "), hint: None });
    }
    Ok(())
}

fn remark(out: &mut Import) {
    if out.documents.is_empty() {
        return;
    }
    if out.documents.iter().any(|document| document.text.contains("\n  env:\n")) {
        out.remarks.push(SECRETS.to_owned());
    }
    out.remarks.extend([LIMITS, PATIENCE].map(str::to_owned));
}

fn stand_in(group: &str) -> MarathonBackend {
    MarathonBackend {
        urls: vec!["http://127.0.0.1:8080".to_owned()],
        auth: None,
        group: group.to_owned(),
        registry_config: None,
        registrator: false,
    }
}

fn fleet(options: &Options<'_>, marathon: &MarathonBackend) -> Document {
    let spec = FleetSpec {
        backend: Backend { docker: None, marathon: Some(marathon.clone()) },
        discovery: None,
        limits: FleetLimits::default(),
    };
    Document::new("Fleet", options.fleet, options.fleet, &spec)
}

/// What rendering depends on.
fn spoken_with(marathon: &MarathonBackend) -> MarathonSpec {
    // Taken apart without `..`: what is added may be rendered.
    let MarathonBackend { urls, auth: _, group, registry_config, registrator } = marathon.clone();
    MarathonSpec { urls, auth: None, group, registry_config, registrator }
}
