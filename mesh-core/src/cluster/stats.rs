//! Counters of a cluster, under Envoy's names.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use super::Endpoint;
use crate::{Kind, telemetry::metrics::Histogram};

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
            statuses: Statuses,
            retried: Statuses,
            times: OnceLock<Box<ClusterTimes>>,
        }

        impl ClusterStats {
            fn each_field(&self, f: &mut impl FnMut(&str, u64)) {
                $(f(stringify!($name), self.$name.get());)*
            }
        }
    };
}

/// Responses by status. Most of the clusters of a large configuration never get one, and have no place for them.
#[derive(Debug, Default)]
pub(crate) struct Statuses(OnceLock<Box<[Count; CODES]>>);

/// Statuses that are counted one by one: 100 to 599.
const CODES: usize = 500;

impl Statuses {
    /// Counts a response of `status`; beyond 100 to 599, as the nearest of these.
    pub(crate) fn add(&self, status: u16) {
        let index = usize::from(status.saturating_sub(100)).min(CODES - 1);
        let codes = || Box::new([const { Count(AtomicU64::new(0)) }; CODES]);
        self.0.get_or_init(codes)[index].add(1);
    }

    fn all(&self) -> impl Iterator<Item = (u16, u64)> {
        let codes = self.0.get().into_iter().flat_map(|codes| codes.iter());
        (100_u16..).zip(codes.map(Count::get))
    }

    /// Responses so far whose status is in `codes`.
    pub(crate) fn sum(&self, codes: std::ops::RangeInclusive<u16>) -> u64 {
        let all = self.all().filter(|(code, _)| codes.contains(code));
        all.map(|(_, count)| count).sum()
    }

    /// Each statistic by name: `upstream_rq_completed`, classes and statuses that occurred among them.
    pub(crate) fn each(&self, mut f: impl FnMut(&str, u64)) {
        f("upstream_rq_completed", self.sum(100..=599));
        for class in 1..=5 {
            let count = self.sum(class * 100..=class * 100 + 99);
            f(&format!("upstream_rq_{class}xx"), count);
        }
        for (code, count) in self.all().filter(|(_, count)| *count > 0) {
            f(&format!("upstream_rq_{code}"), count);
        }
    }
}

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
    /// Connections that the peer ended.
    upstream_cx_destroy_remote,
    /// Connections that we ended.
    upstream_cx_destroy_local,
    /// HTTP/1 connections that the peer closes after a response, as it says.
    upstream_cx_close_notify,
    /// Responses that were none of the protocol.
    upstream_cx_protocol_error,
    /// Connections of a TCP proxy that reached no endpoint with any attempt.
    upstream_cx_connect_attempts_exceeded,
    /// Connections closed for idleness.
    upstream_cx_idle_timeout,
    /// Connections that took no further request because of their age.
    upstream_cx_max_duration_reached,
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
    /// Requests refused by the limit of those in flight.
    upstream_rq_active_overflow,
    /// Requests that might not wait for a connection.
    upstream_rq_pending_overflow,
    /// Requests that failed while they waited, and streams of HTTP/2 whose connection died.
    upstream_rq_pending_failure_eject,
    /// Requests given up while they waited for a connection.
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
    /// Streams of HTTP/2 that we reset.
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
    /// Request bodies that did not fit into what is kept of them for a further attempt.
    retry_or_shadow_abandoned,
    /// Requests whose retries were used up.
    upstream_rq_retry_limit_exceeded,
    /// Redirects that were followed here.
    upstream_internal_redirect_succeeded_total,
    /// Redirects that a policy wanted followed, and that went to the client.
    upstream_internal_redirect_failed_total,
    /// Updates by which endpoints came or went.
    membership_change,
}

impl ClusterStats {
    /// Counts a response of `status`; beyond 100 to 599, as the nearest of these.
    pub fn response(&self, status: u16) {
        self.statuses.add(status);
    }

