//! Shared pieces of the scenario, conformance and end-to-end tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "everything in here runs in tests, which panic rather than return"
)]

pub mod agent;
pub mod balancer;
pub mod conformance;
pub mod consul;
pub mod container;
pub mod docker;
pub mod hosts;
pub mod kube;
pub mod load;
pub mod marathon;
pub mod measure;
pub mod pki;
pub mod private;
pub mod proxy;
pub mod registry;
pub mod traffic;
pub mod workers;
