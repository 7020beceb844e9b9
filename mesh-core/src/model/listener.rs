//! Listeners and filter chains (`config.listener.v3`).

use std::time::Duration;

use bytes::Bytes;

use super::{
    AccessLog, Address, Cidr, ClusterChoice, HashPolicy, HttpConnectionManager, MatchTree,
    Metadata, Name, Origin, ProxyProtocolVersion, TcpKeepalive, TransportSocket,
};

/// A socket that connections come in on (`config.listener.v3.Listener`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Unique among listeners.
    pub name: Name,
    /// Where it listens, first of all.
    pub address: Address,
    /// Where it listens besides.
    pub additional_addresses: Vec<Address>,
    /// A socket is opened; `false`: connections only come from another listener by their original destination.
    pub bind_to_port: bool,
    /// The direction, for telemetry.
    pub direction: Direction,
    /// The best match serves the connection.
    pub filter_chains: Vec<FilterChain>,
    /// Chooses among the chains by name instead of by their own matches (`filter_chain_matcher`).
    pub filter_chain_matcher: Option<MatchTree>,
    /// Serves connections that no chain matches; `None`: they are closed.
    pub default_filter_chain: Option<FilterChain>,
    /// What looks at the first bytes, in order.
    pub listener_filters: Vec<ListenerFilter>,
    /// Limit for the listener filters; default 15 s; zero: none.
    pub listener_filters_timeout: Duration,
    /// On that limit the connection goes on instead of being closed.
    pub continue_on_listener_filters_timeout: bool,
    /// A connection that a listener filter finds to be for another address is handed to the listener of that address, if there
    /// is one.
    pub use_original_dst: bool,
    /// `SO_REUSEPORT`, one accept queue a worker; default true.
    pub enable_reuse_port: bool,
    /// `IP_TRANSPARENT`.
    pub transparent: bool,
    /// Its sockets of IPv6 take connections over IPv4 too (`ipv4_compat` of one of its addresses).
    pub ipv4_compat: bool,
    /// Bytes that are buffered for one connection; default 1 MiB.
    pub per_connection_buffer_limit: u32,
    /// Length of the kernel's accept queue; default 4,096 (bounded by the kernel).
    pub tcp_backlog: Option<u32>,
    /// TCP keep-alive of accepted connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Connections at one time; `None`: no limit.
    pub connection_limit: Option<u32>,
    /// Logs of connections: one line at the end of each, whether or not a filter chain took it.
    pub access_log: Vec<AccessLog>,
    /// Metadata for other mechanisms.
    pub metadata: Metadata,
    /// The configuration object that it was made of.
    pub origin: Origin,
}

impl Listener {
    /// A listener on `address` with Envoy's defaults and no filter chain.
    pub fn new(name: impl Into<Name>, address: Address) -> Self {
        Self {
            name: name.into(),
            address,
            additional_addresses: Vec::new(),
            bind_to_port: true,
            direction: Direction::Unspecified,
            filter_chains: Vec::new(),
            filter_chain_matcher: None,
            default_filter_chain: None,
            listener_filters: Vec::new(),
            listener_filters_timeout: Duration::from_secs(15),
            continue_on_listener_filters_timeout: false,
            use_original_dst: false,
            enable_reuse_port: true,
            transparent: false,
            ipv4_compat: false,
            per_connection_buffer_limit: 1 << 20,
            tcp_backlog: None,
            tcp_keepalive: None,
            connection_limit: None,
            access_log: Vec::new(),
            metadata: Metadata::default(),
            origin: Origin::default(),
        }
    }
}

/// Direction of traffic (`TrafficDirection`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Not said.
    #[default]
    Unspecified,
    /// Towards the application.
    Inbound,
    /// From the application.
    Outbound,
}

/// Looks at a connection before its filter chain is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenerFilter {
    /// Reads server name and ALPN of a TLS hello.
    TlsInspector,
    /// Tells HTTP/1.x and HTTP/2 from other protocols.
    HttpInspector,
    /// Reads a PROXY protocol header; optional if `allow_without`.
    ProxyProtocol {
        /// A connection without the header is accepted too.
        allow_without: bool,
        /// Headers of this version are not taken: such a connection is closed, or, with `allow_without`, passed on as it is.
        disallowed: Option<ProxyProtocolVersion>,
        /// What its statistics are counted under besides; may be empty.
        stat_prefix: Name,
    },
    /// Reads the address that the connection was meant for.
    OriginalDst,
    /// The filter, but not for connections to these ports (`filter_disabled`).
    Except(PortMatch, Box<ListenerFilter>),
}

/// A condition on the port that a connection was meant for (`ListenerFilterChainMatchPredicate`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortMatch {
    /// Every port.
    Any,
    /// Ports from the first one to the one before the second.
    Range(i32, i32),
    /// One of the conditions holds.
    Or(Vec<PortMatch>),
    /// All of the conditions hold.
    And(Vec<PortMatch>),
    /// The condition does not hold.
    Not(Box<PortMatch>),
}

