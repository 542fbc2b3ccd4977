//! How an app is reached: its networks and ports in the words of a document.

use std::collections::BTreeSet;

use evenkeel_crds::{ContainerPort, PortRef, Protocol};
use serde_json::{Map, Value};

use crate::import::Notes;
use crate::import::name::{Names, is_docker_name, is_label};

/// The most ports of a document.
const MOST: usize = 50;
const PORTS: &str = "container.portMappings";

/// What kind of network an app has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Its agent's own.
    Host,
    /// The bridge of its agent.
    Bridge,
    /// A named one.
    Named,
}

/// How an app is reached.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) mode: Mode,
    pub(super) networks: Vec<String>,
    pub(super) ports: Vec<ContainerPort>,
    /// What a document calls the port that Marathon has at each place of its list.
    pub(super) by_index: Vec<Option<PortRef>>,
    /// The port in the container behind a port of the agent that is known.
    pub(super) behind: Vec<(u64, PortRef)>,
}

impl Reach {
    /// Of an app in the form that is compared. `instances` is how many ports in a row may be needed on one host.
    pub(super) fn of(app: &Map<String, Value>, instances: u32, notes: &mut Notes) -> Self {
        let networks = app.get("networks").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let is = |network: &Value, mode: &str| network.get("mode").is_some_and(|m| m == mode);
        let mode = if networks.is_empty() {
            Mode::Host
        } else if networks.iter().any(|n| is(n, "container/bridge")) {
            Mode::Bridge
        } else {
            Mode::Named
        };
        let mut reach = Self {
            mode,
            networks: Vec::new(),
            ports: Vec::new(),
            by_index: Vec::new(),
            behind: Vec::new(),
        };
        if mode == Mode::Named {
            reach.join(networks, notes);
        }
        let listed = match mode {
            Mode::Host => app.get("portDefinitions"),
            Mode::Bridge | Mode::Named => app.get("container").and_then(|c| c.get("portMappings")),
        };
        let listed = listed.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if mode == Mode::Host {
            let hint =
                "let the program listen on a port of its own, and write it in ports (and publish)";
            let said = "its agent's own network is kept for Marathon only (marathon.fields); on Docker hosts instances are on \
                        a bridge, and nothing sets $PORT0 there";
            notes.lost_but("networks", said, hint);
            if app.get("requirePorts") != Some(&Value::Bool(true)) {
                reach.by_index = vec![None; listed.len()];
                return reach;
            }
        }
        reach.listen(listed, instances, notes);
        reach
    }

    fn join(&mut self, networks: &[Value], notes: &mut Notes) {
        let names = networks.iter().map(|n| n.get("name").and_then(Value::as_str));
        for (at, name) in names.enumerate() {
            let reserved = ["host", "none", "default", "ingress", "bridge"];
            match name {
                Some(name) if at == 0 && is_docker_name(name) && !reserved.contains(&name) => {
                    self.networks.push(name.to_owned());
                }
                Some(name) => {
                    let said =
                        format!("the network {name} is kept for Marathon only (marathon.fields)");
                    notes.lost_but("networks", said, "write the Docker networks in networks");
                }
                None => {
                    let said =
                        "the cluster's default network is kept for Marathon only (marathon.fields)";
                    notes.lost_but("networks", said, "write the Docker networks in networks");
                }
            }
        }
    }

    fn listen(&mut self, listed: &[Value], instances: u32, notes: &mut Notes) {
        let mut names = Names::default();
        let given: BTreeSet<&str> = listed.iter().filter_map(name_of).collect();
        // A name that is made up must not take one that is given further down.
        for name in &given {
            names.give(name, "port", 63);
        }
        let mut used = BTreeSet::new();
        let mut published = BTreeSet::new();
        for (index, port) in listed.iter().enumerate() {
            let number = |field: &str| port.get(field).and_then(Value::as_u64);
            let fixed =
                if self.mode == Mode::Host { number("port") } else { number("containerPort") };
            let host = if self.mode == Mode::Host { fixed } else { number("hostPort") };
            let container = fixed.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
            let Some(container_port) = container.filter(|_| self.ports.len() + 1 < MOST) else {
                let said = format!(
                    "port {index} is kept for Marathon only (marathon.fields): its number is known to tasks as $PORT{index}"
                );
                let hint = "let the program listen on a port of its own, and write it in ports";
                notes.lost_but(PORTS, said, hint);
                self.by_index.push(None);
                continue;
            };
            let own = name_of(port).filter(|name| used.insert(*name));
            let name = match own {
                Some(name) => name.to_owned(),
                // Nothing and this are one to Marathon.
                None if listed.len() == 1 => "default".to_owned(),
                None => names.give(&format!("port-{container_port}"), "port", 63),
            };
            let publish = host.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
            let words = port.get("protocol").and_then(Value::as_str).unwrap_or("tcp");
            let (tcp, udp) = (words.contains("tcp"), words.contains("udp"));
            for (wanted, protocol) in [(tcp, Protocol::Tcp), (udp, Protocol::Udp)] {
                if !wanted {
                    continue;
                }
                let both = tcp && protocol == Protocol::Udp;
                let name = if both {
                    names.give(&format!("{name}-udp"), "port", 63)
                } else {
                    name.clone()
                };
                let room = |first: &u16| u32::from(*first) + instances.max(1) <= 65_536;
                let publish = publish.filter(room).filter(|p| published.insert((*p, protocol)));
                self.ports.push(ContainerPort { name, container_port, protocol, publish });
            }
            if let (Some(first), true) = (publish, tcp) {
                self.behind.push((u64::from(first), PortRef::Name(name.clone())));
            }
            self.by_index.push(tcp.then_some(PortRef::Name(name)));
        }
    }

