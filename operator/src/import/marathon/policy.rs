//! How much a task may use, and how tasks are paced and ended, in the words of a document.

use evenkeel_crds::{
    Cpu, HumanDuration, IntOrPercent, KeepOnReturn, Memory, OnHostLost, ScalingServiceSpec,
};
use serde_json::{Map, Value};

use super::health::duration;
use crate::import::Notes;

/// Less than this Docker refuses.
const LEAST_MEMORY: f64 = 6.0;
/// A petabyte; more than that no host has.
const MOST_MEMORY: f64 = 1_073_741_824.0;
/// 366 days.
const LONGEST: f64 = 31_622_400.0;

/// Says in a document what an app in the form that is compared may use, and how it is paced.
pub(super) fn policy(app: &Map<String, Value>, spec: &mut ScalingServiceSpec, notes: &mut Notes) {
    resources(app, spec);
    rollout(app, spec);
    let seconds = |value: Option<&Value>| {
        value.and_then(Value::as_f64).filter(|s| (0.0..=LONGEST).contains(s)).map(f64::ceil)
    };
    if let Some(grace) = seconds(app.get("taskKillGracePeriodSeconds")) {
        spec.termination.grace = duration(grace);
    }
    if let Some(strategy) = app.get("unreachableStrategy") {
        let after = seconds(strategy.get("inactiveAfterSeconds"));
        let expunge = seconds(strategy.get("expungeAfterSeconds"));
        match (after, expunge) {
            // Mesos itself waits for more than a minute before it says that an agent is lost: at once here is too soon.
            (Some(after), Some(expunge)) if after > 0.0 => {
                let keep = if (expunge - after).abs() < 0.5 {
                    KeepOnReturn::Replacement
                } else {
                    KeepOnReturn::default()
                };
                spec.on_host_lost = OnHostLost { replace_after: duration(after), keep };
            }
            (None, _) if strategy == "disabled" => {
                let said = "tasks of a lost agent are waited for (disabled), which is kept for Marathon only (marathon.fields)";
                notes.lost_but(
                    "unreachableStrategy",
                    said,
                    "write onHostLost.replaceAfter as long as a host may be away",
                );
            }
            _ => {}
        }
    }
    patience(spec);
}

fn resources(app: &Map<String, Value>, spec: &mut ScalingServiceSpec) {
    // What is not said is the default that the normal form leaves out.
    let number = |name: &str, default: f64| {
        app.get(name).map_or(Some(default), Value::as_f64).filter(|n| n.is_finite())
    };
    let millis = number("cpus", 1.0).map(|cpus| (cpus * 1000.0).round().clamp(0.0, 9_999_999.0));
    let millis = millis.and_then(|m| format!("{m:.0}").parse().ok());
    spec.resources.cpu = millis.and_then(Cpu::from_millis);
    let mib = number("mem", 128.0).unwrap_or(LEAST_MEMORY).ceil().clamp(LEAST_MEMORY, MOST_MEMORY);
    spec.resources.memory = memory(mib);
}

/// So many MiB, as precisely as a document can say it.
fn memory(mib: f64) -> Option<Memory> {
    let (amount, unit) = match mib {
        small if small < 9_999_999.0 => (small, "Mi"),
        large => ((large / 1024.0).ceil(), "Gi"),
    };
    format!("{amount:.0}{unit}").parse().ok()
}

fn rollout(app: &Map<String, Value>, spec: &mut ScalingServiceSpec) {
    let strategy = app.get("upgradeStrategy");
    let part = |name: &str| strategy.and_then(|s| s.get(name)?.as_f64());
    let percent = |share: f64| {
        let percent: u8 = format!("{:.0}", (share * 100.0).clamp(0.0, 100.0)).parse().unwrap_or(0);
        if percent == 0 { IntOrPercent::Int(0) } else { IntOrPercent::Percent(percent) }
    };
    if let Some(healthy) = part("minimumHealthCapacity") {
        spec.rollout.max_unavailable = percent(1.0 - healthy);
    }
    if let Some(over) = part("maximumOverCapacity") {
        spec.rollout.max_surge = percent(over);
    }
}

/// A release is given up when nothing moves: never before its instances may be judged at all.
fn patience(spec: &mut ScalingServiceSpec) {
    let Some(health) = &spec.health else { return };
    let deadline = spec.rollout.progress_deadline.get();
    let judged = health.start_period.get() * 2;
    if judged > deadline {
        spec.rollout.progress_deadline = HumanDuration::from_secs(judged.as_secs().min(31_622_400));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::import::document::blank;
    use crate::model::app::normal::normalise;

    fn policy_of(app: &Value) -> (Value, usize) {
        let mut spec = blank("a");
        let mut notes = Notes::of("/a");
        policy(&normalise(app).0, &mut spec, &mut notes);
        (serde_json::to_value(&spec).unwrap(), notes.all.len())
    }

    #[test]
    fn amounts_are_the_nearest_that_a_document_can_say() {
        for (cpus, mem, cpu, memory) in [
            (json!(0.1), json!(64), "100m", "64Mi"),
            (json!(2), json!(1024.0), "2", "1Gi"),
            (json!(0.0001), json!(32.5), "", "33Mi"),
            (json!(null), json!(null), "1", "128Mi"),
            (json!("x"), json!("y"), "", "6Mi"),
            (json!(1e300), json!(1e300), "9999999m", "1Ti"),
            (json!(-1), json!(-1), "", "6Mi"),
        ] {
            let (spec, _) = policy_of(&json!({"cpus": cpus, "mem": mem}));
            let given = &spec["resources"];
            assert_eq!(given["cpu"].as_str().unwrap_or_default(), cpu, "{cpus}");
            let most = given["memory"].as_str().unwrap();
            assert!(most == memory || cpu == "9999999m", "{mem}: {most}");
        }
    }

    #[test]
    fn shares_are_percentages_and_losses_have_their_times() {
        let strategy = json!({"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.2});
        let lost = json!({"inactiveAfterSeconds": 300, "expungeAfterSeconds": 300});
        let (spec, _) =
            policy_of(&json!({"upgradeStrategy": strategy, "unreachableStrategy": lost,
            "taskKillGracePeriodSeconds": 30}));
        assert_eq!(
            (&spec["rollout"]["maxUnavailable"], &spec["rollout"]["maxSurge"]),
            (&json!("50%"), &json!("20%"))
        );
        assert_eq!(spec["onHostLost"], json!({"replaceAfter": "5m", "keep": "replacement"}));
        assert_eq!(spec["termination"]["grace"], "30s");
        let at_once = json!({"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0});
        let (spec, _) = policy_of(&json!({"unreachableStrategy": at_once}));
        assert_eq!(
            spec["onHostLost"]["replaceAfter"], "20s",
            "a Docker host that is silent for a moment is not lost"
        );
        assert_eq!(policy_of(&json!({"unreachableStrategy": "disabled"})).1, 1);
    }
}
