//! What may stand in nginx's configuration as one word. Names come validated; this is the last line before the file.

/// Whether nginx reads `text` as one word that means itself.
pub(super) fn plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !"\"'`{};$\\#".contains(c))
}

/// Why a route's host or path cannot be written, if so.
pub(super) fn unfit(host: Option<&str>, path: &str) -> Option<String> {
    if let Some(host) = host {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(letters) {
            return Some(format!("host {host:?} cannot be written for nginx"));
        }
    }
    if !path.starts_with('/') || !plain(path) {
        return Some(format!("path {path:?} cannot be written for nginx"));
    }
    // nginx compares with the request's path after decoding it and merging its slashes.
    if path.contains('%') {
        return Some(format!("path {path:?} is encoded, and nginx compares paths decoded"));
    }
    if path.contains("//") {
        return Some(format!("path {path:?} has an empty segment, which nginx never sees"));
    }
    None
}

/// What a person's fragment says at its own level: the first word of each statement. An error if it does not end
/// where it should, because nginx would then blame what follows.
pub(super) fn statements(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut depth = 0_u32;
    let mut word = String::new();
    let mut fresh = true;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '#' if word.is_empty() => while chars.next_if(|c| *c != '\n').is_some() {},
            '"' | '\'' if word.is_empty() => {
                quoted(&mut chars, c)?;
                word.push(c);
            }
            '\\' => {
                word.push(c);
                word.extend(chars.next());
            }
            // `${name}` is one word.
            '{' if word.ends_with('$') => {
                word.push(c);
                while let Some(c) = chars.next_if(|c| !"}\n;".contains(*c)) {
                    word.push(c);
                }
                word.extend(chars.next_if_eq(&'}'));
            }
            ';' | '{' | '}' => {
                note(&mut words, &mut word, &mut fresh, depth);
                let idle = fresh;
                fresh = true;
                match c {
                    '{' if idle => return Err("it has a `{` that nothing stands before".into()),
                    '{' => depth += 1,
                    ';' if idle => return Err("it has a `;` that nothing stands before".into()),
                    '}' if !idle => return Err("it lacks a `;` before a `}`".into()),
                    '}' => depth = depth.checked_sub(1).ok_or("it has a `}` too many")?,
                    _ => {}
                }
            }
            c if c.is_whitespace() => note(&mut words, &mut word, &mut fresh, depth),
            c => word.push(c),
        }
    }
    note(&mut words, &mut word, &mut fresh, depth);
    match (depth, fresh) {
        (0, true) => Ok(words),
        (0, false) => Err("it lacks a `;` at its end".into()),
        _ => Err("it lacks a `}`".into()),
    }
}

/// A word has ended: the first of a statement at the fragment's own level is kept.
fn note(words: &mut Vec<String>, word: &mut String, fresh: &mut bool, depth: u32) {
    if word.is_empty() {
        return;
    }
    let word = std::mem::take(word);
    if std::mem::take(fresh) && depth == 0 {
        words.push(word);
    }
}

fn quoted(chars: &mut impl Iterator<Item = char>, end: char) -> Result<(), String> {
    loop {
        match chars.next() {
            None => return Err(format!("it lacks a closing {end}")),
            Some('\\') => drop(chars.next()),
            Some(c) if c == end => return Ok(()),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_word() {
        for good in ["web.8080", "/a/b~c", "10.0.0.1:80"] {
            assert!(plain(good), "{good}");
        }
        for bad in ["", "a b", "a\nb", "a;", "{", "}", "$x", "\"", "'", "\\", "#", "é", "\t"] {
            assert!(!plain(bad), "{bad:?}");
        }
        assert_eq!(unfit(Some("app-test"), "/"), None);
        assert_eq!(unfit(Some("*.example.com"), "/a"), None);
        assert_eq!(unfit(None, "/a,b"), None);
        for host in ["a b", "a\n", "~x", ".a", "a.*", "A", "", "*.", "a;b", "*"] {
            assert!(unfit(Some(host), "/").is_some(), "{host:?}");
        }
        for path in ["", "a", "/a b", "/a;", "/$x", "/%41", "/a//b", "/{"] {
            assert!(unfit(None, path).is_some(), "{path:?}");
        }
    }

    #[test]
    fn a_fragment_says_what_it_sets_at_its_own_level() {
        let words = |text| statements(text).unwrap();
        assert_eq!(words("  # a { comment\n"), Vec::<String>::new());
        assert_eq!(words("a 1; b \"x;}\" '{';\nc { d 2; } e;"), ["a", "b", "c", "e"]);
        assert_eq!(words("set $x ${y}z; if ($x ~ \"^a\\\"{2}\") { return 403; }"), ["set", "if"]);
    }

    #[test]
    fn a_fragment_ends_where_it_should() {
        let error = |text| statements(text).unwrap_err();
        assert_eq!(error("gzip on"), "it lacks a `;` at its end");
        assert_eq!(error("a { b 1;"), "it lacks a `}`");
        assert_eq!(error("a 1; } server {"), "it has a `}` too many");
        assert_eq!(error("a { b }"), "it lacks a `;` before a `}`");
        assert_eq!(error("a \"b;"), "it lacks a closing \"");
        assert_eq!(error(";"), "it has a `;` that nothing stands before");
        assert_eq!(error("{ a; }"), "it has a `{` that nothing stands before");
    }
}
