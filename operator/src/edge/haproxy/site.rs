//! Where one HAProxy is, and what of its configuration is ours: all of it in a container of ours, one file of it or
//! only its servers where somebody else runs it.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::render::Rendered;
use super::{CANDIDATE, CERTIFICATES, CONFIG, MARK, PORT};
use crate::edge::machine::{self, last_line};
use crate::edge::{At, Container, Conversation, File};
use crate::error::{PortError, Remedy};
use crate::model::External;

/// What stands around a table's own sections, and where files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// The first line.
    pub(super) header: String,
    /// The variable that says which structure is in force.
    pub(super) mark: String,
    pub(super) config: String,
    pub(super) candidate: String,
    /// Each certificate is under a name that has its digest: a file never changes, so that a candidate harms nobody.
    pub(super) certificates: String,
    /// The permissions of those.
    pub(super) mode: u32,
    /// What of HAProxy is ours.
    pub(super) ours: Ours,
}

/// What of one HAProxy is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ours {
    /// All of it: `global`, its runtime socket and its log too.
    Everything,
    /// A file that is read beside others: listeners, pools and their own `defaults`.
    File,
    /// The servers of backends that somebody else has configured.
    Servers,
}

impl Frame {
    /// In a container of ours.
    pub(super) fn container() -> Self {
        Self {
            header: "# written by evenkeel: what is changed by hand here is overwritten".into(),
            mark: MARK.into(),
            config: CONFIG.into(),
            candidate: CANDIDATE.into(),
            certificates: CERTIFICATES.into(),
            // Images run HAProxy as different users, and nothing else runs there.
            mode: 0o644,
            ours: Ours::Everything,
        }
    }

    /// Beside what somebody else has configured. `header` says whose it is, and two of different owners do not meet.
    pub(super) fn external(external: &External, header: &str) -> Self {
        let whose: String = hex::encode(Sha256::digest(header)).chars().take(8).collect();
        let config = external.file.as_ref().map_or_else(String::new, |f| f.path.clone());
        Self {
            header: header.to_owned(),
            mark: format!("{MARK}_{whose}"),
            candidate: format!("{config}.candidate"),
            certificates: format!("{config}.certificates"),
            mode: 0o600,
            ours: if external.file.is_some() { Ours::File } else { Ours::Servers },
            config,
        }
    }
}

/// One HAProxy.
#[derive(Clone)]
pub(super) struct Site {
    at: At,
    pub(super) frame: Arc<Frame>,
}

impl Site {
    pub(super) fn new(at: At) -> Self {
        let frame = Arc::new(match &at {
            At::Container(_) => Frame::container(),
            At::Machine(machine) => Frame::external(machine.external(), machine.header()),
        });
        Self { at, frame }
    }

    /// A conversation with its runtime socket.
    pub(super) async fn converse(&self) -> Result<Conversation, PortError> {
        match &self.at {
            At::Container(container) => {
                container.converse(&["/bin/sh", "-c", bridge().as_str()]).await
            }
            At::Machine(machine) => machine.dial().await,
        }
    }

    /// Writes what is ours.
    pub(super) async fn put(&self, files: &[File]) -> Result<(), PortError> {
        let machine = match &self.at {
            At::Container(container) => return container.put(files).await,
            At::Machine(machine) => machine,
        };
        for file in files {
            if file.path.starts_with(&format!("{}/", self.frame.certificates)) {
                machine::write(file).await?;
            } else {
                machine.write_own(file).await?;
            }
        }
        Ok(())
    }

    /// The configuration, as a file.
    pub(super) fn config(&self, text: &str) -> File {
        File { path: self.frame.config.clone(), content: text.into(), mode: 0o644 }
    }

    /// Has HAProxy read a configuration; says what it does not like.
    pub(super) async fn check(&self, rendered: &Rendered) -> Result<Option<String>, PortError> {
        let candidate = &self.frame.candidate;
        let mut files = rendered.files.clone();
        let content = rendered.text.clone().into();
        files.push(File { path: candidate.clone(), content, mode: 0o644 });
        match &self.at {
            At::Container(container) => {
                container.put(&files).await?;
                let out = container.exec(&["haproxy", "-c", "-f", candidate]).await?;
                Ok((out.code != 0).then_some(out.text))
            }
            At::Machine(machine) => {
                // What cannot take its place need not be tried.
                machine.unless_foreign(&self.frame.config)?;
                self.put(&files).await?;
                let said = machine.check(candidate).await?;
                match said {
                    // Of HAProxy it is known how it refuses; anything else is the command's own failure.
                    Some(text) if !text.contains("[ALERT]") => {
                        let why = last_line(&text);
                        Err(PortError::new("check the configuration", Remedy::Hold, why))
                    }
                    said => Ok(said),
                }
            }
        }
    }

    /// Brings the file into force, as far as is known at once.
    pub(super) async fn reload(&self) -> Result<(), PortError> {
        match &self.at {
            At::Container(container) => container.signal("SIGUSR2").await,
            At::Machine(machine) => machine.reload().await,
        }
    }

    /// Workers of earlier configurations that are still alive. `None` where no process can be seen.
    pub(super) async fn old_workers(&self) -> Option<u32> {
        match &self.at {
            At::Container(container) => old_workers(&container.processes().await.ok()?),
            At::Machine(_) if self.frame.ours == Ours::Servers => None,
            At::Machine(_) => {
                let of_it = |words: &[String]| reads(words, &self.frame.config);
                let all = machine::processes(of_it);
                let master = |id| all.iter().any(|p| p.parent == id);
                let workers = all.iter().filter(|p| !master(p.id)).count();
                (workers > 0).then(|| u32::try_from(workers - 1).unwrap_or(u32::MAX))
            }
        }
    }

