//! Sends requests.

use std::{
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Method, Request, Response, StatusCode, Version, header::CONNECTION};
use http_body::Body;
use hyper::{body::Incoming, client::conn::TrySendError, rt::bounds::Http2ClientConnExec};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tower_service::Service;

use super::{
    ConnTask, Outgoing, Pool, PoolBody, Protocol,
    body::{Lease, Release},
    conn::{Conn, Sender, lock, thread},
    error,
    host::{Key, Step, Wake},
    meter::Metered,
    prepare::prepare,
    task,
};
use crate::{
    BoxError, Error, Kind,
    cluster::{ClusterStats, Permit},
    model::{Priority, TransportSocket, UpstreamProtocol},
    transport::{Connector, Exec, Target},
};

/// The socket of an upstream connection as hyper sees it.
pub type ConnIo<I> = TokioIo<Metered<I>>;

/// What executes the tasks of a pool of connections `I` and request bodies `B`: the connections' own, and those that hyper
/// starts for HTTP/2 streams.
pub trait PoolExec<I, B>:
    Exec<ConnTask> + Http2ClientConnExec<B, ConnIo<I>> + Unpin + Send + Sync + 'static
where
    I: crate::transport::Io,
    B: Body + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
}

impl<I, B, X> PoolExec<I, B> for X
where
    I: crate::transport::Io,
    B: Body + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
    X: Exec<ConnTask> + Http2ClientConnExec<B, ConnIo<I>> + Unpin + Send + Sync + 'static,
{
}

/// How often a request is sent again whose connection turned out to be gone before any of it was written; the last time on
/// a new connection.
const MAX_UNSENT: u32 = 3;

impl<C, B, X> Pool<C, B, X>
where
    C: Connector + Send + Sync + 'static,
    C::Future: Send,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    X: PoolExec<C::Io, B>,
{
    /// The pool as a service: always ready, cheap to clone.
    ///
    /// Its future is `Send`. It has no name, since hyper's has none; so what stands on it is generic over it.
    ///
    /// # Errors
    ///
    /// Each of the request's future has a [`Kind`]: no connection ([`Kind::ConnectFailure`], [`Kind::ConnectTimeout`],
    /// [`Kind::Overflow`], [`Kind::FailClosed`]), or none any more ([`Kind::ConnectionTermination`], [`Kind::RemoteReset`],
    /// [`Kind::RefusedStream`], [`Kind::UpstreamProtocol`]). The body's errors are of the latter.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes an HTTP/1 connection and resets an HTTP/2 stream.
    pub fn service(
        &self,
    ) -> impl Service<
        Outgoing<B>,
        Response = Response<PoolBody>,
        Error = Error,
        Future = impl Future<Output = Result<Response<PoolBody>, Error>> + Send + use<C, B, X>,
    > + Clone
    + Send
    + Sync
    + use<C, B, X> {
        let pool = self.clone();
        SendFn {
            send: move |outgoing| pool.clone().send(outgoing),
            request: PhantomData,
        }
    }

    /// Sends a request and waits for the head of its response.
    async fn send(self, outgoing: Outgoing<B>) -> Result<Response<PoolBody>, Error> {
        let Outgoing {
            mut request,
            cluster,
            endpoint,
            priority,
            downstream,
        } = outgoing;
        let mut target = Target::new(cluster, endpoint);
        let exclusive =
            downstream.filter(|_| matches!(target.transport(), TransportSocket::ProxyProtocol(..)));
        let protocol = protocol(target.cluster.config().protocol, request.version());
        let key = Key {
            thread: thread(),
            endpoint: target.endpoint.id(),
            generation: target.cluster.generation(),
            protocol,
            priority,
            downstream: exclusive.as_ref().map_or(0, |conn| conn.id),
        };
        target.downstream = exclusive;
        prepare(&mut request, protocol)?;
        let whole = request.body().is_end_stream();
        let connect = *request.method() == Method::CONNECT;
        let mut unsent = 0;
        loop {
            let fresh = unsent == MAX_UNSENT;
            let kept = if fresh {
                None
            } else {
                self.shared.hosts.take(&key)
            };
            let conn = match kept {
                Some(conn) => conn,
                None => Box::pin(self.acquire(&key, &target, fresh)).await?,
            };
            // From here on a dropped future or an error gives the connection back as unclean.
            let lease = Lease::new(conn.clone());
            let (result, reused) = conn.exchange(request, whole).await;
            match result {
                Ok(response) => {
                    if protocol == Protocol::Http1 && is_last(&response) {
                        conn.last_exchange();
                    }
                    return Ok(finish(response, lease, connect));
                }
                Err(mut failed) => match failed.take_message() {
                    Some(message) if unsent < MAX_UNSENT => {
                        unsent += 1;
                        request = message;
                    }
                    message => {
                        return Err(error::of_request(
                            failed.into_error(),
                            message.is_none(),
                            reused,
                        ));
                    }
                },
            }
        }
    }

    /// A connection for a request that found none: a new one, or one that another request gives back.
    async fn acquire(
        &self,
        key: &Key,
        target: &Target,
        fresh: bool,
    ) -> Result<Arc<Conn<B>>, Error> {
        let (cluster, stats) = (&target.cluster, target.cluster.stats());
        let Some(_pending) = Permit::pending(cluster, key.priority) else {
            stats.upstream_rq_pending_overflow.add(1);
            return Err(Kind::Overflow.into());
        };
        let _gauge = Pending::begin(stats);
        loop {
            let host = self.shared.hosts.get(key);
            let step = host.step(fresh, || permit(target, key.priority));
            match step {
                Step::Use(conn) => return Ok(conn),
                Step::Connect(permit) => {
                    return task::connect(&self.shared, host, target, permit).await;
                }
                Step::Gone => {}
                Step::Wait(receiver) => match Waiting(receiver).wake().await {
                    Wake::Conn(conn) => return Ok(conn),
                    Wake::Retry => {}
                    Wake::Failed(kind) => {
                        stats.upstream_rq_pending_failure_eject.add(1);
                        return Err(kind.into());
                    }
                },
            }
        }
    }
}

