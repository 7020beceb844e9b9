//! The accept loop of one worker on one socket.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use hyper::rt::bounds::Http2ServerConnExec;
use tokio::net::{TcpListener, UnixListener};

use super::{
    ConnEvent, ConnTask, Factory, ListenerHandle, ServedBody, ServedFuture, Socket, Unserved, bind,
    task::log_unserved,
};
use crate::{
    model::Address,
    telemetry::clock,
    transport::{ConnInfo, Exec, Stream, set_keepalive},
};

/// How long accepting pauses when the system has no descriptors or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// How often it is said at most that accepting pauses.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// What starts the streams of HTTP/2 connections: any executor of hyper.
pub trait StreamExec<F: Factory>:
    Http2ServerConnExec<ServedFuture<F::Service, F::Body>, ServedBody<F::Body>>
    + Clone
    + Unpin
    + 'static
{
}

impl<F, X> StreamExec<F> for X
where
    F: Factory,
    X: Http2ServerConnExec<ServedFuture<F::Service, F::Body>, ServedBody<F::Body>>
        + Clone
        + Unpin
        + 'static,
{
}

/// Accepts connections from `socket` and starts a task for each on `exec`, until the listener is closed, or gives up the address.
///
/// # Errors
///
/// If the socket cannot be used on the runtime of the caller. Errors of single connections are no errors here, and a lack
/// of descriptors only pauses the loop.
pub async fn serve<F, X>(
    socket: Socket,
    listener: ListenerHandle,
    factory: F,
    exec: X,
) -> io::Result<()>
where
    F: Factory + Unpin + 'static,
    X: StreamExec<F> + Exec<ConnTask<F, X>>,
{
    let _running = listener.loop_begins();
    let address = socket.address().clone();
    let acceptor = Acceptor::new(&socket)?;
    let closing = async {
        tokio::select! {
            () = listener.closing() => {}
            () = socket.door.closing() => {}
        }
    };
    tokio::pin!(closing);
    let mut said: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = acceptor.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => start(stream, peer, &address, &listener, &factory, &exec),
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                let now = clock::now();
                if said.is_none_or(|at| now.saturating_duration_since(at) >= SAID_EVERY) {
                    tracing::warn!(listener = %listener.name(), %error, "Accepting pauses");
                    said = Some(now);
                }
                tokio::select! {
                    () = &mut closing => break,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
    // Whoever is in the queue believes to be connected.
    let queue = acceptor.into_queue()?;
    while let Some((stream, peer)) = queue.next() {
        start(stream, peer, &address, &listener, &factory, &exec);
    }
    Ok(())
}

/// The connection failed, not the socket (`accept(2)`).
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn start<F, X>(
    stream: Stream,
    peer: Address,
    address: &Address,
    listener: &ListenerHandle,
    factory: &F,
    exec: &X,
) where
    F: Factory + Unpin + 'static,
    X: StreamExec<F> + Exec<ConnTask<F, X>>,
{
    let version = listener.version();
    let config = version.listener.config();
    if let Stream::Tcp(tcp) = &stream {
        let _ = tcp.set_nodelay(true);
        if let Some(keepalive) = config.tcp_keepalive {
            // The peer may be gone already, which the first read tells.
            let _ = set_keepalive(socket2::SockRef::from(tcp), keepalive);
        }
    }
    let local = match &stream {
        Stream::Tcp(tcp) => tcp
            .local_addr()
            .map_or_else(|_| address.clone(), |addr| Address::Socket(plain(addr))),
        Stream::Unix(_) => address.clone(),
    };
    let mut conn = ConnInfo::new(local, peer);
    conn.listener = config.name.clone();
    conn.direction = config.direction;
    match listener.open(conn.id) {
        Some(open) => exec.start(ConnTask::new(
            stream,
            conn,
            open,
            factory.clone(),
            exec.clone(),
        )),
        None => {
            let conn = conn.into();
            let event = ConnEvent {
                listener: &version.listener,
                chain: None,
                conn: &conn,
                bytes_received: 0,
                bytes_sent: 0,
                duration: Duration::ZERO,
            };
            let reason = Unserved::ConnectionLimit;
            listener.observer().unserved(&event, &reason);
            log_unserved(&version.listener, &conn, Some(&reason));
        }
    }
}

/// An address of IPv4 as such, also on a socket that takes both.
fn plain(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(_) => addr,
        ip => match ip.to_canonical() {
            IpAddr::V6(_) => addr,
            ip => SocketAddr::new(ip, addr.port()),
        },
    }
}

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    fn new(socket: &Socket) -> io::Result<Self> {
        // Duplicated, so that a socket file lives until the loop has ended.
        Ok(match &socket.inner {
            bind::Inner::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener.try_clone()?)?),
            bind::Inner::Unix(listener) => {
                Self::Unix(UnixListener::from_std(listener.try_clone()?)?)
            }
        })
    }

    async fn accept(&self) -> io::Result<(Stream, Address)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Address::Socket(plain(peer))))
            }
            Self::Unix(listener) => {
                let (stream, peer) = listener.accept().await?;
                let path = peer.as_pathname().map(Into::into).unwrap_or_default();
                Ok((Stream::Unix(stream), Address::Pipe(path)))
            }
        }
    }

    fn into_queue(self) -> io::Result<Queue> {
        Ok(match self {
            Self::Tcp(listener) => Queue::Tcp(listener.into_std()?),
            Self::Unix(listener) => Queue::Unix(listener.into_std()?),
        })
    }
}

/// An accept queue that is emptied without waiting: readiness is no matter for the reactor any more.
enum Queue {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Queue {
    /// The next connection; `None`: there is none, or none can be taken.
    fn next(&self) -> Option<(Stream, Address)> {
        loop {
            match self.accept() {
                Ok(accepted) => return Some(accepted),
                Err(error) if is_of_connection(&error) => {}
                Err(_) => return None,
            }
        }
    }

    fn accept(&self) -> io::Result<(Stream, Address)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(true)?;
                let stream = tokio::net::TcpStream::from_std(stream)?;
                Ok((Stream::Tcp(stream), Address::Socket(plain(peer))))
            }
            Self::Unix(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(true)?;
                let stream = tokio::net::UnixStream::from_std(stream)?;
                let path = peer.as_pathname().map(Into::into).unwrap_or_default();
                Ok((Stream::Unix(stream), Address::Pipe(path)))
            }
        }
    }
}
