//! Whose a container is: the labels that say so, written and read in one place.
//!
//! What does not carry our owner and fleet, or carries them with anything garbled beside them, is foreign.

use std::collections::HashMap;

use crate::model::{FleetName, OwnerId, ServiceName, Slot, SpecHash};

/// The installation that made the container.
pub const OWNER: &str = "evenkeel.dev/owner";
/// The fleet it was made for.
pub const FLEET: &str = "evenkeel.dev/fleet";
/// The service it is an instance of.
pub const SERVICE: &str = "evenkeel.dev/service";
/// The slot it fills.
pub const SLOT: &str = "evenkeel.dev/slot";
/// What it is.
pub const HASH: &str = "evenkeel.dev/hash";

/// Marks the name of a container whose end has begun: whoever comes after us sees by it that it does not stay.
///
/// The engine itself shows one that was told to end as running like any other until it has ended.
pub(super) fn ending_name(name: &str, id: &str) -> String {
    format!("{name}{}", ending_mark(id))
}

/// Whether a container's name says that its end has begun.
pub(super) fn is_ending(name: &str, id: &str) -> bool {
    name.ends_with(&ending_mark(id))
}

/// With a part of the id, so that it is free, and is nobody else's by chance.
fn ending_mark(id: &str) -> String {
    format!(".ending-{}", id.get(..12).unwrap_or(id))
}

/// In whose name we act: nothing that carries another pair is ever touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Me {
    pub(super) owner: OwnerId,
    pub(super) fleet: FleetName,
}

/// Which instance a container of ours is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) service: ServiceName,
    pub(super) slot: Slot,
    pub(super) hash: SpecHash,
}

/// Whose a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    Ours(Identity),
    /// It names us as its owner, but the rest cannot be read: what is wrong.
    Garbled(String),
    Foreign,
}

impl Me {
    /// Reads labels, wherever they come from.
    pub(super) fn whose<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> Whose {
        if label(OWNER) != Some(self.owner.as_str()) || label(FLEET) != Some(self.fleet.as_str()) {
            return Whose::Foreign;
        }
        let read = || -> Result<Identity, String> {
            let of = |key: &str| label(key).ok_or(format!("label {key} is missing"));
            let service = ServiceName::new(of(SERVICE)?).map_err(|e| e.to_string())?;
            let text = of(SLOT)?;
            let slot = text.parse().ok().filter(|n: &u32| *n > 0 && n.to_string() == text);
            let slot = slot.ok_or(format!("label {SLOT} is not a number from 1"))?;
            let hash = SpecHash::parse(of(HASH)?);
            let hash = hash.ok_or(format!("label {HASH} is not 16 hex digits"))?;
            Ok(Identity { service, slot: Slot(slot), hash })
        };
        match read() {
            Ok(identity) => Whose::Ours(identity),
            Err(why) => Whose::Garbled(why),
        }
    }

    /// The labels of one of our containers.
    pub(super) fn container(&self, it: &Identity) -> HashMap<String, String> {
        let Identity { service, slot, hash } = it;
        let mut labels = self.network();
        labels.insert(SERVICE.into(), service.to_string());
        labels.insert(SLOT.into(), slot.to_string());
        labels.insert(HASH.into(), hash.to_string());
        labels
    }

    /// The labels of one of our networks.
    pub(super) fn network(&self) -> HashMap<String, String> {
        let Self { owner, fleet } = self;
        HashMap::from([(OWNER.into(), owner.to_string()), (FLEET.into(), fleet.to_string())])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn me() -> Me {
        Me { owner: OwnerId::new("o").unwrap(), fleet: FleetName::new("f").unwrap() }
    }

    fn read(pairs: &[(&str, &str)]) -> Whose {
        me().whose(|k| pairs.iter().find(|(key, _)| *key == k).map(|(_, v)| *v))
    }

    const GOOD: [(&str, &str); 5] =
        [(OWNER, "o"), (FLEET, "f"), (SERVICE, "web"), (SLOT, "3"), (HASH, "00000000000000ab")];

    #[test]
    fn the_mark_of_an_end_is_read_back_and_is_of_that_container_only() {
        let id = "0123456789abcdef";
        let name = ending_name("web_3", id);
        assert_eq!(name, "web_3.ending-0123456789ab");
        assert!(is_ending(&name, id));
        assert!(!is_ending(&name, "fedcba9876543210"));
        assert!(!is_ending("web_3", id));
        assert!(is_ending(&ending_name("web_3", "short"), "short"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let Whose::Ours(it) = read(&GOOD) else { panic!("not ours") };
        let labels = me().container(&it);
        assert_eq!(me().whose(|k| labels.get(k).map(String::as_str)), Whose::Ours(it));
    }

    #[test]
    fn another_owner_or_fleet_is_foreign_and_garbage_is_never_ours() {
        for (key, value) in [(OWNER, "p"), (FLEET, "g")] {
            let labels = GOOD.map(|(k, v)| if k == key { (k, value) } else { (k, v) });
            assert_eq!(read(&labels), Whose::Foreign);
        }
        assert_eq!(read(&GOOD[1..]), Whose::Foreign);
        for (key, value) in
            [(SLOT, "0"), (SLOT, "+3"), (SLOT, "03"), (SLOT, "x"), (HASH, "AB"), (SERVICE, "a/b")]
        {
            let labels = GOOD.map(|(k, v)| if k == key { (k, value) } else { (k, v) });
            assert!(matches!(read(&labels), Whose::Garbled(_)), "{key}={value}");
        }
        assert!(matches!(read(&GOOD[..4]), Whose::Garbled(_)));
    }

    proptest! {
        #[test]
        fn any_labels_are_read_without_harm(slot in ".{0,20}", hash in ".{0,20}", service in ".{0,70}") {
            let read = read(&[(OWNER, "o"), (FLEET, "f"), (SERVICE, &service), (SLOT, &slot), (HASH, &hash)]);
            if let Whose::Ours(it) = read {
                prop_assert_eq!(it.slot.to_string(), slot);
                prop_assert_eq!(it.hash.to_string(), hash);
                prop_assert_eq!(it.service.to_string(), service);
            }
        }
    }
}
