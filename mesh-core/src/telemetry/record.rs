//! What is known of one request, from its head to the last frame of its response.
//!
//! The layers write into the record what they decide; the outcome guard, which travels with the response body, hands it to
//! the [`Sink`]s once: metrics, access log, statistics. Records are pooled by thread, so that a request allocates none.

use std::{
    borrow::Cow,
    cell::RefCell,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version, uri::PathAndQuery,
};

use super::{
    clock,
    flags::{Flag, Flags},
    peer::Peer,
    request_id::X_REQUEST_ID,
    way::{Mark, Way},
};
#[cfg(feature = "net")]
use crate::transport::ConnTimer;
use crate::{
    Kind,
    cluster::{Cluster, Endpoint},
    model::Name,
    route::{Headers as _, RouteEntry, stands_in_one_line},
    scratch,
    transport::{ConnInfo, UpstreamConn},
};

/// Records that a thread keeps for further requests.
const POOLED: usize = 256;

thread_local! {
    static POOL: RefCell<Vec<Arc<Record>>> = const { RefCell::new(Vec::new()) };
}

/// Where finished records go.
pub trait Sink: fmt::Debug + Send + Sync {
    /// Headers that it wants to see at the end; they are copied as references into the record.
    fn wants(&self) -> &Wants {
        const { &Wants::NONE }
    }

    /// Takes note of a finished request.
    fn finish(&self, record: &Record, late: &Late);
}

/// What a [`Sink`] reads of a request's headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Method, path and authority.
    pub head: bool,
    /// The upstream connection.
    pub upstream: bool,
    /// Request headers.
    pub request: Vec<HeaderName>,
    /// Response headers.
    pub response: Vec<HeaderName>,
    /// Response trailers.
    pub trailers: Vec<HeaderName>,
}

impl Wants {
    const NONE: Self = Self {
        head: false,
        upstream: false,
        request: Vec::new(),
        response: Vec::new(),
        trailers: Vec::new(),
    };

