//! From a step to the body of a create call: pure, so that every field can be seen in a test.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, Mount as EngineMount,
    MountType, NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};

use super::labels::{Identity, Me};
use crate::model::{
    CommandCheck, EnvValue, EnvVar, InstanceSpec, Mount, MountSource, Port, Protocol, Published,
    Resources, Slot, Start, instance_host_name,
};

/// The body of the create call. It holds secrets: it goes to the engine and nowhere else.
///
/// The restart policy is `no`: one hand on the wheel. The agent counts and paces crash loops; an engine
/// that restarts by itself would hide them and keep instances alive that nobody asks for any more.
pub(super) fn body(me: &Me, start: &Start) -> ContainerCreateBody {
    let Start { host: _, name: _, service, slot, hash, spec, published, stop_signal } = start;
    let InstanceSpec {
        image,
        command,
        args,
        placed_args: _, // the plan has put them among the others
        env,
        ports,
        resources: Resources { cpu_millis, memory_bytes },
        mounts,
        networks,
        healthcheck,
        files: _, // put in after the create call
        capabilities,
    } = &**spec;
    let identity = Identity { service: service.clone(), slot: *slot, hash: *hash };
    let mut exposed: Vec<String> = ports
        .iter()
        .map(|Port { name: _, container, protocol, publish: _ }| port(*container, *protocol))
        .collect();
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for Published { container, host, protocol } in published {
        let key = port(*container, *protocol);
        if !exposed.contains(&key) {
            exposed.push(key.clone());
        }
        let binding = PortBinding { host_ip: None, host_port: Some(host.to_string()) };
        bindings.entry(key).or_default().get_or_insert_default().push(binding);
    }
    let first = networks.first();
    ContainerCreateBody {
        hostname: first.is_none_or(|n| n != "host").then(|| instance_host_name(service, *slot)),
        image: Some(image.clone()),
        entrypoint: command.clone(),
        cmd: args.clone(),
        env: Some(env.iter().map(variable).collect()),
        exposed_ports: Some(exposed),
        labels: Some(me.container(&identity)),
        stop_signal: Some(stop_signal.clone()),
        healthcheck: healthcheck.as_ref().map(check),
        host_config: Some(HostConfig {
            nano_cpus: positive(cpu_millis.saturating_mul(1_000_000)),
            memory: positive(*memory_bytes),
            mounts: Some(mounts.iter().map(|m| mount(m, *slot)).collect()),
            port_bindings: Some(bindings),
            cap_add: (!capabilities.is_empty()).then(|| capabilities.clone()),
            network_mode: first.cloned(),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            ..HostConfig::default()
        }),
        networking_config: first.map(|network| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(
                network.clone(),
                endpoint(network, service.as_str()),
            )])),
        }),
        ..ContainerCreateBody::default()
    }
}

/// Whether the engine made the network itself: it is always there and takes no aliases.
pub(super) fn built_in(network: &str) -> bool {
    matches!(network, "bridge" | "host" | "none" | "default")
}

/// Its place in a network: reached under the service's name.
pub(super) fn endpoint(network: &str, service: &str) -> EndpointSettings {
    let aliases = (!built_in(network)).then(|| vec![service.to_owned()]);
    EndpointSettings { aliases, ..EndpointSettings::default() }
}

fn port(container: u16, protocol: Protocol) -> String {
    match protocol {
        Protocol::Tcp => format!("{container}/tcp"),
        Protocol::Udp => format!("{container}/udp"),
    }
}

fn variable(EnvVar { name, value }: &EnvVar) -> String {
    match value {
        EnvValue::Plain(text) => format!("{name}={text}"),
        EnvValue::Secret { name: _, key: _, value } => format!("{name}={}", value.reveal()),
    }
}

fn positive(n: u64) -> Option<i64> {
    i64::try_from(n).ok().filter(|n| *n > 0)
}

fn mount(Mount { source, path, read_only }: &Mount, slot: Slot) -> EngineMount {
    let (typ, source) = match source {
        // As a mount, not a bind: the engine then refuses a source that does not exist, where a bind
        // would silently make an empty directory.
        MountSource::Host(source) => (MountType::BIND, source.clone()),
        MountSource::Volume(source) => (MountType::VOLUME, source.clone()),
        MountSource::SlotVolume(name) => (MountType::VOLUME, format!("{name}-{slot}")),
    };
    EngineMount {
        typ: Some(typ),
        source: Some(source),
        target: Some(path.clone()),
        read_only: Some(*read_only),
        ..EngineMount::default()
    }
}

