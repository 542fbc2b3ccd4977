use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::{FleetName, HealthState, OwnerId, ProbeKind};

fn live() -> Live {
    let me = Me { owner: OwnerId::new("o").unwrap(), fleet: FleetName::new("f").unwrap() };
    Live::new(me, Time(0))
}

fn labels() -> serde_json::Value {
    json!({
        "evenkeel.dev/owner": "o", "evenkeel.dev/fleet": "f", "evenkeel.dev/service": "web",
        "evenkeel.dev/slot": "1", "evenkeel.dev/hash": "00000000000000ab",
    })
}

fn inspect(id: &str, status: &str, started: &str) -> Inspect {
    let of = json!({
        "Id": id, "Name": format!("/{id}"), "Created": "2026-01-01T00:00:00.5Z",
        "State": {"Status": status, "StartedAt": started, "ExitCode": 3, "OOMKilled": false},
        "Config": {"Labels": labels()},
        "HostConfig": {"NanoCpus": 250_000_000, "Memory": 1024, "PortBindings": {
            "80/tcp": [{"HostPort": "8081"}], "53/udp": [{"HostPort": "5353"}], "9/tcp": null,
            "7/tcp": [{"HostPort": ""}],
        }},
    });
    serde_json::from_value(of).unwrap()
}

/// One second after the epoch of the engine's clock, and so on.
const ONE: &str = "1970-01-01T00:00:01Z";
const TWO: &str = "1970-01-01T00:00:02Z";

fn running(id: &str) -> Inspect {
    inspect(id, "running", ONE)
}

fn summary(id: &str, state: &str) -> Summary {
    let of = json!({"Id": id, "Names": [format!("/{id}")], "Labels": labels(), "State": state});
    serde_json::from_value(of).unwrap()
}

fn event(action: &str, id: &str, seconds: i64, more: &[(&str, &str)]) -> EventMessage {
    let mut said = labels();
    for (k, v) in more {
        said[*k] = json!(v);
    }
    let of = json!({
        "Type": "container", "Action": action, "Actor": {"ID": id, "Attributes": said},
        "timeNano": seconds * 1_000_000_000,
    });
    serde_json::from_value(of).unwrap()
}

fn see(live: &mut Live, id: &str, found: Option<&Inspect>) -> Heed {
    let begun = live.begin();
    live.inspected(begun, &id.into(), found, Time(5))
}

fn states(live: &mut Live) -> Vec<(String, State)> {
    live.publish();
    let view = live.published();
    view.instances.iter().map(|i| (i.id.0.to_string(), i.state)).collect()
}

fn died(code: i64) -> State {
    State::Exited { code, out_of_memory: false }
}

#[test]
fn an_inspect_is_read_in_full() {
    let mut l = live();
    see(&mut l, "a", Some(&running("a")));
    l.publish();
    let view = l.published();
    let i = &view.instances[0];
    assert_eq!((i.published.as_slice(), i.state), (&[5353, 8081][..], State::Running));
    assert_eq!(i.resources, Resources { cpu_millis: 250, memory_bytes: 1024 });
    assert_eq!(i.created, Time(1_767_225_600_500));
    assert_eq!(i.health, HealthState::Healthy { since: Time(5) });
}

#[test]
fn an_unchanged_view_is_the_same_one_and_rings_nothing() {
    let mut l = live();
    see(&mut l, "a", Some(&running("a")));
    assert!(l.publish());
    let before = l.published();
    see(&mut l, "a", Some(&running("a")));
    assert!(!l.publish());
    assert!(Arc::ptr_eq(&before, &l.published()));
}

#[test]
fn a_death_is_known_from_the_event_alone() {
    let mut l = live();
    see(&mut l, "a", Some(&running("a")));
    assert_eq!(l.event(&event("die", "a", 9, &[("exitCode", "7")])), Todo::Inspect("a".into()));
    assert_eq!(states(&mut l), [("a".into(), died(7))]);
    l.event(&event("oom", "a", 9, &[]));
    l.event(&event("die", "a", 9, &[("exitCode", "137")]));
    assert_eq!(states(&mut l)[0].1, State::Exited { code: 137, out_of_memory: true });
}

#[test]
fn a_slow_inspect_does_not_bring_the_dead_back() {
    let mut l = live();
    see(&mut l, "a", Some(&running("a")));
    let slow = l.begin();
    l.event(&event("die", "a", 9, &[("exitCode", "7")]));
    assert_eq!(l.inspected(slow, &"a".into(), Some(&running("a")), Time(6)), Heed::Stale);
    assert_eq!(states(&mut l), [("a".into(), died(7))]);
    // And an inspect that was begun first but answered last changes nothing either.
    let (first, second) = (l.begin(), l.begin());
    l.inspected(second, &"a".into(), Some(&inspect("a", "running", TWO)), Time(7));
    assert_eq!(l.inspected(first, &"a".into(), Some(&running("a")), Time(8)), Heed::Stale);
    assert_eq!(states(&mut l), [("a".into(), State::Running)]);
}

