//! What this machine must have, and how it gets it.
//!
//! On Debian as root what is missing is installed, after saying so; anywhere else the commands are printed
//! and the task fails. Nothing is ever changed that the task at hand does not need.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command::{cargo, on_path, run};
use crate::tree::Tree;

/// One thing that a task needs.
pub(crate) struct Need {
    what: &'static str,
    why: &'static str,
    met: fn() -> bool,
    /// Debian's packages that bring it.
    packages: &'static [&'static str],
}

/// What compiling the workspace takes beside Rust itself.
pub(crate) const BUILD: &[Need] = &[
    Need {
        what: "a C compiler",
        why: "libgit2 and the TLS library are C",
        met: || on_path("cc"),
        packages: &["gcc", "libc6-dev"],
    },
    Need {
        what: "pkg-config",
        why: "it finds OpenSSL",
        met: || on_path("pkg-config"),
        packages: &["pkg-config"],
    },
    Need {
        what: "OpenSSL's headers",
        why: "git over https and ssh needs OpenSSL",
        met: || run("pkg-config").args(["--exists", "openssl"]).succeeds(),
        packages: &["libssl-dev"],
    },
    Need {
        what: "git",
        why: "files are listed, and test repositories made, with it",
        met: || on_path("git"),
        packages: &["git"],
    },
];

/// What the tests run beside the engine.
pub(crate) const TESTS: &[Need] = &[
    Need {
        what: "an ssh client",
        why: "sources and engines are reached over ssh too",
        met: || on_path("ssh"),
        packages: &["openssh-client"],
    },
    Need {
        what: "openssl",
        why: "the tests make certificates of their own",
        met: || on_path("openssl"),
        packages: &["openssl"],
    },
];

/// What the independent client of Marathon runs on.
pub(crate) const PYTHON: &[Need] = &[Need {
    what: "python3 with venv",
    why: "our Marathon is tested with a client that others wrote",
    met: || run("python3").args(["-c", "import ensurepip, venv"]).succeeds(),
    packages: &["python3", "python3-venv"],
}];

/// What images are made with that cannot be pulled.
pub(crate) const PACKAGES: &[Need] = &[Need {
    what: "debootstrap",
    why: "images are made of the distribution's packages",
    met: || on_path("debootstrap"),
    packages: &["debootstrap"],
}];

/// What several Docker hosts on one machine take.
pub(crate) const HOSTS: &[Need] = &[
    Need {
        what: "ip",
        why: "every host is a network namespace",
        met: || on_path("ip"),
        packages: &["iproute2"],
    },
    Need {
        what: "iptables",
        why: "the hosts must reach each other, and every engine publishes ports with it",
        met: || on_path("iptables"),
        packages: &["iptables"],
    },
    Need {
        what: "nsenter and unshare",
        why: "an engine is started inside its namespace",
        met: || on_path("nsenter") && on_path("unshare"),
        packages: &["util-linux"],
    },
    Need {
        what: "dockerd",
        why: "every host runs one of its own",
        met: || on_path("dockerd"),
        packages: &["docker.io"],
    },
];

/// What can be done on this machine.
#[derive(Clone, Copy)]
struct Machine {
    debian: bool,
    root: bool,
}

impl Machine {
    fn look() -> Self {
        Self { debian: on_path("apt-get"), root: is_root() }
    }
}

/// What to do about missing packages.
#[derive(Debug, PartialEq, Eq)]
enum Remedy {
    Install,
    Tell(String),
}

fn remedy(packages: &[&str], machine: Machine) -> Remedy {
    let packages = packages.join(" ");
    match machine {
        Machine { debian: true, root: true } => Remedy::Install,
        Machine { debian: true, root: false } => Remedy::Tell(format!(
            "sudo apt-get update && sudo apt-get install -y --no-install-recommends {packages}"
        )),
        Machine { debian: false, .. } => {
            Remedy::Tell(format!("install what Debian calls: {packages}"))
        }
    }
}

/// Makes sure of `needs`.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.met)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("missing: {} ({})", need.what, need.why);
    }
    install(&missing.iter().flat_map(|need| need.packages).copied().collect::<Vec<_>>())?;
    match missing.iter().find(|need| !(need.met)()) {
        Some(need) => bail!("{} is still missing after the installation", need.what),
        None => Ok(()),
    }
}

