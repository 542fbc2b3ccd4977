//! The image of evenkeel itself: the program, the libraries that it is linked to, certificates, and an ssh client for
//! engines that are reached over ssh. No shell, no package manager, nobody but an ordinary user.
//!
//! Nothing is pulled. The libraries are the packages of the distribution that the program was built on.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::{cargo, run};
use crate::packages;
use crate::setup;
use crate::tree::Tree;

/// Of Debian 12 and its like; the program itself asks for the first four.
const PACKAGES: [&str; 24] = [
    "libc6",
    "libgcc-s1",
    "libssl3",
    "zlib1g",
    "ca-certificates",
    "openssh-client",
    "libbsd0",
    "libcbor0.8",
    "libcom-err2",
    "libedit2",
    "libfido2-1",
    "libgssapi-krb5-2",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "libmd0",
    "libpcre2-8-0",
    "libselinux1",
    "libtinfo6",
    "libudev1",
    "libcap2",
    "netbase",
    "tzdata",
];
/// Everything else that the packages bring stays out.
const KEPT: [&str; 5] = ["lib", "lib64", "usr/lib", "usr/bin/ssh", "usr/share/zoneinfo/UTC"];
/// Of those, what no program of the image reads.
const LEFT_OUT: [&str; 6] = [
    "./lib/systemd",
    "./usr/lib/*/gconv",
    "./usr/lib/*/audit",
    "./usr/lib/openssh",
    "./usr/lib/mime",
    "./usr/lib/bfd-plugins",
];
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// Who it runs as where nobody says; ssh wants everybody to have a name.
const USER: &str = "65532:65532";
const FILES: [(&str, &str); 3] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/sbin/nologin\n\
         evenkeel:x:65532:65532:evenkeel:/var/lib/evenkeel:/sbin/nologin\n",
    ),
    ("etc/group", "root:x:0:\nevenkeel:x:65532:\n"),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
];
const DIRECTORIES: [&str; 3] = ["tmp", "etc/evenkeel", "run"];
const STATE: &str = "var/lib/evenkeel";

/// Builds the image and tries it; `dev` takes the debug build, which is there in a fraction of the time.
pub(crate) fn build(tree: &Tree, dev: bool) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    setup::engine(tree)?;
    let program = program(tree, dev)?;
    let base = base()?;
    // Not by the version's name: that is for people to use.
    let version = if dev { "dev" } else { env!("CARGO_PKG_VERSION") };
    let tag = format!("evenkeel/evenkeel:{version}");
    let work = tree.target().join("image");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(work.join("usr/bin"))?;
    let placed = work.join("usr/bin/evenkeel");
    run("strip").args(["--strip-all", "-o"]).args([&placed, &program]).read()?;
    let whole = work.join("image.tar");
    fs::copy(&base, &whole)?;
    run("tar")
        .args(["--append", "--numeric-owner", "--owner=0", "--group=0", "--file"])
        .arg(&whole)
        .arg("--directory")
        .args([work.as_path(), Path::new("usr/bin/evenkeel")])
        .read()?;
    let changes = [
        r#"ENTRYPOINT ["/usr/bin/evenkeel"]"#.to_owned(),
        r#"CMD ["--help"]"#.to_owned(),
        format!("USER {USER}"),
        "WORKDIR /var/lib/evenkeel".to_owned(),
        "ENV PATH=/usr/bin".to_owned(),
        format!("ENV SSL_CERT_FILE=/{CERTIFICATES}"),
        "ENV EVENKEEL_STATE_DIR=/var/lib/evenkeel".to_owned(),
        "EXPOSE 7070".to_owned(),
        format!("LABEL org.opencontainers.image.version={}", env!("CARGO_PKG_VERSION")),
        "LABEL org.opencontainers.image.title=evenkeel".to_owned(),
    ];
    let changes = changes.iter().flat_map(|change| ["--change", change.as_str()]);
    run("docker").arg("import").args(changes).arg(&whole).arg(&tag).read()?;
    fs::remove_dir_all(&work)?;
    try_out(tree, &tag)?;
    let size = run("docker").args(["image", "inspect", "--format", "{{.Size}}", &tag]).read()?;
    let size = size.parse::<u64>().unwrap_or_default() / 1_000_000;
    println!("{tag}: built, {size} MB");
    Ok(())
}

fn program(tree: &Tree, dev: bool) -> Result<PathBuf> {
    // The whole workspace's features for the debug build: with those the tests have built it already.
    let what =
        if dev { ["--workspace", "--profile=dev"] } else { ["--package=evenkeel", "--release"] };
    cargo().args(["build", "--locked", "--bin", "evenkeel"]).args(what).within(tree.root()).go()?;
    Ok(tree.target().join(if dev { "debug" } else { "release" }).join("evenkeel"))
}

