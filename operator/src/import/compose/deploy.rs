//! How many instances, how much each may use, and how they are replaced: `deploy`, and what said it before.

use evenkeel_crds::{IntOrPercent, OnFailure, ScalingServiceSpec};
use serde_yaml::Value;

use super::amount::{cpus, duration, memory, text};
use crate::import::Notes;
use crate::import::text::shown;

/// How many instances a service is to have.
pub(super) fn replicas(service: &Value, notes: &mut Notes) -> u32 {
    let deploy = service.get("deploy");
    let given = deploy.and_then(|d| d.get("replicas")).or_else(|| service.get("scale"));
    let Some(given) = given.filter(|v| !v.is_null()) else { return 1 };
    let count = text(given).and_then(|n| n.parse().ok()).filter(|n| *n <= 10_000);
    count.unwrap_or_else(|| {
        notes.lost("replicas", "is no number from 0 to 10000: taken as 1");
        1
    })
}

/// Takes `deploy`, but for the replicas, and the amounts that older files have beside it.
pub(super) fn deploy(service: &Value, spec: &mut ScalingServiceSpec, notes: &mut Notes) {
    let deploy = service.get("deploy");
    resources(service, deploy, spec, notes);
    let fields = deploy.and_then(Value::as_mapping).into_iter().flatten();
    for (name, value) in fields {
        match name.as_str().unwrap_or_default() {
            "replicas" | "resources" => {}
            "update_config" => update(value, spec, notes),
            "placement" => placement(value, spec, notes),
            "restart_policy" => {
                notes.kept(
                    "deploy.restart_policy",
                    "evenkeel starts again whatever ends, and pauses longer each time",
                );
            }
            "mode" if value.as_str() == Some("replicated") => {}
            "mode" => {
                let said =
                    format!("{} is not carried over", shown(&text(value).unwrap_or_default()));
                notes.lost_but("deploy.mode", said, "one instance on each host: as many replicas as hosts, and placement.maxPerHost: 1");
            }
            other => notes.lost(&format!("deploy.{}", shown(other)), "not carried over"),
        }
    }
}

fn resources(
    service: &Value,
    deploy: Option<&Value>,
    spec: &mut ScalingServiceSpec,
    notes: &mut Notes,
) {
    let of = |kind: &str| deploy.and_then(|d| d.get("resources")?.get(kind));
    let (limits, reserved) = (of("limits"), of("reservations"));
    let first = |places: [Option<&Value>; 3]| places.into_iter().flatten().next().cloned();
    let cpu = first([
        limits.and_then(|l| l.get("cpus")),
        service.get("cpus"),
        reserved.and_then(|r| r.get("cpus")),
    ]);
    let most = first([
        limits.and_then(|l| l.get("memory")),
        service.get("mem_limit"),
        reserved.and_then(|r| r.get("memory")),
    ]);
    let unread = |field: &str, notes: &mut Notes| {
        notes.lost(field, "not carried over: it is no amount that a document can say");
    };
    if let Some(cpu) = cpu {
        spec.resources.cpu = cpus(&cpu);
        if spec.resources.cpu.is_none() {
            unread("cpus", notes);
        }
    }
    if let Some(most) = most {
        // Less than this Docker refuses.
        spec.resources.memory = memory(&most).filter(|m| m.bytes() >= 6 << 20);
        if spec.resources.memory.is_none() {
            unread("memory", notes);
        }
    }
    let both = |name: &str| {
        limits.is_some_and(|l| l.get(name).is_some())
            && reserved.is_some_and(|r| r.get(name).is_some())
    };
    if both("cpus") || both("memory") || service.get("mem_reservation").is_some() {
        notes.lost_but(
            "deploy.resources",
            "reservations are not carried over beside limits",
            "resources are request and limit in one",
        );
    }
    for (kind, fields) in [("limits", limits), ("reservations", reserved)] {
        for name in fields.and_then(Value::as_mapping).into_iter().flat_map(|m| m.keys()) {
            let name = name.as_str().unwrap_or_default();
            if !matches!(name, "cpus" | "memory") {
                notes.lost(&format!("deploy.resources.{kind}.{}", shown(name)), "not carried over");
            }
        }
    }
}

fn update(config: &Value, spec: &mut ScalingServiceSpec, notes: &mut Notes) {
    let of = |name: &str| config.get(name).and_then(text);
    let at_once: u32 = of("parallelism").and_then(|n| n.parse().ok()).unwrap_or(1).min(10_000);
    // None is all of them.
    let amount = if at_once == 0 { IntOrPercent::Percent(100) } else { IntOrPercent::Int(at_once) };
    let rollout = &mut spec.rollout;
    if of("order").as_deref() == Some("start-first") {
        (rollout.max_surge, rollout.max_unavailable) = (amount, IntOrPercent::Int(0));
    } else {
        (rollout.max_surge, rollout.max_unavailable) = (IntOrPercent::Int(0), amount);
    }
    if let Some(monitor) = config.get("monitor").and_then(duration) {
        let deadline = rollout.progress_deadline.get().as_secs();
        let seconds = monitor.get().as_secs().min(deadline.saturating_sub(1));
        rollout.min_ready_seconds = u32::try_from(seconds).unwrap_or(0);
    }
    match of("failure_action").as_deref() {
        Some("rollback") => rollout.on_failure = OnFailure::Rollback,
        None | Some("pause") => rollout.on_failure = OnFailure::Pause,
        Some(other) => {
            let said = format!(
                "failure_action {} is not carried over: a release that fails is rolled back",
                shown(other)
            );
            notes.lost("deploy.update_config", said);
        }
    }
    for name in ["delay", "max_failure_ratio"] {
        if of(name).is_some_and(|v| !matches!(v.as_str(), "0" | "0s" | "0.0")) {
            let said = format!(
                "{name} is not carried over: the next instance follows when the last is available"
            );
            notes.lost_but(
                "deploy.update_config",
                said,
                "rollout.minReadySeconds makes each take longer",
            );
        }
    }
}

