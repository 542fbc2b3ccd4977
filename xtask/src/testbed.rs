//! Several Docker hosts on one machine, each an engine in a network namespace of its own.
//!
//! ```text
//! ek-br0 10.77.0.1/24 ──┬── ek-h1: eth0 10.77.0.11, dockerd on tcp://10.77.0.11:2375
//!                       └── ek-h2: eth0 10.77.0.12, …
//! ```
//! The names are this machine's, not this clone's: whichever clone comes second finds what the first made.
//! To lose a host, kill its dockerd by the id in its `pid` file; to cut it off, `ip link set ek-h1 down`.
//! `up` mends both. Containers outlive a dockerd that is killed, and the next one takes them over.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::cli::MAX_HOSTS;
use crate::command::{Run, run};
use crate::images;
use crate::setup;
use crate::tree::Tree;

const BRIDGE: &str = "ek-br0";
const GATEWAY: &str = "10.77.0.1";
/// Docker wants a file system that it can stack layers on, which a target directory need not be.
const ROOT: &str = "/var/lib/evenkeel-testbed";
/// A registry of a test stands on this network, without a certificate. Containers outlive their engine, as on a host
/// that is kept well.
const DAEMON: &str = r#"{"insecure-registries": ["10.77.0.0/24"], "live-restore": true}"#;
/// A directory that every host has in the same place, as one that is mounted over the network would be.
const SHARED: &str = "shared";
/// Containers of one host meet on the bridge; the main engine's rules would drop that.
const LET_PASS: [&str; 7] = ["DOCKER-USER", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"];

struct Host {
    number: u8,
}

/// Makes sure of hosts 1 to `count`, with the images that tests run in each.
pub(crate) fn up(tree: &Tree, count: u8) -> Result<()> {
    ready_to_change()?;
    setup::ensure(setup::HOSTS)?;
    images::build(tree, false)?;
    let _lock = lock()?;
    bridge()?;
    fs::create_dir_all(Path::new(ROOT).join(SHARED))?;
    for host in (1..=count).map(Host::new) {
        host.up()?;
    }
    for host in (1..=count).map(Host::new) {
        host.wait()?;
        host.load()?;
        println!("{}: docker -H {} ps", host.name(), host.endpoint());
    }
    Ok(())
}

/// Takes down all hosts, or only number `only`; the bridge goes with the last.
pub(crate) fn down(only: Option<u8>) -> Result<()> {
    ready_to_change()?;
    let _lock = lock()?;
    let wanted = (1..=MAX_HOSTS).filter(|number| only.is_none_or(|only| only == *number));
    for host in wanted.map(Host::new).filter(Host::exists) {
        host.down()?;
        println!("{}: gone", host.name());
    }
    if !(1..=MAX_HOSTS).map(Host::new).any(|host| host.exists()) {
        if ip(&["link", "show", BRIDGE]).succeeds() {
            ip(&["link", "del", BRIDGE]).read()?;
        }
        while iptables("-C").succeeds() {
            iptables("-D").read()?;
        }
    }
    Ok(())
}

fn ready_to_change() -> Result<()> {
    if !setup::is_root() {
        bail!("network namespaces need root\nhint: run it with sudo -E");
    }
    Ok(())
}

/// One at a time on a machine; released by the kernel if we die.
fn lock() -> Result<File> {
    fs::create_dir_all(ROOT).with_context(|| format!("cannot make {ROOT}"))?;
    let lock = File::create(Path::new(ROOT).join("lock"))?;
    lock.lock().context("cannot lock the testbed")?;
    Ok(lock)
}

fn ip(args: &[&str]) -> Run {
    run("ip").args(args)
}

fn iptables(change: &str) -> Run {
    run("iptables").args(["-w", change]).args(LET_PASS)
}

fn bridge() -> Result<()> {
    if !ip(&["link", "show", BRIDGE]).succeeds() {
        ip(&["link", "add", BRIDGE, "type", "bridge"]).read()?;
    }
    ip(&["address", "replace", &format!("{GATEWAY}/24"), "dev", BRIDGE]).read()?;
    ip(&["link", "set", BRIDGE, "up"]).read()?;
    // Without that chain there is no engine in front that filters bridges.
    let filtered = run("iptables").args(["-w", "-n", "-L", LET_PASS[0]]).succeeds();
    if filtered && !iptables("-C").succeeds() {
        iptables("-I").read()?;
    }
    Ok(())
}

impl Host {
    fn new(number: u8) -> Self {
        Self { number }
    }

    fn name(&self) -> String {
        format!("ek-h{}", self.number)
    }

    fn address(&self) -> String {
        format!("10.77.0.{}", 10 + u16::from(self.number))
    }

    fn endpoint(&self) -> String {
        format!("tcp://{}:2375", self.address())
    }

    fn directory(&self) -> PathBuf {
        Path::new(ROOT).join(self.name())
    }

    fn namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(self.name())
    }

    fn log(&self) -> PathBuf {
        self.directory().join("dockerd.log")
    }

    fn exists(&self) -> bool {
        self.namespace().exists() || self.directory().exists()
    }

    fn docker(&self) -> Run {
        run("docker").args(["-H", &self.endpoint()])
    }

    fn answers(&self) -> bool {
        self.docker().args(["version", "--format", "{{.Server.Version}}"]).succeeds()
    }

    fn up(&self) -> Result<()> {
        let name = self.name();
        if !self.namespace().exists() {
            ip(&["netns", "add", &name]).read()?;
        }
        let inside = |args: &[&str]| ip(&["-n", &name]).args(args);
        if !inside(&["link", "show", "eth0"]).succeeds() {
            // The outer end is named after the host; the inner goes straight into its namespace.
            ip(&["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &name])
                .read()?;
        }
        ip(&["link", "set", &name, "master", BRIDGE, "up"]).read()?;
        inside(&["address", "replace", &format!("{}/24", self.address()), "dev", "eth0"]).read()?;
        inside(&["link", "set", "eth0", "up"]).read()?;
        inside(&["link", "set", "lo", "up"]).read()?;
        inside(&["route", "replace", "default", "via", GATEWAY]).read()?;
        if self.answers() {
            return self.configured();
        }
        // One that hangs would keep its place; what runs in its containers goes on.
        if let Some(pid) = self.daemon() {
            run("kill").args(["-KILL", &pid.to_string()]).succeeds();
        }
        self.start()
    }

    fn configuration(&self) -> PathBuf {
        self.directory().join("daemon.json")
    }

    /// One that an older clone has started reads its configuration again; both options can be changed so.
    fn configured(&self) -> Result<()> {
        if fs::read_to_string(self.configuration()).is_ok_and(|text| text == DAEMON) {
            return Ok(());
        }
        fs::write(self.configuration(), DAEMON)?;
        match self.daemon() {
            Some(pid) => run("kill").args(["-HUP", &pid.to_string()]).read().map(drop),
            None => bail!("{} answers and is not ours\nhint: take it down", self.endpoint()),
        }
    }

    fn start(&self) -> Result<()> {
        let directory = self.directory();
        fs::create_dir_all(&directory)?;
        // One that was killed leaves it behind, and dockerd refuses to start over it.
        let _ = fs::remove_file(directory.join("docker.pid"));
        self.end_containerd();
        // Of its own, or it would take the main engine's, whose options clash with these.
        fs::write(self.configuration(), DAEMON)?;
        let option =
            |name: &str, file: &str| format!("--{name}={}", directory.join(file).display());
        // `ip netns exec` would mount a /sys without cgroups over the one that the engine needs.
        let daemon = run("nsenter")
            .arg(format!("--net={}", self.namespace().display()))
            .args(["unshare", "--mount", "dockerd"])
            .arg(option("config-file", "daemon.json"))
            .arg(option("data-root", "data"))
            .arg(option("exec-root", "exec"))
            .arg(option("pidfile", "docker.pid"))
            .arg(format!("--containerd-namespace={}", self.name()))
            .arg(format!("--containerd-plugins-namespace={}-plugins", self.name()))
            .arg(format!("--host=unix://{}", directory.join("docker.sock").display()))
            .arg(format!("--host={}", self.endpoint()))
            .arg("--tls=false")
            .args(storage(&images::driver()?));
        let pid = setup::start_daemon(daemon, &self.log())?;
        // nsenter and unshare become dockerd, so the id is the daemon's own.
        fs::write(directory.join("pid"), pid.to_string())?;
        Ok(())
    }

    /// A containerd follows its dockerd into death, but not at once: the next dockerd would take it for its own, and wait
    /// for it in vain. The shims, which hold the containers, live on.
    fn end_containerd(&self) {
        let file = "exec/containerd/containerd.pid";
        for _ in 0..100 {
            let Some(pid) = self.process(file) else { break };
            run("kill").args(["-KILL", &pid.to_string()]).succeeds();
            sleep(Duration::from_millis(50));
        }
        let _ = fs::remove_file(self.directory().join(file));
    }

    fn wait(&self) -> Result<()> {
        let alive = || self.daemon().is_some();
        setup::wait_for(&self.name(), &self.log(), alive, || self.answers())
    }

    fn load(&self) -> Result<()> {
        let stale: Vec<&str> = images::tags()
            .filter(|tag| images::label(None, tag) != images::label(Some(&self.endpoint()), tag))
            .collect();
        if stale.is_empty() {
            return Ok(());
        }
        run("docker").arg("save").args(stale).pipe(self.docker().args(["load", "--quiet"]))
    }

    fn down(&self) -> Result<()> {
        let directory = self.directory();
        if self.answers() {
            let containers = self.docker().args(["ps", "--all", "--quiet"]).read()?;
            if !containers.is_empty() {
                self.docker()
                    .args(["rm", "--force", "--volumes"])
                    .args(containers.lines())
                    .read()?;
            }
        }
        if let Some(pid) = self.daemon() {
            run("kill").args(["-TERM", &pid.to_string()]).read()?;
            for _ in 0..100 {
                if self.daemon().is_none() {
                    break;
                }
                sleep(Duration::from_millis(100));
            }
        }
        self.kill_leftovers();
        if self.namespace().exists() {
            // Takes the veth pair with it.
            ip(&["netns", "del", &self.name()]).read()?;
        }
        if ip(&["link", "show", &self.name()]).succeeds() {
            ip(&["link", "del", &self.name()]).read()?;
        }
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("cannot remove {}", directory.display()))?;
        }
        Ok(())
    }

    /// The daemon's process id.
    fn daemon(&self) -> Option<u32> {
        self.process("pid")
    }

    /// The process id in a file, if it is still that process and not another that got its number.
    fn process(&self, file: &str) -> Option<u32> {
        let pid = fs::read_to_string(self.directory().join(file)).ok()?.trim().parse().ok()?;
        let line = command_line(pid)?;
        serves(&line, &self.marker()).then_some(pid)
    }

    /// In the command line of every process that serves this host and no other.
    fn marker(&self) -> String {
        format!("{}/", self.directory().display())
    }

    /// What a killed daemon leaves running: its containerd, the shims and, through those, the containers.
    fn kill_leftovers(&self) {
        let marker = self.marker();
        let containers: Vec<String> = list(&self.directory().join("data/containers"));
        for pid in list(Path::new("/proc")).iter().filter_map(|name| name.parse::<u32>().ok()) {
            let ours = command_line(pid).is_some_and(|line| serves(&line, &marker))
                || cgroups(pid)
                    .is_some_and(|groups| containers.iter().any(|id| groups.contains(id)));
            if ours && pid != std::process::id() {
                run("kill").args(["-KILL", &pid.to_string()]).succeeds();
            }
        }
    }
}

