//! evenkeel keeps containers on an even keel: observe, plan, act, again.

pub mod backend;
pub mod bell;
pub mod clock;
pub mod error;
pub mod fake;
pub mod model;
pub mod plan;
pub mod reconcile;
pub mod source;
