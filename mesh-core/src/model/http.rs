//! The HTTP connection manager and its codecs (`extensions.filters.network.http_connection_manager.v3`).

use std::{sync::Arc, time::Duration};

use http::HeaderValue;

use super::{
    AccessLog, BodyFormat, Cidr, Fault, HeaderAddition, LogFilter, Name, RouteConfiguration,
    Tracing, Upgrade,
};

/// How HTTP is served on a filter chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConnectionManager {
    /// Prefix of its statistics.
    pub stat_prefix: Name,
    /// Which versions are spoken.
    pub codec: CodecType,
    /// The route table, inline or by name.
    pub routes: RouteSource,
    /// In order; the router is the last.
    pub filters: Vec<HttpFilter>,
    /// HTTP/1 settings.
    pub http1: Http1Options,
    /// HTTP/2 settings.
    pub http2: Http2Options,
    /// Name in `server`; default `envoy`.
    pub server_name: HeaderValue,
    /// What happens to `server`.
    pub server_header: ServerHeader,
    /// Text in `via`; empty for none.
    pub via: Name,
    /// Limit of the request head in bytes; default 60 KiB.
    pub max_request_headers_bytes: u32,
    /// Limit of the number of request headers; default 100.
    pub max_headers_count: u32,
    /// A downstream connection without requests is closed after this; default 1 h; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// A downstream connection is drained after this.
    pub max_connection_duration: Option<Duration>,
    /// A downstream connection is closed after so many requests.
    pub max_requests_per_connection: Option<u32>,
    /// Nothing moves on a stream for so long; default 5 min; `None`: never.
    pub stream_idle_timeout: Option<Duration>,
    /// Limit from the first byte to the last of a request; `None`: none.
    pub request_timeout: Option<Duration>,
    /// Limit from the first byte to the end of the headers; `None`: none.
    pub request_headers_timeout: Option<Duration>,
    /// Longest life of a stream.
    pub max_stream_duration: Option<Duration>,
    /// Time between GOAWAY and close; default 5 s.
    pub drain_timeout: Duration,
    /// Time that a closed connection still reads; default 1 s.
    pub delayed_close_timeout: Duration,
    /// The peer's address is taken from the connection (`use_remote_address`).
    pub use_remote_address: bool,
    /// How many addresses of `x-forwarded-for`, from the right, are trusted.
    pub xff_num_trusted_hops: u32,
    /// The address is not appended to `x-forwarded-for`.
    pub skip_xff_append: bool,
    /// Which addresses are internal; default: none, as Envoy has it since 1.36.
    pub internal_addresses: Vec<Cidr>,
    /// What happens to `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// `x-request-id` is made where absent; default true.
    pub generate_request_id: bool,
    /// A request id from outside is kept.
    pub preserve_external_request_id: bool,
    /// The id is set in the response always.
    pub always_set_request_id_in_response: bool,
    /// The id holds the trace decision (`pack_trace_reason`); default true.
    pub pack_trace_reason: bool,
    /// `.` and `..` segments are removed (RFC 3986).
    pub normalize_path: bool,
    /// `//` becomes `/`.
    pub merge_slashes: bool,
    /// What happens to `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
    /// The port is removed from the authority.
    pub strip_port: StripPort,
    /// A dot at the end of the host is removed.
    pub strip_trailing_host_dot: bool,
    /// Request headers whose names have `_`.
    pub underscores: UnderscoresAction,
    /// Upgrades allowed on all routes.
    pub upgrades: Vec<Upgrade>,
    /// Changes of local replies.
    pub local_reply: LocalReply,
    /// Access logs.
    pub access_log: Vec<AccessLog>,
    /// Tracing.
    pub tracing: Option<Tracing>,
    /// `:scheme` is set to this.
    pub scheme: Option<Name>,
    /// `x-forwarded-proto` follows the transport.
    pub append_x_forwarded_port: bool,
    /// Interim responses of upstreams, and what a client expects of them, pass between HTTP/1.1 connections; default false: a
    /// client that expects 100 gets it from here.
    pub proxy_100_continue: bool,
    /// `x-envoy-*` request headers are not added (`suppress_envoy_headers` of the router).
    pub suppress_envoy_headers: bool,
    /// `x-envoy-expected-rq-timeout-ms` of a request takes the place of its route's timeout (of the router).
    pub respect_expected_rq_timeout: bool,
    /// Nothing passes: 403 for this reason (protection that cannot act yet).
    pub refuse: Option<Name>,
}

impl Default for HttpConnectionManager {
    /// Envoy's defaults, no route.
    fn default() -> Self {
        Self {
            stat_prefix: "".into(),
            codec: CodecType::Auto,
            routes: RouteSource::Inline(Arc::default()),
            filters: Vec::new(),
            http1: Http1Options::default(),
            http2: Http2Options::default(),
            server_name: HeaderValue::from_static("envoy"),
            server_header: ServerHeader::Overwrite,
            via: "".into(),
            max_request_headers_bytes: 60 * 1024,
            max_headers_count: 100,
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_requests_per_connection: None,
            stream_idle_timeout: Some(Duration::from_secs(300)),
            request_timeout: None,
            request_headers_timeout: None,
            max_stream_duration: None,
            drain_timeout: Duration::from_secs(5),
            delayed_close_timeout: Duration::from_secs(1),
            use_remote_address: false,
            xff_num_trusted_hops: 0,
            skip_xff_append: false,
            internal_addresses: Vec::new(),
            forward_client_cert: ForwardClientCert::default(),
            generate_request_id: true,
            preserve_external_request_id: false,
            always_set_request_id_in_response: false,
            pack_trace_reason: true,
            normalize_path: false,
            merge_slashes: false,
            escaped_slashes: EscapedSlashes::KeepUnchanged,
            strip_port: StripPort::No,
            strip_trailing_host_dot: false,
            underscores: UnderscoresAction::Allow,
            upgrades: Vec::new(),
            local_reply: LocalReply::default(),
            access_log: Vec::new(),
            tracing: None,
            scheme: None,
            append_x_forwarded_port: false,
            proxy_100_continue: false,
            suppress_envoy_headers: false,
            respect_expected_rq_timeout: false,
            refuse: None,
        }
    }
}

