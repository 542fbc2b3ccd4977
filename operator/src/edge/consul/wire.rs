//! What Consul answers, as far as it is read: unknown fields are passed over, `null` is an empty list.
//!
//! Only API that Consul 1.8 and every later one have is used.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};

use super::diff::{AgentLook, Call, Observed};
use super::entry::{Form, Ours, check_id, maintenance_id, noted};
use crate::model::InstanceId;

/// The expression that lets only services of ours through. Newer and older agents read it alike; one that does not
/// would send everything, so what comes is looked at again.
pub(super) fn services_filter(ours: &Ours) -> String {
    format!("ID matches \"^{}\"", ours.prefix())
}

/// The same for checks.
pub(super) fn checks_filter(ours: &Ours) -> String {
    format!("ServiceID matches \"^{}\"", ours.prefix())
}

/// `GET /v1/agent/services`.
pub(super) type Services = BTreeMap<String, ServiceAnswer>;

/// A service, of an agent or of a node in the catalogue.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ServiceAnswer {
    service: Option<String>,
    tags: Option<Vec<String>>,
    meta: Option<BTreeMap<String, String>>,
    address: Option<String>,
    port: i64,
}

/// `GET /v1/agent/checks`, by the check's id, and `GET /v1/health/state/any`, which is a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct CheckAnswer {
    #[serde(deserialize_with = "null_is_empty")]
    node: String,
    #[serde(rename = "CheckID", deserialize_with = "null_is_empty")]
    check_id: String,
    #[serde(deserialize_with = "null_is_empty")]
    notes: String,
    #[serde(rename = "ServiceID", deserialize_with = "null_is_empty")]
    service_id: String,
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `GET /v1/agent/self`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct SelfAnswer {
    config: SelfConfig,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct SelfConfig {
    node_name: String,
}

impl SelfAnswer {
    /// The node that the agent is.
    pub(super) fn node(self) -> Option<String> {
        Some(self.config.node_name).filter(|name| !name.is_empty())
    }
}

/// `GET /v1/catalog/node/<node>`; `null` where there is no such node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct NodeAnswer {
    services: Option<Services>,
}

impl NodeAnswer {
    /// The ids of those that say in their meta that they are ours.
    pub(super) fn ours(self, ours: &Ours) -> BTreeSet<String> {
        let services = self.services.unwrap_or_default();
        let own = |(id, service): (String, ServiceAnswer)| {
            ours.own(&id, &service.meta.unwrap_or_default()).then_some(id)
        };
        services.into_iter().filter_map(own).collect()
    }
}

/// `GET /v1/operator/autopilot/health`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct AutopilotAnswer {
    servers: Option<Vec<ServerAnswer>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ServerAnswer {
    name: String,
    healthy: bool,
    voter: bool,
}

impl AutopilotAnswer {
    /// Whether each server that has a vote is healthy, by its node's name.
    pub(super) fn voters(self) -> BTreeMap<String, bool> {
        let servers = self.servers.unwrap_or_default().into_iter();
        servers.filter(|server| server.voter).map(|server| (server.name, server.healthy)).collect()
    }
}

/// What an agent has, out of its two lists.
pub(super) fn agent_look(
    ours: &Ours,
    services: Services,
    checks: &BTreeMap<String, CheckAnswer>,
) -> AgentLook {
    let services = services.into_iter().filter(|(id, _)| ours.read(id).is_some());
    let observed = services.map(|(id, service)| {
        let ServiceAnswer { service, tags, meta, address, port } = service;
        let meta = meta.unwrap_or_default();
        let observed = Observed {
            own: ours.own(&id, &meta),
            name: service.unwrap_or_default(),
            tags: tags.unwrap_or_default(),
            address: address.unwrap_or_default(),
            port: u16::try_from(port).unwrap_or(0),
            meta,
            checked: checks.contains_key(&check_id(&id)),
            maintenance: checks.contains_key(&maintenance_id(&id)),
        };
        (id, observed)
    });
    let node = checks.values().map(|check| check.node.clone()).find(|node| !node.is_empty());
    AgentLook { services: observed.collect(), node }
}

/// Everything of ours that the servers know, by node and id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Catalog {
    pub(super) nodes: BTreeMap<String, BTreeMap<String, CatalogEntry>>,
}

/// One entry that the servers know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct CatalogEntry {
    /// The instance, where the entry's own check names it.
    pub(super) instance: Option<InstanceId>,
    pub(super) maintenance: bool,
}

/// What the servers have, out of the list of all checks.
pub(super) fn catalog(ours: &Ours, checks: Vec<CheckAnswer>) -> Catalog {
    let mut catalog = Catalog::default();
    for CheckAnswer { node, check_id: id, notes, service_id } in checks {
        if ours.read(&service_id).is_none() {
            continue;
        }
        let own = id == check_id(&service_id);
        let maintenance = id == maintenance_id(&service_id);
        let entry = catalog.nodes.entry(node).or_default().entry(service_id).or_default();
        entry.maintenance |= maintenance;
        if own {
            entry.instance = noted(&notes);
        }
    }
    catalog
}

