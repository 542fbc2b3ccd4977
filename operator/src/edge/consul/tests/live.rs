//! The whole of it, against agents that behave well and badly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::Consul;
use super::super::entry::tests::{ours, registration};
use super::fake::{Fake, Mood};
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::edge::Discovery;
use crate::model::{
    ConsulSpec, Credential, HostName, Registration, Registrations, RegistryView, Seen, Target,
};

/// No condition takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn spec(fake: &Fake) -> ConsulSpec {
    ConsulSpec { address: fake.address(), agent_port: None, token: None, tls: None }
}

fn consul(spec: ConsulSpec, hosts: &[(&str, &str)]) -> Consul {
    let hosts = hosts.iter().map(|(name, at)| (HostName::new(name).unwrap(), (*at).to_owned()));
    let ours = ours();
    let hosts = hosts.collect();
    Consul::new(ours.owner, ours.fleet, spec, hosts, Doorbell::new(), Clock::real())
}

fn registrations(all: &[Registration]) -> Arc<Registrations> {
    let entries = all.iter().map(|r| (r.instance.clone(), r.clone())).collect();
    Arc::new(Registrations { entries, unknown_hosts: BTreeSet::new() })
}

fn drained(r: &Registration) -> Registration {
    Registration { target: Target::Drain, ..r.clone() }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}

fn is_now(view: &RegistryView, entries: usize) -> bool {
    view.seen == Seen::Now && view.entries.len() == entries && view.problem.is_none()
}

fn is_silent(view: &RegistryView) -> bool {
    matches!(view.seen, Seen::Silent { .. })
}

/// Waits until it has asked for news twice more and nothing is under way.
async fn rests(fake: &Fake) {
    for _ in 0..2 {
        let before = fake.with(|data| data.asked);
        until("it is asked again", || fake.with(|data| data.asked) > before).await;
    }
}

#[tokio::test]
async fn entries_come_rest_and_go() {
    let fake = Fake::start("n1").await;
    fake.with(|data| {
        data.services.insert("redis".into(), json!({"Service": "redis", "Meta": {}}));
        // It looks like ours, and says that it is not.
        let meta = json!({"evenkeel-owner": "you", "evenkeel-fleet": "shop"});
        let id = "me/shop/web/h9/1/ffffffffffff";
        data.services.insert(id.into(), json!({"Service": "web", "Meta": meta}));
    });
    let consul = consul(spec(&fake), &[]);
    let (a, b) = (registration("web", "h1", 1), registration("web", "h2", 2));
    until("it is seen", || consul.view().seen == Seen::Now).await;
    rests(&fake).await;
    assert_eq!(fake.changes(), Vec::<String>::new(), "nothing was published");

    consul.publish(registrations(&[a.clone(), b.clone()]));
    until("both are there", || {
        let view = consul.view();
        view.entries.contains_key(&a.instance) && view.entries.contains_key(&b.instance)
    })
    .await;
    assert_eq!(fake.changes().len(), 2);
    rests(&fake).await;
    consul.publish(registrations(&[a.clone(), b.clone()]));
    rests(&fake).await;
    assert_eq!(fake.changes().len(), 2, "the same again changes nothing: {:?}", fake.changes());

    consul.publish(registrations(&[drained(&a), b.clone()]));
    until("one leaves", || consul.view().entries[&a.instance].maintenance).await;
    assert!(!consul.view().entries[&b.instance].maintenance);
    consul.publish(registrations(&[a.clone(), b.clone()]));
    until("it stays after all", || !consul.view().entries[&a.instance].maintenance).await;
    consul.publish(registrations(std::slice::from_ref(&b)));
    until("it is gone", || !consul.view().entries.contains_key(&a.instance)).await;
    consul.publish(registrations(&[]));
    until("both are gone", || !consul.view().entries.contains_key(&b.instance)).await;
    rests(&fake).await;
    assert!(is_now(&consul.view(), 0), "{:?}", consul.view());
    assert_eq!(fake.ids(), ["me/shop/web/h9/1/ffffffffffff", "redis"]);
    assert_eq!(fake.changes().len(), 6, "{:?}", fake.changes());
    assert_eq!(fake.with(|data| data.strange.clone()), Vec::<String>::new());
}

