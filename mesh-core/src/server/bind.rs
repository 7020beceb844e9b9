//! Listening sockets.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use socket2::{Domain, Protocol, SockAddr, Type};
use tokio::sync::Notify;

use crate::{
    model::{self, Address},
    transport::abstract_path,
};

/// How a socket is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindOptions {
    /// One accept queue a worker (`SO_REUSEPORT`); default true. Has no effect on Unix sockets.
    pub reuse_port: bool,
    /// Length of the kernel's accept queue; default 4,096, which the kernel bounds.
    pub backlog: u32,
    /// Connections for foreign addresses are accepted (`IP_TRANSPARENT`); needs the privilege for it. Default false.
    pub transparent: bool,
    /// An IPv6 wildcard socket takes IPv4 connections too; default false.
    pub ipv4_compat: bool,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self {
            reuse_port: true,
            backlog: 4096,
            transparent: false,
            ipv4_compat: false,
        }
    }
}

impl From<&model::Listener> for BindOptions {
    fn from(listener: &model::Listener) -> Self {
        let default = Self::default();
        Self {
            reuse_port: listener.enable_reuse_port,
            backlog: listener.tcp_backlog.unwrap_or(default.backlog),
            transparent: listener.transparent,
            ipv4_compat: listener.ipv4_compat,
        }
    }
}

/// A listening socket. Closed on drop; the file of a Unix socket goes with the last of its sockets.
#[derive(Debug)]
pub struct Socket {
    pub(super) inner: Inner,
    address: Address,
    options: BindOptions,
    file: Option<Arc<SocketFile>>,
    pub(super) door: Door,
}

/// What the sockets of one address have in common: whether they still accept. Cloning shares.
#[derive(Clone, Debug, Default)]
pub(super) struct Door(Arc<(AtomicBool, Notify)>);

impl Door {
    /// Stops accepting, after the connections that wait.
    pub(super) fn close(&self) {
        let (closed, changed) = &*self.0;
        closed.store(true, Ordering::Release);
        changed.notify_waiters();
    }

    /// Waits until it is closed.
    pub(super) async fn closing(&self) {
        let (closed, changed) = &*self.0;
        let waiting = changed.notified();
        tokio::pin!(waiting);
        // From here on no notice is missed.
        waiting.as_mut().enable();
        if !closed.load(Ordering::Acquire) {
            waiting.await;
        }
    }
}

#[derive(Debug)]
pub(super) enum Inner {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Socket {
    /// Where it listens, with the port that the system chose if 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A socket for a further worker: with an accept queue of its own if this one shares its port, else on the same queue.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn another(&self) -> io::Result<Self> {
        let inner = match (&self.inner, self.address.socket()) {
            (Inner::Tcp(_), Some(addr)) if self.options.reuse_port => {
                let socket = open(addr, &self.options)?;
                socket.set_reuse_port(true)?;
                socket.bind(&addr.into())?;
                listen(&socket, &self.options)?;
                Inner::Tcp(socket.into())
            }
            (Inner::Tcp(listener), _) => Inner::Tcp(listener.try_clone()?),
            (Inner::Unix(listener), _) => Inner::Unix(listener.try_clone()?),
        };
        Ok(Self {
            inner,
            address: self.address.clone(),
            options: self.options,
            file: self.file.clone(),
            door: self.door.clone(),
        })
    }
}

/// Opens a socket on `address`.
///
/// The port is taken exclusively first, even if further sockets will share it: else a second process with
/// `SO_REUSEPORT` would share it unseen.
///
/// # Errors
///
/// `AddrInUse` if somebody listens there already, `InvalidInput` for a host name, and what else the system says.
pub fn bind(address: &Address, options: &BindOptions) -> io::Result<Socket> {
    match address {
        Address::Socket(addr) => bind_tcp(*addr, options, false),
        Address::Pipe(path) => bind_unix(path, options),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{address} is no address to listen on"),
        )),
    }
}

/// Opens a socket on an address that this process listens on already, as it is about to give it up there. Without
/// [`BindOptions::reuse_port`] on both sides the system refuses.
pub(super) fn bind_beside(address: &Address, options: &BindOptions) -> io::Result<Socket> {
    match address {
        Address::Socket(addr) if options.reuse_port => bind_tcp(*addr, options, true),
        _ => bind(address, options),
    }
}

fn bind_tcp(addr: SocketAddr, options: &BindOptions, beside: bool) -> io::Result<Socket> {
    let socket = open(addr, options)?;
    if beside {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    if options.reuse_port {
        // Sharing is allowed only after the exclusive bind has shown that nobody else is there.
        socket.set_reuse_port(true)?;
    }
    listen(&socket, options)?;
    let listener: std::net::TcpListener = socket.into();
    let address = Address::Socket(listener.local_addr()?);
    Ok(Socket {
        inner: Inner::Tcp(listener),
        address,
        options: *options,
        file: None,
        door: Door::default(),
    })
}

fn open(addr: SocketAddr, options: &BindOptions) -> io::Result<socket2::Socket> {
    let socket =
        socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // On Unix this only lets a port be taken whose old connections are still in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!options.ipv4_compat)?;
    }
    #[cfg(target_os = "linux")]
    if options.transparent {
        match addr {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "transparent sockets are IPv4 only here",
                ));
            }
        }
    }
    Ok(socket)
}

fn listen(socket: &socket2::Socket, options: &BindOptions) -> io::Result<()> {
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))
}

fn bind_unix(path: &Path, options: &BindOptions) -> io::Result<Socket> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let file = match abstract_path(path) {
        Some(name) => {
            socket.bind(&SockAddr::unix(name)?)?;
            None
        }
        None => {
            remove_stale(path)?;
            socket.bind(&SockAddr::unix(path)?)?;
            Some(Arc::new(SocketFile::new(path)))
        }
    };
    listen(&socket, options)?;
    Ok(Socket {
        inner: Inner::Unix(socket.into()),
        address: Address::Pipe(path.into()),
        options: *options,
        file,
        door: Door::default(),
    })
}

/// Removes a socket file that nobody listens on any more. Anything else in its place stays, and binding fails.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

/// The file of a Unix socket, removed on drop if it is still the one that was made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    id: Option<(u64, u64)>,
}

impl SocketFile {
    fn new(path: &Path) -> Self {
        Self {
            path: path.into(),
            id: file_id(path),
        }
    }
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some()
            && file_id(&self.path) == self.id
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "A socket file stays behind");
        }
    }
}
