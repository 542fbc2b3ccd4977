//! What Prometheus is told: a closed set of series whose labels are closed words or names of the
//! user's own objects, never the text of an error.
//!
//! Counters and histograms live as long as the agent. Gauges are made anew for each scrape from the
//! state as it is, so the series of a service that is gone are gone too.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::model::Planned;

/// The media type of what [`Metrics::render`] gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds. A pass reads memory only: a thousand instances take about a millisecond, and whatever
/// takes more than a hundred is a fault. Four to a step shows which order of magnitude it is.
const PASS: [f64; 8] = [0.000_1, 0.000_4, 0.001_6, 0.006_4, 0.025, 0.1, 0.4, 1.6];
/// Seconds. Starting a container takes 0.2 to 2, a graceful stop up to its grace of 10 or 30, and an
/// image pull minutes.
const STEP: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    kind: &'static str,
    reason: &'static str,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Outcome {
    Ok,
    Failed,
}

impl EncodeLabelValue for Outcome {
    fn encode(
        &self,
        e: &mut prometheus_client::encoding::LabelValueEncoder,
    ) -> Result<(), std::fmt::Error> {
        let word = match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        };
        EncodeLabelValue::encode(&word, e)
    }
}

/// What is written to a Kubernetes API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApiWrite {
    /// Who holds an object that is being deleted.
    Finalizers,
    /// A status.
    Status,
    /// An event.
    Event,
    /// The lease.
    Lease,
}

impl EncodeLabelValue for ApiWrite {
    fn encode(
        &self,
        e: &mut prometheus_client::encoding::LabelValueEncoder,
    ) -> Result<(), std::fmt::Error> {
        let word = match self {
            Self::Finalizers => "finalizers",
            Self::Status => "status",
            Self::Event => "event",
            Self::Lease => "lease",
        };
        EncodeLabelValue::encode(&word, e)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    what: ApiWrite,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    fleet: String,
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HostLabels {
    fleet: String,
    host: String,
}

/// The present moment in numbers.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Seconds since the source was read with success.
    pub source_age: Option<f64>,
    /// Problems of the revision.
    pub source_problems: u32,
    /// Steps under way.
    pub in_flight: u32,
    /// Waits by kind.
    pub waiting: BTreeMap<&'static str, u32>,
    /// Services.
    pub services: Vec<ServiceGauges>,
    /// Hosts.
    pub hosts: Vec<HostGauges>,
}

/// A service in numbers.
#[derive(Debug, Clone)]
pub struct ServiceGauges {
    /// Its fleet.
    pub fleet: String,
    /// Its name.
    pub service: String,
    /// How many are asked for.
    pub desired: u32,
    /// Healthy.
    pub ready: u32,
    /// Healthy for long enough, and up in every balancer.
    pub available: u32,
    /// Of the spec in force.
    pub updated: u32,
}

/// A host in numbers.
#[derive(Debug, Clone)]
pub struct HostGauges {
    /// Its fleet.
    pub fleet: String,
    /// Its name.
    pub host: String,
    /// Whether it answers.
    pub up: bool,
    /// Our instances on it, as last seen.
    pub instances: u32,
}

/// What is counted as long as the agent lives.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    passes: Counter,
    pass_duration: Histogram,
    steps: Family<StepLabels, Counter>,
    step_duration: Family<KindLabel, Histogram, fn() -> Histogram>,
    api_writes: Family<ApiLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("evenkeel");
        let passes = Counter::default();
        registry.register("passes", "Passes of the loop over a fleet", passes.clone());
        let pass_duration = Histogram::new(PASS);
        registry.register(
            "pass_duration_seconds",
            "How long a pass takes, without the steps that it begins",
            pass_duration.clone(),
        );
        let steps = Family::<StepLabels, Counter>::default();
        registry.register("steps", "Steps that ended", steps.clone());
        let step_duration: Family<KindLabel, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(STEP));
        registry.register(
            "step_duration_seconds",
            "How long a step takes, well ended or not",
            step_duration.clone(),
        );
        let api_writes = Family::<ApiLabels, Counter>::default();
        let help = "Writes to the Kubernetes API server that were answered, or waited for in vain";
        registry.register("kubernetes_writes", help, api_writes.clone());
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of the agent", build);
        Self { registry, passes, pass_duration, steps, step_duration, api_writes }
    }

    /// A pass ended.
    pub fn pass(&self, took: Duration) {
        self.passes.inc();
        self.pass_duration.observe(took.as_secs_f64());
    }

    /// A step ended.
    pub fn step(&self, planned: &Planned, took: Duration, well: bool) {
        let kind = planned.step.kind();
        let outcome = if well { Outcome::Ok } else { Outcome::Failed };
        let labels = StepLabels { kind, reason: planned.reason.kind(), outcome };
        self.steps.get_or_create(&labels).inc();
        self.step_duration.get_or_create(&KindLabel { kind }).observe(took.as_secs_f64());
    }

    /// Something was written to the API server, or not.
    pub fn api_write(&self, what: ApiWrite, well: bool) {
        let outcome = if well { Outcome::Ok } else { Outcome::Failed };
        self.api_writes.get_or_create(&ApiLabels { what, outcome }).inc();
    }

    /// Everything as text for Prometheus.
    pub fn render(&self, now: &Gauges) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail; a metric that could not be written is left out.
        let _ = encode_registry(&mut out, &self.registry);
        let _ = encode_registry(&mut out, &present(now));
        let _ = encode_registry(&mut out, &process());
        let _ = encode_eof(&mut out);
        out
    }
}

