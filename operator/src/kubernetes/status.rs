//! From the report to what an object's status should say. Pure: the same report gives the same status, so that a status
//! is written once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::object::{Kind, Object};
use super::sum;
use crate::backend::docker::SERVICE;
use crate::report::view::{
    ConditionView, FleetView, ProblemView, ServiceView, Stamp, StatusView, WaitingView,
};

/// The conditions that are ours.
const OURS: [&str; 3] = ["Ready", "Reconciling", "Stalled"];
/// Most waits that a status holds.
const MOST: usize = 100;
/// Longest message, characters.
const LONGEST: usize = 4000;

/// The report by names.
#[derive(Debug)]
pub struct Index<'a> {
    /// Services and balancers, as each fleet sees them that knows of them.
    pub services: BTreeMap<&'a str, Vec<&'a ServiceView>>,
    /// Fleets.
    pub fleets: BTreeMap<&'a str, &'a FleetView>,
    /// Problems by the path of their document.
    pub problems: BTreeMap<&'a str, Vec<&'a ProblemView>>,
    /// What is wrong with the documents of fleets, by the fleet.
    pub wrong_fleets: BTreeMap<&'a str, &'a str>,
}

impl<'a> Index<'a> {
    /// Of a whole status.
    pub fn of(status: &'a StatusView) -> Self {
        let mut problems: BTreeMap<&str, Vec<&ProblemView>> = BTreeMap::new();
        let mut wrong_fleets = BTreeMap::new();
        for problem in status.source.iter().flat_map(|s| &s.problems) {
            problems.entry(&problem.path).or_default().push(problem);
            let object = problem.object.as_deref();
            if let Some(fleet) = object.and_then(|object| object.strip_prefix("Fleet/")) {
                wrong_fleets.entry(fleet).or_insert(problem.message.as_str());
            }
        }
        let mut services: BTreeMap<&str, Vec<&ServiceView>> = BTreeMap::new();
        for service in &status.services {
            services.entry(&service.name).or_default().push(service);
        }
        Self {
            services,
            fleets: status.fleets.iter().map(|f| (f.name.as_str(), f)).collect(),
            problems,
            wrong_fleets,
        }
    }

    /// What the fleets say of a service.
    pub fn views(&self, name: &str) -> &[&'a ServiceView] {
        self.services.get(name).map(|views| &views[..]).unwrap_or_default()
    }
}

/// What is known of one object beside the report.
#[derive(Debug, Default, Clone)]
pub struct Facts<'a> {
    /// The generation that the newest documents hold.
    pub read: Option<i64>,
    /// The generation that the newest pass was about.
    pub passed: Option<i64>,
    /// The newest generation that was reached entirely.
    pub applied: Option<i64>,
    /// What is wrong with its document.
    pub problems: Vec<&'a ProblemView>,
    /// Why it is still there though it is being deleted.
    pub leaving: Option<String>,
    /// What it asked to be answered and was.
    pub answered: Option<String>,
    /// By how many documents a fleet is named.
    pub used: usize,
}

/// What the status of an object should be. `None` while that is not known.
pub fn wanted(
    object: &Object,
    facts: &Facts<'_>,
    index: &Index<'_>,
    now: Timestamp,
) -> Option<Value> {
    let name = &*object.key.name;
    let read = facts.read?;
    let mut status = Map::new();
    status.insert("observedGeneration".into(), read.into());
    let (views, waiting): Said = if object.key.kind == Kind::Fleet {
        let view = index.fleets.get(name).copied();
        fleet(&mut status, view, facts)?
    } else {
        // One that is not in force makes nobody say anything of what should run on it.
        let wrong = object.fleets.iter().find_map(|fleet| {
            let why = index.wrong_fleets.get(&**fleet)?;
            (!index.fleets.contains_key(&**fleet)).then_some((&**fleet, *why))
        });
        service(&mut status, object, sum::of(index.views(name)).as_deref(), facts, wrong)?
    };
    // An annotation that means nothing is told where what is not done yet is told.
    let misspelt = object.misspelt().map(|message| json!({ "message": message }));
    let waiting = waiting.iter().map(waiting_value);
    let waiting: Vec<Value> = misspelt.into_iter().chain(waiting).take(MOST).collect();
    status.insert("waiting".into(), waiting.into());
    let answered =
        facts.answered.clone().or_else(|| text(&object.status, "lastHandledReconcileAt"));
    if let Some(answered) = answered {
        status.insert("lastHandledReconcileAt".into(), answered.into());
    }
    let conditions = views.into_iter().map(|view| condition(object, read, view, now)).collect();
    status.insert("conditions".into(), Value::Array(conditions));
    Some(Value::Object(status))
}

