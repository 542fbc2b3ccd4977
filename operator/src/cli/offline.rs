//! Commands that change nothing: `plan`, `check`, `render`, `crd`, `schema`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::args::{CheckArgs, Output, PlanArgs, RenderArgs, SchemaArgs};
use super::once::{self, Once};
use super::output::{self, put};
use super::{CliError, Exit, Terminal, print_problems};
use crate::backend::docker::rendered;
use crate::backend::platform::Platform;
use crate::backend::{Backend, Watch, marathon};
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::config::FileSecrets;
use crate::edge;
use crate::fake::scenario::Scenario;
use crate::keep::StoreKeeper;
use crate::model::app::render::render as app_of;
use crate::model::{
    Desired, Elsewhere, Fleet, FleetName, HealthState, HostName, HostView, Memory, Outward,
    OwnerId, Published, Secret, Seen, Slot, Start, World,
};
use crate::plan::{Input, localise, plan, traffic};
use crate::reconcile::Keeper;
use crate::report::plan_view;
use crate::report::text::render_plans;
use crate::report::view::{PlanView, ProblemView};
use crate::source::load::{APPLIED, context, parse_tree};
use crate::source::parse::{Applied, Secrets};
use crate::source::{self, Tree};

/// How long `plan` waits for hosts to answer, and then for their instances' health.
const ANSWER: Duration = Duration::from_secs(10);
const HEALTH: Duration = Duration::from_secs(3);

/// What `plan -o json` prints.
#[derive(serde::Serialize)]
struct Plans<'a> {
    plans: &'a [PlanView],
    problems: &'a [ProblemView],
}

/// `evenkeel plan`.
pub async fn plan_once(
    args: &PlanArgs,
    output: Output,
    term: Terminal,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    if args.demo {
        return demo(out);
    }
    let clock = Clock::real();
    let Once { owner, tree, secrets, store } = once::read(args, &clock).await?;
    let applied = store
        .as_ref()
        .and_then(|s| s.load(APPLIED).ok().flatten())
        .and_then(|b| Applied::from_json(&String::from_utf8_lossy(&b)).ok())
        .unwrap_or_default();
    let (whose, theirs) = (owner.clone(), secrets.clone());
    // A secret of a cluster is waited for.
    let (desired, _) =
        waited(move || parse_tree(&tree, &context(&whose, &*theirs, &applied))).await;
    let mut looked = Vec::new();
    for fleet in desired.fleets.values() {
        let mut memory = match &store {
            Some(store) => {
                let keeper = StoreKeeper::new(store.clone(), owner.clone(), secrets.clone());
                let name = fleet.name.clone();
                waited(move || keeper.load(&name)).await
            }
            None => Memory::default(),
        };
        // As the agent does at its start: a rollout under way is not one that has failed.
        memory.resume(clock.now());
        let (hosts, silent) = look(&owner, fleet, &desired, &clock).await;
        for (host, why) in silent {
            let _ = put(&mut std::io::stderr(), &format!("warning: host {host}: {why}\n"));
        }
        looked.push((fleet, World { hosts, ..World::default() }, memory));
    }
    let plans = plans(&desired, looked, &clock);
    let problems: Vec<ProblemView> = desired.problems.iter().map(Into::into).collect();
    let _ = output::emit(out, output, &Plans { plans: &plans, problems: &problems }, || {
        let mut text = String::new();
        if !problems.is_empty() {
            text.push_str(&crate::report::text::render_problems(&problems, term.colour));
            text.push('\n');
        }
        text.push_str(&render_plans(&plans, term.colour));
        text
    })?;
    Ok(Exit::of_plan(&plans, &problems))
}

/// What each fleet would do, once all have heard what the others have.
fn plans(
    desired: &Desired,
    mut looked: Vec<(&Arc<Fleet>, World, Memory)>,
    clock: &Clock,
) -> Vec<PlanView> {
    let mut told: BTreeMap<FleetName, Arc<Outward>> = BTreeMap::new();
    let mut out = Vec::new();
    // What a fleet says depends on what it heard: what it has, then what it would do about it.
    for _ in 0..looked.len().min(3) {
        out.clear();
        let mut next = BTreeMap::new();
        for (fleet, world, memory) in &mut looked {
            let others = told.iter().filter(|(name, _)| **name != fleet.name);
            let said = others.map(|(name, said)| (name.clone(), said.clone())).collect();
            world.elsewhere = Elsewhere { said, unheard: Vec::new() };
            let local = localise(fleet, desired, world, clock.now());
            let desired = local.as_deref().unwrap_or(desired);
            traffic::observe(fleet, desired, world, clock.now());
            let plan = plan(&Input { fleet, desired, world, memory, now: clock.now() });
            next.insert(fleet.name.clone(), plan.edges.outward.clone());
            out.push(plan_view(fleet, desired, &plan, clock.now()));
        }
        told = next;
    }
    out
}

