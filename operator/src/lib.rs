//! evenkeel keeps containers on an even keel: observe, plan, act, again.
//!
//! Start reading at `model` (the words), then `plan` (what to do and why), then `reconcile` (the loop).

pub mod backend;
pub mod bell;
pub mod clock;
pub mod error;
pub mod fake;
pub mod model;
pub mod plan;
pub mod source;
