//! A request's record as the context of formats: header values, local replies, access logs.

use std::{
    borrow::Cow,
    io::Write as _,
    net::SocketAddr,
    time::{Instant, SystemTime},
};

use http::{HeaderName, HeaderValue, Version};

use super::{
    flags::Flag,
    record::{Late, Record},
};
use crate::{
    model::{Address, Metadata, Name, Value},
    route::{
        Field, HeaderTest,
        format::{FormatContext, Item, MetadataSource, TimePoint},
        host::port_start,
    },
};

/// What is known of a request, for operators of a format.
#[derive(Debug)]
pub(crate) struct RecordContext<'a> {
    record: &'a Record,
    late: &'a Late,
    body: Option<&'a [u8]>,
    /// The attempt that is about to begin.
    attempt: Option<u32>,
}

impl<'a> RecordContext<'a> {
    /// The context of a request.
    pub(crate) fn new(record: &'a Record, late: &'a Late) -> Self {
        Self {
            record,
            late,
            body: None,
            attempt: None,
        }
    }

    /// The same, before the attempt of this number.
    #[must_use]
    pub(crate) fn before(mut self, attempt: u32) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// The same, with what `%LOCAL_REPLY_BODY%` stands for.
    #[must_use]
    pub(crate) fn with_body(mut self, body: &'a [u8]) -> Self {
        self.body = Some(body);
        self
    }

    /// Whether the request's head passes `test`.
    pub(crate) fn passes(&self, test: &HeaderTest) -> bool {
        match test.field() {
            Field::Header(name) => test.matches_header(name, &self.late.request_headers[..]),
            field => test.matches_value(self.request_header(field).as_deref()),
        }
    }

    fn connection_item(&self, item: Item, out: &mut Vec<u8>) -> Option<bool> {
        let connection = self.record.connection()?;
        let remote = match (self.late.remote, connection.peer.socket()) {
            // An address from `x-forwarded-for` has no port.
            (Some(ip), peer) if peer.is_none_or(|peer| peer.ip() != ip) => {
                Some(SocketAddr::new(ip, 0))
            }
            (_, peer) => peer,
        };
        let (local, direct) = (connection.local.socket(), connection.direct_peer.socket());
        Some(match item {
            Item::DownstreamLocalAddress => address(&connection.local, out),
            Item::DownstreamLocalAddressWithoutPort => ip(local, out),
            Item::DownstreamLocalPort => port(local, out),
            Item::DownstreamRemoteAddress => match remote {
                Some(remote) => text(remote, out),
                None => address(&connection.peer, out),
            },
            Item::DownstreamRemoteAddressWithoutPort => ip(remote, out),
            Item::DownstreamRemotePort => port(remote, out),
            Item::DownstreamDirectRemoteAddress => address(&connection.direct_peer, out),
            Item::DownstreamDirectRemoteAddressWithoutPort => ip(direct, out),
            Item::DownstreamDirectRemotePort => port(direct, out),
            Item::ConnectionId => text(connection.id, out),
            Item::ListenerName => name(Some(&connection.listener), out),
            Item::FilterChainName => name(Some(&connection.filter_chain), out),
            Item::RequestedServerName => name(connection.security.server_name.as_ref(), out),
            Item::DownstreamPeerUriSan => name(connection.security.peer_identity.as_ref(), out),
            _ => return None,
        })
    }

    fn response_item(&self, item: Item, out: &mut Vec<u8>) -> Option<bool> {
        let late = self.late;
        Some(match item {
            Item::ResponseCode => text(late.status, out),
            Item::ResponseCodeDetails => match &late.details {
                Some(details) => text(details, out),
                None => late.status != 0 && text("via_upstream", out),
            },
            Item::ResponseFlags => text(late.flags, out),
            Item::ResponseFlagsLong => {
                let long: Vec<_> = late.flags.iter().map(|flag| flag.long()).collect();
                text(
                    if long.is_empty() {
                        "-".to_owned()
                    } else {
                        long.join(",")
                    },
                    out,
                )
            }
            Item::GrpcStatus => late
                .grpc_result()
                .is_some_and(|status| text(grpc_status_name(status), out)),
            Item::GrpcStatusSnake => late
                .grpc_result()
                .is_some_and(|status| text(snake(&grpc_status_name(status)), out)),
            Item::GrpcStatusNumber => late.grpc_result().is_some_and(|status| text(status, out)),
            Item::LocalReplyBody => self.body.is_some_and(|body| {
                out.extend_from_slice(body);
                true
            }),
            _ => return None,
        })
    }

