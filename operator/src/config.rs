//! From arguments to the things they name: the owner, the state directory, the secrets, the source.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::cli::CliError;
use crate::cli::args::AgentArgs;
use crate::cli::read::{Reference, SourceChoice};
use crate::error::causes;
use crate::model::{OwnerId, Secret};
use crate::source::git::{Auth, GitConfig, HostKeys};
use crate::source::parse::Secrets;
use crate::source::{self, redact};

/// No secret is longer.
const LONGEST_SECRET: u64 = 1 << 20;

/// The installation's id: as given, or derived from the source, so that it is the same at every start.
pub fn owner(args: &AgentArgs, source: &SourceChoice<'_>) -> Result<OwnerId, CliError> {
    if let Some(owner) = &args.owner {
        return Ok(owner.clone());
    }
    let (kind, place) = match source {
        SourceChoice::Git { url, path, .. } => {
            let url = match Path::new(url).canonicalize() {
                Ok(local) => local.display().to_string(),
                Err(_) => redact(url),
            };
            let url = url.trim_end_matches('/').trim_end_matches(".git");
            ("git", format!("{url}#{}", path.trim_matches('/')))
        }
        SourceChoice::Dir { dir, .. } => {
            let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
            ("dir", dir.display().to_string())
        }
    };
    let digest = hex::encode(Sha256::digest(place.as_bytes()));
    let short = digest.get(..10).unwrap_or_default();
    OwnerId::new(&format!("{kind}-{short}")).map_err(|e| CliError::new(e.to_string()))
}

/// Where the last good state is kept: as given, what systemd gives, or the usual place, with a
/// directory for each owner.
pub fn state_dir(args: &AgentArgs, owner: &OwnerId) -> PathBuf {
    if let Some(dir) = &args.state_dir {
        return dir.clone();
    }
    let env = |name| std::env::var_os(name).filter(|v| !v.is_empty());
    if let Some(dirs) = env("STATE_DIRECTORY") {
        let first = dirs.to_string_lossy().split(':').next().unwrap_or_default().to_owned();
        return PathBuf::from(first);
    }
    let machine = Path::new("/var/lib/evenkeel");
    let writable = |dir: &Path| {
        std::fs::create_dir_all(dir).is_ok()
            && std::fs::metadata(dir).is_ok_and(|m| !m.permissions().readonly())
            && tempfile_works(dir)
    };
    let base = if writable(machine) {
        machine.to_path_buf()
    } else if let Some(state) = env("XDG_STATE_HOME") {
        PathBuf::from(state).join("evenkeel")
    } else if let Some(home) = env("HOME") {
        PathBuf::from(home).join(".local/state/evenkeel")
    } else {
        PathBuf::from(".evenkeel")
    };
    base.join(owner.as_str())
}

fn tempfile_works(dir: &Path) -> bool {
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    let works = std::fs::write(&probe, b"").is_ok();
    let _ = std::fs::remove_file(&probe);
    works
}

/// By name and key: a digest of what was answered, `None` for nothing.
type Asked = BTreeMap<(String, String), Option<[u8; 32]>>;

/// Secrets in files and in the environment: `<dir>/<name>/<key>`, `<dir>/<name>.<key>` (as systemd
/// credentials are laid out), then `EVENKEEL_SECRET_<NAME>_<KEY>`.
#[derive(Debug, Default)]
pub struct FileSecrets {
    dir: Option<PathBuf>,
    /// What was answered, to notice a change; a digest, not the value.
    asked: Mutex<Asked>,
}

impl FileSecrets {
    /// Secrets below `dir`, and in the environment.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self { dir, asked: Mutex::default() }
    }

    fn look_up(&self, name: &str, key: &str) -> Result<String, String> {
        let plain = |s: &str| {
            let ok = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !s.is_empty() && s.chars().all(ok) && !s.starts_with('.')
        };
        // As `.dockerconfigjson` is called wherever a Kubernetes Secret is mounted.
        if !plain(name) || !plain(key.strip_prefix('.').unwrap_or(key)) {
            return Err("its name or key is not a plain file name".into());
        }
        let mut looked = Vec::new();
        for path in
            self.dir.iter().flat_map(|d| [d.join(name).join(key), d.join(format!("{name}.{key}"))])
        {
            match read_small(&path) {
                Ok(text) => return Ok(text),
                Err(why) => looked.push(why),
            }
        }
        let var = format!("EVENKEEL_SECRET_{name}_{key}").to_uppercase().replace(['-', '.'], "_");
        if let Ok(value) = std::env::var(&var) {
            return Ok(value);
        }
        looked.push(format!("{var} is not set"));
        if self.dir.is_none() {
            looked.push("no --secrets directory was given".into());
        }
        Err(looked.join("; "))
    }
}

