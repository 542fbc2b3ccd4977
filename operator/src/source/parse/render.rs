//! Problems as lines for a terminal, a log or a pull request.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::node::printable;
use crate::model::Problem;

/// Every problem as `path:line:column: message` with its hint below, in the order of the files,
/// and a last line that counts them. `root` is put before each path.
pub fn render_problems(problems: &[Problem], root: &str) -> String {
    let mut sorted: Vec<&Problem> = problems.iter().collect();
    sorted.sort();
    sorted.dedup();
    let clean = |text: &str| text.chars().flat_map(printable).collect::<String>();
    let root = match root.trim_end_matches('/') {
        "" if root.starts_with('/') => "/".to_owned(),
        "" | "." => String::new(),
        root => format!("{root}/"),
    };
    let mut out = String::new();
    for problem in &sorted {
        let Problem { path, line, column, message, hint, object: _ } = problem;
        let place = if *line == 0 { String::new() } else { format!(":{line}:{column}") };
        let path = clean(&format!("{root}{path}"));
        let _ = writeln!(out, "{path}{place}: {}", clean(message));
        if let Some(hint) = hint {
            let _ = writeln!(out, "  hint: {}", clean(hint));
        }
    }
    let files: BTreeSet<&str> = sorted.iter().map(|p| p.path.as_str()).collect();
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let _ = match sorted.len() {
        0 => writeln!(out, "no problems"),
        n => writeln!(out, "{} in {}", plural(n, "problem"), plural(files.len(), "file")),
    };
    out
}
