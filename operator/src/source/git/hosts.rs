//! Whose ssh host key is this? OpenSSH's `known_hosts`, read and judged by ourselves.
//!
//! libgit2 looks only into the home directory's file and tells its callback neither the port
//! nor why it did not match. Never trusts a host on first use.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// Largest `known_hosts` file read, bytes.
pub(super) const MAX_BYTES: u64 = 4 << 20;

/// What the known hosts say of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This host has this key.
    Known,
    /// The host is known with other keys; their types.
    Changed(Vec<String>),
    /// The key is marked `@revoked`.
    Revoked,
    /// No line names this host.
    Unknown,
}

/// Judges `key` (the raw public key as ssh sends it) of `host`:`port` by the lines of `files`.
/// Lines that cannot be read are passed over, as OpenSSH does; a line never makes a host less
/// known, apart from `@revoked`, which wins over everything.
pub(super) fn judge(files: &[String], host: &str, port: u16, key: &[u8]) -> Verdict {
    let names = if port == 22 {
        vec![host.to_lowercase(), format!("[{}]:22", host.to_lowercase())]
    } else {
        vec![format!("[{}]:{port}", host.to_lowercase())]
    };
    let mut known = false;
    let mut others = Vec::new();
    for line in files.iter().flat_map(|f| f.lines()) {
        let mut words = line.split_ascii_whitespace().peekable();
        let marker = words.next_if(|w| w.starts_with('@'));
        let (Some(patterns), Some(kind), Some(data)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if patterns.starts_with('#') || !names.iter().any(|n| matches(patterns, n)) {
            continue;
        }
        let Ok(listed) = BASE64.decode(data).or_else(|_| STANDARD_NO_PAD.decode(data)) else {
            continue;
        };
        match marker {
            None if listed == key => known = true,
            None => others.push(kind.to_owned()),
            Some("@revoked") if listed == key => return Verdict::Revoked,
            // Certificates are not supported by libssh2, so an authority proves nothing here.
            Some(_) => {}
        }
    }
    others.sort();
    others.dedup();
    match (known, others.is_empty()) {
        (true, _) => Verdict::Known,
        (false, true) => Verdict::Unknown,
        (false, false) => Verdict::Changed(others),
    }
}

/// Does the first word of a line name `host`? Hashed, or a list of patterns of which none that
/// is negated may match.
fn matches(patterns: &str, host: &str) -> bool {
    if let Some(hashed) = patterns.strip_prefix("|1|") {
        return hash_matches(hashed, host).unwrap_or(false);
    }
    let mut found = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(not) if glob(not.to_lowercase().as_bytes(), host.as_bytes()) => return false,
            None if glob(pattern.to_lowercase().as_bytes(), host.as_bytes()) => found = true,
            Some(_) | None => {}
        }
    }
    found
}

/// `<base64 salt>|<base64 HMAC-SHA1 of the host under it>`
fn hash_matches(hashed: &str, host: &str) -> Option<bool> {
    let (salt, sum) = hashed.split_once('|')?;
    let (salt, sum) = (BASE64.decode(salt).ok()?, BASE64.decode(sum).ok()?);
    let mut mac = Hmac::<Sha1>::new_from_slice(&salt).ok()?;
    mac.update(host.as_bytes());
    Some(mac.verify_slice(&sum).is_ok())
}

/// `*` and `?`, in time proportional to pattern times text whatever they hold.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// As `ssh-keygen -lf` writes it.
pub(super) fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(host: &str, key: &[u8]) -> String {
        format!("{host} ssh-ed25519 {}\n", BASE64.encode(key))
    }

    fn judged(text: &str, host: &str, port: u16, key: &[u8]) -> Verdict {
        judge(&[text.to_owned()], host, port, key)
    }

    #[test]
    fn plain_lines() {
        let file = format!("# a note\n\n{}garbage\n{}", line("h,10.0.0.1", b"k"), line("o", b"x"));
        assert_eq!(judged(&file, "H", 22, b"k"), Verdict::Known);
        assert_eq!(judged(&file, "10.0.0.1", 22, b"k"), Verdict::Known);
        assert_eq!(judged(&file, "h", 22, b"z"), Verdict::Changed(vec!["ssh-ed25519".into()]));
        assert_eq!(judged(&file, "else", 22, b"k"), Verdict::Unknown);
        assert_eq!(judged(&file, "h", 2222, b"k"), Verdict::Unknown);
        assert_eq!(judged(&line("[h]:2222", b"k"), "h", 2222, b"k"), Verdict::Known);
        assert_eq!(judged(&line("[h]:2222", b"k"), "h", 22, b"k"), Verdict::Unknown);
    }

    #[test]
    fn patterns_and_negation() {
        let file = line("*.example.com,!bad.example.com", b"k");
        assert_eq!(judged(&file, "git.example.com", 22, b"k"), Verdict::Known);
        assert_eq!(judged(&file, "bad.example.com", 22, b"k"), Verdict::Unknown);
        assert_eq!(judged(&line("h?", b"k"), "h1", 22, b"k"), Verdict::Known);
    }

    #[test]
    fn revoked_wins_and_authorities_prove_nothing() {
        let file = format!("{}@revoked {}", line("h", b"k"), line("*", b"k"));
        assert_eq!(judged(&file, "h", 22, b"k"), Verdict::Revoked);
        let file = format!("@cert-authority {}", line("h", b"k"));
        assert_eq!(judged(&file, "h", 22, b"k"), Verdict::Unknown);
    }

    /// From ssh(1)'s own hashing: `ssh-keygen -H` over `github.com`, salt and sum recomputed.
    #[test]
    fn hashed_lines() {
        let salt = [7u8; 20];
        let mut mac = Hmac::<Sha1>::new_from_slice(&salt).unwrap();
        mac.update(b"[h]:2222");
        let sum = BASE64.encode(mac.finalize().into_bytes());
        let file = line(&format!("|1|{}|{sum}", BASE64.encode(salt)), b"k");
        assert_eq!(judged(&file, "h", 2222, b"k"), Verdict::Known);
        assert_eq!(judged(&file, "h", 22, b"k"), Verdict::Unknown);
    }

    #[test]
    fn fingerprints_are_as_ssh_keygen_writes_them() {
        // GitHub's published ed25519 key and fingerprint.
        let key = BASE64
            .decode("AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl")
            .unwrap();
        assert_eq!(fingerprint(&key), "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_key_known_by_accident(text in "[ -~\n|@*!,]{0,200}") {
            prop_assert_ne!(judged(&text, "host.example", 22, b"a key of some length"), Verdict::Known);
        }

        #[test]
        fn stars_do_not_explode(p in "[*a]{0,60}", t in "a{0,200}") {
            let _ = glob(p.as_bytes(), t.as_bytes());
        }
    }
}
