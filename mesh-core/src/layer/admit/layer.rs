use std::sync::Arc;

use tower_layer::Layer;

use super::Admit;
use crate::{cluster::Cluster, model::Priority};

/// Makes [`Admit`] services in front of a pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmitLayer<P> {
    policy: P,
    quiet: bool,
}

impl<P> AdmitLayer<P> {
    /// Sends to the cluster that `policy` says.
    pub fn new(policy: P) -> Self {
        Self {
            policy,
            quiet: false,
        }
    }

    /// Adds no `x-envoy-*` header of its own (`suppress_envoy_headers`).
    #[must_use]
    pub fn quiet(mut self, quiet: bool) -> Self {
        self.quiet = quiet;
        self
    }
}

impl AdmitLayer<FixedAdmit> {
    /// Sends every request to one cluster. The inner service takes [`Outgoing`](crate::pool::Outgoing) requests.
    pub fn fixed(cluster: Arc<Cluster>, priority: Priority) -> Self {
        Self::new(FixedAdmit { cluster, priority })
    }
}

/// The cluster of a mirror's copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByShadow;

/// One cluster for all requests.
#[derive(Clone, Debug)]
pub struct FixedAdmit {
    pub(super) cluster: Arc<Cluster>,
    pub(super) priority: Priority,
}

impl<S, P: Clone> Layer<S> for AdmitLayer<P> {
    type Service = Admit<S, P>;

    fn layer(&self, inner: S) -> Admit<S, P> {
        Admit::new(inner, self.policy.clone()).quiet(self.quiet)
    }
}
