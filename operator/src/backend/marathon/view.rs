//! What is known of a cluster, kept right while answers overtake each other: pure, no I/O.
//!
//! Every observation takes a ticket when it is *begun*; what it says of an app is as new as its ticket or newer, and an answer
//! with an older one is discarded: a list that was begun before a change ended cannot undo what the change saw.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::labels::Me;
use super::task::{Checks, Reach, Sight, names, resources, state};
use super::wire::{App, Task, TaskState, UnderWay};
use crate::model::{
    AppId, AppView, Deployment, HostView, Instance, InstanceId, Seen, ServiceName, SpecHash, State,
    Time, Traffic, Whose,
};

/// When an observation was begun, in the cluster's own order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Ticket(u64);

/// One app of ours, or one that a document names.
#[derive(Debug)]
struct Known {
    app: App,
    whose: Whose,
    tasks: Vec<Task>,
    sights: BTreeMap<Arc<str>, Sight>,
    reach: Reach,
}

/// Everything that a look at the whole cluster saw.
#[derive(Debug, Default)]
pub(super) struct All {
    pub(super) apps: Vec<App>,
    pub(super) deployments: BTreeMap<Arc<str>, UnderWay>,
    pub(super) queued: BTreeMap<AppId, Vec<String>>,
}

/// All that is known of one cluster.
#[derive(Debug)]
pub(super) struct Live {
    me: Me,
    seen: Seen,
    /// The apps that documents name, and for which service.
    named: Arc<BTreeMap<AppId, ServiceName>>,
    /// Those of them that nobody has looked at since they are named.
    unread: BTreeSet<AppId>,
    apps: BTreeMap<AppId, Known>,
    /// The newest ticket that was heeded for an app, there or not.
    heeded: BTreeMap<AppId, Ticket>,
    deployments: BTreeMap<Arc<str>, UnderWay>,
    deployments_at: Ticket,
    queued: BTreeMap<AppId, Vec<String>>,
    agents: BTreeMap<String, IpAddr>,
    /// Names of agents that were looked up in vain.
    nameless: BTreeSet<String>,
    /// Tasks that we had ended: servers without the feature `task_killing` show them as running to their end.
    ending: BTreeSet<Arc<str>>,
    last: Ticket,
    published: Arc<HostView>,
}

impl Live {
    pub(super) fn new(me: Me, now: Time) -> Self {
        Self {
            me,
            seen: Seen::Never { since: now },
            named: Arc::default(),
            unread: BTreeSet::new(),
            apps: BTreeMap::new(),
            heeded: BTreeMap::new(),
            deployments: BTreeMap::new(),
            deployments_at: Ticket::default(),
            queued: BTreeMap::new(),
            agents: BTreeMap::new(),
            nameless: BTreeSet::new(),
            ending: BTreeSet::new(),
            last: Ticket::default(),
            published: Arc::new(HostView::never(now)),
        }
    }

    /// A ticket for an observation that is about to be asked for.
    pub(super) fn begin(&mut self) -> Ticket {
        self.last.0 += 1;
        self.last
    }

    /// The newest published view.
    pub(super) fn published(&self) -> Arc<HostView> {
        Arc::clone(&self.published)
    }

    /// Publishes what is known, if that is not what was published last.
    pub(super) fn publish(&mut self) -> bool {
        let view = self.view();
        let changed = view != *self.published;
        if changed {
            self.published = Arc::new(view);
        }
        changed
    }

    /// All that was to be seen has been seen.
    pub(super) fn arrived(&mut self) {
        self.seen = Seen::Now;
    }

    /// Nobody answers: what was known last is kept.
    pub(super) fn lost(&mut self, now: Time) {
        if self.seen == Seen::Now {
            self.seen = Seen::Silent { since: now };
        }
    }

    /// The apps that documents name from now on.
    pub(super) fn name(&mut self, named: Arc<BTreeMap<AppId, ServiceName>>) {
        let known = |id: &&AppId| self.named.contains_key(*id) || self.apps.contains_key(*id);
        self.unread.extend(named.keys().filter(|id| !known(id)).cloned());
        self.unread.retain(|id| named.contains_key(id));
        self.named = named;
        let (me, named) = (&self.me, &self.named);
        self.apps.retain(|id, known| is_kept(me, named, id, &known.app));
    }

    /// Those that are to be looked at because they were named, or the tasks of which are to be seen.
    pub(super) fn unread(&mut self) -> BTreeSet<AppId> {
        std::mem::take(&mut self.unread)
    }

    /// Whether an app concerns us.
    pub(super) fn is_ours_or_named(&self, app: &App) -> bool {
        is_kept(&self.me, &self.named, &app.id, app)
    }

    /// Whether an app concerns us, as far as is known.
    pub(super) fn knows(&self, id: &AppId) -> bool {
        self.apps.contains_key(id) || self.named.contains_key(id)
    }