/// The main engine's choice, where it is one that can be asked for: not every kernel has the default.
fn storage(driver: &str) -> Option<String> {
    let known = ["overlay2", "fuse-overlayfs", "btrfs", "zfs", "vfs"].contains(&driver);
    known.then(|| format!("--storage-driver={driver}"))
}

/// Whether a process is part of the engine that `marker` belongs to, not an editor that has its log open.
fn serves(command_line: &str, marker: &str) -> bool {
    let program = command_line.split(' ').next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    let engine = ["dockerd", "containerd", "nsenter", "unshare"].contains(&program)
        || program.starts_with("containerd-shim");
    engine && command_line.contains(marker)
}

fn list(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn command_line(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&line).replace('\0', " "))
}

fn cgroups(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_do_not_meet() {
        let hosts: Vec<Host> = (1..=MAX_HOSTS).map(Host::new).collect();
        for (at, a) in hosts.iter().enumerate() {
            for b in &hosts[at + 1..] {
                assert_ne!(a.address(), b.address());
                // `ek-h1` begins `ek-h10`: killing what serves the one must not hit the other.
                assert!(!b.marker().contains(&a.marker()) && !a.marker().contains(&b.marker()));
            }
            assert_ne!(a.address(), GATEWAY);
            // The kernel's limit for the name of a network interface.
            assert!(a.name().len() <= 15);
        }
        assert_eq!(Host::new(1).endpoint(), "tcp://10.77.0.11:2375");
    }

    #[test]
    fn only_engines_of_the_host_serve_it() {
        let marker = Host::new(1).marker();
        let line =
            |program: &str, host: u8| format!("{program} --x={}exec", Host::new(host).marker());
        assert!(serves(&line("dockerd", 1), &marker));
        assert!(serves(&line("/usr/bin/containerd", 1), &marker));
        assert!(serves(&line("/usr/bin/containerd-shim-runc-v2", 1), &marker));
        assert!(!serves(&line("dockerd", 2), &marker));
        assert!(!serves(&line("dockerd", 10), &marker));
        assert!(!serves(&line("tail", 1), &marker));
        assert!(!serves(&line("bash", 1), &marker));
        assert!(!serves("dockerd", &marker));
    }

    #[test]
    fn a_snapshotter_is_no_storage_driver() {
        assert_eq!(storage("fuse-overlayfs").as_deref(), Some("--storage-driver=fuse-overlayfs"));
        assert_eq!(storage("overlayfs"), None);
    }

    #[test]
    fn a_process_has_a_command_line_and_one_that_is_not_has_none() {
        assert!(command_line(std::process::id()).unwrap().contains("xtask"));
        assert_eq!(command_line(u32::MAX), None);
    }
}
