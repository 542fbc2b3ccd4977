//! The registry against a modelled agent, and against one that misbehaves.

mod fake;
mod live;
mod model;
