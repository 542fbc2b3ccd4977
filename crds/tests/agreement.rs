//! The JSON Schemas and the types agree: what a schema accepts deserialises, what the types refuse
//! a schema refuses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, which clippy does not count as tests"
)]

mod support;

use serde_json::{Value, json};

/// The combined schema's problems with a document, found by the schema of its kind.
fn problems(document: &Value) -> Vec<String> {
    let root = &*support::COMBINED_SCHEMA;
    let kind = document["kind"].as_str().unwrap();
    let found = support::judge(root, &root["definitions"][kind], document, "");
    let any = support::judge(root, &json!({"oneOf": root["oneOf"]}), document, "");
    assert_eq!(found.is_empty(), any.is_empty(), "the combined schema says the same");
    found
}

/// A copy of an example with one value replaced, added or `<removed>`.
fn with(name: &str, pointer: &str, value: &Value) -> Value {
    let mut document = support::example(name);
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).expect(pointer);
    match parent {
        Value::Array(items) => items[field.parse::<usize>().unwrap()] = value.clone(),
        Value::Object(parent) if value == "<removed>" => {
            parent.remove(field).expect(pointer);
        }
        Value::Object(parent) => {
            parent.insert(field.to_owned(), value.clone());
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => panic!("{pointer}"),
    }
    document
}

#[test]
fn the_examples_are_accepted_with_and_without_their_defaults() {
    for (name, _) in support::EXAMPLES {
        let document = support::example(name);
        assert_eq!(problems(&document), [""; 0], "{name}");
        let mut filled = support::through_serde(&document).unwrap();
        filled.as_object_mut().unwrap().remove("status");
        assert_eq!(problems(&filled), [""; 0], "{name} as it serialises");
    }
}

/// Accepted by the schema, and so by the types.
#[test]
fn what_the_schema_accepts_deserialises() {
    let service = "scalingservice";
    for (name, pointer, value) in [
        (service, "/spec/resources/cpu", json!(2)),
        (service, "/spec/resources/cpu", json!("9999.999")),
        (service, "/spec/resources/cpu", json!("9999999m")),
        (service, "/spec/resources/memory", json!("9999999Ti")),
        (service, "/spec/rollout/maxSurge", json!(10_000)),
        (service, "/spec/rollout/maxSurge", json!("100%")),
        (service, "/spec/rollout/maxUnavailable", json!("0%")),
        (service, "/spec/termination/drain", json!("9999999h9999999h9999999h9999999h")),
        (service, "/spec/termination/drain", json!("0s")),
        (service, "/spec/termination/signal", json!("SIGRTMIN+3")),
        (service, "/spec/placement/constraints", json!(["a==b", "  a/b.c   !=  d_e  "])),
        (service, "/spec/routes/0/port", json!(65_535)),
        (service, "/spec/routes/0/host", json!("*.example.com")),
        (service, "/spec/env/0/value", json!("")),
        (service, "/spec/health", json!({"command": {"command": ["/bin/true"]}})),
        (service, "/spec/replicas", json!(0)),
        ("fleet", "/spec/backend/docker/hosts/0/endpoint", json!("ssh://root@h3:22")),
        ("fleet", "/spec/limits", json!({})),
        ("marathon", "/spec/backend/marathon/auth", json!({"tokenFile": "/run/token"})),
        ("marathon", "/spec/backend/marathon/group", json!("/")),
        ("loadbalancer", "/spec/provider", json!({"nginx": {}})),
        ("loadbalancer", "/spec/virtualIp/address", json!("fd00::1/64")),
    ] {
        let document = with(name, pointer, &value);
        assert_eq!(problems(&document), [""; 0], "{pointer} = {value}");
        support::through_serde(&document).expect(pointer);
    }
}

