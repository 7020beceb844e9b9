//! What is known of a downstream connection: made once by the server, then shared by its requests.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use crate::model::{Address, Direction, Name};

/// A downstream connection as its requests and log lines see it. Shared behind an `Arc`; never changes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnInfo {
    /// Unique in the process.
    pub id: u64,
    /// Name of the listener.
    pub listener: Name,
    /// Direction of the listener.
    pub direction: Direction,
    /// Name of the filter chain; empty if it has none, or none was found.
    pub filter_chain: Name,
    /// The address that the connection was meant for, as far as known: the original destination, the destination in a PROXY
    /// protocol header, else the socket's own.
    pub local: Address,
    /// The client: the source in a PROXY protocol header, else the socket's peer.
    pub peer: Address,
    /// The socket's peer.
    pub direct_peer: Address,
    /// The destination before redirection, if it was looked up.
    pub original_dst: Option<SocketAddr>,
    /// [`ConnInfo::local`] is not the socket's own: a listener filter found where the connection was meant to go.
    #[cfg(feature = "net")]
    pub(crate) restored: bool,
    /// What the first bytes showed, or what was terminated.
    pub security: Security,
    /// When it was accepted.
    pub started: Instant,
    /// The same for log lines.
    pub started_at: SystemTime,
    #[cfg(feature = "net")]
    pub(crate) timer: super::ConnTimer,
    /// The peer has closed it, or it is being closed.
    pub(crate) gone: Arc<AtomicBool>,
}

/// What is known of a connection's transport.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Security {
    /// The bytes are TLS (seen by the TLS inspector or terminated here).
    pub tls: bool,
    /// Server name of the TLS hello, lower case.
    pub server_name: Option<Name>,
    /// Application protocols that the client offered in its TLS hello, or what the HTTP inspector found: `http/1.0`, `http/1.1`,
    /// `h2c`.
    pub application_protocols: Vec<Name>,
    /// Identity in the peer's verified certificate. Set by acceptors that terminate mutual TLS.
    pub peer_identity: Option<Name>,
}

impl ConnInfo {
    /// A connection from `peer` to `local`, accepted now, of an unnamed listener.
    pub fn new(local: Address, peer: Address) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            listener: "".into(),
            direction: Direction::Unspecified,
            filter_chain: "".into(),
            local,
            direct_peer: peer.clone(),
            peer,
            original_dst: None,
            #[cfg(feature = "net")]
            restored: false,
            security: Security::default(),
            started: Instant::now(),
            started_at: SystemTime::now(),
            #[cfg(feature = "net")]
            timer: super::ConnTimer::default(),
            gone: Arc::default(),
        }
    }

    #[cfg(feature = "server")]
    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Whether the peer has closed the connection, or it is being closed.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The connection's timer, for deadlines of its requests.
    #[cfg(feature = "net")]
    pub fn timer(&self) -> &super::ConnTimer {
        &self.timer
    }
}
