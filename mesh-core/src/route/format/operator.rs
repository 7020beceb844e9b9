//! The operators of a format.

use std::{borrow::Cow, io::Write as _, time::Duration};

use http::HeaderName;

use super::{FormatContext, time::TimeFormat};
use crate::{
    model::{Cidr, Name, Value},
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
    /// `%RESP(:STATUS)%`: the status, as text.
    ResponseStatus,
    /// `%TRAILER(A?B)%`.
    ResponseTrailer(HeaderName, Option<HeaderName>),
    /// `%QUERY_PARAM(NAME)%`.
    QueryParameter(Name),
    /// `%QUERY_PARAMS(DECODED)%`: the whole query, percent-decoded.
    DecodedQuery,
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
    /// `%…_WITHOUT_PORT(BITS)%`: the network of an address.
    Network(Item, u8),
    /// `%COALESCE(…)%`: the first that is known, and the most bytes that each may yield.
    Coalesce(Box<[(Operator, Option<usize>)]>),
    /// Envoy knows it; here it has no value.
    Absent(&'static str),
    /// A plain value.
    Item(Item),
}

/// Names of [`Operator::Absent`].
pub(super) const ABSENT: &[&str] = &[
    "CONNECTION_TERMINATION_DETAILS",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_CX_RTT",
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
    "DOWNSTREAM_DETECTED_CLOSE_TYPE",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_LOCAL_PORT",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_LOCAL_CLOSE_REASON",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_EMAIL_SAN",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER_SERIAL",
    "DOWNSTREAM_PEER_OTHERNAME_SAN",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_GROUP",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "EMIT_TIME_LOCAL",
    "REQUEST_HEADERS_BYTES",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "ROUNDTRIP_DURATION",
    "ROUTE_RESOLUTION_COUNT",
    "ROUTE_RESOLUTION_TIME_US",
    "SPAN_ID",
    "START_TIME_LOCAL",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "TRACE_ID",
    "UPSTREAM_CONNECTION_IDS_ATTEMPTED",
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
    "UPSTREAM_DETECTED_CLOSE_TYPE",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HOSTS_ATTEMPTED",
    "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_HOST_NAMES_ATTEMPTED",
    "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_LOCAL_CLOSE_REASON",
    "UPSTREAM_LOCAL_DNS_SAN",
    "UPSTREAM_LOCAL_IP_SAN",
    "UPSTREAM_LOCAL_URI_SAN",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_CERT_V_END",
    "UPSTREAM_PEER_CERT_V_START",
    "UPSTREAM_PEER_DNS_SAN",
    "UPSTREAM_PEER_IP_SAN",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID",
    "UPSTREAM_SERVER_NAME",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_GROUP",
    "UPSTREAM_TLS_SESSION_ID",
    "UPSTREAM_TLS_VERSION",
];

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
    /// Bytes of the body that were sent again, which is 0 but for HTTP/3.
    BytesRetransmitted = "BYTES_RETRANSMITTED", number;
    /// Packets that were sent again, which is 0 but for HTTP/3.
    PacketsRetransmitted = "PACKETS_RETRANSMITTED", number;
    /// Name of the filter chain.
    FilterChainName = "FILTER_CHAIN_NAME";
    /// Name of the listener.
    ListenerName = "LISTENER_NAME";
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
    /// Address and port of the endpoint.
    UpstreamHost = "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS";
    /// Host name of the endpoint; its address if it has none.
    UpstreamHostName = "UPSTREAM_HOST_NAME";
    /// The same without the port.
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
    /// A new UUID.
    UniqueId = "UNIQUE_ID";
    /// TLS server name.
    RequestedServerName = "REQUESTED_SERVER_NAME";
    /// The occasion of a line of an access log.
    AccessLogType = "ACCESS_LOG_TYPE";
    /// The route's name.
    RouteName = "ROUTE_NAME";
    /// The virtual host's name.
    VirtualHostName = "VIRTUAL_HOST_NAME";
    /// The virtual cluster's name.
    VirtualClusterName = "VIRTUAL_CLUSTER_NAME";
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
}

impl Item {
    /// Whether requests have the value. The others are known of proxied connections alone.
    pub fn is_known(self) -> bool {
        !matches!(
            self,
            Self::DownstreamWireBytesReceived
                | Self::DownstreamWireBytesSent
                | Self::UpstreamWireBytesReceived
                | Self::UpstreamWireBytesSent
        )
    }
}

impl Operator {
    /// The operator's name if nothing in the mesh gives it a value, so that whoever configures it can be told.
    pub fn without_value(&self) -> Option<&'static str> {
        match self {
            Self::Item(item) if !item.is_known() => Some(item.as_str()),
            Self::Absent(name) => Some(name),
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

    /// Appends the value, at most `limit` bytes of it; `false` if it is not known, and then nothing was appended.
    pub(super) fn write_part<C: FormatContext + ?Sized>(
        &self,
        limit: Option<usize>,
        context: &C,
        out: &mut Vec<u8>,
    ) -> bool {
        let start = out.len();
        let known = self.write(context, out);
        let most = if known { limit } else { Some(0) };
        if let Some(most) = most {
            out.truncate(start + most);
        }
        known
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
            Self::ResponseStatus => return write_status(context, out),
            Self::ResponseTrailer(name, other) => context
                .response_trailer(name)
                .or_else(|| context.response_trailer(other.as_ref()?)),
            Self::QueryParameter(name) => {
                let path = context.request_header(&Field::Path);
                path.and_then(|path| {
                    let value = text::query_value(&path, name.as_bytes())?;
                    Some(Cow::Owned(value.into_owned()))
                })
            }
            Self::DecodedQuery => return write_decoded_query(context, out),
            Self::FilterState(key) => context.filter_state(key),
            Self::Fixed(value) => value.as_ref().map(|value| value.as_bytes().into()),
            Self::StartTime(format) => {
                return context
                    .start_time()
                    .is_some_and(|time| format.write(time, out));
            }
            Self::EmitTime(format) => return format.write(crate::world::wall(), out),
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
            Self::Network(item, bits) => return write_network(context, *item, *bits, out),
            Self::Coalesce(all) => {
                return all
                    .iter()
                    .any(|(operator, limit)| operator.write_part(*limit, context, out));
            }
            Self::Absent(_) => None,
            Self::Item(item) => return context.item(*item, out),
        };
        found.is_some_and(|value| {
            out.extend_from_slice(&value);
            true
        })
    }
}

/// The status, if there is a response.
fn write_status<C: FormatContext + ?Sized>(context: &C, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let known = context.item(Item::ResponseCode, out) && out[start..] != *b"0";
    if !known {
        out.truncate(start);
    }
    known
}

fn write_decoded_query<C: FormatContext + ?Sized>(context: &C, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    if !context.item(Item::QueryParams, out) {
        return false;
    }
    let decoded = text::percent_decoded(&out[start..]).into_owned();
    out.truncate(start);
    out.extend_from_slice(&decoded);
    true
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

/// The network of `bits` bits that an address lies in.
fn write_network<C: FormatContext + ?Sized>(
    context: &C,
    item: Item,
    bits: u8,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    if !context.item(item, out) {
        return false;
    }
    let address = std::str::from_utf8(&out[start..]).ok();
    let address = address.and_then(|address| address.parse().ok());
    out.truncate(start);
    address
        .and_then(|address| Cidr::new(address, bits))
        .is_some_and(|network| write!(out, "{network}").is_ok())
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
