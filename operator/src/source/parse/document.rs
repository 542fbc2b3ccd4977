//! One document: whose it is, what is wrong with it, and what it means on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evenkeel_crds::{API_VERSION, FleetSpec, GROUP, LoadBalancerSpec, ScalingServiceSpec, VERSION};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

use super::lower::{self, Lowering};
use super::node::{Flaw, Node, Pos, meant, nearest, quoted, shown};
use super::yaml::Doc;
use super::{Context, schema};
use crate::model::{Balancer, Fleet, FleetName, Secret, Service, ServiceName};

/// The kinds of our group.
pub(super) const KINDS: [&str; 3] = ["Fleet", "LoadBalancer", "ScalingService"];
/// Problems told for one document; more than that is noise.
const MAX_FLAWS: usize = 100;

/// What an object is called: its kind and its name, both valid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) kind: &'static str,
    pub(super) name: String,
}

impl Id {
    /// From `Kind/name`, as [`super::Applied`] keeps it.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        let kind = KINDS.into_iter().find(|k| *k == kind)?;
        ServiceName::new(name).ok()?;
        Some(Self { kind, name: name.to_owned() })
    }

    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// What a good document means.
#[derive(Debug, Clone)]
pub(super) enum Meaning {
    Fleet(Arc<Fleet>),
    Service(Arc<Service>),
    Balancer(Arc<Balancer>),
}

/// A good document: what it means, and its text for [`super::Applied`].
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) meaning: Meaning,
    pub(super) text: Arc<str>,
}

/// A document that defines an object, well or not.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) id: Id,
    pub(super) path: Arc<str>,
    /// Which document of the file it is.
    pub(super) index: usize,
    /// Where its name stands.
    pub(super) pos: Pos,
    /// `None` when something is wrong with it.
    pub(super) ready: Option<Ready>,
    /// What of it an object of an API may not ask for.
    pub(super) trespass: Option<Flaw>,
    /// It is being deleted.
    pub(super) leaving: bool,
}

/// What nobody may ask for who only has a cluster's leave to write objects: it is done on the agent's own machine.
fn trespass(id: &Id, root: &Node, ready: Option<&Ready>) -> Option<Flaw> {
    if id.kind == "Fleet" {
        return super::credential::files(root);
    }
    let Some(Ready { meaning: Meaning::Balancer(balancer), .. }) = ready else {
        return None;
    };
    let message = "spec.provider: a balancer that runs already is told by files and commands on the agent's own \
                   machine, which no custom resource can ask for";
    let flaw = Flaw::new(root.locate("spec.provider"), message);
    (!balancer.external.is_empty())
        .then(|| flaw.hint("write this LoadBalancer in the git repository, beside --kubernetes"))
}

/// What became of a document.
#[derive(Debug)]
pub(super) enum Sorted {
    Empty,
    /// Of another API group.
    Foreign,
    Object(Box<Object>),
    /// What it defines cannot be told: it may be anything that this file defined before.
    Lost,
}

/// Sorts a document and judges it. Beside it what is wrong, which is of the object where that is known.
pub(super) fn sort(
    mut doc: Doc,
    path: &Arc<str>,
    index: usize,
    ctx: &Context<'_>,
) -> (Sorted, Vec<Flaw>) {
    let (mut flaws, complete) = (std::mem::take(&mut doc.flaws), doc.complete);
    let root = doc.into_root();
    let header = if complete { header(&root) } else { Header::Broken };
    let id = identity(&root);
    let mut ready = None;
    match header {
        Header::Empty if flaws.is_empty() => return (Sorted::Empty, flaws),
        Header::Foreign => return (Sorted::Foreign, Vec::new()),
        Header::Wrong(flaw) => flaws.push(flaw),
        Header::Empty | Header::Broken => {}
        Header::Ours => ready = judge(id.as_ref(), &root, ctx, None, &mut flaws),
    }
    let more = flaws.len().saturating_sub(MAX_FLAWS);
    flaws.sort_by(|a, b| (a.pos, &a.message).cmp(&(b.pos, &b.message)));
    flaws.truncate(MAX_FLAWS);
    if more > 0 {
        flaws.push(Flaw::new(root.pos, format!("and {more} more problems in this document")));
    }
    let sorted = match id {
        None => Sorted::Lost,
        Some(id) => {
            let pos = root.locate("metadata.name");
            let trespass = trespass(&id, &root, ready.as_ref());
            let path = Arc::clone(path);
            Sorted::Object(Box::new(Object {
                id,
                path,
                index,
                pos,
                ready,
                trespass,
                leaving: false,
            }))
        }
    };
    (sorted, flaws)
}