    /// Removes the certificates that a configuration does not name: keys that were replaced stay nowhere.
    pub(super) async fn sweep(&self, rendered: &Rendered) -> Result<(), PortError> {
        let prefix = format!("{}/", self.frame.certificates);
        let keep: Vec<&str> =
            rendered.files.iter().filter_map(|f| f.path.strip_prefix(&prefix)).collect();
        match &self.at {
            At::Container(container) => sweep(&**container, &keep).await,
            At::Machine(_) => {
                let Ok(all) = std::fs::read_dir(&self.frame.certificates) else { return Ok(()) };
                for entry in all.flatten() {
                    if entry.file_name().to_str().is_none_or(|name| !keep.contains(&name)) {
                        let _ = std::fs::remove_file(entry.path());
                    }
                }
                Ok(())
            }
        }
    }

    /// Why nothing of ours is in force after a reload that was told to succeed.
    pub(super) fn not_in_force(&self) -> String {
        match self.frame.ours {
            Ours::File => format!(
                "the reload has brought nothing into force: HAProxy must be started with -f {} beside its own file, and its \
                 reload command must end with an error where it fails",
                self.frame.config
            ),
            Ours::Everything | Ours::Servers => {
                "the new configuration was not in force in time, though HAProxy had agreed to it"
                    .into()
            }
        }
    }
}

async fn sweep(container: &dyn Container, keep: &[&str]) -> Result<(), PortError> {
    let script = format!(
        "cd {CERTIFICATES} 2>/dev/null || exit 0; for f in *; do case \" $* \" in *\" $f \"*) ;; \
         *) rm -f -- \"$f\";; esac; done"
    );
    let mut command = vec!["/bin/sh", "-c", script.as_str(), "sweep"];
    command.extend(keep);
    container.exec(&command).await.map(drop)
}

/// Hands bytes between the conversation and the socket with what the image has. Each ends when either side does, so
/// that nothing is left behind in the container.
fn bridge() -> String {
    let bash = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{PORT} || exit 1; \
         cat <&3 & r=$!; {{ cat >&3; kill $r; }} <&0 & wait $r"
    );
    format!(
        "has() {{ command -v $1 >/dev/null 2>&1; }}; \
         if has bash; then exec bash -c '{bash}'; \
         elif has socat; then exec socat - TCP:127.0.0.1:{PORT}; \
         elif has nc; then exec nc 127.0.0.1 {PORT}; \
         else echo {NO_MEANS}; fi"
    )
}

/// Said where the image has nothing to speak through.
pub(super) const NO_MEANS: &str = "no-means";

/// Whether these words begin a HAProxy that reads this file, by its own name or with its directory.
fn reads(words: &[String], file: &str) -> bool {
    let Some((program, args)) = words.split_first() else { return false };
    let read = |arg: &String| {
        arg == file
            || (arg.starts_with('/')
                && file.starts_with(&format!("{}/", arg.trim_end_matches('/'))))
    };
    program.rsplit('/').next() == Some("haproxy")
        && args.iter().any(read)
        && !args.iter().any(|arg| arg == "-c")
}

/// How many there are beside the master and the worker in force. `None` where no process can be seen.
fn old_workers(processes: &[String]) -> Option<u32> {
    let program = |line: &&String| {
        let first = line.split_whitespace().next().unwrap_or_default();
        first.rsplit('/').next() == Some("haproxy") && !line.contains(" -c ")
    };
    let all = processes.iter().filter(program).count();
    (all > 0).then(|| u32::try_from(all.saturating_sub(2)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OwnFile, Socket};

    #[test]
    fn the_master_and_its_worker_are_not_of_before() {
        let lines = |all: &[&str]| all.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        let now = ["haproxy -W -db -f /c", "haproxy -sf 9 -x sockpair@4 -W -db -f /c"];
        let other = ["bash -c haproxy", "cat", "haproxy -c -f /candidate", "/usr/sbin/haproxy -W"];
        assert_eq!(old_workers(&lines(&now)), Some(0));
        assert_eq!(old_workers(&lines(&[&now[..], &other[..]].concat())), Some(1));
        assert_eq!(old_workers(&lines(&other[..2])), None);
    }

    #[test]
    fn a_haproxy_is_known_by_the_file_that_it_reads() {
        let words = |line: &str| line.split(' ').map(String::from).collect::<Vec<_>>();
        for (line, it) in [
            ("haproxy -W -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/ek.cfg", true),
            ("/usr/sbin/haproxy -sf 7 -Ws -f /etc/haproxy/", true),
            ("haproxy -f /etc/haproxy -c", false),
            ("haproxy -f /etc/haproxy/haproxy.cfg", false),
            ("haproxy -f /etc/hap", false),
            ("vi /etc/haproxy/ek.cfg", false),
        ] {
            assert_eq!(reads(&words(line), "/etc/haproxy/ek.cfg"), it, "{line}");
        }
    }

    #[test]
    fn two_owners_do_not_share_a_mark() {
        let file = Some(OwnFile { path: "/a.cfg".into(), check: vec![], reload: vec![] });
        let external = External { file, asked: Socket::new("/s") };
        let (one, two) = (Frame::external(&external, "# a"), Frame::external(&external, "# b"));
        assert_ne!(one.mark, two.mark);
        assert_eq!((one.config.as_str(), one.ours), ("/a.cfg", Ours::File));
        let servers = External { file: None, ..external };
        assert_eq!(Frame::external(&servers, "# a").ours, Ours::Servers);
    }
}
