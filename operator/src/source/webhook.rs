//! Is this caller allowed to ring the doorbell? Pure checks of webhook signatures.
//!
//! A ring carries no data and causes one fetch, so a replayed delivery is harmless and no
//! timestamp is judged. Nothing is read from a body before its sender has proved the secret,
//! and no comparison gives away by its duration how much of a guess was right.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::secret::Secret;

/// Largest body read before it is refused, bytes. GitHub sends up to 25 MB, but a push event
/// is a few KiB, and all that is done with it is the sum.
pub const MAX_BODY: usize = 1 << 20;

/// Who rang, by the header that proved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// `X-Hub-Signature-256: sha256=<hex>`
    GitHub,
    /// `X-Gitlab-Token: <secret>`
    GitLab,
    /// `webhook-signature: v1,<base64>` over `id.timestamp.body` (Standard Webhooks; GitLab's
    /// signing token is this)
    Standard,
    /// `X-Gitea-Signature: <hex>`
    Gitea,
    /// `X-Forgejo-Signature: <hex>`
    Forgejo,
    /// `X-Hub-Signature: sha256=<hex>`
    Bitbucket,
    /// `X-Signature-256` or `X-Signature`: `sha256=<hex>`
    Generic,
}

impl Provider {
    /// A closed set of words, for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Standard => "standard-webhooks",
            Self::Gitea => "gitea",
            Self::Forgejo => "forgejo",
            Self::Bitbucket => "bitbucket",
            Self::Generic => "generic",
        }
    }
}

/// Why a ring was refused. Says nothing that helps a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No secret is configured, so nobody can prove anything.
    #[error("no webhook secret is configured")]
    NoSecret,
    /// More than [`MAX_BODY`] bytes.
    #[error("the body is too large")]
    TooLarge,
    /// None of the known headers is there.
    #[error("the request is not signed")]
    Unsigned,
    /// A signature is there that we do not take: SHA-1, or not what its header should hold.
    #[error("the signature is not one we understand")]
    Malformed,
    /// The signature or token does not match.
    #[error("the signature does not match")]
    Mismatch,
}

