//! Kubernetes as a source and as the place where people look: custom resources in, status and events out.
//!
//! What an object means is not decided here. Objects become files of a [`Tree`](crate::source::Tree), so that the same
//! parse judges them as judges git; what is written back is taken from the report that everybody else reads.
//!
//! * [`object`]: one custom resource, as far as it concerns us
//! * [`cache`]: the newest of all of them, and what is wrong with watching them
//! * [`follow`]: keeps the cache up with the API server
//! * [`tree`]: from the cache to files (pure)
//! * [`source`]: publishes them as a source does
//! * [`sum`]: what several fleets say of one service, as one (pure)
//! * [`status`]: from the report to what an object's status should say (pure)
//! * [`depart`]: may an object that is being deleted go? (pure)
//! * [`event`]: what happened, for `kubectl describe`
//! * [`mod@write`]: brings finalizers and statuses to the API server
//! * [`secret`]: Secrets for the documents of their namespace
//! * [`lease`]: one of several replicas acts
//! * [`connect`]: which cluster, and is it ready for us

pub mod cache;
pub mod connect;
pub mod depart;
pub mod event;
pub mod follow;
pub mod lease;
pub mod object;
pub mod secret;
pub mod source;
pub mod status;
pub mod sum;
pub mod tree;
pub mod write;

/// Whose fields of an object are ours.
pub const MANAGER: &str = "evenkeel";
/// Holds a deleted object until nothing of it is left.
pub const FINALIZER: &str = "evenkeel.dev/drain";
/// What all names of ours begin with.
pub const PREFIX: &str = "evenkeel.dev/";
/// `true`: nothing is done for the object, as with `spec.suspend`.
pub const SUSPEND: &str = "evenkeel.dev/suspend";
/// Any new value: look now, and answer in the status.
pub const RECONCILE: &str = "evenkeel.dev/reconcile";
/// `orphan`: a deleted object goes at once and leaves what runs.
pub const DELETION: &str = "evenkeel.dev/deletion";
