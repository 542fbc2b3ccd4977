//! The difference, applied to a modelled agent, gives exactly what is wanted, once, and touches nobody else's.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::diff::{AgentLook, Agents, Call, Observed, Want, Whose, diff, leftovers};
use super::super::entry::tests::{ours, registration};
use super::super::entry::{ENTRY, Form, OWNER};
use super::super::wire::{Catalog, CatalogEntry};
use crate::model::{HostName, Registration, Registrations, Target};

fn host(n: u16) -> HostName {
    HostName::new(&format!("h{n}")).unwrap()
}

fn observed(form: &Form) -> Observed {
    Observed {
        own: ours().own(&form.id, &form.meta),
        name: form.name.clone(),
        tags: form.tags.clone(),
        address: form.address.clone(),
        port: form.port,
        meta: form.meta.clone(),
        checked: true,
        maintenance: false,
    }
}

/// What an agent makes of a call. It panics at what a strict one would refuse.
fn apply(agent: &mut AgentLook, call: &Call) {
    match call {
        Call::Register(entry) => {
            let before = agent.services.get(&entry.id).is_some_and(|known| known.maintenance);
            // A registration leaves the maintenance that there is.
            let new = Observed { maintenance: before, ..observed(&entry.form) };
            agent.services.insert(entry.id.clone(), new);
        }
        Call::Maintain { id, on } => agent.services.get_mut(id).unwrap().maintenance = *on,
        Call::Deregister { id } => drop(agent.services.remove(id).unwrap()),
    }
}

prop_compose! {
    fn any_registration()(
        service in 0_u8..2, on in 0_u16..3, n in 0_u16..4, variant in 0_u8..2, drain: bool,
    ) -> Registration {
        let mut r = registration(["web", "api"][usize::from(service)], host(on).as_str(), n);
        r.instance = crate::model::InstanceId(format!("{service}{on}{n:02}{:060}", 0).into());
        if variant == 1 {
            r.tags.push("v2".into());
        }
        if drain {
            r.target = Target::Drain;
        }
        r
    }
}

prop_compose! {
    fn any_registrations()(
        entries in prop::collection::vec(any_registration(), 0..12),
        unknown in prop::collection::btree_set(0_u16..3, 0..2),
    ) -> Registrations {
        Registrations {
            entries: entries.into_iter().map(|r| (r.instance.clone(), r)).collect(),
            unknown_hosts: unknown.into_iter().map(host).collect(),
        }
    }
}

/// How a service that is there differs from one that was registered by the book.
#[derive(Debug, Clone, Copy)]
enum Twist {
    None,
    Maintained,
    Unchecked,
    Edited,
    Foreign,
}

fn any_agent() -> impl Strategy<Value = AgentLook> {
    let twist = prop_oneof![
        Just(Twist::None),
        Just(Twist::Maintained),
        Just(Twist::Unchecked),
        Just(Twist::Edited),
        Just(Twist::Foreign),
    ];
    prop::collection::vec((any_registration(), twist), 0..12).prop_map(|all| {
        let services = all.into_iter().map(|(r, twist)| {
            let entry = ours().entry(&r);
            let mut service = observed(&entry.form);
            match twist {
                Twist::None => {}
                Twist::Maintained => service.maintenance = true,
                Twist::Unchecked => service.checked = false,
                Twist::Edited => drop(service.meta.remove(ENTRY)),
                Twist::Foreign => {
                    service.meta.insert(OWNER.into(), "you".into());
                    service.own = false;
                }
            }
            (entry.id, service)
        });
        AgentLook { services: services.collect(), node: Some("n".into()) }
    })
}

/// Host 0 is this agent's, host 1 another's, host 2 nobody's for certain.
fn whose(name: &HostName) -> Whose {
    if *name == host(0) {
        Whose::Mine
    } else if *name == host(1) {
        Whose::Another
    } else {
        Whose::Unsure
    }
}

