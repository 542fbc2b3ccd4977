//! An nginx on this machine that somebody else runs: one file is ours, which its own configuration includes.
//!
//! nginx cannot be asked about a file that its configuration does not include. So a candidate takes the place of the
//! file in force, is tried, and gives the place back where it is refused. The file before stays beside it until the new
//! one is known to be in force: whoever is killed in between finds it and puts it back.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::facts::Facts;
use super::image::{Image, Surroundings};
use super::shell::{Answer, State};
use super::sight::NOTHING;
use crate::edge::machine::{Machine, Process, processes, write};
use crate::edge::{Conversation, File};
use crate::error::{PortError, Remedy, causes};

/// The longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// The longest answer, in bytes.
const LONGEST_ANSWER: u64 = 64 * 1024;
/// How long workers of an earlier configuration are taken to go on, where nobody can see them.
const UNSEEN: Duration = Duration::from_secs(30);
/// How often processes are looked for again, for the one that answered may have ended meanwhile.
const LOOKS: u32 = 3;
const DOING: &str = "ask nginx what is in force";

/// One nginx that somebody else runs.
pub(super) struct Here {
    machine: Arc<Machine>,
    file: String,
    /// Workers that nobody can see and that may still have connections, under numbers that no process has.
    unseen: Vec<(u32, Instant)>,
    reloads: u32,
}

impl Here {
    /// Puts right what a test left behind that was cut off.
    pub(super) async fn open(machine: Arc<Machine>) -> Result<Self, PortError> {
        let file = machine.external().file.as_ref().map(|f| f.path.clone());
        let file = file.ok_or_else(|| {
            PortError::new("configure nginx", Remedy::Hold, "none of its files is ours")
        })?;
        let here = Self { machine, file, unseen: Vec::new(), reloads: 0 };
        if std::fs::exists(here.previous()).unwrap_or(false) {
            let in_force = here.ask().await.ok().and_then(|text| State::parse(&text).digest);
            let on_disk = Facts::parse(&here.facts()).map(|facts| facts.digest);
            if in_force.is_some() && in_force == on_disk {
                here.settled();
            } else {
                here.back()?;
            }
        }
        Ok(here)
    }

    fn candidate(&self) -> String {
        format!("{}.candidate", self.file)
    }

    fn previous(&self) -> String {
        format!("{}.previous", self.file)
    }

    /// What the renderer must know; the version once nginx has something of ours in force.
    pub(super) async fn image(&self) -> Image {
        let told = self.ask().await.ok();
        let surroundings = Surroundings::of(self.machine.external(), self.machine.header());
        Image::beside(surroundings, told.as_deref())
    }

    pub(super) async fn state(&mut self) -> Result<State, PortError> {
        let mut looks = 0;
        loop {
            let text = match self.ask().await {
                Ok(text) => text,
                // Before the first table there is nobody to answer.
                Err(_) if self.facts_before().is_empty() => {
                    return Ok(State { digest: Some(NOTHING.into()), ..State::default() });
                }
                Err(e) => return Err(e),
            };
            let mut state = State::parse(&text);
            let Some(told) = state.told else {
                let why =
                    format!("{} is answered by something else", self.machine.external().asked);
                return Err(PortError::new(DOING, Remedy::Hold, why));
            };
            looks += 1;
            match family(told) {
                Some((workers, old)) => (state.workers, state.old) = (workers, old),
                None if looks < LOOKS => continue,
                None => {
                    self.unseen.retain(|(_, since)| since.elapsed() < UNSEEN);
                    state.workers = [told].into();
                    state.old = self.unseen.iter().map(|(id, _)| *id).collect();
                }
            }
            return Ok(state);
        }
    }