/// Refused by both: unknown fields, wrong types and malformed forms.
#[test]
fn what_the_types_refuse_the_schema_refuses() {
    let service = "scalingservice";
    for (name, pointer, value) in [
        (service, "/spec/replica", json!(1)),
        (service, "/spec/image", json!("<removed>")),
        (service, "/spec/replicas", json!(-1)),
        (service, "/spec/replicas", json!("3")),
        (service, "/spec/replicas", json!(1.5)),
        (service, "/spec/command", Value::Null),
        (service, "/spec/env/0/value", json!(1)),
        (service, "/spec/env/0/valueFrom", json!({})),
        (service, "/spec/ports/0/containerPort", json!(70_000)),
        (service, "/spec/ports/0/protocol", json!("sctp")),
        (service, "/spec/resources/cpu", json!("0")),
        (service, "/spec/resources/cpu", json!("01")),
        (service, "/spec/resources/cpu", json!(0)),
        (service, "/spec/resources/cpu", json!(1.5)),
        (service, "/spec/resources/memory", json!("64")),
        (service, "/spec/resources/memory", json!(64)),
        (service, "/spec/rollout/maxSurge", json!("101%")),
        (service, "/spec/rollout/maxSurge", json!("025%")),
        (service, "/spec/rollout/maxSurge", json!(10_001)),
        (service, "/spec/rollout/maxSurge", json!("2")),
        (service, "/spec/rollout/maxSurge", Value::Null),
        (service, "/spec/termination/drain", json!("10")),
        (service, "/spec/termination/drain", json!(10)),
        (service, "/spec/termination/drain", json!("1d")),
        (service, "/spec/termination/signal", json!("TERM")),
        (service, "/spec/placement/constraints/0", json!("zone = a")),
        (service, "/spec/placement/constraints/0", json!("zone in a")),
        (service, "/spec/health/http/port", json!("HTTP")),
        (service, "/spec/health/http/port", json!(0)),
        (service, "/spec/onHostLost/keep", json!("both")),
        ("fleet", "/spec/backend/docker/hosts/0/state", json!("down")),
        ("fleet", "/spec/backend/docker/hosts/0/labels", json!({"zone": 1})),
        ("fleet", "/spec/backend/kubernetes", json!({})),
        ("loadbalancer", "/spec/listeners", json!("<removed>")),
        ("loadbalancer", "/spec/virtualIp/routerId", json!(256)),
    ] {
        let document = with(name, pointer, &value);
        assert!(!problems(&document).is_empty(), "schema: {pointer} = {value}");
        support::through_serde(&document).expect_err(&format!("types: {pointer} = {value}"));
    }
}

/// Refused by the schema alone: lengths, ranges, name patterns, null, and which fields go together.
#[test]
fn the_schema_is_the_stricter() {
    let service = "scalingservice";
    for (name, pointer, value) in [
        (service, "/apiVersion", json!("evenkeel.dev/v1")),
        (service, "/status", json!({})),
        (service, "/metadata/name", json!("Simple")),
        (service, "/metadata/name", json!("x".repeat(64))),
        (service, "/metadata/finalizers", json!([])),
        (service, "/spec/replicas", json!(10_001)),
        (service, "/spec/image", json!("a image")),
        (service, "/spec/fleet", json!("")),
        (service, "/spec/env/0/secret", json!({"name": "a", "key": "b"})),
        (service, "/spec/env/0/value", json!("<removed>")),
        (service, "/spec/ports/0/containerPort", json!(0)),
        (service, "/spec/volumes/0/hostPath", json!("srv")),
        (service, "/spec/volumes/0/volume", json!("data")),
        (service, "/spec/networks", json!(["a", "a"])),
        (service, "/spec/health", Value::Null),
        (service, "/spec/health/tcp", json!({"port": 80})),
        (service, "/spec/health/http", json!("<removed>")),
        (service, "/spec/discovery/meta", json!({"a b": "c"})),
        (service, "/spec/routes/0/pathPrefix", json!("api")),
        (service, "/spec/routes/0/host", json!("Shop")),
        ("fleet", "/spec/backend/marathon", json!({"urls": ["http://a"]})),
        ("fleet", "/spec/backend/docker", json!("<removed>")),
        ("fleet", "/spec/backend/docker/hosts", json!([])),
        ("fleet", "/spec/backend/docker/hosts/0/endpoint", json!("http://h1")),
        ("fleet", "/spec/backend/docker/hosts/0/tls", json!({"caFile": "/a"})),
        ("fleet", "/spec/backend/docker/hosts/0/labels", json!({"a b": "c"})),
        ("fleet", "/spec/discovery/consul/servers", json!(4)),
        ("fleet", "/spec/discovery/consul/address", json!("http://c")),
        ("fleet", "/spec/discovery/consul/tokenFile", json!("/run/token")),
        ("fleet", "/spec/limits/prune/maxPercent", json!(101)),
        ("marathon", "/spec/backend/marathon/auth/tokenFile", json!("/run/token")),
        ("marathon", "/spec/backend/marathon/urls/0", json!("http://user:pw@mm1:8080")),
        ("loadbalancer", "/spec/provider/nginx", json!({})),
        ("loadbalancer", "/spec/provider/haproxy", json!("<removed>")),
    ] {
        let document = with(name, pointer, &value);
        assert!(!problems(&document).is_empty(), "{pointer} = {value}");
    }
}
