//! What the controller reports in Kubernetes. Users never write it.
//!
//! Unlike the specs, a status may hold unknown fields: an older controller must be able to read
//! what a newer one wrote, or a rollback of evenkeel itself would stop it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// The state of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Hosts that are known: those of the spec, or the agents of the Mesos cluster.
    #[serde(default)]
    pub hosts: i32,
    /// Hosts that answer.
    #[serde(default)]
    pub ready_hosts: i32,
    /// Services that are wanted on the fleet.
    #[serde(default)]
    pub services: i32,
    /// Instances that run on the fleet and are ours.
    #[serde(default)]
    pub instances: i32,
    /// Why not everything is done yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub waiting: Vec<Waiting>,
    /// The newest value of the annotation `evenkeel.dev/reconcile` that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// `Ready` always; `Reconciling` and `Stalled` only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// The state of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Instances that exist, terminating ones included.
    #[serde(default)]
    pub replicas: i32,
    /// Instances that pass their health check.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Instances of the newest spec.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Instances that serve the newest routes.
    #[serde(default)]
    pub available_replicas: i32,
    /// Routes in force on every available instance.
    #[serde(default)]
    pub routes: i32,
    /// The label selector of its instances, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The revision that is being brought about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempted_revision: Option<String>,
    /// The newest revision that was reached entirely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_revision: Option<String>,
    /// Why not everything is done yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub waiting: Vec<Waiting>,
    /// The newest value of the annotation `evenkeel.dev/reconcile` that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// `Ready` always; `Reconciling` and `Stalled` only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// The state of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingServiceStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Instances that exist, terminating ones included.
    #[serde(default)]
    pub replicas: i32,
    /// Instances that pass their health check.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Instances of the newest spec.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Instances that were healthy for `minReadySeconds` and are served by every balancer.
    #[serde(default)]
    pub available_replicas: i32,
    /// The fleets that its spec names, as `kubectl get` shows them: `one, another`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleets: Option<String>,
    /// The label selector of its instances, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The revision that is being brought about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempted_revision: Option<String>,
    /// The newest revision that was reached entirely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_revision: Option<String>,
    /// Why not everything is done yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub waiting: Vec<Waiting>,
    /// The newest value of the annotation `evenkeel.dev/reconcile` that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// `Ready` always; `Reconciling` and `Stalled` only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// One reason why not everything is done yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// What is waited for, and how to release it where a person can.
    pub message: String,
    /// When the wait ends by itself. Absent: when something else happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub until: Option<Time>,
}
