//! The seam for what learns from attempts.

use std::fmt;

use super::{Attempt, AttemptOutcome};

/// Is told how each attempt at an endpoint of a mesh began to be answered, or why it was not: outlier detection and whatever
/// else learns from traffic. Given to [`MeshBuilder::monitor`](crate::snapshot::MeshBuilder::monitor).
///
/// What it finds out it says by [`Endpoint::set_ejected`](super::Endpoint::set_ejected), which acts at once, and by
/// [`Cluster::health_changed`](super::Cluster::health_changed), which costs by the number of endpoints and is better called by a
/// task of its own. [`Mesh::clusters`](crate::snapshot::Mesh::clusters) has all endpoints, for checks in intervals.
pub trait Monitor: fmt::Debug + Send + Sync {
    /// An attempt has its outcome. Called on the request's thread, once for each attempt: it should count with atomics and
    /// return.
    fn attempted(&self, attempt: &Attempt, outcome: AttemptOutcome);
}
