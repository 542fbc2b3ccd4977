//! The schema: every field that Marathon reads, with its type, its default and the line that it came with.

use serde_json::Value;

use super::super::path::is_word;
use super::{Absent, Field, Kind};

const TEXT: Kind = Kind::Text(0, None);
const SOME_TEXT: Kind = Kind::Text(1, None);
const NATURAL: Kind = Kind::Whole(0, i32::MAX as i64);
const LONG: Kind = Kind::Whole(0, i64::MAX);
const PORT: Kind = Kind::Whole(0, 65535);
const ZERO_UP: Kind = Kind::Real(0.0, f64::MAX);
const SHARE: Kind = Kind::Real(0.0, 1.0);
const TEXTS: Kind = Kind::List(&TEXT);
const LABELS: Kind = Kind::Dict(&TEXT);
const NAME: Kind = Kind::Text(1, Some(is_word));
const PROTOCOL: Kind = Kind::Word(&["tcp", "udp", "udp,tcp"]);
const MODE: Kind = Kind::Word(&["RO", "RW"]);

const fn field(name: &'static str, kind: Kind, absent: Absent) -> Field {
    Field { name, kind, absent, since: 0 }
}

const fn since(minor: u32, name: &'static str, kind: Kind, absent: Absent) -> Field {
    Field { name, kind, absent, since: minor }
}

/// An app, as clients write it.
pub(in super::super) const APP: &[Field] = &[
    field("id", SOME_TEXT, Absent::Refused),
    field("acceptedResourceRoles", Kind::Set(&TEXT), Absent::Stays),
    field("args", TEXTS, Absent::Stays),
    field("backoffFactor", Kind::Real(1.0, f64::MAX), Absent::Number(1.15)),
    field("backoffSeconds", NATURAL, Absent::Number(1.0)),
    since(8, "check", Kind::Object(CHECK), Absent::Stays),
    field("cmd", SOME_TEXT, Absent::Stays),
    field("constraints", Kind::Set(&CONSTRAINT), Absent::Stays),
    field("container", Kind::Object(CONTAINER), Absent::Stays),
    field("cpus", Kind::Real(0.001, f64::MAX), Absent::Number(1.0)),
    field("dependencies", Kind::Set(&SOME_TEXT), Absent::Stays),
    field("disk", ZERO_UP, Absent::Number(0.0)),
    field("env", Kind::Dict(&Kind::Choice(env)), Absent::Stays),
    field("executor", Kind::Text(0, Some(is_executor)), Absent::Text("")),
    since(8, "executorResources", Kind::Object(EXECUTOR), Absent::Stays),
    field("fetch", Kind::List(&Kind::Object(ARTIFACT)), Absent::Stays),
    field("gpus", NATURAL, Absent::Number(0.0)),
    field("healthChecks", Kind::Set(&Kind::Object(HEALTH_CHECK)), Absent::Stays),
    field("instances", NATURAL, Absent::Number(1.0)),
    field("ipAddress", Kind::Object(IP_ADDRESS), Absent::Stays),
    field(
        "killSelection",
        Kind::Word(&["YOUNGEST_FIRST", "OLDEST_FIRST"]),
        Absent::Text("YOUNGEST_FIRST"),
    ),
    field("labels", LABELS, Absent::Nothing),
    field("maxLaunchDelaySeconds", NATURAL, Absent::Stays),
    field("mem", ZERO_UP, Absent::Number(128.0)),
    since(5, "networks", Kind::List(&Kind::Object(NETWORK)), Absent::Stays),
    field("portDefinitions", Kind::List(&Kind::Object(PORT_DEFINITION)), Absent::Stays),
    field("ports", Kind::List(&PORT), Absent::Stays),
    field("readinessChecks", Kind::List(&Kind::Object(READINESS)), Absent::Stays),
    field("requirePorts", Kind::Truth, Absent::No),
    field("residency", Kind::Object(RESIDENCY), Absent::Stays),
    since(10, "resourceLimits", Kind::Object(LIMITS), Absent::Stays),
    since(9, "role", SOME_TEXT, Absent::Stays),
    field("secrets", Kind::Dict(&Kind::Object(SECRET)), Absent::Stays),
    field("taskKillGracePeriodSeconds", NATURAL, Absent::Stays),
    since(5, "tty", Kind::Truth, Absent::Stays),
    field("unreachableStrategy", Kind::Choice(unreachable), Absent::Stays),
    field("upgradeStrategy", Kind::Object(UPGRADE), Absent::Stays),
    field("uris", Kind::List(&SOME_TEXT), Absent::Stays),
    field("user", TEXT, Absent::Stays),
    field("version", Kind::Moment, Absent::Stays),
    // What the server says of itself in an answer is no mistake in a request.
    field("deployments", Kind::Anything, Absent::Stays),
    field("lastTaskFailure", Kind::Anything, Absent::Stays),
    field("storeUrls", TEXTS, Absent::Stays),
    field("versionInfo", Kind::Anything, Absent::Stays),
];

