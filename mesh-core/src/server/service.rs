//! Between the codec and a connection's service: what the codec lets pass although it must not, counting, and closing.

use std::{
    borrow::Cow,
    cell::RefCell,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{self, HOST},
};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Accepted, ConnEvent, HttpStats, ListenerHandle, Rejected, line, link::Link};
use crate::{
    BoxError, Kind,
    model::{HttpConnectionManager, Network},
    telemetry::{
        clock,
        record::{Ending, Record},
    },
    transport::{Ticket, Watch},
};

/// What the task, the service and the bodies of one HTTP connection share.
pub(super) struct HttpConn {
    pub(super) link: Arc<Link>,
    pub(super) stats: Arc<HttpStats>,
    pub(super) accepted: Accepted,
    pub(super) handle: ListenerHandle,
    /// A layer counts upgrades.
    pub(super) counts_upgrades: AtomicBool,
    /// Tunnels over HTTP/2 can be reset.
    pub(super) can_cut: bool,
}

impl HttpConn {
    pub(super) fn manager(&self) -> &HttpConnectionManager {
        match &self.accepted.filter_chain().network {
            Network::Http(manager) => manager,
            _ => unreachable!("only HTTP chains make HTTP connections"),
        }
    }

    /// Bytes that may be buffered for the connection.
    pub(super) fn buffer_limit(&self) -> u32 {
        self.accepted.listener.config().per_connection_buffer_limit
    }

    /// Logs and counts a request that no service sees, and tells the observer.
    pub(super) fn reject(&self, rejected: &Rejected, request: Option<&Request<Incoming>>) {
        self.stats.downstream_rq_rejected_via_connection.add(1);
        self.handle.observer().rejected(&self.event(), rejected);
        let accepted = &self.accepted;
        let Some(http) = accepted.listener.http(accepted.chain) else {
            return;
        };
        let observer = http.observer();
        let record = Record::begin(Some(accepted.conn.clone()), rejected.version, false);
        if let Some(request) = request {
            record.see_request(request, &observer.shared_wants());
            let text = rejected.kind.reply().body;
            record.spliced(0, text.len() as u64);
        }
        {
            let mut late = record.late();
            late.status = rejected.status;
            let reply = rejected.kind.reply();
            late.flags.extend(reply.flag);
            late.details = Some(details(rejected));
        }
        record.finish(Ending::Complete, &**observer);
    }

    pub(super) fn event(&self) -> ConnEvent<'_> {
        ConnEvent {
            listener: &self.accepted.listener,
            chain: Some(self.accepted.chain),
            conn: &self.accepted.conn,
            bytes_received: self.link.received(),
            bytes_sent: self.link.sent(),
            duration: clock::now().saturating_duration_since(self.accepted.conn.started),
        }
    }

    fn begin(self: &Arc<Self>, version: Version) -> InFlight {
        self.stats.downstream_rq_active.add(1);
        let begun = self.link.begin();
        if let Some(interims) = self.accepted.conn.interims() {
            // HTTP/1.0 knows no interim response.
            interims.open(if version == Version::HTTP_11 {
                begun
            } else {
                0
            });
        }
        if let Some(max) = self.manager().max_requests_per_connection
            && begun >= u64::from(max)
            && !self.link.is_closing()
        {
            self.stats.downstream_cx_max_requests_reached.add(1);
            self.link.close_soon();
        }
        InFlight {
            conn: self.clone(),
            http2: version == Version::HTTP_2,
            http10: version == Version::HTTP_10,
            upgrade: None,
        }
    }

    /// A request is no longer in flight.
    fn ended(&self, http2: bool) {
        self.stats.downstream_rq_active.sub(1);
        // The streams of HTTP/2 end in tasks of their own, and the connection's task has to notice that it is idle.
        if self.link.end() && http2 {
            self.link.wake();
        }
    }

    /// The codec gave its socket away. Counted here only where no layer counts upgrades.
    pub(super) fn upgrade_begins(&self) {
        if !self.counts_upgrades.load(Ordering::Relaxed) {
            self.stats.downstream_cx_upgrades_total.add(1);
            self.stats.downstream_cx_upgrades_active.add(1);
        }
    }

    /// The socket came back.
    pub(super) fn upgrade_ended(&self) {
        if !self.counts_upgrades.load(Ordering::Relaxed) {
            self.stats.downstream_cx_upgrades_active.sub(1);
        }
    }
}