/// A slip in the group must not make a document disappear.
fn is_slip(version: &str) -> bool {
    let group = version.split('/').next().unwrap_or_default();
    nearest(group, [GROUP]).is_some() || group.starts_with("evenkeel")
}

enum Header {
    Empty,
    Ours,
    Foreign,
    Wrong(Flaw),
    /// Not read to its end, so that nothing can be said of what is missing.
    Broken,
}

fn header(root: &Node) -> Header {
    use super::node::Value;
    match &root.value {
        Value::Null => return Header::Empty,
        Value::Map(_) => {}
        Value::List(_) => {
            let flaw =
                Flaw::new(root.pos, "expected a document with apiVersion and kind, found a list");
            return Header::Wrong(flaw.hint("separate documents by a line that holds ---"));
        }
        Value::Bool(..) | Value::Number(..) | Value::Text(_) => {
            let message =
                format!("expected a document with apiVersion and kind, found {}", root.describe());
            return Header::Wrong(Flaw::new(root.pos, message));
        }
    }
    let field = |name: &str| root.get(name).map(|n| (n, n.text().unwrap_or_default()));
    let (version, kind) = match (field("apiVersion"), field("kind")) {
        (Some((version, v)), Some((kind, k))) => {
            for (node, text, name) in [(version, v, "apiVersion"), (kind, k, "kind")] {
                if text.is_empty() {
                    let message = format!("{name}: expected text, found {}", node.describe());
                    return Header::Wrong(Flaw::new(node.pos, message));
                }
            }
            ((version, v), (kind, k))
        }
        (None, _) => {
            let flaw = Flaw::new(root.pos, "apiVersion is missing");
            return Header::Wrong(flaw.hint(format!("write apiVersion: {API_VERSION}")));
        }
        (_, None) => {
            let flaw = Flaw::new(root.pos, "kind is missing");
            return Header::Wrong(flaw.hint(format!("known kinds: {}", KINDS.join(", "))));
        }
    };
    let ((version, text), (kind, kind_text)) = (version, kind);
    let (group, number) = text.split_once('/').unwrap_or(("", text));
    if group != GROUP {
        if is_slip(text) {
            let flaw =
                Flaw::new(version.pos, format!("the apiVersion {} is unknown", quoted(text)));
            return Header::Wrong(flaw.hint(format!("did you mean \"{API_VERSION}\"?")));
        }
        let ours = |item: &Node| {
            item.get("apiVersion").and_then(Node::text).is_some_and(|v| v.starts_with(GROUP))
        };
        if kind_text.ends_with("List")
            && root.get("items").is_some_and(|i| i.items().iter().any(ours))
        {
            let flaw = Flaw::new(kind.pos, "a list of documents is not read");
            return Header::Wrong(
                flaw.hint("write each item as a document of its own, separated by ---"),
            );
        }
        return Header::Foreign;
    }
    if number != VERSION {
        let message = format!("the version {} of {GROUP} is unknown", quoted(number));
        let flaw = Flaw::new(version.pos, message);
        return Header::Wrong(flaw.hint(format!("write apiVersion: {API_VERSION}")));
    }
    if !KINDS.contains(&kind_text) {
        let flaw = Flaw::new(kind.pos, format!("the kind {} is unknown", quoted(kind_text)));
        return Header::Wrong(flaw.hint(meant(kind_text, "kinds", KINDS)));
    }
    Header::Ours
}

