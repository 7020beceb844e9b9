//! The operators of a format.

use std::{borrow::Cow, io::Write as _, time::Duration};

use http::HeaderName;

use super::{FormatContext, time::TimeFormat};
use crate::{
    model::{Name, Value},
    route::{head::Field, path, text},
};

/// One `%…%`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operator {
    /// `%REQ(A?B)%`: the first that is present.
    RequestHeader(Field, Option<Field>),
    /// `%PATH%` and `%REQ_WITHOUT_QUERY(A?B)%`: the same, without a query.
    RequestPath(Field, Option<Field>),
    /// `%RESP(A?B)%`.
    ResponseHeader(HeaderName, Option<HeaderName>),
    /// `%TRAILER(A?B)%`.
    ResponseTrailer(HeaderName, Option<HeaderName>),
    /// `%QUERY_PARAM(NAME)%`.
    QueryParameter(Name),
    /// `%START_TIME(FORMAT)%`.
    StartTime(TimeFormat),
    /// `%EMIT_TIME(FORMAT)%`.
    EmitTime(TimeFormat),
    /// `%DYNAMIC_METADATA(NAMESPACE:KEY…)%` and its like.
    Metadata(MetadataSource, Name, Vec<Name>),
    /// `%FILTER_STATE(KEY)%`, `%PER_REQUEST_STATE(KEY)%`.
    FilterState(Name),
    /// `%COMMON_DURATION(FROM:TO:PRECISION)%` and the named durations; in milliseconds, µs or ns.
    Duration(TimePoint, TimePoint, Precision),
    /// A value that was known when the format was parsed (`%ENVIRONMENT(X)%`, `%HOSTNAME%`); `None`: it is absent.
    Fixed(Option<Name>),
    /// A plain value.
    Item(Item),
}

/// The unit of a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// ms.
    Milliseconds,
    /// µs.
    Microseconds,
    /// ns.
    Nanoseconds,
}

/// Whose metadata an operator reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetadataSource {
    /// The request's.
    Dynamic,
    /// The cluster's.
    Cluster,
    /// The route's.
    Route,
    /// The virtual host's.
    VirtualHost,
    /// The endpoint's.
    UpstreamHost,
    /// The listener's.
    Listener,
}

/// Something that happened to a request (`%COMMON_DURATION%`'s time points).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimePoint {
    /// `DS_RX_BEG`: the request began.
    DownstreamReceiveBegin,
    /// `DS_RX_END`: the request was read to its end.
    DownstreamReceiveEnd,
    /// `US_CX_BEG`: an upstream connection was begun.
    UpstreamConnectBegin,
    /// `US_CX_END`: the upstream TCP connection stood.
    UpstreamConnectEnd,
    /// `US_HS_END`: the upstream TLS handshake ended.
    UpstreamHandshakeEnd,
    /// `US_TX_BEG`: the first byte went upstream.
    UpstreamSendBegin,
    /// `US_TX_END`: the last byte went upstream.
    UpstreamSendEnd,
    /// `US_RX_BEG`: the first byte came from upstream.
    UpstreamReceiveBegin,
    /// `US_RX_BODY_BEG`: the first byte of the body came from upstream.
    UpstreamReceiveBodyBegin,
    /// `US_RX_END`: the last byte came from upstream.
    UpstreamReceiveEnd,
    /// `DS_TX_BEG`: the first byte went downstream.
    DownstreamSendBegin,
    /// `DS_TX_END`: the last byte went downstream.
    DownstreamSendEnd,
}

impl TimePoint {
    /// Whether it is noted when it comes to pass.
    fn is_known(self) -> bool {
        matches!(
            self,
            Self::DownstreamReceiveBegin
                | Self::DownstreamReceiveEnd
                | Self::UpstreamReceiveBegin
                | Self::UpstreamReceiveEnd
                | Self::DownstreamSendBegin
                | Self::DownstreamSendEnd
        )
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "DS_RX_BEG" => Self::DownstreamReceiveBegin,
            "DS_RX_END" => Self::DownstreamReceiveEnd,
            "US_CX_BEG" => Self::UpstreamConnectBegin,
            "US_CX_END" => Self::UpstreamConnectEnd,
            "US_HS_END" => Self::UpstreamHandshakeEnd,
            "US_TX_BEG" => Self::UpstreamSendBegin,
            "US_TX_END" => Self::UpstreamSendEnd,
            "US_RX_BEG" => Self::UpstreamReceiveBegin,
            "US_RX_BODY_BEG" => Self::UpstreamReceiveBodyBegin,
            "US_RX_END" => Self::UpstreamReceiveEnd,
            "DS_TX_BEG" => Self::DownstreamSendBegin,
            "DS_TX_END" => Self::DownstreamSendEnd,
            _ => return None,
        })
    }
}

