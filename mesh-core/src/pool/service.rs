//! Sends requests.

use std::{
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Method, Request, Response, Version};
use http_body::Body;
use hyper::rt::bounds::Http2ClientConnExec;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tower_service::Service;

use super::{
    ConnTask, Outgoing, Pool, PoolBody, Protocol,
    conn::{Conn, Hosts, thread},
    error,
    host::{Host, Key, Seeker, Step, Wake},
    meter::{Counted, Metered},
    prepare::{frame, prepare},
    sending::{Answer, Ask, Exchange, Held, Sending, State, Steps, exchange, finish},
    task,
};
use crate::{
    BoxError, Error, Kind,
    cluster::Permit,
    model::{Priority, TransportSocket, UpstreamProtocol},
    telemetry::record::Record,
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
pub(super) const MAX_UNSENT: u32 = 3;

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

    /// Sends a request and waits for the head of its response. What has to wait for a connection goes on in a box.
    fn send(
        self,
        outgoing: Outgoing<B>,
    ) -> Sending<Self, B, impl Exchange<B> + use<C, B, X>, impl Answer + use<C, B, X>> {
        let Outgoing {
            mut request,
            cluster,
            endpoint,
            priority,
            downstream,
            connect: ends_here,
            record,
        } = outgoing;
        let mut target = Target::new(cluster, endpoint);
        let exclusive = downstream.filter(|_| {
            ends_here.is_some() || matches!(target.transport(), TransportSocket::ProxyProtocol(..))
        });
        let protocol = protocol(target.cluster.config().protocol, request.version());
        target.downstream = exclusive;
        let key = key(&target, protocol, priority);
        let (prepared, upgrade) = match prepare(&mut request, protocol) {
            Ok(upgrade) => (Ok(()), upgrade),
            Err(error) => (Err(error), None),
        };
        let whole = request.body().is_end_stream();
        if protocol == Protocol::Http1 {
            frame(&mut request, whole);
        }
        let ask = Ask {
            target,
            whole,
            connect: *request.method() == Method::CONNECT,
            upgrade,
            ends_here,
            record,
        };
        let steps = Steps {
            exchange: exchange::<B>,
            resume: Self::resume,
        };
        let state = match prepared.map(|()| match ends_here {
            None => self.shared.hosts.take(&key),
            Some(_) => None,
        }) {
            Ok(Some(conn)) => {
                conn.tell(ask.record.as_ref(), &mut request);
                ask.target.count_request();
                State::begin(conn, ask.whole, request, exchange::<B>)
            }
            Ok(None) => State::Resumed {
                resumed: Box::pin(self.clone().resume(ask.clone(), key, request, 0)),
            },
            Err(error) => State::Failed { error: Some(error) },
        };
        Sending::new(self, ask, steps, state)
    }

    /// Sends a request for which no kept connection was there, or of which `unsent` turned out to be gone.
    async fn resume(
        self,
        mut ask: Ask,
        key: Key,
        mut request: Request<B>,
        mut unsent: u32,
    ) -> Result<Response<PoolBody>, Error> {
        if let Some(config) = ask.ends_here {
            return Box::pin(self.tunnel(request, ask, key.priority, config)).await;
        }
        loop {
            let fresh = unsent == MAX_UNSENT;
            let kept = if fresh {
                None
            } else {
                self.shared.hosts.take(&key)
            };
            let conn = match kept {
                Some(conn) => conn,
                None => {
                    let record = ask.record.as_deref();
                    self.acquire(&key, &ask.target, fresh, record).await?
                }
            };
            // One that is sent again unseen is still the same request.
            if unsent == 0 {
                ask.target.count_request();
            }
            // From here on a dropped future or an error gives the connection back as unclean.
            let held = Held::new(conn);
            held.conn().tell(ask.record.as_ref(), &mut request);
            let reused = held.conn().begin(ask.whole);
            if reused {
                std::future::poll_fn(|cx| held.conn().poll_settled(cx)).await;
            }
            match exchange(held.conn(), request).await {
                Ok(response) => return finish(response, held, &mut ask),
                Err(mut failed) => match failed.take_message() {
                    Some(message) if unsent < MAX_UNSENT => {
                        unsent += 1;
                        request = message;
                        held.unsent();
                    }
                    message => {
                        let sent = message.is_none();
                        let error = held.conn().failed(failed.into_error(), sent, reused);
                        held.failed(&error);
                        return Err(error);
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
        record: Option<&Record>,
    ) -> Result<Arc<Conn<B>>, Error> {
        let (cluster, stats) = (&target.cluster, target.cluster.stats());
        let Some(pending) = Permit::pending(cluster, key.priority) else {
            stats.upstream_rq_pending_overflow.add(1);
            return Err(Kind::Overflow.into());
        };
        let mut gauge = Pending::begin(target, record);
        let conn = self.wait_for(key, target, fresh).await;
        gauge.over();
        drop(pending);
        let conn = conn?;
        // While it waited it was none of the requests that are limited.
        let (limits, state) = cluster.limits(key.priority);
        if state.active() > limits.max_requests {
            conn.unused();
            stats.upstream_rq_active_overflow.add(1);
            return Err(Kind::Overflow.into());
        }
        Ok(conn)
    }

    async fn wait_for(
        &self,
        key: &Key,
        target: &Target,
        fresh: bool,
    ) -> Result<Arc<Conn<B>>, Error> {
        let mut seeker = Seeker {
            fresh,
            again: false,
            streams: task::capacity(target.cluster.config(), key.protocol),
        };
        let begin = |must| {
            let permit = permit(target, key.priority, must)?;
            Some(Counted::begin(target, Some(key.protocol), permit))
        };
        loop {
            let host = self.shared.hosts.get(key);
            match host.step(&seeker, begin) {
                Step::Use(conn) => return Ok(conn),
                Step::Gone => {}
                Step::Wait(wake, begun) => {
                    let waiting = Waiting::new(wake, &host, &self.shared.hosts);
                    if let Some(counted) = begun {
                        task::start(&self.shared, host.clone(), target.clone(), counted);
                    }
                    match waiting.wait().await {
                        Wake::Conn(conn) => return Ok(conn),
                        Wake::Retry => seeker.again = true,
                        Wake::Failed(error) => return Err(error::of_connect(&error)),
                    }
                }
            }
        }
    }
}

/// A place for a connection in the limits of the cluster and of the endpoint; beyond them if there `must` be one.
pub(super) fn permit(target: &Target, priority: Priority, must: bool) -> Option<Permit> {
    let max = target.cluster.config().per_host_max_connections;
    let open = target.endpoint.stats().cx_active.get();
    let permit = match max {
        Some(max) if open >= u64::from(max) => None,
        _ => Permit::connection(&target.cluster, priority),
    };
    if permit.is_none() {
        target.cluster.stats().upstream_cx_overflow.add(1);
    }
    permit.or_else(|| must.then(|| Permit::beyond(&target.cluster, priority)))
}

/// A request that waits for a connection, as statistics see it.
pub(super) struct Pending<'a> {
    target: &'a Target,
    /// Who wants to know until when it waits.
    record: Option<&'a Record>,
    over: bool,
}

impl<'a> Pending<'a> {
    pub(super) fn begin(target: &'a Target, record: Option<&'a Record>) -> Self {
        if let Some(record) = record {
            record.set_pending(true);
        }
        let stats = target.cluster.stats();
        stats.upstream_rq_pending_total.add(1);
        stats.upstream_rq_pending_active.add(1);
        target.endpoint.stats().rq_pending_active.add(1);
        Self {
            target,
            record,
            over: false,
        }
    }

    /// It waits no longer: there is a connection, or there will be none.
    pub(super) fn over(&mut self) {
        self.over = true;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let stats = self.target.cluster.stats();
        if !self.over {
            stats.upstream_rq_cancelled.add(1);
        }
        stats.upstream_rq_pending_active.sub(1);
        if let Some(record) = self.record {
            record.set_pending(false);
        }
        self.target.endpoint.stats().rq_pending_active.sub(1);
    }
}

/// Which connections may serve a request to `target`.
fn key(target: &Target, protocol: Protocol, priority: Priority) -> Key {
    Key {
        thread: thread(),
        endpoint: target.endpoint.id(),
        generation: target.cluster.generation(),
        protocol,
        priority,
        downstream: target.downstream.as_ref().map_or(0, |conn| conn.id),
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

/// A request's place in the queue of `host`. What reaches it too late goes to the next one.
pub(super) struct Waiting<'a, B: Send + 'static> {
    wake: oneshot::Receiver<Wake<B>>,
    host: &'a Host<B>,
    hosts: &'a Hosts<B>,
    /// It was told what to do.
    told: bool,
}

impl<'a, B: Send + 'static> Waiting<'a, B> {
    pub(super) fn new(
        wake: oneshot::Receiver<Wake<B>>,
        host: &'a Host<B>,
        hosts: &'a Hosts<B>,
    ) -> Self {
        Self {
            wake,
            host,
            hosts,
            told: false,
        }
    }

    pub(super) async fn wait(mut self) -> Wake<B> {
        let wake = (&mut self.wake).await;
        self.told = true;
        // A host that is gone drops its queue.
        wake.unwrap_or(Wake::Retry)
    }
}

impl<B: Send + 'static> Drop for Waiting<'_, B> {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        self.wake.close();
        match self.wake.try_recv() {
            Ok(Wake::Conn(conn)) => conn.unused(),
            Ok(Wake::Retry) => {
                self.host.wake_next();
                // Nobody else may come who would see that there are no connections left.
                self.hosts.forget(self.host);
            }
            Ok(Wake::Failed(_)) => {}
            Err(_) => self.host.left(),
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
