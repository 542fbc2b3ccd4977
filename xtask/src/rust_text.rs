//! Rust source as words, without comments and literals: enough to see what a file uses.

/// `source` with every comment and every string and character literal blanked; line breaks stay.
pub(crate) fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = if let Some(end) = literal_end(source, at) {
            // A blank in its place keeps the words on both sides apart.
            out.push(' ');
            out.extend(source[at..end].chars().filter(|c| *c == '\n'));
            end
        } else {
            let next = source[at..].chars().next().map_or(1, char::len_utf8);
            out.push_str(&source[at..at + next]);
            at + next
        };
        at = end;
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `None` if none begins there.
fn literal_end(source: &str, at: usize) -> Option<usize> {
    let rest = &source[at..];
    let in_word = source[..at].chars().next_back().is_some_and(is_word);
    if rest.starts_with("//") {
        return Some(rest.find('\n').map_or(source.len(), |length| at + length));
    }
    if rest.starts_with("/*") {
        return Some(at + block_comment(rest));
    }
    if let Some(inside) = rest.strip_prefix('"') {
        return Some(at + 1 + until_quote(inside, '"'));
    }
    if !in_word && let Some(length) = raw_string(rest) {
        return Some(at + length);
    }
    if rest.starts_with('\'') {
        return character(rest).map(|length| at + length);
    }
    None
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length up to and with the closing `quote`, which a backslash can escape.
fn until_quote(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`, `br#"…"#` and the like.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('b').or_else(|| rest.strip_prefix('c')).unwrap_or(rest);
    let after = after.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let begin = rest.len() - body.len();
    let close = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&close).map_or(rest.len(), |length| begin + length + close.len()))
}

/// A character literal, as opposed to a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest[1..].chars();
    let first = chars.next()?;
    if first == '\\' {
        return Some(1 + until_quote(&rest[1..], '\''));
    }
    (chars.next()? == '\'').then(|| 1 + first.len_utf8() + 1)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The paths and plain words of [`code`] with their lines, groups taken apart:
/// `use std::{fs, net::IpAddr};` has `std::fs` and `std::net::IpAddr`.
pub(crate) fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    collect("", code, 1, &mut found);
    found
}

fn collect(prefix: &str, code: &str, first_line: usize, found: &mut Vec<(usize, String)>) {
    let mut line = first_line;
    let mut path = String::new();
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        if is_word(c) {
            taken = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            path.push_str(&rest[..taken]);
        } else if let Some(inside) = rest.strip_prefix("::{") {
            let group = &inside[..group_length(inside)];
            collect(&format!("{prefix}{path}::"), group, line, found);
            line += group.matches('\n').count();
            path.clear();
            taken = "::{".len() + group.len();
        } else if rest.starts_with("::") {
            path.push_str("::");
            taken = "::".len();
        } else {
            if !path.is_empty() {
                found.push((line, format!("{prefix}{path}")));
                path.clear();
            }
            line += usize::from(c == '\n');
        }
        rest = &rest[taken..];
    }
    if !path.is_empty() {
        found.push((line, format!("{prefix}{path}")));
    }
}

/// Whether a doc comment of `source` has a code block that rustdoc would compile.
pub(crate) fn has_example(source: &str) -> bool {
    let mut open = false;
    for line in source.lines() {
        let line = line.trim_start();
        let Some(doc) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            open = false;
            continue;
        };
        let Some(language) = doc.trim().strip_prefix("```") else { continue };
        let rust = ["", "rust", "no_run", "should_panic", "compile_fail"];
        let first = language.split(',').next().unwrap_or_default();
        if !open && rust.contains(&first.trim()) {
            return true;
        }
        open = !open;
    }
    false
}

/// Up to the brace that closes a group already open.
fn group_length(inside: &str) -> usize {
    let mut depth = 1_u32;
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    inside.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        paths(&code(source)).into_iter().map(|(_, path)| path).collect()
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        assert_eq!(words("a // tokio\nb"), ["a", "b"]);
        assert_eq!(words("a /* x /* tokio */ y */ b"), ["a", "b"]);
        assert_eq!(words(r#"a("tokio \" tokio") b"#), ["a", "b"]);
        assert_eq!(words("a r#\"tokio \" tokio\"# b"), ["a", "b"]);
        assert_eq!(words("a br\"tokio\" b"), ["a", "b"]);
        assert_eq!(words("/// tokio\n//! tokio\nfn a"), ["fn", "a"]);
        assert_eq!(words("\"unterminated tokio"), [""; 0]);
    }

    #[test]
    fn quotes_that_are_no_literals_hide_nothing() {
        assert_eq!(words("fn f<'a>(x: &'a tokio) {}"), ["fn", "f", "a", "x", "a", "tokio"]);
        assert_eq!(words("'\"' tokio '\\'' std '\\\\' fs '{'"), ["tokio", "std", "fs"]);
        assert_eq!(words("for r in x { y }"), ["for", "r", "in", "x", "y"]);
    }

    #[test]
    fn groups_are_taken_apart() {
        assert_eq!(
            words("use std::{fs, net::{IpAddr, TcpStream as T}, time};"),
            [
                "use",
                "std::fs",
                "std::net::IpAddr",
                "std::net::TcpStream",
                "std::net::as",
                "std::net::T",
                "std::time"
            ]
        );
    }

    #[test]
    fn lines_are_counted_through_all_of_it() {
        let source = "one\n/* \n */ \"\n\" four\nuse five::{\n six,\n};\neight";
        let found = paths(&code(source));
        let line = |word: &str| found.iter().find(|(_, path)| path == word).map(|(line, _)| *line);
        assert_eq!(line("one"), Some(1));
        assert_eq!(line("four"), Some(4));
        assert_eq!(line("five::six"), Some(6));
        assert_eq!(line("eight"), Some(8));
    }
}
