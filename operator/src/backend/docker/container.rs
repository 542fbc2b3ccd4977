//! One running container, reached through its engine's API alone: over a socket, TCP, TLS and ssh alike.
//!
//! No call goes through bollard, which would log what is uploaded; that may be a key.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::Method;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::connect::{Engine, READ, limited};
use super::demux::Demux;
use super::errors::CallError;
use super::tar::archive;
use super::wire::{Created, ExecState, Top};
use crate::edge::container::LONGEST_OUTPUT;
use crate::edge::{Container, Conversation, File, Output};
use crate::error::{PortError, Remedy};
use crate::model::InstanceId;

/// The engine of the container's host, while there is a connection to it.
pub type Reach = Arc<dyn Fn() -> Option<Engine> + Send + Sync>;

/// Longest wait for the end of a command.
const COMMAND: Duration = Duration::from_secs(10);
/// Time between two looks at whether a command has ended whose output has.
const LOOK: Duration = Duration::from_millis(5);
/// What a file is called until it takes its place.
const NEW: &str = ".evenkeel-new";
/// The most processes that are told.
const MOST_PROCESSES: usize = 4096;

/// A container on a Docker host.
#[derive(Clone)]
pub struct DockerContainer {
    reach: Reach,
    id: InstanceId,
}

impl std::fmt::Debug for DockerContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerContainer").field("id", &self.id).finish_non_exhaustive()
    }
}

impl DockerContainer {
    /// The container `id`. `reach` is asked at each call, because connections come and go.
    pub fn new(reach: Reach, id: InstanceId) -> Self {
        Self { reach, id }
    }

    fn engine(&self, doing: &str) -> Result<Engine, PortError> {
        let engine = (self.reach)();
        engine.ok_or_else(|| PortError::new(doing, Remedy::Retry, "its host does not answer"))
    }

    fn path(&self, rest: &str) -> String {
        format!("/containers/{}/{rest}", self.id.0)
    }

    /// Makes a command ready and begins it; returns its id and its stream.
    async fn begin(
        &self,
        engine: &Engine,
        command: &[&str],
        input: bool,
    ) -> Result<(String, Stream), CallError> {
        let body = json!({
            "Cmd": command, "AttachStdin": input, "AttachStdout": true, "AttachStderr": true,
            "Tty": false,
        });
        let Created { id } = limited(READ, engine.post(&self.path("exec"), &body)).await?;
        let how = json!({"Detach": false, "Tty": false});
        let stream = engine.upgrade(&format!("/exec/{id}/start"), &how).await?;
        Ok((id, TokioIo::new(stream)))
    }

