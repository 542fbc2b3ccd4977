//! What becomes of instances: reports of their tasks, kills, and agents that fall silent and return.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use super::app::Patience;
use super::event::Event;
use super::instance::{Failure, Goal, Health, Instance, Phase, Ready};
use super::path::AppId;
use super::runner::{End, Order, Report};
use super::stamp::Stamp;
use super::state::State;

impl State {
    /// Whose task this is: its app and its instance.
    pub(super) fn owner(&self, task: &str) -> Option<(AppId, String)> {
        let app = super::instance::app_of_task(task)?;
        let release = self.settings.release;
        let found = self.instances_of(&app).iter().find(|i| i.task(release) == task)?;
        Some((app, found.uuid.clone()))
    }

    /// A task ended that nobody knows any more.
    pub(super) fn stranger(&mut self, task: &str, end: End, now: Stamp) {
        let Some(app) = super::instance::app_of_task(task) else { return };
        let instance = task.split("._app.").next().unwrap_or(task);
        let body = json!({
            "instanceId": instance, "runSpecId": app.as_str(), "condition": end.condition(),
        });
        self.event(Event::new("unknown_instance_terminated_event", now, body));
    }

    /// Takes what a runner tells of a task; nothing happens if nobody knows it.
    pub(super) fn report(&mut self, app: &AppId, uuid: &str, report: Report, now: Stamp) {
        let silent = |i: &Instance| {
            i.agent.as_ref().and_then(|host| self.agents.get(host)).is_some_and(|a| a.silent)
        };
        let Some(instance) = self.instances_of(app).iter().find(|i| i.uuid == uuid) else { return };
        // Nobody hears what happens on an agent that is cut off, except that it is gone for good.
        if silent(instance) && !matches!(report, Report::Ended(End::Gone, _)) {
            return;
        }
        match report {
            Report::Running(addresses) => self.running(app, uuid, addresses, now),
            Report::Health(check, result) => self.health(app, uuid, check, result, now),
            Report::Ready(ready, response) => {
                if let Some(instance) = self.instance_mut(app, uuid) {
                    let kept = instance.app.readiness().is_some_and(|check| check.keeps);
                    instance.ready = Some(Ready { ready, response: response.filter(|_| kept) });
                }
            }
            Report::Ended(end, message) => self.ended(app, uuid, end, &message, now),
        }
        self.busy.insert(app.clone());
    }

    fn running(&mut self, app: &AppId, uuid: &str, addresses: Vec<String>, now: Stamp) {
        let Some(instance) = self.instance_mut(app, uuid) else { return };
        instance.addresses = addresses;
        instance.started = Some(now);
        if instance.phase == Phase::Staging {
            instance.enter(Phase::Running, now);
        }
        self.changed(app, uuid, now);
    }

