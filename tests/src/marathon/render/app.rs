//! Apps, with what is embedded into them.

use serde_json::{Value, json};

use super::super::app::App;
use super::super::instance::{Instance, Phase};
use super::super::release::Release;
use super::super::stamp::Stamp;
use super::super::state::State;
use super::{failure, old, task};

/// What an answer has besides the definition.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
pub(in super::super) struct Embed {
    pub(in super::super) tasks: bool,
    pub(in super::super) counts: bool,
    pub(in super::super) deployments: bool,
    pub(in super::super) readiness: bool,
    pub(in super::super) failure: bool,
    pub(in super::super) stats: bool,
}

impl Embed {
    /// Of what a client asked for; what is unknown is nothing.
    pub(in super::super) fn of<'q>(asked: impl Iterator<Item = &'q str>) -> Self {
        let mut embed = Self::default();
        for name in asked {
            let plain = ["group.apps.", "apps.", "app."].iter().find_map(|p| name.strip_prefix(p));
            match plain.unwrap_or(name) {
                // That tasks bring deployments is said to be an accident.
                "tasks" => (embed.tasks, embed.deployments) = (true, true),
                "failures" => {
                    (embed.tasks, embed.deployments, embed.failure) = (true, true, true);
                }
                "counts" => embed.counts = true,
                "deployments" => embed.deployments = true,
                "readiness" => embed.readiness = true,
                "lastTaskFailure" => embed.failure = true,
                "taskStats" => embed.stats = true,
                _ => {}
            }
        }
        embed
    }
}

/// The definition alone.
pub(in super::super) fn app(app: &App, release: Release) -> Value {
    let mut shown = if release.has(5) { new(app, release) } else { old::app(app) };
    shown["version"] = app.version.json();
    shown["versionInfo"] = json!({
        "lastScalingAt": app.scaled.json(), "lastConfigChangeAt": app.configured.json(),
    });
    shown
}

/// As releases from 1.5 on write it.
fn new(app: &App, release: Release) -> Value {
    let mut fields = app.fields.clone();
    fields.insert("id".into(), app.id.json());
    if release.has(9) {
        for name in ["cpus", "mem", "disk", "backoffFactor"] {
            if let Some(value) = fields.get_mut(name) {
                point(value);
            }
        }
        if let Some(Value::Object(strategy)) = fields.get_mut("upgradeStrategy") {
            strategy.values_mut().for_each(point);
        }
    }
    Value::Object(fields)
}

/// Later releases write every fraction with a point.
fn point(value: &mut Value) {
    if let Some(number) = value.as_f64() {
        *value = number.into();
    }
}

/// The definition with what is embedded.
pub(in super::super) fn info(state: &State, definition: &App, embed: Embed, now: Stamp) -> Value {
    let release = state.settings.release;
    let mut shown = app(definition, release);
    let all = state.instances_of(&definition.id);
    if embed.counts {
        let counts = Counts::of(all.iter());
        shown["tasksStaged"] = counts.staged.into();
        shown["tasksRunning"] = counts.running.into();
        shown["tasksHealthy"] = counts.healthy.into();
        shown["tasksUnhealthy"] = counts.unhealthy.into();
    }
    if embed.deployments {
        let ids =
            state.deployments_of(&definition.id).map(|deployment| json!({"id": deployment.id}));
        shown["deployments"] = ids.collect();
    }
    if embed.readiness {
        shown["readinessCheckResults"] = super::rest::readiness(state, &definition.id).into();
    }
    if embed.tasks {
        shown["tasks"] = all.iter().filter_map(|instance| task(state, instance, false)).collect();
    }
    if embed.failure
        && let Some(last) = state.failures.get(&definition.id)
    {
        shown["lastTaskFailure"] = failure(&definition.id, last);
    }
    if embed.stats {
        let name = if release.has(9) { "tasksStats" } else { "taskStats" };
        shown[name] = stats(definition, all, now);
    }
    shown
}

#[derive(Default)]
struct Counts {
    staged: usize,
    running: usize,
    healthy: usize,
    unhealthy: usize,
}

impl Counts {
    fn of<'i>(instances: impl Iterator<Item = &'i Instance>) -> Self {
        let mut counts = Self::default();
        for instance in instances {
            match instance.phase {
                Phase::Staging => counts.staged += 1,
                Phase::Running | Phase::Killing => counts.running += 1,
                Phase::Scheduled | Phase::Unreachable | Phase::Inactive => continue,
            }
            // Nobody is healthy whom nobody looks at.
            match (instance.health.is_empty(), instance.healthy()) {
                (false, Some(true)) => counts.healthy += 1,
                (false, Some(false)) => counts.unhealthy += 1,
                (true, _) | (_, None) => {}
            }
        }
        counts
    }
}

fn stats(definition: &App, all: &[Instance], now: Stamp) -> Value {
    let of = |which: &dyn Fn(&&Instance) -> bool| -> Option<Value> {
        let some: Vec<&Instance> =
            all.iter().filter(|i| i.phase != Phase::Scheduled).filter(which).collect();
        let counts = Counts::of(some.iter().copied());
        let mut ages: Vec<f64> =
            some.iter().filter_map(|i| Some(now.since(i.started?).as_secs_f64())).collect();
        ages.sort_by(f64::total_cmp);
        if some.is_empty() {
            return None;
        }
        let mut stats = json!({"counts": {
            "staged": counts.staged, "running": counts.running,
            "healthy": counts.healthy, "unhealthy": counts.unhealthy,
        }});
        if !ages.is_empty() {
            #[expect(clippy::cast_precision_loss, reason = "counts are small")]
            let average = ages.iter().sum::<f64>() / ages.len() as f64;
            let median = ages[ages.len() / 2];
            stats["lifeTime"] = json!({"averageSeconds": average, "medianSeconds": median});
        }
        Some(json!({"stats": stats}))
    };
    let mut shown = json!({});
    let mut put = |name: &str, stats: Option<Value>| {
        if let Some(stats) = stats {
            shown[name] = stats;
        }
    };
    put("startedAfterLastScaling", of(&|i| i.app.version >= definition.scaled));
    put("withLatestConfig", of(&|i| i.app.version >= definition.configured));
    put("withOutdatedConfig", of(&|i| i.app.version < definition.configured));
    put("totalSummary", of(&|_| true));
    shown
}