#[test]
fn one_that_was_not_found_is_there_once_it_is_found() {
    let mut l = live();
    // An engine under load did not know for a moment what it had just made.
    assert_eq!(see(&mut l, "a", None), Heed::Gone);
    assert_eq!(l.event(&event("start", "a", 9, &[])), Todo::Inspect("a".into()));
    assert_eq!(see(&mut l, "a", Some(&running("a"))), Heed::Taken);
    assert_eq!(states(&mut l), [("a".into(), State::Running)]);
    // Whoever asked before and hears late must ask again.
    let late = l.begin();
    see(&mut l, "a", Some(&inspect("a", "running", TWO)));
    assert_eq!(l.inspected(late, &"a".into(), None, Time(8)), Heed::Stale);
    assert_eq!(states(&mut l), [("a".into(), State::Running)]);
}

#[test]
fn a_late_event_about_the_run_before_does_not_end_the_run_after() {
    let mut l = live();
    see(&mut l, "a", Some(&inspect("a", "running", TWO)));
    assert_eq!(l.event(&event("die", "a", 1, &[("exitCode", "7")])), Todo::Inspect("a".into()));
    assert_eq!(states(&mut l), [("a".into(), State::Running)]);
}

#[test]
fn a_list_begun_before_a_step_ended_cannot_undo_it() {
    let mut l = live();
    see(&mut l, "old", Some(&running("old")));
    let list = l.begin();
    // Meanwhile one is started and one is removed.
    see(&mut l, "new", Some(&running("new")));
    l.gone("old");
    assert!(l.listed(list, &[summary("old", "running")], None).is_empty());
    assert_eq!(states(&mut l), [("new".into(), State::Running)]);
    // Nor can a slow inspect or a late event, ever.
    assert_eq!(see(&mut l, "old", Some(&running("old"))), Heed::Gone);
    assert_eq!(l.event(&event("start", "old", 9, &[])), Todo::Nothing);
    assert_eq!(states(&mut l).len(), 1);
}

#[test]
fn a_list_finds_what_events_did_not_tell() {
    let mut l = live();
    for id in ["a", "b", "c"] {
        see(&mut l, id, Some(&running(id)));
    }
    let list = l.begin();
    let ask = l.listed(
        list,
        &[summary("b", "exited"), summary("c", "running"), summary("d", "running")],
        None,
    );
    assert_eq!(ask, BTreeSet::from(["b".into(), "d".into()]), "what agrees is not asked again");
    let left: Vec<_> = states(&mut l).into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, ["b", "c"], "what is gone stays in the view");
}

#[test]
fn what_was_removed_is_forgotten_in_the_end() {
    let mut l = live();
    for n in 0..100 {
        let id = format!("c{n}");
        see(&mut l, &id, Some(&running(&id)));
        l.gone(&id);
    }
    assert_eq!(l.known.len(), 100);
    for _ in 0..2 {
        let list = l.begin();
        l.listed(list, &[], None);
    }
    assert_eq!(l.known.len(), 0, "the dead are remembered for ever");
}

#[test]
fn silence_keeps_what_was_known_and_a_host_never_seen_stays_so() {
    let mut l = live();
    l.lost(Time(3));
    assert_eq!(l.seen, Seen::Never { since: Time(0) });
    see(&mut l, "a", Some(&running("a")));
    l.arrived();
    l.lost(Time(7));
    l.lost(Time(9));
    assert_eq!(l.seen, Seen::Silent { since: Time(7) });
    assert_eq!(states(&mut l).len(), 1);
}

#[test]
fn garbled_ones_are_foreign_by_name_and_port() {
    let mut l = live();
    let mut found = running("a");
    found.config.labels.as_mut().unwrap().insert("evenkeel.dev/slot".into(), "x".into());
    see(&mut l, "a", Some(&found));
    l.publish();
    let view = l.published();
    assert!(view.instances.is_empty());
    assert!(view.foreign_names.contains("a") && view.foreign_ports.contains(&8081));
}

fn probe() -> Probe {
    Probe {
        kind: ProbeKind::Tcp,
        port: 80,
        interval: std::time::Duration::from_secs(1),
        timeout: std::time::Duration::from_secs(1),
        failure_threshold: 1,
        start_period: std::time::Duration::ZERO,
    }
}

