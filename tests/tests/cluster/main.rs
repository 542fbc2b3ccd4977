//! What only a full cluster shows, in the one that `KUBECONFIG` names: `cargo xtask test --cluster`. Each test has a namespace of
//! its own, and an agent beside the engine here that looks at nothing else. What a cluster cannot show is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

// The name by which `cargo xtask test` leaves them out.
mod on_a_cluster;
