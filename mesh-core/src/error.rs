//! What can go wrong with a request, and the one table that says what follows from it.

use std::{error::Error as StdError, fmt};

use crate::telemetry::flags::Flag;

/// Any error, boxed.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why the mesh answered a request itself. Two words and built without allocation unless it carries a source.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    /// Gives its gRPC status in the place of the kind's.
    grpc: Option<u8>,
    /// Gives its HTTP status in the place of the kind's.
    status: Option<std::num::NonZeroU16>,
    source: Option<Box<Source>>,
}

#[derive(Debug)]
struct Source {
    detail: Option<crate::model::Name>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind` without a source.
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            grpc: None,
            status: None,
            source: None,
        }
    }

    /// An error of `kind` that `source` caused.
    pub fn caused_by(kind: Kind, source: impl Into<BoxError>) -> Self {
        Self {
            source: Some(Box::new(Source {
                detail: None,
                source: Some(source.into()),
            })),
            ..Self::new(kind)
        }
    }

    /// An error of `kind` with a sentence that names the resource at fault; it becomes the body of the reply.
    pub fn detailed(kind: Kind, detail: impl Into<crate::model::Name>) -> Self {
        Self {
            source: Some(Box::new(Source {
                detail: Some(detail.into()),
                source: None,
            })),
            ..Self::new(kind)
        }
    }

    /// Answers with `status` in the place of the kind's own, for example that of an injected abort.
    #[must_use]
    pub fn with_status(mut self, status: http::StatusCode) -> Self {
        self.set_status(status);
        self
    }

    /// The same in place.
    pub(crate) fn set_status(&mut self, status: http::StatusCode) {
        self.status = std::num::NonZeroU16::new(status.as_u16());
    }

    /// Answers gRPC requests with `code` in the place of the kind's own.
    #[must_use]
    pub fn with_grpc(mut self, code: u8) -> Self {
        self.grpc = Some(code);
        self
    }

    /// The error itself if it is one of ours behind a box, else one of a connection that ended, with `error` as its source.
    pub fn adopt(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(own) => *own,
            Err(foreign) => Self::caused_by(Kind::ConnectionTermination, foreign),
        }
    }

    /// HTTP status of the local reply.
    pub fn status(&self) -> u16 {
        self.status
            .map_or(self.kind.reply().http, std::num::NonZeroU16::get)
    }

    /// The gRPC status that was asked for, if it is not the kind's.
    pub fn grpc_override(&self) -> Option<u8> {
        self.grpc
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the system said of a connection that could not be made, in Envoy's words.
    pub(crate) fn connect_reason(&self) -> Option<String> {
        if self.kind != Kind::ConnectFailure {
            return None;
        }
        let mut next = StdError::source(self);
        let io = loop {
            let error = next?;
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                break io;
            }
            next = error.source();
        };
        let code = format!(" (os error {})", io.raw_os_error()?);
        let said = io.to_string().replace(&code, "").replace(' ', "_");
        Some(format!("delayed_connect_error:_{said}"))
    }

    /// The sentence that names the resource at fault, if there is one.
    pub fn detail(&self) -> Option<&str> {
        self.source.as_ref()?.detail.as_deref()
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail().unwrap_or(self.kind.reply().body))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source: &(dyn StdError + Send + Sync) = &**self.source.as_ref()?.source.as_ref()?;
        Some(source)
    }
}

/// What follows from a [`Kind`]: one row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// HTTP status of the local reply.
    pub http: u16,
    /// gRPC status of the local reply.
    pub grpc: u8,
    /// Envoy's response flag, if the kind has one.
    pub flag: Option<Flag>,
    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
    /// Text of the local reply, as Envoy writes it.
    pub body: &'static str,
    /// The downstream connection is closed after the reply.
    pub close: bool,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $http:literal, $grpc:literal, $flag:expr, $details:literal, $body:literal, $close:literal;)*) => {
        /// What went wrong with a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// Every kind, for tests and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The kind's row in the table.
            pub const fn reply(self) -> Reply {
                match self {
                    $(Self::$name => Reply { http: $http, grpc: $grpc, flag: $flag, details: $details, body: $body, close: $close },)*
                }
            }
        }
    };
}

kinds! {
    /// No route matches.
    NoRoute => 404, 12, Some(Flag::NoRoute), "route_not_found", "", false;
    /// The route's cluster does not exist.
    NoCluster => 503, 14, Some(Flag::NoCluster), "cluster_not_found", "", false;
    /// The cluster has no endpoint that can take traffic.
    NoHealthyUpstream => 503, 14, Some(Flag::NoHealthyUpstream), "no_healthy_upstream", "no healthy upstream", false;
    /// A circuit breaker refused.
    Overflow => 503, 14, Some(Flag::UpstreamOverflow), "upstream_reset_before_response_started{overflow}", "upstream connect error or disconnect/reset before headers. reset reason: overflow", false;
    /// No connection to the endpoint.
    ConnectFailure => 503, 14, Some(Flag::UpstreamConnectionFailure), "upstream_reset_before_response_started{remote_connection_failure}", "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure", false;
    /// No connection in time.
    ConnectTimeout => 503, 14, Some(Flag::UpstreamConnectionFailure), "upstream_reset_before_response_started{connection_timeout}", "upstream connect error or disconnect/reset before headers. reset reason: connection timeout", false;
    /// The connection ended before the response began.
    ConnectionTermination => 503, 14, Some(Flag::UpstreamConnectionTermination), "upstream_reset_before_response_started{connection_termination}", "upstream connect error or disconnect/reset before headers. reset reason: connection termination", false;
    /// The upstream reset the stream.
    RemoteReset => 503, 14, Some(Flag::UpstreamRemoteReset), "upstream_reset_before_response_started{remote_reset}", "upstream connect error or disconnect/reset before headers. reset reason: remote reset", false;
    /// The upstream refused the stream before it did anything with it (REFUSED_STREAM, or a GOAWAY before it).
    RefusedStream => 503, 14, Some(Flag::UpstreamRemoteReset), "upstream_reset_before_response_started{remote_refused_stream_reset}", "upstream connect error or disconnect/reset before headers. reset reason: remote refused stream reset", false;
    /// The upstream did not speak HTTP.
    UpstreamProtocol => 502, 14, Some(Flag::UpstreamProtocolError), "upstream_reset_before_response_started{protocol_error}", "upstream connect error or disconnect/reset before headers. reset reason: protocol error", false;
    /// We reset the upstream stream.
    LocalReset => 503, 14, Some(Flag::LocalReset), "upstream_reset_before_response_started{local_reset}", "upstream connect error or disconnect/reset before headers. reset reason: local reset", false;
    /// The route's timeout passed.
    UpstreamTimeout => 504, 14, Some(Flag::UpstreamRequestTimeout), "response_timeout", "upstream request timeout", false;
    /// The time for one attempt passed and no retry was left.
    PerTryTimeout => 504, 14, Some(Flag::UpstreamRequestTimeout), "upstream_per_try_timeout", "upstream request timeout", false;
    /// Nothing came from the upstream for the idle time of one attempt, and no retry was left.
    PerTryIdleTimeout => 504, 14, Some(Flag::UpstreamRequestTimeout), "upstream_per_try_idle_timeout", "upstream request timeout", false;
    /// The stream's longest life passed.
    MaxDuration => 504, 14, Some(Flag::UpstreamMaxStreamDurationReached), "upstream_max_stream_duration_reached", "upstream max stream duration reached", false;
    /// The stream's longest life passed, downstream limit.
    DownstreamMaxDuration => 408, 4, None, "max_duration_timeout", "downstream duration timeout", false;
    /// Nothing moved on the stream before the response began.
    StreamIdle => 504, 14, Some(Flag::StreamIdleTimeout), "stream_idle_timeout", "stream timeout", false;
    /// The request did not arrive in time.
    RequestTimeout => 408, 2, None, "request_overall_timeout", "request timeout", true;
    /// The request head did not arrive in time.
    HeaderTimeout => 408, 2, None, "request_header_timeout", "request header timeout", true;
    /// The client went away.
    DownstreamTermination => 499, 1, Some(Flag::DownstreamConnectionTermination), "downstream_remote_disconnect", "", true;
    /// The client reset its stream.
    DownstreamReset => 499, 1, Some(Flag::DownstreamRemoteReset), "http2.remote_reset", "", true;
    /// The client broke the protocol.
    DownstreamProtocol => 400, 13, Some(Flag::DownstreamProtocolError), "http1.codec_error", "Bad Request", true;
    /// The request declares its body both by length and in chunks.
    ChunkedLength => 400, 13, Some(Flag::DownstreamProtocolError), "http1.content_length_and_chunked_not_allowed", "Bad Request", true;
    /// The target of the request is none that its method may have.
    InvalidUrl => 400, 13, Some(Flag::DownstreamProtocolError), "http1.invalid_url", "Bad Request", true;
    /// The URL of the request has a scheme other than `http` and `https`.
    InvalidScheme => 400, 13, Some(Flag::DownstreamProtocolError), "http1.invalid_scheme", "Bad Request", true;
    /// The URL of a request without TLS says `https`, and nobody stands before us who could have taken TLS off.
    HttpsInPlaintext => 403, 7, Some(Flag::DownstreamProtocolError), "http1.https_url_on_plaintext_connection", "Forbidden", true;
    /// The header `connection` names what it may not name, or too much.
    ConnectionHeader => 400, 13, Some(Flag::DownstreamProtocolError), "http1.connection_header_rejected", "Bad Request", true;
    /// A CONNECT with a body.
    BodyDisallowed => 400, 13, Some(Flag::DownstreamProtocolError), "http1.body_disallowed", "Bad Request", true;
    /// A header name has an underscore, and requests with one are refused.
    Underscore => 400, 13, Some(Flag::DownstreamProtocolError), "http1.unexpected_underscore", "Bad Request", true;
    /// The request has a transfer coding other than chunked.
    TransferCoding => 501, 2, Some(Flag::DownstreamProtocolError), "http1.invalid_transfer_encoding", "Not Implemented", true;
    /// The request head is too large.
    HeadersTooLarge => 431, 2, Some(Flag::DownstreamProtocolError), "http1.headers_too_large", "Request Header Fields Too Large", true;
    /// The request head has too many headers.
    TooManyHeaders => 431, 2, Some(Flag::DownstreamProtocolError), "http1.too_many_headers", "Request Header Fields Too Large", true;
    /// The request has no host.
    MissingHost => 400, 13, None, "missing_host_header", "", false;
    /// The path cannot be normalised.
    PathNormalization => 400, 13, None, "path_normalization_failed", "", false;
    /// The path does not begin with `/`, or the whole URL was sent and is not to be (`allow_absolute_url`).
    AbsolutePath => 404, 12, None, "absolute_path_rejected", "", false;
    /// QUERY without a content type.
    QueryWithoutType => 400, 13, None, "query_missing_content_type", "", false;
    /// The upgrade is not allowed here.
    UpgradeDenied => 403, 7, None, "upgrade_failed", "", false;
    /// HTTP/1.0 is not served here.
    UpgradeRequired => 426, 2, Some(Flag::DownstreamProtocolError), "low_version", "Upgrade Required", true;
    /// The body is over the buffer limit of something that must hold it.
    PayloadTooLarge => 413, 2, None, "request_payload_too_large", "Payload Too Large", false;
    /// An injected fault.
    FaultAbort => 503, 14, Some(Flag::FaultInjected), "fault_filter_abort", "fault filter abort", false;
    /// A rate limit refused.
    RateLimited => 429, 14, Some(Flag::RateLimited), "request_rate_limited", "", false;
    /// A policy refused.
    Denied => 403, 7, None, "rbac_access_denied", "RBAC: access denied", false;
    /// An external authorization service refused.
    ExternalDenied => 403, 7, Some(Flag::UnauthorizedExternalService), "ext_authz_denied", "", false;
    /// Protection is configured that cannot act here, so nothing passes.
    FailClosed => 503, 14, Some(Flag::UpstreamConnectionFailure), "fail_closed", "protection that is configured here cannot act yet", false;
    /// The same, on the server side.
    FailClosedInbound => 403, 7, None, "fail_closed", "protection that is configured here cannot act yet", false;
    /// There is no configuration yet.
    NotReady => 503, 14, None, "not_ready", "no configuration yet", false;
    /// The process is overloaded.
    Overloaded => 503, 14, Some(Flag::OverloadManager), "overload", "envoy overloaded", false;
    /// Something here is broken.
    Internal => 500, 13, None, "internal_error", "", false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_full_row() {
        for kind in Kind::ALL {
            let reply = kind.reply();
            assert!((400..600).contains(&reply.http), "{kind:?}");
            assert!((1..=16).contains(&reply.grpc), "{kind:?}");
            assert!(
                !reply.details.is_empty() && !reply.details.contains(' '),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_connection_that_was_refused_is_told_of_as_envoy_does() {
        let refused = std::io::Error::from_raw_os_error(111);
        let error = Error::caused_by(Kind::ConnectFailure, refused);
        let wanted = "delayed_connect_error:_Connection_refused";
        assert_eq!(error.connect_reason().as_deref(), Some(wanted));
        let refused = std::io::Error::from_raw_os_error(111);
        let other = Error::caused_by(Kind::ConnectionTermination, refused);
        assert_eq!(other.connect_reason(), None);
    }

    #[test]
    fn an_error_without_source_is_two_words() {
        assert!(size_of::<Error>() <= 2 * size_of::<usize>());
        assert_eq!(
            Error::new(Kind::NoHealthyUpstream).to_string(),
            "no healthy upstream"
        );
        assert_eq!(
            Error::detailed(Kind::FailClosed, "cluster x needs TLS").to_string(),
            "cluster x needs TLS"
        );
    }
}
