//! The newest of all watched objects, in memory. What was seen stays until the API server itself says that it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use super::object::{Key, Kind, Object};

/// What one watch covers: a kind, in one namespace or in all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// The kind.
    pub kind: Kind,
    /// The namespace; `None` for all.
    pub namespace: Option<Arc<str>>,
}

impl Scope {
    /// Everything that a list of namespaces leads to; an empty one means all.
    pub fn all(namespaces: &[String]) -> Vec<Self> {
        let of = |namespace: Option<Arc<str>>| {
            Kind::ALL.map(|kind| Self { kind, namespace: namespace.clone() })
        };
        if namespaces.is_empty() {
            return of(None).into();
        }
        let names: BTreeSet<&str> = namespaces.iter().map(String::as_str).collect();
        names.into_iter().flat_map(|n| of(Some(n.into()))).collect()
    }

    fn covers(&self, key: &Key) -> bool {
        self.kind == key.kind && self.namespace.as_ref().is_none_or(|n| *n == key.namespace)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.plural())?;
        match &self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}

/// Why something cannot be watched now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// With all causes.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// When it is tried again.
    pub next_try: Timestamp,
    /// How often in a row.
    pub failures: u32,
}

/// All that is known now. A copy is a map of pointers.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The newest of every object.
    pub objects: BTreeMap<Key, Arc<Object>>,
    /// What was never listed yet: while this is not empty, what is not in `objects` may be there all the same.
    pub unlisted: BTreeSet<Scope>,
    /// What cannot be watched now.
    pub broken: BTreeMap<Scope, Broken>,
}

/// Where watches put what they see, and others read it. All clones are one.
#[derive(Clone)]
pub struct Cache {
    view: Arc<Mutex<View>>,
    changes: watch::Sender<u64>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} objects)", self.lock().objects.len())
    }
}

/// A list that is not whole yet. A list of thousands says mostly what is known: only what it brings is held beside that.
#[derive(Debug, Default)]
pub(super) struct Listing {
    listed: BTreeSet<Key>,
    news: Vec<Object>,
}

impl Listing {
    /// How many objects are on it so far.
    pub(super) fn len(&self) -> usize {
        self.listed.len()
    }
}

impl Cache {
    /// Nothing seen yet of any of these.
    pub fn new(scopes: &[Scope]) -> Self {
        let unlisted = scopes.iter().cloned().collect();
        let view = View { unlisted, ..View::default() };
        Self { view: Arc::new(Mutex::new(view)), changes: watch::Sender::new(0) }
    }

    /// A copy of what is known.
    pub fn view(&self) -> View {
        self.lock().clone()
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.lock().objects.get(key).cloned()
    }

    /// Changes with every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes a page of a list. Nothing is known of it before the whole is.
    pub(super) fn page(&self, listing: &mut Listing, page: impl Iterator<Item = Object>) {
        for object in page {
            let view = self.lock();
            let known = view.objects.get_key_value(&object.key);
            if let Some((key, _)) = known.filter(|(_, known)| is_same(known, &object)) {
                listing.listed.insert(key.clone());
                continue;
            }
            listing.listed.insert(object.key.clone());
            listing.news.push(object);
        }
    }

    /// A scope was listed: what is not in the list is gone. Nobody else puts or removes objects of it meanwhile.
    pub(super) fn replace(&self, scope: &Scope, listing: Listing) {
        let Listing { listed, news } = listing;
        self.change(|view| {
            let before = view.objects.len();
            view.objects.retain(|key, _| !scope.covers(key) || listed.contains(key));
            let mut changed = view.objects.len() != before;
            for object in news {
                changed |= insert(view, object);
            }
            changed | view.unlisted.remove(scope)
        });
    }

    /// An object is new or changed.
    pub fn put(&self, object: Object) {
        self.change(|view| insert(view, object));
    }

