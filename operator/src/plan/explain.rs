//! What changed between two specs, field by field, for people; secrets show only that they changed.

use std::collections::BTreeMap;

use crate::model::{EnvValue, EnvVar, FieldChange, InstanceSpec, MountSource, Protocol};

/// The fields in which two specs differ, in the order of their names.
pub fn changes(old: &InstanceSpec, new: &InstanceSpec) -> Vec<FieldChange> {
    let (old, new) = (fields(old), fields(new));
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| FieldChange {
            field: name.clone(),
            old: old.get(name).map(Shown::text),
            new: new.get(name).map(Shown::text),
        })
        .collect()
}

#[derive(PartialEq)]
enum Shown {
    Plain(String),
    Hidden(crate::model::Secret),
}

impl Shown {
    fn text(&self) -> String {
        match self {
            Self::Plain(s) => s.clone(),
            Self::Hidden(_) => "(secret)".into(),
        }
    }
}

/// FNV-1a: tells two contents apart, and tells nothing of them.
fn digest(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

fn fields(spec: &InstanceSpec) -> BTreeMap<String, Shown> {
    // Taken apart without `..`: a new field does not compile until it can be explained.
    let InstanceSpec {
        image,
        command,
        args,
        placed_args,
        env,
        ports,
        resources,
        mounts,
        networks,
        healthcheck,
        files,
        capabilities,
    } = spec;
    let mut out = BTreeMap::new();
    let mut put = |name: String, value: String| {
        out.insert(name, Shown::Plain(value));
    };
    put("image".into(), image.clone());
    if let Some(command) = command {
        put("command".into(), format!("{command:?}"));
    }
    if let Some(args) = args {
        put("args".into(), format!("{args:?}"));
    }
    for arg in placed_args {
        let form = arg.form();
        put(format!("args.{form}"), form);
    }
    for port in ports {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let publish = port.publish.map(|p| format!(" published from {p}")).unwrap_or_default();
        put(format!("ports.{}", port.name), format!("{}/{protocol}{publish}", port.container));
    }
    if resources.cpu_millis > 0 {
        put("resources.cpu".into(), format!("{}m", resources.cpu_millis));
    }
    if resources.memory_bytes > 0 {
        put("resources.memory".into(), format!("{} bytes", resources.memory_bytes));
    }
    for mount in mounts {
        let source = match &mount.source {
            MountSource::Host(p) => p.clone(),
            MountSource::Volume(v) => format!("volume {v}"),
            MountSource::SlotVolume(v) => format!("volume {v}-SLOT"),
        };
        let mode = if mount.read_only { " read-only" } else { "" };
        put(format!("volumes.{}", mount.path), format!("{source}{mode}"));
    }
    if !networks.is_empty() {
        put("networks".into(), networks.join(", "));
    }
    for file in files {
        // They may hold keys: only that they changed is said.
        put(
            format!("files.{}", file.path),
            format!("{} bytes, #{:08x}", file.content.len(), digest(&file.content)),
        );
    }
    if !capabilities.is_empty() {
        put("capabilities".into(), capabilities.join(", "));
    }
    if let Some(check) = healthcheck {
        put("health.command".into(), format!("{check:?}"));
    }
    for EnvVar { name, value } in env {
        let shown = match value {
            EnvValue::Plain(v) => Shown::Plain(v.clone()),
            EnvValue::Secret { name: _, key: _, value } => Shown::Hidden(value.clone()),
        };
        out.insert(format!("env.{name}"), shown);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    #[test]
    fn a_change_names_field_old_and_new_and_hides_secrets() {
        let env = |secret: &str, greeting: Option<&str>| {
            let mut env = vec![EnvVar {
                name: "TOKEN".into(),
                value: EnvValue::Secret {
                    name: "app".into(),
                    key: "token".into(),
                    value: Secret::new(secret),
                },
            }];
            env.extend(
                greeting
                    .map(|g| EnvVar { name: "GREETING".into(), value: EnvValue::Plain(g.into()) }),
            );
            env
        };
        let old = InstanceSpec {
            image: "toy:1".into(),
            env: env("hunter1", None),
            ..InstanceSpec::default()
        };
        let new = InstanceSpec {
            image: "toy:2".into(),
            env: env("hunter2", Some("hi")),
            ..InstanceSpec::default()
        };
        let text: Vec<String> = changes(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            ["env.GREETING unset → hi", "env.TOKEN (secret) → (secret)", "image toy:1 → toy:2"]
        );
        assert!(changes(&new, &new).is_empty());
    }
}