    /// Counts a response that nobody gets, since the request is sent again.
    pub(crate) fn retried(&self, status: u16) {
        self.retried.add(status);
    }

    /// Counts a connection that ended; `remote`: by the upstream.
    pub(crate) fn connection_ended(&self, remote: bool) {
        self.upstream_cx_destroy.add(1);
        match remote {
            true => self.upstream_cx_destroy_remote.add(1),
            false => self.upstream_cx_destroy_local.add(1),
        }
    }

    /// Counts a connection to `endpoint` that could not be made. As in Envoy it is one from its first packet on.
    pub(crate) fn connect_failed(&self, endpoint: &Endpoint, kind: Kind) {
        self.connect_broke(endpoint, kind);
        self.upstream_cx_total.add(1);
        self.connection_ended(kind != Kind::ConnectTimeout);
        endpoint.stats().cx_total.add(1);
    }

    /// The same of one that is counted already.
    pub(crate) fn connect_broke(&self, endpoint: &Endpoint, kind: Kind) {
        self.upstream_cx_connect_fail.add(1);
        if kind == Kind::ConnectTimeout {
            self.upstream_cx_connect_timeout.add(1);
        }
        endpoint.stats().cx_connect_fail.add(1);
    }

    /// Its distributions.
    pub fn times(&self) -> &ClusterTimes {
        self.times.get_or_init(Box::default)
    }

    /// Responses so far whose status is in `codes`.
    pub fn responses(&self, codes: std::ops::RangeInclusive<u16>) -> u64 {
        self.statuses.sum(codes)
    }

    /// Each statistic by name: `upstream_rq_completed`, classes and statuses that occurred among them, and those of retried
    /// responses, if there are any.
    pub fn each(&self, mut f: impl FnMut(&str, u64)) {
        // Two gauges are read one after the other, so the one may be ahead.
        let pending = self.upstream_rq_pending_active.get();
        self.each_field(&mut |name, value| match name {
            "upstream_rq_active" => f(name, value.saturating_sub(pending)),
            _ => f(name, value),
        });
        self.statuses.each(&mut f);
        self.retried.each(|name, value| {
            if value > 0 {
                f(&format!("retry.{name}"), value);
            }
        });
    }

    /// Each distribution by name, if there can be one.
    pub fn each_histogram(&self, mut f: impl FnMut(&'static str, &Histogram)) {
        let Some(times) = self.times.get() else {
            return;
        };
        let ClusterTimes {
            upstream_rq_time,
            upstream_cx_connect_ms,
            upstream_cx_length_ms,
        } = &**times;
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
        assert!(!all.keys().any(|name| name.starts_with("retry.")));
        stats.retried(503);
        let all = read(&stats);
        assert_eq!(all["retry.upstream_rq_503"], 1);
        assert_eq!(all["retry.upstream_rq_completed"], 1);
        assert_eq!(all["upstream_rq_completed"], 6, "counted apart");
    }

    #[test]
    fn a_connection_that_is_not_made_was_one() {
        // Whether the other side ended it.
        for (kind, remote) in [(Kind::ConnectFailure, 1), (Kind::ConnectTimeout, 0)] {
            let stats = ClusterStats::default();
            let endpoint = Endpoint::for_address(([127, 0, 0, 1], 1).into());
            stats.connect_failed(&endpoint, kind);
            for (count, wanted) in [
                (&stats.upstream_cx_total, 1),
                (&stats.upstream_cx_connect_fail, 1),
                (&stats.upstream_cx_connect_timeout, 1 - remote),
                (&stats.upstream_cx_destroy, 1),
                (&stats.upstream_cx_destroy_remote, remote),
                (&stats.upstream_cx_destroy_local, 1 - remote),
                (&endpoint.stats().cx_total, 1),
                (&endpoint.stats().cx_connect_fail, 1),
            ] {
                assert_eq!(count.get(), wanted, "{kind:?}");
            }
        }
    }
}
