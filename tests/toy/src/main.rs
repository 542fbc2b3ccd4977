//! The toy service.
fn main() {}
