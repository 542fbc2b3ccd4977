//! What proves who the agent is: each in a file of its own machine, or as the value of a secret.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conflict::{Conflict, at};
use crate::schema::{exactly_one, one_of, requires, rule};
use crate::{SecretKeyRef, text};

/// Said of a certificate without its key, and of a key without its certificate.
pub(crate) const PAIR: &str = "a client's certificate and its key are given together";
/// Said of a user without a password.
pub(crate) const PASSWORD: &str = "username needs passwordFile or passwordSecret";

/// Said where one thing is given in two ways.
pub(crate) fn both(file: &str, secret: &str) -> String {
    format!("{file} and {secret} say the same: give one of them")
}

/// Certificates for TLS, each in a file that the agent reads or as the value of a secret. A custom resource names secrets
/// of its own namespace; files are for documents in git.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    transform = one_of("caFile", "caSecret"),
    transform = one_of("certFile", "certSecret"),
    transform = one_of("keyFile", "keySecret"),
    transform = rule(
        "(has(self.certFile) || has(self.certSecret)) == (has(self.keyFile) || has(self.keySecret))",
        PAIR,
    ),
)]
pub struct ClientTls {
    /// The certificates that the server's must descend from, PEM. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::file_path")]
    pub ca_file: Option<String>,
    /// The same from a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<SecretKeyRef>,
    /// The client's certificate, PEM; together with its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::file_path")]
    pub cert_file: Option<String>,
    /// The same from a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_secret: Option<SecretKeyRef>,
    /// The client's private key, PEM; together with its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::file_path")]
    pub key_file: Option<String>,
    /// The same from a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_secret: Option<SecretKeyRef>,
}

impl ClientTls {
    pub(crate) fn conflicts(&self, path: &str) -> Vec<Conflict> {
        let Self { ca_file, ca_secret, cert_file, cert_secret, key_file, key_secret } = self;
        let mut all = Vec::new();
        for (what, file, secret) in [
            ("ca", ca_file, ca_secret),
            ("cert", cert_file, cert_secret),
            ("key", key_file, key_secret),
        ] {
            all.extend(twice(path, what, file.as_ref(), secret.as_ref()));
        }
        let cert = cert_file.is_some() || cert_secret.is_some();
        let key = key_file.is_some() || key_secret.is_some();
        if cert != key {
            all.push(at(path, PAIR.to_owned()));
        }
        all
    }
}

/// How the agent says who it is: `username` with a password, or a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    transform = exactly_one(&["username", "tokenFile", "tokenSecret"]),
    transform = requires("passwordFile", "username"),
    transform = requires("passwordSecret", "username"),
    transform = one_of("passwordFile", "passwordSecret"),
    transform = rule(
        "!has(self.username) || has(self.passwordFile) || has(self.passwordSecret)",
        PASSWORD,
    ),
)]
pub struct MarathonAuth {
    /// The user, for HTTP basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::username")]
    pub username: Option<String>,
    /// The file that holds the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::file_path")]
    pub password_file: Option<String>,
    /// The secret that holds the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretKeyRef>,
    /// The file that holds a bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::file_path")]
    pub token_file: Option<String>,
    /// The secret that holds a bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret: Option<SecretKeyRef>,
}

impl MarathonAuth {
    pub(crate) fn conflicts(&self, path: &str) -> Vec<Conflict> {
        let Self { username, password_file, password_secret, token_file: _, token_secret: _ } =
            self;
        let mut all: Vec<Conflict> =
            twice(path, "password", password_file.as_ref(), password_secret.as_ref())
                .into_iter()
                .collect();
        if username.is_some() && password_file.is_none() && password_secret.is_none() {
            all.push(at(&format!("{path}.username"), PASSWORD.to_owned()));
        }
        all
    }
}

/// What is wrong where one thing is given in two ways.
pub(crate) fn twice(
    path: &str,
    what: &str,
    file: Option<&String>,
    secret: Option<&SecretKeyRef>,
) -> Option<Conflict> {
    file.and(secret)?;
    let (file, secret) = (format!("{what}File"), format!("{what}Secret"));
    Some(at(&format!("{path}.{secret}"), both(&file, &secret)))
}
