//! Ports of a compose service.

use std::collections::BTreeSet;

use evenkeel_crds::{ContainerPort, Protocol};
use serde_yaml::Value;

use super::amount::text;
use crate::import::Notes;
use crate::import::name::{Names, is_label};
use crate::import::text::shown;

/// The most ports of a document.
const MOST: usize = 50;

/// One entry, whichever way it is written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    name: Option<String>,
    container: Option<(u16, u16)>,
    host: Option<(u16, u16)>,
    address: Option<String>,
    udp: bool,
    /// Nobody said which port of the host.
    random: bool,
}

/// Takes `ports` and `expose`. `instances` is how many ports in a row may be needed on one host.
pub(super) fn ports(
    published: Option<&Value>,
    exposed: Option<&Value>,
    instances: u32,
    notes: &mut Notes,
) -> Vec<ContainerPort> {
    let mut all = Ports { instances: instances.max(1), ..Ports::default() };
    for value in published.and_then(Value::as_sequence).into_iter().flatten() {
        let entry = if value.is_mapping() {
            long(value, notes)
        } else {
            text(value).and_then(|text| short(&text))
        };
        let Some(entry) = entry else {
            let said = format!("{} is not understood", shown(&text(value).unwrap_or_default()));
            notes.lost_but("ports", said, "write ports: [{name, containerPort, publish}]");
            continue;
        };
        all.add("ports", &entry, notes);
    }
    for value in exposed.and_then(Value::as_sequence).into_iter().flatten() {
        let entry = text(value).and_then(|text| short(&text));
        if let Some(entry) = entry {
            all.add("expose", &Entry { random: false, ..entry }, notes);
        }
    }
    all.found
}

#[derive(Debug, Default)]
struct Ports {
    instances: u32,
    found: Vec<ContainerPort>,
    names: Names,
    taken: BTreeSet<(u16, Protocol)>,
}

impl Ports {
    fn add(&mut self, field: &str, entry: &Entry, notes: &mut Notes) {
        let Some((first, last)) = entry.container else { return };
        let protocol = if entry.udp { Protocol::Udp } else { Protocol::Tcp };
        if let Some(address) = &entry.address {
            let said = format!(
                "{} is not carried over: a published port listens on every address of its host",
                shown(address)
            );
            notes.lost_but(
                field,
                said,
                "a firewall keeps others out; a balancer needs no published port on one host",
            );
        }
        if entry.random {
            let said = "a port of the host that nobody chose is not carried over";
            notes.lost_but(field, said, "write publish, or routes to a LoadBalancer");
        }
        if let Some((from, to)) = entry.host
            && (to - from != last - first)
        {
            let said = format!("of the ports {from}-{to} only the first is carried over");
            notes.lost_but(field, said, "the n-th instance on one host publishes publish + n - 1");
        }
        for container in first..=last {
            let known = self
                .found
                .iter()
                .position(|p| p.container_port == container && p.protocol == protocol);
            let publish = entry.host.and_then(|(from, _)| from.checked_add(container - first));
            let publish = publish.filter(|p| {
                let room = u32::from(*p) + self.instances <= 65_536;
                if !room {
                    notes.lost(
                        field,
                        format!(
                            "{p} is not published: {} instances would need ports beyond 65535",
                            self.instances
                        ),
                    );
                }
                room && self.taken.insert((*p, protocol))
            });
            match known {
                // What is exposed and published is one port.
                Some(at) => {
                    if let Some(port) = self.found.get_mut(at)
                        && port.publish.is_none()
                    {
                        port.publish = publish;
                    } else if publish.is_some() {
                        let said = format!(
                            "{container} is published once: a second port of the host is not carried over"
                        );
                        notes.lost(field, said);
                    }
                }
                None if self.found.len() < MOST => {
                    let kind = if entry.udp { "udp" } else { "tcp" };
                    let made = format!("{kind}-{container}");
                    let wanted =
                        entry.name.as_deref().filter(|name| is_label(name)).unwrap_or(&made);
                    let name = self.names.give(wanted, "port", 63);
                    self.found.push(ContainerPort {
                        name,
                        container_port: container,
                        protocol,
                        publish,
                    });
                }
                None => {
                    notes.lost(field, format!("not carried over from {container} on: a document has {MOST} ports at most"));
                    return;
                }
            }
        }
    }
}

