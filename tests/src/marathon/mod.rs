//! A Marathon to test against: strict, of any release from 1.4 to 1.11, with a cluster that is simulated or real.
//!
//! [`Server::start`] gives one that answers on loopback. What it knows and decides is a plain value that is changed
//! by requests, by what is told of tasks, and by time; what talks to sockets and what runs tasks are apart from it.

mod advance;
mod agents;
mod api;
mod app;
mod change;
mod containers;
mod deployment;
mod event;
mod instance;
mod launch;
mod normal;
mod path;
mod pattern;
mod plan;
#[cfg(test)]
mod properties;
mod read;
mod refusal;
mod release;
mod render;
mod replace;
mod runner;
mod serve;
mod simulated;
mod stamp;
mod state;
mod tasks;
mod tree;
mod valid;

pub use self::agents::Agent;
pub use self::app::{App, HealthCheck, Need, Port, Readiness};
pub use self::containers::Containers;
pub use self::path::AppId;
pub use self::release::Release;
pub use self::runner::{End, Order, Report, Reports, Runner, Task};
pub use self::serve::{Auth, Fault, Mood, Options, Recorded, Run, Server};
pub use self::simulated::{Behave, Behaviour, Simulated};
pub use self::stamp::Stamp;
