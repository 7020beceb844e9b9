//! Termination of transports on accepted connections. No TLS here: an [`Acceptor`] that speaks it brings it.

use std::{
    future::{Future, Ready, ready},
    io,
    time::Duration,
};

use super::{ConnInfo, Io, Prefixed, Security, Stream};
use crate::model::{FilterChain, Name, TransportSocket};

/// Terminates the transport of accepted connections: the counterpart of a [`Connector`](super::Connector).
///
/// The order is Envoy's: the listener filters look at the first bytes (server name and offered protocols of a TLS hello), by
/// which the filter chain is chosen; then the acceptor shakes hands with what that chain's transport socket asks for. What
/// the handshake proves is the connection's [`Security`] from then on. Where a chain demands a client certificate
/// ([`TlsContext::require_client_certificate`](crate::model::TlsContext)) and that names none, the connection is closed: it is
/// not left to the acceptor to demand it.
pub trait Acceptor<I = Stream> {
    /// A connection whose transport is terminated, or that needs none.
    type Io: Io;
    /// Resolves when hands are shaken. The caller bounds the time.
    type Future: Future<Output = Result<Terminated<Self::Io>, AcceptError>>;

    /// Why `transport` cannot be terminated: such connections are closed, never served as plain text. `None`: it can.
    fn refuses(&self, transport: &TransportSocket) -> Option<Name>;

    /// The connection where the chain has no transport to terminate.
    fn plain(&self, io: Prefixed<I>) -> Prefixed<Self::Io>;

    /// Begins to shake hands on a chain with TLS. `io` gives the hello again although the listener filters have read it.
    fn accept(&self, io: Prefixed<I>, on: &Handshake<'_>) -> Self::Future;
}

/// What a handshake is for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Handshake<'a> {
    /// The chosen filter chain; its transport socket says how.
    pub chain: &'a FilterChain,
    /// The connection, with what the listener filters saw of its hello.
    pub conn: &'a ConnInfo,
}

impl<'a> Handshake<'a> {
    /// A handshake for `conn` on `chain`.
    pub fn new(chain: &'a FilterChain, conn: &'a ConnInfo) -> Self {
        Self { chain, conn }
    }
}

/// A connection after its handshake.
#[derive(Debug)]
#[non_exhaustive]
pub struct Terminated<I> {
    /// The bytes inside. [`Io::alpn`] is what was agreed on; it decides the codec where the chain leaves it open.
    pub io: I,
    /// What was proved: the peer's identity, the server name, the protocols.
    pub security: Security,
}

impl<I> Terminated<I> {
    /// `io`, and what is known of its peer now.
    pub fn new(io: I, security: Security) -> Self {
        Self { io, security }
    }
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The socket broke.
    #[error("the connection broke during the handshake")]
    Io(#[from] io::Error),
    /// The peer said or proved the wrong thing.
    #[error("{0}")]
    Handshake(Name),
    /// It took too long.
    #[error("no handshake within {0:?}")]
    Timeout(Duration),
}

/// Terminates nothing: plain connections pass as they are, chains with TLS are closed.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainAcceptor;

impl<I: Io> Acceptor<I> for PlainAcceptor {
    type Io = I;
    type Future = Ready<Result<Terminated<I>, AcceptError>>;

    fn refuses(&self, transport: &TransportSocket) -> Option<Name> {
        match transport {
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

    fn plain(&self, io: Prefixed<I>) -> Prefixed<I> {
        io
    }

    fn accept(&self, _io: Prefixed<I>, on: &Handshake<'_>) -> Self::Future {
        let why = <Self as Acceptor<I>>::refuses(self, &on.chain.transport);
        let why = why.unwrap_or_else(|| "there is nothing to shake hands on".into());
        ready(Err(AcceptError::Handshake(why)))
    }
}
