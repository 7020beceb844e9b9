//! Upstream clusters (`config.cluster.v3.Cluster`).

use std::time::Duration;

use super::{
    Address, ClusterLoadAssignment, Http1Options, Http2Options, Limits, Metadata, Name, Origin,
    TransportSocket,
};
use crate::cluster::CustomLb;

/// A group of endpoints that serve the same thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Unique among clusters.
    pub name: Name,
    /// Name in statistics; `None`: `name`.
    pub alt_stat_name: Option<Name>,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// Endpoints in the cluster itself (static and DNS).
    pub load_assignment: ClusterLoadAssignment,
    /// How one is chosen.
    pub lb: LbPolicy,
    /// If fewer endpoints of a priority are healthy, per cent, while the cluster cannot take all requests, they go to all
    /// of its endpoints (`healthy_panic_threshold`); 0: never. Default [`PANIC_THRESHOLD`](Self::PANIC_THRESHOLD).
    pub panic_threshold: u32,
    /// Limit for a new connection; default 5 s.
    pub connect_timeout: Duration,
    /// Limits of the default and of the high priority.
    pub limits: [Limits; 2],
    /// Limits of a single endpoint's connections (`per_host_thresholds.max_connections`).
    pub per_host_max_connections: Option<u32>,
    /// Which HTTP version is spoken.
    pub protocol: UpstreamProtocol,
    /// HTTP/1 settings.
    pub http1: Http1Options,
    /// HTTP/2 settings.
    pub http2: Http2Options,
    /// A connection without requests is closed after this; default 1 h; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// A connection is drained after this.
    pub max_connection_duration: Option<Duration>,
    /// A connection is closed after so many requests; `None`: never.
    pub max_requests_per_connection: Option<u32>,
    /// Longest life of a stream.
    pub max_stream_duration: Option<Duration>,
    /// TCP keep-alive.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// How bytes travel.
    pub transport: TransportSocket,
    /// The first whose labels an endpoint's `envoy.transport_socket_match` metadata hold replaces `transport`.
    pub transport_matches: Vec<TransportMatch>,
    /// Ejection of endpoints that fail. In the model now; acts with the health engine.
    pub outlier: Option<OutlierDetection>,
    /// Local address of upstream connections.
    pub bind: Option<Address>,
    /// Connections to an endpoint that is found to fail here are closed; what the control plane says of its health does not count.
    pub close_on_host_failure: bool,
    /// Connections to all endpoints are closed when one comes or goes.
    pub close_on_host_set_change: bool,
    /// Metadata, `istio` among it.
    pub metadata: Metadata,
    /// All requests are refused with 503 for this reason: protection that cannot act yet.
    pub refuse: Option<Name>,
    /// The configuration object that it was made of.
    pub origin: Origin,
}

impl Cluster {
    /// Envoy's panic threshold, per cent.
    pub const PANIC_THRESHOLD: u32 = 50;

    /// A cluster named `name` with Envoy's defaults and no endpoint.
    pub fn new(name: impl Into<Name>, discovery: Discovery) -> Self {
        Self {
            name: name.into(),
            alt_stat_name: None,
            discovery,
            load_assignment: ClusterLoadAssignment::default(),
            lb: LbPolicy::RoundRobin,
            panic_threshold: Self::PANIC_THRESHOLD,
            connect_timeout: Duration::from_secs(5),
            limits: [Limits::default(), Limits::default()],
            per_host_max_connections: None,
            protocol: UpstreamProtocol::Http1,
            http1: Http1Options::default(),
            http2: Http2Options::default(),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_requests_per_connection: None,
            max_stream_duration: None,
            tcp_keepalive: None,
            transport: TransportSocket::default(),
            transport_matches: Vec::new(),
            outlier: None,
            bind: None,
            close_on_host_failure: false,
            close_on_host_set_change: false,
            metadata: Metadata::default(),
            refuse: None,
            origin: Origin::default(),
        }
    }
}