    /// What a health check asks, if a document has it.
    pub(super) fn checked(&self, check: &Value, by_agent: bool) -> Option<PortRef> {
        let Some(port) = check.get("port").and_then(Value::as_u64) else {
            let index = check.get("portIndex").and_then(Value::as_u64).unwrap_or(0);
            return self.by_index.get(usize::try_from(index).ok()?)?.clone();
        };
        // Marathon asks at the agent, where an app on a bridge has other ports.
        if self.mode == Mode::Bridge && !by_agent {
            return self.behind.iter().find(|(p, _)| *p == port).map(|(_, port)| port.clone());
        }
        let port = u16::try_from(port).ok().filter(|p| *p > 0)?;
        let same = self.ports.iter().filter(|p| p.container_port == port);
        let tcp = same.clone().find(|p| p.protocol == Protocol::Tcp);
        match (tcp, same.count()) {
            (Some(port), _) => Some(PortRef::Name(port.name.clone())),
            (None, 0) => Some(PortRef::Number(port)),
            // Nobody can ask a udp port.
            (None, _) => None,
        }
    }
}

fn name_of(port: &Value) -> Option<&str> {
    port.get("name").and_then(Value::as_str).filter(|name| is_label(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reach(app: &Value) -> (Reach, Vec<String>) {
        let mut notes = Notes::of("/a");
        let normal = crate::model::app::normal::normalise(app);
        let reach = Reach::of(&normal.0, 3, &mut notes);
        (reach, notes.all.into_iter().map(|n| format!("{}: {}", n.field, n.said)).collect())
    }

    fn ports(reach: &Reach) -> Vec<String> {
        let one = |p: &ContainerPort| {
            format!("{} {} {:?} {:?}", p.name, p.container_port, p.protocol, p.publish)
        };
        reach.ports.iter().map(one).collect()
    }

    #[test]
    fn ports_of_a_bridge_keep_their_names_and_places() {
        let mapping = json!([
            {"containerPort": 8080, "name": "http", "hostPort": 80},
            {"containerPort": 53, "protocol": "udp,tcp", "name": "dns"},
            {"containerPort": 0}, {"containerPort": 9000}, {"containerPort": 7, "protocol": "udp", "hostPort": 65535},
        ]);
        let app = json!({"container": {"docker": {"image": "a"}, "portMappings": mapping},
            "networks": [{"mode": "container/bridge"}]});
        let (reach, said) = reach(&app);
        assert_eq!(
            ports(&reach),
            [
                "http 8080 Tcp Some(80)",
                "dns 53 Tcp None",
                "dns-udp 53 Udp None",
                "port-9000 9000 Tcp None",
                "port-7 7 Udp None",
            ]
        );
        assert_eq!(said.len(), 1, "{said:?}");
        let named = |name: &str| Some(PortRef::Name(name.into()));
        assert_eq!(reach.by_index, [named("http"), named("dns"), None, named("port-9000"), None]);
        assert_eq!(reach.checked(&json!({"portIndex": 1}), true), named("dns"));
        assert_eq!(reach.checked(&json!({"port": 80}), false), named("http"));
        assert_eq!(reach.checked(&json!({"port": 80}), true), Some(PortRef::Number(80)));
        assert_eq!(reach.checked(&json!({"port": 7}), true), None);
    }

    #[test]
    fn of_the_agents_own_network_only_fixed_ports_are_known() {
        let app = |more: Value| {
            let mut app = json!({"container": {"docker": {"image": "a"}}, "portDefinitions": [{"port": 8080, "name": "api"}]});
            app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            app
        };
        let (loose, said) = reach(&app(json!({})));
        assert_eq!((ports(&loose), loose.by_index.len()), (Vec::new(), 1));
        assert!(said[0].starts_with("networks: its agent's own network"), "{said:?}");
        let (fixed, _) = reach(&app(json!({"requirePorts": true})));
        assert_eq!(ports(&fixed), ["api 8080 Tcp Some(8080)"]);
    }

    #[test]
    fn one_named_network_is_joined_and_a_lone_port_without_a_name_is_the_default() {
        let app = json!({"container": {"docker": {"image": "a"}, "portMappings": [{"containerPort": 80}]},
            "networks": [{"mode": "container", "name": "dcos"}, {"mode": "container", "name": "other"}]});
        let (reach, said) = reach(&app);
        assert_eq!(
            (reach.networks.join(","), ports(&reach)),
            ("dcos".into(), vec!["default 80 Tcp None".to_owned()])
        );
        assert!(said[0].contains("the network other"), "{said:?}");
    }
}
