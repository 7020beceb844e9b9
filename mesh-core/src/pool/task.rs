//! Makes a connection, and drives it in a task of its own.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Protocol, Shared,
    conn::{Conn, ConnLimits, Hosts, Sender, Signals},
    host::Host,
    meter::{Counted, Metered},
    quiet::Quiet,
    service::{ConnIo, PoolExec},
};
use crate::{
    BoxError, Error, Kind,
    cluster::{Cluster, Endpoint},
    model,
    telemetry::clock,
    transport::{ConnectError, Connector, Io, Target},
};

/// How often a connection looks whether its endpoint is still there.
const TICK: Duration = Duration::from_secs(5);

/// Makes a connection for `host` in a task of its own: as in Envoy it goes on when those leave who wait for it.
pub(super) fn start<C, B, X>(
    shared: &Arc<Shared<C, B, X>>,
    host: Arc<Host<B>>,
    target: Target,
    counted: Counted,
) where
    C: Connector + Send + Sync + 'static,
    C::Future: Send,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    X: PoolExec<C::Io, B>,
{
    let task = connect(shared.clone(), host, target, counted);
    shared.exec.start(Box::pin(task));
}

async fn connect<C, B, X>(
    shared: Arc<Shared<C, B, X>>,
    host: Arc<Host<B>>,
    target: Target,
    counted: Counted,
) where
    C: Connector + Send + Sync + 'static,
    C::Future: Send,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    X: PoolExec<C::Io, B>,
{
    let mut progress = Progress {
        hosts: &shared.hosts,
        host: Some(&host),
    };
    let begun = clock::now();
    let result = open(&shared, &host, &target, counted).await;
    progress.host = None;
    let stats = target.cluster.stats();
    match result {
        Ok(conn) => {
            let took = clock::now().saturating_duration_since(begun);
            stats.times().upstream_cx_connect_ms.record_time(took);
            host.connected(conn);
        }
        Err(error) => {
            let waited = host.failed(Some(&Arc::new(error)));
            stats.upstream_rq_pending_failure_eject.add(waited);
            shared.hosts.forget(&host);
        }
    }
}

/// A socket, within the cluster's connect timeout.
pub(super) async fn dial<C: Connector>(connector: &C, target: &Target) -> Result<C::Io, Error> {
    match tokio::time::timeout(target.timeout(), connector.connect(target)).await {
        Ok(Ok(io)) => Ok(io),
        // The sentence names the cluster that wants what is not there, so it is shown to the client.
        Ok(Err(error)) if error.kind() == Kind::FailClosed => {
            Err(Error::detailed(Kind::FailClosed, error.to_string()))
        }
        Ok(Err(error)) => Err(Error::caused_by(error.kind(), error)),
        Err(_) => Err(Kind::ConnectTimeout.into()),
    }
}

/// Tells the host when connecting was given up, and forgets one that is left without connections.
struct Progress<'a, B> {
    hosts: &'a Hosts<B>,
    host: Option<&'a Host<B>>,
}

impl<B> Drop for Progress<'_, B> {
    fn drop(&mut self) {
        if let Some(host) = self.host {
            host.failed(None);
            self.hosts.forget(host);
        }
    }
}

async fn open<C, B, X>(
    shared: &Arc<Shared<C, B, X>>,
    host: &Arc<Host<B>>,
    target: &Target,
    counted: Counted,
) -> Result<Arc<Conn<B>>, Error>
where
    C: Connector + Send + Sync + 'static,
    C::Future: Send,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    X: PoolExec<C::Io, B>,
{
    let config = target.cluster.config();
    let io = match dial(&shared.connector, target).await {
        Ok(io) => io,
        Err(error) => {
            counted.failed(target, error.kind());
            return Err(error);
        }
    };
    if let Err(error) = agreed(&io, host.key.protocol, target) {
        counted.failed(target, error.kind());
        return Err(error);
    }
    let io = Metered::new(io, counted);
    let settings = io.wire().clone();
    let wire = (settings.clone(), io.local_address());
    let io = TokioIo::new(io);
    let cluster = target.cluster.clone();
    let make = |sender| {
        Arc::new(Conn::new(
            sender,
            host.clone(),
            limits(config),
            cluster,
            wire,
        ))
    };
    let failed = |error: hyper::Error| Error::caused_by(Kind::ConnectFailure, error);
    match host.key.protocol {
        Protocol::Http1 => {
            let (sender, connection) = http1_builder(config).handshake(io).await.map_err(failed)?;
            let conn = make(Sender::Http1(Mutex::new(sender)));
            let life = Life::new(shared, &conn, target);
            let task = Driven {
                connection: Quiet::new(connection.with_upgrades()),
                life,
                after: |_: &_| {},
            };
            shared.exec.start(Box::pin(task));
            Ok(conn)
        }
        Protocol::Http2 => {
            let builder = http2_builder(config, shared.exec.clone());
            let (sender, connection) = builder.handshake(io).await.map_err(failed)?;
            let conn = make(Sender::Http2(Mutex::new(sender)));
            let life = Life::new(shared, &conn, target);
            let after = move |connection: &http2::Connection<ConnIo<C::Io>, B, X>| {
                // Before the peer has said anything this is the codec's own idea.
                if settings.received() > 0 {
                    let max = connection.current_max_send_streams();
                    settings.set_peer_max_streams(u32::try_from(max).unwrap_or(u32::MAX));
                }
            };
            shared.exec.start(Box::pin(Driven {
                connection,
                life,
                after,
            }));
            Ok(conn)
        }
    }
}