/// A group: what it holds is read by itself, for a path's sake.
pub(in super::super) const GROUP: &[Field] = &[
    field("id", SOME_TEXT, Absent::Stays),
    field("apps", Kind::List(&Kind::Object(APP)), Absent::Stays),
    field("groups", Kind::List(&Kind::Choice(group)), Absent::Stays),
    field("dependencies", Kind::Set(&SOME_TEXT), Absent::Stays),
    field("scaleBy", ZERO_UP, Absent::Stays),
    field("version", Kind::Moment, Absent::Stays),
    since(9, "enforceRole", Kind::Truth, Absent::Stays),
    field("pods", Kind::Anything, Absent::Stays),
];

fn group(_: &Value) -> &'static Kind {
    static GROUPS: Kind = Kind::Object(GROUP);
    &GROUPS
}

/// What `PATCH` of a group may say.
pub(in super::super) const GROUP_SETTINGS: &[Field] =
    &[field("enforceRole", Kind::Truth, Absent::Stays)];

/// Which tasks to kill.
pub(in super::super) const DELETE_TASKS: &[Field] =
    &[field("ids", Kind::List(&TEXT), Absent::Refused)];

const CONSTRAINT: Kind = Kind::List(&TEXT);

const CONTAINER: &[Field] = &[
    field("type", Kind::Word(&["MESOS", "DOCKER"]), Absent::Text("DOCKER")),
    field("docker", Kind::Object(DOCKER), Absent::Stays),
    field("volumes", Kind::List(&Kind::Choice(volume)), Absent::Empty),
    since(5, "portMappings", Kind::List(&Kind::Object(PORT_MAPPING)), Absent::Stays),
];

const DOCKER: &[Field] = &[
    field("image", SOME_TEXT, Absent::Refused),
    field("forcePullImage", Kind::Truth, Absent::No),
    field("privileged", Kind::Truth, Absent::No),
    field("parameters", Kind::List(&Kind::Object(PARAMETER)), Absent::Empty),
    field("network", Kind::Word(&["BRIDGE", "HOST", "NONE", "USER"]), Absent::Stays),
    field("portMappings", Kind::List(&Kind::Object(PORT_MAPPING)), Absent::Stays),
    since(5, "pullConfig", Kind::Object(&[field("secret", TEXT, Absent::Refused)]), Absent::Stays),
    field("credential", Kind::Object(CREDENTIAL), Absent::Stays),
];

const CREDENTIAL: &[Field] =
    &[field("principal", TEXT, Absent::Refused), field("secret", TEXT, Absent::Stays)];

const PARAMETER: &[Field] =
    &[field("key", SOME_TEXT, Absent::Refused), field("value", TEXT, Absent::Refused)];

const PORT_MAPPING: &[Field] = &[
    field("containerPort", PORT, Absent::Number(0.0)),
    field("hostPort", PORT, Absent::Stays),
    field("servicePort", PORT, Absent::Number(0.0)),
    field("protocol", PROTOCOL, Absent::Text("tcp")),
    field("name", NAME, Absent::Stays),
    field("labels", LABELS, Absent::Nothing),
    since(5, "networkNames", TEXTS, Absent::Stays),
];

