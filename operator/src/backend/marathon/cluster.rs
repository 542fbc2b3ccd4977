//! One cluster: its view, its connection, and the one door through which the view is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt, stream};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};

use super::error::CallError;
use super::http::{Call, Http, LIST};
use super::labels::Me;
use super::view::{All, Live};
use super::wire::{App, Apps, Info, OneApp, Queue, UnderWay, Version, deployments};
use super::{Shared, lock};
use crate::model::{AppId, HostName, HostView, MarathonSpec, ServiceName, Time};

/// Changes that are sent at a time.
pub(super) const CHANGES: usize = 8;
/// Agents' names that are looked up at a time, and how long one look-up may take.
const LOOKUPS: usize = 16;
const LOOKUP: Duration = Duration::from_secs(2);
/// As many deployments a server allows that does not say otherwise.
const DEPLOYMENTS: usize = 100;

/// One cluster, shared by its task and the steps on it.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) name: HostName,
    pub(super) me: Me,
    pub(super) spec: Arc<MarathonSpec>,
    pub(super) shared: Arc<Shared>,
    pub(super) http: Http,
    /// Tells the cluster's task that a step or new names changed something.
    pub(super) kick: Notify,
    pub(super) changes: Semaphore,
    live: Mutex<Live>,
    version: Mutex<Option<Version>>,
    /// How many deployments the server allows at a time.
    most: Mutex<usize>,
    problem: Mutex<Problem>,
}

#[derive(Debug, Default)]
struct Problem {
    connection: Option<String>,
    other: Option<String>,
}

impl Cluster {
    pub(super) fn new(
        name: HostName,
        me: Me,
        spec: Arc<MarathonSpec>,
        shared: Arc<Shared>,
    ) -> Self {
        let live = Live::new(me.clone(), shared.clock.now());
        Self {
            name,
            me,
            http: Http::new(&spec),
            spec,
            shared,
            kick: Notify::new(),
            changes: Semaphore::new(CHANGES),
            live: Mutex::new(live),
            version: Mutex::default(),
            most: Mutex::new(DEPLOYMENTS),
            problem: Mutex::default(),
        }
    }

    /// The apps that documents name from now on.
    pub(super) fn name_apps(&self, named: Arc<BTreeMap<AppId, ServiceName>>) {
        self.change(|live, _| live.name(named));
        self.kick.notify_one();
    }

    /// The newest view.
    pub(super) fn view(&self) -> Arc<HostView> {
        lock(&self.live).published()
    }

    /// Changes what is known, publishes it if that changed anything, and rings then.
    pub(super) fn change<T>(&self, f: impl FnOnce(&mut Live, Time) -> T) -> T {
        let now = self.shared.clock.now();
        let (result, rings) = {
            let mut live = lock(&self.live);
            let result = f(&mut live, now);
            (result, live.publish())
        };
        if rings {
            self.shared.bell.ring();
        }
        result
    }

    /// Reads what is known.
    pub(super) fn read<T>(&self, f: impl FnOnce(&Live) -> T) -> T {
        f(&lock(&self.live))
    }

    /// The version that answers, once one has.
    pub(super) fn version(&self) -> Option<Version> {
        *lock(&self.version)
    }

    /// Asks for the version: after each connection, as members may be of several.
    pub(super) async fn meet(&self) -> Result<(), CallError> {
        let info: Info = self.http.json(Call::get("/v2/info", &[])).await?;
        let version =
            info.version().ok_or_else(|| self.strange("information without a version"))?;
        *lock(&self.version) = Some(version);
        Ok(())
    }

    /// How many deployments there may be at a time.
    pub(super) fn most_deployments(&self) -> usize {
        *lock(&self.most)
    }

    /// The server has said how many.
    pub(super) fn allows(&self, most: usize) {
        *lock(&self.most) = most.max(1);
    }

    /// All that was to be seen has been seen.
    pub(super) fn arrived(&self) {
        lock(&self.problem).connection = None;
        self.change(|live, _| live.arrived());
    }

    /// Nobody answers. Returns whether that is news.
    pub(super) fn lost(&self, why: String) -> bool {
        let news = {
            let mut problem = lock(&self.problem);
            let news = problem.connection.as_ref() != Some(&why);
            problem.connection = Some(why);
            news
        };
        self.change(Live::lost);
        news
    }

