//! One container of ours, as far as the engine tells it.

use std::net::IpAddr;
use std::sync::Arc;

use super::dial::host_of;
use super::labels::{Identity, is_ending};
use super::probe::Verdict;
use super::wire::Inspect;
use crate::model::{Endpoint, HealthState, HostSpec, Resources, State, Time};

/// What the container's own health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    None,
    Starting,
    Healthy,
    Unhealthy,
}

/// One container of ours.
#[derive(Debug, Clone)]
pub(super) struct Ours {
    pub(super) name: Arc<str>,
    pub(super) identity: Identity,
    pub(super) state: State,
    pub(super) created: Time,
    /// When it was last started, in nanoseconds on the engine's clock; 0: never.
    pub(super) started: i64,
    /// When it was first seen running since then, on ours.
    pub(super) running_since: Time,
    pub(super) resources: Resources,
    pub(super) published: Vec<u16>,
    /// Container and host port of what is published by TCP.
    pub(super) tcp: Vec<(u16, u16)>,
    /// Its addresses, by network.
    pub(super) networks: Vec<(Arc<str>, IpAddr)>,
    address: Option<IpAddr>,
    pub(super) check: Check,
    check_since: Time,
    /// Whether the engine has spoken of memory since the start.
    pub(super) out_of_memory: bool,
    pub(super) verdict: Verdict,
}

impl Ours {
    /// Reads an inspect. What was known `before` of the same run is carried on; `witnessed`: its start
    /// happened before our eyes.
    pub(super) fn read(
        identity: Identity,
        i: &Inspect,
        before: Option<Self>,
        witnessed: bool,
        now: Time,
    ) -> Self {
        let started = nanos(&i.state.started_at);
        let before = before.filter(|b| b.started == started);
        let check = match i.state.health.as_ref().map(|h| h.status.as_str()) {
            Some("starting") => Check::Starting,
            Some("healthy") => Check::Healthy,
            Some("unhealthy") => Check::Unhealthy,
            _ => Check::None,
        };
        let mut state = state_word(&i.state.status);
        if let State::Exited { code, out_of_memory } = &mut state {
            (*code, *out_of_memory) = (i.state.exit_code, i.state.oom_killed);
        }
        let name = i.name.strip_prefix('/').unwrap_or(&i.name);
        if matches!(state, State::Running | State::Paused) && is_ending(name, &i.id) {
            state = State::Ending;
        }
        let bound = |key: &str| -> Vec<(u16, u16)> {
            let of = i.host_config.port_bindings.iter().flatten();
            of.filter_map(|(k, b)| Some((k.strip_suffix(key)?.parse().ok()?, b.as_ref()?)))
                .flat_map(|(port, b)| b.iter().map(move |b| (port, b)))
                .filter_map(|(port, b)| Some((port, b.host_port.parse().ok().filter(|p| *p != 0)?)))
                .collect()
        };
        let networks = || i.network_settings.networks.iter().flatten();
        let ip = |name: &str| {
            let (_, e) = networks().find(|(n, _)| *n == name)?;
            e.as_ref()?.ip_address.parse::<IpAddr>().ok()
        };
        let mut addresses: Vec<(Arc<str>, IpAddr)> = networks()
            .filter_map(|(n, e)| Some((n.as_str().into(), e.as_ref()?.ip_address.parse().ok()?)))
            .collect();
        addresses.sort();
        let any_ip = || networks().find_map(|(_, e)| e.as_ref()?.ip_address.parse().ok());
        let address = if i.host_config.network_mode == "host" {
            Some(IpAddr::from([127, 0, 0, 1]))
        } else {
            ip(&i.host_config.network_mode).or_else(any_ip)
        };
        Self {
            name: name.into(),
            identity,
            state,
            created: Time(u64::try_from(nanos(&i.created) / 1_000_000).unwrap_or(0)),
            started,
            running_since: before.as_ref().map_or(now, |b| b.running_since),
            resources: Resources {
                cpu_millis: u64::try_from(i.host_config.nano_cpus / 1_000_000).unwrap_or(0),
                memory_bytes: u64::try_from(i.host_config.memory).unwrap_or(0),
            },
            published: Self::host_ports(i),
            tcp: bound("/tcp"),
            networks: addresses,
            address,
            check,
            check_since: before
                .as_ref()
                .filter(|b| b.check == check)
                .map_or(now, |b| b.check_since),
            out_of_memory: before.as_ref().is_some_and(|b| b.out_of_memory),
            verdict: match before {
                Some(b) => b.verdict,
                None if witnessed => Verdict::default(),
                None => Verdict::unasked(),
            },
        }
    }

