//! Brings finalizers and statuses to the API server: whatever differs from what it has, and nothing else. Each round
//! begins anew from what is there, so that nothing is lost by an error and nothing is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::cache::{Cache, View};
use super::connect::{ANSWER, code, hint, said};
use super::depart::may_go;
use super::object::{Key, Kind, Object};
use super::source::Snapshots;
use super::status::{Facts, Index, differs, turns, wanted};
use super::tree::{Planned, Snapshot};
use super::{FINALIZER, MANAGER, PREFIX};
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::metrics::ApiWrite;
use crate::model::Time;
use crate::reconcile::Fence;
use crate::report::Report;
use crate::report::view::StatusView;

/// Changes that come together are looked at together.
const QUIET: Duration = Duration::from_millis(30);
/// Counters of one object are written this often at most; a transition is written at once.
const EACH: Duration = Duration::from_secs(1);
/// It is looked at this often even if nothing rings.
const RESYNC: Duration = Duration::from_secs(30);
/// Writes under way at a time.
const AT_ONCE: usize = 8;
/// Writes in one round; the others come in the next.
const ROUND: usize = 500;
/// The longest pause after a write that failed.
const LONGEST: Duration = Duration::from_secs(60);

/// Everything the writer works with.
pub struct Writer {
    /// The cluster.
    pub client: Client,
    /// What is there.
    pub cache: Cache,
    /// What passes were about.
    pub snapshots: Snapshots,
    /// What there is to say.
    pub report: Report,
    /// Whether it is ours to say.
    pub fence: Arc<dyn Fence>,
    /// The time.
    pub clock: Clock,
    /// Rung when somebody wants everything looked at now.
    pub nudge: Doorbell,
    /// What the paths of objects begin with where other documents are merged with them.
    pub root: &'static str,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
enum Write {
    /// These finalizers and no others.
    Finalizers(Vec<String>),
    /// This status.
    Status(Value),
    /// These conditions, whoever else claims one of them.
    Conditions(Value),
}

/// What is remembered of an object's writes.
#[derive(Debug, Default)]
struct Past {
    uid: String,
    /// The last status that was written, and the version that it led to.
    written: Option<(Value, String)>,
    when: Option<Instant>,
    /// Of finalizers and of statuses: the one must not wait for the other.
    tries: [Tries; 2],
    /// What it asked to be answered, and when that was first seen.
    asked: Option<(String, Time)>,
}

/// Failures in a row.
#[derive(Debug, Default, Clone, Copy)]
struct Tries {
    failures: u32,
    not_before: Option<Instant>,
}

impl Write {
    fn counts_as(&self) -> ApiWrite {
        match self {
            Self::Finalizers(_) => ApiWrite::Finalizers,
            Self::Status(_) | Self::Conditions(_) => ApiWrite::Status,
        }
    }

    fn tries<'p>(&self, past: &'p mut Past) -> &'p mut Tries {
        let [finalizers, statuses] = &mut past.tries;
        match self {
            Self::Finalizers(_) => finalizers,
            Self::Status(_) | Self::Conditions(_) => statuses,
        }
    }
}

/// A round's outcome.
struct Round {
    writes: Vec<(Arc<Object>, Write)>,
    /// When there is more to do by itself.
    again: Option<Instant>,
}

impl Round {
    fn later(&mut self, at: Instant) {
        self.again = Some(self.again.map_or(at, |a| a.min(at)));
    }

    /// Puts a write in, unless it failed a moment ago.
    fn push(&mut self, object: &Arc<Object>, write: Write, past: &mut Past, now: Instant) {
        match write.tries(past).not_before.filter(|until| *until > now) {
            Some(until) => self.later(until),
            None => self.writes.push((object.clone(), write)),
        }
    }
}

impl Writer {
    /// Writes for ever. Ends by being dropped, which is safe at any moment.
    pub async fn run(self) {
        let mut objects = self.cache.subscribe();
        let mut news = self.report.subscribe();
        let mut held = self.fence.changes();
        let mut past: BTreeMap<Key, Past> = BTreeMap::new();
        loop {
            objects.borrow_and_update();
            news.borrow_and_update();
            let mut pause = RESYNC;
            if *held.borrow_and_update() {
                let status = self.report.status(None);
                let view = self.cache.view();
                past.retain(|key, _| view.objects.contains_key(key));
                let round = self.round(&view, &status, &mut past);
                if !round.writes.is_empty() {
                    pause = Duration::ZERO;
                } else if let Some(again) = round.again {
                    pause = again.saturating_duration_since(Instant::now()).min(RESYNC);
                }
                self.carry_out(round.writes, &mut past).await;
            }
            let gone = tokio::select! {
                changed = objects.changed() => changed.is_err(),
                changed = news.changed() => changed.is_err(),
                changed = held.changed() => changed.is_err(),
                () = tokio::time::sleep(pause) => false,
            };
            if gone {
                return;
            }
            tokio::time::sleep(QUIET).await;
        }
    }

