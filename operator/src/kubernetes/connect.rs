//! Which cluster, is it ready for us, and what its errors mean.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, Config};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::cache::Scope;
use crate::cli::CliError;
use crate::error::causes;
use crate::model::OwnerId;

/// The longest for one answer that is not a watch.
pub const ANSWER: Duration = Duration::from_secs(30);
/// The longest for the way to the server.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest between two bytes: a watch lives longer than any other answer, and ends after a minute.
const READ: Duration = Duration::from_secs(70);
/// The namespace whose id is the cluster's own.
const SYSTEM: &str = "kube-system";

/// A client of the cluster that the environment names: `KUBECONFIG` or the usual file, else the pod's own account.
pub async fn client() -> Result<Client, CliError> {
    let mut config = Config::infer().await.map_err(|e| {
        CliError::new(format!("no Kubernetes cluster: {}", causes(&e)))
            .hint("set KUBECONFIG, or run in a pod with a service account")
    })?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    Client::try_from(config)
        .map_err(|e| CliError::new(format!("no Kubernetes cluster: {}", said(&e))))
}

/// The installation's id, from the cluster's own.
pub async fn owner(client: &Client) -> Result<OwnerId, CliError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let failed = |why: String| {
        CliError::new(format!("the cluster has no id: namespace {SYSTEM}: {why}"))
            .hint("give --owner, and the same to every replica")
    };
    let found = timeout(ANSWER, namespaces.get_metadata(SYSTEM)).await;
    let namespace = found
        .map_err(|_| failed("the API server says nothing".into()))?
        .map_err(|e| failed(said(&e)))?;
    let uid = namespace.metadata.uid.unwrap_or_default();
    if uid.is_empty() {
        return Err(failed("it has no uid".into()));
    }
    let digest = hex::encode(Sha256::digest(uid.as_bytes()));
    let short = digest.get(..10).unwrap_or_default();
    OwnerId::new(&format!("kubernetes-{short}")).map_err(|e| CliError::new(e.to_string()))
}

/// Whether the API server knows our kinds. Only "no" ends here; whatever else is wrong may mend itself.
pub async fn check(client: &Client, scopes: &[Scope]) -> Result<(), CliError> {
    for scope in scopes {
        let resource = scope.kind.resource();
        let api: Api<DynamicObject> = match &scope.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let params = ListParams::default().limit(1);
        match timeout(ANSWER, api.list(&params)).await {
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                let kind = scope.kind.word();
                return Err(CliError::new(format!("the cluster does not know the kind {kind}"))
                    .hint("install the definitions: kubectl apply -f crds/"));
            }
            Ok(Err(e)) => {
                tracing::warn!(%scope, error = %said(&e), hint = hint(&e), "cannot be listed yet");
            }
            Ok(Ok(_)) => {}
            Err(_) => tracing::warn!(%scope, "cannot be listed yet: the API server says nothing"),
        }
    }
    Ok(())
}

/// An error of the API server or of the way to it, for people.
pub fn said(e: &kube::Error) -> String {
    let kube::Error::Api(status) = e else { return causes(e) };
    let message = status.message.trim_end_matches('.');
    if message.is_empty() {
        format!("the API server answered {} {}", status.code, status.reason)
    } else {
        format!("{message} ({})", status.code)
    }
}

/// What to do about it, where that is known.
pub fn hint(e: &kube::Error) -> Option<String> {
    let kube::Error::Api(status) = e else { return None };
    let text = match status.code {
        401 => "the credentials have expired or are not known: renew the kubeconfig or the token",
        403 => "the account may not do this: kubectl apply -k manifests/",
        404 => "the definitions are gone: kubectl apply -f crds/",
        _ => return None,
    };
    Some(text.to_owned())
}

/// The code of an answer, where there was one.
pub fn code(e: &kube::Error) -> Option<u16> {
    if let kube::Error::Api(status) = e { Some(status.code) } else { None }
}
