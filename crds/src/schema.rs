//! From the types to two schemas that agree: one for the API server, one for editors.
//!
//! Both are lowered from one tree. It may hold keywords of both worlds; each lowering drops what
//! its reader does not know. The API server refuses `oneOf`, `if`, `propertyNames` and the like in
//! a structural schema and has CEL instead; JSON Schema has no CEL.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::text;

/// The keyword that editors and `evenkeel check` show instead of "does not match oneOf".
pub(crate) const ERROR_MESSAGE: &str = "errorMessage";
/// CEL rules.
const RULES: &str = "x-kubernetes-validations";
const LIST_TYPE: &str = "x-kubernetes-list-type";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
const OPEN: &str = "x-kubernetes-preserve-unknown-fields";

/// What the API server does not take (the last two are for people at an editor).
const ONLY_JSON_SCHEMA: [&str; 11] = [
    "oneOf",
    "anyOf",
    "allOf",
    "not",
    "if",
    "then",
    "propertyNames",
    "dependencies",
    "uniqueItems",
    ERROR_MESSAGE,
    text::PATTERN_MESSAGE,
];

/// Gives a root type the schema that its custom resource definition carries. Rules may follow the description: those see
/// the object's name too.
macro_rules! resource {
    ($kind:ident, $spec:ty, $status:ty, $description:expr $(, $rule:expr, $message:expr)*) => {
        impl JsonSchema for $kind {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($kind).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                crate::schema::structural::<$spec, $status>($description, &[$(($rule, $message)),*])
            }
        }

        impl $kind {
            /// What this kind is for, in a sentence or two.
            pub const DESCRIPTION: &'static str = $description;
        }
    };
}
pub(crate) use resource;

/// Exactly one of the fields must be given.
pub(crate) fn exactly_one(fields: &'static [&'static str]) -> impl FnMut(&mut Schema) {
    move |schema| {
        let message = format!("set exactly one of {}", fields.join(", "));
        let given: Vec<_> = fields.iter().map(|field| format!("has(self.{field})")).collect();
        push_rule(schema, &format!("[{}].exists_one(given, given)", given.join(", ")), &message);
        let branches: Vec<_> = fields.iter().map(|field| json!({"required": [field]})).collect();
        schema.insert("oneOf".to_owned(), branches.into());
        schema.insert(ERROR_MESSAGE.to_owned(), message.into());
    }
}

/// Where `field` is given, `other` must be given too.
pub(crate) fn requires(field: &'static str, other: &'static str) -> impl FnMut(&mut Schema) {
    move |schema| {
        let message = format!("{field} is only for use together with {other}");
        push_rule(schema, &format!("!has(self.{field}) || has(self.{other})"), &message);
        let dependencies =
            schema.ensure_object().entry("dependencies").or_insert_with(|| json!({}));
        if let Some(dependencies) = dependencies.as_object_mut() {
            dependencies.insert(field.to_owned(), json!([other]));
        }
    }
}

/// Two ways to give one thing, of which one is given at most.
pub(crate) fn one_of(file: &'static str, secret: &'static str) -> impl FnMut(&mut Schema) {
    move |schema| {
        let message = crate::credential::both(file, secret);
        push_rule(schema, &format!("!has(self.{file}) || !has(self.{secret})"), &message);
    }
}

/// A duration that may not be nothing.
pub(crate) fn positive(schema: &mut Schema) {
    push_rule(schema, "duration(self) > duration('0s')", "must be longer than 0s");
}

/// An amount of memory that the engine takes and a host can have.
pub(crate) fn plausible_memory(schema: &mut Schema) {
    let least = "quantity(self).compareTo(quantity('6Mi')) >= 0";
    push_rule(schema, least, "too little: the engine takes 6Mi or more");
    let most = "quantity(self).compareTo(quantity('1Pi')) <= 0";
    push_rule(schema, most, "more than any host has");
}

/// A path that means what it says.
pub(crate) fn plain_path(schema: &mut Schema) {
    let up = "!self.matches('(^|/)[.][.](/|$)')";
    push_rule(schema, up, "may not hold \"..\": write the path that is meant");
    push_rule(schema, "!self.matches('[[:cntrl:]]')", "may not hold control characters");
}

/// An image reference by the grammar of the engines.
pub(crate) fn image(schema: &mut Schema) {
    let rule = concat!(
        r"self.matches(r'^([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?",
        r"([.][a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*(:[0-9]+)?/)?",
        r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*",
        r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?",
        r"(@(sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}))?$')",
    );
    push_rule(schema, rule, "malformed: expected [REGISTRY/]REPOSITORY[:TAG][@DIGEST]");
}

