//! Views as text for people. Pure: the width and whether colour is wanted are arguments.

mod plan;
mod status;

use std::fmt::Write;
use std::time::Duration;

use crate::model::Revision;

use super::redact::clean;
use super::table::Tint;
use super::view::{EventView, ProblemView, Stamp, WaitingView};

pub use plan::render_plans;
pub use status::{render_service, render_status};

/// `path:line:column: message`, or without line and column where the whole file is meant.
pub fn place(p: &ProblemView) -> String {
    if p.line == 0 {
        format!("{}: {}", p.path, p.message)
    } else {
        format!("{}:{}:{}: {}", p.path, p.line, p.column, p.message)
    }
}

/// All problems at once, each with its hint on a line of its own, and how many there are.
pub fn render_problems(problems: &[ProblemView], colour: bool) -> String {
    let mut out = String::new();
    for p in problems {
        let whole = clean(&place(p));
        let (head, message) = whole.split_at(whole.len() - clean(&p.message).len());
        let _ = writeln!(out, "{}{message}", Tint::Bold.paint(head, colour));
        if let Some(hint) = &p.hint {
            let _ = writeln!(out, "  {} {}", Tint::Cyan.paint("hint:", colour), clean(hint));
        }
    }
    if !problems.is_empty() {
        let files: std::collections::BTreeSet<_> = problems.iter().map(|p| &p.path).collect();
        let text = format!("{} in {}", many(problems.len(), "problem"), many(files.len(), "file"));
        let _ = writeln!(out, "\n{}", Tint::Red.paint(&text, colour));
    }
    out
}

/// What went wrong and what to do about it, as every command ends when it fails.
pub fn render_error(error: &str, hint: Option<&str>, colour: bool) -> String {
    let mut out = format!("{} {}\n", Tint::Red.paint("error:", colour), clean(error));
    if let Some(hint) = hint {
        let _ = writeln!(out, "{} {}", Tint::Cyan.paint("hint:", colour), clean(hint));
    }
    out
}

/// One event on one line with its moment, for those who follow.
pub fn render_event(e: &EventView, colour: bool) -> String {
    let at = Tint::Dim.paint(&e.at.to_string(), colour);
    format!("{at}  {}\n", event_text(e, colour))
}

fn event_text(e: &EventView, colour: bool) -> String {
    let kind = format!("{:16}", clean(&e.kind));
    let tint = match (e.warning, e.kind.as_str()) {
        (true, _) => Tint::Red,
        (false, "step-done" | "host-returned" | "source-recovered") => Tint::Green,
        (false, _) => Tint::Cyan,
    };
    let mut out = format!("{} {}", tint.paint(&kind, colour), clean(&e.message));
    if let Some(ms) = e.took_millis {
        let took = match ms {
            0..10_000 => format!(" ({}.{}s)", ms / 1000, ms % 1000 / 100),
            _ => format!(" ({})", age(Duration::from_millis(ms))),
        };
        out.push_str(&Tint::Dim.paint(&took, colour));
    }
    if e.count > 1 {
        let _ = write!(out, " ×{}", e.count);
    }
    out
}

fn waiting_text(w: &WaitingView, now: Stamp) -> String {
    let until = w.until.map(|u| format!(" (at most {} more)", age(u.0.since(now.0))));
    format!("{}{}", clean(&w.message), until.unwrap_or_default())
}

/// A duration in at most two units, as tables show it.
pub fn age(d: Duration) -> String {
    let s = d.as_secs();
    let (days, h, m) = (s / 86_400, s / 3600 % 24, s / 60 % 60);
    let two = |a: u64, x: &str, b: u64, y: &str| {
        if b == 0 { format!("{a}{x}") } else { format!("{a}{x}{b}{y}") }
    };
    match s {
        0..60 => format!("{s}s"),
        60..3600 => two(m, "m", s % 60, "s"),
        3600..86_400 => two(h, "h", m, "m"),
        _ => two(days, "d", h, "h"),
    }
}

fn many(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// The first ten characters of a revision's id: of a directory's, the digest and not `dir:sha256`.
fn short(revision: &str) -> String {
    clean(&Revision(revision.into()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_show_what_tells_them_apart() {
        assert_eq!(short("36c3f9714b0123456789"), "36c3f9714b");
        assert_eq!(short("dir:sha256:2499a6d78212dbb2"), "2499a6d782");
    }

    #[test]
    fn ages_have_two_units() {
        let t =
            [0, 59, 60, 754, 3600, 11_100, 90_000, 864_000].map(|s| age(Duration::from_secs(s)));
        assert_eq!(t, ["0s", "59s", "1m", "12m34s", "1h", "3h5m", "1d1h", "10d"]);
    }

    #[test]
    fn problems_come_all_at_once_with_their_hints() {
        let p = |path: &str, line, message: &str, hint: Option<&str>| ProblemView {
            path: path.into(),
            line,
            column: 3,
            message: message.into(),
            hint: hint.map(Into::into),
            object: None,
        };
        let all = [
            p("shop/web.yaml", 4, "unknown field \"replica\"", Some("did you mean \"replicas\"?")),
            p("shop/web.yaml", 9, "port 0 is not a port", None),
            p("x.yaml", 0, "is larger than 1 MiB", None),
        ];
        insta::assert_snapshot!(render_problems(&all, false), @r#"
        shop/web.yaml:4:3: unknown field "replica"
          hint: did you mean "replicas"?
        shop/web.yaml:9:3: port 0 is not a port
        x.yaml: is larger than 1 MiB

        3 problems in 2 files
        "#);
        assert_eq!(render_problems(&[], true), "");
    }
}