/// Where endpoints come from (`Cluster.DiscoveryType`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discovery {
    /// In the cluster.
    Static,
    /// Every address that the name resolves to is an endpoint.
    StrictDns(Dns),
    /// One endpoint; a new connection uses the newest first address.
    LogicalDns(Dns),
    /// Endpoints are pushed under this name (EDS).
    Eds(Name),
    /// The address that the connection was meant for (`ORIGINAL_DST`).
    OriginalDst(OriginalDst),
}

/// How a name is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Time between look-ups; default 5 s.
    pub refresh: Duration,
    /// Which addresses are taken.
    pub family: DnsFamily,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(5),
            family: DnsFamily::Auto,
        }
    }
}

/// Which addresses a look-up takes (`DnsLookupFamily`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DnsFamily {
    /// IPv6, and IPv4 if there is none.
    #[default]
    Auto,
    /// IPv4.
    V4Only,
    /// IPv6.
    V6Only,
    /// IPv4, and IPv6 if there is none.
    V4Preferred,
    /// Both.
    All,
}

/// Settings of an original-destination cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginalDst {
    /// A request header may name the address (`use_http_header`); `host` stands for the authority.
    pub header: Option<http::HeaderName>,
    /// Replaces the port.
    pub port_override: Option<u16>,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LbPolicy {
    /// In turn, by weight.
    RoundRobin,
    /// The less loaded of `choices` random ones.
    LeastRequest {
        /// How many are compared; default 2.
        choices: u32,
    },
    /// By chance; weights of endpoints do not count.
    Random,
    /// The address that the connection was meant for.
    ClusterProvided,
    /// A consistent hash ring. In the model now; acts with the hashing pickers.
    RingHash {
        /// Smallest ring; default 1,024.
        min_size: u64,
        /// Largest ring; default 8 Mi.
        max_size: u64,
    },
    /// A Maglev table. In the model now; acts with the hashing pickers.
    Maglev {
        /// A prime; default 65,537.
        table_size: u64,
    },
    /// A policy of the program's own; see [`LbPolicy::custom`].
    Custom(CustomLb),
}

/// Which HTTP version is spoken with the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// The version of the downstream request (`use_downstream_protocol_config`).
    Downstream,
    /// By ALPN; without TLS HTTP/1.1 (`auto_config`).
    Auto,
}

/// TCP keep-alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Unanswered probes before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Time between two.
    pub interval: Option<Duration>,
}

/// A transport socket for some endpoints (`TransportSocketMatch`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportMatch {
    /// Its name.
    pub name: Name,
    /// All must be in the endpoint's metadata.
    pub labels: Vec<(Name, Name)>,
    /// The transport socket.
    pub transport: TransportSocket,
}

/// Ejection of failing endpoints (`config.cluster.v3.OutlierDetection`). Values as configured; `None`: Envoy's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Errors in a row; default 5.
    pub consecutive_5xx: Option<u32>,
    /// Gateway errors in a row; default 5.
    pub consecutive_gateway_failure: Option<u32>,
    /// Local errors in a row; default 5.
    pub consecutive_local_origin_failure: Option<u32>,
    /// Local errors count apart.
    pub split_external_local_origin_errors: bool,
    /// Time between sweeps; default 10 s.
    pub interval: Option<Duration>,
    /// First ejection; default 30 s.
    pub base_ejection_time: Option<Duration>,
    /// Longest ejection; default 300 s.
    pub max_ejection_time: Option<Duration>,
    /// Largest share that is ejected, per cent; default 10.
    pub max_ejection_percent: Option<u32>,
    /// Enforced share of 5xx ejections, per cent; default 100.
    pub enforcing_consecutive_5xx: Option<u32>,
    /// Enforced share of gateway ejections, per cent; default 0.
    pub enforcing_consecutive_gateway_failure: Option<u32>,
    /// Enforced share of success-rate ejections, per cent; default 100.
    pub enforcing_success_rate: Option<u32>,
}
