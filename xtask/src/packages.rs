//! What is made of the distribution's packages: where those come from, how they are fetched without touching the machine's
//! own, and where what was made of them is kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command::run;

/// What is made once a machine and kept by what it is made of: a file or a directory, `suffix` with its dot. `make` gets
/// a directory to work in, which is removed in the end, and the path of what to make.
pub(crate) fn kept(
    kind: &str,
    suffix: &str,
    contents: &str,
    make: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let name = format!("{kind}-{}", digest(contents)?);
    let product = cache.join(format!("{name}{suffix}"));
    // Several clones may ask at once; the second waits and finds it made.
    let lock = fs::File::create(cache.join(format!("{kind}.lock")))?;
    lock.lock().context("cannot lock the cache")?;
    if !product.exists() {
        let work = cache.join(format!("{name}.work"));
        // What a run before left half made is of no use.
        remove(&work)?;
        let outcome = make(&work, &product);
        remove(&work)?;
        outcome?;
    }
    Ok(product)
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Unpacks packages of a suite under `root`, with a configuration of the package manager's that is ours alone and lives in
/// `work`.
pub(crate) fn unpack(work: &Path, suite: &str, packages: &[&str], root: &Path) -> Result<()> {
    let own = work.join(suite);
    for directory in ["lists/partial", "cache/archives/partial", "packages"] {
        fs::create_dir_all(own.join(directory))?;
    }
    fs::create_dir_all(root)?;
    fs::write(own.join("sources"), source(&mirror(suite)?, suite))?;
    let apt = || {
        let settings = [
            ("Dir::State::Lists", own.join("lists")),
            ("Dir::State::status", PathBuf::from("/dev/null")),
            ("Dir::Etc::SourceList", own.join("sources")),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Dir::Etc::PreferencesParts", PathBuf::from("/dev/null")),
            ("Dir::Cache", own.join("cache")),
            // Another user could not write there.
            ("APT::Sandbox::User", PathBuf::from("root")),
            ("Acquire::Languages", PathBuf::from("none")),
            ("Acquire::Retries", PathBuf::from("3")),
        ];
        let settings = settings.map(|(name, value)| format!("{name}={}", value.display()));
        run("apt-get").args(settings.iter().flat_map(|setting| ["-o", setting]))
    };
    // Read, not shown: what they print names the mirror.
    apt().args(["update", "-q"]).read()?;
    apt().arg("download").args(packages).within(&own.join("packages")).read()?;
    for package in fs::read_dir(own.join("packages"))? {
        run("dpkg").arg("-x").arg(package?.path()).arg(root).read()?;
    }
    Ok(())
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A line for the package manager.
fn source(mirror: &str, suite: &str) -> String {
    let keys = if Path::new(KEYRING).is_file() {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    format!("deb {keys}{mirror} {suite} main\n")
}

/// Where the packages of this machine come from.
pub(crate) fn mirror(suite: &str) -> Result<String> {
    let targets = run("apt-get")
        .args(["indextargets", "--format", "$(CODENAME) $(SITE)", "Created-By: Packages"])
        .read()
        .context("hint: it is made of Debian's packages, which takes apt-get")?;
    site(&targets, suite).map(str::to_owned).with_context(|| {
        format!("apt knows no mirror\nhint: packages of Debian's {suite} are needed")
    })
}

/// The mirror that has the suite, or else that of the machine's own: a mirror has every suite.
fn site<'t>(targets: &'t str, suite: &str) -> Option<&'t str> {
    let mut sites = targets.lines().filter_map(|line| line.split_once(' '));
    let ours = sites.clone().find(|(named, _)| *named == suite);
    ours.or_else(|| sites.find(|(named, _)| !named.contains('-'))).map(|(_, site)| site)
}

/// Git is needed anyway and has a content digest; a crate for it would double this crate's build time.
pub(crate) fn digest(text: &str) -> Result<String> {
    run("git").args(["hash-object", "--stdin"]).feed(text.as_bytes())
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
    fn the_source_is_one_line() {
        let line = source("http://mirror.example/debian", "bullseye");
        assert!(line.starts_with("deb ") && line.ends_with(" bullseye main\n"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

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
