//! From bytes to JSON of the schema's types: everything else is refused with all that is wrong, by path.
//!
//! A field that the schema does not know is ignored, as Marathon does; its path is kept, so that a test can tell.

mod shapes;

use serde_json::{Map, Value};

pub(super) use self::shapes::{APP, DELETE_TASKS, GROUP, GROUP_SETTINGS};
use super::refusal::Refusal;
use super::release::Release;
use super::stamp::Stamp;

/// An object's fields.
pub(super) type Fields = Map<String, Value>;

/// What a value must be.
pub(super) enum Kind {
    /// Text of at least so many characters, and of this form if there is one.
    Text(usize, Option<fn(&str) -> bool>),
    /// A whole number between these.
    Whole(i64, i64),
    /// A number between these.
    Real(f64, f64),
    /// True or false.
    Truth,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A moment.
    Moment,
    /// In this order.
    List(&'static Kind),
    /// In no order, and each once.
    Set(&'static Kind),
    /// Any names with such values.
    Dict(&'static Kind),
    /// Only these fields count.
    Object(&'static [Field]),
    /// What is not looked into.
    Anything,
    /// Which kind it is depends on the value.
    Choice(fn(&Value) -> &'static Kind),
}

/// What is there when a client says nothing.
pub(super) enum Absent {
    /// A refusal.
    Refused,
    /// Nothing.
    Stays,
    /// This number.
    Number(f64),
    /// This word.
    Text(&'static str),
    /// No.
    No,
    /// Yes.
    Yes,
    /// An object without fields.
    Nothing,
    /// An empty list.
    Empty,
}

/// A field of an object.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) absent: Absent,
    /// The line 1.x that it came with.
    pub(super) since: u32,
}

/// What was read from a body.
pub(super) struct Read {
    release: Release,
    wrong: Vec<(String, String)>,
    /// Paths that mean nothing to the server.
    pub(super) ignored: Vec<String>,
}

/// JSON, whatever it says.
pub(super) fn json(body: &[u8]) -> Result<Value, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Refusal::empty());
    }
    serde_json::from_slice(body).map_err(|error| Refusal::syntax(&error.to_string()))
}

impl Read {
    pub(super) fn new(release: Release) -> Self {
        Self { release, wrong: Vec::new(), ignored: Vec::new() }
    }

    /// One object; `whole` fills in what is absent, a part does not.
    pub(super) fn object(
        &mut self,
        value: &Value,
        fields: &'static [Field],
        whole: bool,
    ) -> Fields {
        self.fields(value, fields, "", whole)
    }

    /// A list of objects.
    pub(super) fn objects(
        &mut self,
        value: &Value,
        fields: &'static [Field],
        whole: bool,
    ) -> Vec<Fields> {
        let Value::Array(items) = value else {
            self.wrong("", "error.expected.jsarray");
            return Vec::new();
        };
        let each = items.iter().enumerate();
        each.map(|(at, item)| self.fields(item, fields, &format!("({at})"), whole)).collect()
    }

    /// Refuses if anything was wrong.
    pub(super) fn done(&mut self) -> Result<(), Refusal> {
        if self.wrong.is_empty() {
            return Ok(());
        }
        Err(Refusal::types(self.release, std::mem::take(&mut self.wrong)))
    }

    fn wrong(&mut self, path: &str, error: &str) {
        self.wrong.push((path.to_owned(), error.to_owned()));
    }

    fn fields(
        &mut self,
        value: &Value,
        known: &'static [Field],
        path: &str,
        whole: bool,
    ) -> Fields {
        let mut read = Fields::new();
        let Value::Object(given) = value else {
            self.wrong(path, "error.expected.jsobject");
            return read;
        };
        let known = || known.iter().filter(|field| self.release.has(field.since));
        let strange = given.keys().filter(|name| !known().any(|field| field.name == **name));
        let strange: Vec<String> = strange.map(|name| format!("{path}/{name}")).collect();
        let known: Vec<&'static Field> = known().collect();
        self.ignored.extend(strange);
        for field in known {
            let at = format!("{path}/{}", field.name);
            let found = match given.get(field.name) {
                None | Some(Value::Null) if whole => self.absent(&field.absent, &at),
                None | Some(Value::Null) => None,
                Some(value) => self.value(value, &field.kind, &at),
            };
            if let Some(found) = found {
                read.insert(field.name.to_owned(), found);
            }
        }
        read
    }

    fn absent(&mut self, absent: &Absent, path: &str) -> Option<Value> {
        match absent {
            Absent::Refused => {
                self.wrong(path, "error.path.missing");
                None
            }
            Absent::Stays => None,
            Absent::Number(number) => Some(tidy(*number)),
            Absent::Text(text) => Some((*text).into()),
            Absent::No => Some(false.into()),
            Absent::Yes => Some(true.into()),
            Absent::Nothing => Some(Value::Object(Fields::new())),
            Absent::Empty => Some(Value::Array(Vec::new())),
        }
    }

    fn value(&mut self, value: &Value, kind: &'static Kind, path: &str) -> Option<Value> {
        let error = match (kind, value) {
            (Kind::Text(least, form), Value::String(text)) => match form {
                _ if text.chars().count() < *least => "error.minLength",
                Some(form) if !form(text) => "error.pattern",
                _ => return Some(value.clone()),
            },
            (Kind::Word(words), Value::String(text)) => {
                if words.contains(&text.as_str()) {
                    return Some(value.clone());
                }
                "error.unknown.enum.literal"
            }
            (Kind::Moment, Value::String(text)) => match Stamp::parse(text) {
                Some(at) => return Some(at.json()),
                None => "error.expected.date.isoformat",
            },
            (Kind::Whole(least, most), Value::Number(number)) => match whole(number) {
                None => "error.expected.int",
                Some(number) if number < *least => "error.min",
                Some(number) if number > *most => "error.max",
                Some(number) => return Some(number.into()),
            },
            (Kind::Real(least, most), Value::Number(number)) => {
                let number = number.as_f64().unwrap_or(f64::INFINITY);
                if number < *least {
                    "error.min"
                } else if number > *most {
                    "error.max"
                } else {
                    return Some(tidy(number));
                }
            }
            (Kind::Truth, Value::Bool(_)) => return Some(value.clone()),
            (Kind::List(each), Value::Array(items)) => {
                return Some(Value::Array(self.items(items, each, path)));
            }
            (Kind::Set(each), Value::Array(items)) => {
                let mut read = self.items(items, each, path);
                sort(&mut read);
                return Some(Value::Array(read));
            }
            (Kind::Dict(kind), Value::Object(given)) => {
                let read = given.iter().filter_map(|(name, value)| {
                    Some((name.clone(), self.value(value, kind, &format!("{path}/{name}"))?))
                });
                return Some(Value::Object(read.collect()));
            }
            (Kind::Object(fields), Value::Object(_)) => {
                return Some(Value::Object(self.fields(value, fields, path, true)));
            }
            (Kind::Anything, value) => return Some(value.clone()),
            (Kind::Choice(choose), value) => return self.value(value, choose(value), path),
            (Kind::Text(..) | Kind::Word(_) | Kind::Moment, _) => "error.expected.jsstring",
            (Kind::Whole(..) | Kind::Real(..), _) => "error.expected.jsnumber",
            (Kind::Truth, _) => "error.expected.jsboolean",
            (Kind::List(_) | Kind::Set(_), _) => "error.expected.jsarray",
            (Kind::Dict(_) | Kind::Object(_), _) => "error.expected.jsobject",
        };
        self.wrong(path, error);
        None
    }
}

impl Read {
    fn items(&mut self, items: &[Value], kind: &'static Kind, path: &str) -> Vec<Value> {
        let each = items.iter().enumerate();
        each.filter_map(|(at, item)| self.value(item, kind, &format!("{path}({at})"))).collect()
    }
}

/// A set in an order that only depends on what is in it.
pub(super) fn sort(set: &mut Vec<Value>) {
    set.sort_by_cached_key(Value::to_string);
    set.dedup();
}

/// A number without `.0`, so that numbers that are equal look alike.
pub(super) fn tidy(number: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "only what is whole and small is cast")]
    if number.fract() == 0.0 && number.abs() < 9e15 {
        return (number as i64).into();
    }
    number.into()
}

