//! What it means for Docker hosts that a field of an app is kept for Marathon.

use serde_json::{Map, Value};

use crate::import::Notes;
use crate::import::text::shown;

/// What is said of a field for which there is nothing better to say.
const ONLY: &str = "kept for Marathon only (marathon.fields); Docker hosts have nothing like it";
/// What is said of one that a document has in its own words too.
const SAME: &str =
    "kept as it is for Marathon; the document says the same to Docker hosts in its own words";

/// A field that documents have no word for: its name, what becomes of it, and what to do about it.
type Lost = (&'static str, &'static str, Option<&'static str>);

#[rustfmt::skip] // one line, one field
const LOST: [Lost; 22] = [
    ("acceptedResourceRoles", ONLY, Some("labels of hosts and placement.constraints reserve hosts")),
    ("backoffFactor", "kept for Marathon only (marathon.fields); evenkeel paces new starts on Docker hosts by itself", None),
    ("backoffSeconds", "kept for Marathon only (marathon.fields); evenkeel paces new starts on Docker hosts by itself", None),
    ("check", "kept for Marathon only (marathon.fields); it only informs", Some("health says when an instance works")),
    ("container.docker.credential", ONLY, Some("the engine's hosts need the registry's credentials: docker login on the agent's machine")),
    ("container.docker.forcePullImage", "kept for Marathon only (marathon.fields); Docker hosts pull an image once", Some("give each release a tag of its own")),
    ("container.docker.privileged", ONLY, Some("evenkeel starts no privileged container")),
    ("container.docker.pullConfig", ONLY, Some("docker login on the agent's machine gives Docker hosts the credentials")),
    ("container.linuxInfo", ONLY, None),
    ("dependencies", "kept for Marathon only (marathon.fields); Docker hosts start everything at once", Some("let it try again until what it needs answers")),
    ("disk", ONLY, None),
    ("executor", ONLY, None),
    ("fetch", "kept for Marathon only (marathon.fields); Docker hosts fetch nothing into a container", Some("credentials of a registry: docker login on the agent's machine; everything else: put it into the image")),
    ("gpus", ONLY, None),
    ("killSelection", "kept for Marathon only (marathon.fields); evenkeel chooses by health and load", None),
    ("maxLaunchDelaySeconds", "kept for Marathon only (marathon.fields); evenkeel paces new starts on Docker hosts by itself", None),
    ("readinessChecks", "kept for Marathon only (marathon.fields)", Some("health gates a release on Docker hosts; rollout.minReadySeconds adds time")),
    ("resourceLimits", "kept for Marathon only (marathon.fields); on Docker hosts resources are request and limit in one", None),
    ("role", ONLY, None),
    ("secrets", "kept for Marathon only (marathon.fields)", Some("put the values into files under --secrets, and write env with secret: {name, key}")),
    ("tty", ONLY, None),
    ("user", "kept for Marathon only (marathon.fields); Docker hosts run it as the image's own user", Some("say USER in the image")),
];

/// Tells of every part of the patch that nothing was told of yet.
pub(super) fn tell(patch: &Map<String, Value>, notes: &mut Notes) {
    for (name, value) in patch {
        match (name.as_str(), value) {
            ("labels", Value::Object(labels)) => tell_labels(labels, notes),
            // Each variable was told of where it could not be taken.
            ("env", Value::Object(_)) => {}
            ("container", Value::Object(fields)) => {
                for (name, value) in fields {
                    match (name.as_str(), value) {
                        ("docker", Value::Object(fields)) => {
                            for (name, value) in fields {
                                field(&format!("container.docker.{name}"), value, notes);
                            }
                        }
                        _ => field(&format!("container.{name}"), value, notes),
                    }
                }
            }
            _ => field(name, value, notes),
        }
    }
}

fn field(name: &str, value: &Value, notes: &mut Notes) {
    if notes.has(name) {
        return;
    }
    if let Some((_, said, hint)) = LOST.iter().find(|(lost, ..)| *lost == name) {
        notes.add(name, *said, *hint, true);
        return;
    }
    // What a document has words for of its own.
    let spoken = [
        "args",
        "cmd",
        "constraints",
        "container.docker.image",
        "container.docker.parameters",
        "container.portMappings",
        "container.volumes",
        "cpus",
        "healthChecks",
        "mem",
        "networks",
        "portDefinitions",
        "requirePorts",
        "taskKillGracePeriodSeconds",
        "unreachableStrategy",
        "upgradeStrategy",
        "container.type",
    ];
    if !spoken.contains(&name) && !value.is_null() {
        notes.lost(name, ONLY);
        return;
    }
    let said = match (name, value) {
        ("container.docker.parameters", Value::Null) => {
            "null: evenkeel would add the stop signal, which restarts the app; take it out with the next release"
        }
        ("taskKillGracePeriodSeconds", Value::Null) => {
            "null: it is not set, and the cluster's own time holds; Docker hosts wait for termination.grace"
        }
        ("unreachableStrategy", Value::Null) => {
            "null: it is not set, and the server's own default holds; Docker hosts have onHostLost"
        }
        ("unreachableStrategy", _) => "kept for Marathon; Docker hosts have onHostLost",
        ("container.type", _) => {
            "kept for Marathon, which runs it by the Mesos containerizer; Docker hosts run the same image"
        }
        ("upgradeStrategy", _) => {
            "kept for Marathon to the digit; Docker hosts have rollout, in whole percent"
        }
        ("mem" | "cpus", _) => {
            "kept for Marathon to the digit; Docker hosts have the nearest that a document can say"
        }
        ("healthChecks", Value::Array(_)) => {
            "kept for Marathon, which makes the check as before; Docker hosts have health"
        }
        ("networks", Value::Array(_)) => "kept as it is for Marathon",
        (_, Value::Null) => "null: the app does not have it, and evenkeel would add it",
        _ => SAME,
    };
    notes.kept(name, said);
}

fn tell_labels(labels: &Map<String, Value>, notes: &mut Notes) {
    let begin =
        |name: &str, with: &[&str]| with.iter().any(|w| name.to_ascii_lowercase().starts_with(w));
    let kinds: [(&[&str], &str); 3] = [
        (
            &["haproxy_"],
            "write routes to a LoadBalancer: the host is HAPROXY_n_VHOST, the path HAPROXY_n_PATH",
        ),
        (&["traefik"], "write routes to a LoadBalancer"),
        (&["service_"], "write discovery.tags and discovery.meta"),
    ];
    let mut rest: Vec<&str> = labels.keys().map(String::as_str).collect();
    for (with, hint) in kinds {
        let (these, others): (Vec<&str>, Vec<&str>) =
            rest.iter().partition(|name| begin(name, with));
        tell_of(&these, hint, notes);
        rest = others;
    }
    let hint = "discovery.meta shows such things in the catalogue";
    tell_of(&rest, hint, notes);
}

fn tell_of(names: &[&str], hint: &str, notes: &mut Notes) {
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(|name| shown(name)).collect();
        let said = format!(
            "kept for Marathon only (marathon.fields), as Docker hosts have no labels of apps: {}",
            names.join(", ")
        );
        notes.lost_but("labels", said, hint);
    }
}