/// Which HTTP versions are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecType {
    /// By the first bytes.
    #[default]
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// Where the route table comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteSource {
    /// In the listener. Shared, since a large table would else be kept by each that keeps the listener.
    Inline(Arc<RouteConfiguration>),
    /// By name (RDS).
    Named(Name),
}

/// An HTTP filter (`HttpFilter`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpFilter {
    /// Its name in the chain.
    pub name: Name,
    /// What it does.
    pub kind: HttpFilterKind,
    /// Off unless a route turns it on.
    pub disabled: bool,
}

/// The HTTP filters that mesh-core itself understands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpFilterKind {
    /// The last of the chain.
    Router,
    /// Fault injection; routes may override.
    Fault(Box<Fault>),
    /// CORS; its policy stands in routes and virtual hosts.
    Cors,
    /// Answers health checks itself (`pass_through_mode: false`) on the given path.
    HealthCheck(Name),
    /// Understood and done elsewhere (for example Istio's stats and peer metadata).
    Telemetry(Name),
    /// A message that only a stage understands: type URL and bytes. Without a stage requests are refused.
    Opaque(Name, bytes::Bytes),
}

/// HTTP/1 settings (`config.core.v3.Http1ProtocolOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http1Options {
    /// HTTP/1.0 requests are accepted, with `default_host`.
    pub accept_http_10: bool,
    /// Host of an HTTP/1.0 request without one.
    pub default_host: Name,
    /// Header names keep their case (`preserve_case`).
    pub preserve_case: bool,
    /// Each word of a header name begins with a capital letter (`proper_case_words`).
    pub proper_case: bool,
    /// `Content-Length` beside `Transfer-Encoding: chunked` is accepted, and dropped; the connection is closed afterwards (RFC
    /// 9112, 6.3). Otherwise such a request is refused.
    pub allow_chunked_length: bool,
    /// Requests that send a whole URL are refused (`allow_absolute_url: false`).
    pub refuse_absolute_url: bool,
    /// Methods that Envoy's codec does not know are accepted.
    pub allow_custom_methods: bool,
    /// Trailers pass. Otherwise those of an upstream's response are dropped.
    pub enable_trailers: bool,
}

/// HTTP/2 settings (`config.core.v3.Http2ProtocolOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http2Options {
    /// Streams at one time; default 1,024 for listeners, unlimited for clusters.
    pub max_concurrent_streams: Option<u32>,
    /// Window of a stream in bytes; default 16 MiB (Envoy 1.36+).
    pub initial_stream_window_size: Option<u32>,
    /// Window of a connection in bytes; default 24 MiB (Envoy 1.36+).
    pub initial_connection_window_size: Option<u32>,
    /// Extended CONNECT (RFC 8441).
    pub allow_connect: bool,
    /// PING interval and timeout.
    pub keepalive: Option<(Duration, Duration)>,
}

/// What happens to the response header `server`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerHeader {
    /// Always ours.
    #[default]
    Overwrite,
    /// Ours where absent.
    AppendIfAbsent,
    /// The upstream's.
    PassThrough,
}

/// What happens to `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// Removed.
    #[default]
    Sanitize,
    /// Sent on if the connection is mTLS.
    ForwardOnly,
    /// Own details appended if mTLS.
    AppendForward,
    /// Replaced if mTLS.
    SanitizeSet,
    /// Sent on always.
    AlwaysForwardOnly,
}

/// What happens to escaped slashes (`PathWithEscapedSlashesAction`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Kept.
    #[default]
    KeepUnchanged,
    /// 400.
    RejectRequest,
    /// Unescaped, and redirected.
    UnescapeAndRedirect,
    /// Unescaped, and sent on.
    UnescapeAndForward,
}

/// Whether the port is removed from the authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StripPort {
    /// No.
    #[default]
    No,
    /// If it is the listener's.
    Matching,
    /// Always.
    Any,
}

/// Request headers whose names have `_` (`headers_with_underscores_action`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnderscoresAction {
    /// Pass.
    #[default]
    Allow,
    /// 400 (HTTP/1) or reset (HTTP/2).
    RejectRequest,
    /// Are dropped.
    DropHeader,
}

/// Changes of replies that the proxy makes itself (`LocalReplyConfig`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalReply {
    /// First match wins.
    pub mappers: Vec<ReplyMapper>,
    /// Body of all replies; `None`: the reply's own text.
    pub body: Option<BodyFormat>,
}

/// One rule of a [`LocalReply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyMapper {
    /// When it applies.
    pub filter: LogFilter,
    /// New status.
    pub status: Option<http::StatusCode>,
    /// New text that `%LOCAL_REPLY_BODY%` stands for.
    pub body: Option<Name>,
    /// New format.
    pub body_format: Option<BodyFormat>,
    /// Headers added.
    pub headers: Vec<HeaderAddition>,
}
