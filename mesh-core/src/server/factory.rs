//! What the program brings: a service for each connection.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tower_service::Service;

use crate::{
    BoxError, model,
    snapshot::{self, Clusters},
    transport::{Acceptor, ConnInfo, Connector, PlainAcceptor, Prefixed, Stream, TcpConnector},
};

/// A connection that a filter chain took.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Accepted {
    /// The listener as it is now. The connection is served by this version to its end; a changed one lets it go.
    pub listener: Arc<snapshot::Listener>,
    /// Index of the filter chain in [`snapshot::Listener::chains`].
    pub chain: usize,
    /// The connection.
    pub conn: Arc<ConnInfo>,
}

impl Accepted {
    /// The filter chain.
    pub fn filter_chain(&self) -> &model::FilterChain {
        filter_chain(&self.listener, self.chain)
    }
}

pub(super) fn filter_chain(listener: &snapshot::Listener, index: usize) -> &model::FilterChain {
    listener
        .chain(index)
        .expect("a chain is chosen among those of its listener")
}

/// Makes the services of connections. Cloned for each connection, so it should be an `Arc` or small.
///
/// A closure from [`Accepted`] to a service is a factory too; TCP chains are refused there.
pub trait Factory: Clone {
    /// Body of responses.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + 'static;
    /// Serves the requests of one connection. It should be always ready: one that is not is cloned and waited for.
    type Service: Service<Request<Incoming>, Response = Response<Self::Body>, Error: Into<BoxError>>
        + Clone
        + Unpin
        + 'static;
    /// Makes the upstream connections of TCP chains.
    type Connector: Connector + Clone + 'static;
    /// Terminates the transports of connections.
    type Acceptor: Acceptor<Stream>;

    /// The service of a connection on an HTTP chain.
    fn http(&self, accepted: &Accepted) -> Self::Service;

    /// Where the TCP chains' clusters are, and how they are reached; `None`: such connections are closed.
    fn tcp(&self, accepted: &Accepted) -> Option<(Clusters, Self::Connector)>;

    /// How transports are terminated: [`PlainAcceptor`] for those who speak no TLS.
    fn acceptor(&self) -> &Self::Acceptor;
}

/// A connection of `F`, its transport terminated, maybe with bytes that were read already.
pub(super) type RawOf<F> = Prefixed<IoOf<F>>;
/// What the acceptor of `F` makes of sockets.
pub(super) type IoOf<F> = <<F as Factory>::Acceptor as Acceptor<Stream>>::Io;
/// The handshake of the acceptor of `F`.
pub(super) type HandshakeOf<F> = <<F as Factory>::Acceptor as Acceptor<Stream>>::Future;

impl<F, S, B> Factory for F
where
    F: Fn(&Accepted) -> S + Clone,
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + Unpin
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + 'static,
{
    type Body = B;
    type Service = S;
    type Connector = TcpConnector;
    type Acceptor = PlainAcceptor;

    fn http(&self, accepted: &Accepted) -> S {
        self(accepted)
    }

    fn tcp(&self, _accepted: &Accepted) -> Option<(Clusters, TcpConnector)> {
        None
    }

    fn acceptor(&self) -> &PlainAcceptor {
        &PlainAcceptor
    }
}
