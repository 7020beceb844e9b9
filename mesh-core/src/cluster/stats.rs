//! Counters of a cluster, under Envoy's names.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use crate::telemetry::metrics::Histogram;

/// A counter or gauge that wraps never in practice.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` off; for gauges only.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What is counted of a cluster; each field is a statistic `cluster.NAME.FIELD` of Envoy.
        #[derive(Debug, Default)]
        pub struct ClusterStats {
            $($(#[$doc])* pub $name: Count,)*
            used: OnceLock<Box<Used>>,
        }

        impl ClusterStats {
            fn each_field(&self, f: &mut impl FnMut(&str, u64)) {
                $(f(stringify!($name), self.$name.get());)*
            }
        }
    };
}

/// What only a cluster has that was used: most of the clusters of a large configuration never are.
#[derive(Debug)]
struct Used {
    /// Responses by status, from 100.
    codes: [Count; CODES],
    times: ClusterTimes,
}

/// Statuses that are counted one by one: 100 to 599.
const CODES: usize = 500;

/// Distributions, in milliseconds; each field is a histogram `cluster.NAME.FIELD` of Envoy.
#[derive(Debug, Default)]
pub struct ClusterTimes {
    /// From the end of a request to the end of its response.
    pub upstream_rq_time: Histogram,
    /// Time that connections took to be made.
    pub upstream_cx_connect_ms: Histogram,
    /// Lives of connections.
    pub upstream_cx_length_ms: Histogram,
}

stats! {
    /// Connections made.
    upstream_cx_total,
    /// Connections open (gauge).
    upstream_cx_active,
    /// HTTP/1 connections made.
    upstream_cx_http1_total,
    /// HTTP/2 connections made.
    upstream_cx_http2_total,
    /// Connections that failed.
    upstream_cx_connect_fail,
    /// Connections that were not made in time.
    upstream_cx_connect_timeout,
    /// Connections refused by the limit.
    upstream_cx_overflow,
    /// Connections that ended.
    upstream_cx_destroy,
    /// Connections closed for idleness.
    upstream_cx_idle_timeout,
    /// Connections closed for the number of requests.
    upstream_cx_max_requests,
    /// Picks without an endpoint.
    upstream_cx_none_healthy,
    /// Bytes received.
    upstream_cx_rx_bytes_total,
    /// Bytes sent.
    upstream_cx_tx_bytes_total,
    /// Requests that got a connection.
    upstream_rq_total,
    /// Requests in flight (gauge). Those that wait for a connection are among them here, and taken off by [`ClusterStats::each`].
    upstream_rq_active,
    /// Requests that waited for a connection.
    upstream_rq_pending_total,
    /// Requests that wait for a connection (gauge).
    upstream_rq_pending_active,
    /// Requests refused by a limit.
    upstream_rq_pending_overflow,
    /// Requests that failed while they waited.
    upstream_rq_pending_failure_eject,
    /// Requests given up.
    upstream_rq_cancelled,
    /// Requests that timed out.
    upstream_rq_timeout,
    /// Attempts that timed out.
    upstream_rq_per_try_timeout,
    /// Attempts in which nothing came for too long.
    upstream_rq_per_try_idle_timeout,
    /// Streams that lived too long.
    upstream_rq_max_duration_reached,
    /// Requests that the upstream reset.
    upstream_rq_rx_reset,
    /// Requests that we reset.
    upstream_rq_tx_reset,
    /// Retries.
    upstream_rq_retry,
    /// Retries after a back-off of our own.
    upstream_rq_retry_backoff_exponential,
    /// Retries after a back-off that the response asked for.
    upstream_rq_retry_backoff_ratelimited,
    /// Retries that succeeded.
    upstream_rq_retry_success,
    /// Retries refused by a limit.
    upstream_rq_retry_overflow,
    /// Requests whose retries were used up.
    upstream_rq_retry_limit_exceeded,
    /// Redirects that were followed here.
    upstream_internal_redirect_succeeded_total,
    /// Redirects that a policy wanted followed, and that went to the client.
    upstream_internal_redirect_failed_total,
    /// Updates of the endpoints.
    membership_change,
}

impl ClusterStats {
    /// Counts a response of `status`; beyond 100 to 599, as the nearest of these.
    pub fn response(&self, status: u16) {
        let index = usize::from(status.saturating_sub(100)).min(CODES - 1);
        self.used().codes[index].add(1);
    }

    /// Its distributions.
    pub fn times(&self) -> &ClusterTimes {
        &self.used().times
    }

    /// Responses so far whose status is in `codes`.
    pub fn responses(&self, codes: std::ops::RangeInclusive<u16>) -> u64 {
        let Some(used) = self.used.get() else {
            return 0;
        };
        let all = used.codes.iter().zip(100_u16..);
        all.filter(|(_, code)| codes.contains(code))
            .map(|(count, _)| count.get())
            .sum()
    }

    fn used(&self) -> &Used {
        self.used.get_or_init(|| {
            Box::new(Used {
                codes: [const { Count(AtomicU64::new(0)) }; CODES],
                times: ClusterTimes::default(),
            })
        })
    }

    /// Each statistic by name: `upstream_rq_completed`, classes and statuses that occurred among them.
    pub fn each(&self, mut f: impl FnMut(&str, u64)) {
        // Two gauges are read one after the other, so the one may be ahead.
        let pending = self.upstream_rq_pending_active.get();
        self.each_field(&mut |name, value| match name {
            "upstream_rq_active" => f(name, value.saturating_sub(pending)),
            _ => f(name, value),
        });
        f("upstream_rq_completed", self.responses(100..=599));
        for class in 1..=5 {
            let count = self.responses(class * 100..=class * 100 + 99);
            f(&format!("upstream_rq_{class}xx"), count);
        }
        let codes = self.used.get().into_iter().flat_map(|used| &used.codes);
        for (count, code) in codes.zip(100_u16..).filter(|(count, _)| count.get() > 0) {
            f(&format!("upstream_rq_{code}"), count.get());
        }
    }

    /// Each distribution by name, if there can be one.
    pub fn each_histogram(&self, mut f: impl FnMut(&'static str, &Histogram)) {
        let Some(used) = self.used.get() else {
            return;
        };
        let ClusterTimes {
            upstream_rq_time,
            upstream_cx_connect_ms,
            upstream_cx_length_ms,
        } = &used.times;
        f("upstream_rq_time", upstream_rq_time);
        f("upstream_cx_connect_ms", upstream_cx_connect_ms);
        f("upstream_cx_length_ms", upstream_cx_length_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_the_sum_are_those_of_the_statuses() {
        let stats = ClusterStats::default();
        let read = |stats: &ClusterStats| {
            let mut all = std::collections::BTreeMap::new();
            stats.each(|name, value| {
                all.insert(name.to_owned(), value);
            });
            all
        };
        assert_eq!(read(&stats)["upstream_rq_completed"], 0);
        for status in [200, 200, 204, 404, 503, 999] {
            stats.response(status);
        }
        let all = read(&stats);
        for (name, value) in [
            ("upstream_rq_200", 2),
            ("upstream_rq_204", 1),
            ("upstream_rq_2xx", 3),
            ("upstream_rq_404", 1),
            ("upstream_rq_4xx", 1),
            ("upstream_rq_5xx", 2),
            ("upstream_rq_599", 1),
            ("upstream_rq_completed", 6),
        ] {
            assert_eq!(all[name], value, "{name}");
        }
        assert!(!all.contains_key("upstream_rq_500"));
    }
}