impl PortMatch {
    /// Whether it holds for that port.
    pub fn holds(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Range(start, end) => (*start..*end).contains(&i32::from(port)),
            Self::Or(list) => list.iter().any(|condition| condition.holds(port)),
            Self::And(list) => list.iter().all(|condition| condition.holds(port)),
            Self::Not(condition) => !condition.holds(port),
        }
    }
}

/// One way to serve a connection (`FilterChain`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterChain {
    /// Its name; may be empty.
    pub name: Name,
    /// When it applies.
    pub matches: FilterChainMatch,
    /// How bytes travel. TLS is refused until an acceptor that speaks it is given: the connection is closed.
    pub transport: TransportSocket,
    /// Limit for the transport's handshake.
    pub transport_connect_timeout: Option<Duration>,
    /// What is done with the bytes.
    pub network: Network,
    /// Connections are closed at once for this reason: protection that cannot act yet.
    pub refuse: Option<Name>,
}

/// When a filter chain applies (`FilterChainMatch`). Empty parts match all; more specific ones win in Envoy's order:
/// destination port, destination IP, server name, transport protocol, application protocol, direct source, source type,
/// source IP, source port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterChainMatch {
    /// Port of the original destination.
    pub destination_port: Option<u16>,
    /// Address of the original destination.
    pub destination: Vec<Cidr>,
    /// Exact, or `*.suffix`.
    pub server_names: Vec<Name>,
    /// `tls`, `raw_buffer`, or empty.
    pub transport_protocol: Name,
    /// ALPN names, or what the HTTP inspector found: `http/1.0`, `http/1.1`, `h2c`.
    pub application_protocols: Vec<Name>,
    /// Directly connected peer.
    pub direct_source: Vec<Cidr>,
    /// Same host or not.
    pub source_type: SourceType,
    /// The peer.
    pub source: Vec<Cidr>,
    /// Ports of the peer.
    pub source_ports: Vec<u16>,
}

/// Where a connection comes from (`ConnectionSourceType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourceType {
    /// Anywhere.
    #[default]
    Any,
    /// The same address, or loopback.
    SameIpOrLoopback,
    /// Another host.
    External,
}

/// What is done with a connection's bytes: the terminal network filter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Network {
    /// HTTP.
    Http(Box<HttpConnectionManager>),
    /// Bytes.
    Tcp(Box<TcpProxy>),
    /// Nobody else: the connection is answered here.
    Answer(NetworkAnswer),
}

/// How a connection is answered without an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkAnswer {
    /// By these bytes, then it is closed (`extensions.filters.network.direct_response.v3.Config`).
    Direct(Bytes),
    /// By what it sends (`extensions.filters.network.echo.v3.Echo`).
    Echo,
}

/// Sends bytes to a cluster (`extensions.filters.network.tcp_proxy.v3.TcpProxy`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpProxy {
    /// Prefix of its statistics.
    pub stat_prefix: Name,
    /// Where to; never [`ClusterChoice::Header`].
    pub cluster: ClusterChoice,
    /// Nothing moves for so long; default 1 h; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// How often a connection is tried; default 1.
    pub max_connect_attempts: u32,
    /// The first and the longest wait before a further attempt; each is a random part of one that doubles. `None`: none.
    pub backoff: Option<(Duration, Duration)>,
    /// Longest life of a downstream connection.
    pub max_downstream_connection_duration: Option<Duration>,
    /// Up to so many hundredths of a per cent are added to it, at random.
    pub max_downstream_connection_duration_jitter: u32,
    /// Access logs.
    pub access_log: Vec<AccessLog>,
    /// They are also written when a connection begins.
    pub flush_access_log_on_start: bool,
    /// They are also written once the upstream is connected.
    pub flush_access_log_on_connected: bool,
    /// They are also written in such intervals; `None`: at the end only.
    pub access_log_flush_interval: Option<Duration>,
    /// How the hash for sticky picks is made. Acts with the hashing pickers.
    pub hash: Vec<HashPolicy>,
    /// Only endpoints whose metadata in `envoy.lb` hold these.
    pub metadata_match: Metadata,
}

impl TcpProxy {
    /// A proxy to `cluster` with Envoy's defaults.
    pub fn new(stat_prefix: impl Into<Name>, cluster: ClusterChoice) -> Self {
        Self {
            stat_prefix: stat_prefix.into(),
            cluster,
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connect_attempts: 1,
            backoff: None,
            max_downstream_connection_duration: None,
            max_downstream_connection_duration_jitter: 0,
            access_log: Vec::new(),
            flush_access_log_on_start: false,
            flush_access_log_on_connected: false,
            access_log_flush_interval: None,
            hash: Vec::new(),
            metadata_match: Metadata::default(),
        }
    }
}