    /// Something else that a person should know. Returns whether that is news.
    pub(super) fn note(&self, other: Option<String>) -> bool {
        let mut problem = lock(&self.problem);
        let news = problem.other != other;
        problem.other = other;
        news
    }

    pub(super) fn problem(&self) -> Option<String> {
        let problem = lock(&self.problem);
        problem.connection.clone().or_else(|| problem.other.clone())
    }

    /// Looks at everything.
    pub(super) async fn list(&self) -> Result<(), CallError> {
        let begun = self.change(|live, _| live.begin());
        let embed = [
            ("embed", "apps.tasks"),
            ("embed", "apps.lastTaskFailure"),
            ("embed", "apps.deployments"),
        ];
        let listing = self.http.json::<Apps>(Call::get("/v2/apps", &embed).within(LIST));
        let (apps, under_way, queued) =
            futures::try_join!(listing, self.under_way(), self.queued())?;
        let concerns = |app: &App| self.read(|live| live.is_ours_or_named(app));
        let apps: Vec<App> = apps.into_apps().filter(concerns).collect();
        if let Some(app) = apps.iter().find(|app| app.tasks.is_none()) {
            return Err(self.strange(&format!("app {} without its tasks", app.id)));
        }
        let all = All { apps, deployments: under_way, queued };
        self.change(|live, now| live.listed(begun, all, now));
        Ok(())
    }

    /// Looks at one app; `None`: there is none.
    pub(super) async fn look(&self, id: &AppId) -> Result<Option<App>, CallError> {
        let begun = self.change(|live, _| live.begin());
        let path = format!("/v2/apps{id}");
        let app = match self.http.json::<OneApp>(Call::get(&path, &[])).await {
            Ok(OneApp { app }) => app.0,
            Err(e) if e.is_absent() => {
                self.change(|live, now| live.looked(begun, id, None, now));
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        // Anything else than what was asked for, or than was asked for in full, says nothing of it.
        let Some(app) = app.filter(|app| app.id == *id && app.tasks.is_some()) else {
            return Err(self.strange(&format!("something else when it is asked for app {id}")));
        };
        self.change(|live, now| live.looked(begun, id, Some(app.clone()), now));
        Ok(Some(app))
    }

    fn strange(&self, why: &str) -> CallError {
        CallError::Strange { at: format!("{:?}", self.http), why: why.to_owned() }
    }

    /// Looks at what is under way and at what waits.
    pub(super) async fn look_around(&self, queue: bool) -> Result<(), CallError> {
        let begun = self.change(|live, _| live.begin());
        let under_way = self.under_way().await?;
        self.change(|live, _| live.deploying(begun, under_way));
        if queue {
            let queued = self.queued().await?;
            self.change(|live, _| live.queueing(queued));
        }
        Ok(())
    }

    async fn under_way(&self) -> Result<BTreeMap<Arc<str>, UnderWay>, CallError> {
        let answer = self.http.json::<Vec<Value>>(Call::get("/v2/deployments", &[])).await;
        Ok(deployments(&allowed(answer)?))
    }

    /// Whether somebody changes the app together with others right now.
    pub(super) async fn is_shared(&self, id: &AppId) -> Result<bool, CallError> {
        let under_way = self.under_way().await?;
        Ok(under_way.values().any(|it| it.apps.contains(id) && it.touches > 1))
    }

    async fn queued(&self) -> Result<BTreeMap<AppId, Vec<String>>, CallError> {
        let queue = self.http.json::<Queue>(Call::get("/v2/queue", &[])).await;
        Ok(allowed(queue)?.reasons())
    }

    /// Finds the addresses of agents that have names: of those that are not known, or of all.
    pub(super) async fn resolve(&self, again: bool) {
        let names: BTreeSet<String> =
            self.read(|live| if again { live.hosts() } else { live.unresolved() });
        let one = |name: String| async move {
            let looked = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((&*name, 0))).await;
            let found = looked.ok()?.ok()?.map(|at| at.ip()).min();
            Some((name.clone(), found?))
        };
        let found: BTreeMap<_, _> = stream::iter(names.iter().cloned().map(one))
            .buffer_unordered(LOOKUPS)
            .filter_map(futures::future::ready)
            .collect()
            .await;
        self.change(|live, _| live.resolved(names, found));
    }
}

/// What explains and is not needed may be kept from us.
fn allowed<T: Default>(answer: Result<T, CallError>) -> Result<T, CallError> {
    match answer {
        Err(e) if e.is_of_one() => Ok(T::default()),
        other => other,
    }
}
