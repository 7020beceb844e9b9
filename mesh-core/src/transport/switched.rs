//! Exchanges that stop being HTTP: what the pool leaves for the layer that carries their bytes on, and who counts them.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex},
};

use super::Io;
use crate::sync::lock;

/// What the upstream end of a tunnel is. It decides what the end of either direction means, as in Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamKind {
    /// A raw connection, for a CONNECT that ends here.
    Tcp,
    /// An HTTP/1.1 connection after `101`.
    Http1Upgrade,
    /// An HTTP/1.1 connection after the answer to CONNECT.
    Http1Connect,
    /// An HTTP/2 stream.
    Http2,
}

/// The upstream end of a tunnel, in the extensions of the response that agreed to it.
///
/// Except for raw connections the bytes come from hyper, through [`hyper::upgrade::on`].
#[derive(Clone)]
pub(crate) struct Switched(Arc<Mutex<Option<End>>>);

pub(crate) struct End {
    pub(crate) kind: UpstreamKind,
    /// The connection, if it is not hyper's.
    pub(crate) raw: Option<Box<dyn Io>>,
    /// What must live as long as the tunnel.
    pub(crate) held: Option<Box<dyn Any + Send>>,
}

#[cfg(feature = "client")]
impl Switched {
    /// A raw connection.
    pub(crate) fn raw(io: Box<dyn Io>) -> Self {
        Self::of(UpstreamKind::Tcp, Some(io), None)
    }

    /// A connection or stream of hyper; `held` lives as long as the tunnel.
    pub(crate) fn hyper(kind: UpstreamKind, held: Option<Box<dyn Any + Send>>) -> Self {
        Self::of(kind, None, held)
    }

    fn of(kind: UpstreamKind, raw: Option<Box<dyn Io>>, held: Option<Box<dyn Any + Send>>) -> Self {
        Self(Arc::new(Mutex::new(Some(End { kind, raw, held }))))
    }
}

impl Switched {
    /// The end. Only the first caller gets it.
    pub(crate) fn take(&self) -> Option<End> {
        lock(&self.0).take()
    }
}

impl fmt::Debug for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switched").finish_non_exhaustive()
    }
}

/// Counts an upgrade from the request on, in the extensions of the request. It counts until the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Ticket(pub(crate) Arc<dyn Watch>);

/// Who counts upgrades.
pub(crate) trait Watch: Send + Sync {
    /// The request asks for an upgrade that could be forwarded.
    fn asked(&self);

    /// It is allowed.
    fn allowed(&self);

    /// It is not.
    fn refused(&self);

    /// Whether the tunnel can be [cut](super::Cut).
    fn can_cut(&self) -> bool;
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}
