//! Health, readiness and other checks of an app in the form that is compared.

use serde_json::{Value, json};

use super::json::{drop_default, drop_empty, keep_only};

/// One of `healthChecks`: without defaults, and without what the server drops for its protocol.
pub(super) fn health_check(value: Value) -> Value {
    let Value::Object(mut fields) = value else { return value };
    // Accepted and dropped by every server from 1.5 on: it would differ for ever.
    keep_only(
        &mut fields,
        &[
            "protocol",
            "path",
            "portIndex",
            "port",
            "command",
            "gracePeriodSeconds",
            "intervalSeconds",
            "timeoutSeconds",
            "maxConsecutiveFailures",
            "delaySeconds",
            "ipProtocol",
        ],
    );
    let protocol = fields.get("protocol").and_then(Value::as_str).unwrap_or("HTTP").to_owned();
    let by_command = protocol == "COMMAND";
    let on_the_agent = protocol.starts_with("MESOS_");
    let absent: &[&str] = match (by_command, on_the_agent) {
        (true, _) => &["path", "port", "portIndex", "ipProtocol"],
        (false, true) => &["command"],
        (false, false) => &["command", "delaySeconds", "ipProtocol"],
    };
    for name in absent {
        fields.remove(*name);
    }
    if protocol.ends_with("TCP") {
        fields.remove("path");
    }
    // A port that is said wins.
    if fields.contains_key("port") {
        fields.remove("portIndex");
    }
    for (name, default) in [
        ("protocol", json!("HTTP")),
        ("path", json!("/")),
        ("portIndex", json!(0)),
        ("gracePeriodSeconds", json!(300)),
        ("intervalSeconds", json!(60)),
        ("timeoutSeconds", json!(20)),
        ("maxConsecutiveFailures", json!(3)),
        ("delaySeconds", json!(15)),
        ("ipProtocol", json!("IPv4")),
    ] {
        drop_default(&mut fields, name, &default);
    }
    Value::Object(fields)
}

/// One of `readinessChecks`, without defaults.
pub(super) fn readiness_check(value: Value) -> Value {
    let Value::Object(mut fields) = value else { return value };
    if let Some(Value::Array(codes)) = fields.get_mut("httpStatusCodesForReady") {
        codes.sort_by_key(Value::as_i64);
        codes.dedup();
    }
    drop_empty(&mut fields, "httpStatusCodesForReady");
    for (name, default) in [
        ("name", json!("readinessCheck")),
        ("protocol", json!("HTTP")),
        ("path", json!("/")),
        ("portName", json!("http-api")),
        ("intervalSeconds", json!(30)),
        ("timeoutSeconds", json!(10)),
        ("httpStatusCodesForReady", json!([200])),
        ("preserveLastResponse", json!(false)),
    ] {
        drop_default(&mut fields, name, &default);
    }
    Value::Object(fields)
}

/// The `check` that only informs, without defaults.
pub(super) fn task_check(value: Value) -> Option<Value> {
    let Value::Object(mut fields) = value else { return Some(value) };
    for (name, default) in
        [("intervalSeconds", json!(60)), ("timeoutSeconds", json!(20)), ("delaySeconds", json!(15))]
    {
        drop_default(&mut fields, name, &default);
    }
    if let Some(Value::Object(http)) = fields.get_mut("http") {
        drop_default(http, "scheme", &json!("HTTP"));
    }
    (!fields.is_empty()).then_some(Value::Object(fields))
}