    /// Host ports that a container was made to publish, sorted.
    pub(super) fn host_ports(i: &Inspect) -> Vec<u16> {
        let bindings = i.host_config.port_bindings.iter().flatten();
        let all = bindings.flat_map(|(_, b)| b.iter().flatten());
        let mut ports: Vec<u16> = all.filter_map(|b| b.host_port.parse().ok()).collect();
        ports.retain(|p| *p != 0);
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// What is known of its health; `probed`: the agent itself asks.
    pub(super) fn health(&self, probed: bool) -> HealthState {
        if !matches!(self.state, State::Running | State::Paused) {
            return HealthState::Starting;
        }
        if probed {
            return self.verdict.health();
        }
        match self.check {
            Check::None => HealthState::Healthy { since: self.running_since },
            Check::Starting => HealthState::Starting,
            Check::Healthy => HealthState::Healthy { since: self.check_since },
            Check::Unhealthy => HealthState::Unhealthy { since: self.check_since },
        }
    }

    /// Whether the engine's word for its state is the one that is known.
    pub(super) fn same_word(&self, word: &str) -> bool {
        match (state_word(word), self.state) {
            // The engine has no word for it.
            (State::Running | State::Paused, State::Ending) => true,
            (said, known) => std::mem::discriminant(&said) == std::mem::discriminant(&known),
        }
    }

    /// Where the agent reaches a port of it: on this machine its own address; from afar only what is published.
    pub(super) fn reached(&self, host: &HostSpec, port: u16) -> Result<String, String> {
        let published = self.tcp.iter().find(|(inside, _)| *inside == port).map(|(_, p)| *p);
        let name = &self.name;
        let far = match (&host.endpoint, &host.address) {
            (Endpoint::Unix { .. } | Endpoint::Marathon, None) => None,
            (_, Some(address)) => Some(address.as_str()),
            (Endpoint::Tcp { authority, .. } | Endpoint::Ssh { authority }, None) => {
                Some(host_of(authority))
            }
        };
        let join = |ip: &str, port: u16| {
            if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
        };
        let local = matches!(host.endpoint, Endpoint::Unix { .. });
        match (local, self.address, far, published) {
            (true, Some(ip), _, _) => Ok(join(&ip.to_string(), port)),
            (_, _, Some(far), Some(published)) => Ok(join(far, published)),
            (true, None, _, _) => Err(format!("{name} has no address to be probed at")),
            (false, _, _, _) => Err(format!(
                "{name} cannot be probed: its host is remote and port {port} is not published"
            )),
        }
    }
}

/// Nanoseconds since the Unix epoch; 0 for what cannot be read and for Docker's "never", the year 1.
pub(super) fn nanos(text: &str) -> i64 {
    let time = text.parse::<jiff::Timestamp>().ok();
    time.and_then(|t| i64::try_from(t.as_nanosecond()).ok()).map_or(0, |n| n.max(0))
}

/// The engine's word; words of Podman and of engines to come are read as the nearest thing.
fn state_word(word: &str) -> State {
    match word {
        "created" | "configured" | "initialized" => State::Created,
        "paused" => State::Paused,
        "exited" | "dead" | "stopped" => State::Exited { code: 0, out_of_memory: false },
        "removing" => State::Removing,
        _ => State::Running,
    }
}
