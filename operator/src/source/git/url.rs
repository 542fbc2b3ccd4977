//! Repository addresses, taken apart before anything is done with them.
//!
//! Credentials in an address are moved out of it here, so that no later message, log line or
//! state file can hold them.

use std::fmt;
use std::path::PathBuf;

use crate::source::error::FetchError;
use crate::source::secret::{Secret, redact};

/// Where a repository is, without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    kind: Kind,
    /// What is given to libgit2 and shown to people.
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// On this machine: read where it lies.
    Local(PathBuf),
    /// Over HTTP; `secure` with TLS.
    Http { host: String, port: Option<u16>, secure: bool },
    /// Over ssh.
    Ssh { user: Option<String>, host: String, port: u16 },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Address {
    /// Understands paths, `file://`, `http(s)://`, `ssh://` and `user@host:path`. Gives the
    /// user and password that stood in an HTTP address apart.
    pub fn parse(text: &str) -> Result<(Self, Option<(String, Secret)>), FetchError> {
        let text = text.trim();
        let bad = |what: &str| FetchError::Config {
            what: format!("{:?} is not a repository address: {what}", redact(text)),
            hint: "write https://host/path, ssh://git@host/path, git@host:path or a path".into(),
        };
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(bad("it is empty or has control characters"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return match scp_like(text) {
                Some((user, host)) => Ok((
                    Self {
                        kind: Kind::Ssh { user, host: host.to_lowercase(), port: 22 },
                        text: text.to_owned(),
                    },
                    None,
                )),
                None => Ok((Self { kind: Kind::Local(text.into()), text: text.to_owned() }, None)),
            };
        };
        let scheme = scheme.to_ascii_lowercase();
        if scheme == "file" {
            // file://host/path is not a thing here; localhost is allowed by the standard.
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(bad("a file address needs an absolute path: file:///path"));
            }
            let path = percent_decode(path).ok_or_else(|| bad("a % without two digits"))?;
            return Ok((Self { kind: Kind::Local(path.into()), text: text.to_owned() }, None));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (userinfo, hostport) = match authority.rsplit_once('@') {
            Some((u, h)) => (Some(u), h),
            None => (None, authority),
        };
        let (host, port) = host_port(hostport).ok_or_else(|| bad("host or port"))?;
        let (user, password) = match userinfo.map(|u| u.split_once(':').unwrap_or((u, ""))) {
            None => (None, None),
            Some((u, p)) => {
                let decode = |s| percent_decode(s).ok_or_else(|| bad("a % without two digits"));
                (Some(decode(u)?), Some(decode(p)?))
            }
        };
        match scheme.as_str() {
            "http" | "https" => {
                let secure = scheme == "https";
                let found = user.map(|u| match password.filter(|p| !p.is_empty()) {
                    Some(p) => (u, Secret::new(p)),
                    // https://TOKEN@host is how many write it.
                    None => ("x-access-token".into(), Secret::new(u)),
                });
                let text = format!("{scheme}://{hostport}{path}");
                Ok((Self { kind: Kind::Http { host, port, secure }, text }, found))
            }
            "ssh" | "git+ssh" | "ssh+git" => {
                if password.is_some_and(|p| !p.is_empty()) {
                    return Err(bad("ssh takes a key or an agent, not a password"));
                }
                let at = userinfo.map(|u| format!("{u}@")).unwrap_or_default();
                let text = format!("ssh://{at}{hostport}{path}");
                Ok((Self { kind: Kind::Ssh { user, host, port: port.unwrap_or(22) }, text }, None))
            }
            _ => Err(bad("this scheme is not supported")),
        }
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// `user@host:path` or `host:path`, by git's rule: a colon before the first slash.
fn scp_like(text: &str) -> Option<(Option<String>, &str)> {
    let (front, path) = text.split_once(':')?;
    if front.contains('/') || path.is_empty() {
        return None;
    }
    let (user, host) = match front.rsplit_once('@') {
        Some((u, h)) => (Some(u.to_owned()), h),
        None => (None, front),
    };
    (!host.is_empty()).then_some((user, host))
}

/// The host in small letters and without brackets, and the port if there is one.
fn host_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
    } else {
        match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return None;
    }
    let port = match port {
        None | Some("") => None,
        Some(p) => Some(p.parse().ok()?),
    };
    Some((host.to_ascii_lowercase(), port))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let mut byte = [0];
            hex::decode_to_slice([bytes.next()?, bytes.next()?], &mut byte).ok()?;
            out.push(byte[0]);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind(text: &str) -> Kind {
        Address::parse(text).unwrap().0.kind
    }

    #[test]
    fn addresses_are_told_apart() {
        let http = |host: &str, port, secure| Kind::Http { host: host.into(), port, secure };
        let ssh = |user: Option<&str>, host: &str, port| Kind::Ssh {
            user: user.map(Into::into),
            host: host.into(),
            port,
        };
        assert_eq!(kind("https://GitHub.com/a/b.git"), http("github.com", None, true));
        assert_eq!(kind("http://[::1]:3000/a"), http("::1", Some(3000), false));
        assert_eq!(kind("ssh://git@h:2222/a"), ssh(Some("git"), "h", 2222));
        assert_eq!(kind("git@github.com:a/b.git"), ssh(Some("git"), "github.com", 22));
        assert_eq!(kind("host:a/b"), ssh(None, "host", 22));
        assert_eq!(kind("/srv/git/x"), Kind::Local("/srv/git/x".into()));
        assert_eq!(kind("./x:y"), Kind::Local("./x:y".into()));
        assert_eq!(kind("file:///srv/a%20b"), Kind::Local("/srv/a b".into()));
        for bad in ["", "https:///x", "ftp://h/x", "https://h:99999/x", "file://x", "ssh://a:b@h/x"]
        {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_leave_the_address() {
        let (a, found) = Address::parse("https://me:p%40ss@h/x.git").unwrap();
        assert_eq!(a.to_string(), "https://h/x.git");
        assert_eq!(found, Some(("me".into(), Secret::new("p@ss"))));
        let (a, found) = Address::parse("https://ghp_abc@h/x.git").unwrap();
        assert_eq!(a.to_string(), "https://h/x.git");
        assert_eq!(found, Some(("x-access-token".into(), Secret::new("ghp_abc"))));
        let error = Address::parse("gopher://me:hunter2@h/x").unwrap_err();
        assert!(!error.chain().contains("hunter2"), "{}", error.chain());
    }

    proptest! {
        #[test]
        fn any_address_is_taken_or_refused(text in ".{0,60}") {
            let _ = Address::parse(&text);
        }

        #[test]
        fn no_password_survives(scheme in "(https|http|ssh|ftp|file)", tail in "[ -~]{0,20}") {
            let text = format!("{scheme}://u:SEKRIT@{tail}");
            match Address::parse(&text) {
                Ok((a, _)) if scheme.starts_with("http") => prop_assert!(!a.to_string().contains("SEKRIT"), "{}", a),
                Ok(_) => {}
                Err(e) => prop_assert!(!e.chain().contains("SEKRIT"), "{}", e.chain()),
            }
        }
    }
}
