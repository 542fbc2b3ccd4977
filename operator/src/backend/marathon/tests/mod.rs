mod chance;
pub(crate) mod recorded;
mod rewrite;