/// An engine's address with all that it takes to reach it.
pub(crate) fn endpoint(schema: &mut Schema) {
    let port = "!self.startsWith('tcp://') || self.matches('^tcp://[^@]*:[0-9]+$')";
    push_rule(schema, port, "write tcp://host:port, without a user");
    let password = "!self.startsWith('ssh://') || !self.matches('^ssh://[^@]*:[^@]*@')";
    push_rule(schema, password, "the endpoint holds a password: let ssh log in with a key");
    let up = "!self.startsWith('unix://') || !self.matches('/[.][.](/|$)')";
    push_rule(schema, up, "may not hold \"..\": write the path that is meant");
}

/// The networks of a container: the engine reserves some names.
pub(crate) fn joinable(schema: &mut Schema) {
    let reserved = "self.all(n, !(n in ['host', 'none', 'default', 'ingress']))";
    push_rule(schema, reserved, "host, none, default and ingress cannot be joined");
    let alone = "!('bridge' in self) || size(self) == 1";
    push_rule(schema, alone, "the network bridge cannot be joined together with others");
}

/// Keys of a map: JSON Schema has `propertyNames` for it.
pub(crate) fn keys(pattern: &str, max: usize, message: &str) -> Value {
    json!([{
        "rule": format!("self.all(k, size(k) <= {max} && k.matches(r'{pattern}'))"),
        "message": message,
    }])
}

/// A CEL rule. JSON Schema cannot say it: `conflicts()` does.
pub(crate) fn rule(rule: &'static str, message: &'static str) -> impl FnMut(&mut Schema) {
    move |schema| push_rule(schema, rule, message)
}

fn push_rule(schema: &mut Schema, rule: &str, message: &str) {
    let rules = schema.ensure_object().entry(RULES).or_insert_with(|| json!([]));
    if let Some(rules) = rules.as_array_mut() {
        rules.push(json!({"rule": rule, "message": message}));
    }
}

/// A list whose entries are told apart by `name`: the API server refuses duplicates and merges
/// server-side applies by entry.
pub(crate) fn by_name(schema: &mut Schema) {
    schema.insert(LIST_TYPE.to_owned(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".to_owned(), json!(["name"]));
}

/// The servers of a managed Consul cluster: an even number tolerates no more failures than one less.
pub(crate) fn consul_servers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "integer",
        "enum": [1, 3, 5, 7],
        (ERROR_MESSAGE): "expected an odd number of servers: 1, 3, 5 or 7",
    })
}

/// A point in time, RFC 3339.
pub(crate) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// Conditions as in every Kubernetes API.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        (LIST_TYPE): "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When the status last changed.",
                },
                "message": {
                    "type": "string",
                    "maxLength": 32768,
                    "description": "What is the case, and what to do about it.",
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "description": "The metadata.generation that the condition is about.",
                },
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why, in one word for programs.",
                },
                "status": {
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                    "description": "Whether it is the case.",
                },
                "type": {
                    "type": "string",
                    "maxLength": 316,
                    "description": "`Ready`, `Reconciling` or `Stalled`.",
                },
            },
        },
    })
}

/// The schema of a custom resource: structural, as the API server demands.
pub(crate) fn structural<Spec: JsonSchema, Status: JsonSchema>(
    description: &str,
    rules: &[(&str, &str)],
) -> Schema {
    let mut spec = tree::<Spec>();
    let mut status = tree::<Status>();
    each_schema(&mut spec, &mut for_api_server);
    each_schema(&mut status, &mut for_api_server);
    let mut root = json_schema!({
        "type": "object",
        "description": description,
        "required": ["metadata", "spec"],
        "properties": {
            "metadata": {
                "type": "object",
                "properties": {"name": {
                    "type": "string",
                    "maxLength": crate::NAME_MAX,
                    "pattern": text::NAME_PATTERN,
                }},
            },
            "spec": spec,
            "status": status,
        },
    });
    for (rule, message) in rules {
        push_rule(&mut root, rule, message);
    }
    root
}

/// The schema of a whole document for editors and `evenkeel check`.
pub(crate) fn document<Spec: JsonSchema>(kind: &str, description: &str) -> Value {
    let mut spec = tree::<Spec>();
    let mut name = Value::from(text::name(&mut SchemaGenerator::default()));
    name["description"] = "The name, unique among the documents of its kind.".into();
    each_schema(&mut spec, &mut for_json_schema);
    let strings = |description: &str| {
        json!({
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": description,
        })
    };
    json!({
        "type": "object",
        "description": description,
        "additionalProperties": false,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {
                "const": crate::API_VERSION,
                "description": "The version of the API.",
            },
            "kind": {"const": kind, "description": "What the document describes."},
            "metadata": {
                "type": "object",
                "description": "What the document is called.",
                "additionalProperties": false,
                "required": ["name"],
                "properties": {
                    "name": name,
                    "namespace": {
                        "type": "string",
                        "maxLength": crate::NAME_MAX,
                        "pattern": text::NAME_PATTERN,
                        "description": "The Kubernetes namespace; without meaning in git.",
                    },
                    "labels": strings("Labels for people and tools; without meaning for evenkeel."),
                    "annotations":
                        strings("Annotations for people and tools; without meaning for evenkeel."),
                },
            },
            "spec": spec,
        },
    })
}