    /// Whether a document names an app.
    pub(super) fn is_named(&self, id: &AppId) -> bool {
        self.named.contains_key(id)
    }

    /// Everything has been looked at.
    pub(super) fn listed(&mut self, begun: Ticket, all: All, now: Time) {
        let All { apps, deployments, queued } = all;
        let mut present = BTreeSet::new();
        for app in apps {
            present.insert(app.id.clone());
            self.take(begun, app, now);
        }
        let newer = |heeded: &BTreeMap<AppId, Ticket>, id: &AppId| {
            heeded.get(id).is_some_and(|at| *at > begun)
        };
        let heeded = &self.heeded;
        self.apps.retain(|id, _| present.contains(id) || newer(heeded, id));
        self.unread.retain(|id| !present.contains(id));
        // What is not there any more and was heeded before this list can no longer be contradicted by it.
        let apps = &self.apps;
        self.heeded.retain(|id, at| apps.contains_key(id) || *at > begun);
        self.deploying(begun, deployments);
        self.queued = queued;
    }

    /// One app has been looked at; `None`: there is none.
    pub(super) fn looked(&mut self, begun: Ticket, id: &AppId, app: Option<App>, now: Time) {
        self.unread.remove(id);
        match app {
            Some(app) => self.take(begun, app, now),
            None if self.is_newest(begun, id) => {
                self.heeded.insert(id.clone(), begun);
                self.apps.remove(id);
            }
            None => {}
        }
    }

    fn is_newest(&self, begun: Ticket, id: &AppId) -> bool {
        self.heeded.get(id).is_none_or(|at| *at <= begun)
    }

    fn take(&mut self, begun: Ticket, mut app: App, now: Time) {
        let id = app.id.clone();
        if !self.is_newest(begun, &id) {
            return;
        }
        if !self.is_ours_or_named(&app) {
            self.apps.remove(&id);
            return;
        }
        self.heeded.insert(id.clone(), begun);
        let before = self.apps.remove(&id);
        // Until everything was looked at, whatever runs may have run for days.
        let watched = self.seen == Seen::Now && before.is_some();
        let mut sights = before.map(|known| known.sights).unwrap_or_default();
        let checks = Checks::of(&app.definition);
        let tasks = app.tasks.take().unwrap_or_default();
        sights.retain(|id, _| tasks.iter().any(|task| task.id == *id));
        for task in &tasks {
            let sight =
                sights.entry(Arc::clone(&task.id)).or_insert_with(|| Sight::first(task, watched));
            sight.look(task, checks, now);
        }
        let whose = self.me.whose(&app.definition);
        let reach = Reach::of(&app.definition);
        self.apps.insert(id, Known { app, whose, tasks, sights, reach });
    }

    /// The deployments that are under way have been looked at.
    pub(super) fn deploying(&mut self, begun: Ticket, deployments: BTreeMap<Arc<str>, UnderWay>) {
        if begun >= self.deployments_at {
            self.deployments_at = begun;
            self.deployments = deployments;
        }
    }

    /// A change of ours has begun one.
    pub(super) fn deploys(&mut self, id: &str, app: &AppId) {
        self.deployments_at = self.begin();
        let it = UnderWay { apps: BTreeSet::from([app.clone()]), touches: 1 };
        self.deployments.entry(id.into()).or_insert(it);
    }

    /// These tasks were told to end.
    pub(super) fn told_to_end(&mut self, tasks: impl Iterator<Item = Arc<str>>) {
        self.ending.extend(tasks);
        let there = self.apps.values().flat_map(|known| &known.tasks);
        let there: BTreeSet<&Arc<str>> = there.map(|task| &task.id).collect();
        self.ending.retain(|id| there.contains(id));
    }

    /// One has ended.
    pub(super) fn ended(&mut self, id: &str) -> BTreeSet<AppId> {
        self.deployments_at = self.begin();
        let listed = self.deployments.remove(id).map(|it| it.apps).unwrap_or_default();
        let holding = self.apps.values().filter(|known| known.app.deployments.contains(id));
        holding.map(|known| known.app.id.clone()).chain(listed).collect()
    }

    /// How many deployments are under way.
    pub(super) fn under_way(&self) -> usize {
        self.deployments.len()
    }

    /// The queue has been looked at.
    pub(super) fn queueing(&mut self, queued: BTreeMap<AppId, Vec<String>>) {
        self.queued = queued;
    }

    /// Whether anything of ours is being changed, or wants for tasks.
    pub(super) fn is_moving(&self) -> bool {
        let short = |known: &Known| {
            let runs = |task: &&Task| task.state == TaskState::Running;
            let running = known.tasks.iter().filter(runs).count();
            running < usize::try_from(known.app.instances).unwrap_or(usize::MAX)
        };
        self.apps.values().any(|known| {
            known.whose != Whose::Others && (short(known) || !known.app.deployments.is_empty())
        })
    }

