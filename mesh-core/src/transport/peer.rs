//! What is known of a downstream connection: made once by the server, then shared by its requests.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
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
    /// Where the connection was meant to go, if a listener filter found that out: the destination before redirection, or that in
    /// a PROXY protocol header.
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
    pub(crate) fate: Arc<Fate>,
}

/// An upstream connection as log lines see it.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamConn {
    /// Our own address; `None`: a Unix socket.
    pub(crate) local: Option<SocketAddr>,
    /// HTTP/1.1 or HTTP/2; `None`: raw bytes.
    pub(crate) protocol: Option<&'static str>,
    /// Unique among the upstream connections of the process; 0: it has none.
    pub(crate) id: u64,
}

/// What became of a connection and its streams.
#[derive(Debug)]
pub(crate) struct Fate {
    /// The peer has closed it, or it is being closed.
    gone: AtomicBool,
    /// Streams that the peer reset and whose requests have not ended yet; [`UNKNOWN`] where nobody counts.
    resets: AtomicU32,
    /// Trailers of its requests end here.
    bare: AtomicBool,
    /// Where interim responses go, if the client gets to see them.
    #[cfg(feature = "net")]
    interims: std::sync::OnceLock<Arc<super::Interims>>,
}

/// Resets are not counted.
const UNKNOWN: u32 = u32::MAX;

impl Default for Fate {
    fn default() -> Self {
        Self {
            gone: AtomicBool::new(false),
            resets: AtomicU32::new(UNKNOWN),
            bare: AtomicBool::new(false),
            #[cfg(feature = "net")]
            interims: std::sync::OnceLock::new(),
        }
    }
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
    /// The peer showed a certificate that was verified, with an identity in it or without. Set by acceptors that terminate
    /// mutual TLS; default false.
    pub peer_certificate: bool,
    /// Identity in the peer's verified certificate. Set by acceptors that terminate mutual TLS.
    pub peer_identity: Option<Name>,
}

impl Security {
    /// Whether the peer's certificate was verified.
    pub fn is_mutual(&self) -> bool {
        self.peer_certificate || self.peer_identity.is_some()
    }
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
            started: crate::telemetry::clock::now(),
            started_at: crate::world::wall(),
            #[cfg(feature = "net")]
            timer: super::ConnTimer::default(),
            fate: Arc::default(),
        }
    }

    #[cfg(feature = "server")]
    pub(crate) fn set_gone(&self) {
        self.fate.gone.store(true, Ordering::Release);
    }

    /// Whether the peer has closed the connection, or it is being closed.
    pub(crate) fn is_gone(&self) -> bool {
        self.fate.gone.load(Ordering::Acquire)
    }

    /// From now on the peer's resets are counted.
    #[cfg(feature = "server")]
    pub(crate) fn count_resets(&self) {
        self.fate.resets.store(0, Ordering::Relaxed);
    }

    /// The peer reset streams.
    #[cfg(feature = "server")]
    pub(crate) fn add_resets(&self, count: u32) {
        self.fate.resets.fetch_add(count, Ordering::Relaxed);
    }

    /// Whether a stream that broke off may be one that the peer reset.
    pub(crate) fn has_resets(&self) -> bool {
        self.fate.resets.load(Ordering::Relaxed) > 0
    }

    /// The request of a stream that the peer reset has ended.
    pub(crate) fn take_reset(&self) {
        let less = |count| match count {
            0 | UNKNOWN => None,
            count => Some(count - 1),
        };
        let resets = &self.fate.resets;
        // That there was none is no failure: the answer is the same.
        let _ = resets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Trailers of its requests are not sent on.
    #[cfg(feature = "server")]
    pub(crate) fn drop_trailers(&self) {
        self.fate.bare.store(true, Ordering::Relaxed);
    }

    /// Whether trailers of its requests are not sent on.
    pub(crate) fn drops_trailers(&self) -> bool {
        self.fate.bare.load(Ordering::Relaxed)
    }

    /// Where interim responses go, if the client gets to see them.
    #[cfg(feature = "net")]
    pub(crate) fn interims(&self) -> Option<&Arc<super::Interims>> {
        self.fate.interims.get()
    }

    /// Interim responses go to `interims`.
    #[cfg(feature = "server")]
    pub(crate) fn pass_interims(&self, interims: Arc<super::Interims>) {
        // A connection has one codec, so this is said once.
        let _ = self.fate.interims.set(interims);
    }

    /// The connection's timer, for deadlines of its requests.
    #[cfg(feature = "net")]
    pub(crate) fn timer(&self) -> &super::ConnTimer {
        &self.timer
    }
}
