//! What happened, where `kubectl describe` shows it. Soft: what cannot be told is dropped, and nothing waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use tokio::time::{Instant, timeout};

use super::MANAGER;
use super::cache::{Cache, View};
use super::connect::said;
use super::object::{Kind, Object};
use crate::clock::Clock;
use crate::metrics::ApiWrite;
use crate::reconcile::Fence;
use crate::report::Report;
use crate::report::view::EventView;

/// What happens together is told together.
const GATHER: Duration = Duration::from_secs(1);
/// Most that is read of the report at a time.
const MOST: usize = 500;
/// The same of the same object within this is counted.
const SAME: Duration = Duration::from_secs(600);
/// Most that are remembered, to be counted on.
const REMEMBERED: usize = 1000;
/// Most at one time; what is more is dropped.
const BURST: usize = 50;
/// Of one object at one time.
const EACH: usize = 10;
/// The longest for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest note: the API takes a kilobyte.
const LONGEST: usize = 1000;
/// Steps that one note names.
const NAMED: usize = 5;

/// Something to tell of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Whether it is about a service or balancer, or about a fleet.
    pub service: bool,
    /// Its name.
    pub name: String,
    /// Whether it is bad news.
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub text: String,
}

/// What is worth telling of what happened, steps of one kind and cause as one.
pub fn digest(events: &[EventView]) -> Vec<Note> {
    let mut notes: Vec<Note> = Vec::new();
    let mut steps: BTreeMap<(String, &'static str, String), Vec<String>> = BTreeMap::new();
    for event in events {
        let (service, name) = match (&event.service, &event.fleet) {
            (Some(service), _) => (true, service.clone()),
            (None, Some(fleet)) => (false, fleet.clone()),
            (None, None) => continue,
        };
        let note = |reason: &'static str, text: &str| Note {
            service,
            name: name.clone(),
            warning: event.warning,
            reason,
            text: text.to_owned(),
        };
        match event.kind.as_str() {
            "step-done" if service => {
                let Some(reason) = done(&event.message) else { continue };
                let (step, because) =
                    event.message.split_once(": ").unwrap_or((event.message.as_str(), ""));
                let key = (name.clone(), reason, because.to_owned());
                let what = step.split_once(' ').map_or(step, |(_, rest)| rest);
                steps.entry(key).or_default().push(what.to_owned());
            }
            "step-failed" => notes.push(note("StepFailed", &event.message)),
            "phase" => {
                let reason = match event.message.split_whitespace().nth(2) {
                    Some("ready:") => "Ready",
                    Some("stalled") => "Stalled",
                    Some("suspended") => "Suspended",
                    // The steps say what is done.
                    Some(_) | None => continue,
                };
                notes.push(note(reason, &event.message));
            }
            "rollback" => notes.push(note("RolledBack", &event.message)),
            "attention" => notes.push(note("NeedsAttention", &event.message)),
            "problem-appeared" => notes.push(note("Invalid", &event.message)),
            "host-lost" => notes.push(note("HostLost", &event.message)),
            "host-returned" => notes.push(note("HostReturned", &event.message)),
            _ => {}
        }
    }
    for ((name, reason, because), what) in steps {
        let more = what.len().saturating_sub(NAMED);
        let named = what.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let text = format!("{named}{more}: {because}");
        notes.push(Note { service: true, name, warning: false, reason, text });
    }
    notes
}

fn done(step: &str) -> Option<&'static str> {
    match step.split_whitespace().next()? {
        "start" => Some("Started"),
        "stop" => Some("Stopped"),
        "withdraw" => Some("Drained"),
        "remove" => Some("Removed"),
        _ => None,
    }
}

/// Everything that tells events.
pub struct Recorder {
    /// The cluster.
    pub client: Client,
    /// What is there.
    pub cache: Cache,
    /// What happened.
    pub report: Report,
    /// Whether it is ours to tell.
    pub fence: Arc<dyn Fence>,
    /// The time.
    pub clock: Clock,
    /// This replica.
    pub instance: String,
}

/// An event that was told.
struct Told {
    uid: String,
    note: Note,
    event: Event,
    count: i32,
    when: Instant,
}

impl Recorder {
    /// Tells events for ever. Ends by being dropped.
    pub async fn run(self) {
        let mut news = self.report.subscribe();
        let mut next = self.report.events(0, None, MOST).next;
        let mut told: VecDeque<Told> = VecDeque::new();
        while news.changed().await.is_ok() {
            tokio::time::sleep(GATHER).await;
            news.borrow_and_update();
            let happened = self.report.events(next, None, MOST);
            next = happened.next;
            if !self.fence.holds() {
                continue;
            }
            let view = self.cache.view();
            let mut each: BTreeMap<String, usize> = BTreeMap::new();
            for note in digest(&happened.events).into_iter().take(BURST) {
                let Some(object) = about(&view, &note) else { continue };
                let of_it = each.entry(object.uid.clone()).or_default();
                *of_it += 1;
                if *of_it <= EACH {
                    self.tell(&object, note, &mut told).await;
                }
            }
        }
    }