type Said = (Vec<ConditionView>, Vec<WaitingView>);

fn service(
    status: &mut Map<String, Value>,
    object: &Object,
    view: Option<&ServiceView>,
    facts: &Facts<'_>,
    wrong_fleet: Option<(&str, &str)>,
) -> Option<Said> {
    let settled = facts.passed == facts.read;
    let invalid = invalid(facts).or_else(|| {
        let (fleet, why) = wrong_fleet.filter(|_| view.is_none())?;
        let message = format!("the fleet {fleet} cannot be used: {why}");
        Some(("FleetInvalid", message))
    });
    // Another object of the same name may be the one that runs.
    if view.is_none() && invalid.is_none() && facts.leaving.is_none() {
        return None;
    }
    if !settled && invalid.is_none() && facts.leaving.is_none() {
        return None;
    }
    let count = |n: fn(&ServiceView) -> u32| Value::from(view.map_or(0, n));
    status.insert("replicas".into(), count(|v| v.replicas));
    status.insert("readyReplicas".into(), count(|v| v.ready));
    status.insert("updatedReplicas".into(), count(|v| v.updated));
    status.insert("availableReplicas".into(), count(|v| v.available));
    if object.key.kind == Kind::LoadBalancer {
        let routes = view.and_then(|v| v.routes).unwrap_or_default();
        status.insert("routes".into(), routes.into());
    } else {
        status.insert("fleets".into(), object.fleets.join(", ").into());
    }
    status.insert("selector".into(), format!("{SERVICE}={}", object.key.name).into());
    if let Some(passed) = facts.passed {
        status.insert("attemptedRevision".into(), passed.to_string().into());
    }
    let applied = facts.applied.map(|g| g.to_string());
    if let Some(applied) = applied.or_else(|| text(&object.status, "appliedRevision")) {
        status.insert("appliedRevision".into(), applied.into());
    }
    let waiting = view.map(|v| v.waiting.clone()).unwrap_or_default();
    let conditions = if let Some(why) = &facts.leaving {
        leaving(why)
    } else if let Some((reason, message)) = invalid {
        stalled(reason, message)
    } else {
        view.map(|v| v.conditions.clone()).unwrap_or_default()
    };
    Some((conditions, waiting))
}

fn fleet(
    status: &mut Map<String, Value>,
    view: Option<&FleetView>,
    facts: &Facts<'_>,
) -> Option<Said> {
    let invalid = invalid(facts);
    let hosts = view.map(|v| &v.hosts[..]).unwrap_or_default();
    let up = hosts.iter().filter(|h| h.state == "up").count();
    status.insert("hosts".into(), hosts.len().into());
    status.insert("readyHosts".into(), up.into());
    status.insert("services".into(), facts.used.into());
    status.insert("instances".into(), hosts.iter().map(|h| h.instances).sum::<u32>().into());
    let waiting = view.map(|v| v.waiting.clone()).unwrap_or_default();
    let stand = format!("{up} of {} hosts answer", hosts.len());
    let conditions = if let Some(why) = &facts.leaving {
        leaving(why)
    } else if let Some((reason, message)) = invalid {
        stalled(reason, message)
    } else if view.is_none() || facts.passed != facts.read {
        // A fleet that nothing was ever planned for is planned for in a moment.
        return None;
    } else if let Some(wait) = waiting.iter().find(|w| w.needs_a_person) {
        stalled("NeedsAttention", wait.message.clone())
    } else if up == hosts.len() {
        vec![said("Ready", true, "HostsAnswer", stand)]
    } else {
        let silent = hosts.iter().filter(|h| h.state != "up");
        let each = silent.map(|h| match &h.problem {
            Some(problem) => format!("{}: {problem}", h.name),
            None => h.name.clone(),
        });
        let message = format!("{stand}; silent: {}", each.collect::<Vec<_>>().join("; "));
        vec![
            said("Ready", false, "HostSilent", message.clone()),
            said("Reconciling", true, "HostSilent", message),
        ]
    };
    Some((conditions, waiting))
}