/// Does what may wait on a thread of its own.
async fn waited<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

/// Looks at every host of a fleet once; second, why some did not answer.
async fn look(
    owner: &OwnerId,
    fleet: &Arc<Fleet>,
    desired: &Desired,
    clock: &Clock,
) -> (BTreeMap<HostName, Arc<HostView>>, BTreeMap<HostName, String>) {
    let bell = Doorbell::new();
    let backend = Platform::new(owner.clone(), bell.clone(), clock.clone());
    backend.watch(Watch::of(fleet, desired));
    let all = |test: fn(&HostView) -> bool| backend.views().values().all(|v| test(v));
    let until = |test: fn(&HostView) -> bool, at_most| {
        let bell = &bell;
        let all = &all;
        async move {
            let _ = tokio::time::timeout(at_most, async {
                while !all(test) {
                    bell.rung().await;
                }
            })
            .await;
        }
    };
    until(|v| v.seen == Seen::Now, ANSWER).await;
    let asked = |v: &HostView| v.instances.iter().all(|i| i.health != HealthState::Unknown);
    until(asked, HEALTH).await;
    let views = backend.views();
    let silent = backend.problems();
    (views, silent)
}

/// `evenkeel plan --demo`: a world in the terminal, to ask what if.
fn demo(out: &mut dyn Write) -> Result<Exit, CliError> {
    let lines = std::io::stdin().lines();
    let _ = put(out, "a simulated world: two hosts and a service; `help` lists what can happen\n")?;
    let mut scenario = Scenario::default();
    let begin = ["host h1 zone=a", "host h2 zone=b", "commit web replicas=3 image=toy:1", "settle"];
    let begin = begin.into_iter().map(|l| (true, l.to_owned()));
    let typed = lines.map_while(Result::ok).map(|l| (false, l));
    for (echo, line) in begin.chain(typed) {
        if echo {
            let _ = put(out, &format!("> {line}\n"))?;
        }
        if matches!(line.trim(), "quit" | "exit") {
            break;
        }
        let answer = match scenario.line(&line) {
            // An event says nothing by itself; whoever asks "what if" wants the plan that follows.
            Ok(answer) if answer.is_empty() && is_event(&line) => {
                scenario.line("show plan").unwrap_or_default()
            }
            Ok(answer) => answer,
            Err(e) => format!("error: {e}\nhint: try `help`\n"),
        };
        let _ = put(out, &answer)?;
        let _ = out.flush();
    }
    Ok(Exit::Fine)
}

fn is_event(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#') && !line.starts_with("host ")
}

/// Every secret is there and worth nothing: documents are checked where their secrets are not.
struct AnySecret;

impl Secrets for AnySecret {
    fn get(&self, name: &str, key: &str) -> Result<Secret, String> {
        Ok(Secret::new(&format!("(secret {name}/{key})")))
    }

    fn are_stand_ins(&self) -> bool {
        true
    }
}

/// Reads a file or a directory as one source, with paths as they were given.
fn read(path: &Path) -> Result<Tree, CliError> {
    let meta = std::fs::metadata(path).map_err(|e| {
        CliError::new(format!("{}: {e}", path.display()))
            .hint("give a file or a directory that exists")
    })?;
    let limits = source::Limits::default();
    if meta.is_dir() {
        let dir = source::dir::Dir::new(path, limits);
        return dir.read().map_err(|e| CliError { message: e.chain(), hint: e.hint() });
    }
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut tree = Tree {
        objects: None,
        revision: "check".into(),
        describe: None,
        files: BTreeMap::new(),
        skipped: Vec::new(),
    };
    if meta.len() > limits.max_file_bytes {
        let why = format!("larger than {} bytes", limits.max_file_bytes);
        tree.skipped.push(source::Skipped { path: name, why });
    } else {
        let bytes =
            std::fs::read(path).map_err(|e| CliError::new(format!("{}: {e}", path.display())))?;
        tree.files.insert(name, bytes.into());
    }
    Ok(tree)
}

fn nobody() -> Result<OwnerId, CliError> {
    OwnerId::new("check").map_err(|e| CliError::new(e.to_string()))
}

