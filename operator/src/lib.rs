//! evenkeel keeps containers on an even keel: observe, plan, act, again.
//!
//! Start reading at `model` (the words), then `plan` (what to do and why), then `reconcile` (the loop).

pub mod backend;
pub mod bell;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod edge;
pub mod elect;
pub mod error;
pub mod exchange;
pub mod fake;
pub mod http;
pub mod import;
pub mod keep;
pub mod kubernetes;
pub mod metrics;
pub mod model;
pub mod plan;
pub mod reconcile;
pub mod report;
pub mod source;
pub mod telemetry;
