//! The agent's own machine, as far as a balancer that runs there already needs it: its own file, its commands and its
//! socket. Nothing but the files of one balancer is ever written, and none that is not ours.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;
use tokio::time::timeout;

use super::container::LONGEST_OUTPUT;
use super::{Conversation, File, Output};
use crate::error::{PortError, Remedy};
use crate::model::{CANDIDATE, External, FleetName, OwnFile, OwnerId, ServiceName, Socket};

/// Longest wait for the end of a command.
const COMMAND: Duration = Duration::from_secs(30);
/// Longest wait for a connection.
const DIAL: Duration = Duration::from_secs(2);
/// The environment that commands have; nothing else of the agent's, which may hold secrets.
const ENVIRONMENT: [&str; 6] =
    ["PATH", "HOME", "LANG", "DOCKER_HOST", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"];
/// What a file is called until it takes its place.
const NEW: &str = ".evenkeel-new";
/// What every header of a file of ours begins with.
const WRITTEN: &str = "# written by evenkeel for ";
/// The longest last line of a command that is told, in characters.
const LONGEST_LINE: usize = 300;
/// The most processes that are looked at.
const MOST_PROCESSES: usize = 32_768;

/// One balancer on this machine that somebody else runs.
#[derive(Debug)]
pub struct Machine {
    external: Arc<External>,
    header: String,
}

/// The first line of the files of a balancer.
pub fn header(owner: &OwnerId, fleet: &FleetName, balancer: &ServiceName) -> String {
    format!("{WRITTEN}{owner} {fleet}/{balancer}: what is changed by hand here is overwritten")
}

impl Machine {
    /// `header` is the first line of every file that is ours.
    pub fn new(external: Arc<External>, header: String) -> Self {
        Self { external, header }
    }

    /// How it is told.
    pub fn external(&self) -> &External {
        &self.external
    }

    /// The first line of every file that is ours.
    pub fn header(&self) -> &str {
        &self.header
    }

    fn own_file(&self) -> Result<&OwnFile, PortError> {
        self.external.file.as_ref().ok_or_else(|| {
            PortError::new("change its configuration", Remedy::Hold, "none of its files is ours")
        })
    }

    /// Opens a conversation with the socket that it is asked at.
    pub async fn dial(&self) -> Result<Conversation, PortError> {
        let at = &self.external.asked;
        let doing = format!("connect to {at}");
        let failed = |e: std::io::Error| PortError::new(&doing, Remedy::Retry, e);
        let opened = async {
            Ok(match at {
                Socket::Unix(path) => split(UnixStream::connect(path).await?),
                Socket::Tcp(at) => split(TcpStream::connect(at).await?),
            })
        };
        match timeout(DIAL, opened).await {
            Ok(opened) => opened.map_err(failed),
            Err(_) => Err(failed(ErrorKind::TimedOut.into())),
        }
    }

    /// Whether the balancer would take the file at `candidate`: `None`, or what it says against it.
    pub async fn check(&self, candidate: &str) -> Result<Option<String>, PortError> {
        let command: Vec<String> =
            self.own_file()?.check.iter().map(|arg| arg.replace(CANDIDATE, candidate)).collect();
        let Output { code, text } = run(&command).await?;
        Ok((code != 0).then_some(text))
    }

    /// Has it read its configuration again.
    pub async fn reload(&self) -> Result<(), PortError> {
        let command = &self.own_file()?.reload;
        let Output { code, text } = run(command).await?;
        if code == 0 {
            return Ok(());
        }
        let doing = format!("reload it with `{}`", command.join(" "));
        Err(PortError::new(doing, Remedy::Hold, format!("code {code}: {}", last_line(&text))))
    }

    /// Writes a file whose first line says that it is ours, unless another's is there.
    pub async fn write_own(&self, file: &File) -> Result<(), PortError> {
        self.unless_foreign(&file.path)?;
        write(file).await
    }

    /// Why a file must not be replaced: it is there, and it is not ours. An empty one is nobody's.
    pub fn unless_foreign(&self, path: &str) -> Result<(), PortError> {
        let doing = format!("write {path}");
        let refuse = |why: String| Err(PortError::new(&doing, Remedy::Hold, why));
        let mut begin = Vec::new();
        // Whoever puts a pipe or a device there must not hold the agent.
        match std::fs::symlink_metadata(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(PortError::new(&doing, Remedy::Retry, e)),
            Ok(found) if !found.is_file() => return refuse("it is no plain file".into()),
            Ok(_) => {}
        }
        let read = std::fs::File::open(path).and_then(|f| f.take(4096).read_to_end(&mut begin));
        read.map_err(|e| PortError::new(&doing, Remedy::Retry, e))?;
        let text = String::from_utf8_lossy(&begin);
        let first = text.lines().next().unwrap_or_default();
        if first == self.header || (text.trim().is_empty() && begin.len() < 4096) {
            return Ok(());
        }
        match first.strip_prefix(WRITTEN).and_then(|rest| rest.split_once(": ")) {
            Some((whose, _)) => refuse(format!("the file there was written for {whose}")),
            None => refuse("the file there was not written by evenkeel, and stays as it is".into()),
        }
    }
}

fn split(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Conversation {
    let (output, input) = tokio::io::split(stream);
    Conversation { input: Box::new(input), output: Box::new(output) }
}

/// Writes a file, and the directories that it needs; it replaces what was there in one step.
pub async fn write(file: &File) -> Result<(), PortError> {
    let File { path, content, mode } = file;
    let (path, content, mode) = (PathBuf::from(path), content.clone(), *mode);
    let doing = format!("write {}", path.display());
    let written = tokio::task::spawn_blocking(move || put(&path, &content, mode)).await;
    let written = written.unwrap_or_else(|e| Err(std::io::Error::other(e)));
    written.map_err(|e| PortError::new(doing, Remedy::Retry, e))
}

fn put(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    use std::io::Write as _;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(NEW);
    // Left by one that was killed; made anew, so that nobody's link is followed and the permissions are ours.
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let mut to = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    to.write_all(content)?;
    to.sync_all()?;
    std::fs::rename(&new, path)
}

/// Runs a command to its end, without a shell. One that cannot be run is an error.
async fn run(command: &[String]) -> Result<Output, PortError> {
    let doing = format!("run `{}`", command.join(" "));
    let failed = |e: std::io::Error| PortError::new(&doing, Remedy::Hold, e);
    let (program, args) =
        command.split_first().ok_or_else(|| failed(ErrorKind::NotFound.into()))?;
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .envs(ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // What interrupts the agent does not interrupt a reload.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let (out, err, status) = tokio::join!(all_of(out), all_of(err), child.wait());
        let code = status?.code().map_or(-1, i64::from);
        Ok(Output { code, text: out + &err })
    };
    if let Ok(ended) = timeout(COMMAND, ended).await {
        return ended.map_err(failed);
    }
    let why = format!("it had not ended after {} s", COMMAND.as_secs());
    Err(PortError::new(&doing, Remedy::Hold, why))
}

/// Reads to the end, and keeps the beginning.
async fn all_of(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let (mut kept, mut space) = (Vec::new(), vec![0; 8192]);
    while let Ok(got @ 1..) = stream.read(&mut space).await {
        let room = (LONGEST_OUTPUT / 2).saturating_sub(kept.len()).min(got);
        kept.extend_from_slice(space.get(..room).unwrap_or_default());
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// What a command said last.
pub fn last_line(text: &str) -> String {
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or("it says nothing").chars().take(LONGEST_LINE).collect()
}

/// A process of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number here.
    pub id: u32,
    /// Its number where it runs, which may be a container.
    pub inner: u32,
    /// Who made it.
    pub parent: u32,
    /// Its command line.
    pub words: Vec<String>,
}

/// The processes whose command line `wanted` says yes to.
pub fn processes(wanted: impl Fn(&[String]) -> bool) -> Vec<Process> {
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = all.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    ids.take(MOST_PROCESSES)
        .filter_map(|id| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
            let words = line.split(|b| *b == 0).filter(|w| !w.is_empty());
            let words: Vec<String> =
                words.map(|w| String::from_utf8_lossy(w).into_owned()).collect();
            if !wanted(&words) {
                return None;
            }
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            let field = |name: &str| {
                let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
                rest.split_whitespace().next_back()?.parse().ok()
            };
            Some(Process {
                id,
                inner: field("NSpid:").unwrap_or(id),
                parent: field("PPid:")?,
                words,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(String::from).collect()
    }

    fn machine(file: Option<OwnFile>) -> Machine {
        let asked = Socket::new("127.0.0.1:1");
        Machine::new(Arc::new(External { file, asked }), format!("{WRITTEN}me shop/edge: so"))
    }

    #[tokio::test]
    async fn a_file_of_another_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/edge.cfg").display().to_string();
        let it = machine(None);
        let ours = |text: &str, mode| File {
            path: path.clone(),
            content: format!("{}\n{text}", it.header()).into(),
            mode,
        };
        it.write_own(&ours("one", 0o600)).await.unwrap();
        // Left by one that was killed.
        std::fs::write(format!("{path}{NEW}"), "half").unwrap();
        it.write_own(&ours("two", 0o644)).await.unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("\ntwo"));
        let alone = std::fs::read_dir(dir.path().join("deep")).unwrap().count();
        assert_eq!(alone, 1);
        for (there, said) in [
            ("global\n", "not written by evenkeel"),
            ("# written by evenkeel for you shop/edge: x\n", "for you shop/edge"),
            ("\n# written by evenkeel for me shop/edge: so\n", "not written by evenkeel"),
        ] {
            std::fs::write(&path, there).unwrap();
            let why = it.write_own(&ours("three", 0o644)).await.unwrap_err();
            assert_eq!(why.remedy, Remedy::Hold);
            assert!(crate::error::causes(&why).contains(said), "{}", crate::error::causes(&why));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), there);
        }
        std::fs::write(&path, " \n").unwrap();
        it.write_own(&ours("four", 0o644)).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        let why = it.write_own(&ours("five", 0o644)).await.unwrap_err();
        assert!(crate::error::causes(&why).contains("plain file"));
    }

    #[tokio::test]
    async fn commands_run_without_a_shell_and_their_last_line_is_told() {
        let reload = words("sh -c");
        let reload =
            [reload, vec!["echo one; echo $1 >&2; exit 3".into(), "x".into(), "$HOME;".into()]];
        let check = words("test {candidate} = /a/candidate");
        let it = machine(Some(OwnFile { path: "/a".into(), check, reload: reload.concat() }));
        assert_eq!(it.check("/a/candidate").await.unwrap(), None);
        assert_eq!(it.check("/b").await.unwrap().as_deref(), Some(""));
        let why = crate::error::causes(&it.reload().await.unwrap_err());
        assert!(why.ends_with("code 3: $HOME;"), "{why}");
        let missing = run(&words("/no/such/program x")).await.unwrap_err();
        assert!(crate::error::causes(&missing).starts_with("run `/no/such/program x`: "));
        assert!(!run(&words("env")).await.unwrap().text.contains("CARGO"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_does_not_end_is_given_up() {
        let why = crate::error::causes(&run(&words("sleep 3600")).await.unwrap_err());
        assert!(why.contains("had not ended after 30 s"), "{why}");
    }

    #[tokio::test]
    async fn long_output_is_cut_and_the_command_still_ends() {
        let all = run(&words("head -c 3000000 /dev/zero")).await.unwrap();
        assert_eq!((all.code, all.text.len()), (0, LONGEST_OUTPUT / 2));
        assert_eq!(last_line("a\n b \n\n"), "b");
    }

    #[test]
    fn a_process_is_found_by_its_words() {
        let me = std::process::id();
        let found = processes(|words| !words.is_empty());
        assert!(found.iter().any(|p| p.id == me && p.inner == me && p.parent > 0));
    }
}
