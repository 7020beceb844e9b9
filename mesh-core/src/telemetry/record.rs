//! What is known of one request, from its head to the last frame of its response.
//!
//! The layers write into the record what they decide; the outcome guard, which travels with the response body, hands it to
//! the [`Sink`]s once: metrics, access log, statistics. Records are pooled by thread, so that a request allocates none.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Request, Response, Version, uri::PathAndQuery};

use super::{
    clock,
    flags::Flag,
    late::copy,
    messages::Messages,
    pooled,
    request_id::X_REQUEST_ID,
    way::{Mark, Way},
};
#[cfg(feature = "server")]
use crate::model::LogType;
#[cfg(feature = "net")]
use crate::transport::ConnTimer;
use crate::{Kind, layer::is_grpc, names::ORIGINAL_PATH, sync::lock, transport::ConnInfo};

pub(crate) use super::late::grpc_status;
pub use super::{
    late::{Late, RecordedHead},
    sink::{Sink, Wants},
};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    /// The response is gRPC too.
    answer: AtomicBool,
    /// Messages of gRPC that came, and that were sent.
    messages: [Messages; 2],
    /// The request body is on its way.
    receiving: AtomicBool,
    /// The request body broke off.
    broken: AtomicBool,
    /// The response has ended, so that nobody needs the rest of the request body.
    over: AtomicBool,
    /// An attempt with limits of its own waits for its connection.
    pending: AtomicBool,
    late: Mutex<Late>,
}