fn present(now: &Gauges) -> Registry {
    let mut r = Registry::with_prefix("evenkeel");
    let Gauges { source_age, source_problems, in_flight, waiting, services, hosts } = now;
    if let Some(age) = source_age {
        let g = Gauge::<f64, AtomicU64>::default();
        g.set(*age);
        r.register("source_age_seconds", "Time since the source was read with success", g);
    }
    r.register("source_problems", "Problems of the newest revision", gauge(*source_problems));
    r.register("steps_in_flight", "Steps under way", gauge(*in_flight));

    let w = Family::<KindLabel, Gauge>::default();
    for (kind, n) in waiting {
        w.get_or_create(&KindLabel { kind }).set(i64::from(*n));
    }
    r.register("waiting", "What is waited for, by kind", w);

    let families: [Family<ServiceLabels, Gauge>; 4] = std::array::from_fn(|_| Family::default());
    for s in services {
        let ServiceGauges { fleet, service, desired, ready, available, updated } = s;
        let labels = ServiceLabels { fleet: fleet.clone(), service: service.clone() };
        for (family, n) in families.iter().zip([desired, ready, available, updated]) {
            family.get_or_create(&labels).set(i64::from(*n));
        }
    }
    let [desired, ready, available, updated] = families;
    r.register("service_desired", "Instances asked for", desired);
    r.register("service_ready", "Healthy instances", ready);
    r.register("service_available", "Instances that clients can count on", available);
    r.register("service_updated", "Instances of the spec in force", updated);

    let up = Family::<HostLabels, Gauge>::default();
    let held = Family::<HostLabels, Gauge>::default();
    for h in hosts {
        let labels = HostLabels { fleet: h.fleet.clone(), host: h.host.clone() };
        up.get_or_create(&labels).set(i64::from(h.up));
        held.get_or_create(&labels).set(i64::from(h.instances));
    }
    r.register("host_up", "Whether a host answers", up);
    r.register("host_instances", "Our instances on a host, as last seen", held);
    r
}

fn gauge(n: u32) -> Gauge {
    let g = Gauge::<i64>::default();
    g.set(i64::from(n));
    g
}

/// What the kernel says of this process; nothing where there is no `/proc`.
fn process() -> Registry {
    let mut r = Registry::with_prefix("process");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|v| v.trim().strip_suffix(" kB"))
        .and_then(|v| v.trim().parse::<i64>().ok());
    if let Some(kib) = resident {
        let g = Gauge::<i64>::default();
        g.set(kib.saturating_mul(1024));
        r.register("resident_memory_bytes", "Resident memory", g);
    }
    // Behind the name, which is in parentheses and may hold anything: fields 14 and 15 of
    // proc(5), counted from 3, in hundredths of a second on every Linux that Rust runs on.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: Vec<u32> = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split(' ').skip(11).take(2).filter_map(|f| f.parse().ok()).collect())
        .unwrap_or_default();
    if let [user, system] = ticks[..] {
        let seconds = (f64::from(user) + f64::from(system)) / 100.0;
        r.register("cpu_seconds", "Processor time, user and system", ConstCounter::new(seconds));
    }
    r
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line is a comment or `name{labels} value`, and the text has an end.
    #[test]
    fn the_text_parses_and_ends() {
        let m = Metrics::new();
        m.pass(Duration::from_micros(300));
        m.api_write(ApiWrite::Status, true);
        let g = Gauges {
            services: vec![ServiceGauges {
                fleet: "shop".into(),
                service: "web".into(),
                desired: 3,
                ready: 2,
                available: 1,
                updated: 3,
            }],
            waiting: [("floor", 2)].into(),
            ..Gauges::default()
        };
        let text = m.render(&g);
        assert!(text.ends_with("# EOF\n"));
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(name.starts_with("evenkeel_") || name.starts_with("process_"), "{line}");
        }
        for expected in [
            "evenkeel_passes_total 1\n",
            "evenkeel_pass_duration_seconds_bucket{le=\"0.0004\"} 1\n",
            "evenkeel_service_available{fleet=\"shop\",service=\"web\"} 1\n",
            "evenkeel_kubernetes_writes_total{what=\"status\",outcome=\"ok\"} 1\n",
            "evenkeel_waiting{kind=\"floor\"} 2\n",
            "evenkeel_steps_in_flight 0\n",
            concat!("evenkeel_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n"),
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
        assert!(!m.render(&Gauges::default()).contains("service=\"web\""), "the series stayed");
        let names: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), unique.len(), "a metric is declared twice: {names:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_is_measured() {
        let text = Metrics::new().render(&Gauges::default());
        let rss = text.lines().find(|l| l.starts_with("process_resident_memory_bytes ")).unwrap();
        let bytes: u64 = rss.rsplit_once(' ').unwrap().1.parse().unwrap();
        assert!(bytes > 1 << 20 && bytes < 1 << 36, "{rss}");
        assert!(text.contains("process_cpu_seconds_total "), "{text}");
    }
}
