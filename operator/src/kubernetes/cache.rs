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

    /// A scope was listed: what is not in the list is gone.
    pub fn replace(&self, scope: &Scope, listed: Vec<Object>) {
        self.change(|view| {
            let listed: BTreeMap<Key, Object> =
                listed.into_iter().map(|o| (o.key.clone(), o)).collect();
            let before = view.objects.len();
            view.objects.retain(|key, _| !scope.covers(key) || listed.contains_key(key));
            let mut news = view.objects.len() != before;
            for (key, object) in listed {
                news |= insert(view, key, object);
            }
            news | view.unlisted.remove(scope)
        });
    }

    /// An object is new or changed.
    pub fn put(&self, object: Object) {
        self.change(|view| insert(view, object.key.clone(), object));
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
fn insert(view: &mut View, key: Key, object: Object) -> bool {
    let known = view.objects.get(&key);
    if known.is_some_and(|k| k.version == object.version && k.uid == object.uid) {
        return false;
    }
    view.objects.insert(key, Arc::new(object));
    true
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

    #[test]
    fn a_list_is_the_whole_of_its_scope_and_of_no_other() {
        let scopes = Scope::all(&["a".into(), "b".into()]);
        assert_eq!(scopes.len(), 6);
        let cache = Cache::new(&scopes);
        let scope = |n: &str| Scope { kind: Kind::ScalingService, namespace: Some(n.into()) };
        cache.replace(&scope("a"), vec![web("a", "one", "1"), web("a", "two", "2")]);
        cache.replace(&scope("b"), vec![web("b", "one", "3")]);
        assert_eq!(cache.view().unlisted.len(), 4);
        cache.replace(&scope("a"), vec![web("a", "two", "2")]);
        let keys: Vec<String> = cache.view().objects.keys().map(Key::path).collect();
        assert_eq!(keys, ["a/ScalingService/two", "b/ScalingService/one"]);
    }

    #[test]
    fn what_is_no_news_wakes_nobody() {
        let scopes = Scope::all(&[]);
        let cache = Cache::new(&scopes);
        let seen = cache.subscribe();
        cache.replace(&scopes[2], vec![web("a", "one", "1")]);
        let before = *seen.borrow();
        cache.replace(&scopes[2], vec![web("a", "one", "1")]);
        cache.put(web("a", "one", "1"));
        cache.answers(&scopes[2]);
        assert_eq!(*seen.borrow(), before);
        cache.put(web("a", "one", "2"));
        assert_eq!(*seen.borrow(), before + 1);
    }
}