    fn upstream_item(&self, item: Item, out: &mut Vec<u8>) -> Option<bool> {
        let late = self.late;
        let endpoint = late.endpoint.as_ref();
        let socket = endpoint.and_then(|endpoint| endpoint.address().socket());
        let own = late.upstream.as_ref().and_then(|conn| conn.local);
        Some(match item {
            Item::UpstreamHost => endpoint.is_some_and(|endpoint| address(endpoint.address(), out)),
            // Of a connection that there never was nothing is known.
            Item::UpstreamRemoteAddressWithoutPort | Item::UpstreamRemotePort
                if late.flags.contains(Flag::UpstreamConnectionFailure) =>
            {
                false
            }
            Item::UpstreamRemoteAddressWithoutPort => ip(socket, out),
            Item::UpstreamRemotePort => port(socket, out),
            Item::UpstreamHostName => endpoint.is_some_and(|endpoint| {
                name(Some(endpoint.hostname()), out) || address(endpoint.address(), out)
            }),
            Item::UpstreamHostNameWithoutPort => endpoint.is_some_and(|endpoint| {
                let host = endpoint.hostname().as_bytes();
                let end = port_start(host).unwrap_or(host.len());
                out.extend_from_slice(&host[..end]);
                end > 0 || ip(socket, out) || address(endpoint.address(), out)
            }),
            Item::UpstreamCluster => {
                let config = late.cluster.as_ref().map(|cluster| cluster.config());
                name(
                    config.map(|config| config.alt_stat_name.as_ref().unwrap_or(&config.name)),
                    out,
                )
            }
            Item::UpstreamClusterRaw => name(late.cluster.as_ref().map(|c| c.name()), out),
            Item::UpstreamLocalAddress => own.is_some_and(|own| text(own, out)),
            Item::UpstreamLocalAddressWithoutPort => ip(own, out),
            Item::UpstreamLocalPort => port(own, out),
            Item::UpstreamProtocol => {
                let protocol = late.upstream.as_ref().and_then(|conn| conn.protocol);
                protocol.is_some_and(|protocol| text(protocol, out))
            }
            Item::UpstreamConnectionId => {
                text(late.upstream.as_ref().map_or(0, |conn| conn.id), out)
            }
            Item::UpstreamRequestAttemptCount => text(self.attempt.unwrap_or(late.attempts), out),
            Item::UpstreamTransportFailureReason => name(late.failure.as_ref(), out),
            _ => return None,
        })
    }
}