/// Envoy's `%RESPONSE_CODE_DETAILS%` of a request that a codec refused.
fn details(rejected: &Rejected) -> Cow<'static, str> {
    match (rejected.kind, rejected.version == Version::HTTP_2) {
        (Kind::DownstreamProtocol, true) => format!("codec_error:{}", rejected.reason)
            .replace(' ', "_")
            .into(),
        (Kind::HeadersTooLarge, true) => "http2.header_list_size_too_large".into(),
        (Kind::TooManyHeaders, true) => "http2.too_many_headers".into(),
        (kind, _) => kind.reply().details.into(),
    }
}

/// A request in flight; ends on drop.
struct InFlight {
    conn: Arc<HttpConn>,
    http2: bool,
    http10: bool,
    /// What may become a tunnel is in flight until the last holder of its ticket is gone.
    upgrade: Option<Arc<Upgrade>>,
}

impl InFlight {
    /// Whether interim responses stand before the response.
    fn has_interims(&self) -> bool {
        let interims = self.conn.accepted.conn.interims();
        !self.http2 && interims.is_some_and(|interims| interims.is_queued())
    }

    /// Whether the client asked for an upgrade and did not get it. What it sent with the request must not be read as another.
    fn is_refused<B>(&self, response: &Response<B>) -> bool {
        let Some(upgrade) = &self.upgrade else {
            return false;
        };
        let agreed = match upgrade.connect {
            true => response.status().is_success(),
            false => response.status() == StatusCode::SWITCHING_PROTOCOLS,
        };
        upgrade.state.load(Ordering::Relaxed) != UNKNOWN && !agreed
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.upgrade.is_none() {
            self.conn.ended(self.http2);
        }
    }
}

/// A request that asks for an upgrade, as statistics see it.
struct Upgrade {
    conn: Arc<HttpConn>,
    connect: bool,
    http2: bool,
    state: AtomicU8,
}

/// No layer has looked at it.
const UNKNOWN: u8 = 0;
/// It is an upgrade, and not counted.
const ASKED: u8 = 1;
/// It counts.
const ALLOWED: u8 = 2;

impl Watch for Upgrade {
    fn asked(&self) {
        self.state.store(ASKED, Ordering::Relaxed);
    }

    fn allowed(&self) {
        if self.state.swap(ALLOWED, Ordering::Relaxed) != ALLOWED {
            self.conn.counts_upgrades.store(true, Ordering::Relaxed);
            self.conn.stats.downstream_cx_upgrades_total.add(1);
            self.conn.stats.downstream_cx_upgrades_active.add(1);
        }
    }

    fn refused(&self) {
        self.asked();
        self.conn.stats.downstream_rq_ws_on_non_ws_route.add(1);
    }

    fn can_cut(&self) -> bool {
        self.conn.can_cut
    }
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        if *self.state.get_mut() == ALLOWED {
            self.conn.stats.downstream_cx_upgrades_active.sub(1);
        }
        self.conn.ended(self.http2);
    }
}

/// A tower service as hyper wants it.
pub(super) struct Adapter<S> {
    service: RefCell<S>,
    conn: Arc<HttpConn>,
}

impl<S> Adapter<S> {
    pub(super) fn new(service: S, conn: Arc<HttpConn>) -> Self {
        Self {
            service: RefCell::new(service),
            conn,
        }
    }

