//! What is in force: good documents as they are, the last good document of every broken one, and
//! the rules that span documents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evenkeel_crds::DEFAULT_FLEET;

use super::applied::{Applied, Document};
use super::document::{Id, Meaning, Object, Ready, restore};
use super::file::Places;
use super::node::{Flaw, Pos};
use super::secret::Of;
use super::{Context, form, implied, leave, lower, problem, routes};
use crate::model::{
    Balancer, BalancerKind, Endpoint, Fleet, FleetName, Problem, Removal, Routing, Service,
    ServiceName,
};
use crate::source::Objects as ApiObjects;

mod clash;
mod fit;

/// An object of this revision or of the one before.
struct Entry {
    /// The document of this revision; the first, where there are several.
    object: Option<Object>,
    /// What is in force, if anything.
    ready: Option<Ready>,
    /// Whether the newest document, if there is one, is not what is in force.
    held: bool,
    /// Its object is being deleted: nothing of it is wanted any more.
    leaving: bool,
}

pub(super) struct Force<'a> {
    ctx: &'a Context<'a>,
    api: Option<&'a ApiObjects>,
    places: Places<'a>,
    entries: BTreeMap<Id, Entry>,
    pub(super) problems: Vec<Problem>,
}

/// What came of it.
pub(super) struct InForce {
    pub(super) fleets: BTreeMap<FleetName, Arc<Fleet>>,
    pub(super) services: BTreeMap<ServiceName, Arc<Service>>,
    pub(super) routings: BTreeMap<ServiceName, Arc<Routing>>,
    pub(super) held: BTreeSet<ServiceName>,
    pub(super) problems: Vec<Problem>,
    pub(super) objects: BTreeMap<String, Document>,
    pub(super) routes: BTreeMap<String, String>,
    pub(super) removal: Removal,
    pub(super) gone: BTreeSet<String>,
}