fn check(check: &CommandCheck) -> HealthConfig {
    let CommandCheck { command, interval, timeout, failure_threshold, start_period } = check;
    let mut test = vec!["CMD".to_owned()];
    test.extend(command.iter().cloned());
    let nanos = |d: &Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    // The engine refuses anything between 0 and 1 ms, and takes 0 as "its own default".
    let at_least = |d: &Duration| nanos(d).max(1_000_000);
    HealthConfig {
        test: Some(test),
        interval: Some(at_least(interval)),
        timeout: Some(at_least(timeout)),
        retries: Some(i64::from(*failure_threshold)),
        start_period: Some(if start_period.is_zero() { 0 } else { at_least(start_period) }),
        start_interval: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{FleetName, HostName, OwnerId, Secret, ServiceName, Slot, SpecHash};

    fn me() -> Me {
        Me { owner: OwnerId::new("o").unwrap(), fleet: FleetName::new("f").unwrap() }
    }

    fn start(service: &str, spec: InstanceSpec) -> Start {
        Start {
            host: HostName::new("h1").unwrap(),
            name: "web_3".into(),
            service: ServiceName::new(service).unwrap(),
            slot: Slot(3),
            hash: SpecHash(0xab),
            spec: Arc::new(spec),
            published: vec![
                Published { container: 80, host: 8080, protocol: Protocol::Tcp },
                Published { container: 53, host: 5353, protocol: Protocol::Udp },
            ],
            stop_signal: "SIGQUIT".into(),
        }
    }

    #[test]
    fn every_field_arrives() {
        let spec = InstanceSpec {
            image: "toy:1".into(),
            command: Some(vec!["/toy".into()]),
            args: Some(vec!["-v".into()]),
            placed_args: Vec::new(),
            env: vec![
                EnvVar { name: "B".into(), value: EnvValue::Plain("2=3".into()) },
                EnvVar {
                    name: "A".into(),
                    value: EnvValue::Secret {
                        name: "s".into(),
                        key: "k".into(),
                        value: Secret::new("hush"),
                    },
                },
            ],
            ports: vec![Port {
                name: "http".into(),
                container: 80,
                protocol: Protocol::Tcp,
                publish: Some(8080),
            }],
            resources: Resources { cpu_millis: 250, memory_bytes: 64 << 20 },
            mounts: vec![
                Mount {
                    source: MountSource::Host("/srv".into()),
                    path: "/data".into(),
                    read_only: true,
                },
                Mount {
                    source: MountSource::Volume("v".into()),
                    path: "/v".into(),
                    read_only: false,
                },
            ],
            networks: vec!["back".into(), "front".into()],
            healthcheck: Some(CommandCheck {
                command: vec!["true".into()],
                interval: Duration::from_secs(2),
                timeout: Duration::from_micros(1),
                failure_threshold: 3,
                start_period: Duration::ZERO,
            }),
            files: Vec::new(),
            capabilities: vec!["NET_ADMIN".into()],
        };
        let made = serde_json::to_value(body(&me(), &start("web", spec))).unwrap();
        let labels = made["Labels"].to_string();
        assert!(!labels.contains("hush"), "a secret is in the labels");
        assert_eq!(
            made,
            serde_json::json!({
                "Hostname": "web-3",
                "Image": "toy:1",
                "Entrypoint": ["/toy"],
                "Cmd": ["-v"],
                "Env": ["B=2=3", "A=hush"],
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "StopSignal": "SIGQUIT",
                "Labels": {
                    "evenkeel.dev/owner": "o", "evenkeel.dev/fleet": "f",
                    "evenkeel.dev/service": "web", "evenkeel.dev/slot": "3",
                    "evenkeel.dev/hash": "00000000000000ab",
                },
                "Healthcheck": {
                    "Test": ["CMD", "true"], "Interval": 2_000_000_000_i64, "Timeout": 1_000_000,
                    "Retries": 3, "StartPeriod": 0,
                },
                "HostConfig": {
                    "NanoCpus": 250_000_000, "Memory": 64 << 20,
                    "NetworkMode": "back",
                    "CapAdd": ["NET_ADMIN"],
                    "RestartPolicy": {"Name": "no"},
                    "PortBindings": {
                        "80/tcp": [{"HostPort": "8080"}], "53/udp": [{"HostPort": "5353"}],
                    },
                    "Mounts": [
                        {"Type": "bind", "Source": "/srv", "Target": "/data", "ReadOnly": true},
                        {"Type": "volume", "Source": "v", "Target": "/v", "ReadOnly": false},
                    ],
                },
                "NetworkingConfig": {"EndpointsConfig": {"back": {"Aliases": ["web"]}}},
            })
        );
    }

    #[test]
    fn what_is_not_said_is_left_to_the_image_and_the_engine() {
        let mut bare = start("web", InstanceSpec { image: "toy:1".into(), ..Default::default() });
        bare.published.clear();
        let made = serde_json::to_value(body(&me(), &bare)).unwrap();
        for key in ["Entrypoint", "Cmd", "Healthcheck", "NetworkingConfig"] {
            assert!(made.get(key).is_none(), "{key} is set");
        }
        for key in ["NanoCpus", "Memory", "NetworkMode"] {
            assert!(made["HostConfig"].get(key).is_none(), "{key} is set");
        }
    }

    #[test]
    fn a_host_name_is_never_longer_than_it_may_be() {
        let name = |service: &str, slot| {
            instance_host_name(&ServiceName::new(service).unwrap(), Slot(slot))
        };
        assert_eq!(name("web", 3), "web-3");
        let long = name(&"x".repeat(63), 123);
        assert_eq!(long.len(), 63);
        assert!(long.ends_with("x-123"));
    }
}