    /// What is wrong with a request that the codec let pass. RFC 9112 section 3.2 asks for exactly one `host`.
    fn check(&self, request: &mut Request<Incoming>) -> Option<Kind> {
        let manager = self.conn.manager();
        // As in Envoy, pseudo headers are some.
        let pseudo = match (request.version(), request.method()) {
            (Version::HTTP_2, &Method::CONNECT) => 2,
            (Version::HTTP_2, _) => 4,
            _ => 0,
        };
        if request.headers().len() + pseudo > manager.max_headers_count as usize {
            return Some(Kind::TooManyHeaders);
        }
        if request.version() == Version::HTTP_2 {
            return None;
        }
        let tls = self.conn.accepted.conn.security.tls;
        if let Some(kind) = line::check(request, manager, tls) {
            return Some(kind);
        }
        // A body of unknown length is chunked. The codec takes other codings off in no case, and would send them on unnamed.
        if request.body().size_hint().exact().is_none() {
            if !is_chunked_only(request.headers()) {
                return Some(Kind::TransferCoding);
            }
            if self.conn.link.both.take() {
                return Some(Kind::ChunkedLength);
            }
        }
        let (host, second) = {
            let mut hosts = request.headers().get_all(HOST).iter();
            (hosts.next(), hosts.next())
        };
        if second.is_some() {
            return Some(Kind::DownstreamProtocol);
        }
        let anonymous = host.is_none() && request.uri().authority().is_none();
        if request.version() < Version::HTTP_11 {
            if !manager.http1.accept_http_10 {
                return Some(Kind::UpgradeRequired);
            }
            if anonymous && let Ok(host) = HeaderValue::from_str(&manager.http1.default_host) {
                if host.is_empty() {
                    return Some(Kind::MissingHost);
                }
                request.headers_mut().insert(HOST, host);
            }
            return None;
        }
        anonymous.then_some(Kind::MissingHost)
    }

    fn refuse<B>(&self, kind: Kind, request: &Request<Incoming>) -> Response<ServedBody<B>> {
        let reply = kind.reply();
        let rejected = Rejected {
            kind,
            status: reply.http,
            version: request.version(),
            head: Some((request.method().clone(), request.uri().clone())),
            reason: reply.details.into(),
        };
        self.conn.link.refuse();
        self.conn.reject(&rejected, Some(request));
        if kind == Kind::TooManyHeaders {
            self.conn.stats.downstream_cx_protocol_error.add(1);
        }
        let mut response = Response::new(ServedBody {
            body: Content::Own {
                text: Bytes::from_static(reply.body.as_bytes()),
            },
            _in_flight: None,
        });
        *response.status_mut() =
            StatusCode::from_u16(reply.http).expect("the table holds valid statuses");
        let headers = response.headers_mut();
        headers.insert(header::SERVER, self.conn.manager().server_name.clone());
        if !reply.body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        if request.version() != Version::HTTP_2 {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        closes(&mut response, request.version() == Version::HTTP_10);
        response
    }
}

/// Whether the transfer codings are what RFC 9112 section 6.1 makes everybody understand.
fn is_chunked_only(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let (first, second) = (codings.next(), codings.next());
    second.is_none() && first.is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Adapter<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>> + Clone,
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Response = Response<ServedBody<B>>;
    type Error = BoxError;
    type Future = ServedFuture<S, B>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(kind) = self.check(&mut request) {
            return ServedFuture {
                state: Served::Refused {
                    response: Some(self.refuse(kind, &request)),
                },
                in_flight: None,
            };
        }
        let mut in_flight = self.conn.begin(request.version());
        // The codec leaves this where there may be an upgrade, and nowhere else.
        if request.extensions().get::<OnUpgrade>().is_some() {
            let upgrade = Arc::new(Upgrade {
                conn: self.conn.clone(),
                connect: *request.method() == Method::CONNECT,
                http2: in_flight.http2,
                state: AtomicU8::new(UNKNOWN),
            });
            in_flight.upgrade = Some(upgrade.clone());
            request.extensions_mut().insert(Ticket(upgrade));
        }
        let in_flight = Some(in_flight);
        let mut service = self.service.borrow_mut();
        let mut cx = Context::from_waker(Waker::noop());
        let state = match service.poll_ready(&mut cx) {
            Poll::Ready(Ok(())) => Served::Running {
                future: service.call(request),
            },
            Poll::Ready(Err(error)) => Served::Failed {
                error: Some(error.into()),
            },
            Poll::Pending => Served::Waiting {
                call: Box::new((service.clone(), Some(request))),
            },
        };
        ServedFuture { state, in_flight }
    }
}

pin_project! {
    /// The future of one exchange.
    pub struct ServedFuture<S, B>
    where
        S: Service<Request<Incoming>>,
    {
        #[pin]
        state: Served<S, S::Future, B>,
        in_flight: Option<InFlight>,
    }
}

