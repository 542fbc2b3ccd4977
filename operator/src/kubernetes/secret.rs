//! Kubernetes Secrets for the documents of their own namespace, read by name: only those that a document names.
//!
//! A document of a cluster gets nothing from the agent's own files, and a file nothing from the cluster: who may write the
//! one need not see the secrets of the other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret as Resource;
use kube::Client;
use kube::api::Api;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::connect::{code, said};
use crate::config::FileSecrets;
use crate::model::Secret;
use crate::source::parse::Secrets;

/// How often those that are missing are asked for.
const MISSING: Duration = Duration::from_secs(5);
/// In which of these turns those that are in use are read again: every half minute.
const EVERY: u32 = 6;
/// The longest for one answer: a parse waits for it.
const ANSWER: Duration = Duration::from_secs(10);
/// Most that are kept.
const MOST: usize = 10_000;

/// What is known of one.
#[derive(Default)]
struct Known {
    /// Its keys, or why there are none.
    data: Option<Result<BTreeMap<String, Secret>, String>>,
    /// By key: a digest of what was answered.
    answered: BTreeMap<String, Option<[u8; 32]>>,
}

/// Secrets of a cluster, and those of files for all other documents.
pub struct ClusterSecrets {
    client: Client,
    handle: Handle,
    files: FileSecrets,
    /// What the paths of objects begin with.
    root: &'static str,
    /// By namespace and name.
    known: Mutex<BTreeMap<(String, String), Known>>,
}

impl fmt::Debug for ClusterSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterSecrets({} known)", self.known().len())
    }
}

impl ClusterSecrets {
    /// Knows none yet. Must be called within a tokio runtime.
    pub fn new(client: Client, files: FileSecrets, root: &'static str) -> Self {
        Self { client, handle: Handle::current(), files, root, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<(String, String), Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads all that are in use again, for ever.
    pub async fn run(&self) {
        for turn in 1u32.. {
            tokio::time::sleep(MISSING).await;
            let all = turn.is_multiple_of(EVERY);
            let wanted = |k: &Known| all || !matches!(k.data, Some(Ok(_)));
            let these: Vec<(String, String)> = {
                let known = self.known();
                known.iter().filter(|(_, k)| wanted(k)).map(|(at, _)| at.clone()).collect()
            };
            for (namespace, name) in these {
                self.read(&namespace, &name).await;
            }
        }
    }

    /// Reads one. What could be read before stays where it cannot be asked for now.
    async fn read(&self, namespace: &str, name: &str) {
        let api: Api<Resource> = Api::namespaced(self.client.clone(), namespace);
        let (found, gone) = match timeout(ANSWER, api.get(name)).await {
            Ok(Ok(secret)) => (Ok(keys(secret)), true),
            Ok(Err(e)) if code(&e) == Some(403) => (Err(forbidden(&e, namespace)), false),
            Ok(Err(e)) => (Err(said(&e)), code(&e) == Some(404)),
            Err(_) => (Err("the API server says nothing".to_owned()), false),
        };
        let mut known = self.known();
        let entry = known.entry((namespace.to_owned(), name.to_owned())).or_default();
        if gone || !matches!(entry.data, Some(Ok(_))) {
            entry.data = Some(found);
        }
    }

    fn look_up(&self, namespace: &str, name: &str, key: &str) -> Result<Secret, String> {
        let at = (namespace.to_owned(), name.to_owned());
        let (unasked, full) = {
            let known = self.known();
            let read = known.get(&at).is_some_and(|k| matches!(k.data, Some(Ok(_))));
            (!read, known.len() >= MOST && !known.contains_key(&at))
        };
        if full {
            return Err(format!("more than {MOST} secrets are named"));
        }
        if unasked {
            // A parse has a thread of its own, which may wait.
            self.handle.block_on(self.read(namespace, name));
        }
        self.answer(namespace, name, key)
    }

    fn answer(&self, namespace: &str, name: &str, key: &str) -> Result<Secret, String> {
        let known = self.known();
        let found = known.get(&(namespace.to_owned(), name.to_owned()));
        match found.and_then(|k| k.data.as_ref()) {
            Some(Ok(keys)) => keys.get(key).cloned().ok_or_else(|| {
                let there: Vec<&str> = keys.keys().take(20).map(String::as_str).collect();
                format!("the secret in namespace {namespace} has the keys {}", there.join(", "))
            }),
            Some(Err(why)) => Err(why.clone()),
            None => Err("it was not read yet".to_owned()),
        }
    }

    fn namespace<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(self.root)?.split_once('/').map(|(namespace, _)| namespace)
    }
}

fn digest(found: &Result<Secret, String>) -> Option<[u8; 32]> {
    found.as_ref().ok().map(|v| Sha256::digest(v.reveal().as_bytes()).into())
}

/// No right to it is given everywhere: what gives it here is told.
fn forbidden(e: &kube::Error, namespace: &str) -> String {
    format!(
        "{}; to allow it: kubectl create rolebinding evenkeel-secrets -n {namespace} \
         --clusterrole=evenkeel-secrets --serviceaccount=evenkeel:evenkeel",
        said(e)
    )
}

/// Keys whose value is text; a container's environment holds nothing else.
fn keys(secret: Resource) -> BTreeMap<String, Secret> {
    let data = secret.data.unwrap_or_default().into_iter();
    data.filter_map(|(key, value)| Some((key, Secret::new(str::from_utf8(&value.0).ok()?))))
        .collect()
}

impl Secrets for ClusterSecrets {
    fn get(&self, name: &str, key: &str) -> Result<Secret, String> {
        self.files.get(name, key)
    }

    fn get_for(&self, path: &str, name: &str, key: &str) -> Result<Secret, String> {
        let Some(namespace) = self.namespace(path) else { return self.files.get(name, key) };
        let found = self.look_up(namespace, name, key);
        let digest = digest(&found);
        let mut known = self.known();
        let entry = known.entry((namespace.to_owned(), name.to_owned())).or_default();
        entry.answered.insert(key.to_owned(), digest);
        found
    }

    fn changed(&self) -> bool {
        let asked: Vec<(String, String, String, Option<[u8; 32]>)> = self
            .known()
            .iter()
            .flat_map(|((namespace, name), k)| {
                k.answered
                    .iter()
                    .map(|(key, was)| (namespace.clone(), name.clone(), key.clone(), *was))
            })
            .collect();
        let differs = |(namespace, name, key, was): &(String, String, String, Option<[u8; 32]>)| {
            digest(&self.answer(namespace, name, key)) != *was
        };
        self.files.changed() || asked.iter().any(differs)
    }
}
