//! Statistics of virtual clusters, and of routes that have a prefix of their own.

use crate::{
    Kind,
    cluster::{Count, Statuses},
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
    statuses: Statuses,
    timeout: Count,
    retry: Count,
    retry_limit_exceeded: Count,
    retry_success: Count,
}

impl RouteStats {
    /// Each statistic by Envoy's name.
    pub fn each(&self, mut f: impl FnMut(&str, u64)) {
        f("upstream_rq_total", self.total.get());
        self.statuses.each(&mut f);
        f("upstream_rq_timeout", self.timeout.get());
        f("upstream_rq_retry", self.retry.get());
        let exceeded = self.retry_limit_exceeded.get();
        f("upstream_rq_retry_limit_exceeded", exceeded);
        f("upstream_rq_retry_success", self.retry_success.get());
    }

    /// Counts a finished request.
    pub(crate) fn count(&self, late: &Late) {
        let answered = late.details.is_none();
        // Attempts that got a connection; that the last one did not says it of all.
        let unsent = [Flag::UpstreamConnectionFailure, Flag::NoHealthyUpstream];
        if answered || !unsent.into_iter().any(|flag| late.flags.contains(flag)) {
            self.total.add(late.attempts.into());
        }
        if late.is_of_upstream() {
            self.statuses.add(late.status);
        }
        if late.details.as_deref() == Some(Kind::UpstreamTimeout.reply().details) {
            self.timeout.add(1);
        }
        let retries = u64::from(late.attempts.saturating_sub(1));
        self.retry.add(retries);
        if late.flags.contains(Flag::UpstreamRetryLimitExceeded) {
            self.retry_limit_exceeded.add(1);
        } else if retries > 0 && answered {
            self.retry_success.add(1);
        }
    }
}
