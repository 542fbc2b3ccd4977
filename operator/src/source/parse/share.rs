//! A service on several fleets, and a Marathon cluster as one: from the API's types to the model.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_crds as api;

use super::lower::Lowering;
use crate::model::{
    AppClaim, AppId, CLUSTER, Endpoint, FleetName, HostName, HostSpec, HostState, MarathonAuth,
    MarathonSpec,
};

/// Fields of an app that the document has words of its own for.
const SPOKEN_FOR: [(&str, &str); 3] = [
    ("id", "say marathon.app"),
    ("instances", "say replicas, or marathon.instances: platform"),
    ("version", "leave it out"),
];

/// How many of `replicas` run on which fleet: those that are counted, and of the rest by weight, the largest remainders first
/// and among equals in the order of the names.
fn parts(replicas: u32, placements: &[(FleetName, api::FleetShare)]) -> BTreeMap<FleetName, u32> {
    let mut parts: BTreeMap<FleetName, u32> = placements
        .iter()
        .map(|(name, share)| (name.clone(), share.replicas.unwrap_or(0)))
        .collect();
    let counted: u32 = parts.values().fold(0, |sum, n| sum.saturating_add(*n));
    let rest = u64::from(replicas.saturating_sub(counted));
    let weights: Vec<(&FleetName, u64)> = placements
        .iter()
        .filter_map(|(name, share)| Some((name, u64::from(share.weight?))))
        .collect();
    let all: u64 = weights.iter().map(|(_, w)| w).sum();
    if all == 0 {
        return parts;
    }
    let mut remainders: Vec<(u64, &FleetName)> = Vec::new();
    let mut given = 0;
    for (name, weight) in weights {
        let share = rest * weight / all;
        given += share;
        *parts.entry(name.clone()).or_default() += u32::try_from(share).unwrap_or(u32::MAX);
        remainders.push((rest * weight % all, name));
    }
    remainders.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let left = usize::try_from(rest - given).unwrap_or(usize::MAX);
    for (_, name) in remainders.into_iter().take(left) {
        *parts.entry(name.clone()).or_default() += 1;
    }
    parts
}

impl Lowering<'_> {
    /// The fleet that a service calls its own, and its parts.
    pub(super) fn parts(
        &mut self,
        fleet: &str,
        replicas: u32,
        placements: Vec<api::FleetShare>,
    ) -> Option<(FleetName, BTreeMap<FleetName, u32>)> {
        let mut named = Vec::with_capacity(placements.len());
        for (index, share) in placements.into_iter().enumerate() {
            match FleetName::new(&share.fleet) {
                Ok(name) => named.push((name, share)),
                Err(e) => self.flaw(&format!("spec.placements[{index}].fleet"), e),
            }
        }
        let own = FleetName::new(fleet).map_err(|e| self.flaw("spec.fleet", e)).ok()?;
        let own = match named.first() {
            Some((first, _)) if named.iter().all(|(name, _)| *name != own) => first.clone(),
            Some(_) | None => own,
        };
        Some((own, parts(replicas, &named)))
    }

    /// What a service says of its app.
    pub(super) fn app(&mut self, marathon: api::MarathonApp) -> AppClaim {
        let api::MarathonApp { app, instances, fields } = marathon;
        let id = app.as_deref().and_then(AppId::new);
        if app.is_some() && id.is_none() {
            self.flaw("spec.marathon.app", "not the absolute path of an app");
        }
        for (field, instead) in SPOKEN_FOR {
            if fields.contains_key(field) {
                let path = format!("spec.marathon.fields.{field}");
                self.flaw(&path, "not here: evenkeel answers for it");
                self.hint((*instead).to_owned());
            }
        }
        AppClaim {
            id,
            fields: fields.into_iter().collect(),
            scaled_elsewhere: instances == api::InstancesFrom::Platform,
        }
    }

    /// A Marathon cluster, and the one host that stands for it.
    pub(super) fn marathon(
        &mut self,
        marathon: api::MarathonBackend,
    ) -> Option<(Arc<MarathonSpec>, HostSpec)> {
        let api::MarathonBackend { urls, auth, group, registry_config, registrator } = marathon;
        let at = "spec.backend.marathon.auth";
        let auth = auth.and_then(|auth| {
            let api::MarathonAuth {
                username,
                password_file,
                password_secret,
                token_file,
                token_secret,
            } = auth;
            let password =
                self.credential(&format!("{at}.password"), password_file, password_secret);
            let token = self.credential(&format!("{at}.token"), token_file, token_secret);
            match (username.zip(password), token) {
                (Some((username, password)), _) => Some(MarathonAuth::Basic { username, password }),
                (None, Some(token)) => Some(MarathonAuth::Token { token }),
                (None, None) => None, // the schema wants one of the two
            }
        });
        let host = HostSpec {
            name: HostName::new(CLUSTER).ok()?,
            endpoint: Endpoint::Marathon,
            address: None,
            labels: BTreeMap::new(),
            state: HostState::Active,
            registry_auth: None,
        };
        Some((Arc::new(MarathonSpec { urls, auth, group, registry_config, registrator }), host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(
        fleet: &str,
        replicas: Option<u32>,
        weight: Option<u32>,
    ) -> (FleetName, api::FleetShare) {
        (FleetName::new(fleet).unwrap(), api::FleetShare { fleet: fleet.into(), replicas, weight })
    }

    #[test]
    fn every_replica_has_one_place() {
        let of = |replicas, given: &[(FleetName, api::FleetShare)]| {
            parts(replicas, given).into_values().collect::<Vec<u32>>()
        };
        let weighed = |a, b, c| {
            [share("a", None, Some(a)), share("b", None, Some(b)), share("c", None, Some(c))]
        };
        assert_eq!(of(10, &weighed(1, 1, 1)), [4, 3, 3]);
        assert_eq!(
            of(10, &weighed(0, 1, 3)),
            [0, 3, 7],
            "2.5 and 7.5: the first by name has the odd one"
        );
        assert_eq!(of(10, &weighed(0, 0, 0)), [0, 0, 0], "which the conflict of fields refuses");
        let both =
            [share("a", Some(3), None), share("b", None, Some(1)), share("c", None, Some(1))];
        assert_eq!(of(10, &both), [3, 4, 3]);
        for replicas in 0..40 {
            assert_eq!(of(replicas, &weighed(3, 5, 7)).iter().sum::<u32>(), replicas);
        }
    }
}
