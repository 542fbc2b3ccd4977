//! May an object that is being deleted go? Only when it is known that nothing of it is left. Pure.

use std::collections::BTreeSet;

use super::object::{Kind, Object};
use super::status::Index;
use crate::report::view::{FleetView, ServiceView};

/// What lets go of everything at once.
const ORPHAN: &str = "annotate with evenkeel.dev/deletion=orphan to leave what runs";

/// What holds a deleted object, in words.
pub type Held = String;

/// Whether nothing of an object is left. `planned`: the newest plan knew that it leaves. `used`: by how many documents a
/// fleet is named.
pub fn may_go(object: &Object, planned: bool, used: usize, now: &Index<'_>) -> Result<(), Held> {
    if object.is_orphaned() {
        return Ok(());
    }
    let name = &*object.key.name;
    if object.key.kind == Kind::Fleet {
        return fleet(name, used, now);
    }
    if !planned {
        return Err("its end is about to be planned".into());
    }
    let mut ours: Vec<&ServiceView> = now.views(name).to_vec();
    if object.key.kind == Kind::LoadBalancer {
        ours.extend(now.views(&format!("{name}-vip")));
    }
    // Where it should run, and where something of it is left from before.
    let mut fleets: BTreeSet<&str> = object.fleets.iter().map(|fleet| &**fleet).collect();
    fleets.extend(ours.iter().map(|view| view.fleet.as_str()));
    let unknown = fleets.iter().find(|of| !now.fleets.contains_key(**of));
    let silent: Vec<&str> =
        fleets.iter().filter_map(|of| now.fleets.get(of)).flat_map(|f| silent(f)).collect();
    let left: usize = ours.iter().map(|s| s.instances.len()).sum();
    if left > 0 || ours.iter().any(|s| !s.in_flight.is_empty()) {
        let mut text = format!("{left} instances are still there");
        for wait in ours.iter().flat_map(|s| &s.waiting) {
            text = format!("{text}; {}", wait.message);
        }
        if !silent.is_empty() {
            text = format!("{text}; {}", unsure(&silent));
        }
        return Err(text);
    }
    if let Some(of) = unknown {
        // Without its fleet nobody can be asked. What never ran has nothing to leave behind.
        let had = object.status.get("replicas").and_then(serde_json::Value::as_i64).unwrap_or(0);
        let why = format!(
            "no document defines the fleet {of}, and nobody can be asked what still runs; bring it back, or {ORPHAN}"
        );
        return if had == 0 { Ok(()) } else { Err(why) };
    }
    if silent.is_empty() { Ok(()) } else { Err(unsure(&silent)) }
}

fn fleet(name: &str, used: usize, now: &Index<'_>) -> Result<(), Held> {
    if used > 0 {
        return Err(format!(
            "{used} services and balancers name it; delete them first, or move them to another fleet"
        ));
    }
    let hosts = now.fleets.get(name).map(|f| &f.hosts[..]).unwrap_or_default();
    match hosts.iter().map(|h| h.instances).sum::<u32>() {
        0 => Ok(()),
        left => Err(format!("{left} instances of ours still run there; remove them, or {ORPHAN}")),
    }
}

fn silent(fleet: &FleetView) -> Vec<&str> {
    fleet.hosts.iter().filter(|h| h.state != "up").map(|h| h.name.as_str()).collect()
}

fn unsure(hosts: &[&str]) -> String {
    format!(
        "the host {} does not answer and may hold instances; mend it, take it out of the fleet, or {ORPHAN}",
        hosts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::object::tests::object;
    use crate::report::view::{HostView, InstanceView, StatusView};
    use serde_json::{Value, json};

    fn web(kind: Kind, more: &Value) -> Object {
        let mut whole = json!({
            "metadata": {"name": "web", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"fleet": "shop"},
        });
        for (key, value) in more.as_object().unwrap() {
            whole[key] = value.clone();
        }
        object(kind, whole)
    }

    fn status(instances: &[&str], host: &str) -> StatusView {
        let of = |name: &str, instances: Vec<InstanceView>| ServiceView {
            name: name.into(),
            fleet: "shop".into(),
            instances,
            ..ServiceView::default()
        };
        let all = instances.iter().map(|_| InstanceView::default()).collect();
        let name = instances.first().copied().unwrap_or("web");
        let hosts = vec![HostView {
            name: "h1".into(),
            state: host.into(),
            instances: u32::try_from(instances.len()).unwrap(),
            ..HostView::default()
        }];
        let fleet = FleetView { name: "shop".into(), hosts, ..FleetView::default() };
        StatusView { services: vec![of(name, all)], fleets: vec![fleet], ..StatusView::default() }
    }

    fn asked(object: &Object, planned: bool, used: usize, status: &StatusView) -> String {
        match may_go(object, planned, used, &Index::of(status)) {
            Ok(()) => "goes".into(),
            Err(why) => why,
        }
    }

    #[test]
    fn a_service_goes_when_it_is_known_that_nothing_is_left() {
        let web = web(Kind::ScalingService, &json!({}));
        assert_eq!(asked(&web, true, 0, &status(&[], "up")), "goes");
        assert!(asked(&web, false, 0, &status(&[], "up")).contains("about to be planned"));
        assert!(asked(&web, true, 0, &status(&["web"], "up")).contains("1 instances are still"));
        for state in ["silent", "unknown"] {
            let said = asked(&web, true, 0, &status(&[], state));
            assert!(said.contains("the host h1 does not answer"), "{said}");
        }
    }

    #[test]
    fn without_its_fleet_only_what_never_ran_goes() {
        let nowhere = StatusView::default();
        let new = web(Kind::ScalingService, &json!({}));
        assert_eq!(asked(&new, true, 0, &nowhere), "goes");
        let ran = web(Kind::ScalingService, &json!({"status": {"replicas": 2}}));
        assert!(asked(&ran, true, 0, &nowhere).contains("no document defines the fleet shop"));
    }

    #[test]
    fn a_balancer_waits_for_what_moves_its_address() {
        let edge = web(Kind::LoadBalancer, &json!({}));
        assert!(asked(&edge, true, 0, &status(&["web-vip"], "up")).contains("still there"));
        let service = web(Kind::ScalingService, &json!({}));
        assert_eq!(asked(&service, true, 0, &status(&["web-vip"], "up")), "goes");
    }

    #[test]
    fn a_fleet_waits_for_those_that_name_it_and_for_what_runs_on_it() {
        let whole =
            json!({"metadata": {"name": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let fleet = object(Kind::Fleet, whole);
        assert!(asked(&fleet, true, 2, &status(&[], "up")).contains("2 services and balancers"));
        assert!(asked(&fleet, true, 0, &status(&["x"], "up")).contains("1 instances of ours"));
        assert_eq!(asked(&fleet, true, 0, &status(&[], "silent")), "goes");
    }

    #[test]
    fn an_orphaned_object_goes_at_once() {
        let metadata = json!({
            "name": "web", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"evenkeel.dev/deletion": "orphan"},
        });
        let web = web(Kind::ScalingService, &json!({"metadata": metadata}));
        assert_eq!(asked(&web, false, 0, &status(&["web"], "silent")), "goes");
    }
}