/// `2` and `2.0`, but not `2.5`.
fn whole(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| tidy(number.as_f64()?).as_i64())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn app(value: &Value, release: Release) -> (Result<(), Refusal>, Fields, Vec<String>) {
        let mut read = Read::new(release);
        let fields = read.object(value, APP, true);
        (read.done(), fields, read.ignored)
    }

    #[test]
    fn every_wrong_type_is_told_by_its_path() {
        let wrong = json!({
            "id": 7, "instances": 1.5, "cpus": "1", "env": {"A": 1}, "ports": [-1],
            "container": {"docker": {}, "volumes": [{"containerPath": "/a", "hostPath": "/b"}]},
            "healthChecks": [{"protocol": "FTP"}], "labels": [], "requirePorts": "yes",
            "upgradeStrategy": {"minimumHealthCapacity": 2, "maximumOverCapacity": 0},
        });
        let refusal = app(&wrong, Release::V1_11).0.unwrap_err();
        assert_eq!(refusal.status, 422);
        assert_eq!(refusal.body["message"], "Invalid JSON");
        let of = |path: &str| {
            let all = refusal.body["details"].as_array().unwrap();
            all.iter()
                .find(|d| d["path"] == path)
                .map(|d| d["errors"][0].as_str().unwrap().to_owned())
        };
        for (path, error) in [
            ("/id", "error.expected.jsstring"),
            ("/instances", "error.expected.int"),
            ("/cpus", "error.expected.jsnumber"),
            ("/env/A", "error.expected.jsstring"),
            ("/ports(0)", "error.min"),
            ("/container/docker/image", "error.path.missing"),
            ("/container/volumes(0)/mode", "error.path.missing"),
            ("/healthChecks(0)/protocol", "error.unknown.enum.literal"),
            ("/labels", "error.expected.jsobject"),
            ("/requirePorts", "error.expected.jsboolean"),
            ("/upgradeStrategy/minimumHealthCapacity", "error.max"),
        ] {
            assert_eq!(of(path).as_deref(), Some(error), "{path} in {}", refusal.body);
        }
        assert_eq!(app(&wrong, Release::V1_4).0.unwrap_err().status, 400);
    }

    #[test]
    fn a_field_of_a_later_release_is_ignored_and_told() {
        let new = json!({
            "id": "/a", "cmd": "run", "networks": [{"mode": "container/bridge"}], "role": "x",
            "container": {"docker": {"image": "i"}, "portMappings": []}, "nonsense": 1,
        });
        let (_, fields, ignored) = app(&new, Release::V1_4);
        assert_eq!(ignored, ["/networks", "/nonsense", "/role", "/container/portMappings"]);
        assert!(!fields.contains_key("networks"));
        assert_eq!(app(&new, Release::V1_11).2, ["/nonsense"]);
    }

    #[test]
    fn null_says_nothing_and_what_is_absent_is_filled_in() {
        let (done, fields, _) = app(&json!({"id": "/a", "cmd": null, "mem": null}), Release::V1_11);
        assert_eq!(done, Ok(()));
        assert_eq!((fields.get("cmd"), &fields["mem"]), (None, &json!(128)));
        let mut read = Read::new(Release::V1_11);
        assert_eq!(
            Value::Object(read.object(&json!({"cpus": 2.0}), APP, false)),
            json!({"cpus": 2})
        );
    }

    #[test]
    fn what_is_no_json_is_told_in_words() {
        assert!(json(b"{").unwrap_err().body["details"].is_string());
        assert_eq!(json(b" ").unwrap_err().body["message"], "Please specify data in JSON format");
    }
}
