//! The controller: the real binary on a real API server and the real engine, driven by kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod access;
mod again;
mod bad;
mod credentials;
mod document;
mod edge;
mod leader;
mod requests;
mod several;
mod stored;
mod walk;
