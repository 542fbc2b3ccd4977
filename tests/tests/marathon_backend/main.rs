//! The Marathon backend against a strict Marathon of every family of versions, and against one that misbehaves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests panic as tests do"
)]

mod access;
mod faults;
mod life;
mod rig;
mod stream;