/// A peer that agreed on another protocol than the one that is going to be spoken would take it for nonsense.
fn agreed(io: &impl Io, protocol: Protocol, target: &Target) -> Result<(), Error> {
    let agrees = match (io.alpn(), protocol) {
        (None, _) => true,
        (Some(alpn), Protocol::Http2) => alpn == b"h2",
        (Some(alpn), Protocol::Http1) => alpn.starts_with(b"http/1."),
    };
    if agrees {
        return Ok(());
    }
    let agreed = String::from_utf8_lossy(io.alpn().unwrap_or_default()).into_owned();
    let failed = ConnectError::Handshake {
        address: target.address().clone(),
        reason: format!("it agreed on {agreed:?}, which its cluster does not speak").into(),
    };
    Err(Error::caused_by(failed.kind(), failed))
}

fn limits(config: &model::Cluster) -> ConnLimits {
    let max_requests = config.max_requests_per_connection;
    ConnLimits {
        max_streams: config.http2.max_concurrent_streams.unwrap_or(MAX_STREAMS),
        max_requests: max_requests.filter(|max| *max > 0).unwrap_or(u32::MAX),
    }
}

/// Requests that a new connection takes at once.
pub(super) fn capacity(config: &model::Cluster, protocol: Protocol) -> usize {
    let limits = limits(config);
    match protocol {
        Protocol::Http1 => 1,
        Protocol::Http2 => limits.max_streams.min(limits.max_requests) as usize,
    }
}

fn http1_builder(config: &model::Cluster) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_header_size(MAX_HTTP1_HEADERS);
    if config.http1.preserve_case {
        builder.preserve_header_case(true);
    }
    if config.http1.proper_case {
        builder.title_case_headers(true);
    }
    builder
}

/// Envoy's default of `max_concurrent_streams`.
const MAX_STREAMS: u32 = 1024;

/// Envoy's default windows.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 24 << 20;

/// Envoy's default limits of response headers in bytes.
const MAX_HTTP1_HEADERS: usize = 80 << 10;
const MAX_HTTP2_HEADERS: u32 = 60 << 10;

fn http2_builder<X: Clone>(config: &model::Cluster, exec: X) -> http2::Builder<X> {
    let options = &config.http2;
    let mut builder = http2::Builder::new(exec);
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HTTP2_HEADERS)
        .initial_stream_window_size(options.initial_stream_window_size.unwrap_or(STREAM_WINDOW))
        .initial_connection_window_size(
            options
                .initial_connection_window_size
                .unwrap_or(CONNECTION_WINDOW),
        );
    if let Some((interval, timeout)) = options.keepalive {
        builder
            .keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true);
    }
    builder
}

/// A hyper connection with its life.
struct Driven<T, B, C, X, F>
where
    B: Send + 'static,
{
    connection: T,
    life: Life<B, C, X>,
    after: F,
}

