//! An app in the one form that the server keeps, whatever form a client or an answer has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::path::AppId;
use super::read::Fields;
use super::stamp::Stamp;

/// An accepted definition.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// Its path.
    pub id: AppId,
    /// What newer releases answer, without what the server says of itself.
    pub(super) fields: Fields,
    /// When this definition was accepted.
    pub version: Stamp,
    /// When it was scaled last.
    pub scaled: Stamp,
    /// When anything but the number of instances was changed last.
    pub configured: Stamp,
}

/// What one instance takes of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Need {
    /// Shares of a processor.
    pub cpus: f64,
    /// Mebibytes of memory.
    pub mem: f64,
    /// Mebibytes of disk.
    pub disk: f64,
    /// Graphics processors.
    pub gpus: f64,
}

/// How its instances are replaced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Upgrade {
    /// The share that must stay healthy.
    pub(super) least: f64,
    /// The share that may be there in addition.
    pub(super) over: f64,
}

/// What is done about instances whose agent is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Waited for, for ever.
    Forever,
    /// Replaced, then forgotten.
    Until { inactive: u64, expunged: u64 },
}

/// One port that an instance listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Inside of the container; zero for the same as outside, none without a container's network.
    pub container: Option<u16>,
    /// On the agent: none for no port there, zero for any.
    pub host: Option<u16>,
    /// In the whole cluster.
    pub service: u16,
    /// Its name.
    pub name: Option<String>,
    /// `tcp`, `udp` or `udp,tcp`.
    pub protocol: String,
}

/// How healthy an instance is, as its app wants it to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// `HTTP`, `MESOS_TCP`, …
    pub protocol: String,
    /// What to ask for, over HTTP.
    pub path: String,
    /// Which of the app's ports to ask.
    pub index: usize,
    /// A port that is asked instead.
    pub port: Option<u16>,
    /// What to run, with `COMMAND`.
    pub command: String,
    /// Failures say nothing for so many seconds, as long as nothing succeeded.
    pub grace: u64,
    /// Seconds between two checks.
    pub interval: u64,
    /// Seconds that one may take.
    pub timeout: u64,
    /// Failures in a row that end the task.
    pub failures: u64,
}

impl HealthCheck {
    /// Whether the agent does it, and not Marathon.
    pub fn is_of_mesos(&self) -> bool {
        self.protocol.starts_with("MESOS_") || self.protocol == "COMMAND"
    }
}

/// Whether an instance is ready, as its app wants it to be found out during a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// What it is called.
    pub name: String,
    /// `HTTP` or `HTTPS`.
    pub protocol: String,
    /// What to ask for.
    pub path: String,
    /// Which of the app's ports to ask; none has this name in an app that Marathon would not take.
    pub index: usize,
    /// Seconds between two checks.
    pub interval: u64,
    /// Seconds that one may take.
    pub timeout: u64,
    /// The codes that say yes.
    pub codes: BTreeSet<u64>,
    /// Whether the last answer is kept.
    pub keeps: bool,
}

/// Fields that may change without anything being restarted.
const LOOSE: [&str; 2] = ["instances", "executorResources"];

impl App {
    /// Whether all of its instances must be replaced to become `to`.
    pub(super) fn is_upgrade(&self, to: &Self) -> bool {
        let same = |from: &Fields, to: &Fields| {
            from.iter().all(|(k, v)| LOOSE.contains(&k.as_str()) || to.get(k) == Some(v))
        };
        !same(&self.fields, &to.fields) || !same(&to.fields, &self.fields)
    }

    /// Of its JSON.
    pub fn get(&self, name: &str) -> &Value {
        self.fields.get(name).unwrap_or(&Value::Null)
    }

    fn container(&self, name: &str) -> &Value {
        self.get("container").get(name).unwrap_or(&Value::Null)
    }

    fn number(&self, name: &str) -> f64 {
        self.get(name).as_f64().unwrap_or_default()
    }

    /// How many instances are wanted.
    pub fn instances(&self) -> usize {
        self.get("instances").as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(1)
    }

    pub(super) fn set_instances(&mut self, count: usize) {
        self.fields.insert("instances".into(), count.into());
    }

    /// What one instance takes.
    pub fn need(&self) -> Need {
        let [cpus, mem, disk, gpus] = ["cpus", "mem", "disk", "gpus"].map(|name| self.number(name));
        Need { cpus, mem, disk, gpus }
    }

    /// `host`, `container/bridge` or `container`.
    pub fn network(&self) -> &str {
        self.get("networks")[0]["mode"].as_str().unwrap_or("host")
    }

    /// The network's name, where it has one.
    pub fn network_name(&self) -> Option<&str> {
        self.get("networks")[0]["name"].as_str()
    }

    /// The image, where there is one.
    pub fn image(&self) -> Option<&str> {
        self.container("docker")["image"].as_str()
    }

    /// Additional arguments of `docker run`.
    pub fn parameters(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = self.container("docker")["parameters"].as_array().into_iter().flatten();
        all.map(|p| (text(&p["key"]), text(&p["value"]))).collect()
    }

