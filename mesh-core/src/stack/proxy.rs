//! The stacks of a proxy's listeners, as what a server asks of its program.

use std::fmt;

use http::{Request, Response};
use hyper::body::Incoming;
use tower_service::Service;

use super::{Outbound, OutboundParts};
use crate::{
    Error,
    body::{RequestBody, ResponseBody},
    pool::{Outgoing, PoolBody},
    server::{Accepted, Factory},
    snapshot::Clusters,
    transport::{Acceptor, Connector, PlainAcceptor, Stream},
};

/// Serves every connection with the stack of its filter chain over one pool. Cheap to clone.
#[derive(Clone)]
pub struct Proxy<L, C, X, A = PlainAcceptor> {
    leaf: L,
    connector: C,
    clusters: Clusters,
    exec: X,
    acceptor: A,
}

impl<L, C, X> Proxy<L, C, X> {
    /// Requests go through `leaf`, a pool's service; TCP chains to `clusters` through `connector`. `exec` starts mirrors.
    pub fn new(leaf: L, connector: C, clusters: Clusters, exec: X) -> Self {
        Self {
            leaf,
            connector,
            clusters,
            exec,
            acceptor: PlainAcceptor,
        }
    }
}

impl<L, C, X, A> Proxy<L, C, X, A> {
    /// Terminates transports with `acceptor` instead.
    #[must_use]
    pub fn acceptor<B>(self, acceptor: B) -> Proxy<L, C, X, B> {
        Proxy {
            leaf: self.leaf,
            connector: self.connector,
            clusters: self.clusters,
            exec: self.exec,
            acceptor,
        }
    }
}

impl<L, C, X, A> fmt::Debug for Proxy<L, C, X, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

impl<L, C, X, A> Factory for Proxy<L, C, X, A>
where
    L: Service<Outgoing<RequestBody<Incoming>>, Response = Response<PoolBody>, Error = Error>
        + Clone
        + Unpin
        + 'static,
    C: Connector + Clone + 'static,
    X: Clone + Unpin + 'static,
    A: Acceptor<Stream> + Clone,
    Outbound<L, X>: Service<
            Request<Incoming>,
            Response = Response<ResponseBody<PoolBody>>,
            Error = std::convert::Infallible,
        >,
{
    type Body = ResponseBody<PoolBody>;
    type Service = Outbound<L, X>;
    type Connector = C;
    type Acceptor = A;

    fn http(&self, accepted: &Accepted) -> Self::Service {
        let http = accepted
            .listener
            .chains()
            .nth(accepted.chain)
            .and_then(|(_, http)| http.cloned())
            .expect("only HTTP chains are served by an HTTP service");
        OutboundParts::new(http, self.leaf.clone(), self.exec.clone())
            .connection(Some(accepted.conn.clone()))
    }

    fn tcp(&self, _accepted: &Accepted) -> Option<(Clusters, C)> {
        Some((self.clusters.clone(), self.connector.clone()))
    }

    fn acceptor(&self) -> &A {
        &self.acceptor
    }
}
