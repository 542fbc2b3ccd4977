//! Credentials that must never be printed, and their removal from text that will be.

use std::fmt;

/// A password, token or key phrase. `Debug` shows nothing of it and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `value` as it is; callers that read files trim the line end first.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one call that sends or compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True where there is nothing to prove anything with.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// `text` with the userinfo of every URL in it cut out (`https://user:pw@host` becomes
/// `https://host`). The user of an `ssh://` URL goes too: over-cutting is the safe side.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        // Everything up to the last `@` before the path: passwords may hold a raw `@`.
        let end = after
            .find(|c: char| c == '/' || c.is_whitespace() || c == '\'' || c == '"')
            .unwrap_or(after.len());
        let authority = &after[..end];
        let host = authority.rfind('@').map_or(0, |i| i + 1);
        rest = &after[host..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_secret_prints_as_stars() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(***)");
    }

    #[test]
    fn userinfo_is_cut_wherever_a_url_stands() {
        for (text, want) in [
            ("https://u:pw@h/x.git", "https://h/x.git"),
            ("failed 'https://tok@h:8443': no", "failed 'https://h:8443': no"),
            ("a://x:y@b c://d@e", "a://b c://e"),
            ("https://u:p@ss@h/x@y", "https://h/x@y"),
            ("no url, only user@host", "no url, only user@host"),
            ("https://h/p?q=a@b", "https://h/p?q=a@b"),
            ("://", "://"),
        ] {
            assert_eq!(redact(text), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_password_never_survives(pw in "[a-z@:?#%é]{4,12}", host in "[a-z]{1,5}") {
            let pw = format!("SEKRIT{pw}SEKRIT");
            let out = redact(&format!("cannot open https://user:{pw}@{host}/x.git: refused"));
            prop_assert!(!out.contains("SEKRIT"), "{}", out);
        }

        #[test]
        fn any_text_is_taken(text in ".*") {
            let _ = redact(&text);
        }
    }
}