    async fn run(&self, engine: &Engine, command: &[&str]) -> Result<Output, CallError> {
        let (id, stream) = self.begin(engine, command, false).await?;
        let text = all_of(Demux::new(stream, true)).await?;
        loop {
            let state: ExecState = engine.get(&format!("/exec/{id}/json")).await?;
            match state.exit_code {
                Some(code) if !state.running => return Ok(Output { code, text }),
                Some(_) | None => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

/// Puts files into a container that has not been started: nobody can read them half written.
pub(super) async fn upload(engine: &Engine, id: &str, files: &[File]) -> Result<(), CallError> {
    let archive = archive(files).map_err(|e| CallError::Garbled(e.to_string()))?;
    let path = format!("/containers/{id}/archive?path=%2F");
    engine.send(Method::PUT, &path, "application/x-tar", archive, COMMAND).await.map(drop)
}

type Stream = TokioIo<hyper::upgrade::Upgraded>;

/// Reads to the end, so that the command can write what it wants to, and keeps the beginning.
async fn all_of(mut output: Demux<Stream>) -> Result<String, CallError> {
    let mut kept = Vec::new();
    let mut space = vec![0; 8192];
    loop {
        let got = match output.read(&mut space).await {
            // Who stands between may end a TLS connection without a farewell; whether the command has ended is
            // asked of the engine anyway.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => 0,
            other => other.map_err(|e| CallError::Transport(e.to_string()))?,
        };
        if got == 0 {
            return Ok(String::from_utf8_lossy(&kept).into_owned());
        }
        let room = LONGEST_OUTPUT.saturating_sub(kept.len()).min(got);
        kept.extend_from_slice(space.get(..room).unwrap_or_default());
    }
}

#[async_trait]
impl Container for DockerContainer {
    async fn exec(&self, command: &[&str]) -> Result<Output, PortError> {
        let doing = format!("run {} in {}", command.first().unwrap_or(&""), self.id);
        let engine = self.engine(&doing)?;
        match limited(COMMAND, self.run(&engine, command)).await {
            // Newer engines refuse at the start what cannot be run; older ones say so in its output and its code.
            Err(CallError::Refused { message, .. }) if cannot_run(&message) => {
                let code = if message.contains("ermission denied") { 126 } else { 127 };
                Ok(Output { code, text: message })
            }
            other => other.map_err(|e| e.while_doing(&doing)),
        }
    }

    async fn converse(&self, command: &[&str]) -> Result<Conversation, PortError> {
        let doing = format!("speak with {} in {}", command.first().unwrap_or(&""), self.id);
        let engine = self.engine(&doing)?;
        let (_, stream) = limited(COMMAND, self.begin(&engine, command, true))
            .await
            .map_err(|e| e.while_doing(&doing))?;
        let (output, input) = tokio::io::split(stream);
        let input: Box<dyn AsyncWrite + Send + Unpin> = Box::new(input);
        Ok(Conversation { input, output: Box::new(Demux::new(output, false)) })
    }

    /// The engine removes a file before it writes the new one, and may end between the two. So files arrive under
    /// other names, and take their places by a rename.
    async fn put(&self, files: &[File]) -> Result<(), PortError> {
        let doing = format!("write {} files to {}", files.len(), self.id);
        let Some(first) = files.first() else { return Ok(()) };
        let arriving: Vec<File> =
            files.iter().map(|f| File { path: format!("{}{NEW}", f.path), ..f.clone() }).collect();
        let archive = archive(&arriving).map_err(|e| PortError::new(&doing, Remedy::Hold, e))?;
        let engine = self.engine(&doing)?;
        let path = self.path("archive?path=%2F");
        engine
            .send(Method::PUT, &path, "application/x-tar", archive, COMMAND)
            .await
            .map_err(|e| e.while_doing(&doing))?;
        let script = format!(r#"for f; do mv -f "$f{NEW}" "$f" || exit 1; done"#);
        let mut command = vec!["/bin/sh", "-c", &script, "mv"];
        command.extend(files.iter().map(|f| f.path.as_str()));
        let Output { code, text } = self.exec(&command).await?;
        if code == 0 {
            return Ok(());
        }
        let why = format!("{} and others stay as they were: {}", first.path, text.trim());
        Err(PortError::new(doing, Remedy::Retry, why))
    }

    async fn signal(&self, signal: &str) -> Result<(), PortError> {
        let doing = format!("send {signal} to {}", self.id);
        let engine = self.engine(&doing)?;
        let path = self.path(&format!("kill?signal={signal}"));
        let sent = engine.send(Method::POST, &path, "text/plain", Bytes::new(), READ).await;
        sent.map(drop).map_err(|e| e.while_doing(&doing))
    }

    async fn processes(&self) -> Result<Vec<String>, PortError> {
        let doing = format!("list the processes of {}", self.id);
        let engine = self.engine(&doing)?;
        let top: Top = engine.get(&self.path("top")).await.map_err(|e| e.while_doing(&doing))?;
        Ok(command_lines(top))
    }
}

fn cannot_run(message: &str) -> bool {
    ["executable file not found", "no such file or directory", "ermission denied"]
        .iter()
        .any(|said| message.contains(said))
}

/// `ps` of the host decides on the columns.
fn command_lines(top: Top) -> Vec<String> {
    let titles = top.titles.unwrap_or_default();
    let Some(at) = titles.iter().position(|t| matches!(t.as_str(), "CMD" | "COMMAND")) else {
        return Vec::new();
    };
    let rows = top.processes.unwrap_or_default().into_iter();
    rows.take(MOST_PROCESSES).filter_map(|row| row.into_iter().nth(at)).collect()
}
