//! The configuration of keepalived, which keeps a virtual address where a balancer really serves: pure.
//!
//! Every instance begins as `BACKUP`, with `nopreempt`: whoever has the address keeps it while it serves, because each
//! move cuts the connections of every client; the priority only decides who takes an address that nobody has. The
//! check, a connection to the balancer's own port, has no weight, for a weight takes effect through preemption alone: an
//! instance that fails it is in `FAULT` and gives the address up at once, whatever its priority. It begins as failed,
//! so that nobody takes the address before it serves.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

/// The most that a priority can be: 255 is the owner of the address, who never gives it up.
const HIGHEST: u8 = 254;

/// What is to be known of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualAddress {
    /// The address that moves.
    pub address: IpAddr,
    /// The length of its network.
    pub length: u8,
    /// The interface that takes it.
    pub interface: String,
    /// The VRRP router id, unique in the network.
    pub router_id: u8,
    /// 1 to 254: of those that serve, the highest takes an address that nobody has.
    pub priority: u8,
    /// The port on which the balancer takes traffic.
    pub port: u16,
    /// The other instances, where the network carries no multicast; this one's own address first.
    pub peers: Option<(IpAddr, Vec<IpAddr>)>,
    /// Between two announcements: three that are missed move the address.
    pub interval: Duration,
}

/// What cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(&'static str);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the virtual address has {} that keepalived cannot take", self.0)
    }
}

impl std::error::Error for Unfit {}

/// The file.
pub fn render(facts: &VirtualAddress) -> Result<String, Unfit> {
    let VirtualAddress { address, length, interface, router_id, priority, port, peers, interval } =
        facts;
    let letters = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    if interface.is_empty() || interface.len() > 15 || !interface.chars().all(letters) {
        return Err(Unfit("an interface"));
    }
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if *length > longest {
        return Err(Unfit("a network length"));
    }
    if *router_id == 0 || !(1..=HIGHEST).contains(priority) {
        return Err(Unfit("a router id or a priority"));
    }
    if let Some((own, others)) = peers
        && others.iter().chain([own]).any(|peer| peer.is_ipv4() != address.is_ipv4())
    {
        return Err(Unfit("a peer of another family"));
    }
    let seconds = interval.as_secs_f64().clamp(0.1, 40.0);
    let mut text = String::new();
    // In a container there is no user for scripts; the check is ours and holds nothing that others wrote.
    text.push_str("global_defs {\n    script_user root\n    enable_script_security\n}\n\n");
    let check = format!("/bin/bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'");
    let _ = write!(
        text,
        "vrrp_script serves {{\n    script \"{check}\"\n    interval 1\n    timeout 1\n    fall 2\n    \
         rise 2\n    init_fail\n}}\n\n"
    );
    let _ = write!(
        text,
        "vrrp_instance address {{\n    state BACKUP\n    nopreempt\n    interface {interface}\n    \
         virtual_router_id {router_id}\n    priority {priority}\n    advert_int {seconds}\n"
    );
    if !address.is_ipv4() {
        text.push_str("    version 3\n");
    }
    if let Some((own, others)) = peers {
        let _ = writeln!(text, "    unicast_src_ip {own}\n    unicast_peer {{");
        for peer in others {
            let _ = writeln!(text, "        {peer}");
        }
        text.push_str("    }\n");
    }
    let _ = write!(
        text,
        "    virtual_ipaddress {{\n        {address}/{length} dev {interface}\n    }}\n    \
         track_script {{\n        serves\n    }}\n}}\n"
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> VirtualAddress {
        VirtualAddress {
            address: "10.77.0.100".parse().unwrap(),
            length: 24,
            interface: "eth0".into(),
            router_id: 50,
            priority: 101,
            port: 80,
            peers: None,
            interval: Duration::from_secs(1),
        }
    }

    #[test]
    fn the_whole_file() {
        let own: IpAddr = "10.77.0.11".parse().unwrap();
        let peers = vec!["10.77.0.12".parse().unwrap(), "10.77.0.13".parse().unwrap()];
        let facts = VirtualAddress { peers: Some((own, peers)), ..facts() };
        insta::assert_snapshot!(render(&facts).unwrap());
    }

    #[test]
    fn nothing_that_breaks_the_file_is_written() {
        let bad = |change: fn(&mut VirtualAddress)| {
            let mut facts = facts();
            change(&mut facts);
            assert!(render(&facts).is_err(), "{facts:?}");
        };
        bad(|f| f.interface = "eth0\n}".into());
        bad(|f| f.interface = "a b".into());
        bad(|f| f.interface = String::new());
        bad(|f| f.length = 33);
        bad(|f| f.router_id = 0);
        bad(|f| f.priority = 0);
        bad(|f| f.priority = 255);
        bad(|f| f.peers = Some(("::1".parse().unwrap(), Vec::new())));
    }
}
