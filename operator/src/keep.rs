//! Keeps each fleet's memory in the state directory. Losing it may delay, never break a promise.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{
    FleetName, Good, Memory, OwnerId, Quarantine, Revision, RolloutMemory, ServiceMemory,
    ServiceName, SpecHash, Time,
};
use crate::reconcile::Keeper;
use crate::source::load::{APPLIED, context};
use crate::source::parse::{Applied, Secrets, service_from_document};
use crate::source::store::Store;

const VERSION: u32 = 1;

/// Memory in files of a [`Store`], one a fleet.
pub struct StoreKeeper {
    store: Arc<Store>,
    owner: OwnerId,
    secrets: Arc<dyn Secrets + Send + Sync>,
}

impl StoreKeeper {
    /// Keeps memory in `store`.
    pub fn new(store: Arc<Store>, owner: OwnerId, secrets: Arc<dyn Secrets + Send + Sync>) -> Self {
        Self { store, owner, secrets }
    }
}

/// The form on disk: names, numbers and documents, no secret's value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    version: u32,
    services: BTreeMap<String, KeptService>,
    disruptions: Vec<u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptService {
    settled: u32,
    good: Option<KeptGood>,
    quarantined: Option<KeptQuarantine>,
    rolling: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptGood {
    hash: String,
    document: String,
    revision: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptQuarantine {
    hash: String,
    why: String,
}

impl Kept {
    fn of(memory: &Memory) -> Self {
        let service = |m: &ServiceMemory| {
            // Taken apart without `..`: what is not kept is named here. Failures in a row are not:
            // after a restart every slot has its first try again.
            let ServiceMemory {
                last_good,
                known: _,
                settled,
                rollout,
                quarantined,
                slots: _,
                idle: _,
            } = m;
            KeptService {
                settled: *settled,
                good: last_good.as_ref().map(|g| KeptGood {
                    hash: g.hash.to_string(),
                    document: g.document.to_string(),
                    revision: g.revision.0.to_string(),
                }),
                quarantined: quarantined
                    .as_ref()
                    .map(|q| KeptQuarantine { hash: q.hash.to_string(), why: q.why.clone() }),
                rolling: rollout.as_ref().map(|r| r.hash.to_string()),
            }
        };
        Self {
            version: VERSION,
            services: memory
                .services
                .iter()
                .map(|(name, m)| (name.as_str().to_owned(), service(m)))
                .collect(),
            disruptions: memory.disruptions.iter().map(|t| t.0).collect(),
        }
    }
}

impl StoreKeeper {
    fn file(fleet: &FleetName) -> String {
        format!("memory-{fleet}")
    }

    /// Where each service's document came from when it was read last: there its secrets are.
    fn paths(&self) -> BTreeMap<String, String> {
        let bytes = self.store.load(APPLIED).ok().flatten();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let applied = text.and_then(|text| Applied::from_json(&text).ok()).unwrap_or_default();
        let name = |key: &str| key.split_once('/').map(|(_, name)| name.to_owned());
        let services = applied.objects().filter(|(key, _)| !key.starts_with("Fleet/"));
        services.filter_map(|(key, path)| Some((name(key)?, path.to_owned()))).collect()
    }

    fn restore(&self, kept: Kept) -> Memory {
        let paths = self.paths();
        let mut memory = Memory {
            disruptions: kept.disruptions.into_iter().map(Time).collect(),
            ..Memory::default()
        };
        for (name, kept) in kept.services {
            let Ok(name) = ServiceName::new(&name) else { continue };
            let service = ServiceMemory {
                last_good: kept.good.and_then(|g| {
                    let path = paths.get(name.as_str()).map(String::as_str);
                    self.good(&name, path.unwrap_or_default(), g)
                }),
                known: Vec::new(),
                settled: kept.settled,
                rollout: kept.rolling.as_deref().and_then(SpecHash::parse).map(|hash| {
                    RolloutMemory { hash, progressed: Time(0), best: 0, failed: false }
                }),
                quarantined: kept
                    .quarantined
                    .and_then(|q| Some(Quarantine { hash: SpecHash::parse(&q.hash)?, why: q.why })),
                slots: BTreeMap::new(),
                idle: None,
            };
            memory.services.insert(name, Arc::new(service));
        }
        memory
    }

    /// The spec is read from its document again; when it no longer hashes to what runs (a secret
    /// changed, or the rules did) it is not the spec that was seen to work, and is let go.
    fn good(&self, name: &ServiceName, path: &str, kept: KeptGood) -> Option<Good> {
        let nothing = Applied::default();
        let ctx = context(&self.owner, &*self.secrets, &nothing);
        let hash = SpecHash::parse(&kept.hash)?;
        match service_from_document(&kept.document, path, &ctx) {
            Ok(service) if service.hash == hash => Some(Good {
                hash,
                spec: service.spec,
                document: kept.document.into(),
                revision: Revision(kept.revision.into()),
            }),
            Ok(_) => None,
            Err(e) => {
                tracing::warn!(service = %name, error = %e, "its last good spec is lost");
                None
            }
        }
    }
}

impl Keeper for StoreKeeper {
    fn load(&self, fleet: &FleetName) -> Memory {
        let Some(bytes) = self.store.load_or_set_aside(&Self::file(fleet)) else {
            return Memory::default();
        };
        match serde_json::from_slice::<Kept>(&bytes) {
            Ok(kept) if kept.version == VERSION => self.restore(kept),
            Ok(kept) => {
                tracing::warn!(%fleet, version = kept.version, "memory of another version, ignored");
                Memory::default()
            }
            Err(e) => {
                tracing::warn!(%fleet, error = %e, "memory cannot be read, ignored");
                Memory::default()
            }
        }
    }

    fn keep(&self, fleet: &FleetName, memory: &Memory) {
        let kept = serde_json::to_vec(&Kept::of(memory)).unwrap_or_default();
        if let Err(e) = self.store.save(&Self::file(fleet), &kept) {
            tracing::warn!(%fleet, error = %e.chain(), "memory cannot be kept");
        }
    }
}
