//! Several Docker hosts: what one host cannot show. `cargo xtask test` makes them, and says so where it cannot.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests panic as tests do"
)]

/// By this name they are left out where there are no hosts.
mod three_hosts {
    mod consul;
    mod faults;
    mod marathon;
    mod walk;
}
