//! The sink of a listener or client: metrics, statistics, access logs.

use std::sync::Arc;

use super::{
    access_log::AccessLog,
    flags::Flag,
    metrics::{HttpStats, RequestMetrics},
    record::{Late, Record, Sink, Wants},
};
use crate::Kind;

/// Tells everything that is told of finished requests.
#[derive(Debug, Default)]
pub struct Observer {
    wants: Arc<Wants>,
    logs: Vec<AccessLog>,
    metrics: Option<RequestMetrics>,
    stats: Option<Arc<HttpStats>>,
    /// Those of the program.
    sinks: Arc<[Arc<dyn Sink>]>,
}

impl Observer {
    /// An observer that tells nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts requests.
    #[must_use]
    pub fn metrics(mut self, metrics: RequestMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Counts under Envoy's names.
    #[must_use]
    pub fn stats(mut self, stats: Arc<HttpStats>) -> Self {
        self.stats = Some(stats);
        self
    }

    /// Writes logs; `also`: what others read of a request.
    #[must_use]
    pub fn logs(mut self, logs: Vec<AccessLog>, mut also: Wants) -> Self {
        for log in &logs {
            log.add_wants(&mut also);
        }
        self.logs = logs;
        self.wants = Arc::new(also);
        self
    }

    /// Tells `sinks`, too; comes after [`logs`](Self::logs).
    #[must_use]
    pub fn sinks(mut self, sinks: Arc<[Arc<dyn Sink>]>) -> Self {
        let mut wants = Wants::clone(&self.wants);
        for sink in &*sinks {
            wants.merge(sink.wants());
        }
        self.wants = Arc::new(wants);
        self.sinks = sinks;
        self
    }

    /// Whether there are access logs.
    #[cfg(feature = "server")]
    pub(crate) fn has_logs(&self) -> bool {
        !self.logs.is_empty()
    }

    /// What is read of requests.
    pub fn shared_wants(&self) -> Arc<Wants> {
        self.wants.clone()
    }

    fn count(&self, stats: &HttpStats, late: &Late) {
        if late.version == http::Version::HTTP_2 {
            stats.downstream_rq_http2_total.add(1);
        } else {
            stats.downstream_rq_http1_total.add(1);
        }
        if late.interims[1] > 0 {
            stats.downstream_rq_1xx.add(late.interims[1].into());
        }
        // As in Envoy, answers to health checks are none of the service's.
        if late.status != 0 && !late.is_health_check() {
            stats.response(late.status);
        }
        stats.downstream_rq_time.record_time(late.duration);
        // Where the upstream's response went through, there is nothing more to tell.
        let Some(details) = late.details.as_deref() else {
            if let Some(cluster) = late.cluster.as_deref() {
                let sent = late.request_received.unwrap_or_default();
                let time = late.duration.saturating_sub(sent);
                cluster.stats().times().upstream_rq_time.record_time(time);
            }
            return;
        };
        charge(late);
        count_reply(stats, late, details);
    }
}

/// Counts what became of a request that got no whole response of an upstream.
fn count_reply(stats: &HttpStats, late: &Late, details: &str) {
    let of = |kind: Kind| details == kind.reply().details;
    let left = [
        Flag::DownstreamConnectionTermination,
        Flag::DownstreamRemoteReset,
    ];
    let left = left.into_iter().any(|flag| late.flags.contains(flag));
    if left || details.starts_with("upstream_reset_after_response_started") {
        stats.downstream_rq_rx_reset.add(1);
    }
    if late.cluster.is_none() && late.flags.contains(Flag::NoCluster) {
        stats.no_cluster.add(1);
    }
    // The router is the last of the filters: what others answer does not get there.
    if details.starts_with("fault_filter") || details == "cors_response" || late.route.is_none() {
        match of(Kind::NoRoute) {
            true => stats.no_route.add(1),
            false => stats.unrouted.add(1),
        }
    }
    // The details of the redirect are those of the refusal.
    let normalized = of(Kind::PathNormalization);
    let redirected = late.status == 307;
    for (hit, count) in [
        (details == "direct_response", &stats.rq_direct_response),
        (
            normalized && redirected,
            &stats.downstream_rq_redirected_with_normalized_path,
        ),
        (
            normalized && !redirected,
            &stats.downstream_rq_failed_path_normalization,
        ),
        (
            of(Kind::AbsolutePath),
            &stats.downstream_rq_non_relative_path,
        ),
        (of(Kind::StreamIdle), &stats.downstream_rq_idle_timeout),
        (
            of(Kind::DownstreamMaxDuration),
            &stats.downstream_rq_max_duration_reached,
        ),
        (of(Kind::RequestTimeout), &stats.downstream_rq_timeout),
        (of(Kind::PayloadTooLarge), &stats.downstream_rq_too_large),
    ] {
        if hit {
            count.add(1);
        }
    }
}

/// A cluster that gave no response is charged with the answer that stands for it.
fn charge(late: &Late) {
    let cluster = late.cluster.as_deref();
    if let Some(cluster) = cluster.filter(|_| late.stands_for_upstream() && late.status != 0) {
        cluster.stats().response(late.status);
    }
}

impl Sink for Observer {
    fn wants(&self) -> &Wants {
        &self.wants
    }

    fn finish(&self, record: &Record, late: &Late) {
        if let Some(metrics) = &self.metrics {
            metrics.count(record, late);
            if let Some(counted) = &late.counted {
                counted.count(metrics.registry(), late);
            }
        }
        if let Some(stats) = &self.stats {
            self.count(stats, late);
        }
        for log in &self.logs {
            log.write(record, late);
        }
        for sink in &*self.sinks {
            sink.finish(record, late);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::record::Ending;

    #[test]
    fn paths_that_are_refused_are_counted_apart() {
        let stats = Arc::<HttpStats>::default();
        let observer = Observer::new().stats(stats.clone());
        for (kind, status) in [
            (Kind::PathNormalization, 400),
            (Kind::PathNormalization, 307),
            (Kind::PathNormalization, 307),
            (Kind::AbsolutePath, 404),
            (Kind::NoRoute, 404),
        ] {
            let record = Record::begin(None, http::Version::HTTP_11, false);
            {
                let mut late = record.late();
                late.status = status;
                late.details = Some(kind.reply().details.into());
            }
            record.finish(Ending::Complete, &observer);
        }
        assert_eq!(stats.downstream_rq_failed_path_normalization.get(), 1);
        assert_eq!(stats.downstream_rq_redirected_with_normalized_path.get(), 2);
        assert_eq!(stats.downstream_rq_non_relative_path.get(), 1);
        assert_eq!(stats.no_route.get(), 1);
    }
}
