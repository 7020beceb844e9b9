//! The stack of one worker: its pool, and a service for each connection.

use http::{Request, Response};
use hyper::body::Incoming;
use mesh_core::{
    body::{RequestBody, ResponseBody},
    pool::{Pool, PoolBody},
    server::{self, Accepted, Factory, ListenerHandle, Socket},
    snapshot::Clusters,
    stack::{Outbound, OutboundParts},
    transport::{TcpConnector, TokioExec},
};
use tower_service::Service;

/// Makes the services of a worker's connections over the worker's pool `L`.
#[derive(Clone)]
pub(crate) struct Traffic<L> {
    leaf: L,
    clusters: Clusters,
}

/// The stack of a new worker: accepts on sockets, on the runtime of the caller.
pub(crate) fn worker(clusters: Clusters) -> impl Fn(Socket, ListenerHandle) {
    let pool: Pool<TcpConnector, RequestBody<Incoming>> = Pool::new(TcpConnector);
    let factory = Traffic {
        leaf: pool.service(),
        clusters,
    };
    move |socket, listener| {
        let name = listener.name().clone();
        let accepting = server::serve(socket, listener, factory.clone(), TokioExec);
        tokio::spawn(async move {
            if let Err(error) = accepting.await {
                tracing::error!(listener = %name, %error, "A socket cannot be accepted on");
            }
        });
    }
}

impl<L> Factory for Traffic<L>
where
    L: Clone,
    Outbound<L>: Service<Request<Incoming>, Response = Response<ResponseBody<PoolBody>>>
        + Clone
        + Unpin
        + 'static,
    <Outbound<L> as Service<Request<Incoming>>>::Error: Into<mesh_core::BoxError>,
{
    type Body = ResponseBody<PoolBody>;
    type Service = Outbound<L>;
    type Connector = TcpConnector;

    fn http(&self, accepted: &Accepted) -> Self::Service {
        let http = accepted
            .listener
            .chains()
            .nth(accepted.chain)
            .and_then(|(_, http)| http.cloned());
        let http = http.expect("the server asks for HTTP services on HTTP chains only");
        OutboundParts::new(http, self.leaf.clone(), TokioExec)
            .connection(Some(accepted.conn.clone()))
    }

    fn tcp(&self, _accepted: &Accepted) -> Option<(Clusters, TcpConnector)> {
        Some((self.clusters.clone(), TcpConnector))
    }
}