impl<T, B, C, X, F> Future for Driven<T, B, C, X, F>
where
    T: Future<Output = hyper::Result<()>> + Unpin,
    B: Send + 'static,
    F: Fn(&T) + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.life.poll(cx);
        let done = Pin::new(&mut this.connection).poll(cx);
        (this.after)(&this.connection);
        if this.life.signals.is_parked()
            && let Some(conn) = this.life.conn.upgrade()
        {
            conn.unpark();
        }
        match done {
            Poll::Ready(result) => {
                this.life.ended(result);
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// How long a connection lives: idle time, longest life, and whether its endpoint is still there.
struct Life<B: Send + 'static, C, X> {
    shared: Weak<Shared<C, B, X>>,
    host: Arc<Host<B>>,
    // The connection ends with the last holder, so its task is none.
    conn: Weak<Conn<B>>,
    signals: Arc<Signals>,
    /// That of `signals`.
    alert: Arc<AtomicBool>,
    id: u64,
    cluster: Arc<Cluster>,
    endpoint: Weak<Endpoint>,
    sleep: Pin<Box<Sleep>>,
    registered: bool,
    step: Duration,
    /// Requests begun at the last look.
    served: u32,
    /// Since when there was no request, as far as looks tell.
    idle_since: Instant,
    expires: Option<Instant>,
}

impl<B: Send + 'static, C, X> Life<B, C, X> {
    fn new(shared: &Arc<Shared<C, B, X>>, conn: &Arc<Conn<B>>, target: &Target) -> Self {
        let config = target.cluster.config();
        let now = Instant::now();
        let step = [
            config.idle_timeout.map(|idle| idle / 4),
            config.max_connection_duration,
        ]
        .into_iter()
        .flatten()
        .fold(TICK, Duration::min)
        .max(Duration::from_millis(10));
        Self {
            shared: Arc::downgrade(shared),
            host: conn.host.clone(),
            conn: Arc::downgrade(conn),
            signals: conn.signals.clone(),
            alert: conn.signals.alert.clone(),
            id: conn.id,
            cluster: target.cluster.clone(),
            endpoint: Arc::downgrade(&target.endpoint),
            sleep: Box::pin(sleep_until(now + step)),
            registered: false,
            step,
            served: 0,
            idle_since: now,
            expires: config
                .max_connection_duration
                .and_then(|life| now.checked_add(life)),
        }
    }

    /// Looks at the time, if it is time to.
    fn poll(&mut self, cx: &mut Context<'_>) {
        let alert = self.alert.load(Ordering::Relaxed);
        if self.registered && !alert && !self.sleep.is_elapsed() {
            return;
        }
        if alert {
            self.alert.store(false, Ordering::Relaxed);
            self.look();
        }
        if !self.registered
            && let Some(endpoint) = self.endpoint.upgrade()
        {
            endpoint.watch(self.id, self.alert.clone(), cx.waker().clone());
            if endpoint.is_removed() {
                self.look();
            }
        }
        self.registered = true;
        while self.sleep.as_mut().poll(cx).is_ready() {
            self.look();
        }
    }

    fn look(&mut self) {
        let now = Instant::now();
        self.sleep.as_mut().reset(now + self.step);
        let Some(conn) = self.conn.upgrade() else {
            return;
        };
        let served = conn.served();
        if served != self.served || !self.host.is_idle(self.id) {
            self.served = served;
            self.idle_since = now;
        }
        if self.expires.is_some_and(|at| at <= now) {
            self.expires = None;
            let stats = self.cluster.stats();
            stats.upstream_cx_max_duration_reached.add(1);
            return conn.drain();
        }
        if self.is_orphan() {
            return conn.drain();
        }
        let config = self.cluster.config();
        if config
            .idle_timeout
            .is_some_and(|idle| now - self.idle_since >= idle)
            && self.host.retire(self.id)
        {
            self.cluster.stats().upstream_cx_idle_timeout.add(1);
        }
    }

    fn ended(&self, result: hyper::Result<()>) {
        match result {
            Err(error) => {
                tracing::debug!(cluster = %self.cluster.name(), error = %error, "Upstream connection failed");
            }
            // HTTP/2 ends well while we hold it only when the upstream says that it takes no further stream.
            Ok(()) if self.conn.upgrade().is_some_and(|conn| conn.is_http2()) => {
                self.cluster.stats().upstream_cx_close_notify.add(1);
            }
            Ok(()) => {}
        }
    }

    /// The endpoint was removed, its transport settings changed, or it was taken out and must not be used then.
    fn is_orphan(&self) -> bool {
        let lost = |endpoint: Arc<Endpoint>| {
            let closes = self.cluster.config().close_on_host_failure;
            endpoint.is_removed() || closes && (endpoint.is_ejected() || endpoint.is_failed())
        };
        self.cluster.generation() != self.host.key.generation
            || self.endpoint.upgrade().is_none_or(lost)
    }
}

impl<B: Send + 'static, C, X> Drop for Life<B, C, X> {
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoint.upgrade() {
            endpoint.unwatch(self.id);
        }
        if self.host.ended(self.id)
            && let Some(shared) = self.shared.upgrade()
        {
            let hosts: &Hosts<B> = &shared.hosts;
            hosts.forget(&self.host);
        }
    }
}
