//! What goes to standard output, so that a reader who went away is no error.

use std::ffi::OsStr;
use std::io::{self, Write};

use serde::Serialize;

use super::CliError;
use super::args::{Output, When};

/// What is known of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Whether colour is wanted.
    pub colour: bool,
    /// Whether a person looks at it.
    pub interactive: bool,
    /// Columns; as many as you like where nobody looks.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Terminal {
    /// What standard output is.
    pub fn stdout(when: When) -> Self {
        use io::IsTerminal;
        let out = io::stdout();
        let interactive = out.is_terminal();
        let (width, height) = match terminal_size::terminal_size_of(&out) {
            Some((w, h)) if interactive => (usize::from(w.0).max(20), usize::from(h.0).max(5)),
            _ => (usize::MAX / 2, 24),
        };
        Self { colour: colour(when, interactive), interactive, width, height }
    }
}

/// Whether standard error takes colour.
pub fn stderr_colour(when: When) -> bool {
    use io::IsTerminal;
    colour(when, io::stderr().is_terminal())
}

fn colour(when: When, interactive: bool) -> bool {
    let no_color = std::env::var_os("NO_COLOR");
    let term = std::env::var_os("TERM");
    decide(when, interactive, no_color.as_deref(), term.as_deref())
}

/// <https://no-color.org>: set to anything but nothing. A dumb terminal takes none either.
fn decide(when: When, interactive: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            interactive
                && no_color.is_none_or(OsStr::is_empty)
                && term.is_none_or(|t| t != OsStr::new("dumb"))
        }
    }
}

/// Whether somebody still reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Reader {
    /// Yes.
    There,
    /// The pipe is closed, as `head` does: nothing more needs to be written, and nothing is wrong.
    Gone,
}

/// Writes text and flushes it.
pub fn put(out: &mut dyn Write, text: &str) -> Result<Reader, CliError> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(e) => Err(CliError::new(format!("write the output: {e}"))),
    }
}

/// Writes a value as asked: for people, or as one JSON or YAML document.
pub fn emit(
    out: &mut dyn Write,
    output: Output,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<Reader, CliError> {
    let failed = |e: String| CliError::new(format!("write the output: {e}"));
    let text = match output {
        Output::Text => text(),
        Output::Json => {
            serde_json::to_string_pretty(value).map_err(|e| failed(e.to_string()))? + "\n"
        }
        Output::Yaml => serde_yaml::to_string(value).map_err(|e| failed(e.to_string()))?,
    };
    put(out, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_that_take_it() {
        let s = |v: &'static str| Some(OsStr::new(v));
        assert!(decide(When::Auto, true, None, s("xterm")));
        assert!(decide(When::Auto, true, s(""), None), "set to nothing is not set");
        assert!(!decide(When::Auto, true, s("1"), s("xterm")));
        assert!(!decide(When::Auto, true, None, s("dumb")));
        assert!(!decide(When::Auto, false, None, s("xterm")));
        assert!(decide(When::Always, false, s("1"), s("dumb")));
        assert!(!decide(When::Never, true, None, None));
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_and_a_full_disk_is() {
        struct Broken(io::ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(put(&mut Broken(io::ErrorKind::BrokenPipe), "x").unwrap(), Reader::Gone);
        assert!(put(&mut Broken(io::ErrorKind::StorageFull), "x").is_err());
    }
}
