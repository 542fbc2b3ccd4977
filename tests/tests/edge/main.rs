//! The edges against real parts.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod consul;
