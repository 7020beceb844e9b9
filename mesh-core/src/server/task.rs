//! The task of one connection, from its first byte to its last.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    Accepted, ConnEvent, Factory, StreamExec, Unserved,
    factory::filter_chain,
    http::{End, HttpTask},
    io::Raw,
    link::Command,
    listener::{self, Chain, OpenGuard},
    open::{self, Opened, Stop},
    service::HttpConn,
};
use crate::{
    model::TransportSocket,
    snapshot::ConnFacts,
    tcp::{TcpConn, TcpTask},
    telemetry::record::{Ending, Record},
    transport::{ConnInfo, Prefixed, Stream},
};

/// Most bytes that a closed connection may still send before it is closed for good.
const MAX_LINGER: usize = 1 << 20;

/// The task of one connection: a future that completes when the connection is closed.
pub struct ConnTask<F: Factory, X> {
    phase: Phase<F, X>,
    factory: F,
    exec: X,
    // Last, so that the connection counts as open until all else is gone.
    open: OpenGuard,
}

type Opening = Pin<Box<dyn Future<Output = Result<Opened, Stop>> + Send>>;

enum Phase<F: Factory, X> {
    /// The listener filters read. Boxed: once a connection, and only where there are such filters.
    Opening(Opening, Arc<ConnInfo>),
    Opened(Box<Opened>),
    Http(Box<HttpTask<F, X>>),
    Tcp(Box<TcpTask<F::Connector>>),
    Linger(Box<Linger>),
    Over,
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
        let version = open.handle.version();
        let config = version.listener.config();
        let phase = if config.listener_filters.is_empty() {
            Phase::Opened(Box::new(Opened {
                stream,
                conn,
                bytes: Bytes::new(),
            }))
        } else {
            let (known, config, stats) = (
                Arc::new(conn.clone()),
                config.clone(),
                open.handle.stats().clone(),
            );
            let opening = async move { open::open(stream, conn, &config, &stats).await };
            Phase::Opening(Box::pin(opening), known)
        };
        Self {
            phase,
            factory,
            exec,
            open,
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
            self.open.handle.stats().no_filter_chain_match.add(1);
            self.unserved(
                &version.listener,
                None,
                &conn.into(),
                Unserved::NoFilterChain,
            );
            return Phase::Over;
        };
        let config = filter_chain(&version.listener, chain);
        conn.filter_chain = config.name.clone();
        let accepted = Accepted {
            listener: version.listener.clone(),
            chain,
            conn: Arc::new(conn),
        };
        if let Some(reason) = refusal(config) {
            self.open.handle.stats().downstream_cx_refused.add(1);
            self.unserved(
                &accepted.listener,
                Some(chain),
                &accepted.conn,
                Unserved::Refused(reason),
            );
            return Phase::Over;
        }
        self.serve(Prefixed::new(bytes, stream), accepted, version.chain(chain))
    }

    /// Begins to serve a connection that a chain took.
    fn serve(&mut self, io: Raw, accepted: Accepted, chain: &Chain) -> Phase<F, X> {
        match chain {
            Chain::Http(stats) => {
                let service = self.factory.http(&accepted);
                let conn = HttpConn {
                    link: self.open.link.clone(),
                    stats: stats.clone(),
                    accepted,
                    handle: self.open.handle.clone(),
                };
                Phase::Http(Box::new(HttpTask::new(
                    io,
                    conn,
                    service,
                    self.exec.clone(),
                )))
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
            duration: listener::now().saturating_duration_since(conn.started),
        };
        self.open.handle.observer().unserved(&event, &reason);
        log_unserved(listener, conn, &reason);
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
                Phase::Opening(opening, conn) => {
                    this.open.link.register(cx.waker());
                    if this.open.link.command() == Command::Abort {
                        return Poll::Ready(());
                    }
                    match ready!(opening.as_mut().poll(cx)) {
                        Ok(opened) => Phase::Opened(Box::new(opened)),
                        Err(Stop::Remote) => Phase::Over,
                        Err(Stop::Unserved(reason)) => {
                            let conn = conn.clone();
                            let listener = this.open.handle.current();
                            this.unserved(&listener, None, &conn, reason);
                            Phase::Over
                        }
                    }
                }
                Phase::Opened(_) => match std::mem::replace(&mut this.phase, Phase::Over) {
                    Phase::Opened(opened) => this.assign(*opened),
                    _ => Phase::Over,
                },
                Phase::Http(http) => match ready!(http.poll(cx)) {
                    End::Closed => Phase::Over,
                    End::Linger(io, limit) => Phase::Linger(Box::new(Linger::new(io, limit))),
                },
                Phase::Tcp(tcp) => {
                    ready!(tcp.poll(cx));
                    Phase::Over
                }
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

/// Writes the listener's access logs.
pub(super) fn log_unserved(
    listener: &crate::snapshot::Listener,
    conn: &Arc<ConnInfo>,
    reason: &Unserved,
) {
    let record = Record::begin(Some(conn.clone()), ::http::Version::HTTP_09, false);
    {
        let mut late = record.late();
        let (flags, details) = reason.outcome();
        late.flags = flags;
        late.details = Some(details.into());
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

/// Why a chain cannot serve: protection that cannot act closes the connection.
fn refusal(chain: &crate::model::FilterChain) -> Option<crate::model::Name> {
    if let Some(reason) = &chain.refuse {
        return Some(reason.clone());
    }
    match &chain.transport {
        TransportSocket::RawBuffer => None,
        TransportSocket::Tls(_) => Some("TLS cannot be terminated here yet".into()),
        TransportSocket::ProxyProtocol(..) => {
            Some("a PROXY protocol transport is for upstream connections".into())
        }
        TransportSocket::Unsupported(name, _) => {
            Some(format!("transport socket {name} is not supported").into())
        }
    }
}

/// Reads what a peer still sends, so that closing does not reset the connection before the peer has read the response.
struct Linger {
    io: Raw,
    sleep: Pin<Box<tokio::time::Sleep>>,
    read: usize,
}

impl Linger {
    fn new(io: Raw, limit: Duration) -> Self {
        let until: Instant = listener::now() + limit;
        Self {
            io,
            sleep: Box::pin(tokio::time::sleep_until(until.into())),
            read: 0,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut buffer = [0; 4096];
        while self.read < MAX_LINGER {
            let mut buf = ReadBuf::new(&mut buffer);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => self.read += buf.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}
