//! A lease of the API server as the ledger of an election.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::timeout;

use super::connect::{code, hint, said};
use crate::clock::Clock;
use crate::elect::candidate::Record;
use crate::elect::{Ledger, Refusal, Why};
use crate::metrics::ApiWrite;
use crate::report::Report;

/// The longest for one answer about the lease.
const ANSWER: Duration = Duration::from_secs(4);
/// The lease that is held where no other is named.
pub const NAME: &str = "evenkeel";

/// One lease.
pub struct LeaseLedger {
    api: Api<Lease>,
    namespace: String,
    name: String,
    clock: Clock,
    report: Report,
}

impl LeaseLedger {
    /// The lease with this name in the client's own namespace, or in the one in front of a slash.
    pub fn new(client: &Client, name: &str, clock: Clock, report: Report) -> Self {
        let own = client.default_namespace().to_owned();
        let (namespace, name) = match name.split_once('/') {
            Some((namespace, name)) => (namespace.to_owned(), name),
            None => (own, name),
        };
        let api = Api::namespaced(client.clone(), &namespace);
        Self { api, namespace, name: name.to_owned(), clock, report }
    }

    fn lease(&self, record: &Record) -> Lease {
        let now = MicroTime(self.clock.timestamp());
        let seconds = i32::try_from(record.seconds).unwrap_or(i32::MAX);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: Some(record.version.clone()).filter(|v| !v.is_empty()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(record.holder.clone()),
                lease_duration_seconds: Some(seconds),
                lease_transitions: i32::try_from(record.transitions).ok(),
                renew_time: Some(now.clone()),
                acquire_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }
}

#[async_trait]
impl Ledger for LeaseLedger {
    async fn look(&self) -> Result<Option<Record>, Refusal> {
        let found = ask(self.api.get_opt(&self.name)).await?;
        Ok(found.map(|lease| record(&lease)))
    }

    async fn write(&self, record: &Record) -> Result<String, Refusal> {
        let lease = self.lease(record);
        let params = PostParams::default();
        let made = record.version.is_empty();
        let written = if made {
            ask(self.api.create(&params, &lease)).await
        } else {
            ask(self.api.replace(&self.name, &params, &lease)).await
        };
        self.report.api_write(ApiWrite::Lease, written.is_ok());
        let written = written.map_err(|mut refusal| {
            if made && refusal.text.ends_with("(404)") {
                refusal.hint = Some(format!(
                    "kubectl create namespace {}, or name another with --lease NAMESPACE/NAME",
                    self.namespace
                ));
            }
            refusal
        })?;
        Ok(written.metadata.resource_version.unwrap_or_default())
    }

    fn name(&self) -> String {
        format!("lease {}/{}", self.namespace, self.name)
    }
}

/// An answer about a lease, for which nobody waits long.
async fn ask<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Refusal> {
    match timeout(ANSWER, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => {
            let why = if code(&e) == Some(409) { Why::Quicker } else { Why::Failed };
            Err(Refusal { text: said(&e), hint: hint(&e), why })
        }
        Err(_) => Err(Refusal::failed("the API server says nothing", None)),
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        seconds: spec.lease_duration_seconds.and_then(|s| u32::try_from(s).ok()).unwrap_or(0),
        transitions: spec.lease_transitions.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
