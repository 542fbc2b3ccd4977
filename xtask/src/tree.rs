//! The source tree that we work on, and where its build products are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command::run;

pub(crate) struct Tree {
    root: PathBuf,
}

/// A text file of the tree.
pub(crate) struct Text {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Tree {
    /// Asked of cargo at run time, not baked in: a target directory can be shared by several clones.
    pub(crate) fn find() -> Result<Self> {
        let own = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = own.parent().context("xtask lies at the top of the file system")?.to_owned();
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The target directory that this build used, however it was chosen.
    pub(crate) fn target(&self) -> PathBuf {
        let own = std::env::current_exe().unwrap_or_default();
        let marked = own.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
        marked.map_or_else(|| self.root.join("target"), Path::to_owned)
    }

    /// Every path that git knows or would add, sorted.
    pub(crate) fn paths(&self) -> Result<Vec<String>> {
        let listing = run("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .within(&self.root)
            .read()?;
        let mut paths: Vec<String> = listing
            .split('\0')
            .filter(|path| !path.is_empty() && self.root.join(path).exists())
            .map(str::to_owned)
            .collect();
        paths.sort();
        paths.dedup();
        Ok(paths)
    }

    /// The files among `paths` that are text.
    pub(crate) fn texts(&self, paths: &[String]) -> Result<Vec<Text>> {
        let mut texts = Vec::new();
        for path in paths {
            let full = self.root.join(path);
            if !full.is_file() {
                continue;
            }
            let bytes = std::fs::read(&full).with_context(|| format!("cannot read {path}"))?;
            if let Ok(text) = String::from_utf8(bytes) {
                texts.push(Text { path: path.clone(), text });
            }
        }
        Ok(texts)
    }
}