    fn health(
        &mut self,
        app: &AppId,
        uuid: &str,
        check: usize,
        result: Result<(), String>,
        now: Stamp,
    ) {
        let release = self.settings.release;
        let second = self.settings.second;
        let Some(instance) = self.instance_mut(app, uuid) else { return };
        let Some(rule) = instance.app.health_checks().into_iter().nth(check) else { return };
        let Some(slot) = instance.health.get(check).cloned() else { return };
        let mut health = slot.clone().unwrap_or_default();
        let before = instance.healthy();
        if let Err(cause) = result {
            #[expect(clippy::cast_precision_loss, reason = "seconds of years are exact")]
            let grace = super::app::seconds(rule.grace as f64, second);
            let young = now.since(instance.since) < grace && health.first_success.is_none();
            if instance.phase != Phase::Running || young {
                return;
            }
            health.last_failure = Some(now.max(Stamp(health.last_success.map_or(0, |at| at.0))));
            health.cause = Some(cause);
            health.failures += 1;
        } else {
            let after = health.last_failure.map_or(now, |at| now.max(Stamp(at.0 + 1)));
            health.first_success = health.first_success.or(Some(after));
            health.last_success = Some(after);
            health.failures = 0;
        }
        // The agent kills at the first failure where none is allowed, Marathon never.
        let enough = health.failures > 0 && health.failures >= rule.failures;
        let kill = enough && (rule.failures > 0 || rule.is_of_mesos());
        let failed = health.failures > 0;
        let reason = health.cause.clone().unwrap_or_default();
        instance.health[check] = Some(health);
        let after = instance.healthy();
        let (id, task) = (instance.id(release), instance.task(release));
        let version = instance.app.version;
        let wire = instance.app.get("healthChecks")[check].clone();
        let host = instance.agent.clone().unwrap_or_default();
        if failed {
            let body = json!({"appId": app.as_str(), "taskId": id, "healthCheck": wire});
            self.event(Event::new("failed_health_check_event", now, body));
        }
        if before != after {
            self.health_changed(app, uuid, now);
        }
        if kill {
            let agent = self.agents.get(&host).map(super::agents::Agent::id);
            let body = json!({
                "appId": app.as_str(), "taskId": task, "instanceId": id, "version": version.json(),
                "reason": reason, "host": host, "slaveId": agent,
            });
            let kind = if release.has(4) {
                "unhealthy_instance_kill_event"
            } else {
                "unhealthy_task_kill_event"
            };
            self.event(Event::new(kind, now, body));
            if let Some(instance) = self.instance_mut(app, uuid) {
                instance.sick = true;
            }
            self.kill(app, uuid, Goal::Running, now);
        }
    }

    fn ended(&mut self, app: &AppId, uuid: &str, end: End, message: &str, now: Stamp) {
        let release = self.settings.release;
        let Some(instance) = self.instances_of(app).iter().find(|i| i.uuid == uuid).cloned() else {
            return;
        };
        self.told(app, uuid, end.state(), end.condition(), message, now);
        let failed = matches!(end, End::Failed | End::Error | End::Gone | End::Dropped);
        let told = instance.phase == Phase::Killing;
        if failed && !(told && instance.goal == Goal::Gone) {
            let host = instance.agent.clone().unwrap_or_default();
            let agent = self.agents.get(&host).map(super::agents::Agent::id).unwrap_or_default();
            let failure = Failure {
                host,
                agent,
                message: message.to_owned(),
                state: end.state(),
                task: instance.task(release),
                at: now,
                version: instance.app.version,
            };
            self.failures.insert(app.clone(), failure);
        }
        if (failed && !told) || end == End::Finished || instance.sick {
            self.back_off(&instance.app, now);
        }
        self.release(&instance);
        self.after(&instance, now);
    }

    /// What an instance had of its agent is free.
    fn release(&mut self, instance: &Instance) {
        if let Some(agent) = instance.agent.as_ref().and_then(|host| self.agents.get_mut(host)) {
            agent.free(instance.app.need(), &instance.host_ports);
        }
    }

    /// Its task is gone: it tries again, or goes too.
    fn after(&mut self, instance: &Instance, now: Stamp) {
        let app = &instance.app.id;
        let others =
            self.instances_of(app).iter().filter(|i| i.counts() && i.uuid != instance.uuid);
        let others = others.count();
        let definition = self.tree.apps.get(app).cloned();
        let wanted = definition.as_ref().is_some_and(|now| {
            // A deployment decides by itself how many there must be, and of which definition.
            self.is_locked(app) || others < now.instances()
        });
        // An instance that is being replaced ends as it is; any other one becomes what is wanted now.
        let replaced = self.is_replaced(app, &instance.app);
        if instance.goal == Goal::Gone || !wanted || replaced {
            self.forget(app, &instance.uuid);
            return;
        }
        let keeps = self.settings.release.has(8);
        let fresh = (!keeps).then(|| self.uuid());
        let definition = definition.filter(|new| !new.is_upgrade(&instance.app));
        let definition = definition.unwrap_or_else(|| Arc::clone(&instance.app));
        if let Some(instance) = self.instance_mut(app, &instance.uuid) {
            instance.again(&definition, now);
            if let Some(fresh) = fresh {
                instance.uuid = fresh;
                instance.attempt = 1;
            }
        }
        self.launches.entry(app.clone()).or_default().since = now;
        self.busy.insert(app.clone());
    }