impl Record {
    /// A record of a request that begins now.
    pub fn begin(connection: Option<Arc<ConnInfo>>, version: Version, grpc: bool) -> Arc<Self> {
        let mut record = pooled::take().unwrap_or_else(|| Arc::new(Self::new()));
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
            answer: AtomicBool::new(false),
            messages: Default::default(),
            receiving: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            over: AtomicBool::new(false),
            pending: AtomicBool::new(false),
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
        *self.pending.get_mut() = false;
        let late = self.late.get_mut().unwrap_or_else(PoisonError::into_inner);
        late.reset();
        late.version = version;
        late.grpc = grpc;
        if std::mem::replace(&mut self.grpc, grpc) {
            *self.answer.get_mut() = false;
            self.messages.iter_mut().for_each(Messages::reset);
        }
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

    /// A deadline of the request that `record` tells of, if it has one.
    #[cfg(feature = "net")]
    pub(crate) fn deadline_of(
        record: Option<&Arc<Self>>,
        at: Instant,
    ) -> crate::transport::Deadline {
        match record {
            Some(record) => record.deadline(at),
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

    /// Messages of gRPC so far: those of the request, and those of the response.
    pub fn grpc_messages(&self) -> [u64; 2] {
        self.messages.each_ref().map(Messages::count)
    }

    /// Rises when something moves.
    #[cfg(feature = "net")]
    pub(crate) fn movements(&self) -> u64 {
        self.request.moved().wrapping_add(self.response.moved())
    }

    /// What becomes known on the way. The lock is held for a few writes only.
    pub fn late(&self) -> MutexGuard<'_, Late> {
        let mut late = lock(&self.late);
        late.request_received = self.received.get();
        late.response_began = self.began.get();
        late
    }

    /// From the end of the request to the head of the upstream's response, once both are there.
    pub(crate) fn service_time(&self) -> Option<Duration> {
        if !self.is_received() {
            return None;
        }
        let sent = self.received.get().unwrap_or_default();
        Some(self.began.get()?.saturating_sub(sent))
    }

    /// How long ago the request had arrived; nothing while it is still on its way.
    #[cfg(feature = "net")]
    pub(crate) fn since_received(&self) -> Duration {
        if !self.is_received() {
            return Duration::ZERO;
        }
        let received = self.received.get().unwrap_or_default();
        self.elapsed().saturating_sub(received)
    }

    /// An attempt begins to wait for a connection, or has waited.
    #[cfg(feature = "client")]
    pub(crate) fn set_pending(&self, pending: bool) {
        self.pending.store(pending, Ordering::Release);
    }

    /// Whether an attempt waits for its connection.
    #[cfg(feature = "net")]
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
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

    /// Counts the messages in the next bytes of the request body, if it is gRPC.
    pub(crate) fn request_messages(&self, data: &[u8]) {
        if self.grpc {
            self.messages[0].see(data);
        }
    }

    /// The same for the response body.
    pub(crate) fn response_messages(&self, data: &[u8]) {
        if self.grpc && self.answer.load(Ordering::Relaxed) {
            self.messages[1].see(data);
        }
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

    /// Tells `sink` of a proxied connection that goes on.
    #[cfg(feature = "server")]
    pub(crate) fn tell(&self, log_type: LogType, sink: &dyn Sink) {
        let duration = self.elapsed();
        let mut late = self.late();
        late.duration = duration;
        late.log_type = log_type;
        sink.finish(self, &late);
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
        let transport = error.kind() == crate::Kind::ConnectFailure;
        let reason = error.connect_reason().or_else(|| {
            Some(
                std::error::Error::source(error)
                    .filter(|_| transport)?
                    .to_string(),
            )
        });
        if let Some(reason) = reason {
            self.late().failure = Some(reason.into());
        }
    }

    /// Takes note of a request's head again, after it was changed, if it was noted before.
    pub(crate) fn see_request_again<B>(&self, request: &Request<B>) {
        let mut late = self.late();
        if let Some(head) = &mut late.head {
            *head = RecordedHead::of(request);
        }
        late.grpc &= is_grpc(request.headers());
        if let Some(wanted) = late.wanted.clone() {
            copy(
                request.headers(),
                &wanted.request,
                &mut late.request_headers,
            );
        }
    }

    /// Notes the scheme where it does not stand in the URI.
    pub(crate) fn see_scheme(&self, scheme: &http::uri::Scheme) {
        if let Some(head) = &mut self.late().head {
            head.scheme.get_or_insert_with(|| scheme.clone());
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

    /// Takes note of the path that takes the place of this request's, which nobody gets. With `keep_original` the old one is
    /// in `x-envoy-original-path`.
    pub(crate) fn see_rewritten<B>(&self, request: &Request<B>, path: &[u8], keep_original: bool) {
        let late = &mut *self.late();
        if let (Some(head), Ok(path)) = (&mut late.head, PathAndQuery::try_from(path)) {
            head.path = Some(path);
        }
        let wanted = late.wanted.as_ref();
        if !keep_original || !wanted.is_some_and(|all| all.request.contains(&ORIGINAL_PATH)) {
            return;
        }
        let old = request.uri().path_and_query();
        if let Some(old) = old.and_then(|old| HeaderValue::from_str(old.as_str()).ok()) {
            let known = &mut late.request_headers;
            known.retain(|(name, _)| *name != ORIGINAL_PATH);
            known.push((ORIGINAL_PATH, old));
        }
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
        // What comes from the upstream has no details but those of its end.
        late.own = late.details.is_some();
        if late.grpc {
            late.grpc_status = grpc_status(response.headers());
            let answer = crate::layer::is_grpc(response.headers());
            self.answer.store(answer, Ordering::Relaxed);
        }
        copy(
            response.headers(),
            &wants.response,
            &mut late.response_headers,
        );
    }

    /// The upstream's redirect is followed. As in Envoy `sink` is told of the request that was, and another begins.
    #[cfg(feature = "net")]
    pub(crate) fn redirected<B>(&self, response: &Response<B>, sink: Option<&dyn Sink>) {
        let duration = self.elapsed();
        let mut late = self.late();
        if let Some(sink) = sink {
            late.duration = duration;
            late.status = response.status().as_u16();
            late.details = Some("internal_redirect".into());
            if late.grpc {
                late.grpc_status = grpc_status(response.headers());
            }
            copy(
                response.headers(),
                &sink.wants().response,
                &mut late.response_headers,
            );
            sink.finish(self, &late);
        }
        late.unroute();
        self.began.clear();
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
        pooled::keep(self);
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}
