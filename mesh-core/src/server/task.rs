//! The task of one connection, from its first byte to its last.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{
    Accepted, ConnEvent, Factory, StreamExec, Unserved,
    answer::AnswerTask,
    factory::{HandshakeOf, IoOf, RawOf, filter_chain},
    http::{End, HttpTask},
    linger::Linger,
    link::Command,
    listener::{Chain, OpenGuard, Version},
    open::{self, Opened, Signals, Stop},
    service::HttpConn,
};
use crate::{
    model::{LogType, TransportSocket},
    snapshot::ConnFacts,
    tcp::{TcpConn, TcpTask},
    telemetry::{
        clock,
        record::{Ending, Record},
    },
    transport::{
        AcceptError, Acceptor, ConnInfo, Handshake, Io, Prefixed, Stream, Terminated, can_cut,
    },
};
use bytes::Bytes;

/// How long a client says nothing until the upstream is asked whether it speaks first. Clients of HTTP and TLS speak at once.
const SILENCE: Duration = Duration::from_millis(100);
/// How long a client that was answered without an upstream may take to close.
const LINGER: Duration = Duration::from_secs(1);

/// The task of one connection: a future that completes when the connection is closed.
pub struct ConnTask<F: Factory, X> {
    phase: Phase<F, X>,
    factory: F,
    exec: X,
    /// A connection to the upstream that spoke before the client did.
    early: Option<Box<TcpTask<IoOf<F>, F::Connector>>>,
    // Last, so that the connection counts as open until all else is gone.
    open: OpenGuard,
}

type Opening = Pin<Box<dyn Future<Output = Result<Opened, Stop>> + Send>>;

enum Phase<F: Factory, X> {
    /// The listener filters read. Boxed: once a connection, and only where there are such filters.
    Opening(Box<Opens<F>>),
    Opened(Box<Opened>),
    /// Only on chains whose transport is terminated.
    Handshake(Box<Shaking<HandshakeOf<F>>>),
    Http(Box<HttpTask<F, X>>),
    Tcp(Box<TcpTask<IoOf<F>, F::Connector>>),
    Answer(Box<AnswerTask<IoOf<F>>>),
    Linger(Box<Linger<IoOf<F>>>),
    Over,
}

/// A connection in the listener filters.
struct Opens<F: Factory> {
    future: Opening,
    conn: Arc<ConnInfo>,
    signals: Arc<Signals>,
    early: Early<F>,
}

/// Whether the upstream of a connection speaks before its client does.
enum Early<F: Factory> {
    /// The client has not been found silent yet.
    Unknown,
    /// It is silent, since not long ago.
    Silent(Pin<Box<tokio::time::Sleep>>),
    /// The upstream is listened to.
    Listening(Box<TcpTask<IoOf<F>, F::Connector>>),
    /// It does not, or the client was faster.
    No,
}

/// A handshake on the chain that was chosen.
struct Shaking<H> {
    future: Pin<Box<H>>,
    limit: Option<(Duration, Pin<Box<tokio::time::Sleep>>)>,
    version: Arc<Version>,
    chain: usize,
    conn: ConnInfo,
}

impl<I: Io, H: Future<Output = Result<Terminated<I>, AcceptError>>> Shaking<H> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Terminated<I>, AcceptError>> {
        if let Poll::Ready(result) = self.future.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        match &mut self.limit {
            Some((limit, sleep)) => {
                ready!(sleep.as_mut().poll(cx));
                Poll::Ready(Err(AcceptError::Timeout(*limit)))
            }
            None => Poll::Pending,
        }
    }
}