    /// It is as if it had never been.
    pub(super) fn forget(&mut self, app: &AppId, uuid: &str) {
        if let Some(all) = self.instances.get_mut(app) {
            all.retain(|instance| instance.uuid != uuid);
            if all.is_empty() {
                self.instances.remove(app);
            }
        }
        self.busy.insert(app.clone());
    }

    /// Ends an instance's task; with [`Goal::Gone`] the instance too.
    pub(super) fn kill(&mut self, app: &AppId, uuid: &str, goal: Goal, now: Stamp) {
        let release = self.settings.release;
        let Some(instance) = self.instance_mut(app, uuid) else { return };
        if goal == Goal::Gone {
            instance.goal = Goal::Gone;
        }
        match instance.phase {
            Phase::Scheduled if instance.goal == Goal::Gone => self.forget(app, uuid),
            // Who cannot be reached is expunged, and killed if it ever returns.
            Phase::Unreachable | Phase::Inactive => self.expunge(app, uuid, now),
            Phase::Staging | Phase::Running => {
                let grace = instance.app.grace();
                let task = instance.task(release);
                let host = instance.agent.clone().unwrap_or_default();
                instance.enter(Phase::Killing, now);
                self.orders.push(Order::Kill { task, host, grace });
                if self.settings.task_killing() {
                    self.changed(app, uuid, now);
                }
            }
            Phase::Scheduled | Phase::Killing => {}
        }
        self.busy.insert(app.clone());
    }

    fn expunge(&mut self, app: &AppId, uuid: &str, now: Stamp) {
        let Some(instance) = self.instances_of(app).iter().find(|i| i.uuid == uuid).cloned() else {
            return;
        };
        let release = self.settings.release;
        // Mesos may bring it back, and its resources are not offered until then.
        let host = instance.agent.clone().unwrap_or_default();
        let grace = instance.app.grace();
        self.orders.push(Order::Kill { task: instance.task(release), host, grace });
        self.told(app, uuid, "TASK_UNKNOWN", "Unknown", "expunged", now);
        self.release(&instance);
        let gone = Instance { goal: instance.goal, ..instance };
        self.after(&gone, now);
    }

    /// An agent is not heard of any more: what runs there is unreachable.
    pub(super) fn silence(&mut self, host: &str, now: Stamp) {
        let Some(agent) = self.agents.get_mut(host) else { return };
        agent.silent = true;
        for (app, uuid) in self.on(host) {
            let Some(instance) = self.instance_mut(&app, &uuid) else { continue };
            instance.enter(Phase::Unreachable, now);
            self.changed(&app, &uuid, now);
            self.busy.insert(app);
        }
    }

    /// It is heard of again, with what `alive` says still runs there.
    pub(super) fn hear(&mut self, host: &str, alive: &BTreeSet<String>, now: Stamp) {
        let release = self.settings.release;
        let Some(agent) = self.agents.get_mut(host) else { return };
        agent.silent = false;
        for (app, uuid) in self.on(host) {
            let Some(instance) = self.instance_mut(&app, &uuid) else { continue };
            if alive.contains(&instance.task(release)) {
                let ran = instance.started.is_some();
                instance.enter(if ran { Phase::Running } else { Phase::Staging }, now);
                self.changed(&app, &uuid, now);
            } else {
                self.ended(&app, &uuid, End::Gone, "the agent returned without it", now);
            }
            // Perhaps another one took its place meanwhile.
            self.heal.insert(app.clone(), now);
            self.busy.insert(app);
        }
    }

    fn on(&self, host: &str) -> Vec<(AppId, String)> {
        let all = self.instances.values().flatten();
        all.filter(|i| i.agent.as_deref() == Some(host) && i.phase != Phase::Scheduled)
            .map(|i| (i.app.id.clone(), i.uuid.clone()))
            .collect()
    }