impl<'a> Force<'a> {
    /// Puts objects in their places; of two with one name neither counts.
    pub(super) fn new(
        (ctx, api): (&'a Context<'a>, Option<&'a ApiObjects>),
        places: Places<'a>,
        objects: Vec<Object>,
        problems: Vec<Problem>,
    ) -> Self {
        let mut force = Self { ctx, api, places, entries: BTreeMap::new(), problems };
        let mut by_id: BTreeMap<Id, Vec<Object>> = BTreeMap::new();
        for object in objects {
            by_id.entry(object.id.clone()).or_default().push(object);
        }
        for (id, mut objects) in by_id {
            // One that is being deleted leaves what runs to another of its name.
            let leaving = objects.iter().all(|o| o.leaving);
            objects.retain(|o| o.leaving == leaving);
            let others = objects.split_off(1);
            let Some(mut first) = objects.pop() else { continue };
            if leaving {
                let ready = first.ready.take().or_else(|| force.last_good(&id)).map(leave::emptied);
                let entry = Entry { object: Some(first), ready, held: false, leaving };
                force.entries.insert(id, entry);
                continue;
            }
            for other in &others {
                let hint = "rename or remove one; until then neither counts";
                let message =
                    format!("defined a second time: first at {}", place(&first.path, first.pos));
                let flaw = Flaw::new(other.pos, message).hint(hint);
                force.problems.push(problem(&other.path, Some(&id), flaw));
                let message = format!("defined again at {}", place(&other.path, other.pos));
                let flaw = Flaw::new(first.pos, message).hint(hint);
                force.problems.push(problem(&first.path, Some(&id), flaw));
            }
            let ready = first.ready.take().filter(|_| others.is_empty());
            let held = ready.is_none();
            let ready = if held { force.last_good(&id) } else { ready };
            force.entries.insert(id, Entry { object: Some(first), ready, held, leaving });
        }
        force
    }

    /// Keeps what an earlier revision had in a file that cannot be read now.
    pub(super) fn keep_lost(&mut self, is_lost: impl Fn(&str) -> bool) {
        for (key, document) in &self.ctx.previous.objects {
            let Some(id) = Id::read(key) else { continue };
            if is_lost(&document.path) && !self.entries.contains_key(&id) {
                let ready = self.last_good(&id);
                self.entries.insert(id, Entry::absent(ready));
            }
        }
    }

    fn last_good(&self, id: &Id) -> Option<Ready> {
        let document = self.ctx.previous.objects.get(&id.key())?;
        let secrets = Of { secrets: self.ctx.secrets, path: &document.path };
        let ctx = Context { secrets: &secrets, ..*self.ctx };
        let (stored, ready) = restore(&document.document, &ctx).ok()?;
        (stored == *id).then_some(ready)
    }

    /// Whether the last parse had a document of it in force.
    fn was_defined(&self, id: &Id) -> bool {
        self.ctx.previous.objects.contains_key(&id.key())
    }

    fn tell(&mut self, id: &Id, path: &str, message: String, hint: Option<String>) {
        let Some(object) = self.entries.get(id).and_then(|e| e.object.as_ref()) else { return };
        let flaw = Flaw { pos: self.places.locate(object, path), message, hint };
        self.problems.push(problem(&object.path, Some(id), flaw));
    }

    fn hold(&mut self, id: &Id) {
        let ready = self.last_good(id);
        if let Some(entry) = self.entries.get_mut(id).filter(|e| !e.leaving) {
            entry.held = true;
            entry.ready = ready;
        }
    }

    /// The services in force or about to be, balancers too, with whether they are held.
    fn services(&self) -> Vec<(Id, Arc<Service>, bool)> {
        let of = |(id, entry): (&Id, &Entry)| match &entry.ready.as_ref()?.meaning {
            Meaning::Service(service) => Some((id.clone(), Arc::clone(service), entry.held)),
            Meaning::Balancer(b) => Some((id.clone(), Arc::clone(&b.service), entry.held)),
            Meaning::Fleet(_) => None,
        };
        self.entries.iter().filter_map(of).collect()
    }

    fn fleet(&self, name: &FleetName) -> Option<Arc<Fleet>> {
        match &self.entries.get(&fleet_id(name))?.ready.as_ref()?.meaning {
            Meaning::Fleet(fleet) => Some(Arc::clone(fleet)),
            Meaning::Service(_) | Meaning::Balancer(_) => None,
        }
    }

    /// Containers are named after services and balancers alike: of two with one name neither counts.
    fn part_names(&mut self) {
        let names: Vec<String> = self
            .entries
            .keys()
            .filter(|id| id.kind == "LoadBalancer")
            .filter(|id| {
                self.entries.contains_key(&Id { kind: "ScalingService", name: id.name.clone() })
            })
            .map(|id| id.name.clone())
            .collect();
        for name in names {
            for (kind, other) in
                [("LoadBalancer", "ScalingService"), ("ScalingService", "LoadBalancer")]
            {
                let id = Id { kind, name: name.clone() };
                let message = format!("metadata.name: {name} is also the name of a {other}");
                let hint = "rename one of them: containers are named after both";
                self.tell(&id, "metadata.name", message, Some(hint.into()));
                self.hold(&id);
            }
        }
    }

    /// A file or a socket of a balancer that runs already belongs to one document: of two that name it neither counts.
    fn part_external(&mut self) {
        let mut all: BTreeMap<String, Vec<(Id, String)>> = BTreeMap::new();
        for (id, entry) in &self.entries {
            let Some(Meaning::Balancer(balancer)) = entry.ready.as_ref().map(|r| &r.meaning) else {
                continue;
            };
            let (kind, asked) = match balancer.kind {
                BalancerKind::Haproxy => ("haproxy", "runtimeSocket"),
                BalancerKind::Nginx => ("nginx", "status"),
            };
            for (index, external) in balancer.external.iter().enumerate() {
                let at =
                    |field| (id.clone(), format!("spec.provider.{kind}.external[{index}].{field}"));
                all.entry(external.asked.to_string()).or_default().push(at(asked));
                let file = external.file.as_ref().map(|file| file.path.clone());
                all.entry(file.unwrap_or_default()).or_default().push(at("configFile"));
            }
        }
        all.remove("");
        for (what, users) in all {
            let ids: BTreeSet<&Id> = users.iter().map(|(id, _)| id).collect();
            for (id, path) in users.iter().filter(|_| ids.len() > 1) {
                let others: Vec<&str> =
                    ids.iter().filter(|o| **o != id).map(|o| o.name.as_str()).collect();
                let message = format!("{path}: {what} is also that of {}", others.join(", "));
                let hint = "one document says all that a balancer does: put the listeners into one";
                let new = self.entries.get(id).is_some_and(|e| !e.held);
                if new {
                    self.tell(id, path, message, Some(hint.into()));
                }
            }
            for id in ids.iter().filter(|_| ids.len() > 1) {
                self.hold(id);
            }
        }
    }

    /// Applies the rules that span documents.
    pub(super) fn settle(mut self) -> InForce {
        self.part_names();
        self.part_external();
        let default = self.default_fleet();
        for (id, service, held) in self.services() {
            let leaving = self.entries.get(&id).is_some_and(|e| e.leaving);
            if !held && !leaving && !self.fits(&id, &service, default.as_ref()) {
                self.hold(&id);
            }
        }
        // A fleet whose document is gone while services still run on it is not gone.
        for (_, service, _) in self.services() {
            for name in service.fleets() {
                let id = fleet_id(name);
                let implied = name.as_str() == DEFAULT_FLEET && !self.was_defined(&id);
                if !implied && !self.entries.contains_key(&id) {
                    let ready = self.last_good(&id);
                    self.entries.insert(id, Entry::absent(ready));
                }
            }
        }
        // Of an emptied source the fleets stay: nothing is removed on the strength of it, and somebody
        // must be able to say so.
        let emptied = self.services().is_empty();
        if emptied {
            let is_fleet = |key: &&String| key.starts_with("Fleet/");
            let known: Vec<String> =
                self.ctx.previous.objects.keys().filter(is_fleet).cloned().collect();
            for key in known {
                let Some(name) = key.strip_prefix("Fleet/") else { continue };
                let Ok(name) = FleetName::new(name) else { continue };
                let id = fleet_id(&name);
                if !self.entries.contains_key(&id) {
                    let ready = self.last_good(&id);
                    self.entries.insert(id, Entry::absent(ready));
                }
            }
        }
        let mut fleets = BTreeMap::new();
        if emptied && self.entries.is_empty() {
            fleets.extend(default.clone().map(|fleet| (fleet.name.clone(), fleet)));
        }
        for (_, service, _) in self.services() {
            for name in service.fleets() {
                let is_default = !self.entries.contains_key(&fleet_id(name));
                let fleet = self.fleet(name).or_else(|| default.clone().filter(|_| is_default));
                if let Some(fleet) = fleet {
                    fleets.insert(name.clone(), fleet);
                }
            }
        }
        for entry in self.entries.values() {
            if let Some(Ready { meaning: Meaning::Fleet(fleet), .. }) = &entry.ready {
                fleets.insert(fleet.name.clone(), Arc::clone(fleet));
            }
        }
        self.part_ports(&fleets);
        self.finish(fleets)
    }

    fn default_fleet(&mut self) -> Option<Arc<Fleet>> {
        let given = self.ctx.default_endpoint;
        let endpoint = if given.starts_with('/') {
            Ok(Endpoint::Unix { path: given.to_owned() })
        } else {
            form::endpoint(given)
        };
        let asks = |s: &(Id, Arc<Service>, bool)| s.1.fleet.as_str() == DEFAULT_FLEET;
        match endpoint {
            Ok(endpoint) => lower::default_fleet(&endpoint).map(Arc::new),
            Err((why, hint)) => {
                if let Some((id, ..)) = self.services().into_iter().find(asks) {
                    self.tell(
                        &id,
                        "spec.fleet",
                        format!("spec.fleet: the local engine's address: {why}"),
                        hint,
                    );
                }
                None
            }
        }
    }

    fn finish(self, fleets: BTreeMap<FleetName, Arc<Fleet>>) -> InForce {
        let ids: BTreeSet<&Id> = self.entries.keys().collect();
        let gone = self.api.map(|api| leave::gone(self.ctx.previous, api, &ids));
        let only = gone.as_ref().map(|gone| leave::by_absence(gone, &ids));
        let mut out = InForce {
            fleets,
            services: BTreeMap::new(),
            routings: BTreeMap::new(),
            held: BTreeSet::new(),
            problems: self.problems,
            objects: BTreeMap::new(),
            routes: BTreeMap::new(),
            removal: Removal { deleted: BTreeSet::new(), only },
            gone: gone.unwrap_or_default(),
        };
        let mut dark = BTreeSet::new();
        let previous: &Applied = self.ctx.previous;
        let mut balancers = BTreeMap::new();
        let mut told = BTreeMap::new();
        for (id, entry) in self.entries {
            let key = id.key();
            // What is held stays on record even where it cannot be read again just now.
            let runs = previous.objects.contains_key(&key);
            let document = if entry.held {
                previous.objects.get(&key).cloned()
            } else {
                entry.object.as_ref().zip(entry.ready.as_ref()).map(|(object, ready)| Document {
                    path: object.path.to_string(),
                    document: ready.text.to_string(),
                })
            };
            if let Some(document) = document {
                out.objects.insert(key, document);
            }
            if id.kind == "Fleet" {
                continue;
            }
            let Ok(name) = ServiceName::new(&id.name) else { continue };
            if entry.leaving {
                out.removal.deleted.insert(name.clone());
                if id.kind == "LoadBalancer" {
                    out.removal.deleted.extend(implied::mover_name(&name));
                }
            }
            if id.kind == "LoadBalancer" && entry.ready.is_none() && runs {
                dark.insert(name.clone());
            }
            let service = entry.ready.and_then(|r| match r.meaning {
                Meaning::Service(service) => Some(service),
                Meaning::Balancer(balancer) => {
                    let service = Arc::clone(&balancer.service);
                    balancers.insert(name.clone(), balancer);
                    Some(service)
                }
                Meaning::Fleet(_) => None,
            });
            let service = service.filter(|s| s.fleets().all(|f| out.fleets.contains_key(f)));
            // Neither in force nor held would mean: to be removed.
            if !entry.leaving && (entry.held || service.is_none()) {
                out.held.insert(name.clone());
            }
            if let Some(service) = service {
                told.extend(entry.object.map(|object| (name.clone(), object)));
                out.services.insert(name, service);
            }
        }
        for (what, service) in implied::all(&out.fleets, &balancers) {
            let name = service.name.clone();
            if let Some(taken) = told.get(&name) {
                let message = format!("metadata.name: {name} is what {what} is called");
                let flaw = Flaw::new(taken.pos, message).hint("rename the service");
                out.problems.push(problem(&taken.path, Some(&taken.id), flaw));
                out.held.insert(name.clone());
            }
            out.services.insert(name, service);
        }
        out.route(&balancers, &dark, &told, (self.ctx, &self.places));
        out
    }
}

impl InForce {
    /// Gives every route its place, and tells of those that have none.
    fn route(
        &mut self,
        balancers: &BTreeMap<ServiceName, Arc<Balancer>>,
        dark: &BTreeSet<ServiceName>,
        objects: &BTreeMap<ServiceName, Object>,
        (ctx, at): (&Context<'_>, &Places<'_>),
    ) {
        let resolved = routes::resolve(&routes::Ground {
            services: &self.services,
            balancers,
            fleets: &self.fleets,
            dark,
            before: &ctx.previous.routes,
        });
        for left in &resolved.left_out {
            let Some(object) = objects.get(&left.service) else { continue };
            let route = format!("spec.routes[{}]", left.index);
            let path = match left.field {
                "" => route,
                field => format!("{route}.{field}"),
            };
            let message = format!("{path}: {}; the route is left out", left.message);
            let flaw = Flaw { pos: at.locate(object, &path), message, hint: left.hint.clone() };
            self.problems.push(problem(&object.path, Some(&object.id), flaw));
        }
        self.services = resolved.services;
        self.routings = resolved.routings;
        self.routes = resolved.routes;
    }
}

impl Entry {
    /// One that no document of this revision defines.
    fn absent(ready: Option<Ready>) -> Self {
        Self { object: None, ready, held: true, leaving: false }
    }
}

fn fleet_id(name: &FleetName) -> Id {
    Id { kind: "Fleet", name: name.as_str().to_owned() }
}

fn service_id(name: &ServiceName) -> Id {
    Id { kind: "ScalingService", name: name.as_str().to_owned() }
}

fn place(path: &str, pos: Pos) -> String {
    format!("{}:{}:{}", super::node::shown_path(path), pos.line, pos.column)
}
