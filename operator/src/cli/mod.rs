//! The command line: arguments, output and the commands that talk to a running agent.
//!
//! Arguments are read by [`Cli::read`]; every command writes through [`output`] to a writer that it
//! is handed, and returns an exit code rather than ending the process.

pub mod agent;
pub mod args;
pub mod import;
pub mod offline;
pub mod once;
pub mod output;
pub mod ports;
pub mod read;
pub mod sources;
pub mod stand;
pub mod status;

use std::io::Write;

use clap::CommandFactory;

pub use args::{Cli, Command, Output};
pub use output::{Reader, Terminal};
pub use read::{ReadError, Reference, SourceChoice};

use crate::report::text::render_problems;
use crate::report::view::{PlanView, ProblemView};

/// What went wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// What went wrong, with its causes.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl CliError {
    /// An error without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// With a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: fine, or nothing to do.
    Fine,
    /// 1: a problem. Words that are not understood are one too: 2 means steps.
    Problem,
    /// 2: `plan` found steps to take.
    Steps,
    /// 2: `import` left something out.
    LeftOut,
}

impl Exit {
    /// What `plan` ends with.
    pub fn of_plan(plans: &[PlanView], problems: &[ProblemView]) -> Self {
        if !problems.is_empty() {
            Self::Problem
        } else if plans.iter().any(|p| !p.steps.is_empty()) {
            Self::Steps
        } else {
            Self::Fine
        }
    }

    /// What `check` ends with.
    pub fn of_check(problems: &[ProblemView]) -> Self {
        if problems.is_empty() { Self::Fine } else { Self::Problem }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(e: Exit) -> Self {
        Self::from(match e {
            Exit::Fine => 0,
            Exit::Problem => 1,
            Exit::Steps | Exit::LeftOut => 2,
        })
    }
}

/// Prints problems as `check` and `plan` do: for people all at once with a count, for programs as
/// `{problems: […]}`.
pub fn print_problems(
    problems: &[ProblemView],
    output: Output,
    term: Terminal,
    out: &mut dyn Write,
) -> Result<Reader, CliError> {
    #[derive(serde::Serialize)]
    struct Problems<'a> {
        problems: &'a [ProblemView],
    }
    output::emit(out, output, &Problems { problems }, || render_problems(problems, term.colour))
}

/// `evenkeel completions`.
pub fn completions(args: &args::CompletionsArgs, out: &mut dyn Write) -> Result<Reader, CliError> {
    // Into memory first: the generator panics when a write fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "evenkeel", &mut script);
    output::put(out, &String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests;