    /// What is to be written now.
    fn round(&self, view: &View, status: &StatusView, past: &mut BTreeMap<Key, Past>) -> Round {
        let index = Index::of(status);
        let read = status.source.as_ref().and_then(|s| s.revision.as_deref());
        let read = read.and_then(|r| self.snapshots.get(r));
        let mut used: BTreeMap<&str, usize> = BTreeMap::new();
        for object in view.objects.values().filter(|o| o.key.kind != Kind::Fleet) {
            for fleet in &object.fleets {
                *used.entry(fleet).or_default() += 1;
            }
        }
        let living: BTreeSet<(Kind, &Arc<str>)> = view
            .objects
            .keys()
            .filter(|key| !view.objects[*key].deleting)
            .map(|key| (key.kind, &key.name))
            .collect();
        let mut known: BTreeMap<String, Option<Arc<Snapshot>>> = BTreeMap::new();
        let mut round = Round { writes: Vec::new(), again: None };
        let now = Instant::now();
        for object in view.objects.values() {
            if round.writes.len() >= ROUND {
                break;
            }
            let mine = past.entry(object.key.clone()).or_default();
            if mine.uid != object.uid {
                *mine = Past { uid: object.uid.clone(), ..Past::default() };
            }
            let planned = |revision: &str| {
                let snapshot = known
                    .entry(revision.to_owned())
                    .or_insert_with(|| self.snapshots.get(revision));
                snapshot.as_ref().and_then(|s| s.get(&object.key)).copied()
            };
            let name = &*object.key.name;
            let in_read = read.as_ref().and_then(|s| s.get(&object.key)).copied();
            let Passes { passed, applied, left } = passes(object, &index, in_read, planned);
            let used = used.get(name).copied().unwrap_or_default();
            let used = if object.key.kind == Kind::Fleet { used } else { 0 };
            let mut facts = Facts {
                read: in_read.map(|p| p.generation),
                passed,
                applied,
                used,
                ..Facts::default()
            };
            let path = format!("{}{}", self.root, object.key.path());
            facts.problems = index.problems.get(path.as_str()).cloned().unwrap_or_default();
            if object.deleting {
                // One of a name that another has, or one that never counted, leaves nothing behind.
                let wanted = index.views(name).iter().any(|view| view.desired > 0);
                let another =
                    living.contains(&(object.key.kind, &object.key.name)) || (left && wanted);
                let never =
                    object.key.kind != Kind::Fleet && in_read.is_none() && !object.was_taken_up();
                if !another && !never {
                    facts.leaving = may_go(object, left, used, &index).err();
                }
            }
            if let Some(finalizers) = finalizers(object, &facts) {
                round.push(object, Write::Finalizers(finalizers), mine, now);
                continue;
            }
            facts.answered = self.answered(object, mine, status, &index);
            let Some(status) = wanted(object, &facts, &index, self.clock.timestamp()) else {
                continue;
            };
            if !differs(&status, &object.status) {
                continue;
            }
            if let Some((last, version)) = &mine.written {
                // It was written and the watch has not brought it yet; or others claim a part of it.
                if *last == status && *version == object.version {
                    let conditions = status.get("conditions").cloned().unwrap_or_default();
                    if let Some(claimed) = claimed(&conditions, &object.status) {
                        round.push(object, Write::Conditions(claimed), mine, now);
                    }
                    continue;
                }
            }
            let next = mine.when.map(|when| when + EACH).filter(|next| *next > now);
            match next {
                Some(next) if !turns(&status, &object.status) => {
                    round.later(next);
                }
                _ => round.push(object, Write::Status(status), mine, now),
            }
        }
        round
    }

    /// What the object asked for and has got: a pass over its fleet since.
    fn answered(
        &self,
        object: &Object,
        mine: &mut Past,
        status: &StatusView,
        index: &Index<'_>,
    ) -> Option<String> {
        let asked = object.asked()?;
        let before = object.status.get("lastHandledReconcileAt").and_then(Value::as_str);
        if before == Some(asked) {
            return Some(asked.to_owned());
        }
        let of = match object.key.kind {
            Kind::Fleet => std::slice::from_ref(&object.key.name),
            Kind::LoadBalancer | Kind::ScalingService => &object.fleets[..],
        };
        match &mine.asked {
            Some((same, since)) if same == asked => {
                let passed = of.iter().all(|fleet| {
                    let fleet = index.fleets.get(&**fleet);
                    fleet.and_then(|f| f.last_pass).is_some_and(|at| at.0 > *since)
                });
                passed.then(|| asked.to_owned())
            }
            Some(_) | None => {
                mine.asked = Some((asked.to_owned(), status.agent.now.0));
                self.nudge.ring();
                None
            }
        }
    }