/// The tree that both lowerings begin with: no references, no null, no variants of strings.
fn tree<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut tree = Value::from(settings.into_generator().into_root_schema_for::<T>());
    each_schema(&mut tree, &mut tidy);
    tree
}

/// Calls `change` for every schema in the tree, the innermost first.
pub(crate) fn each_schema(schema: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    let Some(map) = schema.as_object_mut() else { return };
    for (keyword, value) in map.iter_mut() {
        match keyword.as_str() {
            "properties" => {
                for property in value.as_object_mut().into_iter().flat_map(Map::values_mut) {
                    each_schema(property, change);
                }
            }
            "items" | "additionalProperties" => each_schema(value, change),
            "anyOf" | "oneOf" => {
                for branch in value.as_array_mut().into_iter().flatten() {
                    each_schema(branch, change);
                }
            }
            _ => {}
        }
    }
    change(map);
}

/// An absent field is absent, never null: YAML's empty value is a slip that deserves a message.
fn tidy(schema: &mut Map<String, Value>) {
    schema.remove("title");
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = unwrapped(text);
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    // Rust's widths are told by minimum and maximum; the API server warns about formats that it
    // does not know.
    if let Some(format) = schema.get("format").and_then(Value::as_str)
        && !matches!(format, "int32" | "int64" | "date-time")
    {
        schema.remove("format");
    }
    if let Some(types) = schema.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(branches) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        branches.retain(|branch| branch != &json!({"type": "null"}));
        if let [Value::Object(only)] = branches.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (keyword, value) in only {
                schema.entry(keyword).or_insert(value);
            }
        }
    }
    tidy_variants(schema);
}

/// A comment's lines end where the editor's do; `kubectl explain` and an editor's hint wrap at their own. What stands apart
/// and what is in a list keeps its line.
fn unwrapped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = "";
    for line in text.lines().map(str::trim_end) {
        let apart = before.is_empty() || line.is_empty() || line.starts_with("- ");
        out.push_str(match (out.is_empty(), apart) {
            (true, _) => "",
            (false, true) => "\n",
            (false, false) => " ",
        });
        out.push_str(line);
        before = line;
    }
    out
}

/// `oneOf` constants, each with its description, becomes an `enum` that describes them all.
fn tidy_variants(schema: &mut Map<String, Value>) {
    let Some(branches) = schema.get("oneOf").and_then(Value::as_array) else { return };
    let variant = |branch: &Value| {
        Some((
            branch.get("const")?.as_str()?.to_owned(),
            branch.get("description")?.as_str()?.to_owned(),
        ))
    };
    let Some(variants) = branches.iter().map(variant).collect::<Option<Vec<_>>>() else { return };
    let lines: Vec<_> =
        variants.iter().map(|(name, meaning)| format!("- `{name}`: {meaning}")).collect();
    schema.remove("oneOf");
    schema.insert("type".to_owned(), "string".into());
    schema.insert("enum".to_owned(), variants.iter().map(|(name, _)| name.as_str()).collect());
    let description = schema.entry("description").or_insert_with(|| "".into());
    if let Some(text) = description.as_str() {
        *description = format!("{text}\n\n{}", lines.join("\n")).trim().into();
    }
}

fn for_api_server(schema: &mut Map<String, Value>) {
    for keyword in ONLY_JSON_SCHEMA {
        schema.remove(keyword);
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(false)) => {
            schema.remove("additionalProperties");
        }
        Some(Value::Bool(true)) => {
            schema.remove("additionalProperties");
            schema.insert(OPEN.to_owned(), true.into());
        }
        Some(_) | None => {}
    }
    if schema.get("type").is_some_and(Value::is_array) {
        schema.remove("type");
        schema.insert(INT_OR_STRING.to_owned(), true.into());
    }
}

fn for_json_schema(schema: &mut Map<String, Value>) {
    schema.remove(RULES);
    if schema.get(LIST_TYPE).is_some_and(|kind| kind == "set") {
        schema.remove(LIST_TYPE);
        schema.insert("uniqueItems".to_owned(), true.into());
    }
}