    /// Directories of the agent: where there, where inside, and whether read only.
    pub fn host_volumes(&self) -> Vec<(String, String, bool)> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let all = self.container("volumes").as_array().into_iter().flatten();
        all.filter_map(|v| {
            Some((text(&v["hostPath"])?, text(&v["containerPath"])?, v["mode"] == "RO"))
        })
        .collect()
    }

    fn volumes(&self, kind: &str) -> bool {
        self.container("volumes")
            .as_array()
            .is_some_and(|all| all.iter().any(|v| v.get(kind).is_some()))
    }

    /// Whether it keeps data on an agent.
    pub(super) fn is_resident(&self) -> bool {
        self.volumes("persistent")
    }

    /// Its ports in their order.
    pub fn ports(&self) -> Vec<Port> {
        let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        if self.network() == "host" {
            let fixed = self.get("requirePorts") == true;
            let of = |p: Value| {
                let service = port(&p["port"]).unwrap_or_default();
                let host = Some(if fixed { service } else { 0 });
                let protocol = text(&p["protocol"]).unwrap_or_default();
                Port { container: None, host, service, name: text(&p["name"]), protocol }
            };
            return list(self.get("portDefinitions")).into_iter().map(of).collect();
        }
        let of = |p: Value| Port {
            container: port(&p["containerPort"]),
            host: port(&p["hostPort"]),
            service: port(&p["servicePort"]).unwrap_or_default(),
            name: text(&p["name"]),
            protocol: text(&p["protocol"]).unwrap_or_default(),
        };
        list(self.container("portMappings")).into_iter().map(of).collect()
    }

    /// The ports that stand for it in the whole cluster.
    pub(super) fn service_ports(&self) -> Vec<u16> {
        self.ports().into_iter().map(|port| port.service).collect()
    }

    /// Gives it other service ports, one for each port it has.
    pub(super) fn set_service_ports(&mut self, ports: &[u16]) {
        let host = self.network() == "host";
        let name = if host { "port" } else { "servicePort" };
        let list = if host {
            self.fields.get_mut("portDefinitions")
        } else {
            self.fields.get_mut("container").and_then(|c| c.get_mut("portMappings"))
        };
        let list = list.and_then(Value::as_array_mut).into_iter().flatten();
        for (entry, port) in list.zip(ports) {
            entry[name] = (*port).into();
        }
    }

    /// `[field, operator, value]`, the value empty where there is none.
    pub(super) fn constraints(&self) -> Vec<[&str; 3]> {
        let all = self.get("constraints").as_array().into_iter().flatten();
        all.map(|c| [0, 1, 2].map(|at| c[at].as_str().unwrap_or_default())).collect()
    }

    pub(super) fn upgrade(&self) -> Upgrade {
        let of = |name: &str| self.get("upgradeStrategy")[name].as_f64().unwrap_or(1.0);
        Upgrade { least: of("minimumHealthCapacity"), over: of("maximumOverCapacity") }
    }

    pub(super) fn patience(&self) -> Patience {
        let strategy = self.get("unreachableStrategy");
        if strategy.is_string() {
            return Patience::Forever;
        }
        let of = |name: &str| strategy[name].as_u64().unwrap_or_default();
        Patience::Until {
            inactive: of("inactiveAfterSeconds"),
            expunged: of("expungeAfterSeconds"),
        }
    }

    pub(super) fn kills_oldest_first(&self) -> bool {
        self.get("killSelection") == "OLDEST_FIRST"
    }

    /// Seconds from SIGTERM to SIGKILL, where it says so.
    pub fn grace(&self) -> Option<u64> {
        self.get("taskKillGracePeriodSeconds").as_u64()
    }

    /// The first wait after a failure, what it grows by, and the longest, in seconds.
    pub(super) fn backoff(&self) -> (f64, f64, f64) {
        let of = |name: &str| self.number(name);
        (of("backoffSeconds"), of("backoffFactor"), of("maxLaunchDelaySeconds"))
    }

    /// All its health checks.
    pub fn health_checks(&self) -> Vec<HealthCheck> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = self.get("healthChecks").as_array().into_iter().flatten();
        all.map(|c| HealthCheck {
            protocol: text(&c["protocol"]),
            path: c["path"].as_str().filter(|path| !path.is_empty()).unwrap_or("/").to_owned(),
            index: c["portIndex"].as_u64().and_then(|at| usize::try_from(at).ok()).unwrap_or(0),
            port: c["port"].as_u64().and_then(|port| u16::try_from(port).ok()),
            command: text(&c["command"]["value"]),
            grace: c["gracePeriodSeconds"].as_u64().unwrap_or(300),
            interval: c["intervalSeconds"].as_u64().unwrap_or(60),
            timeout: c["timeoutSeconds"].as_u64().unwrap_or(20),
            failures: c["maxConsecutiveFailures"].as_u64().unwrap_or(3),
        })
        .collect()
    }

    /// Its readiness check, if it has one.
    pub fn readiness(&self) -> Option<Readiness> {
        let c = self.get("readinessChecks").get(0)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named = |port: &Port| port.name.as_deref() == c["portName"].as_str();
        Some(Readiness {
            name: text(&c["name"]),
            protocol: text(&c["protocol"]),
            path: text(&c["path"]),
            index: self.ports().iter().position(named).unwrap_or_default(),
            interval: c["intervalSeconds"].as_u64().unwrap_or(30),
            timeout: c["timeoutSeconds"].as_u64().unwrap_or(10),
            codes: c["httpStatusCodesForReady"].as_array().map_or_else(
                || BTreeSet::from([200]),
                |codes| codes.iter().filter_map(Value::as_u64).collect(),
            ),
            keeps: c["preserveLastResponse"] == true,
        })
    }

    /// Labels and what they say.
    pub fn labels(&self) -> BTreeMap<String, String> {
        texts(self.get("labels"))
    }

    /// Variables whose value is known; a secret's is not.
    pub fn env(&self) -> BTreeMap<String, String> {
        texts(self.get("env"))
    }

    pub(super) fn dependencies(&self) -> Vec<AppId> {
        let all = self.get("dependencies").as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(AppId::absolute).collect()
    }
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let all = value.as_object().into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// Seconds of which a test may say how long they are.
pub(super) fn seconds(count: f64, second: Duration) -> Duration {
    // A strategy of years is as good as for ever.
    second.mul_f64(count.clamp(0.0, 1e9))
}