    async fn carry_out(&self, writes: Vec<(Arc<Object>, Write)>, past: &mut BTreeMap<Key, Past>) {
        let mut outcomes = stream::iter(writes)
            .map(|(object, write)| async move {
                // Asked again for each: a round takes its time.
                if !self.fence.holds() {
                    return None;
                }
                let outcome = timeout(ANSWER, self.write(&object, &write)).await;
                Some((object, write, outcome))
            })
            .buffer_unordered(AT_ONCE);
        while let Some(outcome) = outcomes.next().await {
            let Some((object, write, outcome)) = outcome else { continue };
            let mine = past.entry(object.key.clone()).or_default();
            let now = Instant::now();
            self.report.api_write(write.counts_as(), matches!(outcome, Ok(Ok(_))));
            let (text, hint) = match outcome {
                Ok(Ok(version)) => {
                    *write.tries(mine) = Tries::default();
                    mine.when = Some(now);
                    if let Write::Status(status) = write {
                        mine.written = Some((status, version));
                    }
                    continue;
                }
                // It went in the meantime.
                Ok(Err(e)) if code(&e) == Some(404) => continue,
                Ok(Err(e)) => (said(&e), hint(&e)),
                Err(_) => ("the API server says nothing".to_owned(), None),
            };
            let tries = write.tries(mine);
            tries.failures += 1;
            let wait = Duration::from_millis(250 << tries.failures.min(8)).min(LONGEST);
            tries.not_before = Some(now + wait);
            // Another writer was quicker: the newest object is on its way here.
            if tries.failures > 1 || !text.ends_with("(409)") {
                tracing::warn!(object = %object.key, error = %text, hint = hint.as_deref(),
                    "cannot be written, retry in {} s", wait.as_secs());
            }
        }
    }

    /// Gives the version that the object has then.
    async fn write(&self, object: &Object, write: &Write) -> Result<String, kube::Error> {
        let kind = object.key.kind;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &object.key.namespace, &kind.resource());
        let (name, version) = (&*object.key.name, &object.version);
        let merging = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let answer = match write {
            Write::Finalizers(finalizers) => {
                tracing::debug!(object = %object.key, ?finalizers, "finalizers");
                let patch = json!({"metadata": {
                    "uid": object.uid, "resourceVersion": version, "finalizers": finalizers,
                }});
                api.patch(name, &merging, &Patch::Merge(patch)).await?
            }
            Write::Status(status) => {
                let patch = json!({
                    "apiVersion": evenkeel_crds::API_VERSION, "kind": kind.word(),
                    // Of another object of the same name this is not the status.
                    "metadata": {"name": name, "uid": object.uid}, "status": status,
                });
                let params = PatchParams::apply(MANAGER).force();
                api.patch_status(name, &params, &Patch::Apply(patch)).await?
            }
            Write::Conditions(conditions) => {
                let patch = json!({
                    "metadata": {"uid": object.uid, "resourceVersion": version},
                    "status": {"conditions": conditions},
                });
                api.patch_status(name, &merging, &Patch::Merge(patch)).await?
            }
        };
        Ok(answer.metadata.resource_version.unwrap_or_default())
    }
}

/// How far the passes over an object's fleets have come.
struct Passes {
    /// The generation that all of them were about.
    passed: Option<i64>,
    /// The generation that was reached on all of them.
    applied: Option<i64>,
    /// All of them knew that it leaves.
    left: bool,
}

/// `planned` says what there was of the object in a revision.
fn passes(
    object: &Object,
    index: &Index<'_>,
    in_read: Option<Planned>,
    mut planned: impl FnMut(&str) -> Option<Planned>,
) -> Passes {
    let name = &*object.key.name;
    let views = if object.key.kind == Kind::Fleet { &[] } else { index.views(name) };
    let mut fleets: BTreeSet<&str> = match object.key.kind {
        Kind::Fleet => BTreeSet::from([name]),
        Kind::LoadBalancer | Kind::ScalingService => object.fleets.iter().map(|f| &**f).collect(),
    };
    fleets.extend(views.iter().map(|view| view.fleet.as_str()));
    let mut all = Passes { passed: Some(i64::MAX), applied: Some(i64::MAX), left: true };
    for fleet in fleets {
        let view = views.iter().find(|view| view.fleet == fleet);
        let attempted = view.and_then(|view| view.attempted_revision.as_deref());
        let of_fleet = || index.fleets.get(fleet).and_then(|f| f.revision.as_deref());
        let attempted = attempted.or_else(of_fleet);
        let passed = attempted.and_then(&mut planned);
        let applied = match view {
            Some(view) => view.applied_revision.as_deref().and_then(&mut planned),
            // It has no part of it: that is what was asked for, once another fleet says what it is.
            None => passed.filter(|_| !views.is_empty()),
        };
        let least = |so_far: Option<i64>, here: Option<Planned>| {
            so_far.zip(here).map(|(so_far, here)| so_far.min(here.generation))
        };
        all.passed = least(all.passed, passed);
        all.applied = least(all.applied, applied);
        // Without its fleet no pass is about it; what was read must do.
        let known = passed.or(in_read.filter(|_| attempted.is_none()));
        all.left &= known.is_some_and(|p| p.leaving);
    }
    all
}

