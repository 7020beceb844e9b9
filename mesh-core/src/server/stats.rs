//! Statistics of listeners and HTTP connections, under Envoy's names.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use crate::{cluster::Count, model::Name, sync::lock, telemetry::metrics::Histogram};

macro_rules! stats {
    ($(#[$outer:meta])* $type:ident { $($(#[$doc:meta])* $name:ident),* $(,)? } $($(#[$of:meta])* $histogram:ident)?) => {
        $(#[$outer])*
        #[derive(Debug, Default)]
        pub struct $type {
            $($(#[$doc])* pub $name: Count,)*
            $($(#[$of])* pub $histogram: Histogram,)?
        }

        impl $type {
            /// Each statistic by name.
            pub fn each(&self, mut f: impl FnMut(&'static str, u64)) {
                $(f(stringify!($name), self.$name.get());)*
            }
        }
    };
}

stats! {
    /// What is counted of a listener; each field is a statistic `listener.ADDRESS.FIELD` of Envoy.
    ListenerStats {
        /// Connections accepted.
        downstream_cx_total,
        /// Connections open (gauge).
        downstream_cx_active,
        /// Connections that ended.
        downstream_cx_destroy,
        /// Connections refused by the limit.
        downstream_cx_overflow,
        /// Connections whose listener filters took too long.
        downstream_pre_cx_timeout,
        /// Connections in the listener filters (gauge).
        downstream_pre_cx_active,
        /// Connections that a listener filter refused.
        downstream_listener_filter_error,
        /// Connections that the peer closed during the listener filters.
        downstream_listener_filter_remote_close,
        /// Connections that no filter chain took.
        no_filter_chain_match,
        /// Connections closed because their chain's protection cannot act.
        downstream_cx_refused,
        /// Connections whose transport handshake failed or took too long.
        downstream_cx_handshake_failed,
    }
    /// Distribution of the lives of connections, in milliseconds.
    downstream_cx_length_ms
}

stats! {
    /// What is counted of HTTP connections; each field is a statistic `http.PREFIX.FIELD` of Envoy.
    HttpStats {
        /// Connections.
        downstream_cx_total,
        /// Connections open (gauge).
        downstream_cx_active,
        /// HTTP/1 connections.
        downstream_cx_http1_total,
        /// HTTP/1 connections open (gauge).
        downstream_cx_http1_active,
        /// HTTP/2 connections.
        downstream_cx_http2_total,
        /// HTTP/2 connections open (gauge).
        downstream_cx_http2_active,
        /// Upgrades that were allowed, CONNECT included.
        downstream_cx_upgrades_total,
        /// Those that go on (gauge).
        downstream_cx_upgrades_active,
        /// Connections that ended.
        downstream_cx_destroy,
        /// Connections that the peer ended.
        downstream_cx_destroy_remote,
        /// Connections that this side ended.
        downstream_cx_destroy_local,
        /// Connections that ended with a request in flight.
        downstream_cx_destroy_active_rq,
        /// The same, by the peer.
        downstream_cx_destroy_remote_active_rq,
        /// The same, by this side.
        downstream_cx_destroy_local_active_rq,
        /// Bytes received.
        downstream_cx_rx_bytes_total,
        /// Bytes sent.
        downstream_cx_tx_bytes_total,
        /// Connections that broke the protocol.
        downstream_cx_protocol_error,
        /// Connections closed for idleness.
        downstream_cx_idle_timeout,
        /// Connections drained for their age.
        downstream_cx_max_duration_reached,
        /// Connections closed for the number of their requests.
        downstream_cx_max_requests_reached,
        /// Connections closed by a drain.
        downstream_cx_drain_close,
        /// Requests in flight (gauge).
        downstream_rq_active,
        /// Upgrades that neither route nor listener allows.
        downstream_rq_ws_on_non_ws_route,
        /// Requests whose head did not come in time.
        downstream_rq_header_timeout,
        /// Requests that the connection answered itself, before any layer saw them.
        downstream_rq_rejected_via_connection,
    }
    /// Distribution of the lives of connections, in milliseconds.
    downstream_cx_length_ms
}

stats! {
    /// What is counted of TCP proxies; each field is a statistic `tcp.PREFIX.FIELD` of Envoy.
    TcpStats {
        /// Connections.
        downstream_cx_total,
        /// Connections open (gauge); Envoy derives it.
        downstream_cx_active,
        /// Connections for which no cluster is there.
        downstream_cx_no_route,
        /// Bytes received.
        downstream_cx_rx_bytes_total,
        /// Bytes sent.
        downstream_cx_tx_bytes_total,
        /// Connections closed for idleness.
        idle_timeout,
        /// Connections closed for their age.
        max_downstream_connection_duration,
    }
}

/// The statistics of a process, by name. They outlive listeners, so that counters go on over reloads.
#[derive(Debug, Default)]
pub struct ServerStats {
    listeners: Mutex<BTreeMap<Name, Arc<ListenerStats>>>,
    http: Mutex<BTreeMap<Name, Arc<HttpStats>>>,
    tcp: Mutex<BTreeMap<Name, Arc<TcpStats>>>,
}

impl ServerStats {
    /// Of the listener on `address`.
    pub fn listener(&self, address: &Name) -> Arc<ListenerStats> {
        entry(&self.listeners, address)
    }

    /// Of HTTP connections under a `stat_prefix`.
    pub fn http(&self, prefix: &Name) -> Arc<HttpStats> {
        entry(&self.http, prefix)
    }

    /// Of TCP proxies under a `stat_prefix`.
    pub fn tcp(&self, prefix: &Name) -> Arc<TcpStats> {
        entry(&self.tcp, prefix)
    }

    /// Every statistic under its full name, such as `http.ingress_http.downstream_cx_total`.
    pub fn each(&self, mut f: impl FnMut(&str, u64)) {
        let mut all = |kind: &str, name: &Name, field: &str, value| {
            f(&format!("{kind}.{}.{field}", scope(name)), value);
        };
        for (name, stats) in snapshot(&self.listeners) {
            stats.each(|field, value| all("listener", &name, field, value));
        }
        for (name, stats) in snapshot(&self.http) {
            stats.each(|field, value| all("http", &name, field, value));
        }
        for (name, stats) in snapshot(&self.tcp) {
            stats.each(|field, value| all("tcp", &name, field, value));
        }
    }

    /// Every distribution of listeners and HTTP connections, with what it is of, such as `http` and `ingress_http`.
    pub fn each_histogram(&self, mut f: impl FnMut(&'static str, &str, &'static str, &Histogram)) {
        let name = "downstream_cx_length_ms";
        for (of, stats) in snapshot(&self.listeners) {
            f(
                "listener",
                &scope(&of),
                name,
                &stats.downstream_cx_length_ms,
            );
        }
        for (of, stats) in snapshot(&self.http) {
            f("http", &scope(&of), name, &stats.downstream_cx_length_ms);
        }
    }
}

/// Envoy replaces colons, which separate elsewhere.
fn scope(name: &str) -> String {
    name.replace(':', "_")
}

fn entry<T: Default>(map: &Mutex<BTreeMap<Name, Arc<T>>>, name: &Name) -> Arc<T> {
    lock(map).entry(name.clone()).or_default().clone()
}

fn snapshot<T>(map: &Mutex<BTreeMap<Name, Arc<T>>>) -> Vec<(Name, Arc<T>)> {
    lock(map)
        .iter()
        .map(|(name, stats)| (name.clone(), stats.clone()))
        .collect()
}