impl<F, X> ConnTask<F, X>
where
    F: Factory + Unpin,
    X: StreamExec<F>,
{
    pub(super) fn new(
        stream: Stream,
        conn: ConnInfo,
        open: OpenGuard,
        factory: F,
        exec: X,
    ) -> Self {
        let bytes = Bytes::new();
        let opened = Opened {
            stream,
            conn,
            bytes,
        };
        Self {
            phase: Self::begin(opened, &open),
            factory,
            exec,
            early: None,
            open,
        }
    }

    /// Runs the filters of the listener that a connection came to.
    fn begin(opened: Opened, open: &OpenGuard) -> Phase<F, X> {
        let version = open.handle.version();
        let config = version.listener.config();
        let Some(filters) = version.filters.clone() else {
            return Phase::Opened(Box::new(opened));
        };
        let Opened {
            stream,
            conn,
            bytes,
        } = opened;
        let known = Arc::new(conn.clone());
        let (config, stats) = (config.clone(), open.stats.clone());
        let signals = Arc::<Signals>::default();
        let told = signals.clone();
        let opening = async move {
            let known = open::Known {
                config: &config,
                stats: &stats,
                filters: &filters,
                signals: &told,
            };
            open::open(stream, conn, bytes, known).await
        };
        Phase::Opening(Box::new(Opens {
            future: Box::pin(opening),
            conn: known,
            signals,
            early: Early::Unknown,
        }))
    }

    /// While the client is silent: listens to the upstream that the connection would have if nothing were found. Ready when
    /// that speaks first, as it does with many protocols that no inspector knows.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            phase: Phase::Opening(opens),
            factory,
            early,
            open,
            ..
        } = self
        else {
            return Poll::Pending;
        };
        loop {
            if !opens.signals.is_silent() {
                if !matches!(opens.early, Early::Unknown) {
                    opens.early = Early::No;
                }
                return Poll::Pending;
            }
            opens.early = match &mut opens.early {
                Early::Unknown => Early::Silent(Box::pin(tokio::time::sleep(SILENCE))),
                Early::Silent(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    let conn = opens.signals.silent();
                    let task = conn.and_then(|conn| early_task(conn, open, factory));
                    task.map_or(Early::No, |task| Early::Listening(Box::new(task)))
                }
                Early::Listening(task) => {
                    let spoken = ready!(task.poll_spoken(cx));
                    match std::mem::replace(&mut opens.early, Early::No) {
                        Early::Listening(task) if spoken => {
                            *early = Some(task);
                            opens.signals.spoken.notify_one();
                            return Poll::Ready(());
                        }
                        _ => Early::No,
                    }
                }
                Early::No => return Poll::Pending,
            };
        }
    }

    /// A connection after its listener's filters: for another listener, or served here.
    fn opened(&mut self, mut opened: Opened) -> Phase<F, X> {
        let version = self.open.handle.version();
        let conn = &mut opened.conn;
        // Once only: who was handed over stays.
        if !version.listener.config().use_original_dst || !std::mem::take(&mut conn.restored) {
            return self.assign(opened);
        }
        let sibling = conn
            .local
            .socket()
            .and_then(|addr| self.open.handle.sibling(addr));
        let Some(sibling) = sibling else {
            return self.assign(opened);
        };
        let version = sibling.version();
        let config = version.listener.config();
        conn.listener = config.name.clone();
        conn.direction = config.direction;
        match sibling.open(conn.id) {
            Some(open) => {
                self.open = open;
                let next = Self::begin(opened, &self.open);
                match next {
                    Phase::Opened(opened) => self.assign(*opened),
                    next => next,
                }
            }
            None => {
                let conn = opened.conn.into();
                self.unserved(&version.listener, None, &conn, Unserved::ConnectionLimit);
                Phase::Over
            }
        }
    }

    /// Chooses the filter chain and begins to serve.
    fn assign(&mut self, opened: Opened) -> Phase<F, X> {
        let Opened {
            stream,
            mut conn,
            bytes,
        } = opened;
        let (version, chain) = self.open.handle.assign(&self.open.link, &facts(&conn));
        let Some(chain) = chain else {
            self.open.stats.no_filter_chain_match.add(1);
            self.unserved(
                &version.listener,
                None,
                &conn.into(),
                Unserved::NoFilterChain,
            );
            return Phase::Over;
        };
        self.open.serve();
        let config = filter_chain(&version.listener, chain);
        conn.filter_chain = config.name.clone();
        let acceptor = self.factory.acceptor();
        let refusal = config.refuse.clone();
        if let Some(reason) = refusal.or_else(|| acceptor.refuses(&config.transport)) {
            self.open.stats.downstream_cx_refused.add(1);
            self.unserved(
                &version.listener,
                Some(chain),
                &conn.into(),
                Unserved::Refused(reason),
            );
            return Phase::Over;
        }
        let io = Prefixed::new(bytes, stream);
        if config.transport == TransportSocket::RawBuffer {
            let io = acceptor.plain(io);
            let accepted = Accepted {
                listener: version.listener.clone(),
                chain,
                conn: Arc::new(conn),
            };
            return self.serve(io, accepted, version.chain(chain));
        }
        let future = Box::pin(acceptor.accept(io, &Handshake::new(config, &conn)));
        let limit = config.transport_connect_timeout;
        Phase::Handshake(Box::new(Shaking {
            future,
            limit: limit.map(|limit| (limit, Box::pin(tokio::time::sleep(limit)))),
            version,
            chain,
            conn,
        }))
    }

    /// Begins to serve a connection after its handshake.
    fn shaken(
        &mut self,
        shaking: Shaking<HandshakeOf<F>>,
        result: Result<Terminated<IoOf<F>>, AcceptError>,
    ) -> Phase<F, X> {
        let Shaking {
            version,
            chain,
            mut conn,
            ..
        } = shaking;
        match result {
            Ok(Terminated { security, .. })
                if wants_certificate(&version, chain) && !security.is_mutual() =>
            {
                self.open.stats.downstream_cx_handshake_failed.add(1);
                let reason = Unserved::Handshake("no client certificate was verified".into());
                self.unserved(&version.listener, Some(chain), &conn.into(), reason);
                Phase::Over
            }
            Ok(Terminated { io, security }) => {
                conn.security = security;
                let accepted = Accepted {
                    listener: version.listener.clone(),
                    chain,
                    conn: Arc::new(conn),
                };
                let io = Prefixed::new(Bytes::new(), io);
                self.serve(io, accepted, version.chain(chain))
            }
            Err(error) => {
                self.open.stats.downstream_cx_handshake_failed.add(1);
                let reason = Unserved::Handshake(error.to_string().into());
                self.unserved(&version.listener, Some(chain), &conn.into(), reason);
                Phase::Over
            }
        }
    }

    /// Begins to serve a connection that a chain took.
    fn serve(&mut self, io: RawOf<F>, accepted: Accepted, chain: &Chain) -> Phase<F, X> {
        match chain {
            Chain::Http(stats) => {
                let service = self.factory.http(&accepted);
                let conn = HttpConn {
                    link: self.open.link.clone(),
                    stats: stats.clone(),
                    accepted,
                    handle: self.open.handle.clone(),
                    counts_upgrades: Default::default(),
                    can_cut: can_cut::<X>(),
                };
                Phase::Http(Box::new(HttpTask::new(
                    io,
                    conn,
                    service,
                    self.exec.clone(),
                )))
            }
            Chain::Answer => {
                let link = self.open.link.clone();
                Phase::Answer(Box::new(AnswerTask::new(io, accepted, link)))
            }
            Chain::Tcp(_)
                if self
                    .early
                    .as_ref()
                    .is_some_and(|task| task.is_of(&accepted)) =>
            {
                let mut task = self.early.take().expect("it was seen");
                task.attach(io);
                Phase::Tcp(task)
            }
            Chain::Tcp(stats) => match self.factory.tcp(&accepted) {
                Some((clusters, connector)) => {
                    let conn = TcpConn {
                        link: self.open.link.clone(),
                        stats: stats.clone(),
                        accepted,
                        handle: self.open.handle.clone(),
                    };
                    Phase::Tcp(Box::new(TcpTask::new(io, conn, clusters, connector)))
                }
                None => {
                    let reason = Unserved::Refused("TCP is not served here".into());
                    self.unserved(
                        &accepted.listener,
                        Some(accepted.chain),
                        &accepted.conn,
                        reason,
                    );
                    Phase::Over
                }
            },
        }
    }

    fn unserved(
        &self,
        listener: &Arc<crate::snapshot::Listener>,
        chain: Option<usize>,
        conn: &Arc<ConnInfo>,
        reason: Unserved,
    ) {
        let event = ConnEvent {
            listener,
            chain,
            conn,
            bytes_received: self.open.link.received(),
            bytes_sent: 0,
            duration: clock::now().saturating_duration_since(conn.started),
        };
        self.open.handle.observer().unserved(&event, &reason);
        log_unserved(listener, conn, Some(&reason));
    }
}

