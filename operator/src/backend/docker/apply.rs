//! Steps on a host. Each is idempotent, ends by looking at what it did, and touches only what is ours.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::{NetworkConnectRequest, NetworkCreateRequest};
use bollard::query_parameters::{
    InspectNetworkOptions, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    RenameContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures::StreamExt;

use super::connect::{Engine, READ, WRITE, limited};
use super::errors::{CallError, line};
use super::host::Host;
use super::images;
use super::labels::{self, Identity, Me, Whose};
use super::session::inspect;
use super::spec;
use super::view::Heed;
use super::wire::{Created, Inspect};
use crate::error::{PortError, Remedy};
use crate::model::{InstanceId, Start, State, Step};

/// Time for the kernel and the engine to end a container after SIGKILL.
const KILLED: Duration = Duration::from_secs(20);

/// Does one step.
pub(super) async fn apply(host: &Arc<Host>, step: &Step) -> Result<(), PortError> {
    let doing = step.to_string();
    let Some(engine) = host.engine() else {
        let why = host.problem().unwrap_or_else(|| "it has not answered yet".into());
        let why = format!("host {} is silent: {why}", host.name);
        return Err(PortError::new(doing, Remedy::Retry, why));
    };
    let on = On { host, engine, doing };
    let result = match step {
        Step::Start(it) => on.start(it).await,
        Step::Stop { id, signal, grace, host: _, name: _, service: _, slot: _ } => {
            on.stop(id, signal, *grace).await
        }
        Step::Remove { id, host: _, name: _, service: _, slot: _ } => on.remove(id).await,
        Step::Rename { id, to, host: _, service: _, slot: _, from: _ } => on.rename(id, to).await,
        Step::RemoveNetwork { network, host: _ } => on.remove_network(network).await,
        Step::Admit { .. } | Step::Withdraw { .. } => {
            Err(on.error(Remedy::Hold, "a Docker host has no traffic layer"))
        }
        Step::App(_) => Err(on.error(Remedy::Hold, "a Docker host has no apps")),
    };
    host.kick.notify_one();
    if let Err(e) = &result {
        tracing::debug!(host = %host.name, "{}", line(e));
    }
    result
}

/// Whether there is anything left to act on.
enum There {
    Ours,
    Gone,
}

struct On<'a> {
    host: &'a Arc<Host>,
    engine: Engine,
    doing: String,
}

