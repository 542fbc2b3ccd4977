//! The agent under the lights: a child process and its API.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::status::{Status, events};
use crate::http;

/// Long enough for it to end the steps under way.
const GOODBYE: Duration = Duration::from_secs(20);

pub(super) struct Agent {
    child: Child,
    pub(super) api: SocketAddr,
    pub(super) log: PathBuf,
    seen: u64,
}

impl Agent {
    /// `binary run …args --listen ADDRESS`, with its words in a file.
    pub(super) fn start(binary: &Path, args: &[String], log: &Path) -> Result<Self> {
        let api = http::free_port()?;
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(binary)
            .arg("run")
            .args(args)
            .arg("--listen")
            .arg(api.to_string())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C is for us, who then end it in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        Ok(Self { child, api, log: log.to_owned(), seen: 0 })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails once it has ended.
    pub(super) fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the agent ended ({status})"),
            None => Ok(()),
        }
    }

    /// `None` while it does not answer yet.
    pub(super) fn status(&self) -> Option<Status> {
        let answer = http::get(self.api, "/api/v1/status").ok()?;
        Status::read(&answer.body).ok()
    }

    /// What happened since the last time this was asked.
    pub(super) fn news(&mut self) -> Vec<String> {
        let path = format!("/api/v1/events?since={}&limit=500", self.seen);
        let Ok(answer) = http::get(self.api, &path) else { return Vec::new() };
        let Ok((lines, next)) = events(&answer.body) else { return Vec::new() };
        self.seen = next;
        lines
    }

    /// Rings its doorbell, as the git server would.
    pub(super) fn ring(&self, secret: &str) -> Result<()> {
        let answer = http::post(self.api, "/webhook", &format!("X-Gitlab-Token: {secret}"))?;
        if answer.status != 202 {
            bail!("the webhook was answered with {}: {}", answer.status, answer.body);
        }
        Ok(())
    }

    /// The last lines of what it said.
    pub(super) fn last_words(&self, count: usize) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Asks it to end and waits; after a while it is made to.
    pub(super) fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        // The standard library has no other signal than SIGKILL.
        crate::command::run("kill").arg(self.pid().to_string()).read()?;
        let begun = Instant::now();
        while begun.elapsed() < GOODBYE {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            sleep(Duration::from_millis(50));
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}
