//! Forms of text that no schema's pattern can say: image references, endpoints, paths, networks.
//!
//! Each answers with what is wrong, and where it can with a hint.

use crate::model::Endpoint;

/// What is wrong with a text: the message and the hint.
pub(super) type Wrong = (String, Option<String>);

fn wrong<T>(message: impl Into<String>) -> Result<T, Wrong> {
    Err((message.into(), None))
}

fn wrong_so<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, Wrong> {
    Err((message.into(), Some(hint.into())))
}

/// An image reference by the grammar of `distribution/reference`, which the engine uses:
/// `[domain/]path[:tag][@digest]`.
pub(super) fn image(text: &str) -> Result<(), Wrong> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    if let Some(digest) = digest {
        let hex =
            |s: &str, n| s.len() == n && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let fits = match digest.split_once(':') {
            Some(("sha256", d)) => hex(d, 64),
            Some(("sha384", d)) => hex(d, 96),
            Some(("sha512", d)) => hex(d, 128),
            _ => false,
        };
        if !fits {
            return wrong_so(
                "the image's digest is malformed",
                "a digest is sha256: and 64 hexadecimal digits in lower case",
            );
        }
    }
    // A colon after the last slash is a tag; before it, a port.
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    if let Some(tag) = tag {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let fits = tag.len() <= 128
            && tag.bytes().next().is_some_and(word)
            && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if !fits {
            return wrong_so(
                "the image's tag is malformed",
                "a tag is letters, digits, '_', '.' and '-', at most 128, not beginning with '.' or '-'",
            );
        }
    }
    let is_domain = |s: &str| {
        s.contains(['.', ':']) || s == "localhost" || s.bytes().any(|b| b.is_ascii_uppercase())
    };
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_domain(first) => (Some(first), rest),
        _ => (None, name),
    };
    if let Some(domain) = domain {
        let (host, port) = match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        };
        if !host.split('.').all(is_host_part) || port.is_some_and(|p| !is_port(p)) {
            return wrong("the image's registry is not a host name with an optional port");
        }
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return wrong_so(
            "the image's repository must be in lower case",
            format!("write {}", text.replacen(path, &path.to_lowercase(), 1)),
        );
    }
    if name.len() > 255 || path.is_empty() || !path.split('/').all(is_image_part) {
        return wrong_so(
            "the image's repository is malformed",
            "parts between '/' are lower-case letters and digits, joined by '.', '_', '__' or '-'",
        );
    }
    let hex = path.len() == 64 && path.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if domain.is_none() && hex {
        return wrong_so("an image id is not an image that hosts can pull", "name a repository");
    }
    Ok(())
}

fn is_image_part(part: &str) -> bool {
    let mut rest = part;
    loop {
        let word = rest.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()));
        let Some(end) = word else { return !rest.is_empty() };
        if end == 0 {
            return false;
        }
        rest = &rest[end..];
        let dashes = rest.len() - rest.trim_start_matches('-').len();
        rest = if dashes > 0 {
            &rest[dashes..]
        } else if let Some(rest) = rest.strip_prefix("__").or_else(|| rest.strip_prefix(['_', '.']))
        {
            rest
        } else {
            return false;
        };
    }
}

fn is_host_part(part: &str) -> bool {
    let inner = part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    inner && !part.is_empty() && !part.starts_with('-') && !part.ends_with('-')
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|p| p > 0)
}

/// A path inside or outside a container. A file of the agent's own is judged alike.
pub(super) fn path(text: &str) -> Result<(), Wrong> {
    if !text.starts_with('/') {
        return wrong("must be an absolute path");
    }
    if text.split('/').any(|part| part == "..") {
        return wrong_so("may not hold \"..\"", "write the path that is meant");
    }
    if text.chars().any(char::is_control) {
        return wrong("may not hold control characters");
    }
    Ok(())
}

/// A path without what does not matter: `//`, `/./` and a slash at the end.
pub(super) fn tidy_path(text: &str) -> String {
    let parts: Vec<&str> = text.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    format!("/{}", parts.join("/"))
}

/// A network that an instance can join. The engine reserves some names:
/// * `host` has no published ports of its own: two instances would fight for one port;
/// * `none` leaves an instance that nothing can reach;
/// * `default` is another name of `bridge`, which stands alone (see the lowering).
pub(super) fn network(text: &str) -> Result<(), Wrong> {
    match text {
        "host" => wrong_so(
            "the network host cannot be used: instances on one host would share its ports",
            "publish ports instead",
        ),
        "none" => wrong("the network none cannot be used: nothing could reach the instances"),
        "default" => {
            wrong_so("the network default cannot be used", "write bridge, or leave networks out")
        }
        "ingress" => wrong("the network ingress belongs to swarm mode"),
        "." | ".." => wrong("not a network name"),
        _ => Ok(()),
    }
}

