//! Balancers and registries: the drivers against the real programs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests panic as tests do"
)]

mod consul;
mod keepalived;
mod nginx;