    /// What nginx says on the address that the file gives it.
    async fn ask(&self) -> Result<String, PortError> {
        let mut said = String::new();
        for page in ["digest", "status"] {
            let mut conversation = self.machine.dial().await?;
            let answer = timeout(ANSWER, get(&mut conversation, page)).await;
            match answer.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
                Ok(text) => said.push_str(&text),
                Err(e) => return Err(PortError::new(DOING, Remedy::Retry, e)),
            }
        }
        Ok(said)
    }

    /// What the file says about itself; nothing where there is none.
    pub(super) fn facts(&self) -> String {
        facts_of(&self.file)
    }

    /// What the file said before the candidate took its place; nginx has seen nothing newer until it is told.
    fn facts_before(&self) -> String {
        let previous = self.previous();
        facts_of(if std::fs::exists(&previous).unwrap_or(false) { &previous } else { &self.file })
    }

    pub(super) async fn give(&self, candidate: &str) -> Result<(), PortError> {
        self.machine.unless_foreign(&self.file)?;
        let content = candidate.as_bytes().to_vec();
        let file = File { path: self.candidate(), content, mode: 0o644 };
        self.machine.write_own(&file).await
    }

    pub(super) async fn put(&self, files: &[File]) -> Result<(), PortError> {
        for file in files {
            write(file).await?;
        }
        Ok(())
    }

    /// Whether nginx takes the candidate, which then is in its place.
    pub(super) async fn test(&self) -> Result<Answer, PortError> {
        self.machine.unless_foreign(&self.file)?;
        // What is in the place now may be a candidate that never came into force: what was there before is what counts.
        self.back()?;
        match std::fs::read(&self.file) {
            Ok(content) => {
                let previous = File { path: self.previous(), content, mode: 0o644 };
                write(&previous).await?;
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                // So that it is known afterwards that there was none.
                write(&File { path: self.previous(), content: Vec::new(), mode: 0o644 }).await?;
            }
            Err(e) => return Err(self.failed(e)),
        }
        std::fs::rename(self.candidate(), &self.file).map_err(|e| self.failed(e))?;
        let said = self.machine.check(&self.file).await;
        if !matches!(said, Ok(None)) {
            self.back()?;
        }
        let text = said?;
        Ok(Answer { code: i32::from(text.is_some()), text: text.unwrap_or_default() })
    }

    /// Brings the file into force; it was tried before.
    pub(super) async fn swap(&mut self) -> Result<Answer, PortError> {
        if let Err(e) = self.machine.reload().await {
            self.back()?;
            return Ok(Answer { code: 1, text: causes(&e) });
        }
        self.reloads += 1;
        self.unseen.push((u32::MAX - self.reloads, Instant::now()));
        Ok(Answer { code: 0, text: String::new() })
    }

    /// Puts the file back that was there before the last test.
    pub(super) fn back(&self) -> Result<(), PortError> {
        let previous = self.previous();
        let there = std::fs::metadata(&previous).map(|m| m.len());
        let done = match there {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            // There was none.
            Ok(0) => std::fs::write(&self.file, "").and_then(|()| std::fs::remove_file(&previous)),
            Ok(_) => std::fs::rename(&previous, &self.file),
        };
        done.map_err(|e| self.failed(e))
    }

    /// What was there before is of no use any more.
    pub(super) fn settled(&self) {
        let _ = std::fs::remove_file(self.previous());
    }

    /// Removes certificates that the file does not name.
    pub(super) fn tidy(&self) {
        let directory = format!("{}.certificates", self.file);
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let Ok(all) = std::fs::read_dir(directory) else { return };
        for path in all.flatten().map(|entry| entry.path()) {
            if path.to_str().is_none_or(|path| !text.contains(path)) {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn failed(&self, e: std::io::Error) -> PortError {
        PortError::new(format!("replace {}", self.file), Remedy::Retry, e)
    }
}

fn facts_of(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with(super::facts::MARK));
    lines.flat_map(|line| [line, "\n"]).collect()
}

async fn get(conversation: &mut Conversation, page: &str) -> std::io::Result<String> {
    let question = format!("GET /{page} HTTP/1.0\r\nHost: evenkeel\r\n\r\n");
    conversation.input.write_all(question.as_bytes()).await?;
    conversation.input.flush().await?;
    let mut said = Vec::new();
    (&mut conversation.output).take(LONGEST_ANSWER).read_to_end(&mut said).await?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// The workers of the nginx one of which is called `told` where it runs: those that take connections, and those that
/// end. `None` where that is none, or several.
fn family(told: u32) -> Option<(BTreeSet<u32>, BTreeSet<u32>)> {
    let workers = processes(|words| words.first().is_some_and(|w| w.starts_with(WORKER)));
    // An nginx in a network of its own is not the one that was reached from here.
    let here = std::fs::read_link("/proc/self/ns/net").ok();
    let apart = |p: &Process| {
        let its = std::fs::read_link(format!("/proc/{}/ns/net", p.id)).ok();
        its.is_some() && its != here
    };
    choose(told, workers.into_iter().filter(|p| !apart(p)).collect())
}

const WORKER: &str = "nginx: worker process";
const ENDING: &str = "is shutting down";

fn choose(told: u32, workers: Vec<Process>) -> Option<(BTreeSet<u32>, BTreeSet<u32>)> {
    let ending = |p: &Process| p.words.iter().any(|w| w.contains(ENDING));
    let parents: BTreeSet<u32> =
        workers.iter().filter(|p| p.inner == told && !ending(p)).map(|p| p.parent).collect();
    let [parent] = parents.into_iter().collect::<Vec<_>>()[..] else { return None };
    let (old, new): (Vec<Process>, Vec<Process>) =
        workers.into_iter().filter(|p| p.parent == parent).partition(ending);
    let ids = |all: Vec<Process>| all.into_iter().map(|p| p.id).collect();
    Some((ids(new), ids(old)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_told_apart_by_their_master() {
        let worker = |id, inner, parent, title: &str| Process {
            id,
            inner,
            parent,
            words: vec![format!("{WORKER}{title}")],
        };
        let old = " is shutting down";
        let all = vec![
            worker(11, 7, 10, ""),
            worker(12, 8, 10, ""),
            worker(13, 6, 10, old),
            worker(21, 8, 20, old),
            worker(22, 9, 20, ""),
        ];
        assert_eq!(choose(8, all.clone()), Some(([11, 12].into(), [13].into())));
        assert_eq!(choose(9, all.clone()), Some(([22].into(), [21].into())));
        assert_eq!(choose(6, all.clone()), None);
        let twice = [all, vec![worker(31, 7, 30, "")]].concat();
        assert_eq!(choose(7, twice), None);
    }
}
