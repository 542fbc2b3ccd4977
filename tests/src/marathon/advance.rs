//! What time does by itself.

use std::time::Duration;

use serde_json::json;

use super::event::Event;
use super::instance::{Health, Instance, Phase};
use super::path::AppId;
use super::stamp::Stamp;
use super::state::State;

impl State {
    /// Does all that is due now.
    pub(super) fn advance(&mut self, now: Stamp) {
        self.recall(now);
        self.deploy(now);
        for app in self.busy.clone() {
            self.lose(&app, now);
            self.count(&app, now);
            self.forgive(&app, now);
            self.place(&app, now);
        }
        // What was just begun or ended may be all that a deployment waited for.
        self.deploy(now);
        let rested: Vec<AppId> =
            self.busy.iter().filter(|app| !self.is_restless(app)).cloned().collect();
        for app in rested {
            self.busy.remove(&app);
        }
    }

    /// Whether time has anything to do with it even if nothing is told.
    fn is_restless(&self, app: &AppId) -> bool {
        let waits = |i: &Instance| {
            matches!(i.phase, Phase::Scheduled | Phase::Unreachable | Phase::Inactive)
        };
        let delayed = self.launches.get(app).is_some_and(|launch| launch.delay.is_some());
        self.is_locked(app)
            || self.heal.contains_key(app)
            || delayed && !self.instances_of(app).is_empty()
            || self.instances_of(app).iter().any(waits)
    }
}

/// Health that a new leader does not know of until the next check.
pub(super) struct Forgotten {
    until: Stamp,
    app: AppId,
    uuid: String,
    health: Vec<Option<Health>>,
}

impl State {
    /// Somebody leads from now on. What Marathon itself checked is unknown until it is checked again.
    pub(super) fn elected(&mut self, now: Stamp) {
        let master = json!({
            "frameworkId": "96d7da70-b731-4cfb-96a7-0ee877af615d-0000", "master": "localhost:5050",
        });
        self.event(Event::new("scheduler_registered_event", now, master));
        let settings = self.settings.clone();
        for instance in self.instances.values_mut().flatten() {
            let checks = instance.app.health_checks();
            let own = checks.iter().filter(|check| !check.is_of_mesos());
            let Some(interval) = own.map(|check| check.interval).min() else { continue };
            let health = std::mem::replace(&mut instance.health, vec![None; checks.len()]);
            let interval = Duration::from_secs(interval).as_secs_f64();
            self.forgotten.push(Forgotten {
                until: now.plus(settings.seconds(interval)),
                app: instance.app.id.clone(),
                uuid: instance.uuid.clone(),
                health,
            });
        }
    }

    /// What was forgotten and has been checked again.
    fn recall(&mut self, now: Stamp) {
        let (due, rest) =
            std::mem::take(&mut self.forgotten).into_iter().partition(|f| f.until <= now);
        self.forgotten = rest;
        let due: Vec<Forgotten> = due;
        for Forgotten { app, uuid, health, .. } in due {
            let Some(instance) = self.instance_mut(&app, &uuid) else { continue };
            for (known, old) in instance.health.iter_mut().zip(health) {
                *known = known.take().or(old);
            }
        }
    }
}
