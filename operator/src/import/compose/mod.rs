//! Services of a compose file as documents.
//!
//! Files are read by the caller: this asks for what it needs and for the values of variables.

mod amount;
mod deploy;
pub mod env_file;
mod interpolate;
mod ports;
mod rest;
mod service;
mod volumes;
mod words;

use serde_yaml::Value;

use super::name::{LONGEST, Names, label};
use super::{Document, Import, ImportError, LeftOut, Note, Notes, meaning, read};
use crate::import::text::shown;
use crate::model::OwnerId;

/// More services than any file has.
const MOST: usize = 1000;

/// How a file is imported.
pub struct Options<'a> {
    /// The fleet that the documents are of.
    pub fleet: &'a str,
    /// What the project is called where the file does not say.
    pub project: &'a str,
    /// The directory that relative paths begin in, from the root.
    pub dir: &'a str,
    /// The values of variables.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file of variables that the compose file names.
    pub read: &'a dyn Fn(&str) -> Result<String, String>,
    /// By whom documents are read.
    pub owner: &'a OwnerId,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { fleet, project, dir, lookup: _, read: _, owner } = self;
        f.debug_struct("Options")
            .field("fleet", fleet)
            .field("project", project)
            .field("dir", dir)
            .field("owner", owner)
            .finish_non_exhaustive()
    }
}

/// What services have in common.
struct Project<'a> {
    name: String,
    dir: &'a str,
    volumes: Option<&'a Value>,
    networks: Option<&'a Value>,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    read: &'a dyn Fn(&str) -> Result<String, String>,
}

impl Project<'_> {
    /// The name that a volume or network has on the engine.
    fn real_name(&self, name: &str, declared: &Value) -> String {
        let external = declared.get("external");
        let outside = external.and_then(|e| e.get("name")).and_then(Value::as_str);
        let own = declared.get("name").and_then(Value::as_str);
        match (outside.or(own), external) {
            (Some(own), _) => own.to_owned(),
            (None, Some(external)) if external.as_bool() != Some(false) => name.to_owned(),
            (None, _) => format!("{}_{name}", self.name),
        }
    }
}

const SECRETS: &str = "values of environment are written as they were found; to make one a secret, put it into the file NAME/KEY \
                       under --secrets and write {name: X, secret: {name: NAME, key: KEY}}";
const BESIDE: &str = "instances join the networks and volumes that compose made, by their names on the engine: they run beside what \
                      compose runs until docker compose down";

/// Documents for the services of a file.
///
/// # Errors
/// It is no YAML, or no compose file.
pub fn import(text: &str, options: &Options<'_>) -> Result<Import, ImportError> {
    let mut file: Value = serde_yaml::from_str(text)
        .map_err(|e| ImportError { message: format!("not YAML: {e}"), hint: None })?;
    file.apply_merge().map_err(|e| ImportError { message: e.to_string(), hint: None })?;
    let Some(services) = file.get("services").and_then(Value::as_mapping) else {
        let hint = "give a compose file of version 2 or newer, or of the compose specification";
        return Err(ImportError::new("there are no services in it", hint));
    };
    if services.len() > MOST {
        return Err(ImportError { message: format!("more than {MOST} services"), hint: None });
    }
    let mut top = Notes::of("file");
    let project = project(&file, options, &mut top);
    let mut out = Import::default();
    let mut names = Names::default();
    let mut given = Vec::new();
    // Those that can keep their names do.
    for pass in [true, false] {
        for (key, service) in services {
            let key = amount::text(key).unwrap_or_default();
            if (label(&key, LONGEST) == key) == pass {
                given.push((names.give(&key, "service", LONGEST), key, service));
            }
        }
    }
    let order = |key: &str| services.keys().position(|k| k.as_str() == Some(key));
    given.sort_by_key(|(_, key, _)| order(key));
    for (name, key, service) in given {
        let subject = format!("services.{}", shown(&key));
        let mut notes = Notes::of(&subject);
        match one(&name, &key, service, &project, options, &mut notes) {
            Ok(document) => {
                out.documents.push(Document { subject, ..document });
                out.notes.append(&mut notes.all);
            }
            Err((why, hint)) => out.left_out.push(LeftOut { subject, why, hint }),
        }
    }
    check(&mut out, options);
    tell_rest(&file, &mut top);
    out.notes.append(&mut top.all);
    if out.documents.iter().any(|document| document.text.contains("\n  env:\n")) {
        out.remarks.push(SECRETS.to_owned());
    }
    if out.documents.iter().any(|d| d.text.contains("\n  networks:") || d.text.contains("volume: "))
    {
        out.remarks.push(BESIDE.to_owned());
    }
    Ok(out)
}

