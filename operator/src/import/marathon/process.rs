//! What runs: image, command, environment, volumes and parameters of Docker in the words of a document.

use evenkeel_crds::{EnvVar, ScalingServiceSpec};
use serde_json::{Map, Value};

use crate::import::Notes;
use crate::import::mount::Mounts;
use crate::import::name::is_env_name;
use crate::import::text::{MOST_VARIABLES, MOST_WORDS, fits, shown, signal};

const PARAMETERS: &str = "container.docker.parameters";
const VOLUMES: &str = "container.volumes";

/// Says in a document what an app in the form that is compared runs.
pub(super) fn process(app: &Map<String, Value>, spec: &mut ScalingServiceSpec, notes: &mut Notes) {
    command(app, spec, notes);
    env(app.get("env"), spec, notes);
    let mut mounts = Mounts::default();
    let container = app.get("container");
    let volumes = container.and_then(|c| c.get("volumes")).and_then(Value::as_array);
    for volume in volumes.into_iter().flatten() {
        mount(&mut mounts, volume, notes);
    }
    let parameters = container.and_then(|c| c.get("docker")?.get("parameters")?.as_array());
    for parameter in parameters.into_iter().flatten() {
        let text = |name: &str| parameter.get(name).and_then(Value::as_str).unwrap_or_default();
        parameter_of(text("key"), text("value"), app, spec, &mut mounts, notes);
    }
    spec.volumes = mounts.all;
}

fn words(value: Option<&Value>) -> Option<Vec<String>> {
    let all: Option<Vec<String>> =
        value?.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect();
    all.filter(|all| all.len() <= MOST_WORDS && all.iter().all(|word| fits(word)))
}

fn command(app: &Map<String, Value>, spec: &mut ScalingServiceSpec, notes: &mut Notes) {
    if let Some(line) = app.get("cmd") {
        match line.as_str().filter(|line| fits(line)) {
            Some(line) => {
                // As Mesos does: the shell takes the place of the image's entry point.
                spec.command = ["/bin/sh", "-c", line].map(str::to_owned).into();
                notes.kept("cmd", "kept for Marathon; Docker hosts run the same line by command: [/bin/sh, -c, …]");
            }
            None => notes
                .lost("cmd", "kept for Marathon only (marathon.fields): too long for a document"),
        }
        return;
    }
    match (app.get("args"), words(app.get("args"))) {
        (_, Some(args)) => spec.args = args,
        (Some(_), None) => {
            notes.lost("args", "kept for Marathon only (marathon.fields): too long for a document");
        }
        (None, None) => {}
    }
}

fn env(env: Option<&Value>, spec: &mut ScalingServiceSpec, notes: &mut Notes) {
    for (name, value) in env.and_then(Value::as_object).into_iter().flatten() {
        let field = format!("env.{}", shown(name));
        if let Some(secret) = value.get("secret") {
            let of = secret.as_str().unwrap_or("?");
            let said = format!(
                "the cluster's secret {} is kept for Marathon only (marathon.fields)",
                shown(of)
            );
            let hint =
                "put the value into a file under --secrets, and write env with secret: {name, key}";
            notes.lost_but(&field, said, hint);
            continue;
        }
        match value.as_str().filter(|value| fits(value)) {
            Some(value) if is_env_name(name) && spec.env.len() < MOST_VARIABLES => {
                let value = Some(value.to_owned());
                spec.env.push(EnvVar { name: name.clone(), value, secret: None });
            }
            _ => notes
                .lost(&field, "kept for Marathon only (marathon.fields): no document can say it"),
        }
    }
}

