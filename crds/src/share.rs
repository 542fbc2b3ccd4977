//! A service on several fleets, and what it says of its app where a fleet is a Marathon cluster.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema::exactly_one;
use crate::text;

/// One fleet's part of a service: exactly one of `replicas` and `weight`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = exactly_one(&["replicas", "weight"]))]
pub struct FleetShare {
    /// The fleet, once in the list.
    #[schemars(schema_with = "text::name")]
    pub fleet: String,
    /// So many of the replicas run there, 0 to 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: Option<u32>,
    /// Of the replicas that no other entry counts, this fleet gets a part in proportion to its weight, 0 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000))]
    pub weight: Option<u32>,
}

/// What a service says of its app where its fleet is a Marathon cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MarathonApp {
    /// The app, by its absolute path, such as `/shop/web`. It is taken over where it exists, whoever made it. Default: the
    /// service's name in the fleet's group; one that evenkeel did not make is then left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::app")]
    pub app: Option<String>,
    /// Who decides how many instances there are. Default: `evenkeel`.
    #[serde(default)]
    pub instances: InstancesFrom,
    /// Fields of Marathon's own app object that this document has no word for, such as `backoffSeconds`. They are merged over
    /// what evenkeel would send: objects field by field, lists as a whole; `null` sends nothing. They mean nothing on Docker
    /// hosts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "text::open")]
    pub fields: BTreeMap<String, Value>,
}

impl MarathonApp {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Who decides how many instances an app has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InstancesFrom {
    /// The document.
    #[default]
    Evenkeel,
    /// Somebody else, such as an autoscaler of the cluster: the number that is found is left as it is.
    Platform,
}