fn read_small(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|e| format!("{shown}: {e}"))?;
    if meta.len() > LONGEST_SECRET {
        return Err(format!("{shown}: longer than 1 MiB"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("{shown}: {e}"))?;
    // Editors and `echo` end a file with a line end that nobody means.
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

impl Secrets for FileSecrets {
    fn get(&self, name: &str, key: &str) -> Result<Secret, String> {
        let found = self.look_up(name, key);
        let digest = found.as_ref().ok().map(|v| Sha256::digest(v.as_bytes()).into());
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.insert((name.to_owned(), key.to_owned()), digest);
        found.map(|v| Secret::new(&v))
    }

    fn changed(&self) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        asked.iter().any(|((name, key), was)| {
            let now = self.look_up(name, key).ok().map(|v| Sha256::digest(v.as_bytes()).into());
            now != *was
        })
    }
}

/// How the repository of a choice is reached.
pub fn git(choice: &SourceChoice<'_>, state_dir: &Path) -> Result<Option<GitConfig>, CliError> {
    let SourceChoice::Git { url, reference, path, interval: _, auth } = choice else {
        return Ok(None);
    };
    let secret = |file: &Path| read_small(file).map(source::Secret::new).map_err(CliError::new);
    let mut config = GitConfig::new(*url, state_dir);
    config.reference = match reference {
        Reference::Head => source::git::Reference::Head,
        Reference::Branch(b) => source::git::Reference::Branch((*b).to_owned()),
        Reference::Tag(t) => source::git::Reference::Tag((*t).to_owned()),
        Reference::Commit(c) => source::git::Reference::Commit((*c).to_owned()),
    };
    (*path).clone_into(&mut config.subdir);
    config.ca_file.clone_from(&auth.git_ca_file);
    config.host_keys = match &auth.git_known_hosts {
        Some(file) => HostKeys::Files(vec![file.clone()]),
        None => HostKeys::Usual,
    };
    config.auth = match (&auth.git_token_file, &auth.git_password_file, &auth.git_ssh_key) {
        (Some(path), None, None) => {
            Auth::TokenFile { user: auth.git_username.clone(), path: path.clone() }
        }
        (None, Some(file), None) => Auth::Basic {
            user: auth.git_username.clone().unwrap_or_default(),
            password: secret(file)?,
        },
        (None, None, Some(path)) => Auth::SshKey {
            path: path.clone(),
            passphrase: auth.git_ssh_passphrase_file.as_deref().map(secret).transpose()?,
        },
        (None, None, None) => Auth::Auto,
        _ => {
            return Err(CliError::new("more than one way to sign in to git was given")
                .hint("give one of --git-token-file, --git-password-file and --git-ssh-key"));
        }
    };
    Ok(Some(config))
}

/// An error at the rim as the command line shows it.
pub fn shown(error: &(dyn std::error::Error + 'static)) -> CliError {
    CliError::new(causes(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_either_layout_and_a_change_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("app")).unwrap();
        std::fs::write(dir.path().join("app/token"), "one\n").unwrap();
        std::fs::write(dir.path().join("db.password"), "two").unwrap();
        let secrets = FileSecrets::new(Some(dir.path().to_path_buf()));
        assert_eq!(secrets.get("app", "token").unwrap().reveal(), "one");
        assert_eq!(secrets.get("db", "password").unwrap().reveal(), "two");
        assert!(!secrets.changed());
        std::fs::write(dir.path().join("app/token"), "three\n").unwrap();
        assert!(secrets.changed());
    }

    #[test]
    fn a_missing_secret_says_where_it_was_looked_for_and_later_appears() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = FileSecrets::new(Some(dir.path().to_path_buf()));
        let why = secrets.get("app", "to-ken").unwrap_err();
        assert!(why.contains("app/to-ken") && why.contains("EVENKEEL_SECRET_APP_TO_KEN"), "{why}");
        assert!(!secrets.changed());
        std::fs::write(dir.path().join("app.to-ken"), "x").unwrap();
        assert!(secrets.changed());
    }

    #[test]
    fn a_name_cannot_leave_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("outside"), "x").unwrap();
        let secrets = FileSecrets::new(Some(dir.path().join("in")));
        for name in ["..", ".", "a/b", "", "a\0b"] {
            assert!(secrets.get(name, "outside").is_err(), "{name:?}");
            assert!(secrets.get("in", name).is_err(), "{name:?}");
        }
    }
}
