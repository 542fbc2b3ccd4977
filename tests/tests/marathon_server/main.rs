//! The Marathon that others are tested against, tested itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests panic as tests do"
)]

mod client;
mod python;
mod real;
mod recorded;
mod requests;
mod rolling;
mod streams;
