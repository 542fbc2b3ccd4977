//! Credentials for registries, from the same `config.json` that the docker command keeps.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::model::Credential;

/// No configuration or answer of a helper is read beyond this.
const MOST: u64 = 1 << 20;
/// Time for a credential helper to answer.
const HELPER: Duration = Duration::from_secs(10);
/// What Docker's own registry is called in the file.
const HUB: &str = "index.docker.io";

/// The parts of `config.json` that are about credentials. Anything else in it is left alone.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DockerConfigFile {
    auths: Option<BTreeMap<String, Entry>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry(…)")
    }
}

/// Who we are to a registry. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) password: String,
    pub(super) identity_token: String,
    pub(super) registry: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// The value of `X-Registry-Auth`. The engine reads the URL-safe alphabet only and silently takes
    /// anything else as "no credentials"; bollard 0.21 writes the other alphabet, so it is done here.
    pub(super) fn header(&self) -> String {
        let Self { username, password, identity_token, registry } = self;
        let json = if identity_token.is_empty() {
            serde_json::json!({"username": username, "password": password, "serveraddress": registry})
        } else {
            serde_json::json!({"identitytoken": identity_token, "serveraddress": registry})
        };
        URL_SAFE.encode(json.to_string())
    }
}

/// The registry an image reference names, as it is called in the file.
pub(super) fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => {
            if matches!(first, "docker.io" | "registry-1.docker.io") { HUB } else { first }
        }
        _ => HUB,
    }
}

/// A key of the file without scheme and path: `https://index.docker.io/v1/` is `index.docker.io`.
fn bare(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = rest.split('/').next().unwrap_or(rest);
    if matches!(host, "docker.io" | "registry-1.docker.io") { HUB } else { host }
}

impl DockerConfigFile {
    /// What a file or a secret says.
    pub(super) async fn of(config: &Credential) -> Result<Self, String> {
        match config {
            Credential::File(path) => Self::read(Path::new(path)).await,
            Credential::Secret { value, .. } => {
                let said = Self::parse(value.reveal().as_bytes());
                let auths = said.map_err(|e| format!("{config} {e}"))?.auths;
                // Who may write a secret may not have programs run here.
                Ok(Self { auths, ..Self::default() })
            }
        }
    }

    /// Reads the file; one that is not there is an empty one.
    pub(super) async fn read(path: &Path) -> Result<Self, String> {
        let file = match tokio::fs::File::open(path).await {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(|e| format!("cannot read {}: {e}", path.display()))?,
        };
        let mut bytes = Vec::new();
        let read = file.take(MOST).read_to_end(&mut bytes).await;
        read.map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Self::parse(&bytes).map_err(|e| format!("{} {e}", path.display()))
    }

    /// The error never quotes the file: it holds passwords.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|e| {
            format!("is not a docker config.json (line {}, column {})", e.line(), e.column())
        })
    }

    /// Credentials that are in the file itself.
    fn stored(&self, registry: &str) -> Option<Credentials> {
        let auths = self.auths.as_ref()?;
        let entry = auths
            .get(registry)
            .or_else(|| auths.iter().find(|(k, _)| bare(k) == registry).map(|(_, v)| v))?;
        let decoded = entry.auth.as_deref().filter(|a| !a.is_empty()).and_then(|a| {
            let bytes = STANDARD.decode(a.trim()).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (user, password) = text.split_once(':')?;
            Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
        });
        let (username, password) = decoded.unwrap_or_else(|| {
            let own = |t: &Option<String>| t.clone().unwrap_or_default();
            (own(&entry.username), own(&entry.password))
        });
        let identity_token = entry.identitytoken.clone().unwrap_or_default();
        if username.is_empty() && identity_token.is_empty() {
            return None;
        }
        Some(Credentials { username, password, identity_token, registry: registry.into() })
    }

    /// The helper that keeps the credentials of a registry.
    fn helper(&self, registry: &str) -> Option<&str> {
        let own = self.cred_helpers.as_ref().and_then(|all| {
            all.get(registry)
                .or_else(|| all.iter().find(|(k, _)| bare(k) == registry).map(|(_, v)| v))
        });
        own.or(self.creds_store.as_ref()).map(String::as_str).filter(|h| !h.is_empty())
    }

    /// Credentials for the registry of an image, if there are any.
    pub(super) async fn credentials(&self, image: &str) -> Result<Option<Credentials>, String> {
        let registry = registry_of(image);
        match self.helper(registry) {
            Some(helper) => Ok(ask(helper, registry).await?.or_else(|| self.stored(registry))),
            None => Ok(self.stored(registry)),
        }
    }
}

/// Where the docker command keeps its file.
pub(super) fn default_path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let dir = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|h| h.join(".docker")))?;
    Some(dir.join("config.json"))
}

