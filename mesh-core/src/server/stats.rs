//! Statistics of listeners and HTTP connections, under Envoy's names.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use crate::{
    cluster::Count,
    model::{ListenerFilter, Name, ProxyProtocolVersion},
    sync::lock,
    telemetry::metrics::Histogram,
};

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

stats! {
    /// What is counted of HTTP inspectors; each field is a statistic `http_inspector.FIELD` of Envoy.
    HttpInspectorStats {
        /// Connections whose request line found no end.
        read_error,
        /// HTTP/1.0.
        http10_found,
        /// HTTP/1.1.
        http11_found,
        /// HTTP/2.
        http2_found,
        /// Something else.
        http_not_found,
    }
}

stats! {
    /// What is counted of TLS inspectors; each field is a statistic `tls_inspector.FIELD` of Envoy.
    TlsInspectorStats {
        /// Hellos over the limit.
        client_hello_too_large,
        /// TLS.
        tls_found,
        /// Something else.
        tls_not_found,
        /// Hellos with application protocols.
        alpn_found,
        /// Hellos without.
        alpn_not_found,
        /// Hellos with a server name.
        sni_found,
        /// Hellos without.
        sni_not_found,
    }
}

stats! {
    /// What is counted of one version of PROXY protocol headers.
    ProxyVersionStats {
        /// Headers, also those that were not taken.
        found,
        /// Headers of a version that is not allowed.
        disallowed,
        /// Malformed headers.
        error,
    }
}

/// What is counted of PROXY protocol filters; a statistic is `proxy_proto.[PREFIX.]FIELD` of Envoy.
#[derive(Debug, Default)]
pub struct ProxyProtocolStats {
    /// Connections without header that were accepted.
    pub not_found_allowed: Count,
    /// Connections without header that were closed.
    pub not_found_disallowed: Count,
    v1: ProxyVersionStats,
    v2: ProxyVersionStats,
}

impl ProxyProtocolStats {
    /// Of one version.
    pub fn version(&self, version: ProxyProtocolVersion) -> &ProxyVersionStats {
        match version {
            ProxyProtocolVersion::V1 => &self.v1,
            ProxyProtocolVersion::V2 => &self.v2,
        }
    }

    fn each(&self, prefix: &str, mut f: impl FnMut(&str, u64)) {
        f(
            &format!("{prefix}not_found_allowed"),
            self.not_found_allowed.get(),
        );
        f(
            &format!("{prefix}not_found_disallowed"),
            self.not_found_disallowed.get(),
        );
        for (version, stats) in [("v1", &self.v1), ("v2", &self.v2)] {
            stats.each(|field, value| f(&format!("{prefix}versions.{version}.{field}"), value));
        }
    }
}

/// What the listener filters of one listener count in.
#[derive(Debug, Default)]
pub(super) struct FilterStats {
    pub(super) http: Arc<HttpInspectorStats>,
    pub(super) tls: Arc<TlsInspectorStats>,
    proxy: Vec<(Name, Arc<ProxyProtocolStats>)>,
    /// Malformed and missing PROXY protocol headers, of all listeners.
    pub(super) proxy_errors: Arc<Count>,
}

impl FilterStats {
    /// Of the PROXY protocol filter with that `stat_prefix`.
    pub(super) fn proxy(&self, prefix: &Name) -> Option<&ProxyProtocolStats> {
        let mut all = self.proxy.iter();
        let (_, stats) = all.find(|(name, _)| name == prefix)?;
        Some(stats)
    }
}

/// The statistics of a process, by name. They outlive listeners, so that counters go on over reloads.
#[derive(Debug, Default)]
pub struct ServerStats {
    http_inspector: OnceLock<Arc<HttpInspectorStats>>,
    tls_inspector: OnceLock<Arc<TlsInspectorStats>>,
    proxy_protocol: Mutex<BTreeMap<Name, Arc<ProxyProtocolStats>>>,
    proxy_errors: Arc<Count>,
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

    /// Of these listener filters. What no listener has is not shown.
    pub(super) fn filters(&self, filters: &[ListenerFilter]) -> FilterStats {
        let mut stats = FilterStats {
            proxy_errors: self.proxy_errors.clone(),
            ..FilterStats::default()
        };
        for filter in filters {
            let mut filter = filter;
            while let ListenerFilter::Except(_, inner) = filter {
                filter = inner;
            }
            match filter {
                ListenerFilter::HttpInspector => {
                    stats.http = self.http_inspector.get_or_init(Arc::default).clone();
                }
                ListenerFilter::TlsInspector => {
                    stats.tls = self.tls_inspector.get_or_init(Arc::default).clone();
                }
                ListenerFilter::ProxyProtocol { stat_prefix, .. } => {
                    let entry = entry(&self.proxy_protocol, stat_prefix);
                    stats.proxy.push((stat_prefix.clone(), entry));
                }
                ListenerFilter::OriginalDst | ListenerFilter::Except(..) => {}
            }
        }
        stats
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
        self.each_of_filters(f);
    }

    fn each_of_filters(&self, mut f: impl FnMut(&str, u64)) {
        if let Some(stats) = self.http_inspector.get() {
            stats.each(|field, value| f(&format!("http_inspector.{field}"), value));
        }
        if let Some(stats) = self.tls_inspector.get() {
            stats.each(|field, value| f(&format!("tls_inspector.{field}"), value));
        }
        let of_proxies = snapshot(&self.proxy_protocol);
        if !of_proxies.is_empty() {
            f("downstream_cx_proxy_proto_error", self.proxy_errors.get());
        }
        for (name, stats) in of_proxies {
            let prefix = match &*name {
                "" => "proxy_proto.".to_owned(),
                name => format!("proxy_proto.{name}."),
            };
            stats.each(&prefix, &mut f);
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