/// The reason and the text, where something is wrong with the document.
fn invalid(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let mut lines = Vec::new();
    for problem in &facts.problems {
        let line = match &problem.hint {
            Some(hint) => format!("{} (hint: {hint})", problem.message),
            None => problem.message.clone(),
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    (!lines.is_empty()).then(|| ("Invalid", lines.join("; ")))
}

fn said(kind: &str, status: bool, reason: &str, message: String) -> ConditionView {
    ConditionView {
        kind: kind.into(),
        status: if status { "True" } else { "False" }.into(),
        reason: reason.into(),
        message,
        last_transition_time: Stamp::default(),
    }
}

fn stalled(reason: &str, message: String) -> Vec<ConditionView> {
    vec![said("Ready", false, reason, message.clone()), said("Stalled", true, reason, message)]
}

fn leaving(why: &str) -> Vec<ConditionView> {
    let message = format!("being deleted: {why}");
    vec![
        said("Ready", false, "Deleting", message.clone()),
        said("Reconciling", true, "Deleting", message),
    ]
}

/// A condition keeps the time of its last transition as long as its status stays.
fn condition(object: &Object, generation: i64, view: ConditionView, now: Timestamp) -> Value {
    let ConditionView { kind, status, reason, mut message, last_transition_time: _ } = view;
    if message.chars().count() > LONGEST {
        message = message.chars().take(LONGEST).chain(['…']).collect();
    }
    let before = of_type(&object.status, &kind);
    let since = before
        .filter(|b| text(b, "status").as_deref() == Some(status.as_str()))
        .and_then(|b| text(b, "lastTransitionTime"))
        .unwrap_or_else(|| format!("{now:.0}"));
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since, "observedGeneration": generation,
    })
}

fn waiting_value(w: &WaitingView) -> Value {
    match w.until {
        Some(Stamp(until)) => {
            let second = i64::try_from(until.0.div_ceil(1000)).unwrap_or(i64::MAX);
            let at = Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
            json!({"message": w.message, "until": format!("{at:.0}")})
        }
        None => json!({"message": w.message}),
    }
}

fn text(value: &Value, field: &str) -> Option<String> {
    value.get(field).and_then(Value::as_str).map(str::to_owned)
}

fn of_type<'v>(status: &'v Value, kind: &str) -> Option<&'v Value> {
    let all = status.get("conditions").and_then(Value::as_array)?;
    all.iter().find(|c| c.get("type").and_then(Value::as_str) == Some(kind))
}

/// Whether the status of an object says something else than it should. What others wrote beside it is theirs.
pub fn differs(wanted: &Value, actual: &Value) -> bool {
    let Some(fields) = wanted.as_object() else { return true };
    fields.iter().any(|(field, value)| {
        if field != "conditions" {
            return actual.get(field) != Some(value);
        }
        OURS.iter().any(|kind| of_type(wanted, kind) != of_type(actual, kind))
    })
}

