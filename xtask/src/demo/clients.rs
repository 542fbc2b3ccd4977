//! The clients before the lights: a child process that asks, and what it counts.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Requests a second, over all balancers.
pub(super) const RATE: u32 = 150;
/// A request that takes longer has failed otherwise, in milliseconds.
const PATIENCE: u64 = 10_000;
/// Over how long the rate is taken.
const WINDOW: Duration = Duration::from_secs(2);

/// All requests up to some moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) answered: u64,
    /// By balancer, then by who answered.
    pub(super) by: BTreeMap<String, BTreeMap<String, u64>>,
    pub(super) failures: Vec<Failure>,
}

/// A request that was not answered as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) how: String,
    pub(super) at: String,
    /// Milliseconds since the Unix epoch.
    pub(super) begun: u64,
    /// It was under way when somebody who may have had it in hand was killed.
    pub(super) excused: bool,
}

impl Counts {
    fn read(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let by = value["by"].as_object()?.iter().map(|(balancer, all)| {
            let all = all.as_object().into_iter().flatten();
            let all = all.filter_map(|(who, n)| Some((who.clone(), n.as_u64()?))).collect();
            (balancer.clone(), all)
        });
        let failures = value["failures"].as_array()?.iter().map(|f| {
            let text = |key: &str| f[key].as_str().unwrap_or_default().to_owned();
            let begun = f["begun"].as_u64().unwrap_or(0);
            Failure { how: text("how"), at: text("at"), begun, excused: false }
        });
        Some(Self {
            answered: value["answered"].as_u64()?,
            by: by.collect(),
            failures: failures.collect(),
        })
    }

    /// What came since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut by = self.by.clone();
        for (balancer, all) in &mut by {
            for (who, n) in all.iter_mut() {
                let old = before.by.get(balancer).and_then(|all| all.get(who));
                *n = n.saturating_sub(old.copied().unwrap_or(0));
            }
            all.retain(|_, n| *n > 0);
        }
        Self {
            answered: self.answered.saturating_sub(before.answered),
            by,
            failures: self.failures.get(before.failures.len()..).unwrap_or_default().to_vec(),
        }
    }

    /// What was lost, and not because its server was killed.
    pub(super) fn lost(&self) -> Vec<String> {
        let lost = self.failures.iter().filter(|f| !f.excused);
        lost.map(|f| format!("{} at {}", f.how, f.at)).collect()
    }

    /// Excuses what was under way at `killed`, in milliseconds since the Unix epoch.
    fn excuse(&mut self, killed: Option<u64>) {
        for failure in &mut self.failures {
            let under_way = |at| failure.begun <= at && at - failure.begun <= PATIENCE;
            failure.excused = killed.is_some_and(under_way);
        }
    }

    /// Whether each balancer asked just so many servers, and none of them much more often than another.
    pub(super) fn in_turn(&self, balancers: usize, servers: usize) -> bool {
        self.by.len() == balancers
            && self.by.values().all(|all| {
                let (least, most) = (all.values().min(), all.values().max());
                let even =
                    least.zip(most).is_some_and(|(least, most)| *most <= least + least / 5 + 2);
                all.len() == servers && even
            })
    }

    /// How many each balancer answered, and who.
    pub(super) fn lines(&self) -> Vec<String> {
        self.by
            .iter()
            .map(|(balancer, all)| {
                let port = balancer.rsplit(':').next().unwrap_or_default();
                let sum: u64 = all.values().sum();
                // server-10 comes after server-9.
                let mut sorted: Vec<(&String, &u64)> = all.iter().collect();
                sorted.sort_by_key(|(who, _)| (who.len(), *who));
                let who = sorted.iter().map(|(who, n)| format!("{who} {n}"));
                let who = who.collect::<Vec<_>>().join(" · ");
                // The name that most share is said once.
                let common = sorted.first().and_then(|(who, _)| who.rsplit_once('-'));
                let who = match common {
                    Some((common, _)) => who.replace(&format!(" · {common}-"), " · -"),
                    None => who,
                };
                format!("   :{port} {sum:6}  {who}")
            })
            .collect()
    }
}

/// Milliseconds since the Unix epoch.
fn epoch() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

#[derive(Default)]
struct Heard {
    counts: Counts,
    /// What was answered until when, for the rate.
    past: Vec<(Instant, u64)>,
}

/// They ask until they are stopped or dropped.
pub(super) struct Clients {
    child: Child,
    stdin: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    reader: Option<JoinHandle<()>>,
    killed: Option<u64>,
}

