//! Lines that stay, and below them a few that show the present: in place on a terminal, now and then elsewhere.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::time::{Duration, Instant};

/// Between two pictures of the present where they stay.
const SELDOM: Duration = Duration::from_secs(3);
/// The widest line of the present: one that wraps could not be taken back.
const WIDTH: usize = 118;

/// Where the demo is seen.
pub(super) struct Screen {
    live: bool,
    /// Lines of the present that are on a terminal now.
    shown: usize,
    last: Instant,
}

impl Screen {
    pub(super) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { live: stdout().is_terminal() && !dumb, shown: 0, last: Instant::now() }
    }

    /// A line that stays.
    pub(super) fn say(&mut self, line: &str) {
        self.clear();
        println!("{line}");
    }

    /// What is so now, in place of what was.
    pub(super) fn now(&mut self, lines: &[String]) {
        if self.live {
            self.clear();
            for line in lines {
                println!("{}", cut(line));
            }
            self.shown = lines.len();
            let _ = stdout().flush();
        } else if self.last.elapsed() >= SELDOM {
            self.keep(lines);
        }
    }

    /// What is so now, to stay.
    pub(super) fn keep(&mut self, lines: &[String]) {
        self.last = Instant::now();
        for line in lines {
            self.say(&cut(line));
        }
    }

    /// Takes back what shows the present.
    pub(super) fn clear(&mut self) {
        if self.shown > 0 {
            // To the first of these lines, and from there nothing.
            print!("\x1b[{}F\x1b[J", self.shown);
            self.shown = 0;
        }
    }
}

/// The line, as far as it fits.
pub(super) fn cut(line: &str) -> String {
    match line.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_present_fits() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"ü".repeat(200)).chars().count(), WIDTH + 1);
    }
}
