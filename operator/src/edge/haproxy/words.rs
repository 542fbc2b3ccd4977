//! What may stand as one word in a configuration: nothing that begins another word, line or section.

use crate::model::Fragments;

/// The longest word; HAProxy's lines have room for 2048 bytes.
const LONGEST_WORD: usize = 1024;

/// Takes a text that HAProxy reads as exactly one word, whatever stands around it.
pub(super) fn word<'a>(what: &str, text: &'a str) -> Result<&'a str, String> {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\' | b'#' | b'$');
    // What begins with a dash or a brace has a meaning where patterns are expected.
    let first = text.as_bytes().first().copied();
    let fits = first.is_some_and(|b| !matches!(b, b'-' | b'{' | b'}' | b'!'))
        && text.len() <= LONGEST_WORD
        && text.bytes().all(plain);
    if fits { Ok(text) } else { Err(format!("{what} {} cannot be configured", shown(text))) }
}

/// Takes a name: letters, digits, `-`, `_` and `.`.
pub(super) fn name<'a>(what: &str, text: &'a str) -> Result<&'a str, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.bytes().all(plain) {
        word(what, text)
    } else {
        Err(format!("{what} {} cannot be configured", shown(text)))
    }
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(60).collect::<String>())
}

/// Where text of a person goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Global,
    Defaults,
    Frontend,
    Backend,
}

impl Section {
    pub(super) const ALL: [Self; 4] = [Self::Global, Self::Defaults, Self::Frontend, Self::Backend];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Defaults => "defaults",
            Self::Frontend => "frontend",
            Self::Backend => "backend",
        }
    }

    pub(super) fn of(self, fragments: &Fragments) -> Option<&str> {
        match self {
            Self::Global => fragments.global.as_deref(),
            Self::Defaults => fragments.defaults.as_deref(),
            Self::Frontend => fragments.frontend.as_deref(),
            Self::Backend => fragments.backend.as_deref(),
        }
    }
}

/// Words that begin a section: what stood behind them would no longer be where it belongs.
const SECTIONS: [&str; 18] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "userlist",
    "mailers",
    "cache",
    "program",
    "ring",
    "http-errors",
    "fcgi-app",
    "log-forward",
    "log-profile",
    "crt-store",
    "traces",
];

/// The lines of a fragment; none may begin a section or an `.if`, and none may continue on what follows.
pub(super) fn fragment(text: &str) -> Result<Vec<&str>, String> {
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let first = line.split_whitespace().next().unwrap_or_default();
        if SECTIONS.contains(&first) || first.starts_with('.') {
            return Err(format!("{} may not be in a fragment", shown(first)));
        }
        if line.ends_with('\\') || line.contains('\0') {
            return Err(format!("{} does not end with its line", shown(line)));
        }
        lines.push(line);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_word() {
        for bad in [
            "", "a b", "a\nb", "a\r", "a\tb", "\"", "a'", "a\\", "a#b", "$X", "-f", "{a", "!a",
            "é", "a\0",
        ] {
            assert!(word("host", bad).is_err(), "{bad:?} was taken");
        }
        for good in ["/", "/a%20b", "a.example.com", "/~x/{y}", "*"] {
            assert!(word("host", good).is_ok(), "{good:?} was refused");
        }
        assert!(name("cookie", "a/b").is_err() && name("cookie", "SRV_ID-1.x").is_ok());
    }

    #[test]
    fn a_fragment_stays_in_its_section() {
        assert_eq!(fragment("  maxconn 5\n\n # why\n").unwrap(), ["maxconn 5", "# why"]);
        for bad in ["maxconn 5\nbackend x", "  listen x", ".if true", "timeout \\"] {
            assert!(fragment(bad).is_err(), "{bad:?} was taken");
        }
    }
}