fn probes() -> Arc<BTreeMap<ServiceName, Probe>> {
    Arc::new(BTreeMap::from([(ServiceName::new("web").unwrap(), probe())]))
}

#[test]
fn a_restarted_container_begins_anew() {
    let mut l = live();
    l.arrived();
    l.set_probes(probes());
    see(&mut l, "a", Some(&running("a")));
    let of = |started| Target { id: "a".into(), started, probe: probe(), at: Ok(String::new()) };
    l.probed(&of(1_000_000_000), true, Time(9));
    let health = |l: &Live| l.ours["a"].health(true);
    assert_eq!(health(&l), HealthState::Healthy { since: Time(9) });
    see(&mut l, "a", Some(&inspect("a", "running", TWO)));
    assert_eq!(health(&l), HealthState::Starting);
    l.probed(&of(1_000_000_000), true, Time(10));
    assert_eq!(health(&l), HealthState::Starting, "an answer of the run before counts");
}

#[test]
fn what_ran_before_it_could_be_asked_is_not_taken_for_one_that_starts() {
    let health = |l: &Live, id: &str| l.ours[id].health(true);
    let mut l = live();
    l.set_probes(probes());
    see(&mut l, "a", Some(&running("a")));
    assert_eq!(health(&l, "a"), HealthState::Unknown, "it may have served for days");
    l.arrived();
    see(&mut l, "b", Some(&running("b")));
    assert_eq!(health(&l, "b"), HealthState::Starting, "it was seen to start");
    see(&mut l, "a", Some(&running("a")));
    assert_eq!(health(&l, "a"), HealthState::Unknown);
    // While the host was silent it may have been started by anybody, any time.
    l.lost(Time(9));
    see(&mut l, "c", Some(&running("c")));
    assert_eq!(health(&l, "c"), HealthState::Unknown);
    // A service that gets its first check served until then, as far as anybody knew.
    let mut l = live();
    l.arrived();
    see(&mut l, "a", Some(&running("a")));
    l.set_probes(probes());
    assert_eq!(health(&l, "a"), HealthState::Unknown);
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[a-z./:0-9-]{0,12}".prop_map(Into::into),
        Just("container".into()),
        Just("die".into()),
        Just("a".into()),
        Just("2026-01-01T00:00:00Z".into()),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let key = prop_oneof![
            Just("Type"),
            Just("Action"),
            Just("Actor"),
            Just("ID"),
            Just("Id"),
            Just("Attributes"),
            Just("exitCode"),
            Just("timeNano"),
            Just("time"),
            Just("Name"),
            Just("Names"),
            Just("Labels"),
            Just("State"),
            Just("Config"),
            Just("HostConfig"),
            Just("Status"),
            Just("PortBindings"),
            Just("80/tcp"),
            Just("HostPort"),
            Just("NanoCpus"),
            Just("evenkeel.dev/owner"),
            Just("evenkeel.dev/slot"),
            Just("StartedAt"),
        ];
        let map = proptest::collection::btree_map(key.prop_map(String::from), inner.clone(), 0..6);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(serde_json::Value::from),
            map.prop_map(|m| serde_json::Value::from(
                m.into_iter().collect::<serde_json::Map<_, _>>()
            )),
        ]
    })
}

proptest! {
    /// Whatever an engine sends is taken or refused, and the view stays one that holds together.
    #[test]
    fn any_answers_are_taken_without_harm(all in proptest::collection::vec(any_json(), 1..8)) {
        let mut l = live();
        see(&mut l, "a", Some(&running("a")));
        for json in all {
            if let Ok(e) = serde_json::from_value::<EventMessage>(json.clone()) {
                l.event(&e);
            }
            if let Ok(i) = serde_json::from_value::<Inspect>(json.clone()) {
                see(&mut l, "a", Some(&i));
            }
            if let Ok(s) = serde_json::from_value::<Summary>(json) {
                let begun = l.begin();
                l.listed(begun, &[s], None);
            }
            l.publish();
            let view = l.published();
            prop_assert!(view.instances.iter().all(|i| i.service.as_str() == "web"));
        }
    }

    /// In whatever order things are begun and answered, what is shown in the end is the newest truth.
    #[test]
    fn the_newest_truth_wins_in_any_order(order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle()) {
        let mut l = live();
        let truth = ["running", "paused", "running", "exited", "running", "paused"];
        let begun: Vec<Ticket> = truth.iter().map(|_| l.begin()).collect();
        for n in order {
            l.inspected(begun[n], &"a".into(), Some(&inspect("a", truth[n], ONE)), Time(9));
        }
        prop_assert_eq!(states(&mut l), [("a".to_owned(), State::Paused)]);
    }
}