/// `[[address:]host:]container[/protocol]`, each port a number or a range.
fn short(text: &str) -> Option<Entry> {
    let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let udp = match protocol {
        "tcp" => false,
        "udp" => true,
        _ => return None,
    };
    let (rest, container) = match text.rsplit_once(':') {
        Some((rest, container)) => (Some(rest), container),
        None => (None, text),
    };
    let container = Some(range(container)?);
    let Some(rest) = rest else {
        return Some(Entry { container, udp, random: true, ..Entry::default() });
    };
    // An address may have colons of its own, and then stands in brackets.
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (Some(address.trim_matches(['[', ']']).to_owned()), host),
        None => (None, rest),
    };
    let host = if host.is_empty() { None } else { Some(range(host)?) };
    let everywhere = |a: &String| a.is_empty() || a == "0.0.0.0" || a == "::";
    let address = address.filter(|a| !everywhere(a));
    Some(Entry { name: None, container, host, address, udp, random: host.is_none() })
}

fn long(value: &Value, notes: &mut Notes) -> Option<Entry> {
    let of = |name: &str| value.get(name).and_then(text);
    let container = range(&of("target")?);
    let host = of("published").filter(|p| !p.is_empty() && p != "0");
    let udp = match of("protocol").as_deref() {
        None | Some("tcp") => false,
        Some("udp") => true,
        Some(_) => return None,
    };
    if of("mode").as_deref() == Some("ingress") {
        notes.kept("ports", "mode: every host publishes its own instances; a LoadBalancer spreads requests over all");
    }
    let address = of("host_ip").filter(|a| a != "0.0.0.0" && a != "::");
    let random = host.is_none();
    let host = match host {
        Some(host) => Some(range(&host)?),
        None => None,
    };
    Some(Entry { name: of("name"), container: Some(container?), host, address, udp, random })
}

/// A port or a range of them.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|p| *p > 0);
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(published: &str, exposed: &str) -> (Vec<String>, Vec<String>) {
        let (published, exposed) =
            (serde_yaml::from_str(published).unwrap(), serde_yaml::from_str(exposed).unwrap());
        let mut notes = Notes::of("services.web");
        let one = |p: &ContainerPort| {
            let publish = p.publish.map(|p| format!(" at {p}")).unwrap_or_default();
            format!("{} {}{publish}", p.name, p.container_port)
        };
        let ports = ports(Some(&published), Some(&exposed), 2, &mut notes);
        (ports.iter().map(one).collect(), notes.all.into_iter().map(|n| n.said).collect())
    }

    #[test]
    fn every_way_to_write_a_port_is_read() {
        let (ports, said) = taken(
            "['80:8080', 443:8443, '53:53/udp', '0.0.0.0:81:81', '[::]:82:82', '9000-9002:7000-7002', \
             {target: 90, published: '90', name: admin}]",
            "[8080, '99', '5000-5001/tcp']",
        );
        assert_eq!(
            ports,
            [
                "tcp-8080 8080 at 80",
                "tcp-8443 8443 at 443",
                "udp-53 53 at 53",
                "tcp-81 81 at 81",
                "tcp-82 82 at 82",
                "tcp-7000 7000 at 9000",
                "tcp-7001 7001 at 9001",
                "tcp-7002 7002 at 9002",
                "admin 90 at 90",
                "tcp-99 99",
                "tcp-5000 5000",
                "tcp-5001 5001",
            ]
        );
        assert!(said.is_empty(), "{said:?}");
    }

    #[test]
    fn what_is_not_the_same_is_told() {
        for (published, ports, says) in [
            ("['127.0.0.1:80:80']", "tcp-80 80 at 80", "127.0.0.1 is not carried over"),
            ("['[::1]:80:80']", "tcp-80 80 at 80", "::1 is not"),
            ("['80']", "tcp-80 80", "nobody chose"),
            ("['127.0.0.1::80']", "tcp-80 80", "nobody chose"),
            ("['8000-8010:80']", "tcp-80 80 at 8000", "only the first"),
            ("['65535:80']", "tcp-80 80", "beyond 65535"),
            ("['80:80', '81:80']", "tcp-80 80 at 80", "published once"),
            ("['80:x']", "", "80:x is not understood"),
            ("['80:80/sctp']", "", "not understood"),
            ("[{published: 80}]", "", "not understood"),
            ("['9-8:9-8']", "", "not understood"),
            ("[{target: 80, published: 80, mode: ingress}]", "tcp-80 80 at 80", "every host"),
        ] {
            let (found, said) = taken(published, "[]");
            assert_eq!(found.join(", "), ports, "{published}");
            assert!(said.iter().any(|s| s.contains(says)), "{published}: {said:?}");
        }
        let (found, said) = taken("['1000-60000:1000-60000']", "[]");
        assert!(found.len() == MOST && said.len() == 1, "{said:?}");
    }
}