    /// What patience with silent agents has run out.
    pub(super) fn lose(&mut self, app: &AppId, now: Stamp) {
        let silent: Vec<Instance> =
            self.instances_of(app).iter().filter(|i| i.is_unreachable()).cloned().collect();
        for instance in silent {
            let Patience::Until { inactive, expunged } = instance.app.patience() else { continue };
            #[expect(clippy::cast_precision_loss, reason = "seconds of years are exact")]
            let [inactive, expunged] = [inactive, expunged]
                .map(|seconds| instance.since.plus(self.settings.seconds(seconds as f64)));
            if instance.phase == Phase::Unreachable && now >= inactive {
                if let Some(instance) = self.instance_mut(app, &instance.uuid) {
                    // Not by `enter`: both waits count from the same moment.
                    instance.phase = Phase::Inactive;
                }
                self.changed(app, &instance.uuid, now);
                self.heal.insert(app.clone(), now);
            }
            if now >= expunged {
                if let Some(instance) = self.instance_mut(app, &instance.uuid) {
                    instance.goal = Goal::Gone;
                }
                self.expunge(app, &instance.uuid, now);
                self.heal.insert(app.clone(), now);
            }
        }
    }

    /// Counts the instances of an app that no deployment is busy with: too few or too many are put right.
    pub(super) fn count(&mut self, app: &AppId, now: Stamp) {
        if self.is_locked(app) || self.heal.get(app).is_none_or(|at| *at > now) {
            return;
        }
        self.heal.remove(app);
        let Some(definition) = self.tree.apps.get(app).cloned() else {
            let orphans: Vec<String> =
                self.instances_of(app).iter().map(|i| i.uuid.clone()).collect();
            for uuid in &orphans {
                self.kill(app, uuid, Goal::Gone, now);
            }
            return;
        };
        let there = self.instances_of(app).iter().filter(|i| i.counts()).count();
        let wanted = definition.instances();
        if there < wanted {
            self.schedule(&definition, wanted - there, now);
        } else {
            let none = BTreeSet::new();
            for uuid in self.victims(&definition, there - wanted, &none) {
                self.kill(app, &uuid, Goal::Gone, now);
            }
        }
    }

    /// Who goes when so many must: first whoever was named, then by constraints, state and age.
    pub(super) fn victims(
        &self,
        definition: &super::app::App,
        count: usize,
        named: &BTreeSet<String>,
    ) -> Vec<String> {
        let all = self.instances_of(&definition.id).iter().filter(|i| i.counts());
        let mut left: Vec<&Instance> = all.collect();
        let mut gone = Vec::new();
        let oldest = definition.kills_oldest_first();
        let fields: Vec<&str> = definition
            .constraints()
            .iter()
            .filter(|[_, operator, _]| operator.eq_ignore_ascii_case("GROUP_BY"))
            .map(|[field, _, _]| *field)
            .collect();
        while gone.len() < count && !left.is_empty() {
            let crowd = |i: &Instance| {
                let same = |other: &&&Instance| {
                    fields
                        .iter()
                        .all(|field| self.value_of(i, field) == self.value_of(other, field))
                };
                if fields.is_empty() { 0 } else { left.iter().filter(same).count() }
            };
            let age = |i: &Instance| {
                let since = i.started.unwrap_or(i.since).0;
                if oldest { since } else { u64::MAX - since }
            };
            let rank = |i: &&Instance| {
                let most = usize::MAX - crowd(i);
                (!named.contains(&i.uuid), most, i.weight(), age(i), i.uuid.clone())
            };
            let Some(next) = left.iter().min_by_key(|i| rank(i)).map(|i| i.uuid.clone()) else {
                break;
            };
            left.retain(|i| i.uuid != next);
            gone.push(next);
        }
        gone
    }

    fn value_of(&self, instance: &Instance, field: &str) -> Option<String> {
        let agent = self.agents.get(instance.agent.as_ref()?)?;
        match field {
            "hostname" | "@hostname" => Some(agent.host.clone()),
            "@region" => agent.region.clone(),
            "@zone" => agent.zone.clone(),
            name => agent.attributes.get(name).cloned(),
        }
    }
}

/// Health that somebody may look at.
pub(super) fn known(instance: &Instance) -> impl Iterator<Item = &Health> {
    instance.health.iter().flatten()
}
