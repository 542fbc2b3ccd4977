//! Where the newest Desired comes from.

pub mod parse;