/// Declares [`Item`] with Envoy's names, so that each stands in one place.
macro_rules! items {
    ($($(#[$doc:meta])* $name:ident = $text:literal $(| $alias:literal)* $(, $number:ident)?;)*) => {
        /// A value without arguments. What [`FormatContext::item`] appends is text; numbers are decimal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Item { $($(#[$doc])* $name,)* }

        impl Item {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Envoy's name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// By Envoy's name.
            pub fn parse(name: &str) -> Option<Self> {
                Some(match name {
                    $($text $(| $alias)* => Self::$name,)*
                    _ => return None,
                })
            }

            /// Whether the value is a number, which JSON writes without quotes.
            pub fn is_number(self) -> bool {
                match self {
                    $(Self::$name => items!(@number $($number)?),)*
                }
            }
        }
    };
    (@number number) => { true };
    (@number) => { false };
}

items! {
    /// `HTTP/1.1`, `HTTP/2`, …
    Protocol = "PROTOCOL";
    /// Protocol with the upstream.
    UpstreamProtocol = "UPSTREAM_PROTOCOL";
    /// Status; 0 if there was none.
    ResponseCode = "RESPONSE_CODE", number;
    /// Why that status.
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS";
    /// `UH`, `NR`, …; `-` for none.
    ResponseFlags = "RESPONSE_FLAGS";
    /// The flags in words.
    ResponseFlagsLong = "RESPONSE_FLAGS_LONG";
    /// Bytes of the request body.
    BytesReceived = "BYTES_RECEIVED", number;
    /// Bytes of the response body.
    BytesSent = "BYTES_SENT", number;
    /// Bytes of the request on the downstream wire.
    DownstreamWireBytesReceived = "DOWNSTREAM_WIRE_BYTES_RECEIVED", number;
    /// Bytes of the response on the downstream wire.
    DownstreamWireBytesSent = "DOWNSTREAM_WIRE_BYTES_SENT", number;
    /// Bytes of the response on the upstream wire.
    UpstreamWireBytesReceived = "UPSTREAM_WIRE_BYTES_RECEIVED", number;
    /// Bytes of the request on the upstream wire.
    UpstreamWireBytesSent = "UPSTREAM_WIRE_BYTES_SENT", number;
    /// Bytes of the request head.
    RequestHeadersBytes = "REQUEST_HEADERS_BYTES", number;
    /// Bytes of the response head.
    ResponseHeadersBytes = "RESPONSE_HEADERS_BYTES", number;
    /// Bytes of the response trailers.
    ResponseTrailersBytes = "RESPONSE_TRAILERS_BYTES", number;
    /// Address and port of the endpoint.
    UpstreamHost = "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS";
    /// Host name of the endpoint, with port.
    UpstreamHostName = "UPSTREAM_HOST_NAME";
    /// Host name of the endpoint.
    UpstreamHostNameWithoutPort = "UPSTREAM_HOST_NAME_WITHOUT_PORT";
    /// Its address.
    UpstreamRemoteAddressWithoutPort = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT";
    /// Its port.
    UpstreamRemotePort = "UPSTREAM_REMOTE_PORT", number;
    /// Our end of the upstream connection.
    UpstreamLocalAddress = "UPSTREAM_LOCAL_ADDRESS";
    /// Its address.
    UpstreamLocalAddressWithoutPort = "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT";
    /// Its port.
    UpstreamLocalPort = "UPSTREAM_LOCAL_PORT", number;
    /// The cluster's statistics name.
    UpstreamCluster = "UPSTREAM_CLUSTER";
    /// The cluster's name.
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW";
    /// Attempts.
    UpstreamRequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT", number;
    /// Id of the upstream connection.
    UpstreamConnectionId = "UPSTREAM_CONNECTION_ID", number;
    /// Why the upstream transport failed.
    UpstreamTransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON";
    /// Why the downstream transport failed.
    DownstreamTransportFailureReason = "DOWNSTREAM_TRANSPORT_FAILURE_REASON";
    /// Our end of the downstream connection.
    DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS";
    /// Its address.
    DownstreamLocalAddressWithoutPort = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT";
    /// Its port.
    DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT", number;
    /// The client, as trusted.
    DownstreamRemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS";
    /// Its address.
    DownstreamRemoteAddressWithoutPort = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT";
    /// Its port.
    DownstreamRemotePort = "DOWNSTREAM_REMOTE_PORT", number;
    /// The peer of the connection.
    DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS";
    /// Its address.
    DownstreamDirectRemoteAddressWithoutPort = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT";
    /// Its port.
    DownstreamDirectRemotePort = "DOWNSTREAM_DIRECT_REMOTE_PORT", number;
    /// Id of the downstream connection.
    ConnectionId = "CONNECTION_ID", number;
    /// Why the connection was ended.
    ConnectionTerminationDetails = "CONNECTION_TERMINATION_DETAILS";
    /// Id of the stream.
    StreamId = "STREAM_ID";
    /// A new UUID.
    UniqueId = "UNIQUE_ID";
    /// TLS server name.
    RequestedServerName = "REQUESTED_SERVER_NAME";
    /// The route's name.
    RouteName = "ROUTE_NAME";
    /// The virtual host's name.
    VirtualHostName = "VIRTUAL_HOST_NAME";
    /// The virtual cluster's name.
    VirtualClusterName = "VIRTUAL_CLUSTER_NAME";
    /// Trace id.
    TraceId = "TRACE_ID";
    /// Span id.
    SpanId = "SPAN_ID";
    /// Body of a local reply.
    LocalReplyBody = "LOCAL_REPLY_BODY";
    /// gRPC status, in words.
    GrpcStatus = "GRPC_STATUS";
    /// gRPC status, in words with underscores.
    GrpcStatusSnake = "GRPC_STATUS(SNAKE_STRING)";
    /// gRPC status, as number.
    GrpcStatusNumber = "GRPC_STATUS_NUMBER", number;
    /// The query, without `?`.
    QueryParams = "QUERY_PARAMS";
    /// `URI` names in the peer's certificate.
    DownstreamPeerUriSan = "DOWNSTREAM_PEER_URI_SAN";
    /// `URI` names in our certificate.
    DownstreamLocalUriSan = "DOWNSTREAM_LOCAL_URI_SAN";
    /// `DNS` names in the peer's certificate.
    DownstreamPeerDnsSan = "DOWNSTREAM_PEER_DNS_SAN";
    /// `DNS` names in our certificate.
    DownstreamLocalDnsSan = "DOWNSTREAM_LOCAL_DNS_SAN";
    /// Subject of the peer's certificate.
    DownstreamPeerSubject = "DOWNSTREAM_PEER_SUBJECT";
    /// Subject of our certificate.
    DownstreamLocalSubject = "DOWNSTREAM_LOCAL_SUBJECT";
    /// Issuer of the peer's certificate.
    DownstreamPeerIssuer = "DOWNSTREAM_PEER_ISSUER";
    /// Serial number of the peer's certificate.
    DownstreamPeerSerial = "DOWNSTREAM_PEER_SERIAL";
    /// The peer's certificate, URL-encoded PEM.
    DownstreamPeerCert = "DOWNSTREAM_PEER_CERT";
    /// SHA-256 of the peer's certificate.
    DownstreamPeerFingerprint256 = "DOWNSTREAM_PEER_FINGERPRINT_256";
    /// TLS version of the downstream connection.
    DownstreamTlsVersion = "DOWNSTREAM_TLS_VERSION";
    /// TLS cipher of the downstream connection.
    DownstreamTlsCipher = "DOWNSTREAM_TLS_CIPHER";
    /// Subject of the upstream's certificate.
    UpstreamPeerSubject = "UPSTREAM_PEER_SUBJECT";
    /// `URI` names in the upstream's certificate.
    UpstreamPeerUriSan = "UPSTREAM_PEER_URI_SAN";
    /// TLS version of the upstream connection.
    UpstreamTlsVersion = "UPSTREAM_TLS_VERSION";
    /// TLS cipher of the upstream connection.
    UpstreamTlsCipher = "UPSTREAM_TLS_CIPHER";
    /// `NotSet`, `DownstreamStart`, `DownstreamEnd`, …
    AccessLogType = "ACCESS_LOG_TYPE";
}

impl Item {
    /// Whether something in the mesh knows the value. The others are accepted, since formats name them, and stay absent.
    pub fn is_known(self) -> bool {
        !matches!(
            self,
            Self::DownstreamWireBytesReceived
                | Self::DownstreamWireBytesSent
                | Self::UpstreamWireBytesReceived
                | Self::UpstreamWireBytesSent
                | Self::RequestHeadersBytes
                | Self::ResponseHeadersBytes
                | Self::ResponseTrailersBytes
                | Self::DownstreamTransportFailureReason
                | Self::ConnectionTerminationDetails
                | Self::StreamId
                | Self::TraceId
                | Self::SpanId
                | Self::DownstreamLocalUriSan
                | Self::DownstreamPeerDnsSan
                | Self::DownstreamLocalDnsSan
                | Self::DownstreamPeerSubject
                | Self::DownstreamLocalSubject
                | Self::DownstreamPeerIssuer
                | Self::DownstreamPeerSerial
                | Self::DownstreamPeerCert
                | Self::DownstreamPeerFingerprint256
                | Self::DownstreamTlsVersion
                | Self::DownstreamTlsCipher
                | Self::UpstreamPeerSubject
                | Self::UpstreamPeerUriSan
                | Self::UpstreamTlsVersion
                | Self::UpstreamTlsCipher
                | Self::AccessLogType
        )
    }
}

impl Operator {
    /// The operator's name if nothing in the mesh gives it a value, so that whoever configures it can be told.
    pub fn without_value(&self) -> Option<&'static str> {
        match self {
            Self::Item(item) if !item.is_known() => Some(item.as_str()),
            Self::Metadata(MetadataSource::Dynamic, ..) => Some("DYNAMIC_METADATA"),
            Self::Metadata(MetadataSource::Listener, ..) => Some("METADATA(LISTENER)"),
            Self::FilterState(_) => Some("FILTER_STATE"),
            Self::Duration(from, to, _) if !(from.is_known() && to.is_known()) => {
                Some("COMMON_DURATION")
            }
            _ => None,
        }
    }

    /// Whether JSON writes the value without quotes.
    pub fn is_number(&self) -> bool {
        match self {
            Self::Item(item) => item.is_number(),
            Self::Duration(..) => true,
            _ => false,
        }
    }

    /// Appends the value; `false` if it is not known.
    pub(super) fn write<C: FormatContext + ?Sized>(&self, context: &C, out: &mut Vec<u8>) -> bool {
        let found = match self {
            Self::RequestHeader(field, other) => request(context, field, other.as_ref()),
            Self::RequestPath(field, other) => match request(context, field, other.as_ref()) {
                Some(value) => {
                    out.extend_from_slice(path::without_query(&value));
                    return true;
                }
                None => None,
            },
            Self::ResponseHeader(name, other) => context
                .response_header(name)
                .or_else(|| context.response_header(other.as_ref()?)),
            Self::ResponseTrailer(name, other) => context
                .response_trailer(name)
                .or_else(|| context.response_trailer(other.as_ref()?)),
            Self::QueryParameter(name) => {
                let path = context.request_header(&Field::Path);
                let value = path.and_then(|path| {
                    text::query_value(&path, name.as_bytes()).map(Cow::into_owned)
                });
                value.map(Cow::Owned)
            }
            Self::FilterState(key) => context.filter_state(key),
            Self::Fixed(value) => value.as_ref().map(|value| value.as_bytes().into()),
            Self::StartTime(format) => {
                return context
                    .start_time()
                    .is_some_and(|time| format.write(time, out));
            }
            Self::EmitTime(format) => return format.write(std::time::SystemTime::now(), out),
            Self::Metadata(source, namespace, path) => {
                return match context.metadata(*source, namespace, path) {
                    Some(value) => write_value(&value, out),
                    None => false,
                };
            }
            Self::Duration(from, to, precision) => {
                let ends = context.moment(*from).zip(context.moment(*to));
                return ends.is_some_and(|(from, to)| {
                    write_duration(to.saturating_duration_since(from), *precision, out)
                });
            }
            Self::Item(item) => return context.item(*item, out),
        };
        found.is_some_and(|value| {
            out.extend_from_slice(&value);
            true
        })
    }
}

fn request<'a, C: FormatContext + ?Sized>(
    context: &'a C,
    field: &Field,
    other: Option<&Field>,
) -> Option<Cow<'a, [u8]>> {
    // An empty header is there, and its value is no text at all.
    context
        .request_header(field)
        .or_else(|| context.request_header(other?))
}

/// Text as it is; anything else as JSON.
fn write_value(value: &Value, out: &mut Vec<u8>) -> bool {
    match value {
        Value::Null => return false,
        Value::String(text) => out.extend_from_slice(text.as_bytes()),
        other => super::json::write_value(other, out),
    }
    true
}

fn write_duration(duration: Duration, precision: Precision, out: &mut Vec<u8>) -> bool {
    let value = match precision {
        Precision::Milliseconds => duration.as_millis(),
        Precision::Microseconds => duration.as_micros(),
        Precision::Nanoseconds => duration.as_nanos(),
    };
    write!(out, "{value}").is_ok()
}
