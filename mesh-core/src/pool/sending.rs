//! One request on its way over a pooled connection.
//!
//! Written by hand, since the state of an `async fn` would hold the request several times over, and is moved with every
//! layer that stands above. hyper's futures have no name, so the types here are generic over them.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{
    HeaderValue, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
};
use http_body::Body;
use hyper::{body::Incoming, client::conn::TrySendError};
use pin_project_lite::pin_project;

use super::{
    PoolBody,
    body::{Lease, Release},
    conn::{Conn, Sender},
    host::Key,
};
use crate::{
    Error, Kind,
    model::ConnectConfig,
    sync::lock,
    telemetry::record::Record,
    transport::{Switched, Target, UpstreamKind},
};

/// A future of hyper's answer to a request.
pub(super) trait Exchange<B>:
    Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>> + Send
{
}

impl<B, F> Exchange<B> for F where
    F: Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>> + Send
{
}

/// A future of the pool's answer to a request.
pub(super) trait Answer: Future<Output = Result<Response<PoolBody>, Error>> + Send {}

impl<F> Answer for F where F: Future<Output = Result<Response<PoolBody>, Error>> + Send {}

/// What is known of a request once it was handed to hyper.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) target: Target,
    /// It has no body, or all of it was there.
    pub(super) whole: bool,
    /// Its method is CONNECT.
    pub(super) connect: bool,
    /// What it asks to be upgraded to, where HTTP/2 says so in the form of CONNECT.
    pub(super) upgrade: Option<Box<HeaderValue>>,
    /// It ends here, and its payload goes on as TCP.
    pub(super) ends_here: Option<ConnectConfig>,
    /// Where the connection is noted, if it is.
    pub(super) record: Option<Arc<Record>>,
}

pin_project! {
    /// The future of the pool's service: `P` is the pool, `F` hyper's future, `G` what goes on in a box.
    pub(super) struct Sending<P, B, F, G>
    where
        B: Send,
        B: 'static,
    {
        #[pin]
        state: State<B, F, G>,
        ask: Ask,
        pool: P,
        steps: Steps<P, B, F, G>,
    }
}

/// How a request is put on a connection, and what goes on with one that a connection gave back.
pub(super) struct Steps<P, B, F, G> {
    pub(super) exchange: fn(&Conn<B>, Request<B>) -> F,
    pub(super) resume: fn(P, Ask, Key, Request<B>, u32) -> G,
}

pin_project! {
    #[project = StateProject]
    pub(super) enum State<B, F, G>
    where
        B: Send,
        B: 'static,
    {
        // The connection has to see the end of its last exchange first.
        Settling {
            held: Option<Held<B>>,
            request: Option<Request<B>>,
        },
        Sent {
            #[pin]
            exchange: F,
            held: Option<Held<B>>,
            reused: bool,
        },
        Resumed {
            resumed: Pin<Box<G>>,
        },
        Failed {
            error: Option<Error>,
        },
    }
}

impl<P, B: Send + 'static, F, G> Sending<P, B, F, G> {
    pub(super) fn new(pool: P, ask: Ask, steps: Steps<P, B, F, G>, state: State<B, F, G>) -> Self {
        Self {
            state,
            ask,
            pool,
            steps,
        }
    }
}

impl<B, F, G> State<B, F, G>
where
    B: Body + Send + Unpin + 'static,
{
    /// Puts `request` on a kept connection, now or as soon as it is ready.
    pub(super) fn begin(
        conn: Arc<Conn<B>>,
        whole: bool,
        request: Request<B>,
        exchange: fn(&Conn<B>, Request<B>) -> F,
    ) -> Self {
        let held = Held::new(conn);
        let reused = held.conn().begin(whole);
        if reused && !held.conn().is_settled() {
            return Self::Settling {
                held: Some(held),
                request: Some(request),
            };
        }
        Self::Sent {
            exchange: exchange(held.conn(), request),
            held: Some(held),
            reused,
        }
    }
}