/// What a credential helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks `docker-credential-<helper>`; what it prints on an error is shown, what it prints on success never.
async fn ask(helper: &str, registry: &str) -> Result<Option<Credentials>, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !helper.chars().all(plain) {
        return Err("the credential helper's name in config.json is not a plain word".into());
    }
    let program = format!("docker-credential-{helper}");
    let server = if registry == HUB { "https://index.docker.io/v1/" } else { registry };
    let run = async {
        let mut child = tokio::process::Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper may answer without reading its input.
            let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
        }
        let mut said = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MOST).read_to_end(&mut said).await?;
        }
        Ok::<_, io::Error>((child.wait().await?.success(), said))
    };
    let (ok, said) = tokio::time::timeout(HELPER, run)
        .await
        .map_err(|_| format!("{program} did not answer within 10s"))?
        .map_err(|e| format!("cannot run {program}: {e}"))?;
    if !ok {
        let said: String = String::from_utf8_lossy(&said).trim().chars().take(200).collect();
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(format!("{program} failed: {said}"));
    }
    let Answer { username, secret } = serde_json::from_slice(&said)
        .map_err(|_| format!("{program} answered something that is not credentials"))?;
    let registry = registry.to_owned();
    Ok(Some(if username == "<token>" {
        Credentials {
            username: String::new(),
            password: String::new(),
            identity_token: secret,
            registry,
        }
    } else {
        Credentials { username, password: secret, identity_token: String::new(), registry }
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(json: &str) -> DockerConfigFile {
        DockerConfigFile::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn registries_of_references() {
        for (image, registry) in [
            ("nginx", HUB),
            ("library/nginx:1", HUB),
            ("docker.io/library/nginx", HUB),
            ("r.example:5000/a/b:1", "r.example:5000"),
            ("localhost/a", "localhost"),
            ("ghcr.io/a/b@sha256:00", "ghcr.io"),
        ] {
            assert_eq!(registry_of(image), registry);
        }
    }

    #[test]
    fn credentials_are_found_under_every_form_of_a_key() {
        let file = parse(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "dTpwOjE="},
                "https://r.example:5000/v2/": {"username": "a", "password": "b"},
                "t.example": {"identitytoken": "tok"},
                "empty.example": {}
            }, "HttpHeaders": {"x": "y"}}"#,
        );
        let hub = file.stored(HUB).unwrap();
        assert_eq!((hub.username.as_str(), hub.password.as_str()), ("u", "p:1"));
        assert_eq!(file.stored("r.example:5000").unwrap().password, "b");
        assert_eq!(file.stored("t.example").unwrap().identity_token, "tok");
        assert_eq!(file.stored("empty.example"), None);
        assert_eq!(file.stored("other.example"), None);
    }

    #[test]
    fn a_registrys_own_helper_goes_before_the_store() {
        let file = parse(r#"{"credsStore": "desktop", "credHelpers": {"gcr.io": "gcloud"}}"#);
        assert_eq!(file.helper("gcr.io"), Some("gcloud"));
        assert_eq!(file.helper("x.io"), Some("desktop"));
        assert_eq!(parse("{}").helper("x.io"), None);
    }

    #[tokio::test]
    async fn a_helper_is_a_plain_word_and_its_absence_is_said() {
        assert!(ask("../../bin/sh", "r").await.unwrap_err().contains("plain word"));
        let e = ask("surely-not-there", "r").await.unwrap_err();
        assert!(e.contains("cannot run docker-credential-surely-not-there"), "{e}");
    }

    #[test]
    fn secrets_are_in_no_message() {
        let e = DockerConfigFile::parse(br#"{"auths": {"r": {"auth": "hush"}, "hush"}}"#);
        assert!(!e.unwrap_err().contains("hush"));
        let file = parse(r#"{"auths": {"r.x": {"username": "u", "password": "hush"}}}"#);
        assert!(!format!("{file:?} {:?}", file.stored("r.x")).contains("hush"));
    }

    #[test]
    fn the_header_uses_the_alphabet_that_the_engine_reads() {
        let c = Credentials {
            username: "u".into(),
            password: "~~~???>>>ÿÿ".into(),
            identity_token: String::new(),
            registry: "r".into(),
        };
        let header = c.header();
        assert!(!header.contains(['+', '/']), "{header}");
        let back: serde_json::Value =
            serde_json::from_slice(&URL_SAFE.decode(header).unwrap()).unwrap();
        assert_eq!(back["password"], "~~~???>>>ÿÿ");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = DockerConfigFile::parse(&bytes);
        }

        #[test]
        fn any_entry_is_read_without_harm(key in ".{0,30}", auth in ".{0,60}", image in ".{0,60}") {
            let file = serde_json::json!({"auths": {key: {"auth": auth}}}).to_string();
            let file = DockerConfigFile::parse(file.as_bytes()).unwrap();
            let _ = file.stored(registry_of(&image));
        }
    }
}
