//! Volumes of a compose service, and what they are called on the engine.

use evenkeel_crds::VolumeMount;
use serde_yaml::Value;

use super::Project;
use super::amount::text;
use crate::import::Notes;
use crate::import::mount::Mounts;
use crate::import::text::shown;

const FIELD: &str = "volumes";

/// What stands between the colons, or in the fields.
struct Entry {
    from: String,
    path: String,
    read_only: bool,
}

/// Takes `volumes`.
pub(super) fn volumes(
    value: Option<&Value>,
    project: &Project<'_>,
    notes: &mut Notes,
) -> Vec<VolumeMount> {
    let mut mounts = Mounts::default();
    for value in value.and_then(Value::as_sequence).into_iter().flatten() {
        let entry = if value.is_mapping() {
            long(value, notes)
        } else {
            text(value).and_then(|text| short(&text, notes))
        };
        let Some(Entry { from, path, read_only }) = entry else { continue };
        let source = if is_path(&from) {
            host_path(&from, project, notes)
        } else {
            named(&from, project, notes)
        };
        let taken = source.is_some_and(|source| mounts.add(&source, &path, read_only));
        if !taken {
            let said = format!("{}:{} is not carried over", shown(&from), shown(&path));
            notes.lost_but(FIELD, said, "a mount has an absolute path in the container of its own, and a path of the host or a volume");
        }
    }
    mounts.all
}

fn is_path(from: &str) -> bool {
    from.starts_with(['/', '.', '~'])
}

/// `[SOURCE:]TARGET[:MODE]`.
fn short(text: &str, notes: &mut Notes) -> Option<Entry> {
    let parts: Vec<&str> = text.splitn(3, ':').collect();
    let (from, path, mode) = match parts[..] {
        [path] => {
            let said = format!("the volume without a name at {} is not carried over", shown(path));
            notes.lost_but(
                FIELD,
                said,
                "give it a name: what nobody names is new in every container",
            );
            return None;
        }
        [from, path] => (from, path, ""),
        [from, path, mode] => (from, path, mode),
        _ => return None,
    };
    let mut read_only = false;
    for word in mode.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" => read_only = true,
            "rw" | "cached" | "delegated" | "consistent" => {}
            other => {
                let said =
                    format!("the mode {} of {} is not carried over", shown(other), shown(path));
                notes.lost_but(FIELD, said, "z and Z: label the directory for SELinux by hand");
            }
        }
    }
    Some(Entry { from: from.to_owned(), path: path.to_owned(), read_only })
}

fn long(value: &Value, notes: &mut Notes) -> Option<Entry> {
    let of = |name: &str| value.get(name).and_then(text);
    let path = of("target").unwrap_or_default();
    let kind = of("type").unwrap_or_else(|| "volume".to_owned());
    let from = of("source").unwrap_or_default();
    if !matches!(kind.as_str(), "volume" | "bind") || from.is_empty() {
        let said = format!("the {} at {} is not carried over", shown(&kind), shown(&path));
        notes.lost_but(FIELD, said, "a mount is a directory of the host or a volume with a name");
        return None;
    }
    for option in ["bind", "volume", "tmpfs", "image", "consistency"] {
        if value.get(option).is_some() {
            let said = format!("{option} of {} is not carried over", shown(&path));
            notes.lost(FIELD, said);
        }
    }
    // Without a point in front a bind is relative all the same.
    let plain = kind == "bind" && !is_path(&from);
    let from = if plain { format!("./{from}") } else { from };
    Some(Entry { from, path, read_only: of("read_only").as_deref() == Some("true") })
}

/// A path of the host, from its root.
fn host_path(from: &str, project: &Project<'_>, notes: &mut Notes) -> Option<String> {
    let whole = if from.starts_with('/') {
        from.to_owned()
    } else if let Some(rest) = from.strip_prefix('~') {
        format!("{}{rest}", (project.lookup)("HOME")?)
    } else {
        format!("{}/{from}", project.dir)
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let path = format!("/{}", parts.join("/"));
    if !from.starts_with('/') {
        let said = format!(
            "{} is {path} on this machine: every host of the fleet needs that path",
            shown(from)
        );
        notes.lost_but(FIELD, said, "put the files where every host has them, or into the image");
    }
    Some(path)
}

/// A volume by the name that the engine has it by, so that its data is found.
fn named(from: &str, project: &Project<'_>, notes: &mut Notes) -> Option<String> {
    let declared = project.volumes.and_then(|all| all.get(from))?;
    for option in ["driver", "driver_opts"] {
        if declared.get(option).is_some_and(|v| v.as_str() != Some("local")) {
            let said = format!("{option} of the volume {} is not carried over", shown(from));
            notes.lost_but(
                FIELD,
                said,
                "make the volume on each host by hand: evenkeel takes one that is there",
            );
        }
    }
    let name = project.real_name(from, declared);
    if name != from {
        notes.kept(
            FIELD,
            format!("the volume {} is {name} on the engine, as compose made it", shown(from)),
        );
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(value: &str) -> (Vec<String>, Vec<String>) {
        let declared = serde_yaml::from_str(
            "{data: {}, shared: {external: true}, named: {name: other}, nfs: {driver_opts: {type: nfs}}, old: {external: {name: was}}}",
        )
        .unwrap();
        let lookup = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        let project = Project { volumes: Some(&declared), ..Project::of_test(&lookup) };
        let mut notes = Notes::of("services.web");
        let value = serde_yaml::from_str(value).unwrap();
        let one = |v: &VolumeMount| {
            let from = v.host_path.as_ref().or(v.volume.as_ref()).unwrap();
            format!("{} {from} {}{}", v.name, v.mount_path, if v.read_only { " ro" } else { "" })
        };
        let all = volumes(Some(&value), &project, &mut notes);
        (all.iter().map(one).collect(), notes.all.into_iter().map(|n| n.said).collect())
    }

    #[test]
    fn paths_and_volumes_are_what_they_are_on_the_engine() {
        let (volumes, _) = taken(
            "['/srv/a:/a', './conf/:/etc/web:ro', '../up:/up', '~/x:/x:cached', 'data:/data', 'shared:/s', 'named:/n', 'old:/o', \
             {type: bind, source: rel, target: /rel, read_only: true}, {type: volume, source: data, target: /again}]",
        );
        assert_eq!(
            volumes,
            [
                "a /srv/a /a",
                "web /srv/shop/conf /etc/web ro",
                "up /srv/up /up",
                "x /home/me/x /x",
                "shop-data shop_data /data",
                "shared shared /s",
                "other other /n",
                "was was /o",
                "rel /srv/shop/rel /rel ro",
                "shop-data-2 shop_data /again",
            ]
        );
    }

    #[test]
    fn what_cannot_be_mounted_is_told() {
        for (value, says) in [
            ("[/cache]", "without a name at /cache"),
            ("['undeclared:/x']", "undeclared:/x is not carried over"),
            ("['/a:relative']", "/a:relative is not"),
            ("['/a:/x:z']", "the mode z"),
            ("['./a:/x']", "every host of the fleet needs that path"),
            ("['nfs:/x']", "driver_opts of the volume nfs"),
            ("[{type: tmpfs, target: /t}]", "the tmpfs at /t"),
            ("[{type: bind, source: /a, target: /t, bind: {propagation: shared}}]", "bind of /t"),
            ("['data:/x', 'data:/x']", "data:/x is not"),
        ] {
            let (_, said) = taken(value);
            assert!(said.iter().any(|s| s.contains(says)), "{value}: {said:?}");
        }
    }
}
