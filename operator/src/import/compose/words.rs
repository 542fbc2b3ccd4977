//! A command line as compose takes it apart: words, quotes and backslashes, and nothing else of a shell.

/// The words; `None` where a quote is not closed.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some('"'), '\\') => {
                let next = chars.next()?;
                // Within quotes it stands for itself in front of most.
                if !matches!(next, '"' | '\\' | '$' | '`') {
                    word.get_or_insert_default().push('\\');
                }
                word.get_or_insert_default().push(next);
            }
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    quote.is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart_as_a_shell_does() {
        for (line, expect) in [
            ("web  --port 80", vec!["web", "--port", "80"]),
            ("sh -c 'echo \"a  b\"'", vec!["sh", "-c", "echo \"a  b\""]),
            ("a\\ b \"c\\\"d\" \"e\\n\"", vec!["a b", "c\"d", "e\\n"]),
            ("'' \"\"x''", vec!["", "x"]),
            ("  ", vec![]),
            ("a;b|c $X", vec!["a;b|c", "$X"]),
        ] {
            assert_eq!(words(line).unwrap(), expect, "{line}");
        }
        assert_eq!(words("it's"), None);
        assert_eq!(words("\"a\\"), None);
    }
}
