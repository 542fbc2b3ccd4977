//! A balancer's container, as the drivers need it: the only way in which they touch the world.

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::PortError;
use crate::model::File;

/// The longest output of a command that is kept, in bytes; what is longer is cut.
pub const LONGEST_OUTPUT: usize = 64 * 1024;

/// One running container. Every call has a time limit of its own and touches this container only.
#[async_trait]
pub trait Container: Send + Sync {
    /// Runs a command in it and waits for its end. A command that cannot be found is an [`Output`] with a code.
    async fn exec(&self, command: &[&str]) -> Result<Output, PortError>;

    /// Starts a command in it whose input and output stay open for as long as the conversation is held.
    async fn converse(&self, command: &[&str]) -> Result<Conversation, PortError>;

    /// Writes files, and the directories that they need; each replaces what was there in one step.
    async fn put(&self, files: &[File]) -> Result<(), PortError>;

    /// Sends a signal to its first process.
    async fn signal(&self, signal: &str) -> Result<(), PortError>;

    /// The command lines of its processes.
    async fn processes(&self) -> Result<Vec<String>, PortError>;
}

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; 126 and 127 where it could not be run.
    pub code: i64,
    /// What it wrote, both streams, in the order it came.
    pub text: String,
}

/// A running command's input and output.
pub struct Conversation {
    /// Goes to its standard input.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// Comes from its standard output; its standard error is dropped.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
}

/// How a balancer's container begins: with a configuration that takes no traffic until the first table is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Replaces the image's entrypoint.
    pub command: Vec<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Put into the container before its start. The same for every table: a change would restart every balancer.
    pub files: Vec<File>,
    /// Ends it once the requests under way are answered.
    pub stop_signal: &'static str,
}