const PORT_DEFINITION: &[Field] = &[
    field("port", PORT, Absent::Number(0.0)),
    field("protocol", PROTOCOL, Absent::Text("tcp")),
    field("name", NAME, Absent::Stays),
    field("labels", LABELS, Absent::Stays),
];

const NETWORK: &[Field] = &[
    field(
        "mode",
        Kind::Word(&["container", "container/bridge", "host"]),
        Absent::Text("container"),
    ),
    field("name", Kind::Text(1, Some(is_network)), Absent::Stays),
    field("labels", LABELS, Absent::Stays),
];

const IP_ADDRESS: &[Field] = &[
    field("networkName", SOME_TEXT, Absent::Stays),
    field("groups", Kind::Set(&TEXT), Absent::Stays),
    field("labels", LABELS, Absent::Stays),
    field("discovery", Kind::Object(DISCOVERY), Absent::Stays),
];

const DISCOVERY: &[Field] =
    &[field("ports", Kind::List(&Kind::Object(DISCOVERY_PORT)), Absent::Empty)];

const DISCOVERY_PORT: &[Field] = &[
    field("number", PORT, Absent::Number(0.0)),
    field("name", NAME, Absent::Refused),
    field("protocol", PROTOCOL, Absent::Text("tcp")),
    field("labels", LABELS, Absent::Nothing),
];

const HEALTH_CHECK: &[Field] = &[
    field("protocol", Kind::Word(PROTOCOLS), Absent::Text("HTTP")),
    field("command", Kind::Object(&[field("value", TEXT, Absent::Refused)]), Absent::Stays),
    field("gracePeriodSeconds", NATURAL, Absent::Number(300.0)),
    field("intervalSeconds", NATURAL, Absent::Number(60.0)),
    field("timeoutSeconds", NATURAL, Absent::Number(20.0)),
    field("maxConsecutiveFailures", NATURAL, Absent::Number(3.0)),
    field("delaySeconds", NATURAL, Absent::Number(15.0)),
    field("ignoreHttp1xx", Kind::Truth, Absent::Stays),
    field("path", TEXT, Absent::Stays),
    field("port", PORT, Absent::Stays),
    field("portIndex", PORT, Absent::Stays),
    since(6, "ipProtocol", Kind::Word(&["IPv4", "IPv6"]), Absent::Text("IPv4")),
];

const PROTOCOLS: &[&str] =
    &["HTTP", "HTTPS", "TCP", "COMMAND", "MESOS_TCP", "MESOS_HTTP", "MESOS_HTTPS"];

const CHECK: &[Field] = &[
    field("intervalSeconds", NATURAL, Absent::Stays),
    field("timeoutSeconds", NATURAL, Absent::Stays),
    field("delaySeconds", NATURAL, Absent::Stays),
    field("http", Kind::Anything, Absent::Stays),
    field("tcp", Kind::Anything, Absent::Stays),
    field("exec", Kind::Anything, Absent::Stays),
];

const READINESS: &[Field] = &[
    field("name", SOME_TEXT, Absent::Text("readinessCheck")),
    field("protocol", Kind::Word(&["HTTP", "HTTPS"]), Absent::Text("HTTP")),
    field("path", SOME_TEXT, Absent::Text("/")),
    field("portName", NAME, Absent::Text("http-api")),
    field("intervalSeconds", NATURAL, Absent::Number(30.0)),
    field("timeoutSeconds", Kind::Whole(1, i32::MAX as i64), Absent::Number(10.0)),
    field("httpStatusCodesForReady", Kind::Set(&Kind::Whole(100, 999)), Absent::Stays),
    field("preserveLastResponse", Kind::Truth, Absent::No),
];

const RESIDENCY: &[Field] = &[
    field("relaunchEscalationTimeoutSeconds", LONG, Absent::Number(3600.0)),
    field(
        "taskLostBehavior",
        Kind::Word(&["WAIT_FOREVER", "RELAUNCH_AFTER_TIMEOUT"]),
        Absent::Text("WAIT_FOREVER"),
    ),
];

