//! evenkeel keeps containers on an even keel: observe, plan, act, again.

pub mod source;
