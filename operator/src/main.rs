//! The agent and the command line.
fn main() {}