impl<F, X> Future for ConnTask<F, X>
where
    F: Factory + Unpin,
    X: StreamExec<F>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            this.phase = match &mut this.phase {
                Phase::Opening(opens) => {
                    this.open.link.register(cx.waker());
                    if this.open.link.command() == Command::Abort {
                        return Poll::Ready(());
                    }
                    let Poll::Ready(opened) = opens.future.as_mut().poll(cx) else {
                        ready!(this.poll_early(cx));
                        continue;
                    };
                    match opened {
                        Ok(opened) => Phase::Opened(Box::new(opened)),
                        Err(Stop::Remote) => {
                            log_unserved(&this.open.handle.current(), &opens.conn, None);
                            Phase::Over
                        }
                        Err(Stop::Unserved(reason)) => {
                            let conn = opens.conn.clone();
                            let listener = this.open.handle.current();
                            this.unserved(&listener, None, &conn, reason);
                            Phase::Over
                        }
                    }
                }
                Phase::Opened(_) => match std::mem::replace(&mut this.phase, Phase::Over) {
                    Phase::Opened(opened) => this.opened(*opened),
                    _ => Phase::Over,
                },
                Phase::Handshake(shaking) => {
                    this.open.link.register(cx.waker());
                    if this.open.link.command() == Command::Abort {
                        return Poll::Ready(());
                    }
                    let result = ready!(shaking.poll(cx));
                    match std::mem::replace(&mut this.phase, Phase::Over) {
                        Phase::Handshake(shaking) => this.shaken(*shaking, result),
                        _ => Phase::Over,
                    }
                }
                Phase::Http(http) => match ready!(http.poll(cx)) {
                    End::Closed => Phase::Over,
                    End::Linger(io, limit) => Phase::Linger(Box::new(Linger::new(io, limit))),
                },
                Phase::Tcp(tcp) => {
                    ready!(tcp.poll(cx));
                    Phase::Over
                }
                Phase::Answer(answer) => match ready!(answer.poll(cx)) {
                    Some(io) => Phase::Linger(Box::new(Linger::new(io, LINGER))),
                    None => Phase::Over,
                },
                Phase::Linger(linger) => {
                    if this.open.link.command() == Command::Abort {
                        return Poll::Ready(());
                    }
                    ready!(linger.poll(cx));
                    Phase::Over
                }
                Phase::Over => return Poll::Ready(()),
            };
        }
    }
}