pin_project! {
    #[project = ServedProjection]
    enum Served<S, F, B> {
        Running { #[pin] future: F },
        // An interim response has to be written first.
        Held { response: Option<Box<Response<B>>> },
        // Only for services that are not always ready.
        Waiting { call: Box<(S, Option<Request<Incoming>>)> },
        Refused { response: Option<Response<ServedBody<B>>> },
        Failed { error: Option<BoxError> },
    }
}

impl<S, B> Future for ServedFuture<S, B>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>>,
{
    type Output = Result<Response<ServedBody<B>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                ServedProjection::Running { future } => {
                    let response = match ready!(future.poll(cx)) {
                        Ok(response) => response,
                        Err(error) => return Poll::Ready(Err(error.into())),
                    };
                    if this.in_flight.as_ref().is_some_and(InFlight::has_interims) {
                        let response = Some(Box::new(response));
                        this.state.set(Served::Held { response });
                        continue;
                    }
                    return Poll::Ready(Ok(served(response, this.in_flight.take())));
                }
                ServedProjection::Held { response } => {
                    // Woken when they are written.
                    if this.in_flight.as_ref().is_some_and(InFlight::has_interims) {
                        return Poll::Pending;
                    }
                    let response = *response.take().expect("polled until ready only");
                    return Poll::Ready(Ok(served(response, this.in_flight.take())));
                }
                ServedProjection::Waiting { call } => {
                    let (service, request) = &mut **call;
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        return Poll::Ready(Err(error.into()));
                    }
                    let request = request.take().expect("called once, then replaced");
                    let future = service.call(request);
                    this.state.set(Served::Running { future });
                }
                ServedProjection::Refused { response } => {
                    return Poll::Ready(Ok(response.take().expect("polled until ready only")));
                }
                ServedProjection::Failed { error } => {
                    return Poll::Ready(Err(error.take().expect("polled until ready only")));
                }
            }
        }
    }
}

impl<S: Service<Request<Incoming>>, B> fmt::Debug for ServedFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedFuture").finish_non_exhaustive()
    }
}

fn served<B>(mut response: Response<B>, in_flight: Option<InFlight>) -> Response<ServedBody<B>> {
    if let Some(in_flight) = &in_flight
        && !in_flight.http2
        && let Some(interims) = in_flight.conn.accepted.conn.interims()
    {
        interims.open(0);
    }
    if let Some(in_flight) = &in_flight
        && !in_flight.http2
        && (in_flight.conn.link.is_closing() || in_flight.is_refused(&response))
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
    {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let http10 = in_flight.as_ref().is_some_and(|one| one.http10);
    closes(&mut response, http10);
    response.map(|body| ServedBody {
        body: Content::Service { body },
        _in_flight: in_flight,
    })
}

/// To a client of HTTP/1.0 that asks to be kept the codec promises it, beside what the response says, unless that is of HTTP/1.0.
fn closes<B>(response: &mut Response<B>, http10: bool) {
    if http10
        && response
            .headers()
            .get(header::CONNECTION)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
    {
        *response.version_mut() = Version::HTTP_10;
    }
}

pin_project! {
    /// The body of a response. The request counts as in flight until it is dropped.
    pub struct ServedBody<B> {
        #[pin]
        body: Content<B>,
        _in_flight: Option<InFlight>,
    }
}

pin_project! {
    #[project = ContentProjection]
    enum Content<B> {
        Service { #[pin] body: B },
        Own { text: Bytes },
    }
}

impl<B> Body for ServedBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().body.project() {
            ContentProjection::Service { body } => body.poll_frame(cx).map_err(Into::into),
            ContentProjection::Own { text } if text.is_empty() => Poll::Ready(None),
            ContentProjection::Own { text } => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(text)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Content::Service { body } => body.is_end_stream(),
            Content::Own { text } => text.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Content::Service { body } => body.size_hint(),
            Content::Own { text } => SizeHint::with_exact(text.len() as u64),
        }
    }
}

impl<B> fmt::Debug for ServedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedBody").finish_non_exhaustive()
    }
}