impl On<'_> {
    fn error(&self, remedy: Remedy, why: impl Into<String>) -> PortError {
        PortError::new(&*self.doing, remedy, why.into())
    }

    fn fail(&self, e: CallError) -> PortError {
        e.while_doing(&self.doing)
    }

    async fn start(&self, it: &Start) -> Result<(), PortError> {
        for network in &it.spec.networks {
            self.ensure_network(network).await?;
        }
        let body = spec::body(&self.host.me, it);
        let path = format!("/containers/create?name={}", it.name);
        let mut made = self.engine.post::<Created>(&path, &body).await;
        if let Err(e) = &made
            && e.wants_image()
        {
            let spec = self.host.spec();
            let given = self.host.shared.config.registry_auth.as_ref();
            let config = images::config(spec.registry_auth.as_ref(), given);
            let pulled = self.host.pulls.ensure(&self.engine, &it.spec.image, config).await;
            pulled.map_err(|e| PortError::new(&*self.doing, e.remedy, e))?;
            made = self.engine.post::<Created>(&path, &body).await;
        }
        let (id, fresh) = match made {
            Ok(Created { id }) => (id, true),
            Err(CallError::Refused { status: 409, message }) => {
                match self.made_before(it, message).await? {
                    (id, State::Created) => (id, false),
                    (id, _) => return self.look(&id).await,
                }
            }
            Err(e) => return Err(self.fail(e)),
        };
        if let Err(e) = self.begin(&id, it).await {
            // What never ran is no use to anybody: it would only keep the name and the ports.
            if fresh {
                let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
                let removed = self.engine.docker.remove_container(&id, Some(options));
                if limited(WRITE, removed).await.is_ok() {
                    self.host.change(|live, _| live.gone(&id));
                }
            }
            return Err(self.fail(e));
        }
        self.look(&id).await
    }

    async fn begin(&self, id: &str, it: &Start) -> Result<(), CallError> {
        for network in it.spec.networks.iter().skip(1) {
            let request = NetworkConnectRequest {
                container: id.into(),
                endpoint_config: Some(spec::endpoint(network, it.service.as_str())),
            };
            let connected = self.engine.docker.connect_network(network, request);
            match limited(WRITE, connected).await {
                // Connected by the try before this one.
                Err(CallError::Refused { status: 403, message }) if message.contains("already") => {
                }
                other => other?,
            }
        }
        if !it.spec.files.is_empty() {
            super::container::upload(&self.engine, id, &it.spec.files).await?;
        }
        limited(WRITE, self.engine.docker.start_container(id, None)).await
    }

    /// The name is taken: by the same instance from an earlier try, or by something else.
    async fn made_before(&self, it: &Start, message: String) -> Result<(String, State), PortError> {
        let found = inspect(&self.engine, &it.name).await.map_err(|e| self.fail(e))?;
        let wanted = Identity { service: it.service.clone(), slot: it.slot, hash: it.hash };
        let same = found.filter(|f| whose(&self.host.me, f) == Whose::Ours(wanted));
        match same.map(|f| (f.state.status.clone(), f.id)) {
            Some((status, id)) if status == "created" => Ok((id, State::Created)),
            Some((status, id)) if status == "running" || status == "paused" => {
                Ok((id, State::Running))
            }
            _ => Err(self.error(Remedy::Reobserve, message)),
        }
    }

    async fn ensure_network(&self, name: &str) -> Result<(), PortError> {
        if spec::built_in(name) || self.host.read(|live| live.has_network(name)) {
            return Ok(());
        }
        let _one_at_a_time = self.host.networks.lock().await;
        let found = self.engine.docker.inspect_network(name, None::<InspectNetworkOptions>);
        match limited(READ, found).await {
            Ok(_) => return Ok(()),
            Err(e) if e.is_absent() => {}
            Err(e) => return Err(self.fail(e)),
        }
        let request = NetworkCreateRequest {
            name: name.into(),
            labels: Some(self.host.me.network()),
            ..NetworkCreateRequest::default()
        };
        match limited(WRITE, self.engine.docker.create_network(request)).await {
            Ok(_) => {
                self.host.change(|live, _| live.network(name, true));
                Ok(())
            }
            Err(CallError::Refused { status: 409, .. }) => Ok(()),
            Err(e) => Err(self.fail(e)),
        }
    }

    async fn stop(&self, id: &InstanceId, signal: &str, grace: Duration) -> Result<(), PortError> {
        if let There::Gone = self.ours(id).await? {
            return Ok(());
        }
        if self.host.read(|live| live.ours(&id.0).is_some_and(|o| o.state == State::Ending)) {
            // Another agent has begun its end, and was killed before or after the signal: a second one might break off what
            // the first one began, so that it gets the time for that.
            if self.exited(id, grace).await? {
                return self.remove_ended(id).await;
            }
        } else {
            self.mark(id).await;
        }
        if self.kill(id, signal).await? && !self.exited(id, grace).await? {
            tracing::info!(host = %self.host.name, container = %id, "grace is over: SIGKILL");
            if self.kill(id, "SIGKILL").await? && !self.exited(id, KILLED).await? {
                return Err(self.error(Remedy::Retry, "it still runs after SIGKILL"));
            }
        }
        self.remove_ended(id).await
    }

    /// Has the engine show that its end has begun. One that cannot be marked ends all the same.
    async fn mark(&self, id: &InstanceId) {
        let name = self.host.read(|live| live.ours(&id.0).map(|o| Arc::clone(&o.name)));
        let Some(name) = name else { return };
        let to = labels::ending_name(&name, &id.0);
        let options = RenameContainerOptionsBuilder::default().name(&to).build();
        let renamed = self.engine.docker.rename_container(&id.0, options);
        if let Err(e) = limited(WRITE, renamed).await {
            tracing::debug!(host = %self.host.name, container = %id, error = %e, "not marked as ending");
        }
    }

    /// Sends a signal; `false` when there is nothing running to receive it.
    async fn kill(&self, id: &InstanceId, signal: &str) -> Result<bool, PortError> {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        match limited(WRITE, self.engine.docker.kill_container(&id.0, Some(options))).await {
            Ok(()) => Ok(true),
            Err(CallError::Refused { status: 404 | 409, .. }) => Ok(false),
            // Engines before 1.24 of the API and some of today say it with a 500.
            Err(CallError::Refused { status: 500, message }) if message.contains("not running") => {
                Ok(false)
            }
            Err(e) => Err(self.fail(e)),
        }
    }

    /// Waits for its end; `false` when the time is over.
    async fn exited(&self, id: &InstanceId, limit: Duration) -> Result<bool, PortError> {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut wait = std::pin::pin!(self.engine.docker.wait_container(&id.0, Some(options)));
        let Ok(answer) = tokio::time::timeout(limit, wait.next()).await else { return Ok(false) };
        match answer {
            // bollard makes an error of an exit code other than 0.
            None | Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. })) => {
                Ok(true)
            }
            Some(Err(e)) => match CallError::from(e) {
                e if e.is_absent() => Ok(true),
                e => Err(self.fail(e)),
            },
        }
    }

    async fn remove(&self, id: &InstanceId) -> Result<(), PortError> {
        match self.ours(id).await? {
            There::Gone => Ok(()),
            There::Ours => self.remove_ended(id).await,
        }
    }

    /// Without force: the engine itself refuses to remove what runs.
    async fn remove_ended(&self, id: &InstanceId) -> Result<(), PortError> {
        let options = RemoveContainerOptionsBuilder::default().force(false).v(true).build();
        match limited(WRITE, self.engine.docker.remove_container(&id.0, Some(options))).await {
            Err(e) if !e.is_absent() => return Err(self.fail(e)),
            Err(_) => self.host.change(|live, _| live.absent(&id.0)),
            Ok(()) => self.host.change(|live, _| live.gone(&id.0)),
        }
        Ok(())
    }

    async fn rename(&self, id: &InstanceId, to: &str) -> Result<(), PortError> {
        if let There::Gone = self.ours(id).await? {
            return Err(self.error(Remedy::Reobserve, "it is gone"));
        }
        if self.host.read(|live| live.ours(&id.0).is_some_and(|o| &*o.name == to)) {
            return Ok(());
        }
        let options = RenameContainerOptionsBuilder::default().name(to).build();
        let renamed = self.engine.docker.rename_container(&id.0, options);
        match limited(WRITE, renamed).await {
            Ok(()) => self.look(&id.0).await,
            Err(e) => {
                // Done before, and the view does not know it yet?
                let found = inspect(&self.engine, &id.0).await.ok().flatten();
                if found.is_some_and(|f| f.name.strip_prefix('/') == Some(to)) {
                    return self.look(&id.0).await;
                }
                Err(self.fail(e))
            }
        }
    }

    async fn remove_network(&self, name: &str) -> Result<(), PortError> {
        let _one_at_a_time = self.host.networks.lock().await;
        let found = self.engine.docker.inspect_network(name, None::<InspectNetworkOptions>);
        let found = match limited(READ, found).await {
            Err(e) if e.is_absent() => None,
            other => Some(other.map_err(|e| self.fail(e))?),
        };
        if let Some(found) = found {
            let ours = self.host.me.network();
            let labels = found.labels.unwrap_or_default();
            if !ours.iter().all(|(k, v)| labels.get(k) == Some(v)) {
                return Err(self.error(Remedy::Reobserve, "the network is not ours"));
            }
            // By id: names of networks are not unique. The engine refuses while anything is attached.
            let id = found.id.unwrap_or_else(|| name.into());
            match limited(WRITE, self.engine.docker.remove_network(&id)).await {
                Err(CallError::Refused { status: 403, message }) => {
                    return Err(self.error(Remedy::Reobserve, message));
                }
                Err(e) if !e.is_absent() => return Err(self.fail(e)),
                Ok(()) | Err(_) => {}
            }
        }
        self.host.change(|live, _| live.network(name, false));
        Ok(())
    }

    /// Makes sure that a container is ours before it is touched. Labels never change, so having seen it
    /// once is enough.
    async fn ours(&self, id: &InstanceId) -> Result<There, PortError> {
        if self.host.read(|live| live.ours(&id.0).is_some()) {
            return Ok(There::Ours);
        }
        if self.host.read(|live| live.is_gone(&id.0)) {
            return Ok(There::Gone);
        }
        match inspect(&self.engine, &id.0).await.map_err(|e| self.fail(e))? {
            None => {
                self.host.change(|live, _| live.absent(&id.0));
                Ok(There::Gone)
            }
            // The whole id: a prefix or a name could mean another one tomorrow.
            Some(found) if found.id == *id.0 => match whose(&self.host.me, &found) {
                Whose::Ours(_) => Ok(There::Ours),
                Whose::Garbled(_) | Whose::Foreign => {
                    Err(self.error(Remedy::Reobserve, "the container is not ours"))
                }
            },
            Some(_) => Err(self.error(Remedy::Reobserve, "it is not the id of a container")),
        }
    }

    /// Brings a container into the view, so that the next `views` show what was done to it.
    async fn look(&self, id: &str) -> Result<(), PortError> {
        let id: Arc<str> = id.into();
        // Events may overtake each look; whatever is newer has seen the step's effect too, but only a look
        // that was heeded is sure to be in the view.
        for _ in 0..5 {
            let begun = self.host.change(|live, _| live.begin());
            let found = inspect(&self.engine, &id).await.map_err(|e| self.fail(e))?;
            let heed =
                self.host.change(|live, now| live.inspected(begun, &id, found.as_deref(), now));
            match heed {
                Heed::Taken => return Ok(()),
                Heed::Gone => return Err(self.error(Remedy::Reobserve, "it is gone already")),
                Heed::Stale => {}
            }
        }
        Ok(())
    }
}

fn whose(me: &Me, found: &Inspect) -> Whose {
    let labels = found.config.labels.as_ref();
    me.whose(|k| labels.and_then(|l| l.get(k)).map(String::as_str))
}
