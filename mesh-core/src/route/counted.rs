//! Requests that count in statistics of their own: those of a virtual cluster, or of a route with `stat_prefix`.

use std::sync::{Arc, OnceLock};

use super::{
    entry::RouteEntry,
    head::{Head, Headers},
    text::HeaderTest,
};
use crate::{
    model::Name,
    telemetry::{
        metrics::{Metrics, RoutePart, RouteScope, RouteStats},
        record::Late,
    },
};

/// A virtual cluster; the last of a host has no tests and takes the rest.
#[derive(Debug)]
pub(super) struct VirtualCluster {
    pub(super) name: Name,
    pub(super) tests: Box<[HeaderTest]>,
    /// Found by the first request that counts.
    pub(super) stats: OnceLock<Arc<RouteStats>>,
}

impl VirtualCluster {
    pub(super) fn new(name: Name, tests: Box<[HeaderTest]>) -> Self {
        Self {
            name,
            tests,
            stats: OnceLock::new(),
        }
    }

    pub(super) fn matches<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> bool {
        self.tests.iter().all(|test| test.matches(head))
    }
}

/// What one request counts in, beside its cluster and listener.
#[derive(Debug)]
pub(crate) struct Counted {
    route: Arc<RouteEntry>,
    virtual_cluster: Option<usize>,
}

impl Counted {
    /// For a request of `route`; `None` if there is nothing of the kind, which is the rule.
    pub(crate) fn new<H: Headers + ?Sized>(
        route: &Arc<RouteEntry>,
        head: &Head<'_, H>,
    ) -> Option<Box<Self>> {
        let clusters = &route.host.virtual_clusters;
        if clusters.is_empty() && route.config.stat_prefix.is_none() {
            return None;
        }
        Some(Box::new(Self {
            route: route.clone(),
            virtual_cluster: clusters.iter().position(|cluster| cluster.matches(head)),
        }))
    }

    /// Name of the virtual cluster. The one that takes the rest has none, but counts as `other`.
    pub(crate) fn virtual_cluster(&self) -> Option<&Name> {
        let index = self.virtual_cluster?;
        let (_rest, named) = self.route.host.virtual_clusters.split_last()?;
        named.get(index).map(|cluster| &cluster.name)
    }

    /// Counts the finished request.
    pub(crate) fn count(&self, metrics: &Metrics, late: &Late) {
        let host = &self.route.host;
        let scope = |part, name: &Name| RouteScope {
            host: host.name().clone(),
            part,
            name: name.clone(),
        };
        let cluster = self.virtual_cluster;
        if let Some(cluster) = cluster.and_then(|index| host.virtual_clusters.get(index)) {
            let find = || metrics.route(scope(RoutePart::VirtualCluster, &cluster.name));
            cluster.stats.get_or_init(find).count(late);
        }
        if let Some(prefix) = &self.route.config.stat_prefix {
            let find = || metrics.route(scope(RoutePart::Route, prefix));
            self.route.stats.get_or_init(find).count(late);
        }
    }
}