impl<P, B, F, G> Future for Sending<P, B, F, G>
where
    P: Clone,
    B: Body + Send + Unpin + 'static,
    F: Exchange<B>,
    G: Answer,
{
    type Output = Result<Response<PoolBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProject::Sent {
                    exchange,
                    held,
                    reused,
                } => {
                    let result = ready!(exchange.poll(cx));
                    let held = held.take().expect(ONCE);
                    let mut failed = match result {
                        Ok(response) => {
                            return Poll::Ready(finish(response, held, this.ask));
                        }
                        Err(failed) => failed,
                    };
                    let Some(request) = failed.take_message() else {
                        let error = held.conn().failed(failed.into_error(), true, *reused);
                        held.failed(&error);
                        return Poll::Ready(Err(error));
                    };
                    let key = held.conn().host.key;
                    held.unsent();
                    let (pool, ask) = (this.pool.clone(), this.ask.clone());
                    State::Resumed {
                        resumed: Box::pin((this.steps.resume)(pool, ask, key, request, 1)),
                    }
                }
                StateProject::Settling { held, request } => {
                    let conn = held.as_ref().expect(ONCE).conn();
                    ready!(conn.poll_settled(cx));
                    State::Sent {
                        exchange: (this.steps.exchange)(conn, request.take().expect(ONCE)),
                        held: held.take(),
                        reused: true,
                    }
                }
                StateProject::Resumed { resumed } => return resumed.as_mut().poll(cx),
                StateProject::Failed { error } => {
                    return Poll::Ready(Err(error.take().expect(ONCE)));
                }
            };
            this.state.set(next);
        }
    }
}

/// Why what a state holds is there: each is left once, and a future is not polled after it was ready.
const ONCE: &str = "a state is left once";

/// A connection in use by a request; given back on drop, as unclean unless the response got it.
pub(super) struct Held<B: Send + 'static>(Option<Arc<Conn<B>>>);

impl<B: Send + 'static> Held<B> {
    pub(super) fn new(conn: Arc<Conn<B>>) -> Self {
        Self(Some(conn))
    }

    pub(super) fn conn(&self) -> &Arc<Conn<B>> {
        self.0.as_ref().expect("it is taken by value only")
    }

    /// There is no response, for this reason.
    pub(super) fn failed(mut self, error: &Error) {
        if let Some(conn) = self.0.take() {
            let ended = ended_there(error.kind()) && conn.is_http2();
            if ended && error.kind() == Kind::ConnectionTermination {
                conn.died();
            }
            conn.release(ended);
        }
    }

    /// The request was never sent.
    pub(super) fn unsent(mut self) {
        if let Some(conn) = self.0.take() {
            let http2 = conn.is_http2();
            conn.release(http2);
        }
    }

    fn into_lease(mut self) -> Lease {
        Lease::new(self.0.take().expect("it is taken by value only"))
    }
}

impl<B: Send + 'static> Drop for Held<B> {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            conn.release(false);
        }
    }
}

/// Whether the upstream ended a stream of HTTP/2, or its connection, so that there is nothing to reset.
pub(super) fn ended_there(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::RemoteReset | Kind::RefusedStream | Kind::ConnectionTermination
    )
}

/// Puts the lease into the body, unless the exchange goes on as a tunnel.
pub(super) fn finish<B: Send + 'static>(
    mut response: Response<Incoming>,
    held: Held<B>,
    ask: &mut Ask,
) -> Result<Response<PoolBody>, Error> {
    let mut bare = false;
    if !held.conn().is_http2() {
        bare = !held.conn().passes_trailers();
        if !is_framed(&response) {
            return Err(Kind::UpstreamProtocol.into());
        }
        if is_last(&response) {
            held.conn().last_exchange();
            ask.target.cluster.stats().upstream_cx_close_notify.add(1);
        }
        // A message has the version of whoever sends it on (RFC 9110 section 6.2).
        *response.version_mut() = Version::HTTP_11;
    }
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || ask.connect && response.status().is_success();
    let lease = held.into_lease();
    if switched {
        return Ok(switch(response, lease, ask.upgrade.take()));
    }
    Ok(response.map(|body| PoolBody::new(body, lease, bare)))
}