fn project<'a>(file: &'a Value, options: &Options<'a>, notes: &mut Notes) -> Project<'a> {
    let mut unset = Vec::new();
    let name = file.get("name").and_then(Value::as_str).unwrap_or(options.project);
    let name = interpolate::one(name, options.lookup, &mut unset);
    tell_unset("name", &unset, notes);
    // As compose normalises it.
    let fit = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    let name: String = name.to_lowercase().chars().filter(fit).collect();
    let name = name.trim_start_matches(['_', '-']).to_owned();
    Project {
        name: if name.is_empty() { "project".to_owned() } else { name },
        dir: options.dir.trim_end_matches('/'),
        volumes: file.get("volumes"),
        networks: file.get("networks"),
        lookup: options.lookup,
        read: options.read,
    }
}

fn one(
    name: &str,
    key: &str,
    service: &Value,
    project: &Project<'_>,
    options: &Options<'_>,
    notes: &mut Notes,
) -> Result<Document, (String, Option<String>)> {
    let service = service::interpolated(service, project, notes);
    let spec = service::spec(&service, project, notes);
    let mut spec = spec.map_err(|(why, hint)| (why.to_owned(), Some(hint.to_owned())))?;
    options.fleet.clone_into(&mut spec.fleet);
    if name != key {
        let said = format!("is {name} here: others find it by that name on their network");
        notes.lost_but("name", said, "change the name where others use it");
    }
    let document = serde_json::json!({
        "apiVersion": evenkeel_crds::API_VERSION, "kind": "ScalingService",
        "metadata": {"name": name}, "spec": spec,
    });
    meaning(&document, options.owner).map_err(|why| (why, None))?;
    Ok(Document::new("ScalingService", name, key, &spec))
}

/// Tells of variables that have no value.
fn tell_unset(field: &str, unset: &[String], notes: &mut Notes) {
    if !unset.is_empty() {
        let names: Vec<String> = unset.iter().map(|name| format!("${{{}}}", shown(name))).collect();
        let said = format!("{} is not set: empty, as compose has it", names.join(", "));
        notes.lost_but(&shown(field), said, "set it, or give --env-file");
    }
}

/// Tells what our own parser says against the documents together.
fn check(out: &mut Import, options: &Options<'_>) {
    let stand_in = evenkeel_crds::FleetSpec {
        backend: evenkeel_crds::Backend {
            docker: Some(evenkeel_crds::DockerBackend {
                hosts: vec![evenkeel_crds::DockerHost {
                    name: "local".to_owned(),
                    endpoint: crate::source::parse::DEFAULT_ENDPOINT.to_owned(),
                    tls: None,
                    address: None,
                    labels: std::collections::BTreeMap::new(),
                    state: evenkeel_crds::HostState::default(),
                }],
                registry_auth_file: None,
                registry_auth_secret: None,
            }),
            marathon: None,
        },
        discovery: None,
        limits: evenkeel_crds::FleetLimits::default(),
    };
    let stand_in = Document::new("Fleet", options.fleet, options.fleet, &stand_in);
    let (_, problems) = read(&out.documents, &[stand_in], options.owner);
    for document in &out.documents {
        for problem in problems.get(&document.file()).into_iter().flatten() {
            out.notes.push(Note {
                subject: document.subject.clone(),
                field: "check".to_owned(),
                said: format!("on one host evenkeel check says: {}", problem.message),
                hint: problem.hint.clone(),
                lost: true,
            });
        }
    }
}

/// Tells what else is in the file.
fn tell_rest(file: &Value, notes: &mut Notes) {
    for name in file.as_mapping().into_iter().flat_map(|m| m.keys()) {
        let name = amount::text(name).unwrap_or_default();
        let hint = match name.as_str() {
            "services" | "version" | "name" | "volumes" => continue,
            "networks" => {
                drivers(file.get("networks"), notes);
                continue;
            }
            "include" => "import the files that are included one by one",
            "secrets" => {
                "put the values into files under --secrets, and write env with secret: {name, key}"
            }
            "configs" => "put the files into the images, or mount a directory that every host has",
            name if name.starts_with("x-") => continue,
            _ => "it is no part of a compose file that evenkeel knows",
        };
        notes.lost_but(&shown(&name), "not carried over", hint);
    }
}

fn drivers(networks: Option<&Value>, notes: &mut Notes) {
    for (name, network) in networks.and_then(Value::as_mapping).into_iter().flatten() {
        for option in network.as_mapping().into_iter().flat_map(|m| m.keys()) {
            let option = amount::text(option).unwrap_or_default();
            let plain = option == "driver"
                && network.get("driver").and_then(Value::as_str) == Some("bridge");
            if plain || matches!(option.as_str(), "name" | "external") || option.starts_with("x-") {
                continue;
            }
            let name = amount::text(name).unwrap_or_default();
            let said = format!("{} of {} is not carried over", shown(&option), shown(&name));
            notes.lost_but("networks", said, "make the network on each host by hand: evenkeel makes a bridge where there is none");
        }
    }
}

#[cfg(test)]
impl<'a> Project<'a> {
    fn of_test(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let read = &|_: &str| Err("it is not there".to_owned());
        Self { name: "shop".into(), dir: "/srv/shop", volumes: None, networks: None, lookup, read }
    }
}