fn install(packages: &[&str]) -> Result<()> {
    match remedy(packages, Machine::look()) {
        Remedy::Install => {
            println!("installing {} from the distribution's packages", packages.join(" "));
            run("apt-get").args(["update", "-q"]).go()?;
            run("apt-get")
                .args(["install", "-q", "-y", "--no-install-recommends"])
                .args(packages)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .go()
        }
        Remedy::Tell(what) => bail!("this machine lacks something\nhint: {what}"),
    }
}

/// What became of asking the engine for its version.
#[derive(Debug, PartialEq, Eq)]
enum Engine {
    Ready,
    /// No `docker` command.
    NoClient,
    /// The environment names an engine, which is not ours to start.
    Elsewhere(String),
    Forbidden,
    Stopped,
    Absent,
}

/// `said` is what the client printed on failing, `None` if it succeeded.
fn diagnose(client: bool, daemon: bool, host: Option<String>, said: Option<&str>) -> Engine {
    match (said, host) {
        _ if !client => Engine::NoClient,
        (None, _) => Engine::Ready,
        (Some(_), Some(host)) => Engine::Elsewhere(host),
        (Some(said), None) if said.contains("permission denied") => Engine::Forbidden,
        (Some(_), None) if daemon => Engine::Stopped,
        (Some(_), None) => Engine::Absent,
    }
}

fn look_for_engine() -> Engine {
    let asked = run("docker").args(["version", "--format", "{{.Server.Version}}"]).read();
    let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let said = asked.err().map(|error| format!("{error:#}"));
    diagnose(on_path("docker"), on_path("dockerd"), host, said.as_deref())
}

/// Makes sure that a Docker Engine answers.
pub(crate) fn engine(tree: &Tree) -> Result<()> {
    // Installed, then started, then there.
    for _ in 0..3 {
        match look_for_engine() {
            Engine::Ready => return Ok(()),
            Engine::NoClient if on_path("dockerd") => {
                println!("missing: the docker command (the engine is spoken to with it)");
                // Newer releases of Debian have it apart from the engine.
                install(&["docker-cli"])?;
            }
            Engine::NoClient | Engine::Absent => {
                println!("missing: Docker Engine (tests, images and examples run in containers)");
                install(&["docker.io", "iptables", "ca-certificates"])?;
            }
            Engine::Elsewhere(host) => bail!(
                "no Docker Engine answers at {host}\nhint: DOCKER_HOST says to use it; start it, or unset DOCKER_HOST"
            ),
            Engine::Forbidden => bail!(
                "this user may not use Docker Engine\nhint: sudo usermod -aG docker $USER, then log in again"
            ),
            Engine::Stopped => start_engine(tree)?,
        }
    }
    match look_for_engine() {
        Engine::Ready => Ok(()),
        Engine::NoClient
        | Engine::Absent
        | Engine::Elsewhere(_)
        | Engine::Forbidden
        | Engine::Stopped => bail!("Docker Engine was installed and still does not answer"),
    }
}

fn start_engine(tree: &Tree) -> Result<()> {
    let systemd = fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim() == "systemd");
    if !is_root() {
        let how = if systemd { "sudo systemctl start docker" } else { "sudo dockerd &" };
        bail!("Docker Engine is installed and does not run\nhint: {how}");
    }
    println!("Docker Engine is installed and does not run: starting it");
    if systemd {
        run("systemctl").args(["start", "docker"]).go()?;
    }
    let log = tree.target().join("dockerd.log");
    if !systemd {
        let pid = start_daemon(run("dockerd"), &log)?;
        let alive = || Path::new("/proc").join(pid.to_string()).join("exe").exists();
        return wait_for("Docker Engine", &log, alive, || look_for_engine() == Engine::Ready);
    }
    wait_for("Docker Engine", &log, || true, || look_for_engine() == Engine::Ready)
}

/// Starts what is to outlive us, in a process group of its own, with its words in `log`; returns its id.
pub(crate) fn start_daemon(daemon: crate::command::Run, log: &Path) -> Result<u32> {
    use std::os::unix::process::CommandExt as _;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    println!("its log is {}", log.display());
    let child = daemon
        .into_command()
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0)
        .spawn()
        .context("cannot start the daemon")?;
    Ok(child.id())
}