    /// Names of agents whose addresses are wanted.
    pub(super) fn hosts(&self) -> BTreeSet<String> {
        let tasks = self.apps.values().flat_map(|known| &known.tasks);
        let names = tasks.map(|task| &task.host);
        names.filter(|n| !n.is_empty() && n.parse::<IpAddr>().is_err()).cloned().collect()
    }

    /// Agents whose addresses are not known and were not looked for in vain.
    pub(super) fn unresolved(&self) -> BTreeSet<String> {
        let known = |name: &String| self.agents.contains_key(name) || self.nameless.contains(name);
        self.hosts().into_iter().filter(|name| !known(name)).collect()
    }

    /// The addresses of these agents were looked up; those that were not found keep the one that they had.
    pub(super) fn resolved(&mut self, asked: BTreeSet<String>, found: BTreeMap<String, IpAddr>) {
        self.agents.extend(found);
        self.nameless.extend(asked);
        let hosts = self.hosts();
        self.agents.retain(|name, _| hosts.contains(name));
        let agents = &self.agents;
        self.nameless.retain(|name| hosts.contains(name) && !agents.contains_key(name));
    }

    fn view(&self) -> HostView {
        let mut instances: Vec<Instance> =
            self.apps.values().flat_map(|known| self.instances(known)).collect();
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        let view = |known: &Known| Arc::new(self.app_view(known));
        let apps = self.apps.iter().map(|(id, known)| (id.clone(), view(known))).collect();
        HostView { seen: self.seen, instances, apps, ..HostView::never(Time(0)) }
    }

    /// The service that an app's tasks are instances of.
    fn service<'a>(&'a self, known: &'a Known) -> Option<&'a ServiceName> {
        match &known.whose {
            Whose::Ours { service, .. } => Some(service),
            Whose::Nobodys => self.named.get(&known.app.id),
            Whose::Others => None,
        }
    }

    fn instances(&self, known: &Known) -> Vec<Instance> {
        let Some(service) = self.service(known) else { return Vec::new() };
        let there: Vec<&Task> = known.tasks.iter().filter(|t| state(t).is_some()).collect();
        let names = names(service, &there);
        let hash = match &known.whose {
            Whose::Ours { hash, .. } => *hash,
            Whose::Nobodys | Whose::Others => None,
        };
        let resources = resources(&known.app.definition);
        let one = |task: &Task| {
            let (name, slot) = names.get(&task.id)?.clone();
            let (at, bindings) = known.reach.place(task, &self.agents);
            let hash = hash.filter(|_| is_current(&known.app, task)).unwrap_or(SpecHash(0));
            Some(Instance {
                id: InstanceId(Arc::clone(&task.id)),
                name,
                service: service.clone(),
                slot,
                hash,
                state: if self.ending.contains(&task.id) { State::Ending } else { state(task)? },
                health: known.sights.get(&task.id)?.health(),
                created: task.staged,
                resources,
                published: Vec::new(),
                bindings,
                networks: Vec::new(),
                at,
                traffic: Traffic::None,
            })
        };
        there.into_iter().filter_map(one).collect()
    }

    fn app_view(&self, known: &Known) -> AppView {
        let app = &known.app;
        // What is only named by the app itself may touch anything: it is not known to be this one's alone.
        let unlisted = app.deployments.iter().map(|id| (Arc::clone(id), usize::MAX));
        let listed = self.deployments.iter().filter(|(_, it)| it.apps.contains(&app.id));
        let listed = listed.map(|(id, it)| (Arc::clone(id), it.touches));
        let deployments = unlisted.chain(listed);
        let there = || known.tasks.iter().filter(|task| state(task).is_some());
        let of = |current: bool| {
            let those = there().filter(|task| is_current(app, task) == current);
            those.map(|task| InstanceId(Arc::clone(&task.id))).collect()
        };
        AppView {
            whose: known.whose.clone(),
            definition: Arc::clone(&app.definition),
            instances: app.instances,
            version: Arc::clone(&app.version),
            current: of(true),
            outdated: of(false),
            deployments: deployments.map(|(id, touches)| (id, Deployment { touches })).collect(),
            queued: self.queued.get(&app.id).cloned().unwrap_or_default(),
            last_failure: app.failure.clone(),
        }
    }
}

fn is_kept(me: &Me, named: &BTreeMap<AppId, ServiceName>, id: &AppId, app: &App) -> bool {
    named.contains_key(id) || matches!(me.whose(&app.definition), Whose::Ours { .. })
}

/// Whether a task was started from the newest definition. One without a version is only being started.
pub(super) fn is_current(app: &App, task: &Task) -> bool {
    task.version.as_ref().is_none_or(|version| **version >= *app.changed)
}

#[cfg(test)]
mod tests;
