//! Statistics of virtual clusters, and of routes that have a prefix of their own.

use crate::{
    cluster::Count,
    model::Name,
    telemetry::{flags::Flag, record::Late},
};

/// Whose statistics they are: Envoy's `vhost.HOST.vcluster.NAME` or `vhost.HOST.route.NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteScope {
    /// Name of the virtual host.
    pub host: Name,
    /// What of it.
    pub part: RoutePart,
    /// Name of the virtual cluster, or the route's `stat_prefix`.
    pub name: Name,
}

/// A part of a virtual host that has statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoutePart {
    /// A virtual cluster.
    VirtualCluster,
    /// A route with `stat_prefix`.
    Route,
}

impl RoutePart {
    /// The word in Envoy's names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VirtualCluster => "vcluster",
            Self::Route => "route",
        }
    }
}

/// What is counted of requests that the router sent on, or had to answer for the upstream.
#[derive(Debug, Default)]
pub struct RouteStats {
    total: Count,
    completed: Count,
    classes: [Count; 5],
    timeout: Count,
    retry: Count,
}

impl RouteStats {
    /// Each statistic by Envoy's name.
    pub fn each(&self, mut f: impl FnMut(&'static str, u64)) {
        f("upstream_rq_total", self.total.get());
        f("upstream_rq_completed", self.completed.get());
        let names = [
            "upstream_rq_1xx",
            "upstream_rq_2xx",
            "upstream_rq_3xx",
            "upstream_rq_4xx",
            "upstream_rq_5xx",
        ];
        for (name, count) in names.into_iter().zip(&self.classes) {
            f(name, count.get());
        }
        f("upstream_rq_timeout", self.timeout.get());
        f("upstream_rq_retry", self.retry.get());
    }

    /// Counts a finished request.
    pub(crate) fn count(&self, late: &Late) {
        self.total.add(1);
        let class = usize::from(late.status / 100).checked_sub(1);
        if let Some(class) = class.and_then(|class| self.classes.get(class)) {
            self.completed.add(1);
            class.add(1);
        }
        if late.flags.contains(Flag::UpstreamRequestTimeout) {
            self.timeout.add(1);
        }
        self.retry.add(u64::from(late.attempts.saturating_sub(1)));
    }
}
