//! How tasks are checked: health checks of Marathon as one of a document.

use evenkeel_crds::{CommandCheck, Health, HttpCheck, HumanDuration, TcpCheck};
use serde_json::Value;

use super::reach::Reach;
use crate::import::Notes;

const FIELD: &str = "healthChecks";
/// Longer than this nothing is waited for: 366 days.
const LONGEST: f64 = 31_622_400.0;

/// The first check that a document can say; what is told of the others.
pub(super) fn health(checks: Option<&Value>, reach: &Reach, notes: &mut Notes) -> Option<Health> {
    let checks = checks.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut found: Option<Health> = None;
    for check in checks {
        let protocol = check.get("protocol").and_then(Value::as_str).unwrap_or("HTTP");
        match one(check, protocol, reach, notes) {
            Some(health) if found.is_none() => found = Some(health),
            Some(_) => {
                let said = format!(
                    "a further check by {protocol} is kept for Marathon only (marathon.fields)"
                );
                notes.lost_but(
                    FIELD,
                    said,
                    "Docker hosts make one check: health.command can make several",
                );
            }
            None => {
                let said = format!(
                    "the check by {protocol} is kept for Marathon only (marathon.fields): its port is not known"
                );
                notes.lost_but(FIELD, said, "write health with a port of the container");
            }
        }
    }
    found
}

fn one(check: &Value, protocol: &str, reach: &Reach, notes: &mut Notes) -> Option<Health> {
    let seconds = |name: &str, default: f64| {
        let given = check.get(name).and_then(Value::as_f64).unwrap_or(default);
        given.clamp(0.0, LONGEST).ceil()
    };
    let mut health = Health {
        http: None,
        tcp: None,
        command: None,
        interval: duration(seconds("intervalSeconds", 60.0).max(1.0)),
        timeout: duration(seconds("timeoutSeconds", 20.0).max(1.0)),
        failure_threshold: 3,
        start_period: duration(seconds("gracePeriodSeconds", 300.0)),
    };
    let by_agent = protocol.starts_with("MESOS_");
    let path = check.get("path").and_then(Value::as_str).unwrap_or("/");
    match protocol {
        "HTTP" | "MESOS_HTTP" if is_http_path(path) => {
            let port = reach.checked(check, by_agent)?;
            health.http = Some(HttpCheck { path: path.to_owned(), port });
        }
        "COMMAND" => {
            let line = check.get("command").and_then(|c| c.get("value")?.as_str())?;
            let command = ["/bin/sh", "-c", line].map(str::to_owned).into();
            health.command = Some(CommandCheck { command });
        }
        "TCP" | "MESOS_TCP" | "HTTP" | "HTTPS" | "MESOS_HTTP" | "MESOS_HTTPS" => {
            health.tcp = Some(TcpCheck { port: reach.checked(check, by_agent)? });
            if !protocol.ends_with("TCP") {
                let said = format!(
                    "Docker hosts check only that the port accepts connections: {protocol} {path} is kept for \
                                    Marathon (marathon.fields)"
                );
                notes.lost_but(
                    FIELD,
                    said,
                    "health.command can ask in any way that the image has a program for",
                );
            }
        }
        _ => return None,
    }
    match check.get("maxConsecutiveFailures").map_or(Some(3), Value::as_u64) {
        Some(n @ 1..=100) => health.failure_threshold = u32::try_from(n).unwrap_or(3),
        Some(0) if !by_agent => {
            let said = "no task is ended for failing its check (maxConsecutiveFailures 0), which is kept for Marathon only; \
                        Docker hosts replace instances after 3 failures";
            notes.lost(FIELD, said);
        }
        Some(0) => health.failure_threshold = 1,
        Some(_) => health.failure_threshold = 100,
        None => {}
    }
    Some(health)
}

fn is_http_path(path: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '#';
    path.starts_with('/') && path.len() <= 1024 && !path.chars().any(odd)
}

/// Whole seconds that were checked to be few enough.
pub(super) fn duration(seconds: f64) -> HumanDuration {
    HumanDuration::from_secs(format!("{seconds:.0}").parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::app::normal::normalise;

    fn health_of(checks: &Value) -> (Value, Vec<String>) {
        let app = normalise(&json!({
            "container": {"docker": {"image": "a"}, "portMappings": [{"containerPort": 80, "name": "web"}, {"containerPort": 0}]},
            "networks": [{"mode": "container/bridge"}],
        }));
        let mut notes = Notes::of("/a");
        let reach = Reach::of(&app.0, 1, &mut Notes::of("/a"));
        let health = health(Some(checks), &reach, &mut notes);
        (serde_json::to_value(health).unwrap(), notes.all.into_iter().map(|n| n.said).collect())
    }

    #[test]
    fn a_check_keeps_its_pace_and_its_port() {
        let (health, said) = health_of(
            &json!([{"protocol": "MESOS_HTTP", "path": "/up", "intervalSeconds": 5, "timeoutSeconds": 2,
            "maxConsecutiveFailures": 2, "gracePeriodSeconds": 30}]),
        );
        assert_eq!(
            health,
            json!({"http": {"path": "/up", "port": "web"}, "interval": "5s", "timeout": "2s", "failureThreshold": 2,
                "startPeriod": "30s"})
        );
        assert!(said.is_empty(), "{said:?}");
        let (health, _) =
            health_of(&json!([{"protocol": "COMMAND", "command": {"value": "curl -f \"$HOST\""}}]));
        assert_eq!(health["command"]["command"], json!(["/bin/sh", "-c", "curl -f \"$HOST\""]));
        assert_eq!((&health["interval"], &health["startPeriod"]), (&json!("1m"), &json!("5m")));
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        for (checks, taken, says) in [
            (json!([{"portIndex": 1}]), false, "its port is not known"),
            (json!([{"port": 31_000}]), false, "its port is not known"),
            (json!([{"protocol": "GRPC"}]), false, "GRPC"),
            (json!([{"protocol": "HTTPS", "path": "/x"}]), true, "HTTPS /x"),
            (json!([{"path": "no slash"}]), true, "HTTP no slash"),
            (json!([{"maxConsecutiveFailures": 0}]), true, "maxConsecutiveFailures 0"),
            (
                json!([{"protocol": "TCP"}, {"protocol": "MESOS_TCP"}]),
                true,
                "a further check by MESOS_TCP",
            ),
            (json!([7]), true, ""),
        ] {
            let (health, said) = health_of(&checks);
            assert_eq!(!health.is_null(), taken, "{checks}: {said:?}");
            assert!(says.is_empty() || said.iter().any(|s| s.contains(says)), "{checks}: {said:?}");
        }
    }
}
