//! The parts of an engine's answers that we read, and no others: an engine newer than us may add fields
//! and words without harm. An answer that says `null` for a list or a map means an empty one.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `GET /version`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Version {
    pub(super) api_version: Option<String>,
    #[serde(rename = "MinAPIVersion")]
    pub(super) min_api_version: Option<String>,
}

/// `GET /info`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Info {
    #[serde(rename = "NCPU")]
    pub(super) ncpu: u64,
    pub(super) mem_total: u64,
    pub(super) system_time: String,
}

/// One entry of `GET /containers/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Summary {
    pub(super) id: String,
    pub(super) names: Option<Vec<String>>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) state: String,
    pub(super) status: String,
    pub(super) ports: Option<Vec<SummaryPort>>,
}

/// A port in a `Summary`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct SummaryPort {
    pub(super) public_port: Option<u16>,
}

impl Summary {
    /// The container's own name; names with a further slash are links to it from others.
    pub(super) fn name(&self) -> Option<&str> {
        let names = self.names.as_deref().unwrap_or_default();
        names.iter().filter_map(|n| n.strip_prefix('/')).find(|n| !n.contains('/'))
    }
}

/// `GET /containers/{id}/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Inspect {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) created: String,
    pub(super) state: InspectState,
    pub(super) config: InspectConfig,
    pub(super) host_config: InspectHostConfig,
    pub(super) network_settings: InspectNetworks,
}

/// Its state.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct InspectState {
    pub(super) status: String,
    pub(super) exit_code: i64,
    #[serde(rename = "OOMKilled")]
    pub(super) oom_killed: bool,
    pub(super) started_at: String,
    pub(super) health: Option<InspectHealth>,
}

/// What its own health check says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct InspectHealth {
    pub(super) status: String,
}

/// What it was made from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct InspectConfig {
    pub(super) labels: Option<BTreeMap<String, String>>,
}

/// What it was given of the host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct InspectHostConfig {
    pub(super) nano_cpus: i64,
    pub(super) memory: i64,
    pub(super) network_mode: String,
    pub(super) port_bindings: Option<BTreeMap<String, Option<Vec<Binding>>>>,
}

/// A published port.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Binding {
    pub(super) host_port: String,
}

/// Its networks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct InspectNetworks {
    pub(super) networks: Option<BTreeMap<String, Option<InspectEndpoint>>>,
}

/// Its place in one network.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct InspectEndpoint {
    #[serde(rename = "IPAddress")]
    pub(super) ip_address: String,
}

/// The answer to a create.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Created {
    pub(super) id: String,
}

/// `GET /exec/{id}/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ExecState {
    pub(super) running: bool,
    pub(super) exit_code: Option<i64>,
}

/// `GET /containers/{id}/top`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Top {
    pub(super) titles: Option<Vec<String>>,
    pub(super) processes: Option<Vec<Vec<String>>>,
}
