//! What several agents of one owner stand by for: a lease of Kubernetes, or a lock of Consul.

use std::path::PathBuf;
use std::sync::Arc;

use super::CliError;
use super::args::{LockArgs, RunArgs};
use super::sources::Cluster;
use crate::clock::Clock;
use crate::edge::consul::lock::{self, SessionLedger};
use crate::elect::candidate::Times;
use crate::elect::{Election, Held, Ledger};
use crate::error::causes;
use crate::kubernetes::lease::LeaseLedger;
use crate::model::{ConsulSpec, ConsulTls, Credential, OwnerId};
use crate::report::Report;

/// Ports of Consul's API.
const HTTP: u16 = 8500;
const HTTPS: u16 = 8501;

/// Where a lock of Consul is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockAddress {
    /// The base URL of a Consul agent.
    pub address: String,
    /// The key; `None` for the owner's own.
    pub key: Option<String>,
}

/// Reads `consul://HOST[:PORT][/KEY]`; `consuls://` is over TLS.
pub fn lock(text: &str) -> Result<LockAddress, String> {
    let form = || "as consul://127.0.0.1:8500 or consuls://consul.example:8501/some/key".to_owned();
    let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
    let (scheme, port) = match scheme {
        "consul" => ("http", HTTP),
        "consuls" => ("https", HTTPS),
        _ => return Err(form()),
    };
    let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        return Err("no credentials in the address: a token comes from --lock-token-file".into());
    }
    if host.is_empty() || host.contains(['?', '#']) || key.contains(['?', '#']) {
        return Err(form());
    }
    let ported = host.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok());
    let bare = host.starts_with('[') && host.ends_with(']');
    let host = if ported && !bare { host.to_owned() } else { format!("{host}:{port}") };
    let key = key.trim_end_matches('/');
    let key = (!key.is_empty()).then(|| key.to_owned());
    Ok(LockAddress { address: format!("{scheme}://{host}"), key })
}

/// What this agent takes part in; nothing where it is the only one.
pub fn begin(
    args: &RunArgs,
    cluster: Option<&Cluster>,
    owner: &OwnerId,
    report: &Report,
    clock: &Clock,
) -> Result<Option<(Arc<Election>, Held)>, CliError> {
    // A name alone is not enough: a program that is started again must not take itself for the one before.
    let me = format!("{}_{}_{:x}", me(), std::process::id(), clock.wall().as_nanos());
    let (ledger, times): (Box<dyn Ledger>, Times) = match (cluster, &args.lock.lock) {
        (Some(cluster), None) if args.lease != "off" => {
            let ledger =
                LeaseLedger::new(cluster.client(), &args.lease, clock.clone(), report.clone());
            (Box::new(ledger), Times::default())
        }
        (_, Some(at)) => (Box::new(session(at, &args.lock, owner, &me)?), lock::TIMES),
        (_, None) => return Ok(None),
    };
    let held = Held::new(me, times, clock.clone());
    let election = Election::new(ledger, held.clone(), report.clone());
    Ok(Some((Arc::new(election), held)))
}

fn session(
    at: &LockAddress,
    args: &LockArgs,
    owner: &OwnerId,
    me: &str,
) -> Result<SessionLedger, CliError> {
    let text = |path: &PathBuf| Credential::File(path.display().to_string());
    let identity =
        args.lock_cert_file.as_ref().map(text).zip(args.lock_key_file.as_ref().map(text));
    let tls = ConsulTls { ca: args.lock_ca_file.as_ref().map(text), identity };
    let spec = ConsulSpec {
        address: at.address.clone(),
        agent_port: None,
        token: args.lock_token_file.as_ref().map(text),
        tls: Some(Box::new(tls)).filter(|tls| tls.ca.is_some() || tls.identity.is_some()),
    };
    let own = || format!("evenkeel/{owner}/lock");
    let key = at.key.clone().unwrap_or_else(own);
    SessionLedger::new(spec, &key, me).map_err(|e| CliError::new(causes(&e)))
}

/// What this agent is called: the pod's name, or the machine's.
pub fn me() -> String {
    let named = std::env::var("HOSTNAME").ok().filter(|h| !h.is_empty());
    let machine = || std::fs::read_to_string("/etc/hostname").ok().map(|h| h.trim().to_owned());
    named.or_else(machine).filter(|h| !h.is_empty()).unwrap_or_else(|| "evenkeel".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_lock_is() {
        let at = |text: &str| lock(text).map(|l| (l.address, l.key.unwrap_or_default()));
        let good = |address: &str, key: &str| Ok((address.to_owned(), key.to_owned()));
        assert_eq!(at("consul://10.0.0.1:8500"), good("http://10.0.0.1:8500", ""));
        assert_eq!(at("consul://consul"), good("http://consul:8500", ""));
        assert_eq!(at("consuls://c.example/a/b/"), good("https://c.example:8501", "a/b"));
        assert_eq!(at("consul://[fd00::1]"), good("http://[fd00::1]:8500", ""));
        assert_eq!(at("consul://[fd00::1]:80/k"), good("http://[fd00::1]:80", "k"));
        for bad in
            ["", "consul", "consul://", "http://c", "consul:///key", "consul://c/k?x", "a://b"]
        {
            assert!(lock(bad).is_err(), "{bad}");
        }
        assert!(lock("consul://u:word@c").unwrap_err().contains("--lock-token-file"));
    }
}
