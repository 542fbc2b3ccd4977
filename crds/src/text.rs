//! The forms of plain text fields as schemas: pattern, length and the message for a person.
//!
//! Patterns keep to what RE2 (the API server) and ECMA-262 (editors) read alike, and are anchored.

use schemars::{Schema, SchemaGenerator, json_schema};

use crate::{NAME_MAX, schema};

/// The keyword that editors and `evenkeel check` show instead of a regular expression.
pub(crate) const PATTERN_MESSAGE: &str = "patternErrorMessage";

/// A DNS-1123 label; see [`is_name`].
pub(crate) const NAME_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// The longest constraint: two labels, the operator and some room for spaces.
pub(crate) const CONSTRAINT_MAX: usize = 160;

/// Whether `text` is a DNS-1123 label: what [`NAME_PATTERN`] and the length limit say.
pub(crate) fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty()
        && text.len() <= NAME_MAX
        && text.bytes().all(|b| inner(b) || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether `text` is the key or value of a host label: what [`label`] says.
pub(crate) fn is_label(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-'))
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}

/// One `fn(&mut SchemaGenerator) -> Schema` for each form, to be named by `schema_with`.
/// A form may be followed by what the API server is told besides.
macro_rules! text_forms {
    ($($(#[$doc:meta])* $name:ident = $pattern:expr, $max:expr, $message:expr $(, $rules:path)?;)*) => {
        $(
            $(#[$doc])*
            pub(crate) fn $name(_: &mut SchemaGenerator) -> Schema {
                #[allow(unused_mut, reason = "most forms have no further rules")]
                let mut schema = json_schema!({
                    "type": "string",
                    "maxLength": $max,
                    "pattern": $pattern,
                    (PATTERN_MESSAGE): $message,
                });
                $($rules(&mut schema);)?
                schema
            }
        )*
    };
}

text_forms! {
    /// The name of anything evenkeel names.
    name = NAME_PATTERN, NAME_MAX,
        "expected a name of lower-case letters, digits and '-', beginning and ending with a letter or digit";
    /// An image reference.
    image = "^[A-Za-z0-9][A-Za-z0-9._:/@-]*$", 512,
        "expected an image such as \"nginx:1.28\" or \"registry.example:5000/app@sha256:…\"", schema::image;
    /// An environment variable's name.
    env_name = "^[A-Za-z_.-][A-Za-z0-9_.-]*$", 253,
        "expected the name of an environment variable such as \"LOG_LEVEL\"";
    /// A key under a secret's name.
    secret_key = "^[.]?[A-Za-z0-9_-][A-Za-z0-9._-]*$", 253,
        "expected the key of a secret: letters, digits, '-', '_' and '.'";
    /// An absolute path that can stand in a bind mount.
    mount_path = "^/[^:]*$", 1024,
        "expected an absolute path without ':' such as \"/srv/data\"", schema::plain_path;
    /// An absolute path of a file that the agent reads.
    file_path = "^/.*[^/]$", 1024,
        "expected the absolute path of a file such as \"/etc/evenkeel/ca.pem\"", schema::plain_path;
    /// A name that the Docker Engine gives or takes: volumes and networks.
    docker_name = "^[A-Za-z0-9][A-Za-z0-9_.-]*$", 128,
        "expected a Docker volume or network name: letters, digits, '_', '.' and '-'";
    /// The key or value of a host label.
    label = "^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$", 63,
        "expected letters, digits, '.', '_', '/' and '-', beginning and ending with a letter or digit";
    /// A Docker Engine's address.
    endpoint = "^(unix:///\\S+|tcp://[^\\s/]+|ssh://[^\\s/]+)$", 512,
        "expected unix:///path, tcp://host:port or ssh://[user@]host[:port]", schema::endpoint;
    /// A base URL, without credentials.
    url = "^https?://[^\\s@]+$", 512,
        "expected a URL such as \"http://10.0.0.1:8080\" without credentials in it";
    /// A host name or address.
    address = "^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$", 253,
        "expected a host name or IP address";
    /// The group under which Marathon apps are kept.
    group = "^/([a-z0-9]([a-z0-9-]*[a-z0-9])?(/[a-z0-9]([a-z0-9-]*[a-z0-9])?)*)?$", 255,
        "expected a Marathon group such as \"/shop\"";
    /// A Marathon app.
    app = "^/[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[a-z0-9]([a-z0-9.-]*[a-z0-9])?)*$", 1024,
        "expected the absolute path of a Marathon app such as \"/shop/web\"";
    /// Where a Mesos agent fetches something.
    fetched = "^[a-z][a-z0-9+.-]*://[^\\s]+$", 1024,
        "expected a URI such as \"file:///etc/docker.tar.gz\"";
    /// The host name of a route.
    route_host = "^(\\*\\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$", 253,
        "expected a host name in lower case such as \"shop.example.com\" or \"*.example.com\"";
    /// The name of a cookie.
    cookie = "^[A-Za-z0-9_-]+$", 64,
        "expected the name of a cookie: letters, digits, '-' and '_'";
    /// The path of an HTTP request.
    http_path = "^/[^\\s#]*$", 1024,
        "expected a path that begins with '/' such as \"/healthz\"";
    /// The beginning of a path; no query, nothing that a balancer's configuration would take for its own.
    path_prefix = "^/[A-Za-z0-9._~!$&()*+,=:@%/-]*$", 512,
        "expected a path that begins with '/' such as \"/api\"";
    /// An address with the length of its network.
    cidr = "^[0-9A-Fa-f.:]+/[0-9]{1,3}$", 49,
        "expected an address with a prefix length such as \"10.0.0.100/24\"";
    /// A network interface.
    interface = "^[^\\s/:]+$", 15,
        "expected a network interface such as \"eth0\"";
    /// Where a program on the same machine is spoken with.
    socket = "^(/[A-Za-z0-9._/-]*[A-Za-z0-9_-]|[A-Za-z0-9.-]+:[0-9]{1,5}|\\[[0-9A-Fa-f:.]+\\]:[0-9]{1,5})$", 253,
        "expected an absolute path such as \"/run/haproxy/admin.sock\" or an address such as \"127.0.0.1:9999\"";
    /// An address with its port.
    host_port = "^([A-Za-z0-9.-]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$", 253,
        "expected an address such as \"127.0.0.1:10901\"";
    /// An absolute path of a file that the agent writes and that a balancer's configuration can name.
    own_file = "^/[A-Za-z0-9._/-]*[A-Za-z0-9_-]$", 200,
        "expected the absolute path of a file such as \"/etc/nginx/conf.d/evenkeel.conf\"";
    /// A user's name.
    username = "^[^\\s:]+$", 255,
        "expected a user name without ':' or spaces";
    /// A Consul tag.
    tag = "^\\S+$", 255,
        "expected a tag without spaces";
}

/// A list of unique names in the order given.
fn unique(item: &Schema, max: u32) -> Schema {
    json_schema!({
        "type": "array",
        "items": item,
        "maxItems": max,
        "x-kubernetes-list-type": "set",
    })
}

/// Docker networks.
pub(crate) fn networks(generator: &mut SchemaGenerator) -> Schema {
    let mut networks = unique(&docker_name(generator), 20);
    schema::joinable(&mut networks);
    networks
}

/// Consul tags.
pub(crate) fn tags(generator: &mut SchemaGenerator) -> Schema {
    unique(&tag(generator), 50)
}

/// Base URLs, at least one.
pub(crate) fn urls(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = unique(&url(generator), 20);
    schema.insert("minItems".to_owned(), 1.into());
    schema
}

/// An object whose fields are somebody else's.
pub(crate) fn open(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 100,
        "additionalProperties": true,
    })
}

/// The words of a command line.
pub(crate) fn words(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"type": "string", "maxLength": 32768},
        "maxItems": 200,
    })
}

/// A command line that has at least the program.
pub(crate) fn program(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = words(generator);
    schema.insert("minItems".to_owned(), 1.into());
    schema
}

/// A command that the agent runs on its own machine.
pub(crate) fn own_command(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"type": "string", "maxLength": 1024},
        "minItems": 1,
        "maxItems": 50,
    })
}

/// Host labels.
pub(crate) fn labels(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": label(generator),
        "propertyNames": label(generator),
        "maxProperties": 64,
        "x-kubernetes-validations": schema::keys(
            "^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$",
            63,
            "keys are letters, digits, '.', '_', '/' and '-'",
        ),
    })
}

/// Consul metadata. Consul keeps 64 pairs with keys of 128 and values of 512 bytes; four are ours.
pub(crate) fn meta(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 512},
        "propertyNames": {
            "maxLength": 128,
            "pattern": "^[A-Za-z0-9_-]+$",
            (PATTERN_MESSAGE): "expected a key of letters, digits, '-' and '_'",
        },
        "maxProperties": 60,
        "x-kubernetes-validations":
            schema::keys("^[A-Za-z0-9_-]+$", 128, "keys are letters, digits, '-' and '_'"),
    })
}
