//! The processes of an API server: started with their words in a file, found again by their directory.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long one may take to end after it was asked, before it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// One of them.
pub(super) struct Process {
    pub(super) name: &'static str,
    log: PathBuf,
    // Of a program that is to outlive us, nobody waits for the end.
    child: Option<Child>,
    id: u32,
}

impl Process {
    /// Starts it, with its id in `NAME.pid` and its words in `NAME.log`.
    pub(super) fn spawn(name: &'static str, dir: &Path, stays: bool, mut command: Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        if stays {
            command.process_group(0);
        }
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let id = child.id();
        fs::write(dir.join(format!("{name}.pid")), id.to_string()).unwrap();
        Self { name, log, child: Some(child), id }
    }

    /// What it said last.
    pub(super) fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// Whether it runs.
    pub(super) fn alive(&self) -> bool {
        runs(self.id)
    }

    pub(super) fn signal(&self, signal: &str) {
        send(self.id, signal);
    }

    /// Ends it, and kills it where it does not end by itself.
    pub(super) fn end(&mut self, signal: &str) {
        let Some(mut child) = self.child.take() else { return };
        // Nobody who is stopped ends.
        self.signal("CONT");
        self.signal(signal);
        let deadline = Instant::now() + GRACE;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                self.signal("KILL");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Ends what runs in a directory, and removes it.
pub(super) fn gone(dir: &Path) {
    for name in ["apiserver", "etcd"] {
        let Ok(text) = fs::read_to_string(dir.join(format!("{name}.pid"))) else { continue };
        let Ok(id) = text.trim().parse() else { continue };
        // The number may be another process's by now.
        let deadline = Instant::now() + GRACE;
        while serves(id, dir) {
            send(id, if Instant::now() > deadline { "KILL" } else { "TERM" });
            send(id, "CONT");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    if dir.exists() {
        fs::remove_dir_all(dir).unwrap();
    }
}

/// Ends what tests left that were killed: their directories are named after their process ids.
pub(super) fn sweep(runs_dir: &Path) {
    for entry in fs::read_dir(runs_dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(id) = name.split('-').next().and_then(|id| id.parse().ok()) else { continue };
        if !runs(id) {
            gone(&entry.path());
        }
    }
}

fn runs(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    // One that ended and was not waited for is still listed.
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn serves(id: u32, dir: &Path) -> bool {
    let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains(&format!("{}/", dir.display()))
}

fn send(id: u32, signal: &str) {
    let mut kill = Command::new("kill");
    let _ = kill.args(["-s", signal, &id.to_string()]).stderr(Stdio::null()).status();
}