/// What the document defines, where that can be told, however wrong the rest of it is.
fn identity(root: &Node) -> Option<Id> {
    let version = root.get("apiVersion").map(|v| v.text().unwrap_or_default());
    if version.is_some_and(|v| !v.starts_with(GROUP) && !is_slip(v)) {
        return None;
    }
    let kind = root.get("kind")?.text()?;
    let name = root.get("metadata")?.get("name")?.text()?;
    Id::read(&format!("{kind}/{name}"))
}

/// Certificates in force, by their file names.
type Certificates = BTreeMap<String, Secret>;

/// Everything that is wrong with a document of ours, and what it means when that is nothing.
fn judge(
    id: Option<&Id>,
    root: &Node,
    ctx: &Context<'_>,
    kept: Option<&Certificates>,
    flaws: &mut Vec<Flaw>,
) -> Option<Ready> {
    let kind = root.get("kind").and_then(Node::text).unwrap_or_default();
    let mut found = schema::Findings::default();
    match schema::of(kind) {
        Ok(schema) => schema.judge(root, &mut found),
        Err(why) => flaws.push(Flaw::new(root.pos, format!("cannot be judged: {why}"))),
    }
    let unknown = found.unknown;
    // A value that is wrong as YAML already is not judged as well.
    let already: BTreeSet<Pos> = flaws.iter().map(|f| f.pos).collect();
    flaws.extend(found.flaws.into_iter().filter(|f| !already.contains(&f.pos)));
    let approved = lower::annotations(kind, root, flaws);
    let told: BTreeSet<Pos> = flaws.iter().map(|f| f.pos).collect();

    // Without what is wrong the rest can be judged further, so that all problems are told at once.
    let wrong = Wrong { unknown: &unknown, told: &told };
    let mut later = Vec::new();
    // A document whose name is wrong is judged like any other, and comes to nothing.
    let unnamed = || Some(Id { kind: KINDS.into_iter().find(|k| *k == kind)?, name: "x".into() });
    let id = &id.cloned().or_else(unnamed)?;
    let ready = match id.kind {
        "Fleet" => fleet(id, root, &wrong, approved, ctx, &mut later),
        "ScalingService" => service(id, root, &wrong, ctx, &mut later),
        "LoadBalancer" => balancer(id, root, &wrong, (ctx, kept), &mut later),
        _ => None,
    };
    // What the schema has told of a place is not told twice; and where the schema has told
    // something, that the types cannot be filled is no news.
    later.retain(|flaw| !told.contains(&flaw.flaw.pos) && (told.is_empty() || !flaw.types));
    flaws.extend(later.into_iter().map(|l| l.flaw));
    ready.filter(|_| flaws.is_empty())
}

/// What the schema found: the keys of unknown fields, and every place that it told of.
struct Wrong<'a> {
    unknown: &'a BTreeSet<Pos>,
    told: &'a BTreeSet<Pos>,
}

/// A flaw found behind the schema.
struct Later {
    flaw: Flaw,
    /// Whether it is that the types cannot be filled.
    types: bool,
}

fn typed<T: DeserializeOwned>(root: &Node, wrong: &Wrong<'_>, later: &mut Vec<Later>) -> Option<T> {
    let spec = root.get("spec")?;
    match serde_path_to_error::deserialize(spec.to_json(wrong.unknown, wrong.told)) {
        Ok(typed) => Some(typed),
        Err(e) => {
            let pos = spec.locate(&e.path().to_string());
            let message = format!("spec.{}: {}", e.path(), shown(&e.inner().to_string()));
            later.push(Later { flaw: Flaw::new(pos, message), types: true });
            None
        }
    }
}

fn keep(flaws: impl IntoIterator<Item = Flaw>, later: &mut Vec<Later>) {
    later.extend(flaws.into_iter().map(|flaw| Later { flaw, types: false }));
}

fn conflicts(root: &Node, found: Vec<evenkeel_crds::Conflict>, later: &mut Vec<Later>) {
    keep(
        found.into_iter().map(|c| {
            let message = format!("{}: {}", c.path, c.message);
            Flaw::new(root.locate(&c.path), message)
        }),
        later,
    );
}

