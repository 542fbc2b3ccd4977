//! Mounts of a document, each with a name of its own.

use std::collections::BTreeSet;

use evenkeel_crds::VolumeMount;

use super::name::{Names, is_docker_name, is_mount_path, is_path, of_path};

/// The most mounts of a document.
const MOST: usize = 50;

/// Mounts that were taken into a document.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) all: Vec<VolumeMount>,
    names: Names,
    paths: BTreeSet<String>,
}

impl Mounts {
    /// A directory of the host, or a named volume; false where a document cannot say it.
    pub(super) fn add(&mut self, from: &str, path: &str, read_only: bool) -> bool {
        let by_path = from.starts_with('/');
        let source = if by_path { is_path(from) } else { is_docker_name(from) };
        let tidy: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
        let free = self.all.len() < MOST && !self.paths.contains(&tidy.join("/"));
        if !(source && is_mount_path(path) && free) {
            return false;
        }
        self.paths.insert(tidy.join("/"));
        let wanted = if by_path { of_path(path) } else { from };
        let given = Some(from.to_owned());
        let (host_path, volume) = if by_path { (given, None) } else { (None, given) };
        let name = self.names.give(wanted, "volume", 63);
        let mount_path = path.to_owned();
        self.all.push(VolumeMount { name, mount_path, host_path, volume, read_only });
        true
    }
}