/// Waits until it is `ready`, up to 30 s and while it is `alive`; on giving up shows the end of `log`.
pub(crate) fn wait_for(
    what: &str,
    log: &Path,
    alive: impl Fn() -> bool,
    ready: impl Fn() -> bool,
) -> Result<()> {
    let mut why = "did not come up within 30 s";
    for _ in 0..150 {
        if ready() {
            return Ok(());
        }
        if !alive() {
            why = "ended instead of coming up";
            break;
        }
        sleep(Duration::from_millis(200));
    }
    let said = fs::read_to_string(log).unwrap_or_default();
    bail!("{what} {why}; the end of {}:\n{}", log.display(), last_lines(&said, 5))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Whether nextest can be used; installs it when it is missing, which takes minutes and is said.
pub(crate) fn nextest() -> bool {
    let there = || cargo().args(["nextest", "--version"]).succeeds();
    if there() {
        return true;
    }
    println!(
        "missing: cargo-nextest (it runs the tests in parallel, each in a process of its own)"
    );
    println!("installing it with cargo; this takes some minutes, once");
    match cargo().args(["install", "--locked", "cargo-nextest"]).go() {
        Ok(()) => there(),
        Err(error) => {
            println!("warning: {error:#}");
            false
        }
    }
}

pub(crate) fn is_root() -> bool {
    // Without a crate for it: the effective user id is the second number.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_uid(&status) == Some(0)
}

fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_on_debian_installs() {
        let packages = ["git", "libssl-dev"];
        let on = |debian, root| remedy(&packages, Machine { debian, root });
        assert_eq!(on(true, true), Remedy::Install);
        let Remedy::Tell(how) = on(true, false) else { panic!("installed as a plain user") };
        assert!(how.starts_with("sudo apt-get update"), "{how}");
        assert!(how.ends_with(" git libssl-dev"), "{how}");
        for root in [true, false] {
            let Remedy::Tell(how) = on(false, root) else { panic!("installed without apt") };
            assert!(how.ends_with("git libssl-dev") && !how.contains("apt-get"), "{how}");
        }
    }

    #[test]
    fn an_engine_that_does_not_answer_has_one_reason() {
        let refused = Some("Cannot connect to the Docker daemon");
        let forbidden = Some("permission denied while trying to connect");
        let host = || Some("tcp://h:2375".to_owned());
        assert_eq!(diagnose(true, true, None, None), Engine::Ready);
        assert_eq!(diagnose(true, false, host(), None), Engine::Ready);
        assert_eq!(diagnose(false, true, None, refused), Engine::NoClient);
        assert_eq!(diagnose(true, true, None, refused), Engine::Stopped);
        assert_eq!(diagnose(true, false, None, refused), Engine::Absent);
        assert_eq!(diagnose(true, true, None, forbidden), Engine::Forbidden);
        // Starting the local engine would not bring up the one that is meant.
        let elsewhere = Engine::Elsewhere("tcp://h:2375".to_owned());
        assert_eq!(diagnose(true, true, host(), refused), elsewhere);
        assert_eq!(diagnose(true, true, host(), forbidden), elsewhere);
    }

    #[test]
    fn the_effective_user_counts() {
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t0\t0\nGid:\t1\n"), Some(0));
        assert_eq!(effective_uid("Uid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective_uid(""), None);
    }

    #[test]
    fn needs_that_are_met_change_nothing() {
        let met =
            Need { what: "air", why: "to breathe", met: || true, packages: &["no-such-package"] };
        ensure(&[met]).unwrap();
    }

    #[test]
    fn waiting_ends_when_it_is_ready_or_dead() {
        let log = tempfile::NamedTempFile::new().unwrap();
        fs::write(log.path(), "1\n2\n3\n4\n5\n6\n").unwrap();
        wait_for("it", log.path(), || false, || true).unwrap();
        let error = wait_for("it", log.path(), || false, || false).unwrap_err().to_string();
        assert!(error.starts_with("it ended instead of coming up; "), "{error}");
        assert!(error.ends_with(":\n2\n3\n4\n5\n6"), "{error}");
    }
}
