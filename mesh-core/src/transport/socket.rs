//! Socket options, which tokio alone does not set.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use socket2::{SockRef, TcpKeepalive as Keepalive};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::model::{Address, TcpKeepalive};

/// A TCP connection without Nagle's delay.
pub(super) async fn connect_tcp(
    to: SocketAddr,
    from: Option<&Address>,
    keepalive: Option<TcpKeepalive>,
) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_nodelay(true)?;
    if let Some(keepalive) = keepalive {
        set_keepalive(SockRef::from(&socket), keepalive)?;
    }
    if let Some(from) = from.and_then(Address::socket)
        && from.is_ipv4() == to.is_ipv4()
    {
        socket.set_reuseaddr(true)?;
        socket.bind(from)?;
    }
    socket.connect(to).await
}

/// A connection to a Unix socket; a leading `@` names Linux' abstract namespace.
pub(super) async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    match abstract_path(path) {
        Some(path) => UnixStream::connect(path).await,
        None => UnixStream::connect(path).await,
    }
}

/// A path with a leading `@` as tokio and the kernel name the abstract namespace: with a leading NUL.
pub(crate) fn abstract_path(path: &Path) -> Option<PathBuf> {
    use std::{ffi::OsString, os::unix::ffi::*};
    let name = path.as_os_str().as_bytes().strip_prefix(b"@")?;
    Some(OsString::from_vec([b"\0", name].concat()).into())
}

/// Sets TCP keep-alive.
pub(crate) fn set_keepalive(socket: SockRef<'_>, config: TcpKeepalive) -> io::Result<()> {
    let mut keepalive = Keepalive::new();
    if let Some(time) = config.time {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = config.interval {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(probes) = config.probes {
        keepalive = keepalive.with_retries(probes);
    }
    socket.set_tcp_keepalive(&keepalive)
}