#[tokio::test]
async fn what_others_do_to_an_entry_is_undone() {
    let fake = Fake::start("n1").await;
    let consul = consul(spec(&fake), &[]);
    let a = registration("web", "h1", 1);
    consul.publish(registrations(std::slice::from_ref(&a)));
    until("it is there", || is_now(&consul.view(), 1)).await;
    let id = ours().id(&a);
    fake.with(|data| drop(data.maintenance.insert(id.clone(), "by hand".into())));
    until("maintenance ends", || fake.with(|data| data.maintenance.is_empty())).await;
    fake.with(|data| drop(data.services.remove(&id)));
    until("it is back", || fake.ids() == [id.clone()]).await;
    until("it is seen", || is_now(&consul.view(), 1)).await;
}

/// Whatever it answers: the view turns silent with a reason and keeps what it knew, and comes back soon.
#[tokio::test]
async fn a_registry_that_misbehaves_is_not_believed() {
    let cases = [
        (Mood::Broken, "refuses: 500: rpc error: it broke"),
        (Mood::Leaderless, "has no leader"),
        (Mood::Page, "answers what consul does not"),
        (Mood::Cut, "answers what consul does not"),
        (Mood::Endless, "more than 32 MiB"),
        (Mood::Forbidding, "refuses: 403: Permission denied"),
    ];
    for (mood, why) in cases {
        let fake = Fake::start("n1").await;
        let consul = consul(spec(&fake), &[]);
        let a = registration("web", "h1", 1);
        consul.publish(registrations(std::slice::from_ref(&a)));
        until("it is there", || is_now(&consul.view(), 1)).await;
        let before = fake.changes().len();
        fake.mood(mood);
        until("it is silent", || is_silent(&consul.view())).await;
        let view = consul.view();
        assert_eq!(view.entries.len(), 1, "{mood:?}");
        let problem = view.problem.clone().unwrap();
        assert!(problem.contains(why), "{mood:?}: {problem}");
        assert!(!problem.contains('\n'));
        fake.mood(Mood::Well);
        until("it is back", || is_now(&consul.view(), 1)).await;
        assert_eq!(fake.changes().len(), before, "{mood:?} was answered with changes");
    }
}

#[tokio::test]
async fn one_that_is_mute_or_gone_is_noticed() {
    let mut fake = Fake::start("n1").await;
    let consul = consul(spec(&fake), &[]);
    let a = registration("web", "h1", 1);
    consul.publish(registrations(std::slice::from_ref(&a)));
    until("it is there", || is_now(&consul.view(), 1)).await;
    fake.stop().await;
    until("it is silent", || is_silent(&consul.view())).await;
    // It comes back without anything.
    fake.with(|data| data.services.clear());
    fake.start_again().await;
    let emptied = || fake.with(|data| data.services.is_empty());
    until("it has everything again", || {
        let view = consul.view();
        assert!(!(view.seen == Seen::Now && view.entries.is_empty()), "claimed empty");
        !emptied() && is_now(&view, 1)
    })
    .await;
    fake.mood(Mood::Mute);
    until("it is silent", || is_silent(&consul.view())).await;
    assert!(consul.view().problem.clone().unwrap().contains("not in time"));
    assert_eq!(consul.view().entries.len(), 1);
}

#[tokio::test]
async fn one_entry_that_is_refused_keeps_no_other_out() {
    let fake = Fake::start("n1").await;
    fake.mood(Mood::Picky);
    let consul = consul(spec(&fake), &[]);
    let all = [registration("bad", "h1", 1), registration("web", "h1", 2)];
    consul.publish(registrations(&all));
    until("the good one is there", || consul.view().entries.len() == 1).await;
    until("it is said", || {
        consul
            .view()
            .problem
            .as_ref()
            .is_some_and(|p| p.contains("me/shop/bad/h1/1") && p.contains("400"))
    })
    .await;
    let more = [&all[..], &[registration("web", "h1", 3)]].concat();
    consul.publish(registrations(&more));
    until("news get through at once", || consul.view().entries.len() == 2).await;
}

#[tokio::test]
async fn one_that_is_deaf_is_not_shouted_at() {
    let fake = Fake::start("n1").await;
    fake.mood(Mood::Deaf);
    let consul = consul(spec(&fake), &[]);
    consul.publish(registrations(&[registration("web", "h1", 1)]));
    until("it is said", || {
        consul.view().problem.as_ref().is_some_and(|p| p.contains("does not show them"))
    })
    .await;
    assert!(fake.changes().len() < 5, "{:?}", fake.changes());
    fake.mood(Mood::Well);
    until("it works at last", || is_now(&consul.view(), 1)).await;
}

