//! A Kubernetes API server for the tests, built here: nothing is pulled.
//!
//! `tests/apiserver` on the distribution's own libraries of Kubernetes, with etcd and kubectl from its packages. Built once
//! a machine, kept by what it was made of, and linked to where the tests look for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::run;
use crate::packages::{self, digest};
use crate::tree::Tree;

/// Only there is the API server's library as new as the clusters that people run. It moves: see [`prebuilt`].
const SUITE: &str = "sid";
/// What runs beside it comes from a suite that stands still.
const TOOLS_SUITE: &str = "trixie";
const TOOLS: [&str; 2] = ["etcd-server", "kubectl"];
/// The compiler among the packages.
const GO: &str = "usr/lib/go-1.27";
const SOURCES: &str = "tests/apiserver";
/// The same as other projects' tests have them: a released API server, which also enforces what ours does not.
const ASSETS: [&str; 3] = ["kube-apiserver", "etcd", "kubectl"];
/// What the tests start.
const PROGRAMS: [&str; 3] = ["apiserver", "etcd", "kubectl"];

/// Makes sure of the programs and of the link `kubernetes` in the target directory, which is returned.
pub(crate) fn ensure(tree: &Tree) -> Result<PathBuf> {
    let given = std::env::var_os("KUBEBUILDER_ASSETS").filter(|path| !path.is_empty());
    let programs = match given {
        Some(assets) => assets_in(Path::new(&assets))?,
        None => made(tree)?,
    };
    let link = tree.target().join("kubernetes");
    if fs::read_link(&link).ok().as_ref() != Some(&programs) {
        let _ = fs::remove_file(&link);
        symlink(&programs, &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    Ok(link)
}

/// The directory, as a link from elsewhere can name it, if everything is in it.
fn assets_in(given: &Path) -> Result<PathBuf> {
    let hint = "hint: setup-envtest use -p path 1.33 prints such a directory; without the variable one is built here";
    let directory = given
        .canonicalize()
        .with_context(|| format!("KUBEBUILDER_ASSETS: cannot read {}\n{hint}", given.display()))?;
    let missing: Vec<&str> =
        ASSETS.into_iter().filter(|name| !directory.join(name).is_file()).collect();
    if !missing.is_empty() {
        bail!("KUBEBUILDER_ASSETS: {} has no {}\n{hint}", given.display(), missing.join(", "));
    }
    Ok(directory)
}

fn made(tree: &Tree) -> Result<PathBuf> {
    let sources = sources(tree)?;
    let contents = sources.iter().map(|(name, text)| format!("{name} {}\n{text}", text.len()));
    let contents = format!("{SUITE} {TOOLS_SUITE} {TOOLS:?} {}", contents.collect::<String>());
    let made = packages::kept("kubernetes", "", &contents, |work, made| {
        build(&tree.root().join(SOURCES), work, made)
    });
    match made {
        Ok(programs) => Ok(programs),
        Err(error) => {
            println!("WARNING: cannot build the API server from {SUITE}: {error:#}");
            prebuilt(tree, &contents)
        }
    }
}

/// Everything in the directory: the program, and the list of packages that it is made of.
fn sources(tree: &Tree) -> Result<Vec<(String, String)>> {
    let paths = tree.paths()?.into_iter().filter(|path| path.starts_with(SOURCES));
    paths
        .map(|path| {
            let text = fs::read_to_string(tree.root().join(&path));
            Ok((path.clone(), text.with_context(|| format!("cannot read {path}"))?))
        })
        .collect()
}

fn build(sources: &Path, work: &Path, made: &Path) -> Result<()> {
    println!(
        "building a Kubernetes API server from {SUITE}; this takes some minutes, once a machine"
    );
    let tools = work.join("tools");
    packages::unpack(work, TOOLS_SUITE, &TOOLS, &tools)?;
    let root = work.join("root");
    let list = fs::read_to_string(sources.join("packages.txt"))?;
    let list: Vec<&str> = list.lines().collect();
    packages::unpack(work, SUITE, &list, &root)?;

    // A path of its own, for Go that knows no modules.
    let place = work.join("path/src/apiserver");
    fs::create_dir_all(place.parent().unwrap_or(work))?;
    run("cp").arg("-r").args([sources, &place]).read()?;
    let path = |of: &Path| of.to_string_lossy().into_owned();
    let found = [path(&work.join("path")), path(&root.join("usr/share/gocode"))].join(":");
    let part = work.join("made");
    fs::create_dir_all(&part)?;
    let version = version(&work.join(SUITE).join("packages"))?;
    let mark = format!("-s -w -X k8s.io/component-base/version.gitVersion={version}");
    run(&path(&root.join(GO).join("bin/go")))
        .args(["build", "-trimpath", "-p", "2", "-ldflags", &mark, "-o"])
        .arg(part.join("apiserver"))
        .arg("apiserver")
        .env("GOROOT", &path(&root.join(GO)))
        .env("GOPATH", &found)
        // Outlives the work: after a change of ours only that is compiled again.
        .env("GOCACHE", &path(&made.with_file_name("go-build")))
        .env("GO111MODULE", "off")
        .env("GOFLAGS", "")
        .env("GOTOOLCHAIN", "local")
        .env("GOPROXY", "off")
        .env("CGO_ENABLED", "0")
        .within(work)
        .read()?;
    for tool in &PROGRAMS[1..] {
        let tool = Path::new("usr/bin").join(tool);
        run("cp").arg(tools.join(&tool)).arg(&part).read()?;
    }
    fs::rename(&part, made).context("cannot keep what was built")
}

/// The version of Kubernetes that the libraries are of, from the name of the package.
fn version(packages: &Path) -> Result<String> {
    let names = fs::read_dir(packages)?.flatten();
    let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.find_map(|name| release(&name)).context("no package of the API server was fetched")
}

fn release(name: &str) -> Option<String> {
    let version = name.strip_prefix("golang-k8s-apiextensions-apiserver-dev_0.")?;
    Some(format!("v1.{}", version.split(['-', '_']).next()?))
}

/// For a day on which the suite is in transition: programs that were built before and lie beside the clone. They serve
/// less, and that is said.
fn prebuilt(tree: &Tree, contents: &str) -> Result<PathBuf> {
    let from = tree.root().join("../shared/tools/kube-apiserver/bin");
    if !from.join("crdserver.xz").is_file() {
        bail!(
            "there is no API server for the tests, and none that was built before is beside the clone\n\
             hint: KUBEBUILDER_ASSETS may name a directory with kube-apiserver, etcd and kubectl"
        );
    }
    println!("WARNING: the tests run against one that was BUILT BEFORE, without the newer kinds");
    packages::kept("kubernetes-before", "", &digest(contents)?, |work, made| {
        let part = work.join("made");
        fs::create_dir_all(&part)?;
        for (packed, name) in [("crdserver.xz", "apiserver"), ("etcd.xz", "etcd")] {
            let line = r#"xz --decompress --stdout "$1" > "$2" && chmod +x "$2""#;
            let to = part.join(name);
            run("sh").args(["-c", line, "sh"]).arg(from.join(packed)).arg(to).read()?;
        }
        let kubectl = run("sh").args(["-c", "command -v kubectl"]).read();
        symlink(kubectl.context("kubectl is missing too")?, part.join("kubectl"))?;
        fs::rename(&part, made).context("cannot keep what was unpacked")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_kubernetes() {
        let name = "golang-k8s-apiextensions-apiserver-dev_0.36.4-1_all.deb";
        assert_eq!(release(name).as_deref(), Some("v1.36.4"));
        assert_eq!(release("golang-k8s-api-dev_0.36.4-1_all.deb"), None);
    }

    #[test]
    fn assets_are_taken_whole_or_not_at_all() {
        let dir = std::env::temp_dir().join(format!("evenkeel-assets-{}", std::process::id()));
        let said = |given: &Path| format!("{:#}", assets_in(given).unwrap_err());
        assert!(said(&dir).contains("cannot read"), "{}", said(&dir));
        fs::create_dir_all(dir.join("bin")).unwrap();
        fs::write(dir.join("bin/etcd"), "").unwrap();
        let missing = said(&dir.join("bin"));
        assert!(missing.contains("has no kube-apiserver, kubectl"), "{missing}");
        for name in ASSETS {
            fs::write(dir.join("bin").join(name), "").unwrap();
        }
        // A link in another directory must lead there too.
        let taken = assets_in(&dir.join("bin/../bin")).unwrap();
        assert_eq!(taken, dir.canonicalize().unwrap().join("bin"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_sources_name_the_packages_that_they_need() {
        let sources = sources(&Tree::find().unwrap()).unwrap();
        let text = |name: &str| {
            let path = format!("{SOURCES}/{name}");
            &sources.iter().find(|(found, _)| *found == path).unwrap().1
        };
        assert!(text("main.go").contains("package main"));
        let packages: Vec<&str> = text("packages.txt").lines().collect();
        assert!(packages.contains(&"golang-k8s-apiextensions-apiserver-dev"));
        let compiler = format!("golang-{}-go", GO.trim_start_matches("usr/lib/go-"));
        assert!(packages.contains(&compiler.as_str()), "{compiler}");
    }
}
