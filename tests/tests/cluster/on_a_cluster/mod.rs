//! See the crate.

mod admission;
mod going;
mod rights;
mod walk;