/// One option of `docker run`.
fn parameter_of(
    key: &str,
    value: &str,
    app: &Map<String, Value>,
    spec: &mut ScalingServiceSpec,
    mounts: &mut Mounts,
    notes: &mut Notes,
) {
    match key {
        "env" | "e" => {
            let (name, text) = value.split_once('=').unwrap_or((value, ""));
            let known = spec.env.iter().any(|var| var.name == name);
            let fit = value.contains('=') && is_env_name(name) && fits(text);
            if fit && !known && spec.env.len() < MOST_VARIABLES {
                let text = Some(text.to_owned());
                spec.env.push(EnvVar { name: name.to_owned(), value: text, secret: None });
                let said = "kept for Marathon; what --env says is in env for Docker hosts";
                notes.kept(PARAMETERS, said);
            } else {
                let twice = if known { ", as it is there twice" } else { "" };
                let name = shown(name);
                let said = format!("env {name} is kept for Marathon only (marathon.fields){twice}");
                notes.lost_but(PARAMETERS, said, "write it in env");
            }
        }
        "entrypoint" if !app.contains_key("cmd") && spec.command.is_empty() && fits(value) => {
            spec.command.push(value.to_owned());
            notes
                .kept(PARAMETERS, "kept for Marathon; the entry point is command for Docker hosts");
        }
        "stop-signal" if signal(value).is_some() => {
            spec.termination.signal = signal(value).unwrap_or_default();
        }
        "volume" | "v" => {
            let mut parts = value.split(':');
            let (from, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let mode = parts.next();
            let plain = matches!(mode, None | Some("ro" | "rw")) && parts.next().is_none();
            let read_only = mode == Some("ro");
            if plain && mounts.add(from, path, read_only) {
                notes.kept(
                    PARAMETERS,
                    "kept for Marathon; what --volume says is in volumes for Docker hosts",
                );
            } else {
                let said =
                    format!("volume {} is kept for Marathon only (marathon.fields)", shown(value));
                notes.lost_but(PARAMETERS, said, "write it in volumes");
            }
        }
        // Their values may be anything.
        _ => {
            let said = format!("{} is kept for Marathon only (marathon.fields)", shown(key));
            notes.lost_but(
                PARAMETERS,
                said,
                "there is no word for it in a document: the image may be able to do without",
            );
        }
    }
}

/// One entry of `volumes`.
fn mount(mounts: &mut Mounts, volume: &Value, notes: &mut Notes) {
    let text = |name: &str| volume.get(name).and_then(Value::as_str);
    let path = text("containerPath").unwrap_or_default();
    let read_only = text("mode") == Some("RO");
    if let Some(from) = text("hostPath")
        && from.starts_with('/')
        && mounts.add(from, path, read_only)
    {
        return;
    }
    let kind = ["persistent", "external", "secret"].into_iter().find(|k| volume.get(k).is_some());
    let path = shown(path);
    let (said, hint) = match kind {
        Some("persistent") => (
            format!(
                "the persistent volume {path} is kept for Marathon only (marathon.fields); its data stays on its agent"
            ),
            "write volumes with hostPath or volume, pin the service to its host by host == NAME, and bring the data there",
        ),
        Some("external") => (
            format!("the external volume {path} is kept for Marathon only (marathon.fields)"),
            "mount its storage on every host, and write volumes with hostPath; or make a Docker volume of it, and write volume",
        ),
        Some("secret") => (
            format!("the secret file {path} is kept for Marathon only (marathon.fields)"),
            "write env with secret: {name, key}, or mount a directory of the host",
        ),
        _ => (
            format!("the volume {path} is kept for Marathon only (marathon.fields)"),
            "write volumes with absolute paths: there is no sandbox on Docker hosts",
        ),
    };
    notes.lost_but(VOLUMES, said, hint);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::import::document::blank;
    use crate::model::app::normal::normalise;

    fn take(app: &Value) -> (Value, Vec<String>) {
        let mut spec = blank("image");
        let mut notes = Notes::of("/a");
        process(&normalise(app).0, &mut spec, &mut notes);
        let said = notes.all.iter().filter(|n| n.lost).map(|n| format!("{}: {}", n.field, n.said));
        (serde_json::to_value(&spec).unwrap(), said.collect())
    }

    fn app(container: &Value) -> Value {
        json!({"container": container})
    }

    #[test]
    fn a_line_for_the_shell_and_words_are_what_they_were() {
        let (spec, _) = take(&json!({"cmd": "exec web --port $PORT0"}));
        assert_eq!(spec["command"], json!(["/bin/sh", "-c", "exec web --port $PORT0"]));
        let (spec, _) = take(&json!({"args": ["-v", "x y"]}));
        assert_eq!((&spec["args"], &spec["command"]), (&json!(["-v", "x y"]), &Value::Null));
        let (spec, said) = take(&json!({"args": vec!["x"; 300]}));
        assert!(
            spec["args"].is_null() && said[0].starts_with("args: kept for Marathon only"),
            "{said:?}"
        );
    }

    #[test]
    fn options_of_docker_that_have_a_word_are_said_by_it() {
        let parameters = [
            ("env", "APP=x=y"),
            ("e", "APP=other"),
            ("env", "FROM_AGENT"),
            ("volume", "data:/data:ro"),
            ("volume", "/srv:/srv"),
            ("volume", "/srv:/srv2:z"),
            ("stop-signal", "quit"),
            ("cap-drop", "ALL"),
            ("entrypoint", "/run.sh"),
            ("label", "token=hunter2"),
        ];
        let parameters = parameters.map(|(key, value)| json!({"key": key, "value": value}));
        let (spec, said) = take(&app(&json!({"docker": {"image": "a", "parameters": parameters}})));
        assert_eq!(spec["env"], json!([{"name": "APP", "value": "x=y"}]));
        assert_eq!(spec["command"], json!(["/run.sh"]));
        assert_eq!(spec["termination"]["signal"], "SIGQUIT");
        assert_eq!(
            spec["volumes"],
            json!([{"name": "data", "mountPath": "/data", "volume": "data", "readOnly": true},
                {"name": "srv", "mountPath": "/srv", "hostPath": "/srv", "readOnly": false}])
        );
        let only = "is kept for Marathon only (marathon.fields)";
        assert_eq!(
            said,
            [
                format!("{PARAMETERS}: env APP {only}, as it is there twice"),
                format!("{PARAMETERS}: env FROM_AGENT {only}"),
                format!("{PARAMETERS}: volume /srv:/srv2:z {only}"),
                format!("{PARAMETERS}: cap-drop {only}"),
                format!("{PARAMETERS}: label {only}"),
            ]
        );
    }

    #[test]
    fn volumes_of_mesos_are_told_and_directories_of_the_host_are_taken() {
        let (spec, said) = take(&app(&json!({"docker": {"image": "a"}, "volumes": [
            {"containerPath": "/data/db", "hostPath": "/srv/db", "mode": "RW"},
            {"containerPath": "/data/db/", "hostPath": "/srv/other", "mode": "RO"},
            {"containerPath": "data", "mode": "RW", "persistent": {"size": 10}},
            {"containerPath": "/ext", "mode": "RW", "external": {"name": "v", "provider": "dvdi"}},
            {"containerPath": "/run/key", "secret": "s"},
            {"containerPath": "/x", "hostPath": "sandbox/x", "mode": "RO"},
        ]})));
        assert_eq!(
            spec["volumes"],
            json!([{"name": "db", "mountPath": "/data/db", "hostPath": "/srv/db", "readOnly": false}])
        );
        assert_eq!(said.len(), 5, "{said:?}");
        for (said, says) in
            said.iter().zip(["/data/db/", "persistent", "external", "secret file", "/x"])
        {
            assert!(said.starts_with(VOLUMES) && said.contains(says), "{said}");
        }
    }

    #[test]
    fn no_value_of_the_environment_is_in_a_message() {
        let long = "hunter2".repeat(10_000);
        let (spec, said) = take(
            &json!({"env": {"A": "1", "B": {"secret": "s"}, "1x": "hunter2", "C": long, "D": 7}}),
        );
        assert_eq!(spec["env"], json!([{"name": "A", "value": "1"}, {"name": "D", "value": "7"}]));
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(!said.join("\n").contains("hunter2"), "{said:?}");
    }
}