#[tokio::test]
async fn the_token_is_read_anew_and_never_shown() {
    let fake = Fake::start("n1").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret-1\n").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let consul =
        consul(ConsulSpec { token: Some(Credential::File(path.clone())), ..spec(&fake) }, &[]);
    until("it is seen", || consul.view().seen == Seen::Now).await;
    assert!(fake.with(|data| data.tokens.iter().all(|t| t.as_deref() == Some("s3cret-1"))));
    std::fs::write(file.path(), "s3cret-2").unwrap();
    consul.publish(registrations(&[registration("web", "h1", 1)]));
    until("it is there", || is_now(&consul.view(), 1)).await;
    let last = fake.with(|data| data.tokens.last().cloned().flatten());
    assert_eq!(last.as_deref(), Some("s3cret-2"));
    std::fs::write(file.path(), "s3cret\u{7f}3").unwrap();
    fake.with(|_| ());
    until("it is silent", || is_silent(&consul.view())).await;
    let problem = consul.view().problem.clone().unwrap();
    assert!(problem.contains(&path) && !problem.contains("s3cret"), "{problem}");
    drop(file);
    until("its absence is said", || {
        consul.view().problem.as_ref().is_some_and(|p| p.contains("cannot read"))
    })
    .await;
}

#[tokio::test]
async fn each_host_has_its_agent_and_the_dead_are_swept() {
    // Everything is spoken to on one port, as hosts' agents are; 127.0.0.3 has none.
    let servers = Fake::start("n1").await;
    let spec = ConsulSpec { agent_port: Some(servers.port), ..spec(&servers) };
    let consul = consul(spec, &[("h1", "127.0.0.1"), ("h2", "127.0.0.3")]);
    let (a, b) = (registration("web", "h1", 1), registration("web", "h2", 2));
    let left = registration("web", "h2", 9);
    let foreign = registration("web", "h2", 8);
    let meta = |owner: &str| json!({"evenkeel-owner": owner, "evenkeel-fleet": "shop"});
    servers.with(|data| {
        for (r, owner) in [(&left, "me"), (&foreign, "you")] {
            let key = ("n2".to_owned(), ours().id(r));
            data.others.insert(key, json!({"Service": "web", "Meta": meta(owner)}));
        }
    });
    let unknown = Registrations {
        entries: [&a, &b].map(|r| (r.instance.clone(), r.clone())).into(),
        unknown_hosts: BTreeSet::from([b.host.clone()]),
    };
    consul.publish(Arc::new(unknown.clone()));
    until("the one is there", || consul.view().entries.contains_key(&a.instance)).await;
    rests(&servers).await;
    assert_eq!(servers.ids(), [ours().id(&a)]);
    assert_eq!(servers.with(|data| data.others.len()), 2, "an unknown host was swept");
    assert_eq!(consul.view().problem, None, "a host that is known to be silent is no news");

    consul.publish(Arc::new(Registrations { unknown_hosts: BTreeSet::new(), ..unknown }));
    until("the dead host's is swept", || servers.with(|data| data.others.len()) == 1).await;
    until("the other agent is missed", || consul.view().problem.is_some()).await;
    assert!(consul.view().problem.clone().unwrap().contains("127.0.0.3"));
    assert_eq!(consul.view().seen, Seen::Now);
    let rest: Vec<_> = servers.with(|data| data.others.keys().map(|(_, id)| id.clone()).collect());
    assert_eq!(rest, [ours().id(&foreign)]);
    assert_eq!(servers.with(|data| data.strange.clone()), Vec::<String>::new());

    // The host gets an address where somebody answers.
    let hosts = [("h1", "127.0.0.1"), ("h2", "127.0.0.1")];
    let hosts: BTreeMap<_, _> =
        hosts.iter().map(|(n, at)| (HostName::new(n).unwrap(), (*at).to_owned())).collect();
    consul.set_hosts(hosts);
    until("both are there", || servers.ids().len() == 2).await;
    until("all is well", || consul.view().problem.is_none()).await;
}

#[tokio::test]
async fn a_bad_address_is_said() {
    let spec =
        ConsulSpec { address: "consul:8500".into(), agent_port: None, token: None, tls: None };
    let consul = consul(spec, &[]);
    consul.publish(registrations(&[]));
    assert!(consul.view().problem.clone().unwrap().contains("no http or https URL"));
    assert!(consul.voters().await.is_err());
}
