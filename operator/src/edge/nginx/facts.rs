//! What a configuration says about itself in its first lines, so that an agent that starts anew knows what is in
//! force without remembering it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::model::{InstanceId, PoolName, Server, ServiceName, Slot, Target};

/// What every line of facts begins with.
pub(super) const MARK: &str = "#= ";
/// Raised when lines change their meaning: what another version wrote is rendered anew.
const VERSION: &str = "evenkeel 1";

/// What a configuration holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Of the whole configuration.
    pub digest: String,
    /// Of what it does: the same whether or not those that drain are listed.
    pub serves: String,
    /// Pools that it holds as they were ordered, each with its own digest.
    pub pools: BTreeMap<PoolName, String>,
    /// Who is in each pool.
    pub servers: BTreeMap<(PoolName, SocketAddr), Server>,
    /// Services with a route that was left out, and why.
    pub refused: BTreeMap<ServiceName, String>,
    /// What else was left out.
    pub problem: Option<String>,
}

impl Facts {
    /// As comments, one a line.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self { digest, serves, pools, servers, refused, problem } = self;
        let mut lines = vec![format!("{VERSION} {digest}"), format!("serves {serves}")];
        lines.extend(pools.iter().map(|(pool, digest)| format!("pool {pool} {digest}")));
        lines.extend(servers.iter().map(|((pool, _), server)| {
            let Server { instance, name, slot, address, target, sick: _ } = server;
            let target = match target {
                Target::Ready => "ready",
                Target::Drain => "drain",
            };
            format!("server {pool} {address} {target} {slot} {name} {}", instance.0)
        }));
        lines.extend(
            refused.iter().map(|(service, why)| format!("refused {service} {}", flat(why))),
        );
        lines.extend(problem.iter().map(|why| format!("problem {}", flat(why))));
        for line in &mut lines {
            line.insert_str(0, MARK);
        }
        lines
    }

    /// Reads them back. `None` if another version wrote them, or nobody.
    pub fn parse(text: &str) -> Option<Self> {
        let mut facts = None;
        for line in text.lines().filter_map(|line| line.strip_prefix(MARK)) {
            if let Some(digest) = line.strip_prefix(VERSION).and_then(|rest| rest.strip_prefix(' '))
            {
                facts = Some(Self { digest: digest.to_owned(), ..Self::default() });
                continue;
            }
            // A line that cannot be read is an older or newer writer's: nothing of it is believed.
            facts.as_mut()?.take(line)?;
        }
        facts
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "serves" => rest.clone_into(&mut self.serves),
            "pool" => {
                let (pool, digest) = rest.split_once(' ')?;
                self.pools.insert(pool_name(pool)?, digest.to_owned());
            }
            "server" => {
                let mut words = rest.split(' ');
                let pool = pool_name(words.next()?)?;
                let address = words.next()?.parse().ok()?;
                let target = match words.next()? {
                    "ready" => Target::Ready,
                    "drain" => Target::Drain,
                    _ => return None,
                };
                // A writer that did not say who they are.
                let slot = words.next().map_or(Some(0), |slot| slot.parse().ok())?;
                let mut server = Server::unlisted(Slot(slot), address, target);
                if let (Some(name), Some(instance)) = (words.next(), words.next()) {
                    server.name = name.into();
                    server.instance = InstanceId(instance.into());
                }
                self.servers.insert((pool, address), server);
            }
            "refused" => {
                let (service, why) = rest.split_once(' ')?;
                self.refused.insert(ServiceName::new(service).ok()?, why.to_owned());
            }
            "problem" => self.problem = Some(rest.to_owned()),
            _ => return None,
        }
        Some(())
    }
}

/// On one line, for it stands in a comment.
fn flat(text: &str) -> String {
    text.chars().fold(String::new(), |mut flat, c| {
        let _ = flat.write_char(if c.is_control() { ' ' } else { c });
        flat
    })
}

/// The name that [`PoolName::new`] made.
fn pool_name(text: &str) -> Option<PoolName> {
    let mut parts = text.splitn(3, '.');
    let service = ServiceName::new(parts.next()?).ok()?;
    let port = parts.next()?.parse().ok()?;
    Some(PoolName::new(&service, port, parts.next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let web = ServiceName::new("web").unwrap();
        let (plain, odd) = (PoolName::new(&web, 80, None), PoolName::new(&web, 80, Some("a.b-c")));
        let nobody = Server::unlisted(Slot(0), "[fd00::1]:80".parse().unwrap(), Target::Drain);
        let mut web_3 = Server::unlisted(Slot(3), "10.0.0.1:80".parse().unwrap(), Target::Ready);
        (web_3.name, web_3.instance) = ("web_3".into(), InstanceId("0123456789abcdef".into()));
        let facts = Facts {
            digest: "d1".into(),
            serves: "s1".into(),
            pools: BTreeMap::from([(plain.clone(), "p1".into()), (odd.clone(), "p2".into())]),
            servers: BTreeMap::from([
                ((plain, web_3.address), web_3),
                ((odd, nobody.address), nobody),
            ]),
            refused: BTreeMap::from([(web, "it is\nodd; {".into())]),
            problem: Some("fragment `defaults` is left out: x".into()),
        };
        let text = facts.lines().join("\n");
        assert!(text.lines().all(|line| line.starts_with("#= ")), "{text}");
        let mut flat = facts;
        flat.refused.values_mut().for_each(|why| *why = "it is odd; {".into());
        assert_eq!(Facts::parse(&format!("{text}\nevents {{}}\n")), Some(flat));
    }

    #[test]
    fn what_others_wrote_is_not_believed() {
        for text in
            ["", "events {}", "#= evenkeel 2 x", "#= pool web.80 x", "#= evenkeel 1 x\n#= new y"]
        {
            assert_eq!(Facts::parse(text), None, "{text:?}");
        }
    }
}