    /// Adds what `other` reads.
    pub fn merge(&mut self, other: &Self) {
        self.head |= other.head;
        self.upstream |= other.upstream;
        for (list, more) in [
            (&mut self.request, &other.request),
            (&mut self.response, &other.response),
            (&mut self.trailers, &other.trailers),
        ] {
            for name in more {
                if !list.contains(name) {
                    list.push(name.clone());
                }
            }
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The response was sent to its end.
    Complete,
    /// The response broke off.
    Broken(Kind),
    /// The client went away.
    Dropped,
}

/// One request.
pub struct Record {
    started: Instant,
    connection: Option<Arc<ConnInfo>>,
    #[cfg(feature = "net")]
    timer: Option<ConnTimer>,
    request: Way,
    response: Way,
    /// When the request was received, and when the upstream's response began, as [`Mark`]s.
    received: Mark,
    began: Mark,
    grpc: bool,
    /// The request body is on its way.
    receiving: AtomicBool,
    /// The request body broke off.
    broken: AtomicBool,
    /// The response has ended, so that nobody needs the rest of the request body.
    over: AtomicBool,
    late: Mutex<Late>,
}

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
    /// `grpc-status` of the response.
    pub grpc_status: Option<u32>,
    /// The request is gRPC.
    pub grpc: bool,
    /// HTTP version of the request.
    pub version: Version,
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
    /// Attempts at an endpoint.
    pub attempts: u32,
    /// Why the newest attempt gave no response.
    pub failure: Option<Name>,
    /// From the start to the end of the request body, as of the last [`Record::late`].
    pub request_received: Option<Duration>,
    /// From the start to the head of the upstream's response, as of the last [`Record::late`].
    pub response_began: Option<Duration>,
    /// From the start to the end.
    pub duration: Duration,
    /// The client's address as trusted: from `x-forwarded-for`, else the peer's.
    pub remote: Option<std::net::IpAddr>,
    /// The request id, if the response is to carry it; boxed, since few do.
    pub(crate) returned_id: Option<Box<HeaderValue>>,
    /// What is done to the reply if the request fails; few have any of it.
    pub(crate) on_reply: Option<Box<OnReply>>,
    /// What is noted of the request's head.
    wanted: Option<Arc<Wants>>,
    waiting: Option<Waker>,
    /// Who waits for the rest of the request body.
    reader: Option<Waker>,
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
    fn of<B>(request: &Request<B>) -> Self {
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

impl Record {
    /// A record of a request that begins now.
    pub fn begin(connection: Option<Arc<ConnInfo>>, version: Version, grpc: bool) -> Arc<Self> {
        let pooled = POOL
            .with_borrow_mut(Vec::pop)
            .filter(|record| Arc::strong_count(record) == 1);
        let mut record = pooled.unwrap_or_else(|| Arc::new(Self::new()));
        if let Some(own) = Arc::get_mut(&mut record) {
            own.reset(connection, version, grpc);
        }
        record
    }

    fn new() -> Self {
        Self {
            started: clock::now(),
            connection: None,
            #[cfg(feature = "net")]
            timer: None,
            request: Way::default(),
            response: Way::default(),
            received: Mark::default(),
            began: Mark::default(),
            grpc: false,
            receiving: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            over: AtomicBool::new(false),
            late: Mutex::default(),
        }
    }

    fn reset(&mut self, connection: Option<Arc<ConnInfo>>, version: Version, grpc: bool) {
        self.started = clock::now();
        self.connection = connection;
        #[cfg(feature = "net")]
        {
            self.timer = None;
        }
        self.request.reset();
        self.response.reset();
        self.received = Mark::default();
        self.began = Mark::default();
        *self.receiving.get_mut() = false;
        *self.broken.get_mut() = false;
        *self.over.get_mut() = false;
        let late = self.late.get_mut().unwrap_or_else(PoisonError::into_inner);
        late.reset();
        late.version = version;
        late.grpc = grpc;
        self.grpc = grpc;
    }

    /// When the request began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The connection that it came over; `None` for a call of the program itself.
    pub fn connection(&self) -> Option<&Arc<ConnInfo>> {
        self.connection.as_ref()
    }

    /// A deadline on the timer of the connection or client, else on one of its own.
    #[cfg(feature = "net")]
    pub(crate) fn deadline(&self, at: Instant) -> crate::transport::Deadline {
        let timer = match &self.connection {
            Some(connection) => Some(connection.timer()),
            None => self.timer.as_ref(),
        };
        match timer {
            Some(timer) => timer.deadline(at),
            None => crate::transport::Deadline::alone(at),
        }
    }

    /// Deadlines use `timer` if there is no connection.
    #[cfg(feature = "net")]
    pub(crate) fn with_timer(mut self: Arc<Self>, timer: &ConnTimer) -> Arc<Self> {
        if let Some(own) = Arc::get_mut(&mut self) {
            own.timer = Some(timer.clone());
        }
        self
    }

    /// Bytes of the request body so far.
    pub fn request_bytes(&self) -> u64 {
        self.request.bytes()
    }

    /// Bytes of the response body so far.
    pub fn response_bytes(&self) -> u64 {
        self.response.bytes()
    }

    /// Whether the request is gRPC.
    pub fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// Rises when something moves.
    #[cfg(feature = "net")]
    pub(crate) fn movements(&self) -> u64 {
        self.request.moved().wrapping_add(self.response.moved())
    }

    /// What becomes known on the way. The lock is held for a few writes only.
    pub fn late(&self) -> MutexGuard<'_, Late> {
        // A panic while the lock is held leaves plain data behind, so the data is used on.
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.request_received = self.received.get();
        late.response_began = self.began.get();
        late
    }

    /// From the end of the request to the head of the upstream's response, once that is there.
    pub(crate) fn service_time(&self) -> Option<Duration> {
        let sent = self.received.get().unwrap_or_default();
        Some(self.began.get()?.saturating_sub(sent))
    }

    /// Adds a flag.
    pub fn flag(&self, flag: Flag) {
        self.late().flags.insert(flag);
    }

    fn elapsed(&self) -> Duration {
        clock::now().saturating_duration_since(self.started)
    }

    pub(crate) fn request_begins(&self) {
        self.receiving.store(true, Ordering::Release);
    }

    pub(crate) fn request_data(&self, length: usize) {
        self.request.add(length as u64);
        self.request.touch();
    }

    pub(crate) fn request_ends(&self) {
        let elapsed = self.elapsed();
        let waker = {
            let mut late = self.late();
            self.received.set(elapsed);
            self.receiving.store(false, Ordering::Release);
            late.waiting.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ready once the request body has come to its end, or was dropped.
    #[cfg(feature = "net")]
    pub(crate) fn poll_received(
        &self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<()> {
        use std::task::Poll;

        if !self.receiving.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let mut late = self.late();
        // Looked at again under the lock, which `request_ends` holds while it takes the waker.
        if !self.receiving.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        match &mut late.waiting {
            Some(waker) => waker.clone_from(context.waker()),
            waiting => *waiting = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Whether the request body has come to its end.
    pub fn is_received(&self) -> bool {
        !self.receiving.load(Ordering::Acquire)
    }

    pub(crate) fn request_breaks(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Whether the client left before the end of its request. A body that broke off over HTTP/1.1 may also be malformed.
    pub(crate) fn is_abandoned(&self, version: Version) -> bool {
        let gone = || {
            let connection = self.connection.as_ref();
            connection.is_some_and(|connection| connection.is_gone())
        };
        self.broken.load(Ordering::Acquire) && (version == Version::HTTP_2 || gone())
    }

    /// Whether the response has ended. Wakes whoever asked when it does.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Wakes `context` when the response ends before the request body does.
    pub(crate) fn wake_when_over(&self, context: &std::task::Context<'_>) {
        match &mut self.late().reader {
            Some(waker) => waker.clone_from(context.waker()),
            reader => *reader = Some(context.waker().clone()),
        }
        if self.is_over() {
            context.waker().wake_by_ref();
        }
    }

    /// The rest of the request body is of no use: its sender is not waited for, as in Envoy. A program that serves its own
    /// requests decides that itself.
    fn end_request(&self, late: &mut Late) -> Option<Waker> {
        if self.is_received() || self.connection.is_none() {
            return None;
        }
        self.over.store(true, Ordering::Release);
        late.reader.take()
    }

    /// Whether a response that begins now comes before the end of an HTTP/1 request over a connection of ours.
    pub(crate) fn is_early(&self) -> bool {
        !self.is_received() && self.connection.is_some() && self.late().version < Version::HTTP_2
    }

    pub(crate) fn response_data(&self, length: usize) {
        self.response.add(length as u64);
        self.response.touch();
    }

    pub(crate) fn response_trailers(&self, trailers: &HeaderMap, wants: &Wants) {
        let mut late = self.late();
        if let Some(status) = grpc_status(trailers) {
            late.grpc_status = Some(status);
        }
        copy(trailers, &wants.trailers, &mut late.trailers);
    }

    /// Counts the bytes of a proxied connection.
    #[cfg(feature = "server")]
    pub(crate) fn spliced(&self, received: u64, sent: u64) {
        self.request.add(received);
        self.response.add(sent);
    }

    /// The head of the upstream's response is there.
    #[cfg(feature = "client")]
    pub(crate) fn response_begins(&self) {
        self.began.set(self.elapsed());
        self.response.touch();
    }

    /// An attempt gave no response.
    #[cfg(feature = "client")]
    pub(crate) fn attempt_failed(&self, error: &crate::Error) {
        if let Some(source) = std::error::Error::source(error) {
            self.late().failure = Some(source.to_string().into());
        }
    }

    /// Takes note of a request's head again, after it was changed, if it was noted before.
    pub(crate) fn see_request_again<B>(&self, request: &Request<B>) {
        let mut late = self.late();
        if let Some(head) = &mut late.head {
            *head = RecordedHead::of(request);
        }
        if let Some(wanted) = late.wanted.clone() {
            copy(
                request.headers(),
                &wanted.request,
                &mut late.request_headers,
            );
        }
    }

    /// Takes note of what else of a request's head somebody reads later, beside what is noted already.
    pub(crate) fn see_also<B>(&self, request: &Request<B>, wants: &Wants) {
        let all = {
            let late = self.late();
            let mut all = late.wanted.as_deref().cloned().unwrap_or_default();
            all.merge(wants);
            all
        };
        self.see_request(request, &Arc::new(all));
    }

    /// Takes note of a request's head as it is now.
    pub(crate) fn see_request<B>(&self, request: &Request<B>, wants: &Arc<Wants>) {
        if !wants.head && !wants.upstream && wants.request.is_empty() {
            return;
        }
        let mut late = self.late();
        late.head = wants.head.then(|| RecordedHead::of(request));
        copy(request.headers(), &wants.request, &mut late.request_headers);
        late.wanted = Some(wants.clone());
    }

    /// Takes note of a response's head, and gives it the request id if it is to carry it.
    pub(crate) fn see_response<B>(&self, response: &mut Response<B>, wants: &Wants) {
        let mut late = self.late();
        if let Some(id) = late.returned_id.take() {
            response.headers_mut().insert(X_REQUEST_ID, *id);
        }
        // A client that has left gets no response.
        let left = !late.flags.is_empty()
            && (late.flags.contains(Flag::DownstreamConnectionTermination)
                || late.flags.contains(Flag::DownstreamRemoteReset));
        late.status = match left {
            true => 0,
            false => response.status().as_u16(),
        };
        if late.grpc {
            late.grpc_status = grpc_status(response.headers());
        }
        copy(
            response.headers(),
            &wants.response,
            &mut late.response_headers,
        );
    }

    /// How the client left, over `version`: a stream of HTTP/2 may end alone. What its peer did not reset the codec did, since
    /// the peer broke the protocol on it.
    pub(crate) fn left(&self, version: Version) -> Kind {
        match &self.connection {
            Some(connection) if version == Version::HTTP_2 && !connection.is_gone() => {
                match connection.has_resets() {
                    true => Kind::DownstreamReset,
                    false => Kind::DownstreamProtocol,
                }
            }
            _ => Kind::DownstreamTermination,
        }
    }

    pub(crate) fn finish(self: Arc<Self>, ending: Ending, sink: &dyn Sink) {
        let reader = {
            let duration = self.elapsed();
            let mut late = self.late();
            late.duration = duration;
            match ending {
                Ending::Complete => {}
                Ending::Broken(kind) if !self.is_abandoned(late.version) => late.broke(kind),
                Ending::Broken(_) | Ending::Dropped => {
                    let kind = self.left(late.version);
                    late.broke(kind);
                    match kind {
                        Kind::DownstreamReset => {
                            if let Some(connection) = &self.connection {
                                connection.take_reset();
                            }
                        }
                        Kind::DownstreamProtocol => {
                            // As in Envoy nothing was answered, and it is a stream that was reset.
                            late.status = 0;
                            late.details = Some(Kind::DownstreamReset.reply().details.into());
                        }
                        _ => {}
                    }
                }
            }
            sink.finish(&self, &late);
            late.release();
            self.end_request(&mut late)
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED && Arc::strong_count(&self) == 1 {
                pool.push(self);
            }
        });
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

impl Late {
    /// Back to nothing known; lists keep their memory.
    fn reset(&mut self) {
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

    /// Lets go of what the rest of the mesh may want to free; the record itself waits in its pool.
    fn release(&mut self) {
        self.cluster = None;
        self.endpoint = None;
        self.route = None;
        self.counted = None;
        self.peer = None;
        self.upstream = None;
        self.on_reply = None;
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
    fn broke(&mut self, kind: Kind) {
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

fn copy(from: &HeaderMap, wanted: &[HeaderName], to: &mut Vec<(HeaderName, HeaderValue)>) {
    to.clear();
    for name in wanted {
        let mut values = from.get_all(name).iter();
        let Some(first) = values.next() else {
            continue;
        };
        let one_line = values.next().is_some() && stands_in_one_line(name);
        let joined = one_line.then(|| from.joined(name)).flatten();
        let joined = joined.and_then(|all| HeaderValue::from_bytes(&all).ok());
        to.push((name.clone(), joined.unwrap_or_else(|| first.clone())));
    }
}

/// The status of a gRPC response, in headers (trailers only) or trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}