impl FormatContext for RecordContext<'_> {
    fn request_header(&self, field: &Field) -> Option<Cow<'_, [u8]>> {
        let head = self.late.head.as_ref();
        match field {
            Field::Method => Some(head?.method.as_str().as_bytes().into()),
            Field::Scheme => Some(
                head?
                    .scheme
                    .as_ref()
                    .map_or("http", |scheme| scheme.as_str())
                    .as_bytes()
                    .into(),
            ),
            Field::Path => Some(head?.path.as_ref()?.as_str().as_bytes().into()),
            Field::Authority => Some(head?.authority.as_ref()?.as_bytes().into()),
            Field::Header(name) => find(&self.late.request_headers, name),
            _ => None,
        }
    }

    fn response_header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        find(&self.late.response_headers, name)
    }

    fn response_trailer(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        find(&self.late.trailers, name)
    }

    fn item(&self, item: Item, out: &mut Vec<u8>) -> bool {
        if let Some(known) = self
            .connection_item(item, out)
            .or_else(|| self.upstream_item(item, out))
            .or_else(|| self.response_item(item, out))
        {
            return known;
        }
        let late = self.late;
        // Bytes have no version.
        let tcp = late.version == Version::HTTP_09;
        match item {
            Item::Protocol => text(
                match late.version {
                    Version::HTTP_10 => "HTTP/1.0",
                    Version::HTTP_2 => "HTTP/2",
                    Version::HTTP_09 => return false,
                    _ => "HTTP/1.1",
                },
                out,
            ),
            Item::AccessLogType => write!(out, "{:?}", late.log_type).is_ok(),
            Item::BytesReceived => text(self.record.request_bytes(), out),
            Item::BytesSent => text(self.record.response_bytes(), out),
            Item::BytesRetransmitted | Item::PacketsRetransmitted => text(0, out),
            // What a TCP proxy carries is what is on the wire.
            Item::DownstreamWireBytesReceived | Item::UpstreamWireBytesSent if tcp => {
                text(self.record.request_bytes(), out)
            }
            Item::DownstreamWireBytesSent | Item::UpstreamWireBytesReceived if tcp => {
                text(self.record.response_bytes(), out)
            }
            Item::VirtualClusterName => {
                // An injected abort ends a request ahead of the router, which is who counts.
                let aborted = late.flags.contains(Flag::FaultInjected);
                let counted = late.counted.as_ref().filter(|_| !aborted);
                name(counted.and_then(|counted| counted.virtual_cluster()), out)
            }
            Item::RouteName => name(late.route.as_ref().map(|route| route.name()), out),
            Item::VirtualHostName => {
                let route = late.route.as_ref();
                name(route.map(|route| route.host().name()), out)
            }
            Item::QueryParams => {
                let path = late.head.as_ref().and_then(|head| head.path.as_ref());
                path.and_then(|path| path.query())
                    .is_some_and(|query| text(query, out))
            }
            Item::UniqueId => {
                out.extend_from_slice(&super::request_id::uuid());
                true
            }
            _ => false,
        }
    }

    fn metadata(
        &self,
        source: MetadataSource,
        namespace: &str,
        path: &[Name],
    ) -> Option<Cow<'_, Value>> {
        let metadata: &Metadata = match source {
            MetadataSource::Dynamic => self.late.dynamic.as_deref()?,
            MetadataSource::Cluster => &self.late.cluster.as_ref()?.config().metadata,
            MetadataSource::UpstreamHost => self.late.endpoint.as_ref()?.metadata(),
            MetadataSource::Route => &self.late.route.as_ref()?.config().metadata,
            MetadataSource::VirtualHost => &self.late.route.as_ref()?.host().config().metadata,
            _ => return None,
        };
        metadata.get(namespace, path).map(Cow::Borrowed)
    }

    fn start_time(&self) -> Option<SystemTime> {
        // The connection's wall clock and the time since, so that no request asks for the wall clock.
        match self.record.connection() {
            Some(connection) => {
                let since = self
                    .record
                    .started()
                    .saturating_duration_since(connection.started);
                Some(connection.started_at + since)
            }
            None => Some(
                crate::world::wall()
                    - super::clock::now().saturating_duration_since(self.record.started()),
            ),
        }
    }

    fn moment(&self, point: TimePoint) -> Option<Instant> {
        let started = self.record.started();
        let late = self.late;
        match point {
            TimePoint::DownstreamReceiveBegin => Some(started),
            TimePoint::DownstreamReceiveEnd => {
                Some(started + late.request_received.unwrap_or_default())
            }
            TimePoint::UpstreamReceiveBegin | TimePoint::DownstreamSendBegin => {
                late.response_began.map(|began| started + began)
            }
            TimePoint::UpstreamReceiveEnd if late.response_began.is_none() => None,
            TimePoint::UpstreamReceiveEnd | TimePoint::DownstreamSendEnd => {
                Some(started + late.duration)
            }
            _ => None,
        }
    }
}

fn find<'a>(headers: &'a [(HeaderName, HeaderValue)], name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    headers
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.as_bytes().into())
}

fn text(value: impl std::fmt::Display, out: &mut Vec<u8>) -> bool {
    write!(out, "{value}").is_ok()
}

fn name(value: Option<&Name>, out: &mut Vec<u8>) -> bool {
    match value {
        Some(value) if !value.is_empty() => {
            out.extend_from_slice(value.as_bytes());
            true
        }
        _ => false,
    }
}

fn address(value: &Address, out: &mut Vec<u8>) -> bool {
    text(value, out)
}

fn ip(socket: Option<SocketAddr>, out: &mut Vec<u8>) -> bool {
    socket.is_some_and(|socket| text(socket.ip(), out))
}

fn port(socket: Option<SocketAddr>, out: &mut Vec<u8>) -> bool {
    socket.is_some_and(|socket| text(socket.port(), out))
}

/// `InvalidArgument` as `INVALID_ARGUMENT`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut lower = false;
    for letter in name.chars() {
        if lower && letter.is_ascii_uppercase() {
            out.push('_');
        }
        lower = letter.is_ascii_lowercase();
        out.push(letter.to_ascii_uppercase());
    }
    out
}

/// The name of a gRPC status, as Envoy writes it.
fn grpc_status_name(status: u32) -> Cow<'static, str> {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    match NAMES.get(status as usize) {
        Some(name) => (*name).into(),
        None => status.to_string().into(),
    }
}
