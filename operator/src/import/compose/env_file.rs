//! Files of variables: `NAME=value` lines, as compose reads them.

use super::interpolate::{self, Lookup};

/// The variables in the order of the file. In single quotes nothing is replaced.
pub fn read(text: &str, lookup: Lookup<'_>, unset: &mut Vec<String>) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, given) = match line.split_once('=') {
            Some((name, given)) => (name.trim_end().to_owned(), Some(given.trim_start())),
            None => (line.to_owned(), None),
        };
        let value = match given {
            // Only named: what the environment has.
            None => lookup(&name),
            Some(given) => Some(value(given, &out, lookup, unset)),
        };
        if let Some(value) = value {
            out.push((name, value));
        }
    }
    out
}

fn value(
    given: &str,
    before: &[(String, String)],
    lookup: Lookup<'_>,
    unset: &mut Vec<String>,
) -> String {
    if let Some(end) = given.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
        return end.0.to_owned();
    }
    let known = |name: &str| {
        let earlier = before.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        lookup(name).or(earlier)
    };
    if let Some(inside) = given.strip_prefix('"') {
        let mut text = String::new();
        let mut chars = inside.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => match chars.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    // It stays for whoever replaces variables.
                    Some('$') => text.push_str("$$"),
                    Some(c @ ('"' | '\\')) => text.push(c),
                    Some(c) => text.extend(['\\', c]),
                    None => {}
                },
                c => text.push(c),
            }
        }
        return interpolate::one(&text, &known, unset);
    }
    // A comment begins after a space.
    let text = given.split_once(" #").map_or(given, |(text, _)| text).trim_end();
    interpolate::one(text, &known, unset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_compose_does() {
        let text = "\u{feff}# comment\n\nA=1\nexport B = two words # comment\nC='$A # $x'\nD=\"a\\n${A}\\$\" # c\nHOME\nNOT\nE=$A$B\nF=\nG=a#b\n";
        let lookup = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        let mut unset = Vec::new();
        let all: Vec<String> =
            read(text, &lookup, &mut unset).into_iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(
            all,
            [
                "A=1",
                "B=two words",
                "C=$A # $x",
                "D=a\n1$",
                "HOME=/home/me",
                "E=1two words",
                "F=",
                "G=a#b"
            ]
        );
        assert!(unset.is_empty(), "{unset:?}");
        assert_eq!(read("A=$NO", &lookup, &mut unset), [("A".to_owned(), String::new())]);
        assert_eq!(unset, ["NO"]);
    }
}