/// `evenkeel check`.
pub fn check(
    args: &CheckArgs,
    output: Output,
    term: Terminal,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let owner = nobody()?;
    // Without a place for them secrets are taken to be there and good.
    let files = args.secrets.clone().map(|dir| FileSecrets::new(Some(dir)));
    let secrets: &dyn Secrets = match &files {
        Some(files) => files,
        None => &AnySecret,
    };
    let mut problems: Vec<ProblemView> = Vec::new();
    for path in &args.paths {
        let tree = read(path)?;
        let nothing = Applied::default();
        let (desired, _) = parse_tree(&tree, &context(&owner, secrets, &nothing));
        let root = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
        problems.extend(desired.problems.into_iter().map(|mut p| {
            if let Some(root) = root {
                p.path = root.join(&p.path).display().to_string();
            }
            ProblemView::from(&p)
        }));
    }
    let _ = print_problems(&problems, output, term, out)?;
    Ok(Exit::of_check(&problems))
}

/// `evenkeel render`.
pub fn render(
    args: &RenderArgs,
    output: Output,
    term: Terminal,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let owner = nobody()?;
    let tree = read(&args.path)?;
    let nothing = Applied::default();
    let (desired, _) = parse_tree(&tree, &context(&owner, &AnySecret, &nothing));
    if !desired.problems.is_empty() {
        let problems: Vec<ProblemView> = desired.problems.iter().map(Into::into).collect();
        let _ = print_problems(&problems, output, term, out)?;
        return Ok(Exit::Problem);
    }
    let wanted = |name| args.service.as_ref().is_none_or(|s| s == name);
    let mut all: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    let mut pages = String::new();
    for service in desired.services.values().filter(|s| wanted(&s.name)) {
        for cluster in service.fleets().filter_map(|f| desired.fleets.get(f)) {
            let Some(spec) = &cluster.marathon else { continue };
            let id = service.app_id(&spec.group);
            let definition = app_of(service, &service.spec, spec);
            let app = (&id, &definition, service.share(&cluster.name).unwrap_or_default());
            let app = marathon::rendered(&owner, &cluster.name, &service.name, service.hash, app);
            all.insert(format!("{}{id}", cluster.name), app);
        }
        let docker = service.fleets().filter_map(|f| desired.fleets.get(f));
        let docker = docker.filter(|f| f.marathon.is_none()).find_map(|f| f.hosts.keys().next());
        let Some(host) = docker else { continue };
        let published = service.spec.ports.iter().filter_map(|p| {
            let host = p.publish?;
            Some(Published { container: p.container, host, protocol: p.protocol })
        });
        let start = Start {
            host: host.clone(),
            name: format!("{}_1", service.name).into(),
            service: service.name.clone(),
            slot: Slot(1),
            hash: service.hash,
            spec: service.spec.clone(),
            published: published.collect(),
            stop_signal: service.termination.signal.clone(),
        };
        let container = rendered(&owner, &service.fleet, &start);
        let routing = desired.routings.get(&service.name);
        if routing.is_none_or(|r| r.external.is_empty()) {
            let container = serde_json::to_value(container).unwrap_or_default();
            all.insert(start.name.to_string(), container);
        }
        if let Some(routing) = routing {
            let edge::Preview { file, text, problem } = edge::preview(routing);
            let _ = write!(pages, "\n# {file} of {}\n", service.name);
            if let Some(problem) = problem {
                let _ = writeln!(pages, "# {problem}");
            }
            pages.push_str(&text);
            all.insert(format!("{}/{file}", service.name), text.into());
        }
    }
    if all.is_empty() {
        return Err(CliError::new("there is no such service")
            .hint("`evenkeel render PATH` without --service shows all there are"));
    }
    let _ = output::emit(out, output, &all, || {
        let containers: BTreeMap<_, _> = all.iter().filter(|(_, what)| !what.is_string()).collect();
        let mut text = serde_json::to_string_pretty(&containers).unwrap_or_default();
        text.push('\n');
        text + &pages
    })?;
    Ok(Exit::Fine)
}

/// `evenkeel crd`.
pub fn crd(out: &mut dyn Write) -> Result<Exit, CliError> {
    for (_, text) in evenkeel_crds::crds() {
        let _ = put(out, &format!("---\n{}\n", text.trim_end()))?;
    }
    Ok(Exit::Fine)
}

/// `evenkeel schema`.
pub fn schema(args: &SchemaArgs, out: &mut dyn Write) -> Result<Exit, CliError> {
    let wanted = args.kind.as_deref().unwrap_or("evenkeel").to_lowercase();
    let file = format!("{wanted}.schema.json");
    let schemas = evenkeel_crds::json_schemas();
    let Some((_, text)) = schemas.into_iter().find(|(name, _)| *name == file) else {
        return Err(CliError::new(format!("there is no kind {wanted:?}"))
            .hint("the kinds are Fleet, LoadBalancer and ScalingService"));
    };
    let _ = put(out, &text)?;
    Ok(Exit::Fine)
}
