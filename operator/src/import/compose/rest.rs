//! What a compose service may say and a document has no word for.

/// Fields that were taken elsewhere.
pub(super) const TAKEN: [&str; 21] = [
    "build",
    "command",
    "cpus",
    "deploy",
    "entrypoint",
    "env_file",
    "environment",
    "expose",
    "extends",
    "healthcheck",
    "image",
    "labels",
    "mem_limit",
    "mem_reservation",
    "network_mode",
    "networks",
    "ports",
    "profiles",
    "scale",
    "stop_grace_period",
    "stop_signal",
];

/// What becomes of a field, what to do about it, and whether it is lost.
pub(super) type Said = (&'static str, &'static str, Option<&'static str>, bool);

const NOT: &str = "not carried over";

/// Those of which there is more to say than that they are not carried over.
#[rustfmt::skip] // one line, one field
const TABLE: [Said; 30] = [
    ("cap_add", NOT, Some("evenkeel adds no capability: let the image do without"), true),
    ("cap_drop", NOT, Some("Docker's own set of capabilities holds"), true),
    ("configs", NOT, Some("put the file into the image, or mount a directory that every host has"), true),
    ("container_name", "not carried over: instances are called by their service and a number", None, true),
    ("cpu_shares", NOT, Some("write resources.cpu"), true),
    ("depends_on", "not carried over: evenkeel starts everything at once", Some("let it try again until what it needs answers"), true),
    ("devices", NOT, Some("evenkeel gives instances no devices"), true),
    ("dns", NOT, Some("set it for the engine: daemon.json"), true),
    ("extra_hosts", NOT, Some("services on one network find each other by name; others need a name in DNS"), true),
    ("gpus", NOT, Some("evenkeel gives instances no devices"), true),
    ("hostname", "not carried over: an instance is called by its service and its number", None, true),
    ("init", NOT, Some("put an init such as tini into the image"), true),
    ("ipc", NOT, None, true),
    ("links", "not carried over: services on one network find each other by name", None, true),
    ("logging", NOT, Some("set it for the engine: daemon.json"), true),
    ("pid", NOT, None, true),
    ("platform", NOT, Some("constrain it to hosts of that kind by placement.constraints"), true),
    ("privileged", NOT, Some("evenkeel starts no privileged container"), true),
    ("pull_policy", "not carried over: a host pulls an image that it does not have", Some("give each release a tag of its own"), true),
    ("read_only", NOT, None, true),
    ("restart", "evenkeel starts again whatever ends, and pauses longer each time", None, false),
    ("secrets", NOT, Some("put the values into files under --secrets, and write env with secret: {name, key}"), true),
    ("security_opt", NOT, None, true),
    ("shm_size", NOT, None, true),
    ("stdin_open", NOT, None, true),
    ("sysctls", NOT, None, true),
    ("tmpfs", NOT, Some("mount a directory of the host, or let the image write elsewhere"), true),
    ("ulimits", NOT, Some("set them for the engine: daemon.json"), true),
    ("user", "not carried over: it runs as the image's own user", Some("say USER in the image"), true),
    ("working_dir", "not carried over: it begins in the image's own directory", Some("say WORKDIR in the image, or args that begin there"), true),
];

/// What is said of a field that nothing else was done with.
pub(super) fn said(field: &str) -> (&'static str, Option<&'static str>, bool) {
    let known = TABLE.iter().find(|(name, ..)| *name == field);
    known.map_or((NOT, None, true), |(_, said, hint, lost)| (*said, *hint, *lost))
}