/// Whether everybody would read the length of the body in the same way (RFC 9112 section 6.3). The codec takes `chunked` off, and
/// leaves a length beside it and other codings in the head, where they would be wrong.
fn is_framed(response: &Response<Incoming>) -> bool {
    let headers = response.headers();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = match (lengths.next(), lengths.next()) {
        (length, None) => length.map(HeaderValue::as_bytes),
        // A second one is refused also if it says the same.
        _ => return false,
    };
    let number = |length: &[u8]| !length.is_empty() && length.iter().all(u8::is_ascii_digit);
    if !length.is_none_or(number) {
        return false;
    }
    let empty = response.status() == StatusCode::NO_CONTENT;
    if empty && length.is_some_and(|length| length != b"0") {
        return false;
    }
    if length.is_some() && response.body().size_hint().exact().is_some() {
        return true;
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && length.is_none() && !empty
        }
        _ => false,
    }
}

/// The answer to an upgrade in the form of HTTP/1.1, whatever the upstream speaks, and what its tunnel must know.
fn switch(
    mut response: Response<Incoming>,
    lease: Lease,
    upgrade: Option<Box<HeaderValue>>,
) -> Response<PoolBody> {
    let http2 = response.version() == Version::HTTP_2;
    if let Some(kind) = upgrade
        && http2
    {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, *kind);
    }
    let switched = if http2 {
        // The stream counts as long as the tunnel lives.
        Switched::hyper(UpstreamKind::Http2, Some(Box::new(lease)))
    } else {
        // An HTTP/1 connection never comes back, so its lease ends here.
        drop(lease);
        let kind = match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => UpstreamKind::Http1Upgrade,
            _ => UpstreamKind::Http1Connect,
        };
        Switched::hyper(kind, None)
    };
    response.extensions_mut().insert(switched);
    response.map(|_| PoolBody::empty())
}

/// Whether the upstream closes the connection after this response (RFC 9112 section 9.3).
fn is_last<B>(response: &Response<B>) -> bool {
    // Comparing with the few names of a response costs less than hashing this one.
    let mut names = response.headers().keys();
    if !names.any(|name| name == CONNECTION) {
        return response.version() == Version::HTTP_10;
    }
    let lists = response.headers().get_all(CONNECTION);
    let mut options = lists
        .iter()
        .flat_map(|list| list.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    match response.version() {
        Version::HTTP_10 => !options.any(|option| option.eq_ignore_ascii_case(b"keep-alive")),
        _ => options.any(|option| option.eq_ignore_ascii_case(b"close")),
    }
}

pin_project! {
    /// hyper's future of either protocol.
    #[project = EitherProject]
    enum Either<F, G> {
        Http1 {
            #[pin]
            exchange: F,
        },
        Http2 {
            #[pin]
            exchange: G,
        },
    }
}

impl<F: Future, G: Future<Output = F::Output>> Future for Either<F, G> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            EitherProject::Http1 { exchange } => exchange.poll(cx),
            EitherProject::Http2 { exchange } => exchange.poll(cx),
        }
    }
}

/// Hands a request to hyper.
pub(super) fn exchange<B>(conn: &Conn<B>, request: Request<B>) -> impl Exchange<B> + use<B>
where
    B: Body + Send + Unpin + 'static,
{
    match &conn.sender {
        Sender::Http1(sender) => Either::Http1 {
            exchange: lock(sender).try_send_request(request),
        },
        Sender::Http2(sender) => Either::Http2 {
            exchange: lock(sender).try_send_request(request),
        },
    }
}
