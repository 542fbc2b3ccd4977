//! The edges against real parts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests panic as tests do")]

mod consul;