/// Checks one delivery. `header` looks a name up without regard to case, as every HTTP library
/// does; where a header came twice it gives the first.
///
/// Forgejo also sends Gitea's and GitHub's headers, and Gitea GitHub's, so the order is from the
/// particular to the general. Only the first header found counts: a wrong signature is not
/// rescued by another one.
pub fn verify<'h>(
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    secret: &Secret,
) -> Result<Provider, Refused> {
    if secret.is_empty() {
        return Err(Refused::NoSecret);
    }
    if body.len() > MAX_BODY {
        return Err(Refused::TooLarge);
    }
    let key = secret.expose().as_bytes();
    let bare = [("X-Forgejo-Signature", Provider::Forgejo), ("X-Gitea-Signature", Provider::Gitea)];
    for (name, provider) in bare {
        if let Some(value) = header(name) {
            return hex_matches(key, body, value.trim()).map(|()| provider);
        }
    }
    let prefixed = [
        ("X-Hub-Signature-256", Provider::GitHub),
        ("X-Hub-Signature", Provider::Bitbucket),
        ("X-Signature-256", Provider::Generic),
        ("X-Signature", Provider::Generic),
    ];
    for (name, provider) in prefixed {
        if let Some(value) = header(name) {
            let hex = value.trim().strip_prefix("sha256=").ok_or(Refused::Malformed)?;
            return hex_matches(key, body, hex).map(|()| provider);
        }
    }
    if let Some(value) = header("webhook-signature") {
        let id = header("webhook-id").ok_or(Refused::Malformed)?;
        let timestamp = header("webhook-timestamp").ok_or(Refused::Malformed)?;
        return standard(secret, id, timestamp, body, value).map(|()| Provider::Standard);
    }
    if let Some(token) = header("X-Gitlab-Token") {
        // Compared through a MAC of each, which takes as long whatever they hold.
        let expected = mac(key, &[key])?.finalize().into_bytes();
        return mac(key, &[token.as_bytes()])?
            .verify_slice(&expected)
            .map(|()| Provider::GitLab)
            .map_err(|_| Refused::Mismatch);
    }
    Err(Refused::Unsigned)
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Result<Hmac<Sha256>, Refused> {
    // HMAC takes a key of any length; the type only cannot say so.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| Refused::NoSecret)?;
    for part in parts {
        mac.update(part);
    }
    Ok(mac)
}

fn hex_matches(key: &[u8], body: &[u8], signature: &str) -> Result<(), Refused> {
    let signature = hex::decode(signature).map_err(|_| Refused::Malformed)?;
    if signature.len() != 32 {
        return Err(Refused::Malformed);
    }
    mac(key, &[body])?.verify_slice(&signature).map_err(|_| Refused::Mismatch)
}

/// <https://www.standardwebhooks.com>: `v1,<base64>`, several separated by spaces while a key is
/// being changed; the key is `whsec_<base64>`, or taken as it is.
fn standard(
    secret: &Secret,
    id: &str,
    timestamp: &str,
    body: &[u8],
    value: &str,
) -> Result<(), Refused> {
    let key = match secret.expose().strip_prefix("whsec_") {
        Some(encoded) => BASE64.decode(encoded).map_err(|_| Refused::Malformed)?,
        None => secret.expose().as_bytes().to_vec(),
    };
    if key.is_empty() {
        return Err(Refused::NoSecret);
    }
    let mut understood = false;
    for one in value.split_ascii_whitespace().take(8) {
        let Some(signature) = one.strip_prefix("v1,").and_then(|s| BASE64.decode(s).ok()) else {
            continue;
        };
        understood = true;
        let mac = mac(&key, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body])?;
        if mac.verify_slice(&signature).is_ok() {
            return Ok(());
        }
    }
    Err(if understood { Refused::Mismatch } else { Refused::Malformed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(headers: &[(&str, &str)], body: &[u8], secret: &str) -> Result<Provider, Refused> {
        let find = |name: &str| {
            headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v)
        };
        verify(find, body, &Secret::new(secret))
    }

    /// The example in GitHub's "Validating webhook deliveries".
    const GITHUB: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    const KEY: &str = "It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";

    #[test]
    fn github_as_documented() {
        let header = format!("sha256={GITHUB}");
        assert_eq!(with(&[("x-hub-signature-256", &header)], BODY, KEY), Ok(Provider::GitHub));
        let upper = format!("sha256={}", GITHUB.to_uppercase());
        assert_eq!(with(&[("x-hub-signature-256", &upper)], BODY, KEY), Ok(Provider::GitHub));
        let r = with(&[("x-hub-signature-256", &header)], b"Hello, World?", KEY);
        assert_eq!(r, Err(Refused::Mismatch));
        let r = with(&[("x-hub-signature-256", GITHUB)], BODY, KEY);
        assert_eq!(r, Err(Refused::Malformed));
    }

    #[test]
    fn the_other_providers() {
        let prefixed = format!("sha256={GITHUB}");
        for (name, value, want) in [
            ("X-Gitea-Signature", GITHUB, Provider::Gitea),
            ("X-Forgejo-Signature", GITHUB, Provider::Forgejo),
            ("X-Hub-Signature", &prefixed, Provider::Bitbucket),
            ("X-Signature-256", &prefixed, Provider::Generic),
            ("X-Signature", &prefixed, Provider::Generic),
            ("X-Gitlab-Token", KEY, Provider::GitLab),
        ] {
            assert_eq!(with(&[(name, value)], BODY, KEY), Ok(want), "{name}");
            assert_eq!(with(&[(name, value)], BODY, "other"), Err(Refused::Mismatch), "{name}");
            let r = with(&[(name, value)], BODY, "");
            assert_eq!(r, Err(Refused::NoSecret), "{name}");
        }
    }

    /// The test vector of the Standard Webhooks reference libraries.
    #[test]
    fn standard_webhooks_as_documented() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = br#"{"test": 2432232314}"#;
        let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let headers = |sig| {
            [
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                ("webhook-timestamp", "1614265330"),
                ("webhook-signature", sig),
            ]
        };
        assert_eq!(with(&headers(good), body, secret), Ok(Provider::Standard));
        let two = format!("v2,zzz v1,AAAA {good}");
        assert_eq!(with(&headers(&two), body, secret), Ok(Provider::Standard));
        assert_eq!(with(&headers(good), b"{}", secret), Err(Refused::Mismatch));
        assert_eq!(with(&headers("v1,???"), body, secret), Err(Refused::Malformed));
        assert_eq!(with(&headers(good), body, "whsec_"), Err(Refused::NoSecret));
        assert_eq!(with(&headers(good)[2..], body, secret), Err(Refused::Malformed));
    }

    #[test]
    fn unsigned_sha1_and_oversized_are_refused() {
        assert_eq!(with(&[], BODY, KEY), Err(Refused::Unsigned));
        let sha1 = [("X-Hub-Signature", "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59")];
        assert_eq!(with(&sha1, BODY, KEY), Err(Refused::Malformed));
        let big = vec![0; MAX_BODY + 1];
        assert_eq!(with(&[("X-Gitlab-Token", KEY)], &big, KEY), Err(Refused::TooLarge));
    }

    #[test]
    fn a_wrong_signature_is_not_rescued_by_another_header() {
        let prefixed = format!("sha256={GITHUB}");
        let wrong = "0".repeat(64);
        let headers = [("X-Gitea-Signature", wrong.as_str()), ("X-Hub-Signature-256", &prefixed)];
        assert_eq!(with(&headers, BODY, KEY), Err(Refused::Mismatch));
    }

    proptest! {
        #[test]
        fn no_garbage_gets_in(name in prop::sample::select(vec![
                "X-Hub-Signature-256", "X-Gitlab-Token", "X-Gitea-Signature", "X-Signature",
                "webhook-signature", "X-Forgejo-Signature"]),
            value in "(sha256=|v1,)?[0-9a-fA-F+/=é ]{0,70}", body in prop::collection::vec(any::<u8>(), 0..64)) {
            let headers = [(name, value.as_str()), ("webhook-id", "x"), ("webhook-timestamp", "1")];
            prop_assert!(with(&headers, &body, "a secret that no value holds").is_err());
        }
    }
}
