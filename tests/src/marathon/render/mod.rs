//! What is answered, in the words of each release.

mod app;
mod old;
mod rest;
mod task;

pub(super) use self::app::{Embed, app, info};
pub(super) use self::rest::{deployments, group, groups_embed, queue, server};
pub(super) use self::task::{failure, task, tasks};
