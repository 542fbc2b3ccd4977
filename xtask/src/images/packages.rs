//! What images made of the distribution's packages have in common: where those come from, and where what was made of
//! them is kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::digest;
use crate::command::run;

/// A tar that is made once a machine and kept by what it is made of. `make` gets a directory to work in, which is
/// removed in the end, and the path of the tar.
pub(super) fn kept(
    kind: &str,
    contents: &str,
    make: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let name = format!("{kind}-{}", digest(contents)?);
    let tar = cache.join(format!("{name}.tar"));
    // Several clones may ask at once; the second waits and finds it made.
    let lock = fs::File::create(cache.join(format!("{kind}.lock")))?;
    lock.lock().context("cannot lock the cache")?;
    if !tar.is_file() {
        let work = cache.join(name);
        // What a run before left half made is of no use.
        remove(&work)?;
        let outcome = make(&work, &tar);
        remove(&work)?;
        outcome?;
    }
    Ok(tar)
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Where the packages of this machine come from.
pub(super) fn mirror(suite: &str) -> Result<String> {
    let targets = run("apt-get")
        .args(["indextargets", "--format", "$(CODENAME) $(SITE)", "Created-By: Packages"])
        .read()
        .context("hint: the image is made of Debian's packages, which takes apt-get")?;
    site(&targets, suite).map(str::to_owned).with_context(|| {
        format!("apt knows no mirror\nhint: the image is made of Debian's {suite}")
    })
}

/// The mirror that has the suite, or else that of the machine's own: a mirror has every suite.
fn site<'t>(targets: &'t str, suite: &str) -> Option<&'t str> {
    let mut sites = targets.lines().filter_map(|line| line.split_once(' '));
    let ours = sites.clone().find(|(named, _)| *named == suite);
    ours.or_else(|| sites.find(|(named, _)| !named.contains('-'))).map(|(_, site)| site)
}

/// Beside the clones, not in one: several share what takes minutes to make.
fn cache() -> Result<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("evenkeel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_of_the_suite_is_taken_before_another() {
        let targets = "bookworm-security http://b\ntrixie http://a\nbookworm http://c\n";
        assert_eq!(site(targets, "bookworm"), Some("http://c"));
        assert_eq!(site("sid-updates http://b\ntrixie http://a", "bookworm"), Some("http://a"));
        assert_eq!(site("", "bookworm"), None);
    }

    #[test]
    fn the_mirror_of_the_machine_does() {
        let targets = "bookworm-security http://b/s\nbookworm http://a/debian\n";
        assert_eq!(site(targets, "bullseye"), Some("http://a/debian"));
        assert_eq!(site("bookworm http://a\nbullseye http://b", "bullseye"), Some("http://b"));
        assert_eq!(site("bookworm-updates http://a", "bullseye"), None);
    }
}