/// A call that changes something: always `PUT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Put<'a> {
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, &'static str)>,
    pub(super) body: Option<&'a Form>,
}

/// How an agent is told.
pub(super) fn put(call: &Call) -> Put<'_> {
    let plain = |path| Put { path, query: Vec::new(), body: None };
    match call {
        Call::Register(entry) => {
            let path = "/v1/agent/service/register".to_owned();
            Put { path, query: Vec::new(), body: Some(&entry.form) }
        }
        Call::Maintain { id, on } => {
            let path = format!("/v1/agent/service/maintenance/{id}");
            let query = if *on {
                vec![("enable", "true"), ("reason", "leaving")]
            } else {
                vec![("enable", "false")]
            };
            Put { query, ..plain(path) }
        }
        Call::Deregister { id } => plain(format!("/v1/agent/service/deregister/{id}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::super::entry::tests::ours;
    use super::*;

    const ID: &str = "me/shop/web/h1/1/000100000000";

    #[test]
    fn nothing_is_too_little_and_nothing_unknown_is_too_much() {
        let services: Services = from_value(json!({
            ID: {"ID": ID, "Service": "web", "Tags": null, "Meta": null, "Port": 70000, "Kind": {"x": 1}},
            "redis": {"Service": "redis"},
            "empty": {},
        }))
        .unwrap();
        let look = agent_look(&ours(), services, &BTreeMap::new());
        assert_eq!(look.services.keys().collect::<Vec<_>>(), [ID]);
        let observed = &look.services[ID];
        assert!(!observed.own && !observed.checked && !observed.maintenance);
        assert_eq!((observed.port, look.node), (0, None));
    }

    #[test]
    fn maintenance_is_read_from_the_checks() {
        let meta = json!({"evenkeel-owner": "me", "evenkeel-fleet": "shop"});
        let services = from_value(json!({ID: {"Service": "web", "Meta": meta}})).unwrap();
        let checks: BTreeMap<_, _> = from_value(json!({
            format!("service:{ID}"): {"Node": "n1"},
            format!("_service_maintenance:{ID}"): {"Node": "n1", "Status": "critical"},
        }))
        .unwrap();
        let look = agent_look(&ours(), services, &checks);
        assert_eq!(look.node.as_deref(), Some("n1"));
        assert!(
            look.services[ID].own && look.services[ID].checked && look.services[ID].maintenance
        );
    }

    #[test]
    fn the_list_of_checks_tells_what_the_servers_know() {
        let checks = from_value(json!([
            {"Node": "n1", "CheckID": format!("service:{ID}"), "Notes": "evenkeel instance abc", "ServiceID": ID},
            {"Node": "n1", "CheckID": format!("_service_maintenance:{ID}"), "Notes": "leaving", "ServiceID": ID},
            {"Node": "n2", "CheckID": format!("service:{ID}"), "Notes": "by hand", "ServiceID": ID},
            {"Node": "n1", "CheckID": "serfHealth", "ServiceID": null, "Notes": null},
            {"Node": "n1", "CheckID": "service:redis", "ServiceID": "redis"},
        ]))
        .unwrap();
        let catalog = catalog(&ours(), checks);
        let entry = |instance: Option<&str>, maintenance| CatalogEntry {
            instance: instance.map(|id| InstanceId(id.into())),
            maintenance,
        };
        assert_eq!(catalog.nodes["n1"][ID], entry(Some("abc"), true));
        assert_eq!(catalog.nodes["n2"][ID], entry(None, false));
        assert_eq!(catalog.nodes.values().map(BTreeMap::len).sum::<usize>(), 2);
    }

    #[test]
    fn a_node_tells_what_says_that_it_is_ours() {
        let other = "me/shop/web/h1/2/000200000000";
        let answer: NodeAnswer = from_value(json!({"Node": {}, "Services": {
            ID: {"Meta": {"evenkeel-owner": "me", "evenkeel-fleet": "shop"}},
            other: {"Meta": {"evenkeel-owner": "you", "evenkeel-fleet": "shop"}},
        }}))
        .unwrap();
        assert_eq!(answer.ours(&ours()), BTreeSet::from([ID.to_owned()]));
        let gone: Option<NodeAnswer> = from_value(json!(null)).unwrap();
        assert!(gone.unwrap_or_default().ours(&ours()).is_empty());
    }

    #[test]
    fn voters_are_those_with_a_vote() {
        let answer: AutopilotAnswer = from_value(json!({"Healthy": false, "Servers": [
            {"Name": "s1", "Healthy": true, "Voter": true, "SerfStatus": "alive"},
            {"Name": "s2", "Healthy": false, "Voter": true},
            {"Name": "s3", "Healthy": true, "Voter": false},
        ]}))
        .unwrap();
        let voters = BTreeMap::from([("s1".to_owned(), true), ("s2".to_owned(), false)]);
        assert_eq!(answer.voters(), voters);
        let none: AutopilotAnswer = from_value(json!({"Healthy": false, "Servers": null})).unwrap();
        assert!(none.voters().is_empty());
    }
}
