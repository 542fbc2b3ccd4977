//! What the agent reads: a repository, and the documents in it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A git repository that is committed to.
pub struct Repo {
    /// Its work tree.
    pub path: PathBuf,
}

impl Repo {
    pub(super) fn new(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        let repo = Self { path };
        repo.git(&["init", "--quiet", "--initial-branch", "main"]);
        repo
    }

    /// Runs git in it.
    pub fn git(&self, args: &[&str]) -> String {
        let out = Command::new("git")
            .args(["-c", "user.name=A Test", "-c", "user.email=test@example.com"])
            .args(["-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"])
            .args(["-c", "gc.auto=0", "-c", "protocol.file.allow=always"])
            .args(args)
            .current_dir(&self.path)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .expect("the tests need git");
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Writes a file of the work tree.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Commits the work tree as it is; gives the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Commits one service as it is now asked for.
    pub fn put(&self, service: &Service) -> String {
        self.write(&format!("{}.yaml", service.name), service.to_string());
        self.commit(&format!("put {}", service.name))
    }

    /// Replaces all files by these and commits.
    pub fn replace(&self, files: &[(&str, &str)]) -> String {
        self.clear();
        for (name, content) in files {
            self.write(name, content);
        }
        self.commit("replace")
    }

    /// Removes all files of the work tree.
    pub fn clear(&self) {
        for entry in fs::read_dir(&self.path).unwrap().flatten() {
            if entry.file_name() != ".git" {
                let path = entry.path();
                let dir = entry.file_type().unwrap().is_dir();
                if dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
            }
        }
    }
}

/// A service as it is asked for; `Display` is its document.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name, which is that of its containers too and must meet no other's on the engine.
    pub name: String,
    /// How many.
    pub replicas: u32,
    /// Of what.
    pub image: String,
    /// Plain variables.
    pub env: BTreeMap<String, String>,
    /// The inside of `rollout`.
    pub rollout: String,
    /// The inside of `termination`.
    pub termination: String,
    /// More lines of the spec.
    pub more: String,
    /// Lines before the document.
    pub comment: String,
}

impl Service {
    /// The same with other replicas.
    #[must_use]
    pub fn replicas(&self, replicas: u32) -> Self {
        Self { replicas, ..self.clone() }
    }

    /// The same with another image.
    #[must_use]
    pub fn image(&self, image: &str) -> Self {
        Self { image: image.into(), ..self.clone() }
    }

    /// The same with another rollout.
    #[must_use]
    pub fn rollout(&self, rollout: &str) -> Self {
        Self { rollout: rollout.into(), ..self.clone() }
    }

    /// The same with a variable.
    #[must_use]
    pub fn env(&self, name: &str, value: &str) -> Self {
        let mut new = self.clone();
        new.env.insert(name.into(), value.into());
        new
    }

    /// The same with more lines of spec.
    #[must_use]
    pub fn more(&self, line: &str) -> Self {
        Self { more: format!("{}  {line}\n", self.more), ..self.clone() }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut env = String::new();
        for (name, value) in &self.env {
            write!(env, "{{name: {name}, value: \"{value}\"}}, ")?;
        }
        let Self { name, replicas, image, env: _, rollout, termination, more, comment } = self;
        write!(
            f,
            "{comment}apiVersion: evenkeel.dev/v1alpha1
kind: ScalingService
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  image: {image}
  env: [{env}]
  ports: [{{name: http, containerPort: 8080}}]
  health: {{http: {{path: /healthz, port: http}}, interval: 250ms, timeout: 2s, failureThreshold: 3, startPeriod: 5s}}
  rollout: {{{rollout}}}
  termination: {{{termination}}}
{more}"
        )
    }
}