    async fn tell(&self, object: &Object, note: Note, told: &mut VecDeque<Told>) {
        let now = Instant::now();
        told.retain(|t| now.duration_since(t.when) < SAME);
        let events: Api<Event> = Api::namespaced(self.client.clone(), &object.key.namespace);
        let known = told.iter().position(|t| t.uid == object.uid && t.note == note);
        let outcome = if let Some(at) = known {
            let Some(mut before) = told.remove(at) else { return };
            before.count = before.count.saturating_add(1);
            before.when = now;
            let last_observed_time = MicroTime(self.clock.timestamp());
            before.event.series = Some(EventSeries { count: before.count, last_observed_time });
            let name = before.event.metadata.name.clone().unwrap_or_default();
            let patch = serde_json::json!({"series": before.event.series});
            let params =
                PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
            let sent = timeout(ANSWER, events.patch(&name, &params, &Patch::Merge(patch))).await;
            told.push_back(before);
            sent
        } else {
            let event = self.event(object, &note);
            let params =
                PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
            let sent = timeout(ANSWER, events.create(&params, &event)).await;
            if let Ok(Ok(event)) = &sent {
                let event = event.clone();
                told.push_back(Told { uid: object.uid.clone(), note, event, count: 1, when: now });
                while told.len() > REMEMBERED {
                    told.pop_front();
                }
            }
            sent
        };
        self.report.api_write(ApiWrite::Event, matches!(outcome, Ok(Ok(_))));
        match outcome {
            Ok(Ok(_)) => {}
            // As in a namespace that is being deleted: it is not worth a word more.
            Ok(Err(e)) => {
                tracing::debug!(object = %object.key, error = %said(&e), "event not told");
            }
            Err(_) => tracing::debug!(object = %object.key, "event not told: no answer"),
        }
    }

    fn event(&self, object: &Object, note: &Note) -> Event {
        let now = self.clock.timestamp();
        let kind = object.key.kind;
        let mut text = note.text.clone();
        if text.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:x}", object.key.name, now.as_nanosecond())),
                generate_name: None,
                namespace: Some(object.key.namespace.to_string()),
                ..ObjectMeta::default()
            },
            action: Some("Reconcile".into()),
            event_time: Some(MicroTime(now)),
            note: Some(text),
            reason: Some(note.reason.into()),
            regarding: Some(ObjectReference {
                api_version: Some(evenkeel_crds::API_VERSION.into()),
                kind: Some(kind.word().into()),
                name: Some(object.key.name.to_string()),
                namespace: Some(object.key.namespace.to_string()),
                uid: Some(object.uid.clone()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some("evenkeel.dev/evenkeel".into()),
            reporting_instance: Some(self.instance.chars().take(128).collect()),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.into()),
            ..Event::default()
        }
    }
}

fn about(view: &View, note: &Note) -> Option<Arc<Object>> {
    let fits = |kind: Kind| (kind != Kind::Fleet) == note.service;
    let mut found = view.objects.values().filter(|o| fits(o.key.kind) && *o.key.name == note.name);
    found.find(|o| o.is_ours() || o.key.kind == Kind::Fleet).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, message: &str) -> EventView {
        EventView {
            kind: kind.into(),
            service: Some("web".into()),
            fleet: Some("shop".into()),
            message: message.into(),
            ..EventView::default()
        }
    }

    #[test]
    fn steps_of_one_cause_are_one_event() {
        let mut events: Vec<EventView> = (1..=7)
            .map(|n| {
                event("step-done", &format!("start web_{n} on h1: replicas 0 → 7 (objects a)"))
            })
            .collect();
        events.push(event("step-began", "start web_8 on h1: replicas 0 → 8"));
        events.push(event("step-done", "stop web_9 on h1: web_1 took over"));
        events.push(event("phase", "web is ready: 7 of 7 available"));
        events.push(event("phase", "web is reconciling"));
        let said: Vec<String> =
            digest(&events).into_iter().map(|n| format!("{}: {}", n.reason, n.text)).collect();
        assert_eq!(
            said,
            [
                "Ready: web is ready: 7 of 7 available",
                "Started: web_1 on h1, web_2 on h1, web_3 on h1, web_4 on h1, web_5 on h1 and 2 more: \
                 replicas 0 → 7 (objects a)",
                "Stopped: web_9 on h1: web_1 took over",
            ]
        );
    }
}
