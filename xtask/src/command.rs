//! Running other programs, in the open: what is run is printed unless it only asks a question.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A program to run.
pub(crate) struct Run {
    command: Command,
    shown: String,
}

/// `run("git").args(["status"])`.
pub(crate) fn run(program: &str) -> Run {
    Run { command: Command::new(program), shown: program.to_owned() }
}

/// Cargo, the very one that runs us.
pub(crate) fn cargo() -> Run {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Run { command: Command::new(cargo), shown: "cargo".to_owned() }
}

impl Run {
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        let arg = arg.as_ref();
        self.shown.push(' ');
        self.shown.push_str(&quoted(&arg.to_string_lossy()));
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.shown = format!("{name}={} {}", quoted(value), self.shown);
        self.command.env(name, value);
        self
    }

    pub(crate) fn within(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Shows the command, lets it speak for itself, and fails if it does.
    pub(crate) fn go(mut self) -> Result<()> {
        println!("$ {}", self.shown);
        let status =
            self.command.status().with_context(|| format!("cannot run `{}`", self.shown))?;
        if !status.success() {
            bail!("`{}` failed ({status})", self.shown);
        }
        Ok(())
    }

    /// What it says on standard output, without the line end.
    pub(crate) fn read(self) -> Result<String> {
        self.feed(&[])
    }

    /// The same, with `input` on its standard input.
    pub(crate) fn feed(mut self, input: &[u8]) -> Result<String> {
        let doing = || format!("cannot run `{}`", self.shown);
        let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(doing)?;
        // Nothing that is fed here writes much before it has read everything, so no pipe fills up meanwhile.
        let fed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input));
        let output = child.wait_with_output().with_context(doing)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`{}` failed ({}): {}", self.shown, output.status, said.trim());
        }
        fed.with_context(doing)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Feeds this program's output to `next`, as a shell's pipe does.
    pub(crate) fn pipe(mut self, mut next: Self) -> Result<()> {
        println!("$ {} | {}", self.shown, next.shown);
        self.command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut first =
            self.command.spawn().with_context(|| format!("cannot run `{}`", self.shown))?;
        if let Some(stdout) = first.stdout.take() {
            next.command.stdin(stdout);
        }
        let second = next.command.status();
        let first = first.wait()?;
        let second = second.with_context(|| format!("cannot run `{}`", next.shown))?;
        if !first.success() || !second.success() {
            bail!("`{} | {}` failed ({first}, {second})", self.shown, next.shown);
        }
        Ok(())
    }

    /// Whether it can be run and succeeds; it is not heard.
    pub(crate) fn succeeds(mut self) -> bool {
        let quiet = self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }

    /// The command itself, for what outlives us.
    pub(crate) fn into_command(self) -> Command {
        println!("$ {} &", self.shown);
        self.command
    }
}

/// Whether a program of this name is on the `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// As a shell would take it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%{}".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_when_a_shell_needs_it() {
        assert_eq!(quoted("tcp://10.77.0.11:2375"), "tcp://10.77.0.11:2375");
        assert_eq!(quoted(r#"CMD ["a"]"#), r#"'CMD ["a"]'"#);
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn failures_tell_what_was_run_and_what_it_said() {
        let error = run("sh").args(["-c", "echo no >&2; exit 3"]).read().unwrap_err().to_string();
        assert!(
            error.contains("`sh -c 'echo no >&2; exit 3'` failed (exit status: 3): no"),
            "{error}"
        );
        let error = run("no-such-program").read().unwrap_err().to_string();
        assert_eq!(error, "cannot run `no-such-program`");
    }

    #[test]
    fn input_goes_in_and_output_comes_out() {
        assert_eq!(run("cat").feed(b"keel\n").unwrap(), "keel");
    }

    #[test]
    fn both_ends_of_a_pipe_may_fail() {
        let sh = |line: &str| run("sh").args(["-c", line]);
        sh("echo keel").pipe(sh("grep -q keel")).unwrap();
        assert!(sh("exit 1").pipe(sh("cat")).is_err());
        assert!(sh("true").pipe(sh("exit 1")).is_err());
    }
}