impl<F: Factory, X> fmt::Debug for ConnTask<F, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnTask").finish_non_exhaustive()
    }
}

/// What would serve a connection of which nothing is found out, if that is a TCP proxy.
fn early_task<F: Factory>(
    mut conn: ConnInfo,
    open: &OpenGuard,
    factory: &F,
) -> Option<TcpTask<IoOf<F>, F::Connector>> {
    let version = open.handle.version();
    let listener = &version.listener;
    if listener.config().use_original_dst && conn.restored {
        // Another listener is to decide.
        return None;
    }
    let chain = listener.filter_chains().find(&facts(&conn))?;
    let config = filter_chain(listener, chain);
    let Chain::Tcp(stats) = version.chain(chain) else {
        return None;
    };
    if config.refuse.is_some() || config.transport != TransportSocket::RawBuffer {
        return None;
    }
    conn.filter_chain = config.name.clone();
    let accepted = Accepted {
        listener: listener.clone(),
        chain,
        conn: Arc::new(conn),
    };
    let (clusters, connector) = factory.tcp(&accepted)?;
    let conn = TcpConn {
        link: open.link.clone(),
        stats: stats.clone(),
        accepted,
        handle: open.handle.clone(),
    };
    Some(TcpTask::early(conn, clusters, connector))
}

/// Whether a chain serves only clients that show a certificate.
fn wants_certificate(version: &Version, chain: usize) -> bool {
    match &filter_chain(&version.listener, chain).transport {
        TransportSocket::Tls(context) => context.require_client_certificate,
        _ => false,
    }
}

/// Writes the listener's access logs. Without a reason the peer left.
pub(super) fn log_unserved(
    listener: &crate::snapshot::Listener,
    conn: &Arc<ConnInfo>,
    reason: Option<&Unserved>,
) {
    let record = Record::begin(Some(conn.clone()), ::http::Version::HTTP_09, false);
    {
        let mut late = record.late();
        late.log_type = LogType::NotSet;
        if let Some(reason) = reason {
            let (flags, details) = reason.outcome();
            late.flags = flags;
            late.details = details.map(Into::into);
        }
    }
    record.finish(Ending::Complete, &**listener.observer());
}

fn facts(conn: &ConnInfo) -> ConnFacts<'_> {
    ConnFacts {
        destination: &conn.local,
        source: &conn.peer,
        direct_source: &conn.direct_peer,
        server_name: conn.security.server_name.as_deref().unwrap_or_default(),
        transport_protocol: if conn.security.tls {
            "tls"
        } else {
            "raw_buffer"
        },
        application_protocols: &conn.security.application_protocols,
    }
}