/// Whether the two differ in what a person waits for: such a change is written at once.
pub fn turns(wanted: &Value, actual: &Value) -> bool {
    let ready = |v: &Value| of_type(v, "Ready").and_then(|c| text(c, "status"));
    ready(wanted) != ready(actual)
        || wanted.get("observedGeneration") != actual.get("observedGeneration")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::object::tests::object;
    use crate::report::view::{HostView, SourceView};

    const NOW: &str = "2026-11-22T06:17:48Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn web(status: &Value) -> Object {
        let whole = json!({
            "metadata": {"name": "web", "generation": 3}, "spec": {}, "status": status,
        });
        object(Kind::ScalingService, whole)
    }

    fn ready() -> ServiceView {
        ServiceView {
            name: "web".into(),
            replicas: 2,
            ready: 2,
            updated: 2,
            available: 2,
            conditions: vec![said("Ready", true, "Available", "2 of 2 available".into())],
            ..ServiceView::default()
        }
    }

    fn of(object: &Object, service: Option<ServiceView>, facts: &Facts<'_>) -> Option<Value> {
        let status =
            StatusView { services: service.into_iter().collect(), ..StatusView::default() };
        wanted(object, facts, &Index::of(&status), now())
    }

    fn facts<'a>() -> Facts<'a> {
        Facts { read: Some(3), passed: Some(3), applied: Some(3), ..Facts::default() }
    }

    #[test]
    fn a_ready_service() {
        let status = of(&web(&Value::Null), Some(ready()), &facts()).unwrap();
        let expected = json!({
            "observedGeneration": 3, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2,
            "availableReplicas": 2, "fleets": "default", "selector": "evenkeel.dev/service=web",
            "attemptedRevision": "3", "appliedRevision": "3", "waiting": [],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Available",
                "message": "2 of 2 available", "lastTransitionTime": NOW, "observedGeneration": 3,
            }],
        });
        assert_eq!(status, expected);
        let read: evenkeel_crds::ScalingServiceStatus = serde_json::from_value(status).unwrap();
        assert_eq!(read.observed_generation, Some(3));
    }

    #[test]
    fn the_same_again_is_no_difference_and_a_transition_keeps_its_time() {
        let first = of(&web(&Value::Null), Some(ready()), &facts()).unwrap();
        let later = web(&first);
        let again = wanted(
            &later,
            &facts(),
            &Index::of(&StatusView { services: vec![ready()], ..StatusView::default() }),
            "2027-01-01T00:00:00Z".parse().unwrap(),
        )
        .unwrap();
        assert!(!differs(&again, &first) && !turns(&again, &first));
        assert_eq!(again, first);
    }

    #[test]
    fn what_others_wrote_is_put_right_where_it_is_ours() {
        let good = of(&web(&Value::Null), Some(ready()), &facts()).unwrap();
        let mut foreign = good.clone();
        foreign["theirs"] = 1.into();
        let more = json!({"type": "Pinged", "status": "True"});
        foreign["conditions"].as_array_mut().unwrap().push(more);
        assert!(!differs(&good, &foreign));
        foreign["replicas"] = 7.into();
        assert!(differs(&good, &foreign));
        let mut stalled = good.clone();
        let more = json!({"type": "Stalled", "status": "True"});
        stalled["conditions"].as_array_mut().unwrap().push(more);
        assert!(differs(&good, &stalled));
    }

    #[test]
    fn nothing_is_said_of_a_generation_that_was_not_looked_at() {
        let behind = Facts { passed: Some(2), ..facts() };
        assert_eq!(of(&web(&Value::Null), Some(ready()), &behind), None);
        assert_eq!(of(&web(&Value::Null), None, &facts()), None);
        assert_eq!(of(&web(&Value::Null), Some(ready()), &Facts { read: None, ..facts() }), None);
    }

    #[test]
    fn an_annotation_that_means_nothing_is_told() {
        let whole = json!({
            "metadata": {"name": "web", "annotations": {"evenkeel.dev/suspend": "yes"}}, "spec": {},
        });
        let status = of(&object(Kind::ScalingService, whole), Some(ready()), &facts()).unwrap();
        let said = text(&status["waiting"][0], "message").unwrap();
        assert!(said.contains("true or false"), "{said}");
    }

    #[test]
    fn a_problem_is_stalled_with_its_hint() {
        let problem = ProblemView {
            message: "ScalingService web: spec.fleet: no document defines the fleet shpo".into(),
            hint: Some("did you mean \"shop\"?".into()),
            ..ProblemView::default()
        };
        let wrong = Facts { problems: vec![&problem], passed: None, ..facts() };
        let status = of(&web(&Value::Null), None, &wrong).unwrap();
        let stalled = of_type(&status, "Stalled").unwrap();
        assert_eq!(text(stalled, "reason").unwrap(), "Invalid");
        assert!(text(stalled, "message").unwrap().ends_with("(hint: did you mean \"shop\"?)"));
        assert_eq!(text(of_type(&status, "Ready").unwrap(), "status").unwrap(), "False");
    }

    #[test]
    fn a_service_says_so_when_its_fleet_cannot_be_used() {
        let problem = ProblemView {
            path: "shop/Fleet/default".into(),
            object: Some("Fleet/default".into()),
            message: "Fleet default: spec: no such thing".into(),
            ..ProblemView::default()
        };
        let source = SourceView { problems: vec![problem], ..SourceView::default() };
        let mut status = StatusView { source: Some(source), ..StatusView::default() };
        let of =
            |status: &StatusView| wanted(&web(&Value::Null), &facts(), &Index::of(status), now());
        let said = of(&status).unwrap();
        let stalled = of_type(&said, "Stalled").unwrap();
        assert_eq!(text(stalled, "reason").unwrap(), "FleetInvalid");
        assert!(text(stalled, "message").unwrap().contains("the fleet default cannot be used"));
        // One whose last good document is in force is told by the fleet alone.
        status.fleets.push(FleetView { name: "default".into(), ..FleetView::default() });
        assert_eq!(of(&status), None);
    }

    #[test]
    fn a_fleet_is_ready_when_its_hosts_answer() {
        let host = |name: &str, state: &str| HostView {
            name: name.into(),
            state: state.into(),
            ..HostView::default()
        };
        let of = |state: &str| {
            let hosts = vec![host("h1", "up"), host("h2", state)];
            let fleets = vec![FleetView { name: "shop".into(), hosts, ..FleetView::default() }];
            let whole = json!({"metadata": {"name": "shop", "generation": 3}, "spec": {}});
            let status = StatusView { fleets, ..StatusView::default() };
            wanted(&object(Kind::Fleet, whole), &facts(), &Index::of(&status), now()).unwrap()
        };
        assert_eq!(text(of_type(&of("up"), "Ready").unwrap(), "status").unwrap(), "True");
        let silent = of("silent");
        assert!(text(of_type(&silent, "Reconciling").unwrap(), "message").unwrap().contains("h2"));
        let _: evenkeel_crds::FleetStatus = serde_json::from_value(silent).unwrap();
    }
}