/// A place for a connection in the limits of the cluster and of the endpoint.
fn permit(target: &Target, priority: Priority) -> Option<Permit> {
    let max = target.cluster.config().per_host_max_connections;
    let open = target.endpoint.stats().cx_active.get();
    let permit = match max {
        Some(max) if open >= u64::from(max) => None,
        _ => Permit::connection(&target.cluster, priority),
    };
    if permit.is_none() {
        target.cluster.stats().upstream_cx_overflow.add(1);
    }
    permit
}

/// A request that waits for a connection, as statistics see it.
struct Pending<'a>(&'a ClusterStats);

impl<'a> Pending<'a> {
    fn begin(stats: &'a ClusterStats) -> Self {
        stats.upstream_rq_pending_total.add(1);
        stats.upstream_rq_pending_active.add(1);
        Self(stats)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.upstream_rq_pending_active.sub(1);
    }
}

/// Which protocol is spoken, given the version of the downstream request.
fn protocol(configured: UpstreamProtocol, version: Version) -> Protocol {
    match configured {
        UpstreamProtocol::Http2 => Protocol::Http2,
        UpstreamProtocol::Downstream if version == Version::HTTP_2 => Protocol::Http2,
        UpstreamProtocol::Http1 | UpstreamProtocol::Downstream | UpstreamProtocol::Auto => {
            Protocol::Http1
        }
    }
}

/// Whether the upstream closes the connection after this response (RFC 9112 section 9.3).
fn is_last<B>(response: &Response<B>) -> bool {
    let Some(value) = response.headers().get(CONNECTION) else {
        return response.version() == Version::HTTP_10;
    };
    let mut options = value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii);
    match response.version() {
        Version::HTTP_10 => !options.any(|option| option.eq_ignore_ascii_case(b"keep-alive")),
        _ => options.any(|option| option.eq_ignore_ascii_case(b"close")),
    }
}

/// Puts the lease into the body. After an upgrade the connection never comes back, so the lease ends here.
fn finish(response: Response<Incoming>, lease: Lease, connect: bool) -> Response<PoolBody> {
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || connect && response.status().is_success();
    response.map(|body| {
        if upgraded {
            PoolBody::upgraded(body, lease)
        } else {
            PoolBody::new(body, lease)
        }
    })
}

impl<B: Body + Send + Unpin + 'static> Conn<B> {
    /// Sends a request as soon as the connection takes it. Returns whether the connection had served one before.
    async fn exchange(
        &self,
        request: Request<B>,
        whole: bool,
    ) -> (Result<Response<Incoming>, TrySendError<Request<B>>>, bool) {
        let reused = self.begin(whole);
        match &self.sender {
            Sender::Http1(sender) => {
                if reused && !self.is_ready() {
                    // An error shows again in sending, which hands the request back.
                    let _ = std::future::poll_fn(|cx| self.poll_ready(cx)).await;
                }
                let response = lock(sender).try_send_request(request);
                (response.await, reused)
            }
            Sender::Http2(sender) => {
                let response = lock(sender).try_send_request(request);
                (response.await, reused)
            }
        }
    }
}

/// A request's place in the queue. A connection that reaches it too late is given back.
struct Waiting<B: Send + 'static>(oneshot::Receiver<Wake<B>>);

impl<B: Send + 'static> Waiting<B> {
    async fn wake(mut self) -> Wake<B> {
        // A host that is gone drops its queue.
        (&mut self.0).await.unwrap_or(Wake::Retry)
    }
}

impl<B: Send + 'static> Drop for Waiting<B> {
    fn drop(&mut self) {
        self.0.close();
        if let Ok(Wake::Conn(conn)) = self.0.try_recv() {
            conn.release(true);
        }
    }
}

/// A service made of a function, so that the function's future needs no name.
struct SendFn<F, R> {
    send: F,
    request: PhantomData<fn(R)>,
}

impl<F: Clone, R> Clone for SendFn<F, R> {
    fn clone(&self) -> Self {
        Self {
            send: self.send.clone(),
            request: PhantomData,
        }
    }
}

impl<F, R, Fut> Service<R> for SendFn<F, R>
where
    F: Fn(R) -> Fut,
    Fut: Future<Output = Result<Response<PoolBody>, Error>>,
{
    type Response = Response<PoolBody>;
    type Error = Error;
    type Future = Fut;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Fut {
        (self.send)(request)
    }
}
