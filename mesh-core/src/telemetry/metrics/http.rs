use std::sync::{Arc, OnceLock};

use super::Histogram;
use crate::cluster::Count;

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What is counted of a connection manager; each field is a statistic `http.PREFIX.FIELD` of Envoy.
        #[derive(Debug, Default)]
        pub struct HttpStats {
            $($(#[$doc])* pub $name: Count,)*
            /// Distribution of the times from the start of a request to the end of its response.
            pub downstream_rq_time: Histogram,
            /// Requests that were answered ahead of the router.
            pub(crate) unrouted: Count,
            fault: OnceLock<Arc<FaultStats>>,
            cors: OnceLock<Arc<CorsStats>>,
        }

        impl HttpStats {
            /// Each statistic by name.
            pub fn each(&self, mut f: impl FnMut(&'static str, u64)) {
                f("downstream_rq_total", self.requests());
                f("downstream_rq_completed", self.completed());
                f("rq_total", self.requests().saturating_sub(self.unrouted.get()));
                $(f(stringify!($name), self.$name.get());)*
                if let Some(cors) = self.cors.get() {
                    cors.each(&mut f);
                }
                if let Some(fault) = self.fault.get() {
                    fault.each(f);
                }
            }
        }
    };
}

/// What is counted of CORS filters; each field is a statistic `http.PREFIX.cors.FIELD` of Envoy.
#[derive(Debug, Default)]
pub struct CorsStats {
    /// Requests whose origin is allowed.
    pub origin_valid: Count,
    /// Requests whose origin is not allowed.
    pub origin_invalid: Count,
}

impl CorsStats {
    /// Each statistic by name, with `cors.` before it.
    pub fn each(&self, mut f: impl FnMut(&'static str, u64)) {
        f("cors.origin_valid", self.origin_valid.get());
        f("cors.origin_invalid", self.origin_invalid.get());
    }
}

/// What is counted of fault filters; each field is a statistic `http.PREFIX.fault.FIELD` of Envoy.
#[derive(Debug, Default)]
pub struct FaultStats {
    /// Delays.
    pub delays_injected: Count,
    /// Aborts.
    pub aborts_injected: Count,
    /// Responses that were slowed down.
    pub response_rl_injected: Count,
    /// Faults that were left out, since as many as allowed were active.
    pub faults_overflow: Count,
    /// Requests with an active fault (gauge).
    pub active_faults: Count,
}

impl FaultStats {
    /// Each statistic by name, with `fault.` before it.
    pub fn each(&self, mut f: impl FnMut(&'static str, u64)) {
        f("fault.delays_injected", self.delays_injected.get());
        f("fault.aborts_injected", self.aborts_injected.get());
        f(
            "fault.response_rl_injected",
            self.response_rl_injected.get(),
        );
        f("fault.faults_overflow", self.faults_overflow.get());
        f("fault.active_faults", self.active_faults.get());
    }
}

stats! {
    /// Connections.
    downstream_cx_total,
    /// Connections open (gauge).
    downstream_cx_active,
    /// Requests over HTTP/1.
    downstream_rq_http1_total,
    /// Requests over HTTP/2.
    downstream_rq_http2_total,
    /// Responses 1xx.
    downstream_rq_1xx,
    /// Responses 2xx.
    downstream_rq_2xx,
    /// Responses 3xx.
    downstream_rq_3xx,
    /// Responses 4xx.
    downstream_rq_4xx,
    /// Responses 5xx.
    downstream_rq_5xx,
    /// Streams that ended before their time, on whosever part.
    downstream_rq_rx_reset,
    /// Requests with too much body for something that must hold it.
    downstream_rq_too_large,
    /// Requests for which there is no route.
    no_route,
    /// Requests whose route leads to no cluster.
    no_cluster,
    /// Requests that a route redirects or answers itself.
    rq_direct_response,
    /// Requests whose path cannot be normalised.
    downstream_rq_failed_path_normalization,
    /// Requests that are redirected to their path without escaped slashes.
    downstream_rq_redirected_with_normalized_path,
    /// Requests whose path does not begin with a slash.
    downstream_rq_non_relative_path,
    /// Requests over a limit of time.
    downstream_rq_timeout,
    /// Streams on which nothing moved.
    downstream_rq_idle_timeout,
    /// Streams that lived too long.
    downstream_rq_max_duration_reached,
    /// Redirects of upstreams that are not followed, since they name no URI.
    passthrough_internal_redirect_bad_location,
    /// The same, since they lead from plain text to TLS or back.
    passthrough_internal_redirect_unsafe_scheme,
    /// The same, since the request was redirected often enough.
    passthrough_internal_redirect_too_many_redirects,
    /// The same, since there is no route.
    passthrough_internal_redirect_no_route,
    /// The same, since a predicate of the route forbids it.
    passthrough_internal_redirect_predicate,
}

impl HttpStats {
    /// The statistics of CORS filters; listed from the first call on.
    pub fn cors(&self) -> &Arc<CorsStats> {
        self.cors.get_or_init(Arc::default)
    }

    /// The statistics of fault filters; listed from the first call on.
    pub fn fault(&self) -> &Arc<FaultStats> {
        self.fault.get_or_init(Arc::default)
    }

    /// Requests (`downstream_rq_total`).
    pub fn requests(&self) -> u64 {
        self.downstream_rq_http1_total.get() + self.downstream_rq_http2_total.get()
    }

    /// Requests that were answered (`downstream_rq_completed`).
    pub fn completed(&self) -> u64 {
        let classes = [
            &self.downstream_rq_1xx,
            &self.downstream_rq_2xx,
            &self.downstream_rq_3xx,
            &self.downstream_rq_4xx,
            &self.downstream_rq_5xx,
        ];
        classes.into_iter().map(Count::get).sum()
    }

    /// Counts a response.
    pub fn response(&self, status: u16) {
        match status / 100 {
            1 => self.downstream_rq_1xx.add(1),
            2 => self.downstream_rq_2xx.add(1),
            3 => self.downstream_rq_3xx.add(1),
            4 => self.downstream_rq_4xx.add(1),
            _ => self.downstream_rq_5xx.add(1),
        }
    }
}