impl Clients {
    pub(super) fn start(program: &Path, host: &str, ports: &[u16]) -> Result<Self> {
        let mut child = Command::new(program)
            .args([&RATE.to_string(), host])
            .args(ports.iter().map(|port| format!("127.0.0.1:{port}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for us, who then end it in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().context("no output")?);
        let heard = Arc::<Mutex<Heard>>::default();
        let into = Arc::clone(&heard);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                let Some(counts) = Counts::read(&line) else { continue };
                let mut heard = lock(&into);
                let now = Instant::now();
                heard.past.retain(|(at, _)| now.duration_since(*at) <= WINDOW);
                heard.past.push((now, counts.answered));
                heard.counts = counts;
            }
        });
        Ok(Self { child, stdin, heard, reader: Some(reader), killed: None })
    }

    /// All until now.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = lock(&self.heard).counts.clone();
        counts.excuse(self.killed);
        counts
    }

    /// Somebody was killed just now, and what he had in hand with him.
    pub(super) fn killed(&mut self) {
        self.killed = Some(epoch());
    }

    /// Answers a second.
    pub(super) fn rate(&self) -> u64 {
        let heard = lock(&self.heard);
        let (Some(first), Some(last)) = (heard.past.first(), heard.past.last()) else { return 0 };
        let millis = u64::try_from(last.0.duration_since(first.0).as_millis()).unwrap_or(0);
        (last.1 - first.1) * 1000 / millis.max(1)
    }

    /// Fails once they have ended.
    pub(super) fn alive(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let mut said = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut said);
        }
        bail!("the clients ended ({status}): {}", said.trim())
    }

    /// Lets the requests under way end; all that there were.
    pub(super) fn stop(&mut self) -> Result<Counts> {
        drop(self.stdin.take());
        self.child.wait()?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ok(self.counts())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whoever holds it only assigns.
fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(line: &str) -> Counts {
        Counts::read(line).unwrap()
    }

    #[test]
    fn what_came_since_is_told_by_balancer_and_server() {
        let before = counts(r#"{"answered": 2, "by": {"a:81": {"web-1": 2}}, "failures": []}"#);
        let after = counts(
            r#"{"answered": 7, "by": {"a:81": {"web-1": 2, "web-2": 3}, "a:82": {"web-10": 2}},
                "failures": [{"how": "reset", "at": "a:81", "begun": 5}]}"#,
        );
        let since = after.since(&before);
        assert_eq!(since.answered, 5);
        assert_eq!(since.lines(), ["   :81      3  web-2 3", "   :82      2  web-10 2"]);
        assert_eq!(since.failures[0].begun, 5);
        assert_eq!(after.since(&after).failures, []);
        let lines = counts(
            r#"{"answered": 7, "by": {"a:81": {"web-1": 2, "web-10": 1, "web-2": 3}}, "failures": []}"#,
        )
        .lines();
        assert_eq!(lines, ["   :81      6  web-1 2 · -2 3 · -10 1"]);
    }

    #[test]
    fn only_what_was_under_way_at_a_kill_is_excused() {
        let at = |begun| Failure { how: "reset".into(), at: "a:81".into(), begun, excused: false };
        let of = |killed| {
            let all = vec![at(5), at(19_000), at(20_001)];
            let mut counts = Counts { failures: all, ..Counts::default() };
            counts.excuse(killed);
            counts.lost().len()
        };
        assert_eq!((of(None), of(Some(20_000)), of(Some(20_001))), (3, 2, 1));
    }

    #[test]
    fn turns_are_even_or_they_are_none() {
        let of = |a: u64, b: u64| {
            let line = format!(
                r#"{{"answered": 9, "by": {{"x": {{"a": {a}, "b": {b}}}}}, "failures": []}}"#
            );
            counts(&line).in_turn(1, 2)
        };
        assert!(of(10, 11) && of(100, 110));
        assert!(!of(10, 20) && !of(100, 130));
        let one = counts(r#"{"answered": 9, "by": {"x": {"a": 9}}, "failures": []}"#);
        assert!(!one.in_turn(1, 2) && !one.in_turn(2, 1) && one.in_turn(1, 1));
    }

    #[test]
    fn what_is_no_count_is_not_taken_for_one() {
        assert_eq!(Counts::read(""), None);
        assert_eq!(Counts::read("{}"), None);
    }
}
