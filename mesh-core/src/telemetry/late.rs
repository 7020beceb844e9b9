//! What becomes known of a request while it is on its way.

use std::{borrow::Cow, sync::Arc, task::Waker, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, uri::PathAndQuery};

use super::{
    access_log::grpc_from_http,
    flags::{Flag, Flags},
    peer::Peer,
    sink::Wants,
};
use crate::{
    Kind,
    cluster::{Cluster, Endpoint},
    model::{LogType, Metadata, Name},
    names::GRPC_STATUS,
    route::{Headers as _, RouteEntry, stands_in_one_line},
    scratch,
    transport::UpstreamConn,
};

/// Details of an answer to a health check.
pub(crate) const HEALTH_CHECK_OK: &str = "health_check_ok";
/// The same while the health of the program is said to fail.
pub(crate) const HEALTH_CHECK_FAILED: &str = "health_check_failed";

/// What becomes known while the request is on its way.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Late {
    /// Envoy's response flags.
    pub flags: Flags,
    /// `%RESPONSE_CODE_DETAILS%`; `None`: the response came from the upstream.
    pub details: Option<Cow<'static, str>>,
    /// Status of the response; 0: none was sent.
    pub status: u16,
    /// The response is an answer of our own.
    pub(crate) own: bool,
    /// `grpc-status` of the response.
    pub grpc_status: Option<u32>,
    /// The request is gRPC.
    pub grpc: bool,
    /// HTTP version of the request.
    pub version: Version,
    /// What it is told for. A TCP connection whose logs are written on its way is told of each time.
    pub log_type: LogType,
    /// Method, path and authority, if wanted.
    pub head: Option<RecordedHead>,
    /// Request headers, if wanted, in the order of the wants.
    pub request_headers: Vec<(HeaderName, HeaderValue)>,
    /// Response headers, if wanted.
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    /// Response trailers, if wanted.
    pub trailers: Vec<(HeaderName, HeaderValue)>,
    /// Statistics of a virtual cluster or route that the request counts in; few do.
    pub(crate) counted: Option<Box<crate::route::Counted>>,
    /// The arm of the route, if it forwards.
    pub(crate) arm: u32,
    /// The route.
    pub route: Option<Arc<RouteEntry>>,
    /// The cluster.
    pub cluster: Option<Arc<Cluster>>,
    /// The endpoint of the newest attempt.
    pub endpoint: Option<Arc<Endpoint>>,
    /// The upstream connection of the newest attempt, if wanted.
    pub(crate) upstream: Option<Arc<UpstreamConn>>,
    /// Who called, if it says so.
    pub peer: Option<Arc<Peer>>,
    /// What guards found out of the request (`%DYNAMIC_METADATA(…)%`); boxed, since few have any.
    pub dynamic: Option<Box<Metadata>>,
    /// Attempts at an endpoint.
    pub attempts: u32,
    /// Limits of time that the request's own headers set in the place of its route's; few do.
    pub(crate) asked: Option<Box<Asked>>,
    /// Why the newest attempt gave no response.
    pub failure: Option<Name>,
    /// From the start to the end of the request body, as of the last [`late`](super::record::Record::late).
    pub request_received: Option<Duration>,
    /// From the start to the head of the upstream's response, as of the last [`late`](super::record::Record::late).
    pub response_began: Option<Duration>,
    /// From the start to the end.
    pub duration: Duration,
    /// The client's address as trusted: from `x-forwarded-for`, else the peer's.
    pub remote: Option<std::net::IpAddr>,
    /// The request id, if the response is to carry it; boxed, since few do.
    pub(crate) returned_id: Option<Box<HeaderValue>>,
    /// What is done to the reply if the request fails; few have any of it.
    pub(crate) on_reply: Option<Box<OnReply>>,
    /// The client sends its body when it is told to.
    #[cfg(feature = "net")]
    pub(crate) expectation: Option<Arc<crate::transport::Expectation>>,
    /// The port that a CONNECT named, if it was taken off.
    pub(crate) connect_port: Option<u16>,
    /// Interim responses that came, and those of them that the client got.
    pub(crate) interims: [u32; 2],
    /// What is noted of the request's head.
    pub(super) wanted: Option<Arc<Wants>>,
    pub(super) waiting: Option<Waker>,
    /// Who waits for the rest of the request body.
    pub(super) reader: Option<Waker>,
}

/// Limits of time that a request asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// In the place of the route's timeout.
    pub(crate) route: Option<Duration>,
    /// Longest life of its stream at the upstream, in the place of the cluster's; zero: no limit.
    pub(crate) life: Option<Duration>,
    /// A timeout of the upstream is answered with 204.
    pub(crate) alt_response: bool,
}

/// What filters ahead of the router do to a local reply.
#[derive(Debug, Default)]
pub(crate) struct OnReply {
    /// Headers of an answer to an allowed origin.
    pub(crate) marks: Option<Box<crate::layer::cors::Marks>>,
    /// KiB a second (`None`: no limit), and the place among the active faults.
    #[cfg(feature = "net")]
    pub(crate) pace: Option<(Option<u64>, crate::layer::fault::Active)>,
}

