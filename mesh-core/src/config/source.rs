//! The pull interface of a source of configuration, and what it delivers.

use std::{fmt, future::Future, sync::Arc};

use crate::{
    model::{Cluster, ClusterLoadAssignment, Listener, Name, Note, RouteConfiguration},
    telemetry::metrics::Workload,
};

/// A source of configuration, pulled by the driver.
///
/// The driver asks for the [`next`](Self::next) update, compiles and publishes it, and answers with
/// [`report`](Self::report); an xDS source turns that answer into ACK or NACK.
pub trait ConfigSource: Send {
    /// Waits for the next update.
    ///
    /// # Errors
    ///
    /// [`SourceError`] when there will never be another one. A source that can recover does so itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no update.
    fn next(&mut self) -> impl Future<Output = Result<Update, SourceError>> + Send;

    /// Tells what became of the last update.
    fn report(&mut self, outcome: &Outcome);

    /// Fills in where those rejections were written that have no place yet: the compiler, which found them, cannot know. By
    /// default nothing.
    fn locate(&self, rejections: &mut [Rejection]) {
        let _ = rejections;
    }

    /// The workload that the configuration is for, which labels its metrics; asked after the first update. `None`, the
    /// default: the source does not know.
    fn workload(&self) -> Option<Workload> {
        None
    }
}

/// Changes since the last update, applied whole in this order: clusters, endpoints, routes, listeners, removals.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Version of the source, for logs and status.
    pub version: Name,
    /// What changed.
    pub changes: Vec<Change>,
    /// What the source itself refused; the last good version of each stays in force.
    pub rejections: Vec<Rejection>,
    /// What is configured and has no effect, and what refuses traffic. The whole list, each time.
    pub notes: Vec<Note>,
}

/// One changed resource.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// A new or changed cluster.
    Cluster(Arc<Cluster>),
    /// Endpoints of an EDS cluster.
    Endpoints(Arc<ClusterLoadAssignment>),
    /// A new or changed route table.
    Routes(Arc<RouteConfiguration>),
    /// A new or changed listener.
    Listener(Arc<Listener>),
    /// A cluster is gone.
    RemoveCluster(Name),
    /// The endpoints of this name are gone.
    RemoveEndpoints(Name),
    /// A route table is gone.
    RemoveRoutes(Name),
    /// A listener is gone.
    RemoveListener(Name),
}

/// A resource that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rejection {
    /// Type and name, for example `VirtualService default/reviews` or `cluster outbound|9080||reviews`.
    pub resource: Name,
    /// Path of the field, for example `spec.http[0].route[1].weight`; empty for the whole resource.
    pub path: Name,
    /// What is wrong and what is allowed, as a sentence without a full stop.
    pub reason: Name,
    /// Where it was written: `file:line:column`; empty if unknown.
    pub location: Name,
}

impl Rejection {
    /// The field `path` of `resource` is refused for `reason`; where it was written is not known yet.
    pub fn new(resource: impl Into<Name>, path: impl Into<Name>, reason: impl Into<Name>) -> Self {
        Self {
            resource: resource.into(),
            path: path.into(),
            reason: reason.into(),
            location: Name::default(),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.location.is_empty() {
            write!(f, "{}: ", self.location)?;
        }
        f.write_str(&self.resource)?;
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// What became of an update.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Version of the update.
    pub version: Name,
    /// What was refused, by the source or by the compiler.
    pub rejections: Vec<Rejection>,
}

/// A source that ended.
#[derive(Debug, thiserror::Error)]
#[error("the configuration source ended: {reason}")]
pub struct SourceError {
    /// Why.
    pub reason: String,
    /// What caused it.
    #[source]
    pub source: Option<crate::BoxError>,
}
