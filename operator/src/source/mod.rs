//! Where the newest Desired comes from: the bytes of one revision, fetched, bounded and kept.
//!
//! A source never decides anything and never turns "could not read" into "nothing there": a
//! fetch that fails is an error beside the last good tree, and every file that had to be left
//! out is named in [`Tree::skipped`], so that nothing is removed on the strength of it.
//!
//! * [`tree`]: one revision's files, and the limits they are read under
//! * [`git`], [`dir`]: two places they come from
//! * [`load`]: parses every new tree
//! * [`merge`]: documents and the objects of an API as one tree
//! * [`parse`]: what the bytes mean
//! * [`poll`]: the loop that asks them, on a timer and when a doorbell rings
//! * [`store`]: what survives a restart, and the lock of the state directory
//! * [`webhook`]: is this caller allowed to ring?

pub mod dir;
mod error;
pub mod git;
pub mod load;
pub mod merge;
pub mod parse;
pub mod poll;
mod secret;
pub mod store;
pub mod tree;
pub mod webhook;

pub use error::FetchError;
pub use secret::{Secret, redact};
pub use tree::{Files, Limits, Objects, Skipped, Tree, TreeMeta};