/// Everything but the program, as a tar that is made once a machine.
fn base() -> Result<PathBuf> {
    let suite = suite(&fs::read_to_string("/etc/os-release").unwrap_or_default())?;
    let contents = format!("{suite} {PACKAGES:?} {KEPT:?} {LEFT_OUT:?} {FILES:?} {DIRECTORIES:?}");
    packages::kept("evenkeel", ".tar", &contents, |work, made| {
        println!("fetching the libraries that evenkeel is linked to, once a machine");
        let all = work.join("all");
        packages::unpack(work, &suite, &PACKAGES, &all)?;
        let root = work.join("root");
        for kept in KEPT {
            let to = root.join(kept);
            fs::create_dir_all(to.parent().unwrap_or(&root))?;
            run("cp").arg("-a").args([&all.join(kept), &to]).read()?;
        }
        let certificates = certificates(&all.join("usr/share/ca-certificates"))?;
        let more = [(CERTIFICATES, certificates.as_str())];
        for (path, text) in FILES.iter().copied().chain(more) {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap_or(&root))?;
            fs::write(path, text)?;
        }
        for directory in DIRECTORIES.iter().chain([&STATE]) {
            fs::create_dir_all(root.join(directory))?;
        }
        run("chmod").arg("1777").arg(root.join("tmp")).read()?;
        let part = made.with_extension("part");
        let tar = || run("tar").args(["--numeric-owner", "--file"]).arg(&part);
        tar()
            .args(["--create", "--owner=0", "--group=0"])
            .args(LEFT_OUT.map(|path| format!("--exclude={path}")))
            .arg(format!("--exclude=./{STATE}"))
            .arg("--directory")
            .arg(&root)
            .arg(".")
            .read()?;
        // Its own, so that a volume that begins as a copy of it can be written.
        tar()
            .args(["--append", "--owner=65532", "--group=65532", "--mode=0700"])
            .arg("--directory")
            .arg(&root)
            .arg(format!("./{STATE}"))
            .read()?;
        fs::rename(&part, made).context("cannot keep what was packed")
    })
}

/// What the package's own script would make on installation.
fn certificates(directory: &Path) -> Result<String> {
    let mut paths = Vec::new();
    for group in fs::read_dir(directory).context("there are no certificates")? {
        let group = group?.path();
        if group.is_dir() {
            paths.extend(fs::read_dir(group)?.flatten().map(|entry| entry.path()));
        }
    }
    paths.sort();
    let texts: Result<Vec<String>, _> = paths.iter().map(fs::read_to_string).collect();
    let bundle = texts?.concat();
    if !bundle.contains("BEGIN CERTIFICATE") {
        bail!("there are no certificates in {}", directory.display());
    }
    Ok(bundle)
}

/// The suite of this machine: libraries older than those that the program was linked to would not do.
fn suite(release: &str) -> Result<String> {
    let line = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = line.map(|name| name.trim_matches('"').to_owned());
    let name = name.filter(|name| !name.is_empty());
    name.context("/etc/os-release names no suite\nhint: build the image on Debian 12")
}

/// As the manifests run it: an ordinary user, nothing to write to, no capabilities, no network.
fn try_out(tree: &Tree, tag: &str) -> Result<()> {
    let confined = || {
        run("docker")
            .args(["run", "--rm", "--read-only", "--cap-drop=ALL", "--network=none"])
            .args(["--security-opt=no-new-privileges", "--user", USER])
    };
    let version = confined().args([tag, "--version"]).read()?;
    if !version.contains(env!("CARGO_PKG_VERSION")) {
        bail!("the image says that it is {version}");
    }
    let example = tree.root().join("gitops-example");
    // Through a pipe, for the engine need not be on this machine; and not by a mount, for the same reason.
    let container = run("docker")
        .args(["create", "--user", USER, "--network=none", tag, "check", "/tmp/gitops-example"])
        .read()?;
    let checked = run("docker")
        .arg("cp")
        .arg(&example)
        .arg(format!("{container}:/tmp/"))
        .read()
        .and_then(|_| run("docker").args(["start", "--attach", &container]).read());
    run("docker").args(["rm", "--force", &container]).read()?;
    checked.context("the image does not check the example")?;
    let ssh = confined().args(["--entrypoint", "/usr/bin/ssh", tag, "-G", "deploy@host.example"]);
    let ssh = ssh.read().context("the image's ssh does not run")?;
    if !ssh.contains("user deploy") {
        bail!("the image's ssh says {ssh}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_read() {
        assert_eq!(suite("ID=debian\nVERSION_CODENAME=bookworm\n").unwrap(), "bookworm");
        assert!(suite("ID=alpine\n").is_err());
    }

    #[test]
    fn manifests_and_compose_name_the_image() {
        let tree = Tree::find().unwrap();
        let read = |path: &str| fs::read_to_string(tree.root().join(path)).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let compose = format!("${{EVENKEEL_IMAGE:-evenkeel/evenkeel:{version}}}");
        assert!(read("manifests/compose/compose.yaml").contains(&compose));
        assert!(read("manifests/base/kustomization.yaml").contains(&format!("newTag: {version}")));
    }
}