/// The finalizers that an object should have, where it has others. Names of ours from earlier versions go.
fn finalizers(object: &Object, facts: &Facts<'_>) -> Option<Vec<String>> {
    let holds = if object.deleting {
        // Once it is being deleted none can be added.
        object.is_ours() && facts.leaving.is_some()
    } else {
        object.key.kind != Kind::Fleet || facts.used > 0
    };
    let mut should: Vec<String> =
        object.finalizers.iter().filter(|f| !f.starts_with(PREFIX)).cloned().collect();
    if holds {
        should.push(FINALIZER.to_owned());
    }
    let same = should.len() == object.finalizers.len()
        && should.iter().all(|f| object.finalizers.contains(f));
    (!same).then_some(should)
}

/// All conditions as they should be, where somebody else holds one of ours that should not be there.
fn claimed(wanted: &Value, actual: &Value) -> Option<Value> {
    let kind = |c: &Value| c.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let ours = wanted.as_array()?;
    let there = actual.get("conditions")?.as_array()?;
    let is_ours = |c: &Value| ["Ready", "Reconciling", "Stalled"].contains(&kind(c).as_str());
    let extra = there.iter().any(|c| is_ours(c) && !ours.iter().any(|o| kind(o) == kind(c)));
    extra.then(|| {
        let theirs = there.iter().filter(|c| !is_ours(c));
        Value::Array(ours.iter().chain(theirs).cloned().collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::object::tests::object;

    fn with(kind: Kind, finalizers: &[&str], deleting: bool) -> Object {
        let mut whole = json!({"metadata": {"name": "web", "finalizers": finalizers}, "spec": {}});
        if deleting {
            whole["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        object(kind, whole)
    }

    fn should(kind: Kind, has: &[&str], deleting: bool, facts: &Facts<'_>) -> Option<Vec<String>> {
        finalizers(&with(kind, has, deleting), facts)
    }

    #[test]
    fn the_finalizer_is_there_while_something_may_be_left() {
        let none = Facts::default();
        let waits = Facts { leaving: Some("it drains".into()), ..Facts::default() };
        let service = Kind::ScalingService;
        assert_eq!(should(service, &[], false, &none).unwrap(), [FINALIZER]);
        assert_eq!(should(service, &[FINALIZER], false, &none), None);
        assert_eq!(should(service, &[FINALIZER], true, &waits), None);
        assert_eq!(should(service, &[FINALIZER], true, &none).unwrap(), [""; 0]);
        assert_eq!(should(service, &["a/b", FINALIZER], true, &none).unwrap(), ["a/b"]);
        assert_eq!(should(service, &["a/b"], true, &none), None);
    }

    #[test]
    fn a_fleet_is_held_while_it_is_used() {
        let used = Facts { used: 1, ..Facts::default() };
        assert_eq!(should(Kind::Fleet, &[], false, &Facts::default()), None);
        assert_eq!(should(Kind::Fleet, &[], false, &used).unwrap(), [FINALIZER]);
        assert_eq!(should(Kind::Fleet, &[FINALIZER], false, &Facts::default()).unwrap(), [""; 0]);
    }

    #[test]
    fn names_of_earlier_versions_go() {
        let old = ["evenkeel.dev/finalizer", "a/b"];
        let service = Kind::ScalingService;
        assert_eq!(should(service, &old, false, &Facts::default()).unwrap(), ["a/b", FINALIZER]);
        assert_eq!(should(service, &old, true, &Facts::default()).unwrap(), ["a/b"]);
    }

    #[test]
    fn a_condition_that_somebody_else_holds_is_replaced_as_a_whole() {
        let ours = json!([{"type": "Ready", "status": "True"}]);
        let theirs = json!({"type": "Pinged", "status": "True"});
        let actual = |extra: Value| json!({"conditions": [ours[0].clone(), theirs.clone(), extra]});
        assert_eq!(claimed(&ours, &actual(json!({"type": "Other"}))), None);
        let stalled = actual(json!({"type": "Stalled", "status": "True"}));
        assert_eq!(claimed(&ours, &stalled).unwrap(), json!([ours[0], theirs]));
    }
}
