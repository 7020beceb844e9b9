//! Counters of a cluster, under Envoy's names.

use std::sync::atomic::{AtomicU64, Ordering};

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
        pub struct ClusterStats { $($(#[$doc])* pub $name: Count,)* }

        impl ClusterStats {
            /// Each statistic by name.
            pub fn each(&self, mut f: impl FnMut(&'static str, u64)) {
                $(f(stringify!($name), self.$name.get());)*
            }
        }
    };
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
    /// Requests.
    upstream_rq_total,
    /// Requests in flight (gauge).
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
    /// Responses with a status.
    upstream_rq_completed,
    /// 1xx.
    upstream_rq_1xx,
    /// 2xx.
    upstream_rq_2xx,
    /// 3xx.
    upstream_rq_3xx,
    /// 4xx.
    upstream_rq_4xx,
    /// 5xx.
    upstream_rq_5xx,
    /// Updates of the endpoints.
    membership_change,
}

impl ClusterStats {
    /// Counts a response of `status`.
    pub fn response(&self, status: u16) {
        self.upstream_rq_completed.add(1);
        match status / 100 {
            1 => self.upstream_rq_1xx.add(1),
            2 => self.upstream_rq_2xx.add(1),
            3 => self.upstream_rq_3xx.add(1),
            4 => self.upstream_rq_4xx.add(1),
            _ => self.upstream_rq_5xx.add(1),
        }
    }
}
