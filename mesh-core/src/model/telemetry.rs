//! Access logs and tracing as configuration.

use std::path::PathBuf;

use super::{FormatKind, HeaderMatcher, MetadataMatcher, Name, RuntimeFraction};

/// One access log (`config.accesslog.v3.AccessLog`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where lines go.
    pub sink: LogSink,
    /// `None`: Envoy's default text. Istio's defaults are set by its translation.
    pub format: Option<FormatKind>,
    /// Which requests are logged; `None`: all.
    pub filter: Option<LogFilter>,
    /// JSON leaves without a value are left out (`omit_empty_values`).
    pub omit_empty: bool,
}

/// Where access log lines go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file that is appended to; `/dev/stdout` means [`LogSink::Stdout`].
    File(PathBuf),
}

/// Which requests are logged (`config.accesslog.v3.AccessLogFilter`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFilter {
    /// Status code compared.
    Status(Comparison, u32),
    /// Duration in milliseconds compared.
    Duration(Comparison, u32),
    /// Not the requests that health checks make.
    NotHealthCheck,
    /// Requests that are traced.
    Traceable,
    /// A share of the requests.
    Runtime(RuntimeFraction),
    /// A request header.
    Header(HeaderMatcher),
    /// One of these response flags; empty: any flag.
    ResponseFlag(Vec<Name>),
    /// One of these gRPC codes; excluded if the flag is set.
    GrpcStatus(Vec<u32>, bool),
    /// Dynamic metadata; where the request has none at that path, the flag decides (`match_if_key_not_found`).
    Metadata(Option<Box<MetadataMatcher>>, bool),
    /// One of these occasions of the log; excluded if the flag is set.
    Type(Vec<LogType>, bool),
    /// All.
    And(Vec<LogFilter>),
    /// One.
    Or(Vec<LogFilter>),
}

/// The occasion of a line of an access log (`AccessLogType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "Envoy's names")]
#[non_exhaustive]
pub enum LogType {
    NotSet,
    TcpUpstreamConnected,
    TcpPeriodic,
    TcpConnectionStart,
    TcpConnectionEnd,
    DownstreamStart,
    DownstreamPeriodic,
    #[default]
    DownstreamEnd,
    UpstreamPoolReady,
    UpstreamPeriodic,
    UpstreamEnd,
    DownstreamTunnelSuccessfullyEstablished,
    UdpTunnelUpstreamConnected,
    UdpPeriodic,
    UdpSessionEnd,
}

/// How a [`LogFilter`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Greater or equal.
    Ge,
    /// Less or equal.
    Le,
    /// Not equal.
    Ne,
}

/// Tracing of a connection manager (`HttpConnectionManager.Tracing`): what is needed to propagate a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Hundredths of a per cent of requests that are sampled; default 10,000.
    pub random_sampling: u32,
    /// Hundredths of a per cent of clients' forced traces.
    pub client_sampling: u32,
    /// Hundredths of a per cent of all.
    pub overall_sampling: u32,
}
