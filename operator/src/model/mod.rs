//! The words of evenkeel as values that cannot be wrong; no I/O, no clock, no async, ever.
//!
//! Everything here is parsed once (see `source::parse`) or observed once (see `backend`); after that
//! nothing fails but the outside world. Nothing in here is `Serialize`: what is shown or stored has
//! its own view type at the rim.

pub mod app;
pub mod credential;
pub mod desired;
pub mod edge;
pub mod elsewhere;
pub mod external;
pub mod fleet;
pub mod hash;
pub mod memory;
pub mod name;
pub mod placed;
pub mod reason;
pub mod step;
pub mod time;
pub mod waiting;
pub mod world;

pub use app::{
    AppAct, AppClaim, AppId, AppStep, AppView, CLUSTER, Definition, Deployment, MarathonAuth,
    MarathonSpec, OWN_LABELS, Whose,
};
pub use credential::Credential;
pub use desired::{
    Amount, CommandCheck, Constraint, Desired, EnvValue, EnvVar, File, HOST_LABEL, InstanceSpec,
    Keep, Mount, MountSource, OnFailure, Packing, Placement, Port, Probe, ProbeKind, Problem,
    Protocol, Removal, Resources, Rollout, Secret, Service, Shifting, Termination,
};
pub use edge::{
    ACCESS_LOG, Balance, Balancer, BalancerId, BalancerKind, BalancerView, CONSUL_AGENT_PORT,
    CONSUL_PORT, Certificate, ConsulSpec, ConsulTls, Edges, EntryView, Exposure, Fragments,
    Listener, ListenerProtocol, ManagedConsul, ManagedReach, Order, Pool, PoolName, Registration,
    Registrations, RegistryLabels, RegistrySpec, RegistryView, Route, RouteSpec, Routing, Server,
    ServerState, ServerView, Table, Target, Whereabouts,
};
pub use elsewhere::{Elsewhere, Front, Outward, Part};
pub use external::{CANDIDATE, External, OwnFile, Socket, Way};
pub use fleet::{Endpoint, Fleet, HostSpec, HostState, Limits, Tls};
pub use hash::SpecHash;
pub use memory::{Good, Memory, Note, Quarantine, RolloutMemory, ServiceMemory, SlotFailures};
pub use name::{
    FleetName, HostName, InstanceId, NameError, OwnerId, Revision, ServiceName, Slot,
    instance_host_name,
};
pub use placed::{Place, PlacedArg};
pub use reason::{FieldChange, Reason};
pub use step::{Phase, Plan, Planned, Published, ServiceStatus, Start, Step};
pub use time::{Human, Time};
pub use waiting::{Subject, Waiting, Why};
pub use world::{HealthState, HostView, InFlight, Instance, Seen, State, Traffic, World};