    /// An object is gone.
    pub fn remove(&self, key: &Key) {
        self.change(|view| view.objects.remove(key).is_some());
    }

    /// A scope answers.
    pub fn answers(&self, scope: &Scope) {
        self.change(|view| view.broken.remove(scope).is_some());
    }

    /// A scope cannot be watched. Gives how often in a row.
    pub fn fails(&self, scope: &Scope, mut broken: Broken) {
        self.change(|view| {
            if let Some(before) = view.broken.get(scope) {
                broken.since = before.since;
            }
            view.broken.insert(scope.clone(), broken);
            true
        });
    }

    fn change(&self, f: impl FnOnce(&mut View) -> bool) {
        if f(&mut self.lock()) {
            self.changes.send_modify(|n| *n += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is news: a list brings what a watch has brought before.
fn insert(view: &mut View, object: Object) -> bool {
    if view.objects.get(&object.key).is_some_and(|known| is_same(known, &object)) {
        return false;
    }
    view.objects.insert(object.key.clone(), Arc::new(object));
    true
}

fn is_same(known: &Object, object: &Object) -> bool {
    known.version == object.version && known.uid == object.uid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::object::tests::object;
    use serde_json::json;

    fn web(namespace: &str, name: &str, version: &str) -> Object {
        object(
            Kind::ScalingService,
            json!({"metadata": {
                "name": name, "namespace": namespace, "uid": name, "resourceVersion": version,
            }}),
        )
    }

    fn listed(cache: &Cache, scope: &Scope, all: Vec<Object>) -> usize {
        let mut listing = Listing::default();
        for object in all {
            cache.page(&mut listing, std::iter::once(object));
        }
        let news = listing.news.len();
        cache.replace(scope, listing);
        news
    }

    #[test]
    fn a_list_is_the_whole_of_its_scope_and_of_no_other() {
        let scopes = Scope::all(&["a".into(), "b".into()]);
        assert_eq!(scopes.len(), 6);
        let cache = Cache::new(&scopes);
        let scope = |n: &str| Scope { kind: Kind::ScalingService, namespace: Some(n.into()) };
        listed(&cache, &scope("a"), vec![web("a", "one", "1"), web("a", "two", "2")]);
        listed(&cache, &scope("b"), vec![web("b", "one", "3")]);
        assert_eq!(cache.view().unlisted.len(), 4);
        // Nothing is held twice: of this list one object is new, one is another of the same name, and one is known.
        let other = Object { uid: "another".into(), ..web("a", "one", "1") };
        let all = vec![other, web("a", "two", "2"), web("a", "three", "4")];
        assert_eq!(listed(&cache, &scope("a"), all), 2);
        let uid = |view: View| view.objects.values().next().unwrap().uid.clone();
        assert_eq!((cache.view().objects.len(), &*uid(cache.view())), (4, "another"));
        // A list that breaks off half-way says nothing.
        cache.page(&mut Listing::default(), vec![web("a", "two", "2")].into_iter());
        assert_eq!(cache.view().objects.len(), 4);
        assert_eq!(listed(&cache, &scope("a"), vec![web("a", "two", "2")]), 0);
        let keys: Vec<String> = cache.view().objects.keys().map(Key::path).collect();
        assert_eq!(keys, ["a/ScalingService/two", "b/ScalingService/one"]);
    }

    #[test]
    fn what_is_no_news_wakes_nobody() {
        let scopes = Scope::all(&[]);
        let cache = Cache::new(&scopes);
        let seen = cache.subscribe();
        listed(&cache, &scopes[2], vec![web("a", "one", "1")]);
        let before = *seen.borrow();
        listed(&cache, &scopes[2], vec![web("a", "one", "1")]);
        cache.put(web("a", "one", "1"));
        cache.answers(&scopes[2]);
        assert_eq!(*seen.borrow(), before);
        cache.put(web("a", "one", "2"));
        assert_eq!(*seen.borrow(), before + 1);
    }
}