/// `unix:///path`, `tcp://host:port` or `ssh://[user@]host[:port]`; TLS is added by the caller.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, Wrong> {
    if let Some(socket) = text.strip_prefix("unix://") {
        path(socket)?;
        return Ok(Endpoint::Unix { path: tidy_path(socket) });
    }
    if let Some(authority) = text.strip_prefix("tcp://") {
        if authority.contains('@') {
            return wrong_so("a tcp endpoint takes no user", "use tls, or ssh://user@host");
        }
        let Some((host, port)) = authority.rsplit_once(':') else {
            return wrong_so(
                "the endpoint has no port",
                "write tcp://host:2376, or 2375 without TLS",
            );
        };
        if !is_host(host) || !is_port(port) {
            return wrong("the endpoint is not tcp://host:port");
        }
        return Ok(Endpoint::Tcp { authority: authority.to_lowercase(), tls: None });
    }
    if let Some(authority) = text.strip_prefix("ssh://") {
        let (user, rest) = match authority.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, authority),
        };
        if user.is_some_and(|u| u.contains(':')) {
            return wrong_so("the endpoint holds a password", "let ssh log in with a key");
        }
        // A leading '-' would be an option of ssh's.
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'$');
        let user_fits =
            user.is_none_or(|u| !u.is_empty() && !u.starts_with('-') && u.bytes().all(word));
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (rest, None),
        };
        if !user_fits || !is_host(host) || port.is_some_and(|p| !is_port(p)) {
            return wrong("the endpoint is not ssh://[user@]host[:port]");
        }
        return Ok(Endpoint::Ssh { authority: authority.to_owned() });
    }
    wrong("expected unix:///path, tcp://host:port or ssh://[user@]host[:port]")
}

/// A host name or address as it stands in a URL. `_` is not of DNS, but ssh configurations have it.
fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    text.len() <= 253 && text.split('.').all(|part| is_host_part(&part.replace('_', "0")))
}

/// The authority of the engine, by which two hosts are found to be one.
pub(super) fn engine(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Unix { path } => format!("unix://{path}"),
        Endpoint::Tcp { authority, .. } => format!("tcp://{authority}"),
        Endpoint::Ssh { authority } => format!("ssh://{authority}"),
        Endpoint::Marathon => "marathon".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_references_are_those_of_the_engine() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for good in [
            "nginx",
            "nginx:1.28",
            "library/nginx",
            "registry.example:5000/simple-server:1.4.2",
            "localhost/a",
            "localhost:5000/a/b:c",
            "a__b/c--d/e.f_g:X",
            "EXAMPLE/a",
            &digest,
        ] {
            assert_eq!(image(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", "repository is malformed"),
            ("Nginx:1", "lower case"),
            ("a/B", "lower case"),
            ("nginx:", "tag"),
            ("nginx:-a", "tag"),
            ("a b", "repository"),
            ("a/../b", "repository"),
            ("a//b", "repository"),
            ("-a", "repository"),
            ("a_", "repository"),
            ("a___b", "repository"),
            ("a@sha256:12", "digest"),
            ("a@", "digest"),
            ("x.y:99999/a", "registry"),
            ("https://a/b", "registry"),
            (&"0".repeat(64), "image id"),
        ] {
            let (message, _) = image(bad).expect_err(bad);
            assert!(message.contains(why), "{bad}: {message}");
        }
    }

    #[test]
    fn endpoints_cannot_smuggle_options_or_passwords() {
        for good in [
            "unix:///var/run/docker.sock",
            "tcp://10.0.0.1:2376",
            "tcp://[::1]:2376",
            "ssh://h3",
            "ssh://root@h3:22",
            "ssh://my_user@bastion_1",
        ] {
            endpoint(good).expect(good);
        }
        for bad in [
            "http://h",
            "tcp://h",
            "tcp://u:p@h:1",
            "tcp://h:0",
            "tcp://h:70000",
            "tcp://:2376",
            "ssh://-oProxyCommand=x",
            "ssh://-u@h",
            "ssh://u:p@h",
            "ssh://a@b@h",
            "ssh://",
            "unix:///a/../b",
            "unix://a",
        ] {
            endpoint(bad).expect_err(bad);
        }
    }
}