fn placement(placement: &Value, spec: &mut ScalingServiceSpec, notes: &mut Notes) {
    let hint = "give the hosts of the fleet labels, and write placement.constraints";
    let label = |name: &str| {
        let inner =
            ["node.labels.", "engine.labels."].into_iter().find_map(|p| name.strip_prefix(p));
        inner.or_else(|| (name == "node.hostname").then_some("host")).map(str::to_owned)
    };
    for constraint in
        placement.get("constraints").and_then(Value::as_sequence).into_iter().flatten()
    {
        let given = text(constraint).unwrap_or_default();
        let parts = ["==", "!="]
            .into_iter()
            .find_map(|op| given.split_once(op).map(|(l, v)| (l.trim(), op, v.trim())));
        let said = parts.and_then(|(name, operator, value)| {
            format!("{} {operator} {value}", label(name)?).parse::<evenkeel_crds::Constraint>().ok()
        });
        match said {
            Some(said) if spec.placement.constraints.contains(&said) => {}
            Some(said) => spec.placement.constraints.push(said),
            None => notes.lost_but(
                "deploy.placement",
                format!("{} is not carried over", shown(&given)),
                hint,
            ),
        }
    }
    for preference in
        placement.get("preferences").and_then(Value::as_sequence).into_iter().flatten()
    {
        let given = preference.get("spread").and_then(text).unwrap_or_default();
        let fits =
            |name: &String| format!("{name} == x").parse::<evenkeel_crds::Constraint>().is_ok();
        match label(&given).filter(fits) {
            Some(name) if spec.placement.spread_by.is_none() => {
                spec.placement.spread_by = Some(name);
            }
            _ => notes.lost_but(
                "deploy.placement",
                format!("spread {} is not carried over", shown(&given)),
                hint,
            ),
        }
    }
    let most = placement.get("max_replicas_per_node").and_then(text).and_then(|n| n.parse().ok());
    spec.placement.max_per_host = most.filter(|n| (1..=10_000).contains(n));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::import::document::blank;

    fn taken(service: &str) -> (Json, Vec<String>) {
        let service = serde_yaml::from_str(service).unwrap();
        let mut notes = Notes::of("services.web");
        let mut spec = blank("a");
        spec.replicas = replicas(&service, &mut notes);
        deploy(&service, &mut spec, &mut notes);
        let said = notes.all.into_iter().map(|n| format!("{}: {}", n.field, n.said)).collect();
        (serde_json::to_value(&spec).unwrap(), said)
    }

    #[test]
    fn a_release_keeps_its_order_and_its_pace() {
        let (spec, said) = taken(
            "deploy: {replicas: 4, update_config: {parallelism: 2, order: start-first, monitor: 15s, failure_action: rollback}}",
        );
        assert_eq!(
            (&spec["replicas"], &spec["rollout"]),
            (
                &json!(4),
                &json!({"maxSurge": 2, "maxUnavailable": 0, "minReadySeconds": 15, "progressDeadline": "10m",
                "onFailure": "rollback"})
            )
        );
        assert!(said.is_empty(), "{said:?}");
        let (spec, said) = taken(
            "deploy: {update_config: {parallelism: 0, delay: 10s, failure_action: continue}}",
        );
        assert_eq!(
            (&spec["rollout"]["maxSurge"], &spec["rollout"]["maxUnavailable"]),
            (&json!(0), &json!("100%"))
        );
        assert_eq!(said.len(), 2, "{said:?}");
    }

    #[test]
    fn limits_are_taken_and_what_is_beside_them_told() {
        let (spec, said) = taken(
            "{scale: 2, deploy: {resources: {limits: {cpus: '0.5', memory: 50M, pids: 1}, reservations: {memory: 20M}}}}",
        );
        assert_eq!(
            (&spec["replicas"], &spec["resources"]),
            (&json!(2), &json!({"cpu": "500m", "memory": "50Mi"}))
        );
        assert_eq!(said.len(), 2, "{said:?}");
        let (spec, said) = taken("{mem_limit: 1k, cpus: lots, scale: many}");
        assert_eq!((&spec["resources"], said.len()), (&Json::Null, 3), "{said:?}");
        let (spec, _) = taken("{mem_limit: 1g, cpus: 2}");
        assert_eq!(spec["resources"], json!({"cpu": "2", "memory": "1Gi"}));
    }

    #[test]
    fn labels_of_nodes_are_labels_of_hosts() {
        let (spec, said) = taken(
            "deploy: {mode: global, endpoint_mode: vip, placement: {constraints: ['node.labels.zone==a', node.hostname != h1, \
             node.role == manager], preferences: [{spread: node.labels.rack}], max_replicas_per_node: 2}}",
        );
        assert_eq!(
            spec["placement"],
            json!({"constraints": ["zone == a", "host != h1"], "spreadBy": "rack", "packing": "spread", "maxPerHost": 2})
        );
        let told = [
            "deploy.mode: global",
            "deploy.endpoint_mode: not",
            "deploy.placement: node.role == manager",
        ];
        for (said, told) in said.iter().zip(told) {
            assert!(said.starts_with(told), "{said}");
        }
        assert_eq!(said.len(), told.len(), "{said:?}");
    }
}
