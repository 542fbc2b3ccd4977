//! Balancers and registries: the drivers against the real programs.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod keepalived;
mod nginx;
