//! What a test says of the Marathon that it wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::agents::Agent;
use super::super::containers::Containers;
use super::super::release::Release;
use super::super::runner::{Runner, Task};
use super::super::simulated::{Behaviour, Simulated};
use super::super::state::Settings;

/// Who may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Everybody.
    Open,
    /// Who knows a name and a password.
    Basic(String, String),
    /// Who has a token, as DC/OS wants it: `Authorization: token=…`.
    Token(String),
    /// Who has the first token; who has the second is known, and may nothing.
    Allowed(String, String),
}

/// Who runs tasks.
pub enum Run {
    /// Nobody: they do what this says.
    Simulated(Arc<dyn Fn(&Task) -> Behaviour + Send + Sync>),
    /// Somebody else.
    Other(Box<dyn Fn() -> Box<dyn Runner> + Send + Sync>),
}

/// A Marathon as a test wants it.
pub struct Options {
    /// Which one it pretends to be.
    pub release: Release,
    /// How many members it has.
    pub members: usize,
    /// Where they listen; a free port of loopback for who is not named.
    pub listen: Vec<SocketAddr>,
    /// Who may ask.
    pub auth: Auth,
    /// The machines of its cluster.
    pub agents: Vec<Agent>,
    /// Who runs tasks.
    pub run: Run,
    /// What was enabled: `secrets`, `task_killing`, `external_volumes`, `gpu_resources`.
    pub features: Vec<String>,
    /// The name of a container's network that has none.
    pub network: Option<String>,
    /// The role of apps that say none.
    pub role: String,
    /// More deployments than these are refused.
    pub most_deployments: usize,
    /// More requests at once than these are refused.
    pub most_requests: Option<usize>,
    /// The range of service ports.
    pub local_ports: (u16, u16),
    /// From the acceptance of a deployment to its first step.
    pub deployment_delay: Duration,
    /// From a wanted instance to the offer that takes it.
    pub offer_delay: Duration,
    /// How long is what definitions call a second: backoff, grace, health checks and patience all shrink with it.
    pub second: Duration,
    /// After how many such seconds counts are put right that nothing else puts right.
    pub heal_seconds: f64,
    /// Between two heartbeats of an event stream.
    pub heartbeat: Duration,
    /// How many events a stream may be behind; none for what the release has.
    pub outstanding: Option<usize>,
    /// How long a standby waits for a leader.
    pub election: Duration,
    /// What a leader calls itself towards clients, for one behind a wall; none for the address where it listens.
    pub advertised: Option<String>,
}

impl Default for Options {
    /// The last release, one member, three agents, and simulated tasks that are quick and well.
    fn default() -> Self {
        Self {
            release: Release::V1_11,
            members: 1,
            listen: Vec::new(),
            auth: Auth::Open,
            agents: ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(Agent::new).into(),
            run: Run::Simulated(Arc::new(|_| Behaviour::default())),
            features: Vec::new(),
            network: None,
            role: "*".into(),
            most_deployments: 100,
            most_requests: None,
            local_ports: (10_000, 20_000),
            deployment_delay: Duration::ZERO,
            offer_delay: Duration::ZERO,
            second: Duration::from_secs(1),
            heal_seconds: 300.0,
            heartbeat: Duration::from_secs(10),
            outstanding: None,
            election: Duration::from_millis(2750),
            advertised: None,
        }
    }
}

impl Options {
    /// Of a release, with everything else as it is by default.
    pub fn of(release: Release) -> Self {
        Self { release, ..Self::default() }
    }

    /// With tasks that do this.
    #[must_use]
    pub fn behave(mut self, behave: impl Fn(&Task) -> Behaviour + Send + Sync + 'static) -> Self {
        self.run = Run::Simulated(Arc::new(behave));
        self
    }

    /// With tasks that are real containers, on so many agents at addresses of loopback that nobody else has.
    #[must_use]
    pub fn containers(self, agents: u8) -> Self {
        self.containers_on(Containers::agents(agents))
    }

    /// With tasks that are real containers, on these agents.
    #[must_use]
    pub fn containers_on(mut self, agents: Vec<Agent>) -> Self {
        self.agents = agents;
        self.run = Run::Other(Box::new(|| Box::new(Containers::new())));
        self
    }

    /// With a feature.
    #[must_use]
    pub fn feature(mut self, name: &str) -> Self {
        self.features.push(name.into());
        self
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            release: self.release,
            features: self.features.clone(),
            network: self.network.clone(),
            role: self.role.clone(),
            most_deployments: self.most_deployments,
            local_ports: self.local_ports,
            deployment_delay: self.deployment_delay,
            offer_delay: self.offer_delay,
            second: self.second,
            heal_seconds: self.heal_seconds,
        }
    }

    pub(super) fn runner(&self) -> Box<dyn Runner> {
        match &self.run {
            Run::Simulated(behave) => Box::new(Simulated::new(Arc::clone(behave))),
            Run::Other(make) => make(),
        }
    }
}