/// Tells what variables of the environment mean that others read: they are carried over and nobody reads them.
pub(super) fn tell_environment<'n>(names: impl Iterator<Item = &'n str>, notes: &mut Notes) {
    let read: Vec<String> = names.filter(|n| n.starts_with("SERVICE_")).map(shown).collect();
    if !read.is_empty() {
        let said = format!(
            "carried over, but only Registrator reads them and evenkeel does not: {}",
            read.join(", ")
        );
        notes.lost_but(
            "env",
            said,
            "write discovery.tags and discovery.meta, and health for its check",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(patch: &Value) -> Vec<String> {
        let mut notes = Notes::of("/a");
        tell(patch.as_object().unwrap(), &mut notes);
        let star = |lost| if lost { "*" } else { "" };
        notes.all.iter().map(|n| format!("{}{}: {}", star(n.lost), n.field, n.said)).collect()
    }

    #[test]
    fn every_part_of_a_patch_is_told_of() {
        let said = told(&json!({
            "backoffSeconds": 2, "container": {"docker": {"parameters": null, "privileged": true}, "volumes": []},
            "taskKillGracePeriodSeconds": null, "labels": {"HAPROXY_0_VHOST": "x", "HAPROXY_GROUP": "e", "team": "a"},
            "ofTomorrow": 1,
        }));
        assert_eq!(said.len(), 8, "{said:#?}");
        assert!(
            said[0].starts_with("*backoffSeconds: kept for Marathon only (marathon.fields)"),
            "{said:#?}"
        );
        assert!(said.iter().any(|s| s.ends_with("HAPROXY_0_VHOST, HAPROXY_GROUP")), "{said:#?}");
        assert!(said.iter().any(|s| s.ends_with(": team")), "{said:#?}");
        assert!(
            said.iter().any(|s| s.starts_with("*ofTomorrow: kept for Marathon only")),
            "{said:#?}"
        );
        assert!(
            said.iter().any(|s| s.starts_with("container.docker.parameters: null")),
            "{said:#?}"
        );
    }
}
