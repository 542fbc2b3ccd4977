//! What an agent says of its services and of what happened, as far as it is looked at here.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The answer to `/api/v1/status`.
#[derive(Clone)]
pub(super) struct Status(Value);

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) id: String,
}

impl Status {
    pub(super) fn read(json: &str) -> Result<Self> {
        Ok(Self(serde_json::from_str(json).context("the status is not JSON")?))
    }

    /// The commit that is in force, in every fleet.
    pub(super) fn at(&self, commit: &str) -> bool {
        let fleets = self.0["fleets"].as_array();
        self.0["source"]["revision"] == commit
            && fleets.is_some_and(|all| all.iter().all(|fleet| fleet["revision"] == commit))
    }

    fn service(&self, name: &str) -> &Value {
        let all = self.0["services"].as_array();
        all.and_then(|all| all.iter().find(|s| s["name"] == name)).unwrap_or(&Value::Null)
    }

    /// Whether the service has just `count` instances, all of them available and of an image that ends so.
    pub(super) fn has(&self, service: &str, count: u64, image: &str) -> bool {
        let it = self.service(service);
        let counts = ["desired", "replicas", "updated", "ready", "available"];
        it["phase"] == "ready"
            && it["inFlight"].as_array().is_some_and(Vec::is_empty)
            && it["image"].as_str().is_some_and(|i| i.ends_with(image))
            && counts.iter().all(|key| it[*key] == count)
    }

    /// Whether the service has just `count` instances and nothing is done to them; they need not be available yet.
    pub(super) fn runs(&self, service: &str, count: u64) -> bool {
        let it = self.service(service);
        it["inFlight"].as_array().is_some_and(Vec::is_empty)
            && ["desired", "replicas", "ready"].iter().all(|key| it[*key] == count)
    }

    /// Whether the newest spec of the service was given up, and only what was there before it is left.
    pub(super) fn rolled_back(&self, service: &str, count: u64) -> bool {
        let it = self.service(service);
        let counts = ["desired", "replicas", "ready", "available"];
        it["phase"] == "stalled"
            && it["inFlight"].as_array().is_some_and(Vec::is_empty)
            && counts.iter().all(|key| it[*key] == count)
    }

    fn instances<'a>(&'a self, service: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.service(service)["instances"].as_array().into_iter().flatten()
    }

    pub(super) fn ids<'a>(&'a self, service: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.instances(service).filter_map(|i| i["id"].as_str())
    }

    /// The one that fills a slot.
    pub(super) fn instance(&self, service: &str, slot: u64) -> Result<Instance> {
        let found = self.instances(service).find(|i| i["slot"] == slot);
        let text = |key: &str| Some(found?[key].as_str()?.to_owned());
        let instance = || Some(Instance { name: text("name")?, id: text("id")? });
        instance().with_context(|| format!("{service} has nothing in slot {slot}"))
    }

    /// Whether any service has this container.
    pub(super) fn holds(&self, id: &str) -> bool {
        let services = self.0["services"].as_array().into_iter().flatten();
        services
            .flat_map(|s| s["instances"].as_array().into_iter().flatten())
            .any(|i| i["id"] == id)
    }
}

/// The answer to `/api/v1/events`: a line for each, and where to go on.
pub(super) fn events(json: &str) -> Result<(Vec<String>, u64)> {
    let answer: Value = serde_json::from_str(json).context("the events are not JSON")?;
    let next = answer["next"].as_u64().context("the events do not say where they end")?;
    let events = answer["events"].as_array().into_iter().flatten();
    Ok((events.filter_map(line).collect(), next))
}

/// Steps are shown when they end, with the time they took.
fn line(event: &Value) -> Option<String> {
    let message = event["message"].as_str()?;
    match event["kind"].as_str()? {
        "step-began" | "standby" | "host-returned" => None,
        _ => Some(match event["tookMillis"].as_u64() {
            Some(took) => format!("{message} ({took} ms)"),
            None => message.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status::read(
            r#"{"source": {"revision": "abc"}, "fleets": [{"revision": "abc"}], "services": [
                {"name": "web", "phase": "ready", "image": "toy:1", "desired": 2, "replicas": 2,
                 "updated": 2, "ready": 2, "available": 2, "inFlight": [], "instances": [
                    {"name": "web_1", "id": "aa", "slot": 1}, {"name": "web_2", "id": "bb", "slot": 2}]},
                {"name": "api", "phase": "ready", "image": "toy:1", "desired": 1, "replicas": 2,
                 "updated": 1, "ready": 1, "available": 1, "inFlight": [], "instances": []}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_service_has_what_all_its_numbers_say() {
        let status = status();
        assert!(status.has("web", 2, ":1"));
        assert!(!status.has("web", 2, ":2"));
        assert!(!status.has("web", 3, ":1"));
        assert!(!status.has("api", 1, ":1"), "one more is still leaving");
        assert!(!status.has("none", 0, ""));
        assert!(status.runs("web", 2) && !status.runs("web", 1) && !status.runs("api", 1));
    }

    #[test]
    fn a_service_is_rolled_back_once_only_the_old_are_left() {
        let of = |replicas: u64, phase: &str| {
            let json = format!(
                r#"{{"services": [{{"name": "web", "phase": "{phase}", "desired": 3, "ready": 3,
                    "available": 3, "replicas": {replicas}, "inFlight": []}}]}}"#
            );
            Status::read(&json).unwrap().rolled_back("web", 3)
        };
        assert!(of(3, "stalled"));
        assert!(!of(4, "stalled") && !of(3, "ready"));
    }

    #[test]
    fn the_commit_is_in_force_once_every_fleet_has_it() {
        assert!(status().at("abc"));
        assert!(!status().at("abd"));
        let behind = r#"{"source": {"revision": "b"}, "fleets": [{"revision": "a"}]}"#;
        assert!(!Status::read(behind).unwrap().at("b"));
    }

    #[test]
    fn instances_are_found() {
        let status = status();
        assert_eq!(status.ids("web").collect::<Vec<_>>(), ["aa", "bb"]);
        let two = Instance { name: "web_2".into(), id: "bb".into() };
        assert_eq!(status.instance("web", 2).unwrap(), two);
        assert!(status.instance("web", 3).is_err());
        assert!(status.holds("bb") && !status.holds("cc"));
    }

    #[test]
    fn events_become_lines() {
        let (lines, next) = events(
            r#"{"next": 9, "events": [
                {"kind": "step-began", "message": "start web_2"},
                {"kind": "step-done", "message": "start web_1", "tookMillis": 40},
                {"kind": "phase", "message": "web is ready", "tookMillis": null}]}"#,
        )
        .unwrap();
        assert_eq!(lines, ["start web_1 (40 ms)", "web is ready"]);
        assert_eq!(next, 9);
        assert!(events("{}").is_err());
    }
}