proptest! {
    #[test]
    fn the_difference_leads_to_what_is_wanted_and_ends(
        registrations in any_registrations(), before in any_agent(),
    ) {
        let ours = ours();
        let want = Want::new(&ours, &registrations);
        let difference = diff(&ours, &want, &before, whose);
        let mut after = before.clone();
        for call in &difference.calls {
            apply(&mut after, call);
        }
        for (id, service) in &before.services {
            let on = ours.read(id).unwrap().host;
            if !service.own || want.unknown_hosts.contains(&on) {
                prop_assert_eq!(after.services.get(id), Some(service), "{} was touched", id);
            }
            let uncertain = whose(&on) == Whose::Unsure && want.entries.contains_key(id);
            if uncertain {
                prop_assert_eq!(after.services.get(id), Some(service));
            }
        }
        for (id, entry) in &want.entries {
            let free = before.services.get(id).is_none_or(|service| service.own);
            let mine = whose(&entry.host) == Whose::Mine;
            if !mine || want.unknown_hosts.contains(&entry.host) {
                prop_assert!(after.services.contains_key(id) <= before.services.contains_key(id));
                continue;
            }
            prop_assert_eq!(difference.taken.contains(id), !free);
            if free {
                let expected = Observed { maintenance: entry.drain, ..observed(&entry.form) };
                prop_assert_eq!(after.services.get(id), Some(&expected));
            }
        }
        for (id, service) in &after.services {
            let on = ours.read(id).unwrap().host;
            let kept = want.unknown_hosts.contains(&on) || whose(&on) == Whose::Unsure;
            prop_assert!(
                !service.own || kept || want.entries.contains_key(id),
                "{} was left", id
            );
        }
        let again = diff(&ours, &want, &after, whose);
        prop_assert_eq!(again.calls, Vec::new());
    }

    #[test]
    fn only_what_no_agent_can_take_back_is_swept(
        registrations in any_registrations(),
        known in prop::collection::vec((any_registration(), 0_u16..3), 0..12),
        answering in prop::collection::btree_set(0_u16..3, 0..3),
    ) {
        let ours = ours();
        let want = Want::new(&ours, &registrations);
        let node = |n: &u16| format!("n{n}");
        let mut catalog = Catalog::default();
        for (r, n) in &known {
            let entries = catalog.nodes.entry(node(n)).or_default();
            entries.insert(ours.id(r), CatalogEntry::default());
        }
        let agents = Agents {
            of_host: answering.iter().map(|n| (host(*n), node(n))).collect(),
            answering: answering.iter().map(node).collect(),
        };
        let left = leftovers(&ours, &want, &catalog, &agents);
        for (r, n) in &known {
            let id = ours.id(r);
            let swept = left.get(&node(n)).is_some_and(|ids| ids.contains(&id));
            let wanted_here = want.entries.contains_key(&id)
                && agents.of_host.get(&r.host).is_none_or(|own| *own == node(n));
            let expected = !answering.contains(n)
                && !want.unknown_hosts.contains(&r.host)
                && !wanted_here;
            prop_assert_eq!(swept, expected, "{} on {}", id, node(n));
        }
        let all: usize = left.values().map(BTreeSet::len).sum();
        let nodes: BTreeMap<_, _> = catalog.nodes.iter().map(|(n, e)| (n, e.len())).collect();
        prop_assert!(all <= nodes.values().sum());
    }
}

#[test]
fn what_is_new_and_draining_never_takes_traffic() {
    let mut r = registration("web", "h0", 1);
    r.target = Target::Drain;
    let registrations = Registrations {
        entries: BTreeMap::from([(r.instance.clone(), r)]),
        unknown_hosts: BTreeSet::new(),
    };
    let want = Want::new(&ours(), &registrations);
    let calls = diff(&ours(), &want, &AgentLook::default(), whose).calls;
    let [Call::Register(entry), Call::Maintain { on: true, .. }] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    assert_eq!(entry.form.check.status, "critical");
}