const EXECUTOR: &[Field] = &[
    field("cpus", Kind::Real(0.1, f64::MAX), Absent::Number(0.1)),
    field("mem", Kind::Real(32.0, f64::MAX), Absent::Number(32.0)),
    field("disk", Kind::Real(10.0, f64::MAX), Absent::Number(10.0)),
];

const LIMITS: &[Field] = &[
    field("cpus", Kind::Choice(limit), Absent::Stays),
    field("mem", Kind::Choice(limit), Absent::Stays),
];

const SECRET: &[Field] = &[field("source", SOME_TEXT, Absent::Refused)];

const ARTIFACT: &[Field] = &[
    field("uri", SOME_TEXT, Absent::Refused),
    field("extract", Kind::Truth, Absent::Yes),
    field("executable", Kind::Truth, Absent::No),
    field("cache", Kind::Truth, Absent::No),
    field("destPath", SOME_TEXT, Absent::Stays),
];

const UPGRADE: &[Field] = &[
    field("minimumHealthCapacity", SHARE, Absent::Refused),
    field("maximumOverCapacity", SHARE, Absent::Refused),
];

fn unreachable(value: &Value) -> &'static Kind {
    static UNREACHABLE: Kind = Kind::Object(&[
        field("inactiveAfterSeconds", LONG, Absent::Number(0.0)),
        field("expungeAfterSeconds", LONG, Absent::Number(0.0)),
    ]);
    static DISABLED: Kind = Kind::Word(&["disabled"]);
    if value.is_string() { &DISABLED } else { &UNREACHABLE }
}

fn env(value: &Value) -> &'static Kind {
    static REFERENCE: Kind = Kind::Object(&[field("secret", TEXT, Absent::Refused)]);
    static WORDS: Kind = TEXT;
    if value.is_object() { &REFERENCE } else { &WORDS }
}

fn limit(value: &Value) -> &'static Kind {
    static UNLIMITED: Kind = Kind::Word(&["unlimited"]);
    static NUMBER: Kind = ZERO_UP;
    if value.is_string() { &UNLIMITED } else { &NUMBER }
}

fn volume(value: &Value) -> &'static Kind {
    const PATH: Field = field("containerPath", SOME_TEXT, Absent::Refused);
    static HOST: Kind = Kind::Object(&[
        PATH,
        field("hostPath", SOME_TEXT, Absent::Refused),
        field("mode", MODE, Absent::Refused),
    ]);
    static PERSISTENT: Kind = Kind::Object(&[
        PATH,
        field("persistent", Kind::Object(DISK), Absent::Refused),
        field("mode", MODE, Absent::Refused),
    ]);
    static EXTERNAL: Kind = Kind::Object(&[
        PATH,
        field("external", Kind::Object(FOREIGN_DISK), Absent::Refused),
        field("mode", MODE, Absent::Refused),
    ]);
    static HIDDEN: Kind = Kind::Object(&[PATH, field("secret", SOME_TEXT, Absent::Refused)]);
    if value.get("persistent").is_some() {
        &PERSISTENT
    } else if value.get("external").is_some() {
        &EXTERNAL
    } else if value.get("secret").is_some() {
        &HIDDEN
    } else {
        &HOST
    }
}

const DISK: &[Field] = &[
    field("size", LONG, Absent::Refused),
    field("maxSize", LONG, Absent::Stays),
    field("type", Kind::Word(&["root", "path", "mount"]), Absent::Text("root")),
    field("profileName", TEXT, Absent::Stays),
    field("constraints", Kind::Set(&CONSTRAINT), Absent::Empty),
];

const FOREIGN_DISK: &[Field] = &[
    field("size", LONG, Absent::Stays),
    field("name", TEXT, Absent::Stays),
    field("provider", TEXT, Absent::Stays),
    field("options", Kind::Anything, Absent::Nothing),
    since(8, "shared", Kind::Truth, Absent::No),
];

fn is_network(name: &str) -> bool {
    is_word(&name.replace('_', "-"))
}

/// A path without empty names, or nothing.
fn is_executor(text: &str) -> bool {
    let path = text.strip_prefix('/').unwrap_or(text);
    text == "//cmd" || text.is_empty() || path.split('/').all(|name| !name.is_empty())
}