/// Method, path and authority of a request.
#[derive(Clone, Debug)]
pub struct RecordedHead {
    /// The method.
    pub method: Method,
    /// Path and query; `None` for a plain CONNECT.
    pub path: Option<PathAndQuery>,
    /// The authority.
    pub authority: Option<HeaderValue>,
    /// The scheme.
    pub scheme: Option<http::uri::Scheme>,
}

impl RecordedHead {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        Self {
            method: request.method().clone(),
            path: uri.path_and_query().cloned(),
            authority: match uri.authority() {
                Some(authority) => scratch::header_value(authority.as_str().as_bytes()),
                None => request.headers().get(http::header::HOST).cloned(),
            },
            scheme: uri.scheme().cloned(),
        }
    }
}

impl Late {
    /// Back to nothing known; lists keep their memory.
    pub(super) fn reset(&mut self) {
        let mut request_headers = std::mem::take(&mut self.request_headers);
        let mut response_headers = std::mem::take(&mut self.response_headers);
        let mut trailers = std::mem::take(&mut self.trailers);
        request_headers.clear();
        response_headers.clear();
        trailers.clear();
        *self = Self {
            request_headers,
            response_headers,
            trailers,
            ..Self::default()
        };
    }

    /// Back to what was known before the request was routed.
    #[cfg(feature = "net")]
    pub(super) fn unroute(&mut self) {
        self.flags = Flags::default();
        (self.status, self.attempts, self.arm) = (0, 0, 0);
        (self.details, self.grpc_status, self.failure) = (None, None, None);
        (self.route, self.counted, self.cluster) = (None, None, None);
        (self.endpoint, self.upstream, self.asked) = (None, None, None);
        self.response_headers.clear();
    }

    /// Lets go of what the rest of the mesh may want to free; the record itself waits in its pool.
    pub(super) fn release(&mut self) {
        self.cluster = None;
        self.endpoint = None;
        self.route = None;
        self.counted = None;
        self.peer = None;
        self.upstream = None;
        self.on_reply = None;
        #[cfg(feature = "net")]
        {
            self.expectation = None;
        }
    }

    /// Whether the upstream answered, or our answer stands for the one that it did not give.
    pub(crate) fn is_of_upstream(&self) -> bool {
        self.status != 0 && (!self.own || self.stands_for_upstream())
    }

    /// Whether our answer stands for the one that the upstream did not give.
    pub(crate) fn stands_for_upstream(&self) -> bool {
        let upstream = [
            Flag::NoHealthyUpstream,
            Flag::UpstreamRequestTimeout,
            Flag::UpstreamRemoteReset,
            Flag::UpstreamConnectionFailure,
            Flag::UpstreamConnectionTermination,
            Flag::UpstreamMaxStreamDurationReached,
            Flag::UpstreamOverflow,
            Flag::UpstreamProtocolError,
        ];
        self.own && upstream.into_iter().any(|flag| self.flags.contains(flag))
    }

    /// Whether it was a health check of the proxy itself.
    pub(crate) fn is_health_check(&self) -> bool {
        matches!(
            self.details.as_deref(),
            Some(HEALTH_CHECK_OK | HEALTH_CHECK_FAILED)
        )
    }

    /// The status of a gRPC request's response; where it says none, what its HTTP status stands for.
    pub(crate) fn grpc_result(&self) -> Option<u32> {
        let by_http = || (self.status != 0).then(|| grpc_from_http(self.status).into());
        self.grpc_status.or_else(by_http).filter(|_| self.grpc)
    }

    /// Whether somebody asks for the upstream connection.
    #[cfg(feature = "client")]
    pub(crate) fn wants_upstream(&self) -> bool {
        self.wanted.as_ref().is_some_and(|wants| wants.upstream)
    }

    pub(crate) fn on_reply(&mut self) -> &mut OnReply {
        self.on_reply.get_or_insert_default()
    }

    /// The response broke off, or the client went away.
    pub(super) fn broke(&mut self, kind: Kind) {
        let reply = kind.reply();
        if let Some(flag) = reply.flag {
            self.flags.insert(flag);
        }
        let after = self.status != 0;
        self.details = Some(match kind {
            Kind::ConnectionTermination if after => {
                "upstream_reset_after_response_started{connection_termination}".into()
            }
            Kind::RemoteReset if after => {
                "upstream_reset_after_response_started{remote_reset}".into()
            }
            Kind::UpstreamProtocol if after => {
                "upstream_reset_after_response_started{protocol_error}".into()
            }
            _ => reply.details.into(),
        });
    }
}

pub(super) fn copy(
    from: &HeaderMap,
    wanted: &[HeaderName],
    to: &mut Vec<(HeaderName, HeaderValue)>,
) {
    to.clear();
    for name in wanted {
        let mut values = from.get_all(name).iter();
        let Some(first) = values.next() else {
            continue;
        };
        let Some(second) = values.next() else {
            to.push((name.clone(), first.clone()));
            continue;
        };
        let joined = stands_in_one_line(name)
            .then(|| from.joined(name))
            .flatten();
        if let Some(joined) = joined.and_then(|all| HeaderValue::from_bytes(&all).ok()) {
            to.push((name.clone(), joined));
            continue;
        }
        // Formats read the first, filters all.
        let all = [first, second].into_iter().chain(values);
        to.extend(all.map(|value| (name.clone(), value.clone())));
    }
}

/// The status of a gRPC response, in headers (trailers only) or trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}
