//! The custom resource definitions on a real API server, and that server itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod agree;
mod cases;
mod explain;
mod manifests;
mod server;