fn service(
    id: &Id,
    root: &Node,
    wrong: &Wrong<'_>,
    ctx: &Context<'_>,
    later: &mut Vec<Later>,
) -> Option<Ready> {
    let spec: ScalingServiceSpec = typed(root, wrong, later)?;
    conflicts(root, spec.conflicts(), later);
    let text: Arc<str> = stored(id, &json!(spec), None).into();
    let mut lowering = Lowering::of(root, ctx);
    let name = ServiceName::new(&id.name).ok()?;
    let service = lowering.service(name, spec, Arc::clone(&text));
    keep(lowering.flaws, later);
    Some(Ready { meaning: Meaning::Service(Arc::new(service?)), text })
}

fn balancer(
    id: &Id,
    root: &Node,
    wrong: &Wrong<'_>,
    (ctx, kept): (&Context<'_>, Option<&Certificates>),
    later: &mut Vec<Later>,
) -> Option<Ready> {
    let spec: LoadBalancerSpec = typed(root, wrong, later)?;
    conflicts(root, spec.conflicts(), later);
    let text: Arc<str> = stored(id, &json!(spec), None).into();
    let mut lowering = Lowering::of(root, ctx);
    lowering.kept = kept;
    let name = ServiceName::new(&id.name).ok()?;
    let balancer = lowering.balancer(name, spec, Arc::clone(&text));
    keep(lowering.flaws, later);
    Some(Ready { meaning: Meaning::Balancer(Arc::new(balancer?)), text })
}

fn fleet(
    id: &Id,
    root: &Node,
    wrong: &Wrong<'_>,
    approved: Option<String>,
    ctx: &Context<'_>,
    later: &mut Vec<Later>,
) -> Option<Ready> {
    let spec: FleetSpec = typed(root, wrong, later)?;
    conflicts(root, spec.conflicts(), later);
    let text: Arc<str> = stored(id, &json!(spec), approved.as_deref()).into();
    let mut lowering = Lowering::of(root, ctx);
    let fleet = lowering.fleet(FleetName::new(&id.name).ok()?, spec, approved);
    keep(lowering.flaws, later);
    Some(Ready { meaning: Meaning::Fleet(Arc::new(fleet)), text })
}

/// The document as it is kept: what it means and nothing else, defaults written out, so that a
/// later version with other defaults reads what was meant then. Secrets are in it as references.
fn stored(id: &Id, spec: &Json, approved: Option<&str>) -> String {
    let mut metadata = Map::new();
    metadata.insert("name".into(), id.name.as_str().into());
    if let Some(code) = approved {
        metadata.insert("annotations".into(), json!({ lower::APPROVE_PRUNE: code }));
    }
    let document =
        json!({"apiVersion": API_VERSION, "kind": id.kind, "metadata": metadata, "spec": spec});
    let mut out = String::new();
    canonical(&document, &mut out);
    out
}

/// JSON with sorted keys and no spaces, whatever order the map type keeps.
fn canonical(value: &Json, out: &mut String) {
    match value {
        Json::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Json::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
            }
            out.push('}');
        }
        Json::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            out.push_str(&value.to_string());
        }
    }
}

/// Reads a stored document again, by the same rules as a new one.
pub(super) fn restore(text: &str, ctx: &Context<'_>) -> Result<(Id, Ready), Vec<Flaw>> {
    let fail = |message: String| vec![Flaw::new(Pos::default(), message)];
    let json: Json = serde_json::from_str(text).map_err(|e| fail(format!("not JSON: {e}")))?;
    let root = Node::from_json(json);
    let id = identity(&root).ok_or_else(|| fail("it does not say what it defines".into()))?;
    if let Header::Wrong(flaw) = header(&root) {
        return Err(vec![flaw]);
    }
    let mut flaws = Vec::new();
    match judge(Some(&id), &root, ctx, Some(&ctx.previous.certificates), &mut flaws) {
        Some(ready) => Ok((id, ready)),
        None => Err(flaws),
    }
}
