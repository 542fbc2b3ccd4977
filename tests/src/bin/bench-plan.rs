//! Measures the planner alone, on one core: prints one JSON row a size, for `cargo xtask bench`.
//!
//! Times are the best of a few runs, as the planner is pure and only noise can make it slower.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends")]
#![allow(clippy::print_stdout, reason = "the rows are its output")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use evenkeel::fake::make;
use evenkeel::model::{
    Desired, Fleet, FleetName, HealthState, HostName, HostView, Instance, InstanceId, Limits,
    Memory, Plan, Resources, Revision, Seen, State, Step, Time, Traffic, World,
};
use evenkeel::plan::{Input, plan};

const NOW: Time = Time(1_000_000_000);

fn fleet(hosts: usize) -> Fleet {
    let hosts = (0..hosts).map(|n| {
        let zone = format!("z{}", n % 5);
        make::host(&format!("h{n:05}"), &[("zone", &zone)]).unwrap()
    });
    Fleet {
        name: FleetName::of_default(),
        hosts: hosts.map(|h| (h.name.clone(), Arc::new(h))).collect(),
        marathon: None,
        limits: Limits { parallel_starts_per_host: u32::MAX, ..Limits::default() },
        registry: None,
        approved_prune: None,
    }
}

fn desired(fleet: &Fleet, services: usize) -> Desired {
    let services = (0..services).map(|n| {
        let mut s = make::service(&format!("s{n:06}"), 10, "registry/app:1").unwrap();
        make::respec(&mut s, |i| {
            i.resources = Resources { cpu_millis: 100, memory_bytes: 64 << 20 };
        });
        s.placement.spread_by = (n % 2 == 0).then(|| "zone".to_owned());
        (s.name.clone(), Arc::new(s))
    });
    Desired {
        revision: Revision("0123456789abcdef".into()),
        services: services.collect(),
        fleets: BTreeMap::from([(fleet.name.clone(), Arc::new(fleet.clone()))]),
        routings: BTreeMap::new(),
        held: BTreeSet::new(),
        problems: Vec::new(),
        removal: evenkeel::model::Removal::default(),
    }
}

fn empty_world(fleet: &Fleet) -> World {
    let mut view = HostView::never(NOW);
    view.seen = Seen::Now;
    view.capacity = Resources { cpu_millis: 64_000, memory_bytes: 256 << 30 };
    let hosts = fleet.hosts.keys().map(|n| (n.clone(), Arc::new(view.clone())));
    World { hosts: hosts.collect(), ..World::default() }
}

/// The world after every start of the plan has succeeded long ago.
fn settled_world(fleet: &Fleet, plan: &Plan) -> World {
    let mut world = empty_world(fleet);
    let mut by_host: BTreeMap<&HostName, Vec<Instance>> = BTreeMap::new();
    for (n, planned) in plan.steps.iter().enumerate() {
        let Step::Start(s) = &*planned.step else { continue };
        by_host.entry(&s.host).or_default().push(Instance {
            id: InstanceId(format!("{n:064x}").into()),
            name: s.name.clone(),
            service: s.service.clone(),
            slot: s.slot,
            hash: s.hash,
            state: State::Running,
            health: HealthState::Healthy { since: Time(0) },
            created: Time(0),
            resources: s.spec.resources,
            published: Vec::new(),
            bindings: Vec::new(),
            networks: Vec::new(),
            at: None,
            traffic: Traffic::None,
        });
    }
    for (host, instances) in by_host {
        Arc::make_mut(world.hosts.get_mut(host).unwrap()).instances = instances;
    }
    world
}

fn best(runs: u32, mut run: impl FnMut() -> usize) -> (f64, usize) {
    let mut best = f64::MAX;
    let mut out = 0;
    for _ in 0..runs {
        let begun = Instant::now();
        out = run();
        best = best.min(begun.elapsed().as_secs_f64() * 1000.0);
    }
    (best, out)
}

/// The most memory this process has had, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() {
    for (services, hosts) in [(100, 50), (1000, 100), (1000, 500), (3000, 1500), (10_000, 5000)] {
        let fleet = fleet(hosts);
        let desired = desired(&fleet, services);
        let empty = empty_world(&fleet);
        let mut memory = Memory::default();
        let planned = |world: &World, memory: &Memory| {
            plan(&Input { fleet: &fleet, desired: &desired, world, memory, now: NOW })
        };
        let (from_nothing, placed) = best(3, || planned(&empty, &memory).steps.len());
        assert_eq!(placed, services * 10, "not everything was placed");
        let first = planned(&empty, &memory);
        let world = settled_world(&fleet, &first);
        drop(first);
        memory.take(&planned(&world, &memory).notes);
        memory.take(&planned(&world, &memory).notes);
        let (steady, steps) = best(5, || planned(&world, &memory).steps.len());
        assert_eq!(steps, 0, "a settled world has steps");
        let mut lost = world.clone();
        let host = lost.hosts.values_mut().next().unwrap();
        let on_it = host.instances.len();
        Arc::make_mut(host).seen = Seen::Silent { since: Time(0) };
        let (replan, steps) = best(5, || planned(&lost, &memory).steps.len());
        assert_eq!(steps, on_it, "a lost host costs one start for each of its instances");
        println!(
            "{{\"services\":{services},\"hosts\":{hosts},\"instances\":{},\
             \"from_nothing_ms\":{from_nothing:.2},\"steady_ms\":{steady:.2},\
             \"lost_host_ms\":{replan:.2},\"peak_mib\":{}}}",
            services * 10,
            peak_mib()
        );
    }
}
